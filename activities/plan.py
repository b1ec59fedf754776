"""A plan under way: what its calls returned, which begin now, how it ends."""

import asyncio
import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal

import structlog
from pydantic import JsonValue
from temporalio import activity

from mandate.activities import failures
from mandate.activities.checks.findings import parse_value
from mandate.activities.heartbeat import Stopwatch, send_heartbeats
from mandate.activities.toolbox import calls as toolbox_calls
from mandate.activities.transcript import results, sensitive_arguments
from mandate.activities.transcript.conversation import PLANNED, Conversation, is_planned
from mandate.activities.transcript.log import TranscriptLog
from mandate.activities.transcript.pinned_agents import PinnedAgents
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.base import Digest, canonical_json
from mandate.workflows.contracts.model import CHILD_OUTPUT_BYTES, OUTPUT_INLINE_BYTES, Finish
from mandate.workflows.contracts.plan import (
    AdvanceRequest,
    EndedCall,
    PlanEnd,
    PlanMove,
    PlanSpec,
    PlanStep,
    StepResult,
)
from mandate.workflows.contracts.run import RunStatus
from mandate.workflows.contracts.tool import AgentBinding, ToolResult
from mandate.workflows.contracts.transcript import (
    AssistantMessage,
    CallPart,
    Message,
    ResultPart,
    TextPart,
    UserMessage,
)
from mandate.workflows.rules import surrogates, wording
from mandate.workflows.rules.cel.evaluation import Unevaluable
from mandate.workflows.rules.period_budgets import format_usd
from mandate.workflows.rules.plans import progress as plan_progress
from mandate.workflows.rules.plans.order import map_needs
from mandate.workflows.rules.plans.progress import Ended, Label, Move, NewCall, Progress

VALUES_KEPT, VALUES_BYTES = 8192, 64 << 20
"""Outputs that a process keeps, by address."""

PLANS_KEPT = 32
"""Plans of which a process keeps what follows from them."""

OUTPUT_SHOWN = 300
STEPS_BYTES = 14 * 1024
"""Of the steps that a result shows."""

PEOPLE = "people"
"""Cause of an end that is no failure: the call is not made again."""

ACCOUNT = "account"
"""Key of what the calls of a message have cost, beside their results."""

log = structlog.stdlib.get_logger(__name__)


