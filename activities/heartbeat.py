"""Heartbeats from a background task, so that a lost worker is noticed and a cancellation arrives."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio import activity

from mandate.workflows.contracts.tool import QUICK_SECONDS


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
async def send_heartbeats(details: tuple[object, ...] = ()) -> AsyncIterator[Heart]:
    """Beat four times within the activity's heartbeat timeout while the body runs, each time with `details`."""
    timeout = activity.info().heartbeat_timeout
    heart = Heart(timeout.total_seconds() if timeout is not None else None)
    if timeout is None:
        yield heart
        return
    beats = asyncio.create_task(_beat(heart, timeout.total_seconds() / 4, details))
    try:
        yield heart
    finally:
        beats.cancel()


async def _beat(heart: Heart, interval: float, details: tuple[object, ...]) -> None:
    while True:
        await asyncio.sleep(interval)
        heart.beat(details)
