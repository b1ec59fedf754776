"""Outcomes of calls: what a finished or failed activity says of the call that it made."""

from dataclasses import dataclass
from datetime import timedelta

from temporalio import exceptions
from temporalio.api.common.v1 import Payload
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    FailureError,
    RetryState,
    TimeoutType,
    is_cancelled_exception,
)

from mandate.workflows.contracts.failures import FailureType, Outcome, ToolFailure
from mandate.workflows.contracts.marks import read_as
from mandate.workflows.contracts.model import NotSent
from mandate.workflows.contracts.tool import (
    REMOTE_LIMIT_BYTES,
    Effect,
    Tool,
    ToolResult,
)
from mandate.workflows.rules import patience as rules_patience
from mandate.workflows.rules import quantities, wording
from mandate.workflows.rules.plain_text import REPLACEMENT


def read_not_sent(error: ActivityError, kind: FailureType) -> NotSent | None:
    """Return what a failure of this kind says of the request that was not sent; `None` for any other failure."""
    cause = error.cause
    if not isinstance(cause, ApplicationError) or cause.type != kind or not cause.details:
        return None
    return read_as(NotSent, cause.details[0])


@dataclass(frozen=True, slots=True)
class Attempted:
    """Outcome of a call over all its attempts."""

    outcome: Outcome
    answer: ToolResult
    attempts: int = 1
    """Number of attempts it is known to have had; see `_attempts`."""
    key: str | None = None
    """The idempotency key that it was made under."""
    is_passing: bool = False
    """It was not done for a reason that may be gone another time."""
    failed: int = 1
    """Attempts that failed, as far as they told so themselves."""
    again_in: float | None = None
    """Seconds after which the run may make another attempt; `None` where there is to be none."""
    asked: float | None = None
    """Seconds after which somebody else's activity asks to be tried again."""
    is_lasting: bool = False
    """Somebody else's activity failed in a way that waiting does not mend."""
    is_quick: bool = False
    """Its last attempt was."""


def attempts_at_most(tool: Tool, patience: timedelta | None, *, at_once: bool = False, remote: bool = False) -> int:
    """Return the number of attempts that one activity may have; `patience` is `None` where only they are counted.

    Attempts of our own activities bound themselves, so that this many only end what takes workers down.
    """
    if tool.effect is Effect.ONCE or at_once:
        return 1
    if patience is None:
        return (COUNTED if tool.retries is None else tool.retries) + 1
    if not remote:
        return rules_patience.MOST_ATTEMPTS
    return rules_patience.BURST if tool.retries is None else min(tool.retries + 1, rules_patience.BURST)


COUNTED = 2
"""Attempts after the first of tools that say nothing, in runs that began before there was patience."""


def result_of(payload: Payload) -> ToolResult:
    """Return a remote activity's result as text; it has no blob, since Temporal carried it here.

    Bytes are read as UTF-8: of JSON as far as they are, others where they are text and nothing else.
    """
    if len(payload.data) > REMOTE_LIMIT_BYTES:
        text = f"done, but its result of {len(payload.data)} bytes is over the limit of {REMOTE_LIMIT_BYTES}"
        return ToolResult(text=text, stands_in=True)
    encoding = payload.metadata.get("encoding", b"").decode("utf-8", "replace")
    if encoding == "binary/null":
        return ToolResult(text="null")
    text = payload.data.decode("utf-8", "replace").removeprefix("\ufeff")
    is_text = encoding.startswith("json/") or (encoding == "binary/plain" and not {"\0", REPLACEMENT} & set(text))
    if is_text and text.strip():
        return ToolResult(text=text)
    return ToolResult(
        text=f"done; its result is {quantities.count_bytes(len(payload.data))} of {encoding or 'no encoding'}"
    )


def outcome_of(
    error: ActivityError, tool: Tool, *, at_most: int, ours: bool = False, failed_types: tuple[str, ...] = ()
) -> Attempted:
    """Return the outcome of a call whose last attempt failed; only an activity of `ours` may say it itself.

    `at_most` is the number of attempts that Temporal would make.
    """
    if is_cancelled_exception(error):
        raise error
    told = _told_by_us(error.cause) if ours else None
    failure = told or _failure_of(error.cause, failed_types)
    if told is None and tool.sensitive and isinstance(error.cause, ApplicationError):
        # Whatever else it says may repeat arguments that are shown nowhere.
        failure = failure.model_copy(update={"reason": error.cause.type or "error"})
    answer = ToolResult(text=wording.shorten(failure.reason, 300), error=True)
    attempts = told.attempts if told else _attempts(error, at_most, ours=ours)
    return Attempted(
        failure.outcome,
        answer,
        attempts,
        is_passing=failure.passing,
        failed=told.failed if told else attempts,
        again_in=failure.again_in,
        asked=None if ours else _find_delay(error.cause),
        is_lasting=_is_lasting(error.cause),
    )


