"""Plain values as the library of conditions takes them: what it would misread is kept away from it."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from mandate.workflows.contracts.tool import ARGUMENT_LEAF_BYTES, LeafReference
from mandate.workflows.rules import redaction
from mandate.workflows.rules.plain_text import cut

if TYPE_CHECKING:
    from google.protobuf.descriptor_pool import DescriptorPool

REFERENCE = "mandate.LongText"
"""Type of what stands for a long text: its `size` in bytes, `digest` and `preview` can be read, nothing else."""

LEVELS = 100
_INT64_END = 2**63
_JSON = frozenset({str, int, float, bool, type(None)})
_NO_JSON = {
    "LongText": "a text of which only the beginning is known",
    "bytearray": "bytes",
    "datetime": "a time",
    "float": "NaN or an infinity",
    "int": "an integer beyond 64 bits",
    "timedelta": "a duration",
}
_AS_THEY_ARE = frozenset({float, bool, type(None)})
_PATH_CHARACTERS = 60


class UnreadableValue(ValueError):
    """A value that conditions cannot read; the text names it."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self._problem = problem
        self._path: list[str] = []

    def below(self, part: str) -> "UnreadableValue":
        """Return the same error for the value that holds it under `part`."""
        self._path.insert(0, part)
        return self

    def __str__(self) -> str:
        path = "".join(letter if letter.isprintable() else "?" for letter in "".join(self._path))
        shown = cut(path, _PATH_CHARACTERS)
        return f"{shown} {self._problem}".lstrip()


def convert(value: object, name: str) -> Any:
    """Return the variable `name` for the library: times as timestamps, decimals as doubles, references as messages.

    Raises:
        Unreadable: it holds an integer beyond 64 bits, a text that the library would cut (at a NUL) or cannot take,
            a reference to something short, or more than 100 levels.
    """
    try:
        return _convert(value, 0)
    except UnreadableValue as error:
        raise error.below(name) from None


def _convert(value: Any, level: int) -> Any:
    kind = type(value)
    if kind is str:
        return _text(value)
    if kind is int:
        if -_INT64_END <= value < _INT64_END:
            return value
        raise UnreadableValue("is an integer beyond 64 bits")
    if kind in _AS_THEY_ARE:
        return value
    if level == LEVELS:
        raise UnreadableValue("is nested too deep")
    if kind is dict:
        return _reference(value) if LeafReference.is_one(value) else _object(value, level + 1)
    if kind is list or kind is tuple:
        return _list(value, level + 1)
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, datetime):
        return _timestamp(value)
    raise UnreadableValue("is no plain value")


def to_json(value: Any) -> JsonValue:
    """Return a value of the library, its lists and maps made plain, as JSON with sorted keys.

    Raises:
        Unreadable: JSON has no form for it.
    """
    kind = type(value)
    if kind is list:
        return [to_json(item) for item in value]
    if kind is dict:
        if any(type(key) is not str for key in value):
            raise UnreadableValue("it comes to an object with a key that is no text")
        return {key: to_json(value[key]) for key in sorted(value)}
    finite = kind is not float or math.isfinite(value)
    if kind not in _JSON or not finite or (kind is int and value >= _INT64_END):
        raise UnreadableValue(f"it comes to {_NO_JSON.get(kind.__name__, 'something')}, which is no value of JSON")
    plain: JsonValue = value
    return plain


def _list(values: Sequence[object], level: int) -> list[Any]:
    items: list[Any] = []
    try:
        for value in values:
            items.append(value if type(value) in _AS_THEY_ARE else _convert(value, level))  # noqa: PERF401
    except UnreadableValue as error:
        raise error.below(f"[{len(items)}]") from None
    return items


def _object(values: Mapping[str, object], level: int) -> dict[str, Any]:
    members: dict[str, Any] = {}
    key = ""
    try:
        for key, value in values.items():
            members[_key(key)] = value if type(value) in _AS_THEY_ARE else _convert(value, level)
    except UnreadableValue as error:
        raise error.below(f".{key}") from None
    return members


def _key(key: object) -> str:
    if type(key) is not str:
        raise UnreadableValue("has a key that is no text")
    return _text(key)


def _text(text: str) -> str:
    # The library takes a text up to its first NUL: "safe\0other" would equal "safe".
    if "\0" in text:
        raise UnreadableValue("holds a NUL character")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise UnreadableValue("is not Unicode") from None
    return text


def _reference(value: Mapping[str, Any]) -> Any:
    """Return a message, not a map: a map can be asked for its size and keys, and would answer wrongly.

    It equals no text. That is true of a text over the limit of what is shown, unless a condition spells out as long
    a one; of anything shorter that was left out it could be false.
    """
    size, digest, preview = value["size"], value["digest"], value["preview"]
    if type(size) is not int or not isinstance(digest, str) or not isinstance(preview, str):
        return _object(value, 1)
    # A sensitive argument, which no condition reads: files with one that does are not loaded.
    if redaction.is_hidden(dict(value)):
        return _message_class()(digest=_text(digest))
    if size <= ARGUMENT_LEAF_BYTES or size >= _INT64_END:
        raise UnreadableValue("is not shown, since the arguments are long")
    return _message_class()(digest=_text(digest), size=size, preview=_text(preview))


def _timestamp(moment: datetime) -> Any:
    timestamp = _timestamp_class()()
    timestamp.FromDatetime(moment)
    return timestamp


@lru_cache(maxsize=1)
def _timestamp_class() -> Any:
    from google.protobuf.timestamp_pb2 import Timestamp  # noqa: PLC0415 - only for conditions

    return Timestamp


@lru_cache(maxsize=1)
def load_types() -> "DescriptorPool":
    """Return the types that conditions know beyond plain values."""
    from google.protobuf import descriptor_pb2, descriptor_pool  # noqa: PLC0415 - only for conditions

    field = descriptor_pb2.FieldDescriptorProto
    package, _, name = REFERENCE.partition(".")
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    kinds = {"digest": field.TYPE_STRING, "size": field.TYPE_INT64, "preview": field.TYPE_STRING}
    message = file.message_type.add(name=name)
    for number, (key, kind) in enumerate(kinds.items(), 1):
        message.field.add(name=key, number=number, type=kind, label=field.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


@lru_cache(maxsize=1)
def _message_class() -> Any:
    from google.protobuf import message_factory  # noqa: PLC0415 - only for conditions

    return message_factory.GetMessageClass(load_types().FindMessageTypeByName(REFERENCE))
