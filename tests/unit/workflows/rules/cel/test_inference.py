"""Types of expressions before there are values: what is not there is told, what may be there is not."""

from typing import Any

import pytest

from mandate.workflows.rules.cel import evaluation
from mandate.workflows.rules.cel.evaluation import Facts, Unevaluable
from mandate.workflows.rules.cel.inference import Inference
from mandate.workflows.rules.cel.shapes import ANYTHING, KINDS, Shape, list_names, merge, of_kinds, of_schema, take

ROW: dict[str, Any] = {"type": "object", "properties": {"sku": {"type": "string"}, "count": {"type": "integer"}}}
ORDER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "order": {"type": "integer"},
        "total": {"type": "number"},
        "rows": {"type": "array", "items": {"$ref": "#/$defs/Row"}},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "parent": {"$ref": "#"},
        "more": {"type": "object", "additionalProperties": True, "properties": {"a": {"type": "string"}}},
        "order-id": {"type": "string"},
        "free": {},
    },
    "$defs": {"Row": ROW},
}
PROSE = Shape(frozenset({"string"}), "text", "agent 'writer' has no output_schema", is_prose=True)
VARIABLES = {"output": of_schema(ORDER, "output"), "text": PROSE, "input": ANYTHING}


def infer(text: str) -> Inference:
    parsed = evaluation.parse(text)
    assert not isinstance(parsed, Unevaluable), parsed
    return Inference(parsed, VARIABLES)


HAS = "it has free, more, note, order, order-id, parent, rows, total"


@pytest.mark.parametrize(
    ("text", "misfits"),
    [
        ("output.ordr", [f"output has no 'ordr'; did you mean 'order'? {HAS}"]),
        ("output['ordr']", [f"output has no 'ordr'; did you mean 'order'? {HAS}"]),
        ("output.xxx + output.xxx", [f"output has no 'xxx'; {HAS}"]),
        ("output.order.x", ["output.order is a number; it has no 'x'"]),
        ("output.note.x", ["output.note is null or a text; it has no 'x'"]),
        ("output['order-id'].x", ["output['order-id'] is a text; it has no 'x'"]),
        ("output.parent.parent.totl",
         [f"output.parent.parent has no 'totl'; did you mean 'total'? {HAS}"]),
        ("output.rows[0].sk", ["output.rows[0] has no 'sk'; did you mean 'sku'? it has count, sku"]),
        ("output.rows.map(r, r.cont)", ["output.rows[0] has no 'cont'; did you mean 'count'? it has count, sku"]),
        ("output.rows.filter(r, r.cont > 1)",
         ["output.rows[0] has no 'cont'; did you mean 'count'? it has count, sku"]),
        ("output.rows.filter(r, r.count > 1).map(r, r.cont)",
         ["output.rows[0] has no 'cont'; did you mean 'count'? it has count, sku"]),
        ("output.rows.exists(r, r.nope)", ["output.rows[0] has no 'nope'; it has count, sku"]),
        ("output.rows.all(r, output.nope == r.sku)", [f"output has no 'nope'; did you mean 'note'? {HAS}"]),
        ("[output.nope, {'a': output.order.b}]",
         [f"output has no 'nope'; did you mean 'note'? {HAS}", "output.order is a number; it has no 'b'"]),
        ("{'a': output}.b", ["what it reads has no 'b'; it has a"]),
        ("(input.x ? output : output).nope", [f"output has no 'nope'; did you mean 'note'? {HAS}"]),
        ("has(output.nope)", [f"output has no 'nope'; did you mean 'note'? {HAS}"]),
        ("text.title", ["text is a text, since agent 'writer' has no output_schema; it has no 'title'"]),
        ("text[0]", ["text is a text, since agent 'writer' has no output_schema; it has no items"]),
        ("text.map(t, t)",
         ["text is a text, since agent 'writer' has no output_schema; a loop goes through lists"]),
        ("output.order.map(t, t)", ["output.order is a number; a loop goes through lists"]),
    ],
)  # fmt: skip
def test_what_is_not_there_is_told(text: str, misfits: list[str]) -> None:
    assert infer(text).misfits == misfits


