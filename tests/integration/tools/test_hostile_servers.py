"""Commands with MCP servers that do their worst: they end when they are told to, and leave no process behind."""

import asyncio
import json
import os
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mandate.activities.toolbox.mcp.tool_list import McpUnavailable
from mandate.activities.toolbox.mcp.toolbox import McpToolbox
from mandate.workflows.contracts.tool_entry import McpTools
from tests.support.event_loop import Standstill
from tests.support.mcp_peer import BARE_COMMAND

ROOT = Path(__file__).parents[3]
SECONDS = 12.0
"""For a command to end after a signal: a server gets two seconds after its stdin closes and two after SIGTERM; the rest
is for a busy machine."""


class Told:
    """A command that runs, and the processes of its tree by a mark in their environment."""

    def __init__(self, process: asyncio.subprocess.Process, mark: str) -> None:
        self.process = process
        self._mark = f"HOSTILE_MARK={mark}".encode()

    def left(self) -> list[int]:
        """Processes of the servers that live, whoever their parent is."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                marked = self._mark in (folder / "environ").read_bytes().split(b"\0")
                alive = (folder / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
            except OSError:
                continue
            if marked and alive:
                found.append(int(folder.name))
        return found

    async def has_server(self) -> None:
        while not self.left():
            await asyncio.sleep(0.05)

    async def end(self, number: signal.Signals) -> float:
        """Seconds from the signal to the end of the command."""
        begun = time.monotonic()
        self.process.send_signal(number)
        await asyncio.wait_for(self.process.wait(), 60)
        return time.monotonic() - begun


@asynccontextmanager
async def command(folder: Path, ways: str, *words: str) -> AsyncIterator[Told]:
    """`mandate` with an agent whose one server goes these ways."""
    mark = uuid.uuid4().hex
    agents = folder / "agents"
    agents.mkdir()
    server = {"name": "hostile", "command": [*BARE_COMMAND, "hostile", ways], "env": {"HOSTILE_MARK": mark}}
    agent = {"name": "a", "instructions": "x", "models": ["scripted:a.script.yaml"], "tools": [{"mcp": server}]}
    (agents / "a.yaml").write_text(json.dumps({**agent, "policy": [{"id": "all", "match": {}, "verdict": "allow"}]}))
    (agents / "a.script.yaml").write_text(json.dumps({"turns": [{"say": "done"}]}))
    environment = {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "MANDATE_AGENTS": str(agents),
        "MANDATE_FOLDER": str(folder / "state"),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "mandate.workers.main", *words,
        cwd=ROOT, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    told = Told(process, mark)
    try:
        yield told
    finally:
        for pid in told.left():
            os.kill(pid, signal.SIGKILL)
        if process.returncode is None:
            process.kill()
            await process.wait()


ENDLESS = ("chatter,silent", "deaf,parent,silent", "deaf,noise", "news", "line", "garbage")


@pytest.mark.parametrize("ways", ENDLESS)
async def test_validate_ends_at_a_signal_whatever_a_server_does(tmp_path: Path, ways: str) -> None:
    number = signal.SIGTERM if ENDLESS.index(ways) % 2 else signal.SIGINT
    async with command(tmp_path, ways, "validate") as told:
        await asyncio.wait_for(told.has_server(), 30)
        await asyncio.sleep(1)

        seconds = await told.end(number)

        assert (told.process.returncode, told.left()) == (130, [])
        assert seconds < SECONDS


async def test_a_second_signal_ends_at_once_and_leaves_no_process(tmp_path: Path) -> None:
    async with command(tmp_path, "deaf,parent,silent", "validate") as told:
        await asyncio.wait_for(told.has_server(), 30)
        await asyncio.sleep(1)
        told.process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.3)

        seconds = await told.end(signal.SIGTERM)
        await asyncio.sleep(0.1)

        assert (told.process.returncode, told.left()) == (130, [])
        # After the first signal alone it would be four.
        assert seconds < 3


@pytest.mark.parametrize(
    ("ways", "said"),
    [
        ("many", "it lists more than 1,000 tools"),
        ("crumbs", "it has more than 50,000 objects and lists"),
        ("wrong", "its answer breaks the protocol"),
        ("pages", "more than 200 pages"),
        ("name", "its name has 200 characters; at most 128 are allowed"),
        ("description", "its description has 100,000 characters; at most 32,768 are allowed"),
        ("schema", "its schema has"),
        ("doubling", "has more than 20,000 parts"),
        ("patterns", "patterns that are too large"),
        ("compiling", "its tools' schemas take too long to read"),
        ("heir", "did not start"),
    ],
)
async def test_a_list_that_is_too_much_is_refused_in_a_sentence(ways: str, said: str) -> None:
    toolbox = McpToolbox(lambda text: text, start_seconds=5 if ways == "compiling" else 30)
    server = {"name": "hostile", "command": [*BARE_COMMAND, "hostile", ways]}
    try:
        async with Standstill() as still:
            with pytest.raises((ValueError, McpUnavailable)) as refused:
                await toolbox.definitions(McpTools.model_validate({"mcp": server}))
    finally:
        await toolbox.close()

    assert said in str(refused.value)
    assert still.processor_seconds < 1.5
    assert still.seconds < 5


async def lines_until(stdout: asyncio.StreamReader, words: str) -> None:
    while line := (await stdout.readline()).decode():
        if words in line:
            return
    raise AssertionError(f"nothing said {words!r}")


async def test_a_worker_ends_at_a_signal_whatever_a_server_does(tmp_path: Path) -> None:
    async with command(tmp_path, "deaf,parent,chatter", "worker") as told:
        assert told.process.stdout is not None
        await asyncio.wait_for(lines_until(told.process.stdout, "Task queue"), 60)
        await asyncio.wait_for(told.has_server(), 60)

        seconds = await told.end(signal.SIGTERM)

        assert told.left() == []
        assert seconds < SECONDS
