"""`mandate worker --watch`: files and tools are read anew when they change, and a fault takes nothing away."""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from mandate.workers.dev_server.server import DevServer
from tests.support.processes import Process, Processes, children, lives, processes

TOOLS = '''
import asyncio
from pathlib import Path
from mandate import tool

@tool(effect="read")
async def look(order: int) -> str:
    """Look an order up."""
    while Path("hold").exists():
        Path("held").touch()
        await asyncio.sleep(0.05)
    return "first"
'''

AGENT = """
name: till
instructions: Do it.
models: ["scripted:till.script.yaml"]
tools: [{python: "watched_till:look"}]
requester: anyone
"""

SCRIPT = """
turns:
  - call: [{look: {order: 1}}]
  - {say: "It is ${look}."}
"""

BROKEN = [
    ("agents/till.yaml", "name: [\n", "agents/till.yaml:2:1: is not valid YAML"),
    ("agents/till.yaml", AGENT.replace("till.script", "gone.script"), "gone.script.yaml"),
    ("watched_till.py", "def look(:\n", "watched_till"),
    ("watched_till.py", "raise SystemExit(3)\n", "watched_till"),
]


class Watched:
    """A worker that watches a project, and runs of its agent."""

    def __init__(self, folder: Path, crew: Processes) -> None:
        self.folder, self.crew = folder, crew
        self.process: Process
        self.replaced = 0

    async def begin(self) -> None:
        self.process = self.crew.mandate("worker", "--watch", "--log-level", "warn")
        await self.process.said("Task queue")

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    async def noted(self, words: str, times: int = 1) -> None:
        """Wait until it has told this on stderr so many times."""
        async with asyncio.timeout(90):
            while self.process.stderr().count(words) < times:
                assert self.process.process.poll() is None, self.process.stderr()
                await asyncio.sleep(0.05)

    async def change(self, name: str, text: str) -> None:
        """Write a file, and wait until a worker with it serves."""
        self.write(name, text)
        self.replaced += 1
        await self.noted("the worker with the new files serves", self.replaced)

    def start_run(self) -> Process:
        return self.crew.mandate("run", "till", "Go on.", "-o", "json")

    async def run(self) -> dict[str, Any]:
        started = self.start_run()
        await started.ended()
        told: dict[str, Any] = json.loads(started.stdout())
        return told


@pytest.fixture
async def watched(tmp_path: Path, temporal: DevServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    project = tmp_path / "project"
    project.mkdir()
    its = {
        "TEMPORAL_ADDRESS": temporal.address,
        "MANDATE_FOLDER": str(tmp_path / "state"),
        "MANDATE_TASK_QUEUE": f"watched-{uuid4().hex[:8]}",
        "MANDATE_AGENTS": "agents",
    }
    with processes(tmp_path / "logs", **its) as crew:
        crew.cwd = project
        found = Watched(project, crew)
        for name, text in (
            ("agents/till.yaml", AGENT),
            ("agents/till.script.yaml", SCRIPT),
            ("watched_till.py", TOOLS),
        ):
            found.write(name, text)
        yield found


async def test_agent_script_and_tool_are_read_anew_when_they_change(watched: Watched) -> None:
    await watched.begin()
    first = await watched.run()

    await watched.change("watched_till.py", TOOLS.replace('"first"', '"second"'))
    second = await watched.run()
    await watched.change("agents/till.yaml", AGENT.replace("Do it", "Do it well"))
    third = await watched.run()
    # Older than the one before, and wanted all the same.
    path = watched.folder / "agents" / "till.script.yaml"
    watched.write("new.script.yaml", SCRIPT.replace("It is", "That is"))
    os.utime(watched.folder / "new.script.yaml", (1, 1))
    (watched.folder / "new.script.yaml").rename(path)
    watched.replaced += 1
    await watched.noted("the worker with the new files serves", watched.replaced)
    fourth = await watched.run()
    watched.process.send(signal.SIGINT)
    code = await watched.process.ended()

    outputs = [run["output"] for run in (first, second, third, fourth)]
    assert outputs == ["It is first.", "It is second.", "It is second.", "That is second."]
    # The text of a tool's function and a script are no part of the version.
    assert first["version"] == second["version"] != third["version"] == fourth["version"]
    assert code == 0
    assert "Traceback" not in watched.process.stderr()
    assert "other worker" not in watched.process.stderr()
    assert children(watched.process.pid) == []


async def test_plans_that_come_are_served(watched: Watched) -> None:
    plan = "name: tell\nrequester: anyone\nsteps: [{id: tell, agent: till, input: \"'Go on.'\"}]\n"
    await watched.begin()
    await watched.change("plans/tell.yaml", plan)
    run = watched.crew.mandate("plan", "run", "tell", "-o", "json")
    code = await run.ended()

    assert (code, json.loads(run.stdout())["output"]) == (0, "It is first.")
    assert "Plans        tell version " in watched.process.stdout()


async def test_faults_are_told_and_the_last_good_files_are_served(watched: Watched) -> None:
    await watched.begin()
    for number, (name, text, said) in enumerate(BROKEN, 1):
        good = (watched.folder / name).read_text()
        watched.write(name, text)
        kept = "did not start (exit code 2); the one before goes on until the files change again"
        await watched.noted(kept, number)
        assert said in watched.process.stderr()
        if number == 1:
            assert (await watched.run())["output"] == "It is first."
        await watched.change(name, good + "\n")

    assert (await watched.run())["output"] == "It is first."
    assert "Traceback" not in watched.process.stderr()


async def test_call_in_hand_is_finished_by_the_worker_that_began_it(watched: Watched) -> None:
    (watched.folder / "hold").touch()
    await watched.begin()
    run = watched.start_run()
    async with asyncio.timeout(60):
        while not (watched.folder / "held").exists():
            await asyncio.sleep(0.05)

    await watched.change("watched_till.py", TOOLS.replace('"first"', '"second"'))
    (watched.folder / "hold").unlink()
    await run.ended()

    assert json.loads(run.stdout())["output"] == "It is first."
    assert (await watched.run())["output"] == "It is second."


async def test_files_with_faults_are_not_begun_with(watched: Watched) -> None:
    watched.write("agents/till.yaml", "name: [\n")

    worker = watched.crew.mandate("worker", "--watch")

    assert await worker.ended() == 2
    assert worker.stderr().startswith("agents/till.yaml:2:1: is not valid YAML")


async def test_second_signal_does_not_wait_and_leaves_nobody(watched: Watched) -> None:
    (watched.folder / "hold").touch()
    await watched.begin()
    watched.start_run()
    async with asyncio.timeout(60):
        while not (watched.folder / "held").exists():
            await asyncio.sleep(0.05)
    workers = children(watched.process.pid)

    watched.process.send(signal.SIGINT)
    await watched.noted("stopping; a second signal does not wait for calls in hand")
    began = time.monotonic()
    watched.process.send(signal.SIGINT)
    code = await watched.process.ended()

    assert code == 130
    assert time.monotonic() - began < 5
    assert len(workers) == 1
    assert not lives(workers[0])
