"""Blobs in one SQLite file: the default, for any number of processes on one machine."""

import asyncio
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from mandate.activities import private_files
from mandate.activities.stores import sqlite_budgets, sqlite_results, sqlite_streams
from mandate.activities.stores.base import (
    FIRST_HOUR,
    FORGOTTEN_AFTER,
    KEY_BYTES,
    USED_AFTER,
    Announcement,
    Announcements,
    CacheUse,
    KeptResult,
    Key,
    Keys,
    StoreUnavailable,
)
from mandate.activities.stores.budgets import Balance, Line, Reserved
from mandate.activities.stores.streams import StreamPiece
from mandate.workflows.contracts.base import Digest
from mandate.workflows.contracts.budget import Amount
from mandate.workflows.rules import quantities

R = TypeVar("R")

BUSY_SECONDS = 10.0
"""Seconds that a call waits for the other processes that write to the file."""
ROWS = 400
"""Rows a statement; older SQLite libraries take at most 999 parameters."""
APPLICATION_ID = 0x4D4E4454

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS blobs (digest TEXT PRIMARY KEY, content BLOB NOT NULL)",
    "CREATE TABLE IF NOT EXISTS store (id INTEGER PRIMARY KEY CHECK (id = 1), identity TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS claims (key TEXT PRIMARY KEY, claimed_at TEXT NOT NULL)",
    """
    CREATE TABLE IF NOT EXISTS keys (
        number INTEGER PRIMARY KEY AUTOINCREMENT, secret BLOB NOT NULL, made_at REAL NOT NULL, used_from REAL NOT NULL,
        retired_at REAL
    )
    """,
    "CREATE TABLE IF NOT EXISTS unmarked (id INTEGER PRIMARY KEY CHECK (id = 1), until REAL NOT NULL)",
    """
    CREATE TABLE IF NOT EXISTS workers (
        queue TEXT NOT NULL, worker TEXT NOT NULL, content TEXT NOT NULL, since REAL NOT NULL, seen_at REAL NOT NULL,
        PRIMARY KEY (queue, worker)
    )
    """,
    "CREATE TABLE IF NOT EXISTS sessions (key TEXT PRIMARY KEY, number INTEGER NOT NULL, content BLOB NOT NULL)",
    *sqlite_budgets.SCHEMA,
    *sqlite_results.SCHEMA,
    *sqlite_streams.SCHEMA,
)
SCHEMA_VERSION = 6
"""In the file's `user_version`: versions 1 to 6 have added claims, keys, workers, budgets, results, sessions
with streams."""
_TABLES = (
    *("blobs", "store", "claims", "keys", "unmarked", "workers", "sessions", "sqlite_sequence"),
    *sqlite_budgets.TABLES,
    sqlite_results.TABLE,
    *sqlite_streams.TABLES,
)
_FOREIGN_TABLES = f"SELECT 1 FROM sqlite_master WHERE type = 'table' AND name NOT IN {_TABLES}"  # noqa: S608 - ours


