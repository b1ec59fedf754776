"""Earlier parts of a run that has continued as new, read into its time line."""

from temporalio.client import Client, WorkflowExecution
from temporalio.service import RPCError, RPCStatusCode

from mandate.workers.history.run_history import RunHistory
from mandate.workers.history.stream import events
from mandate.workers.history.timeline import Timeline
from mandate.workers.history.timeline_reader import TimelineReader

GONE = "its first parts are not kept by Temporal any more"


async def list_earlier_parts(client: Client, run: WorkflowExecution) -> tuple[list[str], bool]:
    """Return the run ids of the parts before one, oldest first, and whether the first of all is among them."""
    found: list[str] = []
    run_id = run.run_id
    while True:
        try:
            first = await anext(events(client, run.id, run_id, wait=False, page_size=1))
        except RPCError as error:
            if error.status not in {RPCStatusCode.NOT_FOUND, RPCStatusCode.INVALID_ARGUMENT}:
                raise
            return [one for one in reversed(found) if one != run_id], False
        started = first.workflow_execution_started_event_attributes
        run_id = started.continued_execution_run_id
        # A schedule hands the run id of its run before on, too: that is another run.
        if not run_id or started.first_execution_run_id == started.original_execution_run_id:
            return list(reversed(found)), True
        found.append(run_id)


async def read_earlier_parts(client: Client, run: WorkflowExecution, reader: TimelineReader) -> None:
    """Read the parts before one into `reader`, which then says if some are gone."""
    run_ids, is_whole = await list_earlier_parts(client, run)
    if not is_whole:
        reader.timeline.missing = GONE
    for run_id in run_ids:
        history = RunHistory(client.data_converter)
        async for event in events(client, run.id, run_id, wait=False):
            await reader.take(event, history)


async def read_whole(client: Client, run: WorkflowExecution) -> tuple[Timeline, RunHistory]:
    """Return the time line of a run over all its parts, and the history of the newest one."""
    fetched = [event async for event in events(client, run.id, run.run_id, wait=False)]
    reader, history = TimelineReader(), RunHistory(client.data_converter)
    if fetched and fetched[0].workflow_execution_started_event_attributes.continued_execution_run_id:
        await read_earlier_parts(client, run, reader)
    for event in fetched:
        await reader.take(event, history)
    return reader.timeline, history
