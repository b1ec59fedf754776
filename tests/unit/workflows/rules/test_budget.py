"""Nothing is spent beyond a limit, in whatever order calls are reserved, settled, lost and repeated."""

from datetime import timedelta
from decimal import Decimal
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mandate.workflows.contracts.budget import Amount, Budget, BudgetRequest, Ledger
from mandate.workflows.contracts.model import Usage
from mandate.workflows.contracts.route import Price, Rates
from mandate.workflows.rules import budget as rules
from mandate.workflows.rules.budget import CallSize, Planned, Shortfall

PRICE = Price(
    tiers=(
        Rates(input=Decimal(1), output=Decimal(8), cached_input=Decimal("0.1"), cache_write=Decimal("1.25")),
        Rates(
            above=5000, input=Decimal(2), output=Decimal(12), cached_input=Decimal("0.2"), cache_write=Decimal("2.5")
        ),
    ),
    source="agent file",
)

sizes = st.builds(CallSize, st.integers(0, 20_000), st.integers(1, 8192), st.just(PRICE))
budgets = st.builds(
    Budget,
    model_calls=st.none() | st.integers(1, 40),
    tokens=st.none() | st.integers(1, 200_000),
    cost_usd=st.none() | st.decimals("0.0001", "1", places=4),
)
shares = st.integers(0, 100)
"""Percent of what was granted that a call really takes."""
steps = st.lists(st.tuples(sizes, shares, shares, st.integers(0, 6), st.booleans()), max_size=40)


def within(ledger: Ledger, budget: Budget) -> bool:
    left = rules.find_left(ledger, budget)
    return all(value is None or value >= 0 for value in (left.model_calls, left.tokens, left.cost_usd))


@given(budgets, steps)
def test_nothing_is_spent_beyond_a_limit(budget: Budget, taken: list[tuple[CallSize, int, int, int, bool]]) -> None:
    ledger = Ledger()
    for number, (size, part_in, part_out, most_lost, carried) in enumerate(taken):
        planned = rules.plan_call(ledger, budget, size)
        if isinstance(planned, Shortfall):
            continue
        ledger = rules.reserve(ledger, f"{number}", planned.amount)
        assert within(ledger, budget)
        if carried:
            # What continues as new is the same ledger, read again.
            ledger = Ledger.model_validate_json(ledger.model_dump_json())
        lost = min(most_lost, planned.grant.attempts)
        assumed = rules.take_part(planned.amount, lost, planned.grant.attempts)
        actual = Amount()
        if lost < planned.grant.attempts:
            input_tokens = planned.grant.input_tokens * part_in // 100
            output_tokens = planned.grant.output_tokens * part_out // 100
            actual = rules.measure_call(CallSize(input_tokens, output_tokens, size.price))
        ledger = rules.settle(ledger, f"{number}", actual, assumed=assumed)
        assert within(ledger, budget)
    assert not ledger.held


@given(budgets, sizes, shares)
def test_the_last_answer_fits_after_every_ordinary_call(budget: Budget, size: CallSize, part: int) -> None:
    planned = rules.plan_call(Ledger(), budget, size)
    if isinstance(planned, Shortfall):
        return
    ledger = rules.reserve(Ledger(), "model", planned.amount)
    taken = rules.measure_call(CallSize(size.input_tokens, planned.grant.output_tokens, size.price))
    ledger = rules.settle(ledger, "model", taken)
    told = size.input_tokens + planned.grant.output_tokens + rules.RESULT_TOKENS * part // 100
    last = CallSize(told, size.max_output_tokens, size.price)

    assert isinstance(rules.plan_call(ledger, budget, last, kept=lambda _: Amount(), is_last=True), Planned)


@given(budgets, sizes)
def test_the_answer_is_as_long_as_fits(budget: Budget, size: CallSize) -> None:
    planned = rules.plan_call(Ledger(), budget, size)
    left = rules.find_left(Ledger(), budget)

    def fits(output: int) -> bool:
        longer = CallSize(size.input_tokens, output, size.price)
        return left.holds(rules.measure_call(longer) + rules.final_reserve(longer))

    if isinstance(planned, Shortfall):
        assert not fits(min(rules.SHORTEST_OUTPUT, size.max_output_tokens))
    else:
        assert planned.grant.output_tokens == size.max_output_tokens or not fits(planned.grant.output_tokens + 1)


@given(st.lists(st.decimals("0", "9", places=9), max_size=20))
def test_sums_are_exact(costs: list[Decimal]) -> None:
    ledger = Ledger()
    for cost in costs:
        ledger = rules.settle(ledger, "model", Amount(cost_usd=cost))
        ledger = Ledger.model_validate_json(ledger.model_dump_json())

    assert ledger.spent.cost_usd == sum(costs, Decimal(0))


