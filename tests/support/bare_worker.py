"""Workers of agents without receipts, as the SDK by itself would be, to see what receipts are there for.

`python -m tests.support.bare_worker ADDRESS QUEUE` serves workflow tasks of the queue alone, and prints `ready`.
"""

import asyncio
import sys
from datetime import timedelta
from typing import Any

from temporalio.client import Client
from temporalio.worker import Worker, WorkflowInstance, WorkflowInstanceDetails
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from workers.client import connect
from workers.uninterrupted import Uninterrupted
from workers.worker import PARTS, PASSED_THROUGH
from workflows.agent import AgentWorkflow

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


def new_bare_worker(client: Client, queue: str) -> Worker:
    """A worker of workflow tasks alone."""
    passed = SandboxRestrictions.default.with_passthrough_modules(*PASSED_THROUGH, *PARTS)
    return Worker(
        client,
        task_queue=queue,
        workflows=[AgentWorkflow],
        workflow_runner=BareRunner(restrictions=passed),
        sticky_queue_schedule_to_start_timeout=STICKY,
    )


async def main(address: str, queue: str) -> None:
    async with new_bare_worker(await connect(address=address), queue):
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