class PlanActivities:
    """Plans, as they are pinned, and the conversations that hold their calls."""

    def __init__(self, agents: PinnedAgents, transcript: TranscriptLog) -> None:
        self._agents = agents
        self._transcript = transcript
        self._values: OrderedDict[Digest, JsonValue] = OrderedDict()
        self._bytes = 0
        self._known: OrderedDict[Digest, _KnownPlan] = OrderedDict()

    @activity.defn
    async def advance_plan(self, request: AdvanceRequest) -> PlanMove:
        """Take in the calls that have ended, and return those that begin now, or how the plan ends.

        Raises:
            ApplicationError: a store failure, retried.
        """
        structlog.contextvars.bind_contextvars(step=request.step)
        stopwatch = Stopwatch()
        async with send_heartbeats():
            move = await self._advance(request)
        return move.model_copy(update={"quick": stopwatch.is_quick})

    async def read_steps(self, head: Digest, *, has_ended: bool) -> list[StepResult]:
        """Return how each step of a plan stands whose conversation ends at `head`, in their order in the plan.

        Raises:
            BlobMissing, BlobCorrupted, StoreUnavailable: see there.
            ValueError: it is the conversation of no plan.
        """
        chain = await self._transcript.load(head)
        agent = await self._agents.get(chain.segment.agent)
        if agent.plan is None:
            raise ValueError("it is the conversation of an agent, which has no steps")
        known = self._know(chain.segment.agent, agent.plan)
        given, calls = await self._read(known, chain.conversation)
        move = Progress(known.plan, known.needs, given, calls, is_stopping=has_ended).advance()
        return [_describe(step, move) for step in known.plan.steps]

    async def _advance(self, request: AdvanceRequest) -> PlanMove:
        with failures.translate_store_errors():
            agent = await self._agents.get(request.agent)
            assert agent.plan is not None
            chain = await self._transcript.load(request.head)
            told = await self._tell(chain.conversation, agent, request.ended)
            before = (told,) if told is not None else ()
            whole = chain.conversation.extend(*before)
            known = self._know(request.agent, agent.plan)
            given, calls = await self._read(known, whole)
            progress = Progress(known.plan, known.needs, given, calls, is_stopping=request.is_stopping)
            # With large outputs it takes seconds, in which this worker's other work and its heartbeats go on.
            move = await asyncio.to_thread(progress.advance)
            message = _write_calls(agent, move.begin)
            if message is not None:
                requests = toolbox_calls.read_calls(
                    agent,
                    await toolbox_calls.list_digests(agent, chain, self._transcript),
                    message,
                    Finish.COMPLETE,
                    salt=sensitive_arguments.find_salt(chain.conversation),
                )
                extended = await self._transcript.append(chain, request.agent, (*before, message))
                log.info("plan_advanced", begin=len(requests), ended=len(request.ended))
                return PlanMove(head=extended.head, calls=requests, doing=move.doing)
            head = request.head
            if before:
                head = (await self._transcript.append(chain, request.agent, before)).head
            most = CHILD_OUTPUT_BYTES if request.is_child else OUTPUT_INLINE_BYTES
            end = await self._end(known, progress, move, most) if move.is_over else None
        return PlanMove(head=head, doing=move.doing, end=end)

    async def _tell(
        self, conversation: Conversation, agent: PinnedAgent, ended: tuple[EndedCall, ...]
    ) -> UserMessage | None:
        """Return the message that holds the answers to calls, and what they have cost."""
        if not ended:
            return None
        parts = list[ResultPart | TextPart]()
        account: dict[str, JsonValue] = {}
        made = [call for calls in conversation.map_messages("calls of a plan", _list_calls) for call in calls]
        for one in ended:
            call = made[one.number]
            # A note is for models; of a failure it may be the reason.
            answer = one.answer
            if not answer.error:
                answer = answer.model_copy(update={"note": None})
            parts.append(await results.tell(self._transcript.blobs, call, answer, agent.definition(call.tool)))
            account[call.call_id] = {"cost_usd": f"{one.cost_usd:f}", "people": answer.cause == PEOPLE}
        parts.append(TextPart(kind="text", text=canonical_json({ACCOUNT: account}).decode()))
        return UserMessage(role="user", parts=tuple(parts))

    def _know(self, digest: Digest, plan: PlanSpec) -> "_KnownPlan":
        """Return a plan with what follows from it, which is found once."""
        if digest not in self._known:
            needs = map_needs(plan)
            steps = {step.id: step for step in plan.steps}
            self._known[digest] = _KnownPlan(digest, plan, steps, needs, _find_read_steps(plan, needs))
            if len(self._known) > PLANS_KEPT:
                self._known.popitem(last=False)
        self._known.move_to_end(digest)
        return self._known[digest]

    async def _read(
        self, known: "_KnownPlan", conversation: Conversation
    ) -> tuple[JsonValue, dict[Label, Ended | None]]:
        """Return the input of a plan, and its calls with their ends; each message is read once."""
        given = conversation.cache("input of a plan", lambda: _read_input(conversation[0]))
        calls: dict[Label, Ended | None] = {}
        for found in conversation.map_messages(f"ends of plan {known.digest}", lambda message, _: known.read(message)):
            for label, ended in found:
                if isinstance(ended, _StoredEnd):
                    value = await self._find_value(ended.digest, ended.part, is_text=known.is_text(label))
                    calls[label] = replace(ended.end, value=value)
                else:
                    calls[label] = ended
        return given, calls

    async def _find_value(self, digest: Digest, part: ResultPart, *, is_text: bool) -> JsonValue:
        """Return the output that a stored result is."""
        if digest not in self._values:
            content = await results.load_content(self._transcript.blobs, part)
            text = content.decode(errors="replace")
            self._values[digest] = text if is_text else parse_value(text)
            self._bytes += len(content)
            while len(self._values) > VALUES_KEPT or (self._bytes > VALUES_BYTES and len(self._values) > 1):
                self._values.popitem(last=False)
                self._bytes = self._bytes * len(self._values) // (len(self._values) + 1)
        self._values.move_to_end(digest)
        return self._values[digest]

    async def _end(self, known: "_KnownPlan", progress: Progress, move: Move, most_bytes: int) -> PlanEnd:
        """Return how a plan ends: its output, by reference if it has more than `most_bytes`, and how each step went."""
        fault = plan_progress.find_end_fault(known.plan, known.needs, move)
        if plan_progress.is_stuck(move):
            unended = ", ".join(plan_progress.list_unended(move.standings))
            fault = f"nothing is ready and nothing is under way, and these steps have not ended: {unended}"
        output = progress.compute_output(move)
        if type(output) is Unevaluable:
            fault, output = fault or f"output: {output.reason}", None
        stored = None
        if output is not None:
            text = output if isinstance(output, str) else canonical_json(output).decode()
            stored = await self._store_output(text, most_bytes)
        steps = [_describe(step, move) for step in known.plan.steps]
        content = canonical_json([one.model_dump(mode="json") for one in steps])
        (digest,) = await self._transcript.blobs.put(content)
        status = RunStatus.COMPLETED if fault is None else RunStatus.DECLINED
        return PlanEnd(status=status, output=stored, reason=fault, steps=tuple(_keep_room(steps)), steps_digest=digest)

    async def _store_output(self, text: str, most_bytes: int) -> ToolResult:
        """Return an output as it travels: whole, or its beginning and its address."""
        whole = surrogates.repair_text(text)
        # A text is written as JSON in the result, where a quote has two characters.
        if max(len(whole.encode()), len(json.dumps(whole, ensure_ascii=False).encode())) <= most_bytes:
            return ToolResult(text=whole)
        return await results.store(self._transcript.blobs, whole)


