"""Blobs in PostgreSQL: for workers on many machines."""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

import asyncpg  # type: ignore[import-untyped]

from mandate.activities.stores import postgres_budgets, postgres_results, postgres_streams
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

CONNECT_SECONDS = 10.0
STATEMENT_SECONDS = 30.0
CLOSE_SECONDS = 5.0
POOL_SIZE = 10
ROWS = 1000
"""Addresses a round trip."""

_SCHEMA_LOCK = 0x4D4E4454
_SCHEMA = (
    """
CREATE TABLE IF NOT EXISTS mandate_blobs (digest text COLLATE "C" PRIMARY KEY, content bytea NOT NULL);
CREATE TABLE IF NOT EXISTS mandate_store (id integer PRIMARY KEY CHECK (id = 1), identity text NOT NULL);
CREATE TABLE IF NOT EXISTS mandate_claims (
    key text COLLATE "C" PRIMARY KEY, claimed_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS mandate_sessions (
    key text COLLATE "C" PRIMARY KEY, number bigint NOT NULL, content bytea NOT NULL
);
CREATE TABLE IF NOT EXISTS mandate_keys (
    number integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, secret bytea NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now(), used_from timestamptz NOT NULL, retired_at timestamptz
);
CREATE TABLE IF NOT EXISTS mandate_unmarked (id integer PRIMARY KEY CHECK (id = 1), until timestamptz NOT NULL);
CREATE TABLE IF NOT EXISTS mandate_workers (
    queue text COLLATE "C", worker text COLLATE "C", content text NOT NULL,
    since timestamptz NOT NULL DEFAULT now(), seen_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (queue, worker)
);
"""
    + postgres_results.SCHEMA
)
TABLES = (
    *("mandate_blobs", "mandate_store", "mandate_claims", "mandate_keys", "mandate_unmarked", "mandate_workers"),
    "mandate_sessions",
    *postgres_budgets.TABLES,
    postgres_results.TABLE,
    *postgres_streams.TABLES,
)
_KEEP_SESSION = """
INSERT INTO mandate_sessions AS kept VALUES ($1, $2, $3)
ON CONFLICT (key) DO UPDATE SET number = excluded.number, content = excluded.content
WHERE excluded.number >= kept.number
"""
_SWAP_SESSION = """
INSERT INTO mandate_sessions AS kept VALUES ($1, $2, $3)
ON CONFLICT (key) DO UPDATE SET number = excluded.number, content = excluded.content
WHERE excluded.number = kept.number + 1
RETURNING true
"""
_SESSION = "SELECT content FROM mandate_sessions WHERE key = $1"
_EXISTS = "SELECT bool_and(to_regclass(made) IS NOT NULL) FROM unnest($1::text[]) AS made"
_IS_OLDER = "SELECT to_regclass('mandate_store') IS NOT NULL AND to_regclass('mandate_keys') IS NULL"
_KEYS = "SELECT number, secret, made_at, used_from, retired_at FROM mandate_keys ORDER BY number"
_ADD_KEY = """
INSERT INTO mandate_keys (secret, used_from) VALUES ($1, now() + $2::interval)
RETURNING number, secret, made_at, used_from, retired_at
"""
_RETIRE_KEY = """
UPDATE mandate_keys AS own SET retired_at = now() + $2::interval
WHERE number = $1 AND retired_at IS NULL AND EXISTS (
    SELECT 1 FROM mandate_keys AS other
    WHERE other.number > own.number AND other.used_from <= now() AND other.retired_at IS NULL
) RETURNING true
"""
_ANNOUNCE = """
INSERT INTO mandate_workers (queue, worker, content) VALUES ($1, $2, $3)
ON CONFLICT (queue, worker) DO UPDATE SET content = excluded.content, seen_at = now()
"""
_FORGET = "DELETE FROM mandate_workers WHERE seen_at < now() - $1::interval"
_ANNOUNCEMENTS = """
SELECT now() AS now, worker, content, since, seen_at
FROM (SELECT 1) AS always LEFT JOIN mandate_workers ON queue = $1 ORDER BY since, worker
"""
_PUT = """
INSERT INTO mandate_blobs (digest, content) SELECT * FROM unnest($1::text[], $2::bytea[]) ON CONFLICT DO NOTHING
"""
# Whatever the server's setting is, the commit of this one statement waits until it is on disk.
_CLAIM = """
INSERT INTO mandate_claims (key) SELECT $1 FROM set_config('synchronous_commit', 'on', true)
ON CONFLICT DO NOTHING RETURNING true
"""
_GET = "SELECT digest, content FROM mandate_blobs WHERE digest = ANY($1::text[])"
_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
_HOST = re.compile(r"(?:\[[0-9a-fA-F:.]+\]|[\w.-]*)(?::\d{1,5})?")
_MISSHAPEN = (
    "the PostgreSQL address of the store cannot be read; it has the form"
    " postgresql://user:password@host:port/database, with special characters in it percent-encoded"
)


