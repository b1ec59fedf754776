"""What `run_tool` makes of an attempt: the outcome over all attempts, and whether Temporal may repeat it."""

import asyncio
import dataclasses
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from mandate.activities.stores.base import StoreUnavailable
from mandate.activities.tool import ToolActivities
from mandate.activities.tool_error import ToolError
from mandate.activities.toolbox.base import CallContext, ToolText
from mandate.activities.transcript.blobs import Blobs
from mandate.activities.transcript.log import TranscriptLog
from mandate.activities.transcript.pinned_agents import PinnedAgents
from mandate.workers.converter import SlimJsonConverter
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.base import JsonObject, canonical_json
from mandate.workflows.contracts.budget import Budget
from mandate.workflows.contracts.failures import FailureType, Outcome, ToolFailure
from mandate.workflows.contracts.tool import Effect, PythonBinding, Tool, ToolDefinition, ToolRequest, ToolResult
from mandate.workflows.contracts.transcript import AssistantMessage, CallPart, TextPart, UserMessage
from tests.support.memory_store import MemoryStore


class Box:
    """Answers or fails as it is told."""

    def __init__(self, answer: ToolText | Exception) -> None:
        self.answer = answer
        self.contexts: list[CallContext] = []

    async def call(self, definition: ToolDefinition, arguments: JsonObject, context: CallContext) -> ToolText:
        self.contexts.append(context)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def close(self) -> None:
        pass


KEY = "k" * 43


async def attempt(
    answer: ToolText | Exception | Box,
    effect: Effect,
    *,
    number: int = 1,
    details: tuple[Any, ...] = (),
    store: MemoryStore | None = None,
    key_valid: timedelta | None = None,
    began_after: timedelta = timedelta(0),
    heartbeat: timedelta = timedelta(seconds=5),
    agents: type[PinnedAgents] = PinnedAgents,
    key: str = KEY,
    instead_of: str | None = None,
) -> tuple[ToolResult | ApplicationError, list[tuple[Any, ...]]]:
    """One attempt of a tool, and the heartbeats that it sent."""
    definition = ToolDefinition(
        tool=Tool(name="act", source="python", effect=effect, key_valid=key_valid),
        input_schema={"type": "object"},
        binding=PythonBinding(kind="python", function="a:b"),
    )
    pinned = PinnedAgent(
        name="a", instructions="i", models=("scripted:x",), tools=(definition,), policy=(), attempts=3,
        budget=Budget(), output_schema=None, max_output_tokens=10,
    )  # fmt: skip
    blobs = Blobs(store or MemoryStore())
    (agent,) = await blobs.put(canonical_json(pinned.model_dump(mode="json")))
    log = TranscriptLog(blobs)
    chain = await log.start(agent, UserMessage(role="user", parts=(TextPart(kind="text", text="go"),)))
    call = CallPart(kind="call", call_id="c1", tool="act", arguments="{}")
    chain = await log.append(
        chain, agent, [AssistantMessage(role="assistant", parts=(call,), protocol="scripted", model="x")]
    )
    box = answer if isinstance(answer, Box) else Box(answer)
    activities = ToolActivities({"python": box}, agents(blobs), log)
    environment = ActivityEnvironment()
    usual = ActivityEnvironment.default_info()
    environment.info = dataclasses.replace(
        usual,
        attempt=number,
        started_time=usual.scheduled_time + began_after,
        heartbeat_details=list(details),
        heartbeat_timeout=heartbeat,
    )
    beats: list[tuple[Any, ...]] = []
    environment.on_heartbeat = lambda *beat: beats.append(beat)
    request = ToolRequest(agent=agent, head=chain.head, step=1, key=key, instead_of=instead_of)
    try:
        return await environment.run(activities.run_tool, request), beats
    except ApplicationError as error:
        return error, beats


NOT_SENT, NOT_DONE, UNKNOWN = Outcome.NOT_SENT, Outcome.NOT_DONE, Outcome.UNKNOWN
BUSY = ToolError(NOT_DONE, "why", retry_after=3.0)
REFUSED = ToolError(NOT_DONE, "why", is_of_key=False)


