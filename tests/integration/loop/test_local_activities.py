"""What is quick runs within the workflow task; nothing else does, and nothing is lost when it is not quick any more."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle

from mandate.workers.client.client import connect
from mandate.workers.dev_server.server import run_private_server
from mandate.workers.history.local_activities import MARKER, read_local_activity
from mandate.workers.history.record import read_record
from tests.support.agents import Site, new_site, parts_taken, texts_told
from tests.support.people import ASK_ALL, asked, decide, decision, refusal_of, send_update, write_people
from tests.support.toolkit import LET_GO, TOOLKIT_CHECKS, calls_of

TOOLS = [{"python": f"tests.support.toolkit:{name}"} for name in ("look", "look_bad", "big", "pay")]

Run = WorkflowHandle[Any, Any]


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))


def look(*names: str, **more: object) -> dict[str, Any]:
    return {"call": [{"look": {"what": name, **more}} for name in names]}


async def events(handle: Run) -> list[HistoryEvent]:
    return [event async for event in handle.fetch_history_events()]


async def ways(handle: Run) -> tuple[Counter[str], Counter[str]]:
    """How often each activity was ordinary, and how often local."""
    ordinary, local = Counter[str](), Counter[str]()
    for event in await events(handle):
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
            ordinary[event.activity_task_scheduled_event_attributes.activity_type.name] += 1
        elif event.marker_recorded_event_attributes.marker_name == MARKER:
            done = read_local_activity(event)
            assert done is not None
            local[done.kind] += 1
    return ordinary, local


@pytest.mark.parametrize("cache", [1000, 0])
async def test_read_is_local_once_it_was_quick(site: Site, cache: int) -> None:
    """With no run kept in memory, each task replays all local activities before it."""
    turns = [look("a"), look("b", "c"), {"call": [{"big": {"size": 3000}}]}, {"call": [{"big": {"size": 3000}}]}]
    site.write("quick", [*turns, {"say": "done"}], tools=TOOLS)
    async with site.serving(max_cached_workflows=cache):
        handle = await site.start("quick")
        result = await handle.result()

    assert (result.status, result.output) == ("completed", "done")
    assert await ways(handle) == ({"call_model": 5, "run_tool": 2}, {"pin_agent": 1, "run_tool": 3})
    told = await texts_told(site, result.head)
    assert [text[:11] for text in told] == ["looked at a", "looked at b", "looked at c", "000000000\n0", "000000000\n0"]
    assert [call.arguments for call in calls_of(handle.id, "look")] == [{"what": "a"}, {"what": "b"}, {"what": "c"}]


async def test_what_changes_the_world_is_never_local(site: Site) -> None:
    site.write("pays", [{"call": [{"pay": {"order": n}}]} for n in range(3)] + [{"say": "done"}], tools=TOOLS)
    async with site.serving():
        handle = await site.start("pays")
        await handle.result()

    assert await ways(handle) == ({"call_model": 4, "run_tool": 3}, {"pin_agent": 1})


async def test_read_that_hangs_goes_on_as_an_ordinary_activity_and_messages_are_answered(site: Site) -> None:
    turns = [look("a"), look("b", held=True), look("c"), look("d"), {"say": "done"}]
    site.write("hangs", turns, tools=TOOLS)
    async with site.serving():
        handle = await site.start("hangs")
        async with asyncio.timeout(20):
            while len(calls_of(handle.id, "look")) < 3:
                await asyncio.sleep(0.02)
        before = len(calls_of(handle.id, "look"))
        await send_update(handle, "steer", {"by": "ann@example.com", "text": "Be brief."})
        under_way = [call for call in calls_of(handle.id, "look") if call.ended is None]
        await asyncio.sleep(0.3)
        LET_GO.add(handle.id)
        result = await handle.result()

    assert (before, len(under_way)) == (3, 2), "begun locally, and again as an ordinary activity"
    assert await texts_told(site, result.head) == [f"looked at {name}" for name in "abcd"]
    # The third was quick again, as an ordinary activity: so the fourth is local.
    assert await ways(handle) == ({"call_model": 5, "run_tool": 3}, {"pin_agent": 1, "run_tool": 2})


async def test_local_activities_of_one_task_have_half_a_second_together(site: Site) -> None:
    """A quick read, then checks that are quick one by one: what is over the limit is an ordinary activity."""
    checks = [
        {"name": f"waits-{number}", "after": "look", "python": "tests.support.toolkit:takes_a_while"}
        for number in range(8)
    ]
    site.write("checked", [look("a"), look("b"), {"say": "done"}], tools=TOOLS, checks=checks)
    async with site.serving():
        handle = await site.start("checked")
        result = await handle.result()

    ordinary, local = await ways(handle)
    assert result.status == "completed"
    assert ordinary["verify_result"] + local["verify_result"] == 16
    assert 1 <= local["verify_result"] <= 7


@pytest.mark.parametrize("cache", [1000, 0])
async def test_checks_are_local_once_they_were_quick(site: Site, cache: int) -> None:
    checks = [
        {"after": "pay", "python": "tests.support.toolkit:is_paid"},
        {"after": "pay", "expect": "result.paid > 0.0"},
    ]
    turns = [{"call": [{"pay": {"order": n}}]} for n in range(3)]
    site.write("verified", [*turns, {"say": "done"}], tools=TOOLS, checks=checks)
    TOOLKIT_CHECKS.clear()
    async with site.serving(max_cached_workflows=cache):
        handle = await site.start("verified")
        result = await handle.result()
    record = await read_record(site.client, handle.id, None)

    assert result.status == "completed"
    assert await ways(handle) == (
        {"call_model": 4, "run_tool": 3, "verify_result": 2},
        {"pin_agent": 1, "verify_result": 4},
    )
    assert TOOLKIT_CHECKS == ["is_paid"] * 3
    assert record.history.effects.count == 3


@pytest.mark.parametrize("cache", [1000, 0])
async def test_read_that_fails_for_good_is_not_made_again(site: Site, cache: int) -> None:
    """A failure has another form when it is replayed than when it came."""
    turns = [{"call": [{"look_odd": {"refuse": False}}]}, *[{"call": [{"look_odd": {"refuse": True}}]}] * 1]
    tools = [{"python": "tests.support.toolkit:look_odd"}]
    site.write("refuses", [*turns, {"say": "done"}], tools=tools)
    async with site.serving(max_cached_workflows=cache):
        handle = await site.start("refuses")
        result = await handle.result()
    record = await read_record(site.client, handle.id, None)

    assert await texts_told(site, result.head) == ["odd", "nobody looks there"]
    assert await ways(handle) == ({"call_model": 3, "run_tool": 1}, {"pin_agent": 1, "run_tool": 1})
    assert len(calls_of(handle.id, "look_odd")) == 2
    assert record.status == "completed"


@pytest.mark.parametrize("cache", [1000, 0])
async def test_read_that_fails_in_passing_is_made_again_as_an_ordinary_activity(site: Site, cache: int) -> None:
    tools = [{"python": "tests.support.toolkit:look_odd"}]
    turns = [{"call": [{"look_odd": {}}]}, {"call": [{"look_odd": {"break_first": 2}}]}, {"call": [{"look_odd": {}}]}]
    site.write("breaks", [*turns, {"say": "done"}], tools=tools)
    async with site.serving(max_cached_workflows=cache):
        handle = await site.start("breaks")
        result = await handle.result()

    assert await texts_told(site, result.head) == ["odd", "odd", "odd"]
    assert await ways(handle) == ({"call_model": 4, "run_tool": 2}, {"pin_agent": 1, "run_tool": 2})


async def test_decisions_are_looked_up_locally_and_told_to_those_who_read_the_history(site: Site) -> None:
    turns = [{"call": [{"pay": {"order": 1}}, {"pay": {"order": 2}}, {"pay": {"order": 3}}]}, {"say": "done"}]
    site.write("asks", turns, tools=TOOLS, policy=ASK_ALL)
    async with site.serving():
        handle = await site.start("asks")
        first, second, third = await asked(handle, 3)
        assert "may not decide" in await refusal_of(handle, "decide", decision(first, by="cleo@example.com"))
        await decide(handle, first)
        await handle.signal("decide", decision(second, "reject", comment="too dear"))
        await handle.signal("decide", {"decisions": [decision(third, by="bob@example.com")]})
        result = await handle.result()
    record = await read_record(site.client, handle.id, None)

    ordinary, local = await ways(handle)
    assert (result.status, result.effects.count) == ("completed", 2)
    assert "check_decision" not in ordinary
    assert local["check_decision"] == 4
    lines = [told.line for told in record.people if "chose" in told.line or "approved" in told.line]
    assert lines[-2:] == ["ann@example.com chose reject on r2: too dear", "bob@example.com chose approve on r3"]


async def test_an_approval_adds_at_most_fourteen_events(site: Site) -> None:
    turns = [{"call": [{"pay": {"order": 1}}]}, {"say": "done"}]
    site.write("asked", turns, tools=TOOLS, policy=ASK_ALL)
    site.write("free", turns, tools=TOOLS)
    async with site.serving():
        free = await site.start("free")
        await free.result()
        handle = await site.start("asked")
        (request,) = await asked(handle)
        await asyncio.sleep(1)
        await decide(handle, request)
        await handle.result()

    assert len(await events(handle)) - len(await events(free)) <= 14


async def test_start_of_a_run_takes_one_workflow_task_before_the_model_is_asked(site: Site) -> None:
    site.write("begins", [{"say": "done"}], tools=TOOLS)
    async with site.serving():
        handle = await site.start("begins")
        await handle.result()

    kinds = [EventType.Name(event.event_type).removeprefix("EVENT_TYPE_") for event in await events(handle)]
    assert kinds[: kinds.index("ACTIVITY_TASK_SCHEDULED")].count("WORKFLOW_TASK_STARTED") == 1


def write_reads(site: Site, name: str) -> None:
    site.write(name, [look("a"), look("b", held=True), look("c"), {"say": "done"}], tools=TOOLS)


async def in_a_local_read(site: Site, name: str) -> Run:
    """A run whose second read has just begun within a workflow task, and goes on until it is let go."""
    handle = await site.start(name)
    async with asyncio.timeout(20):
        while len(calls_of(handle.id, "look")) < 2:
            await asyncio.sleep(0.005)
    return handle


async def test_stop_in_the_middle_of_a_local_activity(site: Site) -> None:
    write_reads(site, "stopped")
    async with site.serving():
        handle = await in_a_local_read(site, "stopped")
        await handle.signal("stop", {"by": "ann@example.com"})
        LET_GO.add(handle.id)
        result = await handle.result()

    assert (result.status, result.uncertain) == ("stopped", ())
    assert len(calls_of(handle.id, "look")) in {2, 3}


async def test_pause_in_the_middle_of_a_local_activity(site: Site) -> None:
    write_reads(site, "paused")
    async with site.serving():
        handle = await in_a_local_read(site, "paused")
        await handle.signal("pause", {"by": "ann@example.com"})
        LET_GO.add(handle.id)
        async with asyncio.timeout(20):
            while "paused" not in str((await handle.query("progress"))["doing"]):
                await asyncio.sleep(0.02)
        await send_update(handle, "resume", {"by": "ann@example.com"})
        result = await handle.result()

    assert result.status == "completed"
    assert await texts_told(site, result.head) == ["looked at a", "looked at b", "looked at c"]


async def test_cancel_in_the_middle_of_a_local_activity(site: Site) -> None:
    write_reads(site, "cancelled")
    async with site.serving():
        handle = await in_a_local_read(site, "cancelled")
        await handle.cancel()
        LET_GO.add(handle.id)
        with pytest.raises(WorkflowFailureError):
            await handle.result()

    assert (await handle.describe()).status is WorkflowExecutionStatus.CANCELED


async def test_run_with_local_activities_continues_as_new(tmp_path: Path) -> None:
    config = {"limit.historyCount.suggestContinueAsNew": "25"}
    async with run_private_server(extra_dynamic_config=config) as server:
        site = new_site(tmp_path, await connect(address=server.address))
        names = [f"n{number}" for number in range(12)]
        site.write("moves", [*(look(name) for name in names), {"say": "done"}], tools=TOOLS)
        async with site.serving():
            handle = await site.start("moves")
            result = await handle.result()
        parts = await parts_taken(site.client, handle.id)

    assert parts > 2
    assert await texts_told(site, result.head) == [f"looked at {name}" for name in names]
    assert len(calls_of(handle.id, "look")) == len(names)
