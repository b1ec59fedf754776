"""`plans` of agent files: what the plans of a model may name, and under which rules they are carried out."""

from pathlib import Path
from typing import Any

import pytest

from mandate.workflows.contracts.tool import AgentBinding
from tests.unit.workers.catalog.test_children import PAY, below, faults, load, write

LOOK = {"python": "tests.support.toolkit:look"}
SEND = {"python": "tests.support.toolkit:send", "sensitive": ["card"]}


def planner(plans: dict[str, Any], **keys: Any) -> dict[str, dict[str, Any]]:
    return {"planner": {"tools": [LOOK, PAY, SEND, {"agent": "worker"}], "plans": plans, **keys}, "worker": {}}


def test_the_tool_tells_what_steps_may_name(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"order": {"type": "integer"}}}
    agents = planner({"agents": ["worker"], "tools": ["look"], "steps": 7, "budget": {"cost_usd": "0.50"}})
    agents["worker"]["output_schema"] = schema
    agents["worker"]["budget"] = {"cost_usd": "0.20"}
    agents["worker"]["models"] = [{"model": "openai:gpt-6-sol", "price": {"input": "1", "output": "2"}}]

    made = load(write(tmp_path, agents)).agents["planner"].pinned.definition("run_plan")

    assert made is not None
    assert isinstance(made.binding, AgentBinding)
    assert made.binding.plans is not None
    assert made.binding.plans.steps == 7
    assert set(made.binding.plans.tools) == {"look"}
    assert made.binding.plans.agents["worker"].output_schema == schema
    assert str(made.binding.plans.agents["worker"].share.cost_usd) == "0.20"
    assert made.tool.child is not None
    assert str(made.tool.child.share.cost_usd) == "0.50"
    assert "agent 'worker'" in made.description
    assert "tool 'look'" in made.description
    assert {"step_count", "cost_usd"} <= set(made.tool.numeric)


def test_what_carries_a_plan_out_has_the_rules_of_its_agent_once(tmp_path: Path) -> None:
    rules = [
        {"id": "ask", "match": {"tools": ["pay"]}, "verdict": "ask"},
        {"id": "all", "match": {}, "verdict": "allow"},
    ]
    agents = planner({"agents": ["worker"], "tools": ["look", "pay"]}, policy=rules)
    catalog = load(write(tmp_path, agents))

    carries = below(catalog, "planner", "run_plan")

    assert [rule.id for rule in carries.policy] == ["ask", "all"]
    assert {made.tool.name for made in carries.tools} == {"look", "pay", "worker"}
    # Those that ask or deny hold below it, as for other agents.
    assert [rule.id for rule in below(catalog, "planner", "run_plan", "worker").policy] == ["planner--ask"]


def test_tools_beside_come_along_and_are_not_for_steps(tmp_path: Path) -> None:
    pay = {**PAY, "compensate": {"tool": "send", "with": {"to": "string(args.order)"}}}
    agents = planner({"tools": ["pay"]})
    agents["planner"]["tools"] = [pay, {"python": "tests.support.toolkit:send"}]
    catalog = load(write(tmp_path, agents))

    made = catalog.agents["planner"].pinned.definition("run_plan")

    assert made is not None
    assert isinstance(made.binding, AgentBinding)
    assert made.binding.plans is not None
    assert set(made.binding.plans.tools) == {"pay"}
    assert {made.tool.name for made in below(catalog, "planner", "run_plan").tools} == {"pay", "send"}


@pytest.mark.parametrize(
    ("plans", "key", "said"),
    [
        ({"agents": ["wroker"]}, "plans.agents[0]", "there is no agent 'wroker'; did you mean 'worker'?"),
        ({"agents": ["planner"]}, "plans.agents[0]", "an agent cannot work below itself: planner -> planner"),
        ({"tools": ["lok"]}, "plans.tools[0]", "no tool 'lok' that a step could call; did you mean 'look'?"),
        ({"tools": ["worker"]}, "plans.tools[0]", "name the agent under 'agents'"),
        ({"tools": ["ask_person"]}, "plans.tools[0]", "no tool 'ask_person' that a step could call"),
        ({"tools": ["send"]}, "plans.tools[0]", "'send' has sensitive arguments: card"),
        ({"tools": ["look", "look"]}, "plans.tools[1]", "'look' is given twice"),
        ({}, "plans", "names neither 'agents' nor 'tools'"),
        ({"tools": ["look"], "steps": 0}, "plans.steps", "0: must be at least 1"),
        (
            {"tools": ["look"], "timeout": "1h", "budget": {"wall_time": "1h"}},
            "plans.timeout",
            "is the same as 'wall_time' of 'budget'",
        ),
    ],
)
def test_a_fault_is_told_with_its_place(tmp_path: Path, plans: dict[str, Any], key: str, said: str) -> None:
    found = faults(write(tmp_path, planner(plans)))

    assert len(found) == 1
    assert found[0].startswith(f"planner.yaml: {key}: ")
    assert said in found[0]


def test_a_tool_of_the_agent_cannot_have_the_name(tmp_path: Path) -> None:
    agents = planner({"tools": ["pay"]})
    agents["planner"]["tools"] = [PAY, {**LOOK, "name": "run_plan"}]

    assert faults(write(tmp_path, agents)) == [
        "planner.yaml: tools[1]: the name 'run_plan' is taken by a built-in tool; set another 'name'"
    ]
