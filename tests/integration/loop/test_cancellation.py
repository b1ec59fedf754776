"""A cancellation ends a run wherever it waits, and all that is below it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import CancelledError

from tests.support.agents import Site, continued, new_site
from tests.support.toolkit import calls_of

FAR = 30
"""Seconds that what a run waits for takes; a cancellation takes a small part of them."""

SCRIPTS: dict[str, list[Any]] = {
    "model": [{"call": [{"look": {"what": "a"}}]}, {"say": "late", "delay": f"{FAR}s"}],
    "read": [{"call": [{"look": {"what": "a", "seconds": 19}}]}, {"say": "done"}],
    "reads": [{"call": [{"look": {"what": "a", "seconds": 19}}, {"look": {"what": "b"}}]}, {"say": "done"}],
    "effect": [{"call": [{"look": {"what": "a"}}, {"pay": {"order": 1, "seconds": 19}}]}, {"say": "done"}],
}


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client)


async def reached(handle: WorkflowHandle[Any, Any]) -> None:
    async with asyncio.timeout(30):
        while not calls_of(handle.id):
            await asyncio.sleep(0.05)


async def is_cancelled(handle: WorkflowHandle[Any, Any]) -> None:
    """Fail unless a run is cancelled long before what it waits for is there."""
    async with asyncio.timeout(FAR / 3):
        with pytest.raises(WorkflowFailureError) as failed:
            await handle.result()
    assert isinstance(failed.value.cause, CancelledError)


@pytest.mark.parametrize("waits_for", SCRIPTS)
async def test_a_run_is_cancelled_while_it_waits_for(site: Site, waits_for: str) -> None:
    site.write("waits", SCRIPTS[waits_for])
    async with site.serving():
        handle = await site.start("waits")
        await reached(handle)
        await asyncio.sleep(1)
        await handle.cancel()
        await is_cancelled(handle)


async def test_a_run_is_cancelled_while_it_tells_its_children_something(site: Site) -> None:
    site.write("boss", [{"call": [{"works": {"task": "a"}}]}, {"say": "done"}], tools=[{"agent": "works"}])
    site.write("works", SCRIPTS["read"])
    async with site.serving():
        # The server takes what a run tells its child within milliseconds: one of many is cancelled in them.
        runs = [await site.start("boss") for _ in range(6)]
        for run in runs:
            await reached(site.client.get_workflow_handle(f"{run.id}/c1"))
        for run in runs:
            await continued(run)
            await run.cancel()
        for run in runs:
            await is_cancelled(run)
            await is_cancelled(site.client.get_workflow_handle(f"{run.id}/c1"))
