"""Cost of a JSON Schema: how much work it makes of a value. Pure functions.

The engine bounds each pattern, follows a reference anew wherever it stands, and holds the interpreter until it is done:
forty definitions that name each other twice are days. What a schema may cost is therefore known before it is used.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote

from pydantic import JsonValue

from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.rules import json_pointer

MAX_STEPS = 20_000
"""Keywords, names and values of a schema, with all that it refers to in place of each reference."""
MAX_PATTERN = 200_000
"""Of all patterns together: characters, times the counts behind them."""
MAX_VALUES = 200_000
"""In what is checked: counting more would take too long by itself."""
MAX_CHECK = 20_000_000
"""Steps for each value in what is checked; about a third of a second."""
MAX_MATCHED = 100_000_000
"""Pattern for each character in what is checked; about half a second."""
MAX_TOLD = 5_000_000
"""Steps up to which it is looked up where a value does not fit: that is the dearest of all."""

MAX_TOLD_VALUES = 20_000

_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_DEFINITIONS = ("$defs", "definitions")
_NAMED = ("properties", "patternProperties", "dependentSchemas", "dependencies")
_COUNT = re.compile(r"\{(\d*),?(\d*)\}")
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_ATOM = re.compile(r"\\[pP]\{[^}]*\}|\\.|\[(?:\\.|[^\]\\])*\]|.", re.DOTALL)
_CLASSES = {"w": 100, "p": 100, "d": 10, "s": 5}
"""Weight of a class of Unicode characters, by the time that compiling it takes."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of one schema, for each value that is checked."""

    steps: int
    pattern: int
    """For each character of the value."""
    returns: int
    """Times it refers back to where it is being read; from two on the places to look at grow with each level."""

    def is_bearable(self, value: JsonValue) -> bool:
        """Return whether `value` can be checked in less than a second."""
        size = Size.of(value)
        checked, matched = self.steps * size.values, self.pattern * size.characters
        return size.values <= MAX_VALUES and checked <= MAX_CHECK and matched <= MAX_MATCHED

    def is_tellable(self, value: JsonValue) -> bool:
        """Return whether the place where `value` does not fit can be said."""
        size = Size.of(value)
        places = self.returns**size.depth if self.returns > 1 and size.depth < 40 else 1
        places = MAX_TOLD if self.returns > 1 and size.depth >= 40 else places
        return size.values <= MAX_TOLD_VALUES and self.steps * size.values * places <= MAX_TOLD


@dataclass(slots=True)
class Size:
    """Size of a value: number of its values and characters, and of the levels inside each other; up to `MAX_VALUES`."""

    values: int = 0
    characters: int = 0
    depth: int = 0

    @classmethod
    def of(cls, value: JsonValue) -> "Size":
        size, waiting = cls(), [(value, 1)]
        while waiting and size.values <= MAX_VALUES:
            part, depth = waiting.pop()
            size.values += 1
            size.depth = max(size.depth, depth)
            if isinstance(part, str):
                size.characters += len(part)
            elif isinstance(part, dict):
                size.characters += sum(map(len, part))
                waiting.extend((item, depth + 1) for item in part.values())
            elif isinstance(part, list):
                waiting.extend((item, depth + 1) for item in part)
        return size


def measure(schema: JsonObject) -> Cost:
    """Return what `schema` costs.

    Raises:
        ValueError: more than is allowed of any schema; says what is too much.
        RecursionError: it is nested too deep.
    """
    cost = _Measure(schema).of(schema)
    if cost.steps > MAX_STEPS:
        raise ValueError(f"the schema with all that it refers to has more than {MAX_STEPS:,} parts")
    # Each is compiled, also where nothing refers to it.
    if max(cost.pattern, sum(map(_weight_of, _objects(schema)))) > MAX_PATTERN:
        raise ValueError("the schema has patterns that are too large to be matched, above all by their counts")
    return cost


class _Measure:
    """Each part of a schema once; references lead to what may be meant, wherever it stands."""

    def __init__(self, root: JsonObject) -> None:
        self._bases: list[JsonValue] = [root]
        self._named: dict[str, list[JsonValue]] = {}
        for part in _objects(root):
            if part is not root and "$id" in part:
                self._bases.append(part)
            for key in ("$anchor", "$dynamicAnchor", "$id", "id"):
                if isinstance(name := part.get(key), str):
                    self._named.setdefault(name.removeprefix("#"), []).append(part)
        self._known: dict[tuple[int, bool], Cost] = {}
        self._open: set[tuple[int, bool]] = set()

    def of(self, part: JsonValue, *, named: bool = False) -> Cost:
        """Measure a part; `named` says that the keys of `part` are names that the author chose, not keywords."""
        if not isinstance(part, dict | list):
            return Cost(1, 0, 0)
        place = (id(part), named)
        if place in self._open:
            return Cost(1, 0, 1)
        if place not in self._known:
            self._open.add(place)
            self._known[place] = self._whole(part, named=named)
            self._open.discard(place)
        return self._known[place]

    def _whole(self, part: dict[str, JsonValue] | list[JsonValue], *, named: bool) -> Cost:
        costs, pattern = [], 0
        if isinstance(part, list):
            costs = [self.of(item) for item in part]
        elif named:
            costs = [self.of(item) for item in part.values()]
        else:
            # Definitions cost where they are referred to.
            inner = ((key, item) for key, item in part.items() if key not in _DEFINITIONS)
            costs = [self.of(item, named=key in _NAMED) for key, item in inner]
            costs += [self.of(target) for key in _REFERENCES for target in self._targets(part.get(key))]
            pattern = _weight_of(part)
        # No more than so many digits: each reference may double what is behind it.
        return Cost(
            min(1 + sum(cost.steps for cost in costs), 10**12),
            min(pattern + sum(cost.pattern for cost in costs), 10**12),
            min(sum(cost.returns for cost in costs), 10**6),
        )

    def _targets(self, reference: JsonValue) -> list[JsonValue]:
        if not isinstance(reference, str) or not reference.startswith("#"):
            return []
        pointer = unquote(reference[1:])
        if pointer and not pointer.startswith("/"):
            return self._named.get(pointer, [])
        targets = (json_pointer.resolve(base, reference) for base in self._bases)
        return [target for target in targets if target is not None]


def _objects(schema: JsonObject) -> Iterator[JsonObject]:
    waiting: list[JsonValue] = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield part
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)


def _weight_of(part: JsonObject) -> int:
    pattern, patterns = part.get("pattern"), part.get("patternProperties")
    own = weigh_pattern(pattern) if isinstance(pattern, str) else 0
    return own + sum(map(weigh_pattern, patterns if isinstance(patterns, dict) else ()))


def weigh_pattern(pattern: str) -> int:
    """Count the characters of a regular expression, each as often as the counts around it say."""
    sums, last = [0], 0
    position = 0
    while position < len(pattern):
        count = _COUNT.match(pattern, position)
        if count is not None and (count[1] or count[2]):
            times = max(int(number[:6]) for number in (count[1], count[2], "1") if number)
            sums[-1] += last * (times - 1)
            last *= times
            position = count.end()
            continue
        atom = _ATOM.match(pattern, position)
        text = atom[0] if atom else pattern[position]
        position += len(text)
        if text == "(":
            sums.append(0)
            continue
        if text == ")" and len(sums) > 1:
            last = sums.pop()
        else:
            last = max(1, sum(_CLASSES.get(letter.lower(), 1) for letter in _ESCAPED.findall(text)))
        sums[-1] += last
        if sums[-1] > 10**9:
            return 10**9
    return sum(sums)
