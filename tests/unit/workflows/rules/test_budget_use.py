"""Use of a run's limits as people see it: numbers, rows and one line."""

from datetime import timedelta
from decimal import Decimal

import pytest

from mandate.workflows.contracts.budget import Amount, Budget, BudgetRequest, Ledger, LimitUse
from mandate.workflows.rules.budget_use import Standing, describe_use, list_rows, measure_use, write_limits

LIMITS = Budget(
    steps=40,
    model_calls=60,
    tool_calls=3,
    tokens=400_000,
    cost_usd=Decimal("2.00"),
    wall_time=timedelta(hours=2),
    work_time=timedelta(minutes=20),
    when_used_up="ask",
    raise_at_most=BudgetRequest(cost_usd=Decimal("5.00"), wall_time=timedelta(hours=4)),
)
LEDGER = Ledger(
    spent=Amount(model_calls=7, tokens=12_000, cost_usd=Decimal("0.3150")),
    assumed=Amount(model_calls=1, tokens=4_000, cost_usd=Decimal("0.10")),
    held={"model": Amount(model_calls=2, tokens=8_000, cost_usd=Decimal("0.20"))},
    tool_calls=5,
    used_up="the limit of 3 tool calls is used up",
)
STANDING = Standing(step=6, since_start=timedelta(minutes=63, seconds=20), worked=timedelta(seconds=59))


def test_each_limit_is_told_with_what_is_spent_assumed_held_and_left() -> None:
    use = measure_use(LEDGER, LIMITS, STANDING, Decimal("31.50"))

    assert use.use == {
        "steps": LimitUse(limit=40, spent=6, assumed=0, held=0, left=34),
        "model_calls": LimitUse(limit=60, spent=7, assumed=1, held=2, left=51),
        "tokens": LimitUse(limit=400_000, spent=12_000, assumed=4_000, held=8_000, left=380_000),
        "cost_usd": LimitUse(limit="2.00", spent="0.3150", assumed="0.10", held="0.20", left="1.4850"),
        "tool_calls": LimitUse(limit=3, spent=3, assumed=0, held=0, left=0),
        "wall_time": LimitUse(limit="2h", spent="1h3m20s", assumed="0s", held="0s", left="56m40s"),
        "work_time": LimitUse(limit="20m", spent="59s", assumed="0s", held="0s", left="19m1s"),
    }
    assert (use.used_up, use.period_cost_usd) == ("the limit of 3 tool calls is used up", "31.50")


def test_what_is_not_limited_is_told_as_spent() -> None:
    use = measure_use(LEDGER, Budget(), STANDING)

    assert list(use.use) == ["steps", "model_calls", "tokens", "cost_usd"]
    assert use.use["cost_usd"] == LimitUse(limit=None, spent="0.3150", assumed="0.10", held="0.20", left=None)
    assert list(list_rows(use)) == [("steps", "40", "6", "0", "0", "34")]
    assert describe_use(use) == ""


def test_rows_and_line_are_in_the_words_of_people() -> None:
    use = measure_use(LEDGER, LIMITS, STANDING)

    assert list(list_rows(use)) == [
        ("steps", "40", "6", "0", "0", "34"),
        ("model calls", "60", "7", "1", "2", "51"),
        ("tool calls", "3", "3", "0", "0", "0"),
        ("tokens", "400,000", "12,000", "4,000", "8,000", "380,000"),
        ("cost", "$2.00", "$0.315", "$0.10", "$0.20", "$1.485"),
        ("time since the start", "2h", "1h3m20s", "0s", "0s", "56m40s"),
        ("time of work", "20m", "59s", "0s", "0s", "19m1s"),
    ]
    assert describe_use(use) == (
        "$0.315 of $2.00 spent, $0.10 of that assumed, $0.20 held, $1.485 left; "
        "12,000 of 400,000 tokens used, 4,000 of that assumed, 8,000 held, 380,000 left; "
        "7 of 60 model calls made, 1 of that assumed, 2 held, 51 left; 3 of 3 tool calls made, 0 left"
    )


@pytest.mark.parametrize("limits", [LIMITS, Budget(), Budget(cost_usd=Decimal("0.000000001"))])
def test_limits_are_written_as_agent_files_have_them(limits: Budget) -> None:
    assert Budget.model_validate(write_limits(limits)) == limits
