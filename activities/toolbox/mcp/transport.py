"""Transports to MCP servers: a child process with its stderr in the log, or streamable HTTP."""

import asyncio
import logging
import os
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCRequest

from mandate.activities.toolbox.mcp.message_filter import MessageFilter
from mandate.activities.toolbox.mcp.stdio import open_stdio
from mandate.activities.toolbox.redaction import SecretValues
from mandate.workflows.contracts.tool import McpServer
from mandate.workflows.rules.plain_text import shorten

if TYPE_CHECKING:
    from mcp.client._transport import ReadStream, TransportStreams, WriteStream

log = logging.getLogger(__name__)

_LINE_BYTES = 8192
_LINES = 20
"""Most that is read of one piece of stderr; what stands before them is left out."""
_CHATTER_BYTES = 16 * 1024
_CHATTER_SECONDS = 0.1
"""Pause after a piece of so many bytes."""


class Stderr(asyncio.Protocol):
    """Text that a server writes to stderr: logged at debug, never on the terminal; its end explains a failed start."""

    def __init__(self, server: str, secrets: SecretValues) -> None:
        self._server = server
        self._secrets = secrets
        self._rest = b""
        self._transport: asyncio.ReadTransport | None = None
        self.last: deque[str] = deque(maxlen=3)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # The transports of uvloop, on which workers run, are of no class of asyncio's.
        self._transport = cast("asyncio.ReadTransport", transport)

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LINE_BYTES:
            lines, self._rest = [*lines, self._rest], b""
        for line in lines[-_LINES:]:
            text = shorten(self._secrets.strike(line.decode("utf-8", "replace")))
            if text:
                self.last.append(text)
                log.debug("mcp server %s: %s", self._server, text)
        if len(data) >= _CHATTER_BYTES and self._transport is not None:
            # A server that floods waits, and not the worker.
            self._transport.pause_reading()
            asyncio.get_running_loop().call_later(_CHATTER_SECONDS, self._read_on)

    def _read_on(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()


@asynccontextmanager
async def open_transport(
    server: McpServer, secrets: SecretValues, stderr: Stderr, over: asyncio.Event, message_filter: MessageFilter
) -> "AsyncIterator[TransportStreams]":
    """Open streams to `server`, through the filter; `over` is set when nothing more can come from it.

    Raises:
        LookupError: a secret is missing; nothing was started.
        OSError: the command cannot be started.
    """
    opened = (
        _over_http(server, secrets, message_filter)
        if server.url is not None
        else _over_stdio(server, secrets, stderr, message_filter)
    )
    async with opened as (reading, writing):
        yield _Watched(reading, over), _Modest(writing)


@asynccontextmanager
async def _over_http(
    server: McpServer, secrets: SecretValues, message_filter: MessageFilter
) -> "AsyncIterator[TransportStreams]":
    from mandate.activities.toolbox.mcp.http import open_http  # noqa: PLC0415 - an HTTP client takes 50 ms

    assert server.url is not None
    headers = {name: secrets.fill(value) for name, value in server.headers.items()}
    async with open_http(server.url, headers, message_filter) as streams:
        yield streams


@asynccontextmanager
async def _over_stdio(
    server: McpServer, secrets: SecretValues, stderr: Stderr, message_filter: MessageFilter
) -> "AsyncIterator[TransportStreams]":
    command, *arguments = [secrets.fill(part) for part in server.command]
    command = sys.executable if command == "python" else command
    env = {name: secrets.fill(value) for name, value in server.env.items()}
    async with _log_stream(stderr) as errors, open_stdio((command, *arguments), env, errors, message_filter) as streams:
        yield streams


@asynccontextmanager
async def _log_stream(stderr: Stderr) -> AsyncIterator[int]:
    """Return a descriptor to write to; `stderr` gets the text."""
    reading, writing = os.pipe()
    try:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: stderr, os.fdopen(reading, "rb"))
        try:
            yield writing
        finally:
            transport.close()
    finally:
        os.close(writing)


class _Modest:
    """A write stream that leaves out of the old handshake what can be asked: days may pass before people answer."""

    def __init__(self, inner: "WriteStream[SessionMessage]") -> None:
        self._inner = inner

    async def send(self, item: SessionMessage, /) -> None:
        message = item.message
        if isinstance(message, JSONRPCRequest) and message.method == "initialize" and message.params is not None:
            able = {name: value for name, value in message.params["capabilities"].items() if name != "elicitation"}
            params = {**message.params, "capabilities": able}
            item = replace(item, message=message.model_copy(update={"params": params}))
        await self._inner.send(item)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return await self._inner.__aexit__(kind, error, trace)


class _Watched:
    """A read stream that says when it has ended: the SDK keeps that to itself."""

    def __init__(self, inner: "ReadStream[SessionMessage | Exception]", over: asyncio.Event) -> None:
        self._inner = inner
        self._over = over

    @property
    def last_context(self) -> object:
        return getattr(self._inner, "last_context", None)

    async def receive(self) -> SessionMessage | Exception:
        return await self._inner.receive()

    async def aclose(self) -> None:
        self._over.set()
        await self._inner.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        try:
            return await self._inner.__anext__()
        except BaseException:
            self._over.set()
            raise

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self._over.set()
        return await self._inner.__aexit__(kind, error, trace)
