"""Runs that go on with the conversation of another one: where it stood, and what it did after that."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

from temporalio import activity
from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowHistoryEventFilterType,
)
from temporalio.service import RPCError, RPCStatusCode

from mandate.activities import other_runs
from mandate.activities.toolbox import arguments
from mandate.activities.toolbox import calls as toolbox_calls
from mandate.activities.transcript import results, sensitive_arguments
from mandate.activities.transcript.log import Chain, TranscriptLog
from mandate.activities.transcript.pinned_agents import PinnedAgents
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.base import Digest
from mandate.workflows.contracts.origin import MOST_EARLIER, ContinuesRequest, EarlierCall, Origin
from mandate.workflows.contracts.run import AGENT_WORKFLOW
from mandate.workflows.contracts.state import RunState
from mandate.workflows.contracts.tool import ToolResult
from mandate.workflows.contracts.transcript import AssistantMessage, CallPart, ResultPart, UserMessage
from mandate.workflows.rules import effects, origins, plain_text, quantities, recovery, wording

TEXT_CHARACTERS = 300
"""Of a result of an earlier call, which the model is told when it asks for the same."""

NOT_MADE = "not made: the run that this one goes on from ended before people had approved it"
NO_ANSWER = "not known: the run that this one goes on from had no answer to it yet"


class NoOrigin(Exception):
    """A run that cannot be gone on from; the text is one sentence."""


class NotBegun(NoOrigin):
    """A run that has done nothing yet."""


@dataclass(frozen=True, slots=True)
class OriginFound:
    """The place in another run's conversation from which a run goes on."""

    chain: Chain
    results: tuple[ResultPart, ...]
    """Answers to the calls of its last step."""
    origin: Origin
    state: RunState
    """Of that run, as it stands or ended."""


@dataclass(frozen=True, slots=True)
class _Step:
    number: int
    """0 for what was said before the first step of the run."""
    digest: Digest
    agent: Digest
    message: AssistantMessage
    told: dict[str, ResultPart]
    """Results that the model was told of it, by the ids of its calls."""


