"""Time lines for tests: of stored histories, and made by hand."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from temporalio.client import WorkflowHistory

from mandate.workers.converter import data_converter
from mandate.workers.history.run_history import RunHistory
from mandate.workers.history.timeline import Bar, BarKind, Part, Timeline
from mandate.workers.history.timeline_reader import TimelineReader

HISTORIES = Path(__file__).parents[1] / "replay" / "histories"

BEGAN = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)


def load(name: str) -> WorkflowHistory:
    """Return the stored history of this name."""
    return WorkflowHistory.from_json(name, (HISTORIES / f"{name}.json").read_text())


async def read(history: WorkflowHistory) -> tuple[Timeline, RunHistory]:
    """Return what is read of a history of one part."""
    reader, its = TimelineReader(), RunHistory(data_converter())
    for event in history.events:
        await reader.take(event, its)
    return reader.timeline, its


def bar(kind: BarKind, begun: float, ended: float | None, **keys: Any) -> Bar:
    """Return a bar, its times in seconds after `BEGAN`."""
    taken = keys.pop("taken", None)
    made = Bar(kind, keys.pop("label", kind), keys.pop("step", 1), 1, at(begun), None if ended is None else at(ended))
    made.state = "open" if ended is None else "done"
    made.taken_at = None if taken is None else at(taken)
    for name, value in keys.items():
        setattr(made, name, value)
    return made


def at(seconds: float) -> datetime:
    """Return the moment so many seconds after `BEGAN`."""
    return BEGAN + timedelta(seconds=seconds)


def timeline(*bars: Bar, ended: float | None = None) -> Timeline:
    """Return a time line of these bars."""
    return Timeline(list(bars), parts=[Part("run", BEGAN, None if ended is None else at(ended))])
