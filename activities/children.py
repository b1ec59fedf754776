"""Children: what one is asked, in its parent's conversation, and what became of one that does not report."""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import (
    WorkflowExecutionDescription,
    WorkflowExecutionStatus,
    WorkflowHandle,
    WorkflowHistoryEventFilterType,
)
from temporalio.common import RawValue
from temporalio.service import RPCError, RPCStatusCode

from mandate.activities import failures, heartbeat, other_runs
from mandate.activities.keyring import Keyring
from mandate.activities.toolbox import arguments, written_plans
from mandate.activities.transcript.blobs import BlobMissing
from mandate.activities.transcript.log import TranscriptLog
from mandate.activities.transcript.pinned_agents import PinnedAgents
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.base import Digest, JsonObject, canonical_json, digest_of
from mandate.workflows.contracts.children import ChildReport, ChildRequest, FindReport, ReportFound
from mandate.workflows.contracts.marks import METADATA_KEY, MarkKind
from mandate.workflows.contracts.model import Usage
from mandate.workflows.contracts.plan import PlanStep
from mandate.workflows.contracts.policy import ToolTotals
from mandate.workflows.contracts.run import AGENT_WORKFLOW, PLAN_WORKFLOW, EffectEntry, EffectLog, RunStatus
from mandate.workflows.contracts.state import RunState
from mandate.workflows.contracts.tool import AgentBinding, Tool
from mandate.workflows.rules import budget, plain_text, quantities, redaction, totals, wording
from mandate.workflows.rules import children as rules_children
from mandate.workflows.rules.children import build_unknown, list_ids
from mandate.workflows.rules.plans.progress import name_tool
from mandate.workflows.rules.plans.written import read_plan
from mandate.workflows.rules.result import sum_usage

ENDING_SECONDS, ENDING_PAUSE_SECONDS = 5.0, 0.2
"""Time for a child that has said that it ends, and between looks at it."""

REASON_CHARACTERS = 300

MOST_MISSED = 20
"""Numbers in a row without a child, after which no more are looked for."""


class NoSuchCall(Exception):
    """A child whose parent's conversation has no such call; the text is one sentence."""


@dataclass(frozen=True, slots=True)
class ChildStart:
    """Agent of a child, and what that is asked."""

    digest: Digest
    agent: PinnedAgent
    content: bytes
    """The agent as it is stored."""
    text: str
    goal: str
    """The same as people may see it."""
    below: tuple[bytes, ...] = ()
    """Agents that may work below it and are not stored yet."""


@dataclass(frozen=True, slots=True)
class PlanMade:
    """Agent that carries out a plan of a model."""

    digest: Digest
    agent: PinnedAgent
    content: bytes
    below: tuple[bytes, ...]
    """As of `ChildStart`."""


@dataclass(frozen=True, slots=True)
class AskedCall:
    """A call of an agent, in the conversation of the run that makes it."""

    tool: Tool
    binding: AgentBinding
    arguments: JsonObject

    @property
    def goal(self) -> str:
        """The task as people may see it: nothing of an agent that is asked something sensitive."""
        if self.binding.plans is not None:
            count = len(read_plan(self.arguments).steps)
            return f"a plan of {quantities.count_noun(count, 'step')}, written by the run above"
        if not self.tool.sensitive:
            return self.text
        hidden = redaction.mask(self.arguments, self.tool.sensitive)
        return canonical_json(hidden).decode()

    @property
    def text(self) -> str:
        """The task of the child; of one that carries out a plan, what that is asked."""
        if self.binding.plans is not None:
            return written_plans.write_input(self.arguments)
        task = self.arguments.get(self.binding.task) if self.binding.task is not None else None
        return task if isinstance(task, str) else canonical_json(self.arguments).decode()


