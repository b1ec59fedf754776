"""The events of a run while it goes on, from Temporal."""

from collections.abc import AsyncIterator, Sequence

from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client

from mandate.workers.history.events import Happening
from mandate.workers.history.run_history import RunHistory


async def unfolding(
    client: Client, workflow_id: str, run_id: str | None
) -> AsyncIterator[tuple[RunHistory, Sequence[Happening]]]:
    """Yield what is known of a run after each of its events, and what happened with it; continued runs included.

    Raises:
        RPCError: there is no such run, or Temporal does not answer any more.
    """
    following = run_id
    while True:
        history = RunHistory(client.data_converter)
        async for event in events(client, workflow_id, following, wait=True):
            yield history, await history.add(event)
        if history.ended is None or history.ended.continued_as is None:
            return
        following = history.ended.continued_as


async def events(
    client: Client, workflow_id: str, run_id: str | None, *, wait: bool, page_size: int | None = None
) -> AsyncIterator[HistoryEvent]:
    """Yield the history of one Temporal run, oldest first; with `wait` to its end, which may be far off."""
    handle = client.get_workflow_handle(workflow_id, run_id=run_id)
    async for event in handle.fetch_history_events(wait_new_event=wait, page_size=page_size):
        yield event
