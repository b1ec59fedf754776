"""Which budgets beyond one run a run counts in, for whom, and when they begin anew."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from mandate.workflows.contracts.budget_file import PeriodBudget
from mandate.workflows.rules.period_budgets import (
    Share,
    Spender,
    describe_scope,
    find_next_period,
    find_shares,
    format_usd,
    name_period,
)

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
ANN = Spender("refunds", "Ann@example.com", {"team": "support", "tier": "gold"})
NOBODY = Spender("refunds")
HALF = Spender("refunds", None, {"team": "\ud83d\0"})


def budget(**keys: object) -> PeriodBudget:
    return PeriodBudget.model_validate({"id": "b", "per": "month", "tokens": 5, **keys})


@pytest.mark.parametrize(
    ("keys", "spender", "scope", "words"),
    [
        ({}, ANN, "{}", ""),
        ({}, NOBODY, "{}", ""),
        ({"agent": "refunds"}, ANN, "{}", ""),
        ({"agent": "shop"}, ANN, None, None),
        ({"agent": "*"}, ANN, '{"agent": "refunds"}', "refunds"),
        ({"requester": "ann@example.com"}, ANN, "{}", ""),
        ({"requester": "bob@example.com"}, ANN, None, None),
        ({"requester": "ann@example.com"}, NOBODY, None, None),
        ({"requester": "*"}, ANN, '{"requester": "ann@example.com"}', "ann@example.com"),
        ({"requester": "*"}, NOBODY, '{"requester": null}', "no requester"),
        ({"labels": {"team": "support"}}, ANN, "{}", ""),
        ({"labels": {"team": "Support"}}, ANN, None, None),
        ({"labels": {"team": "support"}}, NOBODY, None, None),
        ({"labels": {"team": "support", "tier": "iron"}}, ANN, None, None),
        ({"labels": {"team": "*", "tier": "gold"}}, ANN, '{"labels": {"team": "support"}}', "team=support"),
        ({"labels": {"team": "*"}}, NOBODY, '{"labels": {"team": null}}', "no team"),
        ({"labels": {"team": "*"}}, HALF, '{"labels": {"team": "\\ud83d\\u0000"}}', None),
        (
            {"requester": "*", "labels": {"tier": "*", "team": "*"}, "agent": "*"},
            ANN,
            '{"agent": "refunds", "labels": {"team": "support", "tier": "gold"}, "requester": "ann@example.com"}',
            "refunds, ann@example.com, team=support, tier=gold",
        ),
        ({"agent": "refunds", "requester": "bob@example.com"}, ANN, None, None),
    ],
)  # fmt: skip
def test_runs_count_where_every_key_fits(
    keys: dict[str, object], spender: Spender, scope: str | None, words: str | None
) -> None:
    shares = find_shares([budget(**keys)], spender, NOON)

    assert [share.scope for share in shares] == ([] if scope is None else [scope])
    if words is not None:
        assert [describe_scope(share.scope) for share in shares] == [words]


def test_spellings_of_a_name_share_a_budget_and_different_names_do_not() -> None:
    spellings = [Spender("a", name) for name in ("José", "JOSÉ ", "Jose\u0301")]
    each = budget(requester="*")

    assert len({find_shares([each], one, NOON)[0].scope for one in spellings}) == 1
    assert len({find_shares([each], Spender("a", name), NOON)[0].scope for name in ("José", "Jose")}) == 2


def test_a_run_counts_in_all_budgets_that_fit() -> None:
    budgets = [budget(id="a"), budget(id="b", agent="shop"), budget(id="c", per="day")]

    assert find_shares(budgets, ANN, NOON) == (
        Share(budgets[0], "{}", "2026-11"),
        Share(budgets[2], "{}", "2026-11-30"),
    )


@pytest.mark.parametrize(
    ("per", "zone", "now", "period", "following"),
    [
        ("day", "UTC", "2026-11-30T23:59:59+00:00", "2026-11-30", "2026-12-01T00:00:00+00:00"),
        ("month", "UTC", "2026-11-30T23:59:59+00:00", "2026-11", "2026-12-01T00:00:00+00:00"),
        ("day", "Europe/Berlin", "2026-11-30T23:00:00+00:00", "2026-12-01", "2026-12-02T00:00:00+01:00"),
        ("month", "Europe/Berlin", "2026-11-30T22:59:59+00:00", "2026-11", "2026-12-01T00:00:00+01:00"),
        ("day", "America/New_York", "2026-12-01T04:59:59+00:00", "2026-11-30", "2026-12-01T00:00:00-05:00"),
        ("month", "UTC", "2026-12-31T12:00:00+00:00", "2026-12", "2027-01-01T00:00:00+00:00"),
        ("month", "UTC", "2027-01-31T12:00:00+00:00", "2027-01", "2027-02-01T00:00:00+00:00"),
        ("month", "Europe/Berlin", "2026-10-24T12:00:00+00:00", "2026-10", "2026-11-01T00:00:00+01:00"),
        ("day", "Europe/Berlin", "2026-10-24T12:00:00+00:00", "2026-10-24", "2026-10-25T00:00:00+02:00"),
        ("day", "Europe/Berlin", "2026-10-25T12:00:00+00:00", "2026-10-25", "2026-10-26T00:00:00+01:00"),
        ("day", "UTC", "2028-02-28T12:00:00+00:00", "2028-02-28", "2028-02-29T00:00:00+00:00"),
    ],
)
def test_days_and_months_are_those_of_the_time_zone(per: str, zone: str, now: str, period: str, following: str) -> None:
    found = budget(per=per, time_zone=zone)

    assert name_period(found, datetime.fromisoformat(now)) == period
    assert find_next_period(found, datetime.fromisoformat(now)).isoformat() == following


@pytest.mark.parametrize(
    ("cost_usd", "written"),
    [
        ("0", "$0.00"),
        ("50.00", "$50.00"),
        ("50.5", "$50.50"),
        ("1234567", "$1,234,567.00"),
        ("0.000000008", "$0.000000008"),
        ("0.120000000", "$0.12"),
        ("1E+2", "$100.00"),
        ("-0.5", "-$0.50"),
    ],
)
def test_dollars_are_written_exactly(cost_usd: str, written: str) -> None:
    assert format_usd(Decimal(cost_usd)) == written