@pytest.mark.parametrize(
    ("effect", "number", "details", "raised", "known", "repeated"),
    [
        # first attempts
        (Effect.READ, 1, (), UNKNOWN, UNKNOWN, True),
        (Effect.READ, 1, (), NOT_DONE, NOT_DONE, False),
        (Effect.KEYED, 1, (), UNKNOWN, UNKNOWN, True),
        (Effect.KEYED, 1, (), NOT_SENT, NOT_SENT, True),
        (Effect.KEYED, 1, (), NOT_DONE, NOT_DONE, False),
        (Effect.IDEMPOTENT, 1, (), UNKNOWN, UNKNOWN, True),
        (Effect.ONCE, 1, (), UNKNOWN, UNKNOWN, False),
        (Effect.ONCE, 1, (), NOT_SENT, NOT_SENT, False),
        (Effect.ONCE, 1, (), NOT_DONE, NOT_DONE, False),
        # the first attempt was refused a connection, and so was the second: nothing was ever sent
        (Effect.KEYED, 2, ("mandate:failed", 1, 1, False, ""), NOT_SENT, NOT_SENT, True),
        # the same number sent by the tool itself says nothing
        (Effect.KEYED, 2, (1,), NOT_SENT, UNKNOWN, True),
        # the first lost its reply and the second was refused a connection: it may have happened
        (Effect.KEYED, 2, (), NOT_SENT, UNKNOWN, True),
        # the same of an attempt that may have acted
        (Effect.KEYED, 2, ("mandate:failed", 1, 1, True, ""), NOT_SENT, UNKNOWN, True),
        # the first was refused, the second was lost with its worker, the third was refused
        (Effect.KEYED, 3, ("mandate:failed", 1, 1, False, ""), NOT_SENT, UNKNOWN, True),
        (Effect.IDEMPOTENT, 2, (), NOT_SENT, UNKNOWN, True),
        # a definite answer to this key clears what was unknown
        (Effect.KEYED, 2, (), NOT_DONE, NOT_DONE, False),
        # without a key, "no such row" may be the effect of the attempt that was lost
        (Effect.IDEMPOTENT, 2, (), NOT_DONE, UNKNOWN, False),
        (Effect.IDEMPOTENT, 2, ("mandate:failed", 1, 1, False, ""), NOT_DONE, NOT_DONE, False),
        # asked to wait, refused by whoever looks before the key: nothing is said of the attempt that was lost
        (Effect.KEYED, 2, (), BUSY, UNKNOWN, True),
        (Effect.KEYED, 2, (), REFUSED, UNKNOWN, False),
        (Effect.KEYED, 1, (), BUSY, NOT_DONE, True),
        (Effect.KEYED, 1, (), REFUSED, NOT_DONE, False),
        (Effect.KEYED, 2, ("mandate:failed", 1, 1, False, ""), BUSY, NOT_DONE, True),
        (Effect.READ, 2, (), REFUSED, NOT_DONE, False),
        # for a read it does not matter
        (Effect.READ, 2, (), NOT_SENT, NOT_SENT, True),
    ],
)
async def test_outcome_over_attempts(
    effect: Effect, number: int, details: tuple[Any, ...], raised: Outcome | ToolError, known: Outcome, repeated: bool
) -> None:
    failed = raised if isinstance(raised, ToolError) else ToolError(raised, "why")

    error, _ = await attempt(failed, effect, number=number, details=details)

    assert isinstance(error, ApplicationError)
    told = ToolFailure(outcome=known, reason="why", attempts=number, passing=raised is BUSY)
    assert ToolFailure.model_validate(error.details[0]) == told
    assert error.non_retryable is not repeated


@pytest.mark.parametrize(
    ("failed", "number", "details", "left"),
    [
        (ToolError(NOT_SENT, "no connection"), 1, (), [("mandate:failed", 1, 1, False, "")]),
        (BUSY, 1, (), [("mandate:failed", 1, 1, False, "")]),
        (BUSY, 2, ("mandate:failed", 1, 1, False, ""), [("mandate:failed", 2, 2, False, "")]),
        (BUSY, 2, (), [("mandate:failed", 2, 1, True, "")]),
        (BUSY, 3, ("mandate:failed", 1, 1, False, ""), [("mandate:failed", 3, 1, True, "")]),
        (BUSY, 3, ("mandate:failed", 2, 1, True, ""), [("mandate:failed", 3, 2, True, "")]),
        (ToolError(UNKNOWN, "cut"), 1, (), [("mandate:failed", 1, 1, True, "")]),
    ],
)
async def test_a_failed_attempt_leaves_its_number_and_what_is_known_for_the_next(
    failed: ToolError, number: int, details: tuple[Any, ...], left: list[tuple[Any, ...]]
) -> None:
    _, beats = await attempt(failed, Effect.KEYED, number=number, details=details)

    assert beats == left


