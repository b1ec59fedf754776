"""Tasks that tools begin: their exits reach who waits for them, and all else is as it is without us."""

import asyncio
import warnings

import pytest

from mandate.activities.toolbox.contained_tasks import ToolExit, contain_exits


async def leave(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


@pytest.mark.parametrize(
    ("error", "words"), [(SystemExit(3), "SystemExit: 3"), (KeyboardInterrupt(), "KeyboardInterrupt")]
)
async def test_exit_of_a_task_is_an_error_of_it(error: BaseException, words: str) -> None:
    with contain_exits():
        task = asyncio.create_task(leave(error))
    with pytest.raises(ToolExit) as left:
        await task

    assert (str(left.value), left.value.__cause__) == (words, error)


async def test_task_is_what_it_is_otherwise() -> None:
    async def compute() -> int:
        await asyncio.sleep(0)
        return 5

    with contain_exits():
        task = asyncio.create_task(compute(), name="mine")
        failing = asyncio.create_task(leave(ValueError("plain")))
        slow = asyncio.create_task(asyncio.sleep(60))

    assert (task.get_name(), "compute" in repr(task)) == ("mine", True)
    assert await task == 5
    with pytest.raises(ValueError, match="plain"):
        await failing
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow


async def test_task_that_never_begins_leaves_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with contain_exits():
            task = asyncio.create_task(leave(ValueError()))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_tasks_begun_elsewhere_are_left_alone() -> None:
    async def inside() -> None:
        with contain_exits():
            await asyncio.sleep(0)

    await inside()
    task = asyncio.create_task(asyncio.sleep(0))
    await task

    assert type(task.get_coro()).__name__ == "coroutine"


async def test_factory_of_the_loop_is_kept() -> None:
    loop, made = asyncio.get_running_loop(), list[str]()

    def make(loop: asyncio.AbstractEventLoop, coroutine: object, **settings: object) -> asyncio.Task[object]:
        made.append(getattr(coroutine, "__name__", ""))
        return asyncio.Task(coroutine, loop=loop, **settings)  # type: ignore[arg-type]

    loop.set_task_factory(make)  # type: ignore[arg-type]
    with contain_exits():
        await asyncio.create_task(asyncio.sleep(0))

    assert made == ["sleep"]
