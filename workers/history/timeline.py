"""The time line of a run: what it did when, as bars, over all its parts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from pydantic import JsonValue

from mandate.workers.history.events import RunEnded
from mandate.workflows.contracts.model import Usage
from mandate.workflows.contracts.plan import StepResult
from mandate.workflows.contracts.request import Request

BarKind = Literal["step", "model", "tool", "check", "probe", "child", "person", "pause", "idle", "retry", "own"]
"""`step`: a step of a plan, over all its calls; `person`: a wait for people, by request; `idle`: a session waits for a
message; `retry`: a call waits for its next attempt; `own`: work of the run for itself, as the pinning of its agent.
"""

WAITS: frozenset[BarKind] = frozenset({"step", "child", "person", "pause", "idle", "retry"})
"""Kinds during which the run itself does nothing."""

OPEN = "open"
"""State of a bar that has no end yet."""

SLOW = timedelta(seconds=1)
"""Work of a run for itself that is shorter is not drawn."""


@dataclass(slots=True)
class Bar:
    """One thing that took time."""

    kind: BarKind
    label: str
    """One line; sensitive arguments are hidden."""
    step: int
    part: int
    """Number of the part in which it began, from 1."""
    begun_at: datetime
    """Time when it was asked for: an activity may have waited for a worker after that."""
    ended_at: datetime | None = None
    """`None` for what goes on."""
    state: str = OPEN
    """`open`, `done`, or how else it ended; `closed` is a wait for people that nobody is known to have ended."""
    taken_at: datetime | None = None
    """Time when a worker began its last attempt; `None` for what is no activity or was not taken up."""
    attempts: int = 1
    is_local: bool = False
    reason: str = ""
    """Why it ended otherwise than well, or what came of a wait for people."""
    name: str = ""
    """Tool, model or check; workflow id of a child; id of a request."""
    request: str = ""
    """Kind of the request, of a wait for people."""
    waits_for: tuple[str, ...] = ()
    """Groups and users, of a wait for people."""
    index: int | None = None
    """Position of its call among those of the turn or of the plan."""
    usage: Usage | None = None
    """Of a model's answer, and of a child that has reported."""
    plan_step: str = ""
    """The step of a plan that it is for, once its conversation was read."""

    @property
    def is_drawn(self) -> bool:
        """True for what a person wants to see: what a run does for itself only where it was slow or went wrong."""
        if self.kind != "own" or self.state not in {"done", "repeated", OPEN}:
            return True
        return self.ended_at is None or self.ended_at - self.begun_at >= SLOW

    def to_json(self) -> dict[str, JsonValue]:
        """Return one entry of `-o json`."""
        usage = self.usage
        return {
            "kind": self.kind,
            "label": self.label,
            "name": self.name,
            "step": self.step,
            "plan_step": self.plan_step or None,
            "part": self.part,
            "begun_at": self.begun_at.isoformat(),
            "taken_at": self.taken_at.isoformat() if self.taken_at is not None else None,
            "ended_at": self.ended_at.isoformat() if self.ended_at is not None else None,
            "state": self.state,
            "attempts": self.attempts,
            "local": self.is_local,
            "reason": self.reason or None,
            "request": self.request or None,
            "waits_for": list(self.waits_for),
            "input_tokens": usage.input_tokens if usage is not None else None,
            "output_tokens": usage.output_tokens if usage is not None else None,
            "cost_usd": f"{usage.cost_usd:f}" if usage is not None and not usage.unpriced_calls else None,
        }


@dataclass(slots=True)
class Part:
    """One Temporal run of a run."""

    run_id: str
    begun_at: datetime
    ended_at: datetime | None = None

    def to_json(self) -> dict[str, JsonValue]:
        """Return one entry of `-o json`."""
        ended = self.ended_at.isoformat() if self.ended_at is not None else None
        return {"run_id": self.run_id, "begun_at": self.begun_at.isoformat(), "ended_at": ended}