@pytest.mark.parametrize(
    ("effect", "number", "details", "is_of_key", "known"),
    [
        (Effect.KEYED, 2, (), True, None),
        (Effect.KEYED, 2, (), False, UNKNOWN),
        (Effect.KEYED, 2, ("mandate:failed", 1, 1, False, ""), False, None),
        (Effect.KEYED, 1, (), False, None),
        (Effect.IDEMPOTENT, 2, (), True, UNKNOWN),
        (Effect.IDEMPOTENT, 2, ("mandate:failed", 1, 1, False, ""), True, None),
        (Effect.READ, 2, (), False, None),
    ],
)
async def test_a_refusal_in_the_servers_words_says_only_so_much_of_attempts_before(
    effect: Effect, number: int, details: tuple[Any, ...], is_of_key: bool, known: Outcome | None
) -> None:
    refusal = ToolText("HTTP 401", error=True, is_of_key=is_of_key)

    result, _ = await attempt(refusal, effect, number=number, details=details)

    if known is None:
        assert result == ToolResult(text="HTTP 401", error=True, attempts=number, quick=effect is Effect.READ)
    else:
        assert failure_of(result) == (known, "HTTP 401", False)


async def test_short_results_are_inline_and_long_ones_by_reference() -> None:
    short, _ = await attempt(ToolText("x" * 128), Effect.READ)
    long, _ = await attempt(ToolText("x" * 129), Effect.READ)

    assert short == ToolResult(text="x" * 128, quick=True)
    assert isinstance(long, ToolResult)
    assert (long.text, long.size, long.preview) == (None, 129, "x" * 60)


async def test_a_definite_retry_after_makes_not_done_worth_another_attempt() -> None:
    error, _ = await attempt(ToolError(NOT_DONE, "busy", retry_after=3.0), Effect.KEYED)

    assert isinstance(error, ApplicationError)
    assert not error.non_retryable
    assert error.next_retry_delay == timedelta(seconds=3)


BEGUN_BEFORE = "the call was begun before, and what became of it then is not known; it was not made again"


def failure_of(result: ToolResult | ApplicationError) -> tuple[Outcome, str, bool]:
    """What a failed attempt says, and whether Temporal may repeat it."""
    assert isinstance(result, ApplicationError)
    failure = ToolFailure.model_validate(result.details[0])
    return failure.outcome, failure.reason, not result.non_retryable


async def test_once_call_is_in_the_ledger_before_it_acts() -> None:
    store = MemoryStore()

    class Looking(Box):
        async def call(self, definition: ToolDefinition, arguments: JsonObject, context: CallContext) -> ToolText:
            assert store.claims == [context.idempotency_key] == [KEY]
            return await super().call(definition, arguments, context)

    result, _ = await attempt(Looking(ToolText("sent")), Effect.ONCE, store=store)

    assert result == ToolResult(text="sent")


async def test_once_call_that_is_in_the_ledger_does_not_act_again() -> None:
    store, box = MemoryStore(), Box(ToolText("sent"))
    await attempt(box, Effect.ONCE, store=store)

    again, beats = await attempt(box, Effect.ONCE, store=store)

    assert failure_of(again) == (UNKNOWN, BEGUN_BEFORE, False)
    assert len(box.contexts) == 1
    assert beats == []


@pytest.mark.parametrize("raised", [NOT_SENT, NOT_DONE, UNKNOWN])
async def test_ledger_keeps_calls_whatever_became_of_them(raised: Outcome) -> None:
    store, box = MemoryStore(), Box(ToolError(raised, "why"))
    await attempt(box, Effect.ONCE, store=store)

    again, _ = await attempt(box, Effect.ONCE, store=store)

    assert failure_of(again)[0] is UNKNOWN
    assert len(box.contexts) == 1


