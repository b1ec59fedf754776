"""Local activities as a history has them: markers of Temporal's SDK, without what they were asked."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent

from mandate.workflows.contracts.tool import LOCAL_ID

MARKER = "core_local_activity"


@dataclass(frozen=True, slots=True)
class LocalActivity:
    """A local activity that is over."""

    kind: str
    index: int | None
    """Position of the call that it is about, as its id tells."""
    subject: str
    """What else its id tells: the name of a check."""
    result: Sequence[Payload]
    failure: Failure | None
    begun_at: datetime | None
    """By the worker's clock."""
    done_at: datetime | None
    """By the clock of the workflow, which stands still but for local activities: see `LocalTimes`."""

    @property
    def is_repeated(self) -> bool:
        """True if it failed in a way for which an ordinary activity follows."""
        failure = self.failure
        while failure is not None and failure.HasField("activity_failure_info") and failure.HasField("cause"):
            failure = failure.cause
        return failure is not None and not failure.application_failure_info.non_retryable


def read_local_activity(event: HistoryEvent) -> LocalActivity | None:
    """Return the local activity that ended with `event`; `None` for other markers, and what cannot be read."""
    marker = event.marker_recorded_event_attributes
    if marker.marker_name != MARKER:
        return None
    try:
        told = json.loads(marker.details["data"].payloads[0].data)
        kind, activity_id = str(told["activity_type"]), str(told["activity_id"])
    except (KeyError, IndexError, ValueError, TypeError):
        return None
    found = LOCAL_ID.fullmatch(activity_id)
    index, subject = (found["index"], found["subject"]) if found is not None else (None, None)
    return LocalActivity(
        kind=kind,
        index=int(index) if index else None,
        subject=subject or "",
        result=tuple(marker.details["result"].payloads) if "result" in marker.details else (),
        failure=marker.failure if marker.HasField("failure") else None,
        begun_at=_read_time(told.get("original_schedule_time")),
        done_at=_read_time(told.get("complete_time")),
    )


@dataclass(slots=True)
class LocalTimes:
    """Times of the local activities of a history.

    The SDK writes two clocks into a marker: the worker's at the beginning, and at the end that of the workflow, which
    is the beginning of its task and the lengths of the local activities that it has waited for. Their difference is no
    length, and often less than nothing.
    """

    _tasks: list[datetime] = field(default_factory=list)
    """Beginnings of the last two tasks."""
    _done: list[tuple[datetime, timedelta, datetime]] = field(default_factory=list)
    """Beginning, length and end by the workflow's clock, of those of this task."""

    def note(self, event: HistoryEvent) -> None:
        """Take in the next event: a task of the workflow may begin with it."""
        if event.HasField("workflow_task_started_event_attributes"):
            self._tasks = [*self._tasks[-1:], event.event_time.ToDatetime(UTC)]
            self._done = []

    def time(self, activity: LocalActivity, at: datetime) -> tuple[datetime, datetime]:
        """Return beginning and end of an activity whose marker was written at `at`."""
        begun_at, done_at = activity.begun_at, activity.done_at
        if begun_at is None or done_at is None:
            return at, at
        # One that outlives its task has its marker after the beginning of the next.
        task_at = max((task for task in self._tasks if task <= done_at), default=None)
        if task_at is None:
            return at, at
        # One that begins after another has ended has waited for it.
        before = [end for begun, length, end in self._done if begun + length <= begun_at]
        length = max(done_at - max([task_at, *before]), timedelta(0))
        self._done.append((begun_at, length, done_at))
        length = min(length, max(at - task_at, timedelta(0)))
        # The worker's clock may be another than the server's.
        begun_at = min(max(begun_at, task_at), at - length)
        return begun_at, begun_at + length


def _read_time(value: object) -> datetime | None:
    match value:
        case {"seconds": int(seconds), "nanos": int(nanos)}:
            return datetime.fromtimestamp(seconds + nanos / 1e9, UTC)
    return None
