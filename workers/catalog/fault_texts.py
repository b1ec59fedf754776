"""Faults that pydantic finds, in the words of the file: no types of Python, no tags, no secrets."""

import re
from collections.abc import Mapping
from difflib import get_close_matches

from mandate.activities.documents import Place
from mandate.workflows.contracts import agent, tool_entry
from mandate.workflows.contracts.base import Name
from mandate.workflows.contracts.budget import Budget
from mandate.workflows.contracts.compensation import CompensationSpec
from mandate.workflows.contracts.model import PROVIDERS, ModelName
from mandate.workflows.contracts.policy import (
    Approvers,
    Asking,
    Escalation,
    Example,
    ExampleCall,
    ExampleRun,
    Group,
    Match,
    OnExpiry,
    Person,
    PolicySpec,
    Rule,
)
from mandate.workflows.contracts.verification import CheckSpec, ProbeSpec
from pydantic import BaseModel, StringConstraints
from pydantic_core import ErrorDetails, to_json

VALUE_CHARACTERS = 60

Models = Mapping[tuple[str, ...], tuple[type[BaseModel], str]]
"""Model, and its group of `NOT_YET_AVAILABLE`, by the place of a mapping with list positions left out."""


def _asking(place: str, model: type[Asking]) -> Models:
    return {
        (place,): (model, ""),
        (place, "approvers"): (Approvers, ""),
        (place, "on_expiry"): (OnExpiry, ""),
        (place, "on_expiry", "escalate"): (Escalation, ""),
    }


_MODELS: Models = {
    (): (agent.AgentSpec, "agent"),
    ("tools", "python"): (tool_entry.PythonTool, "tool"),
    ("tools", "mcp"): (tool_entry.McpTools, "tool"),
    ("tools", "mcp", "mcp"): (tool_entry.McpConnection, ""),
    ("tools", "activity"): (tool_entry.ActivityTool, "tool"),
    ("tools", "activity", "activity"): (tool_entry.ActivityConnection, ""),
    ("tools", "http"): (tool_entry.HttpTool, "tool"),
    ("tools", "http", "http"): (tool_entry.HttpConnection, ""),
    **_asking("policy", Rule),
    ("policy", "match"): (Match, ""),
    **_asking("people", Asking),
    ("checks",): (CheckSpec, ""),
    **{("tools", kind, "probe"): (ProbeSpec, "") for kind in tool_entry.TOOL_KINDS},
    **{("tools", kind, "compensate"): (CompensationSpec, "") for kind in tool_entry.TOOL_KINDS},
    ("budget",): (Budget, "budget"),
}
"""Of an agent file."""

POLICY_FILE: Models = {
    (): (PolicySpec, ""),
    **_asking("rules", Rule),
    ("rules", "match"): (Match, ""),
    ("examples",): (Example, ""),
    ("examples", "call"): (ExampleCall, ""),
    ("examples", "run"): (ExampleRun, ""),
}

_CONFIDENTIAL = ("env", "headers")
"""Values under these keys may be secrets, so they are never shown."""

_TIME = "is not a time with its zone, for example 2026-11-02T09:00:00Z"
_TYPES = {
    "string_type": "is not a text; put it in quotes",
    "int_type": "is not a whole number",
    "int_from_float": "is not a whole number",
    "bool_type": "is not true or false",
    "float_type": "is not a number",
    "finite_number": "is not a finite number",
    "datetime_type": _TIME,
    "datetime_parsing": _TIME,
    "datetime_from_date_parsing": _TIME,
    "timezone_aware": _TIME,
    "tuple_type": "is not a list",
    "list_type": "is not a list",
    "dict_type": "is not a mapping",
    "model_type": "is not a mapping",
    "model_attributes_type": "is not a mapping",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
}
_BOUNDS = {
    "greater_than": ("gt", "must be more than"),
    "greater_than_equal": ("ge", "must be at least"),
    "less_than": ("lt", "must be less than"),
    "less_than_equal": ("le", "must be at most"),
}


def _pattern(annotated: object) -> str:
    constraints = next(item for item in getattr(annotated, "__metadata__", ()) if isinstance(item, StringConstraints))
    return str(constraints.pattern)


_PATTERNS = {
    _pattern(Name): "is not a letter followed by up to 63 letters, digits, '_' and '-'",
    _pattern(ModelName): f"is not 'provider:model' with one of the providers {', '.join(PROVIDERS)}",
    _pattern(Group): "is not a letter or digit followed by up to 63 letters, digits, '_', '.', '@', '/' and '-'",
    _pattern(Person): "is not a name of 1 to 200 characters without spaces around it",
    tool_entry.PYTHON_PATH: "is not 'module:function', for example 'shop.tools:lookup_order'",
    tool_entry.HTTP_ADDRESS: "does not begin with http:// or https://",
}


