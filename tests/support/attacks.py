"""What an attacker has: a client of the namespace, Temporal's CLI, and patience."""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import WorkflowTaskFailedCause
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError

from mandate.workers.client import queries
from mandate.workers.dev_server.server import DevServer
from mandate.workflows.contracts.request import OpenRequests
from tests.acceptance.attacked_tools import JOURNAL
from tests.support.agents import Site, new_site
from tests.support.people import send_update, write_people
from tests.support.processes import Process, Processes, processes

TRANSFER = {"python": "tests.acceptance.attacked_tools:transfer"}

HARMLESS = {
    WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_UNHANDLED_COMMAND,
    WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_FORCE_CLOSE_COMMAND,
    WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_GRPC_MESSAGE_TOO_LARGE,
}
"""Something came while a task was being worked on: the server has it done again."""


@dataclass
class Place:
    """Agents that ask people, a real worker that serves them, and a server to attack them through."""

    site: Site
    server: DevServer
    worker: Process
    journal: Path
    processes: Processes

    @property
    def client(self) -> Client:
        return self.site.client

    def moved(self, run: str) -> list[dict[str, Any]]:
        """The calls of one run that reached the tool."""
        lines = self.journal.read_text().splitlines() if self.journal.exists() else []
        return [entry for entry in map(json.loads, lines) if entry["run"] == run]

    async def another(self) -> None:
        """A second worker, for when the first is gone."""
        self.worker = await self.processes.worker()

    async def temporal(self, *words: str) -> tuple[int, str]:
        """Exit code of Temporal's CLI, and all that it said."""
        process = await asyncio.create_subprocess_exec(
            str(self.server.binary),
            *words,
            "--address",
            self.server.address,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate()
        return process.returncode or 0, out.decode(errors="replace")


@asynccontextmanager
async def place(
    folder: Path, client: Client, server: DevServer, agents: dict[str, dict[str, Any]], **environment: str
) -> AsyncIterator[Place]:
    site = new_site(folder, client, MANDATE_PEOPLE=str(write_people(folder)))
    for name, keys in agents.items():
        site.write(name, **{"tools": [TRANSFER], "people": {"expires": "10m"}, **keys})
    settings = {
        "MANDATE_FOLDER": str(folder),
        "MANDATE_AGENTS": str(folder / "agents"),
        "MANDATE_TASK_QUEUE": site.queue,
        "MANDATE_PEOPLE": site.environment["MANDATE_PEOPLE"],
        "TEMPORAL_ADDRESS": server.address,
        JOURNAL: str(folder / "journal"),
    }
    with processes(folder / "processes", **settings, **environment) as started:
        yield Place(site, server, await started.worker(), folder / "journal", started)


@contextmanager
def held_up(people: Path) -> Iterator[None]:
    """Whoever reads the file of people in this block waits for its end."""
    whole, gate, second = people.read_bytes(), people.with_suffix(".gate"), people.with_suffix(".next")
    os.mkfifo(gate)
    os.link(gate, second)
    second.replace(people)
    try:
        yield
    finally:
        second.write_bytes(whole)
        second.replace(people)
        # Without a reader there is nobody to let go.
        with contextlib.suppress(OSError):
            writer = os.open(gate, os.O_WRONLY | os.O_NONBLOCK)
            os.write(writer, whole)
            os.close(writer)
        gate.unlink()


async def whole_history(client: Client, handle: WorkflowHandle[Any, Any]) -> list[list[HistoryEvent]]:
    """The events of each part of a run that continues as new."""
    parts = []
    run_id = handle.first_execution_run_id
    while run_id:
        part = client.get_workflow_handle(handle.id, run_id=run_id)
        events = [event async for event in part.fetch_history_events()]
        parts.append(events)
        run_id = events[-1].workflow_execution_continued_as_new_event_attributes.new_execution_run_id
    return parts


def failed_tasks(parts: Sequence[Sequence[HistoryEvent]]) -> list[str]:
    """Why workflow tasks failed; each of these would have been tried again for ever."""
    failures = [event.workflow_task_failed_event_attributes for part in parts for event in part]
    return [one.failure.message for one in failures if one.scheduled_event_id and one.cause not in HARMLESS]


async def refused(handle: WorkflowHandle[Any, Any], verb: str, arguments: Sequence[Any]) -> str:
    """The sentence with which an update is refused."""
    with pytest.raises(WorkflowUpdateFailedError) as error:
        await asyncio.wait_for(send_update(handle, verb, args=list(arguments)), 60)
    assert isinstance(error.value.cause, ApplicationError)
    assert error.value.cause.type == "DecisionRefused"
    return error.value.cause.message


async def kept(handle: WorkflowHandle[Any, Any], refusals: int, seconds: float = 30.0) -> OpenRequests:
    """What people see of a run, once so many decisions were refused."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                found = await queries.ask(handle, "open_requests", OpenRequests)
            except RPCError:
                # A run that has just continued as new has no task yet that could answer.
                found = OpenRequests.model_construct(refusals=-1)
            if found.refusals >= refusals:
                return found
            await asyncio.sleep(0.1)


def raw(content: bytes, encoding: str = "json/plain", **metadata: str) -> RawValue:
    """A payload as another SDK, or nobody, would make it."""
    given = {name: value.encode() for name, value in metadata.items()}
    return RawValue(Payload(metadata={"encoding": encoding.encode(), **given}, data=content))
