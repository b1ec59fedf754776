"""Runs with children as their histories tell of them, without a worker: against what the runs knew themselves."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle, WorkflowQueryFailedError
from temporalio.service import RPCError

from mandate.workers.history.record import Record, read_record
from mandate.workflows.contracts.model import Usage
from mandate.workflows.contracts.run import RunResult
from mandate.workflows.contracts.state import RunState
from mandate.workflows.rules.result import sum_usage
from tests.support.agents import Site, continued, new_site
from tests.support.people import write_people
from tests.support.resets import STARTS_CHILD, reset_before
from tests.support.toolkit import CALLS, LET_GO, calls_of

BY = "ann@example.com"

PRICE = {"input": "1000", "output": "1000"}
"""A tenth of a cent a token."""

HELD = {"call": [{"look": {"what": "a", "held": True}}]}
PAY = {"call": [{"pay": {"order": 1}}]}
DONE = {"say": "It is done."}


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client)


def write(site: Site, name: str, turns: list[Any], **keys: Any) -> None:
    priced = {"models": [{"model": f"scripted:{name}.script.yaml", "price": PRICE}], "max_output_tokens": 100}
    site.write(name, turns, **{**priced, **keys})


def tree(site: Site, *tasks: list[Any], **keys: Any) -> None:
    """A boss that gives its children, one an agent of its own, what their turns say, each with a share."""
    share = {"cost_usd": "30.00", "tool_calls": 4}
    entries = [{"agent": f"worker{number}", "budget": share} for number in range(1, len(tasks) + 1)]
    calls = [{f"worker{number}": {"task": f"task {number}"}} for number in range(1, len(tasks) + 1)]
    budget = {"cost_usd": "200.00", "tool_calls": 20}
    write(site, "boss", [{"call": calls}, DONE], **{"tools": entries, "budget": budget, **keys})
    for number, turns in enumerate(tasks, 1):
        write(site, f"worker{number}", turns)


@asynccontextmanager
async def serving(site: Site) -> AsyncIterator[None]:
    """With a worker; what is held goes on at the end."""
    async with site.serving():
        try:
            yield
        finally:
            LET_GO.update(call.workflow_id for call in CALLS)


async def reached(workflow_id: str, tool: str = "look") -> None:
    async with asyncio.timeout(30):
        while not calls_of(workflow_id, tool):
            await asyncio.sleep(0.05)


async def reports(handle: WorkflowHandle[Any, Any], left: int) -> RunState:
    """The state of a run once so many of its children have not reported."""
    async with asyncio.timeout(30):
        while True:
            try:
                state: RunState = await handle.query("state", result_type=RunState)
            except WorkflowQueryFailedError:
                # It has not begun yet.
                await asyncio.sleep(0.05)
                continue
            if len(state.children) == left == sum(answer is None for answer in state.answers):
                return state
            await asyncio.sleep(0.05)


def check(record: Record, state: RunState) -> None:
    """The history tells what the run itself knew."""
    its = record.history
    assert its.sum_usage() == sum_usage(state)
    assert its.budget.ledger.held == state.ledger.held
    assert its.budget.ledger.spent == state.ledger.spent
    assert its.budget.ledger.assumed == state.ledger.assumed
    assert its.effects == state.effects
    assert its.uncertain_below == state.uncertain_below


@pytest.mark.parametrize("continues", [False, True])
async def test_an_open_child_holds_its_share_and_one_that_has_reported_has_spent(site: Site, continues: bool) -> None:
    tree(site, [PAY, PAY, DONE], [HELD, DONE])
    async with serving(site):
        handle = await site.start("boss")
        await reached(f"{handle.id}/c2")
        state = await reports(handle, 1)
        if continues:
            await continued(handle)
        record = await read_record(site.client, handle.id, None)

    check(record, state)
    assert record.history.budget.ledger.held["child 2"].cost_usd == Decimal("30.00")
    assert record.budget is not None
    assert (record.budget.use["cost_usd"].held, record.budget.use["tool_calls"].held) == ("30.00", 4)
    assert [(entry.run, entry.count) for entry in record.history.effects.last] == [(f"{handle.id}/c1", 2)]
    assert record.history.doing == f"waiting for {handle.id}/c2"
    states = [call.state for call in record.history.calls]
    assert states == ["done", "running"]


async def test_a_terminated_parent_does_not_know_what_its_open_child_does(site: Site) -> None:
    tree(site, [PAY, DONE], [HELD, DONE])
    async with serving(site):
        handle = await site.start("boss")
        await reached(f"{handle.id}/c2")
        state = await reports(handle, 1)
        await handle.terminate(reason="enough")
        record = await read_record(site.client, handle.id, None)

    check(record, state)
    assert record.status == "terminated"
    assert [(entry.run, entry.call, entry.reason) for entry in record.history.list_uncertain()] == [
        (f"{handle.id}/c2", "worker2 task=task 2", "the run ended before the child had reported")
    ]
    assert [call.state for call in record.history.calls] == ["done", "unknown"]


async def test_what_a_terminated_child_has_used_is_counted(site: Site) -> None:
    tree(site, [PAY, HELD, DONE], [HELD, DONE])
    async with serving(site):
        handle = await site.start("boss")
        await reached(f"{handle.id}/c1")
        await site.client.get_workflow_handle(f"{handle.id}/c1").terminate(reason="by hand")
        state = await reports(handle, 1)
        await handle.terminate()
        record = await read_record(site.client, handle.id, None)

    check(record, state)
    assert record.history.usage.cost_usd > 0
    assert [call.state for call in record.history.calls] == ["failed", "unknown"]


async def test_the_whole_share_of_a_child_that_nobody_knows_of_is_assumed(site: Site) -> None:
    tree(site, [HELD, DONE], [HELD, DONE])
    async with serving(site):
        handle = await site.start("boss")
        child = site.client.get_workflow_handle(f"{handle.id}/c1")
        await reached(f"{handle.id}/c1")
        await site.client.workflow_service.delete_workflow_execution(
            DeleteWorkflowExecutionRequest(
                namespace=site.client.namespace, workflow_execution=WorkflowExecution(workflow_id=child.id)
            )
        )
        with pytest.raises((RPCError, WorkflowFailureError)):
            await child.result()
        state = await reports(handle, 1)
        await handle.terminate()
        record = await read_record(site.client, handle.id, None)

    check(record, state)
    assert record.history.budget.ledger.assumed.cost_usd == Decimal("30.00")
    assert f"{handle.id}/c1" in [entry.key for entry in record.history.uncertain_below]


async def test_a_child_that_is_not_started_holds_nothing(site: Site) -> None:
    tree(site, [HELD, DONE], [HELD, DONE], budget={"cost_usd": "40.00", "tool_calls": 20})
    async with serving(site):
        handle = await site.start("boss")
        await reached(f"{handle.id}/c1")
        state = await reports(handle, 1)
        record = await read_record(site.client, handle.id, None)

    assert record.history.budget.ledger.held == state.ledger.held
    assert list(state.ledger.held) == ["child 1"]


async def test_a_workflow_id_that_is_used_again_has_children_of_its_own(site: Site) -> None:
    tree(site, [PAY, DONE], [HELD, DONE])
    async with serving(site):
        first = await site.start("boss", workflow_id=f"again-{site.queue}")
        await reached(f"{first.id}/c2")
        LET_GO.add(f"{first.id}/c2")
        await first.result()
        second = await site.start("boss", workflow_id=f"again-{site.queue}", again=True)
        state = await reports(second, 1)
        record = await read_record(site.client, second.id, None)

    check(record, state)
    (child,) = record.history.children.open.values()
    assert child.workflow_id == state.children[1].id != f"{second.id}/c2"


@pytest.mark.parametrize("continues", [False, True])
async def test_a_cancelled_parent_tells_of_its_children(site: Site, continues: bool) -> None:
    tree(site, [PAY, DONE], [PAY, HELD, DONE])
    async with serving(site):
        handle = await site.start("boss")
        await reached(f"{handle.id}/c2")
        if continues:
            await continued(handle)
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
        state: RunState = await handle.query("state", result_type=RunState)
        record = await read_record(site.client, handle.id, None)

    assert record.status == "cancelled"
    check(record, state)
    assert record.history.effects.count == 2


async def test_a_child_is_told_by_its_own_history(site: Site) -> None:
    tree(site, [PAY, PAY, {"say": "word " * 200}])
    async with serving(site):
        handle = await site.start("boss")
        await handle.result()
        result: RunResult = await site.agents.handle(f"{handle.id}/c1").result()
    record = await read_record(site.client, f"{handle.id}/c1", None)

    assert (record.status, record.history.agent, record.history.parent) == ("completed", "worker1", handle.id)
    assert (record.history.step, record.history.sum_usage()) == (3, result.usage)
    assert record.budget is not None
    assert record.budget.limits["cost_usd"] == "30.00"
    assert (record.history.effects.count, record.history.effects.digest) == (2, result.effects.digest)
    assert [entry.call for entry in record.history.effects.last] == ["pay order=1"] * 2


async def test_a_child_that_is_terminated_tells_what_it_was_doing(site: Site) -> None:
    tree(site, [PAY, HELD, DONE])
    async with serving(site):
        handle = await site.start("boss")
        child = site.client.get_workflow_handle(f"{handle.id}/c1")
        await reached(child.id)
        state: RunState = await child.query("state", result_type=RunState)
        await child.terminate(reason="by hand")
        await handle.result()
        record = await read_record(site.client, child.id, None)

    assert (record.status, record.history.parent) == ("terminated", handle.id)
    check(record, state)
    assert [call.state for call in record.history.calls] == ["stopped"]


async def test_a_child_in_a_paused_tree_is_paused(tmp_path: Path, client: Client) -> None:
    site = new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))
    tree(site, [HELD, HELD, DONE])
    async with serving(site):
        handle = await site.start("boss")
        child = f"{handle.id}/c1"
        await reached(child)
        await site.agents.pause(handle.id, by=BY, reason="lunch", tree=True)
        await standing(site, child, "paused")
        paused = await read_record(site.client, child, None)
        await site.agents.resume(handle.id, by=BY, tree=True)
        await standing(site, child, "running")
        resumed = await read_record(site.client, child, None)

    assert (paused.status, paused.history.doing) == ("paused", "look what=a held=true")
    assert resumed.status == "running"
    assert [told.line for told in resumed.people] == [
        f"{BY} pauses the run, through the run above: lunch",
        "the run above lets the run go on",
    ]


async def standing(site: Site, workflow_id: str, status: str) -> None:
    async with asyncio.timeout(30):
        while (await site.agents.open_requests(workflow_id)).status != status:
            await asyncio.sleep(0.05)


async def test_a_message_that_no_parent_has_sent_is_not_told(site: Site) -> None:
    tree(site, [HELD, DONE])
    async with serving(site):
        handle = await site.start("boss")
        child = site.client.get_workflow_handle(f"{handle.id}/c1")
        await reached(child.id)
        await child.signal("tell_child", {"number": 1, "verb": "pause", "by": BY})
        await handle.signal("child_done", args=[child.id, {"status": "completed"}])
        assert (await child.query("open_requests"))["status"] == "running"
        of_child = await read_record(site.client, child.id, None)
        of_parent = await read_record(site.client, handle.id, None)

    assert (of_child.status, of_child.people) == ("running", ())
    assert list(of_parent.history.children.open) == [0]
    assert of_parent.history.sum_usage() != Usage()


async def test_a_reset_parent_takes_its_child_up_again(site: Site) -> None:
    tree(site, [PAY, DONE], [HELD, DONE])
    async with serving(site):
        handle = await site.start("boss")
        await reached(f"{handle.id}/c2")
        await reports(handle, 1)
        again = await reset_before(site.client, handle, STARTS_CHILD)
        state = await reports(again, 1)
        record = await read_record(site.client, handle.id, None)

    check(record, state)
    assert [child.workflow_id for child in record.history.children.open.values()] == [f"{handle.id}/c2"]
    assert [call.state for call in record.history.calls] == ["done", "running"]
