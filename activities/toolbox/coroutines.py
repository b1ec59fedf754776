"""Coroutines of users, in an event loop and a thread of their own.

One that blocks its loop holds up other coroutines of users only: the worker's own loop goes on, with the heartbeats of
all calls.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import cache, partial
from typing import TypeAlias, TypeVar

from mandate.activities.toolbox.contained_tasks import contain_exits

GRACE_SECONDS = 1.0
"""Time for the loop to take a cancellation in. One that does not is blocked, and its coroutine is not waited for."""

_Result = TypeVar("_Result")
_Outcome: TypeAlias = tuple[list[_Result], BaseException | None]
"""The result alone in a list, or an error."""


async def run_coroutine(function: Callable[[], Awaitable[_Result]]) -> _Result:
    """Await what `function` returns in the users' loop, with this task's context variables.

    A cancellation is passed on, and the coroutine's end is waited for. One that returned before it came, or in spite
    of it, has its result returned, so that nothing that was done is lost; the caller's task stays `cancelling`.

    Raises:
        BaseException: whatever it raised; exits in tasks that it began as `ToolExit`.
        asyncio.CancelledError: the caller was cancelled.
    """
    here, there = asyncio.get_running_loop(), _start_loop()
    came: asyncio.Future[_Outcome[_Result]] = here.create_future()
    tasks = list[asyncio.Task[_Outcome[_Result]]]()

    def settle(outcome: _Outcome[_Result]) -> None:
        if not came.done():
            came.set_result(outcome)

    def end(task: asyncio.Task[_Outcome[_Result]]) -> None:
        # One that is cancelled before its first step has no outcome of its own.
        outcome = ([], asyncio.CancelledError()) if task.cancelled() else task.result()
        # The worker's loop may be gone: a coroutine can outlive it.
        with suppress(RuntimeError):
            here.call_soon_threadsafe(settle, outcome)

    def begin() -> None:
        tasks.append(there.create_task(_capture(function)))
        tasks[0].add_done_callback(end)

    there.call_soon_threadsafe(begin)
    while not came.done():
        try:
            await asyncio.shield(came)
        except asyncio.CancelledError:
            if not await _pass_on(there, tasks):
                raise
    returned, error = came.result()
    if error is not None:
        raise error
    return returned[0]


async def _pass_on(there: asyncio.AbstractEventLoop, tasks: Sequence[asyncio.Task[_Outcome[_Result]]]) -> bool:
    """Cancel the coroutine; return whether its loop has taken that in."""
    here, taken = asyncio.get_running_loop(), asyncio.Event()

    def cancel() -> None:
        for task in tasks:
            task.cancel()
        with suppress(RuntimeError):
            here.call_soon_threadsafe(taken.set)

    there.call_soon_threadsafe(cancel)
    with suppress(TimeoutError):
        await asyncio.wait_for(taken.wait(), GRACE_SECONDS)
    return taken.is_set()


async def _capture(function: Callable[[], Awaitable[_Result]]) -> _Outcome[_Result]:
    """Await what `function` returns and keep its result or error as a value: exits would end the thread."""
    try:
        with contain_exits():
            return [await function()], None
    except BaseException as error:  # noqa: BLE001 - raised again where it is awaited
        return [], error


@cache
def _start_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    # A daemon, so that a coroutine that never returns cannot keep a worker from ending.
    threading.Thread(target=partial(_serve, loop), name="coroutines", daemon=True).start()
    return loop


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()
