"""`mandate schedule`: schedules are made, fire by themselves and when they are told to, and are listed and ended."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio.client import Client, Schedule, ScheduleActionStartWorkflow, ScheduleSpec, WorkflowExecutionStatus

from mandate.workflows.contracts.run import RunResult
from tests.support.place import Place, new_place

AGENT = {
    "name": "writer",
    "instructions": "Write.",
    "models": ["scripted:writer.script.yaml"],
    "requester": "anyone",
}
PLAN = {"name": "poem", "requester": "anyone", "steps": [{"id": "write", "agent": "writer", "input": "input.about"}]}
SCRIPT = {"turns": [{"say": "a poem"}], "strict": False}

NIGHTLY = ("--cron", "0 3 * * *", "--time-zone", "Europe/Berlin")


@pytest.fixture(scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    files = {
        "agents/writer.yaml": json.dumps(AGENT),
        "agents/writer.script.yaml": json.dumps(SCRIPT),
        "plans/poem.yaml": json.dumps(PLAN),
    }
    async with (
        new_place(tmp_path_factory.mktemp("schedules"), files, MANDATE_USER="ann@example.com") as made,
        made.serving("writer"),
    ):
        yield made


async def asked(place: Place, *words: str, code: int = 0) -> Any:
    done = await place.run("schedule", *words, "-o", "json")
    assert done.code == code, done.err
    return json.loads(done.out or done.err)


async def listing(place: Place, schedule_id: str) -> Any:
    """One schedule as it is listed, which the server does a moment after it was made."""
    async with asyncio.timeout(30):
        while True:
            listed = (await asked(place, "list"))["schedules"]
            if found := [one for one in listed if one["id"] == schedule_id]:
                return found[0]


async def ended(client: Client, workflow_id: str) -> RunResult:
    return await client.get_workflow_handle(workflow_id, result_type=RunResult).result()


async def test_a_schedule_is_made_shown_listed_and_deleted(place: Place) -> None:
    made = await place.run("schedule", "create", "nightly", "Write.", "--agent", "writer", *NIGHTLY)
    shown = await asked(place, "show", "nightly")
    listed = await listing(place, "nightly")
    deleted = await place.run("schedule", "delete", "nightly")
    gone = await place.run("schedule", "show", "nightly")

    assert made.code == 0, made.err
    assert made.out.splitlines()[:4] == [
        "Schedule  nightly (fires)",
        "Starts    agent writer",
        "When      cron 0 3 * * * Europe/Berlin",
        "Overlap   skip",
    ]
    assert shown["starts"] == {"kind": "agent", "name": "writer"}
    assert len(shown["next"]) == 5
    assert listed["when"] == "cron 0 3 * * * Europe/Berlin"
    assert (deleted.code, deleted.out) == (0, "deleted nightly\n")
    assert (gone.code, gone.err) == (2, "error: there is no schedule 'nightly'\n")


async def test_each_firing_is_a_run_of_its_own(place: Place) -> None:
    words = ("create", "twice", "Write.", "--agent", "writer", "--label", "team=art", "--requester", "bob@example.com")
    await asked(place, *words, *NIGHTLY)

    first, second = [(await asked(place, "trigger", "twice"))["run"] for _ in range(2)]

    assert first["workflow_id"] != second["workflow_id"]
    assert [(await ended(place.client, one["workflow_id"])).output for one in (first, second)] == ["a poem", "a poem"]
    described = await place.client.get_workflow_handle(first["workflow_id"]).describe()
    assert described.search_attributes["AgentRequester"] == ["bob@example.com"]
    assert described.search_attributes["AgentLabels"] == ["team=art"]


async def test_a_schedule_of_a_plan_fires_by_itself(place: Place) -> None:
    made = ("create", "often", "--plan", "poem", "--input", '{"about": "Trees."}', "--every", "1s")
    await asked(place, *made, "--overlap", "allow-all")

    async with asyncio.timeout(30):
        while len(fired := (await asked(place, "show", "often"))["recent"]) < 2:
            await asyncio.sleep(0.2)
    paused = await asked(place, "pause", "often", "--note", "enough")

    assert len({one["workflow_id"] for one in fired}) == len(fired)
    assert (await ended(place.client, fired[0]["workflow_id"])).status == "completed"
    assert (paused["paused"], paused["note"]) == (True, "enough")
    resumed = await asked(place, "resume", "often")
    assert (resumed["paused"], resumed["note"]) == (False, "resumed by ann@example.com")
    await asked(place, "delete", "often")


async def test_a_schedule_of_one_time_fires_once(place: Place) -> None:
    moment = (datetime.now(UTC) + timedelta(seconds=4)).replace(microsecond=0, tzinfo=None).isoformat()
    made = await asked(place, "create", "once", "Write.", "--agent", "writer", "--at", moment)
    async with asyncio.timeout(30):
        while not (shown := await asked(place, "show", "once"))["recent"]:
            await asyncio.sleep(0.2)

    assert made["next"] == [f"{moment}+00:00"]
    assert made["when"] == f"once at {moment.replace('T', ' ')} UTC"
    assert shown["next"] == []
    assert (await ended(place.client, shown["recent"][0]["workflow_id"])).status == "completed"


async def test_one_time_is_of_the_zone_that_is_named(place: Place) -> None:
    at = ("--at", "2099-12-24T18:00", "--at", "2099-12-25T18:00:30+02:00", "--time-zone", "Europe/Berlin")
    made = await place.run("schedule", "create", "zoned", "Write.", "--agent", "writer", *at)

    lines = made.out.splitlines()
    assert "When      once at 2099-12-24 17:00:00 UTC, once at 2099-12-25 16:00:30 UTC" in lines
    assert "Next      2099-12-24 17:00 UTC, 2099-12-25 16:00:30 UTC" in lines


async def test_one_time_beside_cron_lines_is_the_same_moment(place: Place) -> None:
    at = ("--at", "2099-12-24T18:00", "--cron", "0 9 1 1 * 2099", "--time-zone", "Europe/Berlin")
    made = await asked(place, "create", "beside", "Write.", "--agent", "writer", *at)

    assert made["when"] == "cron 0 9 1 1 * 2099 Europe/Berlin, once at 2099-12-24 17:00:00 UTC"
    assert made["next"] == ["2099-01-01T08:00:00+00:00", "2099-12-24T17:00:00+00:00"]


async def test_what_cannot_be_scheduled_is_one_sentence(place: Place) -> None:
    create = ("create", "bad", "Write.")
    agent = (*create, "--agent", "writer")
    sentences = {
        (*agent,): "give when it fires: --cron '0 7 * * *', --every 6h, --at 2026-12-24T18:00, or several of them",
        (*agent, "--at", "tomorrow"): (
            "--at 'tomorrow' is no date and time, for example 2026-12-24T18:00 or 2026-12-24T18:00+01:00"
        ),
        (*agent, "--at", "2099-12-24"): ("--at '2099-12-24' has no time of the day, for example 2099-12-24T18:00"),
        (*agent, "--at", "2101-01-01T00:00"): (
            "--at '2101-01-01T00:00' is too late: the server fires until the end of 2099"
        ),
        (*agent, "--at", "2020-01-01T00:30:05+01:00"): (
            "--at '2020-01-01T00:30:05+01:00' is over: 2019-12-31 23:30:05 UTC; give a time to come"
        ),
        (*create, *NIGHTLY): "give what it starts once: --agent or --plan",
        (*agent, "--plan", "poem", *NIGHTLY): "give what it starts once: --agent or --plan",
        (*agent, "--cron", "0 3 * *"): (
            "the cron line '0 3 * *' has 4 fields; it has minute, hour, day, month and weekday, as '0 7 * * MON-FRI', "
            "or is '@daily', '@hourly' and the like"
        ),
        (*agent, "--cron", "61 3 * * *"): "cron 61 3 * * * UTC: Minute is not in range [0-59]",
        (*agent, *NIGHTLY[:2], "--time-zone", "Mars"): (
            "--time-zone 'Mars' is not known here; for example Europe/Berlin or UTC"
        ),
        (*agent, "--every", "soon"): (
            "--every 'soon': a duration is a number and a unit, for example '30s', '5m', '1h30m' or '2d'"
        ),
        (*agent, "--every", "0s"): "--every '0s': must be a second or longer, for example 6h or 30m",
        (*agent, "--every", "1h", "--time-zone", "UTC"): (
            "--time-zone goes with --cron and --at; intervals are the same everywhere"
        ),
        (*agent, *NIGHTLY, "--overlap", "never"): (
            "--overlap 'never' is not one of skip, buffer-one, buffer-all, cancel-other, allow-all"
        ),
        ("create", "bad", "--agent", "writer", *NIGHTLY): (
            "give what the agent is asked once: as TEXT, with --input-file, or with --input"
        ),
        ("create", "a b", "Write.", "--agent", "writer", *NIGHTLY): (
            "the id 'a b' is not 1 to 100 letters, digits, '.', '_' and '-' that begin with one of the first"
        ),
        ("pause", "none"): "there is no schedule 'none'",
        ("trigger", "none"): "there is no schedule 'none'",
        ("delete", "none"): "there is no schedule 'none'",
    }

    said = {words: await asked(place, *words, code=2) for words in sentences}

    assert {words: one["error"] for words, one in said.items()} == sentences


async def test_a_plan_file_that_cannot_go_on_is_not_scheduled(place: Place) -> None:
    circle = [{"id": one, "agent": "writer", "input": f"steps.{other}.output"} for one, other in ("ab", "ba")]
    (place.folder / "circle.yaml").write_text(json.dumps({"name": "circle", "steps": circle}))

    done = await place.run("schedule", "create", "s", "--plan", str(place.folder / "circle.yaml"), "--every", "1h")

    assert done.code == 2
    assert "steps wait for each other: a -> b -> a" in done.err


async def test_an_id_is_used_once_and_schedules_of_others_are_left_alone(place: Place) -> None:
    await asked(place, "create", "mine", "Write.", "--agent", "writer", *NIGHTLY, "--paused")
    action = ScheduleActionStartWorkflow("Payroll", id="theirs", task_queue="payroll")
    await place.client.create_schedule("theirs", Schedule(action, ScheduleSpec(cron_expressions=["0 3 * * *"])))

    again = await asked(place, "create", "mine", "Write.", "--agent", "writer", *NIGHTLY, code=2)
    foreign = await asked(place, "delete", "theirs", code=2)
    await listing(place, "mine")
    table = await place.run("schedule", "list")

    assert again["error"] == "there is a schedule 'mine' already; delete it first, or take another id"
    assert foreign["error"] == "the schedule 'theirs' starts Payroll, which is no agent and no plan"
    lines = [line.split() for line in table.out.splitlines()]
    assert lines[0] == ["schedule", "starts", "when", "next", "last", "run"]
    assert "theirs" not in table.out
    zone = "Europe/Berlin"
    mine = ["mine", "agent", "writer", "cron", "0", "3", "*", "*", "*", zone, "paused", "none", "yet"]
    assert mine in lines


async def test_a_firing_that_the_policy_leaves_out_is_told(place: Place) -> None:
    """Nobody serves the queue, so the first run goes on."""
    await asked(place, "create", "slow", "Write.", "--agent", "writer", *NIGHTLY, "--task-queue", "nobody")
    first = await asked(place, "trigger", "slow")

    second = await asked(place, "trigger", "slow", code=1)
    beside = await asked(place, "trigger", "slow", "--overlap", "allow-all")

    assert second["run"] is None
    handles = [place.client.get_workflow_handle(one["run"]["workflow_id"]) for one in (first, beside)]
    assert [(await handle.describe()).status for handle in handles] == [WorkflowExecutionStatus.RUNNING] * 2
    for handle in handles:
        await handle.terminate()
