"""Bounds on the cost of a condition, estimated before it is evaluated: nothing can stop it afterwards."""

from collections.abc import Mapping
from dataclasses import dataclass

from mandate.workflows.rules.cel import tree
from mandate.workflows.rules.cel.tree import CALL, LIST, LOOP, OBJECT, Node

MOST_WORK = 5_000_000
"""Steps of about 40 ns, the cost of comparing two numbers: at most a quarter of a second."""

ITERATIONS = 10_000
"""The library itself stops a condition after about so many."""

PATTERN_WORK = 2_000
"""Reading a usual regular expression anew, as the library does each time."""

BOUNDED = ("agent", "run", "tool")
"""Variables whose size is the agent file's and not a model's."""


@dataclass(frozen=True, slots=True)
class Size:
    """Number of values and characters to go through."""

    values: int
    text_bytes: int

    @classmethod
    def of(cls, variables: Mapping[str, object]) -> "Size":
        count, text = 0, 0
        waiting = [value for name, value in variables.items() if name not in BOUNDED]
        while waiting:
            value = waiting.pop()
            count += 1
            match value:
                case str():
                    text += len(value) if value.isascii() else len(value.encode("utf-8", "replace"))
                case dict():
                    text += sum(len(key) for key in value if type(key) is str)
                    waiting.extend(value.values())
                case list() | tuple():
                    waiting.extend(value)
        return cls(count, text)


@dataclass(frozen=True, slots=True)
class Loops:
    """Loops of a condition through lists and objects."""

    count: int
    depth: int
    """Loops inside each other."""
    matches: bool
    items: int
    """Most that a list written in the condition holds."""


def is_too_costly(loops: Loops, size: Size) -> bool:
    """Return whether going through variables of `size` in `loops` could hold the CPU."""
    values = size.values + loops.items
    iterations: int = min(ITERATIONS, loops.count * values**loops.depth)
    return iterations * (values + size.text_bytes // 64 + PATTERN_WORK * loops.matches) > MOST_WORK


def count_loops(condition: Node) -> Loops | None:
    """Return how a condition goes through lists and objects; `None` if it does not."""
    parts = list(tree.walk(condition))
    count = sum(part.kind == LOOP for part in parts)
    if not count:
        return None
    matches = any(part.kind == CALL and part.name == "matches" for part in parts)
    return Loops(
        count, _depth(condition), matches, sum(len(part.parts) for part in parts if part.kind in {LIST, OBJECT})
    )


def _depth(node: Node) -> int:
    """Return the most loops that are inside each other: what a loop goes through is made before it begins."""
    if node.kind != LOOP:
        return max(map(_depth, node.parts), default=0)
    before = (node.parts[tree.LOOP_RANGE], node.parts[tree.LOOP_FIRST], node.parts[tree.LOOP_RESULT])
    within = (node.parts[tree.LOOP_CONDITION], node.parts[tree.LOOP_STEP])
    return max(*map(_depth, before), 1 + max(map(_depth, within)))
