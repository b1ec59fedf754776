"""Arguments as models write them, and JSON Schema: what is refused, and how it is said."""

import json
import re
import timeit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mandate.activities.toolbox.schema import MAX_DEPTH, check_schema, find_misfit, parse_arguments
from mandate.workflows.contracts.base import JsonObject

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.text(st.characters(codec="utf-8")), JSON_VALUES, max_size=5)


@given(OBJECTS, st.booleans())
def test_any_object_in_range_is_read_as_it_was_written(value: JsonObject, ascii_only: bool) -> None:
    assert parse_arguments(json.dumps(value, ensure_ascii=ascii_only)) == value


@given(st.text() | st.text(alphabet='{}[]",:0123456789eE+-.\\unaNIftylrs \ud800'))
def test_no_text_raises_anything_but_a_value_error(text: str) -> None:
    try:
        parsed = parse_arguments(text)
    except ValueError as error:
        said = str(error)
    else:
        assert isinstance(parsed, dict)
        return

    assert "\n" not in said
    assert len(said) < 300
    assert said.isprintable()


@pytest.mark.parametrize("text", ["", "  ", "\n", "{}", " {} "])
def test_no_arguments_are_an_empty_object(text: str) -> None:
    assert parse_arguments(text) == {}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[1]", "the arguments must be a JSON object, not a list"),
        ("null", "the arguments must be a JSON object, not null"),
        ("1.5", "the arguments must be a JSON object, not a number"),
        ('"x"', "the arguments must be a JSON object, not a text"),
        ("true", "the arguments must be a JSON object, not a boolean"),
        (
            '{"a": 1',
            "the arguments are not valid JSON: Expecting ',' delimiter at line 1 column 8",
        ),
        ('{"a": 1} x', "the arguments are not valid JSON: Extra data at line 1 column 10"),
        ('{"a": "\n"}', "the arguments are not valid JSON: Invalid control character at at line 1 column 8"),
        ('{"a": NaN}', "a: NaN, infinities and numbers beyond 1.8e308 are not allowed"),
        ('{"a": [0, -Infinity]}', "a[1]: NaN, infinities and numbers beyond 1.8e308 are not allowed"),
        ('{"a": 1e999}', "a: NaN, infinities and numbers beyond 1.8e308 are not allowed"),
        ('{"a": 1, "a": 1}', "the arguments: the key 'a' is given twice"),
        ('{"a": 1, "\\u0061": 2}', "the arguments: the key 'a' is given twice"),
        ('{"x": [{"y y": {"a": 1, "b": 2, "a": 3}}]}', "x[0]['y y']: the key 'a' is given twice"),
        ('{"a": 9223372036854775808}', "a: the integer is beyond 64 bits; write it as a text"),
        ('{"a": -9223372036854775809}', "a: the integer is beyond 64 bits; write it as a text"),
        ('{"a": ' + "9" * 5000 + "}", "a: the integer is beyond 64 bits; write it as a text"),
        ('{"a": "\\ud800"}', "a: the text holds \\ud800, half of a surrogate pair"),
        ('{"b": {"\\udfff": 1}}', "b: a key holds \\udfff, half of a surrogate pair"),
        ('{"a": "\ud800"}', "a: the text holds \\ud800, half of a surrogate pair"),
        ('{"a": ' * 65 + "1" + "}" * 65, "the arguments are nested too deep; at most 64 levels are allowed"),
        ('{"a":' + "[" * 100_000, "the arguments are nested too deep; at most 64 levels are allowed"),
    ],
)
def test_arguments_without_one_meaning_are_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
        parse_arguments(text)


