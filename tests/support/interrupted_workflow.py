"""Stand-ins for runs that end, or continue as new, in a task that the server has done again since something came."""

import threading
from typing import Any

from temporalio import workflow

from mandate.workflows.contracts.request import Receipt

BEGUN, GO_ON = threading.Event(), threading.Event()
"""The first task has begun; it may end."""

RECEIPT = Receipt(request="*", status="rejected", message="0 requests rejected")


@workflow.defn(name="AgentWorkflow")
class InterruptedWorkflow:
    """Takes so many parts, and in the last of them one decision."""

    def __init__(self) -> None:
        self._is_told = False

    @workflow.run
    async def run(self, parts: int) -> None:
        if parts > 1:
            BEGUN.set()
            # Less than the SDK lets a task take.
            GO_ON.wait(1.5)
            workflow.continue_as_new(parts - 1)
        await workflow.wait_condition(lambda: self._is_told and workflow.all_handlers_finished())

    @workflow.signal
    def pause(self, halt: Any) -> None:
        """It only has to come."""

    @workflow.update
    def decide(self, decision: Any) -> Receipt:
        self._is_told = True
        return RECEIPT


@workflow.defn(name="AgentWorkflow")
class EndingWorkflow:
    """Ends in its first task, whatever was sent to it meanwhile."""

    @workflow.run
    async def run(self) -> None:
        BEGUN.set()
        GO_ON.wait(1.5)

    @workflow.update
    def decide(self, decision: Any) -> Receipt:
        return RECEIPT
