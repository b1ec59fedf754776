"""The book of the proof by plans: what tools and models of its steps have done, and where workers have died."""

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

PATH = "MANDATE_TEST_BOOK"
"""Environment: the SQLite file."""

_TABLES = """
create table if not exists rows (
    number integer primary key autoincrement, at real, place text, tool text, key text, unit text, what text);
create index if not exists by_key on rows (key, what);
create index if not exists by_place on rows (what, place);
create table if not exists passes (number integer primary key autoincrement, point text);
create table if not exists deaths (number integer primary key autoincrement, at real, point text, pid integer);
"""

What = Literal["began", "done", "ended", "refused", "closed"]


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that happened in a call; `done` is the effect itself."""

    at: float
    place: str
    """`plan/step`, `plan/step/index`, and below a plan or an agent of a step more parts."""
    tool: str
    key: str
    unit: str
    """What counts as one call of the outermost plan."""
    what: What


class Book:
    """One connection to the file; each row is in it before anything goes on."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None, timeout=60, check_same_thread=False)
        self._database.execute("pragma journal_mode = wal")
        # What dies is a process, not the machine.
        self._database.execute("pragma synchronous = normal")
        self._database.executescript(_TABLES)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Let all in the block be one transaction."""
        self._database.execute("begin immediate")
        try:
            yield
        finally:
            self._database.execute("commit")

    def write(self, place: str, tool: str, key: str, unit: str, what: What) -> None:
        self._database.execute(
            "insert into rows (at, place, tool, key, unit, what) values (?, ?, ?, ?, ?, ?)",
            [time.time(), place, tool, key, unit, what],
        )

    def has(self, key: str, what: What) -> bool:
        found = self._database.execute("select 1 from rows where key = ? and what = ? limit 1", [key, what])
        return found.fetchone() is not None

    def find_place(self, key: str) -> str | None:
        """Return where the effect of a call was done, by its key."""
        row = self._database.execute("select place from rows where key = ? and what = 'done'", [key]).fetchone()
        return str(row[0]) if row is not None else None

    def count_refused(self, place: str, but: str) -> int:
        """Return how many calls for a place were refused, but the one of a key, and those that are made again."""
        query = (
            "select count(distinct key) from rows where place = ? and what = 'refused' and key <> ? "
            "and key not in (select key from rows where what = 'closed')"
        )
        return int(self._database.execute(query, [place, but]).fetchone()[0])

    def count_ended(self, plan: str) -> int:
        """Return how many calls of a plan have ended, each as often as it was made."""
        query = "select count(*) from rows where what = 'ended' and place > ? and place < ?"
        return int(self._database.execute(query, [f"{plan}/", f"{plan}0"]).fetchone()[0])

    def note_pass(self, point: str, wanted: Sequence[int], apart: float) -> bool:
        """Note that a point is passed, and return whether the process dies there.

        It does from the next of the `wanted` passes on, once the last death is `apart` seconds ago.
        """
        with self.at_once():
            self._database.execute("insert into passes (point) values (?)", [point])
            passes, dead = (
                self._database.execute(f"select count(*) from {table} where point = ?", [point]).fetchone()[0]
                for table in ("passes", "deaths")
            )
            last = self._database.execute("select max(at) from deaths").fetchone()[0] or 0.0
            now = time.time()
            dies = dead < len(wanted) and passes >= wanted[dead] and now - last >= apart
            if dies:
                values = [now, point, os.getpid()]
                self._database.execute("insert into deaths (at, point, pid) values (?, ?, ?)", values)
            return dies

    def list_rows(self) -> list[Row]:
        """Return all rows in their order."""
        query = "select at, place, tool, key, unit, what from rows order by number"
        return [Row(*row) for row in self._database.execute(query)]

    def list_deaths(self) -> list[str]:
        """Return the points at which workers have died."""
        return [str(row[0]) for row in self._database.execute("select point from deaths order by number")]

    def close(self) -> None:
        self._database.close()


_opened: dict[str, Book] = {}


def open_book() -> Book:
    """Return the book that the environment of this process names."""
    path = os.environ[PATH]
    if path not in _opened:
        _opened[path] = Book(Path(path))
    return _opened[path]
