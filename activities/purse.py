"""Attempts of one model call within what its run holds for it.

An attempt whose answer was lost may have been billed. Each leaves behind how many were lost before it, so that the one
that answers, or the last one that fails, can say so: the run counts them as it had reserved them.
"""

from dataclasses import dataclass, field
from typing import NoReturn

from temporalio import activity
from temporalio.exceptions import ApplicationError

from mandate.activities import guard, heartbeat
from mandate.activities.failures import EXPECTED
from mandate.workflows.contracts.budget import Amount, Grant
from mandate.workflows.contracts.failures import FailureType
from mandate.workflows.contracts.model import ModelFailure, NotSent, Usage
from mandate.workflows.rules import budget

LOST_MARK = "mandate:lost"


@dataclass(slots=True)
class Attempts:
    """Attempts of the running activity so far."""

    number: int
    """Of the one that runs, from 1."""
    lost: int
    """Those before it that were sent and whose answers nobody got."""
    grant: Grant | None
    is_answered: bool = False
    """The answer of the one that runs has come: it is paid for, also where it cannot be kept."""
    spent: Amount = field(default_factory=Amount)
    """What other calls took that were made for it, of a summary."""
    lost_beside: int = 0
    """Those of them that may have been billed without an answer."""

    @classmethod
    def read(cls, grant: Grant | None) -> "Attempts":
        """Read what the attempts before this one left; of one that left nothing it is not known if it was billed."""
        info = activity.info()
        match tuple(info.heartbeat_details):
            case (str(name), int(number), int(lost), signature) if name == LOST_MARK and 1 <= number <= info.attempt:
                if guard.is_own_heartbeat(_write(number, lost), signature):
                    return cls(info.attempt, lost + info.attempt - number, grant)
        return cls(info.attempt, info.attempt - 1, grant)

    @property
    def spare(self) -> int | None:
        """Calls that may be made beside one attempt that is left; `None` where nothing limits them."""
        return None if self.grant is None else self._paid - self.lost - 1

    @property
    def _paid(self) -> int:
        """Attempts that the run holds money for; each other call takes one's place."""
        assert self.grant is not None
        return self.grant.attempts - self.spent.model_calls - self.lost_beside

    def count_beside(self, usage: Usage, lost: int) -> None:
        """Count the calls that were made for this one so far."""
        self.spent, self.lost_beside = budget.measure_usage(usage), lost

    def describe(self) -> tuple[object, ...]:
        """Return what each heartbeat of this attempt tells the next one, should this one be lost."""
        return self._mark(self.number, self.lost)

    def _mark(self, number: int, lost: int) -> tuple[object, ...]:
        return (LOST_MARK, number, lost, guard.sign_heartbeat(_write(number, lost)))

    def check(self, input_tokens: int) -> None:
        """Check before sending that the request is within its grant.

        Raises:
            ApplicationError: `NeedsMore`, or `ModelUnavailable` once as many attempts were lost as were paid for.
        """
        if self.grant is None:
            return
        if input_tokens > self.grant.input_tokens:
            refuse(
                FailureType.NEEDS_MORE, "the request is larger than what is reserved for it", input_tokens, self.lost
            )
        if self.lost >= self._paid:
            raise ApplicationError(
                f"its answer was lost {self.lost} times, and the budget of the run holds no further attempt",
                ModelFailure(fault="budget"),
                type=FailureType.MODEL_UNAVAILABLE,
                non_retryable=True,
                category=EXPECTED,
            )

    def fail(self, error: ApplicationError) -> NoReturn:
        """Raise `error` with what the run must count, and leave that behind for the next attempt.

        Raises:
            ApplicationError: always; not to be tried again where no further attempt is paid for.
        """
        lost = self.lost + (self.is_answered or may_be_billed(error))
        heartbeat.leave(*self._mark(self.number + 1, lost))
        is_paid = self.grant is None or lost < self._paid
        raise ApplicationError(
            error.message,
            _read_details(error).model_copy(update={"lost": lost + self.lost_beside, "spent": self.spent}),
            type=error.type,
            non_retryable=error.non_retryable or not is_paid,
            category=error.category,
            next_retry_delay=error.next_retry_delay,
        ) from error.__cause__


def may_be_billed(error: ApplicationError) -> bool:
    """Return whether a request that failed so may have been billed."""
    told = _read_details(error)
    return isinstance(told, ModelFailure) and told.may_be_billed


def _read_details(error: ApplicationError) -> ModelFailure | NotSent:
    told = error.details[0] if error.details else {}
    return told if isinstance(told, ModelFailure | NotSent) else ModelFailure.model_validate(told)


def refuse(kind: FailureType, reason: str, input_tokens: int, lost: int) -> NoReturn:
    """Say that nothing was sent, and what the request needs.

    Raises:
        ApplicationError: always, of `kind`; the run decides what comes next.
    """
    raise ApplicationError(
        reason, NotSent(input_tokens=input_tokens, lost=lost), type=kind, non_retryable=True, category=EXPECTED
    )


def _write(number: int, lost: int) -> str:
    return f"{LOST_MARK} {number} {lost}"
