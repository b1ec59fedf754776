"""Model calls of runs that are longer than their window: the bytes that are sent, in any worker, after any fault."""

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from mandate.activities.compensation import CompensationActivities
from mandate.activities.failures import make_model_failure
from mandate.activities.model import ModelActivities
from mandate.activities.providers.base import Completion, Prompt
from mandate.activities.providers.openai_responses import OpenAiResponses
from mandate.activities.toolbox import builtin
from mandate.activities.toolbox.read_result import read_result
from mandate.activities.transcript import results
from mandate.activities.transcript.blobs import Blobs
from mandate.activities.transcript.log import TranscriptLog
from mandate.activities.transcript.pinned_agents import PinnedAgents
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.base import canonical_json
from mandate.workflows.contracts.budget import Budget, Grant
from mandate.workflows.contracts.compensation import Compensable, CompensationRequest, CompensationSpec
from mandate.workflows.contracts.context import ContextSpec, SummarySpec
from mandate.workflows.contracts.failures import FailureType
from mandate.workflows.contracts.model import Finish, ModelFailure, ModelReply, ModelRequest, NotSent, Usage, Words
from mandate.workflows.contracts.route import RoutePin
from mandate.workflows.contracts.tool import Effect, PythonBinding, Tool, ToolDefinition, ToolResult
from mandate.workflows.contracts.transcript import AssistantMessage, CallPart, Measured, Protocol, TextPart, UserMessage
from tests.support.fake_provider import tokens
from tests.support.fake_provider.behaviours import RESPONSES
from tests.support.memory_store import MemoryStore

MODEL = "openai:m"
PROTOCOL: Protocol = "openai.responses"
NUMBER = {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]}
TOOLS = tuple(
    ToolDefinition(
        tool=Tool(name=name, source="python", effect=effect),
        description=f"{name} one",
        input_schema=NUMBER,
        binding=PythonBinding(kind="python", function=f"shop:{name}"),
    )
    for name, effect in (("look_up", Effect.READ), ("pay", Effect.KEYED))
)


def pinned(window: int = 6_000, context: ContextSpec | None = None) -> PinnedAgent:
    return PinnedAgent(
        name="a",
        instructions="Look all up.",
        models=(MODEL,),
        route=(RoutePin(model=MODEL, group=0, window=window),),
        tools=(*TOOLS, *builtin.DEFINITIONS),
        policy=(),
        context=context or ContextSpec(),
        max_output_tokens=1_000,
        output_schema=None,
        budget=Budget(),
        attempts=3,
    )


@dataclass
class Recorder:
    """A provider that keeps the bytes it is sent, and refuses one token more than its window."""

    window: int = 6_000
    sent: list[bytes] = field(default_factory=list)
    refused: int = 0
    summaries: int = 0
    fails: list[Exception] = field(default_factory=list)
    """Raised for the next requests, once they are taken in."""
    says: Callable[[int], tuple[CallPart, ...]] = lambda number: (
        CallPart(kind="call", call_id=f"c{number}", tool="look_up", arguments=f'{{"number": {number}}}'),
    )
    answers: int = 0
    is_silent: bool = False
    """Its answers tell no tokens."""

    def __post_init__(self) -> None:
        self._writer = OpenAiResponses(api_key="sk-none", base_url="http://127.0.0.1:1")

    async def complete(self, prompt: Prompt) -> Completion:
        body = self._writer.request(prompt)
        if not prompt.tools:
            self.summaries += 1
            line = TextPart(kind="text", text=f"Summary {self.summaries} says that entry 1 is there. [1]")
            return self._answer(prompt, (line,), 10)
        count = tokens.count_request(RESPONSES, json.loads(body))
        if count > self.window:
            self.refused += 1
            raise make_model_failure("context_length", "too long")
        self.sent.append(body)
        if self.fails:
            raise self.fails.pop(0)
        self.answers += 1
        return self._answer(prompt, self.says(self.answers), count)

    def _answer(self, prompt: Prompt, parts: tuple[CallPart | TextPart, ...], count: int) -> Completion:
        message = AssistantMessage(role="assistant", parts=parts, protocol=PROTOCOL, model=prompt.model)
        written = sum(tokens.count_text(part.arguments) + 6 for part in message.calls)
        told = {} if self.is_silent else {"input_tokens": count, "output_tokens": written}
        return Completion(message, Finish.COMPLETE, Usage(model_calls=1, **told))

    async def close(self) -> None:
        await self._writer.close()


