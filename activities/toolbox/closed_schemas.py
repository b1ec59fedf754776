"""Schemas closed where they say nothing: what policy does not know of is not sent.

A JSON Schema without `additionalProperties` takes arguments that it does not name. Policy cannot name them either, and
whoever receives the call may know them.
"""

from collections.abc import Sequence

from pydantic import JsonValue

from mandate.activities.toolbox.schema_names import (
    BY_NAME,
    LISTED,
    MORE,
    Names,
    Part,
    find_children,
    find_others,
    read_mapping,
)
from mandate.workflows.contracts.base import JsonObject

_NAMED = ("properties", "patternProperties", "$defs", "definitions", *BY_NAME)
_ANYTHING: tuple[JsonValue, ...] = (True, {})


def close_schema(schema: JsonObject, *, only_file_opens: bool = False) -> JsonObject:
    """Return `schema` with `additionalProperties: false` at the root and at all objects that declare `properties`.

    Where `additionalProperties` or `unevaluatedProperties` stands already it stays, unless `only_file_opens`: then what
    a stranger's schema says to be open is closed too, but for objects that declare no names, which are maps.

    Names that an object is given by `allOf`, `anyOf`, `oneOf`, `if`, `$ref` or the like count together: it is closed by
    the union of all of them, so that no call which keeps to declared names is refused. What refers to an anchor, or
    needs more properties than it declares, stays as it is; `find_open_places` names it.

    Raises:
        ValueError: the schema branches without end.
    """
    strict = _remove_openings(schema) if only_file_opens else schema
    return _Closing(strict).rewrite()


def open_schema(schema: JsonObject) -> JsonObject:
    """Return `schema`, saying of its arguments that there may be more where it says nothing."""
    return schema if any(key in schema for key in MORE) else {**schema, "additionalProperties": True}


def find_open_places(schema: JsonObject) -> tuple[str, ...]:
    """Return where `schema` takes undeclared names: in the arguments themselves, and in objects that declare some."""
    return Names(schema).find_open_places()


