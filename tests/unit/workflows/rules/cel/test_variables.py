"""Variables that expressions read: by syntax, not by text."""

import pytest

from mandate.workflows.rules.cel import evaluation
from mandate.workflows.rules.cel.evaluation import Unevaluable
from mandate.workflows.rules.cel.variables import Read, list_reads


def reads(text: str) -> list[Read]:
    parsed = evaluation.parse(text)
    assert not isinstance(parsed, Unevaluable), parsed
    return list(list_reads(parsed))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("input", [("input", None)]),
        ("steps.find.output.order", [("steps", "find")]),
        ("steps['find'].output", [("steps", "find")]),
        ('steps["find-it"].output', [("steps", "find-it")]),
        ("steps.`find-it`.output", [("steps", "find-it")]),
        (r"steps['\x66ind'].output", [("steps", "find")]),
        ("steps.a.output + steps.b.output", [("steps", "a"), ("steps", "b")]),
        ("(input.x ? steps.a : steps.b).output", [("input", "x"), ("steps", "a"), ("steps", "b")]),
        ("{'a': steps.a.output, 'b': [steps.b.output]}", [("steps", "a"), ("steps", "b")]),
        ("has(steps.a.output.x)", [("steps", "a")]),
        ("'steps.a.output' + \"steps['b']\"", []),
        ("input.x // steps.a", [("input", "x")]),
        ("steps.a.output.steps.b", [("steps", "a")]),
        ("steps[input.x].output", [("steps", None), ("input", "x")]),
        ("steps['a' + 'b'].output", [("steps", None)]),
        ("steps[0]", [("steps", None)]),
        ("size(steps) > 1", [("steps", None)]),
        ("type(input) == int", [("input", None)]),
        ("timestamp('2026-11-02T09:00:00Z') < timestamp(input.at)", [("input", "at")]),
        (".steps.a.output", [("steps", "a")]),
    ],
)
def test_reads_are_found_by_syntax(text: str, expected: list[tuple[str, str | None]]) -> None:
    assert reads(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("steps.a.output.map(x, x.y)", [("steps", "a")]),
        ("steps.a.output.map(x, x.y + steps.b.output)", [("steps", "a"), ("steps", "b")]),
        ("steps.a.output.filter(x, x > item).all(y, y != index)",
         [("steps", "a"), ("item", None), ("index", None)]),
        ("steps.a.output.map(steps, steps.b)", [("steps", "a")]),
        ("steps.a.output.map(steps, .steps.b)", [("steps", "a"), ("steps", "b")]),
        ("steps.exists(id, steps[id].output > 1)", [("steps", None), ("steps", None)]),
        ("[1, 2].exists_one(i, i == input.n)", [("input", "n")]),
        ("input.a.map(x, input.b.map(y, x + y + z))", [("input", "a"), ("input", "b"), ("z", None)]),
    ],
)  # fmt: skip
def test_variables_of_loops_are_no_reads(text: str, expected: list[tuple[str, str | None]]) -> None:
    assert reads(text) == expected


@pytest.mark.parametrize("text", ["steps.", "Find order 81", "steps.in.output", "((", "1 +", "(" * 60 + "1" + ")" * 60])
def test_what_is_no_expression_is_told(text: str) -> None:
    assert isinstance(evaluation.parse(text), Unevaluable)


def test_expression_with_unknown_names_is_read_and_not_checked() -> None:
    assert reads("nope.x(1) + f(other)") == [("nope", None), ("other", None)]
    assert evaluation.check("f(input)", ["input"]) == Unevaluable("'f' is not known")
    assert evaluation.check("input.x + 1", ["input"]) is None
