"""Reader of time lines: history events of all parts of a run, and what its history makes of them."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse

from mandate.workers.history.children import Child
from mandate.workers.history.events import (
    Call,
    CallProbed,
    CallReturned,
    CallStarted,
    Happening,
    MessageReceived,
    ModelAnswered,
    ModelAsked,
    RequestOpened,
    ResultChecked,
    RunEnded,
)
from mandate.workers.history.local_activities import LocalTimes, read_local_activity
from mandate.workers.history.requests import CHECKS, NOTIFY
from mandate.workers.history.run_history import ADVANCE_PLAN, KEEP_SESSION, RunHistory
from mandate.workers.history.timeline import OPEN, SLOW, Bar, BarKind, Part, Timeline, Word
from mandate.workflows.contracts.model import Usage
from mandate.workflows.contracts.request import Request
from mandate.workflows.rules import plain_text

_ACTIVITIES: dict[str, BarKind] = {"call_model": "model", "verify_result": "check", "probe_call": "probe"}
_OWN = frozenset(
    {"pin_agent", KEEP_SESSION, ADVANCE_PLAN, NOTIFY, *CHECKS, "plan_compensation", "find_report", "summarize_context"}
)

_ENDS = tuple(
    f"workflow_execution_{end}_event"
    for end in ("completed", "failed", "canceled", "terminated", "timed_out", "continued_as_new")
)


@dataclass(frozen=True, slots=True)
class _Taken:
    """An event that the history of its part has taken in."""

    event: HistoryEvent
    at: datetime
    history: RunHistory
    happened: Sequence[Happening]


@dataclass(slots=True)
class TimelineReader:
    """Reads what a run did when; feed it the events of all parts, oldest first."""

    timeline: Timeline = field(default_factory=Timeline)
    _activities: dict[int, Bar] = field(default_factory=dict)
    _ids: dict[str, Bar] = field(default_factory=dict)
    """Open activities by Temporal's id of them."""
    _timers: dict[int, Bar] = field(default_factory=dict)
    _requests: dict[str, Bar] = field(default_factory=dict)
    _closed: dict[str, Bar] = field(default_factory=dict)
    """Waits for people that are over, the last by each id of a request."""
    _children: dict[int, Bar] = field(default_factory=dict)
    _task: LocalTimes = field(default_factory=LocalTimes)
    _pause: Bar | None = None
    _idle: Bar | None = None
    _below: Usage = field(default_factory=Usage)

    async def take(self, event: HistoryEvent, history: RunHistory) -> Sequence[Happening]:
        """Let `history` take in the next event of its part, and this time line with it; return what happened.

        What cannot be read, as where a codec's key is missing, is counted, and shown by its times.
        """
        try:
            happened: Sequence[Happening] = await history.add(event)
        except Exception:  # noqa: BLE001 - a payload in another encoding raises whatever its codec does
            self.timeline.unreadable += 1
            happened = ()
        self._add(_Taken(event, event.event_time.ToDatetime(UTC), history, happened))
        return happened

    def _add(self, taken: _Taken) -> None:
        """Take in an event that the history has taken in, and what it made of it."""
        event, at = taken.event, taken.at
        self._note_part(taken)
        match event.WhichOneof("attributes"):
            case "activity_task_scheduled_event_attributes":
                self._schedule(taken)
            case "activity_task_started_event_attributes":
                begun = event.activity_task_started_event_attributes
                if (bar := self._activities.get(begun.scheduled_event_id)) is not None:
                    bar.taken_at, bar.attempts = at, begun.attempt
            case "marker_recorded_event_attributes":
                self._add_local(taken)
            case "timer_started_event_attributes":
                if (line := taken.history.find_wait(event.event_id)) is not None:
                    self._timers[event.event_id] = self._new("retry", line, taken.history.step, at)
            case "timer_fired_event_attributes":
                self._end_timer(event.timer_fired_event_attributes.started_event_id, at)
            case "timer_canceled_event_attributes":
                self._end_timer(event.timer_canceled_event_attributes.started_event_id, at)
            case _:
                self._close(taken)
        self._add_unmade(taken)
        self._compare(taken)
        self._end(taken)

    def _note_part(self, taken: _Taken) -> None:
        """Note where a part begins, and what was said."""
        at = taken.at
        self._task.note(taken.event)
        if taken.event.HasField("workflow_execution_started_event_attributes"):
            started = taken.event.workflow_execution_started_event_attributes
            self.timeline.parts.append(Part(started.original_execution_run_id, at))
            self._begin_part()
        if not self.timeline.parts:
            self.timeline.parts.append(Part("", at))
        for one in taken.happened:
            if isinstance(one, MessageReceived | RequestOpened):
                self.timeline.words.append(Word(at, one.step, one.line, getattr(one, "counts", True)))

    def _begin_part(self) -> None:
        """Forget activities and timers of the part before: none is in flight when a run continues as new."""
        for bar in (*self._activities.values(), *self._timers.values()):
            bar.ended_at, bar.state = self.timeline.parts[-1].begun_at, "stopped"
        self._activities.clear()
        self._timers.clear()
        self._below = Usage()

    def _new(self, kind: BarKind, label: str, step: int, at: datetime) -> Bar:
        bar = Bar(kind, label, step, len(self.timeline.parts), at)
        self.timeline.bars.append(bar)
        return bar

    def _schedule(self, taken: _Taken) -> None:
        scheduled = taken.event.activity_task_scheduled_event_attributes
        kind, history = scheduled.activity_type.name, taken.history
        asked = next((one for one in taken.happened if isinstance(one, ModelAsked)), None)
        started = next((one for one in taken.happened if isinstance(one, CallStarted)), None)
        drawn: BarKind = _ACTIVITIES.get(kind, "own" if kind in _OWN else "tool")
        bar = self._new(drawn, history.describe_activity(taken.event.event_id) or kind, history.step, taken.at)
        bar.name = kind
        if asked is not None:
            bar.label, bar.name, bar.step, bar.reason = asked.model or asked.line, asked.model, asked.step, asked.why
        if started is not None:
            _note_call(bar, started.call, history)
        self._activities[taken.event.event_id] = self._ids[scheduled.activity_id] = bar

    def _close(self, taken: _Taken) -> None:
        """End the bar of an activity that has ended."""
        ended = _find_end(taken.event)
        bar = self._activities.pop(ended[0], None) if ended is not None else None
        if ended is None or bar is None:
            return
        _, bar.state, reason = ended
        bar.ended_at = taken.at
        if bar.state != "done":
            bar.reason = plain_text.shorten(reason)
        _note_outcome(bar, taken)

    def _add_local(self, taken: _Taken) -> None:
        done, history, at = read_local_activity(taken.event), taken.history, taken.at
        if done is None:
            return
        drawn: BarKind = _ACTIVITIES.get(done.kind, "own" if done.kind in _OWN else "tool")
        begun_at, ended_at = self._task.time(done, at)
        if done.kind in _OWN and ended_at - begun_at < SLOW:
            return
        bar = self._new(drawn, done.subject or done.kind, history.step, begun_at)
        bar.name, bar.is_local, bar.index = done.subject or done.kind, True, done.index
        bar.taken_at, bar.ended_at = begun_at, ended_at
        bar.state = "done" if done.failure is None else "failed"
        if done.index is not None and done.index < len(history.calls) and drawn == "tool":
            _note_call(bar, history.calls[done.index], history)
        if done.is_repeated:
            bar.state, bar.reason = "repeated", "it took long, and is done again as an ordinary activity"
        _note_outcome(bar, taken)

    def _end_timer(self, started: int, at: datetime) -> None:
        if (bar := self._timers.pop(started, None)) is not None:
            bar.ended_at, bar.state = at, "done"

    def _add_unmade(self, taken: _Taken) -> None:
        """Add the calls that were answered without being made, at the time of their answer."""
        at = taken.at
        for one in taken.happened:
            if isinstance(one, CallReturned) and not one.call.is_made and one.call.state in {"refused", "misfit"}:
                bar = self._new("tool", one.call.line, one.step, at)
                _note_call(bar, one.call, taken.history)
                bar.ended_at, bar.state = at, one.call.state
                text = one.call.result.text if one.call.result is not None else None
                bar.reason = plain_text.shorten(text or "")

    def _compare(self, taken: _Taken) -> None:
        """Begin and end what lasts, by how the run stands now: waits for people, pauses, children."""
        history, at = taken.history, taken.at
        words = [one.line for one in taken.happened if isinstance(one, MessageReceived)]
        self._compare_requests(history, words, at)
        self._compare_children(history, at)
        parked = history.parked
        if parked.paused_by is not None and self._pause is None:
            self._pause = self._new("pause", f"paused by {parked.paused_by}", history.step, at)
        elif parked.paused_by is None and self._pause is not None:
            _finish(self._pause, at, words)
            self._pause = None
        if parked.is_idle and self._idle is None:
            self._idle = self._new("idle", "waiting for a message", history.step, at)
        elif not parked.is_idle and self._idle is not None:
            _finish(self._idle, at, [])
            self._idle = None

    def _compare_requests(self, history: RunHistory, words: Sequence[str], at: datetime) -> None:
        requests = history.parked.requests
        for name, request in requests.items():
            if name not in self._requests:
                self._requests[name] = self._reopen(request) or self._open_request(request, history)
            self._requests[name].waits_for = request.waits_for or self._requests[name].waits_for
        for name in [name for name in self._requests if name not in requests]:
            bar = self._closed[name] = self._requests.pop(name)
            _finish(bar, at, [])
            bar.state = "closed"
        for name, bar in self._closed.items():
            # A run may tell that it waits no more before it answers who decided.
            if (told := [line for line in words if re.search(rf"\b{name}\b", line)]) and not bar.reason:
                bar.reason = told[-1]
                bar.state = "expired" if "has expired" in bar.reason else "done"

    def _compare_children(self, history: RunHistory, at: datetime) -> None:
        known = {child.number: child for child in (*history.children.ended, *history.children.open.values())}
        for number, child in known.items():
            if child.result is None and number not in self._children:
                bar = self._new("child", child.agent, history.step, at)
                bar.index = child.index
                self._children[number] = bar
            if (begun := self._children.get(number)) is not None:
                begun.name, begun.label = child.workflow_id, f"{child.agent} {child.workflow_id}"
        open_now = {child.number for child in history.children.open.values()}
        for number in [number for number in self._children if number not in open_now]:
            _report(self._children.pop(number), known.get(number), at)
        if history.usage_earlier.model_calls:
            self.timeline.usage_earlier = history.usage_earlier
        if history.usage_below != self._below and (self.timeline.ended is None):
            self.timeline.usage_below = self.timeline.usage_below + _difference(history.usage_below, self._below)
            self._below = history.usage_below

    def _open_request(self, request: Request, history: RunHistory) -> Bar:
        bar = self._new("person", request.title, request.step, request.requested_at)
        bar.name, bar.request, bar.waits_for = request.id, request.kind, request.waits_for
        bar.index = request.index if history.is_plan else None
        self.timeline.requests.append(request)
        if request.kind == "question" and request.server is not None:
            self._note_asked(request)
        return bar

    def _reopen(self, request: Request) -> Bar | None:
        """Return the bar of a request that was closed for a moment: a run that continues as new waits for nobody."""
        bar = self._closed.get(request.id)
        if bar is None or bar.state != "closed" or bar.begun_at != request.requested_at:
            return None
        bar.ended_at, bar.state = None, OPEN
        return self._closed.pop(request.id)

    def _note_asked(self, request: Request) -> None:
        """Note that a call did not fail: the server of its tool asks before it goes on."""
        for bar in reversed(self.timeline.bars):
            if bar.kind == "tool" and bar.index == request.index and bar.step == request.step:
                if bar.state == "failed":
                    bar.state, bar.reason = "asked", ""
                return

    def _end(self, taken: _Taken) -> None:
        told, at = next((one for one in taken.happened if isinstance(one, RunEnded)), None), taken.at
        name = taken.event.WhichOneof("attributes") or ""
        if told is None and not name.startswith(_ENDS):
            return
        self.timeline.parts[-1].ended_at = at
        if name == "workflow_execution_continued_as_new_event_attributes":
            return
        self.timeline.ended = told
        for bar in self._list_open():
            bar.ended_at = at
            if bar.kind == "idle":
                bar.state = "done"
                continue
            bar.state, bar.reason = "stopped", bar.reason or "the run ended while it went on"

    def _list_open(self) -> Iterator[Bar]:
        return (bar for bar in self.timeline.bars if bar.ended_at is None)

    def note_pending(self, described: DescribeWorkflowExecutionResponse) -> None:
        """Note the attempts of activities that go on, of which the history does not tell yet."""
        for pending in described.pending_activities:
            bar = self._ids.get(pending.activity_id)
            if bar is None or bar.ended_at is not None:
                continue
            bar.attempts = max(pending.attempt, 1)
            if pending.HasField("last_started_time"):
                bar.taken_at = pending.last_started_time.ToDatetime(UTC)
            if pending.HasField("last_failure"):
                bar.reason = plain_text.shorten(pending.last_failure.message)


