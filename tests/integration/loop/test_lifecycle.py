"""Starting, pinning, continuing, cancelling: what holds around the loop."""

import asyncio
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from mandate.workers.client import queries
from mandate.workers.client.client import connect
from mandate.workers.dev_server.server import run_private_server
from mandate.workflows.contracts.run import Progress, RunResult, RunStatus
from tests.support.agents import Site, new_site, results_told
from tests.support.attacks import whole_history
from tests.support.toolkit import calls_of, held


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client)


GOOD = {"agent": "plain", "input": "Go on."}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "start request: AgentWorkflow takes one JSON object, got 0 arguments"),
        ([GOOD, GOOD], "start request: AgentWorkflow takes one JSON object, got 2 arguments"),
        ([None], "start request: AgentWorkflow takes one JSON object, got null"),
        (["plain"], "start request: AgentWorkflow takes one JSON object, got a text"),
        ([[GOOD]], "start request: AgentWorkflow takes one JSON object, got a list"),
        ([{}], "start request: agent: is missing; input: is missing"),
        ([{**GOOD, "bugdet": {}}], "start request: bugdet: is not a known key; did you mean 'budget'?"),
        ([{**GOOD, "input": ""}], "start request: input: must not be empty"),
        ([{**GOOD, "input": {}}], "start request: input: must not be empty"),
        ([{**GOOD, "input": 3}], "start request: input: is neither a text nor an object"),
        ([{**GOOD, "agent": 3}], "start request: agent: 3 is not a text"),
        (
            [{**GOOD, "budget": {"cost": "2.00"}}],
            "start request: budget.cost: is not a known key; did you mean 'cost_usd'?",
        ),
        ([{**GOOD, "budget": {"steps": 0}}], "start request: budget.steps: 0: must be at least 1"),
        ([{**GOOD, "labels": {"a": 1}}], "start request: labels.a: 1 is not a text"),
        (
            [{**GOOD, "labels": {f"n{n}": "ü" * 64 for n in range(20)}}],
            "start request: labels: are 7830 bytes of JSON together; at most 1900 are allowed",
        ),
        ([{**GOOD, "agent": "nobody"}], "agent: 'nobody' is not an agent of these workers; they have: plain"),
        ([{"agent": {"name": "x"}, "head": "y"}], "start request: agent: an object is not a text"),
    ],
)
async def test_bad_input_fails_the_run_at_once_with_one_sentence(site: Site, arguments: list[Any], said: str) -> None:
    site.write("plain", [{"say": "done"}])

    async with site.serving():
        handle = await site.client.start_workflow(
            "AgentWorkflow", args=arguments, id=f"bad-{time.monotonic_ns()}", task_queue=site.queue
        )
        async with asyncio.timeout(30):
            with pytest.raises(WorkflowFailureError) as failure:
                await handle.result()

    assert isinstance(failure.value.cause, ApplicationError)
    assert failure.value.cause.message.startswith(said)


async def test_result_is_readable_without_any_code_of_ours(site: Site) -> None:
    site.write("plain", [{"call": [{"pay": {"order": 1}}]}, {"say": "done"}])

    async with site.serving():
        plain = await Client.connect(site.client.service_client.config.target_host)
        handle = await plain.start_workflow(
            "AgentWorkflow", GOOD, id=f"plain-{time.monotonic_ns()}", task_queue=site.queue
        )
        result = await handle.result()

    assert isinstance(result, dict)
    assert list(result) == list(RunResult.model_fields)
    assert result["status"] == "completed"
    assert result["usage"]["cost_usd"] == "0"
    assert result["effects"]["count"] == 1
    assert result["uncertain"] == []


