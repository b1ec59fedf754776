"""A workflow of a user that starts a run of an agent as its child, beside a child of another kind."""

from typing import Any

from temporalio import workflow

AGENTS = "AgentWorkflow"


@workflow.defn(name="OrderWorkflow")
class StartingWorkflow:
    @workflow.run
    async def run(self, request: dict[str, Any], queue: str) -> None:
        own = workflow.info().workflow_id
        await workflow.start_child_workflow("PackWorkflow", id=f"{own}-pack")
        handle = await workflow.start_child_workflow(AGENTS, request, id=f"{own}-agent", task_queue=queue)
        await handle


@workflow.defn(name="PackWorkflow")
class PackingWorkflow:
    @workflow.run
    async def run(self) -> None:
        pass
