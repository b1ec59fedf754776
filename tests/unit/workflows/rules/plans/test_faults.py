"""Plans before they begin: what steps need, in which order they can run, and all that is wrong, told together."""

import random
import time
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mandate.workflows.contracts.budget import BudgetRequest
from mandate.workflows.contracts.faults import Located, key_path
from mandate.workflows.contracts.plan import PlanSpec, PlanStep
from mandate.workflows.rules.plans import faults as rules
from mandate.workflows.rules.plans import order
from mandate.workflows.rules.plans.targets import Target

ORDER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "order": {"type": "integer"},
        "total": {"type": "number"},
        "rows": {
            "type": "array",
            "items": {"type": "object", "properties": {"sku": {"type": "string"}, "count": {"type": "integer"}}},
        },
    },
}
REFUND: dict[str, Any] = {
    "type": "object",
    "properties": {"order": {"type": "integer"}, "amount": {"type": "number"}, "note": {"type": "string"}},
    "required": ["order", "amount"],
    "additionalProperties": False,
}
AGENTS = {
    "researcher": Target(output_schema=ORDER, share=BudgetRequest(model_calls=20, cost_usd=Decimal("0.50"))),
    "writer": Target(),
}
TOOLS = {"refund": Target(input_schema=REFUND), "free": Target()}
PLANS = {"audit": Target(input_schema={"type": "object", "properties": {"order": {}}, "required": ["order"]})}


def plan(*steps: dict[str, Any], **keys: Any) -> PlanSpec:
    return PlanSpec.model_validate({"name": "p", "steps": list(steps), **keys})


def find(text: str = "", **keys: Any) -> dict[str, Any]:
    """A step whose output has order, total and rows."""
    return {"id": "find", "agent": "researcher", **({"input": text} if text else {}), **keys}


def told(found: Iterable[Located]) -> list[str]:
    return [f"{key_path(place)}: {message}" for place, message in found]


def faults(made: PlanSpec) -> list[str]:
    return told(rules.find_faults(made, agents=AGENTS, tools=TOOLS, plans=PLANS))


def warnings(made: PlanSpec) -> list[str]:
    assert faults(made) == []
    return told(rules.find_warnings(made, agents=AGENTS, tools=TOOLS, plans=PLANS))


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("steps.find.output.order", {"find"}),
        ("steps['find-it'].output + steps.b.output", {"find-it", "b"}),
        ("'steps.find.output'", set()),
        ("steps.a.output.map(steps, steps.b)", {"a"}),
        ("steps.", set()),
        ("input.steps.a", set()),
    ],
)
def test_references_are_found_by_syntax(expression: str, found: set[str]) -> None:
    assert order.find_references(expression) == found


def test_a_step_needs_what_it_depends_on_and_what_its_expressions_read() -> None:
    step = PlanStep(
        id="a",
        agent="writer",
        input={"x": "steps.b.output", "y": "item"},
        depends_on=("c",),
        for_each="steps.d.output",
        when="steps.e.output == 1",
        success="output != 'steps.f'",
    )

    assert order.list_needs(step) == {"b", "c", "d", "e"}
    assert order.list_needs(PlanStep(id="a", agent="writer", input="steps.b.output")) == {"b"}
    assert order.list_needs(PlanStep(id="a", agent="writer")) == frozenset()


def test_levels_are_steps_that_can_run_side_by_side() -> None:
    made = plan(
        {"id": "end", "agent": "writer", "input": "[steps.s2.output, steps.s10.output]"},
        {"id": "s10", "agent": "writer", "depends_on": ["begin"]},
        {"id": "s2", "agent": "writer", "input": "steps.begin.output"},
        {"id": "begin", "agent": "writer"},
        {"id": "alone", "agent": "writer", "depends_on": ["nobody"]},
    )

    assert order.list_levels(made) == (("alone", "begin"), ("s2", "s10"), ("end",))