async def test_once_call_that_cannot_be_entered_is_not_sent() -> None:
    class Failing(MemoryStore):
        async def claim(self, key: str) -> bool:
            raise StoreUnavailable("the store mandate.db cannot be written")

    box = Box(ToolText("sent"))

    result, _ = await attempt(box, Effect.ONCE, store=Failing())

    assert failure_of(result) == (NOT_SENT, "the store mandate.db cannot be written", False)
    assert box.contexts == []


async def test_attempt_that_was_replaced_does_not_act_however_late_it_comes() -> None:
    """A worker that was frozen before it entered its call, and wakes after a person had it made again."""
    store, box = MemoryStore(), Box(ToolText("sent"))
    again, _ = await attempt(box, Effect.ONCE, store=store, key="n" * 43, instead_of=KEY)

    late, _ = await attempt(box, Effect.ONCE, store=store)

    assert again == ToolResult(text="sent")
    assert failure_of(late) == (UNKNOWN, BEGUN_BEFORE, False)
    assert [context.idempotency_key for context in box.contexts] == ["n" * 43]


async def test_attempt_in_place_of_one_that_was_entered_acts() -> None:
    store, box = MemoryStore(), Box(ToolText("sent"))
    await attempt(box, Effect.ONCE, store=store)

    again, _ = await attempt(box, Effect.ONCE, store=store, key="n" * 43, instead_of=KEY)

    assert again == ToolResult(text="sent")


@pytest.mark.parametrize(
    ("effect", "calls"), [(Effect.READ, 1), (Effect.IDEMPOTENT, 0), (Effect.KEYED, 0), (Effect.ONCE, 0)]
)
async def test_worker_that_stood_still_does_not_act_when_it_wakes(effect: Effect, calls: int) -> None:
    class Frozen(PinnedAgents):
        """The whole process stands still before it has read the agent."""

        async def get(self, digest: str) -> PinnedAgent:
            await asyncio.sleep(0)
            time.sleep(0.15)
            await asyncio.sleep(0)
            return await super().get(digest)

    box = Box(ToolText("done"))

    result, _ = await attempt(box, effect, agents=Frozen, heartbeat=timedelta(milliseconds=100))

    assert len(box.contexts) == calls
    if not calls:
        assert failure_of(result)[:2] == (
            NOT_SENT,
            "this worker stood still for so long that the attempt was given up",
        )


@pytest.mark.parametrize("effect", [Effect.READ, Effect.IDEMPOTENT, Effect.KEYED])
async def test_calls_that_may_be_repeated_are_not_in_the_ledger(effect: Effect) -> None:
    store = MemoryStore()

    await attempt(ToolText("done"), effect, store=store)

    assert store.claims == []


HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
FORGOTTEN = "the other side may have forgotten the idempotency key by now"


@pytest.mark.parametrize(
    ("effect", "number", "details", "began_after", "known"),
    [
        # on time, to the second
        (Effect.KEYED, 2, (), HOUR, None),
        # the first attempt waited too long for a worker: nothing was sent
        (Effect.KEYED, 1, (), HOUR + SECOND, NOT_SENT),
        # attempt 1 may have acted, and a repetition could act again
        (Effect.KEYED, 2, (), HOUR + SECOND, UNKNOWN),
        # attempt 1 is known to have sent nothing
        (Effect.KEYED, 2, ("mandate:failed", 1, 1, False, ""), HOUR + SECOND, NOT_SENT),
        # attempt 1 sent nothing, attempt 2 was lost
        (Effect.KEYED, 3, ("mandate:failed", 1, 1, False, ""), HOUR + SECOND, UNKNOWN),
        # no key is sent
        (Effect.IDEMPOTENT, 2, (), HOUR + SECOND, None),
    ],
)
async def test_no_attempt_acts_after_its_key_may_be_forgotten(
    effect: Effect, number: int, details: tuple[Any, ...], began_after: timedelta, known: Outcome | None
) -> None:
    box = Box(ToolText("paid"))

    result, _ = await attempt(box, effect, number=number, details=details, key_valid=HOUR, began_after=began_after)

    assert len(box.contexts) == (1 if known is None else 0)
    if known is None:
        assert result == ToolResult(text="paid", attempts=number)
    else:
        assert failure_of(result) == (known, FORGOTTEN, False)


