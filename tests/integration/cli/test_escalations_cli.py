"""Escalations and unknown outcomes at the terminal: ours and Temporal's, with a real worker and a real server."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from mandate.workers.client.client import AgentClient
from mandate.workers.dev_server.binary import find_binary
from tests.support.people import asked, open_requests
from tests.support.place import Done, Place, new_place

TOOLS = '''
from mandate.activities.toolbox.decorator import NotDone, ToolContext, tool

@tool(effect="once")
def fetch(shelf: int) -> str:
    """Fetch."""
    raise NotDone(f"shelf {shelf} is empty")

@tool(effect="once")
def post(to: str) -> str:
    """Post a letter, and hear nothing of it."""
    raise ConnectionError("the line broke")

@tool(effect="keyed")
def pay(order: int, context: ToolContext) -> str:
    """Pay; the first attempt breaks."""
    if context.attempt == 1:
        raise ConnectionError("the line broke")
    return f"paid {order}"

@tool(effect="once")
def note(text: str) -> str:
    """Write a note."""
    return "noted"
'''

AGENT = {
    "instructions": "Serve.",
    "models": ["scripted:clerk.script.yaml"],
    "tools": [{"python": f"clerk_tools:{name}"} for name in ("fetch", "post", "pay", "note")],
    "policy": [
        {"id": "notes", "match": {"tools": ["note"]}, "verdict": "ask"},
        {"id": "rest", "match": {"tools": ["fetch", "post", "pay"]}, "verdict": "allow"},
    ],
    "attempts": 2,
}
FETCH = [{"call": [{"fetch": {"shelf": number}}, {"pay": {"order": number}}]} for number in (1, 2)]
SCRIPT: dict[str, Any] = {
    "strict": False,
    "conversations": [
        {"match": "fetch*", "turns": [*FETCH, {"say": "Fetched."}]},
        {"match": "post*", "turns": [{"call": [{"pay": {"order": 7}}, {"post": {"to": "Ada"}}]}, {"say": "Posted."}]},
        {"match": "dumb*", "turns": [{"fail": [{"status": 401}] * 9, "say": "never"}]},
        {"match": "both*", "turns": [{"call": [{"post": {"to": "Ada"}}, {"note": {"text": "a"}}]}, {"say": "Both."}]},
    ],
}


@pytest.fixture(scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """A place with a worker that serves `clerk`, and `hasty`, who is given up on; commands are ann's."""
    files = {
        "clerk_tools.py": TOOLS,
        "agents/clerk.script.yaml": json.dumps(SCRIPT),
        "people.yaml": "people: [{name: ann@example.com}, {name: cy@example.com}]",
    }
    for name, expires in (("clerk", "24h"), ("hasty", "1s")):
        files[f"agents/{name}.yaml"] = json.dumps({"name": name, "people": {"expires": expires}, **AGENT})
    folder = tmp_path_factory.mktemp("clerk")
    (folder / "bin").mkdir()
    (folder / "bin" / "temporal").symlink_to(find_binary(lambda _: None))
    env = {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "MANDATE_PEOPLE": str(folder / "people.yaml"),
        "MANDATE_USER": "ann@example.com",
    }
    async with new_place(folder, files, **env) as place, place.serving("clerk"):
        yield place


async def inbox(desk: Place, *words: str) -> dict[str, str]:
    """What is open, by name, with its kind."""
    done = await desk.run("inbox", "-o", "json", *words)
    assert done.code == 0, done.err
    return {entry["name"]: entry["kind"] for entry in json.loads(done.out)["requests"]}


async def parked(desk: Place, what: str, requests: int = 1) -> str:
    """The workflow id of a new run that wants so much from people."""
    name = f"{what}-{uuid4().hex[:6]}"
    agents = AgentClient(desk.client, "agents")
    run = await agents.start("clerk", f"{what} it", workflow_id=name, requester="cy@example.com")
    await asked(run, requests)
    return run.id


