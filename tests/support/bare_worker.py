"""Workers of agents without receipts, as the SDK by itself would be, to see what receipts are there for.

`python -m tests.support.bare_worker`, set up like `mandate worker`, serves workflow tasks with their local activities,
and nothing else; it prints `ready`.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from temporalio.worker import Worker, WorkerConfig, WorkflowInstance, WorkflowInstanceDetails
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from mandate.workers.client.client import connect
from mandate.workers.sandbox import PASSED_THROUGH, WORKFLOWS, Uninterrupted
from mandate.workers.settings import Settings
from mandate.workers.worker import open_worker

STICKY = timedelta(seconds=2)
"""Long enough for something to come while a query waits for a worker that is dead."""


class _Bare(Uninterrupted):
    """Not interrupted, which is another matter."""

    def activate(self, act: Any) -> Any:
        return self._instance.activate(act)


class BareRunner(SandboxedWorkflowRunner):
    """Our runner as it would be without receipts."""

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        return _Bare(super().create_instance(det))


@asynccontextmanager
async def bare_worker(address: str, settings: Settings) -> AsyncIterator[Worker]:
    """A worker of workflow tasks alone."""
    async with _config(address, settings) as its:
        passed = SandboxRestrictions.default.with_passthrough_modules(*PASSED_THROUGH, WORKFLOWS)
        worker = Worker(
            await connect(address=address),
            task_queue=settings.task_queue,
            workflows=its["workflows"],
            activities=its["activities"],
            # Local ones are part of workflow tasks.
            no_remote_activities=True,
            interceptors=its["interceptors"],
            workflow_runner=BareRunner(restrictions=passed),
            sticky_queue_schedule_to_start_timeout=STICKY,
        )
        async with worker:
            yield worker


@asynccontextmanager
async def activity_worker(address: str, settings: Settings) -> AsyncIterator[Worker]:
    """A worker of activities alone."""
    async with _config(address, settings) as its:
        worker = Worker(
            await connect(address=address),
            task_queue=settings.task_queue,
            activities=its["activities"],
            interceptors=its["interceptors"],
        )
        async with worker:
            yield worker


@asynccontextmanager
async def _config(address: str, settings: Settings) -> AsyncIterator[WorkerConfig]:
    """What our worker is made of; it does not run. Two workers of one queue cannot share a client."""
    async with open_worker(await connect(address=address), settings) as made:
        yield made.config()


async def main() -> None:
    settings = Settings.from_environment()
    async with bare_worker(os.environ["TEMPORAL_ADDRESS"], settings):
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
