"""Graphs of names that need each other: their levels, and their cycles."""

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping

MOST_CYCLES = 20
"""Cycles that are found."""

_NUMBER = re.compile(r"(\d+)")

Needs = Mapping[str, frozenset[str]]
"""By name: those that it needs, all of which are names of the graph."""


def list_levels(needs: Needs) -> tuple[tuple[str, ...], ...]:
    """Return the names in levels, each of which needs only those before it; names of a level are in order.

    Those that need each other, and what needs them, are left out.
    """
    counts = {name: len(needed) for name, needed in needs.items()}
    dependants: dict[str, list[str]] = {name: [] for name in needs}
    for name, needed in needs.items():
        for before in needed:
            dependants[before].append(name)
    levels = list[tuple[str, ...]]()
    ready = [name for name, count in counts.items() if not count]
    while ready:
        levels.append(tuple(sort_names(ready)))
        behind = list[str]()
        for name in ready:
            for after in dependants[name]:
                counts[after] -= 1
                behind += [after] * (not counts[after])
        ready = behind
    return tuple(levels)


def find_cycles(needs: Needs) -> Iterator[tuple[str, ...]]:
    """Yield names that need each other, at most `MOST_CYCLES` times, each cycle once and from its first name on.

    Each name needs the one behind it, and the last one the first. Every need that is part of a cycle is in one of
    these, in the shortest that goes through it, unless there are too many.
    """
    components = [component for component in _list_components(needs) if len(component) > 1]
    own = [frozenset({name}) for name, needed in needs.items() if name in needed]
    told, count = set[tuple[str, str]](), 0
    # The order is the same in each process, where that of a set is not.
    for component in sorted([*own, *components], key=lambda names: (_natural(sort_names(names)[0]), len(names))):
        inside = {name: needs[name] & component for name in component}
        for start in sort_names(component):
            for second in sort_names(inside[start]):
                if (start, second) in told:
                    continue
                if count == MOST_CYCLES:
                    return
                cycle = _find_way(second, start, inside)
                told |= set(zip(cycle, (*cycle[1:], cycle[0]), strict=True))
                count += 1
                first = cycle.index(sort_names(cycle)[0])
                yield (*cycle[first:], *cycle[:first])


def sort_names(names: Iterable[str]) -> list[str]:
    """Return names in the order that people give them: `item_2` before `item_10`."""
    return sorted(names, key=_natural)


def _natural(name: str) -> tuple[str | int, ...]:
    return (*(int(part) if part.isdecimal() else part for part in _NUMBER.split(name)), name)


def _find_way(start: str, end: str, needs: Needs) -> tuple[str, ...]:
    """Return the shortest way from `start` to `end`, which there is, both included."""
    came_from = {start: start}
    waiting = deque([start])
    while end not in came_from:
        name = waiting.popleft()
        for needed in sort_names(needs[name]):
            if needed not in came_from:
                came_from[needed] = name
                waiting.append(needed)
    way = [end]
    while way[-1] != start:
        way.append(came_from[way[-1]])
    return tuple(reversed(way))


def _list_components(needs: Needs) -> list[frozenset[str]]:
    """Return the names in groups all of whose names need each other, also by way of others (Tarjan's algorithm)."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path, on_path = list[str](), set[str]()
    found = list[frozenset[str]]()
    for root in needs:
        # Without recursion: a plan may be a chain of thousands.
        calls = [(root, iter(needs[root]))] if root not in order else []
        while calls:
            name, rest = calls[-1]
            if name not in order:
                order[name] = lowest[name] = len(order)
                path.append(name)
                on_path.add(name)
            following = next((needed for needed in rest if needed not in order or needed in on_path), None)
            if following is not None and following not in order:
                calls.append((following, iter(needs[following])))
            elif following is not None:
                lowest[name] = min(lowest[name], order[following])
            else:
                calls.pop()
                if calls:
                    lowest[calls[-1][0]] = min(lowest[calls[-1][0]], lowest[name])
                if lowest[name] == order[name]:
                    at = path.index(name)
                    found.append(frozenset(path[at:]))
                    on_path.difference_update(path[at:])
                    del path[at:]
    return found
