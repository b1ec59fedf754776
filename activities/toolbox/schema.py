"""Arguments as models write them, and whether they fit a tool's JSON Schema: pure functions, nothing is fetched."""

import json
import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice

import jsonschema_rs
from jsonschema_rs import ValidationError, ValidationErrorKind
from pydantic import JsonValue

from mandate.activities.toolbox.schema_cost import Cost, measure
from mandate.workflows.contracts.base import JsonObject, canonical_json
from mandate.workflows.contracts.faults import key_path
from mandate.workflows.rules.names import is_sensitive
from mandate.workflows.rules.plain_text import REASON_CHARACTERS, shorten

MAX_DEPTH = 64
"""Objects and lists inside each other, the arguments themselves included."""

_FAULTS_SHOWN = 3
_VALUE_CHARACTERS = 40
_INTEGERS = range(-(2**63), 2**63)
_BEYOND_64_BITS = 2**63
_MASK = "\ue000"
_KINDS = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", type(None): "null"}

Path = tuple[str | int, ...]


class _Duplicate:
    """Stand-in for an object with a key given twice until the walk over the value can say where it is."""

    def __init__(self, key: str) -> None:
        self.key = key


def parse_arguments(text: str) -> JsonObject:
    """Parse the arguments that a model wrote; an empty text is `{}`.

    Raises:
        ValueError: the text is not one JSON object, or holds what has no one meaning everywhere: NaN or infinities,
            a key given twice, integers beyond 64 bits, text that is not Unicode, more than 64 levels. The message
            is one sentence for the model.
    """
    if not text.strip():
        return {}
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_int=_integer)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise ValueError(f"the arguments are not valid JSON: {error.msg} at {where}") from None
    except RecursionError:
        raise ValueError(_too_deep()) from None
    if not isinstance(value, dict | _Duplicate):
        raise ValueError(f"the arguments must be a JSON object, not {_KINDS.get(type(value), 'a number')}")
    _check_value(value, (), 1)
    return value  # type: ignore[return-value]  # the walk has found no duplicate


def remove_fence(text: str) -> str:
    """Return `text` without a Markdown code fence around it."""
    stripped = text.strip()
    if stripped.startswith("```") and stripped.endswith("```") and "\n" in stripped:
        return stripped[stripped.index("\n") + 1 : -3]
    return stripped


def check_schema(schema: JsonObject, *, of_object: bool = True) -> None:
    """Refuse a schema that values cannot be checked against; 2020-12 unless `$schema` names another draft.

    `of_object` is false for the schema of a result, which may be any value.

    Raises:
        ValueError: it is not for an object, breaks the rules of its draft, refers to anything outside itself, or
            makes more work than any schema may (`schema_cost`).
    """
    kind = schema.get("type", "object")
    if of_object and kind != "object":
        raise ValueError(f"the schema must be for an object, not type {kind!r}")
    try:
        for path, reference in _references(schema, ()):
            if not reference.startswith("#"):
                raise ValueError(f"{_show(path)}: {shorten(reference, 80)!r} leaves the schema; only '#...' is allowed")
        measure(schema)
    except RecursionError:
        raise ValueError("the schema is nested too deep") from None
    try:
        _compile(canonical_json(schema))
    except ValidationError as error:
        raise ValueError(shorten(f"the schema is not valid: {_schema_fault(error)}")) from None
    except ValueError as error:
        raise ValueError(shorten(f"the schema is not valid: {error}")) from None


_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")


def _schema_fault(error: ValidationError) -> str:
    if error.message.startswith("Unknown meta-schema"):
        return "$schema names no draft that is known: 2020-12, 2019-09, draft-07, draft-06 and draft-04 are"
    where = f"{_show(tuple(error.instance_path))}: " if error.instance_path else ""
    if error.instance_path and error.instance_path[-1] == "type" and isinstance(error.instance, str):
        return f"{where}{error.instance!r} is not a type of JSON Schema; there are {', '.join(_TYPES)}"
    return where + error.message.replace(_MASK, _json(error.instance))


def is_checkable(schema: JsonObject, value: JsonValue) -> bool:
    """Return whether `value` can be checked against `schema` without anybody waiting for it.

    Raises:
        ValueError: no value can; see `check_schema`.
    """
    check_schema(schema, of_object=False)
    return _validator(schema)[1].is_bearable(value)


def find_misfit(schema: JsonObject, value: JsonValue, *, sensitive: Sequence[str] = ()) -> str | None:
    """Return why `value` does not fit `schema`, or `None` when it does: at most 3 faults and 300 characters.

    Names where, the value shortened, and what is allowed; of a `sensitive` argument, at whatever depth, only its name
    and what is allowed. `schema` must have passed `check_schema` and must not be changed afterwards.
    """
    try:
        validator, cost = _validator(schema)
        if not cost.is_bearable(value):
            return "the value is too large to be checked against its schema"
        if validator.is_valid(value):
            return None
        if not cost.is_tellable(value):
            return "the value does not fit its schema; it is too large to look up where"
        faults = [_fault(error, sensitive) for error in islice(validator.iter_errors(value), _FAULTS_SHOWN)]
    except ValueError as error:
        detail = "" if sensitive else f": {error}"
        return shorten(f"the value cannot be checked{detail}")
    limit = (REASON_CHARACTERS - 2 * (len(faults) - 1)) // len(faults)
    return "; ".join(shorten(fault, limit) for fault in faults)


def _object(pairs: list[tuple[str, object]]) -> object:
    members: dict[str, object] = {}
    for key, value in pairs:
        if key in members:
            return _Duplicate(key)
        members[key] = value
    return members