class Origins:
    """Origins of runs, as their conversations and Temporal tell of them."""

    def __init__(self, transcript: TranscriptLog, agents: PinnedAgents) -> None:
        self._transcript = transcript
        self._agents = agents

    async def find(self, asked: ContinuesRequest) -> OriginFound:
        """Return where a run stood after a step, and what it did later.

        Raises:
            NoOrigin: there is no such run or step, or too much was done after it.
            RPCError: Temporal or the run does not answer now.
            BlobMissing, BlobCorrupted, StoreUnavailable: its conversation cannot be read.
        """
        run_id, first_run_id, state = await self._ask(activity.client(), asked)
        steps = [step async for step in self._read_steps(state)]
        last = steps[-1].number if steps else 0
        number = asked.step if asked.step is not None else last
        if number > last or last == 0:
            taken = "has taken no step yet" if last == 0 else f"has taken {quantities.count_noun(last, 'step')} so far"
            kind = NotBegun if last == 0 else NoOrigin
            raise kind(f"step: {number}: the run {asked.run!r} {taken}")
        chosen = next(step for step in steps if step.number == number)
        later = [step for step in steps if step.number > number]
        chain = await self._transcript.load(chosen.digest)
        agent = await self._agents.get(chosen.agent)
        answers = await self._find_answers(agent, chain, chosen, state, is_last=not later)
        done = await self._list_done(steps, chain, number, state, first_run_id)
        origin = Origin(run=asked.run, run_id=run_id, step=number, calls=done)
        return OriginFound(chain, answers, origin, state)

    async def find_broken_off(self, workflow_id: str, run_id: str, *, is_open: bool) -> OriginFound | None:
        """Return where a run stood that somebody ended from outside, or any one that `is_open`; else `None`.

        `run_id` is any of its parts. Raise as `find`.
        """
        client = activity.client()
        while True:
            handle = client.get_workflow_handle(workflow_id, run_id=run_id)
            try:
                described = await handle.describe()
            except RPCError as error:
                if error.status is RPCStatusCode.NOT_FOUND:
                    return None
                raise
            if described.status is not WorkflowExecutionStatus.CONTINUED_AS_NEW:
                break
            events = handle.fetch_history_events(event_filter_type=WorkflowHistoryEventFilterType.CLOSE_EVENT)
            closing = await anext(events)
            run_id = closing.workflow_execution_continued_as_new_event_attributes.new_execution_run_id
        is_ended = described.status is not WorkflowExecutionStatus.RUNNING
        if not is_ended or (described.status is WorkflowExecutionStatus.COMPLETED and not is_open):
            return None
        found = await self.find(ContinuesRequest(run=workflow_id, run_id=run_id))
        ledger = found.state.ledger
        # Since then nobody has worked.
        found.state.ledger = ledger.model_copy(update={"waits_since": ledger.waits_since or described.close_time})
        return found

    async def find_forgotten(self, workflow_id: str, state: RunState) -> OriginFound:
        """Return where a run stood that Temporal has forgotten amid a turn: nobody knows what became of its calls.

        `state` is what its session has kept. Raise as `find`.
        """
        *before, last = [step async for step in self._read_steps(state)]
        chain, lost = await self._transcript.load(last.digest), ToolResult(text=NO_ANSWER, error=True)
        told = {
            call.call_id: await results.tell(self._transcript.blobs, call, lost, None) for call in last.message.calls
        }
        steps = [*before, replace(last, told=told)]
        done = await self._list_done(steps, chain, last.number, state, "")
        origin = Origin(run=workflow_id, run_id="", step=last.number, calls=done)
        return OriginFound(chain, tuple(told.values()), origin, state)

    async def _ask(self, client: Client, asked: ContinuesRequest) -> tuple[str, str, RunState]:
        """Return the ids of the run and of the first of its chain, and how it stands or ended."""
        handle = client.get_workflow_handle(asked.run, run_id=asked.run_id)
        try:
            described = await handle.describe()
        except RPCError as error:
            if error.status in {RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT}:
                which = f" with the run id {asked.run_id!r}" if asked.run_id else ""
                hint = "; a step is a number behind the last '@', as in RUN@3" if "@" in asked.run else ""
                raise NoOrigin(f"run: there is no run {asked.run!r}{which} that the server knows{hint}") from None
            raise
        info = activity.info()
        if described.workflow_type != AGENT_WORKFLOW:
            raise NoOrigin(f"run: {asked.run!r} is a {described.workflow_type}, no run of an agent")
        if described.run_id == info.workflow_run_id:
            raise NoOrigin(f"run: {asked.run!r} is this run itself; name its run_id, or another run")
        if described.status is WorkflowExecutionStatus.CONTINUED_AS_NEW:
            raise NoOrigin(f"run_id: {asked.run_id!r} has gone on as another run; leave run_id out, or name the last")
        exact = client.get_workflow_handle(asked.run, run_id=described.run_id)
        try:
            state = await other_runs.query_state(exact)
        except other_runs.Unbegun as error:
            raise NotBegun(f"run: {asked.run!r} {error}") from None
        except other_runs.TellsNothing as error:
            raise NoOrigin(f"run: {asked.run!r} tells nothing of itself: {error}") from None
        first = described.raw_description.workflow_execution_info.first_run_id or described.run_id
        return described.run_id, first, state

    async def _read_steps(self, state: RunState) -> AsyncIterator[_Step]:
        """Yield the answers of models in the conversation, the newest last; the run's own have its numbers."""
        found = list[_Step]()
        async for digest, segment in self._transcript.segments(state.head):
            for message in segment.messages:
                if isinstance(message, AssistantMessage):
                    found.append(_Step(0, digest, segment.agent, message, {}))
                elif found:
                    # A run that was ended from outside is told them before it asks its model.
                    found[-1].told.update(_read_results(message))
        before = len(found) - state.step
        for place, step in enumerate(found, 1):
            yield replace(step, number=max(place - before, 0))

    async def _find_answers(
        self, agent: PinnedAgent, chain: Chain, chosen: _Step, state: RunState, *, is_last: bool
    ) -> tuple[ResultPart, ...]:
        """Return the answers to the calls of a step: told after it, or known by now."""
        if not chosen.message.calls:
            return ()
        missing = ToolResult(text=NO_ANSWER, error=True)
        if is_last and not chosen.told:
            known = [answer or _answer_open(state, index) for index, answer in enumerate(state.answers)]
            known += [missing] * (len(chosen.message.calls) - len(known))
            return tuple(await results.build_parts(self._transcript.blobs, agent, chain.conversation, known))
        parts = list[ResultPart]()
        for call in chosen.message.calls:
            part = chosen.told.get(call.call_id)
            parts.append(part or await results.tell(self._transcript.blobs, call, missing, None))
        return tuple(parts)

    async def _list_done(
        self, steps: Sequence[_Step], chain: Chain, number: int, state: RunState, first_run_id: str
    ) -> tuple[EarlierCall, ...]:
        """Return the calls after step `number` that changed the world, or may have; what was taken back is left out.

        Raises:
            NoOrigin: there are too many.
        """
        undone = {entry.undoes for entry in state.effects.last if entry.undoes is not None}
        salt, counts, found = sensitive_arguments.find_salt(chain.conversation), Counter[Digest](), list[EarlierCall]()
        for place, step in enumerate(steps):
            agent = await self._agents.get(step.agent)
            is_last = place == len(steps) - 1
            is_open = is_last and not step.told
            for index, call in enumerate(step.message.calls):
                digest = _digest(agent, call, salt)
                if digest is None:
                    if step.number >= number and (child := _find_child(agent, call, step.number, state)) is not None:
                        found.append(child)
                    continue
                key = effects.compute_key(first_run_id, digest, counts[digest])
                counts[digest] += 1
                if step.number < number or (step.number == number and not is_last) or key in undone:
                    continue
                known = _describe(agent, call, digest, step.number)
                earlier = _settle(known, state, index) if is_open else _read_told(known, step.told.get(call.call_id))
                # What is done at the step itself is told as its result.
                if earlier is not None and (step.number > number or earlier.outcome == "unknown"):
                    found.append(earlier)
        joined = origins.join_calls(state.origin, found)
        if len(joined) > MOST_EARLIER:
            raise NoOrigin(
                f"step: {number}: the run has changed the world {len(joined)} times after it, and at most "
                f"{MOST_EARLIER} such calls can be kept in mind; go on from a later step"
            )
        return joined