@dataclass(frozen=True, slots=True)
class Word:
    """A question to people, or what somebody said to the run, at its time."""

    at: datetime
    step: int
    line: str
    counts: bool = True
    """False for what does not count, and for an expiry."""

    def to_json(self) -> dict[str, JsonValue]:
        """Return one entry of `-o json`."""
        return {"at": self.at.isoformat(), "step": self.step, "line": self.line, "counts": self.counts}


@dataclass(slots=True)
class Timeline:
    """Bars of a run, what was said to it, and its parts."""

    bars: list[Bar] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    """All requests to people, each as it was asked first."""
    usage_below: Usage = field(default_factory=Usage)
    """What children took that have reported, over all parts."""
    usage_earlier: Usage = field(default_factory=Usage)
    """What the session's earlier run took: a session's usage goes on with it."""
    ended: RunEnded | None = None
    missing: str | None = None
    """Reason why the beginning or the end of the run is not here; `None` when all of it is."""
    unreadable: int = 0
    """Events whose content could not be read: their times are here all the same."""

    @property
    def begun_at(self) -> datetime | None:
        """Time of its first event; `None` where nothing is known."""
        return self.parts[0].begun_at if self.parts else None

    @property
    def ended_at(self) -> datetime | None:
        """Time of its end; `None` while it goes on."""
        return self.parts[-1].ended_at if self.parts else None

    def drawn(self) -> list[Bar]:
        """Return the bars that a person wants to see, in their order; those of a plan step together."""
        bars = [bar for bar in self.bars if bar.is_drawn]
        begun: dict[str, datetime] = {}
        for bar in bars:
            if bar.plan_step:
                begun[bar.plan_step] = min(begun.get(bar.plan_step, bar.begun_at), bar.begun_at)
        ordered = sorted(bars, key=lambda bar: (bar.kind != "step", bar.begun_at))
        return sorted(ordered, key=lambda bar: (begun.get(bar.plan_step, bar.begun_at), bar.plan_step))

    def name_plan_steps(self, labels: Mapping[int, str], results: Sequence[StepResult]) -> None:
        """Say which step of the plan each call is for, and add a bar for each step over all its calls.

        Args:
            labels: steps of the plan by the positions of calls.
            results: how each step stands.
        """
        for bar in self.bars:
            if bar.index is not None and bar.kind != "step":
                bar.plan_step = labels.get(bar.index, "")
        for step in results:
            inside = [bar for bar in self.bars if bar.plan_step == step.id]
            if not inside:
                continue
            ends = [bar.ended_at for bar in inside if bar.ended_at is not None]
            first = min(inside, key=lambda bar: bar.begun_at)
            bar = Bar("step", step.id, first.step, first.part, first.begun_at, name=step.id, plan_step=step.id)
            if step.status not in {"waiting", "running"}:
                bar.ended_at = max(ends, default=first.begun_at)
                bar.state = "done" if step.status == "completed" else step.status
            elif self.ended_at is not None:
                bar.ended_at, bar.state = max(ends, default=first.begun_at), "stopped"
            items = f"{step.completed + step.failed} of {step.items} items" if step.items is not None else ""
            bar.label, bar.reason = " ".join(filter(None, (step.id, items))), step.reason or ""
            self.bars.append(bar)


def write_length(length: timedelta) -> str:
    """Return a length in at most two units: `8ms`, `1.5s`, `2m 5s`, `3h 20m` or `2d 4h`."""
    seconds = max(length.total_seconds(), 0.0)
    if seconds < 0.9995:
        return f"{round(seconds * 1000)}ms"
    if seconds < 59.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    units = (("d", 86400, "h", 3600), ("h", 3600, "m", 60), ("m", 60, "s", 1))
    name, size, small, part = next(unit for unit in units if whole >= unit[1])
    rest = whole % size // part
    return f"{whole // size}{name} {rest}{small}" if rest else f"{whole // size}{name}"


def format_moment(at: datetime) -> str:
    """Return a moment as `2026-11-30 09:00:05 UTC`."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
