"""Names that a JSON Schema knows for each object in a value, wherever in the schema it says so."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.rules import json_pointer

MOST_PLACES = 5000
"""Places of one schema that are read: a stranger's could branch without end."""

ROOT = "arguments"
"""Place of the arguments themselves; that of others is `items[].price`."""

_OLD_DRAFTS = ("draft-03", "draft-04", "draft-05", "draft-06", "draft-07")
"""Whatever stands beside `$ref` says nothing in them."""

LISTED = ("items", "prefixItems", "additionalItems", "unevaluatedItems", "contains")
MORE = ("additionalProperties", "unevaluatedProperties")
BY_NAME = ("dependentSchemas", "dependencies")
_ALTERNATIVES = ("anyOf", "oneOf")
_CONDITIONAL = ("if", "then", "else")
_ABOUT = frozenset(
    ("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$comment", "discriminator")
)
_SET_APART = frozenset(("$schema", "$id", "$defs", "definitions", "type"))


_NULL: JsonValue = {"type": "null"}

Part = tuple[JsonObject, bool]
"""A schema that applies to a value, and whether it applies to every value of that place."""


@dataclass(slots=True)
class ObjectNames:
    """All that the schemas which apply to one value say of an object's names."""

    names: dict[str, None] = field(default_factory=dict)
    patterns: dict[str, None] = field(default_factory=dict)
    is_open: bool = False
    """Some part says that there may be more."""
    is_closed: bool = False
    """A part that always applies says that there are no more."""
    is_unknown: bool = False
    """A part cannot be found."""
    fewest: int = 0
    """Properties that there must be."""

    @property
    def can_be_closed(self) -> bool:
        is_reachable = self.fewest <= len(self.names) or bool(self.patterns)
        return not (self.is_open or self.is_closed or self.is_unknown) and is_reachable


class Names:
    """Reader of one schema: the schemas that apply to the same value are read together."""

    def __init__(self, root: JsonObject) -> None:
        self.root = root
        self._ignores_beside_ref = any(draft in str(root.get("$schema", "")) for draft in _OLD_DRAFTS)

    def find_open_places(self) -> tuple[str, ...]:
        """Return the places that take names which are not declared there; an object that declares none is a map."""
        places, seen = dict[str, None](), set[frozenset[int]]()
        waiting: list[tuple[str, Sequence[JsonValue]]] = [(ROOT, (self.root,))]
        while waiting:
            place, applying = waiting.pop(0)
            parts = self.parts(applying)
            identities = frozenset(id(part) for part, _ in parts)
            if not parts or identities in seen:
                continue
            seen.add(identities)
            self.check_effort(len(seen))
            said = self.collect_names(parts)
            if not said.is_closed and (place == ROOT or said.names) and any(_may_be_object(part) for part, _ in parts):
                places[place] = None
            waiting += [(_extend_place(place, name), find_children(parts, name)) for name in said.names]
            waiting.append((f"{place}[]", find_others(parts)))
        return tuple(places)

    def check_effort(self, places: int) -> None:
        """Raise `ValueError` when there are more places than anybody could mean."""
        if places > MOST_PLACES:
            raise ValueError(f"the schema describes more than {MOST_PLACES} different values")

    def parts(self, applying: Sequence[JsonValue]) -> list[Part]:
        """Return the schemas `applying` and all that they bring with them, and whether each applies to all values."""
        waiting = [(node, True) for node in applying]
        found, seen = list[Part](), set[int]()
        while waiting:
            node, always = waiting.pop(0)
            if isinstance(node, dict) and id(node) not in seen:
                seen.add(id(node))
                found.append((node, always))
                waiting.extend((other, always and own) for other, own in self._list_neighbours(node))
        return found

    def _list_neighbours(self, node: JsonObject) -> Iterator[tuple[JsonValue, bool]]:
        reference = node.get("$ref")
        if isinstance(reference, str):
            yield self.resolve(reference), True
            if self._ignores_beside_ref:
                return
        yield from ((branch, True) for branch in read_items(node.get("allOf")))
        for key in _ALTERNATIVES:
            branches = read_items(node.get(key))
            rest = [branch for branch in branches if branch != _NULL]
            yield from ((branch, len(rest) == 1) for branch in rest)
        yield from ((node.get(key), False) for key in _CONDITIONAL)
        for key in BY_NAME:
            yield from ((branch, False) for branch in read_mapping(node.get(key)).values())

    def find_target(self, node: JsonObject) -> JsonValue:
        """Return the one schema that `node` only refers to, or allows beside null; `None` when it says more."""
        reference = node.get("$ref")
        if isinstance(reference, str) and (self._ignores_beside_ref or not _says(node, but="$ref")):
            return self.resolve(reference)
        for key in _ALTERNATIVES:
            branches = node.get(key)
            if isinstance(branches, list) and not _says(node, but=key):
                rest = [branch for branch in branches if branch != _NULL]
                return rest[0] if len(rest) == 1 else None
        return None

    def resolve(self, reference: str) -> JsonValue:
        """Return what a JSON pointer into the schema names; `None` for an anchor, or when there is nothing."""
        return json_pointer.resolve(self.root, reference)

    def collect_names(self, parts: Sequence[Part]) -> ObjectNames:
        said, names_some = ObjectNames(), False
        for part, always in parts:
            said.names.update(dict.fromkeys((*read_mapping(part.get("properties")), *_find_required(part))))
            said.patterns.update(dict.fromkeys(read_mapping(part.get("patternProperties"))))
            for value in (*read_items(part.get("enum")), part.get("const")):
                said.names.update(dict.fromkeys(read_mapping(value)))
            opens = [key for key in MORE if key in part and part[key] is not False]
            said.is_open |= bool(opens)
            said.is_closed |= always and not opens and any(key in part for key in MORE)
            names_some |= "propertyNames" in part
            reference = part.get("$ref")
            lost = isinstance(reference, str) and self.resolve(reference) is None
            said.is_unknown |= lost or "$dynamicRef" in part or "$recursiveRef" in part
            least = part.get("minProperties")
            said.fewest = max(said.fewest, least if isinstance(least, int) else 0)
        said.is_open |= names_some and not said.names
        return said


