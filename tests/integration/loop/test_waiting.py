"""Many runs that wait at once, more than a worker keeps in memory."""

import asyncio
from pathlib import Path

import pytest
from temporalio.client import Client

from mandate.workers.client import messages
from mandate.workers.client.inbox import Inbox
from mandate.workflows.contracts.request import Decision
from mandate.workflows.contracts.run import RunStatus
from tests.support.agents import Site, new_site
from tests.support.people import ASK_ALL, decision, write_people
from tests.support.toolkit import calls_of

PAY = [{"call": [{"pay": {"order": 1, "amount": 120.0}}]}, {"say": "done"}]
RUNS = 60
CACHED = 10


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))


async def test_waiting_runs_survive_a_restart_and_are_decided_in_bulk(site: Site) -> None:
    """Decisions go out before the second worker is there: none is lost, refused or counted twice."""
    site.write("waits", PAY, policy=ASK_ALL)

    async with site.serving(max_cached_workflows=CACHED):
        handles = await asyncio.gather(*(site.start("waits") for _ in range(RUNS)))
        await _all_wait(site)
        box = await _inbox_of_all(site)
    decisions = [(run.workflow_id, Decision(**decision(request))) for run in box.runs for request in run.requests]
    deciding = asyncio.create_task(messages.decide_many(site.client, decisions, patience_seconds=180))
    async with site.serving(max_cached_workflows=CACHED):
        outcomes = await deciding
        results = await asyncio.gather(*(handle.result() for handle in handles))

    assert {workflow_id for workflow_id, _ in decisions} == {handle.id for handle in handles}
    assert [outcome.error for outcome in outcomes if outcome.error is not None] == []
    assert [outcome.receipt.status for outcome in outcomes if outcome.receipt] == ["approved"] * RUNS
    assert [(result.status, result.effects.count) for result in results] == [(RunStatus.COMPLETED, 1)] * RUNS
    assert [len(calls_of(handle.id)) for handle in handles] == [1] * RUNS


async def _all_wait(site: Site) -> None:
    """Returns when all runs are listed as waiting; asking each would bring it back into memory."""
    async with asyncio.timeout(150):
        while (await site.client.count_workflows('AgentName="waits" AND AgentStatus="waiting"')).count < RUNS:
            await asyncio.sleep(0.2)


async def _inbox_of_all(site: Site) -> Inbox:
    """The inbox, once each run has answered in the ten seconds that it has for it."""
    async with asyncio.timeout(150):
        while (box := await site.agents.inbox(agent="waits")).silent:
            await asyncio.sleep(1)
    return box
