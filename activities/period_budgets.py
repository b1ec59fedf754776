"""Budgets beyond one run: what a model call may cost is reserved before it, in the store that all workers share."""

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import structlog
from temporalio.exceptions import ApplicationError

from mandate.activities import failures
from mandate.activities.live_files import FileUnavailable
from mandate.activities.stores.base import BlobStore, StoreUnavailable
from mandate.activities.stores.budgets import Account, Balance, Line, Reserved, find_full
from mandate.workflows.contracts.budget import Amount
from mandate.workflows.contracts.budget_file import BudgetFile
from mandate.workflows.contracts.failures import FailureType
from mandate.workflows.contracts.model import ModelFailure
from mandate.workflows.rules import quantities
from mandate.workflows.rules.period_budgets import (
    Share,
    Spender,
    describe_scope,
    find_next_period,
    find_shares,
    format_usd,
)

log = structlog.stdlib.get_logger(__name__)

ReadFile = Callable[[], Awaitable[BudgetFile | None]]
"""Read the file of budgets as it is at this moment; `None` without one. Raises `FileUnavailable`."""

PATIENCE = timedelta(seconds=30)
"""Time that a call waits for others that are under way: most of them take less than they hold."""


@dataclass(frozen=True, slots=True)
class PeriodUse:
    """The budget of a run that is used up most, for conditions."""

    budget: str
    cost_usd: Decimal
    """Spent and held in its period."""
    left_usd: Decimal | None
    """`None` where it does not limit money; below zero where its limit was lowered."""


class Held:
    """Reservation of one model call; to be settled whatever becomes of the call.

    One that is not settled, since its worker was killed, counts as spent once the call is tried again, or a day later.
    """

    def __init__(self, store: BlobStore, reservation: str, lines: Sequence[Line], balances: Sequence[Balance]) -> None:
        self._store = store
        self._reservation = reservation
        self._lines = tuple(lines)
        self.use = _find_most_used(lines, balances)
        """`None` where no budget fits the run. With what this call holds, and once it is settled, with what it took."""

    async def settle(self, actual: Amount) -> None:
        """Count what the call took, and release the rest; nothing at all for one that was certainly not billed."""
        await self._settle(actual)

    async def assume(self) -> None:
        """Count all that the call holds, and mark it as assumed: it may have been billed."""
        await self._settle(None)

    async def _settle(self, actual: Amount | None) -> None:
        if not self._lines:
            return
        try:
            balances = await self._store.settle(self._reservation, actual)
        except StoreUnavailable as error:
            # The answer is there and paid for. What stays held counts against the limits all the same.
            log.warning("budget_not_settled", reservation=self._reservation, problem=str(error))
            return
        self.use = _find_most_used(self._lines, balances) or self.use


class PeriodBudgets:
    """Budgets of the file that `read_file` reads, and their accounts in the store."""

    def __init__(self, store: BlobStore, read_file: ReadFile, *, patience: timedelta = PATIENCE) -> None:
        self._store = store
        self._read_file = read_file
        self._patience = patience

    async def find_shares(self, spender: Spender, now: datetime | None = None) -> tuple[Share, ...]:
        """Return the budgets that a run counts in at this moment.

        Raises:
            ApplicationError: `StoreUnavailable`, retried: the file of budgets cannot be used.
        """
        try:
            file = await self._read_file()
        except FileUnavailable as error:
            raise failures.make_store_failure(str(error), FailureType.STORE_UNAVAILABLE) from None
        return find_shares(file.budgets, spender, now or datetime.now(UTC)) if file is not None else ()

    async def assume_lost(self, reservations: Sequence[str], spender: Spender) -> None:
        """Count what these reservations still hold as spent and assumed: the workers that made them were lost.

        Each counts with all those whose names go on after it, with `:`.

        Raises:
            ApplicationError: store failures, retried.
        """
        if not reservations or not await self.find_shares(spender):
            return
        with failures.translate_store_errors():
            for reservation in reservations:
                await self._store.assume_all(reservation)

    async def hold(
        self,
        reservation: str,
        spender: Spender,
        amount: Amount,
        *,
        unpriced_model: str | None = None,
        within: timedelta | None = None,
        now: datetime | None = None,
    ) -> Held:
        """Reserve what a model call may take at most, in every budget that its run counts in, or in none.

        The store is asked only where there is such a budget. A call that would fit if others that are under way took
        nothing waits a while for them, `within` at most. `reservation` names one request that may be billed: the
        same name again holds nothing more. `unpriced_model` is the model where its price is not known.

        Raises:
            ApplicationError: `BudgetUsedUp`, not retried, when a budget has no room; `ModelRejected` for an unpriced
                model where money is limited; store failures, retried.
        """
        patience = self._patience if within is None else min(self._patience, within)
        deadline = time.monotonic() + patience.total_seconds()
        for wait in _waits():
            moment = now or datetime.now(UTC)
            shares = await self.find_shares(spender, moment)
            if unpriced_model is not None:
                _refuse_unpriced(unpriced_model, shares)
            lines = [_make_line(share) for share in shares]
            if not lines:
                break
            try:
                with failures.translate_store_errors():
                    reserved = await self._store.reserve(reservation, lines, amount)
            except asyncio.CancelledError:
                # It may be held by now, and nothing will be sent.
                await Held(self._store, reservation, lines, ()).settle(Amount())
                raise
            if reserved.full is None:
                return Held(self._store, reservation, lines, reserved.balances)
            if not _may_fit_later(lines, reserved, amount) or time.monotonic() + wait > deadline:
                log.info("budget_used_up", budget=reserved.full.account.budget, reservation=reservation)
                raise _make_refusal(_describe_full(shares[lines.index(reserved.full)], reserved, amount, moment))
            await asyncio.sleep(wait)
        return Held(self._store, reservation, (), ())


