"""Types of what conditions see, for the library to check them: the arguments of a call by its tool's JSON Schema,
and the facts of tool, agent and run; as types of protobuf, in the few shapes that they need.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from google.protobuf import descriptor_pb2, descriptor_pool, struct_pb2, timestamp_pb2, wrappers_pb2
from pydantic import JsonValue

from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.tool import Tool
from mandate.workflows.rules import json_pointer

_Proto = descriptor_pb2.FieldDescriptorProto

KNOWN = (struct_pb2, timestamp_pb2, wrappers_pb2)
"""Files of the types that are protobuf's own."""

_RESERVED = frozenset({"in", "true", "false", "null"})
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9_]")


@dataclass(frozen=True, slots=True)
class Kind:
    """The type of one value."""

    code: "_Proto.Type.ValueType"
    message: str = ""
    """Name of its type, for messages; empty for texts by text."""
    repeated: bool = False


def message_kind(name: str) -> Kind:
    return Kind(_Proto.TYPE_MESSAGE, name)


ANY = message_kind(".google.protobuf.Value")
LIST = message_kind(".google.protobuf.ListValue")
MAPPING = message_kind(".google.protobuf.Struct")
TIME = message_kind(".google.protobuf.Timestamp")
TEXT, TRUTH = Kind(_Proto.TYPE_STRING), Kind(_Proto.TYPE_BOOL)
TEXTS = Kind(_Proto.TYPE_STRING, repeated=True)
TEXTS_BY_TEXT = Kind(_Proto.TYPE_MESSAGE, repeated=True)
NUMBER, WHOLE = Kind(_Proto.TYPE_DOUBLE), Kind(_Proto.TYPE_INT64)
SCALARS = {"number": NUMBER, "integer": WHOLE, "string": TEXT, "boolean": TRUTH}
OR_NULL = {
    "number": message_kind(".google.protobuf.DoubleValue"),
    "integer": message_kind(".google.protobuf.Int64Value"),
    "string": message_kind(".google.protobuf.StringValue"),
    "boolean": message_kind(".google.protobuf.BoolValue"),
}


@dataclass(frozen=True, slots=True)
class Struct:
    """One type of objects whose names are known."""

    where: str
    """How people write it, for example `args.items[0]`."""
    names: Mapping[str, str]
    """By field: the name that people write."""


def field_of(name: str) -> str:
    """Return the field that stands for `name`: itself, or up to two characters more where CEL takes it for no name."""
    if _IDENTIFIER.fullmatch(name) and name not in _RESERVED:
        return name
    return f"z_{_NOT_PLAIN.sub('_', name)}"


def member(where: str, name: str) -> str:
    """Write as people do `name` of the object at `where`."""
    return f"{where}.{name}" if field_of(name) == name else f'{where}["{name}"]'


@dataclass(slots=True)
class Message:
    """One type on its way into a file."""

    package: str
    short: str
    where: str
    kinds: Mapping[str, Kind]
    """By name, as people write it."""

    @property
    def name(self) -> str:
        return f".{self.package}.{self.short}"

    def write(self, proto: descriptor_pb2.DescriptorProto) -> None:
        proto.name = self.short
        # `order_id` and `orderId` may stand side by side; their JSON names, which nothing reads, may not.
        proto.options.deprecated_legacy_json_field_conflicts = True
        for number, (name, kind) in enumerate(_fields(self.kinds).items(), 1):
            made = proto.field.add(name=name, number=number, type=kind.code, json_name=f"j{number}")
            made.label = _Proto.LABEL_REPEATED if kind.repeated else _Proto.LABEL_OPTIONAL
            if kind.code == _Proto.TYPE_MESSAGE:
                made.type_name = kind.message or _texts_by_text(proto, self.name)


def _fields(kinds: Mapping[str, Kind]) -> dict[str, Kind]:
    """Return the kinds by field; names that one field stands for share it."""
    found: dict[str, Kind] = {}
    for name, kind in kinds.items():
        made = field_of(name)
        found[made] = kind if found.get(made, kind) == kind else ANY
    return found


def _texts_by_text(proto: descriptor_pb2.DescriptorProto, around: str) -> str:
    entry = proto.nested_type.add(name="LabelsEntry")
    entry.options.map_entry = True
    for number, name in enumerate(("key", "value"), 1):
        entry.field.add(name=name, number=number, type=_Proto.TYPE_STRING, label=_Proto.LABEL_OPTIONAL)
    return f"{around}.LabelsEntry"


