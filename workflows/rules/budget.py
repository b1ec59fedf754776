"""Budgets: what a run may still spend, reserved before each model call and settled after it.

The run is the only writer of its ledger, so the three steps need no lock: `plan_call` says what the next call may take,
`reserve` holds that, `settle` replaces it by what the call has taken. What is held counts as spent until then, so
nothing is spent beyond a limit whatever is lost, repeated, or carried over.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal

from pydantic import JsonValue, ValidationError

from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.budget import Amount, Budget, BudgetRequest, Grant, Ledger, Limit
from mandate.workflows.contracts.model import ModelFailure, Usage
from mandate.workflows.contracts.route import Price
from mandate.workflows.contracts.verification import CheckRequest
from mandate.workflows.rules import price as prices
from mandate.workflows.rules import quantities, validation
from mandate.workflows.rules.decisions import format_duration

LAST_OUTPUT = 1024
"""Output tokens that are kept back for the last answer."""

SHORTEST_OUTPUT = 256
"""Output tokens without which an ordinary call is not made: its answer would be cut off."""

RESULT_TOKENS = 2000
"""Tokens of results that may come between an ordinary call and the last answer; more of them shorten that."""

MOST_ATTEMPTS = 6
"""Attempts of one model call, those that may be billed and others."""

MODEL = "model"
"""Key under which the ledger holds what the model's turn may take."""

LAST_SECONDS = 60.0
"""Time that is kept back for the last answer, or a fifth of the limit if that is less."""


@dataclass(frozen=True, slots=True)
class Left:
    """Rest of a budget; `None` where nothing limits it."""

    model_calls: int | None
    tokens: int | None
    cost_usd: Decimal | None
    tool_calls: int | None = None

    def holds(self, amount: Amount) -> bool:
        """Return whether the amount fits."""
        return (
            (self.model_calls is None or amount.model_calls <= self.model_calls)
            and (self.tokens is None or amount.tokens <= self.tokens)
            and (self.cost_usd is None or amount.cost_usd <= self.cost_usd)
            and (self.tool_calls is None or amount.tool_calls <= max(self.tool_calls, 0))
        )


@dataclass(frozen=True, slots=True)
class CallSize:
    """Size of a model call before it is made."""

    input_tokens: int
    max_output_tokens: int
    price: Price | None


@dataclass(frozen=True, slots=True)
class Planned:
    """A call that fits: what it may take, and what is held for it."""

    grant: Grant
    amount: Amount
    """For all attempts of the grant."""


@dataclass(frozen=True, slots=True)
class Shortfall:
    """A call that does not fit."""

    limit: Limit
    reason: str
    """One sentence."""
    is_beyond: bool = False
    """It is no limit of the run but of a budget beyond it: not even a last answer can be had."""
    missing: str = ""
    """Most that the call would take, in words."""


def lower(budget: Budget, asked: BudgetRequest | None) -> Budget:
    """Return `budget` with the limits of `asked` where they are lower."""
    if asked is None:
        return budget
    changes = {
        name: wanted
        for name in BudgetRequest.model_fields
        if (wanted := getattr(asked, name)) is not None and _is_lower(wanted, getattr(budget, name))
    }
    return budget.model_copy(update=changes) if changes else budget


def raise_limits(budget: Budget, asked: BudgetRequest) -> Budget:
    """Return `budget` with the limits of `asked`, which `find_raise_fault` has found right."""
    given = {name: getattr(asked, name) for name in asked.model_fields_set if getattr(asked, name) is not None}
    return budget.model_copy(update=given)


def find_value_fault(budget: Budget | None, value: JsonValue, needed: Limit | None = None) -> str | None:
    """Return why `value` cannot be what a person raises limits to, in one sentence; `None` if it can.

    Without a `budget` only its form is looked at. `needed` is the limit that is used up: one that has to be among them.
    """
    if not isinstance(value, dict):
        return 'value: must be an object with the new limits, for example {"cost_usd": "5.00"}'
    try:
        asked = BudgetRequest.model_validate(value)
    except ValidationError as error:
        return f"value: {validation.sentences(error, BudgetRequest)}"
    fault = find_raise_fault(budget, asked) if budget is not None else None
    if fault is None and needed is not None and getattr(asked, needed) is None:
        fault = f"{needed}: is used up, so it has to be raised too"
    return None if fault is None else f"value: {fault}"


def find_raise_fault(budget: Budget, asked: BudgetRequest) -> str | None:
    """Return why a person cannot raise the limits so, in one sentence; `None` if they can."""
    given = {name: getattr(asked, name) for name in BudgetRequest.model_fields if getattr(asked, name) is not None}
    if not given:
        return 'names no limit; give at least one, for example {"cost_usd": "5.00"}'
    for name, wanted in given.items():
        now = getattr(budget, name)
        if now is None:
            return f"{name}: the run has no such limit"
        if wanted <= now:
            return f"{name}: {_write(wanted)} is not more than the limit of now, {_write(now)}"
        most = getattr(budget.raise_at_most, name) if budget.raise_at_most is not None else None
        if budget.raise_at_most is not None and (most is None or wanted > most):
            allowed = "is not to be raised" if most is None else f"may be raised to {_write(most)} at most"
            return f"{name}: it {allowed}"
    return None