AMPLE = Grant(input_tokens=1_000_000, output_tokens=1_000, attempts=3)


@dataclass
class Run:
    """The part of the workflow: one request after another, with its state where it is asked for."""

    agent: PinnedAgent
    recorder: Recorder
    store: MemoryStore = field(default_factory=MemoryStore)
    is_cold: bool = False
    grant: Grant | None = AMPLE
    cuts: int = 0
    needed: int = 0
    estimates: list[tuple[int, int]] = field(default_factory=list)
    replies: list[ModelReply] = field(default_factory=list)

    async def begin(self) -> None:
        content = canonical_json(self.agent.model_dump(mode="json"))
        (self.digest,) = await Blobs(self.store).put(content)
        goal = UserMessage(role="user", parts=(TextPart(kind="text", text="Look all entries up."),))
        chain = await TranscriptLog(Blobs(self.store)).start(self.digest, goal)
        self.request = ModelRequest(agent=self.digest, head=chain.head, step=1, cuts=True, grant=self.grant)
        self._open()

    def _open(self) -> None:
        self.blobs = Blobs(self.store)
        self.transcript = TranscriptLog(self.blobs)

        async def make() -> Recorder:
            return self.recorder

        self.activities = ModelActivities({"openai": make}, PinnedAgents(self.blobs), self.transcript)

    async def ask(self, request: ModelRequest) -> ModelReply:
        if self.is_cold:
            self._open()
        return await ActivityEnvironment().run(self.activities.call_model, request)

    async def step(self, *words: str) -> ModelReply:
        """One step: the model is asked, and each of its calls gets a result of 800 bytes."""
        request = self.request.model_copy(update={"words": tuple(Words(by="ann", text=word) for word in words)})
        try:
            reply = await self.ask(request)
        except ApplicationError as error:
            if error.type != FailureType.NEEDS_STATE:
                raise
            self.needed += 1
            not_sent = error.details[0]
            assert isinstance(not_sent, NotSent)
            stated = {"state": f"Step {request.step}.", "too_long": not_sent.too_long}
            reply = await self.ask(request.model_copy(update=stated))
        self.cuts += reply.cut
        self.replies.append(reply)
        self.estimates.append((reply.estimate, reply.usage.input_tokens))
        told = [
            await results.store(self.blobs, f"{call.tool} {request.step} {index}: {'entry order paid ' * 50}")
            for index, call in enumerate(reply.calls)
        ]
        self.request = ModelRequest(
            agent=self.digest,
            head=reply.head,
            step=request.step + 1,
            results=tuple(told),
            cuts=True,
            grant=self.grant,
        )
        return reply


async def run(count: int, **given: object) -> Run:
    made = Run(agent=pinned(), recorder=Recorder())
    made = replace(made, **given)  # type: ignore[arg-type] # fields of `Run`
    await made.begin()
    for _ in range(count):
        await made.step()
    return made


def conversation(body: bytes) -> bytes:
    return body.partition(b'"input":')[2].rstrip(b"]}")


def count_breaks(sent: list[bytes]) -> int:
    return sum(not conversation(after).startswith(conversation(before)) for before, after in itertools.pairwise(sent))


async def test_between_cuts_each_request_begins_with_the_bytes_of_the_one_before_in_any_worker() -> None:
    hot, cold = await run(250), await run(250, is_cold=True)

    assert hot.recorder.sent == cold.recorder.sent
    assert len(hot.recorder.sent) == 250
    assert hot.cuts == hot.needed == count_breaks(hot.recorder.sent) > 10
    assert hot.recorder.refused == 0
    heads = {body.partition(b'"prompt_cache_key"')[0] for body in hot.recorder.sent}
    assert len(heads) == 1