def test_a_plan_without_faults_has_none() -> None:
    made = plan(
        find("input.question"),
        {
            "id": "refund",
            "tool": "refund",
            "for_each": "steps.find.output.rows.filter(r, r.count > 1)",
            "input": {"order": "steps.find.output.order", "amount": "double(item.count)", "note": "item.sku"},
            "success": "output != null && item.count > 0 && input != null && index >= 0",
            "needs": 0,
            "when": "steps.find.output.total > 10.0 && steps.find.status == 'completed'",
        },
        {
            "id": "write",
            "agent": "writer",
            "input": "{'rows': steps.refund.output, 'failed': steps.refund.items.filter(i, i.status == 'failed')}",
        },
        {"id": "audit", "plan": "audit", "input": "steps.find.output"},
        output="steps.write.output",
        budget={"model_calls": 20, "cost_usd": "0.50", "depth": 1, "children": 3, "tool_calls": 1},
    )

    assert faults(made) == []
    assert warnings(made) == []


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ({"agent": "reseacher"},
         "steps[1].agent: there is no agent 'reseacher'; did you mean 'researcher'? there are researcher, writer"),
        ({"agent": "writer", "input": "input.a = 'x'"},
         ("steps[1].input: \"input.a = 'x'\" cannot be evaluated: it is no expression of CEL (line 1, column 9); CEL "
          "writes '==' for equality, '&&' for and, '||' for or, '!' for not")),
        ({"tool": "refnd"}, "steps[1].tool: there is no tool 'refnd'; did you mean 'refund'? there are free, refund"),
        ({"plan": "x"}, "steps[1].plan: there is no plan 'x'; there are audit"),
        ({"agent": "refund"},
         "steps[1].agent: there is no agent 'refund'; there is a tool of this name: write 'tool'"),
        ({"tool": "writer"},
         "steps[1].tool: there is no tool 'writer'; there is an agent of this name: write 'agent'"),
        ({"agent": "writer", "depends_on": ["fnd"]},
         "steps[1].depends_on[0]: there is no step 'fnd'; did you mean 'find'? there are find, s"),
        ({"agent": "writer", "input": "steps.fnd.output"},
         "steps[1].input: steps has no 'fnd'; did you mean 'find'? it has find, s"),
        ({"agent": "writer", "input": {"a": "steps.fnd.output"}},
         "steps[1].input.a: steps has no 'fnd'; did you mean 'find'? it has find, s"),
        ({"agent": "writer", "input": "steps.find.output.ordr"},
         "steps[1].input: steps.find.output has no 'ordr'; did you mean 'order'? it has order, rows, total"),
        ({"agent": "writer", "input": "steps.find.output.rows.map(r, r.cnt)"},
         "steps[1].input: steps.find.output.rows[0] has no 'cnt'; did you mean 'count'? it has count, sku"),
        ({"agent": "writer", "for_each": "steps.find.output.rows", "input": "item.cnt"},
         "steps[1].input: steps.find.output.rows[0] has no 'cnt'; did you mean 'count'? it has count, sku"),
        ({"agent": "writer", "input": "steps.find.order"},
         "steps[1].input: steps.find has no 'order'; it has items, output, status"),
        ({"agent": "writer", "input": "size(steps)"},
         "steps[1].input: reads 'steps' as a whole, so that nothing says which of them it needs; name each of them"),
        ({"agent": "writer", "input": "steps[input.x].output"},
         "steps[1].input: reads 'steps' as a whole, so that nothing says which of them it needs; name each of them"),
        ({"agent": "writer", "input": "Find order 81"},
         ("steps[1].input: 'Find order 81' cannot be evaluated: it is no expression of CEL (line 1, column 6); a text "
         "has quotes of its own inside those of YAML: \"'...'\"")),
        ({"agent": "writer", "input": "hello"},
         ("steps[1].input: there is no variable 'hello'; it sees input, steps; a text has quotes of its own: "
         "\"'hello'\"")),
        ({"agent": "writer", "input": "inptu.x"},
         "steps[1].input: there is no variable 'inptu'; did you mean 'input'? it sees input, steps"),
        ({"agent": "writer", "input": "input.x.split(',')"},
         "steps[1].input: \"input.x.split(',')\" cannot be evaluated: 'split' is not known"),
        ({"agent": "writer", "input": "'a' + 1"},
         "steps[1].input: \"'a' + 1\" cannot be evaluated: '+' does not go with a text and a whole number"),
        ({"agent": "writer", "input": "item.x"},
         "steps[1].input: reads 'item', which only a step with 'for_each' has; it sees input, steps"),
        ({"agent": "writer", "for_each": "item.x"},
         "steps[1].for_each: reads 'item', and this is the list that has the items; it sees input, steps"),
        ({"agent": "writer", "for_each": "input.x", "when": "index > 1"},
         ("steps[1].when: reads 'index', and 'when' decides over the whole step, not over each item; it sees input, "
         "steps")),
        ({"agent": "writer", "input": "output.x"},
         ("steps[1].input: reads 'output', which only 'success' sees; that of a step is steps.<id>.output; it sees "
         "input, steps")),
        ({"agent": "writer", "success": "steps.find.output == output"},
         "steps[1].success: reads 'steps', and 'success' is about the step's own output; it sees input, output"),
        ({"agent": "researcher", "success": "output.totl > 1.0"},
         "steps[1].success: output has no 'totl'; did you mean 'total'? it has order, rows, total"),
        ({"agent": "writer", "success": "output.ok"},
         ("steps[1].success: output is a text, since neither step 's' nor agent 'writer' has an 'output_schema'; it "
         "has no 'ok'")),
        ({"agent": "writer", "when": "steps.find.output.order"},
         "steps[1].when: comes to a number; 'when' is true or false"),
        ({"agent": "writer", "success": "'yes'"}, "steps[1].success: comes to a text; 'success' is true or false"),
        ({"agent": "writer", "for_each": "steps.find.output"},
         "steps[1].for_each: comes to an object; 'for_each' goes through a list"),
        ({"agent": "writer", "input": "steps.s.output"}, "steps[1].input: the step 's' waits for itself"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_step_is_told(step: dict[str, Any], expected: str) -> None:
    assert faults(plan(find(), {"id": "s", **step})) == [expected]


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ({"tool": "refund", "input": {"order": "1", "amuont": "2.0"}},
         [("steps[1].input.amuont: 'amuont' is no argument of tool 'refund'; did you mean 'amount'? it takes amount, "
          "note, order"),
          "steps[1].input: tool 'refund' requires 'amount', which is not given; it takes amount, note, order"]),
        ({"tool": "refund", "input": "{'order': 1, 'amuont': 2.0}"},
         [("steps[1].input: 'amuont' is no argument of tool 'refund'; did you mean 'amount'? it takes amount, note, "
          "order"),
          "steps[1].input: tool 'refund' requires 'amount', which is not given; it takes amount, note, order"]),
        ({"tool": "refund", "input": {"order": "1", "amount": "'2.0'"}},
         ["steps[1].input.amount: comes to a text; 'amount' of tool 'refund' takes a number"]),
        ({"tool": "refund", "input": "'Refund it.'"},
         ["steps[1].input: comes to a text; tool 'refund' takes an object with amount, note, order"]),
        ({"tool": "refund", "input": "steps.find.output"},
         ["steps[1].input: tool 'refund' requires 'amount', which is not given; it takes amount, note, order"]),
        ({"tool": "refund", "for_each": "steps.find.output.rows"},
         ["steps[1].input: tool 'refund' requires 'amount', which is not given; it takes amount, note, order",
          "steps[1].input: tool 'refund' requires 'order', which is not given; it takes amount, note, order"]),
        ({"tool": "refund", "for_each": "[1, 2]"},
         ["steps[1].input: comes to a number; tool 'refund' takes an object with amount, note, order"]),
        ({"tool": "refund"}, []),
        ({"tool": "refund", "input": "input.refund"}, []),
        ({"tool": "refund", "for_each": "input.refunds"}, []),
        ({"tool": "refund", "input": {"order": "input.x", "amount": "input.y ? null : dyn(1.0)"}}, []),
        ({"tool": "free", "input": "'x'"}, []),
        ({"agent": "writer", "input": {"any": "'x'"}}, []),
        ({"plan": "audit", "input": {"nr": "1"}},
         ["steps[1].input.nr: 'nr' is no argument of plan 'audit'; it takes order",
          "steps[1].input: plan 'audit' requires 'order', which is not given; it takes order"]),
    ],
)  # fmt: skip
def test_arguments_fit_what_is_called(step: dict[str, Any], expected: list[str]) -> None:
    assert faults(plan(find(), {"id": "s", **step})) == expected


