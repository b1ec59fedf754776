"""A stop or a pause holds before each new call, and what people say late is not lost."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle

from mandate.workflows.contracts.run import RunStatus
from tests.support.agents import Site, conversation, new_site
from tests.support.people import asked, decide, refusal_of, send_update, stop, write_people
from tests.support.toolkit import LET_GO, calls_of

BY = {"by": "ann@example.com"}
STOP = {**BY, "reason": "enough"}
HELD = "tests.support.toolkit:is_true_in_the_end"
LOST: list[dict[str, Any]] = [{"call": [{"send": {"to": "eve", "lose_first": True}}]}, {"say": "done"}]
TOOLS = [{"python": f"tests.support.toolkit:{tool}"} for tool in ("look", "pay", "write_note", "find_letter")]


PROBED: list[dict[str, Any]] = [
    *TOOLS,
    {
        "python": "tests.support.toolkit:send",
        "probe": {"tool": "find_letter", "with": {"to": "args.to", "held": "true"}, "patience": "1s"},
    },
]
"""Tools of which `send` is looked up, which ends when the run is let go."""


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))


async def until_it(handle: WorkflowHandle[Any, Any], begins: str) -> None:
    async with asyncio.timeout(30):
        while not await scheduled(handle, begins):
            await asyncio.sleep(0.05)


async def until_it_has(handle: WorkflowHandle[Any, Any], ended: str) -> None:
    async with asyncio.timeout(30):
        while not await has_ended(handle, ended):
            await asyncio.sleep(0.05)


async def scheduled(handle: WorkflowHandle[Any, Any], kind: str) -> set[int]:
    """Event ids of the run's activities of this type."""
    return {
        event.event_id
        async for event in handle.fetch_history_events()
        if event.activity_task_scheduled_event_attributes.activity_type.name == kind
    }


async def has_ended(handle: WorkflowHandle[Any, Any], kind: str) -> bool:
    """Whether an activity of this type has, and the run has worked on that."""
    ids, ended = await scheduled(handle, kind), False
    async for event in handle.fetch_history_events():
        ended = ended or event.activity_task_completed_event_attributes.scheduled_event_id in ids
        if ended and event.HasField("workflow_task_completed_event_attributes"):
            return True
    return False


async def test_stop_while_a_probe_looks_means_that_nothing_is_made_again(site: Site) -> None:
    site.write("probed", LOST, tools=PROBED)

    async with site.serving():
        handle = await site.start("probed")
        await until_it(handle, "probe_call")
        await stop(handle, STOP)
        LET_GO.add(handle.id)
        result = await handle.result()

    assert (result.status, result.uncertain, result.effects.count) == (RunStatus.STOPPED, (), 0)
    assert len(calls_of(handle.id, "send")) == 1


async def test_pause_while_a_probe_looks_holds_the_call_back(site: Site) -> None:
    site.write("probed", LOST, tools=PROBED)

    async with site.serving():
        handle = await site.start("probed")
        await until_it(handle, "probe_call")
        await send_update(handle, "pause", BY)
        LET_GO.add(handle.id)
        await until_it_has(handle, "probe_call")
        await asyncio.sleep(0.5)
        paused = len(calls_of(handle.id, "send"))
        await send_update(handle, "resume", BY)
        result = await handle.result()

    assert paused == 1
    assert len(calls_of(handle.id, "send")) == 2
    assert (result.status, result.effects.count) == (RunStatus.COMPLETED, 1)


async def test_what_a_person_found_not_done_waits_for_the_end_of_a_pause(site: Site) -> None:
    site.write("lost", LOST, tools=[*TOOLS, {"python": "tests.support.toolkit:send"}])

    async with site.serving():
        handle = await site.start("lost")
        (request,) = await asked(handle)
        await send_update(handle, "pause", BY)
        await decide(handle, request, "not_happened")
        await asyncio.sleep(0.5)
        paused = len(calls_of(handle.id, "send"))
        await send_update(handle, "resume", BY)
        result = await handle.result()

    assert paused == 1
    assert (result.status, result.effects.count) == (RunStatus.COMPLETED, 1)