async def test_answers_without_a_report_count_with_what_follows_the_last_that_has_one() -> None:
    made = await run(4)
    whole = made.estimates[-1][0]
    made.recorder.is_silent = True
    await made.step()
    await made.step()

    before, after = (estimate for estimate, _ in made.estimates[-2:])

    # Each step adds a call, and a result of 150 tokens and more.
    assert before > whole + 150
    assert after > before + 150


async def test_what_an_older_worker_measured_is_gone_on_from() -> None:
    """It told no rates, and not how many messages the request had."""
    made = await run(5)
    chain = await made.transcript.load(made.request.head)
    assert chain.measured is not None
    told = Measured(model=MODEL, input_tokens=chain.measured.input_tokens, output_tokens=chain.measured.output_tokens)
    before = await made.transcript.load(chain.segment.previous or "")
    older = await made.transcript.append(before, made.digest, chain.segment.messages, measured=told)
    made.request = made.request.model_copy(update={"head": older.head})

    await made.step()

    ((estimate, reported),) = made.estimates[-1:]
    assert reported <= estimate <= 1.1 * reported


async def test_another_agent_goes_on_with_a_conversation_by_its_own_size() -> None:
    """Its instructions are longer than those that the last report counted."""
    made = await run(5)
    content = canonical_json(
        made.agent.model_copy(update={"instructions": "Look all up. " * 200}).model_dump(mode="json")
    )
    (digest,) = await made.blobs.put(content)
    made.request = made.request.model_copy(update={"agent": digest})

    await made.step()

    ((estimate, reported),) = made.estimates[-1:]
    assert reported <= estimate <= 1.1 * reported


async def test_store_reads_and_request_bytes_do_not_grow_with_the_run() -> None:
    made = await run(60, is_cold=True)
    reads = list[int]()
    for _ in range(180):
        made.store.gets.clear()
        await made.step()
        reads.append(sum(map(len, made.store.gets)))

    assert max(reads[120:]) <= 1.25 * max(reads[:60])
    assert max(map(len, made.recorder.sent[180:])) <= 1.25 * max(map(len, made.recorder.sent[:60]))


async def cut_with_faults(spec: ContextSpec, faults: list[Exception]) -> Run:
    """A run in which the first requests after its second cut fail, once they are taken in."""
    made = Run(agent=pinned(context=spec), recorder=Recorder(), is_cold=True)
    await made.begin()
    while made.cuts < 2:
        request, held = made.request, dict(made.store.held)
        made.recorder.sent.clear()
        made.recorder.summaries = 0
        await made.step()
    # The store as it was before the second cut: what follows is another life of the same step.
    made.store.held = held
    made.recorder.sent.clear()
    made.recorder.summaries = 0
    stated = request.model_copy(update={"state": "It stands so."})
    for fault in faults:
        made.recorder.fails = [fault]
        with pytest.raises((ApplicationError, RuntimeError)):
            await made.ask(stated)
    await made.ask(stated)
    return made


@pytest.mark.parametrize("spec", [ContextSpec(), ContextSpec(summary=SummarySpec(), keep=2)], ids=["plain", "summary"])
async def test_a_step_that_is_repeated_after_its_cut_sends_the_same_bytes(spec: ContextSpec) -> None:
    lost: list[Exception] = [make_model_failure("server", "lost"), RuntimeError("killed"), RuntimeError("again")]

    made = await cut_with_faults(spec, lost)

    assert len(made.recorder.sent) == 4
    assert len(set(made.recorder.sent)) == 1
    assert made.recorder.summaries == (spec.summary is not None)


