"""Sync functions of users in threads of their own."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context


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

    # A daemon, so that a function that never returns cannot keep a worker from ending.
    threading.Thread(target=run, name="tool", daemon=True).start()
    try:
        returned, error = await came
    except asyncio.CancelledError:
        cancellation.set()
        raise
    if error is not None:
        raise error
    return returned


def _capture(function: Callable[[], object]) -> tuple[object, BaseException | None]:
    """Run `function` and keep its result or error as a value, since futures do not carry every exception."""
    try:
        return function(), None
    except StopIteration as error:
        return None, RuntimeError("StopIteration was raised").with_traceback(error.__traceback__)
    except BaseException as error:  # noqa: BLE001 - raised again where it is awaited
        return None, error