async def test_a_running_run_keeps_its_agent_when_files_change(site: Site) -> None:
    turns = [{"call": [{"look": {"what": "a", "seconds": 1.5}}]}, {"call": [{"pay": {"order": 1}}]}, {"say": "done"}]
    site.write("kept", turns)
    async with site.serving():
        handle = await site.start("kept")
        while not calls_of(handle.id, "look"):
            await asyncio.sleep(0.05)

    site.write("kept", turns, policy=[], instructions="Other.", tools=[])
    async with site.serving():
        result = await handle.result()
        fresh = await (await site.start("kept")).result()

    assert result.status is RunStatus.COMPLETED
    assert result.effects.count == 1
    assert fresh.effects.count == 0
    assert "there is no tool" in (await results_told(site, fresh.head or ""))[0].text


async def test_a_worker_without_the_files_serves_a_run_that_has_them_in_the_store(site: Site) -> None:
    site.write("kept", [{"call": [{"look": {"what": "a", "seconds": 1.0}}]}, {"say": "done"}])
    async with site.serving():
        handle = await site.start("kept")
        while not calls_of(handle.id, "look"):
            await asyncio.sleep(0.05)
    (site.folder / "agents" / "kept.yaml").unlink()
    site.write("other", [{"say": "x"}])

    async with site.serving():
        result = await handle.result()

    assert result.status is RunStatus.COMPLETED


async def test_run_waits_for_a_worker_with_its_store(site: Site, tmp_path: Path) -> None:
    """One with another store has other keys: it cannot tell whether an answer is of a worker."""
    site.write("kept", [{"call": [{"look": {"what": "a", "seconds": 1.0}}]}, {"say": "done"}])
    async with site.serving():
        handle = await site.start("kept")
        while not calls_of(handle.id, "look"):
            await asyncio.sleep(0.05)

    its_store = site.settings.store
    site.environment["MANDATE_STORE"] = f"sqlite:///{tmp_path / 'other.db'}"
    async with site.serving():
        async with asyncio.timeout(30):
            while not (failed := await workflow_task_failures(handle)):
                await asyncio.sleep(0.1)
    site.environment["MANDATE_STORE"] = its_store
    async with site.serving():
        result = await handle.result()

    assert re.fullmatch(r"this worker has store \w+, and the run is of store \w+", failed[0])
    assert result.status is RunStatus.COMPLETED


async def workflow_task_failures(handle: WorkflowHandle[Any, Any]) -> list[str]:
    return [
        event.workflow_task_failed_event_attributes.failure.message
        async for event in handle.fetch_history_events()
        if event.HasField("workflow_task_failed_event_attributes")
    ]


async def test_cancelling_stops_what_is_in_flight_and_the_memo_says_what_was_done(site: Site) -> None:
    calls = [{"pay": {"order": 1}}, {"pay": {"order": 2, "seconds": 15}}]
    site.write("cancelled", [{"call": calls}, {"say": "done"}])

    async with site.serving():
        handle = await site.start("cancelled")
        while len(calls_of(handle.id, "pay")) < 2:
            await asyncio.sleep(0.05)
        began = time.monotonic()
        await handle.cancel()
        with pytest.raises(WorkflowFailureError):
            await handle.result()
        took = time.monotonic() - began
        description = await handle.describe()
        memo = await description.memo()

    assert description.status is WorkflowExecutionStatus.CANCELED
    # Far from the 15 seconds of the call, and from the next heartbeat of an effect, which would tell it late.
    assert took < 5
    assert calls_of(handle.id, "pay")[1].ended is None
    assert [entry["call"] for entry in memo["mandate"]["effects"]["last"]] == ["pay order=1"]
    assert [entry["call"] for entry in memo["mandate"]["uncertain"]] == ["pay order=2 seconds=15.0"]


async def test_route_goes_on_when_a_model_is_gone(site: Site) -> None:
    site.write("first", [{"call": [{"look": {"what": "a"}}]}, {"fail": [{"status": 401}], "say": "never"}])
    site.write("second", [{"say": "never"}, {"say": "from the second"}])
    models = ["scripted:first.script.yaml", "scripted:second.script.yaml"]
    site.write("first", [{"call": [{"look": {"what": "a"}}]}, {"fail": [{"status": 401}], "say": "x"}], models=models)

    result, _ = await site.run("first")

    assert (result.status, result.output) == (RunStatus.COMPLETED, "from the second")


