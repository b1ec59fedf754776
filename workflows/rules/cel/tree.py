"""Conditions as trees: what the library has read, in the few kinds of nodes that its language has."""

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from google.protobuf.message import Message

CONSTANT, NAME, PART, CALL, LIST, OBJECT, LOOP = range(7)


TEXT, BYTES, TRUTH, NULL, WHOLE, DECIMAL = "text", "bytes", "truth", "null", "whole", "decimal"
"""Names of constants."""


class Node(NamedTuple):
    """One part of a condition; which fields count depends on `kind`."""

    kind: int
    name: str = ""
    """Of a variable, a function, the variable of a loop or a type of objects; the kind of a constant."""
    parts: "tuple[Node, ...]" = ()
    """Operands in their order; of an object its keys, then its values; of a loop: range, first value, condition, step,
    result."""
    sum_name: str = ""
    """Name that a loop gives to what it has gathered so far."""
    text_bytes: int = 0
    """Of a constant."""
    text: str = ""
    """Of a constant that is one."""


LOOP_RANGE, LOOP_FIRST, LOOP_CONDITION, LOOP_STEP, LOOP_RESULT = range(5)


def read(serialized: bytes) -> Node:
    """Read the tree of an expression, as the library serializes it: one that it has checked, or only parsed.

    Raises:
        ValueError: it is in a form that is not known.
    """
    from google.protobuf.any_pb2 import Any as Packed  # noqa: PLC0415 - only for conditions
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - only for conditions

    try:
        packed = Packed.FromString(serialized)
        message: Any = _message_classes()[packed.type_url.rpartition(".")[2]].FromString(packed.value)
    except (DecodeError, KeyError):
        raise ValueError("the library serializes conditions in another form") from None
    return _node(message.expr)


def walk(node: Node) -> Iterator[Node]:
    """Yield `node` and all parts of it."""
    waiting = [node]
    while waiting:
        each = waiting.pop()
        yield each
        waiting.extend(each.parts)


def _node(expr: Any) -> Node:
    match expr.WhichOneof("kind"):
        case "const_expr":
            constant = expr.const_expr
            name = _CONSTANTS.get(constant.WhichOneof("kind"), "")
            text = constant.string_value
            return Node(CONSTANT, name, text_bytes=len(text.encode()) + len(constant.bytes_value), text=text)
        case "ident_expr":
            return Node(NAME, expr.ident_expr.name)
        case "select_expr":
            return Node(PART, expr.select_expr.field, (_node(expr.select_expr.operand),))
        case "call_expr":
            call = expr.call_expr
            operands = [call.target, *call.args] if call.HasField("target") else call.args
            return Node(CALL, call.function, tuple(map(_node, operands)))
        case "list_expr":
            return Node(LIST, parts=tuple(map(_node, expr.list_expr.elements)))
        case "struct_expr":
            keys = [_node(entry.map_key) for entry in expr.struct_expr.entries if entry.HasField("map_key")]
            values = (_node(entry.value) for entry in expr.struct_expr.entries)
            return Node(OBJECT, expr.struct_expr.message_name, (*keys, *values))
        case "comprehension_expr":
            loop = expr.comprehension_expr
            parts = (loop.iter_range, loop.accu_init, loop.loop_condition, loop.loop_step, loop.result)
            return Node(LOOP, loop.iter_var, tuple(map(_node, parts)), loop.accu_var)
        case unknown:
            raise ValueError(f"a condition has a part of unknown kind {unknown!r}")


_CONSTANTS = {
    "null_value": NULL,
    "bool_value": TRUTH,
    "int64_value": WHOLE,
    "uint64_value": WHOLE,
    "double_value": DECIMAL,
    "string_value": TEXT,
    "bytes_value": BYTES,
}

# Source: cel-spec, proto/cel/expr/{syntax,checked}.proto; what is not read here is left out.
_MESSAGES: dict[str, dict[str, tuple[int, str, bool]]] = {
    "CheckedExpr": {"expr": (4, "Expr", False)},
    "ParsedExpr": {"expr": (2, "Expr", False)},
    "Constant": {
        "null_value": (1, "int32", False),
        "bool_value": (2, "bool", False),
        "int64_value": (3, "int64", False),
        "uint64_value": (4, "uint64", False),
        "double_value": (5, "double", False),
        "string_value": (6, "string", False),
        "bytes_value": (7, "bytes", False),
    },
    "Ident": {"name": (1, "string", False)},
    "Select": {"operand": (1, "Expr", False), "field": (2, "string", False)},
    "Call": {"target": (1, "Expr", False), "function": (2, "string", False), "args": (3, "Expr", True)},
    "CreateList": {"elements": (1, "Expr", True)},
    "CreateStruct": {"message_name": (1, "string", False), "entries": (2, "Entry", True)},
    "Entry": {"map_key": (3, "Expr", False), "value": (4, "Expr", False)},
    "Comprehension": {
        "iter_var": (1, "string", False),
        "iter_range": (2, "Expr", False),
        "accu_var": (3, "string", False),
        "accu_init": (4, "Expr", False),
        "loop_condition": (5, "Expr", False),
        "loop_step": (6, "Expr", False),
        "result": (7, "Expr", False),
    },
    "Expr": {
        "const_expr": (3, "Constant", False),
        "ident_expr": (4, "Ident", False),
        "select_expr": (5, "Select", False),
        "call_expr": (6, "Call", False),
        "list_expr": (7, "CreateList", False),
        "struct_expr": (8, "CreateStruct", False),
        "comprehension_expr": (9, "Comprehension", False),
    },
}

_CHOICES = ("Expr", "Constant")
_READ = ("CheckedExpr", "ParsedExpr")


@lru_cache(maxsize=1)
def _message_classes() -> "dict[str, type[Message]]":
    """Return the class of each message that is read, by its name."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # noqa: PLC0415 - only for conditions

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="mandate_cel.proto", package="mandate.cel", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        if name in _CHOICES:
            message.oneof_decl.add(name="kind")
        for field, (number, kind, repeated) in fields.items():
            field_type = message.field.add(name=field, number=number)
            field_type.label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            if kind in _MESSAGES:
                field_type.type, field_type.type_name = kinds.TYPE_MESSAGE, f".mandate.cel.{kind}"
            else:
                field_type.type = getattr(kinds, f"TYPE_{kind.upper()}")
            if name in _CHOICES:
                field_type.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{name}")) for name in _READ
    }
