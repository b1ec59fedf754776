"""Types as a tool's JSON Schema declares them: `100` and `100.0` are one value in JSON and two in conditions."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from pydantic import JsonValue

from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.rules import json_pointer

_INT64_END = 2**63
_NUMBERS = frozenset({"integer", "number"})
_ORDER = ("boolean", "integer", "number", "string", "array", "object", "null")

Types = frozenset[str] | None
"""The types that a value may have; `None` for any."""


def convert_numbers(schema: JsonObject, value: JsonObject) -> JsonObject:
    """Return `value` with its whole numbers as floats where `schema` says `number`, as integers where `integer`.

    Everything else stays: numbers where the schema allows both or says nothing, and those that the other form cannot
    hold exactly. `value` fits the schema.
    """
    converted = _Declared(schema).convert(schema, value)
    assert isinstance(converted, dict)
    return converted


def find_numeric(schema: JsonObject) -> tuple[str, ...]:
    """Return the names of the top-level properties that are numbers or null and nothing else, in the schema's order."""
    declared = _Declared(schema)
    names = dict.fromkeys(name for part in declared.parts(schema) for name in _mapping(part.get("properties")))
    return tuple(name for name in names if _is_numeric(declared.types(declared.member(schema, name))))


def list_types(schema: JsonObject, name: str) -> tuple[str, ...]:
    """Return the JSON types that the argument `name` may have; none where it may have any."""
    declared = _Declared(schema)
    types = declared.types(declared.member(schema, name))
    return tuple(word for word in _ORDER if types is not None and word in types)


def _is_numeric(types: Types) -> bool:
    return types is not None and not types.isdisjoint(_NUMBERS) and types <= _NUMBERS | {"null"}


class _Declared:
    """Declarations of a schema for the parts of a value."""

    def __init__(self, root: JsonObject) -> None:
        self._root = root
        self._types: dict[int, tuple[JsonValue, Types]] = {}
        """By identity of the place, which is held too, so that its identity is not given to another."""

    def convert(self, place: JsonValue, value: JsonValue) -> JsonValue:
        match value:
            case bool():
                return value
            case int() | float():
                return _number(value, self.types(place))
            case dict():
                return {name: self.convert(self.member(place, name, value), item) for name, item in value.items()}
            case list():
                first = max((_prefix(part) for part in self.parts(place, value)), default=0)
                rest = self._item(place, first, value)
                places = [self._item(place, index, value) for index in range(min(first, len(value)))]
                return [
                    self.convert(places[index] if index < first else rest, item) for index, item in enumerate(value)
                ]
        return value

    def types(self, place: JsonValue) -> Types:
        """Return the types that a value may have at `place`."""
        known = self._types.get(id(place))
        if known is None:
            known = self._types[id(place)] = (place, self._types_of(place, ()))
        return known[1]

    def member(self, place: JsonValue, name: str, value: JsonValue = None) -> JsonValue:
        """Return the schemas of the property `name` of an object at `place`; `value` tells alternatives apart."""
        return self._below(place, lambda part: _property(part, name), value, ())

    def parts(self, place: JsonValue, value: JsonValue = None) -> Iterator[JsonObject]:
        """Yield `place` and all that it refers to for the same value."""
        waiting, seen = [place], set()
        while waiting:
            part = waiting.pop(0)
            if isinstance(part, dict) and id(part) not in seen:
                seen.add(id(part))
                yield part
                waiting.extend(self._all_of(part))
                if value is not None:
                    waiting.extend(branch for branches in _alternatives(part) for branch in branches)

    def _item(self, place: JsonValue, index: int, value: JsonValue) -> JsonValue:
        return self._below(place, lambda part: _entry(part, index), value, ())

    def _below(
        self, place: JsonValue, own: Callable[[JsonObject], JsonValue], value: JsonValue, seen: tuple[int, ...]
    ) -> JsonValue:
        """Return one schema for a part of `value`, from all that applies to the whole."""
        if place is False:
            return False
        if not isinstance(place, dict) or id(place) in seen:
            return True
        seen = (*seen, id(place))
        applying = [own(place)]
        applying += [self._below(part, own, value, seen) for part in self._all_of(place)]
        for branches in _alternatives(place):
            possible = [branch for branch in branches if value is None or self._may_be(branch, value)]
            applying.append({"anyOf": [self._below(branch, own, value, seen) for branch in possible]})
        return {"allOf": applying} if len(applying) > 1 else applying[0]

    def _may_be(self, branch: JsonValue, value: JsonValue) -> bool:
        """Return whether an object or list can be of this alternative, by types, required keys and constants."""
        types = self.types(branch)
        if types is not None and ("object" if isinstance(value, dict) else "array") not in types:
            return False
        return not isinstance(value, dict) or all(_could_be(part, value) for part in self.parts(branch))

    def _types_of(self, place: JsonValue, seen: tuple[int, ...]) -> Types:
        if place is False:
            return frozenset()
        if not isinstance(place, dict) or id(place) in seen:
            return None
        seen = (*seen, id(place))
        types = _own_types(place)
        for part in self._all_of(place):
            types = _intersect(types, self._types_of(part, seen))
        for branches in _alternatives(place):
            types = _intersect(types, _unite(self._types_of(branch, seen) for branch in branches))
        return types

    def _all_of(self, place: JsonObject) -> list[JsonValue]:
        """Return the schemas that apply wherever `place` does: those it refers to, and `allOf`."""
        reference, parts = place.get("$ref"), place.get("allOf")
        target = [self._resolve(reference)] if isinstance(reference, str) else []
        return target + (parts if isinstance(parts, list) else [])

    def _resolve(self, reference: str) -> JsonValue:
        """Return what a JSON pointer into the schema names; true, which says nothing, for other references."""
        target = json_pointer.resolve(self._root, reference)
        return True if target is None else target


