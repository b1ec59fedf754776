"""Inbox of people: runs that wait, and their requests."""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from temporalio.client import Client, WorkflowHandle, WorkflowQueryFailedError, WorkflowQueryRejectedError
from temporalio.service import RPCError, RPCStatusCode

from mandate.workers.client import queries
from mandate.workers.client.diagnosis import Diagnosis, diagnose
from mandate.workers.client.pollers import Poller, list_pollers, may_poll
from mandate.workers.client.queries import QUERY_SECONDS
from mandate.workflows.contracts.request import OpenRequests, Request
from mandate.workflows.rules import quantities, wording

AT_A_TIME = 4
"""Runs that are asked at once, as many as one worker replays: of 32 at once that had to be replayed, up to one in seven
found no answer within `QUERY_SECONDS`."""

NO_LIST = "it answers with something that is no list of requests"

FORGOTTEN_PAUSES = (0.2, 0.5)
"""Seconds between looks for the pollers of a queue that the server may have forgotten."""

POLL_SECONDS = 1.0
"""For a task queue of which nobody has answered yet: then it is looked whether anybody polls it."""

RUNNING = 'WorkflowType="AgentWorkflow" AND ExecutionStatus="Running"'
WAITING = f'{RUNNING} AND AgentStatus IN ("waiting", "paused")'
"""Paused runs may have open requests too, and take decisions."""


Pollers = tuple[Poller, ...] | None
"""The workers of a queue; `None` where the server does not tell."""


class NotAnswering(Exception):
    """A run that cannot tell what it wants; the text is one sentence."""

    def __init__(self, sentence: str, diagnosis: Diagnosis | None = None, unserved: str | None = None) -> None:
        super().__init__(sentence)
        self.diagnosis = diagnosis
        """Of its workflow task, where that is the reason."""
        self.unserved = unserved
        """Its task queue, where no worker answers there."""


class Unknown(Exception):
    """The error for a workflow id without a run."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A run that may want something from people."""

    workflow_id: str
    task_queue: str


@dataclass(frozen=True, slots=True)
class Silent:
    """A run that did not tell what it wants."""

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


@dataclass(frozen=True, slots=True)
class Inbox:
    """Open requests over all runs."""

    runs: tuple[OpenRequests, ...]
    """Those that want something."""
    silent: tuple[Silent, ...]
    """Those that did not answer, first those that people must mend."""
    scanned: bool
    """True if all running runs were asked, because the namespace lacks the search attributes."""


async def open_runs(
    client: Client, *, group: str | None = None, agent: str | None = None, scan: bool = False
) -> tuple[list[Waiting], bool]:
    """Return the runs that wait for people, and whether these are all running ones for want of search attributes.

    Args:
        client: of the namespace.
        group: only runs that wait for this group or user.
        agent: only runs of this agent.
        scan: give all running ones, also where the search attributes exist: runs that began before they did have none.

    Raises:
        ValueError: a name holds a quote or a backslash.
    """
    names = [("AgentWaitingFor", group), ("AgentName", agent)]
    query = " AND ".join([WAITING, *(f"{key}={_quoted(key, name)}" for key, name in names if name is not None)])
    if not scan:
        try:
            return await _listed(client, query), False
        except RPCError as error:
            # The namespace does not have our search attributes.
            if error.status is not RPCStatusCode.INVALID_ARGUMENT:
                raise
    return await _listed(client, RUNNING), not scan


async def _listed(client: Client, query: str) -> list[Waiting]:
    listed = client.list_workflows(query, page_size=1000)
    # One id twice is a run that continued as new while the list was read.
    return list({found.id: Waiting(found.id, found.task_queue) async for found in listed}.values())


def _quoted(key: str, name: str) -> str:
    if not name or any(character in name for character in "\"'\\`"):
        raise ValueError(f"{name!r} is no name that {key} can hold: quotes and backslashes are not allowed")
    return f'"{name}"'


async def open_requests(
    client: Client, workflow_id: str, *, run_id: str | None = None, timeout_seconds: float = QUERY_SECONDS
) -> OpenRequests:
    """Return the requests of one run to people, recent outcomes, and the decisions that did not count.

    Raises:
        Unknown: there is no such run.
        NotAnswering: no worker answers for it, or its workflow task fails again and again.
    """
    handle = client.get_workflow_handle(workflow_id, run_id=run_id)
    try:
        async with asyncio.timeout(timeout_seconds + 1):
            told: object = await queries.ask(handle, "open_requests", OpenRequests, timeout_seconds=timeout_seconds)
        if not isinstance(told, OpenRequests):
            raise NotAnswering(NO_LIST)
        if told.workflow_id != workflow_id:
            # Any workflow can bear our name: what it says of another run would be decided on in its place.
            raise NotAnswering(f"it answers for another run, {wording.shorten(told.workflow_id, 80)!r}")
        return told
    except (ValidationError, RuntimeError):
        raise NotAnswering(NO_LIST) from None
    except WorkflowQueryFailedError as error:
        raise NotAnswering(_first_sentence(error.message)) from None
    except WorkflowQueryRejectedError as error:
        raise NotAnswering(str(error)) from None
    except TimeoutError:
        is_late = True
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            raise Unknown(workflow_id) from None
        if error.status in {RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED}:
            is_late = True
        elif error.status is RPCStatusCode.FAILED_PRECONDITION:
            is_late = False
        else:
            raise NotAnswering(f"Temporal refused: {_first_sentence(error.message)}") from None
    if (found := await diagnose(client, workflow_id, run_id=run_id)) is not None:
        raise NotAnswering(found.sentence, found)
    queue = await _queue_of(handle)
    late = f"no worker of task queue {queue!r} answered within {quantities.write_seconds(timeout_seconds)}"
    raise NotAnswering(late if is_late else no_worker(queue), unserved=queue)


