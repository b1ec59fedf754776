"""Writes to the board of a tree of runs: one version after another, within its bounds."""

from dataclasses import dataclass

from pydantic import JsonValue

from mandate.workflows.contracts.base import Digest, canonical_json
from mandate.workflows.contracts.board import BOARD_BYTES, CALLS_KEPT, MOST_KEYS, VALUE_BYTES, Board, BoardEntry
from mandate.workflows.contracts.tool import READ_BOARD, WRITE_BOARD, Tool
from mandate.workflows.rules import quantities


@dataclass(frozen=True, slots=True)
class Conflict:
    """A write that came too late: the value has another version by now."""

    entry: BoardEntry | None
    """The value as it is; `None` where there is none."""


def uses_board(tool: Tool) -> bool:
    """Return whether a tool is one of the board."""
    return tool.source == "builtin" and tool.name in {READ_BOARD, WRITE_BOARD}


def write(board: Board, name: str, entry: BoardEntry, key: Digest) -> Board | Conflict:
    """Return the board with a new version of a value; `entry` has the version that it is to have.

    A call that has written, by its `key`, changes nothing again.

    Raises:
        ValueError: the value, or the board with it, is too large; one sentence.
    """
    known = board.entries.get(name)
    if key in board.written:
        return board
    if entry.version != (known.version if known is not None else 0) + 1:
        return Conflict(known)
    size = _measure(entry.value)
    if size > VALUE_BYTES:
        raise ValueError(f"value: has {quantities.count_bytes(size)}; a value of the board has at most {VALUE_BYTES}")
    if known is None and len(board.entries) >= MOST_KEYS:
        raise ValueError(f"key: the board has {MOST_KEYS} values, its most; write one of these anew")
    entries = {**board.entries, name: entry}
    whole = sum(_measure(other.value) for other in entries.values())
    if whole > BOARD_BYTES:
        raise ValueError(f"value: the board would have {quantities.count_bytes(whole)}; it has at most {BOARD_BYTES}")
    calls = list({**board.written, key: entry.version}.items())[-CALLS_KEPT:]
    return Board(number=board.number + 1, entries=entries, written=dict(calls))


def _measure(value: JsonValue) -> int:
    return len(canonical_json(value))
