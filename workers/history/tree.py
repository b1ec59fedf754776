"""A tree of runs, with what each does or how it ended: open ones are asked, closed ones read."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal

from temporalio.client import Client, WorkflowExecution, WorkflowExecutionStatus, WorkflowHistoryEventFilterType
from temporalio.service import RPCError

from mandate.workers.client import answers, trees
from mandate.workers.client.rounds import AT_A_TIME, Round
from mandate.workers.client.trees import Branch
from mandate.workers.history.events import RunEnded, ended_by
from mandate.workers.history.record import Json
from mandate.workers.history.run_history import RunHistory
from mandate.workers.history.stream import events
from mandate.workflows.contracts.model import Usage
from mandate.workflows.contracts.request import OpenRequests
from mandate.workflows.contracts.run import Progress

GONE = "gone"
"""Status of a run of which only those below it are known."""

_OPEN = (WorkflowExecutionStatus.RUNNING, WorkflowExecutionStatus.CONTINUED_AS_NEW)
"""The part after one that has continued as new may not be listed yet."""


@dataclass(slots=True)
class TreeRun:
    """One run of a tree, and those that it started."""

    workflow_id: str
    run_id: str | None = None
    agent: str | None = None
    """`None` for a workflow that is no run of an agent, or where nobody tells."""
    version: str | None = None
    kind: str | None = None
    """Its workflow type; `None` where nobody tells."""
    status: str = GONE
    """`running`, `waiting`, `idle`, `paused`, or how it ended; see `events.RunEnded`."""
    doing: str | None = None
    """In words; `None` for one that has ended or does not answer."""
    reason: str | None = None
    """Why it ended as it did, or why it does not answer."""
    is_silent: bool = False
    """It goes on and does not answer: its status is the one that lists of runs have."""
    unserved: str | None = None
    """Its task queue, where no worker answers there."""
    usage: Usage | None = None
    """With that of those below it that have reported; `None` where nobody tells."""
    requests: int = 0
    waits_for: tuple[str, ...] = ()
    children: list["TreeRun"] = field(default_factory=list)

    @property
    def cost_usd(self) -> Decimal | None:
        """Its cost so far; `None` where that is not known of all its calls."""
        return self.usage.cost_usd if self.usage is not None and not self.usage.unpriced_calls else None

    def walk(self) -> Iterator["TreeRun"]:
        """Yield this one and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()

    def to_json(self) -> Json:
        """Return the tree as programs read it."""
        return {
            "workflow_id": self.workflow_id,
            "run_id": self.run_id,
            "workflow_type": self.kind,
            "agent": self.agent,
            "version": self.version,
            "status": self.status,
            "doing": self.doing,
            "reason": self.reason,
            "silent": self.is_silent,
            "cost_usd": f"{self.cost_usd:f}" if self.cost_usd is not None else None,
            "requests": self.requests,
            "waits_for": list(self.waits_for),
            "children": [child.to_json() for child in self.children],
        }