def test_what_is_called_takes_the_input_of_the_plan_where_a_step_says_none() -> None:
    asked = {"type": "object", "properties": {"order": {"type": "integer"}}}

    assert faults(plan({"id": "s", "tool": "refund"}, input_schema=asked)) == [
        "steps[0].input: tool 'refund' requires 'amount', which is not given; it takes amount, note, order"
    ]
    assert faults(plan({"id": "s", "agent": "writer", "input": "input.odrer"}, input_schema=asked)) == [
        "steps[0].input: input has no 'odrer'; did you mean 'order'? it has order"
    ]


def test_output_of_a_step_is_that_of_its_own_schema_or_a_list() -> None:
    own = {"type": "object", "properties": {"tasks": {"type": "array"}}}
    made = plan(
        {"id": "a", "agent": "researcher", "output_schema": own, "input": "1"},
        {"id": "b", "agent": "researcher", "for_each": "steps.a.output.tasks"},
        {"id": "c", "agent": "writer", "input": "[steps.a.output.order, steps.b.output.order]"},
        {"id": "d", "agent": "writer", "input": "[steps.b.output[0].ordr, steps.b.output.map(o, o.order)]"},
    )

    assert faults(made) == [
        "steps[2].input: steps.a.output has no 'order'; it has tasks",
        "steps[2].input: steps.b.output is a list, since step 'b' has a 'for_each'; it has no 'order'",
        "steps[3].input: steps.b.output[0] has no 'ordr'; did you mean 'order'? it has order, rows, total",
    ]


