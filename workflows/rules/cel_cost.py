"""What evaluating a condition may cost at most, estimated before it is evaluated: nothing can stop it afterwards."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

MOST_WORK = 5_000_000
"""Steps of about 40 ns, the cost of comparing two numbers: at most a quarter of a second."""

ITERATIONS = 10_000
"""The library itself stops a condition after about so many."""

PATTERN_WORK = 2_000
"""Reading a usual regular expression anew, as the library does each time."""

BOUNDED = ("agent", "run", "tool")
"""Variables whose size is the agent file's and not a model's."""

_TEXTS = re.compile(r"'''.*?'''|\"\"\".*?\"\"\"|'(?:\\.|[^'\\\n])*'|\"(?:\\.|[^\"\\\n])*\"", re.DOTALL)
_PARTS = re.compile(r"\.\s*(?:all|exists|exists_one|map|filter)\s*\(|[()]")


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is to go through."""

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
                    text += len(value)
                case dict():
                    text += sum(len(key) for key in value if type(key) is str)
                    waiting.extend(value.values())
                case list() | tuple():
                    waiting.extend(value)
        return cls(count, text)


@dataclass(frozen=True, slots=True)
class Loops:
    """How a condition goes through lists and objects."""

    count: int
    depth: int
    """Loops inside each other."""
    matches: bool
    items: int
    """Most that a list written in the condition holds."""


def too_costly(loops: Loops, size: Size) -> bool:
    """Whether going through variables of `size` in `loops` could hold the CPU."""
    values = size.values + loops.items
    iterations: int = min(ITERATIONS, loops.count * values**loops.depth)
    return iterations * (values + size.text_bytes // 64 + PATTERN_WORK * loops.matches) > MOST_WORK


def loops_of(text: str) -> Loops | None:
    """How the condition `text` goes through lists and objects; `None` if it does not."""
    bare = _TEXTS.sub("''", text)
    opened: list[bool] = []
    count = depth = 0
    for part in _PARTS.findall(bare):
        if part == ")":
            if opened:
                opened.pop()
            continue
        opened.append(part != "(")
        count += opened[-1]
        depth = max(depth, sum(opened))
    return Loops(count, depth, "matches" in bare, bare.count(",")) if count else None
