"""Schemas that would make a lifetime of work, and values that are too much for their schema."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from mandate.activities.toolbox.schema import check_schema, find_misfit
from mandate.activities.toolbox.schema_cost import MAX_STEPS, Cost, measure, weigh_pattern
from mandate.workflows.contracts.base import JsonObject

NODE: JsonObject = {"$ref": "#/$defs/node"}


def doubling(levels: int, last: JsonObject | None = None) -> JsonObject:
    """Definitions that each refer to the next twice."""
    twice: dict[str, JsonValue] = {
        f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}, {"$ref": f"#/$defs/d{n + 1}"}]} for n in range(levels)
    }
    return {"$ref": "#/$defs/d0", "$defs": {**twice, f"d{levels}": last or {"type": "object"}}}


def tree(node: JsonObject) -> JsonObject:
    return {"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "properties": {"x": node}}}}


def nested(levels: int, inner: JsonValue) -> JsonObject:
    value: JsonValue = inner
    for _ in range(levels):
        value = {"x": value}
    assert isinstance(value, dict)
    return value


@pytest.mark.parametrize(
    ("schema", "cost"),
    [
        ({"type": "object"}, Cost(2, 0, 0)),
        ({"enum": ["a", "b", "c"]}, Cost(5, 0, 0)),
        ({"$defs": {"unused": {"type": "string"}}}, Cost(1, 0, 0)),
        ({"properties": {"$defs": {"type": "string"}}}, Cost(4, 0, 0)),
        # The object, the text of the reference, and three levels: object, list, twice a reference with its text.
        (doubling(1), Cost(2 + 2 + 2 * (2 + 2), 0, 0)),
        (tree(NODE), Cost(8, 0, 1)),
        (tree({"allOf": [NODE, NODE]}), Cost(13, 0, 2)),
        ({"items": {"$ref": "#"}}, Cost(4, 0, 1)),
        ({"pattern": "^a{5}$"}, Cost(2, 7, 0)),
        ({"$dynamicRef": "#n", "$defs": {"any": {"$dynamicAnchor": "n", "type": "object"}}}, Cost(5, 0, 0)),
    ],
)
def test_a_reference_costs_what_it_leads_to(schema: JsonObject, cost: Cost) -> None:
    assert measure(schema) == cost


@pytest.mark.parametrize(
    ("pattern", "weight"),
    [
        ("", 0),
        ("abc", 3),
        ("a{10}", 10),
        ("a{2,30}b", 31),
        ("(ab){10}", 20),
        ("((a{10}){10}){10}", 1000),
        (r"\w{50}", 5000),
        (r"\d{4}-[\w.]{2}", 241),
        ("[a-z]{10}", 10),
        (r"a\{5}", 4),
        ("(", 0),
        ("{5}", 0),
    ],
)
def test_a_pattern_weighs_what_its_counts_make_of_it(pattern: str, weight: int) -> None:
    assert weigh_pattern(pattern) == weight


@given(st.text(alphabet="a(){}[]\\w^,+1 9|", max_size=200))
def test_any_text_has_a_weight(pattern: str) -> None:
    assert weigh_pattern(pattern) >= 0


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (doubling(40), f"more than {MAX_STEPS:,} parts"),
        (doubling(40, tree(NODE)), f"more than {MAX_STEPS:,} parts"),
        (doubling(24, {"type": "object", "properties": {"x": {"$ref": "#/$defs/d0"}}}), f"more than {MAX_STEPS:,}"),
        ({"enum": list(range(MAX_STEPS))}, f"more than {MAX_STEPS:,} parts"),
        ({"$defs": {str(n): {"pattern": rf"(\w|\p{{L}}){{{n}}}x"} for n in range(300)}}, "patterns that are too large"),
        ({"properties": {"x": {"pattern": "(((a{99}){99}){99}){99}"}}}, "patterns that are too large"),
    ],
)
def test_a_schema_that_costs_too_much_is_refused_at_once(schema: JsonObject, reason: str) -> None:
    begun = time.process_time()

    with pytest.raises(ValueError, match=reason):
        check_schema(schema, of_object=False)

    assert time.process_time() - begun < 1


@pytest.mark.parametrize("levels", [10, 30, 60])
@pytest.mark.parametrize(
    "node", [NODE, {"allOf": [NODE, NODE]}, {"anyOf": [{"allOf": [NODE, {"required": ["z"]}]}, NODE]}]
)
def test_a_schema_that_refers_to_itself_is_checked_in_no_time(node: JsonObject, levels: int) -> None:
    schema = tree(node)
    check_schema(schema)
    begun = time.process_time()

    assert find_misfit(schema, nested(levels, {})) is None
    assert find_misfit(schema, nested(levels, 5)) is not None

    assert time.process_time() - begun < 1


def test_a_fault_deep_in_a_tree_is_still_told() -> None:
    assert find_misfit(tree(NODE), nested(9, {"x": 5})) == 'x.x.x.x.x.x.x.x.x.x: 5 is not of type "object"'


@pytest.mark.parametrize(
    ("schema", "value", "said"),
    [
        ({"items": {"enum": list(range(5000))}}, [0] * 10_000, "too large to be checked"),
        ({"items": {"pattern": "1[01]{900}2"}}, ["01" * 100_000], "too large to be checked"),
        ({"items": {"type": "string"}}, [0] * 2_000_000, "too large to be checked"),
        ({"items": {"type": "string"}}, [0] * 100_000, "too large to look up where"),
    ],
)
def test_a_value_that_makes_too_much_work_is_not_checked(schema: JsonObject, value: JsonValue, said: str) -> None:
    check_schema(schema, of_object=False)
    begun = time.process_time()

    assert said in (find_misfit(schema, value) or "")

    assert time.process_time() - begun < 1