async def test_a_refusal_makes_a_smaller_cut_and_is_remembered() -> None:
    made = Run(agent=pinned(window=60_000), recorder=Recorder(window=3_000))
    await made.begin()

    for _ in range(60):
        await made.step()

    assert len(made.recorder.sent) == 60
    assert made.cuts > 5
    assert made.recorder.refused <= 2


async def test_a_run_that_does_not_know_of_cuts_is_told_that_it_is_too_long() -> None:
    made = Run(agent=pinned(), recorder=Recorder(window=1_500))
    await made.begin()
    made.request = made.request.model_copy(update={"cuts": False})

    async def go_on() -> None:
        while True:
            await made.step()
            made.request = made.request.model_copy(update={"cuts": False})

    with pytest.raises(ApplicationError, match="too long") as refused:
        await go_on()

    assert refused.value.type == FailureType.CONTEXT_TOO_LONG
    assert (made.cuts, made.needed) == (0, 0)


async def test_a_conversation_that_cannot_be_cut_any_more_is_too_long() -> None:
    made = Run(agent=pinned(window=60_000), recorder=Recorder(window=100))
    await made.begin()

    with pytest.raises(ApplicationError, match="too long") as refused:
        await made.step()

    assert refused.value.type == FailureType.CONTEXT_TOO_LONG


async def test_what_a_cut_left_out_can_be_read_again_and_nothing_else() -> None:
    made = Run(agent=pinned(), recorder=Recorder())
    await made.begin()
    await made.step()
    first = made.request.results[0]
    for _ in range(60):
        await made.step()
    assert made.cuts > 2
    stranger = await results.store(made.blobs, "of another run " * 50)
    chain = await TranscriptLog(Blobs(made.store)).load(made.request.head)

    async def read(result: ToolResult) -> str:
        name = (result.digest or "")[: results.REFERENCE_CHARACTERS]
        return (await read_result(TranscriptLog(Blobs(made.store)), chain, {"result": name, "start": 0})).text

    assert (await read(first)).startswith("look_up 1 0: entry order paid")
    with pytest.raises(Exception, match="no stored result is called"):
        await read(stranger)


async def test_equal_calls_are_counted_over_cuts() -> None:
    def pay(number: int) -> tuple[CallPart, ...]:
        return (CallPart(kind="call", call_id=f"c{number}", tool="pay", arguments='{"number": 7}'),)

    made = Run(agent=pinned(), recorder=Recorder(says=pay))
    await made.begin()

    repeats = [(await made.step()).calls[0].repeat for _ in range(80)]

    assert made.cuts > 3
    assert repeats == list(range(80))


async def test_words_of_people_and_pinned_texts_are_in_every_request() -> None:
    spec = ContextSpec(pin=("Never pay twice.",))
    made = Run(agent=pinned(context=spec), recorder=Recorder())
    await made.begin()
    await made.step("Stay below 120 EUR.")

    for _ in range(80):
        await made.step()

    assert made.cuts > 3
    assert all(b"Always keep in mind:\\n- Never pay twice." in body for body in made.recorder.sent)
    assert all(body.count(b"[ann says] Stay below 120 EUR.") == 1 for body in made.recorder.sent)
    assert all(body.count(b"Look all entries up.") == 1 for body in made.recorder.sent)


async def test_what_the_agent_took_back_itself_before_a_cut_is_not_taken_back_again() -> None:
    """Places of calls are counted over the whole conversation, not from the cut on."""

    def pay_or_return(number: int) -> tuple[CallPart, ...]:
        tool = {1: "pay", 2: "give_back"}.get(number, "look_up")
        return (CallPart(kind="call", call_id=f"c{number}", tool=tool, arguments='{"number": 7}'),)

    back = CompensationSpec.model_validate({"tool": "give_back", "with": {"number": "args.number"}})
    give_back = TOOLS[1].model_copy(update={"tool": TOOLS[1].tool.model_copy(update={"name": "give_back"})})
    agent = pinned()
    agent = agent.model_copy(update={"tools": (*agent.tools, give_back), "compensations": {"pay": back}})
    made = Run(agent=agent, recorder=Recorder(says=pay_or_return))
    await made.begin()
    paid = await made.step()
    result = made.request.results[0]
    for _ in range(60):
        await made.step()
    assert made.cuts > 2
    done = Compensable(key="k", tool="pay", line="pay number=7", head=paid.head, index=0, result=result)
    request = CompensationRequest(
        agent=made.digest, head=made.request.head, results=made.request.results, calls=(done,), step=62
    )

    blobs = Blobs(made.store)
    plan = CompensationActivities(PinnedAgents(blobs), TranscriptLog(blobs)).plan_compensation
    reply = await ActivityEnvironment().run(plan, request)

    assert [call.misfit for call in reply.calls] == ["the agent has taken it back itself"]


