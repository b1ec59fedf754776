"""Ways to lose an effect or to do it twice that a run must not fall for."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from temporalio import activity
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Worker

from mandate.workers.client.client import connect
from mandate.workers.dev_server.server import DevServer, run_private_server
from mandate.workers.history.local_activities import read_local_activity
from mandate.workflows.contracts.run import EffectEntry, RunResult, RunStatus
from mandate.workflows.steps import EFFECT_HEARTBEAT
from tests.support.agents import Site, new_site, parts_taken, results_told
from tests.support.effect_tools import KEYS, written
from tests.support.http_peer import Reply, http_peer
from tests.support.processes import Process, processes
from tests.support.toolkit import calls_of

NOBODY = {"expires": "300ms"}
"""An unknown outcome is found out by nobody."""
BEGUN_BEFORE = "the call was begun before, and what became of it then is not known; it was not made again"
LOST_WORKER = "the worker that made the call was lost"


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client)


def only_doubt(result: RunResult) -> EffectEntry:
    """The call of which the run says that it may have happened."""
    assert result.status is RunStatus.DECLINED
    assert result.effects.count == 0
    (entry,) = result.uncertain
    return entry


async def test_reply_lost_and_then_no_connection_is_unknown(tmp_path: Path, client: Client) -> None:
    async with http_peer(Reply(cut=True, is_last=True)) as peer:
        site = new_site(tmp_path, client, MANDATE_HTTP_HOSTS=peer.host)
        tool = {
            "http": {"method": "POST", "url": f"{peer.url}/"},
            "name": "pay",
            "input_schema": {"type": "object"},
            "effect": "keyed",
            "retries": 2,
        }
        site.write("lost", [{"call": [{"pay": {}}]}, {"say": "done"}], tools=[tool], people=NOBODY)

        result, _ = await site.run("lost")

    entry = only_doubt(result)
    assert (entry.reason, entry.attempts) == ("POST 127.0.0.1: no connection", 3)
    assert [seen.headers["idempotency-key"] for seen in peer.seen] == [entry.key]


async def test_two_intended_identical_calls_are_two(site: Site) -> None:
    same = {"send": {"to": "Ann"}}
    site.write("twice", [{"call": [same, same]}, {"call": [same]}, {"say": "done"}])

    result, run = await site.run("twice")

    assert (result.status, result.effects.count) == (RunStatus.COMPLETED, 3)
    assert len({call.key for call in calls_of(run, "send")}) == 3


async def test_same_call_after_continue_as_new_is_another(tmp_path: Path) -> None:
    turns = [{"repeat": 25, "call": [{"send": {"to": "Ann"}}]}, {"say": "done"}]
    async with run_private_server(extra_dynamic_config={"limit.historyCount.suggestContinueAsNew": "60"}) as server:
        site = new_site(tmp_path, await connect(address=server.address))
        site.write("long", turns)
        async with site.serving():
            handle = await site.start("long")
            result = await handle.result()
            parts = await parts_taken(site.client, handle.id)

    assert parts > 2
    assert (result.status, result.effects.count) == (RunStatus.COMPLETED, 25)
    assert len({call.key for call in calls_of(handle.id, "send")}) == 25


async def test_run_of_the_same_name_is_a_new_intention(site: Site) -> None:
    site.write("again", [{"call": [{"send": {"to": "Ann"}}]}, {"say": "done"}])

    async with site.serving():
        name = f"again-{uuid4().hex[:8]}"
        starts = [{}, {"again": True}]
        results = [
            await (await site.agents.start("again", "Go on.", workflow_id=name, **options)).result()
            for options in starts
        ]

    assert [result.status for result in results] == [RunStatus.COMPLETED] * 2
    assert len({call.key for call in calls_of(name, "send")}) == 2


async def reset(handle: WorkflowHandle[Any, Any], client: Client, before: str) -> None:
    """Reset the run to its beginning, or to before the task that scheduled its last activity of this type."""
    finished = []
    async for event in handle.fetch_history_events():
        if event.HasField("activity_task_scheduled_event_attributes"):
            scheduled = event.activity_task_scheduled_event_attributes
            finished.append((scheduled.activity_type.name, scheduled.workflow_task_completed_event_id))
        elif (local := read_local_activity(event)) is not None:
            finished.append((local.kind, event.marker_recorded_event_attributes.workflow_task_completed_event_id))
    target = [task for kind, task in finished if kind == before][-1]
    run_id = (await handle.describe()).run_id
    await client.workflow_service.reset_workflow_execution(
        ResetWorkflowExecutionRequest(
            namespace=client.namespace,
            workflow_execution=WorkflowExecution(workflow_id=handle.id, run_id=run_id),
            reason="as an operator does",
            workflow_task_finish_event_id=target,
            request_id=str(uuid4()),
        )
    )


@pytest.mark.parametrize("before", ["pin_agent", "run_tool"])
async def test_reset_to_before_a_once_call_does_not_repeat_it(site: Site, before: str) -> None:
    site.write("reset", [{"call": [{"send": {"to": "Ann"}}]}, {"say": "done"}], people=NOBODY)

    async with site.serving():
        handle = await site.start("reset")
        first = await handle.result()
        await reset(handle, site.client, before)
        second = await site.agents.client.get_workflow_handle(handle.id, result_type=RunResult).result()

    assert first.effects.count == 1
    assert len(calls_of(handle.id, "send")) == 1
    entry = only_doubt(second)
    assert (entry.key, entry.reason) == (first.effects.last[0].key, BEGUN_BEFORE)


@pytest.mark.parametrize("before", ["pin_agent", "run_tool"])
async def test_reset_to_before_a_keyed_call_makes_it_again_with_its_key(site: Site, before: str) -> None:
    site.write("reset", [{"call": [{"pay": {"order": 1}}]}, {"say": "done"}])

    async with site.serving():
        handle = await site.start("reset")
        first = await handle.result()
        await reset(handle, site.client, before)
        second = await site.agents.client.get_workflow_handle(handle.id, result_type=RunResult).result()

    assert [result.effects.count for result in (first, second)] == [1, 1]
    # At least: a worker that is too busy to be heard of has its call made once more, with the same key.
    keys = [call.key for call in calls_of(handle.id, "pay")]
    assert len(keys) >= 2
    assert set(keys) == {first.effects.last[0].key}


@asynccontextmanager
async def doomed_worker(site: Site, temporal: DevServer) -> AsyncIterator[Process]:
    settings = {
        "MANDATE_FOLDER": str(site.folder),
        "MANDATE_AGENTS": str(site.folder / "agents"),
        "MANDATE_TASK_QUEUE": site.queue,
        "TEMPORAL_ADDRESS": temporal.address,
    }
    with processes(site.folder / "processes", **settings) as started:
        yield await started.worker()


async def attempts(handle: WorkflowHandle[Any, Any]) -> int:
    """At which attempt the run's open activity is; a large number when there is none."""
    pending = (await handle.describe()).raw_description.pending_activities
    return max((one.attempt for one in pending), default=99)