async def test_stop_during_the_final_check_ends_stopped(site: Site) -> None:
    checks = [{"after": "final", "python": HELD}, {"name": "second", "after": "final", "python": HELD}]
    site.write("checked", [{"say": "done"}], checks=checks)

    async with site.serving():
        handle = await site.start("checked")
        await until_it(handle, "verify_result")
        await stop(handle, STOP)
        LET_GO.add(handle.id)
        result = await handle.result()
        checked = [event async for event in handle.fetch_history_events() if _is_check(event)]

    assert (result.status, result.reason) == (RunStatus.STOPPED, "stopped by ann@example.com: enough")
    assert result.output == "done"
    assert len(checked) == 1


def _is_check(event: Any) -> bool:
    return event.activity_task_scheduled_event_attributes.activity_type.name == "verify_result"


async def test_stop_while_a_failing_check_runs_asks_nobody(site: Site) -> None:
    checks = [{"after": "final", "python": "tests.support.toolkit:is_false_in_the_end"}]
    site.write("checked", [{"say": "done"}], checks=checks, attempts=1)

    async with site.serving():
        handle = await site.start("checked")
        await until_it(handle, "verify_result")
        await stop(handle, STOP)
        LET_GO.add(handle.id)
        result = await handle.result()

    assert result.status is RunStatus.STOPPED


async def test_words_during_the_final_check_reach_the_model(site: Site) -> None:
    checks = [{"after": "final", "python": HELD}]
    site.write("checked", [{"say": "first"}, {"say": "second"}], checks=checks)

    async with site.serving():
        handle = await site.start("checked")
        await until_it(handle, "verify_result")
        await send_update(handle, "steer", {**BY, "text": "In French."})
        LET_GO.add(handle.id)
        result = await handle.result()
        texts = [
            part.text
            for message in await conversation(site, result.head or "")
            if message.role == "user"
            for part in message.parts
        ]

    assert (result.status, result.output) == (RunStatus.COMPLETED, "second")
    assert "[ann@example.com says] In French." in texts


async def test_words_that_come_when_no_step_is_left_do_not_cost_the_answer(site: Site) -> None:
    checks = [{"after": "final", "python": HELD}]
    site.write("checked", [{"say": "first"}, {"say": "second"}], checks=checks, budget={"steps": 1})

    async with site.serving():
        handle = await site.start("checked")
        await until_it(handle, "verify_result")
        await send_update(handle, "steer", {**BY, "text": "In French."})
        LET_GO.add(handle.id)
        result = await handle.result()

    assert (result.status, result.output) == (RunStatus.COMPLETED, "first")


async def test_stop_between_two_models_asks_no_other(site: Site) -> None:
    site.write("second", [{"say": "never"}])
    models = ["scripted:first.script.yaml", "scripted:second.script.yaml"]
    failing = [{"fail": [{"status": 503, "retry_after": 4}, {"status": 401}], "say": "never"}]
    site.write("first", failing, models=models)

    async with site.serving():
        handle = await site.start("first")
        await until_it(handle, "call_model")
        await stop(handle, STOP)
        result = await handle.result()

    assert (result.status, result.usage.model_calls) == (RunStatus.STOPPED, 0)


async def test_no_more_words_are_taken_than_the_model_is_told(site: Site) -> None:
    site.write("waits", [{"call": [{"look": {"what": "x", "held": True}}]}, {"say": "done"}])

    async with site.serving():
        handle = await site.start("waits")
        await until_it(handle, "run_tool")
        for _ in range(100):
            await send_update(handle, "steer", {**BY, "text": "x"})
        refused = await refusal_of(handle, "steer", {**BY, "text": "x"})
        await stop(handle, STOP)
        LET_GO.add(handle.id)

    assert refused == "100 texts wait for the model's next step already; it takes no more before"
