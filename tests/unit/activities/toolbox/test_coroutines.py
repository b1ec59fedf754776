"""Coroutines of users run beside the worker's event loop, and end as they would in it."""

import asyncio
import threading
import time
from contextvars import ContextVar

import pytest

from mandate.activities.toolbox import coroutines
from mandate.activities.toolbox.contained_tasks import ToolExit
from mandate.activities.toolbox.coroutines import run_coroutine

PLACE: ContextVar[str] = ContextVar("PLACE")


async def test_loop_of_the_worker_goes_on_while_a_coroutine_blocks() -> None:
    began = threading.Event()

    async def block() -> str:
        began.set()
        time.sleep(0.5)
        return "done"

    running = asyncio.create_task(run_coroutine(block))
    turns = 0
    while not running.done():
        await asyncio.sleep(0.01)
        turns += 1

    assert await running == "done"
    assert turns > 10


async def test_all_coroutines_have_one_loop_and_see_the_callers_context() -> None:
    async def look() -> tuple[int, str]:
        return id(asyncio.get_running_loop()), PLACE.get()

    PLACE.set("here")
    first, second = await run_coroutine(look), await run_coroutine(look)

    assert first == second
    assert first[0] != id(asyncio.get_running_loop())
    assert first[1] == "here"


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError])
async def test_whatever_it_raises_is_raised_here_and_the_loop_goes_on(error: type[BaseException]) -> None:
    async def fail() -> None:
        raise error("no")

    async def succeed() -> str:
        return "yes"

    with pytest.raises(error):
        await run_coroutine(fail)
    assert await run_coroutine(succeed) == "yes"


async def test_exit_of_a_task_that_it_began_is_contained() -> None:
    async def leave() -> None:
        raise SystemExit("bye")

    async def begin() -> None:
        await asyncio.create_task(leave())

    with pytest.raises(ToolExit):
        await run_coroutine(begin)


async def test_cancellation_is_passed_on_and_its_end_waited_for() -> None:
    said = list[str]()

    async def clean_up() -> None:
        said.append("begun")
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.05)
            said.append("cleaned up")

    running = asyncio.create_task(run_coroutine(clean_up))
    while not said:
        await asyncio.sleep(0.005)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert said == ["begun", "cleaned up"]


async def test_coroutine_that_is_cancelled_before_its_first_step_is_not_waited_for() -> None:
    said = list[str]()

    async def begin() -> None:
        said.append("begun")

    running = asyncio.create_task(run_coroutine(begin))
    await asyncio.sleep(0)
    running.cancel()

    await asyncio.wait([running], timeout=10)
    assert running.done()


async def test_loop_that_is_blocked_keeps_nobody_from_leaving(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coroutines, "GRACE_SECONDS", 0.05)
    release, began = threading.Event(), threading.Event()

    async def block() -> None:
        began.set()
        release.wait(60)

    running = asyncio.create_task(run_coroutine(block))
    while not began.is_set():
        await asyncio.sleep(0.005)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert not release.is_set()
    release.set()