def _waits() -> Iterator[float]:
    """Yield seconds between attempts, each a little different, so that those who wait do not come at once."""
    for attempt in itertools.count():
        yield min(0.1 * 2.0**attempt, 2.0) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


def _may_fit_later(lines: Sequence[Line], reserved: Reserved, amount: Amount) -> bool:
    """Tell whether there is room once the calls under way have taken less than they hold, or nothing."""
    return find_full(lines, [replace(balance, held=Amount()) for balance in reserved.balances], amount) is None


def _make_refusal(sentence: str) -> ApplicationError:
    return ApplicationError(
        sentence,
        ModelFailure(fault="budget"),
        type=FailureType.BUDGET_USED_UP,
        non_retryable=True,
        category=failures.EXPECTED,
    )


def _make_line(share: Share) -> Line:
    account = Account(share.budget.id, share.scope, share.period)
    return Line(account, share.budget.cost_usd, share.budget.tokens)


def _refuse_unpriced(model: str, shares: Sequence[Share]) -> None:
    limited = next((share.budget for share in shares if share.budget.cost_usd is not None), None)
    if limited is not None:
        raise failures.make_model_failure(
            "configuration",
            f"the budget {limited.id!r} limits money, and the price of {model} is not known; "
            "give it as 'price' in the agent file",
        )


def _find_most_used(lines: Sequence[Line], balances: Sequence[Balance]) -> PeriodUse | None:
    """Return the budget with the largest used share, of those that limit money if any does."""
    by_account = {balance.account: balance for balance in balances}
    known = [(line, by_account[line.account]) for line in lines if line.account in by_account]
    if not known:
        return None
    line, balance = max(known, key=lambda pair: (pair[0].cost_usd is not None, _used_share(*pair)))
    cost_usd = balance.spent.cost_usd + balance.held.cost_usd
    left = line.cost_usd - cost_usd if line.cost_usd is not None else None
    return PeriodUse(line.account.budget, cost_usd, left)


def _used_share(line: Line, balance: Balance) -> Decimal:
    total = balance.spent + balance.held
    shares = [total.cost_usd / line.cost_usd] if line.cost_usd is not None else []
    return max([*shares, *([Decimal(total.tokens) / line.tokens] if line.tokens is not None else [])])


def _describe_full(share: Share, reserved: Reserved, amount: Amount, now: datetime) -> str:
    """Return which budget has no room, with its limit, what is spent and held, and when it begins anew."""
    budget, line = share.budget, reserved.full
    assert line is not None
    balance = next(one for one in reserved.balances if one.account == line.account)
    if line.cost_usd is not None and (balance.spent + balance.held + amount).cost_usd > line.cost_usd:
        wanted, limit = format_usd(amount.cost_usd), format_usd(line.cost_usd)
        spent, held = format_usd(balance.spent.cost_usd), format_usd(balance.held.cost_usd)
    else:
        wanted, limit = quantities.count_noun(amount.tokens, "token"), quantities.count_noun(line.tokens or 0, "token")
        spent, held = f"{balance.spent.tokens:,}", f"{balance.held.tokens:,}"
    whose = describe_scope(share.scope)
    named = f"{budget.id!r}{f' of {whose}' if whose else ''} for {share.period}"
    anew = f"{find_next_period(budget, now):%Y-%m-%d %H:%M} {budget.time_zone}"
    return (
        f"the budget {named} has no room for a call of up to {wanted}: its limit is {limit}, "
        f"{spent} spent and {held} held; it begins anew at {anew}"
    )
