"""Resets of runs, as an operator makes them."""

from typing import Any

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client, WorkflowHandle

from mandate.workflows.contracts.run import RunResult

STARTS_CHILD = "start_child_workflow_execution_initiated_event_attributes"


async def reset(client: Client, workflow_id: str, event_id: int) -> WorkflowHandle[Any, RunResult]:
    """Reset a run to the workflow task that ends with an event; return the run that goes on."""
    made = await client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=workflow_id),
            reason="again",
            workflow_task_finish_event_id=event_id,
            request_id=f"{workflow_id}-{event_id}",
        )
    )
    return client.get_workflow_handle(workflow_id, run_id=made.run_id, result_type=RunResult)


async def reset_before(client: Client, handle: WorkflowHandle[Any, Any], begins: str) -> WorkflowHandle[Any, RunResult]:
    """Reset a run to before its first event with the attributes `begins`, or its first activity of that type."""
    events = [event async for event in handle.fetch_history_events()]
    first = next(
        event.event_id
        for event in events
        if event.activity_task_scheduled_event_attributes.activity_type.name == begins
        or (begins.endswith("_attributes") and event.HasField(begins))
    )
    tasks = [event.event_id for event in events if event.HasField("workflow_task_started_event_attributes")]
    return await reset(client, handle.id, max(task for task in tasks if task < first) + 1)