def test_the_deepest_allowed_arguments_and_the_largest_integers_are_read() -> None:
    deepest = '{"a": ' * MAX_DEPTH + "1" + "}" * MAX_DEPTH

    assert parse_arguments(deepest) == json.loads(deepest)
    assert parse_arguments('{"a": 9223372036854775807, "b": -9223372036854775808}') == {"a": 2**63 - 1, "b": -(2**63)}
    assert parse_arguments('{"a": "\\ud83d\\ude00"}') == {"a": "😀"}


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"},
        {"$schema": "https://json-schema.org/draft/2020-12/schema"},
        {
            "$schema": "http://json-schema.org/draft-04/schema#",
            "properties": {"n": {"minimum": 1, "exclusiveMinimum": True}},
        },
        {"$defs": {"node": {"properties": {"next": {"$ref": "#/$defs/node"}}}}, "$ref": "#/$defs/node"},
        {"properties": {"$ref": {"type": "string"}, "default": {"type": "string"}}},
        {"properties": {"a": {"default": {"$ref": "http://elsewhere/"}, "const": {"$ref": "x"}}}},
        {"properties": {"a": {"format": "made-up"}}},
    ],
)
def test_a_usable_schema_is_accepted(schema: JsonObject) -> None:
    check_schema(schema)


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "array"}, "the schema must be for an object, not type 'array'"),
        ({"type": ["object", "null"]}, "the schema must be for an object, not type ['object', 'null']"),
        ({"$ref": "http://127.0.0.1:9/x"}, "$ref: 'http://127.0.0.1:9/x' leaves the schema; only '#...' is allowed"),
        (
            {"properties": {"default": {"$ref": "file:///etc/passwd"}}},
            "properties.default.$ref: 'file:///etc/passwd' leaves the schema; only '#...' is allowed",
        ),
        ({"not": {"$dynamicRef": "other"}}, "not.$dynamicRef: 'other' leaves the schema; only '#...' is allowed"),
        ({"$ref": "#/$defs/gone"}, "the schema is not valid: Pointer '/$defs/gone' does not exist"),
        (
            {"properties": {"a": {"pattern": "("}}},
            'the schema is not valid: properties.a.pattern: "(" is not a "regex"',
        ),
        ({"properties": []}, 'the schema is not valid: properties: [] is not of type "object"'),
        (
            {"$schema": "http://127.0.0.1:9/x"},
            (
                "the schema is not valid: $schema names no draft that is known: 2020-12, 2019-09, draft-07, draft-06 "
                "and draft-04 are"
            ),
        ),
    ],
)
def test_an_unusable_schema_is_refused_with_its_fault(schema: JsonObject, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
        check_schema(schema)


def test_a_schema_nested_without_end_is_refused() -> None:
    schema: JsonObject = {}
    for _ in range(5000):
        schema = {"properties": {"a": schema}}

    with pytest.raises(ValueError, match="nested too deep"):
        check_schema(schema)


ORDER: JsonObject = {
    "type": "object",
    "properties": {
        "order": {"type": "integer", "minimum": 1},
        "state": {"enum": ["open", "paid"]},
        "note": {"type": "string", "maxLength": 5},
        "lines": {"type": "array", "items": {"properties": {"price": {"type": "number"}}}},
        "ref": {"anyOf": [{"type": "string"}, {"properties": {"id": {"type": "integer"}}, "type": "object"}]},
        "card": {"type": "object", "properties": {"pin": {"pattern": "^[0-9]+$"}}, "additionalProperties": False},
    },
    "required": ["order"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"order": 1}, None),
        ({"order": 1, "state": "open", "lines": [{"price": 1.5}], "ref": {"id": 3}}, None),
        ({}, '"order" is a required property'),
        ({"order": "x"}, 'order: "x" is not of type "integer"'),
        ({"order": 0}, "order: 0 is less than the minimum of 1"),
        ({"order": 1, "state": "lost"}, 'state: "lost" is not one of "open" or "paid"'),
        ({"order": 1, "note": "n" * 99}, f'note: "{"n" * 38}… is longer than 5 characters'),
        ({"order": 1, "lines": [{}, {"price": "1"}]}, 'lines[1].price: "1" is not of type "number"'),
        ({"order": 1, "extra": 2}, "Additional properties are not allowed ('extra' was unexpected)"),
        (
            {"order": 1, "ref": {"id": "x"}},
            'ref: {"id": "x"} fits no alternative (it is not of type "string" | id: it is not of type "integer")',
        ),
        ({"order": 1.5, "note": 5}, 'order: 1.5 is not of type "integer"; note: 5 is not of type "string"'),
        ("text", '"text" is not of type "object"'),
    ],
)
def test_a_misfit_says_where_what_and_what_is_allowed(value: JsonObject, reason: str | None) -> None:
    found = find_misfit(ORDER, value)

    if reason is not None and ": " not in reason:
        assert found == reason.replace('"text"', "the value")
    else:
        assert sorted((found or "").split("; ")) == sorted((reason or "").split("; "))


def test_a_misfit_shows_three_faults_in_300_characters() -> None:
    schema: JsonObject = {"properties": {name: {"enum": ["long " * 50]} for name in "abcde"}}

    found = find_misfit(schema, dict.fromkeys("abcde", "x"))

    assert found is not None
    assert len(found) <= 300
    assert found.count("is not") == 3


@pytest.mark.parametrize(
    ("card", "reason"),
    [
        ("4111-secret", 'card: the value is not of type "object"'),
        ({"pin": "4111-secret"}, 'card: the value does not match "^[0-9]+$"'),
        ({"4111-secret": 1}, "card: the value has properties that are not allowed"),
    ],
)
def test_nothing_of_a_sensitive_argument_is_told(card: JsonObject, reason: str) -> None:
    assert find_misfit(ORDER, {"order": 1, "card": card}, sensitive=("card",)) == reason


def test_a_rule_over_all_arguments_tells_nothing_of_a_sensitive_one() -> None:
    schema: JsonObject = {"anyOf": [{"properties": {"pin": {"const": 1}}}, {"required": ["other"]}]}

    found = find_misfit(schema, {"pin": "4111-secret"}, sensitive=("pin",))

    assert found == 'the value fits no alternative (1 was expected | "other" is a required property)'


def test_formats_are_not_judged() -> None:
    schema: JsonObject = {"$schema": "http://json-schema.org/draft-07/schema#", "properties": {"d": {"format": "date"}}}

    assert find_misfit(schema, {"d": "tomorrow"}) is None


def test_checking_a_fitting_value_again_costs_microseconds() -> None:
    value: JsonObject = {"order": 1, "state": "open", "lines": [{"price": 1.5}]}
    find_misfit(ORDER, value)

    best = min(timeit.repeat(lambda: find_misfit(ORDER, value), number=200, repeat=5)) / 200

    assert best < 100e-6
