"""People who answer a run: what a test needs to ask it, and to decide."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from mandate.workers.client import queries
from mandate.workers.history.local_activities import read_local_activity
from mandate.workflows.contracts.request import (
    CHOICES,
    Notified,
    NotifyRequest,
    OpenRequests,
    Receipt,
    Request,
    RequestKind,
    Told,
)

PEOPLE = {
    "people": [
        {"name": "ann@example.com", "addresses": ["ann"], "groups": ["finance"]},
        {"name": "bob@example.com", "groups": ["finance", "leads"]},
        {"name": "cleo@example.com", "groups": ["legal"]},
        {"name": "dan@example.com", "groups": []},
        {"name": "eve@example.com", "groups": []},
    ]
}

ASK_ALL: list[dict[str, Any]] = [
    {"id": "asked", "match": {"tools": ["pay", "send"]}, "verdict": "ask", "approvers": {"groups": ["finance"]}},
    {"id": "rest", "match": {"tools": ["look*", "big", "hang", "write_note"]}, "verdict": "allow"},
]


def bare_request(kind: RequestKind) -> Request:
    """A request of a kind with nothing that a test does not need."""
    return Request(
        id="r1",
        kind=kind,
        digest="d" * 43,
        title="?",
        reason="because",
        step=1,
        index=0,
        head="h" * 43,
        choices=CHOICES[kind],
        needs=(),
        requested_at=datetime(2026, 11, 2, tzinfo=UTC),
    )


def write_people(folder: Path, people: dict[str, Any] | None = None) -> Path:
    path = folder / "people.yaml"
    path.write_text(json.dumps(people or PEOPLE))
    return path


async def open_requests(handle: WorkflowHandle[Any, Any]) -> OpenRequests:
    return await queries.ask(handle, "open_requests", OpenRequests)


async def stop(handle: WorkflowHandle[Any, Any], said: dict[str, Any]) -> Any:
    """The answer to a stop, sent again when its workflow task failed: the run may end just as something else comes."""
    while True:
        try:
            return await handle.execute_update("stop", said)
        except RPCError as error:
            if error.status is not RPCStatusCode.FAILED_PRECONDITION:
                raise
            await asyncio.sleep(0.05)


async def asked(handle: WorkflowHandle[Any, Any], count: int = 1) -> tuple[Request, ...]:
    """The open requests, once there are so many."""
    async with asyncio.timeout(30):
        while True:
            try:
                found = (await open_requests(handle)).requests
            except Exception as error:
                if "not begun" not in str(error):
                    raise
                found = ()
            if len(found) >= count:
                return found
            await asyncio.sleep(0.05)


async def told_of(client: Client, handle: WorkflowHandle[Any, Any]) -> tuple[Request, ...]:
    """The requests that people were told of, those included that nobody could see because they have expired already."""
    found: list[Request] = []
    async for event in handle.fetch_history_events():
        scheduled = event.activity_task_scheduled_event_attributes
        if scheduled.activity_type.name == "notify_people":
            (told,) = await client.data_converter.decode(scheduled.input.payloads, [NotifyRequest])
            found += [notice.request for notice in told.notices]
        local = read_local_activity(event)
        if local is not None and local.kind == "notify_people" and local.result:
            (notified,) = await client.data_converter.decode(local.result, [Notified])
            found += [notice.request for notice in notified.notices]
    return tuple(found)


def decision(request: Request, choice: str = "approve", by: str = "ann@example.com", **more: Any) -> dict[str, Any]:
    return {"request": request.id, "digest": request.digest, "choice": choice, "by": by, **more}


async def decide(
    handle: WorkflowHandle[Any, Any],
    request: Request,
    choice: str = "approve",
    by: str = "ann@example.com",
    **more: Any,
) -> Receipt:
    return await send_update(handle, "decide", decision(request, choice, by, **more), result_type=Receipt)


async def send_update(handle: WorkflowHandle[Any, Any], verb: str, *arguments: Any, **options: Any) -> Any:
    """Send an update as any client must, and return its answer.

    The server throws it away when its workflow task is done again, because something else came as the run ended.
    """
    options = {"args": list(arguments), "id": f"{verb}-{uuid4()}", **options}
    while True:
        try:
            return await handle.execute_update(verb, **options)
        except RPCError as error:
            is_lost = "due to unexpected workflow task failure" in error.message
            if not is_lost or (await handle.describe()).status is not WorkflowExecutionStatus.RUNNING:
                raise


async def refusal_of(handle: WorkflowHandle[Any, Any], verb: str, *arguments: Any) -> str:
    """The sentence with which an update is refused."""
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await send_update(handle, verb, *arguments, result_type=Told)
    assert isinstance(refused.value.cause, ApplicationError)
    assert refused.value.cause.type == "DecisionRefused"
    return refused.value.cause.message
