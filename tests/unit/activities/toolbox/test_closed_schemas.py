"""Schemas closed where they say nothing: what policy cannot name is not sent, and declared calls stay possible."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mandate.activities.toolbox.argument_names import find_name_fault
from mandate.activities.toolbox.closed_schemas import close_schema, find_open_places, open_schema
from mandate.activities.toolbox.schema import check_schema, find_misfit
from tests.support.examples import examples

AMOUNT: dict[str, Any] = {"type": "object", "properties": {"amount": {"type": "number"}}, "required": ["amount"]}
ITEM: dict[str, Any] = {"type": "object", "properties": {"price": {"type": "number"}}}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


@pytest.mark.parametrize(
    ("schema", "fits", "refused"),
    [
        (AMOUNT, [{"amount": 1}], [{"amount": 1, "approved": True}]),
        ({"type": "object"}, [{}], [{"a": 1}]),
        (_object(pay=ITEM), [{}, {"pay": {}}, {"pay": {"price": 1}}], [{"pay": {"x": 1}}, {"x": {}}]),
        (_object(items={"type": "array", "items": ITEM}), [{"items": [{"price": 1}, {}]}], [{"items": [{}, {"x": 1}]}]),
        (_object(labels={"type": "object"}), [{"labels": {"any": "thing"}}], [{"label": {}}]),
        (_object(a={"additionalProperties": ITEM}), [{"a": {"k": {"price": 1}}}], [{"a": {"k": {"x": 1}}}]),
        # Names are spread over branches: closed by the union.
        (
            {"type": "object", "allOf": [_object(a={}), _object(b=ITEM)]},
            [{"a": 1, "b": {"price": 1}}],
            [{"a": 1, "c": 1}, {"b": {"x": 1}}],
        ),
        (
            {"type": "object", "allOf": [_object(p=_object(a={})), _object(p=_object(b={}))]},
            [{"p": {"a": 1, "b": 1}}],
            [{"p": {"a": 1, "c": 1}}],
        ),
        (
            {
                "type": "object",
                "properties": {"kind": {}},
                "if": {"properties": {"kind": {"const": "card"}}},
                "then": {"properties": {"card": {}}, "required": ["card"]},
                "else": {"properties": {"iban": {}}},
            },
            [{"kind": "card", "card": "4"}, {"kind": "iban", "iban": "D"}],
            [{"kind": "card", "card": "4", "x": 1}],
        ),
        # An alternative that says nothing of a name is no way around what another says of it.
        (
            {"type": "object", "anyOf": [_object(pay=ITEM), {"required": ["pay"]}]},
            [{"pay": {"price": 1}}, {"pay": 5}],
            [{"pay": {"price": 1, "x": 1}}],
        ),
        (
            {"type": "object", "oneOf": [{**_object(pay=ITEM), "required": ["pay"]}, {"required": ["id"]}]},
            [{"pay": {"price": 1}}, {"id": 1}],
            [{"pay": {"x": 1}, "id": 1}, {"id": 1, "pay": {"x": 1}}],
        ),
        # Used by itself and as a part of something larger.
        (
            {
                **_object(one={"$ref": "#/$defs/Base"}, more={"allOf": [{"$ref": "#/$defs/Base"}, _object(m={})]}),
                "$defs": {"Base": _object(n={})},
            },
            [{"one": {"n": 1}, "more": {"n": 1, "m": 1}}],
            [{"one": {"n": 1, "m": 1}}, {"more": {"n": 1, "x": 1}}],
        ),
        (
            {
                "$schema": "http://json-schema.org/draft-07/schema#",
                **_object(one={"$ref": "#/definitions/B"}, two={"allOf": [{"$ref": "#/definitions/B"}, _object(m={})]}),
                "definitions": {"B": _object(n={})},
            },
            [{"one": {"n": 1}, "two": {"n": 1, "m": 1}}],
            [{"one": {"n": 1, "m": 1}}, {"two": {"x": 1}}],
        ),
        # Recursive.
        (
            {
                **_object(tree={"$ref": "#/$defs/Tree"}),
                "$defs": {"Tree": _object(n={}, kids={"type": "array", "items": {"$ref": "#/$defs/Tree"}})},
            },
            [{"tree": {"n": 1, "kids": [{"kids": []}]}}],
            [{"tree": {"kids": [{"kids": [{"x": 1}]}]}}],
        ),
        (_object(maybe={"anyOf": [ITEM, {"type": "null"}]}), [{"maybe": None}, {"maybe": {}}], [{"maybe": {"x": 1}}]),
        ({"type": "object", "patternProperties": {"^x-": {}}}, [{"x-a": 1}], [{"a": 1}]),
        ({"type": "object", "required": ["id"]}, [{"id": 1}], [{"id": 1, "a": 1}]),
        # Names of listed values are declared by them.
        ({"type": "object", "enum": [{"a": 1}, {"b": 1}]}, [{"a": 1}, {"b": 1}], [{"a": 2}, {"c": 1}]),
        ({"type": "object", "const": {"a": 1}}, [{"a": 1}], [{}, {"a": 1, "b": 1}]),
        # Written by whoever wrote the schema.
        ({**AMOUNT, "additionalProperties": True}, [{"amount": 1, "approved": True}], []),
        ({**AMOUNT, "additionalProperties": {"type": "string"}}, [{"amount": 1, "a": "b"}], [{"amount": 1, "a": 1}]),
        ({**AMOUNT, "unevaluatedProperties": True}, [{"amount": 1, "a": "b"}], []),
        (_object(pay={**ITEM, "additionalProperties": True}), [{"pay": {"x": 1}}], [{"x": 1}]),
    ],
)
def test_schema_is_closed_where_it_says_nothing(schema: dict[str, Any], fits: list[Any], refused: list[Any]) -> None:
    made = close_schema(schema)

    check_schema(made)
    assert close_schema(made) == made
    for value in fits:
        assert find_misfit(made, value) is None, value
        assert find_name_fault(made, value) is None, value
    for value in refused:
        assert find_misfit(made, value) is not None, value


@pytest.mark.parametrize(
    ("schema", "places"),
    [
        (AMOUNT, ("arguments",)),
        ({**AMOUNT, "additionalProperties": False}, ()),
        (_object(pay=ITEM, labels={"type": "object"}), ("arguments", "pay")),
        (_object(items={"type": "array", "items": ITEM}), ("arguments", "items[]")),
        ({**AMOUNT, "$ref": "#anchor"}, ("arguments",)),
    ],
)
def test_places_that_are_open_are_named(schema: dict[str, Any], places: tuple[str, ...]) -> None:
    assert find_open_places(schema) == places


def test_what_only_the_file_may_open_is_closed_although_the_server_says_otherwise() -> None:
    schema = {
        **_object(
            pay={**ITEM, "additionalProperties": True},
            labels={"type": "object", "additionalProperties": {"type": "string"}},
            free={"type": "object", "additionalProperties": True},
        ),
        "additionalProperties": {},
    }

    made = close_schema(schema, only_file_opens=True)

    assert find_open_places(made) == ()
    assert find_misfit(made, {"labels": {"a": "b"}, "free": {"a": 1}, "pay": {"price": 1}}) is None
    assert find_open_places(open_schema(schema)) == ("arguments", "pay")
    assert find_open_places(open_schema(AMOUNT)) == ("arguments",)


def test_schema_that_needs_more_than_it_declares_stays_and_is_named() -> None:
    schema = {"type": "object", "minProperties": 1}

    assert close_schema(schema) == schema
    assert find_open_places(schema) == ("arguments",)


def test_schema_that_branches_without_end_is_refused() -> None:
    """A stranger's: each definition needs two of the next in two ways."""
    defs: dict[str, Any] = {
        f"d{n}": {
            "allOf": [
                _object(a={"$ref": f"#/$defs/d{n + 1}"}, b={"$ref": f"#/$defs/d{n + 1}"}),
                _object(a={"$ref": f"#/$defs/d{n + 2}"}, b={}),
            ]
        }
        for n in range(40)
    } | {"d40": ITEM, "d41": ITEM}
    schema = {"type": "object", "properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": defs}

    with pytest.raises(ValueError, match="the schema describes more than 5000 different values"):
        close_schema(schema)


