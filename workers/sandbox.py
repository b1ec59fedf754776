"""Runners that keep runs whole: no workflow task is interrupted, and none goes on from what was computed for a query.

The SDK gives a workflow task up after two seconds of the clock, and raises an exception in its thread, wherever that is
just then. Where it is in the event loop, between the end of a coroutine and those who wait for it, the run can never be
evicted, and stays stuck in that worker. Ours compute and end: what was given up is thrown away then, and tried again.
What a query may not leave behind is told in `receipts`.
"""

from typing import Any

from mandate.workers.receipts import Receipts
from temporalio import workflow
from temporalio.worker import (
    UnsandboxedWorkflowRunner,
    WorkflowInstance,
    WorkflowInstanceDetails,
)
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner


class SandboxedRunner(SandboxedWorkflowRunner):
    """Runner in the SDK's sandbox; its runs are `Uninterrupted`."""

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        return Uninterrupted(super().create_instance(det))


class UnsandboxedRunner(UnsandboxedWorkflowRunner):
    """Runner without a sandbox; its runs are `Uninterrupted`."""

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        return Uninterrupted(super().create_instance(det))


class Uninterrupted(WorkflowInstance):
    """One run, which does not say in which thread it is: the SDK interrupts only whom it can find."""

    def __init__(self, instance: WorkflowInstance) -> None:
        self._instance = instance
        self._receipts = Receipts()

    def activate(self, act: Any) -> Any:
        return self._receipts.drive(act, self._instance.activate)

    def get_serialization_context(self, command_info: Any) -> Any:
        return self._instance.get_serialization_context(command_info)

    def get_external_store_context(self, command_info: Any) -> Any:
        return self._instance.get_external_store_context(command_info)

    def get_info(self) -> workflow.Info:
        return self._instance.get_info()
