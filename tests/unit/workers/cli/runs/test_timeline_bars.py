"""Rows of a time line in the terminal."""

import subprocess
import sys
from datetime import datetime

import pytest
from rich.cells import cell_len

from mandate.workers.cli.output import Output
from mandate.workers.cli.runs.timeline_bars import ROWS, print_timeline
from mandate.workers.history.timeline import Timeline
from tests.support.timelines import at, bar, timeline

DAY = 86_400.0


def drawn(
    capsys: pytest.CaptureFixture[str],
    line: Timeline,
    *,
    width: int = 80,
    now: datetime | None = None,
    full: bool = False,
) -> list[str]:
    out = Output(color="never")
    out.result.width = width
    out.result._force_terminal = True
    print_timeline(out, line, now or at(20), full=full)
    return [row.rstrip() for row in capsys.readouterr().out.splitlines()]


def test_bars_stand_below_one_axis(capsys: pytest.CaptureFixture[str]) -> None:
    bars = [
        bar("model", 0, 4, taken=1, label="openai:gpt"),
        bar("tool", 4, 12, taken=4, label="look what=a", attempts=2),
        bar("tool", 4, 8, taken=4, label="pay order=1", state="failed"),
        bar("person", 12, 16, label="pay order=1?", name="r1", waits_for=("finance",), step=2),
        bar("model", 16, None, label="openai:gpt", step=2, taken=16),
    ]

    rows = drawn(capsys, timeline(*bars))

    assert rows == [
        "",
        "2026-11-02 09:00:00 UTC and goes on: 20.0s",
        "                             │─────────────────────────────────────────│",
        " 1 model openai:gpt          ··███████                                    4.0s",
        " 1 tool look what=a x2                █████████████████                   8.0s",
        " 1 tool pay order=1 (failed)          ████████                            4.0s",
        " 2 r1 finance: pay order=1?                            ░░░░░░░░           4.0s",
        " 2 model openai:gpt                                            ████████▸ 4.0s+",
    ]


@pytest.mark.parametrize("width", [20, 50, 80, 120, 300])
def test_no_row_is_wider_than_the_terminal(capsys: pytest.CaptureFixture[str], width: int) -> None:
    wide = "\u8a9e" * 60
    bars = [
        bar("tool", 0, 4, label=wide, step=1234),
        bar("person", 4, 9, label="x" * 200, name="r1", waits_for=(wide,)),
    ]

    rows = drawn(capsys, timeline(*bars, ended=9), width=width)

    assert max(map(cell_len, rows[2:])) <= max(width, 50)


def test_long_waits_are_broken_and_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    bars = [bar("model", 0, 60), bar("person", 60, 60 + 2 * DAY, name="r1"), bar("tool", 60 + 2 * DAY, 120 + 2 * DAY)]

    rows = drawn(capsys, timeline(*bars, ended=120 + 2 * DAY))

    assert "╌╌ 2d ╌╌" in rows[2]
    assert rows[-1] == "time is not to scale where it is marked: 2d from 2026-11-02 09:01:00 UTC"


def test_hundreds_of_bars_are_cut_in_the_middle(capsys: pytest.CaptureFixture[str]) -> None:
    line = timeline(*(bar("tool", second, second + 1, label=f"look {second}") for second in range(400)), ended=400)

    short, full = drawn(capsys, line), drawn(capsys, line, full=True)

    assert len(short) == 3 + ROWS + 1
    assert "… 280 more bars, see --full" in short[3 + 30]
    assert "look 399" in short[-1]
    assert len(full) == 3 + 400


def test_what_a_tool_is_called_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    rows = drawn(capsys, timeline(bar("tool", 0, 1, label="x\x1b[31m\u202e\n[bold]y"), ended=1))

    assert "\x1b" not in "".join(rows)
    assert "\u202e" not in "".join(rows)
    assert len(rows) == 4
    assert "[bo…" in rows[-1]


def test_an_empty_time_line_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert drawn(capsys, Timeline()) == ["nothing has begun yet"]


def test_what_could_not_be_read_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    line = timeline(bar("tool", 0, 1), ended=1)
    line.missing, line.unreadable = "its first parts are gone", 3

    print_timeline(Output(), line, at(1), full=False)

    err = capsys.readouterr().err
    assert "its first parts are gone" in err
    assert "3 events of the history could not be read" in err


def test_a_time_line_in_the_terminal_needs_no_templates() -> None:
    code = "import sys, mandate.workers.cli.show, mandate.workers.cli.stats; sys.exit('jinja2' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
