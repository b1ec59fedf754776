"""What a step knows of a call whose last attempt failed, from what Temporal tells a workflow of it."""

from datetime import timedelta

import pytest
from temporalio import exceptions
from temporalio.api.common.v1 import Payload
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    CancelledError,
    FailureError,
    RetryState,
    TerminatedError,
    TimeoutType,
)

from mandate.workflows.contracts.failures import FailureType, Outcome, ToolFailure
from mandate.workflows.contracts.tool import Effect, Tool, ToolResult
from mandate.workflows.outcomes import attempts_at_most, outcome_of, result_of

KEYED = Tool(name="pay", source="activity", effect=Effect.KEYED, retries=4)
ONCE = KEYED.model_copy(update={"effect": Effect.ONCE})
BROKE = ApplicationError("the line broke", type="RuntimeError")
DECLINED = ApplicationError("no money on it", type="CardDeclined")
NOT_SENT, NOT_DONE, UNKNOWN = Outcome.NOT_SENT, Outcome.NOT_DONE, Outcome.UNKNOWN
REFUSED, TIMEOUT, USED_UP = (
    RetryState.NON_RETRYABLE_FAILURE,
    RetryState.TIMEOUT,
    RetryState.MAXIMUM_ATTEMPTS_REACHED,
)


def timed_out(kind: TimeoutType, before: FailureError | None = None) -> exceptions.TimeoutError:
    error = exceptions.TimeoutError("in Temporal's words", type=kind, last_heartbeat_details=[])
    error.__cause__ = before
    return error


def told(outcome: Outcome, attempts: int = 1) -> ApplicationError:
    failure = ToolFailure(outcome=outcome, reason="why", attempts=attempts)
    return ApplicationError("why", failure.model_dump(mode="json"), type=FailureType.TOOL_FAILED)


def failed(cause: FailureError, state: RetryState | None) -> ActivityError:
    error = ActivityError(
        "activity failed",
        scheduled_event_id=5,
        started_event_id=6,
        identity="worker",
        activity_type="Charge",
        activity_id="key",
        retry_state=state,
    )
    error.__cause__ = cause
    return error


START, CLOSE, BEAT, ALL = (
    TimeoutType.SCHEDULE_TO_START,
    TimeoutType.START_TO_CLOSE,
    TimeoutType.HEARTBEAT,
    TimeoutType.SCHEDULE_TO_CLOSE,
)


@pytest.mark.parametrize(
    ("cause", "state", "outcome", "attempts", "reason"),
    [
        # Nobody took the call, at all or again.
        (timed_out(START), TIMEOUT, NOT_SENT, 1, "no worker took the call in time"),
        (timed_out(START, BROKE), TIMEOUT, UNKNOWN, 1, "no worker took the call in time"),
        # It began, and did not come to an end in time.
        (timed_out(CLOSE), USED_UP, UNKNOWN, 5, "the call took longer than its timeout"),
        (timed_out(BEAT), USED_UP, UNKNOWN, 5, "the worker that made the call was lost"),
        (timed_out(BEAT, BROKE), TIMEOUT, UNKNOWN, 2, "the worker that made the call was lost"),
        (timed_out(ALL), TIMEOUT, UNKNOWN, 1, "the call had no answer while the other side knew its key"),
        (timed_out(ALL, BROKE), TIMEOUT, UNKNOWN, 2, "the call had no answer while the other side knew its key"),
        # An error of the other side, known or not.
        (DECLINED, REFUSED, NOT_DONE, 1, "CardDeclined: no money on it"),
        (BROKE, USED_UP, UNKNOWN, 5, "RuntimeError: the line broke"),
        (BROKE, REFUSED, UNKNOWN, 1, "RuntimeError: the line broke"),
        (ApplicationError("the line broke"), USED_UP, UNKNOWN, 5, "error: the line broke"),
        (TerminatedError("gone"), None, UNKNOWN, 1, "gone"),
        # What only an activity of ours may say of itself.
        (told(NOT_DONE, 2), REFUSED, UNKNOWN, 1, "ToolFailed: why"),
    ],
)
def test_remote_activity(
    cause: FailureError, state: RetryState | None, outcome: Outcome, attempts: int, reason: str
) -> None:
    attempted = outcome_of(failed(cause, state), KEYED, at_most=5, failed_types=("CardDeclined",))

    assert (attempted.outcome, attempted.attempts, attempted.answer.text) == (outcome, attempts, reason)
    assert attempted.answer.error


@pytest.mark.parametrize(
    ("cause", "state", "outcome", "attempts"),
    [
        (told(NOT_SENT), REFUSED, NOT_SENT, 1),
        (told(NOT_DONE, 2), REFUSED, NOT_DONE, 2),
        (told(UNKNOWN, 5), USED_UP, UNKNOWN, 5),
        (told(UNKNOWN, 3), TIMEOUT, UNKNOWN, 3),
        (timed_out(BEAT), USED_UP, UNKNOWN, 5),
        # The third attempt was lost with its worker, and no time was left for a fourth.
        (timed_out(BEAT, told(UNKNOWN, 2)), TIMEOUT, UNKNOWN, 3),
        # The third attempt waited for a worker until no time was left.
        (timed_out(START, told(UNKNOWN, 2)), TIMEOUT, UNKNOWN, 2),
        (timed_out(START), TIMEOUT, NOT_SENT, 1),
    ],
)
def test_tool_of_ours(cause: FailureError, state: RetryState, outcome: Outcome, attempts: int) -> None:
    attempted = outcome_of(failed(cause, state), KEYED, at_most=5, ours=True)

    assert (attempted.outcome, attempted.attempts) == (outcome, attempts)


