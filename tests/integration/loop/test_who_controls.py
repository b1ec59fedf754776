"""Who may steer, pause, resume and stop runs, where the file of people says so."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle

from mandate.workers.history.record import read_record
from mandate.workflows.contracts.run import RunStatus
from tests.support.agents import Site, continued, new_site
from tests.support.people import PEOPLE, asked, open_requests, refusal_of, send_update, write_people

ANN, DAN = "ann@example.com", "dan@example.com"
CONTROL = {"groups": ["finance"]}
WAITS: list[Any] = [{"call": [{"ask_person": {"question": "Which?"}}]}, {"say": "done"}]


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    site = new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path, {**PEOPLE, "control": CONTROL})))
    site.write("waits", WAITS, people={"expires": "10m"})
    return site


async def checks(handle: WorkflowHandle[Any, Any]) -> int:
    return sum(
        [
            event.activity_task_scheduled_event_attributes.activity_type.name == "check_control"
            async for event in handle.fetch_history_events()
        ]
    )


async def refusals(handle: WorkflowHandle[Any, Any], count: int) -> list[tuple[str, str, str]]:
    """What the run keeps of messages that had no effect, once there are so many."""
    async with asyncio.timeout(30):
        while len(refused := (await open_requests(handle)).refused) < count:
            await asyncio.sleep(0.05)
    return [(one.choice, one.by, one.reason) for one in refused]


@pytest.mark.parametrize("verb", ["steer", "pause", "resume", "stop"])
async def test_message_of_others_is_refused_as_update_and_has_no_effect_as_signal(site: Site, verb: str) -> None:
    said = {"by": DAN, "text": "Use euros."} if verb == "steer" else {"by": DAN}
    refusal = f"by: {DAN!r} may not {verb} runs; who may {verb} runs: group finance"

    async with site.serving():
        handle = await site.start("waits")
        await asked(handle)
        if verb == "resume":
            await send_update(handle, "pause", {"by": ANN})
        updated = await refusal_of(handle, verb, said)
        await handle.signal(verb, said)
        kept = await refusals(handle, 1)
        status = (await open_requests(handle)).status
        record = await read_record(site.client, handle.id, None)
        await send_update(handle, "stop", {"by": ANN})
        result = await handle.result()

    assert updated == refusal
    assert kept == [(verb, DAN, refusal)]
    assert status == ("paused" if verb == "resume" else "waiting")
    assert record.status == status
    assert [told.line for told in record.people if DAN in told.line] == [
        f"{does(verb)}, which does not count: {refusal}"
    ] * 2
    assert (result.status, result.reason) == (RunStatus.STOPPED, f"stopped by {ANN}")


def does(verb: str) -> str:
    words = {
        "steer": "says: Use euros.",
        "pause": "pauses the run",
        "resume": "lets the run go on",
        "stop": "stops the run",
    }
    return f"{DAN} {words[verb]}"


async def test_those_who_may_control_the_run_by_update_and_by_signal(site: Site) -> None:
    async with site.serving():
        handle = await site.start("waits")
        await asked(handle)
        told = [await send_update(handle, verb, {"by": ANN}) for verb in ("pause", "resume")]
        await handle.signal("pause", {"by": "bob@example.com"})
        async with asyncio.timeout(30):
            while (await open_requests(handle)).status != "paused":
                await asyncio.sleep(0.05)
        record = await read_record(site.client, handle.id, None)
        steered = await send_update(handle, "steer", {"by": ANN, "text": "Use euros."})
        await handle.signal("stop", {"by": ANN, "reason": "enough"})
        result = await handle.result()

    assert [one["status"] for one in told] == ["paused", "waiting"]
    assert steered["message"] == "the model is told at its next step"
    assert (record.status, [line.line for line in record.people][-1]) == ("paused", "bob@example.com pauses the run")
    assert (result.status, result.reason) == (RunStatus.STOPPED, f"stopped by {ANN}: enough")


async def test_pauses_and_resumes_that_come_together_count_in_their_order(site: Site) -> None:
    async with site.serving():
        handle = await site.start("waits")
        await asked(handle)
        for _ in range(5):
            await handle.signal("pause", {"by": ANN})
            await handle.signal("resume", {"by": ANN})
        await handle.signal("pause", {"by": DAN})
        await refusals(handle, 1)
        status = (await open_requests(handle)).status
        await send_update(handle, "stop", {"by": ANN})
        await handle.result()

    assert status == "waiting"


async def test_without_control_in_the_file_everybody_may_and_nothing_is_looked_up(
    tmp_path: Path, client: Client
) -> None:
    site = new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))
    site.write("waits", WAITS)

    async with site.serving():
        handle = await site.start("waits")
        await asked(handle)
        write_people(tmp_path, {**PEOPLE, "control": CONTROL})
        await send_update(handle, "stop", {"by": "mallory"})
        result = await handle.result()

    assert (result.status, await checks(handle)) == (RunStatus.STOPPED, 0)


async def test_run_that_continues_as_new_goes_on_looking_up(site: Site) -> None:
    async with site.serving():
        handle = await site.start("waits")
        await asked(handle)
        await continued(handle)
        refusal = await refusal_of(handle, "stop", {"by": DAN})
        # Whoever is in the file now.
        write_people(site.folder, {**PEOPLE, "control": {"users": [DAN]}})
        await send_update(handle, "stop", {"by": DAN})
        result = await handle.result()

    assert refusal == f"by: {DAN!r} may not stop runs; who may stop runs: group finance"
    assert result.reason == f"stopped by {DAN}"


async def test_where_the_file_cannot_be_read_a_run_can_be_held_and_ended_and_nothing_else(site: Site) -> None:
    file = site.folder / "people.yaml"
    async with site.serving():
        handle = await site.start("waits")
        await asked(handle)
        file.write_text("people: [")
        steered = await refusal_of(handle, "steer", {"by": ANN, "text": "Use euros."})
        paused = await send_update(handle, "pause", {"by": DAN})
        resumed = await refusal_of(handle, "resume", {"by": ANN})
        recent = (await handle.query("progress"))["recent"]
        stopped = await send_update(handle, "stop", {"by": DAN})
        result = await handle.result()

    fault = f"the file of people has a fault in line 1; `mandate validate {file}` tells more"
    assert steered == f"who may steer runs could not be checked ({fault}); nothing was done; try again"
    assert resumed == f"who may resume runs could not be checked ({fault}); nothing was done; try again"
    assert (paused["status"], stopped["status"]) == ("paused", "paused")
    assert recent[-2:] == [
        f"step 1: pause by {DAN}: who may control runs could not be checked ({fault}); it counts",
        f"step 1: paused by {DAN}",
    ]
    assert (result.status, result.reason) == (RunStatus.STOPPED, f"stopped by {DAN}")
