"""Budgets beyond one run: which of them a run counts in, for whom, and in which day or month."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from mandate.workflows.contracts.budget_file import EACH, PeriodBudget, find_time_zone
from mandate.workflows.contracts.people import normalize_name


@dataclass(frozen=True, slots=True)
class Spender:
    """A run, by what budgets tell runs apart."""

    agent: str
    requester: str | None = None
    """As the file of people writes it."""
    labels: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Share:
    """A budget that a run counts in, at one moment."""

    budget: PeriodBudget
    scope: str
    """Of whom it is the own budget: JSON of what the file has `*` for; `{}` where all runs share it."""
    period: str
    """`2026-11-30` or `2026-11`."""


def find_shares(budgets: Iterable[PeriodBudget], spender: Spender, now: datetime) -> tuple[Share, ...]:
    """Return the budgets that a run counts in, in their order."""
    return tuple(
        Share(budget, _write_scope(budget, spender), name_period(budget, now))
        for budget in budgets
        if _fits(budget, spender)
    )


def name_period(budget: PeriodBudget, now: datetime) -> str:
    """Return the day or month of a budget, by the calendar of its time zone."""
    local = now.astimezone(find_time_zone(budget.time_zone))
    return f"{local:%Y-%m-%d}" if budget.per == "day" else f"{local:%Y-%m}"


def find_next_period(budget: PeriodBudget, now: datetime) -> datetime:
    """Return when a budget begins anew, in its time zone."""
    local = now.astimezone(find_time_zone(budget.time_zone))
    # The 32nd day after the first of a month is in the next one.
    day = local.date() + timedelta(days=1) if budget.per == "day" else local.date().replace(day=1) + timedelta(days=32)
    following = day if budget.per == "day" else day.replace(day=1)
    return datetime(following.year, following.month, following.day, tzinfo=local.tzinfo)


def find_scope(budget: PeriodBudget) -> str:
    """Return the scope of a budget as a whole, with `*` where each has its own."""
    labels = {name: EACH for name, value in budget.labels.items() if value == EACH}
    return _write_scope(budget, Spender(EACH, EACH, labels))


def describe_scope(scope: str) -> str:
    """Return whose budget it is in words: `ann@example.com, team=support`; empty where all runs share it."""
    return ", ".join(_scope_parts(json.loads(scope)))


def format_usd(cost_usd: Decimal) -> str:
    """Write dollars exactly, with two decimals or as many as there are."""
    whole, _, decimals = f"{cost_usd:,f}".partition(".")
    return f"${whole}.{decimals.rstrip('0'):0<2}".replace("$-", "-$")


def _fits(budget: PeriodBudget, spender: Spender) -> bool:
    labels = spender.labels or {}
    return (
        budget.agent in {None, EACH, spender.agent}
        and (budget.requester in {None, EACH} or _is_same(budget.requester, spender.requester))
        and all(value in {EACH, labels.get(name)} for name, value in budget.labels.items())
    )


def _is_same(named: str | None, requester: str | None) -> bool:
    return named is not None and requester is not None and normalize_name(named) == normalize_name(requester)


def _write_scope(budget: PeriodBudget, spender: Spender) -> str:
    """Write agent, requester and labels where each has a budget of its own, the same bytes each time.

    Runs without a requester or a label count together: to leave it out is no way around a limit.
    """
    scope: dict[str, object] = {}
    if budget.agent == EACH:
        scope["agent"] = spender.agent
    if budget.requester == EACH:
        scope["requester"] = None if spender.requester is None else normalize_name(spender.requester)
    names = [name for name, value in budget.labels.items() if value == EACH]
    if names:
        scope["labels"] = {name: (spender.labels or {}).get(name) for name in names}
    # In ASCII: a store need not take zero bytes and halves of surrogate pairs.
    return json.dumps(scope, sort_keys=True)


def _scope_parts(scope: Mapping[str, object]) -> Iterator[str]:
    if "agent" in scope:
        yield str(scope["agent"])
    if "requester" in scope:
        yield str(scope["requester"] or "no requester")
    labels = scope.get("labels")
    if isinstance(labels, dict):
        for name, value in labels.items():
            yield f"no {name}" if value is None else f"{name}={value}"