@pytest.mark.parametrize(
    "text",
    [
        "input.whatever.x[3]",
        "output.more.anything.x",
        "output.free.anything",
        "output.rows.map(output, output.sku)",
        "output.rows.map(r, {'a': r.sku}).map(x, x.a)",
        "output.parent.parent.parent.rows[1].count",
        "input.map(x, x.a)",
        "output.map(key, output[key])",
        "(output == null ? null : output).total",
        "string(output.order) + text",
        "unknown.x",
    ],
)
def test_what_may_be_there_is_not_told(text: str) -> None:
    assert infer(text).misfits == []


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("'a'", "string"), ("1", "number"), ("1.5", "number"), ("true", "boolean"), ("null", "null"),
        ("[1]", "array"), ("{'a': 1}", "object"), ("input.x > 1 && input.y", "boolean"), ("!input.x", "boolean"),
        ("size(input)", "number"), ("'a' + text", "string"), ("1 + 2", "number"), ("[1] + [2]", "array"),
        ("input.map(x, x)", "array"), ("input.filter(x, x)", "array"), ("input.all(x, x)", "boolean"),
        ("input.exists(x, x)", "boolean"), ("input.exists_one(x, x)", "boolean"), ("output.rows[0].sku", "string"),
        ("output.rows.map(r, r.count)[0]", "number"), ("input.x ? 'a' : text", "string"),
        ("output.note", "null string"), ("input.x ? 1 : 'a'", "number string"),
        ("input.x ? null : output.rows", "array null"),
        ("'a' in input", "boolean"), ("input.startsWith('a')", "boolean"),
        ("google.protobuf.StringValue{value: 'x'}", ""),
        ("input", ""), ("input - 1", ""), ("input + 1", ""), ("timestamp(input.at)", ""),
        ("output.more.x", ""), ("{input.x: 1}", ""), ("b'a'", ""),
    ],
)  # fmt: skip
def test_type_of_an_expression_is_known_or_anything(text: str, kinds: str) -> None:
    assert infer(text).shape.kinds == (frozenset(kinds.split()) or KINDS)


@pytest.mark.parametrize(
    ("schema", "kinds"),
    [
        (True, ""), ({}, ""), ({"type": ["integer", "null"]}, "number null"), ({"enum": ["a", 1, None, True, [], {}]},
         "string number null boolean array object"), ({"const": "a"}, "string"), ({"$ref": "#/nowhere"}, ""),
        ({"$ref": "#"}, ""), ({"anyOf": [{"type": "string"}, {"type": "integer"}]}, "string number"),
        ({"oneOf": [{"type": "string"}, {}]}, ""), ({"allOf": [{"type": "string"}]}, "string"),
        ({"allOf": [{"type": "string"}, {"minLength": 1}]}, ""), ({"properties": {}}, "object"),
        ({"type": "strnig"}, ""), ({"type": []}, ""), ({"enum": []}, ""),
    ],
)  # fmt: skip
def test_types_of_schemas(schema: Any, kinds: str) -> None:
    assert of_schema(schema).kinds == (frozenset(kinds.split()) or KINDS)


def test_members_are_open_where_a_schema_opens_them() -> None:
    opened = [
        {"type": "object"},
        {"type": "object", "properties": {"a": {}}, "additionalProperties": {"type": "string"}},
        {"type": "object", "properties": {"a": {}}, "patternProperties": {"^x": {}}},
        {"type": "object", "properties": {"a": {}}, "anyOf": [{"properties": {"b": {}}}, {"required": ["a"]}]},
        {"type": "object", "properties": {"a": {}}, "if": {"required": ["a"]}, "then": {"properties": {"b": {}}}},
    ]

    assert [take(of_schema(schema), "b") for schema in opened] == [ANYTHING] * 5
    assert take(of_schema({"type": "object", "additionalProperties": False}), "b") == (
        "what it reads has no 'b'; it has nothing"
    )


def test_one_of_several_is_what_all_are() -> None:
    assert merge([]) == ANYTHING
    assert merge([PROSE, PROSE]) == PROSE
    assert merge([PROSE, of_kinds("null")]).is_prose
    assert not merge([PROSE, of_kinds("string")]).is_prose


def test_many_names_are_not_all_listed() -> None:
    assert list_names(f"n{number:02}" for number in range(14)) == (
        "n00, n01, n02, n03, n04, n05, n06, n07, n08, n09, n10, n11 and 2 more"
    )


@pytest.mark.parametrize(
    "text",
    ["output.rows.map(r, r.sku)", "output.order + 1", "output.rows.filter(r, r.count > 1)", "string(output.total)",
     "output.rows.exists(r, r.sku == 'a')", "{'a': output.note}", "output.note == null ? 'x' : output.note",
     "size(output.rows)", "output.rows[0]"],
)  # fmt: skip
def test_values_are_of_the_type_that_was_inferred(text: str) -> None:
    value: Any = {"order": 1, "total": 2.5, "rows": [{"sku": "a", "count": 2}], "note": None}
    kinds = {dict: "object", list: "array", str: "string", bool: "boolean", int: "number", float: "number"}

    found = Facts({"output": value}).value(text)

    assert kinds[type(found)] in infer(text).shape.kinds
