"""Purse of an activity: all model calls of its attempts, whatever for, each held, settled and counted exactly once.

A call whose answer was lost may have been billed. So each call counts as lost from before it is sent until its answer
is counted, and what is counted is told to the run by the attempt that answers, or by the last one that fails. Each
attempt leaves it behind for the next one, and has left it before it sends a second call, since a killed worker leaves
nothing more.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NoReturn, Protocol, TypeVar

from pydantic import ValidationError
from temporalio import activity
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from mandate.activities import failures, guard, heartbeat
from mandate.activities.period_budgets import Held, PeriodBudgets, PeriodUse
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.budget import Amount, Grant
from mandate.workflows.contracts.failures import FailureType
from mandate.workflows.contracts.model import ModelFailure, NotSent, Payer, Usage
from mandate.workflows.rules import budget, quantities
from mandate.workflows.rules.budget import CallSize
from mandate.workflows.rules.period_budgets import Spender

SPENT_MARK = "mandate:spent"
"""Tells what attempts took so far from other heartbeat details."""


class Answer(Protocol):
    """Answer of a model."""

    @property
    def usage(self) -> Usage: ...


A = TypeVar("A", bound=Answer)


@dataclass(slots=True)
class Purse:
    """Calls of the running activity so far, those of its earlier attempts included."""

    number: int
    """Of the attempt that runs, from 1."""
    lost: int = 0
    """Calls that may be billed and are not in `usage`: their answers were lost, or are not counted yet."""
    grant: Grant | None = None
    """What the run holds for all of them; `None` where nothing limits it."""
    budgets: PeriodBudgets | None = None
    """Those beyond the run."""
    usage: Usage = field(default_factory=Usage)
    """Of answers that were counted."""
    period_use: PeriodUse | None = None
    """After the last answer; `None` where the run counts in no budget beyond it."""
    _spender: Spender | None = None
    _named: int = 0
    """Calls of this attempt that have got a name."""
    _sent: int = 0
    """Those of them that were sent."""

    @classmethod
    def read(cls, grant: Grant | None, budgets: PeriodBudgets | None = None) -> "Purse":
        """Read what the attempts before this one left; of one that left nothing it is not known if it was billed."""
        info = activity.info()
        match tuple(info.heartbeat_details):
            case (str(mark), int(number), int(lost), str(written), signature) if (
                mark == SPENT_MARK
                and 1 <= number <= info.attempt
                and guard.is_own_heartbeat(_write(number, lost, written), signature)
            ):
                try:
                    usage = Usage.model_validate_json(written)
                except ValidationError:
                    pass
                else:
                    return cls(info.attempt, lost + info.attempt - number, grant, budgets, usage)
        return cls(info.attempt, info.attempt - 1, grant, budgets)

    @property
    def made(self) -> int:
        """Calls that were, or may be, billed."""
        return self.usage.model_calls + self.lost

    @property
    def left(self) -> int | None:
        """Calls that the run holds money for; `None` where nothing limits them."""
        return None if self.grant is None else max(self.grant.attempts - self.made, 0)

    async def enter(self, agent: PinnedAgent, payer: Payer | None) -> None:
        """Count in the budgets beyond the run, where what earlier attempts still hold is assumed: they were lost.

        Raises:
            ApplicationError: store failures, retried.
        """
        if self.budgets is None or payer is None:
            return
        self._spender = Spender(agent.name, payer.requester, payer.labels)
        info = activity.info()
        earlier = [_name_attempt(info, number) for number in range(1, info.attempt)]
        await self.budgets.assume_lost(earlier, self._spender)

    def check(self, input_tokens: int) -> None:
        """Check before sending that a request is within the grant.

        Raises:
            ApplicationError: `NeedsMore`, or `ModelUnavailable` once as many calls were made as were paid for.
        """
        if self.grant is not None and input_tokens > self.grant.input_tokens:
            raise ApplicationError(
                "the request is larger than what is reserved for it",
                NotSent(input_tokens=input_tokens),
                type=FailureType.NEEDS_MORE,
                non_retryable=True,
                category=failures.EXPECTED,
            )
        if self.left == 0:
            raise ApplicationError(
                f"its answer was lost {quantities.count_times(self.lost)}, "
                "and the budget of the run holds no further attempt",
                ModelFailure(fault="budget"),
                type=FailureType.MODEL_UNAVAILABLE,
                non_retryable=True,
                category=failures.EXPECTED,
            )

    async def buy(self, model: str, size: CallSize, ask: Callable[[], Awaitable[A]], *, within: timedelta) -> A:
        """Make one call by `ask`, which takes `within`, and return its answer; it counts as lost until `count`.

        Raises:
            ApplicationError: that of `ask`; or nothing was sent: `BudgetUsedUp`, `ModelRejected` or a store failure of
                a budget beyond the run, `ModelUnavailable` where the server cannot be told.
        """
        held = await self._hold(model, size, within)
        self._sent += 1
        self.lost += 1
        try:
            if self._sent > 1:
                await self._leave_surely()
            answer = await ask()
        except ApplicationError as error:
            is_billed = may_be_billed(error)
            self.lost -= not is_billed
            if held is not None:
                await (held.assume() if is_billed else held.settle(Amount()))
            raise
        except BaseException:
            # Cut off by a limit of time, or by the end of the worker: the provider may go on, and bill it.
            if held is not None:
                await held.assume()
            raise
        if held is not None:
            usage = answer.usage
            await (held.assume() if usage.unpriced_calls else held.settle(budget.measure_usage(usage)))
            self.period_use = held.use
        return answer

    def count(self, usage: Usage) -> None:
        """Count the answer of one call as it was told: it is not lost."""
        self.usage += usage
        self.lost -= 1

    async def _hold(self, model: str, size: CallSize, within: timedelta) -> Held | None:
        """Hold what one call may take in the budgets beyond the run that it counts in."""
        if self.budgets is None or self._spender is None:
            return None
        self._named += 1
        return await self.budgets.hold(
            f"{_name_attempt(activity.info(), self.number)}:{self._named}",
            self._spender,
            budget.measure_call(size),
            unpriced_model=model if size.price is None else None,
            within=within / 2,
        )

    def describe(self) -> tuple[object, ...]:
        """Return what each heartbeat of this attempt tells the next one, should this one be lost."""
        return self._mark(self.number + (self._sent > 0))

    def leave(self) -> None:
        """Leave behind for the next attempt what was counted, at the end of this one."""
        heartbeat.leave(*self._mark(self.number + 1))

    async def _leave_surely(self) -> None:
        try:
            await heartbeat.leave_surely(*self.describe())
        except RPCError as error:
            reason = f"the server cannot be told what was spent so far: {error.message}"
            raise failures.make_model_failure("not_asked", reason, attempt=self.number) from None

    def _mark(self, number: int) -> tuple[object, ...]:
        """Return what was counted, with the first attempt that is not in it."""
        written = self.usage.model_dump_json()
        signature = guard.sign_heartbeat(_write(number, self.lost, written))
        return SPENT_MARK, number, self.lost, written, signature

    def fail(self, error: ApplicationError) -> NoReturn:
        """Raise `error` with what the run must count, and leave that behind for the next attempt.

        Raises:
            ApplicationError: always; not to be tried again where no further attempt is paid for.
        """
        self.leave()
        told = {"lost": self.lost, "spent": budget.measure_usage(self.usage)}
        raise ApplicationError(
            error.message,
            _read_details(error).model_copy(update=told),
            type=error.type,
            non_retryable=error.non_retryable or self.left == 0,
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


def _name_attempt(info: activity.Info, number: int) -> str:
    """Return how the names begin under which an attempt of this activity holds."""
    return f"{info.workflow_run_id}:{info.activity_id}:{number}"


def _write(number: int, lost: int, usage: str) -> str:
    return f"{SPENT_MARK} {number} {lost} {usage}"
