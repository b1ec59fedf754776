"""Values that Python functions return, as text for the model: never a failure, for the tool has acted."""

import math
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from itertools import islice
from typing import Any

from pydantic import JsonValue
from pydantic_core import from_json, to_json

from mandate.workflows.rules import quantities, surrogates

MOST_ITEMS = 10_000
"""Items that are taken of a generator or another iterator, which may have no end."""

_MOST_LEVELS = 60
_MOST_DIGITS = 4000
"""Python writes no integer that is much longer."""
_ADDRESS_CHARACTERS = 300
_ADDRESS = re.compile(r"<.*\bat 0x[0-9a-f]+.*>", re.DOTALL)
"""`<Client object at 0x7f...>` tells nothing."""


class Cut(list[object]):
    """The first items of an iterator that goes on."""


class _Untold(str):
    """A sentence in place of a value that has no form at all."""

    __slots__ = ()


def collect(returned: object) -> object:
    """Return the items of an iterator, `MOST_ITEMS` at most, which runs its code; anything else as it is."""
    return _cut(list(islice(returned, MOST_ITEMS + 1))) if isinstance(returned, Iterator) else returned


async def collect_async(returned: AsyncIterator[object]) -> object:
    """Return the items of an asynchronous iterator, `MOST_ITEMS` at most."""
    items = list[object]()
    async for item in returned:
        items.append(item)
        if len(items) > MOST_ITEMS:
            break
    return _cut(items)


def _cut(items: list[object]) -> list[object]:
    return items if len(items) <= MOST_ITEMS else Cut(items[:MOST_ITEMS])


def tell(returned: object, *, returns_nothing: bool = False) -> str:
    """Return what a function returned as text: a text as it is, else JSON, else a sentence."""
    if returned is None:
        return "done" if returns_nothing else "null"
    if isinstance(returned, Cut):
        return f"{tell(list(returned))}\n[the first {MOST_ITEMS} items; there are more, which were not read]"
    if not isinstance(returned, str | bytes | bytearray | memoryview) and (written := _write(returned)) is not None:
        return written
    read = _read(returned, ())
    if isinstance(read, _Untold):
        is_binary = isinstance(returned, bytes | bytearray | memoryview)
        what = f" is {read}" if is_binary else f", a {type(returned).__name__}, has no JSON form and is not shown"
        return f"done; the result{what}"
    return str(read) if isinstance(read, str) else to_json(read).decode()


def tell_json(value: object) -> str:
    """Return a value as JSON, with a sentence for each part that has no form."""
    written = _write(value)
    return to_json(_read(value, ())).decode() if written is None else written


def _write(value: object) -> str | None:
    try:
        return to_json(value, inf_nan_mode="strings", bytes_mode="utf8").decode()
    except BaseException:  # noqa: BLE001 - values bring their own serialisers, which may raise anything
        return None


def _read(value: object, around: tuple[int, ...]) -> JsonValue:
    """Return `value` part by part, with a sentence for each part that has no form; `around` are those it is in."""
    if id(value) in around:
        return "(this again, without an end)"
    if len(around) >= _MOST_LEVELS:
        return f"(more than {_MOST_LEVELS} levels deep)"
    try:
        return _read_known(value, (*around, id(value)))
    except BaseException as error:  # noqa: BLE001 - the value's own code may raise anything
        return _Untold(f"(a {type(value).__name__} that cannot be read: {type(error).__name__})")


def _read_known(value: object, around: tuple[int, ...]) -> JsonValue:
    match value:
        case None | bool():
            return value
        case str():
            return surrogates.repair_text(value)
        case int():
            return int(value) if abs(value) < 10**_MOST_DIGITS else f"(an integer of {value.bit_length()} bits)"
        case float():
            return float(value) if math.isfinite(value) else str(from_json(to_json(value, inf_nan_mode="strings")))
        case bytes() | bytearray() | memoryview():
            return _read_bytes(bytes(value))
        case Mapping():
            return _read_members(value.items(), around)
        case list() | tuple() | set() | frozenset():
            return [_read(item, around) for item in value]
    return _read_alone(value, around) if isinstance(value, type) else _read_object(value, around)


def _read_object(value: Any, around: tuple[int, ...]) -> JsonValue:
    """Return an object by what its class has for it."""
    if is_dataclass(value):
        return _read_members(((field.name, getattr(value, field.name)) for field in fields(value)), around)
    for name in ("model_dump", "_asdict", "tolist", "to_dict"):
        # Of pydantic, named tuples and rows, NumPy, and pandas.
        if callable(convert := getattr(value, name, None)):
            return _read(convert(), around)
    if callable(keys := getattr(value, "keys", None)) and hasattr(type(value), "__getitem__"):
        # Rows of databases.
        return _read_members(((key, value[key]) for key in keys()), around)
    return _read_alone(value, around)


def _read_alone(value: object, around: tuple[int, ...]) -> JsonValue:
    """Return a value that holds no others, or others in a way that is not known."""
    try:
        known: JsonValue = from_json(to_json(value, inf_nan_mode="strings"))
    except BaseException:  # noqa: BLE001 - as in `tell`
        is_told = type(value).__str__ is not object.__str__
        if isinstance(value, Iterable) and not is_told:
            return _read(collect(iter(value)), around)
        text = f"{type(value).__name__}: {value}" if isinstance(value, BaseException) else str(value)
        if not text.strip() or (len(text) <= _ADDRESS_CHARACTERS and _ADDRESS.search(text)):
            return _Untold(f"(a {type(value).__name__}, which has no JSON form)")
        return surrogates.repair_text(text)
    return known


def _read_members(pairs: Iterable[tuple[object, object]], around: tuple[int, ...]) -> JsonValue:
    members = dict[str, JsonValue]()
    for key, item in pairs:
        shown = _read(key, around)
        name = written = shown if isinstance(shown, str) else to_json(shown).decode()
        number = 1
        while name in members:
            number += 1
            name = f"{written} ({number})"
        members[name] = _read(item, around)
    return members


def _read_bytes(content: bytes) -> str:
    """Return bytes as the text that they are, or say that they are none."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" not in text:
        return text
    return _Untold(f"{quantities.count_bytes(len(content))} of binary content, which is not shown")