def find_left(ledger: Ledger, budget: Budget) -> Left:
    """Return what is neither spent nor held."""
    used = sum_amounts(ledger.spent, *ledger.held.values())
    return Left(
        None if budget.model_calls is None else budget.model_calls - used.model_calls,
        None if budget.tokens is None else budget.tokens - used.tokens,
        None if budget.cost_usd is None else budget.cost_usd - used.cost_usd,
        None if budget.tool_calls is None else budget.tool_calls - count_tool_calls(ledger),
    )


def count_tool_calls(ledger: Ledger) -> int:
    """Return the calls of tools that a run and its children have made, and those that children may still make."""
    return ledger.tool_calls + sum_amounts(ledger.spent, *ledger.held.values()).tool_calls


def sum_amounts(*amounts: Amount) -> Amount:
    """Return the sum in the order given, so that replays agree."""
    return sum(amounts, Amount())


def share(ledger: Ledger, budget: Budget, asked: Amount, kept: Amount) -> Amount | None:
    """Return `asked` if it can be lent to a child beside what is kept back for the last answer, else `None`."""
    return asked if find_left(ledger, budget).holds(asked + kept) else None


def final_reserve(size: CallSize) -> Amount:
    """Return what is kept back while a call of this size is made: the last answer, which is told its results."""
    input_tokens = size.input_tokens + size.max_output_tokens + RESULT_TOKENS
    return measure_call(CallSize(input_tokens, min(LAST_OUTPUT, size.max_output_tokens), size.price))


Kept = Callable[[CallSize], Amount]
"""What is kept back while a call of a size is made."""


def plan_call(
    ledger: Ledger, budget: Budget, size: CallSize, *, kept: Kept = final_reserve, is_last: bool = False
) -> Planned | Shortfall:
    """Return what a call of this size may take: its output is shortened to what is left, or it is not made.

    An ordinary call leaves `kept`, which the last answer needs; for the last one that is what its checks need.
    """
    left = find_left(ledger, budget)
    if left.model_calls is not None and left.model_calls < 1 + kept(size).model_calls:
        return _used_up("model_calls", budget)
    shortest = min(SHORTEST_OUTPUT, size.max_output_tokens)
    most = min(size.max_output_tokens, LAST_OUTPUT) if is_last else size.max_output_tokens
    output = _find_output(left, size, most, shortest, kept=kept)
    if isinstance(output, str):
        needed = measure_call(CallSize(size.input_tokens, most, size.price))
        return replace(_used_up(output, budget), missing=describe_amount(needed))
    planned = CallSize(size.input_tokens, output, size.price)
    amount = measure_call(planned)
    attempts = 1
    while attempts < MOST_ATTEMPTS and left.holds(sum_amounts(*[amount] * (attempts + 1), kept(planned))):
        attempts += 1
    grant = Grant(input_tokens=size.input_tokens, output_tokens=output, attempts=attempts)
    return Planned(grant, sum_amounts(*[amount] * attempts))


_SIZED: tuple[Limit, ...] = ("tokens", "cost_usd")
"""Limits that the size of a call counts for."""


def _find_output(left: Left, size: CallSize, most: int, shortest: int, *, kept: Kept) -> int | Limit:
    """Return the longest output up to `most` that fits, or the limit that even the shortest would pass."""
    for limit in _SIZED:
        if not _fits(left, CallSize(size.input_tokens, shortest, size.price), limit, kept=kept):
            return limit
    low, high = shortest, most
    while low < high:
        middle = (low + high + 1) // 2
        candidate = CallSize(size.input_tokens, middle, size.price)
        fits = all(_fits(left, candidate, limit, kept=kept) for limit in _SIZED)
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def _fits(left: Left, size: CallSize, limit: Limit, *, kept: Kept) -> bool:
    room = getattr(left, limit)
    if room is None:
        return True
    return bool(getattr(measure_call(size) + kept(size), limit) <= room)


def measure_call(size: CallSize) -> Amount:
    """Return the most that one attempt of a call of this size can take."""
    cost = Decimal(0)
    if size.price is not None:
        cost = prices.compute_worst(size.price, input_tokens=size.input_tokens, output_tokens=size.max_output_tokens)
    return Amount(model_calls=1, tokens=size.input_tokens + size.max_output_tokens, cost_usd=cost)