class AskedCalls:
    """Calls of agents, as the conversations of those who make them have them."""

    def __init__(self, transcript: TranscriptLog, agents: PinnedAgents) -> None:
        self._transcript = transcript
        self._agents = agents

    async def read_start(self, request: ChildRequest) -> ChildStart:
        """Return the agent of a child, and what it is asked; raise as `read`."""
        asked = await self.read(request.head, request.index, request.edited)
        assert asked.tool.child is not None
        digest = asked.tool.child.digest
        agent = await self._agents.get(digest)
        if asked.binding.plans is not None:
            made = await self._make(agent, asked)
            return ChildStart(made.digest, made.agent, made.content, asked.text, asked.goal, made.below)
        return ChildStart(digest, agent, await self._transcript.blobs.get(digest), asked.text, asked.goal)

    async def _make(self, agent: PinnedAgent, asked: AskedCall) -> "PlanMade":
        """Return what carries out the plan of a call: `agent` has the tools and rules for it."""
        plan = read_plan(asked.arguments)
        tools = [made for made in agent.tools if not isinstance(made.binding, AgentBinding)]
        named = {made.tool.name: made for made in agent.tools if isinstance(made.binding, AgentBinding)}
        steps, below, known = list[PlanStep](), list[bytes](), set[str]()
        for step in plan.steps:
            own = named.get(step.agent or "")
            if own is None or own.tool.child is None:
                steps.append(step)
                continue
            child = await self._agents.get(own.tool.child.digest)
            schema = step.output_schema or child.output_schema
            # Names are those of the plan as it was written: its schemas are filled in after.
            name = name_tool(plan, step)
            steps.append(step.model_copy(update={"output_schema": schema}))
            if name in known:
                continue
            known.add(name)
            limits = rules_children.lower_budget(child.budget, step.budget, step.timeout)
            changed = child.model_copy(update={"budget": limits, "output_schema": schema})
            terms = own.tool.child.model_copy(update={"share": rules_children.find_terms(limits)})
            if changed != child:
                changed = changed.model_copy(update={"base": child.base or own.tool.child.digest})
                content = canonical_json(changed.model_dump(mode="json"))
                below.append(content)
                terms = terms.model_copy(update={"digest": digest_of(content)})
            tool = own.tool.model_copy(
                update={"name": name, "child": terms, "variant_of": step.agent if name != step.agent else None}
            )
            tools.append(own.model_copy(update={"tool": tool}))
        kept = plan.model_copy(update={"steps": tuple(steps)})
        made = agent.model_copy(update={"plan": kept, "tools": tuple(tools)})
        content = canonical_json(made.model_dump(mode="json"))
        return PlanMade(digest_of(content), PinnedAgent.model_validate_json(content), content, tuple(below))

    async def read(self, head: Digest, index: int, edited: Digest | None) -> AskedCall:
        """Return call number `index` of the turn at `head`, with the arguments that people put in place of its own.

        Raises:
            NoSuchCall: the conversation has no such call.
            BlobMissing, BlobCorrupted, StoreUnavailable: see there.
        """
        chain = await self._transcript.load(head)
        caller = await self._agents.get(chain.segment.agent)
        part = chain.conversation.find_call(index)
        definition = caller.definition(part.tool) if part is not None else None
        if part is None or definition is None or not isinstance(definition.binding, AgentBinding):
            raise NoSuchCall(f"the conversation at {head} has no call {index} of an agent")
        blobs = self._transcript.blobs
        whole = await arguments.load_call(blobs, chain.conversation, definition, part, edited)
        return AskedCall(definition.tool, definition.binding, whole)


