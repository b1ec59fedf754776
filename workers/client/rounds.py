"""Rounds of questions to many runs, some at once: those that do not answer keep nobody waiting for long."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from temporalio.client import Client
from temporalio.service import RPCError

from mandate.workers.client.answers import NotAnswering, Unknown
from mandate.workers.client.diagnosis import Diagnosis
from mandate.workers.client.pollers import Poller, describe_unserved, list_pollers, may_poll

T = TypeVar("T")

AT_A_TIME = 4
"""Runs that are asked at once, as many as one worker replays: of 32 at once that had to be replayed, up to one in seven
found no answer within `QUERY_SECONDS`."""

FORGOTTEN_PAUSES = (0.2, 0.5)
"""Seconds between looks for the pollers of a queue that the server may have forgotten."""

POLL_SECONDS = 1.0
"""For a task queue of which nobody has answered yet: then it is looked whether anybody polls it."""

Pollers = tuple[Poller, ...] | None
"""The workers of a queue; `None` where the server does not tell."""


@dataclass(frozen=True, slots=True)
class Silent:
    """A run that did not tell what it was asked."""

    workflow_id: str
    reason: str
    diagnosis: Diagnosis | None = None
    """Of its workflow task, where that is the reason."""
    unserved: str | None = None
    """Its task queue, where no worker answers there."""

    @property
    def is_failing(self) -> bool:
        """True if it is known that more patience mends nothing."""
        return self.diagnosis is not None and self.diagnosis.is_failing


class Round(Generic[T]):
    """One question to many runs, `AT_A_TIME`.

    One run takes at most as long as its question, and a task queue of which nobody answers is given up.
    """

    def __init__(self, client: Client, question: Callable[[str], Awaitable[T]]) -> None:
        """Take what asks one run by its workflow id, which raises `NotAnswering` or `Unknown`."""
        self.told: list[T] = []
        self.silent: list[Silent] = []
        self.asked = 0
        self._client = client
        self._question = question
        self._slots = asyncio.Semaphore(AT_A_TIME)
        self._answering: set[str] = set()
        self._timed_out: Counter[str] = Counter()
        self._pollers: dict[str, asyncio.Task[Pollers]] = {}
        self._deserted: set[str] = set()

    async def ask(self, workflow_id: str, task_queue: str) -> None:
        """Ask one run, and keep its answer or why there is none; nothing of one that was deleted meanwhile."""
        async with self._slots:
            found = await self._find_pollers(task_queue)
            if task_queue in self._deserted or (found is not None and not found):
                self.silent.append(Silent(workflow_id, describe_unserved(task_queue), unserved=task_queue))
            elif self._is_lost(task_queue):
                self.silent.append(Silent(workflow_id, "no worker answered for the runs before it"))
            else:
                await self._ask(workflow_id, task_queue)
            self.asked += 1

    def _is_lost(self, queue: str) -> bool:
        """Return whether nobody has answered of this queue: a worker may hang in one run, but not in all at once."""
        return queue not in self._answering and self._timed_out[queue] >= AT_A_TIME

    async def _find_pollers(self, queue: str) -> Pollers:
        if queue not in self._pollers:
            self._pollers[queue] = asyncio.create_task(_find_pollers(self._client, queue))
        return await self._pollers[queue]

    async def _ask(self, workflow_id: str, task_queue: str) -> None:
        asking = asyncio.ensure_future(self._question(workflow_id))
        try:
            await asyncio.wait({asking}, timeout=POLL_SECONDS)
            if not asking.done() and await self._is_deserted(task_queue):
                self._deserted.add(task_queue)
                raise NotAnswering(describe_unserved(task_queue), unserved=task_queue)
            self.told.append(await asking)
            self._answering.add(task_queue)
        except NotAnswering as error:
            self.silent.append(Silent(workflow_id, str(error), error.diagnosis, error.unserved))
            # A workflow task that fails says nothing against those who would answer for other runs.
            if not self.silent[-1].is_failing:
                self._timed_out[task_queue] += 1
        except Unknown:
            # It ended and was deleted after it was listed.
            return
        finally:
            asking.cancel()

    async def _is_deserted(self, queue: str) -> bool:
        """Return whether nobody polls a queue that has a question to answer for `POLL_SECONDS`."""
        before = await self._find_pollers(queue)
        if queue in self._answering or before is None:
            return False
        try:
            return not may_poll(before, await list_pollers(self._client, queue))
        except RPCError:
            return False


async def _find_pollers(client: Client, queue: str) -> Pollers:
    """Return the workers that have asked for workflow tasks of this queue in the last minutes."""
    try:
        for pause in (*FORGOTTEN_PAUSES, None):
            if (found := await list_pollers(client, queue)) or pause is None:
                return found
            await asyncio.sleep(pause)
    except RPCError:
        # Whoever may not look tries.
        return None
    return ()
