"""State of other runs, as they tell it: it may be of one that goes on, or has ended in any way."""

import asyncio
from typing import Any

from temporalio.client import WorkflowHandle, WorkflowQueryFailedError
from temporalio.service import RPCError, RPCStatusCode

from mandate.workflows.contracts.failures import AHEAD, NOT_BEGUN
from mandate.workflows.contracts.state import RunState

QUERY_SECONDS = 20.0

UNSTARTED = "closed before WorkflowTaskStarted"
"""In the server's answer to a query to a run that was ended before anything of it was in its history."""

AHEAD_PAUSE_SECONDS = 0.2
"""Time between queries to a run that is ahead of its history."""


class Unbegun(Exception):
    """A run that has done nothing yet, and has no state; the text is one sentence, without a subject."""


class TellsNothing(Exception):
    """A run that cannot tell its state; the text is the reason."""


async def query_state(handle: WorkflowHandle[Any, Any]) -> RunState:
    """Return how a run stands or ended.

    Raises:
        Unbegun: it has none.
        TellsNothing: it is no run of ours, or its history cannot be followed.
        RPCError: Temporal, or a worker for it, does not answer now.
    """
    try:
        async with asyncio.timeout(QUERY_SECONDS):
            while True:
                try:
                    state: RunState = await handle.query("state", result_type=RunState)
                    return state
                except WorkflowQueryFailedError as error:
                    if AHEAD not in error.message:
                        raise
                    await asyncio.sleep(AHEAD_PAUSE_SECONDS)
    except WorkflowQueryFailedError as error:
        if NOT_BEGUN in error.message:
            raise Unbegun(f"tells nothing of itself: {error.message}") from None
        raise TellsNothing(error.message) from None
    except TimeoutError:
        raise RPCError("the run did not answer in time", RPCStatusCode.DEADLINE_EXCEEDED, b"") from None
    except RPCError as error:
        if UNSTARTED not in error.message:
            raise
        raise Unbegun("was ended before it began its work") from None
