"""Growth of what a condition makes, and what that costs: texts and lists that grow in its loops.

`[args.s].map(x, x + x).map(x, x + x)` doubles with each loop: the loops are short, and what they make is not. Each part
of a condition is given the size of its value as a bound; a loop adds up what its step makes of the elements. Of these
only the size of them all together is known, so the step is bounded for an element of no size and for one that is as
large as all of them: steps grow at least as fast as their elements, so no other elements make more of it.
"""

from collections.abc import Mapping
from typing import NamedTuple

from mandate.workflows.rules.cel import tree
from mandate.workflows.rules.cel.tree import CALL, LIST, LOOP, OBJECT, Node

MOST_STEPS = 2_500_000
"""Of about 40 ns."""

MOST_BYTES = 40_000_000
"""That are taken and not given back until a condition has been evaluated."""

MOST_PARTS = 5_000
"""Parts that are looked at to estimate one condition: loops inside each other multiply them."""

ITEM_BYTES = 32
"""Of a list, for each of its elements."""

NODE_BYTES, NODE_STEPS = 100, 12
"""To hand a value over as JSON, for each number, text, list and object of it. Measured."""

NUMBER_BYTES = 32
"""Of a number or a time as text."""

PATTERN_STEPS = 2_000
"""Reading a usual regular expression anew, as the library does each time."""

_ENDLESS = 10**15
_THROUGH_ALL = frozenset({"_==_", "_!=_", "@in", "_in_", "in"})
_COMPARE = frozenset({"_<_", "_<=_", "_>_", "_>=_", "contains", "startsWith", "endsWith", "matches", "size"})
_TRUTH = frozenset({"_&&_", "_||_", "!_", "@not_strictly_false", "__not_strictly_false__"})
_ONE = _THROUGH_ALL | _COMPARE | _TRUTH | {"_-_", "_*_", "_/_", "_%_", "-_", "int", "uint", "double", "bool", "type"}


class Value(NamedTuple):
    """The most that a value holds."""

    items: int
    """Elements, if it is a list or an object."""
    nodes: int
    """Numbers, texts, lists and objects, as often as one finds them who goes through it."""
    text: int
    """Bytes of all its texts."""
    kind: str = ""
    """`TEXT` or `NUMBER` (or true, or a time), where that is sure."""


TEXT, NUMBER = "text", "number"


class Estimate(NamedTuple):
    """A value and what making it costs."""

    value: Value
    steps: int
    bytes: int


SINGLE = Value(0, 1, 0)

ONE = Value(0, 1, 0, NUMBER)

BOUNDED = Value(100, 500, 5_000)
"""Variables that get their size from the agent file and no model."""


class _TooMuch(Exception):
    """The condition is not worth an estimate."""


def find_growth(node: Node) -> Node | None:
    """Return `node` if it makes something in a loop, which may grow; else `None`."""
    for loop in tree.walk(node):
        if loop.kind == LOOP and any(
            part.kind in {LIST, OBJECT} or (part.kind == CALL and part.name == "_+_")
            for place in loop.parts
            for part in tree.walk(place)
        ):
            return node
    return None


def is_too_large(node: Node, variables: Mapping[str, Value], *, is_kept: bool) -> bool:
    """Return whether evaluating `node` could take too much; with `is_kept` its value is handed over as JSON."""
    try:
        value, steps, taken = _Estimator(variables).estimate(node)
    except (_TooMuch, RecursionError):
        return True
    if is_kept:
        steps += NODE_STEPS * value.nodes
        taken += NODE_BYTES * value.nodes + 2 * value.text
    return steps > MOST_STEPS or taken > MOST_BYTES