@pytest.mark.parametrize(
    ("schema", "value", "says"),
    [
        ({"type": "object"}, {"a": 1, "A": 2}, "'A' and 'a' are one name to many receivers; give only one of them"),
        (AMOUNT, {"amount": 50, "Amount": 5000}, "'Amount' and 'amount' are one name to many receivers"),
        (AMOUNT, {"Amount": 5000}, "'Amount' is not known here, and many receivers read it as 'amount'"),
        (AMOUNT, {"amount": 1, "a_mount": 1}, "'a_mount' and 'amount' are one name"),
        (_object(order_id={}), {"orderId": 1}, "many receivers read it as 'order_id'; write 'order_id'"),
        (_object(order_id={}, orderId={}), {"order_id": 1, "orderId": 2}, "'orderId' and 'order_id' are one name"),
        (AMOUNT, {"amount": 1, "\uff41mount": 1}, "are one name to many receivers"),
        ({"type": "object"}, {"\u212aey": 1, "key": 2}, "are one name to many receivers"),
        ({"type": "object"}, {"\u017fize": 1, "size": 2}, "are one name to many receivers"),
        ({"type": "object"}, {"a": [{"b": {"c": 1, "C": 2}}]}, "a[0].b: 'C' and 'c' are one name"),
        (_object(pay=ITEM), {"pay": {"Price": 1}}, "pay: 'Price' is not known here"),
        (_object(items={"type": "array", "items": ITEM}), {"items": [{}, {"PRICE": 1}]}, "items[1]: 'PRICE' is not"),
    ],
)
@pytest.mark.parametrize("is_open", [False, True])
def test_names_that_fold_to_one_are_refused_whatever_the_schema_says(
    schema: dict[str, Any], value: dict[str, Any], says: str, is_open: bool
) -> None:
    fault = find_name_fault({**schema, "additionalProperties": True} if is_open else schema, value)

    assert fault is not None
    assert says in fault


