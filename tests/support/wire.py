"""A way over TCP that can be cut: a proxy between two processes of a test."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

CHUNK = 64 * 1024


class Wire:
    """Passes bytes on to a port of this machine, until it is cut or falls silent.

    `cut` ends all connections and takes no new ones, as when a host is gone and its address answers. `silence` keeps
    them and takes new ones, and nothing passes, as when packets are lost. `mend` ends both.
    """

    def __init__(self, port: int) -> None:
        self.port = 0
        """Where it listens."""
        self.passed = 0
        """Bytes, both ways."""
        self._target = port
        self._is_cut = False
        self._passing = asyncio.Event()
        self._passing.set()
        self._writers: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        self._is_cut = True
        for writer in list(self._writers):
            writer.transport.abort()

    def silence(self) -> None:
        self._passing.clear()

    def mend(self) -> None:
        self._is_cut = False
        self._passing.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        self._writers.add(writer)
        try:
            await self._passing.wait()
            other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers.add(other_writer)
            ways = [asyncio.create_task(self._pass(reader, other_writer))]
            ways.append(asyncio.create_task(self._pass(other_reader, writer)))
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
                self._writers.discard(other_writer)
                other_writer.transport.abort()
        except OSError:
            # Nobody listens there: what asks is told so, as without a proxy.
            pass
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(CHUNK):
                await self._passing.wait()
                self.passed += len(chunk)
                writer.write(chunk)
                await writer.drain()


@asynccontextmanager
async def open_wire(port: int) -> AsyncIterator[Wire]:
    """A wire to `port`, on a port of its own."""
    wire = Wire(port)
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            # Asyncio tells of a callback that was cancelled as of one that failed.
            with contextlib.suppress(asyncio.CancelledError):
                await wire.serve(reader, writer)
        finally:
            serving.discard(task)

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    wire.port = listener.sockets[0].getsockname()[1]
    try:
        yield wire
    finally:
        listener.close()
        for task in list(serving):
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
