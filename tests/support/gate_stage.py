"""The fault that receipts cure, staged: a query waits for a worker that is killed or busy, something comes meanwhile.

Another worker then takes the query, with what has come. A message follows on what the query showed.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import uuid4

from temporalio.api.enums.v1 import WorkflowTaskFailedCause
from temporalio.api.workflow.v1 import PendingWorkflowTaskInfo
from temporalio.client import (
    Client,
    WithStartWorkflowOperation,
    WorkflowHandle,
    WorkflowHistory,
    WorkflowUpdateFailedError,
)
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.worker import Replayer, Worker

from mandate.workers.client import queries
from mandate.workers.client.queries import AHEAD
from tests.support.gate_worker import BARE, Driven, GateWorker, new_worker, runner_for
from tests.support.gate_workflow import TIMER_SECONDS, GateWorkflow, step
from tests.support.people import send_update

Handle = WorkflowHandle[Any, Any]

LIMIT = timedelta(seconds=20)


@dataclass(frozen=True)
class Case:
    """What comes while the query waits, and the message after it."""

    name: str
    message: str | None
    """An update, a signal, or none."""
    first: str = "activity"
    is_bare: bool = False
    """Served as the SDK does by itself."""

    @property
    def held(self) -> str:
        return "held-notify" if self.first == "ready" else "held-model"


@dataclass
class Played:
    """How a case went."""

    seen: dict[str, Any] = field(default_factory=dict)
    """What the query showed."""
    took_seconds: float = 0.0
    """Until the query was answered."""
    answer: str | None = None
    refused: int = 0
    """Queries that the worker refused because they were ahead."""
    attempt: int = 1
    """Of the workflow task that a cold worker has for the run in the end."""
    activities: list[str] = field(default_factory=list)
    failed_tasks: int = 0
    replay: str = ""
    history: WorkflowHistory | None = None
    driven: list[list[Driven]] = field(default_factory=list)
    """What each worker of ours was told to do, in order."""


@asynccontextmanager
async def first_worker(client: Client, *queues: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that serves these queues; killed at the end of the block at the latest."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.gate_worker", client.service_client.config.target_host, *queues,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            assert await process.stdout.readline() == b"ready\n"
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def play(client: Client, cases: Sequence[Case]) -> dict[str, Played]:
    """All cases side by side: their first workers are one process, which is killed once all runs wait."""
    stages = [Stage(client, case, uuid4().hex[:6]) for case in cases]
    steps = f"steps-{uuid4().hex[:6]}"
    async with Worker(client, task_queue=steps, activities=[step]), AsyncExitStack() as stack:
        killed = [stage for stage in stages if stage.case.name != "stale"]
        if killed:
            process = await stack.enter_async_context(first_worker(client, *(stage.queue for stage in killed)))
            await asyncio.gather(*(stage.start(steps) for stage in killed))
            await asyncio.sleep(1)
            process.kill()
            await process.wait()
        await asyncio.gather(*(stage.play(steps) for stage in stages))
    return {stage.case.name: stage.played for stage in stages}


class Stage:
    """One case."""

    def __init__(self, client: Client, case: Case, name: str) -> None:
        self.client, self.case, self.played = client, case, Played()
        self.queue = f"{BARE if case.is_bare else ''}{case.name}-{name}"
        self.handle: Handle = client.get_workflow_handle(self.queue)
        self.workers: list[GateWorker] = []
        self.started = 0.0

    async def start(self, steps: str, workflow_id: str | None = None) -> Handle:
        handle = await self.client.start_workflow(
            "Gate", args=[self.case.first, steps], id=workflow_id or self.queue, task_queue=self.queue
        )
        self.started = time.monotonic()
        await self.has(handle, "timer_started" if self.case.first == "timer" else "activity_task_scheduled")
        return handle

    async def has(self, handle: Handle, wanted: str, seconds: float = 20.0) -> bool:
        """Whether the history gets such an event in that time."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            async for event in handle.fetch_history_events():
                if event.HasField(f"{wanted}_event_attributes"):  # type: ignore[arg-type]
                    return True
            await asyncio.sleep(0.05)
        return False

    async def play(self, steps: str) -> None:
        async with AsyncExitStack() as stack:
            worker = await self._busy(stack, steps) if self.case.name == "stale" else self.new_worker()
            if self.case.name == "no_query":
                await self._complete()
                message = asyncio.create_task(self._send(steps))
                await asyncio.sleep(0.5)
                await stack.enter_async_context(worker)
                await message
            else:
                await self._query(stack, worker, steps)
            if self.case.name != "closed":
                await self._settle()
        if self.case.name != "closed":
            # Somebody takes the run up who has nothing of it in memory.
            async with self.new_worker():
                with suppress(Exception):
                    await self.handle.signal("poke")
                self.played.attempt = await self._settle()
        await self._look_back()

    def new_worker(self) -> GateWorker:
        worker = new_worker(self.client, self.queue)
        self.workers.append(worker)
        return worker

    async def _busy(self, stack: AsyncExitStack, steps: str) -> GateWorker:
        """A worker that has the run as it was some tasks ago; the one that had it last is dead."""
        worker = await stack.enter_async_context(self.new_worker())
        await self.start(steps)
        other = await self.start(steps, f"{self.queue}-2")
        await asyncio.sleep(0.5)
        worker.slots.free.clear()
        # These workflow tasks use its open polls up.
        await other.signal("poke")
        for number in range(3, 9):
            more = await self.client.start_workflow(
                "Gate", args=["activity", steps], id=f"{self.queue}-{number}", task_queue=self.queue
            )
            if not await self.has(more, "activity_task_scheduled", seconds=1):
                break
        async with first_worker(self.client, self.queue):
            await self.handle.signal("poke")
            await self.has(self.handle, "workflow_execution_signaled")
            await self._settle()
        return worker

    async def _query(self, stack: AsyncExitStack, worker: GateWorker, steps: str) -> None:
        """Ask, let something come while the query waits, and let the worker have both; then send the message."""
        if self.case.first == "timer":
            await asyncio.sleep(self.started + TIMER_SECONDS - 1 - time.monotonic())
        asked = [asyncio.create_task(self._ask()) for _ in range(1 + (self.case.name == "two_queries"))]
        await asyncio.sleep(1.2 if self.case.first == "timer" else 0.7)
        if self.case.name == "signal_first":
            await self.handle.signal("pause_signal")
        elif self.case.first != "timer":
            await self._complete()
        if self.case.name == "closed":
            await self.handle.terminate()
        async with AsyncExitStack() as serving:
            if self.case.name == "stale":
                worker.slots.free.set()
            else:
                await serving.enter_async_context(worker)
            self.played.seen = (await asyncio.gather(*asked))[0]
            if self.case.name != "other_worker":
                stack.push_async_exit(serving.pop_all())
        if self.case.name == "other_worker":
            await stack.enter_async_context(self.new_worker())
        await self._send(steps)

    async def _ask(self) -> dict[str, Any]:
        begun = time.monotonic()
        answer = await queries.ask(self.handle, "requests", dict, timeout_seconds=60)
        self.played.took_seconds = time.monotonic() - begun
        return answer

    async def _complete(self) -> None:
        described = await self.handle.describe()
        held = self.client.get_async_activity_handle(
            workflow_id=self.queue, run_id=described.run_id, activity_id=self.case.held
        )
        await held.complete("answer")

    async def _send(self, steps: str) -> None:
        match self.case.message:
            case None:
                return
            case "decide_signal" | "pause_signal" as signal:
                await self.handle.signal(signal, args=["r2"] if signal == "decide_signal" else [])
                return
            case "complete":
                await self._complete()
                return
            case update:
                arguments = ["r2"] if update.startswith("decide") else []
        try:
            if self.case.name == "update_with_start":
                start: Any = WithStartWorkflowOperation(
                    "Gate", args=[self.case.first, steps], id=self.queue, task_queue=self.queue,
                    id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
                )  # fmt: skip
                self.played.answer = await self.client.execute_update_with_start_workflow(
                    update, args=arguments, start_workflow_operation=start, rpc_timeout=LIMIT, result_type=str
                )
            else:
                self.played.answer = await send_update(
                    self.handle, update, args=arguments, rpc_timeout=LIMIT, result_type=str
                )
        except WorkflowUpdateFailedError as error:
            self.played.answer = str(error.cause)

    async def _settle(self) -> int:
        """Wait until no workflow task is to be done, or one was tried again; the attempt of that."""
        async with asyncio.timeout(30):
            while True:
                description = (await self.handle.describe()).raw_description
                task: PendingWorkflowTaskInfo = description.pending_workflow_task
                if not description.HasField("pending_workflow_task") or task.attempt > 1:
                    return max(task.attempt, 1)
                await asyncio.sleep(0.05)

    async def _look_back(self) -> None:
        its = self.played
        its.history = await self.handle.fetch_history()
        for event in its.history.events:
            # A signal that comes as the run ends makes its last task once more, which is no fault.
            its.failed_tasks += event.HasField("workflow_task_failed_event_attributes") and (
                event.workflow_task_failed_event_attributes.cause
                != WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_UNHANDLED_COMMAND
            )
            if event.HasField("activity_task_scheduled_event_attributes"):
                its.activities.append(event.activity_task_scheduled_event_attributes.activity_id)
        its.driven = [worker.record.driven for worker in self.workers]
        its.refused = sum(done.failure == AHEAD for driven in its.driven for done in driven)
        its.replay = await replay(its.history, self.queue)
        for handle in (self.handle, *(self.client.get_workflow_handle(f"{self.queue}-{n}") for n in range(2, 9))):
            with suppress(Exception):
                await handle.terminate()


async def replay(history: WorkflowHistory, queue: str) -> str:
    """`ok`, or how the replay fails."""
    replayer = Replayer(workflows=[GateWorkflow], workflow_runner=runner_for(queue))
    result = await replayer.replay_workflow(history, raise_on_replay_failure=False)
    return "ok" if result.replay_failure is None else str(result.replay_failure)
