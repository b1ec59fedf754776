"""`mandate plan run` and `show`: a plan is started, followed and looked at."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mandate.workers.client.client import connect
from tests.support.agents import ALLOW_ALL, Site, new_site
from tests.support.place import Done, Place, run_private_server
from tests.support.toolkit import LET_GO, calls_of

TOOLS = [{"python": f"tests.support.toolkit:{tool}"} for tool in ("look", "look_bad")]
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


@pytest.fixture(scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    folder = tmp_path_factory.mktemp("plans")
    async with run_private_server() as server:
        client = await connect(address=server.address)
        site = new_site(folder, client)
        site.write("writer", [{"say": "a poem"}])
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
        async with site.serving():
            yield found


async def test_a_plan_is_run_to_its_end_and_its_steps_are_shown(desk: Desk) -> None:
    ran = await desk.run("run", "poem", "--input", '{"names": ["a", "b"]}', "--id", "poem-1")
    shown = await desk.run("show", "poem-1")

    assert "completed" in ran.out
    assert "a poem" in ran.out
    lines = [line.split() for line in shown.out.splitlines() if line.startswith(("each", "write"))]
    assert lines == [["each", "completed", "2/2", "2"], ["write", "completed", "1"]]


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


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("run", "gone", "x"), "plan: 'gone' is not a plan of these workers; they have: bad, held, poem"),
        (("run", "gone.yaml"), "gone.yaml does not exist"),
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