class _Estimator:
    def __init__(self, variables: Mapping[str, Value]) -> None:
        self._scope = dict(variables)
        self._parts = 0

    def estimate(self, node: Node) -> Estimate:
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise _TooMuch
        match node.kind:
            case tree.CONSTANT:
                kind = {tree.TEXT: TEXT, tree.BYTES: ""}.get(node.name, NUMBER)
                return Estimate(Value(0, 1, node.text_bytes, kind), 1, 0)
            case tree.NAME:
                return Estimate(self._scope.get(node.name, SINGLE), 1, 0)
            case tree.PART:
                value, steps, taken = self.estimate(node.parts[0])
                return Estimate(_part_of(value), steps + 1, taken)
            case tree.LOOP:
                return self._loop(node)
            case _:
                return self._estimate_value(node)

    def _estimate_value(self, node: Node) -> Estimate:
        """Estimate a call, a list or an object."""
        parts = [self.estimate(part) for part in node.parts]
        steps = 1 + sum(each.steps for each in parts)
        taken = sum(each.bytes for each in parts)
        items = sum(each.value.items for each in parts)
        nodes = sum(each.value.nodes for each in parts)
        text = sum(each.value.text for each in parts)
        if node.kind != CALL:
            made = Value(len(parts), nodes + 1, text)
            return _bound(made, steps + len(parts), taken + ITEM_BYTES * len(parts))
        if node.name in _THROUGH_ALL:
            return _bound(ONE, steps + nodes + text // 64, taken)
        if node.name in _TRUTH:
            return _bound(ONE, steps, taken)
        if node.name in _COMPARE:
            return _bound(ONE, steps + text // 64 + PATTERN_STEPS * (node.name == "matches"), taken)
        if node.name in _ONE:
            return _bound(ONE, steps, taken)
        if node.name == "_?_:_":
            first, second = parts[1].value, parts[2].value
            kind = first.kind if first.kind == second.kind else ""
            made = Value(first.items + second.items, first.nodes + second.nodes, first.text + second.text, kind)
            return _bound(made, steps, taken)
        if node.name == "_[_]":
            return _bound(_part_of(parts[0].value), steps + text // 64, taken)
        if node.name == "string":
            return _bound(Value(0, 1, text + NUMBER_BYTES, TEXT), steps + text // 64, taken + text + NUMBER_BYTES)
        kinds = {each.value.kind for each in parts} if node.name == "_+_" else set()
        if NUMBER in kinds:
            return _bound(ONE, steps, taken)
        if TEXT in kinds:
            return _bound(Value(0, 1, text, TEXT), steps + text // 64, taken + text)
        # '_+_', and functions that make a text of a value: a new text, or a new list of the same elements.
        return _bound(Value(items, nodes, text), steps + text // 64, taken + max(text, ITEM_BYTES * items))

    def _loop(self, node: Node) -> Estimate:
        over, first = (self.estimate(node.parts[place]) for place in (tree.LOOP_RANGE, tree.LOOP_FIRST))
        times, whole = over.value.items, _part_of(over.value)
        gathers = node.parts[tree.LOOP_FIRST].kind == LIST
        kept = {name: self._scope.get(name) for name in (node.name, node.sum_name)}
        self._scope[node.sum_name] = Value(0, 0, 0) if gathers else SINGLE
        least, most = (self._step(node, element) for element in (SINGLE, whole))
        value = first.value
        if gathers:
            small, large = least.value, most.value
            value = Value(
                first.value.items + _all(times, small.items, large.items),
                first.value.nodes + _all(times, small.nodes, large.nodes),
                first.value.text + _all(times, small.text, large.text),
            )
        self._scope[node.sum_name] = value
        result = self.estimate(node.parts[tree.LOOP_RESULT])
        for name, before in kept.items():
            if before is None:
                self._scope.pop(name, None)
            else:
                self._scope[name] = before
        steps = over.steps + first.steps + result.steps + times + _all(times, least.steps, most.steps)
        taken = over.bytes + first.bytes + result.bytes + _all(times, least.bytes, most.bytes)
        if gathers:
            # The library copies the list for each element that is added.
            taken += ITEM_BYTES // 2 * value.items * value.items
            steps += value.items * value.items // 8
        return _bound(result.value, steps, taken)

    def _step(self, node: Node, element: Value) -> Estimate:
        self._scope[node.name] = element
        condition = self.estimate(node.parts[tree.LOOP_CONDITION])
        step = self.estimate(node.parts[tree.LOOP_STEP])
        return Estimate(step.value, condition.steps + step.steps, condition.bytes + step.bytes)


def _all(times: int, least: int, most: int) -> int:
    """Return what a step makes of all elements together."""
    return times * least + max(0, most - least)


def _part_of(value: Value) -> Value:
    """Return an item of `value`."""
    inner = max(1, value.nodes - 1)
    return Value(min(value.nodes, inner), inner, value.text)


def _bound(value: Value, steps: int, taken: int) -> Estimate:
    """Keep numbers small beyond which none matters."""
    items, nodes, text, kind = value
    value = Value(min(items, _ENDLESS), min(nodes, _ENDLESS), min(text, _ENDLESS), kind)
    return Estimate(value, min(steps, _ENDLESS), min(taken, _ENDLESS))
