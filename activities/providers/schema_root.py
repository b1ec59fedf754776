"""The top of a tool's schema, written as one object with properties, which is all that vendors take there."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from mandate.activities.providers.vendor_rules import ROOT_KEYS
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.rules import json_pointer

_BRANCHES = ("anyOf", "oneOf")
_INHERITED = ("title", "description", "additionalProperties", "patternProperties", "minProperties", "maxProperties")
_KEPT = frozenset((*_INHERITED, "type", "properties", "required", "$defs", "definitions", "$schema", "$id", "$comment"))
"""Keys of a part that are at the top in the end, or say nothing of a value."""
MOST_BRANCHES = 1000


class UntellableSchema(ValueError):
    """A schema that no vendor takes in any form; the text names the key."""


@dataclass(slots=True)
class _Object:
    """All that is said of the arguments by a schema and by what it refers to."""

    properties: dict[str, list[JsonValue]] = field(default_factory=dict)
    required: dict[str, None] = field(default_factory=dict)
    inherited: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FlatSchema:
    """The top of a schema without what vendors refuse there."""

    schema: JsonObject
    lost: JsonObject
    """A schema of what the other one does not say; empty when it says all."""


def flatten(schema: JsonObject) -> FlatSchema:
    """Return `schema` without `ROOT_KEYS` at its top: what the alternatives declare is declared, none is demanded.

    Raises:
        UntellableSchema: it refers to itself or to nothing at the top, or takes no object.
    """
    if not any(key in schema for key in ROOT_KEYS):
        return FlatSchema(schema, {})
    flattening = _Flattening(schema)
    found = flattening.read(schema, ())
    if found is None:
        keys = ", ".join(repr(key) for key in ROOT_KEYS if key in schema)
        raise UntellableSchema(f"{keys} at the top of its schema takes no object")
    made: JsonObject = {key: value for key, value in schema.items() if key not in ROOT_KEYS}
    made = {**found.inherited, **made, "type": "object"}
    made["properties"] = {name: _both(schemas) for name, schemas in found.properties.items()}
    if found.required:
        made["required"] = list(found.required)
    lost = [part for part in flattening.lost if part]
    return FlatSchema(made, (lost[0] if len(lost) == 1 else {"allOf": list(lost)}) if lost else {})


class _Flattening:
    def __init__(self, root: JsonObject) -> None:
        self.lost: list[JsonObject] = []
        self._root = root
        self._read = 0

    def read(self, node: JsonValue, above: tuple[str, ...], *, is_sure: bool = True) -> _Object | None:
        """Return what `node` says of an object, `None` when it takes none; `is_sure` when it holds for each call."""
        self._read += 1
        if self._read > MOST_BRANCHES:
            raise UntellableSchema(f"its schema has more than {MOST_BRANCHES} alternatives at the top")
        if not isinstance(node, dict):
            return None if node is False else _Object()
        kinds = node.get("type", "object")
        if "object" not in (kinds if isinstance(kinds, list) else [kinds]):
            return None
        found = _Object(inherited={key: node[key] for key in _INHERITED if key in node})
        properties, required = node.get("properties"), node.get("required")
        if isinstance(properties, dict):
            found.properties = {name: [schema] for name, schema in properties.items()}
        if isinstance(required, list):
            found.required = dict.fromkeys(name for name in required if isinstance(name, str))
        told = {"$ref", "allOf"}
        for inner in (
            *self._list_parts(node, above, is_sure=is_sure),
            *self._list_choices(node, above, told, is_sure=is_sure),
        ):
            if inner is None:
                return None
            _add(found, inner)
        if is_sure:
            told |= _KEPT if node is not self._root else node.keys() - set(ROOT_KEYS)
            self.lost.append({key: value for key, value in node.items() if key not in told})
        return found

    def _list_parts(self, node: JsonObject, above: tuple[str, ...], *, is_sure: bool) -> Iterator[_Object | None]:
        """Yield what holds beside `node` itself."""
        reference, branches = node.get("$ref"), node.get("allOf")
        if isinstance(reference, str):
            target = json_pointer.resolve(self._root, reference)
            if reference in above or target is None or target is self._root:
                raise UntellableSchema(f"'$ref' at the top of its schema leads nowhere: {reference[:80]!r}")
            yield self.read(target, (*above, reference), is_sure=is_sure)
        for branch in branches if isinstance(branches, list) else ():
            yield self.read(branch, above, is_sure=is_sure)

    def _list_choices(
        self, node: JsonObject, above: tuple[str, ...], told: set[str], *, is_sure: bool
    ) -> Iterator[_Object | None]:
        """Yield what holds whichever alternative does; one that has no other is no choice, and is added to `told`."""
        for key in _BRANCHES:
            branches = node.get(key)
            if not isinstance(branches, list):
                continue
            read = [(branch, self.read(branch, above, is_sure=False)) for branch in branches]
            taken = [(branch, inner) for branch, inner in read if inner is not None]
            if len(taken) == 1:
                told.add(key)
                yield self.read(taken[0][0], above) if is_sure else taken[0][1]
            else:
                yield _either([inner for _, inner in taken])


def _add(found: _Object, inner: _Object) -> None:
    for name, schemas in inner.properties.items():
        found.properties.setdefault(name, []).extend(schemas)
    found.required.update(inner.required)
    found.inherited = {**inner.inherited, **found.inherited}


def _either(branches: Sequence[_Object]) -> _Object | None:
    """Return what holds whichever of `branches` does."""
    if not branches:
        return None
    either = _Object()
    for name in dict.fromkeys(name for branch in branches for name in branch.properties):
        schemas = [_both(branch.properties[name]) for branch in branches if name in branch.properties]
        different = [schema for index, schema in enumerate(schemas) if schema not in schemas[:index]]
        is_free = any(schema in ({}, True) for schema in different)
        either.properties[name] = [] if is_free else [different[0] if len(different) == 1 else {"anyOf": different}]
    required = [name for name in branches[0].required if all(name in branch.required for branch in branches)]
    either.required = dict.fromkeys(required)
    return either


def _both(schemas: Sequence[JsonValue]) -> JsonValue:
    saying = [schema for schema in schemas if schema not in ({}, True)]
    different = [schema for index, schema in enumerate(saying) if schema not in saying[:index]]
    if len(different) <= 1:
        return different[0] if different else {}
    return {"allOf": different}
