"""Runs as pictures and in numbers: real commands, a worker in this process, a real server."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowHandle

from mandate.workers.client.client import connect
from mandate.workers.dev_server.server import run_private_server
from mandate.workers.history.stats import read_stats
from mandate.workflows.contracts.run import RunResult
from tests.support.agents import Site, continued, new_site, parts_taken
from tests.support.people import ASK_ALL, PEOPLE, asked, decide, write_people
from tests.support.place import Done, Place
from tests.support.toolkit import LET_GO, calls_of

HIDDEN = "4000-1234"
HOSTILE = "</pre><script>alert(1)</script>\x1b[31m\u202eevil"
LOOKS = {"call": [{"look": {"what": "a", "seconds": 0.3}}, {"look": {"what": "b", "seconds": 0.3}}]}
TURNS: dict[str, Any] = {
    "busy": [
        LOOKS,
        {"say": HOSTILE, "call": [{"send": {"to": "Ann", "card": HIDDEN}}]},
        {"say": f"Sent with {HIDDEN}."},
    ],
    "asks": [{"call": [{"pay": {"order": 1}}]}, {"say": "Paid."}],
    "boss": [{"call": [{"busy": {"task": "Do it."}}]}, {"say": "It is done."}],
    "holds": [{"call": [{"look": {"what": "h", "held": True}}]}, {"say": "Seen."}],
    "fails": [{"call": [{"look_bad": {}}]}, {"say": "Nothing is there."}],
}


@dataclass(frozen=True, slots=True)
class Desk:
    place: Place
    site: Site
    folder: Path

    async def run(self, *words: str, **env: str) -> Done:
        return await self.place.run(*words, **env)

    async def json(self, *words: str, **env: str) -> Any:
        done = await self.run(*words, "-o", "json", **env)
        assert done.code == 0, done.err
        return json.loads(done.out)

    async def finish(self, name: str) -> WorkflowHandle[Any, RunResult]:
        handle = await self.site.start(name)
        await handle.result()
        return handle


@pytest.fixture(scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Desk]:
    folder = tmp_path_factory.mktemp("timeline")
    async with run_private_server() as server:
        client = await connect(address=server.address)
        people = str(write_people(folder, PEOPLE))
        site = new_site(folder, client, MANDATE_PEOPLE=people)
        look = {"python": "tests.support.toolkit:look", "timeout": "10m"}
        send = {"python": "tests.support.toolkit:send", "sensitive": ["card"]}
        site.write("busy", TURNS["busy"], tools=[look, send])
        site.write("asks", TURNS["asks"], policy=ASK_ALL, people={"expires": "2h"})
        site.write("boss", TURNS["boss"], tools=[{"agent": "busy"}])
        site.write("holds", TURNS["holds"], tools=[look])
        site.write("fails", TURNS["fails"])
        env = {
            **os.environ,
            "TEMPORAL_ADDRESS": server.address,
            "TEMPORAL_CONFIG_FILE": str(folder / "none.toml"),
            "MANDATE_FOLDER": str(folder),
            "MANDATE_PEOPLE": people,
        }
        async with site.serving():
            yield Desk(Place(folder, server.address, client, env), site, folder)


def named(bars: list[Any], kind: str) -> list[Any]:
    return [bar for bar in bars if bar["kind"] == kind]


async def test_a_run_is_drawn_with_calls_side_by_side(desk: Desk) -> None:
    run = await desk.finish("busy")

    done = await desk.run("show", run.id, "--timeline")
    found = await desk.json("show", run.id, "--timeline")

    assert done.code == 0, done.err
    assert "model scripted:busy.script.yaml" in done.out
    assert "tool send to=Ann card=***" in done.out
    assert HIDDEN not in done.out + json.dumps(found)
    assert (found["workflow_id"], found["status"], found["unreadable"]) == (run.id, "completed", 0)
    first, second = named(found["bars"], "tool")[:2]
    assert second["begun_at"] < first["ended_at"]
    assert found["ended_at"] >= found["bars"][-1]["ended_at"]
    assert [len(named(found["bars"], kind)) for kind in ("model", "tool")] == [3, 3]
    assert all(bar["input_tokens"] for bar in named(found["bars"], "model"))


async def test_a_child_is_a_bar_and_a_run_that_goes_on_has_open_ones(desk: Desk) -> None:
    run = await desk.finish("boss")
    held = await desk.site.start("holds")
    async with asyncio.timeout(30):
        while not calls_of(held.id, "look"):
            await asyncio.sleep(0.05)

    found = await desk.json("show", run.id, "--timeline")
    going_on = await desk.json("show", held.id, "--timeline")
    drawn = await desk.run("show", held.id, "--timeline")
    LET_GO.add(held.id)

    assert [bar["name"] for bar in named(found["bars"], "child")] == [f"{run.id}/c1"]
    (look,) = named(going_on["bars"], "tool")
    assert (look["state"], look["ended_at"], going_on["ended_at"]) == ("open", None, None)
    assert look["taken_at"] is not None
    assert "and goes on" in drawn.out


async def test_all_parts_of_a_run_are_on_one_line(desk: Desk) -> None:
    run = await desk.site.start("asks")
    (request,) = await asked(run)
    await continued(run)
    await decide(run, request)
    await run.result()

    found = await desk.json("show", run.id, "--timeline")

    assert len(found["parts"]) == await parts_taken(desk.site.client, run.id) > 1
    assert [part["ended_at"] is not None for part in found["parts"]] == [True] * len(found["parts"])
    (wait,) = named(found["bars"], "person")
    assert (wait["part"], wait["state"], wait["request"], wait["name"]) == (1, "done", "approval", "r1")
    assert [bar["label"] for bar in named(found["bars"], "tool")] == ["pay order=1"]
    assert len(named(found["bars"], "model")) == 2
    assert any("r1 is approved" in word["line"] for word in found["people"])


async def test_a_page_is_written_whole_once_and_not_over_another_file(desk: Desk) -> None:
    run = await desk.finish("busy")
    file = desk.folder / "page.html"

    written = await desk.run("show", run.id, "--html", str(file))
    page = file.read_text()
    file.write_text("mine")
    refused = await desk.run("show", run.id, "--html", str(file))
    kept = file.read_text()
    replaced = await desk.run("show", run.id, "--html", str(file), "--overwrite")
    streamed = await desk.run("show", run.id, "--html", "-")

    assert (written.code, written.out) == (0, ""), written.err
    assert page.startswith("<!doctype html>")
    assert page.rstrip().endswith("</html>")
    assert (refused.code, kept) == (2, "mine")
    assert refused.err == f"error: --html {str(file)!r} exists already; --overwrite replaces it\n"
    assert replaced.code == 0
    assert streamed.out.startswith("<!doctype html>")
    assert file.stat().st_mode & 0o777 in {0o600, 0o644}
    assert HIDDEN not in page
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert not [one for one in desk.folder.iterdir() if one.name.startswith(".page.html")]


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (("--timeline", "--tree"), "--timeline and --html go without --follow, --tokens, --tree and --board"),
        (("--overwrite",), "--overwrite goes with --html"),
        (("--html", "-", "--overwrite"), "--overwrite goes with a file, and --html - writes to stdout"),
        (("--html", "/"), "--html '/' is a folder; name a file in it"),
        (("--html", "/no/where/a.html"), "--html '/no/where/a.html': there is no folder '/no/where'"),
        (("--html", "/dev/null", "--overwrite"), "--html '/dev/null' is no ordinary file; `-` writes to stdout"),
    ],
)
async def test_what_cannot_be_done_is_refused_before_anything_is_read(
    desk: Desk, words: tuple[str, ...], refusal: str
) -> None:
    done = await desk.run("show", "nobody", *words)

    assert (done.code, done.err) == (2, f"error: {refusal}\n")


async def test_without_the_store_the_time_line_is_there_and_the_rest_is_said(desk: Desk) -> None:
    run = await desk.finish("busy")
    elsewhere = {"MANDATE_STORE": f"sqlite:///{desk.folder}/none.db"}

    page = await desk.run("show", run.id, "--html", "-", **elsewhere)
    drawn = await desk.run("show", run.id, "--timeline", **elsewhere)

    assert page.code == 0, page.err
    assert "The conversation is not here: the conversation is in store" in page.out
    assert "tool" in page.out
    assert "send to=Ann card=***" in page.out
    assert (drawn.code, "send to=Ann" in drawn.out) == (0, True)


async def test_stats_count_runs_and_read_only_those_that_are_wanted(desk: Desk) -> None:
    await desk.finish("fails")
    await desk.finish("fails")
    await desk.finish("boss")

    async with asyncio.timeout(30):
        while (found := await desk.json("stats", "--agent", "fails"))["counted"] < 2:
            await asyncio.sleep(0.2)
    text = await desk.run("stats", "--agent", "fails")
    everything = await desk.json("stats")
    one = await desk.json("stats", "--limit", "1")
    none = await desk.json("stats", "--since", "1s", "--agent", "nobody")

    assert (found["outcomes"], found["unread"]) == ({"completed": 2}, [])
    assert found["tools"] == [{"name": "look_bad", "calls": 2, "states": {"failed": 2}, "more_attempts": 4}]
    assert found["duration"]["count"] == 2
    assert found["duration"]["p50"] <= found["duration"]["p95"] == found["duration"]["longest"]
    assert text.out.splitlines()[0] == "2 runs: 2 completed"
    assert {"boss", "busy", "fails"} <= {agent["agent"] for agent in everything["agents"]}
    assert sum(agent["model_calls"] for agent in everything["agents"]) == everything["model_calls"]
    boss = next(agent for agent in everything["agents"] if agent["agent"] == "boss")
    assert boss["model_calls"] == 2 * boss["runs"]
    assert (one["listed"], one["counted"], one["found"] > 1) == (1, 1, True)
    assert (none["counted"], none["found"]) == (0, 0)


async def test_stats_say_what_could_not_be_read(desk: Desk) -> None:
    run = await desk.finish("fails")
    async with asyncio.timeout(30):
        while not [one async for one in desk.site.client.list_workflows(f'WorkflowId="{run.id}"')]:
            await asyncio.sleep(0.1)

    class Forgetful:
        """A client whose server has deleted a run since it was listed."""

        def __getattr__(self, name: str) -> Any:
            return getattr(desk.site.client, name)

        def get_workflow_handle(self, workflow_id: str, **keys: Any) -> Any:
            gone = workflow_id == run.id
            return desk.site.client.get_workflow_handle("gone" if gone else workflow_id, **keys)

    found = await read_stats(Forgetful(), agent="fails")  # type: ignore[arg-type]

    assert [(one.workflow_id, one.reason, one.is_counted) for one in found.unread] == [
        (run.id, "Temporal does not keep it any more", False)
    ]
    assert found.counted == found.listed - 1


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (("--agent", "a'b"), '--agent: "a\'b" is no name of an agent: quotes and backslashes are not allowed'),
        (
            ("--since", "soon"),
            "--since 'soon' is neither a duration such as 24h or 7d nor a time such as 2026-11-30T09:00",
        ),
    ],
)
async def test_stats_refuse_what_they_do_not_understand(desk: Desk, words: tuple[str, ...], refusal: str) -> None:
    done = await desk.run("stats", *words)

    assert (done.code, done.err) == (2, f"error: {refusal}\n")