class SqliteStore:
    """The `BlobStore` in the file at `path`; file and folder are made at the first call.

    Write-ahead log with `synchronous=FULL`: what was stored survives a power loss, as Temporal's own history does.
    One flush a commit is the price, 0.1 ms where it was measured; puts that wait at the same time share one commit.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self._writer = _Lane(self.path, is_writer=True)
        self._reader = _Lane(self.path, is_writer=False)

    async def identity(self) -> str:
        return await self._reader.ask(_identity)

    async def put(self, blobs: Mapping[Digest, bytes]) -> None:
        if blobs:
            rows = tuple(blobs.items())
            await self._writer.ask(lambda connection: _insert(connection, rows))

    async def get(self, digests: Sequence[Digest]) -> dict[Digest, bytes]:
        wanted = tuple(digests)
        return await self._reader.ask(lambda connection: _select(connection, wanted)) if wanted else {}

    async def claim(self, key: str) -> bool:
        return await self._writer.ask(lambda connection: _enter(connection, key))

    async def keys(self) -> Keys:
        return await self._writer.ask(_read_keys)

    async def add_key(self) -> Key:
        return await self._writer.ask(_add_key)

    async def retire_key(self, number: int) -> bool:
        return await self._writer.ask(lambda connection: _retire_key(connection, number))

    async def announce(self, queue: str, worker: str, content: str) -> None:
        await self._writer.ask(lambda connection: _announce(connection, queue, worker, content))

    async def announcements(self, queue: str) -> Announcements:
        return await self._reader.ask(lambda connection: _announcements(connection, queue))

    async def reserve(self, reservation: str, lines: Sequence[Line], amount: Amount) -> Reserved:
        wanted = tuple(lines)
        return await self._writer.ask(
            lambda connection: sqlite_budgets.reserve(connection, reservation, wanted, amount)
        )

    async def settle(self, reservation: str, actual: Amount | None = None) -> tuple[Balance, ...]:
        return await self._writer.ask(lambda connection: sqlite_budgets.settle(connection, reservation, actual))

    async def assume_all(self, name: str) -> None:
        await self._writer.ask(lambda connection: sqlite_budgets.assume_all(connection, name))

    async def list_balances(self, first: str, last: str) -> tuple[Balance, ...]:
        return await self._reader.ask(lambda connection: sqlite_budgets.list_balances(connection, first, last))

    async def keep(self, key: str, result: KeptResult, lifetime: timedelta) -> None:
        await self._writer.ask(lambda connection: sqlite_results.keep(connection, key, result, lifetime))

    async def cached(self, key: str) -> KeptResult | None:
        found = await self._reader.ask(lambda connection: sqlite_results.find(connection, key))
        if found is not None:
            # The result is good, whether it can be counted or not.
            with suppress(StoreUnavailable):
                await self._writer.ask(lambda connection: sqlite_results.count_hit(connection, key))
        return found

    async def cache_use(self, tool: str | None = None, agent: str | None = None) -> tuple[CacheUse, ...]:
        # The writer makes what an older file lacks.
        return await self._writer.ask(lambda connection: sqlite_results.list_use(connection, tool, agent))

    async def clear_cache(self, tool: str | None = None, agent: str | None = None) -> int:
        return await self._writer.ask(lambda connection: sqlite_results.clear(connection, tool, agent))

    async def keep_session(self, key: str, number: int, content: bytes) -> None:
        await self._writer.ask(lambda connection: _keep_session(connection, key, number, content))

    async def swap_session(self, key: str, number: int, content: bytes) -> bool:
        return await self._writer.ask(lambda connection: _swap_session(connection, key, number, content))

    async def session(self, key: str) -> bytes | None:
        # The writer makes what an older file lacks.
        return await self._writer.ask(lambda connection: _session(connection, key))

    async def append_stream(self, run: str, pieces: Sequence[StreamPiece]) -> None:
        wanted = tuple(pieces)
        await self._writer.ask(lambda connection: sqlite_streams.append(connection, run, wanted))

    async def read_stream(self, run: str, after: int) -> tuple[StreamPiece, ...]:
        return await self._reader.ask(lambda connection: sqlite_streams.read(connection, run, after))

    async def follow_stream(self, run: str, lifetime: timedelta) -> None:
        await self._writer.ask(lambda connection: sqlite_streams.follow(connection, run, lifetime))

    async def list_followed(self) -> frozenset[str]:
        return await self._reader.ask(sqlite_streams.list_followed)

    async def close(self) -> None:
        await self._writer.close()
        await self._reader.close()


def _identity(connection: sqlite3.Connection) -> str:
    return str(connection.execute("SELECT identity FROM store").fetchone()[0])


def _insert(connection: sqlite3.Connection, rows: Sequence[tuple[Digest, bytes]]) -> None:
    for start in range(0, len(rows), ROWS):
        part = rows[start : start + ROWS]
        marks = ",".join(["(?,?)"] * len(part))
        statement = f"INSERT OR IGNORE INTO blobs VALUES {marks}"  # noqa: S608 - question marks only
        connection.execute(statement, [value for row in part for value in row])


def _select(connection: sqlite3.Connection, digests: Sequence[Digest]) -> dict[Digest, bytes]:
    contents: dict[Digest, bytes] = {}
    for start in range(0, len(digests), ROWS):
        part = digests[start : start + ROWS]
        marks = ",".join("?" * len(part))
        statement = f"SELECT digest, content FROM blobs WHERE digest IN ({marks})"  # noqa: S608 - question marks only
        contents.update(connection.execute(statement, part))
    return contents


def _enter(connection: sqlite3.Connection, key: str) -> bool:
    return connection.execute("INSERT OR IGNORE INTO claims VALUES (?, datetime('now'))", (key,)).rowcount == 1


def _keep_session(connection: sqlite3.Connection, key: str, number: int, content: bytes) -> None:
    connection.execute(
        "INSERT INTO sessions VALUES (?, ?, ?) ON CONFLICT DO UPDATE"
        " SET number = excluded.number, content = excluded.content WHERE excluded.number >= sessions.number",
        (key, number, content),
    )


def _swap_session(connection: sqlite3.Connection, key: str, number: int, content: bytes) -> bool:
    done = connection.execute(
        "INSERT INTO sessions VALUES (?, ?, ?) ON CONFLICT DO UPDATE"
        " SET number = excluded.number, content = excluded.content WHERE excluded.number = sessions.number + 1",
        (key, number, content),
    )
    return done.rowcount == 1


def _session(connection: sqlite3.Connection, key: str) -> bytes | None:
    row = connection.execute("SELECT content FROM sessions WHERE key = ?", (key,)).fetchone()
    return bytes(row[0]) if row is not None else None


def _read_keys(connection: sqlite3.Connection) -> Keys:
    statement = "SELECT number, secret, made_at, used_from, retired_at FROM keys ORDER BY number"
    rows = connection.execute(statement).fetchall()
    until = connection.execute("SELECT until FROM unmarked").fetchone()
    keys = tuple(
        Key(number, secret, _moment(made_at), _moment(used), _moment(retired) if retired is not None else None)
        for number, secret, made_at, used, retired in rows
    )
    return Keys(keys or (_insert_key(connection, used_after=0.0),), _moment(until[0]) if until else None)


def _add_key(connection: sqlite3.Connection) -> Key:
    return _insert_key(connection, used_after=USED_AFTER.total_seconds())


def _insert_key(connection: sqlite3.Connection, *, used_after: float) -> Key:
    secret, now = secrets.token_bytes(KEY_BYTES), time.time()
    row = (secret, now, now + used_after)
    number = connection.execute("INSERT INTO keys (secret, made_at, used_from) VALUES (?, ?, ?)", row).lastrowid
    assert number is not None
    return Key(number, secret, _moment(now), _moment(now + used_after))


def _retire_key(connection: sqlite3.Connection, number: int) -> bool:
    now = time.time()
    statement = (
        "UPDATE keys SET retired_at = ? WHERE number = ? AND retired_at IS NULL AND EXISTS"
        " (SELECT 1 FROM keys AS other"
        " WHERE other.number > keys.number AND other.used_from <= ? AND other.retired_at IS NULL)"
    )
    return connection.execute(statement, (now + USED_AFTER.total_seconds(), number, now)).rowcount == 1


def _announce(connection: sqlite3.Connection, queue: str, worker: str, content: str) -> None:
    now = time.time()
    connection.execute("DELETE FROM workers WHERE seen_at < ?", (now - FORGOTTEN_AFTER.total_seconds(),))
    connection.execute(
        "INSERT INTO workers VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET content = excluded.content, seen_at = excluded.seen_at",
        (queue, worker, content, now, now),
    )


def _announcements(connection: sqlite3.Connection, queue: str) -> Announcements:
    statement = "SELECT worker, content, since, seen_at FROM workers WHERE queue = ? ORDER BY since, worker"
    workers = tuple(
        Announcement(worker, content, _moment(since), _moment(seen_at))
        for worker, content, since, seen_at in connection.execute(statement, (queue,))
    )
    return Announcements(_moment(time.time()), workers)


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@dataclass(frozen=True, slots=True)
class _Job(Generic[R]):
    work: Callable[[sqlite3.Connection], R]
    loop: asyncio.AbstractEventLoop
    answer: "asyncio.Future[R]"


class _Lane:
    """A thread with a connection of its own, which does all that has gathered while it was busy in one go.

    Reads and writes have a lane each: a write that waits for another process does not hold up reads.
    """

    def __init__(self, path: Path, *, is_writer: bool) -> None:
        self._path = path
        self._is_writer = is_writer
        self._jobs: SimpleQueue[_Job[object] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._connection: sqlite3.Connection | None = None

    async def ask(self, work: Callable[[sqlite3.Connection], R]) -> R:
        """Run `work` and return its result, for a writer once it is committed.

        Raises:
            StoreUnavailable: the file cannot be opened, read or written, with a sentence that says why.
        """
        if self._is_closed:
            raise StoreUnavailable(f"the store in {self._path} is closed")
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name=f"store {self._path.name}", daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[R] = loop.create_future()
        self._jobs.put(_Job(work, loop, answer))  # type: ignore[arg-type]  # the queue holds jobs of any answer
        return await answer

    async def close(self) -> None:
        """Finish what was asked for and close the connection; more than once does no harm."""
        if not self._is_closed:
            self._is_closed = True
            self._jobs.put(None)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _serve(self) -> None:
        is_open = True
        while is_open:
            gathered = [self._jobs.get()]
            with suppress(Empty):
                while True:
                    gathered.append(self._jobs.get_nowait())
            is_open = None not in gathered
            if jobs := [job for job in gathered if job is not None]:
                self._answer(jobs)
        self._disconnect()

    def _answer(self, jobs: list["_Job[object]"]) -> None:
        try:
            with self._transaction() as connection:
                results = [job.work(connection) for job in jobs]
        except Exception as error:  # noqa: BLE001 - each caller must get an answer, whatever went wrong
            self._disconnect()
            _settle(jobs, [_as_failure(self._path, error) for _ in jobs])
        else:
            _settle(jobs, results)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        if self._connection is None:
            self._connection = _connect(self._path, is_writer=self._is_writer)
        if not self._is_writer:
            yield self._connection
            return
        self._connection.execute("BEGIN IMMEDIATE")
        yield self._connection
        self._connection.execute("COMMIT")

    def _disconnect(self) -> None:
        """Roll back what was begun and disconnect; the next job opens the file again."""
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None


def _settle(jobs: Sequence[_Job[object]], results: Sequence[object]) -> None:
    """Hand each job its result, with one wake-up for each event loop."""
    for loop in {job.loop for job in jobs}:
        mine = [(job.answer, result) for job, result in zip(jobs, results, strict=True) if job.loop is loop]
        # The loop may be closed by now: then nobody waits for the answer.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_set_answers, mine)


def _set_answers(answers: Sequence[tuple["asyncio.Future[object]", object]]) -> None:
    for answer, result in answers:
        if answer.done():
            continue
        if isinstance(result, Exception):
            answer.set_exception(result)
        else:
            answer.set_result(result)


class _ForeignFile(Exception):
    """A SQLite database of another program."""


_making = threading.Lock()
"""Held while a file is made: one that is closed takes from its process all locks on it, those of a connection too."""


def _connect(path: Path, *, is_writer: bool) -> sqlite3.Connection:
    private_files.make_folder(path.parent)
    # SQLite gives the files beside it the mode that this one has; one that cannot be made it names itself.
    with _making, suppress(OSError):
        private_files.make_file(path)
    private_files.tighten(*(path.with_name(f"{path.name}{suffix}") for suffix in ("", "-wal", "-shm", "-journal")))
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        # Used by one thread at a time: by its lane, and by nobody once that has ended.
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            _prepare(connection, is_writer=is_writer)
        except sqlite3.OperationalError as error:
            connection.close()
            # The switch to the write-ahead log does not wait for other processes by itself.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        except BaseException:
            connection.close()
            raise
        else:
            return connection


def _prepare(connection: sqlite3.Connection, *, is_writer: bool) -> None:
    """Set up the connection, and make what is missing of tables and identity if the file is new or of an older version.

    Who only reads leaves an older version's file as it is, which may be all that it is allowed to.
    """
    (owner,) = connection.execute("PRAGMA application_id").fetchone()
    if owner not in (0, APPLICATION_ID):
        raise _ForeignFile
    if owner == 0 and connection.execute(_FOREIGN_TABLES).fetchone() is not None:
        raise _ForeignFile
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if owner == APPLICATION_ID and (version >= SCHEMA_VERSION or not is_writer):
        return
    connection.execute("BEGIN IMMEDIATE")
    for statement in _SCHEMA:
        connection.execute(statement)
    if owner == APPLICATION_ID and version < 2:
        until = time.time() + FIRST_HOUR.total_seconds()
        connection.execute("INSERT OR IGNORE INTO unmarked VALUES (1, ?)", (until,))
    connection.execute("INSERT OR IGNORE INTO store VALUES (1, ?)", (secrets.token_hex(12),))
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")


def _as_failure(path: Path, error: Exception) -> Exception:
    """Return the failure that one caller gets for `error`: a defect of ours stays what it is."""
    if not isinstance(error, sqlite3.Error | OSError | _ForeignFile):
        return error
    failure = StoreUnavailable(_sentence(path, error))
    failure.__cause__ = error
    return failure


def _sentence(path: Path, error: Exception) -> str:
    if isinstance(error, _ForeignFile):
        return f"{path} is a SQLite database of another program; choose another file for the store"
    if isinstance(error, OSError):
        return f"the folder of the store {path} cannot be made: {error.strerror}; choose another place"
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_NOTADB:
            return f"{path} is not a SQLite database; choose another file for the store, or move this one away"
        case sqlite3.SQLITE_CANTOPEN:
            return f"the store {path} cannot be opened; it must be a file that this user may read and write"
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return f"the store {path} cannot be written; give this user write access to it and to its folder"
        case sqlite3.SQLITE_BUSY:
            return f"the store {path} was kept locked by another process for {quantities.write_seconds(BUSY_SECONDS)}"
        case sqlite3.SQLITE_FULL:
            return f"the store {path} cannot grow: the disk is full"
        case _:
            return f"the store {path} failed: {error}"
