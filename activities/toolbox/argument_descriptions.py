"""Descriptions of arguments in their type hints: `Annotated[str, "..."]`, a pydantic `Field`, or a `Doc`."""

import inspect
import types
import typing
from collections.abc import Iterator, Sequence

from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

_CONTAINERS = (list, dict, tuple, set, frozenset)


def find_text(hint: object) -> str | None:
    """Return what `Annotated` says of a type: a `Field`'s description, else a text, else a `Doc`.

    Of alternatives, as in `| None`, what it says of the only one that is described.
    """
    extras = getattr(hint, "__metadata__", ())
    fields = [extra.description for extra in extras if isinstance(extra, FieldInfo)]
    texts = [extra for extra in extras if isinstance(extra, str)]
    docs = [getattr(extra, "documentation", None) for extra in extras]
    for text in (*fields, *texts, *docs):
        if isinstance(text, str) and text.strip():
            return inspect.cleandoc(text)
    inner = getattr(hint, "__origin__", hint) if extras else hint
    parts: Sequence[object] = typing.get_args(inner) if is_union(inner) else ()
    texts = [text for text in map(find_text, parts) if text]
    return texts[0] if len(texts) == 1 else None


def describe_parts(hint: object) -> typing.Any:
    """Return `hint` with the descriptions inside it, as of `list[Annotated[str, "..."]]`, where pydantic sees them."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        text = find_text(hint)
        described = [Field(description=text)] if text else []
        return typing.Annotated[(describe_parts(parts[0]), *parts[1:], *described)]
    if is_union(hint):
        if text := find_text(hint):
            return typing.Annotated[(hint, Field(description=text))]
        return typing.Union[tuple(map(describe_parts, parts))]  # noqa: UP007 - of parts that are known at run time only
    if origin in _CONTAINERS:
        return origin[tuple(part if part is ... else describe_parts(part) for part in parts)]
    return hint


def is_union(hint: object) -> bool:
    return typing.get_origin(hint) in {typing.Union, types.UnionType}


class DescribedSchema(GenerateJsonSchema):
    """JSON Schema without what costs tokens and tells the model nothing, and with all descriptions."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - pydantic's own attribute

    def field_title_should_be_set(self, schema: object) -> bool:  # noqa: ARG002 - a field's title repeats its name
        return False

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        return _describe_properties(super().model_schema(schema), _list_fields(schema["cls"]))

    def dataclass_schema(self, schema: core_schema.DataclassSchema) -> JsonSchemaValue:
        return _describe_properties(super().dataclass_schema(schema), _list_hints(schema["cls"]))

    def typed_dict_schema(self, schema: core_schema.TypedDictSchema) -> JsonSchemaValue:
        return _describe_properties(super().typed_dict_schema(schema), _list_hints(schema.get("cls")))


def _describe_properties(schema: JsonSchemaValue, hints: Iterator[tuple[str, object]]) -> JsonSchemaValue:
    """Add the descriptions of a class's fields, of which pydantic sees those of `Field` only."""
    for name, hint in hints:
        shown = schema.get("properties", {}).get(name)
        text = find_text(hint) if isinstance(shown, dict) else None
        if text:
            shown.setdefault("description", text)
    return schema


def _list_fields(model: type[BaseModel]) -> Iterator[tuple[str, object]]:
    """Yield the name in JSON and the hint of each field, which pydantic has taken apart."""
    for name, field in model.model_fields.items():
        alias = field.validation_alias if isinstance(field.validation_alias, str) else field.alias
        yield alias or name, typing.Annotated[(field.annotation, *field.metadata, None)]


def _list_hints(owner: type[object] | None) -> Iterator[tuple[str, object]]:
    try:
        hints = {} if owner is None else typing.get_type_hints(owner, include_extras=True)
    except Exception:  # noqa: BLE001 - evaluating a hint runs any code; without it only descriptions are missing
        return
    yield from hints.items()