async def test_without_any_model_left_the_run_declines_with_the_reason(site: Site) -> None:
    site.write("dead", [{"fail": [{"status": 401}] * 9, "say": "x"}])

    result, _ = await site.run("dead")

    assert result.status is RunStatus.DECLINED
    assert (result.reason or "").startswith("scripted:dead.script.yaml gave no answer: ")


async def test_a_model_that_is_overloaded_is_asked_again(site: Site) -> None:
    site.write("busy", [{"fail": [{"status": 429, "retry_after": 0.2}, {"status": 500}], "say": "at last"}])

    result, _ = await site.run("busy")

    assert (result.status, result.output) == (RunStatus.COMPLETED, "at last")


async def test_people_see_what_a_run_does(site: Site) -> None:
    site.write("shown", [{"say": "I look.", "call": [{"look": {"what": "a"}}]}, {"say": "done"}])

    async with site.serving():
        with held("look"):
            handle = await site.start("shown", requester="ann@example.com", labels={"team": "support"})
            while not calls_of(handle.id, "look"):
                await asyncio.sleep(0.05)
            progress = await queries.ask(handle, "progress", Progress)
            metadata = await queries.ask(handle, "__temporal_workflow_metadata", RawValue)
        await handle.result()
        description = await handle.describe()
        events = [event async for event in handle.fetch_history_events()]

    summaries = [json.loads(e.user_metadata.summary.data) for e in events if e.HasField("user_metadata")]
    attributes = {pair.key.name: pair.value for pair in description.typed_search_attributes}
    assert progress.doing == "look what=a"
    assert progress.recent == ("step 1: says: I look.",)
    assert b"Now: `look what=a`" in metadata.payload.data
    assert summaries[1:] == [
        "pin_agent shown",
        "call_model scripted:shown.script.yaml, step 1",
        "look what=a",
        "call_model scripted:shown.script.yaml, step 2",
    ]
    assert attributes["AgentName"] == "shown"
    assert attributes["AgentStatus"] == "done"
    assert attributes["AgentRequester"] == "ann@example.com"
    assert attributes["AgentLabels"] == ["team=support"]
    assert attributes["AgentCostUsd"] == 0.0
    assert len(attributes["AgentVersion"]) == 12


async def test_continue_as_new_carries_everything(tmp_path: Path) -> None:
    """Keys, steps, usage, effects and the conversation go on, also in the middle of a turn."""
    turns = [
        {"repeat": 30, "call": [{"pay": {"order": 1}}, {"look": {"what": "n${n}"}}, {"pay": {"order": 1}}]},
        {"say": "done"},
    ]
    async with run_private_server(extra_dynamic_config={"limit.historyCount.suggestContinueAsNew": "60"}) as server:
        site = new_site(tmp_path, await connect(address=server.address))
        site.write("long", turns)
        async with site.serving():
            handle = await site.start("long")
            result = await handle.result()
            runs = await whole_history(site.client, handle)

    pays = calls_of(handle.id, "pay")
    assert result.status is RunStatus.COMPLETED
    assert len(runs) > 5
    assert result.usage.model_calls == 31
    assert result.effects.count == 60
    assert len(result.effects.last) == 50
    assert len({call.key for call in pays}) == len(pays) == 60
    assert [call.arguments["what"] for call in calls_of(handle.id, "look")] == [f"n{n}" for n in range(1, 31)]
    assert len(await results_told(site, result.head or "")) == 90


async def test_nothing_depends_on_a_run_staying_in_memory(site: Site) -> None:
    site.write("evicted", [{"repeat": 5, "call": [{"pay": {"order": 1}}, {"look": {"what": "x"}}]}, {"say": "done"}])

    async with site.serving(max_cached_workflows=0):
        handle = await site.start("evicted")
        result = await handle.result()

    assert result.effects.count == 5
    assert len({call.key for call in calls_of(handle.id, "pay")}) == 5
