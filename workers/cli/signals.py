"""Commands that run until they are told to stop."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

from mandate.activities import child_processes
from mandate.workers.cli.errors import INTERRUPTED


def leave(code: int) -> NoReturn:
    """End the process at once: threads that may never end are left, child processes are killed."""
    child_processes.kill_all()
    os._exit(code)


@contextmanager
def stop_signals(on_first: Callable[[], None]) -> Iterator[asyncio.Event]:
    """Return an event that SIGINT or SIGTERM sets; a second signal ends the process at once."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()

    def stop() -> None:
        if stopped.is_set():
            # Without cleaning up: who asks twice does not want to wait.
            leave(INTERRUPTED)
        stopped.set()
        on_first()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    try:
        yield stopped
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