class PostgresStore:
    """The `BlobStore` in the database at `dsn`, in tables that are made at the first call.

    Connections belong to the event loop of the first call. A lost one is an error for the calls that it carried;
    the next call opens another.

    Raises:
        ValueError: `dsn` is not a `postgresql://` address; the sentence never repeats its password.
    """

    def __init__(self, dsn: str) -> None:
        self.name, self._hidden = _public_name(dsn)
        self._files = _list_files(dsn)
        self._dsn = dsn
        self._pool: asyncpg.Pool | None = None
        self._opening = asyncio.Lock()
        self._is_closed = False

    def __repr__(self) -> str:
        return f"PostgresStore({self.name!r})"

    async def identity(self) -> str:
        async with self._connection() as connection:
            return str(await connection.fetchval("SELECT identity FROM mandate_store"))

    async def put(self, blobs: Mapping[Digest, bytes]) -> None:
        if not blobs:
            return
        # In one order everywhere: two writers of the same blobs would otherwise wait for each other.
        digests = sorted(blobs)
        async with self._connection() as connection:
            await connection.execute(_PUT, digests, [blobs[digest] for digest in digests])

    async def get(self, digests: Sequence[Digest]) -> dict[Digest, bytes]:
        contents: dict[Digest, bytes] = {}
        for start in range(0, len(digests), ROWS):
            async with self._connection() as connection:
                rows = await connection.fetch(_GET, digests[start : start + ROWS])
            contents.update((row["digest"], row["content"]) for row in rows)
        return contents

    async def claim(self, key: str) -> bool:
        async with self._connection() as connection:
            return await connection.fetchval(_CLAIM, key) is True

    async def keys(self) -> Keys:
        async with self._connection() as connection, connection.transaction():
            rows = await connection.fetch(_KEYS)
            if not rows:
                # Two first workers at the same time make one key between them.
                await connection.execute("SELECT pg_advisory_xact_lock($1)", _SCHEMA_LOCK)
                rows = await connection.fetch(_KEYS) or [await _insert_key(connection, timedelta(0))]
            until = await connection.fetchval("SELECT until FROM mandate_unmarked")
        return Keys(tuple(Key(*row) for row in rows), until)

    async def add_key(self) -> Key:
        async with self._connection() as connection:
            return Key(*await _insert_key(connection, USED_AFTER))

    async def retire_key(self, number: int) -> bool:
        async with self._connection() as connection:
            return await connection.fetchval(_RETIRE_KEY, number, USED_AFTER) is True

    async def announce(self, queue: str, worker: str, content: str) -> None:
        async with self._connection() as connection:
            await connection.execute(_FORGET, FORGOTTEN_AFTER)
            await connection.execute(_ANNOUNCE, queue, worker, content)

    async def announcements(self, queue: str) -> Announcements:
        async with self._connection() as connection:
            rows = await connection.fetch(_ANNOUNCEMENTS, queue)
        workers = tuple(Announcement(*row[1:]) for row in map(tuple, rows) if row[1] is not None)
        return Announcements(rows[0]["now"], workers)

    async def reserve(self, reservation: str, lines: Sequence[Line], amount: Amount) -> Reserved:
        async with self._connection() as connection:
            return await postgres_budgets.reserve(connection, reservation, lines, amount)

    async def settle(self, reservation: str, actual: Amount | None = None) -> tuple[Balance, ...]:
        async with self._connection() as connection:
            return await postgres_budgets.settle(connection, reservation, actual)

    async def assume_all(self, name: str) -> None:
        async with self._connection() as connection:
            await postgres_budgets.assume_all(connection, name)

    async def list_balances(self, first: str, last: str) -> tuple[Balance, ...]:
        async with self._connection() as connection:
            return await postgres_budgets.list_balances(connection, first, last)

    async def keep(self, key: str, result: KeptResult, lifetime: timedelta) -> None:
        async with self._connection() as connection:
            await postgres_results.keep(connection, key, result, lifetime)

    async def cached(self, key: str) -> KeptResult | None:
        async with self._connection() as connection:
            return await postgres_results.find(connection, key)

    async def cache_use(self, tool: str | None = None, agent: str | None = None) -> tuple[CacheUse, ...]:
        async with self._connection() as connection:
            return await postgres_results.list_use(connection, tool, agent)

    async def clear_cache(self, tool: str | None = None, agent: str | None = None) -> int:
        async with self._connection() as connection:
            return await postgres_results.clear(connection, tool, agent)

    async def keep_session(self, key: str, number: int, content: bytes) -> None:
        async with self._connection() as connection:
            await connection.execute(_KEEP_SESSION, key, number, content)

    async def swap_session(self, key: str, number: int, content: bytes) -> bool:
        async with self._connection() as connection:
            return await connection.fetchval(_SWAP_SESSION, key, number, content) is not None

    async def session(self, key: str) -> bytes | None:
        async with self._connection() as connection:
            content: bytes | None = await connection.fetchval(_SESSION, key)
        return content

    async def append_stream(self, run: str, pieces: Sequence[StreamPiece]) -> None:
        async with self._connection() as connection:
            await postgres_streams.append(connection, run, pieces)

    async def read_stream(self, run: str, after: int) -> tuple[StreamPiece, ...]:
        async with self._connection() as connection:
            return await postgres_streams.read(connection, run, after)

    async def follow_stream(self, run: str, lifetime: timedelta) -> None:
        async with self._connection() as connection:
            await postgres_streams.follow(connection, run, lifetime)

    async def list_followed(self) -> frozenset[str]:
        async with self._connection() as connection:
            return await postgres_streams.list_followed(connection)

    async def close(self) -> None:
        """Close the connections; more than once does no harm."""
        async with self._opening:
            self._is_closed = True
            pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            await asyncio.wait_for(pool.close(), CLOSE_SECONDS)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            pool.terminate()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncpg.Connection]:
        try:
            async with (await self._open()).acquire(timeout=CONNECT_SECONDS) as connection:
                yield connection
        except TimeoutError as error:
            raise StoreUnavailable(f"the store {self.name} did not answer in time") from error
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            raise StoreUnavailable(f"the store {self.name} did not answer: {self.explain(error)}") from error

    def explain(self, error: Exception) -> str:
        """Return the cause of an error in words, without what must not be shown."""
        # The error does not name the file.
        if isinstance(error, FileNotFoundError) and (missing := _find_missing(self._files)):
            return f"its address names {' and '.join(map(repr, missing))}, which is no file"
        return _reason(error, self._hidden)

    async def _open(self) -> asyncpg.Pool:
        async with self._opening:
            if self._is_closed:
                raise StoreUnavailable(f"the store {self.name} is closed")
            if self._pool is None:
                pool = asyncpg.create_pool(
                    self._dsn,
                    min_size=0,
                    max_size=POOL_SIZE,
                    timeout=CONNECT_SECONDS,
                    command_timeout=STATEMENT_SECONDS,
                    reset=_nothing_to_reset,
                )
                await pool
                try:
                    await _create_tables(pool)
                except BaseException:
                    pool.terminate()
                    raise
                self._pool = pool
            return self._pool