async def until(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.05)


async def test_tool_that_goes_on_without_heartbeats_is_not_called_again(site: Site, temporal: DevServer) -> None:
    journal = site.folder / "journal"
    seconds = EFFECT_HEARTBEAT.total_seconds() + 4
    call = {"stall": {"journal": str(journal), "seconds": seconds}}
    tools = [{"python": "tests.support.effect_tools:stall", "effect": "once"}]
    site.write("stalled", [{"call": [call]}, {"say": "done"}], tools=tools, people=NOBODY)

    async with doomed_worker(site, temporal):
        handle = await site.start("stalled")
        await until(lambda: len(written(journal)) == 1)
        async with site.serving():
            entry = only_doubt(await handle.result())
            await until(lambda: len(written(journal)) == 2)
            # Time for the worker to tell the server, and for the server to hear of it too late.
            await asyncio.sleep(1)

    assert entry.reason == LOST_WORKER
    assert written(journal) == [("began", 1, entry.key), ("ended", 1, entry.key)]


async def test_worker_that_comes_back_changes_nothing_of_what_was_given_up(site: Site, temporal: DevServer) -> None:
    journals = {effect: site.folder / effect for effect in ("once", "keyed")}
    for effect, journal in journals.items():
        tools = [{"python": "tests.support.effect_tools:linger", "effect": effect}]
        turns = [{"call": [{"linger": {"journal": str(journal)}}]}, {"say": "done"}]
        site.write(effect, turns, tools=tools, people=NOBODY)

    async with doomed_worker(site, temporal) as doomed:
        handles = {effect: await site.start(effect) for effect in journals}
        await until(lambda: all(written(journal) for journal in journals.values()))
        doomed.send(signal.SIGSTOP)
        async with site.serving():
            async with asyncio.timeout(30):
                while min([await attempts(handle) for handle in handles.values()]) < 2:
                    await asyncio.sleep(0.05)
            # Of what the server hands out by now, it hands some to the polls that are still open.
            doomed.send(signal.SIGCONT)
            results = {effect: await handle.result() for effect, handle in handles.items()}
            for journal in journals.values():
                Path(f"{journal}.release").touch()
            await until(lambda: all(("ended", 1) in [line[:2] for line in written(one)] for one in journals.values()))
            await asyncio.sleep(1)

    entry = only_doubt(results["once"])
    assert entry.reason == LOST_WORKER
    assert written(journals["once"]) == [("began", 1, entry.key), ("ended", 1, entry.key)]
    (paid,) = results["keyed"].effects.last
    # What the server handed to the polls of the frozen one was lost too.
    last = paid.attempts
    steps = [("began", 1), ("began", last), ("ended", last), ("ended", 1)]
    lines = written(journals["keyed"])
    assert [line for line in lines if line[1] in {1, last}] == [(*step, paid.key) for step in steps]
    assert {line[2] for line in lines} == {paid.key}
    assert results["keyed"].status == RunStatus.COMPLETED
    assert (await results_told(site, results["keyed"].head or ""))[0].text == f"attempt {last}"


