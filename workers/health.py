"""Health of a worker over HTTP: `/live` while its process answers, `/ready` while it takes work."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from temporalio.client import Client
from temporalio.service import RPCError

from mandate.activities.stores.base import BlobStore, StoreUnavailable
from mandate.workers.client.pollers import Poller, list_pollers
from mandate.workers.http_server import serving

LIVE = "/live"
READY = "/ready"

CHECK_SECONDS = 3.0
"""Time that one check may take; who asks has to wait for longer."""

FRESH_SECONDS = 2.0
"""Time for which an answer is given again, so that health checks cost Temporal and the store little."""

POLL_SECONDS = 150.0
"""Time without a new poll after which a worker counts as one that polls no more: a poll waits for a minute."""

State = Literal["starting", "serving", "draining"]


class Check(Protocol):
    """A check of one thing that a worker needs."""

    async def __call__(self) -> str | None:
        """Return why it fails in one sentence, or `None`."""
        ...


@dataclass(frozen=True, slots=True)
class Service:
    """Task queue that a worker serves, its agents with their digests, and what it needs to do so."""

    task_queue: str
    agents: Mapping[str, str]
    checks: Mapping[str, Check]


@dataclass(slots=True)
class Health:
    """State of a worker as its supervisor sees it."""

    state: State = "starting"
    _service: Service | None = None
    _answer: tuple[float, dict[str, str]] | None = None
    _checking: asyncio.Lock = field(default_factory=asyncio.Lock)

    def serve(self, service: Service) -> None:
        """Take it that the worker polls from now on."""
        self._service, self.state = service, "serving"

    def drain(self) -> None:
        """Take it that the worker begins nothing more."""
        self.state = "draining"

    async def tell_live(self, _request: Request) -> Response:
        """Answer that the process and its event loop live; nothing else is looked at."""
        return JSONResponse({"status": "live"})

    async def tell_ready(self, _request: Request) -> Response:
        """Answer 200 if the worker takes work, else 503, with each check and the digests of the agents."""
        if self._service is None or self.state != "serving":
            return JSONResponse({"status": self.state}, 503)
        checks = await self._check(self._service)
        is_ready = self.state == "serving" and all(found == "ok" for found in checks.values())
        status = "ready" if is_ready else "not ready" if self.state == "serving" else self.state
        told = {"status": status, "checks": checks, "task_queue": self._service.task_queue}
        return JSONResponse({**told, "agents": dict(self._service.agents)}, 200 if is_ready else 503)

    async def _check(self, service: Service) -> dict[str, str]:
        async with self._checking:
            if self._answer is not None and time.monotonic() - self._answer[0] < FRESH_SECONDS:
                return self._answer[1]
            found = await asyncio.gather(*map(_perform, service.checks.values()))
            answers = {name: why or "ok" for name, why in zip(service.checks, found, strict=True)}
            self._answer = (time.monotonic(), answers)
            return answers


async def _perform(check: Check) -> str | None:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            return await check()
    except TimeoutError:
        return f"no answer within {CHECK_SECONDS:g} s"


def check_store(store: BlobStore) -> Check:
    """Return the check that the store answers."""

    async def check() -> str | None:
        try:
            await store.identity()
        except StoreUnavailable as error:
            return str(error)
        return None

    return check


class PollCheck:
    """The check that Temporal has polls of this worker, whose times are those of the server's clock."""

    def __init__(self, client: Client, queue: str, identity: str) -> None:
        self._client = client
        self._queue = queue
        self._identity = identity
        self._newest = 0
        self._seen_at = 0.0

    async def __call__(self) -> str | None:
        """Return why nothing says that this worker polls, or `None`."""
        try:
            pollers = await list_pollers(self._client, self._queue)
        except RPCError as error:
            return f"Temporal does not tell who polls: {' '.join(error.message.split())}"
        return self.judge(pollers, time.monotonic())

    def judge(self, pollers: tuple[Poller, ...], now: float) -> str | None:
        """Judge one look at who polls, at `now` on a clock of this process."""
        own = [poller.begun_ns for poller in pollers if poller.identity == self._identity]
        if not own:
            return f"Temporal has no poll of {self._identity} on task queue {self._queue!r}"
        if max(own) > self._newest:
            self._newest, self._seen_at = max(own), now
        if now - self._seen_at > POLL_SECONDS:
            return f"{self._identity} began its last poll {now - self._seen_at:.0f} s ago or before"
        return None


@asynccontextmanager
async def tell_health(listener: socket.socket) -> AsyncIterator[Health]:
    """Answer health checks on a listening socket for the time of the block."""
    health = Health()
    routes = [
        Route(LIVE, health.tell_live, methods=["GET"]),
        Route(READY, health.tell_ready, methods=["GET"]),
    ]
    async with serving(Starlette(routes=routes), listener):
        yield health
