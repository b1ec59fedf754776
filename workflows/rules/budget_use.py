"""Use of a run's budget, as people see it: limit, spent, assumed, held and left of each limit."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.budget import Budget, BudgetRequest, BudgetUse, Ledger, Limit, LimitUse
from mandate.workflows.rules import budget
from mandate.workflows.rules.decisions import format_duration
from mandate.workflows.rules.period_budgets import format_usd

_WORDS: Mapping[Limit, str] = {
    "steps": "",
    "model_calls": " model calls made",
    "tool_calls": " tool calls made",
    "tokens": " tokens used",
    "cost_usd": " spent",
    "wall_time": " gone",
    "work_time": " gone",
}

_NOTHING = (0, "0", "0s")

_NAMES: Mapping[Limit, str] = {
    "steps": "steps",
    "model_calls": "model calls",
    "tool_calls": "tool calls",
    "tokens": "tokens",
    "cost_usd": "cost",
    "wall_time": "time since the start",
    "work_time": "time of work",
}

_OF_CALLS: tuple[Limit, ...] = ("cost_usd", "tokens", "model_calls", "tool_calls")


@dataclass(frozen=True, slots=True)
class Standing:
    """Use of a run beside what its ledger holds."""

    step: int
    since_start: timedelta = timedelta(0)
    worked: timedelta = timedelta(0)


def measure_use(ledger: Ledger, limits: Budget, standing: Standing, period: Decimal | None = None) -> BudgetUse:
    """Return the use of each limit, and of calls, tokens and money where they are not limited too."""
    spent, assumed, held = ledger.spent, ledger.assumed, budget.sum_amounts(*ledger.held.values())
    use: dict[Limit, LimitUse] = {
        "steps": _count(limits.steps, standing.step),
        "model_calls": _count(limits.model_calls, spent.model_calls, assumed.model_calls, held.model_calls),
        "tokens": _count(limits.tokens, spent.tokens, assumed.tokens, held.tokens),
        "cost_usd": LimitUse(
            limit=None if limits.cost_usd is None else _write(limits.cost_usd),
            spent=_write(spent.cost_usd),
            assumed=_write(assumed.cost_usd),
            held=_write(held.cost_usd),
            left=None if limits.cost_usd is None else _write(limits.cost_usd - spent.cost_usd - held.cost_usd),
        ),
    }
    if limits.tool_calls is not None:
        # Beyond the limit are those that were not made.
        made = min(ledger.tool_calls + spent.tool_calls, limits.tool_calls)
        use["tool_calls"] = _count(limits.tool_calls, made, assumed.tool_calls, held.tool_calls)
    if limits.wall_time is not None:
        use["wall_time"] = _time(limits.wall_time, standing.since_start)
    if limits.work_time is not None:
        use["work_time"] = _time(limits.work_time, standing.worked)
    return BudgetUse(
        limits=write_limits(limits),
        use=use,
        used_up=ledger.used_up,
        period_cost_usd=None if period is None else f"{period:f}",
    )


def write_limits(limits: Budget) -> JsonObject:
    """Return the limits that there are, as they are written in agent files; `Budget` reads them again."""
    written: JsonObject = {**_write_given(limits), "when_used_up": limits.when_used_up}
    if limits.raise_at_most is not None:
        written["raise_at_most"] = _write_given(limits.raise_at_most)
    return written


HEAD = ("limit", "at most", "spent", "assumed", "held", "left")


def list_rows(use: BudgetUse) -> Iterator[tuple[str, ...]]:
    """Yield a row for each limit that the run has, under `HEAD`."""
    for name, label in _NAMES.items():
        one = use.use.get(name)
        if one is not None and one.limit is not None:
            cells = (one.limit, one.spent, one.assumed, one.held, one.left)
            yield (label, *(_show(name, cell) for cell in cells))


def limits_calls(limits: Budget) -> bool:
    """Return whether something that calls take is limited: then `describe_use` has something to say."""
    return any(getattr(limits, name) is not None for name in _OF_CALLS)


def describe_use(use: BudgetUse) -> str:
    """Describe in one line what calls may still take, as `$0.015 of $0.10 spent, $0.085 left`; no steps, no times."""
    limited = {name: one for name, one in use.use.items() if one.limit is not None}
    return "; ".join(_describe(name, limited[name]) for name in _OF_CALLS if name in limited)


def _describe(name: Limit, one: LimitUse) -> str:
    parts = [f"{_show(name, one.spent)} of {_show(name, one.limit)}{_WORDS[name]}"]
    if one.assumed not in _NOTHING:
        parts.append(f"{_show(name, one.assumed)} of that assumed")
    if one.held not in _NOTHING:
        parts.append(f"{_show(name, one.held)} held")
    return ", ".join([*parts, f"{_show(name, one.left)} left"])


def _show(name: Limit, value: int | str | None) -> str:
    if name == "cost_usd":
        return format_usd(Decimal(str(value)))
    return f"{value:,}" if isinstance(value, int) else str(value)


def _count(limit: int | None, spent: int, assumed: int = 0, held: int = 0) -> LimitUse:
    left = None if limit is None else max(limit - spent - held, 0)
    return LimitUse(limit=limit, spent=spent, assumed=assumed, held=held, left=left)


def _time(limit: timedelta, used: timedelta) -> LimitUse:
    left = max(limit - used, timedelta(0))
    return LimitUse(limit=format_duration(limit), spent=_seconds(used), assumed="0s", held="0s", left=_seconds(left))


def _seconds(length: timedelta) -> str:
    """Return a length in whole seconds, minutes and hours: `1h3m20s`."""
    seconds = int(length.total_seconds())
    parts = [(seconds // 3600, "h"), (seconds % 3600 // 60, "m"), (seconds % 60, "s")]
    return "".join(f"{number}{unit}" for number, unit in parts if number) or "0s"


def _write_given(limits: BudgetRequest) -> JsonObject:
    given = {name: getattr(limits, name) for name in BudgetRequest.model_fields}
    return {name: _write(value) for name, value in given.items() if value is not None}


def _write(value: int | Decimal | timedelta) -> int | str:
    if isinstance(value, timedelta):
        return format_duration(value)
    # Nothing is `0`, also where sums have left zeros behind it.
    return f"{value or Decimal(0):f}" if isinstance(value, Decimal) else value
