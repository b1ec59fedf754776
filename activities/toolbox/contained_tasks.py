"""Tasks that tools begin: none of them ends the worker.

`SystemExit` and `KeyboardInterrupt` that leave a task are raised out of the event loop, whoever waits for the task, and
the process ends with all its calls. A tool's own task is looked after by who calls the tool; this is for tasks that the
tool begins, as task groups do.
"""

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_IS_TOOL: ContextVar[bool] = ContextVar("is_tool", default=False)


class ToolExit(Exception):
    """An exit in a task of a tool."""


@contextmanager
def contain_exits() -> Iterator[None]:
    """Raise exits in tasks that are begun in the body as `ToolExit` to who waits for them."""
    loop = asyncio.get_running_loop()
    if not isinstance(loop.get_task_factory(), _Factory):
        loop.set_task_factory(_Factory(loop.get_task_factory()))
    _IS_TOOL.set(True)
    try:
        yield
    finally:
        # Not by a token: a coroutine that is thrown away ends in another context, where that would fail.
        _IS_TOOL.set(False)


class _Factory:
    """Makes the tasks of a loop, those of tools contained."""

    def __init__(self, before: Callable[..., Any] | None) -> None:
        self._before = before

    def __call__(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **settings: Any) -> Any:
        if _IS_TOOL.get() and inspect.iscoroutine(coroutine):
            coroutine = _Contained(coroutine)
        if self._before is not None:
            return self._before(loop, coroutine, **settings)
        return asyncio.Task(coroutine, loop=loop, **settings)


class _Contained(Coroutine[Any, Any, object]):
    """A coroutine of a tool; not one that awaits it, which would leave it unawaited when its task never begins."""

    def __init__(self, coroutine: Coroutine[Any, Any, object]) -> None:
        self._coroutine = coroutine
        self.__name__ = getattr(coroutine, "__name__", "coroutine")
        self.__qualname__ = getattr(coroutine, "__qualname__", self.__name__)

    def send(self, value: Any) -> Any:
        try:
            return self._coroutine.send(value)
        except (SystemExit, KeyboardInterrupt) as error:
            raise _translate(error) from error

    def throw(self, *error: Any) -> Any:
        try:
            return self._coroutine.throw(*error)
        except (SystemExit, KeyboardInterrupt) as exit_:
            raise _translate(exit_) from exit_

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, object]:
        return self._coroutine.__await__()


def _translate(error: BaseException) -> ToolExit:
    return ToolExit(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)


def is_cancelled() -> bool:
    """Return whether the running task was cancelled, and not only something that it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def find_task() -> "asyncio.Task[object] | None":
    """Return the task that runs, or `None` where none does."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
