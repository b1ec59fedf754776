"""Messages that are many or heavy: a run takes what it can, refuses the rest in words, and lives."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowHandle, WorkflowQueryFailedError, WorkflowUpdateFailedError
from temporalio.service import RPCError

from mandate.workers.sandbox import SandboxedRunner, WorkflowThreads
from mandate.workers.worker import TASK_SECONDS
from mandate.workflows.contracts.request import OpenRequests
from mandate.workflows.contracts.run import RunStatus
from tests.support.agents import Site, new_site
from tests.support.attacks import failed_tasks, whole_history
from tests.support.people import ASK_ALL, asked, decide, decision, open_requests, refusal_of, stop, write_people

HEAVY = [{"k0": 0}] * 3500
"""About a hundred milliseconds of work in all for each twenty of it."""


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))


async def test_heavy_signals_that_come_together_do_not_kill_a_run(site: Site) -> None:
    site.write("asks", [{"call": [{"pay": {"order": 1}}]}, {"say": "done"}], policy=ASK_ALL)
    async with site.serving():
        handle = await site.start("asks")
        (request,) = await asked(handle)
    heavy = decision(request, "reject", value=HEAVY)

    await asyncio.gather(*(handle.signal("decide", heavy) for _ in range(100)))
    await handle.signal("stop", {"by": "ann@example.com", "reason": "enough"})
    async with site.serving():
        result = await handle.result()
        refused = await in_time(handle)

    assert (result.status, result.reason) == (RunStatus.STOPPED, "stopped by ann@example.com: enough")
    assert refused.refusals == 100
    assert refused.refused[-1].reason == "too much came to the run at once; send it again in a moment"
    failed = failed_tasks(await whole_history(site.client, handle))
    assert [message for message in failed if GIVEN_UP not in message] == []


GIVEN_UP = "[TMPRL1101]"
"""The task was not done within the worker's `TASK_SECONDS`, which is for a busy machine; it is tried again."""


async def in_time(handle: WorkflowHandle[Any, Any]) -> OpenRequests:
    """What the run says of its requests, once the machine is quick enough for it."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await open_requests(handle)
            except (RPCError, WorkflowQueryFailedError) as error:
                if GIVEN_UP not in str(error):
                    raise


def _has_failed(event: HistoryEvent) -> bool:
    return event.HasField("workflow_task_failed_event_attributes")


async def test_a_task_that_took_too_long_is_tried_again(site: Site) -> None:
    """A task is given up after `TASK_SECONDS`, here sooner, while its thread goes on; then the run is evicted."""
    calls = [{"pay": {"order": number}} for number in range(100)]
    site.write("many", [{"call": calls}, {"say": "done"}], policy=ASK_ALL)
    async with site.serving() as worker:
        # What this takes rarely fails without them: two threads in one run, and an interrupt at the wrong place.
        settings = worker.config()
        assert isinstance(settings["workflow_task_executor"], WorkflowThreads)
        assert isinstance(settings["workflow_runner"], SandboxedRunner)
        given_up = worker._workflow_worker
        assert given_up is not None
        for _ in range(3):
            handle = await site.start("many")
            requests = await asked(handle, 100)
            assert given_up._deadlock_timeout_seconds == TASK_SECONDS
            given_up._deadlock_timeout_seconds = 0.001  # type: ignore[assignment]
            await asyncio.gather(*(handle.signal("decide", decision(request)) for request in requests))
            async with asyncio.timeout(30):
                while not any([_has_failed(event) async for event in handle.fetch_history_events()]):
                    await asyncio.sleep(0.05)
            given_up._deadlock_timeout_seconds = TASK_SECONDS
            async with asyncio.timeout(60):
                result = await handle.result()

            assert (result.status, result.effects.count) == (RunStatus.COMPLETED, 100)


async def test_a_message_in_too_many_pieces_is_not_read(site: Site) -> None:
    site.write("asks", [{"call": [{"pay": {"order": 1}}]}, {"say": "done"}], policy=ASK_ALL)

    async with site.serving():
        handle = await site.start("asks")
        (request,) = await asked(handle)
        said = await refusal_of(handle, "decide", decision(request, "reject", value=[{"k": 0}] * 6000))
        await decide(handle, request)
        await handle.result()

    assert said == "takes one JSON object of at most 50 keys and 131072 characters in all"


async def test_changed_arguments_of_a_turn_stay_within_what_a_run_can_carry(site: Site) -> None:
    """Many small values, which no reference can stand for."""
    act = {
        "http": {"method": "POST", "url": "http://127.0.0.1:9/"},
        "name": "act",
        "input_schema": {"type": "object", "additionalProperties": True},
    }
    calls, tools = [{"act": {"order": number}} for number in range(12)], [{**act, "effect": "keyed"}]
    ask = {"id": "two", "match": {}, "verdict": "ask", "quorum": 2, "approvers": {"groups": ["finance"]}}
    site.write("asks", [{"call": calls}, {"say": "done"}], tools=tools, policy=[ask])
    value = {f"k{number}": number for number in range(4500)}

    async with site.serving():
        handle = await site.start("asks")
        requests = await asked(handle, 12)
        said = []
        for request in requests:
            try:
                await decide(handle, request, value=value)
            except WorkflowUpdateFailedError as error:
                said.append(getattr(error.cause, "message", ""))
        await stop(handle, {"by": "ann@example.com"})
        result = await handle.result()

    assert result.status is RunStatus.STOPPED
    assert said
    assert set(said) == {"value: the changed arguments of this turn's calls would be over 524288 bytes together"}