def place_of(loc: tuple[str | int, ...]) -> Place:
    """Return the place in the file; pydantic puts the kind of a tool after its position, which is no key."""
    return loc[:2] + loc[3:] if loc[:1] == ("tools",) and len(loc) > 2 else loc


def says(detail: ErrorDetails, models: Models = _MODELS) -> str:
    """Describe the fault and what is allowed, in one sentence after the key; `models` are the file's."""
    kind, loc, ctx = detail["type"], detail["loc"], detail.get("ctx", {})
    value = shown(detail)
    match kind:
        case "missing":
            return f"is missing{_description(loc, models)}"
        case "extra_forbidden":
            return _unknown_key(loc, models)
        case "tool_kind":
            return _no_kind(detail["input"])
        case "enum" | "literal_error":
            allowed = ", ".join(re.findall(r"'([^']*)'", str(ctx["expected"])))
            return f"{value} is not one of {allowed}".lstrip()
        case "string_pattern_mismatch":
            return f"{value} {_PATTERNS.get(str(ctx['pattern']), 'does not match ' + str(ctx['pattern']))}".lstrip()
        case "string_too_long":
            return _of(value, f"must have at most {ctx['max_length']} characters")
        case "value_error":
            return _of(value, str(ctx["error"]))
        case "fault" | "choice":
            return detail["msg"]
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        bound = ctx[key]
        return _of(value, f"{words} {f'{bound:g}' if isinstance(bound, float) else bound}")
    return f"{value} {_TYPES[kind]}".lstrip() if kind in _TYPES else _of(value, detail["msg"])


def meant(detail: ErrorDetails) -> str | None:
    """Return the key that an unknown one was probably meant to be."""
    found = _model(detail["loc"], _MODELS) if detail["type"] == "extra_forbidden" else None
    if found is None:
        return None
    model, group = found
    key = str(detail["loc"][-1])
    return None if key in agent.NOT_YET_AVAILABLE.get(group, ()) else _closest(key, _keys(model))


def shown(detail: ErrorDetails) -> str:
    """Return the value shortened; empty for mappings, lists, and what may be secret."""
    value = detail["input"]
    if any(part in _CONFIDENTIAL for part in detail["loc"]) or detail["type"] in {"missing", "fault", "choice"}:
        return ""
    if isinstance(value, dict):
        return "a mapping" if detail["type"] in _TYPES else ""
    if isinstance(value, list):
        return "a list" if detail["type"] in _TYPES and value else ""
    written = repr(value) if not isinstance(value, bool | None) else to_json(value).decode()
    return written if len(written) <= VALUE_CHARACTERS else f"{written[: VALUE_CHARACTERS - 1]}…"


def _of(value: str, sentence: str) -> str:
    return f"{value}: {sentence}" if value else sentence


def _model(loc: tuple[str | int, ...], models: Models) -> tuple[type[BaseModel], str] | None:
    """Return the model that the key at the end of `loc` is, or would be, a field of."""
    return models.get(tuple(part for part in loc[:-1] if isinstance(part, str)))


def _description(loc: tuple[str | int, ...], models: Models) -> str:
    found = _model(loc, models)
    field = found[0].model_fields.get(str(loc[-1])) if found else None
    return f": {field.description}" if field is not None and field.description else ""


def _unknown_key(loc: tuple[str | int, ...], models: Models) -> str:
    found = _model(loc, models)
    key = str(loc[-1])
    if found is None:
        return "is not allowed here"
    model, group = found
    if key in agent.NOT_YET_AVAILABLE.get(group, ()):
        return "is not available in this version; remove it"
    return f"is not a key that is known here{_suggestion(key, _keys(model))}"


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _no_kind(entry: object) -> str:
    if not isinstance(entry, dict):
        return f"is not a mapping; a tool has exactly one of the keys {', '.join(tool_entry.TOOL_KINDS)}"
    given = [kind for kind in tool_entry.TOOL_KINDS if kind in entry]
    if given:
        return f"has the keys {' and '.join(given)}; a tool has exactly one of {', '.join(tool_entry.TOOL_KINDS)}"
    if "agent" in entry:
        return f"an 'agent' as a tool is not available in this version; allowed are {', '.join(tool_entry.TOOL_KINDS)}"
    close = [match for key in entry for match in get_close_matches(str(key), tool_entry.TOOL_KINDS, n=1)]
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"has none of the keys {', '.join(tool_entry.TOOL_KINDS)}, of which a tool has exactly one{hint}"


def _suggestion(key: str, known: list[str]) -> str:
    close = _closest(key, known)
    return (f"; did you mean {close!r}?" if close else ";") + f" allowed are {', '.join(sorted(known))}"


def _closest(key: str, known: list[str]) -> str | None:
    return next(iter(get_close_matches(key, known, n=1)), None)