class _Closing(Names):
    """One schema, and which of its nodes are all that is said of a value."""

    def __init__(self, root: JsonObject) -> None:
        super().__init__(root)
        self._roles: dict[int, set[bool]] = {}
        """By identity: whether it is all that is said of a value, a part of that, or both in different places."""
        self._limited = 0
        self._visit()

    def rewrite(self) -> JsonObject:
        schema = self._rewrite(self.root)
        assert isinstance(schema, dict)
        return schema

    def _visit(self) -> None:
        """Find out the role of each node."""
        waiting, seen = list[list[JsonValue]]([[self.root]]), set[frozenset[int]]()
        while waiting:
            applying = [node for node in waiting.pop(0) if isinstance(node, dict)]
            identities = frozenset(map(id, applying))
            if not applying or identities in seen:
                continue
            seen.add(identities)
            self.check_effort(len(seen))
            for node in applying:
                self._roles.setdefault(id(node), set()).add(len(identities) == 1)
            same = self.find_target(applying[0]) if len(identities) == 1 else None
            if same is not None:
                waiting.append([same])
                continue
            parts = self.parts(applying)
            for part, _ in parts:
                if id(part) not in identities:
                    self._roles[id(part)] = {*self._roles.get(id(part), ()), False}
            waiting += [find_children(parts, name) for name in self.collect_names(parts).names]
            waiting += [[other] for other in find_others(parts)] if len(parts) == 1 else [find_others(parts)]

    def _is_whole(self, node: JsonObject) -> bool:
        """Return whether `node` is nothing but all that is said of a value."""
        roles = self._roles.get(id(node), set())
        return roles == {True} or (True in roles and node is self.root)

    def _rewrite(self, node: JsonValue, *, named: bool = False) -> JsonValue:
        if isinstance(node, list):
            return [self._rewrite(item) for item in node]
        if not isinstance(node, dict):
            return node
        schema: JsonObject = {
            key: item if not named and key in _DATA else self._rewrite(item, named=not named and key in _NAMED)
            for key, item in node.items()
        }
        return self._close(node, schema) if not named and self._is_whole(node) else schema

    def _close(self, node: JsonObject, schema: JsonObject) -> JsonObject:
        """Return `made` of `node`, closed as far as it is not by what it refers to."""
        same = self.find_target(node)
        if isinstance(same, dict) and self._is_whole(same):
            return schema
        parts = self.parts((node,))
        own = read_mapping(node.get("properties"))
        limits = self._limits(parts, (), but=[name for name in own if len(find_children(parts, name)) == 1])
        if not limits:
            return schema
        if "$ref" in schema and self._ignores_beside_ref:
            schema = {**{key: schema[key] for key in schema if key != "$ref"}, "allOf": [{"$ref": schema["$ref"]}]}
        return _join(schema, limits)

    def _limits(self, parts: Sequence[Part], above: tuple[frozenset[int], ...], but: Sequence[str] = ()) -> JsonObject:
        """Return a schema that says only which names there are, for a value that `parts` apply to; it may be empty.

        Names in `but` are closed where they stand.
        """
        identities = frozenset(id(part) for part, _ in parts)
        if not parts or identities in above:
            return {}
        self._limited += 1
        self.check_effort(self._limited)
        said, is_root = self.collect_names(parts), any(part is self.root for part, _ in parts[:1])
        below: JsonObject = {}
        for name in said.names:
            inner = {} if name in but else self._limits(self.parts(find_children(parts, name)), (*above, identities))
            below[name] = inner or True
        limits: JsonObject = {}
        is_shut = said.can_be_closed and bool(said.names or said.patterns or is_root)
        if is_shut or any(inner is not True for inner in below.values()):
            limits["properties"] = below
        if is_shut:
            limits["additionalProperties"] = False
            if said.patterns:
                limits["patternProperties"] = dict.fromkeys(said.patterns, True)
        if len(parts) > 1 and (items := self._limits(self.parts(_list_items(parts)), (*above, identities))):
            limits["items"] = items
        return limits


def _join(schema: JsonObject, limits: JsonObject) -> JsonObject:
    """Return `made` joined with `limits`."""
    joined = dict(schema)
    for key, limit in limits.items():
        if key in ("properties", "patternProperties") and isinstance(limit, dict):
            own = read_mapping(schema.get(key))
            both = {name: _both(own[name], limit[name]) if name in limit else own[name] for name in own}
            if together := {**both, **{name: limit[name] for name in limit if name not in own}}:
                joined[key] = together
        else:
            joined[key] = _both(schema[key], limit) if key in schema else limit
    return joined


def _both(first: JsonValue, other: JsonValue) -> JsonValue:
    return first if other is True or first == other else {"allOf": [first, other]}


def _list_items(parts: Sequence[Part]) -> list[JsonValue]:
    """Return the schemas of all items of a list, where it has no others."""
    has_more = any(key in part for part, _ in parts for key in LISTED if key != "items")
    return [] if has_more else [part["items"] for part, _ in parts if isinstance(part.get("items"), dict)]


_DATA = ("const", "enum", "default", "examples")


def _remove_openings(node: JsonValue, *, named: bool = False, is_root: bool = True) -> JsonObject:
    """Return `node` without what lets an object that declares names have more; of the root whatever it says."""
    cleared = _clear(node, named=named, is_root=is_root)
    assert isinstance(cleared, dict)
    return cleared


def _clear(node: JsonValue, *, named: bool = False, is_root: bool = False) -> JsonValue:
    if isinstance(node, list):
        return [_clear(item) for item in node]
    if not isinstance(node, dict):
        return node
    schema: JsonObject = {
        key: item if not named and key in _DATA else _clear(item, named=not named and key in _NAMED)
        for key, item in node.items()
    }
    if named:
        return schema
    for key in MORE:
        opens = schema.get(key) in _ANYTHING and schema.get(key) is not False
        if key in schema and schema[key] is not False and (is_root or (opens and schema.get("properties"))):
            del schema[key]
    return schema