async def test_no_attempt_begins_after_the_key_may_be_forgotten(site: Site) -> None:
    tools = [{"python": "tests.support.toolkit:pay", "key_valid": "4s", "retries": 9}]
    turns = [{"call": [{"pay": {"order": 1, "fail_first": 9}}]}, {"say": "done"}]
    site.write("forgotten", turns, tools=tools, people=NOBODY)

    result, run = await site.run("forgotten")

    pays, entry = calls_of(run, "pay"), only_doubt(result)
    # They begin after 0, 0.2 and 1 second; the next would after 4.2.
    assert 1 <= len(pays) <= 3
    assert pays[-1].began - pays[0].began <= 4
    assert (entry.reason, entry.attempts) == ("ConnectionError: the line broke", len(pays))


async def test_attempt_that_outlives_its_key_is_unknown(site: Site) -> None:
    order = time.monotonic_ns()
    tools = [{"python": "tests.support.effect_tools:act", "effect": "keyed", "key_valid": "3s"}]
    turns = [{"call": [{"act": {"order": order, "how": "hang"}}]}, {"say": "done"}]
    site.write("outlived", turns, tools=tools, people=NOBODY)

    result, _ = await site.run("outlived")

    assert len(KEYS[order]) == 1
    assert only_doubt(result).reason == "the call had no answer while the other side knew its key"


async def test_remote_activity_is_not_repeated_after_its_key_may_be_forgotten(site: Site) -> None:
    began: list[float] = []

    @activity.defn(name="Charge")
    async def charge(whole: dict[str, Any]) -> None:
        began.append(time.monotonic())
        raise RuntimeError("the line broke")

    queue = f"{site.queue}-remote"
    tool = {
        "activity": {"name": "Charge", "task_queue": queue},
        "name": "charge",
        "input_schema": {"type": "object"},
        "effect": "keyed",
        "key_valid": "3s",
        "retries": 9,
    }
    site.write("remote", [{"call": [{"charge": {}}]}, {"say": "done"}], tools=[tool], people=NOBODY)

    async with Worker(site.client, task_queue=queue, activities=[charge]):
        result, _ = await site.run("remote")

    # They begin after 0, 0.1, 0.3, 0.7 and 1.5 seconds; the next would after 3.1.
    assert 1 <= len(began) <= 5
    assert began[-1] - began[0] <= 3
    assert only_doubt(result).reason == "RuntimeError: the line broke"