def _note_call(bar: Bar, call: Call, history: RunHistory) -> None:
    bar.label, bar.name = call.line, call.request.tool
    bar.index = next((place for place, one in enumerate(history.calls) if one is call), bar.index)


def _find_end(event: HistoryEvent) -> tuple[int, str, str] | None:
    """Return which activity ends with an event, how, and why it ended so."""
    match event.WhichOneof("attributes"):
        case "activity_task_completed_event_attributes":
            return event.activity_task_completed_event_attributes.scheduled_event_id, "done", ""
        case "activity_task_failed_event_attributes":
            failed = event.activity_task_failed_event_attributes
            return failed.scheduled_event_id, "failed", failed.failure.message
        case "activity_task_timed_out_event_attributes":
            late = event.activity_task_timed_out_event_attributes
            return late.scheduled_event_id, "failed", "it had no answer in its time"
        case "activity_task_canceled_event_attributes":
            return event.activity_task_canceled_event_attributes.scheduled_event_id, "cancelled", ""
    return None


def _note_outcome(bar: Bar, taken: _Taken) -> None:
    """Take what became of an activity from what the history made of its end."""
    if bar.kind == "model" and bar.state == "failed" and not taken.happened:
        # The run makes the same call once more, and nothing was sent.
        bar.kind, bar.state = "own", "repeated"
    for one in taken.happened:
        match one:
            case ModelAnswered():
                bar.usage = taken.history.usages.get(one.step)
                if one.note is not None:
                    bar.state, bar.reason = "failed", one.note
            case CallReturned() if bar.kind == "tool":
                bar.state = "done" if one.call.state == "waiting" else one.call.state
                if one.call.state != "done" and one.call.result is not None:
                    bar.reason = plain_text.shorten(one.call.result.text or "")
            case ResultChecked():
                bar.label, bar.name = one.check, one.check
                bar.label = f"{one.check} of {one.call.line}" if one.call is not None else f"{one.check} of the answer"
                if one.finding != "pass":
                    bar.state, bar.reason = ("failed" if one.finding == "fail" else "unable"), one.reason
            case CallProbed():
                bar.label, bar.name, bar.reason = f"{one.probe} for {one.call.line}", one.probe, one.reason
            case _:
                pass


def _finish(bar: Bar, at: datetime, words: Sequence[str]) -> None:
    bar.ended_at, bar.state = max(at, bar.begun_at), "done"
    bar.reason = words[-1] if words else bar.reason


def _report(bar: Bar, child: Child | None, at: datetime) -> None:
    """End the bar of a child by what it reported; one without a report was not started after all."""
    bar.ended_at, bar.state = at, "not started"
    if child is not None and child.result is not None:
        bar.state = "done" if child.result.status == "completed" else str(child.result.status)
        bar.reason, bar.usage = child.result.reason or "", child.result.usage


def _difference(more: Usage, less: Usage) -> Usage:
    return Usage(**{name: getattr(more, name) - getattr(less, name) for name in Usage.model_fields})
