"""Sync functions of users in threads of their own."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from queue import SimpleQueue

MOST_IDLE = 16
"""Threads that wait for the next function; others end with theirs."""

_IDLE: deque[SimpleQueue[Callable[[], None]]] = deque()


async def run_in_thread(
    function: Callable[[], object], cancellation: threading.Event, *, ended: Callable[[], object]
) -> object:
    """Run `function` in a thread that sees this task's context variables; call `ended` in it last.

    Raises:
        BaseException: whatever `function` raised; `StopIteration`, which no coroutine can raise, as `RuntimeError`.
        asyncio.CancelledError: the caller was cancelled; `cancellation` is set, and the thread goes on.
    """
    loop, within = asyncio.get_running_loop(), copy_context()
    came: asyncio.Future[tuple[object, BaseException | None]] = loop.create_future()

    def run() -> None:
        outcome = within.run(_capture, function)
        ended()
        # The loop may be gone: a thread can outlive its worker.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(lambda: None if came.done() else came.set_result(outcome))

    _hand_over(run)
    try:
        returned, error = await came
    except asyncio.CancelledError:
        cancellation.set()
        raise
    if error is not None:
        raise error
    return returned


def _hand_over(job: Callable[[], None]) -> None:
    """Let an idle thread do `job`, or a new one: starting one takes longer than most tools."""
    try:
        jobs = _IDLE.pop()
    except IndexError:
        jobs = SimpleQueue()
        # A daemon, so that a function that never returns cannot keep a worker from ending.
        threading.Thread(target=_serve, args=(jobs,), name="tool", daemon=True).start()
    jobs.put(job)


def _serve(jobs: SimpleQueue[Callable[[], None]]) -> None:
    while True:
        jobs.get()()
        if len(_IDLE) >= MOST_IDLE:
            return
        _IDLE.append(jobs)


def _capture(function: Callable[[], object]) -> tuple[object, BaseException | None]:
    """Run `function` and keep its result or error as a value, since futures do not carry every exception."""
    try:
        return function(), None
    except StopIteration as error:
        return None, RuntimeError("StopIteration was raised").with_traceback(error.__traceback__)
    except BaseException as error:  # noqa: BLE001 - raised again where it is awaited
        return None, error
