"""Types of protobuf in the few shapes that conditions need."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf import descriptor_pb2, struct_pb2, timestamp_pb2, wrappers_pb2

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
    """The form in which people write it, for example `args.items[0]`."""
    names: Mapping[str, str]
    """By field: the name that people write."""


def field_of(name: str) -> str:
    """Return the field that stands for `name`: itself, or up to two characters more where it is no CEL identifier."""
    if _IDENTIFIER.fullmatch(name) and name not in _RESERVED:
        return name
    return f"z_{_NOT_PLAIN.sub('_', name)}"


def member(where: str, name: str) -> str:
    """Return `name` of the object at `where` as people write it."""
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
    """Group names by field; names that one field stands for share it."""
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
