"""Questions to runs, asked again while a run or the server can only not answer at this moment."""

import asyncio
import time
from datetime import timedelta
from typing import Any, TypeVar

from temporalio.client import WorkflowHandle, WorkflowQueryFailedError
from temporalio.service import RPCError, RPCStatusCode

from mandate.workflows.contracts.failures import AHEAD

T = TypeVar("T")

AHEAD_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Seconds between questions to a run that is ahead of its history; the last one over and over. The second question
finds it in its place, unless the run was closed meanwhile: then it answers as it is after three seconds."""

FORGOTTEN_PAUSES = (0.2, 0.5, 1.0)
"""Seconds between questions to a run whose workers the server has forgotten: after minutes in which nobody needed a
queue it does not know who polls it, until the next poll begins."""

QUERY_SECONDS = 15.0
"""Time that one run may take to answer: longer than its task timeout; it answers again if a workflow task of
it was lost with a worker, or in one."""


async def ask(
    handle: WorkflowHandle[Any, Any],
    query: str,
    result_type: type[T],
    *arguments: Any,
    timeout_seconds: float = QUERY_SECONDS,
) -> T:
    """Return the answer of a run, which is asked again for a moment where that may help.

    Raises:
        WorkflowQueryFailedError: the run refuses; with `AHEAD` after `timeout_seconds` of that.
        RPCError: no worker answers: `FAILED_PRECONDITION` without one, or when the run's workflow task fails;
            `DEADLINE_EXCEEDED` after `timeout_seconds`.
    """
    ahead, forgotten = 0, 0
    begun = time.monotonic()
    while True:
        try:
            answer: T = await handle.query(
                query, args=arguments, result_type=result_type, rpc_timeout=timedelta(seconds=timeout_seconds)
            )
            return answer
        except WorkflowQueryFailedError as error:
            if AHEAD not in error.message or time.monotonic() - begun > timeout_seconds:
                raise
            pause_seconds = AHEAD_PAUSES[min(ahead, len(AHEAD_PAUSES) - 1)]
            ahead += 1
        except RPCError as error:
            if error.status is not RPCStatusCode.FAILED_PRECONDITION or forgotten == len(FORGOTTEN_PAUSES):
                raise
            pause_seconds = FORGOTTEN_PAUSES[forgotten]
            forgotten += 1
        await asyncio.sleep(pause_seconds)
