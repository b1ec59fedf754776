"""Sums of a run's calls: exact, and undone exactly."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mandate.workflows.contracts.policy import ToolTotals
from mandate.workflows.contracts.tool import Tool
from mandate.workflows.rules.totals import give_back, reserve

PAY = Tool(name="pay", source="python", numeric=("amount", "fee"))
SEARCH = Tool(name="search", source="python")


@pytest.mark.parametrize(
    ("calls", "sums"),
    [
        ([{"amount": 60.0}, {"amount": 39.5}], {"amount": "99.5"}),
        ([{"amount": 0.1}] * 10, {"amount": "1"}),
        ([{"amount": 0.1}, {"amount": 0.2}], {"amount": "0.3"}),
        ([{"amount": 5}, {"amount": 0.5, "fee": 1}], {"amount": "5.5", "fee": "1"}),
        ([{"amount": 2**63 - 1}, {"amount": 2**63 - 1}], {"amount": "18446744073709551614"}),
        ([{"amount": 1e22}, {"amount": 0.01}], {"amount": "10000000000000000000000.01"}),
        ([{"amount": -40.0}, {"amount": 40.0}], {}),
        ([{"amount": True}, {"amount": "7"}, {"amount": None}, {"amount": [1.0]}], {}),
        ([{"amount": float("nan")}, {"amount": float("inf")}], {}),
        ([{"other": 7.0}, {"fee": 0.0}], {}),
    ],
)
def test_sums_are_exact(calls: list[dict[str, object]], sums: dict[str, str]) -> None:
    totals: dict[str, ToolTotals] = {}

    for call in calls:
        totals = reserve(totals, PAY, call)

    assert totals == {"pay": ToolTotals(calls=len(calls), sums={name: Decimal(value) for name, value in sums.items()})}


def test_call_without_numbers_is_counted() -> None:
    assert reserve({}, SEARCH, {"query": 5}) == {"search": ToolTotals(calls=1)}


def test_nothing_given_is_changed() -> None:
    before = {"pay": ToolTotals(calls=1, sums={"amount": Decimal(5)})}

    after = reserve(before, PAY, {"amount": 1.0})
    give_back(after, PAY, {"amount": 1.0})

    assert before == {"pay": ToolTotals(calls=1, sums={"amount": Decimal(5)})}
    assert after == {"pay": ToolTotals(calls=2, sums={"amount": Decimal(6)})}


def test_sums_survive_the_way_through_temporal() -> None:
    totals = reserve(reserve({}, PAY, {"amount": 1e-300}), PAY, {"amount": 1e300})["pay"]

    assert ToolTotals.model_validate_json(totals.model_dump_json()) == totals


NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63 - 1)
CALLS = st.tuples(
    st.sampled_from([PAY, SEARCH]),
    st.dictionaries(st.sampled_from(["amount", "fee", "query"]), NUMBERS | st.booleans() | st.none() | st.text()),
)


@given(st.lists(CALLS, max_size=6), CALLS)
def test_giving_back_undoes_a_reservation(
    before: list[tuple[Tool, dict[str, object]]], call: tuple[Tool, dict]
) -> None:
    totals: dict[str, ToolTotals] = {}
    for tool, arguments in before:
        totals = reserve(totals, tool, arguments)

    assert give_back(reserve(totals, *call), *call) == totals


@given(st.lists(CALLS, max_size=6), st.randoms())
def test_order_does_not_matter(calls: list[tuple[Tool, dict]], random: object) -> None:
    totals: dict[str, ToolTotals] = {}
    for tool, arguments in calls:
        totals = reserve(totals, tool, arguments)

    random.shuffle(calls)
    for tool, arguments in calls:
        totals = give_back(totals, tool, arguments)

    assert totals == {}
