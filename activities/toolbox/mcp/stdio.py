"""An MCP server as a child process: lines of bounded length on its pipes, and no process left behind.

The SDK's own transport keeps a line in memory however long it is, joins it anew for each piece that comes, and reads
nothing more after a byte that is not UTF-8.
"""

import asyncio
import logging
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import anyio
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCRequest, jsonrpc_message_adapter

from mandate.activities import child_processes
from mandate.activities.toolbox.mcp.message_filter import ENDS_BYTES, Ends, MessageFilter

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
    from mcp.client._transport import TransportStreams

log = logging.getLogger(__name__)

READ_BYTES = 64 * 1024
SKIPPED = 16
"""Longest line in times of the limit: until there it is read to its end to find whose answer it is."""
_FLUSH_SECONDS = 0.5
_EXIT_SECONDS = 2.0
"""For the child to end by itself when its stdin closes, and again after SIGTERM; then it is killed."""
_POLL_SECONDS = 0.01
_WATCH_SECONDS = 0.5
"""Between two looks whether the child lives; and for its last words to arrive when it does not."""


@asynccontextmanager
async def open_stdio(
    command: Sequence[str], env: Mapping[str, str], stderr: int, message_filter: MessageFilter
) -> "AsyncIterator[TransportStreams]":
    """Start `command` and open streams to it; `stderr` is the descriptor that it writes to.

    Raises:
        OSError: the command cannot be started.
        ValueError: it holds a zero byte.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=PIPE,
        stdout=PIPE,
        stderr=stderr if stderr >= 0 else DEVNULL,
        env=get_default_environment() | dict(env),
        start_new_session=True,
        limit=READ_BYTES,
    )
    child_processes.register(process.pid)
    arriving, received = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    sending, leaving = anyio.create_memory_object_stream[SessionMessage](0)
    reading = asyncio.create_task(_read(process, arriving, message_filter))
    writing = asyncio.create_task(_write(process, leaving, arriving, message_filter))
    watching = asyncio.create_task(_watch(process, arriving))
    try:
        yield received, sending
    finally:
        received.close()
        sending.close()
        watching.cancel()
        await _complete(_shut_down(process, reading, writing))


async def _complete(work: Awaitable[None]) -> None:
    """Wait for `work` to its end, also when cancelled meanwhile: a child would be left behind."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


async def _read(
    process: Process, arriving: "MemoryObjectSendStream[SessionMessage | Exception]", message_filter: MessageFilter
) -> None:
    """Give each message on to the session; when there is no session any more, read to the end for nothing."""
    assert process.stdout is not None
    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        async with arriving:
            async for line in _lines(process.stdout, message_filter):
                for taken in _take(line, message_filter):
                    await arriving.send(_parse(taken))
                if seconds := message_filter.pause:
                    await asyncio.sleep(seconds)
    # A server that waits for room on its stdout does not read its stdin, and so does not see that it shall end.
    while await process.stdout.read(READ_BYTES):
        pass


def _take(line: bytes | Ends, message_filter: MessageFilter) -> Iterator[bytes]:
    if isinstance(line, bytes):
        yield from message_filter.admit_each(line)
    elif refused := message_filter.refuse(line, f"it is longer than {message_filter.max_bytes:,} bytes"):
        yield refused


def _parse(message: bytes) -> SessionMessage | Exception:
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(message, by_name=False))
    except ValueError as error:
        return error


async def _lines(stdout: asyncio.StreamReader, message_filter: MessageFilter) -> AsyncIterator[bytes | Ends]:
    """Yield each line without its end, of one that is too long its two ends; stop at one that does not end."""
    pieces: list[bytes] = []
    length = 0
    ends: Ends | None = None
    while chunk := await stdout.read(READ_BYTES):
        *whole, rest = chunk.split(b"\n")
        for piece in whole:
            if ends is not None:
                yield Ends(ends.head, (ends.tail + piece)[-ENDS_BYTES:])
            else:
                line = _join(pieces, piece)
                yield line if len(line) <= message_filter.max_bytes else Ends.of(line)
            pieces, length, ends = [], 0, None
        length += len(rest)
        if ends is not None:
            ends = Ends(ends.head, (ends.tail + rest)[-ENDS_BYTES:])
        elif length > message_filter.max_bytes:
            ends, pieces = Ends.of(_join(pieces, rest)), []
        elif rest:
            pieces.append(rest)
        if length > SKIPPED * message_filter.max_bytes:
            log.warning(
                "an mcp server wrote a line of more than %d bytes; it is cut off", SKIPPED * message_filter.max_bytes
            )
            if ends is not None:
                yield Ends(ends.head, b"")
            return


def _join(pieces: list[bytes], last: bytes) -> bytes:
    return b"".join((*pieces, last))


async def _write(
    process: Process,
    leaving: "MemoryObjectReceiveStream[SessionMessage]",
    arriving: "MemoryObjectSendStream[SessionMessage | Exception]",
    message_filter: MessageFilter,
) -> None:
    assert process.stdin is not None
    try:
        async with leaving:
            async for sent in leaving:
                if isinstance(sent.message, JSONRPCRequest):
                    message_filter.expect(sent.message.id, sent.message.method)
                process.stdin.write(sent.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
                await process.stdin.drain()
    except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
        # The server reads no more, but may live: all that wait for it must hear that nothing will come.
        await arriving.aclose()


async def _watch(process: Process, arriving: "MemoryObjectSendStream[SessionMessage | Exception]") -> None:
    """End the connection when the server has ended, though a process that it started may hold its stdout open."""
    while process.returncode is None:  # noqa: ASYNC110 - an exit sets no event without the pipes' end
        await asyncio.sleep(_WATCH_SECONDS)
    await asyncio.sleep(_WATCH_SECONDS)
    await arriving.aclose()


async def _shut_down(process: Process, reading: asyncio.Task[None], writing: asyncio.Task[None]) -> None:
    """Shut down as the protocol says: close stdin, wait, SIGTERM, wait, SIGKILL, for all that the server started."""
    assert process.stdin is not None
    await asyncio.wait({writing}, timeout=_FLUSH_SECONDS)
    with suppress(OSError):
        process.stdin.close()
    await _wait_for(lambda: process.returncode is None)
    if child_processes.is_alive(process.pid):
        child_processes.send(process.pid, signal.SIGTERM)
        await _wait_for(lambda: child_processes.is_alive(process.pid))
    if child_processes.is_alive(process.pid):
        child_processes.send(process.pid, signal.SIGKILL)
        await _wait_for(lambda: process.returncode is None)
    child_processes.release(process.pid)
    for task in (reading, writing):
        task.cancel()
    await asyncio.gather(reading, writing, return_exceptions=True)
    # A process that left the group may hold the pipes open: nothing public closes our ends of them.
    process._transport.close()  # type: ignore[attr-defined]


async def _wait_for(goes_on: Callable[[], bool]) -> None:
    """Wait until it does not, for as long as a child is given."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _EXIT_SECONDS
    while goes_on() and loop.time() < deadline:  # noqa: ASYNC110 - an exit sets no event without the pipes' end
        await asyncio.sleep(_POLL_SECONDS)
