"""Requests of a run to people and their messages to it, as its history tells them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import BaseModel, JsonValue, ValidationError
from temporalio.api.common.v1 import Payload
from temporalio.api.history.v1 import HistoryEvent, WorkflowExecutionSignaledEventAttributes
from temporalio.converter import DataConverter

from mandate.workers.history.events import Happening, MessageReceived, RequestOpened, describe_failure
from mandate.workers.history.local_activities import read_local_activity
from mandate.workflows.contracts.children import TELL_CHILD, ParentMessage
from mandate.workflows.contracts.control import SAFE, ControlCheck, ControlChecked
from mandate.workflows.contracts.decision_lookups import CheckedMany, DecisionChecks
from mandate.workflows.contracts.marks import read_as
from mandate.workflows.contracts.request import (
    EVERY,
    Answer,
    Checked,
    Closed,
    Decision,
    DecisionCheck,
    Decisions,
    Halt,
    Notice,
    Notified,
    NotifyRequest,
    Receipt,
    Receipts,
    Request,
    Steering,
    Stop,
)
from mandate.workflows.contracts.session import Say
from mandate.workflows.contracts.state import RunState
from mandate.workflows.rules import decisions

M = TypeVar("M", bound=BaseModel)

NOTIFY, CHECK, CHECK_MANY = "notify_people", "check_decision", "check_decisions"
CONTROL = "check_control"
CHECKS = (CHECK, CHECK_MANY, CONTROL)

_MESSAGES: Mapping[str, type[Decision] | type[Steering] | type[Halt] | type[Say]] = {
    "decide": Decision,
    "steer": Steering,
    "pause": Halt,
    "resume": Halt,
    "stop": Stop,
    "say": Say,
}
_SETTLED = ("approved", "rejected", "answered", "settled")
_DOES = {"pause": "pauses the run", "resume": "lets the run go on", "stop": "stops the run"}


@dataclass(slots=True)
class RequestHistory:
    """The open requests of a run after the events so far; what does not fit is left out."""

    converter: DataConverter
    requests: dict[str, Request] = field(default_factory=dict)
    """Open ones by their ids, in the order in which they were asked."""
    paused_by: str | None = None
    earlier: tuple[Closed, ...] = ()
    """Outcomes of requests from before the run last continued as new."""
    _updates: dict[int, tuple[str, Any]] = field(default_factory=dict)
    """Messages that are being taken in, by the event that accepted them."""
    _checks: dict[int, tuple[DecisionCheck, ...]] = field(default_factory=dict)
    raised: list[JsonValue] = field(default_factory=list)
    """Limits to which people raised those of the run, until its budget takes them in."""
    _limits: set[str] = field(default_factory=set)
    """Requests about limits on which nobody has decided."""
    is_controlled: bool = False
    """Who steers, pauses, resumes and stops the run is looked up before it counts."""
    parent: str | None = None
    """Workflow id of the run that started this one as its child."""
    is_idle: bool = False
    """It is a session that waits for a message."""
    _said: set[str] = field(default_factory=set)
    """Ids of messages of the session that were told."""
    _heard: list[tuple[str, Any]] = field(default_factory=list)
    """Signals that control the run, until it is known whether they count."""
    _controls: dict[int, ControlCheck] = field(default_factory=dict)
    _obeyed: int = 0
    """Number of the last message of the run above."""

    def carry_over(self, state: RunState) -> None:
        """Go on as the run did when it continued as new."""
        self.requests = {request.id: request for request in state.people.open}
        self._limits = {request.id for request in state.people.open if request.kind == "budget"}
        self.earlier = state.people.closed
        if state.session is not None:
            self.is_idle = state.session.waits_since is not None
            self._said.update(state.session.replies, state.session.told)
        self.paused_by = state.control.paused.by if state.control.paused is not None else None
        self._obeyed = state.child.heard if state.child is not None else 0

    @property
    def status(self) -> str:
        """`paused`, `waiting` for people, `idle` or `running`, of a run that is going on."""
        if self.paused_by is not None:
            return "paused"
        if self.is_idle:
            return "idle"
        return "waiting" if self.requests else "running"

    @property
    def doing(self) -> str:
        """The people whom the run waits for, in words; empty when for nobody."""
        if self.paused_by is not None:
            return f"paused by {self.paused_by}"
        if self.is_idle:
            return "waiting for a message"
        if not self.requests:
            return ""
        names = dict.fromkeys(name for request in self.requests.values() for name in request.waits_for)
        ids = list(self.requests)
        more = f" and {len(ids) - 5} more" if len(ids) > 5 else ""
        return f"waiting for {', '.join(names)} ({', '.join(ids[:5])}{more})"

    def go_on(self, earlier: RunState) -> None:
        """Go on with the session of an earlier run."""
        if earlier.session is not None:
            self.is_idle = True
            self._said.update(earlier.session.replies)

    def close_call(self, index: int) -> None:
        """Close the requests about a call that is being made: nobody is asked about it any more."""
        for request in list(self.requests.values()):
            if request.index == index:
                del self.requests[request.id]

    def take_back(self) -> None:
        """Note that the run takes back what it did: no pause holds it back, nobody is asked about anything else."""
        self.paused_by = None
        self.close_all()

    def close_all(self) -> None:
        self.requests.clear()
        self._checks.clear()

    async def add(self, event: HistoryEvent, step: int) -> list[Happening]:
        """Take in the next event, which belongs to `step`; return what a person would want to hear of it."""
        match event.WhichOneof("attributes"):
            case "workflow_execution_update_accepted_event_attributes":
                return await self._accepted(event, step)
            case "workflow_execution_update_completed_event_attributes":
                return await self._answered(event, step)
            case "workflow_execution_signaled_event_attributes":
                return await self._heard_signal(event.workflow_execution_signaled_event_attributes, step)
            case "activity_task_scheduled_event_attributes":
                return await self._scheduled(event, step)
            case "marker_recorded_event_attributes":
                return await self._checked_locally(event, step)
            case "activity_task_completed_event_attributes":
                completed = event.activity_task_completed_event_attributes
                if (control := self._controls.pop(completed.scheduled_event_id, None)) is not None:
                    found = await self._decoded(completed.result.payloads, ControlChecked)
                    return self._controlled(control, found.refusal if found is not None else None, step)
                checks = self._checks.pop(completed.scheduled_event_id, ())
                checked = await self._results(completed.result.payloads, len(checks))
                return [
                    happening
                    for check, one in zip(checks, checked, strict=False)
                    for happening in self._checked(check, one, step)
                ]
            case "activity_task_failed_event_attributes":
                return self._uncontrolled(event.activity_task_failed_event_attributes.scheduled_event_id, step)
            case "activity_task_timed_out_event_attributes":
                return self._uncontrolled(event.activity_task_timed_out_event_attributes.scheduled_event_id, step)
            case "timer_fired_event_attributes":
                return self._expired(event.event_time.ToDatetime(UTC), step)
            case "upsert_workflow_search_attributes_event_attributes":
                await self._stands(event)
        return []

    async def _heard_signal(self, signal: WorkflowExecutionSignaledEventAttributes, step: int) -> list[Happening]:
        if signal.signal_name != TELL_CHILD:
            return self._signaled(signal.signal_name, await self._read(signal.signal_name, signal.input.payloads), step)
        # The server tells who sent it.
        if signal.external_workflow_execution.workflow_id != self.parent:
            return []
        message = await self._decoded(signal.input.payloads, ParentMessage)
        return self._obey(message, step) if message is not None else []

    async def _accepted(self, event: HistoryEvent, step: int) -> list[Happening]:
        """Take in a message that will be answered; what is said in a session is told at once."""
        accepted = event.workflow_execution_update_accepted_event_attributes.accepted_request.input
        message = await self._read(accepted.name, accepted.args.payloads)
        if isinstance(message, Say):
            return self._spoken(message, step)
        self._updates[event.event_id] = (accepted.name, message)
        return []

    async def _scheduled(self, event: HistoryEvent, step: int) -> list[Happening]:
        attributes = event.activity_task_scheduled_event_attributes
        if attributes.activity_type.name == CONTROL:
            control = await self._decoded(attributes.input.payloads, ControlCheck)
            if control is not None:
                self._controls[event.event_id] = control
        if attributes.activity_type.name == CHECK:
            check = await self._decoded(attributes.input.payloads, DecisionCheck)
            if check is not None:
                self._checks[event.event_id] = (check,)
        if attributes.activity_type.name == CHECK_MANY:
            many = await self._decoded(attributes.input.payloads, DecisionChecks)
            if many is not None:
                self._checks[event.event_id] = many.checks
        if attributes.activity_type.name != NOTIFY:
            return []
        told = await self._decoded(attributes.input.payloads, NotifyRequest)
        return self._asked(told.notices, step) if told is not None else []

    def _asked(self, notices: Sequence[Notice], step: int) -> list[Happening]:
        self.requests.update({notice.request.id: notice.request for notice in notices})
        self._limits.update(notice.request.id for notice in notices if notice.request.kind == "budget")
        return [RequestOpened(step, notice.request, notice.occasion) for notice in notices]

    async def _checked_locally(self, event: HistoryEvent, step: int) -> list[Happening]:
        done = read_local_activity(event)
        if done is None or done.failure is not None:
            return []
        if done.kind == NOTIFY:
            notified = await self._decoded(done.result, Notified)
            return self._asked(notified.notices, step) if notified is not None else []
        many = await self._decoded(done.result, CheckedMany) if done.kind == CHECK_MANY else None
        one = await self._decoded(done.result, Checked) if done.kind == CHECK else None
        checked = many.checked if many is not None else (one,) if one is not None else ()
        return [happening for one in checked for happening in self._taken(one, step)]

    async def _answered(self, event: HistoryEvent, step: int) -> list[Happening]:
        """Return the events that follow from the answer to an update."""
        completed = event.workflow_execution_update_completed_event_attributes
        name, message = self._updates.pop(completed.accepted_event_id, ("", None))
        if message is None:
            return []
        if completed.outcome.HasField("failure"):
            reason = describe_failure(await self.converter.decode_failure(completed.outcome.failure))
            return [MessageReceived(step, f"{_said(name, message)}, which does not count: {reason}", counts=False)]
        if isinstance(message, tuple):
            many = await self._decoded(completed.outcome.success.payloads, Receipts)
            return self._answered_each(message, many.receipts if many is not None else (), step)
        if not isinstance(message, Decision):
            return self._talked(name, message, step)
        receipt = await self._decoded(completed.outcome.success.payloads, Receipt)
        return [self._received(message, receipt, step)] if receipt is not None else []

    def _answered_each(
        self, message: Sequence[Decision | None], answers: Sequence[Answer], step: int
    ) -> list[Happening]:
        happened: list[Happening] = []
        for decision, answer in zip(message, answers, strict=False):
            if decision is not None and answer.receipt is not None:
                happened.append(self._received(decision, answer.receipt, step))
            elif decision is not None and not answer.again:
                line = f"{_said('decide', decision)}, which does not count: {answer.refusal}"
                happened.append(MessageReceived(step, line, counts=False))
        return happened

    def _received(self, decision: Decision, receipt: Receipt, step: int) -> Happening:
        if receipt.status in _SETTLED:
            self._raise(decision)
            self._close(decision.request)
        comment = f" ({decision.comment})" if decision.comment else ""
        if receipt.status == "recorded":
            return MessageReceived(step, f"{_said('decide', decision)}: {receipt.message}{comment}")
        return MessageReceived(step, f"{receipt.message}{comment}")

    def _signaled(self, name: str, message: Any, step: int) -> list[Happening]:
        """Take in a signal, which has no answer: the outcome of a decision is known when it has been checked."""
        if isinstance(message, tuple):
            return []
        if isinstance(message, Say):
            return self._spoken(message, step)
        if not isinstance(message, Decision):
            if self.is_controlled and message is not None:
                self._heard.append((name, message))
                return []
            return self._talked(name, message, step) if message is not None else []
        if message.request != EVERY or not self.requests:
            return []
        self._close(EVERY)
        return [MessageReceived(step, f"{message.by or 'somebody'} rejects all open requests")]

    def _obey(self, message: ParentMessage, step: int) -> list[Happening]:
        """Return the event of a message of the run above, the first time that it comes."""
        if message.number <= self._obeyed:
            return []
        self._obeyed = message.number
        if message.verb == "report":
            return []
        if message.verb in {"pause", "resume"}:
            self.paused_by = message.by if message.verb == "pause" else None
        # A child is not told who resumes it.
        through = "" if message.verb == "resume" else ", through the run above"
        kept = ", and what it did is kept" if message.keep else ""
        reason = f": {message.reason}" if message.reason else ""
        return [MessageReceived(step, f"{message.by} {_DOES[message.verb]}{through}{kept}{reason}")]

    def _spoken(self, message: Say, step: int) -> list[Happening]:
        """Return the event of a message to a session, the first time that it comes."""
        if message.id is not None and message.id in self._said:
            return []
        self._said.update([message.id] if message.id is not None else [])
        return [MessageReceived(step, f"{message.by} says: {message.text}")]

    def hear_first(self, message_id: str | None) -> None:
        """Note the message with which a session began: it is the run's input."""
        self._said.update([message_id] if message_id is not None else [])

    def _controlled(self, check: ControlCheck, refusal: str | None, step: int) -> list[Happening]:
        """Return the event of a signal whose author is known by now; that of an update is told by its answer."""
        heard = next((one for one in self._heard if one[0] == check.verb and one[1].by == check.by), None)
        if heard is None:
            return []
        self._heard.remove(heard)
        if refusal is None:
            return self._talked(*heard, step)
        return [MessageReceived(step, f"{_said(*heard)}, which does not count: {refusal}", counts=False)]

    def _uncontrolled(self, scheduled: int, step: int) -> list[Happening]:
        """Return the event of a signal whose author could not be looked up."""
        check = self._controls.pop(scheduled, None)
        if check is None:
            return []
        return self._controlled(check, None if check.verb in SAFE else "who may do so could not be checked", step)

    def _talked(self, name: str, message: Any, step: int) -> list[Happening]:
        if name in {"pause", "resume"}:
            self.paused_by = message.by if name == "pause" else None
        return [MessageReceived(step, _said(name, message))]

    def _checked(self, check: DecisionCheck, checked: Checked, step: int) -> list[Happening]:
        self.requests.update({check.request.id: check.request} if check.request.id in self.requests else {})
        return self._taken(checked.model_copy(update={"decision": check.decision, "at": check.at}), step)

    def _taken(self, checked: Checked, step: int) -> list[Happening]:
        """Return the events of a signal's decision; that of an update is told by its answer."""
        decision, at = checked.decision, checked.at
        if decision is None or at is None:
            return []
        said = (message for _, message in self._updates.values())
        if any(decision in message if isinstance(message, tuple) else decision == message for message in said):
            return []
        if checked.refusal is not None:
            line = f"{_said('decide', decision)}, which does not count: {checked.refusal}"
            return [MessageReceived(step, line, counts=False)]
        request = self.requests.get(decision.request)
        if checked.edited is None and request is not None:
            going_on = decisions.count_decision(request, decision, checked, at)
            self.requests[request.id] = going_on
            if checked.answer is not None or decisions.find_outcome(going_on) is not None:
                self._raise(decision)
                self._close(decision.request)
        return [
            MessageReceived(step, f"{_said('decide', decision)}{f': {decision.comment}' if decision.comment else ''}")
        ]

    def _expired(self, at: datetime, step: int) -> list[Happening]:
        over = [request for request in self.requests.values() if decisions.is_expired(request, at)]
        for request in over:
            self._close(request.id)
        return [
            MessageReceived(step, f"{request.id} has expired: nobody decided in time", counts=False) for request in over
        ]

    async def _stands(self, event: HistoryEvent) -> None:
        """Close all requests of a run that does not wait any more, however they were answered."""
        fields = event.upsert_workflow_search_attributes_event_attributes.search_attributes.indexed_fields
        if "AgentStatus" in fields and fields["AgentStatus"].data == b'"running"':
            self.requests.clear()

    def _raise(self, decision: Decision) -> None:
        # Its status may have told already that the run does not wait any more, before the decision's answer.
        if decision.choice == "raise" and decision.request in self._limits:
            self._limits.discard(decision.request)
            self.raised.append(decision.value)

    def _close(self, request: str) -> None:
        if request == EVERY:
            self.requests.clear()
        self.requests.pop(request, None)

    async def _read(self, name: str, payloads: Sequence[Payload]) -> Any:
        """Return the argument of a message of ours, all decisions of one that holds many, or `None`."""
        model = _MESSAGES.get(name)
        if model is None:
            return None
        message = await self._decoded(payloads, model)
        many = await self._decoded(payloads, Decisions) if message is None and model is Decision else None
        return _each(many) if many is not None else message

    async def _results(self, payloads: Sequence[Payload], count: int) -> Sequence[Checked]:
        """Return what came of so many checks; nothing where that cannot be read."""
        if count == 0:
            return ()
        many = await self._decoded(payloads, CheckedMany)
        if many is not None:
            return many.checked
        one = await self._decoded(payloads, Checked)
        return (one,) if one is not None else ()

    async def _decoded(self, payloads: Sequence[Payload], model: type[M]) -> M | None:
        if len(payloads) != 1:
            return None
        try:
            (value,) = await self.converter.decode(payloads)
            return read_as(model, value)
        except (ValidationError, ValueError, RuntimeError):
            return None


def _each(message: Decisions) -> tuple[Decision | None, ...]:
    """Return the decisions of a message that holds many; `None` for one that does not fit."""
    found: list[Decision | None] = []
    for entry in message.decisions:
        try:
            found.append(Decision.model_validate(entry))
        except ValidationError:
            found.append(None)
    return tuple(found)


def _said(name: str, message: Any) -> str:
    if isinstance(message, Decision):
        which = "all open requests" if message.request == EVERY else message.request
        changed = " with other arguments" if message.choice == "approve" and message.value is not None else ""
        return f"{message.by or 'somebody'} chose {message.choice}{changed} on {which}"
    if isinstance(message, Steering):
        return f"{message.by} says: {message.text}"
    kept = ", and what it did is kept" if isinstance(message, Stop) and message.keep else ""
    return f"{message.by} {_DOES[name]}{kept}{f': {message.reason}' if message.reason else ''}"