def list_arguments(schema: JsonObject) -> tuple[str, ...] | None:
    """Return the names of all arguments that `schema` takes, `None` where there may be others."""
    reading = Names(schema)
    said = reading.collect_names(reading.parts([schema]))
    return None if said.is_open or said.patterns or said.is_unknown else tuple(said.names)


def list_required(schema: JsonObject) -> tuple[str, ...]:
    """Return the names of the arguments that every call must have."""
    lists = (read_items(part.get("required")) for part, always in Names(schema).parts([schema]) if always)
    return tuple(dict.fromkeys(name for names in lists for name in names if isinstance(name, str)))


def find_children(parts: Sequence[Part], name: str) -> list[JsonValue]:
    """Return all that `parts` declare of the property `name`."""
    return [properties[name] for part, _ in parts if name in (properties := read_mapping(part.get("properties")))]


def find_others(parts: Sequence[Part]) -> list[JsonValue]:
    """Return the schemas of what has no name of its own: items of lists, and values of maps."""
    schemas: list[JsonValue] = []
    for part, _ in parts:
        for key in (*LISTED, *MORE):
            value = part.get(key)
            schemas += value if isinstance(value, list) else [value]
        schemas += read_mapping(part.get("patternProperties")).values()
    return schemas


def _extend_place(place: str, name: str) -> str:
    return name if place == ROOT else f"{place}.{name}"


def _find_required(part: JsonObject) -> Iterator[str]:
    """Yield the names that there must be, which may stand in no `properties`."""
    lists: list[JsonValue] = [part.get("required")]
    for key in ("dependentRequired", "dependencies"):
        lists.extend(read_mapping(part.get(key)).values())
    for names in lists:
        yield from (name for name in read_items(names) if isinstance(name, str))


def _may_be_object(node: JsonObject) -> bool:
    kinds = node.get("type", "object")
    return "object" in (kinds if isinstance(kinds, list) else [kinds])


def _says(node: JsonObject, *, but: str) -> bool:
    """Return whether `node` says anything of values beside `but`."""
    return any(key not in _ABOUT and key not in _SET_APART and key != but for key in node)


def read_items(value: JsonValue) -> Sequence[JsonValue]:
    return value if isinstance(value, list) else ()


def read_mapping(value: JsonValue) -> JsonObject:
    return value if isinstance(value, dict) else {}