def test_once_tool_had_its_one_attempt() -> None:
    attempted = outcome_of(failed(timed_out(BEAT), USED_UP), ONCE, at_most=1, ours=True)

    assert (attempted.outcome, attempted.attempts) == (UNKNOWN, 1)


def test_cancellation_is_no_outcome() -> None:
    error = failed(CancelledError("cancelled"), None)

    with pytest.raises(ActivityError) as raised:
        outcome_of(error, KEYED, at_most=5)

    assert raised.value is error


MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("effect", "retries", "patience", "is_remote", "attempts"),
    [
        # In runs that began before there was patience.
        (Effect.KEYED, None, None, False, 3),
        (Effect.KEYED, 4, None, True, 5),
        # Ours bound themselves; this is for calls that take workers down.
        (Effect.READ, None, MINUTE, False, 20),
        (Effect.KEYED, 1, MINUTE, False, 20),
        # Somebody else's: as many as are left to Temporal.
        (Effect.KEYED, None, MINUTE, True, 4),
        (Effect.KEYED, 1, MINUTE, True, 2),
        (Effect.KEYED, 9, MINUTE, True, 4),
        (Effect.ONCE, None, MINUTE, False, 1),
        (Effect.ONCE, 9, None, True, 1),
    ],
)
def test_attempts_of_one_activity(
    effect: Effect, retries: int | None, patience: timedelta | None, is_remote: bool, attempts: int
) -> None:
    tool = Tool(name="act", source="python", effect=effect, retries=retries)

    assert attempts_at_most(tool, patience, remote=is_remote) == attempts


def test_one_attempt_is_one_attempt() -> None:
    assert attempts_at_most(KEYED, MINUTE, at_once=True, remote=True) == 1


@pytest.mark.parametrize(
    ("cause", "is_lasting"),
    [
        (BROKE, False),
        (ApplicationError("bad", type="ValueError"), True),
        (ApplicationError("no", type="Declined", non_retryable=True), True),
        (timed_out(CLOSE), False),
    ],
)
def test_error_that_waiting_does_not_mend(cause: FailureError, is_lasting: bool) -> None:
    assert outcome_of(failed(cause, USED_UP), KEYED, at_most=4).is_lasting is is_lasting


def payload(data: bytes, encoding: str = "json/plain") -> Payload:
    return Payload(data=data, metadata={"encoding": encoding.encode()})


@pytest.mark.parametrize(
    ("returned", "text"),
    [
        (payload(b'{"a": "\xc3\xbc"}'), '{"a": "ü"}'),
        (payload(b'\xef\xbb\xbf{"a": 1}'), '{"a": 1}'),
        (payload(b'{"a": "caf\xe9"}'), '{"a": "caf\ufffd"}'),
        (payload(b'{"a": "\\ud83d", "n": NaN}'), '{"a": "\\ud83d", "n": NaN}'),
        (payload(b'{"a": 1}', "json/protobuf"), '{"a": 1}'),
        (payload(b"", "binary/null"), "null"),
        (payload(b"a text", "binary/plain"), "a text"),
        (payload(b"\x89PNG\x00", "binary/plain"), "done; its result is 5 bytes of binary/plain"),
        (payload(b"\x08\x01", "binary/protobuf"), "done; its result is 2 bytes of binary/protobuf"),
        (payload(b"x" * 9, "binary/encrypted"), "done; its result is 9 bytes of binary/encrypted"),
        (payload(b"", "json/plain"), "done; its result is 0 bytes of json/plain"),
        (payload(b"\xef\xbb\xbf \n", "json/plain"), "done; its result is 5 bytes of json/plain"),
        (Payload(data=b"x", metadata={"encoding": b"\xff"}), "done; its result is 1 byte of \ufffd"),
        (Payload(), "done; its result is 0 bytes of no encoding"),
    ],
)
def test_result_of_another_worker_is_read_where_it_can_be(returned: Payload, text: str) -> None:
    assert result_of(returned) == ToolResult(text=text)


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        (ApplicationError("", type="TimeoutError"), "TimeoutError"),
        (ApplicationError(" ", type=None), "error"),
        (TerminatedError(""), "the call failed without a reason"),
        (ApplicationError("caf\x00\x1b[31m \u202e", type="E"), "E: caf\ufffd\ufffd[31m \ufffd"),
    ],
)
def test_error_of_another_worker_is_never_empty(cause: FailureError, reason: str) -> None:
    assert outcome_of(failed(cause, REFUSED), KEYED, at_most=5).answer.text == reason


def test_error_without_words_is_told_with_its_cause() -> None:
    error = ApplicationError("", type="ChargeFailed")
    error.__cause__ = BROKE

    assert (
        outcome_of(failed(error, REFUSED), KEYED, at_most=5).answer.text
        == "ChargeFailed, caused by RuntimeError: the line broke"
    )
