"""The steps of a plan as they begin and end, for commands that follow its run."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from rich.text import Text

from mandate.activities.stores.base import StoreUnavailable
from mandate.activities.transcript.blobs import BlobCorrupted, BlobMissing
from mandate.workers.cli.connection import Connection
from mandate.workers.cli.plans.text import MOST_LINES, StepNarrator
from mandate.workers.history.run_history import RunHistory
from mandate.workers.history.step_events import StepEvent
from mandate.workers.run_store import StoreUnusable, stored
from mandate.workflows.contracts.plan import StepResult
from mandate.workflows.rules import wording

if TYPE_CHECKING:
    from mandate.workers.history.plan_steps import PlanReader

TOGETHER_SECONDS = 0.25
"""What happens within so long is told together."""


@dataclass(slots=True)
class LiveSteps:
    """Tells of the steps of a run of a plan; nothing of a run of an agent."""

    connection: Connection
    tell: Callable[[Text], None]
    note: Callable[[str], None]
    is_unreadable: bool = False
    """The steps cannot be read here: the run's history tells of calls only."""
    _calls: int = 0
    """Calls that were told in their place."""
    _reader: "PlanReader | None" = None
    _narrator: StepNarrator = field(default_factory=StepNarrator)
    _waiting: list[StepEvent] = field(default_factory=list)
    _told_at: float = 0.0
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def __aenter__(self) -> Self:
        task = asyncio.create_task(self._flush_late())
        self._stack.callback(task.cancel)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.flush()
        await self._stack.aclose()

    async def hear(self, history: RunHistory) -> None:
        """Read on to where the run is by now."""
        if not history.is_plan or history.head is None or self.is_unreadable:
            return
        try:
            await self._read(history, history.head)
        except (StoreUnusable, StoreUnavailable, BlobMissing, BlobCorrupted, OSError, ValueError) as error:
            self.is_unreadable = True
            self.note(f"the steps of the plan cannot be read here: {wording.shorten(str(error), 300)}")

    def tell_call(self, line: Text) -> None:
        """Tell of a call where the steps cannot be read: only of the first ones, since a plan may have thousands."""
        if not self.is_unreadable or self._calls > MOST_LINES:
            return
        self._calls += 1
        self.tell(line if self._calls <= MOST_LINES else Text("the calls that follow are not told", style="dim"))

    def list_results(self) -> Sequence[StepResult]:
        """Return how each step stands, as far as it was read."""
        return self._reader.list_results() if self._reader is not None and not self.is_unreadable else ()

    def flush(self) -> None:
        """Tell what has happened."""
        events, self._waiting = self._waiting, []
        if self._reader is not None and self._reader.plan is not None:
            self._narrator.align(self._reader.plan.steps)
        for line in self._narrator.describe(events):
            self.tell(line)
        if events:
            self._told_at = time.monotonic()

    async def _read(self, history: RunHistory, head: str) -> None:
        if self._reader is None:
            # Here: it takes long to import, and runs of agents do without it.
            from mandate.workers.history.plan_steps import PlanReader  # noqa: PLC0415 - only for plans

            store = history.pin.store if history.pin is not None else None
            blobs = await self._stack.enter_async_context(stored(self.connection.settings.store, store))
            self._reader = PlanReader(blobs)
        reader = self._reader
        is_earlier = reader.head is None and history.step > 0
        async for events in reader.read(head):
            if not is_earlier:
                self._waiting += events
        if is_earlier and history.ended is None:
            self._tell_earlier(reader.list_results())
        if history.ended is not None and history.ended.continued_as is None:
            self._waiting += reader.close()
            self.flush()
        elif time.monotonic() - self._told_at > TOGETHER_SECONDS:
            self.flush()

    def _tell_earlier(self, steps: Sequence[StepResult]) -> None:
        """Tell how far a run is that is followed from where it continued as new."""
        ended = sum(step.status not in {"waiting", "running"} for step in steps)
        self.tell(Text(f"{ended:,} of {len(steps):,} steps have ended before", style="dim"))

    async def _flush_late(self) -> None:
        while True:
            await asyncio.sleep(TOGETHER_SECONDS)
            if time.monotonic() - self._told_at > TOGETHER_SECONDS:
                self.flush()
