"""Levels and cycles of names that need each other."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mandate.workflows.rules.plans import graphs

NAMES = [f"n{number}" for number in range(12)]


def needs(written: str) -> dict[str, frozenset[str]]:
    """`a:b,c b: c:` is that a needs b and c."""
    parts = (part.split(":") for part in written.split())
    return {name: frozenset(filter(None, needed.split(","))) for name, needed in parts}


@pytest.mark.parametrize(
    ("written", "levels"),
    [
        ("a:", (("a",),)),
        ("a:b b:c c:", (("c",), ("b",), ("a",))),
        ("a: b: c:a,b d:a", (("a", "b"), ("c", "d"))),
        ("s10: s9: s2:", (("s2", "s9", "s10"),)),
        ("a:b b:a c: d:c,a", (("c",),)),
        ("a:a", ()),
    ],
)
def test_levels(written: str, levels: tuple[tuple[str, ...], ...]) -> None:
    assert graphs.list_levels(needs(written)) == levels


@pytest.mark.parametrize(
    ("written", "cycles"),
    [
        ("a:b b:", []),
        ("a:a", ["a"]),
        ("a:b b:a", ["a b"]),
        ("c:a a:b b:c", ["a b c"]),
        ("b:c c:b a:b d:a", ["b c"]),
        ("a:b b:a c:d d:c", ["a b", "c d"]),
        ("a:b b:a,c c:b", ["a b", "b c"]),
        ("a:a,b b:a", ["a", "a b"]),
        ("s10:s2 s2:s10", ["s2 s10"]),
        ("a:b b:c c:a,d d:e e:d", ["a b c", "d e"]),
    ],
)
def test_each_cycle_is_found_once_from_its_first_name_on(written: str, cycles: list[str]) -> None:
    assert [" ".join(cycle) for cycle in graphs.find_cycles(needs(written))] == cycles


GRAPHS = st.dictionaries(st.sampled_from(NAMES), st.frozensets(st.sampled_from(NAMES), max_size=4)).map(
    lambda found: {name: needed & found.keys() for name, needed in found.items()}
)


@given(GRAPHS)
def test_levels_hold_what_is_in_no_cycle_and_behind_none(graph: dict[str, frozenset[str]]) -> None:
    levels, cycles = graphs.list_levels(graph), list(graphs.find_cycles(graph))

    placed = [name for level in levels for name in level]
    assert len(placed) == len(set(placed))
    for number, level in enumerate(levels):
        before = {name for earlier in levels[:number] for name in earlier}
        assert all(graph[name] <= before for name in level)
        assert all(graph[name] & set(levels[number - 1]) for name in level if number)
    assert bool(cycles) == (len(placed) < len(graph))


@given(GRAPHS)
def test_cycles_are_cycles_and_cover_every_need_that_is_part_of_one(graph: dict[str, frozenset[str]]) -> None:
    cycles = list(graphs.find_cycles(graph))

    covered = set[tuple[str, str]]()
    for cycle in cycles:
        assert len(set(cycle)) == len(cycle)
        assert cycle[0] == graphs.sort_names(cycle)[0]
        edges = list(zip(cycle, (*cycle[1:], cycle[0]), strict=True))
        assert all(needed in graph[name] for name, needed in edges)
        covered |= set(edges)
    assert len(set(cycles)) == len(cycles)
    if len(cycles) < graphs.MOST_CYCLES:
        for name, needed in graph.items():
            for other in needed:
                assert ((name, other) in covered) == _reaches(graph, other, name)


def _reaches(graph: dict[str, frozenset[str]], start: str, end: str) -> bool:
    seen, waiting = {start}, [start]
    while waiting:
        name = waiting.pop()
        waiting += graph[name] - seen
        seen |= graph[name]
    return end in seen


@given(GRAPHS, st.randoms())
def test_order_of_definition_does_not_matter(graph: dict[str, frozenset[str]], random: object) -> None:
    names = list(graph)
    random.shuffle(names)  # type: ignore[attr-defined]
    shuffled = {name: graph[name] for name in names}

    assert graphs.list_levels(shuffled) == graphs.list_levels(graph)
    assert list(graphs.find_cycles(shuffled)) == list(graphs.find_cycles(graph))


def test_large_graphs_take_no_time() -> None:
    names = [f"n{number}" for number in range(2000)]
    chain = {name: frozenset(names[number - 1 : number]) for number, name in enumerate(names)}
    ring = {**chain, "n0": frozenset({"n1999"})}
    everything = {name: frozenset(names) for name in names[:400]} | {name: frozenset() for name in names[400:]}
    behind = {"a": frozenset("b"), "b": frozenset("a")} | {
        name: frozenset({"a", *names[:number]}) for number, name in enumerate(names[:1000])
    }
    started = time.process_time()

    assert len(graphs.list_levels(chain)) == 2000
    assert [len(cycle) for cycle in graphs.find_cycles(ring)] == [2000]
    assert len(list(graphs.find_cycles(everything))) == graphs.MOST_CYCLES
    assert list(graphs.find_cycles(behind)) == [("a", "b")]
    assert time.process_time() - started < 10
