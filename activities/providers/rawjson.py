"""A provider's JSON as values and as the text that it was written in.

What goes back to the provider is the text: a number such as `1e999`, a repeated key or the order of keys would not
survive being read and written again.
"""

import json
import re
from collections.abc import Mapping
from functools import cached_property
from typing import TypeGuard

Object = dict[str, object]

_SPACE = re.compile(r"[ \t\n\r]*")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")
"""An escape that may be half of a surrogate pair, or such a half itself."""
_HALF = re.compile(r"[\ud800-\udfff]")
_CONTROL = re.compile(r"[\x00-\x1f]")
_NO_TEXT = dict.fromkeys(range(0xDC80, 0xDD00), "\ufffd")
"""Stand-ins for the bytes of an answer that were no text, see `response_limits.decode`."""
_LONGEST_INTEGER = 300
LARGEST_COUNT = 10**9


class Raw:
    """A JSON value with its text; what is missing or of another type reads as nothing."""

    def __init__(self, value: object = None, text: str = "null") -> None:
        self.value = value
        self.text = text

    @classmethod
    def read(cls, text: str) -> "Raw":
        """Return the one JSON value in `text`; NaN and infinities are let through, see `is_strict`.

        Raises:
            ValueError: it is not JSON, or nested too deeply.
        """
        start = _skip(text, 0)
        try:
            value, end = _DECODER.raw_decode(text, start)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
        if _skip(text, end) != len(text):
            raise ValueError(f"there is more after it, at character {end}")
        return cls(value, text[start:end])

    def get(self, name: str) -> "Raw":
        """Return the member `name` of an object; the last one when it is repeated."""
        return self.members.get(name, NOTHING)

    @property
    def pairs(self) -> list[tuple[str, "Raw"]]:
        """The names and values of an object, those of a repeated name too."""
        return _pairs(self.text) if isinstance(self.value, dict) and self.value else []

    @cached_property
    def members(self) -> dict[str, "Raw"]:
        return dict(self.pairs)

    @cached_property
    def items(self) -> tuple["Raw", ...]:
        return tuple(_items(self.text)) if isinstance(self.value, list) and self.value else ()

    @property
    def string(self) -> str:
        """A string without lone surrogates, which no encoding can carry."""
        if not isinstance(self.value, str):
            return ""
        if self.value.isascii():
            return self.value
        return self.value.translate(_NO_TEXT).encode("utf-8", "replace").decode()

    @property
    def kind(self) -> str:
        """The type of the value, in JSON's words."""
        return _KINDS.get(type(self.value), "number")

    @property
    def count(self) -> int:
        """A number of tokens: a whole number from 0 up, 0 for whatever is none."""
        return self.find_count() or 0

    def find_count(self) -> int | None:
        """Return a whole number from 0 up, also one that is written as a text or with a fraction of 0."""
        value = self.value
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < _LONGEST_INTEGER:
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            return None
        return value if 0 <= value <= LARGEST_COUNT else None

    @property
    def is_strict(self) -> bool:
        """True if the text is JSON that everybody reads.

        It has no NaN, no Infinity, no half of a surrogate pair, and no control character as it is in a string.
        """
        if "NaN" in self.text or "Infinity" in self.text or _CONTROL.search(self.text):
            try:
                json.loads(self.text, parse_constant=_refuse, parse_int=_integer)
            except ValueError:
                return False
        return _SURROGATE.search(self.text) is None or self._has_only_text()

    def _has_only_text(self) -> bool:
        try:
            # All pairs of an object, those of a repeated key too.
            value = json.loads(self.text, object_pairs_hook=list, parse_int=_integer, strict=False)
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            return False
        return True


def is_object(value: object) -> TypeGuard[Object]:
    return isinstance(value, dict)


def list_objects(value: object) -> list[Object]:
    """Return the objects in a list; none of what is no list."""
    return [entry for entry in value if is_object(entry)] if isinstance(value, list) else []


def write(value: object) -> str:
    """Return `value` as JSON: halves of surrogate pairs as escapes, so that two halves make a pair again."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if text.isascii() or _HALF.search(text) is None:
        return text
    return json.dumps(value, separators=(",", ":"))


def join_halves(text: str) -> str:
    """Return `text` with halves of surrogate pairs that stand side by side as the characters that they make."""
    if text.isascii() or _HALF.search(text) is None:
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def escape_halves(text: str) -> str:
    """Return JSON with the halves of surrogate pairs in it as escapes."""
    return text if text.isascii() else _HALF.sub(lambda half: f"\\u{ord(half[0]):04x}", text)


def write_object(members: Mapping[str, str]) -> str:
    """Return an object of members that are JSON already."""
    return f"{{{','.join(f'{write(name)}:{text}' for name, text in members.items())}}}"


def _integer(digits: str) -> int | float:
    # Python refuses to read very long integers.
    return int(digits) if len(digits) <= _LONGEST_INTEGER else float(digits)


def _refuse(name: str) -> float:
    raise ValueError(name)


def _skip(text: str, position: int) -> int:
    space = _SPACE.match(text, position)
    return space.end() if space else position


def _pairs(text: str) -> list[tuple[str, Raw]]:
    pairs: list[tuple[str, Raw]] = []
    position = 0
    while text[position] != "}":
        name, end = _DECODER.raw_decode(text, _skip(text, position + 1))
        start = _skip(text, _skip(text, end) + 1)
        value, end = _DECODER.raw_decode(text, start)
        pairs.append((name, Raw(value, text[start:end])))
        position = _skip(text, end)
    return pairs


def _items(text: str) -> list[Raw]:
    items: list[Raw] = []
    position = 0
    while text[position] != "]":
        start = _skip(text, position + 1)
        value, end = _DECODER.raw_decode(text, start)
        items.append(Raw(value, text[start:end]))
        position = _skip(text, end)
    return items


# Servers have been seen to leave control characters in strings as they are.
_DECODER = json.JSONDecoder(parse_int=_integer, strict=False)
_KINDS = {dict: "object", list: "list", str: "text", bool: "boolean", type(None): "null"}
NOTHING = Raw()
