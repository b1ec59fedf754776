"""A word to who waits for an answer that no worker can give."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

from temporalio.api.enums.v1 import PendingActivityState, PendingWorkflowTaskState
from temporalio.api.workflowservice.v1 import DescribeWorkflowExecutionResponse
from temporalio.client import Client
from temporalio.service import RPCError

from mandate.workers.cli.connection import Connection
from mandate.workers.cli.options import Invocation
from mandate.workers.client.pollers import describe_unserved, find_unserved, list_pollers

QUIET_SECONDS = 3.0
"""Time after which whoever waits is told."""

LONG_SECONDS = 1.6
"""Time for which work must have waited before nobody seems to take it."""


async def note_unserved_run(
    call: Invocation, connection: Connection, workflow_id: str, queue: str | None = None
) -> None:
    """Say that no worker polls the queue of a run, where that is so."""
    with suppress(RPCError):
        if (found := await find_unserved(connection.client, workflow_id, queue)) is not None:
            call.out.note(f"{describe_unserved(found)}{connection.advise_worker(call.program, found)}")


@asynccontextmanager
async def note_unserved(
    call: Invocation, connection: Connection, workflow_id: str, queue: str | None = None
) -> AsyncIterator[None]:
    """Say after a while that no worker polls the queue of a run; of one that may not be there, its `queue` is given."""

    async def note() -> None:
        await asyncio.sleep(QUIET_SECONDS)
        await note_unserved_run(call, connection, workflow_id, queue)

    task = asyncio.create_task(note())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def find_waiting(client: Client, described: DescribeWorkflowExecutionResponse) -> tuple[str, str] | None:
    """Return the task queue whose work no worker takes up, and a sentence of that.

    `None` when one does, or nothing waits long enough.
    """
    queue = described.execution_config.task_queue.name
    task = described.pending_workflow_task
    scheduled = PendingWorkflowTaskState.PENDING_WORKFLOW_TASK_STATE_SCHEDULED
    waits = described.HasField("pending_workflow_task") and task.state == scheduled and _is_old(task.scheduled_time)
    if not waits:
        for activity in described.pending_activities:
            idle = activity.state == PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED
            if idle and _is_old(activity.scheduled_time):
                waits, queue = True, activity.activity_options.task_queue.name or queue
                break
    if not waits:
        return None
    found = await list_pollers(client, queue)
    if not found:
        return queue, describe_unserved(queue)
    return queue, f"no worker takes up work of task queue {queue!r}, though {len(found)} polled it lately"


def _is_old(moment: object) -> bool:
    when: datetime = moment.ToDatetime(UTC)  # type: ignore[attr-defined] # a protobuf timestamp
    return datetime.now(UTC) - when > timedelta(seconds=LONG_SECONDS)