@pytest.mark.parametrize(
    ("asked", "limits"),
    [
        (None, {"steps": 40, "cost_usd": Decimal(2)}),
        ({"steps": 3}, {"steps": 3, "cost_usd": Decimal(2)}),
        ({"steps": 80}, {"steps": 40}),
        ({"cost_usd": "0.5"}, {"cost_usd": Decimal("0.5")}),
        ({"tokens": 9}, {"tokens": 9, "cost_usd": Decimal(2)}),
        ({"wall_time": "1h"}, {"wall_time": timedelta(hours=1)}),
    ],
)
def test_a_start_only_lowers(asked: dict[str, object] | None, limits: dict[str, object]) -> None:
    request = BudgetRequest.model_validate(asked) if asked is not None else None

    lowered = rules.lower(Budget(cost_usd=Decimal(2)), request)

    assert {name: getattr(lowered, name) for name in limits} == limits


@pytest.mark.parametrize(
    ("asked", "fault"),
    [
        ({"cost_usd": "5"}, None),
        ({}, 'names no limit; give at least one, for example {"cost_usd": "5.00"}'),
        ({"cost_usd": "2"}, "cost_usd: 2 is not more than the limit of now, 2"),
        ({"cost_usd": "5.01"}, "cost_usd: it may be raised to 5 at most"),
        ({"steps": 50}, "steps: it is not to be raised"),
        ({"tokens": 50}, "tokens: the run has no such limit"),
    ],
)
def test_people_raise_as_far_as_the_file_allows(asked: dict[str, object], fault: str | None) -> None:
    budget = Budget(cost_usd=Decimal(2), when_used_up="ask", raise_at_most=BudgetRequest(cost_usd=Decimal(5)))

    assert rules.find_raise_fault(budget, BudgetRequest.model_validate(asked)) == fault


@pytest.mark.parametrize(
    ("budget", "step", "minutes", "calls", "reason"),
    [
        (Budget(), 38, 0, 0, None),
        (Budget(), 39, 0, 0, "the limit of 40 steps is used up"),
        (Budget(steps=1), 0, 0, 0, None),
        (Budget(steps=1), 1, 0, 0, "the limit of 1 step is used up"),
        (Budget(steps=2), 1, 0, 0, "the limit of 2 steps is used up"),
        (Budget(wall_time=timedelta(hours=2)), 0, 118, 0, None),
        (Budget(wall_time=timedelta(hours=2)), 0, 119, 0, "the limit of 2h since the start is used up"),
        (Budget(work_time=timedelta(minutes=5)), 0, 4, 0, "the limit of 5m of work is used up"),
        (Budget(tool_calls=3), 0, 0, 3, None),
        (Budget(tool_calls=3), 0, 0, 4, "the limit of 3 tool calls is used up"),
    ],
)
def test_limits_leave_room_for_the_last_answer(
    budget: Budget, step: int, minutes: int, calls: int, reason: str | None
) -> None:
    passed = timedelta(minutes=minutes)

    found = rules.exceeded(Ledger(tool_calls=calls), budget, step=step, since_start=passed, worked=passed)

    assert (found.reason if found is not None else None) == reason


@pytest.mark.parametrize(
    ("usage", "is_money_limited", "untold"),
    [
        (Usage(input_tokens=900, output_tokens=90), False, Amount()),
        (Usage(input_tokens=900, output_tokens=90), True, Amount(cost_usd=Decimal("0.5"))),
        (Usage(), True, Amount(tokens=1500, cost_usd=Decimal("0.5"))),
        (Usage(input_tokens=900), False, Amount(tokens=600)),
        (Usage(output_tokens=2000), False, Amount()),
    ],
)
def test_what_an_answer_does_not_tell_counts_as_it_was_held(
    usage: Usage, is_money_limited: bool, untold: Amount
) -> None:
    held = Amount(model_calls=1, tokens=1500, cost_usd=Decimal("0.5"))

    assert rules.find_untold(held, usage, is_money_limited=is_money_limited) == untold


TIMES = st.none() | st.timedeltas(timedelta(seconds=5), timedelta(days=2))


@given(wall=TIMES, work=TIMES, since_start=st.timedeltas(timedelta(0), timedelta(days=3)), share=st.floats(0, 1))
def test_no_call_that_is_cut_off_at_its_time_takes_that_of_the_last_answer(
    wall: timedelta | None, work: timedelta | None, since_start: timedelta, share: float
) -> None:
    limits, worked = Budget(wall_time=wall, work_time=work), since_start * share
    find_left = partial(rules.find_time_left, limits, since_start=since_start, worked=worked, keeps_last=True)
    used = [(most, passed) for most, passed in ((wall, since_start), (work, worked)) if most is not None]

    left, last = find_left(is_last=False), find_left(is_last=True)
    is_over = rules.find_time_exceeded(limits, since_start=since_start, worked=worked) is not None

    assert (left is None) == (last is None) == (not used)
    if left is not None and last is not None:
        assert last >= min(rules.find_last_time(most) for most, _ in used)
        # Once it is cut off there is nothing left for another one, and all of what is kept back.
        if not is_over and left > timedelta(seconds=1):
            assert all(passed + left + rules.find_last_time(most) <= most for most, passed in used)
            assert rules.find_time_exceeded(limits, since_start=since_start + left, worked=worked + left) is not None
        assert is_over == any(passed >= most - rules.find_last_time(most) for most, passed in used)
