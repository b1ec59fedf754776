"""A run as Temporal's history tells it: while no worker answers, and after it has ended."""

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import (
    ActivityTaskScheduledEventAttributes,
    HistoryEvent,
    WorkflowExecutionStartedEventAttributes,
)
from temporalio.converter import DataConverter
from temporalio.exceptions import ApplicationError

from mandate.workers.history.budget_history import BudgetHistory
from mandate.workers.history.children import ChildBegun, ChildHistory, ChildReported
from mandate.workers.history.events import (
    Call,
    CallProbed,
    CallReturned,
    CallStarted,
    Happening,
    ModelAnswered,
    ModelAsked,
    ResultChecked,
    RunEnded,
    describe_failure,
    ended_by,
)
from mandate.workers.history.local_activities import LocalActivity, read_local_activity
from mandate.workers.history.requests import CHECKS, NOTIFY, RequestHistory
from mandate.workflows.contracts.agent import AgentPin, Pinned
from mandate.workflows.contracts.base import Digest
from mandate.workflows.contracts.budget import BudgetUse
from mandate.workflows.contracts.children import ChildRequest
from mandate.workflows.contracts.compensation import CompensationRequest
from mandate.workflows.contracts.failures import FailureType, Outcome, ToolFailure
from mandate.workflows.contracts.marks import Marked, read_as
from mandate.workflows.contracts.model import ModelReply, ModelRequest, Usage
from mandate.workflows.contracts.plan import AdvanceRequest, PlanMove
from mandate.workflows.contracts.run import PLAN_WORKFLOW, EffectEntry, EffectLog
from mandate.workflows.contracts.state import RunState
from mandate.workflows.contracts.tool import CallRequest, ToolRequest, ToolResult
from mandate.workflows.contracts.verification import CheckRequest, CheckResult, Probed, ProbeRequest
from mandate.workflows.outcomes import result_of
from mandate.workflows.rules import backtrack, effects, patience, wording
from mandate.workflows.rules import children as rules_children

T = TypeVar("T")

_ASKS_AGAIN = (FailureType.NEEDS_MORE, FailureType.NEEDS_STATE)
"""Failures of model calls after which the run makes the same call once more, and nothing was sent."""


@dataclass(slots=True)
class _Activity:
    kind: str
    line: str
    call: Call | None = None
    verifies: ProbeRequest | CheckRequest | None = None


KEEP_SESSION = "keep_session"
ADVANCE_PLAN = "advance_plan"


