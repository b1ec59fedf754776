"""Plan files: read with agents and tools of a catalog, refused with all that is wrong and where it stands."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from mandate.activities.documents import parse_document
from mandate.activities.files import FileError
from mandate.workers.catalog.catalog import Catalog
from mandate.workers.catalog.plans import find_faults, is_plan, plan_schema, scan_plans
from mandate.workers.secrets import Secrets
from mandate.workers.settings import Settings, find_plans
from mandate.workflows.contracts.plan import PlanSpec
from mandate.workflows.contracts.tool import ToolDefinition
from mandate.workflows.contracts.tool_entry import McpTools
from mandate.workflows.rules.plans.progress import name_tool

PAY = {"python": "tests.support.toolkit:pay"}
TOTAL = {"type": "object", "properties": {"order": {"type": "integer"}, "total": {"type": "number"}}}


class NoServers:
    async def definitions(self, entry: McpTools) -> tuple[ToolDefinition, ...]:
        raise AssertionError(entry)


class Folder:
    """Agents and plans beside each other."""

    def __init__(self, path: Path) -> None:
        self.agents, self.plans = path / "agents", path / "plans"
        self.agents.mkdir()
        self.plans.mkdir()
        self.agent("finder", output_schema=TOTAL)
        self.agent("writer")

    def agent(self, name: str, **keys: Any) -> None:
        spec = {"name": name, "instructions": f"Be {name}.", "models": ["openai:gpt-6-sol"], **keys}
        (self.agents / f"{name}.yaml").write_text(yaml.safe_dump(spec))

    def plan(self, name: str, *steps: Mapping[str, Any], **keys: Any) -> None:
        (self.plans / f"{name}.yaml").write_text(yaml.safe_dump({"name": name, "steps": list(steps), **keys}))

    def write(self, name: str, text: str) -> None:
        (self.plans / name).write_text(text)

    def load(self) -> Catalog:
        return asyncio.run(Catalog.load(self.agents, NoServers(), secrets=Secrets({}), plans=self.plans))

    def faults(self) -> list[str]:
        with pytest.raises(FileError) as refused:
            self.load()
        return [self.say(fault) for fault in refused.value.faults]

    def say(self, fault: object) -> str:
        return str(fault).replace(f"{self.plans}/", "")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


FIND = {"id": "find", "agent": "finder"}


def test_plans_are_loaded_with_the_agents_and_tools_that_they_name(folder: Folder) -> None:
    pay = {
        "id": "pay",
        "tool": "pay",
        "input": {"order": "steps.find.output.order", "amount": "steps.find.output.total"},
    }
    folder.plan("refund", FIND, pay, tools=[PAY])
    folder.plan("both", {"id": "one", "plan": "refund"}, {"id": "two", "agent": "writer"})

    catalog = folder.load()

    assert sorted(catalog.plans) == ["both", "refund"]
    assert catalog.warnings == ()


def test_every_fault_is_told_with_its_place(folder: Folder) -> None:
    folder.write(
        "refund.yaml",
        """\
name: refund
tools:
  - python: tests.support.toolkit:pay
steps:
  - id: find
    agent: findr
  - id: pay
    tool: pay
    input:
      amount: steps.find.output.order
      amuont: steps.find.output.total
    depends_on: [fnd]
  - id: write
    agent: writer
    when: steps.pay.output.ok &&
    input: steps.write.output
