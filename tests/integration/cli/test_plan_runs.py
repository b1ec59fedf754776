"""`mandate plan run` and `show`: a plan is started, followed and looked at."""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mandate.workers.client.client import connect
from tests.support.agents import ALLOW_ALL, Site, new_site
from tests.support.place import Done, Place, line_with, run_private_server
from tests.support.toolkit import LET_GO, calls_of

TOOLS = [{"python": f"tests.support.toolkit:{tool}"} for tool in ("look", "look_bad", "pay")]
ASK_ANN = [{"id": "ask", "match": {}, "verdict": "ask", "approvers": {"users": ["ann@example.com"]}}]
LOOKS: dict[str, Any] = {"tools": TOOLS, "policy": ALLOW_ALL, "requester": "anyone"}


@dataclass(frozen=True, slots=True)
class Desk:
    place: Place
    site: Site

    async def run(self, *words: str, code: int = 0) -> Done:
        done = await self.place.run("plan", *words)
        assert done.code == code, done.err
        return done

    def write(self, name: str, **keys: Any) -> Path:
        path = self.site.folder / "plans" / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"name": name, **keys}))
        return path


def new_payment(number: int) -> dict[str, Any]:
    """Return a step that needs the one before it; payments are no local activities, which take less of the history."""
    needs = {"depends_on": [f"s{number - 1}"]} if number else {}
    return {"id": f"s{number}", "tool": "pay", "input": {"order": f"{number}.0", "amount": "2.0"}, **needs}


