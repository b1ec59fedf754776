"""Plans under control: asked for, paused, stopped, cancelled, and over many parts of a run."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import CancelledError

from mandate.workflows.contracts.run import RunStatus
from tests.integration.loop.test_plans import start, statuses, write
from tests.support.agents import Site, new_site, parts_taken
from tests.support.people import asked, decide, decision, refusal_of, send_update, write_people
from tests.support.toolkit import CALLS, LET_GO, calls_of

BY = "ann@example.com"


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    made = new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))
    made.write("idle", [{"say": "done"}])
    return made


PAYS: list[dict[str, Any]] = [
    {"id": "one", "tool": "pay", "input": {"order": "1"}},
    {"id": "two", "tool": "pay", "input": {"order": "2"}, "depends_on": ["one"]},
    {"id": "seen", "tool": "look", "input": {"what": "'a'"}},
]


async def test_calls_of_a_plan_are_judged_asked_for_and_changed_like_those_of_a_model(site: Site) -> None:
    policy = [
        {"id": "no-2", "match": {"tools": ["pay"]}, "when": "args.order == 2", "verdict": "deny"},
        {"id": "asked", "match": {"tools": ["pay"]}, "verdict": "ask"},
    ]
    write(site, "pays", PAYS, policy=policy)
    async with site.serving():
        handle = await start(site, "pays")
        (request,) = await asked(handle)
        listed = [run.workflow_id for run in (await site.agents.inbox()).runs]
        denied = await refusal_of(handle, "decide", decision(request, value={"order": 2}))
        await decide(handle, request, value={"order": 5})
        result = await handle.result()

    assert handle.id in listed
    assert denied == "value: rule 'no-2' denies 'pay'"
    assert [call.arguments["order"] for call in calls_of(handle.id, "pay")] == [5]
    assert statuses(result) == {"one": "completed", "two": "failed", "seen": "completed"}
    assert "rule 'no-2' denies 'pay'" in str(result.steps[1].reason)


async def test_a_call_that_a_person_refuses_is_not_made_again(site: Site) -> None:
    steps = [{**PAYS[0], "attempts": 3}, PAYS[2]]
    write(site, "pays", steps, policy=[{"id": "asked", "match": {"tools": ["pay"]}, "verdict": "ask"}])
    async with site.serving():
        handle = await start(site, "pays")
        (request,) = await asked(handle)
        await decide(handle, request, "reject", comment="too much")
        result = await handle.result()

    assert calls_of(handle.id, "pay") == []
    assert (result.steps[0].status, result.steps[0].attempts) == ("failed", 1)
    assert "too much" in str(result.steps[0].reason)


async def test_a_paused_plan_begins_nothing(site: Site) -> None:
    write(site, "pays", [{"id": "seen", "tool": "look", "input": {"what": "'a'", "held": "true"}},
                         {"id": "then", "tool": "pay", "input": {"order": "1"}, "depends_on": ["seen"]}])  # fmt: skip
    async with site.serving():
        handle = await start(site, "pays")
        await _reached(handle.id, "look")
        await send_update(handle, "pause", {"by": BY})
        LET_GO.add(handle.id)
        await asyncio.sleep(0.7)
        before = len(calls_of(handle.id, "pay"))
        await send_update(handle, "resume", {"by": BY})
        result = await handle.result()

    assert (before, result.status) == (0, RunStatus.COMPLETED)


@pytest.mark.parametrize("keep", [False, True])
async def test_a_stopped_plan_takes_back_what_it_did(site: Site, keep: bool) -> None:
    tools = [
        {"python": "tests.support.toolkit:pay", "compensate": {"tool": "send", "with": {"to": "string(args.order)"}}},
        {"python": "tests.support.toolkit:send"},
        {"python": "tests.support.toolkit:look"},
    ]
    held = {"id": "seen", "tool": "look", "input": {"what": "'a'", "held": "true"}, "depends_on": ["two"]}
    write(site, "pays", [*PAYS[:2], held], tools=tools)
    async with site.serving():
        handle = await start(site, "pays")
        await _reached(handle.id, "look")
        await send_update(handle, "stop", {"by": BY, "reason": "enough", "keep": keep})
        LET_GO.add(handle.id)
        result = await handle.result()

    assert result.status is RunStatus.STOPPED
    assert str(result.reason).startswith(f"stopped by {BY}: enough")
    undone = [call.arguments["to"] for call in calls_of(handle.id, "send")]
    assert undone == ([] if keep else ["2", "1"])


async def test_a_cancelled_plan_cancels_its_agents(site: Site) -> None:
    site.write("worker", [{"call": [{"look": {"what": "a", "held": True}}]}, {"say": "It is a."}])
    write(site, "works", [{"id": "each", "for_each": "[1, 2, 3]", "agent": "worker", "input": "string(item)"}])
    async with site.serving():
        handle = await start(site, "works")
        ids = [f"{handle.id}/c{number}" for number in (1, 2, 3)]
        for one in ids:
            await _reached(one, "look")
        await handle.cancel()
        for one in (handle.id, *ids):
            with pytest.raises(WorkflowFailureError) as failed:
                await site.agents.handle(one).result()
            assert isinstance(failed.value.cause, CancelledError)


async def test_a_plan_goes_on_over_many_parts_with_what_it_has(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tools and agents side by side, parts so short that each has a few calls."""
    monkeypatch.setattr("mandate.workflows.loop.run.EVENTS", 60)
    site.write("worker", [{"call": [{"look": {"what": "a"}}]}, {"say": "fine"}])
    write(
        site,
        "long",
        [
            {"id": "tools", "for_each": "input", "tool": "pay", "input": {"order": "item"}, "max_parallel": 7},
            {"id": "agents", "for_each": "input", "agent": "worker", "input": "string(item)", "max_parallel": 9},
            {"id": "sum", "tool": "look", "input": {"what": "string(size(steps.tools.output + steps.agents.output))"}},
        ],
    )
    async with site.serving():
        handle = await start(site, "long", list(range(1, 41)))
        result = await handle.result()

    assert (result.status, result.output) == (RunStatus.COMPLETED, "looked at 80")
    assert await parts_taken(site.client, handle.id) > 4
    paid = [call.arguments["order"] for call in calls_of(handle.id, "pay")]
    assert sorted(paid) == list(range(1, 41))
    assert len({call.key for call in CALLS if call.workflow_id == handle.id and call.tool == "pay"}) == 40
    assert result.effects.count == 40


async def test_the_share_of_each_agent_is_reserved_of_the_plan(site: Site) -> None:
    site.write("worker", [{"call": [{"look": {"what": "a"}}]}, {"say": "fine"}])
    each = {"id": "each", "for_each": "[1, 2, 3]", "agent": "worker", "input": "string(item)", "needs": 2}
    write(site, "paid", [{**each, "budget": {"model_calls": 4}, "max_parallel": 3}], budget={"model_calls": 9})
    async with site.serving():
        handle = await start(site, "paid")
        result = await handle.result()

    assert result.status is RunStatus.COMPLETED
    (step,) = result.steps
    assert (step.completed, step.failed) == (2, 1)
    assert result.usage.model_calls == 4


async def _reached(workflow_id: str, tool: str) -> None:
    async with asyncio.timeout(30):
        while not calls_of(workflow_id, tool):
            await asyncio.sleep(0.05)
