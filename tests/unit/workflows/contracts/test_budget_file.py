"""The file of budgets: what it may say, and the sentence for each thing that it may not."""

from decimal import Decimal
from pathlib import Path

import pytest

from mandate.activities.files import FileError, read_spec
from mandate.workflows.contracts.budget_file import BudgetFile, PeriodBudget


def read(folder: Path, text: str) -> BudgetFile:
    path = folder / "budgets.yaml"
    path.write_text(text, encoding="utf-8")
    spec, _ = read_spec(path, BudgetFile)
    return spec


def test_every_key_is_read(tmp_path: Path) -> None:
    text = """
budgets:
  - {id: team, agent: "*", requester: "*", labels: {team: "*", tier: gold}, per: month, time_zone: Europe/Berlin,
     cost_usd: "50.00", tokens: 2000000}
  - {id: all, per: day, cost_usd: 100}
"""

    assert read(tmp_path, text).budgets == (
        PeriodBudget(
            id="team", agent="*", requester="*", labels={"team": "*", "tier": "gold"}, per="month",
            time_zone="Europe/Berlin", cost_usd=Decimal("50.00"), tokens=2_000_000,
        ),
        PeriodBudget(id="all", per="day", cost_usd=Decimal(100)),
    )  # fmt: skip


def test_a_file_may_have_no_budget_yet(tmp_path: Path) -> None:
    assert read(tmp_path, "budgets: []").budgets == ()


NO_ZONE = "is not a time zone that is known here"
ALLOWED = "agent, cost_usd, id, labels, per, requester, time_zone, tokens"


@pytest.mark.parametrize(
    ("budgets", "sentence"),
    [
        (
            "[{id: a, per: day}]",
            "1:11: budgets[0]: has no limit; give 'cost_usd', 'tokens' or both",
        ),
        (
            "[{id: a, per: week, tokens: 5}]",
            "1:19: budgets[0].per: 'week' is not one of day, month",
        ),
        (
            "[{id: a, per: day, tokens: 5}, {id: a, per: month, tokens: 5}]",
            "1:42: budgets[1].id: 'a' is the id of budgets[0] too; each budget has its own",
        ),
        (
            "[{id: a, per: day, token: 5}]",
            f"1:29: budgets[0].token: is not a key that is known here; did you mean 'tokens'? allowed are {ALLOWED}",
        ),
        (
            "[{id: a, per: day, cost_usd: 0.5}]",
            "1:29: budgets[0].cost_usd: 0.5: an amount is exact: write it as a text in quotes, for example '2.50'",
        ),
        (
            "[{id: a, per: day, cost_usd: '0'}]",
            "1:29: budgets[0].cost_usd: '0': must be more than 0",
        ),
        (
            "[{id: a, per: day, tokens: 0}]",
            "1:29: budgets[0].tokens: 0: must be at least 1",
        ),
        (
            "[{id: a, per: day, tokens: 5, time_zone: Europe/Berlni}]",
            f"1:40: budgets[0].time_zone: 'Europe/Berlni': {NO_ZONE}; did you mean 'Europe/Berlin'?",
        ),
        (
            "[{id: a, per: day, tokens: 5, time_zone: ../../etc/passwd}]",
            f"1:40: budgets[0].time_zone: '../../etc/passwd': {NO_ZONE}, for example 'UTC' or 'Europe/Berlin'",
        ),
        (
            "[{id: a, per: day, tokens: 5, time_zone: Europe}]",
            f"1:40: budgets[0].time_zone: 'Europe': {NO_ZONE}, for example 'UTC' or 'Europe/Berlin'",
        ),
        (
            "[{id: a, per: day, tokens: 5, agent: 'no agent'}]",
            "1:40: budgets[0].agent: 'no agent': must be the name of an agent, or '*' for a budget of each agent",
        ),
        (
            "[{id: a, per: day, tokens: 5, requester: 'agent:x'}]",
            "1:40: budgets[0].requester: 'agent:x': names that begin with 'agent:' are agents, which decide nothing",
        ),
        (
            "[{id: a, per: day, tokens: 5, labels: {team: 7}}]",
            "1:49: budgets[0].labels.team: 7 is not a text; put it in quotes",
        ),
        (
            "[{id: a b, per: day, tokens: 5}]",
            "1:12: budgets[0].id: 'a b' is not a letter followed by up to 63 letters, digits, '_' and '-'",
        ),
        (
            "[{id: a, tokens: 5}]",
            "1:11: budgets[0].per: is missing: Time after which it begins anew.",
        ),
        ("[a]", "1:11: budgets[0]: 'a' is not a mapping"),
        ("{}", "1:1: budgets: a mapping is not a list"),
    ],
)
def test_what_it_may_not_say_is_told_with_its_place(budgets: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(FileError) as refused:
        read(tmp_path, f"budgets: {budgets}")

    assert str(refused.value).splitlines() == [f"{tmp_path}/budgets.yaml:{sentence}"]
