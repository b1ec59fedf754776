"""A worker in this process for agents that a test writes."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Worker

from mandate.activities.stores.address import open_store
from mandate.activities.transcript.blobs import Blobs
from mandate.activities.transcript.log import TranscriptLog
from mandate.workers.client.client import AgentClient
from mandate.workers.settings import Settings
from mandate.workers.worker import WorkerOptions, open_worker
from mandate.workflows.contracts.run import RunResult
from mandate.workflows.loop import run

TOOLKIT = ("look", "look_bad", "big", "pay", "send", "hang", "write_note")

REQUESTER = "eve@example.com"
"""Decides on nothing in tests' runs, and is in the file of people of `tests.support.people`."""

ALLOW_ALL: list[dict[str, Any]] = [{"id": "all", "match": {}, "verdict": "allow"}]


@dataclass
class Site:
    """A folder of agents and scripts, a store and a task queue."""

    folder: Path
    client: Client
    queue: str
    environment: dict[str, str]

    @property
    def agents(self) -> AgentClient:
        return AgentClient(self.client, self.queue)

    @property
    def settings(self) -> Settings:
        return Settings.from_environment(
            {
                "MANDATE_FOLDER": str(self.folder),
                "MANDATE_AGENTS": str(self.folder / "agents"),
                "MANDATE_TASK_QUEUE": self.queue,
                **self.environment,
            }
        )

    def write(self, name: str, turns: list[Any], **keys: Any) -> None:
        """An agent with the whole toolkit whose model answers with `turns`."""
        (self.folder / "agents").mkdir(exist_ok=True)
        has_people = "MANDATE_PEOPLE" in self.environment
        agent = {
            "name": name,
            "instructions": "Do it.",
            "models": [f"scripted:{name}.script.yaml"],
            "tools": [{"python": f"tests.support.toolkit:{tool}"} for tool in TOOLKIT],
            "policy": ALLOW_ALL,
            "same_call": 1_000_000,
            # Without a file of people nobody is there to answer, or to ask.
            **({"people": {"expires": "60s"}} if has_people else {"people": {"expires": "1s"}, "requester": "anyone"}),
            **keys,
        }
        (self.folder / "agents" / f"{name}.yaml").write_text(json.dumps(agent))
        (self.folder / "agents" / f"{name}.script.yaml").write_text(json.dumps({"turns": turns, "strict": False}))

    @asynccontextmanager
    async def serving(self, **options: Any) -> AsyncIterator[Worker]:
        async with open_worker(self.client, self.settings, WorkerOptions(**options)) as worker, worker:
            yield worker

    async def start(
        self, name: str, text: str | Mapping[str, Any] = "Go on.", **options: Any
    ) -> WorkflowHandle[Any, RunResult]:
        """A run that `REQUESTER` asks for, unless `options` say otherwise."""
        asked = {"workflow_id": f"{name}-{uuid4().hex[:8]}", "requester": REQUESTER, **options}
        return await self.agents.start(name, text, **asked)

    async def run(self, name: str, text: str | Mapping[str, Any] = "Go on.", **options: Any) -> tuple[RunResult, str]:
        """The result of one run, served by a worker of its own, and its workflow id."""
        async with self.serving():
            handle = await self.start(name, text, **options)
            return await handle.result(), handle.id


def new_site(folder: Path, client: Client, **environment: str) -> Site:
    return Site(folder, client, f"agents-{uuid4().hex[:8]}", environment)


async def conversation(site: Site, head: str) -> list[Any]:
    """All messages of the conversation at `head`."""
    blobs = Blobs(open_store(site.settings.store))
    try:
        return [message async for _, segment in TranscriptLog(blobs).segments(head) for message in segment.messages]
    finally:
        await blobs.close()


async def results_told(site: Site, head: str) -> list[Any]:
    """Every answer to a call that the model was told, in order."""
    messages = await conversation(site, head)
    return [part for message in messages if message.role == "user" for part in message.parts if part.kind == "result"]


async def texts_told(site: Site, head: str | None) -> list[str]:
    """The texts of `results_told`."""
    return [part.text for part in await results_told(site, head or "")]


async def part_of(handle: WorkflowHandle[Any, Any]) -> str:
    """Id of the newest part of a run: another one each time that it continues as new."""
    return (await handle.describe()).run_id


async def parts_taken(client: Client, workflow_id: str) -> int:
    """How many Temporal runs a run has taken so far, as their histories say: lists of runs lag behind."""
    count, run_id = 0, None
    while run_id != "":
        events = client.get_workflow_handle(workflow_id, run_id=run_id).fetch_history_events(page_size=1)
        first = await anext(events)
        run_id = first.workflow_execution_started_event_attributes.continued_execution_run_id
        count += 1
    return count


async def continued(handle: WorkflowHandle[Any, Any]) -> None:
    """Make a run that waits continue as new: decisions that do not count fill what it may have of history."""
    before, events = await part_of(handle), run.EVENTS
    run.EVENTS = 30
    try:
        async with asyncio.timeout(30):
            while await part_of(handle) == before:
                await handle.signal("decide", {"request": "r99", "choice": "approve"})
                await asyncio.sleep(0.05)
    finally:
        run.EVENTS = events
