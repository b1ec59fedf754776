"""A tool of an MCP server asks, and a person answers at the terminal, after the worker and the server have died."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.support.mcp_peer import COMMAND
from tests.support.place import Place, new_place

ROOT = Path(__file__).parents[2]
PEOPLE = """
people:
  - {name: ann@example.com, groups: [finance]}
  - {name: req@example.com}
"""


@pytest.fixture(scope="module")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    """A place with an agent whose one tool asks before it acts; commands are ann's."""
    folder = tmp_path_factory.mktemp("asks")
    command = [*COMMAND, "asking", "stdio", str(folder / "journal")]
    server = {"name": "shop", "command": command, "env": {"PYTHONPATH": str(ROOT)}}
    agent = {
        "name": "till",
        "instructions": "Serve.",
        "models": ["scripted:till.script.yaml"],
        "tools": [{"mcp": server, "only": ["refund", "wish"], "asks_before_acting": True}],
        "policy": [{"id": "all", "match": {}, "verdict": "allow"}],
        "people": {"approvers": {"groups": ["finance"]}},
    }
    tools = {"refund": "refund*", "wish": "wish*"}
    script = {
        "strict": False,
        "conversations": [
            {"match": match, "turns": [{"call": [{tool: {"order": 81}}]}, {"say": "Done."}]}
            for tool, match in tools.items()
        ],
    }
    files = {
        "agents/till.yaml": json.dumps(agent),
        "agents/till.script.yaml": json.dumps(script),
        "people.yaml": PEOPLE,
    }
    ann = {"MANDATE_PEOPLE": str(folder / "people.yaml"), "MANDATE_USER": "ann@example.com"}
    async with new_place(folder, files, **ann) as place:
        yield place


async def parked(desk: Place, what: str) -> str:
    """The workflow id of a new run that waits for people."""
    name = f"{what}-{uuid4().hex[:6]}"
    begun = await desk.run("run", "till", f"{what} it", "--id", name, "--detach", MANDATE_USER="req@example.com")
    assert begun.code == 0, begun.err
    async with asyncio.timeout(60):
        while name not in [entry["workflow_id"] for entry in await inbox(desk)]:
            await asyncio.sleep(0.1)
    return name


async def inbox(desk: Place) -> list[dict[str, Any]]:
    requests: list[dict[str, Any]] = json.loads((await desk.run("inbox", "-o", "json")).out)["requests"]
    return requests


def acts(desk: Place) -> list[int]:
    journal = desk.folder / "journal"
    lines = journal.read_text().splitlines() if journal.exists() else []
    return [json.loads(line)["order"] for line in lines]


async def test_question_is_answered_by_another_worker_and_another_server(desk: Place) -> None:
    async with desk.serving("till"):
        name = await parked(desk, "refund")
    async with desk.serving("till"):
        listed = await desk.run("inbox", "--kind", "question")
        shown = await desk.run("show", f"{name}:r1")
        wrong = await desk.run("answer", f"{name}:r1", "perhaps")
        assert acts(desk) == []
        right = await desk.run("answer", f"{name}:r1", '{"approve": true, "reason": "broken"}')
        result = await desk.client.get_workflow_handle(name).result()

    row = next(line for line in listed.out.splitlines() if name in line)
    assert row.split()[-7:] == ["till", "finance", "shop", "asks:", "Refund", "order", "81?"]
    lines = shown.out.splitlines()
    for line in (
        "Refund order 81?",
        "- approve (yes or no): Approve",
        f"request  {name}:r1, a question",
        "why      the MCP server 'shop' asks, before it goes on with refund order=81",
        "  cancel        the server is told that nobody chose",
    ):
        assert line in lines
    assert "then the server is told that nobody chose" in shown.out
    assert (wrong.code, right.code) == (1, 0)
    assert "value: the form has the fields approve, reason; answer with JSON" in wrong.err + wrong.out
    assert "r1 is answered: ann@example.com answered" in right.out
    assert (acts(desk), result["status"], result["effects"]["count"]) == ([81], "completed", 1)


@pytest.mark.parametrize("words", [("reject",), ("decide", "--choice", "cancel")])
async def test_question_may_be_declined_or_left(desk: Place, words: tuple[str, ...]) -> None:
    async with desk.serving("till"):
        name = await parked(desk, "wish")
        verb, *options = words
        done = await desk.run(verb, f"{name}:r1", *options)
        result = await desk.client.get_workflow_handle(name).result()

    assert done.code == 0, done.err
    assert result["status"] == "completed"
