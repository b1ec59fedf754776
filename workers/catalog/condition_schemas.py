"""The arguments of a tool as types that conditions are checked against, from its JSON Schema."""

from mandate.activities.toolbox import json_pointer
from mandate.workers.catalog.condition_kinds import (
    ANY,
    LIST,
    MAPPING,
    OR_NULL,
    SCALARS,
    Kind,
    Message,
    member,
    message_kind,
)
from mandate.workflows.contracts.base import JsonObject
from pydantic import JsonValue

MAX_DEPTH = 24
"""Objects inside each other that are typed; what is deeper may be anything."""

MOST_NAMES = 10_000
"""Properties of one object that are typed; protobuf keeps the numbers from 19,000 on."""


class Schema:
    """The types of one JSON Schema; what it does not say clearly may be anything."""

    def __init__(self, root: JsonObject, package: str) -> None:
        self.messages: dict[str, Message] = {}
        self._root = root
        self._package = package
        self._made: dict[int, Kind] = {}
        """By identity of the subschema: a recursive one is its own type."""

    def kind(self, schema: JsonValue, where: str, depth: int) -> Kind:
        """Return the type of the values that fit `schema`."""
        word, nullable, said = self._word(schema, 0)
        if word in SCALARS:
            return OR_NULL[word] if nullable else SCALARS[word]
        if word == "array" and not nullable:
            items = said.get("items")
            one = self.kind(items, f"{where}[0]", depth + 1) if isinstance(items, dict) and depth < MAX_DEPTH else ANY
            if "prefixItems" in said or one.repeated:
                return LIST
            return Kind(one.code, one.message, repeated=True)
        if word == "object":
            return self._object(said, where, depth, nullable=nullable)
        return ANY

    def _object(self, said: JsonObject, where: str, depth: int, *, nullable: bool) -> Kind:
        if id(said) in self._made:
            return self._made[id(said)]
        properties = said.get("properties", {} if said.get("additionalProperties") is False else None)
        if not isinstance(properties, dict) or _is_open(said) or depth >= MAX_DEPTH or len(properties) > MOST_NAMES:
            return ANY if nullable else MAPPING
        kinds: dict[str, Kind] = {}
        made = Message(self._package, f"Object{len(self.messages)}", where, kinds)
        self.messages[made.name] = made
        self._made[id(said)] = message_kind(made.name)
        for name, item in properties.items():
            kinds[name] = self.kind(item, member(where, name), depth + 1)
        return self._made[id(said)]

    def _word(self, schema: JsonValue, hops: int) -> tuple[str, bool, JsonObject]:
        """Return the one type that `schema` allows beside null, whether it allows null, and the schema of it."""
        if not isinstance(schema, dict) or hops > MAX_DEPTH:
            return "", False, {}
        reference = schema.get("$ref")
        if isinstance(reference, str):
            return self._word(self._target(reference), hops + 1)
        words = schema.get("type")
        if isinstance(words, str | list):
            given = [words] if isinstance(words, str) else [word for word in words if isinstance(word, str)]
            rest = [word for word in given if word != "null"]
            return (rest[0] if len(rest) == 1 else ""), len(rest) < len(given), schema
        for key in ("anyOf", "oneOf", "allOf"):
            branches = schema.get(key)
            if isinstance(branches, list):
                return self._one_of(branches, hops)
        return _word_of_values(schema), False, schema

    def _one_of(self, branches: list[JsonValue], hops: int) -> tuple[str, bool, JsonObject]:
        rest = [branch for branch in branches if branch != {"type": "null"}]
        if len(rest) != 1:
            return "", False, {}
        word, nullable, said = self._word(rest[0], hops + 1)
        return word, nullable or len(rest) < len(branches), said

    def _target(self, reference: str) -> JsonValue:
        """Return the schema that a local reference such as `#/$defs/Item` names."""
        return json_pointer.resolve(self._root, reference)


def _is_open(said: JsonObject) -> bool:
    """Return whether an object may have names beside its properties that the schema means and does not list."""
    if said.get("additionalProperties", False) is not False or said.get("patternProperties"):
        return True
    branches = [said.get(key) for key in ("if", "then", "else", "dependentSchemas")]
    for key in ("anyOf", "oneOf", "allOf"):
        several = said.get(key)
        branches.extend(several if isinstance(several, list) else ())
    return any(isinstance(branch, dict) and not {"properties", "$ref"}.isdisjoint(branch) for branch in branches)


def _word_of_values(schema: JsonObject) -> str:
    """Return the type of a schema that has none, by its constants or by its properties."""
    if "properties" in schema:
        return "object"
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if not isinstance(values, list) or not values:
        return ""
    kinds = {type(value) for value in values}
    words = {frozenset({str}): "string", frozenset({bool}): "boolean", frozenset({int}): "integer"}
    return words.get(frozenset(kinds), "number" if kinds <= {int, float} else "")
