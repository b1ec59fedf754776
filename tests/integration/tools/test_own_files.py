"""Two workers of one queue and store with other files: neither runs what only the other's files name."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle

from mandate.workflows.contracts.run import RunStatus
from tests.support.agents import Site, new_site
from tests.support.toolkit import calls_of


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client)


def other(site: Site, tools: list[str], script: str) -> Site:
    """Files of another folder, for the same queue and store."""
    folder = site.folder / "other"
    (folder / "agents").mkdir(parents=True)
    for path in (site.folder / "agents").glob("*.script.yaml"):
        (folder / "agents" / path.name).write_text(path.read_text())
    agent = {
        "name": "stranger",
        "instructions": "x",
        "models": [f"scripted:{script}"],
        "tools": [{"python": f"tests.support.toolkit:{tool}"} for tool in tools],
    }
    (folder / "agents" / "stranger.yaml").write_text(json.dumps(agent))
    environment = {**site.environment, "MANDATE_STORE": site.settings.store}
    return replace(site, folder=folder, environment=environment)


async def waited_for(handle: WorkflowHandle[Any, Any]) -> str:
    """The call that waits for its next attempt, and why."""
    async with asyncio.timeout(20):
        while True:
            doing = str((await handle.query("progress"))["doing"])
            if ", again in " in doing:
                return doing
            await asyncio.sleep(0.05)


async def refused(handle: WorkflowHandle[Any, Any]) -> str:
    """Why the activity that is tried again failed last."""
    async with asyncio.timeout(20):
        while True:
            raw = (await handle.describe()).raw_description
            for pending in raw.pending_activities:
                if pending.last_failure.message:
                    return str(pending.last_failure.message)
            await asyncio.sleep(0.05)


async def test_call_waits_for_the_worker_whose_files_name_its_tool(site: Site) -> None:
    site.write("pays", [{"call": [{"pay": {"order": 1}}]}, {"say": "done"}])
    stranger = other(site, ["look"], "pays.script.yaml")
    async with site.serving():
        handle = await site.start("pays")
        await handle.signal("pause", {"by": "ann@example.com"})
        await asyncio.sleep(1)

    async with stranger.serving():
        await handle.signal("resume", {"by": "ann@example.com"})
        waits = await waited_for(handle)

    assert waits.startswith("pay: attempt 1, the files of this worker do not name the function ")
    assert calls_of(handle.id) == []
    async with site.serving():
        result = await handle.result()
    assert result.status is RunStatus.COMPLETED
    assert len(calls_of(handle.id, "pay")) == 1