def measure_grant(grant: Grant, price: Price | None) -> Amount:
    """Return what is held for a call under `grant`: all of its attempts."""
    return sum_amounts(*[measure_call(CallSize(grant.input_tokens, grant.output_tokens, price))] * grant.attempts)


def name_check(request: CheckRequest) -> str:
    """Return the key under which the ledger holds what the models of a check may take: calls are checked together."""
    return f"check {request.check} {'' if request.index is None else request.index}".rstrip()


def reserve(ledger: Ledger, key: str, amount: Amount) -> Ledger:
    """Return `ledger` with `amount` held for the call `key`, which holds nothing yet."""
    assert key not in ledger.held, key
    return ledger.model_copy(update={"held": {**ledger.held, key: amount}})


def settle(ledger: Ledger, key: str, taken: Amount, *, assumed: Amount | None = None) -> Ledger:
    """Return `ledger` after the call `key`: `taken` was reported, `assumed` may have been billed beside it."""
    held = {name: amount for name, amount in ledger.held.items() if name != key}
    lost = assumed or Amount()
    return ledger.model_copy(
        update={"held": held, "spent": sum_amounts(ledger.spent, taken, lost), "assumed": ledger.assumed + lost}
    )


def settle_usage(
    ledger: Ledger, key: str, usage: Usage, *, lost: int, grant: Grant | None, limits: Budget
) -> tuple[Ledger, Usage]:
    """Return `ledger` after a call that reported `usage`, and that with what is assumed beside it.

    `lost` attempts before it, and answers without a cost, count as they were reserved under `grant`: assumed.
    """
    held, assumed, untold = ledger.held.get(key), Amount(), 0
    if held is not None and grant is not None:
        if lost:
            assumed = take_part(held, lost, grant.attempts)
        if usage.unpriced_calls:
            # It was billed, and nobody can say how much.
            part = take_part(held, min(usage.unpriced_calls, grant.attempts), grant.attempts)
            assumed = assumed + find_untold(part, usage, is_money_limited=limits.cost_usd is not None)
            untold = usage.unpriced_calls if limits.cost_usd is not None else 0
    beside = Usage(input_tokens=assumed.tokens, cost_usd=assumed.cost_usd, assumed_calls=lost + untold)
    told = usage.model_copy(update={"unpriced_calls": usage.unpriced_calls - untold}) if untold else usage
    return settle(ledger, key, measure_usage(usage), assumed=assumed), told + beside


def settle_share(ledger: Ledger, key: str, usage: Usage, *, is_known: bool) -> tuple[Ledger, Usage]:
    """Return `ledger` after a child that reported `usage`, and that with what is assumed beside it.

    All of its share counts where nobody knows what it has used.
    """
    held, taken = ledger.held.get(key), measure_usage(usage)
    taken = taken.model_copy(update={"tool_calls": usage.tool_calls})
    if is_known or held is None:
        return settle(ledger, key, taken), usage
    lost = Amount(
        model_calls=max(held.model_calls - taken.model_calls, 0),
        tokens=max(held.tokens - taken.tokens, 0),
        cost_usd=max(held.cost_usd - taken.cost_usd, Decimal(0)),
        tool_calls=max(held.tool_calls - taken.tool_calls, 0),
    )
    beside = Usage(cost_usd=lost.cost_usd, input_tokens=lost.tokens, assumed_calls=1)
    return settle(ledger, key, taken, assumed=lost), usage + beside


def read_failed(failure: ModelFailure | None, grant: Grant | None) -> tuple[Usage, int]:
    """Return what a call without an answer took, and its attempts that may be billed.

    Without `failure`, its worker was lost: then all attempts of the grant may be.
    """
    lost = failure.lost if failure is not None else (grant.attempts if grant is not None else 1)
    spent = failure.spent if failure is not None else Amount()
    return Usage(model_calls=spent.model_calls, input_tokens=spent.tokens, cost_usd=spent.cost_usd), lost


def take_part(amount: Amount, attempts: int, of: int) -> Amount:
    """Return the share of `attempts` in what is held for `of` of them."""
    if attempts >= of:
        return amount
    return Amount(
        model_calls=amount.model_calls // of * attempts,
        tokens=amount.tokens // of * attempts,
        cost_usd=amount.cost_usd / of * attempts,
    )


def find_untold(held: Amount, usage: Usage, *, is_money_limited: bool) -> Amount:
    """Return what a call may have taken, of what it `held`, beside what its answer told."""
    told = usage.input_tokens + usage.output_tokens
    is_told = usage.input_tokens > 0 and usage.output_tokens > 0
    return Amount(
        tokens=0 if is_told else max(held.tokens - told, 0),
        cost_usd=held.cost_usd if is_money_limited else Decimal(0),
    )


def measure_usage(usage: Usage) -> Amount:
    """Return what calls have taken, as they reported it."""
    return Amount(
        model_calls=usage.model_calls, tokens=usage.input_tokens + usage.output_tokens, cost_usd=usage.cost_usd
    )