class ChildActivities:
    """Look-ups of children that do not report."""

    def __init__(self, keyring: Keyring, calls: AskedCalls) -> None:
        self._keyring = keyring
        self._calls = calls

    @activity.defn
    async def find_report(self, request: FindReport) -> ReportFound:
        """Look up what a child is, and what it did if it has ended.

        Raises:
            RPCError: Temporal, or the child, does not answer now; retried.
            ApplicationError: a conversation cannot be read now.
        """
        async with heartbeat.send_heartbeats():
            return await self._find(request)

    async def _find(self, request: FindReport) -> ReportFound:
        if request.known is None:
            return await self._look_at(request)
        own = activity.info().workflow_id or ""
        missed, number = 0, 0
        while missed < MOST_MISSED:
            number += 1
            missed += 1
            for place, id_ in enumerate(list_ids(own, request.run, number, is_taken=False)):
                found = await self._look_at(request.model_copy(update={"child": id_}))
                if found.status == "gone":
                    if place:
                        break
                    # It was not used where another run had the usual id of some child.
                    continue
                missed = 0
                if found.status in {"running", "ended"} and id_ not in request.known:
                    return found.model_copy(update={"child": id_})
        return ReportFound(status="gone")

    async def _look_at(self, request: FindReport) -> ReportFound:
        client = activity.client()
        newest = client.get_workflow_handle(request.child)
        try:
            described = await newest.describe()
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                return ReportFound(status="gone")
            raise
        first = described.raw_description.workflow_execution_info.first_run_id or described.run_id
        with failures.translate_store_errors():
            own = await self._find_own(client.get_workflow_handle(request.child, run_id=first), described, request)
            if own is None or not await self._is_for(own, request):
                return ReportFound(status="other" if own is None else "sibling")
        if request.is_ending:
            described = await _wait_for_end(newest, described)
        if described.status is WorkflowExecutionStatus.RUNNING:
            return ReportFound(status="running", run_id=first)
        exact = client.get_workflow_handle(request.child, run_id=described.run_id)
        return ReportFound(status="ended", run_id=first, result=await self._read_end(exact, first))

    async def _find_own(
        self, first: WorkflowHandle[Any, Any], described: WorkflowExecutionDescription, request: FindReport
    ) -> ChildRequest | None:
        """Return with what a run of the parent's chain has started this workflow; `None` if none has."""
        if described.workflow_type not in (AGENT_WORKFLOW, PLAN_WORKFLOW):
            return None
        begun = await anext(first.fetch_history_events(page_size=1))
        its = begun.workflow_execution_started_event_attributes
        parent = its.parent_workflow_execution
        if parent.workflow_id != activity.info().workflow_id or len(its.input.payloads) != 1:
            return None
        (plain,) = await _decode(its.input.payloads)
        place = (described.namespace, request.child, parent.workflow_id, parent.run_id)
        if not await self._is_genuine("child", place, plain, begun):
            return None
        if await _find_chain(parent.workflow_id, parent.run_id) != request.run:
            return None
        return ChildRequest.model_validate_json(plain.data)

    async def _is_for(self, start: ChildRequest, request: FindReport) -> bool:
        """Return whether a child was started for the same call."""
        if (start.head, start.index, start.edited) == (request.head, request.index, request.edited):
            return True
        try:
            before = await self._calls.read(start.head, start.index, start.edited)
            now = await self._calls.read(request.head, request.index, request.edited)
        except (NoSuchCall, BlobMissing):
            return False
        return before.tool == now.tool and before.arguments == now.arguments

    async def _is_genuine(self, kind: MarkKind, place: tuple[str, ...], payload: Payload, event: HistoryEvent) -> bool:
        at = event.event_time.ToDatetime().astimezone()
        return await self._keyring.is_genuine_now(kind, place, payload.data, payload.metadata.get(METADATA_KEY), at)

    async def _read_end(self, handle: WorkflowHandle[Any, Any], first: str) -> ChildReport:
        """Return the result of a child that has ended, or what can be told in its place."""
        events = handle.fetch_history_events(event_filter_type=WorkflowHistoryEventFilterType.CLOSE_EVENT)
        closing = await anext(events)
        if closing.event_type is EventType.EVENT_TYPE_WORKFLOW_EXECUTION_COMPLETED:
            returned = await _decode(closing.workflow_execution_completed_event_attributes.result.payloads)
            info = activity.info()
            place = (info.namespace, handle.id, first)
            if len(returned) == 1 and await self._is_genuine("report", place, returned[0], closing):
                return ChildReport.model_validate_json(returned[0].data)
            return build_unknown(handle.id, "its result was not made by a worker of this installation")
        reason = _describe_end(closing)
        try:
            state = await other_runs.query_state(handle)
        except other_runs.Unbegun:
            return _build(handle.id, None, reason)
        except other_runs.TellsNothing as error:
            return build_unknown(handle.id, f"{reason}; nobody could tell what it did: {error}")
        await _cancel_below(state)
        return _build(handle.id, state, reason)


async def _cancel_below(state: RunState) -> None:
    """Cancel the children of a run that was ended from outside: nobody waits for them, and nobody else tells them."""
    for child in state.children.values():
        try:
            await activity.client().get_workflow_handle(child.id).cancel()
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise


