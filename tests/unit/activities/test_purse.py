"""Attempts of a model call: what each of them tells the run, and leaves for the next one."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from mandate.activities.failures import make_model_failure, make_store_failure
from mandate.activities.grants import LOST_MARK, Attempts
from mandate.workflows.contracts.budget import Grant
from mandate.workflows.contracts.failures import FailureType
from mandate.workflows.contracts.model import ModelFailure, NotSent, Usage

GRANT = Grant(input_tokens=1000, output_tokens=100, attempts=3)

STORE = make_store_failure("the store is down", FailureType.STORE_UNAVAILABLE)
NEEDS_STATE = ApplicationError(
    "to be cut", NotSent(input_tokens=900, too_long=900), type=FailureType.NEEDS_STATE, non_retryable=True
)
BEYOND = ApplicationError("no room", ModelFailure(fault="budget"), type=FailureType.BUDGET_USED_UP, non_retryable=True)
CUT = make_model_failure("connection", "gave no whole answer")
BUSY = make_model_failure("rate_limit", "answered 429", status=429, retry_after=0.5)


def fail(error: ApplicationError, *, left: tuple[object, ...] = (), attempt: int = 3, **changes: Any) -> Any:
    """Return the failure that an attempt raises in place of `error`, and what it leaves for the next one."""
    environment, beats = ActivityEnvironment(), list[tuple[Any, ...]]()
    environment.info = replace(environment.info, attempt=attempt, heartbeat_details=left)
    environment.on_heartbeat = lambda *details: beats.append(details)

    def run() -> None:
        attempts = Attempts.read(GRANT)
        for name, value in changes.items():
            setattr(attempts, name, value)
        attempts.fail(error)

    with pytest.raises(ApplicationError) as raised:
        environment.run(run)
    return raised.value, beats


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (STORE, ModelFailure(lost=1)),
        (BEYOND, ModelFailure(fault="budget", lost=1)),
        (NEEDS_STATE, NotSent(input_tokens=900, too_long=900, lost=1)),
        (CUT, ModelFailure(fault="connection", may_be_billed=True, lost=2)),
        (BUSY, ModelFailure(fault="rate_limit", status=429, lost=1)),
    ],
    ids=lambda value: getattr(value, "type", None) or type(value).__name__,
)
def test_each_failure_tells_how_many_attempts_were_lost(error: ApplicationError, told: ModelFailure | NotSent) -> None:
    raised, beats = fail(error, left=(LOST_MARK, 3, 1, ""))

    assert raised.details == (told,)
    assert beats == [(LOST_MARK, 4, told.lost, "")]
    assert (raised.message, raised.type, raised.next_retry_delay) == (error.message, error.type, error.next_retry_delay)
    assert raised.non_retryable == error.non_retryable


def test_an_answer_that_cannot_be_kept_is_lost() -> None:
    raised, beats = fail(STORE, left=(LOST_MARK, 3, 1, ""), is_answered=True)

    assert raised.details == (ModelFailure(lost=2),)
    assert beats == [(LOST_MARK, 4, 2, "")]
    assert raised.next_retry_delay == timedelta(seconds=1)


def test_an_attempt_that_nothing_is_held_for_is_not_made() -> None:
    raised, _ = fail(CUT, left=(LOST_MARK, 3, 2, ""))

    assert raised.details == (ModelFailure(fault="connection", may_be_billed=True, lost=3),)
    assert raised.non_retryable


def test_attempts_that_left_nothing_may_have_been_billed() -> None:
    raised, _ = fail(BEYOND)

    assert raised.details == (ModelFailure(fault="budget", lost=2),)


def test_what_is_within_the_grant_is_sent() -> None:
    Attempts(number=3, lost=2, grant=GRANT).check(1000)


@pytest.mark.parametrize(
    ("input_tokens", "lost", "refused"), [(1000, 3, FailureType.MODEL_UNAVAILABLE), (1001, 0, FailureType.NEEDS_MORE)]
)
def test_nothing_is_sent_beyond_the_grant(input_tokens: int, lost: int, refused: FailureType) -> None:
    with pytest.raises(ApplicationError) as raised:
        Attempts(number=lost + 1, lost=lost, grant=GRANT).check(input_tokens)

    assert (raised.value.type, raised.value.non_retryable) == (refused, True)


def test_a_call_beside_takes_the_place_of_an_attempt() -> None:
    attempts = Attempts(number=2, lost=1, grant=GRANT)
    assert attempts.spare == 1

    attempts.count_beside(Usage(model_calls=1), lost=1)

    with pytest.raises(ApplicationError) as raised:
        attempts.check(1000)
    assert raised.value.type == FailureType.MODEL_UNAVAILABLE
