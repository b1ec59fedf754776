"""Forms of MCP servers: what people are shown, and how what they answer is read."""

from typing import Any

import pytest
from pydantic import JsonValue

from mandate.activities.toolbox.forms import describe_form, read_answer, read_form


def form(*, needed: tuple[str, ...] = (), **fields: Any) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": list(needed)}


FIELDS = form(
    name={"type": "string", "title": "Name", "description": "Yours"},
    age={"type": "integer"},
    share={"type": "number"},
    sure={"type": "boolean"},
    colour={"type": "string", "enum": ["r", "g"], "enumNames": ["red", "green"]},
    size={"type": "string", "oneOf": [{"const": "s", "title": "small"}, {"const": "l"}]},
    days={"type": "array", "items": {"type": "string", "enum": ["mo", "tu"]}},
    needed=("name",),
)


def test_all_fields_are_described_in_words() -> None:
    assert describe_form(read_form(FIELDS, ())) == (
        "- name (text): Name. Yours\n"
        "- age (whole number; may be left out)\n"
        "- share (number; may be left out)\n"
        "- sure (yes or no; may be left out)\n"
        "- colour (one of r (red), g (green); may be left out)\n"
        "- size (one of s (small), l; may be left out)\n"
        "- days (some of mo, tu; may be left out)\n"
        'answer with JSON, for example {"name": "...", "age": 1, "share": 1, "sure": true, "colour": "r", '
        '"size": "s", "days": ["mo"]}'
    )


def test_a_form_without_fields_is_confirmed() -> None:
    empty = read_form(form(), ())

    assert describe_form(empty) == "there is nothing to fill in: any answer confirms it"
    assert [read_answer(empty, value) for value in ("yes", None, {})] == [{}, {}, {}]


@pytest.mark.parametrize(
    ("field", "value", "content"),
    [
        ({"type": "boolean"}, "yes", True),
        ({"type": "boolean"}, " No ", False),
        ({"type": "boolean"}, True, True),
        ({"type": "integer"}, "12", 12),
        ({"type": "number"}, "1.5", 1.5),
        ({"type": "string"}, "12", "12"),
        ({"type": "string"}, "yes", "yes"),
        ({"type": "string", "enum": ["r", "g"]}, "g", "g"),
        ({"type": "array", "items": {"type": "string", "enum": ["mo", "tu"]}}, "mo, tu", ["mo", "tu"]),
        ({"type": "boolean"}, '{"x": false}', False),
        ({"type": "boolean"}, {"x": False}, False),
    ],
)
def test_the_value_of_the_only_field_is_enough(field: dict[str, Any], value: JsonValue, content: JsonValue) -> None:
    assert read_answer(read_form(form(x=field, needed=("x",)), ()), value) == {"x": content}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ({"type": "boolean"}, "perhaps"),
        ({"type": "integer"}, "1.5"),
        ({"type": "integer"}, "twelve"),
        ({"type": "string", "enum": ["r", "g"]}, "b"),
        ({"type": "string", "minLength": 3}, "ab"),
        ({"type": "string"}, {"y": "a"}),
        ({"type": "string"}, {"x": "a", "y": "b"}),
        ({"type": "string"}, {}),
        ({"type": "string"}, None),
        ({"type": "string"}, 5),
    ],
)
def test_an_answer_that_does_not_fit_is_refused(field: dict[str, Any], value: JsonValue) -> None:
    with pytest.raises(ValueError, match=r"^it does not fit the form: "):
        read_answer(read_form(form(x=field, needed=("x",)), ()), value)


def test_what_is_sensitive_is_left_out_or_refused() -> None:
    fields = {"pin": {"type": "string"}, "ok": {"type": "boolean"}}

    kept = read_form(form(**fields), ("PIN",))
    with pytest.raises(ValueError, match=r"^it asks for 'pin', which is sensitive: "):
        read_form(form(**fields, needed=("pin",)), ("PIN",))

    assert list(kept["properties"]) == ["ok"]  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="pin"):
        read_answer(kept, {"ok": True, "pin": "1"})
