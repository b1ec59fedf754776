"""End of a run, as its history tells it."""

from collections.abc import Sequence

from mandate.workers.history.events import RunEnded
from mandate.workflows.contracts.failures import FailureType
from mandate.workflows.contracts.run import RunResult
from pydantic import ValidationError
from temporalio.api.common.v1 import Payload
from temporalio.api.history.v1 import HistoryEvent
from temporalio.converter import DataConverter
from temporalio.exceptions import ApplicationError, CancelledError

BAD_INPUT = (FailureType.BAD_INPUT, FailureType.UNKNOWN_AGENT)


async def ended_by(event: HistoryEvent, converter: DataConverter) -> RunEnded | None:
    """Return the result of the run if `event` ends it; `None` when it does not."""
    match event.WhichOneof("attributes"):
        case "workflow_execution_completed_event_attributes":
            return await _completed(event.workflow_execution_completed_event_attributes.result.payloads, converter)
        case "workflow_execution_failed_event_attributes":
            error = await converter.decode_failure(event.workflow_execution_failed_event_attributes.failure)
            return RunEnded("failed", words(error), bad_input=getattr(error, "type", None) in BAD_INPUT)
        case "workflow_execution_canceled_event_attributes":
            return RunEnded("cancelled")
        case "workflow_execution_terminated_event_attributes":
            return RunEnded("terminated", event.workflow_execution_terminated_event_attributes.reason or None)
        case "workflow_execution_timed_out_event_attributes":
            return RunEnded("timed_out", "it took longer than its time limit")
        case "workflow_execution_continued_as_new_event_attributes":
            following = event.workflow_execution_continued_as_new_event_attributes.new_execution_run_id
            return RunEnded("continued_as_new", continued_as=following)
    return None


async def _completed(payloads: Sequence[Payload], converter: DataConverter) -> RunEnded:
    try:
        (result,) = await converter.decode(payloads, [RunResult])
    except (ValidationError, ValueError, RuntimeError):
        return RunEnded("completed", "its result is not one of Mandate's")
    return RunEnded(str(result.status), result.reason, result)


def words(error: BaseException | None) -> str:
    """Return the message of a failure: the first of our own making, else its cause."""
    if isinstance(error, CancelledError):
        return "cancelled"
    while error is not None and error.__cause__ is not None and not isinstance(error, ApplicationError):
        error = error.__cause__
    return getattr(error, "message", None) or str(error or "no reason is known")
