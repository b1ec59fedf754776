"""Types of values before there are any: what JSON Schemas, and expressions themselves, say of them.

What is not said clearly may be anything, so that nothing is refused that could go well.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic import JsonValue

from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.faults import did_you_mean
from mandate.workflows.rules import json_pointer

KINDS = frozenset({"array", "boolean", "null", "number", "object", "string"})
"""Types of JSON; integers are numbers."""

MOST_NAMED = 12
"""Names that one sentence lists; of more it gives the number."""

_WORDS = {
    "array": "a list",
    "boolean": "true or false",
    "null": "null",
    "number": "a number",
    "object": "an object",
    "string": "a text",
}
_MOST_HOPS = 24
_PLAIN_KEY = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_BRANCHES = ("allOf", "anyOf", "oneOf")


@dataclass(frozen=True, slots=True)
class Shape:
    """Values that something may come to, of which only the types are known."""

    kinds: frozenset[str] = KINDS
    where: str = ""
    """How people write it, for example `steps.find.output`; empty for what is computed."""
    why: str = ""
    """Reason of its type, for sentences: `agent 'writer' has no output_schema`."""
    is_prose: bool = False
    """True for a text that a model writes freely."""

    def find_members(self) -> "Mapping[str, Shape] | None":
        """Return all that its objects have; `None` where they may have others."""
        return None

    def find_required(self) -> frozenset[str]:
        """Return names that all its objects have."""
        return frozenset()

    def find_items(self) -> "Shape":
        """Return the items of its lists, or the keys of its objects."""
        return of_kinds("string") if self.kinds == {"object"} else ANYTHING

    def describe(self) -> str:
        """Say what its values are, with the reason: `a text, since agent 'writer' has no output_schema`."""
        what = join_words([_WORDS[kind] for kind in sorted(self.kinds)], "or")
        return f"{what}, since {self.why}" if self.why else what


ANYTHING = Shape()


@dataclass(frozen=True, slots=True)
class ListShape(Shape):
    """Lists whose items are known."""

    kinds: frozenset[str] = frozenset({"array"})
    item: Shape = ANYTHING

    def find_items(self) -> Shape:
        return self.item


@dataclass(frozen=True, slots=True)
class ObjectShape(Shape):
    """Objects whose members are known, all of which they have."""

    kinds: frozenset[str] = frozenset({"object"})
    known: Mapping[str, Shape] | None = None

    def find_members(self) -> Mapping[str, Shape] | None:
        return self.known

    def find_required(self) -> frozenset[str]:
        return frozenset(self.known or ())


@dataclass(frozen=True, slots=True)
class SchemaShape(Shape):
    """Values that fit a JSON Schema; an object that lists its properties has no others, unless it says so."""

    said: JsonObject | None = None
    """The part of `root` that says of which type they are."""
    root: JsonValue = None

    def find_members(self) -> Mapping[str, Shape] | None:
        assert self.said is not None
        properties = self.said.get("properties", {} if self.said.get("additionalProperties") is False else None)
        if not isinstance(properties, dict) or _is_open(self.said):
            return None
        return _Properties(properties, self.root, self.where)

    def find_required(self) -> frozenset[str]:
        required = self.said.get("required") if self.said is not None else None
        return frozenset(map(str, required)) if isinstance(required, list) else frozenset()

    def find_items(self) -> Shape:
        assert self.said is not None
        items = self.said.get("items")
        if self.kinds - {"null"} != {"array"} or "prefixItems" in self.said or not isinstance(items, dict):
            return of_kinds("string") if self.kinds == {"object"} else ANYTHING
        return of_schema(items, f"{self.where}[0]" if self.where else "", self.root)


class _Properties(Mapping[str, Shape]):
    """Properties of an object; each is read as it is asked for, since a schema may hold itself."""

    def __init__(self, properties: JsonObject, root: JsonValue, where: str) -> None:
        self._properties = properties
        self._root = root
        self._where = where

    def __getitem__(self, name: str) -> Shape:
        return of_schema(self._properties[name], member_of(self._where, name), self._root)

    def __iter__(self) -> Iterator[str]:
        return iter(self._properties)

    def __len__(self) -> int:
        return len(self._properties)


def of_kinds(*kinds: str) -> Shape:
    """Return the values of some types of JSON."""
    return Shape(frozenset(kinds))


def of_schema(schema: JsonValue, where: str = "", root: JsonValue = None) -> Shape:
    """Return the values that fit a JSON Schema; `root` is the whole, in which its references are looked up."""
    whole = schema if root is None else root
    kinds, said = _read(schema, whole, 0)
    return Shape(kinds, where) if said is None else SchemaShape(kinds, where, said=said, root=whole)


def take(shape: Shape, key: str) -> Shape | str:
    """Return the values under a key of objects of `shape`, or why there are none."""
    name = shape.where or "what it reads"
    if "object" not in shape.kinds:
        return f"{name} is {shape.describe()}; it has no {key!r}"
    members = shape.find_members()
    if members is None:
        return replace(ANYTHING, where=member_of(shape.where, key))
    if key not in members:
        return f"{name} has no {key!r}{did_you_mean(key, members)} it has {list_names(members) or 'nothing'}"
    return members[key]


def merge(shapes: Sequence[Shape]) -> Shape:
    """Return what is one of several."""
    some = [shape for shape in shapes if shape.kinds != {"null"}] or list(shapes)
    if not some:
        return ANYTHING
    kinds = frozenset[str]().union(*(shape.kinds for shape in shapes))
    if all(shape == some[0] for shape in some):
        return replace(some[0], kinds=kinds)
    return Shape(kinds, is_prose=all(shape.is_prose for shape in some))


def member_of(where: str, name: str) -> str:
    """Write a member of something as people do; nothing for what is computed."""
    if not where:
        return ""
    return f"{where}.{name}" if _PLAIN_KEY.fullmatch(name) else f"{where}[{name!r}]"


def list_names(names: Iterable[str]) -> str:
    """Write names in order: `a, b and 12 more` where there are many."""
    known = sorted(names)
    more = f" and {len(known) - MOST_NAMED} more" if len(known) > MOST_NAMED else ""
    return f"{', '.join(known[:MOST_NAMED])}{more}"


def join_words(words: Sequence[str], last: str) -> str:
    """Write `a, b or c`."""
    return f"{', '.join(words[:-1])} {last} {words[-1]}" if len(words) > 1 else "".join(words)


def _read(schema: JsonValue, root: JsonValue, hops: int) -> tuple[frozenset[str], JsonObject | None]:
    """Return the types that a schema allows, and the part that says more; `None` where nothing does for sure."""
    if not isinstance(schema, dict) or hops > _MOST_HOPS:
        return KINDS, None
    if isinstance(reference := schema.get("$ref"), str):
        return _read(json_pointer.resolve(root, reference), root, hops + 1)
    words = schema.get("type")
    if isinstance(words, str | list):
        given = [words] if isinstance(words, str) else words
        kinds = frozenset("number" if word == "integer" else str(word) for word in given)
        return (kinds, schema) if kinds and kinds <= KINDS else (KINDS, None)
    for key in _BRANCHES:
        branches = schema.get(key)
        if isinstance(branches, list) and branches:
            return _read_branches(branches, root, hops) if key != "allOf" or len(branches) == 1 else (KINDS, None)
    if "properties" in schema:
        return frozenset({"object"}), schema
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    return (frozenset(map(_find_kind, values)), None) if isinstance(values, list) and values else (KINDS, None)


def _read_branches(
    branches: Sequence[JsonValue], root: JsonValue, hops: int
) -> tuple[frozenset[str], JsonObject | None]:
    found = [_read(branch, root, hops + 1) for branch in branches]
    more = [said for kinds, said in found if kinds != {"null"}]
    return frozenset[str]().union(*(kinds for kinds, _ in found)), more[0] if len(more) == 1 else None


def _find_kind(value: JsonValue) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
    return "object"


def _is_open(said: JsonObject) -> bool:
    """Tell whether objects may have members beside the properties that are listed."""
    if said.get("additionalProperties", False) is not False or said.get("patternProperties"):
        return True
    branches = [said.get(key) for key in ("if", "then", "else", "dependentSchemas")]
    for key in _BRANCHES:
        several = said.get(key)
        branches.extend(several if isinstance(several, list) else ())
    return any(isinstance(branch, dict) and not {"properties", "$ref"}.isdisjoint(branch) for branch in branches)
