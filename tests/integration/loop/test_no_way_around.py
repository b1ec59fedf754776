"""No route to the world around the rules: by children, plans, plans of models and the board."""

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import Client

from mandate.workflows.contracts.plan import PlanResult
from tests.support.agents import REQUESTER, Site, new_site, results_told
from tests.support.toolkit import CALLS

ALLOWED = {"id": "all", "match": {}, "verdict": "allow"}
RULES: dict[str, dict[str, Any]] = {
    "by name": {"id": "no", "match": {"tools": ["pay"]}, "verdict": "deny"},
    "by effect": {"id": "no", "match": {"effects": ["keyed"]}, "verdict": "deny"},
    "by condition": {"id": "no", "match": {}, "when": "tool.name == 'pay'", "verdict": "deny"},
}
PAY: dict[str, Any] = {"id": "pay", "tool": "pay", "input": {"order": "1.0"}}
PAYS: dict[str, Any] = {"id": "pay", "agent": "payer", "input": "'Pay.'"}
STEPS: dict[str, dict[str, Any]] = {
    "tool": PAY,
    "tool with checks": {**PAY, "checks": [{"expect": "true"}]},
    "tool for each": {**PAY, "for_each": "[1, 2]"},
    "agent": PAYS,
    "agent with limits": {**PAYS, "budget": {"model_calls": 5}},
    "agent again": {**PAYS, "attempts": 3},
}


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    made = new_site(tmp_path, client)
    # The agent itself allows all.
    made.write("payer", [{"call": [{"pay": {"order": 1}}]}, {"say": "done"}])
    return made


def calls_below(workflow_id: str) -> list[str]:
    return [call.tool for call in CALLS if call.workflow_id.startswith(workflow_id)]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("step", STEPS)
async def test_a_rule_of_a_plan_holds_for_each_of_its_steps_and_below(site: Site, step: str, rule: str) -> None:
    plan = {
        "name": "pays",
        "steps": [STEPS[step]],
        "tools": [{"python": "tests.support.toolkit:pay"}],
        "policy": [RULES[rule], ALLOWED],
        "requester": "anyone",
    }
    (site.folder / "plans").mkdir()
    (site.folder / "plans" / "pays.yaml").write_text(json.dumps(plan))
    async with site.serving():
        handle = await site.client.start_workflow(
            "PlanWorkflow",
            {"plan": "pays", "requester": REQUESTER},
            id=f"plan-{uuid4().hex[:8]}",
            task_queue=site.queue,
            result_type=PlanResult,
        )
        result = await handle.result()

    assert calls_below(handle.id) == []
    assert result.effects.count == 0


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("step", ["tool", "tool for each", "agent", "agent with limits", "agent again"])
async def test_a_rule_of_an_agent_holds_for_the_plans_that_its_model_writes(site: Site, step: str, rule: str) -> None:
    site.write(
        "planner",
        [{"call": [{"run_plan": {"steps": [STEPS[step]]}}]}, {"say": "done"}],
        plans={"agents": ["payer"], "tools": ["pay"]},
        policy=[RULES[rule], ALLOWED],
    )

    result, workflow_id = await site.run("planner")

    assert calls_below(workflow_id) == []
    assert result.effects.count == 0


@pytest.mark.parametrize("rule", RULES)
async def test_a_rule_of_an_agent_holds_for_its_children(site: Site, rule: str) -> None:
    site.write(
        "boss",
        [{"call": [{"payer": {"task": "Pay."}}]}, {"say": "done"}],
        tools=[{"agent": "payer"}],
        policy=[RULES[rule], ALLOWED],
    )

    result, workflow_id = await site.run("boss")

    assert calls_below(workflow_id) == []
    assert result.effects.count == 0


@pytest.mark.parametrize("named", ["run_plan", "payer"])
async def test_starts_of_runs_below_are_calls_that_rules_deny(site: Site, named: str) -> None:
    site.write(
        "planner",
        [{"call": [{"run_plan": {"steps": [PAYS]}}]}, {"say": "done"}],
        plans={"agents": ["payer"]},
        policy=[{"id": "no", "match": {"tools": [named]}, "verdict": "deny"}, ALLOWED],
    )

    _, workflow_id = await site.run("planner")

    assert calls_below(workflow_id) == []


async def test_a_rule_above_holds_for_writes_to_the_board_below(site: Site) -> None:
    write = {"call": [{"write_board": {"key": "a", "value": 1, "expected_version": 0}}]}
    site.write(
        "boss",
        [{"call": [{"writer": {"task": "go"}}]}, {"call": [{"read_board": {}}]}, {"say": "done"}],
        tools=[{"agent": "writer"}],
        board="read",
        policy=[{"id": "no", "match": {"tools": ["write_board"]}, "verdict": "deny"}, ALLOWED],
    )
    site.write("writer", [write, {"say": "done"}], tools=[], board="write")

    result, _ = await site.run("boss")

    assert [part.text for part in await results_told(site, result.head or "")][-1] == "{}"