def _attempts(error: ActivityError, at_most: int, *, ours: bool) -> int:
    """Return the attempts of a call whose last one says nothing of it; Temporal tells a workflow only so much.

    All that the tool may have, when these were used up; else those that the failure shows: the last one and, if it is
    a timeout, the one before, which knows its number when it is of `ours`.
    """
    if error.retry_state is RetryState.MAXIMUM_ATTEMPTS_REACHED:
        return at_most
    timed_out = error.cause if isinstance(error.cause, exceptions.TimeoutError) else None
    if timed_out is None or timed_out.cause is None:
        return 1
    before = _told_by_us(timed_out.cause) if ours else None
    known = before.attempts if before else 1
    # One that waited for a worker in vain is none.
    return known if timed_out.type is TimeoutType.SCHEDULE_TO_START else known + 1


def _find_delay(cause: BaseException | None) -> float | None:
    delay = cause.next_retry_delay if isinstance(cause, ApplicationError) and not cause.non_retryable else None
    return None if delay is None else delay.total_seconds()


def _is_lasting(cause: BaseException | None) -> bool:
    return isinstance(cause, ApplicationError) and (cause.non_retryable or cause.type in DEFECTS)


DEFECTS = frozenset(
    (
        "ValueError", "TypeError", "KeyError", "IndexError", "AttributeError", "AssertionError", "NameError",
        "ImportError", "ModuleNotFoundError", "NotImplementedError", "ZeroDivisionError", "RangeError",
        "ReferenceError", "SyntaxError", "IllegalArgumentException", "NullPointerException",
    )
)  # fmt: skip
"""Types of errors, of several languages, of code that is wrong or was given what is wrong."""


def _told_by_us(cause: BaseException | None) -> ToolFailure | None:
    if not isinstance(cause, ApplicationError) or cause.type != FailureType.TOOL_FAILED or not cause.details:
        return None
    return read_as(ToolFailure, cause.details[0])


def _failure_of(cause: BaseException | None, failed_types: tuple[str, ...]) -> ToolFailure:
    match cause:
        case ApplicationError() if cause.type in failed_types:
            return ToolFailure(outcome=Outcome.NOT_DONE, reason=_describe(cause))
        case exceptions.TimeoutError(type=TimeoutType.SCHEDULE_TO_START):
            # An attempt before this one may have acted: its failure is then the cause of the timeout.
            outcome = Outcome.NOT_SENT if cause.cause is None else Outcome.UNKNOWN
            return ToolFailure(outcome=outcome, reason="no worker took the call in time")
        case exceptions.TimeoutError(type=TimeoutType.HEARTBEAT):
            return ToolFailure(outcome=Outcome.UNKNOWN, reason="the worker that made the call was lost")
        case exceptions.TimeoutError(type=TimeoutType.SCHEDULE_TO_CLOSE):
            reason = "the call had no answer while the other side knew its key"
            return ToolFailure(outcome=Outcome.UNKNOWN, reason=reason)
        case exceptions.TimeoutError():
            return ToolFailure(outcome=Outcome.UNKNOWN, reason="the call took longer than its timeout")
        case ApplicationError():
            return ToolFailure(outcome=Outcome.UNKNOWN, reason=_describe(cause))
        case FailureError() if cause.message.strip():
            return ToolFailure(outcome=Outcome.UNKNOWN, reason=cause.message)
        case _:
            return ToolFailure(outcome=Outcome.UNKNOWN, reason="the call failed without a reason")


def _describe(error: ApplicationError) -> str:
    """Return type and message of an error; one that says nothing is told with its cause."""
    kind = error.type or "error"
    if error.message.strip():
        return f"{kind}: {error.message}"
    return f"{kind}, caused by {_describe(error.cause)}" if isinstance(error.cause, ApplicationError) else kind