@pytest.mark.parametrize(
    "value",
    [
        {"order_id": 1},
        {"orderId": 1},
        {"labels": {"1-2": "a", "12": "b", "a_b": 1, "ab": 2}},
        {"_": 1, "-": 2},
    ],
)
def test_names_that_are_told_apart_are_taken(value: dict[str, Any]) -> None:
    """Keys of a map without declared names are data; names that both are declared may each be given."""
    schema = {**_object(order_id={}, orderId={}, labels={"type": "object"}), "additionalProperties": True}

    assert find_name_fault(schema, value) is None


@pytest.mark.parametrize(
    ("schema", "value", "says"),
    [
        (AMOUNT, {"amount": 1, "approved": 1}, "'approved' is no argument of this tool; there are: amount"),
        (AMOUNT, {"x": 1, "y": 2}, "'x', 'y' are no arguments of this tool; there are: amount"),
        ({"type": "object"}, {"x": 1}, "'x' is no argument of this tool; there are: none"),
        (_object(pay=ITEM), {"pay": {"x": 1}}, "pay: 'x' is not known here; there are: price"),
    ],
)
def test_sentence_names_the_argument_and_what_is_allowed(
    schema: dict[str, Any], value: dict[str, Any], says: str
) -> None:
    assert find_name_fault(close_schema(schema), value) == says


NAMES = st.sampled_from(["a", "b", "c", "d"])
LEAVES: list[Any] = [{}, {"type": "integer"}, {"type": "object"}, {"type": "array"}]


def _grown(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    objects = st.dictionaries(NAMES, inner, min_size=1, max_size=3).map(
        lambda properties: {"type": "object", "properties": properties}
    )
    lists = inner.map(lambda items: {"type": "array", "items": items})
    joined = st.tuples(st.sampled_from(["allOf", "anyOf", "oneOf"]), st.lists(inner, min_size=1, max_size=3)).map(
        lambda made: {made[0]: made[1]}
    )
    both = st.tuples(objects, joined).map(lambda made: {**made[0], **made[1]})
    chosen = st.tuples(inner, inner, inner).map(lambda made: dict(zip(("if", "then", "else"), made, strict=True)))
    referring = inner.map(lambda _: {"$ref": "#/$defs/one"})
    return objects | lists | joined | both | chosen | referring


SCHEMAS = st.recursive(st.sampled_from(LEAVES), _grown, max_leaves=8)
ROOTS = st.tuples(SCHEMAS, st.recursive(st.sampled_from(LEAVES), _grown, max_leaves=4), st.booleans()).map(
    lambda made: {
        **({"$schema": "http://json-schema.org/draft-07/schema#"} if made[2] else {}),
        "type": "object",
        "allOf": [made[0]],
        "$defs": {"one": made[1] if "#/$defs" not in str(made[1]) else ITEM},
    }
)
VALUES = st.dictionaries(
    NAMES | st.just("x"),
    st.recursive(
        st.integers(), lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES | st.just("x"), inner)
    ),
    max_size=3,
)


def _without_x(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_x(item) for name, item in value.items() if name != "x"}
    return [_without_x(item) for item in value] if isinstance(value, list) else value


@examples(400)
@given(ROOTS, VALUES)
def test_closing_only_ever_refuses_names_that_are_not_declared(schema: dict[str, Any], value: dict[str, Any]) -> None:
    """`x` is declared nowhere."""
    made = close_schema(schema)

    assert close_schema(made) == made
    if find_misfit(made, value) is None:
        assert find_misfit(schema, value) is None or find_name_fault(schema, value) is not None
        assert "x" not in value
    elif find_misfit(schema, value) is None:
        assert find_name_fault(made, value) is not None


@examples(200)
@given(ROOTS)
def test_nothing_is_open_after_closing(schema: dict[str, Any]) -> None:
    assert find_open_places(close_schema(schema)) == ()
