"""Readable parts of an agent file that has faults, so that all the others are told with them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mandate.activities.documents import Document, Fault, Place, key_path
from mandate.workers.catalog.fault_texts import meant, place_of
from mandate.workflows.contracts.agent import find_shared_ids
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.faults import MISSPELT, UNREADABLE, Located, Unreadable, find_repetitions
from mandate.workflows.contracts.tool_checks import find_entry_faults
from mandate.workflows.contracts.tool_entry import ToolEntry, find_entry_name, find_shared_names, find_tool_kind
from pydantic import TypeAdapter
from pydantic_core import ErrorDetails, to_json

_ENTRY: TypeAdapter[ToolEntry] = TypeAdapter(ToolEntry)
_SCHEMAS = ("input_schema", "output_schema")

FaultyEntry = Mapping[str, object]
"""An entry of `tools` with something wrong in it: plain values, `UNREADABLE` or `MISSPELT` where that is."""


@dataclass(frozen=True, slots=True)
class Parts:
    """An agent as far as its file can be read."""

    document: Document
    tools: tuple[ToolEntry | FaultyEntry, ...]
    output_schema: JsonObject | None
    """`None` too when something in it cannot be read."""


def is_told_apart(detail: ErrorDetails) -> bool:
    """Return whether a fault is found by `parts_of` as well, which looks at more: one between the keys of tools."""
    return detail["type"] == "fault" and detail["loc"][:1] == ("tools",)


def parts_of(document: Document, details: Sequence[ErrorDetails]) -> tuple[Parts, list[Fault]]:
    """Return the parts of `document` without `details`, which are wrong, and the faults of keys that do not fit.

    Those are found by what each key says, however faulty others are; no key that is faulty itself is judged again.
    """
    broken = list(_broken_places(document))
    unreadable = [place for place, value in broken if not isinstance(value, dict | list) or _in_schema(place)]
    unreadable += [place_of(detail["loc"]) for detail in details if _hides_value(detail)]
    misspelt = [(*place_of(detail["loc"])[:-1], key) for detail in details if (key := meant(detail)) is not None]
    readable = _blanked(document.value, unreadable, misspelt)
    entries = _items(readable, "tools")
    between = [
        (("tools", index, *place), message)
        for index, entry in enumerate(entries)
        if isinstance(entry, dict)
        for place, message in find_entry_faults(find_tool_kind(entry), entry)
    ]
    faulty = {place[:2] for place, _ in [*broken, *between]}
    faulty |= {place_of(detail["loc"])[:2] for detail in details if not is_told_apart(detail)}
    tools = tuple(
        _faulty(entry) if ("tools", index) in faulty else _ENTRY.validate_json(to_json(entry), strict=True)
        for index, entry in enumerate(entries)
    )
    found = [document.fault(place, message) for place, message in [*between, *_repetitions(readable)]]
    return Parts(document, tools, whole_schema(_value(readable, "output_schema"))), found


def whole_schema(value: object) -> JsonObject | None:
    """Return `value` if it is a mapping that can be read to its ends."""
    return value if isinstance(value, dict) and not any(_is_blank(part) for _, part in _walk(value, ())) else None


def without_blanks(value: object) -> object:
    """Return `value` without the parts that cannot be read."""
    if isinstance(value, dict):
        return {key: without_blanks(item) for key, item in value.items() if not _is_blank(item)}
    if isinstance(value, list):
        return [without_blanks(item) for item in value if not _is_blank(item)]
    return value


def _hides_value(detail: ErrorDetails) -> bool:
    """Return whether a fault keeps anything else from being said of the value."""
    still_read = detail["type"] == "string_pattern_mismatch" and detail["loc"][-1:] == ("url",)
    return detail["type"] != "fault" and not still_read


def _broken_places(document: Document) -> Iterator[tuple[Place, object]]:
    """Yield the places where the YAML itself is faulty, with their contents."""
    told = {fault.key for fault in document.faults}
    if told:
        yield from ((place, value) for place, value in _walk(document.value, ()) if key_path(place) in told)


def _walk(value: object, place: Place) -> Iterator[tuple[Place, object]]:
    yield place, value
    inner: Iterable[tuple[str | int, object]] = ()
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    for key, item in inner:
        yield from _walk(item, (*place, key))


def _in_schema(place: Place) -> bool:
    return any(part in _SCHEMAS for part in place)


def _blanked(value: object, unreadable: Iterable[Place], misspelt: Iterable[Place]) -> object:
    """Return a copy of `value` with `UNREADABLE` and `MISSPELT` in these places, missing ones included."""
    marks: dict[Place, dict[str | int, Unreadable]] = {}
    for places, mark in ((misspelt, MISSPELT), (unreadable, UNREADABLE)):
        for place in filter(None, places):
            marks.setdefault(place[:-1], {})[place[-1]] = mark
    return _marked(value, (), marks)


def _marked(value: object, place: Place, marks: Mapping[Place, Mapping[str | int, Unreadable]]) -> object:
    own = marks.get(place, {})
    if isinstance(value, dict):
        found = {key: _marked(item, (*place, key), marks) for key, item in value.items()}
        found |= {key: mark for key, mark in own.items() if mark is UNREADABLE or key not in value}
        return found
    if isinstance(value, list):
        return [own.get(index) or _marked(item, (*place, index), marks) for index, item in enumerate(value)]
    return value


def _faulty(entry: object) -> FaultyEntry:
    return entry if isinstance(entry, dict) else {}


def _repetitions(readable: object) -> list[Located]:
    """Return the names given twice among those that can be read."""
    ids = [_value(rule, "id") for rule in _items(readable, "policy")]
    found = [
        ("tools", fault) for fault in find_shared_names([find_entry_name(tool) for tool in _items(readable, "tools")])
    ]
    found += [("policy", fault) for fault in find_shared_ids([_text(name) for name in ids])]
    for key in ("models", "policies"):
        found += [(key, fault) for fault in find_repetitions([_text(name) for name in _items(readable, key)])]
    return [((key, *place), message) for key, (place, message) in found]


def _value(mapping: object, key: str) -> object:
    return mapping.get(key) if isinstance(mapping, dict) else None


def _items(mapping: object, key: str) -> list[object]:
    value = _value(mapping, key)
    return value if isinstance(value, list) else []


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _is_blank(value: object) -> bool:
    return isinstance(value, Unreadable)
