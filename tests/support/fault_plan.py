"""What runs of the crash suite are to call, and where each of them is to be hurt.

A tool is named by its effect and its source: `pay_http` is keyed and reached over HTTP.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

EFFECTS = {"look": "read", "set": "idempotent", "pay": "keyed", "send": "once"}
"""Effect that a tool declares, by the first half of its name."""

SOURCES = ("http", "python", "mcp", "activity")

TURNS = 4
"""Model calls of an undisturbed run."""


class Point(StrEnum):
    """Where a call, of a tool or of the model, is hurt."""

    KILL_BEFORE = "killed before the effect"
    KILL_LATE = "killed, and the effect came after"
    KILL_COMMITTED = "killed between commit and reply"
    KILL_REPLIED = "killed after the reply"
    LOSE_REPLY = "reply lost"
    REFUSE = "answered 503"
    DIE_BEFORE = "server died before the effect"
    DIE_COMMITTED = "server died after the commit"
    MODEL_BEFORE = "killed while the model thought"
    MODEL_REPLIED = "killed after the model's reply"

    @property
    def of_model(self) -> bool:
        return self in {Point.MODEL_BEFORE, Point.MODEL_REPLIED}

    @property
    def kills_worker(self) -> bool:
        return self.value.startswith("killed")

    @property
    def kills(self) -> bool:
        """Whether a process dies, with whatever else it was at."""
        return self.kills_worker or self in {Point.DIE_BEFORE, Point.DIE_COMMITTED}


TOOL_POINTS = tuple(point for point in Point if not point.of_model)

MODEL_FAULTS = ("429", "500", "cut")

Drawn = TypeVar("Drawn", bound=str)


@dataclass(frozen=True, slots=True)
class Call:
    """One intended call; two that are equal are intended twice."""

    tool: str
    item: str

    @property
    def effect(self) -> str:
        return EFFECTS[self.tool.partition("_")[0]]

    @property
    def changes_world(self) -> bool:
        return self.effect != "read"


@dataclass(frozen=True, slots=True)
class Task:
    """One run: what the model asks for, turn by turn, and where it is hurt."""

    name: str
    """Workflow id, and what the agent is told."""
    turns: tuple[tuple[Call, ...], ...]
    points: dict[str, tuple[Point, ...]] = field(default_factory=dict)
    """By item: one for each time that the call arrives."""
    model: dict[int, tuple[str, ...]] = field(default_factory=dict)
    """By turn, from 1: a `Point` or one of `MODEL_FAULTS` for each time that the model is asked."""

    @property
    def calls(self) -> tuple[Call, ...]:
        return tuple(call for turn in self.turns for call in turn)


@dataclass(frozen=True, slots=True)
class Hurt:
    """One cell of the table that a suite goes through."""

    point: Point
    tool: str | None = None
    """`None` for points in a call of the model."""

    def __str__(self) -> str:
        return f"{self.point}: {self.tool or 'the model'}"


def every_point(main: str, *, keys: bool) -> list[Hurt]:
    """All points for all tools, those of the tools called `main` first; without keys nothing is declared `keyed`."""
    others = [name for name in EFFECTS if name != main and (keys or name != "pay")]
    model = [Hurt(point) for point in Point if point.of_model]
    first = [Hurt(point, f"{main}_{source}") for source in SOURCES for point in TOOL_POINTS]
    rest = [Hurt(point, f"{name}_{source}") for name in others for source in SOURCES for point in TOOL_POINTS]
    return [*model, *first, *rest]


def task(name: str, number: int, hurt: Hurt, main: str) -> Task:
    """A run of three turns with calls, hurt once in the middle, with faults of the model around it."""
    turns = _turns(number, main, hurt.tool)
    fault = MODEL_FAULTS[number % len(MODEL_FAULTS)]
    if hurt.tool is None:
        return Task(name, turns, model={1 + number % 2: (fault,), 3: (hurt.point,)})
    return Task(name, turns, points={"b1": (hurt.point,)}, model={1 + number % TURNS: (fault,)})


def random_task(name: str, number: int, seed: int, main: str, chance: float = 0.15) -> Task:
    """A run each of whose calls is hurt with this chance at its first arrival, and half as often at its second."""
    dice = random.Random(f"{seed}/{number}")
    turns = _turns(number, main, None)
    items = dict.fromkeys(call.item for turn in turns for call in turn)
    points = {item: _drawn(dice, TOOL_POINTS, chance) for item in items}
    model_points: tuple[str, ...] = (*MODEL_FAULTS, Point.MODEL_BEFORE, Point.MODEL_REPLIED)
    model = {turn: _drawn(dice, model_points, chance) for turn in range(1, TURNS + 1)}
    return Task(
        name,
        turns,
        {item: drawn for item, drawn in points.items() if drawn},
        {turn: drawn for turn, drawn in model.items() if drawn},
    )


def _drawn(dice: random.Random, points: Sequence[Drawn], chance: float) -> tuple[Drawn, ...]:
    if dice.random() >= chance:
        return ()
    more = _drawn(dice, points, chance / 2)
    return (dice.choice(points), *more)


def _turns(number: int, main: str, hurt: str | None) -> tuple[tuple[Call, ...], ...]:
    """Reads beside effects, effects in a row, the same call twice on purpose; sources take turns."""
    sources = [SOURCES[(number + shift) % len(SOURCES)] for shift in range(len(SOURCES))]
    twice = Call(f"{main}_{sources[2]}", "c1")
    return (
        (Call(f"look_{sources[0]}", "a1"), Call(f"{main}_{sources[1]}", "a2")),
        # No read here: what happens next in the run is then what became of the hurt call.
        (Call(hurt or f"{main}_{sources[0]}", "b1"), Call(f"set_{sources[3]}", "b2")),
        (twice, Call(f"look_{sources[1]}", "c2"), twice),
    )
