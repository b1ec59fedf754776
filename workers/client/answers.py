"""Answers of runs to what they are asked, or why there is none."""

import asyncio
from typing import Any, TypeVar

from pydantic import ValidationError
from temporalio.client import Client, WorkflowHandle, WorkflowQueryFailedError, WorkflowQueryRejectedError
from temporalio.service import RPCError, RPCStatusCode

from mandate.workers.client import queries
from mandate.workers.client.diagnosis import Diagnosis, diagnose
from mandate.workers.client.pollers import describe_unserved
from mandate.workers.client.queries import QUERY_SECONDS
from mandate.workflows.contracts.base import Record
from mandate.workflows.contracts.request import OpenRequests
from mandate.workflows.contracts.run import Progress
from mandate.workflows.contracts.state import RunState
from mandate.workflows.rules import quantities, wording

A = TypeVar("A", bound=Record)

NO_LIST = "it answers with something that is no list of requests"
NO_STATE = "it answers with something that is no state of a run"
NO_PROGRESS = "it answers with something that does not tell what it does"


class NotAnswering(Exception):
    """A run that cannot tell what it is asked; the text is one sentence."""

    def __init__(self, sentence: str, diagnosis: Diagnosis | None = None, unserved: str | None = None) -> None:
        super().__init__(sentence)
        self.diagnosis = diagnosis
        """Of its workflow task, where that is the reason."""
        self.unserved = unserved
        """Its task queue, where no worker answers there."""


class Unknown(Exception):
    """The error for a workflow id without a run."""


async def open_requests(
    client: Client, workflow_id: str, *, run_id: str | None = None, timeout_seconds: float = QUERY_SECONDS
) -> OpenRequests:
    """Return the requests of one run to people, recent outcomes, and the decisions that did not count.

    Raises:
        Unknown: there is no such run.
        NotAnswering: no worker answers for it, or its workflow task fails again and again.
    """
    handle = client.get_workflow_handle(workflow_id, run_id=run_id)
    told = await _ask(
        client, handle, "open_requests", OpenRequests, unreadable=NO_LIST, timeout_seconds=timeout_seconds
    )
    if told.workflow_id != workflow_id:
        # Any workflow can bear our name: what it says of another run would be decided on in its place.
        raise NotAnswering(f"it answers for another run, {wording.shorten(told.workflow_id, 80)!r}")
    return told


async def state(client: Client, workflow_id: str, *, run_id: str | None = None) -> RunState:
    """Return the state of one run; raise as `open_requests`."""
    handle = client.get_workflow_handle(workflow_id, run_id=run_id)
    return await _ask(client, handle, "state", RunState, unreadable=NO_STATE, timeout_seconds=QUERY_SECONDS)


async def progress(client: Client, workflow_id: str, *, timeout_seconds: float = QUERY_SECONDS) -> Progress:
    """Return what one run does and has used so far; raise as `open_requests`."""
    handle = client.get_workflow_handle(workflow_id)
    return await _ask(client, handle, "progress", Progress, unreadable=NO_PROGRESS, timeout_seconds=timeout_seconds)


async def _ask(
    client: Client,
    handle: WorkflowHandle[Any, Any],
    query: str,
    answer: type[A],
    *,
    unreadable: str,
    timeout_seconds: float,
) -> A:
    try:
        async with asyncio.timeout(timeout_seconds + 1):
            told: object = await queries.ask(handle, query, answer, timeout_seconds=timeout_seconds)
        if not isinstance(told, answer):
            raise NotAnswering(unreadable)
        return told
    except (ValidationError, RuntimeError):
        raise NotAnswering(unreadable) from None
    except WorkflowQueryFailedError as error:
        raise NotAnswering(_first_sentence(error.message)) from None
    except WorkflowQueryRejectedError as error:
        raise NotAnswering(str(error)) from None
    except TimeoutError:
        is_late = True
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            raise Unknown(handle.id) from None
        if error.status in {RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED}:
            is_late = True
        elif error.status is RPCStatusCode.FAILED_PRECONDITION:
            is_late = False
        else:
            raise NotAnswering(f"Temporal refused: {_first_sentence(error.message)}") from None
    if (found := await diagnose(client, handle.id, run_id=handle.run_id)) is not None:
        raise NotAnswering(found.sentence, found)
    queue = await _queue_of(handle)
    late = f"no worker of task queue {queue!r} answered within {quantities.write_seconds(timeout_seconds)}"
    raise NotAnswering(late if is_late else describe_unserved(queue), unserved=queue)


async def _queue_of(handle: WorkflowHandle[Any, Any]) -> str:
    try:
        return (await handle.describe()).task_queue
    except RPCError as error:
        raise NotAnswering(f"Temporal refused: {_first_sentence(error.message)}") from None


def _first_sentence(text: str) -> str:
    return " ".join(text.split())[:300]
