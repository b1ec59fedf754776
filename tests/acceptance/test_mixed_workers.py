"""Two workers with different files for one agent on one task queue: nobody is asked or paid by chance in silence."""

import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import Client

from mandate.workers.dev_server.server import DevServer
from tests.support.processes import Process, Processes, processes

TOOLS = '''
from mandate import tool

@tool(effect="keyed")
def pay(amount: int) -> str:
    """Pay."""
    return "paid"
'''

AGENT = """
name: till
instructions: Do it.
models: ["scripted:till.script.yaml"]
tools: [{python: "mixed_till:pay"}]
requester: anyone
people: {expires: 1s}
policy:
  - {id: pays, match: {tools: [pay]}, verdict: %s}
"""

SCRIPT = """
turns:
  - call: [{pay: {amount: 1}}]
  - say: Done.
"""

HOUR = 3600.0


def write(folder: Path, verdict: str, changed_at: float) -> Path:
    """The files of one worker: with `ask` people are asked before it pays, with `allow` it pays."""
    agents = folder / verdict / "agents"
    agents.mkdir(parents=True)
    (agents.parent / "mixed_till.py").write_text(TOOLS)
    (agents / "till.script.yaml").write_text(SCRIPT)
    (agents / "till.yaml").write_text(AGENT % verdict)
    os.utime(agents / "till.yaml", (changed_at, changed_at))
    return agents


@pytest.fixture
def crew(tmp_path: Path, temporal: DevServer) -> Iterator[Processes]:
    its = {
        "TEMPORAL_ADDRESS": temporal.address,
        "MANDATE_FOLDER": str(tmp_path / "state"),
        "MANDATE_TASK_QUEUE": f"mixed-{uuid4().hex[:8]}",
    }
    with processes(tmp_path / "logs", **its) as started:
        yield started


async def serving(crew: Processes, agents: Path, *words: str) -> dict[str, Any]:
    """What a worker says that serves them."""
    worker = crew.mandate("worker", "--agents", str(agents), "-o", "json", *words)
    await worker.said("others")
    said: dict[str, Any] = json.loads(worker.stdout())
    return said


async def refused(worker: Process) -> str:
    assert await worker.ended() == 2
    assert "Traceback" not in worker.stderr()
    (line,) = [line for line in worker.stderr().splitlines() if line.startswith("error: ")]
    return line


async def test_worker_with_older_files_is_refused_until_it_is_wanted(
    crew: Processes, tmp_path: Path, client: Client
) -> None:
    now = time.time()
    older, newer = write(tmp_path, "allow", now - HOUR), write(tmp_path, "ask", now)
    queue = crew.environment["MANDATE_TASK_QUEUE"]
    first = await serving(crew, newer)
    version = first["agents"][0]["version"]
    file = older / "till.yaml"

    line = await refused(crew.mandate("worker", "--agents", str(older)))

    assert line == (
        f"error: agent 'till': another worker of task queue {queue!r} serves version {version}, of files changed at "
        f"{moment(now)}, and those of this worker are older, {file} of {moment(now - HOUR)}; give this worker the "
        f"newer files, or, to go back to these, touch {file} or start it with --allow-older"
    )
    assert first["others"] == []

    allowed = await serving(crew, older, "--allow-older")

    (other,) = allowed["others"]
    assert (other["agent"], other["version"], len(other["workers"]), other["newer"]) == ("till", version, 1, True)

    file.touch()
    touched = await serving(crew, older)
    again = await refused(crew.mandate("worker", "--agents", str(newer)))

    assert [(other["version"], other["newer"]) for other in touched["others"]] == [(version, False)]
    assert "2 other workers of task queue" in again


async def test_newer_files_are_served_and_the_older_worker_says_so(
    crew: Processes, tmp_path: Path, client: Client
) -> None:
    now = time.time()
    older, newer = write(tmp_path, "allow", now - HOUR), write(tmp_path, "ask", now)
    before = crew.mandate("worker", "--agents", str(older), "--log-format", "json")
    await before.said("Task queue")

    after = await serving(crew, newer)
    run = crew.mandate("run", "till", "Go on.", "-o", "json")
    await run.ended()

    (other,) = after["others"]
    served = {other["version"], *(one["version"] for one in after["agents"])}
    assert (other["agent"], len(other["workers"]), other["newer"]) == ("till", 1, False)
    assert len(served) == 2
    assert json.loads(run.stdout())["version"] in served
    while "other_version_served" not in before.stderr():
        assert before.process.poll() is None
        time.sleep(0.1)
    assert "of newer files" in before.stderr()


async def test_killed_worker_keeps_nobody_from_going_back(crew: Processes, tmp_path: Path) -> None:
    now = time.time()
    older, newer = write(tmp_path, "allow", now - HOUR), write(tmp_path, "ask", now)
    killed = crew.mandate("worker", "--agents", str(newer))
    await killed.said("Task queue")
    killed.process.kill()
    killed.process.wait()

    after = await serving(crew, older)

    assert after["others"] == []


async def test_worker_with_another_store_is_told_of(crew: Processes, tmp_path: Path) -> None:
    agents = write(tmp_path, "ask", time.time())
    before = await serving(crew, agents, "--identity", "first")

    worker = crew.mandate("worker", "--agents", str(agents), MANDATE_FOLDER=str(tmp_path / "other"))
    await worker.said("Task queue")

    assert before["unknown_workers"] == []
    assert f"warning: worker first polls task queue {crew.environment['MANDATE_TASK_QUEUE']!r} too" in worker.stderr()


def moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