async def by_temporal(desk: Place, request: str, choice: str, value: Any, verb: str = "update execute") -> Done:
    """Decide with Temporal's own CLI, by the command that `mandate show` prints for it."""
    told = json.loads((await desk.run("show", request, "-o", "json")).out)
    command: str = next(way["temporal"] for way in told["commands"] if way["choice"] == choice)
    assert command.startswith("temporal workflow update execute --workflow-id ")
    assert " --name decide --input '" in command
    command = command.replace("<your name>", "ann@example.com").replace('"}', f'", "value": {json.dumps(value)}}}')
    command = command.replace("update execute", verb)
    return await desk.run("-c", command, program="sh")


async def ended(desk: Place, name: str) -> dict[str, Any]:
    found: dict[str, Any] = await desk.client.get_workflow_handle(name).result()
    return found


async def test_escalation_is_decided_by_name(desk: Place) -> None:
    name = await parked(desk, "fetch")

    looked_at = (await desk.run("show", f"{name}:r1")).out.splitlines()
    done = await desk.run("decide", f"{name}:r1", "--choice", "retry", "--value", "Look in the cellar.")
    result = await ended(desk, name)
    shown = (await desk.run("show", name)).out

    assert looked_at[0] == "'fetch' failed 2 times"
    for line in (
        f"request  {name}:r1, an escalation",
        "  fetch it",
        "  attempt 1: fetch shelf=1: error: shelf 1 is empty",
        "  attempt 2: fetch shelf=2: error: shelf 2 is empty",
        "  done so far: pay order=1",
        f"  mandate decide {name}:r1 --choice retry",
        f"  mandate decide {name}:r1 --choice supply --value '<your answer>'",
    ):
        assert line in looked_at, line
    assert (done.code, done.out) == (0, f"{name}:r1  r1 is settled: ann@example.com chose retry\n")
    assert (result["status"], result["output"]) == ("completed", "Fetched.")
    assert "[ann@example.com says] Try again. Look in the cellar.\n" in shown


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("--choice", "supply"), "is missing; 'supply' comes with the result: --value ..."),
        (("--choice", "supply", "--value", " "), "is missing; 'supply' comes with the result: --value ..."),
        (("--choice", "stop", "--value", "3"), "goes with retry or supply, not with 'stop'"),
    ],
)
async def test_a_choice_without_what_belongs_to_it_is_not_sent(desk: Place, words: tuple[str, ...], fault: str) -> None:
    name = await parked(desk, "fetch")

    done = await desk.run("decide", f"{name}:r1", *words)
    shown = (await desk.run("show", name)).out

    assert done.code == 2
    assert done.err.splitlines()[-1].startswith(f"error: {name}:r1: value: {fault}; choose with ")
    assert done.err.endswith("; nothing was sent\n")
    assert "ann@example.com" not in shown


async def test_escalation_is_decided_with_temporals_own_command(desk: Place) -> None:
    name = await parked(desk, "fetch")

    done = await by_temporal(desk, f"{name}:r1", "retry", {"shelf": 3})
    result = await ended(desk, name)

    assert done.code == 0, done.err
    assert "r1 is settled: ann@example.com chose retry" in done.out
    assert (result["status"], result["output"]) == ("completed", "Fetched.")
    assert '[ann@example.com says] Try again. {"shelf":3}\n' in (await desk.run("show", name)).out


@pytest.mark.parametrize("way", ["mandate", "temporal"])
async def test_outcome_is_decided(desk: Place, way: str) -> None:
    name = await parked(desk, "post")

    if way == "mandate":
        value = ("--value", '{"letter": 7}')
        done = await desk.run("decide", f"{name}:r1", "--choice", "happened", *value, "--comment", "it is there")
    else:
        done = await by_temporal(desk, f"{name}:r1", "happened", {"letter": 7})
    result = await ended(desk, name)

    assert done.code == 0, done.err
    assert "r1 is settled: ann@example.com chose happened" in done.out
    assert [(entry["call"], entry["attempts"], entry["reason"]) for entry in result["effects"]["last"]] == [
        ("pay order=7", 2, None),
        ("post to=Ada", 1, f"ann@example.com chose happened{' (it is there)' if way == 'mandate' else ''}"),
    ]
    assert '← post [it happened, says ann@example.com]\n    {"letter": 7}\n' in (await desk.run("show", name)).out


