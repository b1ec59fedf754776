"""Patterns of many agents at their limits: two thousand steps take seconds to check."""

import pytest

from mandate.workers.client import patterns
from mandate.workers.client.patterns import debate, supervise
from mandate.workflows.contracts.plan import PlanSpec
from tests.unit.workers.client.test_patterns import find

LONG = [f"{'x' * 60}{number:04}" for number in range(100)]


@pytest.mark.parametrize(
    "made",
    [
        debate(LONG[: patterns.MOST_DEBATERS], "judge", rounds=patterns.MOST_ROUNDS),
        supervise("boss", LONG[:99], attempts=patterns.MOST_ROUNDS),
    ],
)
def test_the_largest_patterns_are_plans(made: PlanSpec) -> None:
    assert find(made) == []
