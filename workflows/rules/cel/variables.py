"""Variables that an expression reads, by its syntax."""

from collections.abc import Iterator
from typing import NamedTuple

from mandate.workflows.rules.cel.tree import CALL, CONSTANT, LOOP, NAME, PART, TEXT, Node

INDEX = "_[_]"
"""Function that stands for brackets behind a value."""

_TYPES = frozenset({"bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"})
"""Names that the language itself has."""


class Read(NamedTuple):
    """One place where an expression reads a variable."""

    variable: str
    key: str | None
    """The key that it reads of the variable; `None` where it reads all of it, or computes the key."""


def list_reads(expression: Node) -> Iterator[Read]:
    """Yield each read of a variable, from left to right; variables of loops are not among them."""
    waiting: list[tuple[Node, frozenset[str]]] = [(expression, frozenset())]
    while waiting:
        node, bound = waiting.pop()
        if node.kind == NAME:
            yield from _read(node.name, None, bound)
        elif (found := find_key(node)) is not None and node.parts[0].kind == NAME:
            yield from _read(node.parts[0].name, found, bound)
        elif node.kind == LOOP:
            range_, first, condition, step, result = node.parts
            gathered = bound | {node.sum_name}
            within = gathered | {node.name}
            waiting += [(result, gathered), (step, within), (condition, within), (first, bound), (range_, bound)]
        else:
            waiting += [(part, bound) for part in reversed(node.parts)]


def find_key(node: Node) -> str | None:
    """Return the key that `node` takes of its first part: `a.key` or `a["key"]`; `None` where it takes none."""
    if node.kind == PART:
        return node.name
    if node.kind == CALL and node.name == INDEX and node.parts[1].kind == CONSTANT and node.parts[1].name == TEXT:
        return node.parts[1].text
    return None


def _read(name: str, key: str | None, bound: frozenset[str]) -> Iterator[Read]:
    # A dot before a name says that no variable of a loop is meant.
    plain = name.removeprefix(".")
    if plain not in _TYPES and not (plain == name and name in bound):
        yield Read(plain, key)
