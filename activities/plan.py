"""A plan under way: what its calls returned, which begin now, how it ends."""

import asyncio
import json
from collections import OrderedDict
from collections.abc import Iterator

import structlog
from pydantic import JsonValue
from temporalio import activity

from mandate.activities import failures
from mandate.activities.heartbeat import Stopwatch, send_heartbeats
from mandate.activities.plan_calls import ACCOUNT, KEPT, REJECTED, SETTLED, PlanCallReader, read_given
from mandate.activities.toolbox import calls as toolbox_calls
from mandate.activities.transcript import results, sensitive_arguments
from mandate.activities.transcript.conversation import PLANNED, Conversation, is_planned
from mandate.activities.transcript.log import TranscriptLog
from mandate.activities.transcript.pinned_agents import PinnedAgents
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.base import Digest, JsonObject, canonical_json
from mandate.workflows.contracts.model import CHILD_OUTPUT_BYTES, OUTPUT_INLINE_BYTES, Finish
from mandate.workflows.contracts.plan import (
    AdvanceRequest,
    PlanEnd,
    PlanMove,
    PlanSpec,
    PlanStep,
    StepAsk,
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
from mandate.workflows.rules.plans.progress import Ask, Move, NewCall, Progress, Standing

PLANS_KEPT = 64
"""Plans under way of which a process keeps how they stand."""

OUTPUT_SHOWN = 300
STEPS_BYTES = 14 * 1024
"""Of the steps that a result shows."""

log = structlog.stdlib.get_logger(__name__)


class PlanActivities:
    """Plans, as they are pinned, and the conversations that hold their calls."""

    def __init__(self, agents: PinnedAgents, transcript: TranscriptLog) -> None:
        self._agents = agents
        self._transcript = transcript
        self._calls = PlanCallReader(transcript.blobs)
        self._progress: OrderedDict[Digest, Progress] = OrderedDict()
        """How plans stand at the heads of their conversations, each until its next move."""

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
        plan = (await self._agents.get(chain.segment.agent)).plan
        if plan is None:
            raise ValueError("it is the conversation of an agent, which has no steps")
        move = (await self._begin(plan, chain.conversation, is_stopping=has_ended)).advance()
        return [describe_step(step, move.standings[step.id]) for step in plan.steps]

    async def _advance(self, request: AdvanceRequest) -> PlanMove:
        with failures.translate_store_errors():
            agent = await self._agents.get(request.agent)
            assert agent.plan is not None
            chain = await self._transcript.load(request.head)
            told = await self._tell(chain.conversation, agent, request)
            before = (told,) if told is not None else ()
            progress = self._progress.pop(request.head, None)
            if progress is None:
                progress = await self._begin(agent.plan, chain.conversation)
            read = await self._calls.read(agent.plan, before)
            progress.take(read.calls, read.settled)
            if request.is_stopping or request.is_closing:
                progress.stop()
            # With large outputs it takes seconds, in which this worker's other work and its heartbeats go on.
            move = await asyncio.to_thread(progress.advance)
            message, asks = _write_calls(agent, move.begin), tuple(map(_write_ask, move.asks))
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
                progress.take({new.label: None for new in move.begin})
                self._keep(extended.head, progress)
                return PlanMove(head=extended.head, calls=requests, doing=move.doing, asks=asks)
            head = request.head
            if before:
                head = (await self._transcript.append(chain, request.agent, before)).head
            most = CHILD_OUTPUT_BYTES if request.is_child else OUTPUT_INLINE_BYTES
            if request.is_closing:
                move.close("it was under way when the plan was stopped")
            end = await self._end(agent.plan, progress, move, most) if move.is_over or request.is_closing else None
            # One that begins nothing any more would also begin nothing after its limit is raised.
            if end is None and not request.is_stopping:
                self._keep(head, progress)
        return PlanMove(head=head, doing=move.doing, end=end, asks=asks)

    async def _begin(self, plan: PlanSpec, conversation: Conversation, *, is_stopping: bool = False) -> Progress:
        """Return the progress of a plan up to the end of its conversation."""
        first, *rest = conversation
        read = await self._calls.read(plan, rest)
        return Progress(
            plan, map_needs(plan), read_given(first), read.calls, is_stopping=is_stopping, settled=read.settled
        )

    def _keep(self, head: Digest, progress: Progress) -> None:
        """Keep how a plan stands at a head, so that the next move looks only at what is new."""
        self._progress[head] = progress
        if len(self._progress) > PLANS_KEPT:
            self._progress.popitem(last=False)

    async def _tell(
        self, conversation: Conversation, agent: PinnedAgent, request: AdvanceRequest
    ) -> UserMessage | None:
        """Return the message that holds the answers to calls, what they have cost, and what people said of steps."""
        if not request.ended and not request.settled:
            return None
        parts = list[ResultPart | TextPart]()
        account: dict[str, JsonValue] = {}
        made = [call for calls in conversation.map_messages("calls of a plan", _list_calls) for call in calls]
        for one in request.ended:
            call = made[one.number]
            # A note is for models; of a failure it may be the reason.
            answer = one.answer
            if not answer.error:
                answer = answer.model_copy(update={"note": None})
            parts.append(await results.tell(self._transcript.blobs, call, answer, agent.definition(call.tool)))
            account[call.call_id] = {
                "cost_usd": f"{one.cost_usd:f}",
                "people": answer.cause == "people",
                **({REJECTED: answer.rejected.model_dump(mode="json", include=KEPT)} if answer.rejected else {}),
            }
        settled: dict[str, JsonValue] = {
            one.call: one.model_dump(mode="json", exclude_none=True, exclude={"call"}) for one in request.settled
        }
        told: JsonObject = {ACCOUNT: account, **({SETTLED: settled} if settled else {})}
        parts.append(TextPart(kind="text", text=canonical_json(told).decode()))
        return UserMessage(role="user", parts=tuple(parts))

    async def _end(self, plan: PlanSpec, progress: Progress, move: Move, most_bytes: int) -> PlanEnd:
        """Return how a plan ends: its output, by reference if it has more than `most_bytes`, and how each step went."""
        fault = plan_progress.find_end_fault(plan, map_needs(plan), move)
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
        steps = [describe_step(step, move.standings[step.id]) for step in plan.steps]
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


def _list_calls(message: Message, _: AssistantMessage | None) -> tuple[CallPart, ...]:
    """Return the calls of a plan that a message begins."""
    return message.calls if isinstance(message, AssistantMessage) and is_planned(message) else ()


def _write_ask(ask: Ask) -> StepAsk:
    return StepAsk(call=str(ask.label), reason=ask.reason, tried=ask.tried, has_output=ask.has_output)


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
    if new.guidance and new.step.agent is not None:
        text += f"\n\n[A person says: {new.guidance}]"
    return {binding.task: text}


def describe_step(step: PlanStep, standing: Standing) -> StepResult:
    """Return how a step went."""
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
