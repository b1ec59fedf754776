"""Heartbeats from a background task, so that a lost worker is noticed and a cancellation arrives."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from temporalio import activity
from temporalio.client import AsyncActivityCancelledError

from mandate.workflows.contracts.tool import QUICK_SECONDS

LEFT_WITHIN = timedelta(seconds=10)
"""Time that the server has to take in what an attempt leaves behind."""


class Stopwatch:
    """Stopwatch of one attempt."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    @property
    def is_quick(self) -> bool:
        return self.seconds <= QUICK_SECONDS


def leave(*details: object) -> None:
    """Leave `details` behind for the next attempt; a local activity has none."""
    if not activity.info().is_local:
        activity.heartbeat(*details)


async def leave_surely(*details: object) -> None:
    """Leave `details` behind and return once the server has them, whatever becomes of this worker then.

    Other heartbeats reach the server a few seconds later.

    Raises:
        RPCError: the server did not take them; also where it has given this attempt up.
    """
    leave(*details)
    info = activity.info()
    if info.is_local:
        return
    try:
        client = activity.client()
    except RuntimeError:
        # An activity without a worker, of a test.
        return
    # A cancellation comes by the ordinary heartbeats.
    with suppress(AsyncActivityCancelledError):
        await client.get_async_activity_handle(task_token=info.task_token).heartbeat(*details, rpc_timeout=LEFT_WITHIN)


class Heart:
    """The server's knowledge of this attempt, as far as this process can tell."""

    def __init__(self, timeout_seconds: float | None) -> None:
        self._timeout = timeout_seconds
        self._last = time.monotonic()
        self._stood_still = False

    @property
    def has_stood_still(self) -> bool:
        """True if the server heard nothing for longer than it waits: the attempt is given up, its waiters are told."""
        if self._timeout is not None and time.monotonic() - self._last > self._timeout:
            self._stood_still = True
        return self._stood_still

    def beat(self, details: tuple[object, ...] = ()) -> None:
        if not self.has_stood_still:
            self._last = time.monotonic()
        activity.heartbeat(*details)


@asynccontextmanager
async def send_heartbeats(describe: Callable[[], tuple[object, ...]] = tuple) -> AsyncIterator[Heart]:
    """Beat four times within the heartbeat timeout until the body ends, each time with what `describe` returns."""
    timeout = activity.info().heartbeat_timeout
    heart = Heart(timeout.total_seconds() if timeout is not None else None)
    if timeout is None:
        yield heart
        return
    beats = asyncio.create_task(_beat(heart, timeout.total_seconds() / 4, describe))
    try:
        yield heart
    finally:
        beats.cancel()


async def _beat(heart: Heart, interval: float, describe: Callable[[], tuple[object, ...]]) -> None:
    while True:
        await asyncio.sleep(interval)
        heart.beat(describe())
