"""Request fields of an agent file against the types of the vendor's own SDK, imported only where there are any."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, NotRequired, Required, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, JsonValue, ValidationError, create_model
from pydantic_core import ErrorDetails

from mandate.activities.providers import params as request_fields
from mandate.activities.providers.params import EXTRA
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.faults import Located, Place, did_you_mean, find_close, key_path
from mandate.workflows.contracts.transcript import Protocol
from mandate.workflows.rules.plain_text import shorten

_TYPES: Mapping[Protocol, tuple[str, str]] = {
    "openai.responses": ("openai.types.responses.response_create_params", "ResponseCreateParamsBase"),
    "openai.chat": ("openai.types.chat.completion_create_params", "CompletionCreateParamsBase"),
    "anthropic.messages": ("anthropic.types.message_create_params", "MessageCreateParamsBase"),
}
_MOVED: Mapping[tuple[Protocol, str], str] = {
    ("openai.responses", "reasoning_effort"): "reasoning: {effort: ...}",
    ("openai.responses", "verbosity"): "text: {verbosity: ...}",
    ("openai.responses", "response_format"): "text: {format: ...}",
    ("openai.chat", "reasoning"): "reasoning_effort: ...",
    ("openai.chat", "text"): "verbosity: ...",
    ("openai.chat", "thinking"): "reasoning_effort: ...",
    ("anthropic.messages", "reasoning_effort"): "output_config: {effort: ...}",
    ("anthropic.messages", "stop"): "stop_sequences: [...]",
    ("anthropic.messages", "user"): "metadata: {user_id: ...}",
}
"""Fields of one protocol that another has under another name."""

_VALUE_CHARACTERS = 60
_TYPE_WORDS = {
    "string_type": "a text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "typed_dict_type": "a mapping",
    "list_type": "a list",
    "tuple_type": "a list",
    "iterable_type": "a list",
    "is_instance_of": "a list",
    "none_required": "null",
}


def find_faults(params: JsonObject, protocol: Protocol | None, *, has_output_schema: bool) -> Iterator[Located]:
    """Yield what is wrong with the `params` of one model, each with its place in them.

    `protocol` is the one in which the model is asked; `None` for a script, which has no request.
    """
    if not params:
        return
    if protocol is None:
        yield (), "are fields of a request, and a script has none; leave them out"
        return
    owned = list(request_fields.find_owned(params))
    yield from owned
    yield from request_fields.find_secrets(params)
    if has_output_schema and (place := request_fields.find_format(params, protocol)) is not None:
        yield place, "is not an agent file's to set here: the agent's 'output_schema' says the form of its answer"
    skipped = {place[0] for place, _ in owned if len(place) == 1}
    own = {name: value for name, value in params.items() if name != EXTRA and name not in skipped}
    yield from _extra_faults(params)
    if own:
        yield from _type_faults(own, protocol)


def _extra_faults(params: JsonObject) -> Iterator[Located]:
    if EXTRA not in params:
        return
    extra = params[EXTRA]
    if not isinstance(extra, dict):
        yield (EXTRA,), "is not a mapping of fields that are added to the request as they are"
        return
    for name in extra:
        if name in params and name != EXTRA:
            yield (EXTRA, name), "is in 'params' too; the request has it from one place only"


@cache
def _hints(protocol: Protocol) -> Mapping[str, Any]:
    """Return the type of each field of a request, by name."""
    module, name = _TYPES[protocol]
    return _fields(getattr(import_module(module), name))


def _fields(typed_dict: Any) -> dict[str, Any]:
    hints = get_type_hints(typed_dict, include_extras=True)
    return {
        name: get_args(hint)[0] if get_origin(hint) in {Required, NotRequired} else hint for name, hint in hints.items()
    }


def _type_faults(own: JsonObject, protocol: Protocol) -> Iterator[Located]:
    hints = _hints(protocol)
    allowed = [name for name in hints if not list(request_fields.find_owned({name: None}))]
    fields: dict[str, Any] = {}
    for name in own:
        if name in hints:
            fields[name] = (hints[name], None)
        else:
            yield (name,), f"is no field of {protocol}{_advise(name, allowed, protocol)}"
    if not fields:
        return
    model = create_model("Params", __config__=ConfigDict(extra="forbid", strict=True), **fields)
    try:
        model.model_validate_json(json.dumps({name: own[name] for name in fields}))
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=True)
        for name in fields:
            found = [_read(detail, own) for detail in details if detail["loc"][:1] == (name,)]
            yield from _explain(_choose(found), own, hints[name]) if found else ()


def _advise(name: str, allowed: Sequence[str], protocol: Protocol) -> str:
    if (moved := _MOVED.get((protocol, name))) is not None:
        return f", which has '{moved}' in its place"
    hint = did_you_mean(name, allowed)
    way = f"a field that the vendor has and its SDK does not know stands under '{EXTRA}'"
    return f"{hint} {way}" if find_close(name, allowed) else f"; allowed are {', '.join(sorted(allowed))}; {way}"


@dataclass(frozen=True, slots=True)
class _Error:
    """One error of pydantic, with its place in the value."""

    place: Place
    branches: tuple[str, ...]
    """Members of unions that pydantic tried on the way."""
    kind: str
    expected: tuple[str, ...]


def _read(detail: ErrorDetails, value: JsonValue) -> _Error:
    place: list[str | int] = []
    branches: list[str] = []
    for index, part in enumerate(detail["loc"]):
        is_last = index == len(detail["loc"]) - 1
        if isinstance(value, dict) and part in value:
            place.append(part)
            value = value[str(part)]
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            place.append(part)
            value = value[part]
        elif is_last and detail["type"] == "missing":
            place.append(part)
        else:
            branches.append(str(part))
    literals = str(detail.get("ctx", {}).get("expected", "")) if detail["type"] == "literal_error" else ""
    expected = tuple(part.strip(" '") for part in literals.replace(" or ", ", ").split(", ") if part)
    return _Error(tuple(place), tuple(branches), detail["type"], expected)


def _choose(errors: Sequence[_Error]) -> Sequence[_Error]:
    """Return the errors of the kind that was meant: the one whose `type` fits, else what each kind says of it."""
    kinds: dict[str, list[_Error]] = {}
    for error in errors:
        kinds.setdefault(error.branches[0] if error.branches else "", []).append(error)
    if len(kinds) == 1:
        return errors
    fitting = [found for found in kinds.values() if not any(_is_of_type(error) for error in found)]
    if len(fitting) < len(kinds):
        return min(fitting, key=len) if fitting else [error for error in errors if _is_of_type(error)]
    deepest = max(len(error.place) for error in errors)
    return [error for error in errors if len(error.place) == deepest]


def _is_of_type(error: _Error) -> bool:
    return error.kind == "literal_error" and error.place[-1] == "type"


def _explain(errors: Sequence[_Error], own: JsonObject, hint: Any) -> Iterator[Located]:
    by_place: dict[Place, list[_Error]] = {}
    for error in errors:
        by_place.setdefault(error.place, []).append(error)
    for place, found in by_place.items():
        value = _at(own, place)
        unknown = next((error for error in found if error.kind == "extra_forbidden"), None)
        if unknown is not None:
            known = _known_keys(hint, place)
            hint_text = did_you_mean(str(place[-1]), known)
            listed = f" allowed are {', '.join(sorted(known))}" if known else ""
            yield place, f"is no field of {key_path(place[:-1])!r}{hint_text}{listed}".removesuffix(";")
        elif any(error.kind == "missing" for error in found):
            yield place, "is missing"
        else:
            yield place, _misfit(value, found)


def _misfit(value: JsonValue, found: Sequence[_Error]) -> str:
    shown = "a mapping" if isinstance(value, dict) else "a list" if isinstance(value, list) else json.dumps(value)
    shown = shorten(repr(value) if isinstance(value, str) else shown, _VALUE_CHARACTERS)
    literals = list(dict.fromkeys(literal for error in found for literal in error.expected))
    if literals and isinstance(value, str):
        hint = did_you_mean(value, literals).removesuffix(";")
        return f"{shown} is not one of {', '.join(literals)}{hint}"
    words = list(dict.fromkeys(_TYPE_WORDS.get(error.kind, "") for error in found))
    if words and all(words):
        return f"{shown} is not {' or '.join(words)}"
    return f"{shown} is not what the vendor's SDK takes here"


def _at(value: JsonValue, place: Place) -> JsonValue:
    for part in place:
        if isinstance(value, dict):
            value = value.get(str(part))
        elif isinstance(value, list) and isinstance(part, int):
            value = value[part]
    return value


def _known_keys(hint: Any, place: Place) -> list[str]:
    """Return the keys that a mapping within a field may have, those of all its kinds."""
    kinds = [hint]
    for part in place[1:-1]:
        kinds = [inner for kind in kinds for inner in _step(kind, part)]
    return list(dict.fromkeys(key for kind in kinds for typed in _mappings(kind) for key in _fields(typed)))


def _step(kind: Any, part: str | int) -> Iterator[Any]:
    if isinstance(part, int):
        yield from get_args(kind)
        return
    for typed in _mappings(kind):
        fields = _fields(typed)
        if part in fields:
            yield fields[part]


def _mappings(kind: Any) -> Iterator[Any]:
    # The SDKs' are of `typing_extensions`, which `typing` does not know as such.
    if hasattr(kind, "__required_keys__"):
        yield kind
        return
    for inner in get_args(kind):
        yield from _mappings(inner)