async def _wait_for_end(
    handle: WorkflowHandle[Any, Any], described: WorkflowExecutionDescription
) -> WorkflowExecutionDescription:
    """Return how a workflow stands, once it has ended if that is within `ENDING_SECONDS`."""
    for _ in range(int(ENDING_SECONDS / ENDING_PAUSE_SECONDS)):
        if described.status is not WorkflowExecutionStatus.RUNNING:
            break
        await asyncio.sleep(ENDING_PAUSE_SECONDS)
        described = await handle.describe()
    return described


async def _find_chain(workflow_id: str, run_id: str) -> str:
    """Return the first run id of the chain that a run belongs to, whatever resets it has had."""
    described = await activity.client().get_workflow_handle(workflow_id, run_id=run_id).describe()
    return described.raw_description.workflow_execution_info.first_run_id or run_id


async def _decode(payloads: Sequence[Payload]) -> list[Payload]:
    """Return payloads as whoever wrote them had them."""
    read: list[RawValue] = await activity.client().data_converter.decode(payloads, [RawValue] * len(payloads))
    return [value.payload for value in read]


def _describe_end(closing: HistoryEvent) -> str:
    """Say how a run ended that has no result, in one sentence."""
    match closing.event_type:
        case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED:
            said = closing.workflow_execution_failed_event_attributes.failure.message
            return plain_text.shorten(said, REASON_CHARACTERS) or "it failed"
        case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED:
            why = closing.workflow_execution_terminated_event_attributes.reason
            return f"it was terminated{f': {plain_text.shorten(why, REASON_CHARACTERS)}' if why else ''}"
        case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT:
            return "its time was over"
        case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED:
            return "it was cancelled"
    return "it ended without a result"


def _build(child: str, state: RunState | None, reason: str) -> ChildReport:
    """Return what takes the place of a child's result: how it stood as it ended, `None` if it had not begun.

    What it was about to do may be done.
    """
    uncertain = tuple(_list_uncertain(child, state)) if state is not None else ()
    return ChildReport(
        status=RunStatus.DECLINED,
        output=None,
        output_digest=None,
        reason=reason,
        usage=_sum_held(state) if state is not None else Usage(),
        head=state.head if state is not None else None,
        audit_head=None,
        effects=state.effects.model_copy(update={"last": ()}) if state is not None else EffectLog(),
        uncertain=uncertain,
        tainted=state is not None and state.tainted,
        refused=state.recovery.refused if state is not None and state.child is not None and state.child.in_plan else {},
        totals=_find_totals(state) if state is not None else {},
    )


def _find_totals(state: RunState) -> dict[str, ToolTotals]:
    """Return what a plan of a model adds to the totals of the run that wrote it."""
    if state.child is None or state.child.totals is None:
        return {}
    return totals.add(state.totals, state.child.totals, -1)


def _sum_held(state: RunState) -> Usage:
    """Return what a run has used, with all that it held for calls and children under way: nobody knows more of them."""
    held, calls = budget.sum_amounts(*state.ledger.held.values()), len(state.ledger.held)
    beside = Usage(
        model_calls=held.model_calls,
        input_tokens=held.tokens,
        cost_usd=held.cost_usd,
        tool_calls=held.tool_calls,
        assumed_calls=calls,
    )
    return sum_usage(state) + beside


def _list_uncertain(child: str, state: RunState) -> Iterator[EffectEntry]:
    """Yield what a run that was ended from outside may have done, beside what it knew."""
    yield from (*state.uncertain_below, *state.uncertain)
    for index, call in enumerate(state.calls):
        tool, verdict = state.agent.tool(call.tool), state.verdicts[index] if index < len(state.verdicts) else None
        is_open = index < len(state.answers) and state.answers[index] is None
        may_act = tool is not None and (tool.effect.changes_world or tool.child is not None)
        if tool is None or not is_open or not may_act or verdict is None or verdict.kind != "allow":
            continue
        one = state.children.get(index)
        if tool.child is not None and one is None:
            # It has not begun, or has reported.
            continue
        yield EffectEntry(
            step=state.step,
            tool=call.tool,
            call=wording.describe_call(call.tool, call.arguments, tool.sensitive),
            key=one.id if one is not None else f"{child}#{index}",
            run=one.id if one is not None else child,
            reason="the run was ended from outside before it had an answer",
        )