async def read_tree(
    client: Client,
    workflow_id: str,
    run_id: str | None = None,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> TreeRun:
    """Return the tree that a run belongs to; tell `on_progress` how many of how many runs are looked at.

    A few runs are asked at once. Raises as `trees.find_tree`.
    """
    branch = await trees.find_tree(client, workflow_id, run_id)
    root = _plant(branch)
    runs = [one.run for one in branch.walk() if one.run is not None and one.is_agent]
    await _Reading(client, {run.workflow_id: run for run in root.walk()}, on_progress).read(runs)
    return root


def _plant(branch: Branch) -> TreeRun:
    """Return what the list of runs tells."""
    run, made = branch.run, TreeRun(branch.workflow_id)
    if run is not None:
        made.run_id, made.agent = run.run_id, trees.read_attribute(run, "AgentName")
        made.version, made.kind = trees.read_attribute(run, "AgentVersion"), run.workflow_type
        made.status = _describe_status(run)
        cost = trees.read_attribute(run, "AgentCostUsd")
        made.usage = Usage(cost_usd=Decimal(cost)) if cost is not None else None
    made.children = [_plant(child) for child in branch.children]
    return made


def _describe_status(run: WorkflowExecution) -> str:
    if run.status is None or run.status in _OPEN:
        return trees.read_attribute(run, "AgentStatus") or "running"
    return "cancelled" if run.status is WorkflowExecutionStatus.CANCELED else run.status.name.lower()


class _Reading:
    """The reading of the runs of one tree."""

    def __init__(
        self, client: Client, made: dict[str, TreeRun], on_progress: Callable[[int, int], None] | None
    ) -> None:
        self._client = client
        self._made = made
        self._on_progress = on_progress
        self._slots = asyncio.Semaphore(AT_A_TIME)
        self._read = 0
        self._round = Round(client, self._ask)

    async def read(self, runs: Sequence[WorkflowExecution]) -> None:
        """Bring what was listed up to date."""

        async def read_one(run: WorkflowExecution) -> None:
            if run.status in _OPEN:
                await self._round.ask(run.id, run.task_queue)
            else:
                await self._read_end(run)
            self._read += 1
            if self._on_progress is not None:
                self._on_progress(self._read, len(runs))

        await asyncio.gather(*map(read_one, runs))
        for requests, progress in self._round.told:
            _take_answers(self._made[requests.workflow_id], requests, progress)
        for silent in self._round.silent:
            made = self._made[silent.workflow_id]
            made.is_silent, made.reason, made.unserved = True, silent.reason, silent.unserved
        # They have ended since they were listed.
        await asyncio.gather(*(self._read_newest(run.id) for run in runs if self._made[run.id].status == "done"))
        await asyncio.gather(*(self._find_agent(run) for run in runs if self._made[run.id].agent is None))

    async def _ask(self, workflow_id: str) -> tuple[OpenRequests, Progress]:
        requests = await answers.open_requests(self._client, workflow_id)
        return requests, await answers.progress(self._client, workflow_id)

    async def _read_newest(self, workflow_id: str) -> None:
        with suppress(RPCError):
            await self._read_end(await self._client.get_workflow_handle(workflow_id).describe())

    async def _read_end(self, run: WorkflowExecution) -> None:
        """Read how a closed run ended: from its result or its memo, else from its history."""
        made = self._made[run.id]
        made.run_id, made.status = run.run_id, _describe_status(run)
        async with self._slots:
            try:
                if run.status is WorkflowExecutionStatus.COMPLETED:
                    _take_end(made, await self._find_end(run))
                elif run.status is not WorkflowExecutionStatus.CANCELED or not await _take_memo(made, run):
                    await self._take_history(made, run)
            except RPCError as error:
                made.reason = f"Temporal refused: {' '.join(error.message.split())[:300]}"
            except (ValueError, RuntimeError):
                made.reason = "its history cannot be read"

    async def _find_end(self, run: WorkflowExecution) -> RunEnded | None:
        handle = self._client.get_workflow_handle(run.id, run_id=run.run_id)
        closing = handle.fetch_history_events(event_filter_type=WorkflowHistoryEventFilterType.CLOSE_EVENT)
        return await ended_by(await anext(closing), self._client.data_converter)

    async def _take_history(self, made: TreeRun, run: WorkflowExecution) -> None:
        history = RunHistory(self._client.data_converter)
        async for event in events(self._client, run.id, run.run_id, wait=False):
            await history.add(event)
        _take_end(made, history.ended)
        made.usage = history.sum_usage()

    async def _find_agent(self, run: WorkflowExecution) -> None:
        """Read the agent of a run from its beginning, where no search attribute tells it."""
        history = RunHistory(self._client.data_converter)
        async with self._slots:
            with suppress(RPCError, ValueError, RuntimeError):
                await history.add(await anext(events(self._client, run.id, run.run_id, wait=False)))
        self._made[run.id].agent = history.agent


def _take_answers(made: TreeRun, requests: OpenRequests, progress: Progress) -> None:
    made.agent, made.version, made.status = requests.agent, requests.version, requests.status
    made.doing, made.usage = progress.doing, progress.usage
    made.requests = len(requests.requests)
    made.waits_for = tuple(dict.fromkeys(name for request in requests.requests for name in request.waits_for))


def _take_end(made: TreeRun, ended: RunEnded | None) -> None:
    if ended is None:
        return
    made.status, made.reason = ended.status, ended.reason
    if ended.result is not None:
        made.usage = ended.result.usage


async def _take_memo(made: TreeRun, run: WorkflowExecution) -> bool:
    """Take in what a cancelled run left instead of a result; return whether there is such a memo."""
    told = (await run.memo()).get("mandate")
    usage = told.get("usage") if isinstance(told, dict) else None
    if usage is None:
        return False
    made.usage = Usage.model_validate(usage)
    return True
