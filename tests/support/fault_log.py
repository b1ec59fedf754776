"""What the fault server did: one SQLite file, every commit on the disk before it counts."""

import json
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from tests.support.fault_plan import Point

_TABLES = """
create table if not exists calls (
    number integer primary key autoincrement, at real, run text, tool text, item text, key text, arguments text);
create table if not exists answers (key text primary key, call text, answer text);
create table if not exists hits (
    number integer primary key autoincrement, at real, run text, item text, point text, pid integer);
"""


@dataclass(frozen=True, slots=True)
class Executed:
    """One call that was carried out."""

    number: int
    """Its place in the order of all, and its receipt."""
    at: float
    """When; of a call that was held until another fault took its caller, when that was seen."""
    run: str
    tool: str
    item: str
    key: str | None


@dataclass(frozen=True, slots=True)
class Hit:
    """One call that was hurt."""

    at: float
    """Just before the signal, where there is one."""
    run: str
    item: str
    point: Point
    pid: int | None
    """Of the process that was killed."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One call as it arrived."""

    run: str
    tool: str
    item: str
    method: str
    key: str | None


class FaultLog:
    """The effects themselves are the rows of `calls`."""

    def __init__(self, path: Path, *, no_keys: tuple[str, ...] = ()) -> None:
        """The same key gets the stored answer, as with APIs that know idempotency keys for POST.

        Keys of runs whose names begin with one of `no_keys` are ignored.
        """
        self._no_keys = no_keys
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.execute("pragma journal_mode = wal")
        self._database.execute("pragma synchronous = full")
        self._database.executescript(_TABLES)

    def execute(self, asked: Asked) -> tuple[int, str]:
        """Status and body of the answer; the effect and its answer are one transaction."""
        call = json.dumps([asked.tool, asked.run, asked.item])
        keyed = asked.method == "POST" and asked.key is not None and not asked.run.startswith(self._no_keys)
        self._database.execute("begin immediate")
        try:
            if keyed:
                found = self._database.execute("select call, answer from answers where key = ?", [asked.key]).fetchone()
                if found is not None:
                    return (200, str(found[1])) if found[0] == call else (422, "the key belongs to another call")
            number = self._database.execute(
                "insert into calls (at, run, tool, item, key, arguments) values (?, ?, ?, ?, ?, ?)",
                [time.time(), asked.run, asked.tool, asked.item, asked.key, call],
            ).lastrowid
            answer = json.dumps({"receipt": number, "item": asked.item})
            if keyed:
                self._database.execute("insert into answers values (?, ?, ?)", [asked.key, call, answer])
            return 200, answer
        finally:
            self._database.execute("commit")

    def orphaned(self, asked: Asked) -> None:
        """Write down that the caller of a call that was carried out is found dead now."""
        latest = "select max(number) from calls where run = ? and tool = ? and item = ?"
        self._database.execute(
            f"update calls set at = ? where number = ({latest})", [time.time(), asked.run, asked.tool, asked.item]
        )

    def found(self, key: str) -> int | None:
        """The receipt of the call that came with this key."""
        row = self._database.execute("select number from calls where key = ?", [key]).fetchone()
        return int(row[0]) if row is not None else None

    def hit(self, asked: Asked, point: Point, pid: int | None = None) -> None:
        """Write down that a call is hurt now."""
        self._database.execute(
            "insert into hits (at, run, item, point, pid) values (?, ?, ?, ?, ?)",
            [time.time(), asked.run, asked.item, point, pid],
        )

    def times_hit(self, asked: Asked) -> int:
        row = self._database.execute("select count(*) from hits where run = ? and item = ?", [asked.run, asked.item])
        return int(row.fetchone()[0])

    def executed(self) -> list[Executed]:
        """All calls in the order in which they were carried out."""
        rows = self._database.execute("select number, at, run, tool, item, key from calls order by number")
        return [Executed(*row) for row in rows]

    def hits(self) -> list[Hit]:
        rows = self._database.execute("select at, run, item, point, pid from hits order by number")
        return [Hit(at, run, item, Point(point), pid) for at, run, item, point, pid in rows]

    def close(self) -> None:
        self._database.close()
