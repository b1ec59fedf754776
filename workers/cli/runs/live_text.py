"""The text of a model as it comes, for commands that follow a run at a terminal."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from mandate.activities.stores.base import StoreUnavailable
from mandate.workers.cli.connection import Connection
from mandate.workers.client.streams import StreamEvent, StreamReader
from mandate.workers.run_store import StoreUnusable, stored


@asynccontextmanager
async def reading_along(
    connection: Connection, workflow_id: str, tell: Callable[[StreamEvent], None]
) -> AsyncIterator[None]:
    """Tell what the model of a run says while the block runs; nothing where the workers' store is not here."""
    async with AsyncExitStack() as stack:
        with suppress(StoreUnusable, StoreUnavailable):
            blobs = await stack.enter_async_context(stored(connection.settings.store, None))
            reader = StreamReader(connection.client, blobs, workflow_id)
            await reader.open()
            task = asyncio.create_task(_read(reader, tell))
            stack.push_async_callback(_end, task)
        yield


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def _read(reader: StreamReader, tell: Callable[[StreamEvent], None]) -> None:
    with suppress(StoreUnavailable):
        while True:
            # A session has several runs under one id.
            async for event in reader.events():
                tell(event)
            await asyncio.sleep(1)
