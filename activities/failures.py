"""Exceptions of providers, tools and stores as Temporal failures: the only place that decides what is retried."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from mandate.activities.stores.base import StoreUnavailable
from mandate.activities.tool_error import ToolError
from mandate.activities.transcript.blobs import BlobCorrupted, BlobMissing
from mandate.workflows.contracts.failures import FailureType, Outcome, ToolFailure
from mandate.workflows.contracts.tool import Effect, Tool
from mandate.workflows.rules import patience
from mandate.workflows.rules.plain_text import shorten

ModelFault = Literal[
    "rate_limit", "quota", "overloaded", "server", "timeout", "connection", "malformed", "configuration",
    "bad_request", "context_length", "content_filter", "script", "not_asked",
]  # fmt: skip

RETRYABLE_FAULTS: frozenset[ModelFault] = frozenset(
    ("rate_limit", "overloaded", "server", "timeout", "connection", "malformed", "not_asked")
)

BILLED_FAULTS: frozenset[ModelFault] = frozenset(("timeout", "connection", "malformed"))
"""Faults after which nobody knows whether the call was billed."""

EXPECTED = ApplicationErrorCategory.BENIGN
"""The SDK writes no traceback: the activity has logged what happened, and the loop deals with it."""


class ModelError(ApplicationError):
    """Failure of a model call, with what the breaker of its worker goes by."""

    fault: ModelFault
    status: int | None
    retry_after: float | None
    """Seconds that the provider asked for."""


def make_model_failure(
    fault: ModelFault,
    reason: str,
    *,
    attempt: int = 1,
    retry_after: float | None = None,
    status: int | None = None,
    retryable: bool | None = None,
    may_be_billed: bool | None = None,
) -> ModelError:
    """Return the error that `call_model` raises for a provider's failure.

    `retry_after` are the seconds that the provider asked for; without them a retryable fault waits 1, 2, 4, ... up
    to 30 seconds. A wait over two minutes is not slept through: the route goes on to its next model. `retryable` is
    what the provider itself says of a retry; `None` leaves it to the fault. The same holds for `may_be_billed`: the
    request was sent, and no answer says that it was refused.
    """
    wanted = fault in RETRYABLE_FAULTS if retryable is None else retryable
    retryable = wanted and (retry_after is None or retry_after <= 120)
    is_billed = fault in BILLED_FAULTS if may_be_billed is None else may_be_billed
    delay = retry_after if retry_after is not None else min(2.0 ** min(attempt - 1, 5), 30.0)
    if fault == "context_length":
        kind = FailureType.CONTEXT_TOO_LONG
    else:
        kind = FailureType.MODEL_UNAVAILABLE if fault in RETRYABLE_FAULTS else FailureType.MODEL_REJECTED
    error = ModelError(
        shorten(reason),
        {"fault": fault, "status": status, **({"may_be_billed": True} if is_billed else {})},
        type=kind,
        non_retryable=not retryable,
        category=EXPECTED,
        next_retry_delay=timedelta(seconds=delay) if retryable else None,
    )
    error.fault, error.status, error.retry_after = fault, status, retry_after
    return error


@dataclass(frozen=True, slots=True)
class AttemptCount:
    """Attempts of a call so far, as the one that fails knows them."""

    tool: Tool
    number: int
    """Of this attempt in its activity, from 1; lost ones are counted."""
    failed: int
    """Attempts that failed, this one and those of earlier activities included; lost ones are not."""
    rest: timedelta | None
    """Time within which another attempt may begin; `None` where attempts are not bounded by time."""


def make_patient_failure(error: ToolError, count: AttemptCount, *, sent_before: bool) -> ApplicationError:
    """Return the error that `run_tool` raises for `error` in a run that has patience with its calls.

    Temporal repeats the first attempts. What comes later is left to the run, which is told when: `again_in`.
    """
    effect, outcome = count.tool.effect, error.outcome
    is_repeatable = outcome is not Outcome.NOT_DONE or error.retry_after is not None
    if sent_before and not tells_of_all(error, effect):
        outcome = Outcome.UNKNOWN
    wait = 0.2 * 4.0 ** (count.failed - 1) if error.lasting else patience.compute_wait(count.failed, error.retry_after)
    is_repeated = (
        is_repeatable
        and patience.may_repeat(count.tool, count.failed)
        and (count.rest is not None and wait <= count.rest.total_seconds())
        and not (error.lasting and count.failed >= patience.QUICK_ATTEMPTS)
    )
    is_of_temporal = is_repeated and patience.is_left_to_temporal(count.failed, wait)
    told = ToolFailure(
        outcome=outcome,
        reason=error.reason,
        attempts=count.number,
        passing=error.retry_after is not None or _is_passing(error, effect),
        failed=count.failed,
        again_in=wait if is_repeated and not is_of_temporal else None,
    )
    return ApplicationError(
        error.reason,
        told,
        type=FailureType.TOOL_FAILED,
        non_retryable=not is_of_temporal,
        category=EXPECTED,
        next_retry_delay=timedelta(seconds=wait),
    )


def _is_passing(error: ToolError, effect: Effect) -> bool:
    """Return whether the other side was down, so that the agent has done nothing wrong."""
    if error.lasting or error.outcome is Outcome.NOT_DONE:
        return False
    return error.outcome is Outcome.NOT_SENT or effect is not Effect.ONCE


def make_tool_failure(error: ToolError, effect: Effect, attempt: int, *, sent_before: bool) -> ApplicationError:
    """Return the error that `run_tool` raises for `error`: Temporal retries it where repeating is safe and may help.

    `sent_before` says that an earlier attempt may have reached the other side: then "not sent" says nothing. A
    `keyed` tool whose key is forgotten is `once` here.
    """
    outcome = error.outcome
    repeatable = effect is not Effect.ONCE and (outcome is not Outcome.NOT_DONE or error.retry_after is not None)
    repeatable = repeatable and not error.lasting
    if sent_before and not tells_of_all(error, effect):
        outcome = Outcome.UNKNOWN
    asked = error.retry_after
    wait = min(asked, 300.0) if asked is not None else min(0.2 * 4.0 ** (attempt - 1), 30.0)
    return ApplicationError(
        error.reason,
        ToolFailure(outcome=outcome, reason=error.reason, attempts=attempt, passing=error.retry_after is not None),
        type=FailureType.TOOL_FAILED,
        non_retryable=not repeatable,
        category=EXPECTED,
        next_retry_delay=timedelta(seconds=wait),
    )


def tells_of_all(error: ToolError, effect: Effect) -> bool:
    """Return whether the outcome of an attempt is also that of those before it, which may have acted."""
    match error.outcome:
        case Outcome.NOT_SENT:
            return not effect.changes_world
        case Outcome.NOT_DONE:
            # Without a key nothing ties an answer to the attempt that may have acted: "no such row" may be its effect.
            return error.is_of_key if effect is Effect.KEYED else effect is not Effect.IDEMPOTENT
        case _:
            return True


STORE_ERRORS = (BlobMissing, BlobCorrupted, StoreUnavailable)


@contextmanager
def translate_store_errors() -> Iterator[None]:
    """Turn store errors of the body into failures that are retried: another worker or a later moment may do better."""
    try:
        yield
    except STORE_ERRORS as error:
        raise make_store_failure(str(error), _STORE_FAILURES[type(error)]) from None


def make_store_failure(reason: str, kind: FailureType) -> ApplicationError:
    """Return the error for what all workers share and cannot be used at this moment."""
    return ApplicationError(reason, type=kind, next_retry_delay=timedelta(seconds=1))


_STORE_FAILURES: dict[type[Exception], FailureType] = {
    BlobMissing: FailureType.BLOB_MISSING,
    BlobCorrupted: FailureType.BLOB_CORRUPTED,
    StoreUnavailable: FailureType.STORE_UNAVAILABLE,
}