def test_a_step_whose_id_has_a_dash_is_written_in_brackets() -> None:
    made = plan(find() | {"id": "find-it"}, {"id": "s", "agent": "writer", "input": "steps.find-it.output.order"})

    assert faults(made) == [
        (
            "steps[1].input: there is no variable 'it'; write steps['find-it'] for the step 'find-it'; it sees input, "
            "steps"
        ),
        "steps[1].input: steps has no 'find'; did you mean 'find-it'? it has find-it, s",
    ]
    assert faults(
        plan(find() | {"id": "find-it"}, {"id": "s", "agent": "writer", "input": "steps['find-it'].output.x"})
    ) == ["steps[1].input: steps['find-it'].output has no 'x'; it has order, rows, total"]


def test_cycles_are_named_in_order_each_once() -> None:
    made = plan(
        {"id": "c", "agent": "writer", "input": "steps.a.output"},
        {"id": "a", "agent": "writer", "depends_on": ["x", "b"]},
        {"id": "b", "agent": "writer", "when": "steps.c.output == ''"},
        {"id": "x", "agent": "writer", "for_each": "[steps.y.output]"},
        {"id": "y", "agent": "writer", "input": {"k": "steps.x.output[0]"}},
        {"id": "z", "agent": "writer", "input": "steps.c.output"},
    )

    assert faults(made) == [
        "steps[1].depends_on[1]: steps wait for each other: a -> b -> c -> a",
        "steps[3].for_each: steps wait for each other: x -> y -> x",
    ]


def test_output_of_the_plan_is_checked_as_steps_are() -> None:
    made = plan(find(), output="{'order': steps.find.output.ordr, 'x': item, 'y': steps.fnd}")

    assert faults(made) == [
        "output: reads 'item', which only a step with 'for_each' has; it sees input, steps",
        "output: steps.find.output has no 'ordr'; did you mean 'order'? it has order, rows, total",
        "output: steps has no 'fnd'; did you mean 'find'? it has find",
    ]


