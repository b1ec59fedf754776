"""Accounts of budgets beyond one run: their values, and the rule by which both stores grant reservations."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, Decimal

from mandate.workflows.contracts.budget import Amount

HELD_AT_MOST = timedelta(days=1)
"""Age from which on what is held counts as spent: its worker is gone, and the call may have been billed."""

REMEMBERED_FOR = timedelta(days=7)
"""Time for which a settled reservation is remembered, so that it is neither made nor settled once more."""

_NANO = 9


@dataclass(frozen=True, slots=True, order=True)
class Account:
    """One budget in one period, for one of those who have a budget of their own."""

    budget: str
    scope: str
    """Agent, requester and labels that this account is of; equal texts are the same account."""
    period: str
    """`2026-11-30` or `2026-11`."""


@dataclass(frozen=True, slots=True)
class Line:
    """An account and its limits at this moment, which the store does not keep."""

    account: Account
    cost_usd: Decimal | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Balance:
    """An account as it stands."""

    account: Account
    spent: Amount
    assumed: Amount
    """The part of `spent` that nobody has reported: calls whose answers were lost count as they were reserved."""
    held: Amount
    """For calls under way."""
    since: datetime
    """Time of its first reservation, by the store's clock."""
    last_used: datetime


@dataclass(frozen=True, slots=True)
class Reserved:
    """Answer to a reservation."""

    balances: tuple[Balance, ...]
    """Of all lines, in their order; with this reservation where it was granted."""
    full: Line | None = None
    """The first line that has no room: nothing is held then, on no line."""


def find_full(lines: Sequence[Line], balances: Sequence[Balance], amount: Amount) -> Line | None:
    """Return the first line in which `amount` has no room beside what is spent and held."""
    for line, balance in zip(lines, balances, strict=True):
        total = balance.spent + balance.held + amount
        if line.cost_usd is not None and total.cost_usd > line.cost_usd:
            return line
        if line.tokens is not None and total.tokens > line.tokens:
            return line
    return None


def find_range(name: str) -> tuple[str, str]:
    """Return where the names of reservations begin and end that go on after `name` with `:`, in the order of bytes."""
    return f"{name}:", f"{name};"


def move_stale(balances: Iterable[Balance], stale: Mapping[Account, Amount]) -> tuple[Balance, ...]:
    """Count what is held for too long, `stale`, as spent and as assumed."""
    return tuple(_move(balance, stale.get(balance.account, Amount())) for balance in balances)


def _move(balance: Balance, stale: Amount) -> Balance:
    return replace(balance, spent=balance.spent + stale, assumed=balance.assumed + stale, held=balance.held - stale)


def to_nano_usd(cost_usd: Decimal) -> int:
    """Return dollars in the whole units of the store, rounded up, so that a sum never falls short of what was billed.

    Raises:
        ValueError: the amount is negative.
    """
    if cost_usd < 0:
        raise ValueError(f"an amount of {cost_usd} dollars is negative")
    return int(cost_usd.scaleb(_NANO).to_integral_value(ROUND_CEILING))


def to_amount(nano_usd: int, tokens: int) -> Amount:
    """Return what the store holds as an amount."""
    return Amount(cost_usd=Decimal(nano_usd).scaleb(-_NANO), tokens=tokens)


def round_up(amount: Amount) -> Amount:
    """Return an amount as the store will hold it; raise as `to_nano_usd`."""
    return to_amount(to_nano_usd(amount.cost_usd), amount.tokens)
