"""Trees of runs: each run once, below the one that started it, with what it does or how it ended."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import Client, WorkflowFailureError
from temporalio.worker import Worker

from mandate.workers.client import trees
from mandate.workers.client.answers import Unknown
from mandate.workers.client.trees import Place
from mandate.workers.history.record import exists
from mandate.workers.history.tree import TreeRun, read_tree
from tests.support.agents import Site, continued, new_site, part_of
from tests.support.people import ASK_ALL, PEOPLE, asked, write_people
from tests.support.starting_workflow import PackingWorkflow, StartingWorkflow
from tests.support.toolkit import LET_GO, calls_of

BY = "ann@example.com"
HELD = {"call": [{"look": {"what": "a", "held": True}}]}
PAY = {"call": [{"pay": {"order": 1}}]}
DONE = {"say": "It is done."}


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path, PEOPLE)))


def below(*names: str) -> dict[str, Any]:
    return {"tools": [{"agent": name} for name in names]}


def calls(*names: str) -> dict[str, Any]:
    return {"call": [{name: {"task": "go on"}} for name in names]}


async def reached(*ids: str) -> None:
    async with asyncio.timeout(30):
        while not all(calls_of(one, "look") for one in ids):
            await asyncio.sleep(0.05)


async def listed(client: Client, workflow_id: str, count: int) -> TreeRun:
    """The tree of a run, once it is listed with so many runs: lists lag behind."""
    async with asyncio.timeout(30):
        while True:
            tree = await read_tree(client, workflow_id)
            if len(list(tree.walk())) == count and all(run.status != "gone" for run in tree.walk()):
                return tree
            await asyncio.sleep(0.1)


async def test_a_tree_has_each_run_below_the_one_that_started_it(site: Site) -> None:
    site.write("boss", [calls("waits", "works", "done", "ended", "stopped"), DONE], **below(*ENDS))
    site.write("waits", [calls("payer"), DONE], **below("payer"))
    site.write("payer", [PAY, DONE], policy=ASK_ALL)
    for name in ("works", "ended", "stopped"):
        site.write(name, [HELD, DONE])
    site.write("done", [DONE])
    progress: list[tuple[int, int]] = []
    async with site.serving():
        handle = await site.start("boss")
        await reached(*(f"{handle.id}/c{number}" for number in (2, 4, 5)))
        async with asyncio.timeout(30):
            while not await exists(site.client, f"{handle.id}/c1/c1"):
                await asyncio.sleep(0.05)
        await asked(site.client.get_workflow_handle(f"{handle.id}/c1/c1"))
        await site.client.get_workflow_handle(f"{handle.id}/c4").terminate(reason="by hand")
        await site.agents.stop(f"{handle.id}/c5", by=BY, reason="enough")
        LET_GO.add(f"{handle.id}/c5")
        await site.agents.handle(f"{handle.id}/c5").result()
        await listed(site.client, handle.id, 7)
        tree = await read_tree(site.client, f"{handle.id}/c1/c1", on_progress=lambda *counts: progress.append(counts))
        LET_GO.add(f"{handle.id}/c2")
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
        closed = await listed(site.client, handle.id, 7)

    assert progress[-1] == (7, 7)
    assert (tree.workflow_id, tree.agent, tree.status) == (handle.id, "boss", "running")
    assert (tree.doing or "").startswith(f"waiting for {handle.id}/c")
    assert [(run.workflow_id, run.agent, run.status, run.reason) for run in tree.children] == [
        (f"{handle.id}/c1", "waits", "running", None),
        (f"{handle.id}/c2", "works", "running", None),
        (f"{handle.id}/c3", "done", "completed", None),
        (f"{handle.id}/c4", "ended", "terminated", "by hand"),
        (f"{handle.id}/c5", "stopped", "stopped", f"stopped by {BY}: enough"),
    ]
    assert [(run.doing, run.requests) for run in tree.children[:2]] == [
        (f"waiting for {handle.id}/c1/c1", 0),
        ("look what=a held=true", 0),
    ]
    (payer,) = tree.children[0].children
    assert (payer.agent, payer.status, payer.requests, payer.waits_for) == ("payer", "waiting", 1, ("finance",))
    assert all(run.cost_usd == 0 for run in tree.walk())
    ends = {run.agent: run.status for run in closed.walk()}
    assert ends == {
        "boss": "cancelled",
        "waits": "cancelled",
        "payer": "cancelled",
        "works": "cancelled",
        "done": "completed",
        "ended": "terminated",
        "stopped": "stopped",
    }


ENDS = ("waits", "works", "done", "ended", "stopped")


async def test_a_run_that_is_alone_is_a_tree_of_one(site: Site) -> None:
    site.write("alone", [DONE])
    async with site.serving():
        handle = await site.start("alone")
        # Not even itself is listed by now.
        tree = await read_tree(site.client, handle.id)
        await handle.result()
    ended = await read_tree(site.client, handle.id)

    assert (tree.workflow_id, tree.children) == (handle.id, [])
    assert (ended.agent, ended.status, ended.children) == ("alone", "completed", [])


async def test_a_run_that_has_continued_as_new_is_there_once(site: Site) -> None:
    site.write("boss", [calls("works"), DONE], **below("works"))
    site.write("works", [HELD, DONE])
    async with site.serving():
        handle = await site.start("boss")
        child = site.client.get_workflow_handle(f"{handle.id}/c1")
        await reached(child.id)
        await continued(handle)
        await listed(site.client, handle.id, 2)
        tree = await read_tree(site.client, child.id)
        LET_GO.add(child.id)
        await handle.result()

    assert tree.run_id == await part_of(handle)
    assert [run.workflow_id for run in tree.walk()] == [handle.id, child.id]


async def test_a_tree_has_no_runs_of_an_earlier_start_of_its_root(site: Site) -> None:
    site.write("boss", [calls("done"), DONE], **below("done"))
    site.write("done", [DONE])
    name = f"again-{uuid4().hex[:8]}"
    async with site.serving():
        first = await site.start("boss", workflow_id=name)
        await first.result()
        second = await site.start("boss", workflow_id=name, again=True)
        await second.result()
        tree = await listed(site.client, name, 2)
    before = await read_tree(site.client, name, first.first_execution_run_id)

    assert [run.workflow_id for run in before.walk()] == [name, f"{name}/c1"]
    assert before.run_id == first.first_execution_run_id
    assert [run.workflow_id for run in tree.children] == [f"{name}/{(second.first_execution_run_id or '')[:8]}/c1"]


async def test_runs_that_do_not_answer_say_why(site: Site) -> None:
    site.write("boss", [calls("works"), DONE], **below("works"))
    site.write("works", [HELD, DONE])
    async with site.serving():
        handle = await site.start("boss")
        await reached(f"{handle.id}/c1")
        await listed(site.client, handle.id, 2)
        LET_GO.add(f"{handle.id}/c1")
        await site.agents.pause(f"{handle.id}/c1", by=BY)
    async with asyncio.timeout(30):
        while not (tree := await read_tree(site.client, handle.id)).is_silent:
            await asyncio.sleep(0.5)

    assert [(run.agent, run.status) for run in tree.walk()] == [("boss", "running"), ("works", "paused")]
    assert all(run.is_silent for run in tree.walk())
    assert "no worker" in (tree.reason or "")


async def test_a_run_that_nobody_has_begun_is_known_by_its_start(client: Client) -> None:
    name = f"unserved-{uuid4().hex[:8]}"
    handle = await client.start_workflow("AgentWorkflow", {"agent": "lost", "input": "x"}, id=name, task_queue=name)
    waiting = await read_tree(client, name)
    await handle.terminate(reason="enough")
    ended = await read_tree(client, name)

    shown = {key: waiting.to_json()[key] for key in ("agent", "status", "reason", "silent", "cost_usd")}
    assert shown == {
        "agent": "lost",
        "status": "running",
        "reason": f"no worker polls task queue {name!r}",
        "silent": True,
        "cost_usd": None,
    }
    assert (ended.agent, ended.status, ended.reason, ended.cost_usd) == ("lost", "terminated", "enough", 0)


async def test_hundreds_of_children_are_read(site: Site) -> None:
    count = 200
    site.write("boss", [calls(*["done"] * count), DONE], **below("done"))
    site.write("done", [DONE])
    async with site.serving():
        handle = await site.start("boss")
        await handle.result()
        tree = await listed(site.client, handle.id, count + 1)

    assert [run.workflow_id for run in tree.children] == [f"{handle.id}/c{number}" for number in range(1, count + 1)]
    assert {run.status for run in tree.walk()} == {"completed"}


async def test_a_workflow_of_another_kind_may_be_the_root(site: Site) -> None:
    """It is not asked, and what else it has started is no part of the tree."""
    site.write("works", [HELD, DONE])
    name, kinds = f"order-{uuid4().hex[:8]}", [StartingWorkflow, PackingWorkflow]
    async with site.serving(), Worker(site.client, task_queue=name, workflows=kinds):
        asked_for = {"agent": "works", "input": "Go on.", "requester": "eve@example.com"}
        order = await site.client.start_workflow(
            "OrderWorkflow", args=[asked_for, site.queue], id=name, task_queue=name
        )
        await reached(f"{name}-agent")
        tree = await listed(site.client, f"{name}-agent", 2)
        LET_GO.add(f"{name}-agent")
        await order.result()

    place = await trees.find_place(site.client, f"{name}-agent")
    assert place == Place(parent=name, root=name)
    assert (tree.workflow_id, tree.agent, tree.kind, tree.status) == (name, None, "OrderWorkflow", "running")
    assert [(run.workflow_id, run.agent, run.status) for run in tree.children] == [
        (f"{name}-agent", "works", "running")
    ]


async def test_an_id_without_a_run_is_unknown(client: Client) -> None:
    with pytest.raises(Unknown):
        await read_tree(client, "nobody")


@pytest.mark.parametrize("odd", ['"{}', "'{}'", "{}\\", "a\n{}"])
async def test_an_id_that_no_query_can_hold_is_refused(client: Client, odd: str) -> None:
    name = odd.format(uuid4().hex[:8])
    await client.start_workflow("AgentWorkflow", {}, id=name, task_queue="nobodys")

    with pytest.raises(ValueError, match="cannot be searched for: its id holds a double quote"):
        await read_tree(client, name)
