"""Stops, cancellations and pauses of a run with children, passed down the tree."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import CancelledError

from mandate.workflows.contracts.run import RunResult, RunStatus
from tests.support.agents import Site, continued, new_site, texts_told
from tests.support.people import send_update
from tests.support.toolkit import CALLS, LET_GO, calls_of

BY = "ann@example.com"


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client)


def tree(site: Site, leaf: list[Any], **keys: Any) -> None:
    """A boss whose two workers have a helper each, which works by `leaf`."""
    site.write("boss", [{"call": [{"worker": {"task": "a"}}, {"worker": {"task": "b"}}]}, {"say": "done"}], **keys)
    agents = site.folder / "agents"
    boss = (agents / "boss.yaml").read_text()
    (agents / "boss.yaml").write_text(boss.replace('"tools": [', '"tools": [{"agent": "worker"}, '))
    site.write("worker", [{"call": [{"helper": {"task": "deep"}}]}, {"say": "It is a."}], tools=[{"agent": "helper"}])
    site.write("helper", leaf)


HELD = {"call": [{"look": {"what": "a", "held": True}}]}


def below(handle: WorkflowHandle[Any, Any]) -> list[str]:
    return [f"{handle.id}/c{number}/c1" for number in (1, 2)]


async def reached(ids: list[str], tool: str = "look", count: int = 1) -> None:
    async with asyncio.timeout(30):
        while not all(len(calls_of(one, tool)) >= count for one in ids):
            await asyncio.sleep(0.05)


async def status(site: Site, workflow_id: str) -> str:
    return str((await site.client.get_workflow_handle(workflow_id).query("open_requests"))["status"])


async def test_a_stop_ends_the_whole_tree_and_says_so(site: Site) -> None:
    tree(site, [HELD, {"say": "here"}])
    async with site.serving():
        handle = await site.start("boss")
        await reached(below(handle))
        told = await send_update(handle, "stop", {"by": BY, "reason": "enough"})
        LET_GO.update(below(handle))
        result = await handle.result()
        ends = [await site.agents.handle(one).result() for one in (*below(handle), f"{handle.id}/c1")]

    assert told["message"] == "the call in hand is finished, its 2 children are stopped, then the run ends"
    assert (result.status, result.reason) == (RunStatus.STOPPED, f"stopped by {BY}: enough")
    assert {one.status for one in ends} == {RunStatus.STOPPED}


@pytest.mark.parametrize("continues", [False, True])
async def test_a_stopped_tree_takes_back_what_it_did_the_children_first(site: Site, continues: bool) -> None:
    leaf = [{"call": [{"pay": {"order": 1}}]}, HELD, {"say": "here"}]
    undone: dict[str, Any] = {
        "tools": [
            {"python": "tests.support.toolkit:pay", "compensate": {"tool": "send", "with": {"to": "'undo'"}}},
            {"python": "tests.support.toolkit:send"},
            {"python": "tests.support.toolkit:look"},
        ]
    }
    site.write("helper", leaf, **undone)
    site.write(
        "boss",
        [{"call": [{"pay": {"order": 9}}]}, {"call": [{"helper": {"task": "deep"}}]}, {"say": "done"}],
        tools=[*undone["tools"], {"agent": "helper"}],
    )
    async with site.serving():
        handle = await site.start("boss")
        child = f"{handle.id}/c1"
        await reached([child])
        if continues:
            await continued(handle)
        await send_update(handle, "stop", {"by": BY})
        LET_GO.add(child)
        result = await handle.result()
        of_child = await site.agents.handle(child).result()

    assert (result.status, of_child.status) == (RunStatus.STOPPED, RunStatus.STOPPED)
    order = [call.workflow_id for call in CALLS if call.tool == "send" and call.workflow_id in {handle.id, child}]
    assert order == [child, handle.id]
    assert "1 of 1 call that can be taken back was" in str(of_child.reason)


async def test_a_stop_that_keeps_what_was_done_keeps_it_in_children_too(site: Site) -> None:
    site.write(
        "helper",
        [{"call": [{"pay": {"order": 1}}]}, HELD, {"say": "here"}],
        tools=[
            {"python": "tests.support.toolkit:pay", "compensate": {"tool": "send", "with": {"to": "'undo'"}}},
            {"python": "tests.support.toolkit:send"},
            {"python": "tests.support.toolkit:look"},
        ],
    )
    site.write("boss", [{"call": [{"helper": {"task": "deep"}}]}, {"say": "done"}], tools=[{"agent": "helper"}])
    async with site.serving():
        handle = await site.start("boss")
        child = f"{handle.id}/c1"
        await reached([child])
        await send_update(handle, "stop", {"by": BY, "keep": True})
        LET_GO.add(child)
        result = await handle.result()

    assert calls_of(child, "send") == []
    assert result.effects.count == 1


@pytest.mark.parametrize("continues", [False, True])
async def test_a_cancelled_run_cancels_all_below_it(site: Site, continues: bool) -> None:
    tree(site, [HELD, {"say": "here"}])
    async with site.serving():
        handle = await site.start("boss")
        await reached(below(handle))
        if continues:
            await continued(handle)
        await handle.cancel()
        with pytest.raises(WorkflowFailureError) as failed:
            await handle.result()
        assert isinstance(failed.value.cause, CancelledError)
        for one in below(handle):
            with pytest.raises(WorkflowFailureError) as failed:
                await site.agents.handle(one).result()
            assert isinstance(failed.value.cause, CancelledError)
        memo = await (await handle.describe()).memo()

    told = memo["mandate"]
    assert (told["uncertain"], told["usage"]["model_calls"]) == ([], 5)


async def test_a_paused_tree_begins_nothing_until_it_is_resumed(site: Site) -> None:
    tree(site, [HELD, {"call": [{"look": {"what": "b"}}]}, {"say": "here"}])
    async with site.serving():
        handle = await site.start("boss")
        await reached(below(handle))
        await send_update(handle, "pause", {"by": BY, "tree": True})
        async with asyncio.timeout(20):
            while {await status(site, one) for one in below(handle)} != {"paused"}:
                await asyncio.sleep(0.05)
        LET_GO.update(below(handle))
        await asyncio.sleep(0.5)
        assert [len(calls_of(one, "look")) for one in below(handle)] == [1, 1]
        await continued(handle)
        await send_update(handle, "resume", {"by": BY})
        result = await handle.result()

    assert result.status is RunStatus.COMPLETED
    assert await texts_told(site, result.head) == [f"[c{n}: completed, $0.0000]\nIt is a." for n in (1, 2)]


async def test_children_work_on_while_their_parent_alone_is_paused(site: Site) -> None:
    tree(site, [HELD, {"call": [{"look": {"what": "b"}}]}, {"say": "here"}])
    async with site.serving():
        handle = await site.start("boss")
        await reached(below(handle))
        told = await send_update(handle, "pause", {"by": BY})
        LET_GO.update(below(handle))
        done: RunResult = await site.agents.handle(f"{handle.id}/c1").result()
        assert await status(site, handle.id) == "paused"
        await send_update(handle, "resume", {"by": BY})
        result = await handle.result()

    assert "its children work on" in str(told)
    assert (done.status, result.status) == (RunStatus.COMPLETED, RunStatus.COMPLETED)


async def test_a_resumed_tree_resumes_a_child_that_was_paused_by_itself(site: Site) -> None:
    tree(site, [HELD, {"call": [{"look": {"what": "b"}}]}, {"say": "here"}])
    async with site.serving():
        handle = await site.start("boss")
        await reached(below(handle))
        await send_update(site.agents.handle(below(handle)[0]), "pause", {"by": BY})
        LET_GO.update(below(handle))
        await asyncio.sleep(0.3)
        await send_update(handle, "resume", {"by": BY, "tree": True})
        result = await handle.result()

    assert result.status is RunStatus.COMPLETED


async def test_what_is_below_a_child_that_was_terminated_is_cancelled(site: Site) -> None:
    tree(site, [HELD, {"say": "here"}])
    async with site.serving():
        handle = await site.start("boss")
        await reached(below(handle))
        await site.client.get_workflow_handle(f"{handle.id}/c1").terminate(reason="by hand")
        with pytest.raises(WorkflowFailureError) as failed:
            await site.agents.handle(f"{handle.id}/c1/c1").result()
        assert isinstance(failed.value.cause, CancelledError)
        LET_GO.update(below(handle))
        result = await handle.result()

    told = await texts_told(site, result.head)
    assert told[0].startswith(
        "c1: declined, $0.0000; it was terminated: by hand; it is unknown whether this happened: "
    )
    assert told[1] == "[c2: completed, $0.0000]\nIt is a."


async def test_a_waiting_parent_names_no_child_that_has_reported(site: Site) -> None:
    site.write(
        "boss",
        [{"call": [{"quick": {"task": "a"}}, {"slow": {"task": "b"}}]}, {"say": "done"}],
        tools=[{"agent": "quick"}, {"agent": "slow"}],
    )
    site.write("quick", [HELD, {"say": "done"}])
    site.write("slow", [HELD, {"say": "done"}])
    async with site.serving():
        handle = await site.start("boss")
        await reached([f"{handle.id}/c1", f"{handle.id}/c2"])
        LET_GO.add(f"{handle.id}/c1")
        async with asyncio.timeout(20):
            while len((await handle.query("state"))["children"]) > 1:
                await asyncio.sleep(0.05)
        doing = (await handle.query("progress"))["doing"]
        LET_GO.add(f"{handle.id}/c2")
        await handle.result()

    assert doing == f"waiting for {handle.id}/c2"


async def test_the_memo_of_a_cancelled_parent_has_the_uncertain_calls_of_its_children(site: Site) -> None:
    site.write(
        "boss",
        [{"call": [{"quick": {"task": "a"}}, {"slow": {"task": "b"}}]}, {"say": "done"}],
        tools=[{"agent": "quick"}, {"agent": "slow"}],
    )
    site.write("quick", [{"call": [{"send": {"to": "x", "lose_reply": True}}]}, {"say": "done"}])
    site.write("slow", [HELD, {"say": "done"}])
    async with site.serving():
        handle = await site.start("boss")
        await reached([f"{handle.id}/c2"])
        async with asyncio.timeout(30):
            while len((state := await handle.query("state"))["children"]) > 1:
                await asyncio.sleep(0.05)
        progress: dict[str, Any] = await handle.query("progress")
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
        memo = await (await handle.describe()).memo()

    assert [entry["call"] for entry in state["uncertain_below"]] == ["send to=x lose_reply=true"]
    assert "send to=x lose_reply=true" in [entry["call"] for entry in progress["uncertain"]], "query progress"
    assert "send to=x lose_reply=true" in [entry["call"] for entry in memo["mandate"]["uncertain"]], "memo"


async def test_a_pause_of_a_tree_says_that_the_children_are_paused(site: Site) -> None:
    site.write("boss", [{"call": [{"slow": {"task": "b"}}]}, {"say": "done"}], tools=[{"agent": "slow"}])
    site.write("slow", [HELD, {"say": "done"}])
    async with site.serving():
        handle = await site.start("boss")
        await reached([f"{handle.id}/c1"])
        told = await send_update(handle, "pause", {"by": "ann", "tree": True})
        await send_update(handle, "resume", {"by": "ann", "tree": True})
        LET_GO.add(f"{handle.id}/c1")
        await handle.result()

    assert "child" in told["message"]
