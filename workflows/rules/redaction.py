"""Sensitive arguments as workflow and people have them: by a reference that tells nothing, and as `***`."""

from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.tool import LeafReference
from mandate.workflows.rules.names import is_sensitive

HIDDEN = "***"


def is_hidden(value: JsonValue) -> bool:
    """Return whether `value` stands for a sensitive argument: only such a reference has the size 0."""
    return LeafReference.is_one(value) and value["size"] == 0 and value["preview"] == ""


def mask(values: Mapping[str, JsonValue], sensitive: Sequence[str]) -> JsonObject:
    """Return `values` with `***` for what is sensitive, at every depth and in every spelling."""
    if not sensitive:
        return dict(values)
    return {
        name: HIDDEN if is_sensitive(name, sensitive) else _mask_value(item, sensitive) for name, item in values.items()
    }


def _mask_value(value: JsonValue, sensitive: Sequence[str]) -> JsonValue:
    match value:
        case dict():
            return mask(value, sensitive)
        case list():
            return [_mask_value(item, sensitive) for item in value]
        case _:
            return value


def find_revealed(shown: JsonValue, value: JsonValue) -> str | None:
    """Return the first name for which `value` has in clear what people saw as `***`; `None` without any."""
    match shown, value:
        case dict(), dict():
            for name, item in value.items():
                if shown.get(name) == HIDDEN:
                    revealed = None if item == HIDDEN or is_hidden(item) else name
                else:
                    revealed = find_revealed(shown.get(name), item)
                if revealed is not None:
                    return revealed
        case list(), list():
            return next(filter(None, map(find_revealed, shown, value)), None)
    return None


def explain_in_clear(name: str) -> str:
    """Return why a person cannot give a new value for the sensitive argument `name`, in one sentence."""
    return (
        f"{name!r} is sensitive, and what people send stays in the run's history in clear; leave it as {HIDDEN!r}, or "
        "reject the call and say why"
    )


def find_in_clear(value: JsonValue, sensitive: Sequence[str]) -> str | None:
    """Return the first sensitive argument in `value` that is neither `***` nor a reference; `None` if none is."""
    match value:
        case dict():
            for name, item in value.items():
                if not is_sensitive(name, sensitive):
                    clear = find_in_clear(item, sensitive)
                elif item == HIDDEN or is_hidden(item):
                    continue
                else:
                    clear = name
                if clear is not None:
                    return clear
        case list():
            return next(filter(None, (find_in_clear(item, sensitive) for item in value)), None)
    return None


def has_references(value: JsonValue) -> bool:
    """Tell whether any text in `value`, at any depth, is known by its beginning only."""
    if isinstance(value, dict):
        return LeafReference.is_one(value) or any(map(has_references, value.values()))
    return isinstance(value, list) and any(map(has_references, value))
