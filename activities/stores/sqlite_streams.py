"""Texts as they come, in SQLite: the tables and the statements."""

import sqlite3
import time
from collections.abc import Sequence
from datetime import timedelta

from mandate.activities.stores.streams import KEPT_FOR, READ_AT_ONCE, REMOVED_AT_ONCE, STEPS_KEPT, StreamPiece

TABLES = ("streams", "followers")
SCHEMA = (
    """
    CREATE TABLE IF NOT EXISTS streams (
        place INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL, run_id TEXT NOT NULL, step INTEGER NOT NULL,
        attempt INTEGER NOT NULL, kind TEXT NOT NULL, content BLOB NOT NULL, at REAL NOT NULL
    )
    """,
    "CREATE INDEX IF NOT EXISTS streams_run ON streams (run, place)",
    "CREATE INDEX IF NOT EXISTS streams_at ON streams (at)",
    "CREATE TABLE IF NOT EXISTS followers (run TEXT PRIMARY KEY, until REAL NOT NULL)",
)
_APPEND = "INSERT INTO streams (run, run_id, step, attempt, kind, content, at) VALUES (?, ?, ?, ?, ?, ?, ?)"
_REMOVE_EARLIER = "DELETE FROM streams WHERE run = ? AND (run_id <> ? OR step < ?)"
_REMOVE_EXPIRED = "DELETE FROM streams WHERE place IN (SELECT place FROM streams WHERE at < ? LIMIT ?)"
_READ = (
    "SELECT place, run_id, step, attempt, kind, content FROM streams WHERE run = ? AND place > ? ORDER BY place LIMIT ?"
)
_FOLLOW = "INSERT INTO followers VALUES (?, ?) ON CONFLICT DO UPDATE SET until = max(until, excluded.until)"


def append(connection: sqlite3.Connection, run: str, pieces: Sequence[StreamPiece]) -> None:
    """Append pieces of one run; where one begins a step, remove what is too old."""
    now = time.time()
    for piece in pieces:
        if piece.kind == "begin":
            connection.execute(_REMOVE_EARLIER, (run, piece.run_id, piece.step - STEPS_KEPT))
            connection.execute(_REMOVE_EXPIRED, (now - KEPT_FOR.total_seconds(), REMOVED_AT_ONCE))
        row = (run, piece.run_id, piece.step, piece.attempt, piece.kind, piece.content, now)
        connection.execute(_APPEND, row)


def read(connection: sqlite3.Connection, run: str, after: int) -> tuple[StreamPiece, ...]:
    """Return pieces of a run after a place, the oldest first."""
    rows = connection.execute(_READ, (run, after, READ_AT_ONCE))
    return tuple(
        StreamPiece(run_id, step, attempt, kind, bytes(content), place)
        for place, run_id, step, attempt, kind, content in rows
    )


def follow(connection: sqlite3.Connection, run: str, lifetime: timedelta) -> None:
    """Note that somebody reads along, and forget who does no longer."""
    now = time.time()
    connection.execute("DELETE FROM followers WHERE until < ?", (now,))
    connection.execute(_FOLLOW, (run, now + lifetime.total_seconds()))


def list_followed(connection: sqlite3.Connection) -> frozenset[str]:
    """Return the runs that somebody reads along."""
    rows = connection.execute("SELECT run FROM followers WHERE until >= ?", (time.time(),))
    return frozenset(str(run) for (run,) in rows)
