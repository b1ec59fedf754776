"""JSON pointers (RFC 6901) as references of JSON Schemas write them."""

from urllib.parse import unquote

from pydantic import JsonValue

INDEX_DIGITS = 6
"""Python refuses to read a number of thousands of digits."""


def resolve(root: JsonValue, reference: str) -> JsonValue:
    """Return what `#/...` names in `root`; `None` for an anchor, another document, or when there is nothing."""
    pointer = unquote(reference.removeprefix("#"))
    if not reference.startswith("#") or (pointer and not pointer.startswith("/")):
        return None
    value = root
    for step in pointer.split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdecimal() and len(key) <= INDEX_DIGITS and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return value
