"""Plans that models write: checked, judged, asked for, carried out, and told."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError

from mandate.workflows.contracts.run import RunStatus
from tests.support.agents import Site, new_site, results_told
from tests.support.people import asked, decide, write_people
from tests.support.toolkit import calls_of

PLANS = {"agents": ["finder"], "tools": ["look", "pay"]}


ASK_PLANS = [
    {"id": "plans", "match": {"tools": ["run_plan"]}, "verdict": "ask", "approvers": {"groups": ["finance"]}},
    {"id": "rest", "match": {}, "verdict": "allow"},
]
ASK_PAY = [
    {"id": "money", "match": {"tools": ["pay"]}, "verdict": "ask", "approvers": {"groups": ["finance"]}},
    {"id": "rest", "match": {}, "verdict": "allow"},
]


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))


def write(site: Site, *turns: Any, **keys: Any) -> None:
    """A planner whose model answers with `turns`, and the agent that its plans may name."""
    site.write("planner", [*turns, {"say": "done"}], plans=keys.pop("plans", PLANS), **keys)
    site.write("finder", [{"say": "order 7"}], tools=[])


def plan(*steps: dict[str, Any], **keys: Any) -> dict[str, Any]:
    return {"call": [{"run_plan": {"steps": list(steps), **keys}}]}


FIND = {"id": "find", "agent": "finder", "input": "'Find it.'"}
LOOK = {"id": "look", "tool": "look", "input": {"what": "steps.find.output"}}
PAY = {"id": "pay", "tool": "pay", "input": {"order": "7", "amount": "20.0"}}


async def begun(handle: WorkflowHandle[Any, Any]) -> None:
    async with asyncio.timeout(30):
        while True:
            with suppress(RPCError):
                await handle.describe()
                return
            await asyncio.sleep(0.05)


async def told(site: Site, head: str | None) -> list[str]:
    assert head is not None
    return [part.text for part in await results_told(site, head)]


async def test_a_plan_of_a_model_is_carried_out(site: Site) -> None:
    write(site, plan(FIND, LOOK))

    result, workflow_id = await site.run("planner")

    assert result.status is RunStatus.COMPLETED
    assert [call.arguments["what"] for call in calls_of(f"{workflow_id}/c1", "look")] == ["order 7"]
    assert "looked at order 7" in (await told(site, result.head))[0]


async def test_all_that_is_wrong_with_a_plan_is_told_at_once(site: Site) -> None:
    wrong = plan(
        {"id": "a", "agent": "fider", "input": "'x'", "depends_on": ["b"]},
        {"id": "b", "tool": "send", "input": {"to": "'x'"}, "depends_on": ["a"]},
        {"id": "c", "tool": "look", "input": {"whta": "'x'"}},
        {"id": "d", "agent": "finder", "input": "look it up"},
    )
    write(site, wrong)

    result, workflow_id = await site.run("planner")

    (text,) = await told(site, result.head)
    for fault in (
        "steps[0].agent: there is no agent 'fider'; did you mean 'finder'?",
        "steps[1].tool: there is no tool 'send'",
        "steps wait for each other: a -> b -> a",
        "'whta' is no argument of tool 'look'",
        "steps[3].input",
    ):
        assert fault in text
    assert calls_of(f"{workflow_id}/c1") == []


@pytest.mark.parametrize(
    ("when", "steps"),
    [
        ("args.step_count > 1", (FIND, LOOK)),
        ("'finder' in args.agents", (FIND,)),
        ("'pay' in args.tools", (PAY,)),
        ("args.cost_usd > 100.0", ({**FIND, "for_each": "[1, 2, 3]", "input": "string(item)"},)),
        ("args.steps.exists(step, step.id == 'look')", (FIND, LOOK)),
        ("run.totals.run_plan.step_count + double(args.step_count) > 1.0", (FIND, LOOK)),
    ],
)
async def test_rules_judge_a_plan_by_what_it_holds(site: Site, when: str, steps: tuple[dict[str, Any], ...]) -> None:
    rules = [
        {"id": "large", "match": {"tools": ["run_plan"]}, "when": when, "verdict": "deny", "because": "too much"},
        {"id": "rest", "match": {}, "verdict": "allow"},
    ]
    lie = {"step_count": 0, "agents": [], "tools": [], "cost_usd": 0}
    write(site, plan(*steps, **lie), policy=rules)

    result, _ = await site.run("planner")

    (text,) = await told(site, result.head)
    assert text.startswith("refused:")


async def test_people_see_a_plan_and_may_change_it(site: Site) -> None:
    write(site, plan(FIND, PAY), policy=ASK_PLANS)

    async with site.serving():
        handle = await site.start("planner")
        (request,) = await asked(handle)
        assert request.arguments
        shown = request.arguments
        await decide(handle, request, value={**shown, "steps": [FIND, LOOK]})
        result = await handle.result()

    assert (shown["step_count"], shown["agents"], shown["tools"]) == (2, ["finder"], ["pay"])
    assert calls_of(f"{handle.id}/c1", "pay") == []
    assert [call.arguments["what"] for call in calls_of(f"{handle.id}/c1", "look")] == ["order 7"]
    assert "Note" in (await told(site, result.head))[0] or "changed" in (await told(site, result.head))[0]


async def test_a_change_that_makes_a_plan_wrong_is_refused(site: Site) -> None:
    write(site, plan(FIND), policy=ASK_PLANS)

    async with site.serving():
        handle = await site.start("planner")
        (request,) = await asked(handle)
        with pytest.raises(Exception) as refused:  # noqa: PT011 - the update's failure holds the sentence
            await decide(handle, request, value={"steps": [{**FIND, "agent": "nobody"}]})
        await decide(handle, request)
        await handle.result()

    assert "there is no agent 'nobody'" in str(refused.value.__cause__)


async def test_a_plan_that_people_rejected_is_not_asked_for_again(site: Site) -> None:
    write(site, plan(FIND), plan(FIND), policy=ASK_PLANS)

    async with site.serving():
        handle = await site.start("planner")
        (request,) = await asked(handle)
        await decide(handle, request, "reject", comment="not now")
        result = await handle.result()

    first, second = await told(site, result.head)
    assert "rejected" in first
    assert "people have rejected the same call before" in second


async def test_what_people_rejected_in_a_plan_is_refused_in_the_next_one(site: Site) -> None:
    write(site, plan(FIND, PAY), plan({**PAY, "id": "again"}), policy=ASK_PAY)

    async with site.serving():
        handle = await site.start("planner")
        first = site.client.get_workflow_handle(f"{handle.id}/c1")
        await begun(first)
        (request,) = await asked(first)
        await decide(first, request, "reject", comment="too much")
        result = await handle.result()

    told_first, told_second = await told(site, result.head)
    assert "step pay failed" in told_first
    assert "people have rejected the same call before" in told_second
    assert calls_of(f"{handle.id}/c2", "pay") == []


async def test_limits_of_a_step_lower_those_of_its_agent(site: Site) -> None:
    write(site, plan({**FIND, "budget": {"model_calls": 1}}, {**FIND, "id": "other"}))
    site.write("finder", [{"call": [{"look": {"what": "a"}}]}, {"say": "order 7"}], budget={"steps": 5})

    result, workflow_id = await site.run("planner")

    (text,) = await told(site, result.head)
    assert '{"find":"This is all that I have.","other":"order 7"}' in text
    assert len(calls_of(f"{workflow_id}/c1/c1", "look")) + len(calls_of(f"{workflow_id}/c1/c2", "look")) == 1


async def test_an_answer_of_a_step_must_fit_its_schema(site: Site) -> None:
    schema = {"type": "object", "properties": {"order": {"type": "integer"}}, "required": ["order"]}
    write(site, plan({**FIND, "output_schema": schema}, {**LOOK, "input": {"what": "string(steps.find.output.order)"}}))
    site.write("finder", [{"say": '{"order": 9}'}], tools=[])

    _, workflow_id = await site.run("planner")

    assert [call.arguments["what"] for call in calls_of(f"{workflow_id}/c1", "look")] == ["9"]


async def test_steps_are_under_the_rules_of_the_agent_that_wrote_them(site: Site) -> None:
    rules = [
        {"id": "no-pay", "match": {"tools": ["pay"]}, "when": "agent.name == 'planner'", "verdict": "deny"},
        {"id": "rest", "match": {}, "verdict": "allow"},
    ]
    write(site, plan(PAY), policy=rules)

    result, workflow_id = await site.run("planner")

    assert "step pay failed: refused" in (await told(site, result.head))[0]
    assert calls_of(f"{workflow_id}/c1", "pay") == []