async def test_a_result_says_which_attempt_brought_it() -> None:
    first, _ = await attempt(ToolText("paid"), Effect.KEYED)
    third, _ = await attempt(ToolText("x" * 200), Effect.KEYED, number=3)

    assert isinstance(first, ToolResult)
    assert isinstance(third, ToolResult)
    assert (first.attempts, third.attempts) == (1, 3)


async def test_first_attempts_travel_without_their_number() -> None:
    result, _ = await attempt(ToolText("paid"), Effect.KEYED)
    failed, _ = await attempt(ToolError(UNKNOWN, "why"), Effect.KEYED)

    payload = SlimJsonConverter().to_payload(result)
    assert payload is not None
    assert payload.data == b'{"text":"paid"}'
    assert isinstance(failed, ApplicationError)
    details = SlimJsonConverter().to_payload(failed.details[0])
    assert details is not None
    assert details.data == b'{"outcome":"unknown","reason":"why"}'


async def test_once_call_whose_result_the_store_does_not_take_was_done() -> None:
    class Full(MemoryStore):
        async def put(self, blobs: Mapping[str, bytes]) -> None:
            if self.claims:
                raise StoreUnavailable("the disk is full")
            await super().put(blobs)

    result, _ = await attempt(ToolText("x" * 500), Effect.ONCE, store=Full())

    assert result == ToolResult(text="done, but its result was lost: the store did not take it", stands_in=True)


@pytest.mark.parametrize(("number", "is_done"), [(1, False), (2, False), (3, True)])
async def test_keyed_call_whose_result_is_lost_is_asked_for_again_and_was_done_in_the_end(
    number: int, is_done: bool
) -> None:
    class Full(MemoryStore):
        full = False

        async def put(self, blobs: Mapping[str, bytes]) -> None:
            if self.full:
                raise StoreUnavailable("the disk is full")
            await super().put(blobs)

    class Filling(Box):
        async def call(self, definition: ToolDefinition, arguments: JsonObject, context: CallContext) -> ToolText:
            store.full = True
            return await super().call(definition, arguments, context)

    store = Full()

    result, _ = await attempt(Filling(ToolText("x" * 500)), Effect.KEYED, store=store, number=number)

    if is_done:
        lost = "done, but its result was lost: the store did not take it"
        assert result == ToolResult(text=lost, stands_in=True, attempts=3)
    else:
        assert failure_of(result) == (UNKNOWN, "the disk is full", True)


@pytest.mark.parametrize(("number", "seconds"), [(1, 0.2), (2, 0.8), (3, 3.2), (9, 30.0)])
async def test_attempts_are_made_at_growing_distances(number: int, seconds: float) -> None:
    error, _ = await attempt(ToolError(UNKNOWN, "HTTP 503"), Effect.KEYED, number=number)

    assert isinstance(error, ApplicationError)
    assert error.next_retry_delay == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("half \ud83d"), "RuntimeError: half \ufffd"),
        (ExceptionGroup("g", [ConnectionError("no line")]), "ConnectionError: no line"),
        (UnicodeEncodeError("ascii", "secret", 0, 1, "no"), "UnicodeEncodeError: 'ascii' codec can't encode character"),
    ],
)
async def test_error_that_no_toolbox_knows_leaves_the_outcome_open(error: Exception, reason: str) -> None:
    failure, _ = await attempt(error, Effect.ONCE)

    assert isinstance(failure, ApplicationError)
    (told,) = failure.details
    assert isinstance(told, ToolFailure)
    assert (told.outcome, failure.type, failure.non_retryable) == (UNKNOWN, FailureType.TOOL_FAILED, True)
    assert told.reason.startswith(reason)


@pytest.mark.parametrize("text", ["half \ud83d", "half \ud83d " * 100])
async def test_result_of_any_source_is_text_that_can_be_stored(text: str) -> None:
    result, _ = await attempt(ToolText(text), Effect.READ)

    assert isinstance(result, ToolResult)
    assert (result.text or result.preview).startswith("half \ufffd")
