"""Places on the axis of a time line."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mandate.workers.history.time_axis import lay_out
from mandate.workers.history.timeline import Bar
from tests.support.timelines import at, bar

DAY = 86_400.0


def places(bars: list[Bar], *seconds: float, end: float) -> list[float]:
    axis = lay_out(bars, at(0), at(end))
    return [round(axis.place(at(one)), 3) for one in seconds]


def test_a_short_run_is_drawn_to_scale() -> None:
    bars = [bar("model", 0, 2), bar("tool", 2, 8), bar("model", 8, 10)]

    assert places(bars, 0, 2, 5, 8, 10, end=10) == [0, 0.2, 0.5, 0.8, 1]
    assert lay_out(bars, at(0), at(10)).breaks == ()


def test_waits_that_leave_the_work_a_quarter_are_to_scale() -> None:
    bars = [bar("model", 0, 10), bar("person", 10, 40)]

    assert lay_out(bars, at(0), at(40)).breaks == ()


def test_a_wait_of_days_leaves_half_of_the_axis_to_the_work() -> None:
    bars = [bar("model", 0, 60), bar("person", 60, 60 + 2 * DAY), bar("tool", 60 + 2 * DAY, 120 + 2 * DAY)]

    axis = lay_out(bars, at(0), at(120 + 2 * DAY))

    assert [round(axis.place(at(one)), 3) for one in (60, 60 + DAY, 60 + 2 * DAY)] == [0.25, 0.5, 0.75]
    assert [(one.begun_at, one.length) for one in axis.breaks] == [(at(60), timedelta(days=2))]


def test_only_the_longest_waits_are_compressed() -> None:
    """Work of 60 s; waits of 10 s, an hour and a day: the short one is to scale, the others share what is left."""
    bars = [bar("tool", 0, 20), bar("tool", 30, 50), bar("tool", 3650, 3670), bar("person", 3670, 3670 + DAY)]

    axis = lay_out(bars, at(0), at(3670 + DAY))

    assert [one.length for one in axis.breaks] == [timedelta(hours=1), timedelta(days=1)]
    assert axis.place(at(30)) - axis.place(at(20)) == pytest.approx(10 / 120)
    assert axis.place(at(3650)) - axis.place(at(50)) == pytest.approx(25 / 120)


def test_one_call_of_hours_does_not_squeeze_the_others() -> None:
    bars = [
        bar("model", 0, 2),
        bar("tool", 2, 4),
        bar("model", 4, 6),
        bar("tool", 6, 20_000),
        bar("model", 20_000, 20_002),
    ]

    axis = lay_out(bars, at(0), at(20_002))

    assert [one.begun_at for one in axis.breaks] == [at(6)]
    assert axis.place(at(2)) == pytest.approx(0.125)


def test_a_run_without_any_work_is_to_scale() -> None:
    assert places([bar("person", 0, None)], 0, DAY / 2, DAY, end=DAY) == [0, 0.5, 1]


def test_a_run_that_took_no_time_has_an_axis() -> None:
    axis = lay_out([bar("tool", 0, 0)], at(0), at(0))

    assert (axis.place(at(0)), axis.breaks) == (0.0, ())


SECONDS = st.floats(min_value=0, max_value=10 * DAY, allow_nan=False)
KINDS = st.sampled_from(["model", "tool", "person", "pause", "child", "own"])


@given(st.lists(st.tuples(KINDS, SECONDS, SECONDS), min_size=1, max_size=20))
def test_later_is_never_to_the_left(drawn: list[tuple[str, float, float]]) -> None:
    bars = [bar(kind, min(a, b), max(a, b)) for kind, a, b in drawn]  # type: ignore[arg-type]
    axis = lay_out(bars, at(0), at(10 * DAY))
    moments = sorted({0.0, 10 * DAY, *(one for _, a, b in drawn for one in (a, b))})
    found = [axis.place(at(one)) for one in moments]

    assert found == sorted(found)
    assert found[0] == 0.0
    assert found[-1] == pytest.approx(1.0)
