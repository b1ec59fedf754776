"""What `run_tool` makes of an attempt: the outcome over all attempts, and whether Temporal may repeat it."""

import dataclasses
from datetime import timedelta
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.blobs import Blobs
from activities.failures import ToolError
from activities.pinned import PinnedAgents
from activities.tool import ToolActivities
from activities.toolbox.base import CallContext, ToolText
from activities.transcript import TranscriptLog
from tests.support.memory_store import MemoryStore
from workflows.contracts.agent import PinnedAgent
from workflows.contracts.base import JsonObject, canonical_json
from workflows.contracts.budget import Budget
from workflows.contracts.failures import Outcome, ToolFailure
from workflows.contracts.tool import Effect, PythonBinding, Tool, ToolDefinition, ToolRequest, ToolResult
from workflows.contracts.transcript import AssistantMessage, CallPart, TextPart, UserMessage


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


async def attempt(
    answer: ToolText | Exception, effect: Effect, *, number: int = 1, details: tuple[Any, ...] = ()
) -> tuple[ToolResult | ApplicationError, list[tuple[Any, ...]]]:
    """One attempt of a tool, and the heartbeats that it sent."""
    definition = ToolDefinition(
        tool=Tool(name="act", source="python", effect=effect),
        input_schema={"type": "object"},
        binding=PythonBinding(kind="python", function="a:b"),
    )
    pinned = PinnedAgent(
        name="a", instructions="i", models=("scripted:x",), tools=(definition,), policy=(), attempts=3,
        budget=Budget(), output_schema=None, max_output_tokens=10,
    )  # fmt: skip
    blobs = Blobs(MemoryStore())
    (agent,) = await blobs.put(canonical_json(pinned.model_dump(mode="json")))
    log = TranscriptLog(blobs)
    chain = await log.start(agent, UserMessage(role="user", parts=(TextPart(kind="text", text="go"),)))
    call = CallPart(kind="call", call_id="c1", tool="act", arguments="{}")
    chain = await log.append(
        chain, agent, [AssistantMessage(role="assistant", parts=(call,), protocol="scripted", model="x")]
    )
    activities = ToolActivities({"python": Box(answer)}, PinnedAgents(blobs), log)
    environment = ActivityEnvironment()
    environment.info = dataclasses.replace(
        ActivityEnvironment.default_info(),
        attempt=number,
        heartbeat_details=list(details),
        heartbeat_timeout=timedelta(seconds=5),
    )
    beats: list[tuple[Any, ...]] = []
    environment.on_heartbeat = lambda *beat: beats.append(beat)
    request = ToolRequest(agent=agent, head=chain.head, step=1, key="k" * 43)
    try:
        return await environment.run(activities.run_tool, request), beats
    except ApplicationError as error:
        return error, beats


NOT_SENT, NOT_DONE, UNKNOWN = Outcome.NOT_SENT, Outcome.NOT_DONE, Outcome.UNKNOWN


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
        (Effect.KEYED, 2, ("mandate:not-sent", 1), NOT_SENT, NOT_SENT, True),
        # the same number sent by the tool itself says nothing
        (Effect.KEYED, 2, (1,), NOT_SENT, UNKNOWN, True),
        # the first lost its reply and the second was refused a connection: it may have happened
        (Effect.KEYED, 2, (), NOT_SENT, UNKNOWN, True),
        # the first was refused, the second was lost with its worker, the third was refused
        (Effect.KEYED, 3, ("mandate:not-sent", 1), NOT_SENT, UNKNOWN, True),
        (Effect.IDEMPOTENT, 2, (), NOT_SENT, UNKNOWN, True),
        # a definite answer to this key clears what was unknown
        (Effect.KEYED, 2, (), NOT_DONE, NOT_DONE, False),
        # without a key, "no such row" may be the effect of the attempt that was lost
        (Effect.IDEMPOTENT, 2, (), NOT_DONE, UNKNOWN, False),
        (Effect.IDEMPOTENT, 2, ("mandate:not-sent", 1), NOT_DONE, NOT_DONE, False),
        # for a read it does not matter
        (Effect.READ, 2, (), NOT_SENT, NOT_SENT, True),
    ],
)
async def test_outcome_over_attempts(
    effect: Effect, number: int, details: tuple[Any, ...], raised: Outcome, known: Outcome, repeated: bool
) -> None:
    error, _ = await attempt(ToolError(raised, "why"), effect, number=number, details=details)

    assert isinstance(error, ApplicationError)
    assert ToolFailure.model_validate(error.details[0]) == ToolFailure(outcome=known, reason="why")
    assert error.non_retryable is not repeated


async def test_an_attempt_that_sent_nothing_leaves_its_number_for_the_next() -> None:
    _, beats = await attempt(ToolError(NOT_SENT, "no connection"), Effect.KEYED)

    assert beats == [("mandate:not-sent", 1)]


async def test_short_results_are_inline_and_long_ones_by_reference() -> None:
    short, _ = await attempt(ToolText("x" * 128), Effect.READ)
    long, _ = await attempt(ToolText("x" * 129), Effect.READ)

    assert short == ToolResult(text="x" * 128)
    assert isinstance(long, ToolResult)
    assert (long.text, long.size, long.preview) == (None, 129, "x" * 60)


async def test_a_definite_retry_after_makes_not_done_worth_another_attempt() -> None:
    error, _ = await attempt(ToolError(NOT_DONE, "busy", retry_after=3.0), Effect.KEYED)

    assert isinstance(error, ApplicationError)
    assert not error.non_retryable
    assert error.next_retry_delay == timedelta(seconds=3)
