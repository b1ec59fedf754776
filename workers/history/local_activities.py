"""Local activities as a history has them: markers of Temporal's SDK, without what they were asked."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

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
    done_at: datetime | None

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


def _read_time(value: object) -> datetime | None:
    match value:
        case {"seconds": int(seconds), "nanos": int(nanos)}:
            return datetime.fromtimestamp(seconds + nanos / 1e9, UTC)
    return None
