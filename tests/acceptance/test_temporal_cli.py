"""The pages' client programs and commands with Temporal's own CLI, as they are printed; decisions for many runs."""

import asyncio
import json
import re
import shlex
import shutil
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.enums.v1 import BatchOperationState
from temporalio.api.workflowservice.v1 import DescribeBatchOperationRequest
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle

from mandate.workers.client.client import AgentClient, connect
from mandate.workers.dev_server.server import run_private_server
from mandate.workers.examples.shop_data import create_shop
from tests.support.agents import Site, new_site
from tests.support.pages import PROJECT, README, blocks
from tests.support.people import ASK_ALL, asked, open_requests, write_people
from tests.support.processes import processes
from tests.support.temporal_cli import Shell, new_shell

Handle = WorkflowHandle[Any, Any]

TEMPORAL = re.compile(r"(\w+=\$\()?temporal ")

BROKEN = "Order 1042 arrived broken."
LEGAL = {**ASK_ALL[0], "approvers": {"groups": ["legal"]}}
REFUNDED = "Order 81: 120.0 EUR refunded."
REFUND = "issue_refund order=1042 amount_cents=10690 reason=Kettle arrived damaged"


def printed(page: str) -> list[str]:
    """The commands with `temporal` of a page, each on one line."""
    lines = [line for block in blocks(page, "sh") for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if TEMPORAL.match(line)]


def write_agents(folder: Path) -> Path:
    """Write the agents of the checkout, and one of the name that the README's program starts."""
    shutil.copytree(PROJECT / "deploy" / "agents", folder)
    agent = {"name": "refunds", "instructions": "Refund.", "models": ["scripted:refunds.script.yaml"]}
    (folder / "refunds.yaml").write_text(json.dumps(agent))
    (folder / "refunds.script.yaml").write_text(json.dumps({"turns": [{"say": REFUNDED}]}))
    return folder


@dataclass(frozen=True, slots=True)
class Place:
    """A server with its CLI, and a worker that serves the shop of the pages."""

    client: Client
    shell: Shell
    shop: Path
    """The shop's database; its order 1042 can be refunded once."""
    lawyers: Site
    """An agent `contracts` that waits for another group than the shop's."""

    async def refunding(self, name: str) -> Handle:
        """A run of the shop that waits for finance."""
        handle = await AgentClient(self.client).start("shop", BROKEN, workflow_id=name, requester="bob@example.com")
        await asked(handle)
        return handle

    async def listed(self, query: str, *names: str) -> str:
        """What a list prints once it has these runs and no others: lists know of a change a moment later."""
        async with asyncio.timeout(30):
            while True:
                out = await self.shell.out(query)
                if sorted(line.split()[1] for line in out.splitlines()[1:]) == sorted(names):
                    return out
                await asyncio.sleep(0.1)

    async def ended(self, batch: str) -> tuple[int, int]:
        """How many runs a batch was for, and how many of them it could not tell, once it is done."""
        request = DescribeBatchOperationRequest(namespace="default", job_id=batch.rsplit(maxsplit=1)[-1])
        async with asyncio.timeout(30):
            while True:
                found = await self.client.workflow_service.describe_batch_operation(request)
                if found.state == BatchOperationState.BATCH_OPERATION_STATE_COMPLETED:
                    return found.total_operation_count, found.failure_operation_count
                await asyncio.sleep(0.1)