@dataclass(slots=True)
class RunHistory:
    """History of a run: all that is known after the events so far; feed it one Temporal run's events in order."""

    converter: DataConverter
    pin: AgentPin | None = None
    head: Digest | None = None
    step: int = 0
    usage: Usage = field(default_factory=Usage)
    usage_below: Usage = field(default_factory=Usage)
    """The part of it that children took which have reported since the run last continued as new."""
    usage_earlier: Usage = field(default_factory=Usage)
    """The part of it that the session's earlier run took, which this one goes on with."""
    effects: EffectLog = field(default_factory=EffectLog)
    uncertain: tuple[EffectEntry, ...] = ()
    """Its own calls; of a run that has ended with a result, those of its children too."""
    uncertain_below: tuple[EffectEntry, ...] = ()
    """Calls of its children."""
    calls: list[Call] = field(default_factory=list)
    """Of the last turn, until the model has answered to their results."""
    ended: RunEnded | None = None
    agent: str | None = None
    """The name of the agent or the plan as it was asked for."""
    is_plan: bool = False
    """It is a run of a plan: its calls are all those that the plan has begun, and each move of the plan is a step."""
    plan_doing: str = ""
    """How far the plan is, in words."""
    why: dict[int, str] = field(default_factory=dict)
    """Why the model of a step was asked, by the steps at which it became another one."""
    task_queue: str = ""
    parked: RequestHistory = field(init=False)
    """Its requests to people."""
    usages: dict[int, Usage] = field(default_factory=dict)
    """Of the answers since the run last continued as new, by step."""
    beside: dict[int, Usage] = field(default_factory=dict)
    """The part of them that calls for summaries took, where there were any."""
    budget: BudgetHistory = field(default_factory=BudgetHistory)
    at: datetime | None = None
    """Time of the newest event."""
    is_session: bool = False
    parent: str | None = None
    """Workflow id of the run that started this one as its child."""
    children: ChildHistory = field(init=False)
    _first_run: str = ""
    _open: dict[int, _Activity] = field(default_factory=dict)
    _waits: dict[int, str] = field(default_factory=dict)
    """Calls that wait for their next attempt, by the events of their timers."""

    def __post_init__(self) -> None:
        self.parked = RequestHistory(self.converter)
        self.children = ChildHistory(self.converter)

    async def add(self, event: HistoryEvent) -> list[Happening]:
        """Take in the next event; return what a person would want to hear of it."""
        await self._note_wait(event)
        self.at = event.event_time.ToDatetime(UTC)
        happened = await self._add(event)
        if (told := await self.children.add(event)) is not None and told.child.index < len(self.calls):
            happened += self._hear_child(told)
        self.parked.is_controlled = self.pin is not None and self.pin.controls
        happened += await self.parked.add(event, self.step)
        self._note_budget(event)
        return happened

    def _note_budget(self, event: HistoryEvent) -> None:
        """Note limits that people raised, and since when the run only waits for people."""
        while self.parked.raised:
            self.budget.raise_limits(self.parked.raised.pop(0))
        is_busy = any(activity.kind not in {NOTIFY, *CHECKS} for activity in self._open.values())
        is_waiting = self.parked.paused_by is not None or (bool(self.parked.requests) and not is_busy)
        self.budget.note_wait(event.event_time.ToDatetime(UTC), is_waiting=is_waiting)

    def measure_budget(self, now: datetime) -> BudgetUse | None:
        """Return the use of the run's budget by now, or at its end."""
        at = self.at if self.ended is not None and self.at is not None else now
        return self.budget.measure(self.step, self._made, at)

    def sum_usage(self) -> Usage:
        """Return what the run has used, its children that have reported and the calls of its tools included."""
        if self.ended is not None and self.ended.result is not None:
            return self.usage
        own = self.budget.count_tool_calls(self._made)
        return self.usage.model_copy(update={"tool_calls": self.usage.tool_calls + own})

    def list_uncertain(self) -> tuple[EffectEntry, ...]:
        """Return the calls whose outcome is unknown, those of children too."""
        return (*self.uncertain_below, *self.uncertain)

    @property
    def _made(self) -> int:
        return sum(call.is_made and call.request.undoes is None for call in self.calls)

    async def _add(self, event: HistoryEvent) -> list[Happening]:
        match event.WhichOneof("attributes"):
            case "workflow_execution_started_event_attributes":
                await self._start(event.workflow_execution_started_event_attributes)
            case "activity_task_scheduled_event_attributes":
                return await self._scheduled(event)
            case "marker_recorded_event_attributes":
                done = read_local_activity(event)
                return await self._done_locally(done) if done is not None else []
            case "activity_task_started_event_attributes":
                self._taken_up(event)
            case "activity_task_completed_event_attributes":
                return await self._completed(event)
            case "activity_task_failed_event_attributes":
                failed = event.activity_task_failed_event_attributes
                return await self._failed(self._closed(failed.scheduled_event_id, event), failed.failure)
            case "activity_task_timed_out_event_attributes":
                late = event.activity_task_timed_out_event_attributes
                return await self._failed(self._closed(late.scheduled_event_id, event), late.failure)
            case "activity_task_canceled_event_attributes":
                activity = self._closed(event.activity_task_canceled_event_attributes.scheduled_event_id, event)
                if activity is not None and activity.call is not None:
                    activity.call.state = "cancelled"
            case _:
                if (ended := await ended_by(event, self.converter)) is not None:
                    self._end(ended)
                    return [ended]
        return []

    @property
    def doing(self) -> str:
        """The current work, in words; empty when nothing is known to be under way."""
        if self.is_plan and self.plan_doing:
            return "; ".join(filter(None, (self.plan_doing, *self._waits.values(), self.parked.doing)))
        going_on = [activity.line for activity in self._open.values() if activity.kind != NOTIFY]
        going_on += self._waits.values()
        if waits := self._describe_children():
            going_on.append(waits)
        return ", ".join(going_on) or self.parked.doing

    def describe_activity(self, scheduled: int) -> str | None:
        """Return the line of an activity under way by the event that scheduled it; `None` for one not known."""
        activity = self._open.get(scheduled)
        return activity.line if activity is not None else None

    def find_wait(self, started: int) -> str | None:
        """Return the line of a call that waits for its next attempt by the event of its timer; else `None`."""
        return self._waits.get(started)

    def _describe_children(self) -> str:
        """Describe the children that the run waits for; empty when there are none."""
        names = [child.workflow_id for child in self.children.open.values()]
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return f"waiting for {', '.join(names[:3])}{more}" if names else ""

    async def _note_wait(self, event: HistoryEvent) -> None:
        """Note a call that waits for its next attempt, as its timer says; other timers say something else."""
        match event.WhichOneof("attributes"):
            case "timer_started_event_attributes" if event.HasField("user_metadata"):
                (line,) = await self._decode([event.user_metadata.summary], str)
                if patience.is_wait(line):
                    self._waits[event.event_id] = line
            case "timer_fired_event_attributes":
                self._waits.pop(event.timer_fired_event_attributes.started_event_id, None)
            case "timer_canceled_event_attributes":
                self._waits.pop(event.timer_canceled_event_attributes.started_event_id, None)

    async def _start(self, attributes: WorkflowExecutionStartedEventAttributes) -> None:
        self.task_queue = attributes.task_queue.name
        self._first_run = attributes.first_execution_run_id
        self.is_plan = attributes.workflow_type.name == PLAN_WORKFLOW
        self.parent = self.parked.parent = attributes.parent_workflow_execution.workflow_id or None
        values: list[Any] = await self.converter.decode(attributes.input.payloads)
        given = values[0] if values else None
        if isinstance(given, Marked) and attributes.continued_execution_run_id:
            self._carry_over(read_as(RunState, given))
            return
        if isinstance(given, Marked):
            self._start_child(given)
            return
        if not isinstance(given, dict):
            return
        if not attributes.continued_execution_run_id or not isinstance(given.get("agent"), dict):
            asked_for = given.get("plan" if self.is_plan else "agent")
            named = asked_for.get("name") if isinstance(asked_for, dict) else asked_for
            self.agent = str(named) if named is not None else None
            self.budget.asked = given.get("budget")
            if isinstance(asked := given.get("session"), dict):
                self.is_session = True
                self.parked.hear_first(str(asked["message"]) if "message" in asked else None)
            return
        self._carry_over(RunState.model_validate(given))

    def _start_child(self, given: Marked) -> None:
        """Take in what a parent asks of this run: a call in the parent's conversation, whose texts are not here."""
        with contextlib.suppress(ValueError):
            request = read_as(ChildRequest, given)
            self.agent = request.name
            self.budget.asked = request.budget.model_dump(mode="json") if request.budget is not None else None

    def _begin(self, pinned: Pinned) -> None:
        self.pin, self.head = pinned.agent, pinned.head
        if self.at is not None:
            self.budget.begin(pinned.agent, pinned.route, self.at)
        if pinned.earlier is None:
            return
        earlier = RunState.model_validate_json(pinned.earlier)
        self.step, self.usage, self.effects = earlier.step, earlier.usage, earlier.effects
        self.usage_earlier = earlier.usage
        self.uncertain_below, self.children.made = earlier.uncertain_below, earlier.children_made
        self.parked.go_on(earlier)
        if self.at is not None:
            self.budget.go_on(earlier, self.at)

    def _carry_over(self, state: RunState) -> None:
        if state.plan is not None and state.plan.made:
            # Here: the loop takes long to import, and only plans leave out places of calls.
            from mandate.workflows.loop.plan import unpack  # noqa: PLC0415 - only for plans

            unpack(state)
        self.pin, self.head, self.step, self.usage = state.agent, state.head, state.step, state.usage
        self.agent, self.effects, self.uncertain = state.agent.name, state.effects, state.uncertain
        self.is_session = state.session is not None
        if state.told_model is not None:
            self.why[state.step + 1] = state.why_model
        self.calls = [self._call(call) for call in state.calls]
        for call, answer in zip(self.calls, state.answers, strict=False):
            if answer is not None:
                call.state, call.result = ("failed" if answer.error else "done"), answer
        self.uncertain_below = state.uncertain_below
        self.parked.carry_over(state)
        self.budget.carry_over(state)
        reported = self.children.carry_over(state)
        for child in self.children.open.values():
            self.calls[child.index].state = "running"
        for told in reported:
            self._settle_child(told)
        # The run counts a call as it is made, and here the calls of a turn are counted as it ends.
        self.budget.count_calls(-self._made)

    async def _scheduled(self, event: HistoryEvent) -> list[Happening]:
        attributes = event.activity_task_scheduled_event_attributes
        kind = attributes.activity_type.name
        line = (await self._decode([event.user_metadata.summary], str))[0] if event.HasField("user_metadata") else kind
        activity = self._open[event.event_id] = _Activity(kind, line)
        if kind in {"call_model", "plan_compensation"}:
            self._close_children()
        if kind == "call_model":
            (request,) = await self._decode(attributes.input.payloads, ModelRequest)
            self.parked.close_all()
            self.parked.is_idle = False
            self.budget.hold(request)
            first = self.pin.models[0] if self.pin is not None else ""
            if request.why:
                self.why[request.step] = request.why
            unmade = self._unmade(zip(self.calls, request.results, strict=False))
            if request.back is not None:
                # Such a request tells no results: the model goes on from an earlier step.
                unmade = self._unmade((call, backtrack.GONE_BACK) for call in self.calls if self._goes_back(call))
            return [*unmade, ModelAsked(request.step, line, request.model or first, request.why)]
        if kind == ADVANCE_PLAN:
            (advance,) = await self._decode(attributes.input.payloads, AdvanceRequest)
            ended = [one for one in advance.ended if one.number < len(self.calls)]
            for one in ended:
                self.parked.close_call(one.number)
            return self._unmade((self.calls[one.number], one.answer) for one in ended)
        if kind == "plan_compensation":
            (planned,) = await self._decode(attributes.input.payloads, CompensationRequest)
            self.parked.take_back()
            return self._unmade(zip(self.calls, planned.results, strict=False))
        if kind == "probe_call":
            (activity.verifies,) = await self._decode(attributes.input.payloads, ProbeRequest)
        if kind == "verify_result":
            (check,) = await self._decode(attributes.input.payloads, CheckRequest)
            activity.verifies = check
            self.budget.hold_check(check)
        if activity.verifies is not None or kind in {"pin_agent", KEEP_SESSION, NOTIFY, *CHECKS}:
            return []
        activity.call = await self._call_of(attributes, line)
        if activity.call is None:
            return []
        activity.call.state, activity.call.is_made = "running", True
        self.parked.close_call(next(index for index, call in enumerate(self.calls) if call is activity.call))
        return [CallStarted(self.step, activity.call)]

    def _hear_child(self, told: ChildBegun | ChildReported) -> list[Happening]:
        """Return the event of a child that begins or has ended: of the call that it is for."""
        call = self.calls[told.child.index]
        if isinstance(told, ChildReported):
            self._settle_child(told)
            return [CallReturned(self.step, call)]
        tool = self.pin.tool(call.request.tool) if self.pin is not None else None
        if tool is not None and tool.child is not None:
            self.budget.hold_share(told.child.key, tool.child.share, told.request.budget)
        call.state, call.is_made, call.begun_at = "running", True, self.at
        self.parked.close_call(told.child.index)
        return [CallStarted(self.step, call)]

    def _settle_child(self, told: ChildReported) -> None:
        """Take what a child has done into the run, as the run itself does."""
        child, result = told.child, told.result
        is_known = rules_children.is_told(child.workflow_id, result)
        counted = self.budget.settle_share(child.key, result.usage, is_known=is_known)
        self.usage, self.usage_below = self.usage + counted, self.usage_below + counted
        below = rules_children.name_uncertain(child.workflow_id, result.uncertain)
        self.uncertain_below = (*self.uncertain_below, *below)[-rules_children.UNCERTAIN_KEPT :]
        call = self.calls[child.index]
        entry = rules_children.stand_for(self._stand_for(call, child.workflow_id), result)
        if entry is not None:
            self.effects = effects.add_effect(self.effects, entry)
        call.result, call.done_at = rules_children.write_answer(child.workflow_id, result), self.at
        call.state = "failed" if call.result.error else "done"

    def _stand_for(self, call: Call, child: str, reason: str | None = None) -> EffectEntry:
        """Return the entry for all that a child did or may have done."""
        return EffectEntry(step=self.step, tool=call.request.tool, call=call.line, key=child, run=child, reason=reason)

    def _close_children(self) -> None:
        """End the calls for which no child was started after all."""
        for child in self.children.close_turn():
            self.budget.settle_share(child.key, Usage(), is_known=True)
            self.calls[child.index].state = "waiting"

    async def _done_locally(self, done: LocalActivity) -> list[Happening]:
        """Return the events of a local activity; of one that is done again as an ordinary one, nothing."""
        if done.is_repeated:
            return []
        call = self.calls[done.index] if done.index is not None and done.index < len(self.calls) else None
        if done.kind == "pin_agent" and done.failure is None:
            (pinned,) = await self._decode(done.result, Pinned)
            self._begin(pinned)
        if done.kind == KEEP_SESSION and done.failure is None:
            self.parked.is_idle = True
        if done.kind == ADVANCE_PLAN and done.failure is None:
            (move,) = await self._decode(done.result, PlanMove)
            return self._moved(move)
        if done.kind == "verify_result":
            with contextlib.suppress(ValueError, RuntimeError):
                (found,) = await self._decode(done.result, CheckResult)
                return [ResultChecked(self.step, done.subject, found.finding, found.reason, call)]
        if done.kind != "run_tool" or call is None:
            return []
        call.state, call.is_made, call.begun_at, call.done_at = "running", True, done.begun_at, done.done_at
        self.parked.close_call(done.index or 0)
        begun = CallStarted(self.step, replace(call))
        if done.failure is not None:
            return [begun, *await self._failed(_Activity(done.kind, call.line, call), done.failure)]
        result = await self._decode_result(done.result)
        self._settle(call, result, Outcome.NOT_DONE if result.error else Outcome.DONE)
        return [begun, CallReturned(self.step, call)]

    async def _call_of(self, attributes: ActivityTaskScheduledEventAttributes, line: str) -> Call | None:
        """Return the call that an activity answers: by its index, else by its key, else by the activity's name.

        A person may have changed it: then `line` says what is called, and the key is another one.
        """
        if attributes.activity_type.name == "run_tool":
            (request,) = await self._decode(attributes.input.payloads, ToolRequest)
            if request.index >= len(self.calls):
                return None
            call = self.calls[request.index]
            # A call that is made again has another key, and one that a person changed another line too.
            return _changed(call, line if request.edited is not None else call.line, request.key)
        waiting = [call for call in self.calls if call.state == "waiting" and self._goes_to(call, attributes)]
        for call in waiting:
            if call.key in {None, attributes.activity_id}:
                return call
        return _changed(waiting[0], line, attributes.activity_id) if waiting else None

    def _goes_to(self, call: Call, attributes: ActivityTaskScheduledEventAttributes) -> bool:
        tool = self.pin.tool(call.request.tool) if self.pin is not None else None
        return tool is not None and tool.remote is not None and tool.remote.name == attributes.activity_type.name

    def _taken_up(self, event: HistoryEvent) -> None:
        """Note the last attempt of an activity: Temporal tells of no other, and of that when it is over."""
        started = event.activity_task_started_event_attributes
        activity = self._open.get(started.scheduled_event_id)
        if activity is not None and (call := activity.call) is not None:
            call.attempts, call.worker = started.attempt, started.identity
            call.begun_at = event.event_time.ToDatetime(UTC)

    def _closed(self, scheduled: int, event: HistoryEvent) -> _Activity | None:
        """Return the activity that `event` ends."""
        activity = self._open.pop(scheduled, None)
        if activity is not None and activity.call is not None:
            activity.call.done_at = event.event_time.ToDatetime(UTC)
        return activity

    async def _completed(self, event: HistoryEvent) -> list[Happening]:
        attributes = event.activity_task_completed_event_attributes
        activity = self._closed(attributes.scheduled_event_id, event)
        if activity is None:
            return []
        payloads = attributes.result.payloads
        if activity.kind == "pin_agent":
            (pinned,) = await self._decode(payloads, Pinned)
            self._begin(pinned)
            return []
        if activity.kind == KEEP_SESSION:
            self.parked.is_idle = True
            return []
        if activity.kind == ADVANCE_PLAN:
            (move,) = await self._decode(payloads, PlanMove)
            return self._moved(move)
        if activity.kind in {"call_model", "plan_compensation"}:
            (reply,) = await self._decode(payloads, ModelReply)
            usage = self.budget.settle(reply) if activity.kind == "call_model" else reply.usage
            return self._replied(reply, usage)
        if activity.verifies is not None:
            return await self._verified(activity.verifies, payloads)
        if activity.call is None:
            return []
        if activity.kind == "run_tool":
            result = await self._decode_result(payloads)
        else:
            result = result_of(payloads[0]) if payloads else ToolResult(text="null")
        self._settle(activity.call, result, Outcome.NOT_DONE if result.error else Outcome.DONE)
        return [CallReturned(self.step, activity.call)]

    async def _verified(self, asked: ProbeRequest | CheckRequest, payloads: Sequence[Payload]) -> list[Happening]:
        """Return what a probe or a check has found; nothing where its result cannot be read."""
        call = self.calls[asked.index] if asked.index is not None and asked.index < len(self.calls) else None
        with contextlib.suppress(ValueError, RuntimeError):
            if isinstance(asked, CheckRequest):
                (found,) = await self._decode(payloads, CheckResult)
                self.usage = self.usage + self.budget.settle_check(asked, found)
                return [ResultChecked(asked.step, asked.check, found.finding, found.reason, call)]
            (probed,) = await self._decode(payloads, Probed)
            if call is not None:
                pinned = self.pin.probes.get(call.request.tool) if self.pin is not None else None
                probe = pinned.tool if pinned is not None else "probe_call"
                return [CallProbed(asked.step, call, probe, probed.outcome, probed.reason)]
        return []

    async def _failed(self, activity: _Activity | None, failure: Failure) -> list[Happening]:
        if activity is None:
            return []
        try:
            error = await self.converter.decode_failure(failure)
        except (ValueError, RuntimeError, OverflowError):
            error = ApplicationError("its failure cannot be read")
        reason = describe_failure(error)
        if isinstance(activity.verifies, CheckRequest):
            self.usage = self.usage + self.budget.settle_failed_check(activity.verifies, error)
        if activity.kind == "call_model":
            self.usage = self.usage + self.budget.settle_failed(error)
            if isinstance(error, ApplicationError) and error.type in _ASKS_AGAIN:
                return []
            return [ModelAnswered(self.step + 1, "", f"no answer: {reason}")]
        if activity.call is None:
            return []
        outcome = Outcome.UNKNOWN
        if isinstance(error, ApplicationError) and error.type == FailureType.TOOL_FAILED and error.details:
            with contextlib.suppress(ValueError):
                told = read_as(ToolFailure, error.details[0])
                outcome, reason = told.outcome, told.reason
        elif isinstance(error, ApplicationError) and self._means_not_done(activity.call, error):
            outcome = Outcome.NOT_DONE
        self._settle(activity.call, ToolResult(text=reason, error=True), outcome)
        return [CallReturned(self.step, activity.call)]

    async def _decode_result(self, payloads: Sequence[Payload]) -> ToolResult:
        """Return a call's result; anybody may have put something else in its place, which the run does not believe."""
        try:
            (result,) = await self._decode(payloads, ToolResult)
        except (ValueError, RuntimeError):
            return ToolResult(text="its result cannot be read", error=True)
        return result

    def _means_not_done(self, call: Call, error: ApplicationError) -> bool:
        tool = self.pin.tool(call.request.tool) if self.pin is not None else None
        return tool is not None and tool.remote is not None and error.type in tool.remote.failed_types

    def _settle(self, call: Call, result: ToolResult, outcome: Outcome) -> None:
        call.result, call.state = result, "failed" if result.error else "done"
        if call.key is None:
            return
        self._know(call)
        entry = self._entry(call)
        if outcome is Outcome.DONE:
            self.effects = effects.add_effect(self.effects, entry)
        elif outcome is Outcome.UNKNOWN:
            call.state = "unknown"
            self.uncertain = (*self.uncertain, entry.model_copy(update={"reason": result.text}))

    def _entry(self, call: Call) -> EffectEntry:
        assert call.key is not None
        return EffectEntry(
            step=self.step,
            tool=call.request.tool,
            call=call.line,
            key=call.key,
            attempts=max(call.attempts or 1, 1),
            undoes=call.request.undoes,
        )

    def _know(self, call: Call) -> None:
        """Remove a call from the uncertain ones: it is made again, or somebody knew its outcome."""
        self.uncertain = tuple(entry for entry in self.uncertain if (entry.step, entry.call) != (self.step, call.line))

    def _replied(self, reply: ModelReply, usage: Usage) -> list[Happening]:
        self.step += 1
        self.budget.count_calls(self._made)
        self.head, self.usage = reply.head, self.usage + usage
        self.usages[self.step] = reply.usage
        if reply.beside is not None:
            self.beside[self.step] = reply.beside
        self.calls = [self._call(call) for call in reply.calls]
        answered = ModelAnswered(self.step, reply.text, reply.problem, final=not reply.calls)
        return [answered, *self._find_misfits(self.calls)]

    def _moved(self, move: PlanMove) -> list[Happening]:
        """Take in what a plan begins: the positions of its calls follow those of all before them."""
        self.step += 1
        self.head, self.plan_doing = move.head, move.doing
        begun = [self._call(call) for call in move.calls]
        self.calls += begun
        return self._find_misfits(begun)

    def _find_misfits(self, calls: Sequence[Call]) -> list[Happening]:
        """Return events of calls that reach no tool, since they do not fit."""
        happened: list[Happening] = []
        for call in calls:
            if call.request.misfit is not None:
                call.state, call.result = "misfit", ToolResult(text=call.request.misfit, error=True)
                happened.append(CallReturned(self.step, call))
        return happened

    def _unmade(self, answered: Iterable[tuple[Call, ToolResult]]) -> list[Happening]:
        """Return events of calls that got an answer without an activity: by verdict, from people, or on expiry."""
        happened: list[Happening] = []
        for call, result in answered:
            if call.state == "waiting":
                call.state, call.result = ("refused" if result.error else "done"), result
                # The run counts the call before it looks whether there is room for a child.
                call.is_made = call.is_made or _is_unstarted(result)
                happened.append(CallReturned(self.step, call))
            elif call.state == "unknown" and call.key is not None:
                # A probe or a person knew what became of it.
                self._know(call)
                call.state, call.result = ("failed" if result.error else "done"), result
                if not result.error:
                    self.effects = effects.add_effect(self.effects, self._entry(call))
                happened.append(CallReturned(self.step, call))
        return happened

    def _goes_back(self, call: Call) -> bool:
        """Tell whether a call goes back to an earlier step."""
        tool = self.pin.tool(call.request.tool) if self.pin is not None else None
        return tool is not None and backtrack.is_going_back(tool)

    def _call(self, request: CallRequest) -> Call:
        tool = self.pin.tool(request.tool) if self.pin is not None else None
        line = wording.describe_call(request.tool, request.arguments, tool.sensitive if tool is not None else ())
        key = None
        if request.digest is not None:
            key = effects.compute_key(self._first_run, request.digest, request.repeat)
        return Call(request, line, key)

    def _end(self, ended: RunEnded) -> None:
        self.ended = ended
        if ended.continued_as is None:
            self._cut_short()
            self.parked.close_all()
        if (result := ended.result) is not None:
            self.head = result.head or self.head
            # A child returns no list of what it did.
            last = result.effects.last or self.effects.last
            self.usage, self.effects = result.usage, result.effects.model_copy(update={"last": last})
            self.uncertain, self.uncertain_below = result.uncertain, ()

    def _cut_short(self) -> None:
        """Mark the calls that were under way when the run was closed: nothing more will be heard of them."""
        for child in self.children.open.values():
            call = self.calls[child.index]
            call.state = "unknown"
            entry = self._stand_for(call, child.workflow_id, "the run ended before the child had reported")
            self.uncertain = (*self.uncertain, entry)
        for call in self.calls:
            if call.state == "waiting":
                call.state = "not made"
            if call.state not in {"running", "cancelled"}:
                continue
            call.state = "stopped" if call.key is None else "unknown"
            if call.key is not None:
                reason = "the run ended while it ran"
                self.uncertain = (*self.uncertain, self._entry(call).model_copy(update={"reason": reason}))

    async def _decode(self, payloads: Sequence[Payload], kind: type[T]) -> list[T]:
        return await self.converter.decode(payloads, [kind] * len(payloads))


def _is_unstarted(result: ToolResult) -> bool:
    """Return whether a result says that a child had no room to begin."""
    return result.cause == "budget" and (result.text or "").startswith("not started")


def _changed(call: Call, line: str, key: str | None) -> Call:
    call.line, call.key = line, key
    return call