SUMMED_UP = ContextSpec(summary=SummarySpec(), keep=2)


@pytest.mark.parametrize(
    ("grant", "is_summed_up"),
    [
        (None, True),
        (Grant(input_tokens=6_000, output_tokens=1_000, attempts=2), True),
        (Grant(input_tokens=6_000, output_tokens=1_000, attempts=1), False),
    ],
)
async def test_a_summary_takes_the_place_of_an_attempt_that_is_reserved(
    grant: Grant | None, is_summed_up: bool
) -> None:
    made = Run(agent=pinned(context=SUMMED_UP), recorder=Recorder(), grant=grant)
    await made.begin()

    for _ in range(60):
        await made.step()

    assert made.cuts > 2
    assert (made.recorder.summaries > 0) is is_summed_up
    most = 1 if grant is None else grant.attempts
    assert max(reply.usage.model_calls + reply.lost for reply in made.replies) <= max(most, 2)


async def test_tokens_of_a_summary_count_as_spent_and_not_as_context() -> None:
    made = Run(agent=pinned(context=SUMMED_UP), recorder=Recorder())
    await made.begin()
    for _ in range(60):
        await made.step()

    (first, *_) = (reply for reply in made.replies if reply.usage.model_calls == 2)

    assert first.cut
    # The summary's request has 10 tokens.
    assert first.context_tokens == first.usage.input_tokens + first.usage.output_tokens - 10
    assert all(reply.context_tokens == 0 for reply in made.replies if reply.usage.model_calls == 1)


async def test_what_a_summary_took_is_told_once_also_where_another_call_goes_on_from_its_cut() -> None:
    made = Run(agent=pinned(context=SUMMED_UP), recorder=Recorder(), is_cold=True)
    await made.begin()
    while made.recorder.summaries == 0:
        request, held = made.request, dict(made.store.held)
        await made.step()
    made.store.held, made.recorder.summaries = held, 0
    stated = request.model_copy(update={"state": "It stands so."})
    made.recorder.fails = [make_model_failure("server", "lost")]

    with pytest.raises(ApplicationError) as failed:
        await made.ask(stated)
    reply = await made.ask(stated)

    told = failed.value.details[0]
    assert isinstance(told, ModelFailure)
    assert (told.spent.model_calls, made.recorder.summaries, reply.usage.model_calls) == (1, 1, 1)


async def test_what_the_summary_of_a_cut_that_did_not_help_took_is_told() -> None:
    """Most of the request is instructions, which are never cut: the second cut leaves hardly anything out."""

    def look(number: int) -> tuple[CallPart, ...]:
        given = json.dumps({"number": number, "note": "x y z " * 40})
        return (CallPart(kind="call", call_id=f"c{number}", tool="look_up", arguments=given),)

    agent = pinned(window=200_000, context=SUMMED_UP).model_copy(update={"instructions": "word " * 20_000})
    made = Run(agent=agent, recorder=Recorder(window=200_000, says=look))
    await made.begin()
    for _ in range(40):
        await made.step()
    made.recorder.window = 100

    with pytest.raises(ApplicationError, match="too long") as refused:
        await made.step()

    told = refused.value.details[0]
    assert isinstance(told, ModelFailure)
    assert told.spent.model_calls == made.recorder.summaries == 2
