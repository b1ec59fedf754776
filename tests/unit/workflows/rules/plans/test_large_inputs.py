"""Inputs of plans that are large: each expression is given what it reads of them."""

import pytest
from pydantic import JsonValue

from mandate.workflows.contracts.plan import PlanSpec
from mandate.workflows.rules.plans import order
from mandate.workflows.rules.plans.progress import Ended, Label, Progress

UNREADABLE = 2**70
"""No expression can be given a value that holds it."""


@pytest.mark.parametrize(
    ("expression", "keys"),
    [
        ("input.a", {"a"}),
        ("input.a.b + input['c']", {"a", "c"}),
        ("has(input.a) ? 1 : 2", {"a"}),
        ("steps.x.output", set()),
        ("input", None),
        ("input[item]", None),
        ("size(input) + input.a", None),
        ("input.a.map(one, input.b + one)", {"a", "b"}),
        ("no expression", None),
    ],
)
def test_keys_that_an_expression_reads(expression: str, keys: set[str] | None) -> None:
    assert order.find_input_keys(expression) == (None if keys is None else frozenset(keys))


def advance(step: dict[str, object], given: JsonValue) -> list[JsonValue]:
    plan = PlanSpec.model_validate({"name": "p", "steps": [{"id": "s", "agent": "a", **step}]})
    return [call.value for call in Progress(plan, {"s": frozenset()}, given, {}).advance().begin]


def test_an_expression_is_given_no_more_of_the_input_than_it_reads() -> None:
    step = {"for_each": "input.items", "input": {"who": "input.who + item"}, "when": "input.go"}

    assert advance(step, {"items": ["1", "2"], "who": "ann", "go": True, "rest": UNREADABLE}) == [
        {"who": "ann1"},
        {"who": "ann2"},
    ]
    assert advance({"input": "input"}, {"rest": UNREADABLE}) == []
    assert advance({"input": "input"}, {"a": 1.0}) == [{"a": 1.0}]


def test_a_success_is_given_no_more_of_the_input_than_it_reads() -> None:
    step = {"id": "s", "agent": "a", "success": "output == input.wanted"}
    plan = PlanSpec.model_validate({"name": "p", "steps": [step]})

    move = Progress(plan, {"s": frozenset()}, {"wanted": "x", "rest": UNREADABLE}, {Label("s"): Ended("x")}).advance()

    assert move.standings["s"].status == "completed"
