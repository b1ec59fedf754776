"""Conditions are checked against the tools that they are about: what is wrong, where, and what there is instead."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mandate.activities.documents import Document, parse_document
from mandate.activities.toolbox.schema_types import find_numeric
from mandate.workers.catalog.conditions import Conditions, check
from mandate.workers.catalog.policies import PlacedRule
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.policy import Rule, RunFacts
from mandate.workflows.contracts.tool import BuiltinBinding, Tool, ToolDefinition
from mandate.workflows.rules import policy

REFUND: JsonObject = {
    "type": "object",
    "properties": {
        "amount": {"type": "number"},
        "order": {"type": "integer"},
        "reason": {"type": "string"},
        "urgent": {"type": "boolean"},
        "cost-center": {"type": "string"},
        "in": {"type": "string"},
        "discount": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        "method": {"enum": ["card", "bank"]},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/Line"}},
        "prices": {"type": "array", "items": {"type": "number"}},
        "grid": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
        "either": {"anyOf": [{"type": "number"}, {"type": "string"}]},
        "free": {"type": "object"},
    },
    "$defs": {
        "Line": {
            "type": "object",
            "properties": {
                "sku": {"type": "string"},
                "quantity": {"type": "integer"},
                "bundle": {"anyOf": [{"$ref": "#/$defs/Line"}, {"type": "null"}]},
            },
        }
    },
}
RUN = (
    "budget_left_usd, calls, cost_usd, depth, id, labels, now, period_cost_usd, requester, speaker, step, tainted, "
    "tokens, totals"
)
ARGS = (
    'it has amount, ["cost-center"], discount, either, free, grid, ["in"], lines, method, order, prices, reason, urgent'
)

OVERLOAD = "found no matching overload for"
NUMBERS = "; write a whole number as 100.0, or double(...) around it"
OPERATORS = "; CEL writes '==' for equality, '&&' for and, '||' for or, '!' for not"


def definition(name: str, schema: JsonObject, **settings: object) -> ToolDefinition:
    tool = Tool.model_validate({"name": name, "source": "python", "numeric": find_numeric(schema), **settings})
    return ToolDefinition(tool=tool, input_schema=schema, binding=BuiltinBinding(kind="builtin"))


TOOLS = (
    definition("refund", REFUND, tags=("money",)),
    definition("send-note", {"type": "object"}, tags=("money",)),
    definition("list_all", {"type": "object", "properties": {}}, tags=("list",)),
    definition("pay", {"type": "object", "properties": {"cents": {"type": "integer"}}}, tags=("list",)),
)


def faults(
    when: str, having: Sequence[ToolDefinition] = TOOLS, *, shared: str | None = None, **match: object
) -> list[str]:
    rule = Rule.model_validate({"id": "r", "match": match or {"tools": ["refund"]}, "when": when, "verdict": "deny"})
    placed = PlacedRule(rule, Document("a.yaml", None, (), {}), ("policy", 0), shared)
    return [
        str(fault).removeprefix("a.yaml: policy[0].when: rule 'r', ").removeprefix("tool 'refund', ")
        for fault in Conditions(having, agent="shop").faults(placed)
    ]


FITTING = [
    "args.amount >= 100.0",
    "args.order == 81",
    "args.reason.startsWith('x') && args.urgent",
    'args["cost-center"] == "7" && args.`cost-center` != "8"',
    'args["in"] == "x"',
    'args["amount"] > 1.0',
    "args.discount == null || args.discount > 1.0",
    "args.method == 'card'",
    "args.lines.exists(line, line.quantity > 3 && line.bundle.bundle.sku == 'A')",
    "args.prices[0] > 1.0",
    "args.grid[0][0] == 1",
    "args.either == 'x' || args.either > 1",
    "args.free.anything.at.all == 3",
    "has(args.discount) && has(args.free.x)",
    "double(args.order) > 1.0",
    "dyn(args.reason).size > 4000",
    "run.totals.refund.amount + args.amount > 100.0",
    "run.totals[tool.name].amount + args.amount > 100.0",
    "run.calls.refund > 3 && run.calls['send-note'] > 3 && run.calls[ tool.name ] > 3",
    "run.requester == '' && run.id != '' && run.depth == 0 && run.step > 1 && run.cost_usd > 1.5 && !run.tainted",
    "run.labels.team == 'a' && run.labels['cost-center'] == 'b' && 'c' in run.labels && has(run.labels.d)",
    "run.now > timestamp('2026-11-02T09:00:00Z') && run.now.getHours('Europe/Berlin') >= 18",
    "tool.name == 'x' && tool.effect == 'once' && tool.source == 'python' && 'money' in tool.tags",
    "tool.risk >= 0.7 && tool.untrusted && agent.name == 'a' && agent.version == 'b'",
    "args.reason in ['x', 'y'] && args.reason == 'an [\"amont\"] in a text' // and args.amont in a comment",
]


@pytest.mark.parametrize("when", FITTING)
def test_condition_that_fits_has_no_fault(when: str) -> None:
    assert faults(when) == []


@pytest.mark.parametrize("when", FITTING)
def test_condition_that_fits_can_be_evaluated(when: str) -> None:
    arguments: JsonObject = {
        "amount": 1.5,
        "order": 81,
        "reason": "x",
        "urgent": True,
        "cost-center": "7",
        "in": "x",
        "discount": 2.0,
        "method": "card",
        "lines": [],
        "prices": [1.0],
        "grid": [[1.0]],
        "either": "x",
        "free": {"anything": {"at": {"all": 3}}},
    }
    rule = Rule.model_validate({"id": "r", "match": {}, "when": when, "verdict": "allow"})
    facts = RunFacts(id="1", agent="a", version="b", labels={"team": "a", "cost-center": "b"}, now=datetime.now(UTC))
    tools = [made.tool for made in TOOLS]

    (reading,) = policy.read([rule], TOOLS[0].tool, arguments, facts, tools=tools)

    assert reading.why in {"its condition is true", "its condition is false"} | (
        # A short text has no size of its own kind.
        {reading.why} if "dyn(" in when else set()
    )


@pytest.mark.parametrize(
    ("when", "told"),
    [
        ("args.amont >= 100.0", [f"column 5: args has no 'amont'; did you mean 'amount'? {ARGS}"]),
        ("has(args.amont)", [f"column 4: args has no 'amont'; did you mean 'amount'? {ARGS}"]),
        ('args["amont"] > 1.0', [f"column 5: args has no 'amont'; did you mean 'amount'? {ARGS}"]),
        ("args.`cost-centre` == ''", [f"column 5: args has no 'cost-centre'; did you mean 'cost-center'? {ARGS}"]),
        (
            "args.cost-center == ''",
            [
                f"column 5: args has no 'cost'; {ARGS}",
                "column 11: there is no 'center'; a condition sees agent, args, run, tool",
            ],
        ),
        ("args.amount >= 100", [f"column 13: {OVERLOAD} '>=' applied to '(double, int)'{NUMBERS}"]),
        ("100 < args.amount", [f"column 5: {OVERLOAD} '<' applied to '(int, double)'{NUMBERS}"]),
        ("args.order > 3.0", [f"column 12: {OVERLOAD} '>' applied to '(int, double)'{NUMBERS}"]),
        ("args.order > 3.5", [f"column 12: {OVERLOAD} '>' applied to '(int, double)'{NUMBERS}"]),
        ("args.amount > 'x'", [f"column 13: {OVERLOAD} '>' applied to '(double, string)'"]),
        ("args.prices == [1]", [f"column 13: {OVERLOAD} '==' applied to '(list(double), list(int))'{NUMBERS}"]),
        (
            "args.lines.exists(line, line.quantty > 3)",
            ["column 29: args.lines[0] has no 'quantty'; did you mean 'quantity'? it has bundle, quantity, sku"],
        ),
        (
            "args.lines.sku == 'x'",
            ["column 11: expression of type 'list(object)' cannot be the operand of a select operation"],
        ),
        ("args.amount", ["column 1: has the type double; a condition is true or false"]),
        ("args.urgent ? 'a' : 'b'", ["column 1: has the type string; a condition is true or false"]),
        ("args.lines[0]", ["column 1: has the type object; a condition is true or false"]),
        ("!args.amount", [f"column 1: {OVERLOAD} '!' applied to '(double)'"]),
        ("size(1)", [f"column 5: {OVERLOAD} 'size' applied to '(int)'"]),
        ("run.requester == null", [f"column 15: {OVERLOAD} '==' applied to '(string, null_type)'"]),
        (
            "run.calls.refnd > 3",
            [
                (
                    "column 10: run.calls has no 'refnd'; did you mean 'refund'? "
                    'it has list_all, pay, refund, ["send-note"]'
                )
            ],
        ),
        (
            "run.calls.send-note > 3",
            [
                (
                    "column 10: run.calls has no 'send'; did you mean 'send-note'? "
                    'it has list_all, pay, refund, ["send-note"]'
                ),
                "column 16: there is no 'note'; a condition sees agent, args, run, tool",
            ],
        ),
        (
            "run.totals.refund.amonut > 1.0",
            ["column 18: run.totals.refund has no 'amonut'; did you mean 'amount'? it has amount, discount, order"],
        ),
        (
            "run.totals['send-note'].amount > 1.0",
            ["column 24: run.totals[\"send-note\"] has no 'amount'; it has nothing"],
        ),
        ("args[tool.name] == 'x'", [f"column 5: args has no 'tool.name'; {ARGS}"]),
        (
            "run.steps > 3",
            [(f"column 4: run has no 'steps'; did you mean 'step'? it has {RUN}")],
        ),
        (
            "arg.amount > 1.0",
            ["column 4: there is no 'arg'; did you mean 'args'? a condition sees agent, args, run, tool"],
        ),
        ("args.reason.lower() == 'x'", ["column 18: there is no function 'lower'"]),
        (
            "args.reason.startWith('x')",
            ["column 22: there is no function 'startWith'; did you mean 'startsWith'?"],
        ),
        ("args.amount = 100.0", [f"column 13: Syntax error: token recognition error at: '= '{OPERATORS}"]),
        ("args.urgent and true", [f"column 13: Syntax error: mismatched input 'and'{OPERATORS}"]),
        ("not args.urgent", [f"column 5: Syntax error: mismatched input 'args'{OPERATORS}"]),
        ("args.amount >", ["column 14: Syntax error: mismatched input end of text"]),
        ("args.reason == 'x", [f"column 16: Syntax error: token recognition error at: ''x'{OPERATORS}"]),
        ('has(args["amount"])', ["column 9: has() argument must be a field selection"]),
        ("args.reason.matches('(')", ["column 21: '(' is no regular expression"]),
        ("run.now > timestamp('noon')", ["column 21: 'noon' is no time, for example '2026-11-02T09:00:00Z'"]),
        (
            "'é' == args.reason && args.amount > 1\n  && args.order > 1.0",
            [
                f"line 1, column 35: {OVERLOAD} '>' applied to '(double, int)'{NUMBERS}",
                f"line 2, column 17: {OVERLOAD} '>' applied to '(int, double)'{NUMBERS}",
            ],
        ),
    ],
)
def test_fault_says_where_what_and_what_there_is(when: str, told: list[str]) -> None:
    assert faults(when) == told


def test_fault_names_the_tools_for_which_it_is_one() -> None:
    assert faults("args.amount > 100.0", tags=["money", "list"]) == [
        "tool 'list_all', column 5: args has no 'amount'; it has nothing",
        "tool 'pay', column 5: args has no 'amount'; it has cents",
    ]
    assert faults("run.foo", tags=["money", "list"]) == [f"column 4: run has no 'foo'; it has {RUN}"]


def test_many_tools_of_one_fault_are_counted() -> None:
    tools = [definition(f"t{number}", {"type": "object", "properties": {}}) for number in range(5)]

    assert faults("args.x", tools, tools=["*"]) == [
        "tools 't0', 't1', 't2' and 2 more, column 5: args has no 'x'; it has nothing"
    ]


def test_rule_of_a_shared_file_names_the_agent() -> None:
    assert faults("args.cent > 1", shared="escalation", tools=["pay"]) == [
        "agent 'shop', tool 'pay', column 5: args has no 'cent'; did you mean 'cents'? it has cents"
    ]


@pytest.mark.parametrize(
    ("when", "told"),
    [
        ("args.anything > 1 && run.calls.other > 1 && run.totals.other.amount > 1.0 && run.calls[tool.name] > 1", []),
        ("args.x > 1 && run.foo", [f"column 18: run has no 'foo'; it has {RUN}"]),
        ("args.x >", ["column 9: Syntax error: mismatched input end of text"]),
        ("size(args)", ["column 1: has the type int; a condition is true or false"]),
    ],
)  # fmt: skip
def test_rule_that_is_about_no_tool_may_name_any(when: str, told: list[str]) -> None:
    assert faults(when, tools=["absent"]) == told
    assert [f"{problem.place(when)}: {problem.message}" for problem in check(when)] == told


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "properties": {"a": {"type": "number"}}, "additionalProperties": True},
        {"type": "object", "properties": {"a": {"type": "number"}}, "patternProperties": {"^x": {}}},
        {"type": "object", "properties": {"a": {}}, "allOf": [{"properties": {"b": {"type": "number"}}}]},
        {},
    ],
)
def test_arguments_that_a_schema_leaves_open_are_not_typed(schema: JsonObject) -> None:
    assert faults("args.whatever > 3 && args['x y'] == 'z'", [definition("refund", schema)]) == []


def test_place_is_that_of_the_key() -> None:
    text = "policy:\n  - id: large\n    match: {}\n    when: args.x\n    verdict: deny\n"
    rule = Rule.model_validate({"id": "large", "match": {}, "when": "args.x >", "verdict": "deny"})

    (fault,) = Conditions(TOOLS).faults(PlacedRule(rule, parse_document("a.yaml", text), ("policy", 0)))

    assert (
        str(fault) == "a.yaml:4:5: policy[0].when: rule 'large', column 9: Syntax error: mismatched input end of text"
    )


NAMES = st.text(min_size=1, max_size=12) | st.sampled_from(
    ["in", "true", "_", "Args", "a_b", "aB", "a-b", "a.b", "tool__name"]
)


@given(st.lists(NAMES, unique=True, max_size=8), st.data())
def test_any_names_of_arguments_can_be_asked_for(names: list[str], data: st.DataObject) -> None:
    types = data.draw(
        st.lists(st.sampled_from(["number", "string", "boolean"]), min_size=len(names), max_size=len(names))
    )
    pairs = dict(zip(names, types, strict=True))
    schema: JsonObject = {"type": "object", "properties": {name: {"type": kind} for name, kind in pairs.items()}}
    values = {"number": "1.0", "string": "'x'", "boolean": "true"}
    plain = [name for name in names if not set(name) & set("\"'\\\n") and name.isprintable()]

    when = " && ".join(['tool.name != ""', *(f'args["{name}"] == {values[pairs[name]]}' for name in plain)])

    assert faults(when, [definition("refund", schema)]) == []