@dataclass(frozen=True, slots=True)
class _StoredEnd:
    """An end whose output is kept by its address."""

    end: Ended
    part: ResultPart
    digest: Digest


@dataclass(frozen=True, slots=True)
class _KnownPlan:
    """A plan with what follows from it alone."""

    digest: Digest
    plan: PlanSpec
    steps: Mapping[str, PlanStep]
    needs: Mapping[str, frozenset[str]]
    wanted: frozenset[str]
    """Steps whose outputs anything reads."""

    def is_text(self, label: Label) -> bool:
        """Return whether an output is a text whatever it holds: JSON comes of tools, and of agents that say so."""
        step = self.steps[label.step]
        return step.tool is None and step.output_schema is None

    def read(self, message: Message) -> tuple[tuple[Label, Ended | _StoredEnd | None], ...]:
        """Return the calls that a message begins or ends."""
        if isinstance(message, AssistantMessage):
            return tuple((Label.parse(call.call_id), None) for call in _list_calls(message, None))
        account = _read_account(message)
        return tuple(
            (Label.parse(part.call_id), self._read_end(part, *account[part.call_id]))
            for part in message.parts
            if isinstance(part, ResultPart) and part.call_id in account
        )

    def _read_end(self, part: ResultPart, cost_usd: Decimal, cause: str) -> Ended | _StoredEnd:
        label = Label.parse(part.call_id)
        if part.error:
            return Ended(None, failure=part.text, cost_usd=cost_usd, is_stopped=cause == PEOPLE)
        if label.step not in self.wanted:
            return Ended(None, cost_usd=cost_usd)
        if part.digest is not None:
            return _StoredEnd(Ended(None, cost_usd=cost_usd), part, part.digest)
        return Ended(part.text if self.is_text(label) else parse_value(part.text), cost_usd=cost_usd)