def exceeded(
    ledger: Ledger,
    budget: Budget,
    *,
    step: int,
    since_start: timedelta,
    worked: timedelta,
    keeps_last: bool = True,
) -> Shortfall | None:
    """Return the limit that leaves no room for another ordinary step, whatever its size; `None` if none does.

    Room for the last answer is kept back where `keeps_last`.
    """
    # The only step of a run may do what it likes; of more, the last is the last answer.
    if step >= (max(budget.steps - 1, 1) if keeps_last else budget.steps):
        return _used_up("steps", budget)
    if budget.tool_calls is not None and count_tool_calls(ledger) > budget.tool_calls:
        return _used_up("tool_calls", budget)
    return find_time_exceeded(budget, since_start=since_start, worked=worked, keeps_last=keeps_last)


def find_time_exceeded(
    budget: Budget,
    *,
    since_start: timedelta,
    worked: timedelta,
    keeps_last: bool = True,
    spare: timedelta = timedelta(0),
) -> Shortfall | None:
    """Return the limit of time that leaves none for another call, or no more than `spare`; `None` if none does."""
    for limit, most, used in _list_times(budget, since_start, worked):
        if used >= most - spare - (find_last_time(most) if keeps_last else timedelta(0)):
            return _used_up(limit, budget)
    return None


def find_time_left(
    budget: Budget, *, since_start: timedelta, worked: timedelta, keeps_last: bool, is_last: bool
) -> timedelta | None:
    """Return the time of a call that begins now, from a second on; `None` where nothing limits it.

    The last answer has what was kept back for it also after what could not be cut off.
    """
    left = []
    for _, most, used in _list_times(budget, since_start, worked):
        last = find_last_time(most) if keeps_last else timedelta(0)
        left.append(max(most - used, last) if is_last else most - used - last)
    return max(min(left), timedelta(seconds=1)) if left else None


def find_last_time(most: timedelta) -> timedelta:
    """Return the part of a limit of time that is kept back for the last answer."""
    return min(most / 5, timedelta(seconds=LAST_SECONDS))


def _list_times(
    budget: Budget, since_start: timedelta, worked: timedelta
) -> Iterator[tuple[Limit, timedelta, timedelta]]:
    """Yield each limit of time with its length and what is used of it."""
    if budget.wall_time is not None:
        yield "wall_time", budget.wall_time, since_start
    if budget.work_time is not None:
        yield "work_time", budget.work_time, worked


def _used_up(limit: Limit, budget: Budget) -> Shortfall:
    return Shortfall(limit, f"the limit of {describe_limit(limit, getattr(budget, limit))} is used up")


_COUNTED = {"steps": "step", "model_calls": "model call", "tool_calls": "tool call", "tokens": "token"}
_TIMES = {"wall_time": "since the start", "work_time": "of work"}


def describe_limit(name: str, value: object) -> str:
    """Describe a limit as `40 steps`, `$2.00` or `2h since the start`."""
    if isinstance(value, Decimal):
        return f"${value:f}"
    if isinstance(value, timedelta):
        return f"{format_duration(value)} {_TIMES[name]}"
    if isinstance(value, int) and name in _COUNTED:
        return quantities.count_noun(value, _COUNTED[name])
    return f"{value:,} {name}"


def describe_limits(limits: BudgetRequest) -> str:
    """Describe all limits that are given."""
    given = [(name, getattr(limits, name)) for name in BudgetRequest.model_fields]
    return ", ".join(describe_limit(name, value) for name, value in given if value is not None)


def describe_amount(amount: Amount) -> str:
    """Describe what calls take as `$0.0123, 4,500 tokens`."""
    return f"${amount.cost_usd.quantize(Decimal('0.0001'))}, {quantities.count_noun(amount.tokens, 'token')}"


def can_be_raised(budget: Budget, limit: Limit) -> bool:
    """Return whether people may raise this limit from what it is now."""
    now = getattr(budget, limit)
    if budget.raise_at_most is None:
        return now is not None
    most = getattr(budget.raise_at_most, limit)
    return now is not None and most is not None and bool(now < most)


def suggest_raise(budget: Budget, limit: Limit) -> JsonObject:
    """Return twice the limit, or as much as it may be raised to, as people write it."""
    now = getattr(budget, limit)
    most = getattr(budget.raise_at_most, limit) if budget.raise_at_most is not None else None
    wanted = now * 2 if most is None else min(now * 2, most)
    return {limit: wanted if isinstance(wanted, int) else _write(wanted)}


def _is_lower(wanted: object, now: object) -> bool:
    return now is None or bool(wanted < now)  # type: ignore[operator] # both are values of one limit


def _write(value: object) -> str:
    return format_duration(value) if isinstance(value, timedelta) else str(value)