@pytest.fixture(scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    folder = tmp_path_factory.mktemp("plans")
    async with run_private_server() as server:
        client = await connect(address=server.address)
        site = new_site(folder, client)
        site.write("writer", [{"say": "a poem"}])
        steps = [
            {"id": "first", "agent": "writer", "input": "'Write.'"},
            {"id": "second", "agent": "writer", "input": "steps.first.output"},
        ]
        judged = [{**ASK_ANN[0], "match": {"tools": ["run_plan"]}}, *ALLOW_ALL]
        turns = [{"call": [{"run_plan": {"steps": steps}}]}, {"say": "done"}]
        site.write("planner", turns, plans={"agents": ["writer"]}, policy=judged, people={"expires": "60s"})
        env = {
            **os.environ,
            "TEMPORAL_ADDRESS": server.address,
            "TEMPORAL_CONFIG_FILE": str(folder / "none.toml"),
            "MANDATE_FOLDER": str(folder),
            "MANDATE_TASK_QUEUE": site.queue,
            "MANDATE_USER": "ann@example.com",
        }
        found = Desk(Place(folder, server.address, client, env), site)
        each = {"id": "each", "tool": "look", "for_each": "input.names", "input": {"what": "item"}}
        write = {"id": "write", "agent": "writer", "input": "'Write of ' + steps.each.output[0]"}
        found.write("poem", steps=[each, write], **LOOKS)
        held = {"id": "held", "tool": "look", "input": {"what": "input", "held": "true"}}
        found.write("held", steps=[held, {"id": "last", "agent": "writer", "depends_on": ["held"]}], **LOOKS)
        bad = {"id": "bad", "tool": "look_bad", "input": {"shelf": "1.0"}}
        found.write("bad", steps=[bad, {"id": "after", "agent": "writer", "depends_on": ["bad"]}], **LOOKS)
        found.write(
            "again", steps=[{**bad, "attempts": 2}, {"id": "after", "agent": "writer", "depends_on": ["bad"]}], **LOOKS
        )
        find = {"id": "find", "tool": "look", "input": {"what": "input"}}
        found.write("asks", steps=[find], **{**LOOKS, "policy": ASK_ANN, "requester": "required"})
        hidden = [{**LOOKS["tools"][0], "sensitive": ["what"]}]
        found.write("secret", steps=[find], **{**LOOKS, "tools": hidden})
        takes = {"type": "object", "properties": {"topic": {"type": "string"}, "days": {}}, "required": ["topic"]}
        about = {**find, "input": {"what": "input.topic"}}
        found.write("typed", steps=[about], **{**LOOKS, "input_schema": takes})
        found.write("chain", steps=[new_payment(number) for number in range(40)], **LOOKS)
        async with site.serving():
            yield found


async def test_a_plan_is_run_to_its_end_and_its_steps_are_shown(desk: Desk) -> None:
    ran = await desk.run("run", "poem", "--input", '{"names": ["a", "b"]}', "--id", "poem-1")
    shown = await desk.run("show", "poem-1")

    assert "completed" in ran.out
    assert "a poem" in ran.out
    lines = [line.split() for line in shown.out.splitlines() if line.startswith(("each", "write"))]
    assert lines == [["each", "completed", "2/2", "2"], ["write", "completed", "1"]]


async def test_steps_are_told_as_they_begin_and_end(desk: Desk) -> None:
    ran = await desk.run("run", "poem", "--input", '{"names": ["a", "b"]}', "--id", "told-1")
    shown = await desk.place.run("show", "told-1")

    told = [" ".join(line.split()) for line in ran.out.split("\n\n")[0].splitlines()]
    # Either of the items may end first.
    assert sorted(told[1:3]) == ["each[0] completed → looked at a", "each[1] completed → looked at b"]
    assert [told[0], *told[3:]] == [
        "each begins: 2 items, tool look",
        "each completed (2 of 2 items)",
        "write begins: agent writer",
        "write completed → a poem",
    ]
    assert "Steps 2 completed" in " ".join(ran.out.split())
    assert "mandate plan show told-1" in ran.out
    # In the same words.
    lines = shown.out.split("\nsteps\n")[1].split("\n\n")[0]
    assert [" ".join(line.split()) for line in lines.splitlines()] == told
    assert "plan poem version" in shown.out
    assert '{"names": ["a", "b"]}' in shown.out


async def test_an_attempt_that_failed_and_a_step_that_is_skipped_are_told(desk: Desk) -> None:
    ran = await desk.run("run", "again", "--id", "again-1", code=1)

    told = [" ".join(line.split()) for line in ran.out.split("\n\n")[0].splitlines()]
    assert told == [
        "bad begins: tool look_bad",
        "bad is tried again, attempt 1 of 2 failed: ValueError: the shelf is empty",
        "bad failed (2 attempts): ValueError: the shelf is empty",
        "after skipped: step 'bad' failed: ValueError: the shelf is empty",
    ]


async def test_a_large_fan_out_is_told_in_few_lines(desk: Desk) -> None:
    names = json.dumps({"names": [str(number) for number in range(200)]})

    ran = await desk.run("run", "poem", "--input", names, "--id", "large-1")

    lines = [line for line in ran.out.splitlines() if line.startswith("each ")]
    # Of what ends together only the last is told.
    assert 2 <= len(lines) <= 12
    assert lines[0].endswith("begins: 200 items, tool look")
    assert lines[-1].endswith("completed (200 of 200 items)")


async def test_a_plan_is_followed_over_its_parts(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that continues as new is told of without a break, and shown whole by its last part."""
    monkeypatch.setattr("mandate.workflows.loop.run.EVENTS", 60)

    ran = await desk.run("run", "chain", "--id", "parts-1")
    shown = await desk.place.run("show", "parts-1", "--full")
    again = await desk.place.run("show", "parts-1", "--follow")

    assert len([part async for part in desk.place.client.list_workflows("WorkflowId = 'parts-1'")]) > 1
    assert "Steps       40 completed" in ran.out
    lines = shown.out.split("\nsteps\n")[1].split("\n\n")[0].splitlines()
    assert [" ".join(line.split()) for line in lines] == [
        told for n in range(40) for told in (f"s{n} begins: tool pay", f's{n} completed → {{"paid":2.0,"order":{n}}}')
    ]
    # What was told before the last part began is not told again.
    assert re.search(r"^\d+ of 40 steps have ended before$", again.out, re.MULTILINE)
    assert "s0 " not in again.out


async def test_what_a_step_asks_people_is_told(desk: Desk) -> None:
    followed = await desk.place.start("plan", "run", "asks", "x", "--id", "asks-1", "--requester", "bob@example.com")
    line = await line_with(followed.stdout, "asks ann@example.com")
    decided = await desk.place.run("approve", "asks-1:r1")
    out, _ = await followed.communicate()

    assert line.startswith("asks ann@example.com: look")
    assert decided.code == 0, decided.err
    assert "ann@example.com approved it" in out.decode()
    assert "find  completed → looked at x" in out.decode()


async def test_sensitive_arguments_of_a_step_are_not_shown(desk: Desk) -> None:
    ran = await desk.run("run", "secret", "my-secret-word", "--id", "secret-1")
    shown = await desk.place.run("show", "secret-1", "--full")

    for out in (ran.out, shown.out.split("\nsteps\n")[1]):
        assert "find  completed → looked at ***" in out
    assert "my-secret-word" not in ran.out.split("\ncompleted\n")[0]


async def test_without_the_store_of_the_workers_calls_are_told(desk: Desk, tmp_path: Path) -> None:
    elsewhere = f"sqlite:///{tmp_path}/none.db"
    followed = await desk.place.run("show", "told-1", "--follow", MANDATE_STORE=elsewhere)

    assert followed.code == 0
    assert "the steps of the plan cannot be read here: the conversation is in store" in followed.err
    assert "look what=a → looked at a" in followed.out
    assert "2 completed, of those that the result has room for" in followed.out


async def test_the_result_of_a_plan_is_one_object_for_programs(desk: Desk) -> None:
    ran = json.loads((await desk.run("run", "poem", "--input", '{"names": ["a"]}', "-o", "json")).out)
    shown = json.loads((await desk.run("show", ran["workflow_id"], "-o", "json")).out)

    assert (ran["status"], ran["output"]) == ("completed", "a poem")
    assert list(shown) == ["workflow_id", "run_id", "status", "doing", "reason", "steps"]
    told = [(step["id"], step["status"], step["completed"]) for step in shown["steps"]]
    assert told == [("each", "completed", 1), ("write", "completed", 1)]
    assert [step["id"] for step in ran["steps"]] == ["each", "write"]


async def test_steps_are_shown_while_a_plan_works(desk: Desk) -> None:
    started = await desk.run("run", "held", "the sea", "--id", "held-1", "-d")
    async with asyncio.timeout(30):
        while not calls_of("held-1"):
            await asyncio.sleep(0.05)
    shown = json.loads((await desk.run("show", "held-1", "-o", "json")).out)
    LET_GO.add("held-1")
    ended = await desk.place.run("show", "held-1", "--follow")

    assert started.out.strip() == "held-1"
    assert [(step["id"], step["status"]) for step in shown["steps"]] == [("held", "running"), ("last", "waiting")]
    assert shown["status"] == "running"
    assert "a poem" in ended.out


async def test_a_step_that_fails_is_told_with_its_reason(desk: Desk) -> None:
    ran = await desk.run("run", "bad", "--id", "bad-1", code=1)
    shown = json.loads((await desk.run("show", "bad-1", "-o", "json")).out)

    assert "declined" in ran.out
    assert [(step["id"], step["status"]) for step in shown["steps"]] == [("bad", "failed"), ("after", "skipped")]
    assert shown["steps"][0]["reason"]


async def test_a_plan_of_a_file_is_run_as_data(desk: Desk, tmp_path: Path) -> None:
    path = tmp_path / "two.yaml"
    path.write_text(json.dumps({"name": "two", "steps": [{"id": "a", "agent": "writer"}]}))

    ran = json.loads((await desk.run("run", str(path), "Write.", "-o", "json")).out)

    assert (ran["status"], ran["output"]) == ("completed", "a poem")


async def test_a_plan_file_of_the_workers_is_run_by_its_name(desk: Desk) -> None:
    done = await desk.run("run", str(desk.site.folder / "plans" / "bad.yaml"), code=2)

    path = desk.site.folder / "plans" / "bad.yaml"
    told = re.sub(r":1:\d+: ", ": ", done.err).splitlines()
    assert told[0].startswith(f"error: {path}: tools: belongs to plan files; ")
    assert told[1].startswith(f"{path}: steps[0].tool: a plan as data has no tool 'look_bad'; ")
    assert told[2:] == ["if the workers have this file among their plans, run it by its name: bad"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ("run", "gone", "x"),
            "plan: 'gone' is not a plan of these workers; they have: again, asks, bad, chain, held, poem, secret, t",
        ),
        (("run", "gone.yaml"), "gone.yaml does not exist"),
        (("run", "typed"), "input: is missing; the plan takes an object with 'topic', 'days' (may be left out)"),
        (("run", "typed", "--input", "{}"), "input: "),
        (("run", "poem", "--input", "{"), "--input is not JSON"),
        (("run", "poem", "--again"), "--again goes with --id"),
        (("run", "poem", "--label", "x"), "is not key=value"),
        (("show", "nowhere"), "there is no run 'nowhere'"),
    ],
)
async def test_what_is_asked_wrongly_is_one_sentence(desk: Desk, words: tuple[str, ...], told: str) -> None:
    done = await desk.run(*words, code=2)

    assert told in done.err
    assert "Traceback" not in done.err


async def test_a_run_of_an_agent_has_no_steps(desk: Desk) -> None:
    await (await desk.site.start("writer", "Write.", workflow_id="alone")).result()

    done = await desk.run("show", "alone", code=2)

    assert "is a run of an agent" in done.err


async def test_what_was_under_way_when_a_plan_was_stopped_is_told(desk: Desk) -> None:
    handle = await desk.site.client.start_workflow(
        "PlanWorkflow",
        {"plan": "held", "input": "a", "requester": "ann@example.com"},
        id="stopped-1",
        task_queue=desk.site.queue,
    )
    async with asyncio.timeout(30):
        while not calls_of("stopped-1"):
            await asyncio.sleep(0.05)
    await desk.site.agents.stop("stopped-1", by="ann@example.com", reason="enough")
    LET_GO.add("stopped-1")
    await handle.result()
    shown = json.loads((await desk.run("show", "stopped-1", "-o", "json")).out)

    assert {step["id"]: step["status"] for step in shown["steps"]} == {"held": "completed", "last": "stopped"}


async def test_a_plan_that_a_model_asks_for_is_shown_drawn(desk: Desk) -> None:
    handle = await desk.site.start("planner", workflow_id="planner-1", requester="bob@example.com")
    async with asyncio.timeout(30):
        while (done := await desk.place.run("show", "planner-1:r1")).code:
            await asyncio.sleep(0.2)
    approved = await desk.place.run("approve", "planner-1:r1")
    result = await handle.result()

    drawn = done.out.split("the plan")[1].split("arguments of run_plan")[0]
    assert re.search(r"1\s+first\s.*writer", drawn)
    assert re.search(r"2\s+second\s+agent writer\s+<- first", drawn)
    assert "step_count: 2" in done.out
    assert approved.code == 0, approved.err
    assert result.status == "completed"
