"""The board of a tree of runs: a few named values that all of them read, and write one version after another."""

from typing import Literal

from pydantic import JsonValue

from mandate.workflows.contracts.base import Digest, Record

MOST_KEYS = 64
VALUE_BYTES = 4 * 1024
"""Of one value as JSON."""
BOARD_BYTES = 64 * 1024
"""Of all values together."""

CALLS_KEPT = 200

BoardAccess = Literal["read", "write"]
"""Access that an agent's model has to the board; `write` reads too."""


class BoardPlace(Record):
    """The run at the root of a tree, which the board belongs to."""

    workflow_id: str
    run_id: str
    """Of any run of its chain."""


class BoardEntry(Record):
    """One value of a board."""

    value: JsonValue
    version: int
    """1 for the first."""
    by: str
    """Workflow id of the run that wrote it."""
    tainted: bool = False
    """That run had read content of an untrusted tool."""


class Board(Record):
    """All values of a board, as they are kept."""

    number: int = 0
    """Writes so far."""
    entries: dict[str, BoardEntry] = {}
    written: dict[Digest, int] = {}
    """Versions by the keys of the last `CALLS_KEPT` calls that wrote: an attempt after a lost answer writes nothing."""