def no_worker(queue: str) -> str:
    return f"no worker polls task queue {queue!r}"


async def _queue_of(handle: WorkflowHandle[Any, Any]) -> str:
    try:
        return (await handle.describe()).task_queue
    except RPCError as error:
        raise NotAnswering(f"Temporal refused: {_first_sentence(error.message)}") from None


async def read_inbox(
    client: Client,
    *,
    group: str | None = None,
    agent: str | None = None,
    scan: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Inbox:
    """Return all open requests; take the arguments of `open_runs`; tell `on_progress` how many of how many are asked.

    Runs that do not answer are named in the inbox. They keep nobody waiting for long: one takes at most
    `QUERY_SECONDS`, and a task queue of which nobody answers is given up.
    """
    waiting, scanned = await open_runs(client, group=group, agent=agent, scan=scan)
    round_ = _Round(client)

    async def ask(run: Waiting) -> None:
        await round_.ask(run)
        if on_progress is not None:
            on_progress(round_.asked, len(waiting))

    await asyncio.gather(*map(ask, waiting))
    runs = (_fitting(run, group) for run in round_.told if agent is None or run.agent == agent)
    return Inbox(
        runs=tuple(run for run in runs if run.requests and run.status != "done"),
        silent=tuple(sorted(round_.silent, key=lambda one: (not one.is_failing, one.workflow_id))),
        scanned=scanned,
    )


class _Round:
    """Round of questions to many runs, `AT_A_TIME`."""

    def __init__(self, client: Client) -> None:
        self.told: list[OpenRequests] = []
        self.silent: list[Silent] = []
        self.asked = 0
        self._client = client
        self._slots = asyncio.Semaphore(AT_A_TIME)
        self._answering: set[str] = set()
        self._timed_out: Counter[str] = Counter()
        self._pollers: dict[str, asyncio.Task[Pollers]] = {}
        self._deserted: set[str] = set()

    async def ask(self, run: Waiting) -> None:
        async with self._slots:
            found = await self._find_pollers(run.task_queue)
            if run.task_queue in self._deserted or (found is not None and not found):
                self.silent.append(Silent(run.workflow_id, no_worker(run.task_queue), unserved=run.task_queue))
            elif self._is_lost(run.task_queue):
                self.silent.append(Silent(run.workflow_id, "no worker answered for the runs before it"))
            else:
                await self._ask(run)
            self.asked += 1

    def _is_lost(self, queue: str) -> bool:
        """Return whether nobody has answered of this queue: a worker may hang in one run, but not in all at once."""
        return queue not in self._answering and self._timed_out[queue] >= AT_A_TIME

    async def _find_pollers(self, queue: str) -> Pollers:
        if queue not in self._pollers:
            self._pollers[queue] = asyncio.create_task(_find_pollers(self._client, queue))
        return await self._pollers[queue]

    async def _ask(self, run: Waiting) -> None:
        asking = asyncio.create_task(open_requests(self._client, run.workflow_id))
        try:
            await asyncio.wait({asking}, timeout=POLL_SECONDS)
            if not asking.done() and await self._is_deserted(run.task_queue):
                self._deserted.add(run.task_queue)
                raise NotAnswering(no_worker(run.task_queue), unserved=run.task_queue)
            self.told.append(await asking)
            self._answering.add(run.task_queue)
        except NotAnswering as error:
            self.silent.append(Silent(run.workflow_id, str(error), error.diagnosis, error.unserved))
            # A workflow task that fails says nothing against those who would answer for other runs.
            if not self.silent[-1].is_failing:
                self._timed_out[run.task_queue] += 1
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


def _fitting(run: OpenRequests, group: str | None) -> OpenRequests:
    if group is None:
        return run
    return run.model_copy(update={"requests": waiting_for(run.requests, group)})


def waiting_for(requests: Sequence[Request], name: str) -> tuple[Request, ...]:
    """Return those of `requests` that a decision of this group or user would bring further."""
    return tuple(request for request in requests if name in request.waits_for)


def _first_sentence(text: str) -> str:
    return " ".join(text.split())[:300]