def table(out: str, title: str) -> list[list[str]]:
    """The cells of the rows below a title."""
    lines = out.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith(title)) + 1
    rows = []
    for line in lines[first:]:
        if not line.startswith("  "):
            break
        rows.append([cell for cell in line.strip().split("  ") if cell])
    return [[cell.strip() for cell in row] for row in rows]


async def test_ended_run_has_a_table_of_its_effects(desk: Place) -> None:
    known, unknown = await parked(desk, "post"), f"post-{uuid4().hex[:6]}"
    await desk.run("decide", f"{known}:r1", "--choice", "happened")
    declined = await desk.run("run", "hasty", "post it", "--id", unknown)
    await ended(desk, known)

    of_known, of_unknown = [
        told.out for told in await asyncio.gather(desk.run("show", known), desk.run("show", unknown))
    ]

    paid = ["step 1", "pay order=7", "2 attempts"]
    assert declined.code == 1
    assert table(of_known, "changed the world 2 times") == [
        paid,
        ["step 1", "post to=Ada", "ann@example.com chose happened"],
    ]
    assert "unknown whether it happened" not in of_known
    assert table(of_unknown, "changed the world once") == [paid]
    assert table(of_unknown, "unknown whether it happened") == [
        ["step 1", "post to=Ada", "ConnectionError: the line broke"]
    ]


async def test_inbox_lists_both_kinds(desk: Place) -> None:
    escalation, outcome = await parked(desk, "fetch"), await parked(desk, "post")

    every, escalations, outcomes, listed = await asyncio.gather(
        inbox(desk), inbox(desk, "--kind", "escalation"), inbox(desk, "--kind", "outcome"), desk.run("inbox")
    )
    await desk.run("stop", escalation, outcome, "--yes")

    assert "answer with `mandate decide " in listed.err
    assert "approve" not in listed.err
    wanted = {f"{escalation}:r1": "escalation", f"{outcome}:r1": "outcome"}
    assert wanted.items() <= every.items()
    assert [name for kind in (escalations, outcomes) for name in kind if name in wanted] == list(wanted)
    rows = {name: row for row in listed.out.splitlines() for name in wanted if name in row}
    assert rows[f"{escalation}:r1"].endswith("clerk  anyone     'fetch' failed 2 times")
    assert rows[f"{outcome}:r1"].endswith("clerk  anyone     did this happen? post to=Ada")


@pytest.mark.parametrize("way", ["update", "signal"])
async def test_answered_outcome_is_not_waited_for(desk: Place, way: str) -> None:
    name = await parked(desk, "both", 2)
    handle = desk.client.get_workflow_handle(name)

    before = table((await desk.run("show", name)).out, "waits for people")
    if way == "update":
        done = await desk.run("decide", f"{name}:r2", "--choice", "happened")
    else:
        done = await by_temporal(desk, f"{name}:r2", "happened", None, "signal")
    async with asyncio.timeout(30):
        while len((await open_requests(handle)).requests) > 1:
            await asyncio.sleep(0.05)
    after = table((await desk.run("show", name)).out, "waits for people")
    still = await inbox(desk)
    await desk.run("approve", f"{name}:r1")
    result = await ended(desk, name)

    assert done.code == 0, done.err
    assert [row[0] for row in before] == [f"{name}:r1", f"{name}:r2"]
    assert [row[0] for row in after] == [f"{name}:r1"]
    assert [request for request in still if request.startswith(name)] == [f"{name}:r1"]
    assert [entry["tool"] for entry in result["effects"]["last"]] == ["post", "note"]


async def test_answer_that_a_person_supplied_is_shown(desk: Place) -> None:
    """Only the result has it: the conversation ends before it."""
    run = await parked(desk, "dumb")

    await desk.run("decide", f"{run}:r1", "--choice", "supply", "--value", "All is well.")
    await ended(desk, run)
    plain, told = await desk.run("show", run), json.loads((await desk.run("show", run, "-o", "json")).out)

    assert "answer\n  All is well.\n" in plain.out
    assert told["output"] == "All is well."