def _describe(agent: PinnedAgent, call: CallPart, digest: Digest, step: int) -> EarlierCall:
    """Return a call of which nothing more is known."""
    definition = agent.definition(call.tool)
    assert definition is not None
    view = arguments.hide_sensitive(definition, arguments.read(definition, call.arguments), None)
    line = wording.describe_call(call.tool, view, definition.tool.sensitive)
    return EarlierCall(
        digest=digest, line=line, step=step, outcome="unknown", is_hidden=bool(definition.tool.sensitive)
    )


def _find_child(agent: PinnedAgent, call: CallPart, step: int, state: RunState) -> EarlierCall | None:
    """Return a call of an agent whose run has changed the world; `None` for any other."""
    definition = agent.definition(call.tool)
    if definition is None or definition.tool.child is None:
        return None
    try:
        view = arguments.hide_sensitive(definition, arguments.read(definition, call.arguments), None)
    except ValueError:
        return None
    line = wording.describe_call(call.tool, view, definition.tool.sensitive)
    is_open = any(
        (other.tool, other.arguments) == (call.tool, view)
        for index, other in enumerate(state.calls)
        if index in state.children and state.step == step
    )
    stands = next(
        (one for one in state.effects.last if (one.run is not None, one.step, one.call) == (True, step, line)), None
    )
    if stands is None and not is_open:
        return None
    return EarlierCall(
        digest=recovery.digest_call(call.tool, arguments.shorten_texts(view, arguments.SHOWN_BYTES)),
        line=line,
        step=step,
        outcome="unknown" if stands is None or stands.reason is not None else "done",
        text="the agent that did it has changed the world",
    )


def _read_told(known: EarlierCall, part: ResultPart | None) -> EarlierCall | None:
    """Return a call by the result that the model was told; `None` for one that was not done."""
    if part is None:
        return known
    if part.error:
        return known if part.text == NO_ANSWER or part.text.endswith(origins.NOT_KNOWN) else None
    text = "" if known.is_hidden else plain_text.shorten(part.text, TEXT_CHARACTERS)
    return known.model_copy(update={"outcome": "done", "text": text})


def _settle(known: EarlierCall, state: RunState, index: int) -> EarlierCall | None:
    """Return a call of the open turn by what the run knows of it; `None` for one that was not done."""
    answer = state.answers[index] if index < len(state.answers) else None
    if answer is None and _is_unsent(state, index):
        return None
    if answer is None or any(entry.call == known.line and entry.step == known.step for entry in state.uncertain):
        return known
    return None if answer.error else known.model_copy(update={"outcome": "done"})


def _answer_open(state: RunState, index: int) -> ToolResult:
    """Return the answer to a call of the open turn that the run has none to."""
    return ToolResult(text=NOT_MADE if _is_unsent(state, index) else NO_ANSWER, error=True)


def _is_unsent(state: RunState, index: int) -> bool:
    """Return whether a call of the open turn was not sent: it was not judged, or waited for people."""
    verdict = state.verdicts[index] if index < len(state.verdicts) else None
    is_begun = index in state.unclear or index in state.waits or index in state.asked
    return not is_begun and (verdict is None or verdict.kind != "allow")


def _digest(agent: PinnedAgent, call: CallPart, salt: bytes | None) -> Digest | None:
    """Return the digest of a call that changes the world and can be read; `None` for any other."""
    one = AssistantMessage(role="assistant", parts=(call,), protocol="runtime", model="")
    digests = toolbox_calls.list_effects(agent, one, salt)
    return digests[0] if digests else None


def _read_results(message: UserMessage) -> dict[str, ResultPart]:
    """Return the results in a message, by the ids of their calls."""
    return {part.call_id: part for part in message.parts if isinstance(part, ResultPart)}
