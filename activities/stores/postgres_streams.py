"""Texts as they come, in PostgreSQL: the tables and the statements."""

from collections.abc import Sequence
from datetime import timedelta

import asyncpg  # type: ignore[import-untyped]

from mandate.activities.stores.streams import KEPT_FOR, READ_AT_ONCE, REMOVED_AT_ONCE, STEPS_KEPT, StreamPiece

TABLES = ("mandate_streams", "mandate_followers")
SCHEMA = """
CREATE TABLE IF NOT EXISTS mandate_streams (
    place bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, run text COLLATE "C" NOT NULL, run_id text NOT NULL,
    step integer NOT NULL, attempt integer NOT NULL, kind text NOT NULL, content bytea NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS mandate_streams_run ON mandate_streams (run, place);
CREATE INDEX IF NOT EXISTS mandate_streams_at ON mandate_streams (at);
CREATE TABLE IF NOT EXISTS mandate_followers (run text COLLATE "C" PRIMARY KEY, until timestamptz NOT NULL);
"""
_REMOVE_EARLIER = "DELETE FROM mandate_streams WHERE run = $1 AND (run_id <> $2 OR step < $3)"
# Rows that another worker is at are its own to remove.
_REMOVE_EXPIRED = """
DELETE FROM mandate_streams WHERE place IN
    (SELECT place FROM mandate_streams WHERE at < now() - $1::interval LIMIT $2 FOR UPDATE SKIP LOCKED)
"""
# What a power loss takes away was only read along: the commit does not wait until it is on disk.
_APPEND = """
INSERT INTO mandate_streams (run, run_id, step, attempt, kind, content)
SELECT $1, given.* FROM unnest($2::text[], $3::integer[], $4::integer[], $5::text[], $6::bytea[]) AS given,
    set_config('synchronous_commit', 'off', true)
"""
_READ = """
SELECT place, run_id, step, attempt, kind, content FROM mandate_streams
WHERE run = $1 AND place > $2 ORDER BY place LIMIT $3
"""
_FORGET = "DELETE FROM mandate_followers WHERE until < now()"
_FOLLOW = """
INSERT INTO mandate_followers AS known VALUES ($1, now() + $2::interval)
ON CONFLICT (run) DO UPDATE SET until = greatest(known.until, excluded.until)
"""
_FOLLOWED = "SELECT run FROM mandate_followers WHERE until >= now()"


async def append(connection: asyncpg.Connection, run: str, pieces: Sequence[StreamPiece]) -> None:
    """Append pieces of one run; where one begins a step, remove what is too old."""
    for piece in pieces:
        if piece.kind == "begin":
            await connection.execute(_REMOVE_EARLIER, run, piece.run_id, piece.step - STEPS_KEPT)
            await connection.execute(_REMOVE_EXPIRED, KEPT_FOR, REMOVED_AT_ONCE)
    await connection.execute(
        _APPEND,
        run,
        [piece.run_id for piece in pieces],
        [piece.step for piece in pieces],
        [piece.attempt for piece in pieces],
        [piece.kind for piece in pieces],
        [piece.content for piece in pieces],
    )


async def read(connection: asyncpg.Connection, run: str, after: int) -> tuple[StreamPiece, ...]:
    """Return pieces of a run after a place, the oldest first."""
    rows = await connection.fetch(_READ, run, after, READ_AT_ONCE)
    return tuple(
        StreamPiece(run_id, step, attempt, kind, content, place) for place, run_id, step, attempt, kind, content in rows
    )


async def follow(connection: asyncpg.Connection, run: str, lifetime: timedelta) -> None:
    """Note that somebody reads along, and forget who does no longer."""
    await connection.execute(_FORGET)
    await connection.execute(_FOLLOW, run, lifetime)


async def list_followed(connection: asyncpg.Connection) -> frozenset[str]:
    """Return the runs that somebody reads along."""
    return frozenset(row["run"] for row in await connection.fetch(_FOLLOWED))
