"""How an MCP server is reached: a child process with its stderr in the log, or streamable HTTP."""

import asyncio
import logging
import os
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

import httpx2
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage
from mcp_types import CONNECTION_CLOSED

from activities.failures import shorten
from activities.toolbox.secret_values import SecretValues
from workflows.contracts.tool import McpServer

if TYPE_CHECKING:
    from mcp.client._transport import ReadStream, TransportStreams

log = logging.getLogger(__name__)

NOT_CONNECTED = -3_209_900_001
"""JSON-RPC code, outside the range of servers, for a request that found no connection."""

_READ_GAP_SECONDS = 3600.0


class Stderr(asyncio.Protocol):
    """What a server writes to stderr: logged at debug, never on the terminal; the last lines explain a failed start."""

    def __init__(self, server: str, secrets: SecretValues) -> None:
        self._server = server
        self._secrets = secrets
        self._rest = b""
        self.last: deque[str] = deque(maxlen=3)

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > 8192:
            lines, self._rest = [*lines, self._rest], b""
        for line in lines:
            text = shorten(self._secrets.strike(line.decode("utf-8", "replace")))
            if text:
                self.last.append(text)
                log.debug("mcp server %s: %s", self._server, text)


@asynccontextmanager
async def open_transport(
    server: McpServer, secrets: SecretValues, stderr: Stderr, over: asyncio.Event
) -> "AsyncIterator[TransportStreams]":
    """Streams to `server`; `over` is set when nothing more can come from it.

    Raises:
        LookupError: a secret is missing; nothing was started.
        OSError: the command cannot be started.
    """
    opened = _over_http(server, secrets) if server.url is not None else _over_stdio(server, secrets, stderr)
    async with opened as (reading, writing):
        yield _Watched(reading, over), writing


@asynccontextmanager
async def _over_stdio(server: McpServer, secrets: SecretValues, stderr: Stderr) -> "AsyncIterator[TransportStreams]":
    command, *arguments = [secrets.fill(part) for part in server.command]
    command = sys.executable if command == "python" else command
    env = {name: secrets.fill(value) for name, value in server.env.items()}
    parameters = StdioServerParameters(command=command, args=arguments, env=env)
    async with _logged(stderr) as errlog, stdio_client(parameters, errlog=errlog) as streams:
        yield streams


@asynccontextmanager
async def _logged(stderr: Stderr) -> AsyncIterator[TextIO]:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as errlog:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: stderr, os.fdopen(reading, "rb"))
        try:
            yield errlog
        finally:
            transport.close()


@asynccontextmanager
async def _over_http(server: McpServer, secrets: SecretValues) -> "AsyncIterator[TransportStreams]":
    assert server.url is not None
    headers = {name: secrets.fill(value) for name, value in server.headers.items()}
    # A connection kept open may be closed by the server at the moment of a call, whose outcome is then unknown.
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
    transport = _Contained(httpx2.AsyncHTTPTransport(trust_env=False, limits=limits))
    timeout = httpx2.Timeout(30.0, read=_READ_GAP_SECONDS)
    client = httpx2.AsyncClient(transport=transport, trust_env=False, headers=headers, timeout=timeout)
    async with client, streamable_http_client(server.url, http_client=client) as streams:
        yield streams


class _Contained(httpx2.AsyncBaseTransport):
    """Answers a message that did not get through with a JSON-RPC error; the SDK would end all calls of the session."""

    def __init__(self, inner: httpx2.AsyncHTTPTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            return await self._inner.handle_async_request(request)
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            if request.method != "POST":
                raise
            return _rpc_error(NOT_CONNECTED, "no connection")
        except httpx2.TransportError as error:
            if request.method != "POST":
                raise
            return _rpc_error(CONNECTION_CLOSED, f"the connection was cut ({type(error).__name__})")

    async def aclose(self) -> None:
        await self._inner.aclose()


def _rpc_error(code: int, message: str) -> httpx2.Response:
    return httpx2.Response(502, json={"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": message}})


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