def _number(value: int | float, types: Types) -> int | float:  # noqa: PYI041 - which of the two it is, is the point
    declared = types & _NUMBERS if types is not None else frozenset()
    if declared == {"number"} and isinstance(value, int) and float(value) == value:
        return float(value)
    if declared == {"integer"} and isinstance(value, float) and value.is_integer() and abs(value) < _INT64_END:
        return int(value)
    return value


def _could_be(place: JsonObject, value: JsonObject) -> bool:
    required = place.get("required")
    if isinstance(required, list) and not value.keys() >= set(map(str, required)):
        return False
    below = _mapping(place.get("properties"))
    constants = {name: part["const"] for name, part in below.items() if isinstance(part, dict) and "const" in part}
    return all(value[name] == constant for name, constant in constants.items() if name in value)


def _own_types(place: JsonObject) -> Types:
    match place.get("type"):
        case str() as name:
            return frozenset({name})
        case list() as names:
            return frozenset(map(str, names))
    return None


def _intersect(first: Types, other: Types) -> Types:
    if first is None or other is None:
        return first if other is None else other
    whole = "integer" in first | other and not _NUMBERS.isdisjoint(first) and not _NUMBERS.isdisjoint(other)
    return first & other | (frozenset({"integer"}) if whole else frozenset())


def _unite(all_types: Iterable[Types]) -> Types:
    union: frozenset[str] = frozenset()
    for types in all_types:
        if types is None:
            return None
        union |= types
    return union


def _alternatives(place: JsonObject) -> Iterator[list[JsonValue]]:
    for key in ("anyOf", "oneOf"):
        branches = place.get(key)
        if isinstance(branches, list) and branches:
            yield branches


def _property(place: JsonObject, name: str) -> JsonValue:
    properties = _mapping(place.get("properties"))
    if name in properties:
        return properties[name]
    return True if "patternProperties" in place else place.get("additionalProperties", True)


def _entry(place: JsonObject, index: int) -> JsonValue:
    items, prefix = place.get("items", True), place.get("prefixItems")
    rest = items
    if isinstance(items, list):
        prefix, rest = items, place.get("additionalItems", True)
    return prefix[index] if isinstance(prefix, list) and index < len(prefix) else rest


def _prefix(place: JsonObject) -> int:
    return max(len(part) if isinstance(part := place.get(key), list) else 0 for key in ("prefixItems", "items"))


def _mapping(value: JsonValue) -> Mapping[str, JsonValue]:
    return value if isinstance(value, dict) else {}
