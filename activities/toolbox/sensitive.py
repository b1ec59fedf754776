"""Sensitive arguments of a call, struck out of what is told of it."""

from collections.abc import Iterator

from pydantic import JsonValue

from workflows.contracts.base import JsonObject
from workflows.contracts.tool import Tool

SHORTEST_HIDDEN = 4
"""Characters from which a sensitive argument is struck out; shorter ones are anywhere."""


def without_sensitive(text: str, tool: Tool, arguments: JsonObject) -> str:
    """`text` with each value of the tool's sensitive `arguments` replaced by `***`."""
    hidden = [leaf for name in tool.sensitive if name in arguments for leaf in _leaves(arguments[name])]
    for value in sorted(hidden, key=len, reverse=True):
        text = text.replace(value, "***")
    return text


def _leaves(value: JsonValue) -> Iterator[str]:
    """The texts and numbers in `value` that are long enough to be told apart from others."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _leaves(item)
    elif value is not None and not isinstance(value, bool) and len(str(value)) >= SHORTEST_HIDDEN:
        yield str(value)