@pytest.fixture(scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    folder = tmp_path_factory.mktemp("temporal")
    create_shop(folder / "shop.db")
    async with run_private_server() as server:
        client = await connect(address=server.address)
        lawyers = new_site(folder, client, MANDATE_PEOPLE=str(write_people(folder)))
        lawyers.write("contracts", [{"call": [{"pay": {"order": 1}}]}, {"say": "done"}], policy=[LEGAL, ASK_ALL[1]])
        settings = {
            "MANDATE_FOLDER": str(folder),
            "MANDATE_DEMO_SHOP": str(folder / "shop.db"),
            "MANDATE_AGENTS": str(write_agents(folder / "served")),
        }
        with processes(folder / "processes", TEMPORAL_ADDRESS=server.address, **settings) as started:
            await started.worker()
            async with lawyers.serving():
                yield Place(client, new_shell(server, folder / "bin"), folder / "shop.db", lawyers)


async def test_run_is_started_found_read_and_cancelled(place: Place) -> None:
    start, listing, describe, metadata, cancel, tree = printed("deploy/docs/operating.md")
    handle = place.client.get_workflow_handle("refund-1043")

    started = await place.shell.out(start)
    (request,) = await asked(handle)
    listed = await place.listed(listing, "refund-1043")
    await place.listed(tree.replace("audit-7f3a", "refund-1043"), "refund-1043")
    described = await place.shell.out(describe)
    told = await place.shell.out(metadata)
    await place.shell.out(cancel)
    async with asyncio.timeout(20):
        while (await handle.describe()).status is WorkflowExecutionStatus.RUNNING:
            await asyncio.sleep(0.05)
    await place.listed(listing)

    assert re.search(r"^  WorkflowId +refund-1043$", started, re.MULTILINE)
    assert listed.splitlines()[1].split()[:3] == ["Running", "refund-1043", "AgentWorkflow"]
    for value in ("shop", "waiting", "bob@example.com", ["finance"], ["team=support"]):
        assert f"data:{json.dumps(json.dumps(value))}" in described, value
    assert "Now: `waiting for finance`" in told
    assert "mandate approve refund-1043:r1" in told
    assert "temporal workflow update execute --workflow-id refund-1043 --name decide --input " in told
    assert request.digest in told
    assert (await handle.describe()).status is WorkflowExecutionStatus.CANCELED


async def test_one_run_is_approved_by_its_digest_and_all_of_a_group_are_rejected(place: Place) -> None:
    listing, digest, update, batch = printed("deploy/docs/policy-and-people.md")
    approved = await place.refunding("refund-1042")
    rejected = [await place.refunding(name) for name in ("refund-1044", "refund-1045")]
    alone = await place.lawyers.start("contracts")
    await asked(alone)

    await place.listed(listing, approved.id, *(handle.id for handle in rejected), alone.id)
    receipt = await place.shell.out(f"{digest}\n{update}")
    done = await approved.result()
    await place.listed(waiting_for("finance"), *(handle.id for handle in rejected))
    counts = await place.ended(await place.shell.out(batch))
    results = [await handle.result() for handle in rejected]
    left = await open_requests(alone)

    assert "r1 is approved: ann@example.com approved it" in receipt
    assert done.status == "completed"
    assert done.effects.last[0].call == REFUND
    assert counts == (2, 0)
    for handle, result in zip(rejected, results, strict=True):
        (closed,) = (await open_requests(handle)).closed
        assert (closed.outcome, closed.reason) == ("rejected", "ann@example.com rejected all open requests")
        assert "refused: ann@example.com rejected all open requests (closed for today)" in str(result.output)
        assert result.effects.count == 0
    assert ([one.id for one in left.requests], left.closed, left.refusals) == (["r1"], (), 0)
    assert await signals_to(alone) == []
    await alone.terminate()


def waiting_for(group: str) -> str:
    return f'temporal workflow list --query \'AgentWaitingFor="{group}" AND ExecutionStatus="Running"\''


async def signals_to(handle: Handle) -> list[str]:
    """Names of the signals that a run was sent."""
    sent = [event.workflow_execution_signaled_event_attributes async for event in handle.fetch_history_events()]
    return [one.signal_name for one in sent if one.signal_name]


async def test_one_signal_stops_all_runs_that_a_query_finds(place: Place) -> None:
    stopped = [await place.lawyers.start("contracts", labels={"team": "sales"}) for _ in range(2)]
    alone = await place.lawyers.start("contracts", labels={"team": "support"})
    for handle in (*stopped, alone):
        await asked(handle)
    query = 'AgentLabels="team=sales" AND ExecutionStatus="Running"'
    await place.listed(f"temporal workflow list --query '{query}'", *(handle.id for handle in stopped))

    said = json.dumps({"by": "ann@example.com", "reason": "enough"})
    batch = await place.shell.out(f"temporal workflow signal --query '{query}' --name stop --yes --input '{said}'")
    counts = await place.ended(batch)
    results = [await handle.result() for handle in stopped]
    left = await open_requests(alone)

    assert counts == (2, 0)
    assert [(result.status, result.reason) for result in results] == [
        ("stopped", "stopped by ann@example.com: enough")
    ] * 2
    assert [request.id for request in left.requests] == ["r1"]
    assert await signals_to(alone) == []
    await alone.terminate()


async def test_the_client_program_of_the_readme_prints_the_result_of_a_run(place: Place) -> None:
    (program,) = programs(README)

    assert await place.shell.out(typed(program)) == f"completed {REFUNDED}\n"


async def test_the_client_program_of_the_policy_page_approves_what_runs_ask(place: Place) -> None:
    create_shop(place.shop)
    (program,) = programs("deploy/docs/policy-and-people.md")
    run = await place.refunding("refund-1046")

    approved = await place.shell.out(typed(program))

    assert approved.startswith("refund-1046 request='r1' status='approved'")
    assert (await run.result()).status == "completed"


def programs(page: str) -> list[str]:
    """Python programs of a page that can be run as they are."""
    return [block for block in blocks(page, "python") if "asyncio.run(" in block]


def typed(program: str) -> str:
    """Return the command that runs a Python program."""
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(program)}"
