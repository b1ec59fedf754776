"""Commands about trees of runs: real commands, a worker in this process, a real server."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from temporalio.client import WorkflowHandle

from mandate.workers.client.client import connect
from mandate.workers.dev_server.server import run_private_server
from mandate.workers.history.record import exists
from mandate.workflows.contracts.run import RunResult
from tests.support.agents import Site, new_site
from tests.support.people import ASK_ALL, PEOPLE, asked, write_people
from tests.support.place import Done, Place
from tests.support.toolkit import LET_GO, calls_of

HELD = {"call": [{"look": {"what": "a", "held": True}}]}
PAY = {"call": [{"pay": {"order": 1}}]}
WRITE = {"call": [{"write_board": {"key": "found", "value": {"order": 7}, "expected_version": 0}}]}
DONE = {"say": "It is done."}
LONG = "It is a long answer. " * 40
BY = "ann@example.com"


@dataclass(frozen=True, slots=True)
class Desk:
    """A place with a tree of runs: `root` has a child that works, one that is done, and one whose own child asks."""

    place: Place
    site: Site

    async def json(self, *words: str) -> Any:
        done = await self.run(*words, "-o", "json")
        return json.loads(done.out)

    async def run(self, *words: str) -> Done:
        done = await self.place.run(*words)
        assert done.code == 0, done.err
        return done

    async def begin(self, name: str) -> WorkflowHandle[Any, RunResult]:
        handle = await self.site.start("boss", workflow_id=name)
        await reached(f"{name}/c1", "look")
        async with asyncio.timeout(30):
            while not await exists(self.site.client, f"{name}/c3/c1"):
                await asyncio.sleep(0.05)
        await asked(self.site.client.get_workflow_handle(f"{name}/c3/c1"))
        await self.site.agents.handle(f"{name}/c2").result()
        return handle


async def reached(workflow_id: str, tool: str) -> None:
    async with asyncio.timeout(30):
        while not calls_of(workflow_id, tool):
            await asyncio.sleep(0.05)


def below(*names: str, **keys: Any) -> dict[str, Any]:
    return {"tools": [{"agent": name} for name in names], **keys}


def calls(*names: str) -> dict[str, Any]:
    return {"call": [{name: {"task": f"task of {name}"}} for name in names]}


@pytest.fixture(scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    folder = tmp_path_factory.mktemp("trees")
    async with run_private_server() as server:
        client = await connect(address=server.address)
        people = str(write_people(folder, PEOPLE))
        site = new_site(folder, client, MANDATE_PEOPLE=people)
        site.write("boss", [calls("works", "done", "asks"), DONE], **below("works", "done", "asks"))
        look = {"python": "tests.support.toolkit:look", "timeout": "10m"}
        site.write("works", [HELD, HELD, DONE], tools=[look])
        site.write("done", [PAY, {"say": LONG}])
        site.write("asks", [calls("payer"), DONE], **below("payer"))
        site.write("shares", [calls("writer"), DONE], **below("writer"))
        site.write("writer", [WRITE, DONE], tools=[], board="write")
        site.write("payer", [PAY, DONE], policy=ASK_ALL, people={"expires": "2h"})
        env = {
            **os.environ,
            "TEMPORAL_ADDRESS": server.address,
            "TEMPORAL_CONFIG_FILE": str(folder / "none.toml"),
            "MANDATE_FOLDER": str(folder),
            "MANDATE_PEOPLE": people,
            "MANDATE_USER": BY,
        }
        found = Desk(Place(folder, server.address, client, env), site)
        async with site.serving():
            await found.begin("root")
            await found.begin("other")
            async with asyncio.timeout(30):
                while len((await found.json("inbox"))["requests"]) < 2:
                    await asyncio.sleep(0.1)
            yield found
            LET_GO.update(("root/c1", "other/c1"))


async def test_a_tree_is_drawn_with_what_each_run_does(desk: Desk) -> None:
    done = await desk.run("show", "root/c3/c1", "--tree")

    lines = [line.rstrip() for line in done.out.splitlines()]
    assert lines[0] == "root  boss  running  $0.0000"
    assert lines[1].startswith("  waiting for root/c")
    assert lines[2:] == [
        "├── c1  works  running  $0.0000",
        "│     look what=a held=true",
        "├── c2  done  completed  $0.0000",
        "└── c3  asks  running  $0.0000",
        "      waiting for root/c3/c1",
        "    └── c1  payer  waiting  $0.0000  1 request to finance  ← this run",
    ]
    assert done.err.splitlines()[-2:] == [
        "5 runs: 3 running, 1 completed, 1 waiting",
        "1 request to people: `mandate inbox --root root`",
    ]


async def test_a_tree_is_nested_objects_for_programs(desk: Desk) -> None:
    tree = await desk.json("show", "root", "--tree")

    assert list(tree) == [
        *("workflow_id", "run_id", "workflow_type", "agent", "version", "status", "doing", "reason", "silent"),
        *("cost_usd", "requests", "waits_for", "children"),
    ]
    ids = [child["workflow_id"] for child in tree["children"]]
    assert (tree["workflow_id"], ids) == ("root", ["root/c1", "root/c2", "root/c3"])
    (payer,) = tree["children"][2]["children"]
    shown = {key: payer[key] for key in ("agent", "status", "requests", "waits_for", "cost_usd", "silent", "children")}
    assert shown == {
        "agent": "payer",
        "status": "waiting",
        "requests": 1,
        "waits_for": ["finance"],
        "cost_usd": "0",
        "silent": False,
        "children": [],
    }


async def test_the_tree_of_a_request_is_that_of_its_run(desk: Desk) -> None:
    assert await desk.json("show", "root/c3/c1:r1", "--tree") == await desk.json("show", "root", "--tree")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("nobody", "--tree"), "there is no run 'nobody' in namespace"),
        (("root", "--tree", "--tokens"), "--tree goes without --follow, --tokens and --full"),
        (("root", "--board", "--tree"), "--board goes without --follow, --tokens and --tree"),
    ],
)
async def test_a_tree_that_cannot_be_shown_is_a_sentence(desk: Desk, words: tuple[str, ...], sentence: str) -> None:
    done = await desk.place.run("show", *words)

    assert done.code == 2
    assert f"error: {sentence}" in done.err


async def test_a_tree_that_nobody_serves_says_what_to_start(desk: Desk) -> None:
    start = {"agent": "boss", "input": "x"}
    handle = await desk.site.client.start_workflow("AgentWorkflow", start, id="unserved", task_queue="nobodys")
    done = await desk.run("show", "unserved", "--tree")
    await handle.terminate()

    assert done.out.splitlines() == [
        "unserved  boss  running",
        "  does not answer: no worker polls task queue 'nobodys'",
    ]
    assert done.err.splitlines()[-1] == (
        "no worker answers on task queue 'nobodys'; start one with `mandate worker --task-queue nobodys`"
    )


async def test_a_request_of_a_child_tells_where_it_stands(desk: Desk) -> None:
    listed = await desk.json("inbox")
    table = await desk.run("inbox")
    shown = await desk.run("show", "root/c3/c1:r1")
    one = await desk.json("show", "root/c3/c1:r1")

    places = {request["name"]: (request["root"], request["parent"]) for request in listed["requests"]}
    assert places["root/c3/c1:r1"] == ("root", "root/c3")
    assert places["other/c3/c1:r1"] == ("other", "other/c3")
    assert "root/c3/c1:r1" in table.out
    assert "child of  root/c3; root root, agent boss" in shown.out.splitlines()
    assert "  mandate approve root/c3/c1:r1" in shown.out.splitlines()
    assert (one["root"], one["parent"]) == ("root", "root/c3")


@pytest.mark.parametrize("words", [(), ("--scan",)])
@pytest.mark.parametrize("named", ["root", "root/c1"])
async def test_an_inbox_of_one_tree_has_its_requests_only(desk: Desk, named: str, words: tuple[str, ...]) -> None:
    listed = await desk.json("inbox", "--root", named, *words)

    assert [request["name"] for request in listed["requests"]] == ["root/c3/c1:r1"]


async def test_an_inbox_of_no_tree_is_refused(desk: Desk) -> None:
    done = await desk.place.run("inbox", "--root", "nobody")

    assert done.code == 2
    assert "error: --root 'nobody': there is no such run in namespace" in done.err


async def test_a_run_without_others_has_no_place(desk: Desk) -> None:
    handle = await desk.site.start("payer", workflow_id="alone")
    await asked(handle)
    request = await desk.json("show", "alone:r1")
    shown = await desk.run("show", "alone:r1")
    record = await desk.json("show", "alone")
    tree = await desk.run("show", "alone", "--tree")
    await handle.terminate()

    assert (request["root"], request["parent"]) == (None, None)
    assert "child of" not in shown.out
    assert (record["root"], record["parent"], record["children"]) == (None, None, [])
    assert tree.out.splitlines() == ["alone  payer  waiting  $0.0000  1 request to finance"]


async def test_a_child_is_shown_with_its_parent_and_a_parent_with_its_children(desk: Desk) -> None:
    parent, record = await desk.run("show", "root"), await desk.json("show", "root")
    middle, leaf = await desk.run("show", "root/c3"), await desk.run("show", "root/c3/c1")
    done = await desk.json("show", "root/c2")

    lines = [line.rstrip() for line in parent.out.splitlines()]
    at = lines.index("children")
    assert lines[at + 1 : at + 4] == [
        "  c1  works  running",
        "  c2  done   completed  $0.0000",
        "  c3  asks   running",
    ]
    assert [(child["workflow_id"], child["status"], child["cost_usd"]) for child in record["children"]] == [
        ("root/c1", "running", None),
        ("root/c2", "completed", "0"),
        ("root/c3", "running", None),
    ]
    assert "child of root" in middle.out.splitlines()
    assert "child of root/c3 (root root)" in leaf.out.splitlines()
    assert "  task of payer" in leaf.out.splitlines()
    assert (done["output"], done["effects"]["count"]) == (LONG, 1)
    assert [entry["call"] for entry in done["effects"]["last"]] == ["pay order=1"]


async def test_effects_and_cost_of_children_are_told_as_theirs(desk: Desk) -> None:
    shown, record = await desk.run("show", "root"), await desk.json("show", "root")

    assert "  step 1  done task=task of done    1 effect of root/c2" in [
        line.rstrip() for line in shown.out.splitlines()
    ]
    assert [(entry["run"], entry["count"]) for entry in record["effects"]["last"]] == [("root/c2", 1)]
    models = {entry["model"]: entry["answers"] for entry in record["models"]}
    assert models["children"] == 2
    assert (record["usage"]["model_calls"], record["usage"]["tool_calls"]) == (3, 4)


async def test_a_followed_child_says_where_its_answer_is(desk: Desk) -> None:
    done = await desk.run("show", "root/c2", "--follow")

    assert "`show` has its answer" in done.out
    assert "Changed the world once; `show` lists the calls" in done.out


async def test_a_tree_is_paused_and_resumed(desk: Desk) -> None:
    paused = await desk.run("pause", "other", "--tree", "--reason", "lunch")
    async with asyncio.timeout(30):
        while await statuses(desk) != ["paused", "paused", "completed", "paused", "paused"]:
            await asyncio.sleep(0.1)
    child = await desk.run("show", "other/c1")
    resumed = await desk.run("resume", "other", "--tree")
    async with asyncio.timeout(30):
        while await statuses(desk) != ["running", "running", "completed", "running", "waiting"]:
            await asyncio.sleep(0.1)

    assert paused.out == "other  the call in hand is finished; no new one begins; its children are paused too\n"
    assert f"  step 1   {BY} pauses the run, through the run above: lunch" in child.out.splitlines()
    assert resumed.out == "other  the run goes on\n"


async def statuses(desk: Desk) -> list[str]:
    def walk(run: dict[str, Any]) -> list[str]:
        return [run["status"], *(status for child in run["children"] for status in walk(child))]

    return walk(await desk.json("show", "other", "--tree"))


async def test_a_parent_alone_is_paused_and_its_children_work_on(desk: Desk) -> None:
    paused = await desk.run("pause", "other")
    after = await statuses(desk)
    await desk.run("resume", "other")

    assert paused.out == (
        "other  the call in hand is finished; no new one begins; its children work on, unless `tree` is true\n"
    )
    assert after == ["paused", "running", "completed", "running", "waiting"]


async def test_a_stop_says_that_it_stops_the_children(desk: Desk) -> None:
    handle = await desk.begin("third")
    stopped = await desk.run("stop", "third")
    LET_GO.add("third/c1")
    result = await handle.result()
    shown = await desk.json("show", "third/c3")

    assert stopped.out == "third  the call in hand is finished, its 2 children are stopped, then the run ends\n"
    assert result.status == "stopped"
    assert (shown["status"], [told["line"] for told in shown["people"]][-1]) == (
        "stopped",
        f"{BY} stops the run, through the run above",
    )


async def test_a_request_deep_in_a_tree_is_decided_by_its_name_and_its_number(desk: Desk) -> None:
    handle = await desk.begin("a run/with 'odd' names")
    async with asyncio.timeout(30):
        while not (listed := await desk.json("inbox", "--root", handle.id))["requests"]:
            await asyncio.sleep(0.1)
    (request,) = listed["requests"]
    shown = await desk.run("show", "1")
    done = await desk.run("approve", "1")
    LET_GO.add(f"{handle.id}/c1")
    await handle.result()

    name = f"{handle.id}/c3/c1"
    assert (request["name"], request["root"]) == (f"{name}:r1", handle.id)
    assert """  mandate approve 'a run/with '"'"'odd'"'"' names/c3/c1:r1'""" in shown.out.splitlines()
    assert done.out.startswith(f"1 ({name}:r1)  r1 is approved")


async def test_the_board_of_a_tree_is_shown_from_each_of_its_runs(desk: Desk) -> None:
    handle = await desk.site.start("shares", workflow_id="boards")
    await handle.result()
    shown = await desk.run("show", "boards", "--board")
    below = await desk.json("show", "boards/c1", "--board")
    empty = await desk.run("show", "root", "--board")

    assert [line.split() for line in shown.out.splitlines()] == [
        ["KEY", "VERSION", "BY", "VALUE"],
        ["found", "1", "boards/c1", '{"order":7}'],
    ]
    assert below["root"] == "boards"
    assert below["board"] == {"found": {"value": {"order": 7}, "version": 1, "by": "boards/c1", "tainted": False}}
    assert empty.err.splitlines()[-1] == "the board of root is empty"
