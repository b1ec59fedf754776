"""Decisions that came by signal to a crowded run: nobody would send them again, so they are kept until it has left."""

import asyncio
from collections.abc import Awaitable, Callable

from temporalio.exceptions import ApplicationError

from mandate.workflows.contracts.decision_lookups import KeptDecision
from mandate.workflows.contracts.failures import REFUSALS
from mandate.workflows.loop.run import Run

KEPT_BYTES = 256 * 1024
"""All that a run carries over, as JSON; what comes after that is refused."""


class Kept:
    """Those of one run; each is in its state until it is taken in."""

    def __init__(self, run: Run, take_in: Callable[[KeptDecision], Awaitable[object]]) -> None:
        self._run = run
        self._take_in = take_in
        self._under_way: dict[asyncio.Task[None], None] = {}

    @property
    def is_quiet(self) -> bool:
        """True if none is being taken in."""
        return not self._under_way

    def keep(self, kept: KeptDecision) -> bool:
        """Keep a decision until the run has continued as new; false when there are too many already."""
        known = self._run.state.people.kept
        if sum(len(one.model_dump_json()) for one in (*known, kept)) > KEPT_BYTES:
            return False
        self._set(*known, kept)
        return True

    def begin(self) -> None:
        """Take in what was kept before the run continued as new, beside what comes now."""
        for kept in self._run.state.people.kept:
            task = asyncio.create_task(self._one(kept))
            self._under_way[task] = None
            task.add_done_callback(self._under_way.pop)

    async def _one(self, kept: KeptDecision) -> None:
        try:
            await self._take_in(kept)
        except ApplicationError as error:
            # Whoever takes it in keeps why it does not count.
            if error.type not in REFUSALS:
                raise
        self._set(*(one for one in self._run.state.people.kept if one is not kept))

    def _set(self, *kept: KeptDecision) -> None:
        self._run.state.people.kept = kept
