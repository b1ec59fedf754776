"""Workers of the gate workflow: ours and, to see the fault itself, the SDK's; as a process, one that can be killed.

`python -m tests.support.gate_worker ADDRESS QUEUE...` serves these task queues and prints `ready`. A queue that begins
with `bare-` is served as the SDK does by itself.
"""

import asyncio
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.client import Client
from temporalio.worker import (
    CustomSlotSupplier,
    FixedSizeSlotSupplier,
    SlotPermit,
    UnsandboxedWorkflowRunner,
    Worker,
    WorkerTuner,
    WorkflowInstance,
    WorkflowInstanceDetails,
    WorkflowRunner,
)

from mandate.workers.sandbox import workflow_runner
from tests.support.gate_workflow import GateWorkflow

STICKY = timedelta(seconds=2)
"""Long enough for something to come while a query waits for a worker that is dead or busy."""

BARE = "bare-"


class Slots(CustomSlotSupplier):
    """Slots for workflow tasks; none is given while the worker is to look busy."""

    def __init__(self) -> None:
        self.free = asyncio.Event()
        self.free.set()

    async def reserve_slot(self, ctx: Any) -> SlotPermit:
        while not self.free.is_set():
            await asyncio.sleep(0.02)
        return SlotPermit()

    def try_reserve_slot(self, ctx: Any) -> SlotPermit | None:
        return SlotPermit() if self.free.is_set() else None

    def mark_slot_used(self, ctx: Any) -> None:
        """Nothing is counted."""

    def release_slot(self, ctx: Any) -> None:
        """Nothing is counted."""


@dataclass(frozen=True, slots=True)
class Driven:
    """One activation, and what came of it."""

    run_id: str
    jobs: tuple[str, ...]
    query_ids: tuple[str, ...]
    is_replaying: bool
    given: tuple[int, ...]
    """Flags that core gave."""
    used: tuple[int, ...]
    failure: str | None


@dataclass
class Recording(WorkflowRunner):
    """Another runner, with a record of all activations."""

    inner: WorkflowRunner
    driven: list[Driven] = field(default_factory=list)

    def prepare_workflow(self, defn: Any) -> None:
        self.inner.prepare_workflow(defn)

    def set_worker_level_failure_exception_types(self, types: Sequence[type[BaseException]]) -> None:
        self.inner.set_worker_level_failure_exception_types(types)

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        return _Recorded(self.inner.create_instance(det), self.driven)


class _Recorded(WorkflowInstance):
    def __init__(self, inner: WorkflowInstance, driven: list[Driven]) -> None:
        self._inner, self._driven = inner, driven

    def activate(self, act: Any) -> Any:
        given, jobs = tuple(act.available_internal_flags), tuple(job.WhichOneof("variant") for job in act.jobs)
        ids = tuple(job.query_workflow.query_id for job in act.jobs if job.HasField("query_workflow"))
        done = self._inner.activate(act)
        failure = done.failed.failure.message if done.HasField("failed") else None
        used = tuple(done.successful.used_internal_flags)
        self._driven.append(Driven(act.run_id, jobs, ids, act.is_replaying, given, used, failure))
        return done

    def get_serialization_context(self, command_info: Any) -> Any:
        return self._inner.get_serialization_context(command_info)

    def get_external_store_context(self, command_info: Any) -> Any:
        return self._inner.get_external_store_context(command_info)

    def get_info(self) -> workflow.Info:
        return self._inner.get_info()


def runner_for(queue: str) -> WorkflowRunner:
    return UnsandboxedWorkflowRunner() if queue.startswith(BARE) else workflow_runner()


class GateWorker(Worker):
    """A worker that can look busy, and tells what it was told to do."""

    slots: Slots
    record: Recording


def new_worker(client: Client, queue: str) -> GateWorker:
    slots, fixed = Slots(), FixedSizeSlotSupplier(100)
    record = Recording(runner_for(queue))
    worker = GateWorker(
        client,
        task_queue=queue,
        workflows=[GateWorkflow],
        workflow_runner=record,
        sticky_queue_schedule_to_start_timeout=STICKY,
        max_cached_workflows=100,
        max_concurrent_workflow_task_polls=2,
        tuner=WorkerTuner.create_composite(
            workflow_supplier=slots, activity_supplier=fixed, local_activity_supplier=fixed, nexus_supplier=fixed
        ),
    )
    worker.slots, worker.record = slots, record
    return worker


async def main(address: str, *queues: str) -> None:
    client = await Client.connect(address)
    async with AsyncExitStack() as stack:
        for queue in queues:
            await stack.enter_async_context(new_worker(client, queue))
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