output: steps.find.output.x
budget: {depth: 0}
""",
    )

    assert folder.faults() == [
        "refund.yaml:6:5: steps[0].agent: there is no agent 'findr'; did you mean 'finder'? there are finder, writer",
        (
            "refund.yaml:9:5: steps[1].input: tool 'pay' requires 'order', which is not given; it takes amount, "
            "fail_first, order, seconds"
        ),
        (
            "refund.yaml:11:7: steps[1].input.amuont: 'amuont' is no argument of tool 'pay'; did you mean 'amount'? it "
            "takes amount, fail_first, order, seconds"
        ),
        (
            "refund.yaml:12:18: steps[1].depends_on[0]: there is no step 'fnd'; did you mean 'find'? there are find, "
            "pay, write"
        ),
        (
            "refund.yaml:15:5: steps[2].when: 'steps.pay.output.ok &&' cannot be evaluated: it is no expression of CEL "
            "(line 1, column 23)"
        ),
        "refund.yaml:16:5: steps[2].input: the step 'write' waits for itself",
        "refund.yaml:18:10: budget.depth: 0 allows no runs below the plan, and these steps are such: find, write",
    ]


def test_files_of_all_plans_are_checked_together(folder: Folder) -> None:
    folder.write("a.yaml", "name: a\nsteps:\n  - {id: x, agent: writer, when: false, input: 5}\n  - {id: y}\n")
    folder.write("b.yaml", "name: c\nsteps: [{id: x, agent: writer}]\n")
    folder.plan("c", {"id": "x", "agent": "writer", "input": "steps.x"})
    folder.write("d.yaml", "steps: [")

    assert folder.faults() == [
        "a.yaml:3:28: steps[0].when: false is not a text; put it in quotes",
        "a.yaml:3:41: steps[0].input: 5 is neither a text nor a mapping",
        "a.yaml:4:5: steps[1]: a step has exactly one of 'agent', 'tool' and 'plan'; this one has none of them",
        "c.yaml:1:1: name: 'c' is the name of the plan at b.yaml:1 too",
        "c.yaml:5:3: steps[0].input: the step 'x' waits for itself",
        (
            "d.yaml:1:9: is not valid YAML: while parsing a flow node, expected the node content, but found "
            "'<stream end>'"
        ),
    ]


def test_plans_that_run_below_themselves_are_named(folder: Folder) -> None:
    folder.plan("a", {"id": "x", "agent": "writer"}, {"id": "y", "plan": "b"})
    folder.plan("b", {"id": "x", "plan": "a"})
    folder.plan("c", {"id": "x", "plan": "c"})
    folder.plan("d", {"id": "x", "plan": "e"})

    assert [line.partition(": ")[2] for line in folder.faults()] == [
        "steps[1].plan: a plan cannot run below itself: a -> b -> a",
        "steps[0].plan: a plan cannot run below itself: c -> c",
        "steps[0].plan: there is no plan 'e'; there are a, b, c, d",
    ]


def test_a_plan_that_takes_something_is_given_it_by_others(folder: Folder) -> None:
    asked = {"type": "object", "properties": {"order": {"type": "integer"}}, "required": ["order"]}
    folder.plan("refund", FIND, input_schema=asked)
    folder.plan("all", {"id": "x", "plan": "refund", "input": {"ordr": "1"}})

    assert [line.partition(": ")[2] for line in folder.faults()] == [
        "steps[0].input: plan 'refund' requires 'order', which is not given; it takes order",
        "steps[0].input.ordr: 'ordr' is no argument of plan 'refund'; did you mean 'order'? it takes order",
    ]


def test_tools_that_cannot_be_found_are_told_and_not_missed_by_steps(folder: Folder) -> None:
    step = {"id": "x", "tool": "pay", "input": {"nothing": "1"}}
    folder.plan("p", step, {"id": "y", "agent": "nobody"}, tools=[{"python": "nowhere:pay"}])

    first, second = folder.faults()

    assert "steps[1].agent: there is no agent 'nobody'; there are finder, writer" in first
    assert "tools[0].python: " in second


def test_a_name_that_is_taken_is_told_at_the_step(folder: Folder) -> None:
    folder.agent("pay")
    folder.plan("p", {"id": "x", "agent": "writer"}, {"id": "y", "agent": "pay"}, tools=[PAY])

    assert [line.partition(": ")[2] for line in folder.faults()] == [
        "steps[1].agent: the name 'pay' is taken by tools[0]; set another 'name'"
    ]


def test_what_will_probably_not_go_well_is_a_warning(folder: Folder) -> None:
    folder.plan(
        "p",
        {"id": "write", "agent": "writer", "when": "false"},
        {"id": "pay", "tool": "pay", "input": {"order": "1", "amount": "steps.write.output"}},
        tools=[PAY],
        budget={"model_calls": 5},
    )

    assert [folder.say(warning).partition(": ")[2] for warning in folder.load().warnings] == [
        (
            "steps[0].agent: a run of 'writer' is lent all that is left of model_calls, so that no other can begin "
            "beside it; give its share by 'budget'"
        ),
        (
            "steps[1].input.amount: comes to a text, since neither step 'write' nor agent 'writer' has an "
            "'output_schema'; 'amount' of tool 'pay' takes a number"
        ),
        "steps[1].input.amount: needs step 'write', which never runs, since its 'when' is false; its output is null",
    ]


def test_a_plan_as_data_is_checked_as_files_are(folder: Folder) -> None:
    folder.plan("refund", FIND)
    catalog = folder.load()
    steps = [{"id": "x", "plan": "refnd"}, {"id": "y", "agent": "finder", "input": "steps.y.output.z"}]

    with pytest.raises(ValueError, match="steps") as refused:
        asyncio.run(catalog.make_plan(PlanSpec.model_validate({"name": "made", "steps": steps})))

    assert str(refused.value) == (
        "steps[0].plan: there is no plan 'refnd'; did you mean 'refund'? there are refund; steps[1].input: "
        "steps.y.output has no 'z'; it has order, total; steps[1].input: the step 'y' waits for itself"
    )
    made = asyncio.run(
        catalog.make_plan(PlanSpec.model_validate({"name": "made", "steps": [{"id": "x", "plan": "refund"}]}))
    )
    assert made.pinned.plan is not None


def test_plans_alone_are_checked_against_what_is_given(folder: Folder) -> None:
    folder.plan("p", {"id": "x", "tool": "unknown"}, {"id": "y", "agent": "nobody"})
    scan = scan_plans(folder.plans)

    assert [fault.key for fault in find_faults(scan, {}, {})] == ["steps[1].agent"]
    assert [fault.key for fault in find_faults(scan, {}, {"p": {}})] == ["steps[0].tool", "steps[1].agent"]
    assert scan_plans(folder.plans / "p.yaml").files[0].spec.name == "p"
    assert scan_plans(folder.plans / "nowhere").files == ()


def test_folder_of_plans_is_that_of_the_settings_or_beside_the_agents(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)

    def find(**variables: str) -> Path:
        return find_plans(Settings.from_environment(variables))

    assert find() == Path("deploy/plans")
    assert find(MANDATE_PLANS="here") == Path("here")
    assert find(MANDATE_AGENTS="a/agents") == Path("a/plans")
    assert find(MANDATE_AGENTS="a/agents/shop.yaml") == Path("a/plans")
    assert find(MANDATE_AGENTS=".") == tmp_path.parent / "plans"
    (tmp_path / "mandate.yaml").write_text("plans: mine")
    assert find() == Path("mine")


def test_files_of_plans_are_told_from_others() -> None:
    said = ["name: a\nsteps: []", "name: a\nmodels: []\nsteps: []", "rules: []", "[steps]"]

    assert [is_plan(parse_document("x", text)) for text in said] == [True, False, False, False]


def test_editors_are_given_a_schema_that_plans_fit(folder: Folder) -> None:
    schema = plan_schema()
    validator = jsonschema_rs.validator_for(schema)

    assert validator.is_valid({"name": "p", "steps": [{"id": "x", "agent": "writer", "input": {"a": "1"}}]})
    assert not validator.is_valid({"name": "p", "steps": [{"id": "x", "agnet": "writer"}]})


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"tools": [PAY]}, "tools: belongs to plan files"),
        ({"policies": ["shared"]}, "policies: belongs to plan files"),
        ({"policy": [{"id": "a", "match": {}, "when": "args.", "verdict": "deny"}]}, "policy[0].when: "),
        ({"policy": [{"id": "a", "match": {"tools": ["findr"]}, "verdict": "deny"}]}, "policy[0].match.tools"),
        ({"checks": [{"after": "finder", "python": "os:getcwd"}]}, "checks[0]: a plan as data has checks of the kinds"),
        ({"checks": [{"after": "finder", "expect": "result."}]}, "checks[0].expect: "),
        (
            {"budget": {"cost_usd": "1.00"}, "steps": [{"id": "x", "agent": "unpriced"}]},
            "steps[0].agent: no price is known for 'openai:new'",
        ),
    ],
)
def test_all_that_a_plan_as_data_says_is_checked(folder: Folder, keys: Mapping[str, Any], said: str) -> None:
    folder.agent("unpriced", models=["openai:new"])
    catalog = folder.load()

    with pytest.raises(ValueError, match=":") as refused:
        asyncio.run(catalog.make_plan(PlanSpec.model_validate({"name": "made", "steps": [FIND], **keys})))

    assert said in str(refused.value)


def test_checks_and_rules_of_a_plan_as_data_hold(folder: Folder) -> None:
    plan = {
        "name": "made",
        "steps": [{**FIND, "checks": [{"expect": "result != null"}]}, {"id": "again", "agent": "finder"}],
        "checks": [{"after": "finder", "schema": {"type": "object"}}],
        "policy": [{"id": "no", "match": {"tools": ["finder"]}, "when": "run.depth > 3", "verdict": "deny"}],
    }

    made = asyncio.run(folder.load().make_plan(PlanSpec.model_validate(plan))).pinned

    variant = name_tool(made.plan, made.plan.steps[0]) if made.plan is not None else ""
    assert [(check.after, check.kind) for check in made.checks] == [("finder", "schema"), (variant, "expect")]
    assert [rule.id for rule in made.policy] == ["no"]
    assert {tool.tool.name: tool.tool.known_as for tool in made.tools if tool.tool.child is not None} == {
        variant: "finder",
        "finder": "finder",
    }


def test_schemas_of_plans_are_checked(folder: Folder) -> None:
    step = {"id": "a", "agent": "writer", "input": "'x'"}
    folder.plan("p", {**step, "output_schema": {"type": "array"}}, input_schema={"type": "objct"})
    folder.plan("q", step, input_schema={"type": "array", "items": {"$ref": "https://x.example/order"}})

    assert folder.faults() == [
        (
            "p.yaml:1:1: input_schema: the schema is not valid: type: 'objct' is not a type of JSON Schema; there are "
            "array, boolean, integer, null, number, object, string"
        ),
        "p.yaml:8:3: steps[0].output_schema: the schema must be for an object, not type 'array'",
        "q.yaml:1:1: input_schema: items.$ref: 'https://x.example/order' leaves the schema; only '#...' is allowed",
    ]
    folder.plan("p", step, input_schema={"type": "array"})
    folder.plan("q", step, input_schema=None)

    assert sorted(folder.load().plans) == ["p", "q"]


def test_checks_of_steps_are_named_after_their_steps(folder: Folder) -> None:
    checks = [{"expect": "result != null"}, {"expect": "result != 1.0"}, {"expect": "true", "name": "own"}]
    folder.plan("p", {"id": "tell", "agent": "writer", "input": "'x'", "checks": checks})

    plan = folder.load().plans["p"].pinned

    assert [check.name for check in plan.checks] == ["tell_expect_1", "tell_expect_2", "own"]
    assert plan.plan is not None
    assert {check.after for check in plan.checks} == {name_tool(plan.plan, plan.plan.steps[0])}