async def _insert_key(connection: asyncpg.Connection, used_after: timedelta) -> asyncpg.Record:
    return await connection.fetchrow(_ADD_KEY, secrets.token_bytes(KEY_BYTES), used_after)


async def _nothing_to_reset(connection: object) -> None:
    """Do nothing: our statements leave nothing behind in a session, and the usual reset costs a round trip a call."""


async def _create_tables(pool: asyncpg.Pool) -> None:
    """Create tables and identity, once however many workers start at the same time.

    Creates nothing where they exist: then the right to use them is enough.
    """
    async with pool.acquire() as connection, connection.transaction():
        if await connection.fetchval(_EXISTS, TABLES):
            return
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _SCHEMA_LOCK)
        is_older = await connection.fetchval(_IS_OLDER)
        await connection.execute(_SCHEMA + postgres_budgets.SCHEMA + postgres_streams.SCHEMA)
        if is_older:
            await connection.execute(
                "INSERT INTO mandate_unmarked VALUES (1, now() + $1::interval) ON CONFLICT DO NOTHING", FIRST_HOUR
            )
        identity = secrets.token_hex(12)
        await connection.execute("INSERT INTO mandate_store VALUES (1, $1) ON CONFLICT DO NOTHING", identity)


def _public_name(dsn: str) -> tuple[str, frozenset[str]]:
    """Return `dsn` without user, password and options, which errors may show; and the texts that they must not show."""
    try:
        parts = urlsplit(dsn)
    except ValueError:
        raise ValueError(_MISSHAPEN) from None
    hosts = parts.netloc.rpartition("@")[2]
    # An @ further on means that what looks like host and path is part of a password.
    is_clear = "@" not in f"{parts.path}{parts.query}" and not parts.fragment
    if parts.scheme != "postgresql" or not is_clear or not all(_HOST.fullmatch(host) for host in hosts.split(",")):
        raise ValueError(_MISSHAPEN)
    passwords = [parts.password, *(value for name, value in parse_qsl(parts.query) if "password" in name)]
    hidden = frozenset(form for password in passwords if password for form in (password, unquote(password)))
    return f"postgresql://{hosts}{parts.path}", hidden


def _list_files(dsn: str) -> tuple[str, ...]:
    """Return the files of certificates and keys that an address names."""
    return tuple(value for name, value in parse_qsl(urlsplit(dsn).query) if name in _FILES)


def _find_missing(files: Sequence[str]) -> list[str]:
    return [name for name in files if not Path(name).is_file()]


def _reason(error: Exception, hidden: frozenset[str]) -> str:
    """Return the cause in words, or a general one where they would show something of `hidden`."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    if any(secret in text for secret in hidden):
        return "the connection was refused"
    return " ".join(text.split())
