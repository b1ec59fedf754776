"""Execution of workflow code in a worker: the sandbox, and what keeps runs whole that share a process.

The SDK gives a workflow task up after two seconds of the clock, and raises an exception in its thread, wherever that is
just then. Where it is in the event loop, between the end of a coroutine and those who wait for it, the run can never be
evicted, and stays stuck in that worker. Ours compute and end: what was given up is thrown away then, and tried again.
What a query may not leave behind is told in `receipts`.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from types import ModuleType
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from temporalio import workflow
from temporalio.api.enums.v1 import CommandType
from temporalio.worker import (
    UnsandboxedWorkflowRunner,
    WorkflowInstance,
    WorkflowInstanceDetails,
    WorkflowRunner,
)
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from mandate.workers.receipts import Receipts

P = ParamSpec("P")
T = TypeVar("T")

PASSED_THROUGH = ("mandate.workflows.contracts", "mandate.workflows.rules", "cel_expr_python", "google.protobuf")
"""Imported once a process and not once a run: they are plain values and pure functions, and the library of rules."""

WORKFLOWS = "mandate.workflows"
"""All of the workflow code, whose modules hold no state of their own: imported once a process, a waiting run takes a
third of the memory, and a start half the time. Replays of stored histories in tests import the loop anew, so that the
sandbox watches it."""


def workflow_runner(*, sandboxed: bool = True, strict: bool = False) -> WorkflowRunner:
    """Return the runner of workflow code, for workers and replays; `strict` keeps all of the loop in the sandbox."""
    if not sandboxed:
        return UnsandboxedRunner()
    passed = PASSED_THROUGH if strict else (*PASSED_THROUGH, WORKFLOWS)
    return SandboxedRunner(restrictions=SandboxRestrictions.default.with_passthrough_modules(*passed))


class SandboxedRunner(SandboxedWorkflowRunner):
    """Runner in the SDK's sandbox; its runs are `Uninterrupted`."""

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        return Uninterrupted(super().create_instance(det))


class UnsandboxedRunner(UnsandboxedWorkflowRunner):
    """Runner without a sandbox; its runs are `Uninterrupted`."""

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        return Uninterrupted(super().create_instance(det))


OF_THIS_RUN = (
    CommandType.COMMAND_TYPE_SCHEDULE_ACTIVITY_TASK,
    CommandType.COMMAND_TYPE_RECORD_MARKER,
    CommandType.COMMAND_TYPE_COMPLETE_WORKFLOW_EXECUTION,
)
"""Commands whose payloads are kept with the run itself, and not with another one."""


class Uninterrupted(WorkflowInstance):
    """One run, which does not say in which thread it is: the SDK interrupts only whom it can find."""

    def __init__(self, instance: WorkflowInstance) -> None:
        self._instance = instance
        self._receipts = Receipts()
        self._own_store: Any = None

    def activate(self, act: Any) -> Any:
        return self._receipts.drive(act, self._instance.activate)

    def get_serialization_context(self, command_info: Any) -> Any:  # noqa: ARG002 - the SDK's signature
        """Return no context: our converter makes no use of it, and asking enters the sandbox for each payload."""
        return None

    def get_external_store_context(self, command_info: Any) -> Any:
        if command_info is not None and command_info.command_type not in OF_THIS_RUN:
            return self._instance.get_external_store_context(command_info)
        if self._own_store is None:
            self._own_store = self._instance.get_external_store_context(None)
        return self._own_store

    def get_info(self) -> workflow.Info:
        return self._instance.get_info()


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
