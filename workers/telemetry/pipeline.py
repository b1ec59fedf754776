"""The way of facts to spans and metrics: each is exported once, although workers die and runs are replayed.

Workflow code notes its facts in replays too (`workflows.loop.telemetry`), so they are no property of the process in
which they happened first. This pipeline takes them from the threads of workflow tasks, and exports together what has
come in a second. A cursor in the store says how far each run was exported: what a replay notes again is left out,
and what a killed worker noted and did not export comes again with the replay in whichever worker goes on. Of runs that
ended with their worker, `missed_runs` makes the replay. Ids of spans are computed, so where a worker is killed between
an export and the move of its cursor, what is sent again is the same span.

The end of a run is exported once the server says that it has ended: a worker may have noted an end that did not come
to be, since a message came first.
"""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import structlog

from mandate.activities.stores.base import StoreUnavailable
from mandate.workers.telemetry.cursors import Cursor, Cursors, OpenRequest
from mandate.workflows.contracts.telemetry import Noted, RequestAsked, RequestClosed, RunBegun, RunEnded

if TYPE_CHECKING:
    from mandate.workers.telemetry.metrics import Metrics

log = structlog.stdlib.get_logger(__name__)

EVERY_SECONDS = 1.0
MOST_PENDING = 50_000
"""Facts that wait for an exporter that does not answer; beyond them, whole runs are left to `missed_runs`."""
CURSORS_KEPT = 10_000
MOST_KEYS = 2000
END_LOOKS = 60
"""Looks for the end of a run that was noted, one a flush; after that it has not come to be."""

Export = Callable[[Sequence[Noted]], Awaitable[bool]]
"""Export spans of facts; return whether that went well."""

FindEnd = Callable[[str, str], Awaitable[str]]
"""Return how the server says that a run (workflow id, run id) has ended; empty while it has not."""

ENDS = {
    "COMPLETED": ("completed", "stopped", "exhausted", "declined"),
    "FAILED": ("failed",),
    "CANCELED": ("cancelled",),
    "CONTINUED_AS_NEW": ("continued",),
}
"""Outcomes that go with an end as the server has it."""


@dataclass(slots=True)
class _Batch:
    """Facts of one run that wait."""

    notes: OrderedDict[str, Noted] = field(default_factory=OrderedDict)
    looks: int = 0