def _integer(digits: str) -> int:
    return int(digits) if len(digits) <= 20 else _BEYOND_64_BITS


def _too_deep() -> str:
    return f"the arguments are nested too deep; at most {MAX_DEPTH} levels are allowed"


def _check_value(value: object, path: Path, depth: int) -> None:
    """Raise `ValueError` for the first part of `value` that has no one meaning everywhere."""
    match value:
        case dict() | list() if depth > MAX_DEPTH:
            raise ValueError(_too_deep())
        case _Duplicate():
            raise ValueError(f"{_place(path)}: the key {shorten(value.key, _VALUE_CHARACTERS)!r} is given twice")
        case dict():
            for key, item in value.items():
                _check_text(key, path, "a key")
                _check_value(item, (*path, key), depth + 1)
        case list():
            for index, item in enumerate(value):
                _check_value(item, (*path, index), depth + 1)
        case str():
            _check_text(value, path, "the text")
        case int() if value not in _INTEGERS:
            raise ValueError(f"{_place(path)}: the integer is beyond 64 bits; write it as a text")
        case float() if not math.isfinite(value):
            raise ValueError(f"{_place(path)}: NaN, infinities and numbers beyond 1.8e308 are not allowed")


def _check_text(text: str, path: Path, what: str) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = f"\\u{ord(text[error.start]):04x}"
        raise ValueError(f"{_place(path)}: {what} holds {code}, half of a surrogate pair") from None


def _place(path: Path) -> str:
    return _show(path) if path else "the arguments"


def _show(path: Path) -> str:
    """Write `items[0].price`; long names and paths are cut."""
    parts = [part if isinstance(part, int) else shorten(part, _VALUE_CHARACTERS) for part in path[:12]]
    return key_path(tuple(parts)) + ("…" if len(path) > 12 else "")


def _json(value: object) -> str:
    """Return `value` as JSON, shortened; characters that are none in Unicode are escaped."""
    written = json.dumps(value, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace").decode()
    return shorten(written, _VALUE_CHARACTERS)


_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_NAMED_SCHEMAS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies")
_DATA = ("const", "enum", "default", "examples")


def _references(schema: object, path: Path, *, named: bool = False) -> Iterator[tuple[Path, str]]:
    """Yield each reference in `schema`; `named` says that its keys are names of the author's choice, not keywords."""
    if isinstance(schema, list):
        for index, item in enumerate(schema):
            yield from _references(item, (*path, index))
    elif isinstance(schema, dict):
        for key, item in schema.items():
            if not named and key in _REFERENCES and isinstance(item, str):
                yield (*path, key), item
            elif named or key not in _DATA:
                yield from _references(item, (*path, key), named=not named and key in _NAMED_SCHEMAS)


_by_identity: dict[int, tuple[JsonObject, tuple[jsonschema_rs.Validator, Cost]]] = {}


def _validator(schema: JsonObject) -> tuple[jsonschema_rs.Validator, Cost]:
    """Return the validator of a schema, by identity first: to write a schema canonically costs more than a check."""
    known = _by_identity.get(id(schema))
    if known is not None:
        return known[1]
    compiled = _compile(canonical_json(schema))
    if len(_by_identity) >= 1024:
        _by_identity.clear()
    # The schema is held too, so that its identity is not given to another object.
    _by_identity[id(schema)] = (schema, compiled)
    return compiled


@lru_cache(maxsize=1024)
def _compile(schema: bytes) -> tuple[jsonschema_rs.Validator, Cost]:
    """Compile a schema; formats are annotations in every draft, and a reference that leaves it is never fetched."""
    value = json.loads(schema)
    cost = measure(value)
    return jsonschema_rs.validator_for(value, mask=_MASK, offline=True, validate_formats=False), cost


def _fault(error: ValidationError, sensitive: Sequence[str]) -> str:
    path = tuple(error.instance_path)
    for depth, part in enumerate(path, 1):
        if isinstance(part, str) and is_sensitive(part, sensitive):
            return f"{_show(path[:depth])}: {_describe(error, 'the value', hidden=True)}"
    # What holds other values may hold a sensitive one.
    hides = bool(sensitive) and isinstance(error.instance, dict | list)
    shown = _json(error.instance) if path and not hides else "the value"
    says = _describe(error, shown, hidden=hides or (not path and bool(sensitive)))
    return f"{_show(path)}: {says}" if path else says


def _describe(error: ValidationError, shown: str, *, hidden: bool) -> str:
    """Return the fault in words; `shown` stands for the value, and `hidden` says that nothing of it may be told."""
    match error.kind:
        case ValidationErrorKind.AnyOf(context=context) | ValidationErrorKind.OneOfNotValid(context=context):
            branches = [_branch(errors[0], len(error.instance_path), hidden=hidden) for errors in context[:4] if errors]
            return f"{shown} fits no alternative ({' | '.join(branches)})"
        case ValidationErrorKind.AdditionalProperties() | ValidationErrorKind.UnevaluatedProperties() if (
            hidden and error.instance_path
        ):
            return f"{shown} has properties that are not allowed"
        case ValidationErrorKind.PropertyNames() if hidden and error.instance_path:
            return f"{shown} has a property whose name is not allowed"
        case ValidationErrorKind.FalseSchema():
            return "is not allowed"
    return error.message.replace(_MASK, shown)


def _branch(error: ValidationError, depth: int, *, hidden: bool) -> str:
    inner = tuple(error.instance_path)[depth:]
    says = _describe(error, "it", hidden=hidden)
    return says if hidden or not inner else f"{_show(inner)}: {says}"
