"""Events of a run in words."""

from temporalio.exceptions import ActivityError, ApplicationError, RetryState, TimeoutType
from temporalio.exceptions import TimeoutError as TimedOut

from mandate.workers.history.events import describe_failure

OUT_OF_TIME = "Not enough time to schedule next retry before activity ScheduleToClose timeout, giving up retrying"


def activity_error(cause: BaseException) -> ActivityError:
    error = ActivityError(
        "Activity task failed",
        scheduled_event_id=1,
        started_event_id=2,
        identity="worker",
        activity_type="run_tool",
        activity_id="1",
        retry_state=RetryState.TIMEOUT,
    )
    error.__cause__ = cause
    return error


def test_call_without_an_answer_in_time_is_told_without_words_of_temporal() -> None:
    timeout = TimedOut(OUT_OF_TIME, type=TimeoutType.SCHEDULE_TO_CLOSE, last_heartbeat_details=[])

    assert describe_failure(timeout) == "it had no answer in its time"
    assert describe_failure(activity_error(timeout)) == "it had no answer in its time"


def test_failure_of_the_last_attempt_is_told_where_it_is_known() -> None:
    timeout = TimedOut(OUT_OF_TIME, type=TimeoutType.SCHEDULE_TO_CLOSE, last_heartbeat_details=[])
    timeout.__cause__ = ApplicationError("the line broke")

    assert describe_failure(activity_error(timeout)) == "the line broke"
