"""Bars in the terminal: the time line of a run, as wide as the terminal."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from rich.console import Console
from rich.text import Text

from mandate.workers.cli.output import Output
from mandate.workers.history.time_axis import Axis, lay_out
from mandate.workers.history.timeline import OPEN, WAITS, Bar, BarKind, Timeline, format_moment, write_length
from mandate.workflows.rules import plain_text, quantities

ROWS = 120
"""Bars that are drawn unless all are wanted: the first and the last ones."""

FIRST_ROWS = 30

NARROWEST = 50
WIDEST = 200
UNWATCHED = 120
"""Width of a drawing that nobody watches."""

STYLES: dict[BarKind, str] = {
    "step": "bold",
    "model": "blue",
    "tool": "cyan",
    "check": "magenta",
    "probe": "magenta",
    "child": "green",
    "person": "yellow",
    "pause": "yellow",
    "idle": "dim",
    "retry": "dim yellow",
    "own": "dim",
}

_WELL = frozenset({"done", OPEN})


def print_timeline(out: Output, timeline: Timeline, now: datetime, *, full: bool) -> None:
    """Print the bars on one axis, then what the axis leaves out and what could not be read."""
    bars, begun_at = timeline.drawn(), timeline.begun_at
    if not bars or begun_at is None:
        out.print("nothing has begun yet")
        _print_notes(out, timeline)
        return
    ended_at = timeline.ended_at
    last = max([ended_at or now, *(bar.ended_at for bar in bars if bar.ended_at is not None)])
    axis = lay_out(bars, min(begun_at, bars[0].begun_at), last)
    drawing = _Drawing(out.result, bars, axis, last)
    parts = f", {quantities.count_noun(len(timeline.parts), 'part')}" if len(timeline.parts) > 1 else ""
    until = f"to {format_moment(ended_at)}" if ended_at is not None else "and goes on"
    out.print("", Text(f"{format_moment(begun_at)} {until}: {write_length(last - begun_at)}{parts}", style="dim"))
    out.print(drawing.write_axis())
    left_out = len(bars) - ROWS
    if full or left_out <= 0:
        rows = [drawing.write(bar) for bar in bars]
    else:
        hidden = Text(f"{'':>4} … {quantities.count_noun(left_out, 'more bar')}, see --full", style="dim")
        shown = [*bars[:FIRST_ROWS], *bars[len(bars) - ROWS + FIRST_ROWS :]]
        rows = [drawing.write(bar) for bar in shown]
        rows.insert(FIRST_ROWS, hidden)
    out.print(*rows)
    _print_breaks(out, axis)
    _print_notes(out, timeline)


class _Drawing:
    """Rows of one picture: label, bar and length."""

    def __init__(self, console: Console, bars: Sequence[Bar], axis: Axis, last: datetime) -> None:
        width = console.width if console.is_terminal else UNWATCHED
        width = min(max(width, NARROWEST), WIDEST) - 1
        self._axis, self._last = axis, last
        self._digits = max(2, *(len(str(bar.step)) for bar in bars))
        self._length = max(len(write_length((bar.ended_at or last) - bar.begun_at)) for bar in bars) + 2
        room = width - self._digits - self._length - 3
        self._label = min(max(Text(_describe(bar)).cell_len for bar in bars), max(room * 2 // 5, 12))
        self._bar = max(room - self._label, 10)
        is_wide = console.encoding.lower().startswith("utf")
        self._signs = ("█", "░", "·", "▸", "╌", "│") if is_wide else ("#", "=", ".", ">", "~", "|")

    def write_axis(self) -> Text:
        """Return the line above the bars: where time is compressed, and how long that is."""
        *_, broken, edge = self._signs
        rule = "─" if edge == "│" else "-"
        cells = list(rule * self._bar)
        for stretch in self._axis.breaks:
            start, end = self._column(stretch.start), max(self._column(stretch.end), self._column(stretch.start) + 1)
            told = f" {write_length(stretch.length)} "
            cells[start:end] = broken * (end - start)
            if len(told) + 2 <= end - start:
                place = start + (end - start - len(told)) // 2
                cells[place : place + len(told)] = told
        line = Text(" " * (self._digits + self._label + 2), style="dim")
        line.append(edge + "".join(cells[: self._bar - 2]) + edge)
        return line

    def write(self, bar: Bar) -> Text:
        """Return one row."""
        style = "red" if bar.state not in {*_WELL, "closed", "repeated", "asked", "not started"} else STYLES[bar.kind]
        line = Text(f"{bar.step:>{self._digits}} ", style="dim")
        label = Text(plain_text.make_plain(_describe(bar)), style=style)
        label.truncate(self._label, overflow="ellipsis", pad=True)
        line.append_text(label)
        line.append(" ")
        line.append(self._draw(bar), style=style)
        ended = bar.ended_at or self._last
        length = f"{write_length(ended - bar.begun_at)}{'+' if bar.ended_at is None else ''}"
        line.append(f" {length:>{self._length - 1}}", style="" if bar.kind not in WAITS else "dim")
        return line

    def _draw(self, bar: Bar) -> str:
        """Return the cells of a bar: light before a worker began its last attempt, an arrow while it goes on."""
        solid, light, before, arrow, *_ = self._signs
        start = min(self._column(self._axis.place(bar.begun_at)), self._bar - 1)
        ended = bar.ended_at or self._last
        end = max(self._column(self._axis.place(ended)), start + 1)
        taken = start
        if bar.taken_at is not None:
            taken = min(max(self._column(self._axis.place(bar.taken_at)), start), end - 1)
        elif bar.ended_at is None and bar.kind not in WAITS:
            taken = end
        cells = before * (taken - start) + (light if bar.kind in WAITS else solid) * (end - taken)
        if bar.ended_at is None:
            cells = cells[:-1] + arrow
        return (" " * start + cells).ljust(self._bar)[: self._bar]

    def _column(self, place: float) -> int:
        return round(place * self._bar)


def _describe(bar: Bar) -> str:
    """Return the label of a row: kind, subject, and what went otherwise than well."""
    attempts = f" x{bar.attempts}" if bar.attempts > 1 else ""
    step = f"{bar.plan_step}: " if bar.plan_step else ""
    ended = "" if bar.state in _WELL else f" ({bar.state})"
    match bar.kind:
        case "person":
            return f"{bar.name} {', '.join(bar.waits_for)}: {bar.label}{ended}"
        case "pause" | "idle" | "retry" | "own":
            return f"{bar.label}{attempts}{ended}"
        case _:
            return f"{bar.kind} {step}{bar.label}{attempts}{ended}"


def _print_breaks(out: Output, axis: Axis) -> None:
    if not axis.breaks:
        return
    told = ", ".join(_list_breaks(axis))
    out.print("", Text(f"time is not to scale where it is marked: {told}", style="dim"))


def _list_breaks(axis: Axis) -> Iterator[str]:
    breaks = sorted(axis.breaks, key=lambda stretch: stretch.length, reverse=True)
    for stretch in breaks[:5]:
        yield f"{write_length(stretch.length)} from {format_moment(stretch.begun_at)}"
    if len(breaks) > 5:
        yield f"and {len(breaks) - 5} more"


def _print_notes(out: Output, timeline: Timeline) -> None:
    if timeline.missing is not None:
        out.note(timeline.missing)
    if timeline.unreadable:
        count = quantities.count_noun(timeline.unreadable, "event")
        out.note(f"{count} of the history could not be read: what they say is missing, their times are there")
