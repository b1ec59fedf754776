"""Steps of plans that have failed, of which people are asked how they go on."""

import asyncio
import json
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError

from mandate.workflows.contracts.plan import PlanResult
from mandate.workflows.contracts.run import RunStatus
from mandate.workflows.rules import wording
from mandate.workflows.rules.decisions import describe_expiry
from tests.support.agents import ALLOW_ALL, REQUESTER, Site, continued, new_site
from tests.support.people import asked, decide, write_people
from tests.support.toolkit import calls_of


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    made = new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))
    made.write("idle", [{"say": "done"}])
    return made


def write(site: Site, *steps: dict[str, Any], **keys: Any) -> None:
    (site.folder / "plans").mkdir(exist_ok=True)
    tools = [{"python": f"tests.support.toolkit:{tool}"} for tool in ("look", "look_bad", "look_odd", "pay")]
    people = {"approvers": {"groups": ["finance"]}, "expires": "60s", **keys.pop("people", {})}
    plan = {"name": "asks", "steps": steps, "tools": tools, "policy": ALLOW_ALL, "people": people, **keys}
    (site.folder / "plans" / "asks.yaml").write_text(json.dumps(plan))


async def start(site: Site, given: Any = None) -> WorkflowHandle[Any, PlanResult]:
    return await site.client.start_workflow(
        "PlanWorkflow",
        {"plan": "asks", "input": given, "requester": REQUESTER},
        id=f"plan-{uuid4().hex[:8]}",
        task_queue=site.queue,
        result_type=PlanResult,
    )


def by_id(result: PlanResult) -> dict[str, Any]:
    return {step.id: (step.status, step.output, step.attempts) for step in result.steps}


BAD = {"id": "bad", "tool": "look_bad", "on_failure": "ask", "attempts": 2}
NEXT = {"id": "next", "tool": "look", "input": {"what": "string(steps.bad.output)"}}


async def test_a_person_is_told_what_was_tried_and_supplies_the_output(site: Site) -> None:
    write(site, BAD, NEXT)
    async with site.serving():
        handle = await start(site)
        (request,) = await asked(handle)
        await decide(handle, request, "supply", value="from ann")
        result = await handle.result()

    assert (request.kind, request.plan_step, request.choices) == ("escalation", "bad", ("retry", "supply", "stop"))
    assert describe_expiry(request) == "step bad has failed"
    assert request.title.startswith("step bad#2 failed: ")
    assert [line.partition(":")[0] for line in request.evidence] == ["attempt 1", "attempt 2"]
    assert result.status is RunStatus.COMPLETED
    assert by_id(result)["bad"] == ("completed", "from ann", 2)
    assert [call.arguments["what"] for call in calls_of(handle.id, "look")] == ["from ann"]


async def test_an_agent_is_told_the_guidance_and_its_attempts_count_anew(site: Site) -> None:
    write(site, {"id": "bad", "agent": "poet", "input": "'write'", "success": "output == 'good'", "on_failure": "ask"})
    conversations = [
        {"match": "*be short*", "turns": [{"say": "good"}]},
        {"match": "*", "turns": [{"say": "long"}]},
    ]
    site.write("poet", [], tools=[])
    script = {"conversations": conversations, "strict": False}
    (site.folder / "agents" / "poet.script.yaml").write_text(json.dumps(script))
    async with site.serving():
        handle = await start(site)
        (request,) = await asked(handle)
        await decide(handle, request, "retry", value="be short")
        result = await handle.result()

    assert by_id(result)["bad"] == ("completed", "good", 2)


@pytest.mark.parametrize("what", ["a", "a" * 1000])
@pytest.mark.parametrize("rejects", [{"success": "false"}, {"checks": [{"expect": "false"}]}])
async def test_a_failed_result_is_accepted_as_it_is(site: Site, rejects: dict[str, Any], what: str) -> None:
    write(
        site,
        {"id": "bad", "tool": "look", "input": {"what": f"'{what}'"}, "on_failure": "ask", **rejects},
        {"id": "next", "tool": "look", "input": {"what": "string(size(steps.bad.output))"}},
    )
    async with site.serving():
        handle = await start(site)
        (request,) = await asked(handle)
        await decide(handle, request, "accept")
        result = await handle.result()

    assert by_id(result)["bad"] == ("completed", wording.shorten(f"looked at {what}", 300), 1)
    assert by_id(result)["next"][1] == f"looked at {len('looked at ') + len(what)}"
    assert result.status is RunStatus.COMPLETED


async def test_nobody_chooses_and_the_step_has_failed(site: Site) -> None:
    write(site, BAD, NEXT, people={"expires": "1s"})
    async with site.serving():
        handle = await start(site)
        result = await handle.result()

    assert {name: one[0] for name, one in by_id(result).items()} == {"bad": "failed", "next": "skipped"}
    assert result.status is RunStatus.DECLINED


async def test_a_person_stops_the_plan(site: Site) -> None:
    write(site, {"id": "pay", "tool": "pay", "input": {"order": "1"}}, BAD, NEXT)
    async with site.serving():
        handle = await start(site)
        (request,) = await asked(handle)
        # The run may end before the server has its answer.
        with suppress(RPCError):
            await decide(handle, request, "stop", comment="enough")
        result = await handle.result()

    assert (result.status, result.effects.count) == (RunStatus.STOPPED, 1)
    assert "enough" in (result.reason or "")


async def test_steps_beside_go_on_and_each_item_is_asked_of(site: Site) -> None:
    write(
        site,
        {
            "id": "each",
            "for_each": "[0, 1, 2]",
            "tool": "look",
            "input": {"what": "string(item)"},
            "success": "int(item) == 1",
            "on_failure": "ask",
        },
        {"id": "beside", "tool": "look", "input": {"what": "'b'"}},
    )
    async with site.serving():
        handle = await start(site)
        first, second = await asked(handle, 2)
        await continued(handle)
        await decide(handle, second, "accept")
        await decide(handle, first, "supply", value="ann's")
        result = await handle.result()

    assert sorted(request.title.partition(" failed")[0] for request in (first, second)) == [
        "step each[0] failed".removesuffix(" failed"),
        "step each[2]",
    ]
    each = by_id(result)["each"]
    assert each[0] == "completed"
    assert sorted(map(str, each[1])) == ["ann's", "looked at 1", "looked at 2"]
    assert len(calls_of(handle.id, "look")) == 4


async def test_what_people_have_rejected_is_not_asked_of_again(site: Site) -> None:
    rules = [
        {"id": "money", "match": {"tools": ["pay"]}, "verdict": "ask"},
        {"id": "rest", "match": {}, "verdict": "allow"},
    ]
    write(site, {"id": "pay", "tool": "pay", "input": {"order": "1"}, "on_failure": "ask"}, policy=rules)
    async with site.serving():
        handle = await start(site)
        (request,) = await asked(handle)
        await decide(handle, request, "reject")
        result = await handle.result()

    assert by_id(result)["pay"][0] == "failed"
    assert request.kind == "approval"


async def test_nobody_is_waited_for_beyond_the_time_of_the_plan(site: Site) -> None:
    write(site, BAD, NEXT, people={"expires": "24h"}, budget={"wall_time": "4s"})
    async with site.serving():
        handle = await start(site)
        result = await asyncio.wait_for(handle.result(), timeout=30)

    assert by_id(result)["bad"][0] == "failed"
    assert result.status is not RunStatus.COMPLETED
