"""Arguments that a schema takes and needs, wherever it says so."""

import pytest

from mandate.activities.toolbox.schema_names import list_arguments, list_required

ORDER = {"type": "object", "properties": {"order": {}, "note": {}}, "required": ["order"]}


@pytest.mark.parametrize(
    ("schema", "names", "required"),
    [
        ({}, (), ()),
        (ORDER, ("order", "note"), ("order",)),
        (ORDER | {"additionalProperties": False}, ("order", "note"), ("order",)),
        (ORDER | {"additionalProperties": True}, None, ("order",)),
        (ORDER | {"additionalProperties": {"type": "string"}}, None, ("order",)),
        (ORDER | {"patternProperties": {"^x": {}}}, None, ("order",)),
        ({"$ref": "#/$defs/a", "$defs": {"a": ORDER}}, ("order", "note"), ("order",)),
        ({"$ref": "#/$defs/b", "$defs": {"a": ORDER}}, None, ()),
        (
            {"allOf": [ORDER, {"properties": {"key": {}}, "required": ["key"]}]},
            ("order", "note", "key"),
            ("order", "key"),
        ),
        ({"anyOf": [ORDER, {"properties": {"key": {}}, "required": ["key"]}]}, ("order", "note", "key"), ()),
        ({"properties": {"key": {}}, "if": ORDER}, ("key", "order", "note"), ()),
        ({"required": ["order", "order"]}, ("order",), ("order",)),
    ],
)
def test_arguments_are_found_wherever_the_schema_says_them(
    schema: dict, names: tuple[str, ...] | None, required: tuple[str, ...]
) -> None:
    assert (list_arguments(schema), list_required(schema)) == (names, required)
