"""The axis of a time line: linear, with long stretches in which nothing begins or ends compressed."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from mandate.workers.history.timeline import WAITS, Bar

SHORTEST = timedelta(seconds=5)
"""Of a stretch that is compressed."""

WAITED_MORE = 3
"""Times the work: so long are all waits together before the longest of them are compressed."""

WORKED_LONGER = 30
"""Times all shorter stretches of work: so long is one of work that is compressed."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """One piece of the axis, between two moments at which something begins or ends."""

    begun_at: datetime
    ended_at: datetime
    start: float
    """Place of its beginning, from 0 to 1."""
    end: float
    is_compressed: bool

    @property
    def length(self) -> timedelta:
        return self.ended_at - self.begun_at


@dataclass(frozen=True, slots=True)
class Axis:
    """Places of moments from 0 to 1."""

    stretches: tuple[Stretch, ...]

    @property
    def breaks(self) -> tuple[Stretch, ...]:
        """The compressed stretches, those that follow each other as one."""
        joined: list[Stretch] = []
        for one in self.stretches:
            if not one.is_compressed:
                continue
            if joined and joined[-1].ended_at == one.begun_at:
                before = joined.pop()
                joined.append(Stretch(before.begun_at, one.ended_at, before.start, one.end, is_compressed=True))
            else:
                joined.append(one)
        return tuple(joined)

    def place(self, at: datetime) -> float:
        """Return the place of a moment; one outside of the axis is at its nearer end."""
        found = bisect_right(self.stretches, at, key=lambda stretch: stretch.begun_at) - 1
        if found < 0:
            return 0.0
        stretch = self.stretches[found]
        share = (at - stretch.begun_at) / stretch.length if stretch.length else 0.0
        return stretch.start + min(max(share, 0.0), 1.0) * (stretch.end - stretch.start)


def lay_out(bars: Sequence[Bar], begun_at: datetime, ended_at: datetime) -> Axis:
    """Return an axis on which the work of a run keeps at least half of the room, however long its waits are.

    Waits are compressed only where they would leave the work less than a quarter. A stretch of work is, if it is far
    longer than most and all shorter ones together. Within a compressed stretch nothing begins or ends.
    """
    moments = {begun_at, max(begun_at, ended_at)}
    for bar in bars:
        moments.update(at for at in (bar.begun_at, bar.taken_at, bar.ended_at) if at is not None)
    inside = sorted(at for at in moments if begun_at <= at <= ended_at)
    pieces = list(pairwise(inside)) or [(begun_at, begun_at)]
    lengths = [(end - start).total_seconds() for start, end in pieces]
    works = _find_work(bars, pieces, ended_at)
    work = _cap_work([length for length, is_work in zip(lengths, works, strict=True) if is_work])
    waits = [length for length, is_work in zip(lengths, works, strict=True) if not is_work]
    shown = sum(min(length, work) for length, is_work in zip(lengths, works, strict=True) if is_work)
    wait = _cap_waits(waits, shown)
    given = [min(length, work if is_work else wait) for length, is_work in zip(lengths, works, strict=True)]
    whole, place, stretches = sum(given) or 1.0, 0.0, []
    for (start, end), length, room in zip(pieces, lengths, given, strict=True):
        after = place + room / whole
        stretches.append(Stretch(start, end, place, after, is_compressed=room < length))
        place = after
    return Axis(tuple(stretches))


def _find_work(bars: Sequence[Bar], pieces: Sequence[tuple[datetime, datetime]], ended_at: datetime) -> list[bool]:
    """Tell of each piece whether the run itself works in it."""
    changes: dict[datetime, int] = {}
    for bar in bars:
        if bar.kind not in WAITS:
            changes[bar.begun_at] = changes.get(bar.begun_at, 0) + 1
            end = bar.ended_at or ended_at
            changes[end] = changes.get(end, 0) - 1
    moments = sorted(changes)
    found, going_on, place = [], 0, 0
    for start, _ in pieces:
        while place < len(moments) and moments[place] <= start:
            going_on += changes[moments[place]]
            place += 1
        found.append(going_on > 0)
    return found


def _cap_work(lengths: Sequence[float]) -> float:
    """Return the length to which stretches of work are cut: that of all short ones, if others are far longer."""
    ordered, so_far = sorted(lengths), 0.0
    for count, length in enumerate(ordered):
        is_most = count >= len(ordered) / 2 and count > 0
        if is_most and length > max(so_far * WORKED_LONGER, SHORTEST.total_seconds()) and so_far:
            return so_far
        so_far += length
    return float("inf")


def _cap_waits(lengths: Sequence[float], work: float) -> float:
    """Return the length to which waits are cut: so that all of them together take no more room than the work."""
    if not work or sum(lengths) <= work * WAITED_MORE:
        return float("inf")
    ordered, left = sorted(lengths), work
    for count, length in enumerate(ordered):
        share = left / (len(ordered) - count)
        if length > share:
            return max(share, 0.0) if length > SHORTEST.total_seconds() else SHORTEST.total_seconds()
        left -= length
    return float("inf")