def test_shares_are_at_most_the_budget_of_the_plan() -> None:
    """0.20 of its own and 0.50 of its agent's file, 0.30 of its own, of many only one: 1.00."""
    made = plan(
        find(budget={"cost_usd": "0.20", "model_calls": 90}),
        find(for_each="input") | {"id": "more"},
        {"id": "write", "agent": "writer", "budget": {"cost_usd": "0.30", "tool_calls": 2, "tokens": 5}},
        {"id": "t1", "tool": "free"},
        {"id": "t2", "tool": "free"},
        budget={"cost_usd": "0.99", "model_calls": 39, "tool_calls": 3, "tokens": 5},
    )

    assert faults(made) == [
        (
            "budget.model_calls: the shares of its steps come to 40, more than the plan's 39: find 20, more 20; a "
            "'for_each' counts once, since the number of its items is not known"
        ),
        (
            "budget.cost_usd: the shares of its steps come to $1.00, more than the plan's $0.99: more $0.50, write "
            "$0.30, find $0.20; a 'for_each' counts once, since the number of its items is not known"
        ),
        "budget.tool_calls: the shares of its steps come to 4, more than the plan's 3: write 2, t1 1, t2 1",
    ]


def test_runs_below_a_plan_need_depth_and_children() -> None:
    steps = [{"id": "a", "agent": "writer"}, {"id": "b", "plan": "audit", "input": "{'order': 1}"}]

    assert faults(plan(*steps, budget={"depth": 0, "children": 1})) == [
        "budget.depth: 0 allows no runs below the plan, and these steps are such: a, b",
        "budget.children: allows 1 run below the plan, and 2 steps start at least one each: a, b",
    ]
    assert faults(plan({"id": "t", "tool": "free"}, budget={"depth": 0, "children": 0})) == []


def test_what_is_not_known_is_not_checked() -> None:
    made = plan({"id": "a", "agent": "x", "input": "1"}, {"id": "b", "tool": "y", "input": "steps.a.output.z"})

    assert rules.find_faults(made, agents=None, tools=None, plans=None) == []


def test_all_faults_are_told_together() -> None:
    made = plan(
        {"id": "a", "agent": "nobody", "input": "steps.b.output", "when": "1 +", "depends_on": ["nope"]},
        {"id": "b", "tool": "refund", "input": {"order": "steps.a.output"}, "success": "item"},
        output="steps.c.output",
        budget={"depth": 0},
    )

    assert len(faults(made)) == 8


def test_prose_as_an_argument_is_a_warning() -> None:
    made = plan(
        {"id": "write", "agent": "writer"},
        {"id": "pay", "tool": "refund",
         "input": {"order": "1", "amount": "steps.write.output", "note": "steps.write.output"}},
        {"id": "all", "tool": "refund", "input": "steps.write.output"},
    )  # fmt: skip
    why = "comes to a text, since neither step 'write' nor agent 'writer' has an 'output_schema';"

    assert warnings(made) == [
        f"steps[1].input.amount: {why} 'amount' of tool 'refund' takes a number",
        f"steps[2].input: {why} tool 'refund' takes an object with amount, note, order",
    ]


def test_a_need_that_never_runs_is_a_warning() -> None:
    made = plan(
        {"id": "a", "agent": "writer", "when": "1 > 2"},
        {"id": "b", "agent": "writer", "when": "input.x == false"},
        {"id": "c", "agent": "writer", "depends_on": ["b", "a"]},
        {"id": "d", "agent": "writer", "input": {"x": "1", "y": "steps.a.output"}},
    )

    assert warnings(made) == [
        "steps[2].depends_on[1]: needs step 'a', which never runs, since its 'when' is false; its output is null",
        "steps[3].input.y: needs step 'a', which never runs, since its 'when' is false; its output is null",
    ]


