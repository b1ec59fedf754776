"""Forms that MCP servers want filled in: what people are shown of them, and how their answers are read."""

import json
from collections.abc import Sequence

from pydantic import JsonValue

from mandate.activities.toolbox.schema import check_schema, find_misfit
from mandate.workflows.contracts.base import JsonObject, canonical_json
from mandate.workflows.rules.names import is_sensitive
from mandate.workflows.rules.plain_text import shorten

MOST_FIELDS = 30
MOST_BYTES = 16 * 1024
_KINDS = {"string": "text", "number": "number", "integer": "whole number", "boolean": "yes or no"}
_WORDS = {"yes": True, "y": True, "true": True, "no": False, "n": False, "false": False}


def read_form(schema: JsonValue, sensitive: Sequence[str]) -> JsonObject:
    """Return the form that people are asked to fill in: without what must not be sent in clear, and with nothing else.

    Raises:
        ValueError: it is no form of the protocol's kind, or demands what is sensitive; one sentence.
    """
    if not isinstance(schema, dict) or schema.get("type") != "object" or not isinstance(schema.get("properties"), dict):
        raise ValueError("its form is no JSON Schema of an object with properties")
    if len(canonical_json(schema)) > MOST_BYTES:
        raise ValueError(f"its form is larger than {MOST_BYTES:,} bytes")
    fields = _fields(schema)
    if len(fields) > MOST_FIELDS:
        raise ValueError(f"its form has {len(fields)} fields; at most {MOST_FIELDS} are asked for")
    check_schema(schema)
    for name, field in fields.items():
        if _describe_kind(field) is None:
            raise ValueError(f"its field {shorten(name, 60)!r} is no text, number, choice or yes and no")
    needed = _required(schema)
    hidden = [name for name in fields if is_sensitive(name, sensitive)]
    if demanded := next((name for name in hidden if name in needed), None):
        raise ValueError(f"it asks for {demanded!r}, which is sensitive: what people send stays in the run's history")
    kept: JsonObject = {name: field for name, field in fields.items() if name not in hidden}
    return {
        "type": "object",
        "properties": kept,
        "required": [name for name in needed if name in kept],
        "additionalProperties": False,
    }


def describe_form(form: JsonObject) -> str:
    """Write the fields of a form, one a line, and how they are answered."""
    fields, needed = _fields(form), _required(form)
    lines = [_describe_field(name, field, needed=name in needed) for name, field in fields.items()]
    if not fields:
        return "there is nothing to fill in: any answer confirms it"
    example = json.dumps({name: _example(field) for name, field in fields.items()}, ensure_ascii=False)
    ways = f"answer with JSON, for example {shorten(example, 500)}"
    return "\n".join((*lines, f"{ways}, or with the value alone" if len(fields) == 1 else ways))


def read_answer(form: JsonObject, value: JsonValue) -> JsonObject:
    """Return what a person put into a form: an object, a text with its JSON, or the value of its only field.

    Raises:
        ValueError: it does not fit the form; one sentence.
    """
    content = _content(form, value)
    if (misfit := find_misfit(form, content)) is not None:
        raise ValueError(f"it does not fit the form: {misfit}")
    return content


def _content(form: JsonObject, value: JsonValue) -> JsonObject:
    names = list(_fields(form))
    if isinstance(value, dict):
        return value
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            parsed: JsonValue = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"it begins with '{{' and is no JSON: {error}") from None
        if isinstance(parsed, dict):
            return parsed
    if not names:
        return {}
    if len(names) > 1:
        raise ValueError(
            f"the form has the fields {', '.join(names)}; answer with JSON, as {{{json.dumps(names[0])}: ...}}"
        )
    return {names[0]: _read_text(_fields(form)[names[0]], value)}


def _read_text(field: JsonObject, value: JsonValue) -> JsonValue:
    if not isinstance(value, str):
        return value
    match field.get("type"):
        case "boolean":
            return _WORDS.get(value.strip().casefold(), value)
        case "integer" | "number":
            try:
                number: JsonValue = json.loads(value)
            except ValueError:
                return value
            return number
        case "array":
            return [part.strip() for part in value.split(",")]
        case _:
            return value


def _fields(schema: JsonObject) -> dict[str, JsonObject]:
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        return {}
    return {name: field if isinstance(field, dict) else {} for name, field in properties.items()}


def _required(schema: JsonObject) -> list[str]:
    listed = schema.get("required")
    return [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []


def _choices(field: JsonObject) -> list[str] | None:
    """Return the values that can be chosen, with their titles."""
    values = field.get("enum")
    if isinstance(values, list):
        titles = field.get("enumNames")
        named = titles if isinstance(titles, list) and len(titles) == len(values) else values
        return [_choice(value, title) for value, title in zip(values, named, strict=True)]
    titled = field.get("oneOf", field.get("anyOf"))
    if not isinstance(titled, list) or not all(isinstance(one, dict) and "const" in one for one in titled):
        return None
    return [_choice(one["const"], one.get("title")) for one in titled if isinstance(one, dict)]


def _choice(value: JsonValue, title: JsonValue) -> str:
    written = value if isinstance(value, str) else json.dumps(value)
    return written if title in (None, value) else f"{written} ({title})"


def _describe_kind(field: JsonObject) -> str | None:
    """Return what a field wants in words; `None` for what the protocol's forms do not have."""
    if (choices := _choices(field)) is not None:
        return f"one of {', '.join(choices)}"
    kind, items = field.get("type"), field.get("items")
    if kind == "array" and isinstance(items, dict) and (choices := _choices(items)) is not None:
        return f"some of {', '.join(choices)}"
    return _KINDS.get(kind) if isinstance(kind, str) else None


def _describe_field(name: str, field: JsonObject, *, needed: bool) -> str:
    words = [text for key in ("title", "description") if isinstance(text := field.get(key), str) and text]
    said = f": {shorten('. '.join(words), 300)}" if words else ""
    return f"- {name} ({shorten(_describe_kind(field) or '', 300)}{'' if needed else '; may be left out'}){said}"


def _example(field: JsonObject) -> JsonValue:
    values, titled, items = field.get("enum"), field.get("oneOf", field.get("anyOf")), field.get("items")
    if isinstance(values, list) and values:
        return values[0]
    if isinstance(titled, list) and titled and isinstance(titled[0], dict):
        return titled[0].get("const")
    match field.get("type"):
        case "boolean":
            return True
        case "integer" | "number":
            return 1
        case "array" if isinstance(items, dict):
            return [_example(items)]
        case _:
            return "..."
