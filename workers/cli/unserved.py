"""A word to who waits for an answer that no worker can give."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from temporalio.service import RPCError

from mandate.workers.cli.connection import Connection
from mandate.workers.cli.options import Invocation
from mandate.workers.client.pollers import find_unserved

QUIET_SECONDS = 3.0


@asynccontextmanager
async def note_unserved(
    call: Invocation, connection: Connection, workflow_id: str, queue: str | None = None
) -> AsyncIterator[None]:
    """Say after a while that no worker polls the queue of a run; of one that may not be there, its `queue` is given."""

    async def note() -> None:
        await asyncio.sleep(QUIET_SECONDS)
        with suppress(RPCError):
            if (found := await find_unserved(connection.client, workflow_id, queue)) is not None:
                start = f"{call.program} worker{connection.worker_options(found)}"
                call.out.note(f"no worker polls task queue {found!r}; start one with `{start}`")

    task = asyncio.create_task(note())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