IDS = ["a", "b", "c", "d2", "d10", "e-f"]
READS = st.sampled_from(
    [
        *(f"steps[{name!r}].output" for name in IDS),
        "steps.a.output.order",
        "steps.zz.output",
        "item",
        "input",
        "1 +",
        "[1]",
    ]
)
STEPS = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(
            [{"agent": "writer"}, {"agent": "researcher"}, {"tool": "refund"}, {"agent": "wirter"}]
        ),
    },
    optional={
        "input": st.one_of(READS, st.dictionaries(st.sampled_from(["order", "amount", "x"]), READS, max_size=2)),
        "for_each": READS,
        "when": READS,
        "success": READS,
        "depends_on": st.lists(st.sampled_from([*IDS, "zz"]), unique=True, max_size=3),
    },
)


@given(st.lists(STEPS, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_order_of_definition_does_not_matter(drawn: list[dict[str, Any]], shuffler: random.Random) -> None:
    steps = [
        {"id": name, **{key: value for key, value in step.items() if key != "kind"}, **step["kind"]}
        for name, step in zip(IDS, drawn, strict=False)
    ]
    shuffled = steps.copy()
    shuffler.shuffle(shuffled)
    keys: dict[str, Any] = {"output": "steps.a.output", "budget": {"model_calls": 30, "depth": 0, "children": 1}}
    one, other = plan(*steps, **keys), plan(*shuffled, **keys)

    assert by_step(one) == by_step(other)
    assert order.list_levels(one) == order.list_levels(other)


def by_step(made: PlanSpec) -> set[tuple[str, ...]]:
    """Faults and warnings with the ids of their steps in place of the positions."""
    known: dict[str, Any] = {"agents": AGENTS, "tools": TOOLS, "plans": PLANS}
    return {
        (
            *(
                made.steps[part].id if number == 1 and isinstance(part, int) else str(part)
                for number, part in enumerate(place)
            ),
            message,
        )
        for place, message in (*rules.find_faults(made, **known), *rules.find_warnings(made, **known))
    }


@given(st.text(max_size=40))
def test_any_text_is_an_expression_or_a_fault(text: str) -> None:
    if not text.strip():
        return
    made = plan({"id": "a", "agent": "writer", "input": text, "success": text, "for_each": text})

    assert all(message for _, message in rules.find_faults(made, agents=AGENTS, tools=TOOLS, plans=PLANS))
    order.list_levels(made)


def test_large_plans_are_checked_in_seconds() -> None:
    steps = [{"id": "s0", "agent": "researcher", "input": "input"}] + [
        {"id": f"s{n}", "agent": "researcher", "input": {"order": f"steps.s{n // 2}.output.order", "n": f"{n}"},
         "when": f"steps.s{n - 1}.output.total > {n}.0"}
        for n in range(1, 2000)
    ]  # fmt: skip
    made = plan(*steps)
    started = time.process_time()

    assert faults(made) == []
    assert len(order.list_levels(made)) == 2000
    assert time.process_time() - started < 20


def test_an_effect_that_rests_on_a_debate_is_a_warning() -> None:
    tools = {"pay": Target(changes_world=True), "look": Target()}
    plans = {"talk": Target(is_debate=True), "audit": Target()}
    talk, sums = {"id": "talk", "plan": "talk"}, {"id": "sums", "agent": "writer", "input": "string(steps.talk.output)"}
    pay = {"id": "pay", "tool": "pay", "depends_on": ["sums"]}

    def warn(*steps: dict[str, Any], **keys: Any) -> list[str]:
        made = plan(*steps, **keys)
        return [key_path(place) for place, _ in rules.find_warnings(made, agents=AGENTS, tools=tools, plans=plans)]

    assert warn(talk, sums, pay) == ["steps[2]"]
    assert warn({**talk, "plan": "audit"}, sums, pay) == []
    assert warn(talk, sums, {**pay, "tool": "look"}) == []
    assert warn(talk, {"id": "pay", "tool": "pay"}) == []
    assert warn({"id": "pay", "tool": "pay"}, pattern="debate") == ["steps[0]"]