def _find_read_steps(plan: PlanSpec, needs: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """Return the steps whose outputs anything reads."""
    read = {step.id for step in plan.steps if step.success is not None}
    if plan.output is not None:
        return frozenset(step.id for step in plan.steps)
    return frozenset(read.union(plan_progress.list_last(plan, needs), *needs.values()))


def _list_calls(message: Message, _: AssistantMessage | None) -> tuple[CallPart, ...]:
    """Return the calls of a plan that a message begins."""
    return message.calls if isinstance(message, AssistantMessage) and is_planned(message) else ()


def _read_input(message: Message) -> JsonValue:
    first = message.parts[0]
    return parse_value(first.text) if isinstance(first, TextPart) else None


def _read_account(message: UserMessage) -> dict[str, tuple[Decimal, str]]:
    """Return what the calls of a message have cost, and `PEOPLE` if these ended them, by their ids."""
    for part in message.parts:
        if isinstance(part, TextPart) and part.text.startswith(f'{{"{ACCOUNT}"'):
            account = json.loads(part.text)[ACCOUNT]
            return {name: (Decimal(one["cost_usd"]), PEOPLE if one["people"] else "") for name, one in account.items()}
    return {}


def _write_calls(agent: PinnedAgent, begin: tuple[NewCall, ...]) -> AssistantMessage | None:
    """Return the message that holds the calls that begin."""
    if not begin:
        return None
    assert agent.plan is not None
    parts = tuple(
        CallPart(
            kind="call",
            call_id=str(new.label),
            tool=(tool := plan_progress.name_tool(agent.plan, new.step)),
            arguments=surrogates.repair_text(json.dumps(_find_arguments(agent, tool, new), ensure_ascii=False)),
        )
        for new in begin
    )
    return AssistantMessage(role="assistant", parts=parts, protocol="runtime", model=PLANNED)


def _find_arguments(agent: PinnedAgent, tool: str, new: NewCall) -> JsonValue:
    """Return what a call is made with; an agent is told why the attempt before failed."""
    definition = agent.definition(tool)
    binding = definition.binding if definition is not None else None
    if not isinstance(binding, AgentBinding) or binding.task is None:
        return new.value
    text = new.value if isinstance(new.value, str) else canonical_json(new.value).decode()
    # The input of a plan is a value, and what is said beside it would be part of that.
    if new.failure is not None and new.step.agent is not None:
        text += f"\n\n[The attempt before this one failed: {new.failure}]"
    return {binding.task: text}


def _describe(step: PlanStep, move: Move) -> StepResult:
    """Return how a step went."""
    standing = move.standings[step.id]
    output: JsonValue = standing.output
    text = "" if output is None else output if isinstance(output, str) else canonical_json(output).decode()
    if len(text) > OUTPUT_SHOWN:
        output = wording.shorten(text, OUTPUT_SHOWN)
    return StepResult(
        id=step.id,
        status=standing.status,
        output=output,
        reason=standing.reason,
        cost_usd=format_usd(standing.cost_usd).removeprefix("$"),
        attempts=sum(item.attempts for item in standing.items),
        items=len(standing.items) if step.for_each is not None and standing.values is not None else None,
        completed=standing.completed,
        failed=standing.failed,
    )


def _keep_room(steps: list[StepResult]) -> Iterator[StepResult]:
    """Yield as many steps as a result has room for."""
    room = STEPS_BYTES
    for step in steps:
        short = step.model_copy(update={"output": None, "reason": wording.shorten(step.reason or "", 60) or None})
        shown = next((one for one in (step, short) if len(one.model_dump_json()) <= room), None)
        if shown is None:
            return
        room -= len(shown.model_dump_json())
        yield shown