MAX_DEPTH = 24
"""Objects inside each other that are typed; what is deeper may be anything."""

MOST_NAMES = 10_000
"""Properties of one object that are typed; protobuf keeps the numbers from 19,000 on."""


class _Schema:
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
        """Return the one type that `schema` allows beside null, whether it allows null, and the schema that says so."""
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
        """Resolve a local reference such as `#/$defs/Item`."""
        return json_pointer.resolve(self._root, reference)


def _is_open(said: JsonObject) -> bool:
    """Tell whether an object may have names beside its properties that the schema means and does not list there."""
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


THIS_TOOL = "tool__name"
"""Stands for `[tool.name]`; as long as that, so that columns stay."""

_TOOL = {
    "name": TEXT,
    "effect": TEXT,
    "source": TEXT,
    "tags": TEXTS,
    "risk": NUMBER,
    "untrusted": TRUTH,
}
_AGENT = {"name": TEXT, "version": TEXT}
_RUN = {
    "id": TEXT,
    "requester": TEXT,
    "speaker": TEXT,
    "labels": TEXTS_BY_TEXT,
    "depth": WHOLE,
    "step": WHOLE,
    "cost_usd": NUMBER,
    "budget_left_usd": NUMBER,
    "tokens": WHOLE,
    "period_cost_usd": NUMBER,
    "now": TIME,
    "tainted": TRUTH,
}

_ROUTE = {
    "failures": WHOLE,
    "context_tokens": WHOLE,
    "last_tools": TEXTS,
    "risk": NUMBER,
}


@dataclass(slots=True)
class Types:
    """The types of one agent, in files of their own so that none can spoil another."""

    pool: descriptor_pool.DescriptorPool = field(default_factory=descriptor_pool.DescriptorPool)
    structs: dict[str, Struct] = field(default_factory=dict)
    """By full name of the type, as the library's faults write it."""
    _files: int = 0

    def __post_init__(self) -> None:
        for known in KNOWN:
            self.pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)

    def arguments(self, schema: JsonObject) -> str | None:
        """Return the type of `args` by a tool's input schema; `None` when it does not say which arguments exist."""
        package = self._package()
        made = _Schema(schema, package)
        kind = made.kind(schema, "args", 0)
        if kind.message not in made.messages:
            return None
        self._add(package, made.messages.values())
        return kind.message.removeprefix(".")

    def facts(self, tools: Sequence[Tool], *, this: Tool | None, is_of_route: bool = False) -> dict[str, str]:
        """Return the types of `tool`, `agent` and `run`.

        Args:
            tools: All that the agent has.
            this: The tool whose calls are judged; `None` for rules of no agent, which may name any tool.
            is_of_route: The condition is that of a model, which sees more of the run.
        """
        package = self._package()
        sums = [
            Message(package, f"Sums{index}", member("run.totals", tool.name), dict.fromkeys(tool.numeric, NUMBER))
            for index, tool in enumerate(tools)
        ]
        totals = {tool.name: message_kind(message.name) for tool, message in zip(tools, sums, strict=True)}
        calls = dict.fromkeys(totals, WHOLE)
        run = {**_RUN, **(_ROUTE if is_of_route else {}), "calls": MAPPING, "totals": MAPPING}
        if this is not None:
            calls.setdefault(THIS_TOOL, WHOLE)
            totals.setdefault(THIS_TOOL, totals[this.name])
            run |= {"calls": message_kind(f".{package}.Calls"), "totals": message_kind(f".{package}.Totals")}
        made = (
            Message(package, "Calls", "run.calls", calls),
            Message(package, "Totals", "run.totals", totals),
            Message(package, "Tool", "tool", _TOOL),
            Message(package, "Agent", "agent", _AGENT),
            Message(package, "Run", "run", run),
        )
        self._add(package, (*sums, *made))
        return {name: f"{package}.{name.capitalize()}" for name in ("tool", "agent", "run")}

    def _package(self) -> str:
        self._files += 1
        return f"seen{self._files}"

    def _add(self, package: str, messages: "Iterable[Message]") -> None:
        file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto2")
        file.dependency.extend(known.DESCRIPTOR.name for known in KNOWN)
        for message in messages:
            message.write(file.message_type.add())
            self.structs[message.name.removeprefix(".")] = Struct(
                message.where, {field_of(name): name for name in message.kinds if name != THIS_TOOL}
            )
        self.pool.Add(file)
