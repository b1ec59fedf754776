"""Writes to the board: versions in a row, once for each call, within the bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mandate.workflows.contracts.base import digest_of
from mandate.workflows.contracts.board import BOARD_BYTES, MOST_KEYS, VALUE_BYTES, Board, BoardEntry
from mandate.workflows.rules.board import Conflict, write


def entry(version: int, value: object = "x") -> BoardEntry:
    return BoardEntry.model_validate({"value": value, "version": version, "by": "run"})


def key(number: int) -> str:
    return digest_of(str(number).encode())


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 4), st.integers(0, 30)), max_size=40))
def test_a_write_counts_once_and_only_upon_the_version_that_was_read(calls: list[tuple[str, int, int]]) -> None:
    board, versions, made = Board(), {"a": 0, "b": 0}, dict[int, tuple[str, int]]()
    for name, expected, number in calls:
        written = write(board, name, entry(expected + 1), key(number))
        if number in made:
            # Whatever else it says now: it is the same call.
            assert written is board
        elif expected == versions[name]:
            assert isinstance(written, Board)
            versions[name] += 1
            made[number] = (name, versions[name])
            assert written.written[key(number)] == versions[name]
            board = written
        else:
            assert isinstance(written, Conflict)
            assert (written.entry.version if written.entry is not None else 0) == versions[name]
    assert board.number == sum(versions.values())
    assert {name: one.version for name, one in board.entries.items()} == {k: v for k, v in versions.items() if v}


def fill(count: int, value: str) -> Board:
    board = Board()
    for number in range(count):
        written = write(board, f"k{number}", entry(1, value), key(number))
        assert isinstance(written, Board)
        board = written
    return board


def test_a_board_is_bounded() -> None:
    with pytest.raises(ValueError, match="value: has 4098 bytes; a value of the board has at most 4096"):
        write(Board(), "a", entry(1, "x" * VALUE_BYTES), key(1))
    with pytest.raises(ValueError, match="key: the board has 64 values, its most"):
        write(fill(MOST_KEYS, "x"), "more", entry(1), key(1000))
    large = fill(BOARD_BYTES // (VALUE_BYTES - 96), "x" * (VALUE_BYTES - 98))
    with pytest.raises(ValueError, match="value: the board would have"):
        write(large, "more", entry(1, "x" * (VALUE_BYTES - 98)), key(1000))
