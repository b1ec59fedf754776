"""Numbers over runs."""

from datetime import timedelta
from decimal import Decimal

import pytest

from mandate.workers.converter import data_converter
from mandate.workers.history.run_history import RunHistory
from mandate.workers.history.stats import Spread, Stats, find_percentile, measure, measure_own_usage
from mandate.workers.history.timeline import Timeline
from mandate.workflows.contracts.model import Usage
from tests.support.timelines import bar, load, read, timeline


def seconds(*values: float) -> list[timedelta]:
    return [timedelta(seconds=value) for value in values]


@pytest.mark.parametrize(
    ("count", "p50", "p95"),
    [
        (1, 1, 1),
        (2, 1, 2),  # 0.5 * 2 = 1; 0.95 * 2 = 1.9
        (3, 2, 3),  # 1.5; 2.85
        (4, 2, 4),  # 2; 3.8
        (19, 10, 19),  # 9.5; 18.05
        (20, 10, 19),  # 10; 19
        (21, 11, 20),  # 10.5; 19.95
        (100, 50, 95),
        (101, 51, 96),  # 50.5; 95.95
    ],
)
def test_a_percentile_is_the_value_of_the_nearest_rank(count: int, p50: int, p95: int) -> None:
    lengths = seconds(*range(1, count + 1))

    assert [find_percentile(lengths, percent) for percent in (50, 95)] == seconds(p50, p95)


def test_the_order_of_lengths_does_not_matter_and_none_is_nothing() -> None:
    assert measure(seconds(3, 1, 2)) == Spread(3, *seconds(2, 3, 3))
    assert measure([]).to_json() == {"count": 0, "p50": None, "p95": None, "longest": None}


async def test_calls_checks_and_waits_are_counted_by_what_became_of_them() -> None:
    stats = Stats()
    for name in ("0.1-completed", "0.2-parked", "0.3-checked", "0.3-doubted", "0.5-inquired"):
        line, history = await read(load(name))
        stats.add(line, history, history.ended.status if history.ended is not None else "running")

    assert stats.outcomes == {"completed": 5}
    assert {name: dict(one.states) for name, one in stats.tools.items()} == {
        "look": {"done": 3},
        "pay": {"done": 5, "refused": 2},
        "nothing": {"misfit": 1},
        "send": {"refused": 1, "unknown": 2, "done": 1},
        "ship": {"done": 1},
        "wish": {"done": 1},
    }
    assert {name: dict(one.states) for name, one in stats.checks.items()} == {
        "pay_expect_1": {"failed": 1},
        "final_schema_1": {"failed": 1, "done": 1},
    }
    kinds = {name: (one.requests, one.expired, one.open, len(one.lengths)) for name, one in stats.kinds.items()}
    assert kinds == {"approval": (2, 1, 0, 2), "outcome": (2, 0, 0, 2), "question": (3, 0, 0, 3)}
    assert [one["name"] for one in stats.to_json()["tools"]][:1] == ["send"]  # type: ignore[index, union-attr, call-overload]


async def test_what_children_took_is_theirs() -> None:
    line, history = await read(load("0.9-led"))

    own = measure_own_usage(line, history)

    assert line.usage_below.model_calls > 0
    assert own.model_calls == 2
    assert own.model_calls + line.usage_below.model_calls == history.sum_usage().model_calls


async def test_what_the_earlier_run_of_a_session_took_is_counted_once() -> None:
    first, first_history = await read(load("0.8-conversed"))
    second, second_history = await read(load("0.8-resumed"))

    assert measure_own_usage(first, first_history).model_calls == sum(one.kind == "model" for one in first.bars)
    assert second_history.sum_usage().model_calls > 1
    assert measure_own_usage(second, second_history).model_calls == 1


def test_a_run_whose_beginning_is_gone_has_no_length() -> None:
    stats, history = Stats(), RunHistory(data_converter(), agent="a")
    history.usage = Usage(cost_usd=Decimal("0.5"))
    whole, cut = timeline(bar("model", 0, 3), ended=3), timeline(bar("model", 0, 9), ended=9)
    cut.missing = "its first parts are gone"

    for line in (whole, cut, Timeline()):
        stats.add(line, history, "completed")

    assert (stats.counted, stats.lengths) == (3, seconds(3))
    assert stats.agents["a"].usage.cost_usd == Decimal("1.5")
