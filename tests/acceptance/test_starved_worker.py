"""A worker that gets half a processor gets slower; it does not stop, and nobody's decision is lost.

In CI few short runs. As the figures of deploy/docs/operating.md were measured, sixty of twenty steps and three turns of
a hundred requests: `STARVED=long pytest -s tests/acceptance/test_starved_worker.py`.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHandle

from mandate.workers.client import messages
from mandate.workers.client.client import connect
from mandate.workers.dev_server.server import run_private_server
from mandate.workflows.contracts.request import Decision
from mandate.workflows.contracts.run import RunStatus
from tests.benchmarks.peers import Usage
from tests.support.agents import Site, new_site
from tests.support.attacks import whole_history
from tests.support.people import ASK_ALL, decision, write_people
from tests.support.processes import Process, Processes, processes

Handle = WorkflowHandle[Any, Any]
T = TypeVar("T")

PROCESSOR = max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
PEOPLE = ("ann@example.com", "bob@example.com")


@dataclass(frozen=True)
class Size:
    runs: int
    steps: int
    turns: int
    requests: int
    seconds: float
    """Longest that all of it may take; reached when a run never ends."""


SIZES = {
    "short": Size(runs=10, steps=8, turns=1, requests=40, seconds=150),
    "long": Size(runs=60, steps=20, turns=3, requests=100, seconds=900),
}


@contextmanager
def pinned() -> Iterator[None]:
    """What is started in this block runs on one processor."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {PROCESSOR})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def hog() -> Iterator[subprocess.Popen[bytes]]:
    """A process that takes its half of the processor."""
    with pinned():
        process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@dataclass
class Crowd:
    """People who read the inbox over and over, and approve all that they find there for the first time."""

    site: Site
    seen: set[tuple[str, str]] = field(default_factory=set)
    outcomes: list[messages.DecisionResult] = field(default_factory=list)
    deciding: set[asyncio.Task[None]] = field(default_factory=set)

    async def work(self) -> None:
        clients = {by: Client(**self.site.client.config()) for by in PEOPLE}
        while True:
            box = await self.site.agents.inbox()
            open_requests = [(run.workflow_id, request) for run in box.runs for request in run.requests]
            new = [(run, request) for run, request in open_requests if (run, request.id) not in self.seen]
            self.seen |= {(run, request.id) for run, request in new}
            for by, client in clients.items():
                said = [(run, Decision.model_validate(decision(request, by=by))) for run, request in new]
                self.deciding.add(asyncio.create_task(self._decide(client, said)))
            await asyncio.sleep(0.5)

    async def _decide(self, client: Client, said: list[tuple[str, Decision]]) -> None:
        self.outcomes += await messages.decide_many(client, said)


@dataclass
class Clocked:
    """Processor time that workers and server got, and that the hog got, who always wants all of it."""

    hog: int
    server: int
    seconds: float = 0.0

    def add(self, worker: Process) -> None:
        self.seconds += Usage.of(worker.pid).cpu_seconds

    def accounts_for(self, wall_seconds: float) -> float:
        """How long the work takes on the share of a processor that was to be had: the worker's, or the server's."""
        share = Usage.of(self.hog).cpu_seconds / wall_seconds
        return max(self.seconds, Usage.of(self.server).cpu_seconds) / share


def write(site: Site, size: Size) -> None:
    look, pay = {"call": [{"look": {"what": "a"}}]}, {"pay": {"order": 1, "amount": 1}}
    policy = [{**ASK_ALL[0], "quorum": 2, "expires": "60m"}, ASK_ALL[1]]
    turns = [*[look] * (size.steps - 2), {"call": [pay]}, {"say": "done"}]
    site.write("steps", turns, policy=policy, budget={"steps": 100})
    calls = [{"pay": {"order": order, "amount": 1}} for order in range(size.requests)]
    site.write("parked", [{"call": calls}, {"say": "done"}], policy=policy)


async def start_worker(started: Processes) -> Process:
    with pinned():
        return started.mandate("worker", "--log-level", "error")


async def ended(handles: list[Handle], least: int) -> None:
    """Returns when at least so many runs are over."""
    while True:
        closed = [(await handle.describe()).close_time is not None for handle in handles]
        if sum(closed) >= least:
            return
        await asyncio.sleep(0.5)


async def beside(crowd: asyncio.Task[None], waited: asyncio.Future[T]) -> T:
    """What was waited for; people who stop deciding would be waited for in vain."""
    await asyncio.wait({crowd, waited}, return_when=asyncio.FIRST_COMPLETED)
    if crowd.done():
        crowd.result()
    return await waited


async def timed_out(client: Client, handles: list[Handle]) -> int:
    """Workflow tasks whose worker took too long for them, or died with them."""
    events = [event for handle in handles for part in await whole_history(client, handle) for event in part]
    return sum(
        event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT
        and event.workflow_task_timed_out_event_attributes.timeout_type == 1
        for event in events
    )


@pytest.mark.alone
@pytest.mark.timeout(1000)
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes cannot be held to a processor here")
async def test_a_worker_with_half_a_processor_that_is_killed_once_ends_all_runs(tmp_path: Path) -> None:
    size = SIZES[os.environ.get("STARVED", "short")]
    async with run_private_server(extra_dynamic_config={"history.maxInFlightUpdates": "10"}) as server:
        site = new_site(tmp_path, await connect(address=server.address), MANDATE_PEOPLE=str(write_people(tmp_path)))
        write(site, size)
        environment = {
            "TEMPORAL_ADDRESS": server.address,
            "MANDATE_FOLDER": str(tmp_path),
            "MANDATE_AGENTS": str(tmp_path / "agents"),
            "MANDATE_TASK_QUEUE": site.queue,
            **site.environment,
        }
        with processes(tmp_path / "processes", **environment) as started, hog() as busy:
            clocked, begun = Clocked(busy.pid, server.pid), time.monotonic()
            first = await start_worker(started)
            handles = [await site.start("steps") for _ in range(size.runs)]
            handles += [await site.start("parked") for _ in range(size.turns)]
            crowd = Crowd(site)
            deciding = asyncio.create_task(crowd.work())
            async with asyncio.timeout(size.seconds):
                await beside(deciding, asyncio.ensure_future(ended(handles, len(handles) // 3)))
                clocked.add(first)
                first.send(signal.SIGKILL)
                second = await start_worker(started)
                results = await beside(deciding, asyncio.gather(*(handle.result() for handle in handles)))
            seconds = time.monotonic() - begun
            clocked.add(second)
            accounted = clocked.accounts_for(seconds)
            deciding.cancel()
            await asyncio.gather(*crowd.deciding)
            lost = await timed_out(site.client, handles)

    print(
        f"{seconds:.1f} s, with {clocked.seconds:.1f} s of processor in workers; that and the server's account for "
        f"{accounted:.1f}; "
        f"{lost} workflow tasks timed out"
    )
    assert [(result.status, result.effects.count) for result in results] == [
        *[(RunStatus.COMPLETED, 1)] * size.runs,
        *[(RunStatus.COMPLETED, size.requests)] * size.turns,
    ]
    assert [outcome.error for outcome in crowd.outcomes if outcome.error is not None] == []
    assert len(crowd.outcomes) == len(PEOPLE) * (size.runs + size.turns * size.requests)
    # The short form is mostly starting.
    assert seconds <= 1.5 * accounted or size is SIZES["short"]
