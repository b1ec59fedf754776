"""Sensitive arguments as workflow and people have them: by a reference that tells nothing, and as `***`."""

from collections.abc import Mapping, Sequence

from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.tool import LeafReference
from mandate.workflows.rules.names import is_sensitive
from pydantic import JsonValue

HIDDEN = "***"

_KEYS = set(LeafReference.model_fields)


def is_hidden(value: JsonValue) -> bool:
    """Tell whether `value` stands for a sensitive argument: no text that is known by its beginning has the size 0."""
    return isinstance(value, dict) and value.keys() == _KEYS and value["size"] == 0 and value["preview"] == ""


def is_reference(value: JsonValue) -> bool:
    """Tell whether `value` stands for a long text."""
    return isinstance(value, dict) and value.keys() == _KEYS


def has_references(value: JsonValue) -> bool:
    """Tell whether any text in `value`, at any depth, is known by its beginning only."""
    if isinstance(value, dict):
        return is_reference(value) or any(map(has_references, value.values()))
    return isinstance(value, list) and any(map(has_references, value))


def masked(values: Mapping[str, JsonValue], sensitive: Sequence[str]) -> JsonObject:
    """`values` with `***` for what is sensitive, at every depth and in every spelling."""
    if not sensitive:
        return dict(values)
    return {
        name: HIDDEN if is_sensitive(name, sensitive) else _masked_below(item, sensitive)
        for name, item in values.items()
    }


def _masked_below(value: JsonValue, sensitive: Sequence[str]) -> JsonValue:
    match value:
        case dict():
            return masked(value, sensitive)
        case list():
            return [_masked_below(item, sensitive) for item in value]
        case _:
            return value


def revealed(shown: JsonValue, value: JsonValue) -> str | None:
    """The first name for which `value` has something in clear where people were shown `***`; `None` without any."""
    match shown, value:
        case dict(), dict():
            for name, item in value.items():
                if shown.get(name) == HIDDEN:
                    found = None if item == HIDDEN or is_hidden(item) else name
                else:
                    found = revealed(shown.get(name), item)
                if found is not None:
                    return found
        case list(), list():
            return next(filter(None, map(revealed, shown, value)), None)
    return None


def in_clear(name: str) -> str:
    """Return why a person cannot give a new value for the sensitive argument `name`, in one sentence."""
    return (
        f"{name!r} is sensitive, and what people send stays in the run's history in clear; leave it as {HIDDEN!r}, or "
        "reject the call and say why"
    )


def given_in_clear(value: JsonValue, sensitive: Sequence[str]) -> str | None:
    """The first sensitive argument in `value` that is neither `***` nor a reference; `None` when there is none."""
    match value:
        case dict():
            for name, item in value.items():
                if not is_sensitive(name, sensitive):
                    found = given_in_clear(item, sensitive)
                elif item == HIDDEN or is_hidden(item):
                    continue
                else:
                    found = name
                if found is not None:
                    return found
        case list():
            return next(filter(None, (given_in_clear(item, sensitive) for item in value)), None)
    return None