class Pipeline:
    """Pipeline of one worker."""

    def __init__(
        self,
        cursors: Cursors,
        find_end: FindEnd,
        *,
        export: Export | None = None,
        metrics: "Metrics | None" = None,
    ) -> None:
        """Take where facts go: `export` where spans are wanted, `metrics` where these are."""
        self._cursors = cursors
        self._find_end = find_end
        self._export = export
        self._metrics = metrics
        self._lock = threading.Lock()
        self._pending: OrderedDict[str, _Batch] = OrderedDict()
        self._count = 0
        self._known: OrderedDict[str, Cursor] = OrderedDict()
        self._spilled: set[str] = set()
        self._is_failing = False

    def note(self, noted: Noted) -> None:
        """Take a fact in; called from threads of workflow tasks, and quick."""
        if self._metrics is not None and not noted.is_replayed:
            self._metrics.observe(noted)
        run = noted.run.run_id
        with self._lock:
            known = self._known.get(run)
            if (known is not None and (known.is_over or noted.event < known.event)) or run in self._spilled:
                return
            if self._count >= MOST_PENDING:
                self._spill()
            batch = self._pending.setdefault(run, _Batch())
            self._count += noted.key not in batch.notes
            # The same fact of a task that was tried again takes its place.
            batch.notes[noted.key] = noted

    def _spill(self) -> None:
        run, batch = self._pending.popitem(last=False)
        self._count -= len(batch.notes)
        self._spilled.add(run)
        log.warning("telemetry_postponed", run_id=run, facts=len(batch.notes))

    async def run(self) -> None:
        """Export what comes, for ever."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            await self.flush()

    async def close(self, seconds: float = 5.0) -> None:
        """Export what is left."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._pending:
                    before = self._count
                    await self.flush()
                    if self._count >= before:
                        await asyncio.sleep(0.2)

    async def flush(self) -> None:
        """Export what has come, as far as it can be exported now."""
        with self._lock:
            taken, self._pending, self._count = self._pending, OrderedDict(), 0
        try:
            for run in list(taken):
                if not await self._flush_run(run, taken[run]):
                    continue
                del taken[run]
        except StoreUnavailable as error:
            log.warning("telemetry_waits", problem=str(error))
        finally:
            self._put_back(taken)

    def _put_back(self, left: Mapping[str, _Batch]) -> None:
        """Keep what could not be exported, before what has come since."""
        with self._lock:
            for run, batch in left.items():
                since = self._pending.pop(run, None)
                if since is not None:
                    batch.notes.update(since.notes)
                self._pending[run] = batch
            self._count = sum(len(batch.notes) for batch in self._pending.values())

    async def _flush_run(self, run: str, batch: _Batch) -> bool:
        """Export what waits of one run; return whether nothing of it waits any more."""
        cursor = self._known.get(run) or await self._cursors.read(run)
        self._keep(run, cursor)
        fresh = find_fresh(batch.notes.values(), cursor)
        if not fresh:
            return True
        now = [noted for noted in fresh if not isinstance(noted.fact, RunEnded)]
        ends = [noted for noted in fresh if isinstance(noted.fact, RunEnded)]
        is_over = bool(ends) and await self._has_ended(ends[-1])
        if is_over:
            now.append(ends[-1])
        if now and not await self.export(run, now, cursor, is_over=is_over):
            return False
        if ends and not is_over:
            batch.notes = OrderedDict((noted.key, noted) for noted in ends[-1:])
            batch.looks += 1
            return batch.looks >= END_LOOKS
        return True

    async def _has_ended(self, noted: Noted) -> bool:
        assert isinstance(noted.fact, RunEnded)
        status = await self._find_end(noted.run.workflow_id, noted.run.run_id)
        return noted.fact.outcome in ENDS.get(status, ())

    async def export(self, run: str, notes: Sequence[Noted], cursor: Cursor | None, *, is_over: bool) -> bool:
        """Export facts of one run that are not exported, with a claim on it; return whether that went well."""
        claimed = await self._cursors.claim(run, cursor)
        if claimed is None:
            self._forget(run)
            return False
        # Somebody else may have exported some since.
        fresh = find_fresh(notes, claimed)
        if self._export is not None and fresh and not await self._export(fresh):
            await self._cursors.release(run, claimed)
            self._forget(run)
            self._say_failing()
            return False
        self._is_failing = False
        written = await self._cursors.release(run, advance(claimed, fresh, is_over=is_over))
        if written is None:
            self._forget(run)
        else:
            self._keep(run, written)
        return True

    def _say_failing(self) -> None:
        if not self._is_failing:
            log.warning("spans_not_exported", hint="they are kept and sent again")
        self._is_failing = True

    def _keep(self, run: str, cursor: Cursor) -> None:
        with self._lock:
            self._known[run] = cursor
            self._known.move_to_end(run)
            while len(self._known) > CURSORS_KEPT:
                self._known.popitem(last=False)

    def _forget(self, run: str) -> None:
        with self._lock:
            self._known.pop(run, None)


def find_fresh(notes: Iterable[Noted], cursor: Cursor) -> list[Noted]:
    """Return the facts that are not exported."""
    if cursor.is_over:
        return []
    known = set(cursor.keys)
    return [noted for noted in notes if noted.event >= cursor.event and noted.key not in known]


def advance(cursor: Cursor, notes: Sequence[Noted], *, is_over: bool) -> Cursor:
    """Return a cursor after the export of facts."""
    event = max((noted.event for noted in notes), default=cursor.event)
    of_it = tuple(noted.key for noted in notes if noted.event == event)
    keys = (*cursor.keys, *of_it) if event == cursor.event else of_it
    left = dict(cursor.open)
    for noted in notes:
        match noted.fact:
            case RunBegun(open=before):
                left = {name: _open(asked) for name, asked in before.items()}
            case RequestAsked() as asked:
                left[asked.request] = _open(asked)
            case RequestClosed() as closed:
                left.pop(closed.request, None)
            case RunEnded():
                left = {}
            case _:
                pass
    return replace(cursor, event=event, keys=keys[-MOST_KEYS:], open=left, is_over=is_over or cursor.is_over)


def _open(asked: RequestAsked) -> OpenRequest:
    return OpenRequest(asked.agent, asked.kind, asked.asked_at.timestamp())
