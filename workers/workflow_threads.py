"""The threads of workflow tasks, in which nothing touches a run while a task of it is still being worked on."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from types import ModuleType
from typing import ParamSpec, TypeVar
from weakref import WeakKeyDictionary

P = ParamSpec("P")
T = TypeVar("T")


WAIT_SECONDS = 1.5
"""Less than the SDK gives an eviction, which it then tries again: no thread waits for good."""


class WorkflowThreads(ThreadPoolExecutor):
    """Pool in which calls of methods of one object come one after another.

    The SDK gives a workflow task up that takes more than two seconds, which a machine with too much to do is enough
    for, and evicts the run while the thread of the task goes on. Two threads would then step the same coroutines,
    wake-ups be lost, and the eviction never succeed: the run would be stuck in that worker for good. Here the eviction
    waits for the thread, and the task is tried again.
    """

    def __init__(self, max_workers: int) -> None:
        super().__init__(max_workers, thread_name_prefix="workflow_task")
        self._locks: WeakKeyDictionary[object, Lock] = WeakKeyDictionary()
        self._made = Lock()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        owner: object = getattr(fn, "__self__", None)
        if owner is None or isinstance(owner, ModuleType):
            return super().submit(fn, *args, **kwargs)
        with self._made:
            lock = self._locks.setdefault(owner, Lock())

        def alone(*its: P.args, **named: P.kwargs) -> T:
            if not lock.acquire(timeout=WAIT_SECONDS):
                raise RuntimeError("a task of this run is still being worked on")
            try:
                return fn(*its, **named)
            finally:
                lock.release()

        return super().submit(alone, *args, **kwargs)
