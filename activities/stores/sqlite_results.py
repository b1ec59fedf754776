"""Kept results in SQLite: the table and the statements of the result cache."""

import sqlite3
import time
from datetime import UTC, datetime, timedelta

from mandate.activities.stores.base import EXPIRED_AT_ONCE, CacheUse, KeptResult

TABLE = "results"
SCHEMA = (
    """
    CREATE TABLE IF NOT EXISTS results (
        key TEXT PRIMARY KEY, tool TEXT NOT NULL, agent TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL,
        run TEXT NOT NULL, run_id TEXT NOT NULL, step INTEGER NOT NULL, kept_at REAL NOT NULL,
        expires_at REAL NOT NULL, hits INTEGER NOT NULL DEFAULT 0
    )
    """,
    "CREATE INDEX IF NOT EXISTS results_expiry ON results (expires_at)",
)
_CACHED = "SELECT tool, agent, digest, size, run, run_id, step, kept_at FROM results WHERE key = ? AND expires_at > ?"
_REMOVE_EXPIRED = "DELETE FROM results WHERE key IN (SELECT key FROM results WHERE expires_at <= ? LIMIT ?)"
_CHOSEN = "(?1 IS NULL OR tool = ?1) AND (?2 IS NULL OR agent = ?2)"
_USE = f"""
SELECT tool, count(*), sum(size), min(kept_at), sum(hits) FROM results
WHERE {_CHOSEN} AND expires_at > ?3 GROUP BY tool ORDER BY tool
"""  # noqa: S608 - ours
_REMOVE_ALL_EXPIRED = f"DELETE FROM results WHERE {_CHOSEN} AND expires_at <= ?3"  # noqa: S608 - ours
_REMOVE = f"DELETE FROM results WHERE {_CHOSEN}"  # noqa: S608 - ours


def keep(connection: sqlite3.Connection, key: str, result: KeptResult, lifetime: timedelta) -> None:
    """Keep a result and remove some that expired."""
    now = time.time()
    connection.execute(_REMOVE_EXPIRED, (now, EXPIRED_AT_ONCE))
    made = (result.tool, result.agent, result.digest, result.size, result.run, result.run_id, result.step)
    connection.execute(
        "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
        (key, *made, now, now + lifetime.total_seconds()),
    )


def find(connection: sqlite3.Connection, key: str) -> KeptResult | None:
    """Return the result that is kept under `key`; write nothing."""
    now = time.time()
    row = connection.execute(_CACHED, (key, now)).fetchone()
    if row is None:
        return None
    tool, agent, digest, size, run, run_id, step, kept_at = row
    return KeptResult(tool, agent, digest, size, run, run_id, step, timedelta(seconds=max(now - kept_at, 0.0)))


def count_hit(connection: sqlite3.Connection, key: str) -> None:
    """Count that the result under `key` has answered a call."""
    connection.execute("UPDATE results SET hits = hits + 1 WHERE key = ?", (key,))


def list_use(connection: sqlite3.Connection, tool: str | None, agent: str | None) -> tuple[CacheUse, ...]:
    """Return what is kept, by tool."""
    rows = connection.execute(_USE, (tool, agent, time.time()))
    return tuple(
        CacheUse(name, entries, size, datetime.fromtimestamp(oldest, UTC), hits)
        for name, entries, size, oldest, hits in rows
    )


def clear(connection: sqlite3.Connection, tool: str | None, agent: str | None) -> int:
    """Remove what is kept; return the number of results that had not expired."""
    connection.execute(_REMOVE_ALL_EXPIRED, (tool, agent, time.time()))
    return connection.execute(_REMOVE, (tool, agent)).rowcount
