"""A query that runs ahead of the history wedges no run, and nobody is told what is not in the history yet."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import Client, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.worker import Worker
from temporalio.worker._workflow_instance import _WorkflowLogicFlag

from mandate.workers.client import queries
from mandate.workers.receipts import FIRST_RECEIPT, PATIENCE_SECONDS
from mandate.workflows.contracts.failures import AHEAD
from tests.support import gate_stage
from tests.support.gate_stage import Case, Played
from tests.support.gate_worker import GateWorker, new_worker
from tests.support.gate_workflow import step
from tests.support.people import send_update

CASES = {
    case.name: case
    for case in (
        Case("update", "decide"),
        Case("update_with_start", "decide"),
        Case("timer", "decide", first="timer"),
        Case("stale", "decide"),
        Case("two_queries", "decide"),
        Case("signal", "decide_signal"),
        Case("pause", "pause"),
        Case("pause_signal", "pause_signal"),
        Case("note", "note"),
        Case("young", "decide_checked", first="young"),
        Case("young_pause", "pause", first="young"),
        Case("ready", "decide_checked", first="ready"),
        Case("signal_first", "complete"),
        Case("other_worker", "decide"),
        Case("no_query", "decide"),
        Case("closed", None),
    )
}
BARE = {
    case.name: case
    for case in (Case("bare update", "decide", is_bare=True), Case("bare pause", "pause_signal", is_bare=True))
}
"""The fault itself: once the SDK has mended it, receipts have nothing left to do."""

ANSWERS = {
    **dict.fromkeys(("update", "update_with_start", "timer", "stale", "two_queries", "ready", "other_worker"), "taken"),
    **dict.fromkeys(("pause", "young_pause"), "paused"),
    "note": "noted",
    "no_query": "no request r2 is open",
}
YOUNG = {"r2 takes no decision yet", "taken"}
"""The request is shown before it takes decisions; on a busy machine it does by the time that the decision comes."""
TRIES = 4


@pytest.fixture(scope="module")
async def played(client: Client) -> dict[str, Played]:
    """All cases; those in which nothing came ahead of the history are staged again, which a busy machine may need."""
    found = await gate_stage.play(client, [*CASES.values(), *BARE.values()])
    for _ in range(TRIES - 1):
        missed = [CASES[name] for name in CASES if name != "no_query" and not found[name].refused]
        missed += [BARE[name] for name in BARE if found[name].replay == "ok"]
        if not missed:
            break
        found |= await gate_stage.play(client, missed)
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_history_replays_after_a_query_that_was_ahead(played: dict[str, Played], name: str) -> None:
    its = played[name]

    assert its.replay == "ok"
    assert (its.attempt, its.failed_tasks) == (1, 0)
    assert (its.refused > 0) is (name != "no_query"), "the query was not ahead of the history"


@pytest.mark.parametrize("name", ANSWERS)
def test_a_message_is_answered_by_what_the_query_showed(played: dict[str, Played], name: str) -> None:
    assert played[name].answer == ANSWERS[name]
    assert name == "no_query" or played[name].seen == {"open": ["r2"], "paused": False}


def test_a_message_that_comes_early_is_told_so(played: dict[str, Played]) -> None:
    assert played["young"].answer in YOUNG
    assert played["young"].seen == {"open": ["r2"], "paused": False}


def test_an_early_decision_by_signal_counts(played: dict[str, Played]) -> None:
    assert played["signal"].activities == ["held-model", "notify", "check"]


def test_a_signal_that_was_seen_comes_before_the_result_after_it(played: dict[str, Played]) -> None:
    assert played["signal_first"].seen == {"open": [], "paused": True}
    assert played["signal_first"].activities == ["held-model"], "it was paused, and steps all the same"


def test_a_closed_run_answers_after_a_while(played: dict[str, Played]) -> None:
    """No workflow task comes that would take its last events in."""
    assert played["closed"].seen == {"open": ["r2"], "paused": False}
    assert played["closed"].took_seconds > PATIENCE_SECONDS


@pytest.mark.parametrize("name", BARE)
def test_the_sdk_by_itself_wedges_the_run(played: dict[str, Played], name: str) -> None:
    assert "[TMPRL1100] Nondeterminism error" in played[name].replay


def test_core_throws_a_run_out_of_memory_that_was_refused(played: dict[str, Played]) -> None:
    """First of the SDK's habits that receipts rest on."""
    after = [
        next((one.jobs for one in driven[number + 1 :] if one.run_id == done.run_id), None)
        for its in played.values()
        for driven in its.driven
        for number, done in enumerate(driven)
        if done.failure == AHEAD
    ]

    assert after
    assert set(after) == {("remove_from_cache",)}


@asynccontextmanager
async def parked(client: Client) -> AsyncIterator[tuple[WorkflowHandle[Any, str], GateWorker]]:
    """A run that waits for a decision, and the worker that has it."""
    queue = f"parked-{uuid4().hex[:6]}"
    async with new_worker(client, queue) as worker, Worker(client, task_queue=f"{queue}-steps", activities=[step]):
        handle = await client.start_workflow("Gate", args=["none", f"{queue}-steps"], id=queue, task_queue=queue)
        async with asyncio.timeout(20):
            while (await queries.ask(handle, "requests", dict))["open"] != ["r2"]:
                await asyncio.sleep(0.05)
        try:
            yield handle, worker
        finally:
            await handle.terminate()


async def test_core_gives_a_receipt_back_once_it_has_sent_it(client: Client) -> None:
    """Second; `legacy_query`, by which a query is known that came by itself, is the third."""
    async with parked(client) as (handle, worker):
        # On a busy server one or another query comes with a workflow task.
        for _ in range(6):
            await send_update(handle, "note")
            await handle.query("requests")
        driven = list(worker.record.driven)

    used: list[int] = []
    direct = 0
    for one in driven:
        assert set(one.given) - set(used) <= set(_WorkflowLogicFlag)
        if "legacy_query" in one.query_ids:
            assert (one.jobs, one.used) == (("query_workflow",), ())
            assert [flag for flag in one.given if flag > FIRST_RECEIPT] == used
            direct += 1
        used += one.used
    assert len(used) >= 4
    assert direct >= 3


async def test_a_query_that_comes_with_a_workflow_task_has_an_id_of_its_own(client: Client) -> None:
    async with parked(client) as (handle, worker):
        await worker.shutdown()
        await handle.signal("poke")
        asked = asyncio.create_task(handle.query("requests"))
        await asyncio.sleep(0.5)
        async with new_worker(client, handle.id) as cold:
            await asked
            (ids,) = [one.query_ids for one in cold.record.driven if one.query_ids]

    assert ids != ("legacy_query",)


async def test_ordinary_queries_are_answered_at_once(client: Client) -> None:
    """Between signals, updates and refused updates, to one worker, and to one that has to replay the run first."""
    async with parked(client) as (handle, worker):
        await handle.signal("poke")
        for _ in range(20):
            await asyncio.gather(*(handle.query("requests") for _ in range(3)))
            with pytest.raises(WorkflowUpdateFailedError):
                await send_update(handle, "decide_checked", "r9")
            await asyncio.gather(*(handle.query("requests") for _ in range(3)))
            await send_update(handle, "note")
            await asyncio.gather(*(handle.query("requests") for _ in range(3)))
        driven = list(worker.record.driven)
        await worker.shutdown()
        async with new_worker(client, handle.id) as cold:
            await handle.query("requests")
            await handle.query("requests")
            driven += cold.record.driven
        history = await handle.fetch_history()

    assert [one for one in driven if one.failure is not None] == []
    assert await gate_stage.replay(history, handle.id) == "ok"
