"""Numbers in the form that a tool's schema declares, and which arguments are numbers."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mandate.activities.toolbox import arguments
from mandate.activities.toolbox import schema as schemas
from mandate.activities.toolbox.schema_types import convert_numbers, find_numeric, list_types
from mandate.workflows.contracts.tool import CallRequest

NUMBER: dict = {"type": "number"}
INTEGER: dict = {"type": "integer"}


def of(**properties: object) -> dict:
    return {"type": "object", "properties": properties}


def typed(value: object) -> object:
    """`value` so that 1 and 1.0 differ."""
    return json.dumps(value)


@pytest.mark.parametrize(
    ("declared", "given", "seen"),
    [
        (NUMBER, 100, 100.0),
        (NUMBER, 99.5, 99.5),
        (INTEGER, 100.0, 100),
        (INTEGER, 100, 100),
        (INTEGER, 1e300, 1e300),
        (INTEGER, 9.3e18, 9.3e18),
        (NUMBER, 2**53 + 1, 2**53 + 1),
        (NUMBER, -(2**63), -(2.0**63)),
        ({"type": "string"}, "100", "100"),
        ({}, 100, 100),
        (True, 100, 100),
        (NUMBER, True, True),
        (NUMBER, None, None),
        ({"type": ["number", "null"]}, 100, 100.0),
        ({"type": ["integer", "number"]}, 100, 100),
        ({"enum": [1, 2]}, 1, 1),
        ({"anyOf": [NUMBER, {"type": "null"}]}, 100, 100.0),
        ({"oneOf": [INTEGER, {"type": "string"}]}, 100.0, 100),
        ({"anyOf": [NUMBER, INTEGER]}, 100, 100),
        ({"anyOf": [NUMBER, {}]}, 100, 100),
        ({"allOf": [NUMBER, INTEGER]}, 100.0, 100),
        ({"allOf": [NUMBER, {"minimum": 5}]}, 100, 100.0),
        ({"type": "number", "anyOf": [{"minimum": 5}, {"const": 1}]}, 100, 100.0),
        ({"$ref": "#/$defs/money"}, 100, 100.0),
        ({"$ref": "#/$defs/a~1b%20c"}, 100, 100.0),
        ({"$ref": "#/$defs/again"}, 100, 100.0),
        ({"$ref": "#/$defs/loop"}, 100, 100),
        ({"$ref": "#/$defs/missing"}, 100, 100),
        ({"$ref": "#money"}, 100, 100),
        ({"type": "array", "items": NUMBER}, [1, 2.5], [1.0, 2.5]),
        ({"type": "array", "prefixItems": [INTEGER, NUMBER], "items": {}}, [1.0, 2, 3], [1, 2.0, 3]),
        ({"type": "array", "items": [NUMBER], "additionalItems": INTEGER}, [1, 2.0], [1.0, 2]),
        ({"type": "array", "items": {"$ref": "#/$defs/item"}}, [{"qty": 1.0, "price": 2}], [{"qty": 1, "price": 2.0}]),
        ({"anyOf": [{"$ref": "#/$defs/item"}, {"type": "null"}]}, {"price": 2}, {"price": 2.0}),
        ({"anyOf": [{"type": "array", "items": NUMBER}, NUMBER]}, [2], [2.0]),
        ({"type": "object", "additionalProperties": NUMBER}, {"x": 1}, {"x": 1.0}),
        ({"type": "object", "additionalProperties": NUMBER, "patternProperties": {"x": INTEGER}}, {"x": 1}, {"x": 1}),
        ({"allOf": [of(a=NUMBER), of(b=INTEGER)]}, {"a": 1, "b": 2.0}, {"a": 1.0, "b": 2}),
        (
            {
                "oneOf": [
                    of(kind={"const": "cash"}, amount=INTEGER) | {"required": ["kind"]},
                    of(kind={"const": "card"}, amount=NUMBER) | {"required": ["kind"]},
                ]
            },
            {"kind": "card", "amount": 5},
            {"kind": "card", "amount": 5.0},
        ),
        (
            {"anyOf": [of(amount=NUMBER) | {"required": ["amount"]}, of(name={}) | {"required": ["name"]}]},
            {"amount": 5},
            {"amount": 5.0},
        ),
        ({"anyOf": [of(amount=NUMBER), of(amount=INTEGER)]}, {"amount": 5}, {"amount": 5}),
        ({"anyOf": [of(amount=NUMBER), of(amount=NUMBER)]}, {"amount": 5}, {"amount": 5.0}),
        ({"$ref": "#/$defs/tree"}, {"size": 1, "children": [{"size": 2}]}, {"size": 1.0, "children": [{"size": 2.0}]}),
    ],
)
def test_numbers_are_seen_as_declared(declared: object, given: object, seen: object) -> None:
    schema = of(x=declared) | {
        "$defs": {
            "money": NUMBER,
            "again": {"$ref": "#/$defs/money"},
            "loop": {"$ref": "#/$defs/loop"},
            "a/b c": NUMBER,
            "item": of(qty=INTEGER, price={"$ref": "#/$defs/money"}),
            "tree": of(size=NUMBER, children={"type": "array", "items": {"$ref": "#/$defs/tree"}}),
        }
    }
    whole = {"x": given}

    assert typed(convert_numbers(schema, whole)) == typed({"x": seen})
    assert typed(whole) == typed({"x": given})


def test_root_may_be_a_reference() -> None:
    schema = {"$ref": "#/$defs/Args", "$defs": {"Args": of(amount=NUMBER)}}

    assert typed(convert_numbers(schema, {"amount": 5})) == typed({"amount": 5.0})
    assert find_numeric(schema) == ("amount",)


def test_form_survives_the_way_to_the_workflow() -> None:
    seen = convert_numbers(of(a=NUMBER, b=INTEGER), {"a": 100, "b": 5.0})

    carried = CallRequest.model_validate_json(CallRequest(tool="t", arguments=seen).model_dump_json())

    assert typed(carried.arguments) == typed({"a": 100.0, "b": 5})


def test_numeric_arguments() -> None:
    schema = of(
        amount=NUMBER,
        count=INTEGER,
        tip={"anyOf": [NUMBER, {"type": "null"}]},
        rate={"type": ["number", "null"]},
        fee={"$ref": "#/$defs/money"},
        either={"type": ["integer", "number"]},
        text={"type": "string"},
        mixed={"anyOf": [NUMBER, {"type": "string"}]},
        null={"type": "null"},
        anything={},
        many={"type": "array", "items": NUMBER},
        nested=of(amount=NUMBER),
    ) | {"$defs": {"money": {"type": "number", "minimum": 0}}}

    assert find_numeric(schema) == ("amount", "count", "tip", "rate", "fee", "either")
    assert find_numeric({"type": "object"}) == ()


PLACES = st.recursive(
    st.sampled_from([{}, True, False, NUMBER, INTEGER, {"type": "string"}, {"$ref": "#/$defs/d"}, {"$ref": "#"}]),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"properties": st.dictionaries(st.sampled_from("ab"), inner, max_size=2)}),
        st.fixed_dictionaries({"items": inner}),
        st.fixed_dictionaries({"additionalProperties": inner}),
        st.builds(
            lambda key, parts: {key: parts}, st.sampled_from(["anyOf", "oneOf", "allOf"]), st.lists(inner, min_size=1)
        ),
    ),
    max_leaves=6,
)
VALUES = st.recursive(
    st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=6,
)


@given(
    st.dictionaries(st.sampled_from("ab"), PLACES, max_size=2), PLACES, st.dictionaries(st.sampled_from("ab"), VALUES)
)
def test_values_stay_equal_and_go_on_fitting(properties: dict, definition: object, value: dict) -> None:
    schema = {"properties": properties, "$defs": {"d": definition}}

    seen = convert_numbers(schema, value)

    assert seen == value
    if schemas.find_misfit(schema, value) is None:
        assert schemas.find_misfit(schema, seen) is None
    assert typed(convert_numbers(schema, seen)) == typed(seen)


def test_large_arguments_take_little_time() -> None:
    began = time.process_time()

    convert_numbers(of(rows={"type": "array", "items": of(n=NUMBER)}), {"rows": [{"n": 1}] * 20_000})

    assert time.process_time() - began < 2


@pytest.mark.parametrize("limit", [0, 1000, 4096])
def test_shown_arguments_leave_small_values_alone(limit: int) -> None:
    """A reference in place of a short text would hide it from the rules, and save nothing."""
    shown = arguments.shorten_texts(
        {"to": "x@example.com", "amount": 5.0, "text": "a" * 500, "list": ["b" * 400] * 8}, limit
    )

    assert (shown["to"], shown["amount"]) == ("x@example.com", 5.0)
    assert (shown["list"] != ["b" * 400] * 8) is (limit < 4096)
    assert (shown["text"] != "a" * 500) is (limit < 1000)


def test_reference_says_the_size_of_the_whole() -> None:
    shown = arguments.shorten_texts({"a": "x" * 5000, "b": "y" * 5000, "c": {"d": "z" * 5000}}, 0)

    assert shown["a"]["size"] == 5000
    assert shown["c"]["size"] == len('{"d":""}') + 5000


@pytest.mark.parametrize(
    ("schema", "types"),
    [
        (of(order={"type": "integer"}), ("integer",)),
        (of(order={"type": ["string", "null"]}), ("string", "null")),
        (of(order={"type": ["null", "integer"]}), ("integer", "null")),
        (of(order={"anyOf": [INTEGER, {"type": "null"}]}), ("integer", "null")),
        (of(order={"$ref": "#/$defs/order"}) | {"$defs": {"order": {"type": "string"}}}, ("string",)),
        ({"allOf": [of(order=NUMBER), of(order=INTEGER)]}, ("integer",)),
        ({"oneOf": [of(order=INTEGER), of(order={"type": "string"})]}, ("integer", "string")),
        (of(order={"enum": [1, 2]}), ()),
        (of(order=True), ()),
        (of(), ()),
    ],
)
def test_types_of_an_argument_are_found_wherever_the_schema_says_them(schema: dict, types: tuple[str, ...]) -> None:
    assert list_types(schema, "order") == types
