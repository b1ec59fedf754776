"""A web server inside another process: its socket, and an end that its owner decides on."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import uvicorn

MOST_AT_ONCE = 100
"""Requests that are answered at once; more are told to come again."""

_ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9a-fA-F:.%]+)\]|(?P<host>[^\s:/\[\]@]*)):(?P<port>\d{1,5})")


class HttpServer(uvicorn.Server):
    """The web server, which leaves signals to whoever runs it."""

    def __init__(self, app: Any, *, grace_seconds: int = 10) -> None:
        """Take an ASGI application, and the time that requests have to end."""
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                log_level="warning",
                access_log=False,
                lifespan="off",
                server_header=False,
                limit_concurrency=MOST_AT_ONCE,
                timeout_graceful_shutdown=grace_seconds,
            )
        )

    def capture_signals(self) -> nullcontext[None]:  # type: ignore[override]
        """Leave the signals alone."""
        return nullcontext()

    async def run_on(self, listener: socket.socket) -> None:
        """Serve until `should_exit` is set."""
        await self.serve(sockets=[listener])


@asynccontextmanager
async def serving(app: Any, listener: socket.socket) -> AsyncIterator[None]:
    """Serve an ASGI application for the time of the block; requests that go on then have a second."""
    server = HttpServer(app, grace_seconds=1)
    running = asyncio.create_task(server.run_on(listener))
    try:
        yield
    finally:
        server.should_exit = True
        await running


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        OSError: the address is not ours or in use.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
        listener.settimeout(0)
    except BaseException:
        listener.close()
        raise
    return listener


def parse_listen_address(text: str) -> tuple[str, int]:
    """Return host and port of an address such as `:8080`, which means all addresses of the machine.

    Raises:
        ValueError: it is no such address; one sentence.
    """
    found = _ADDRESS.fullmatch(text)
    if found is None or int(found["port"]) > 65535:
        raise ValueError(
            f"{text!r} is not an address to listen at; allowed are ':8080' for all addresses of the machine, "
            "'127.0.0.1:8080' and '[::1]:8080', with a port of 0 to 65535"
        )
    return found["v6"] or found["host"] or "0.0.0.0", int(found["port"])  # noqa: S104 - as its user asks
