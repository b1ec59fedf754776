"""Kept results in PostgreSQL: the table and the statements of the result cache."""

from collections.abc import Iterable
from datetime import timedelta

import asyncpg  # type: ignore[import-untyped]

from mandate.activities.stores.base import EXPIRED_AT_ONCE, CacheUse, KeptResult

TABLE = "mandate_results"
SCHEMA = """
CREATE TABLE IF NOT EXISTS mandate_results (
    key text COLLATE "C" PRIMARY KEY, tool text COLLATE "C" NOT NULL, agent text COLLATE "C" NOT NULL,
    digest text COLLATE "C" NOT NULL, size bigint NOT NULL, run text NOT NULL, run_id text NOT NULL,
    step integer NOT NULL, kept_at timestamptz NOT NULL DEFAULT now(), expires_at timestamptz NOT NULL,
    hits bigint NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS mandate_results_expiry ON mandate_results (expires_at);
"""
# Rows that another worker is at are its own to remove.
_REMOVE_EXPIRED = """
DELETE FROM mandate_results WHERE key IN
    (SELECT key FROM mandate_results WHERE expires_at <= now() LIMIT $1 FOR UPDATE SKIP LOCKED)
"""
_KEEP = """
INSERT INTO mandate_results (key, tool, agent, digest, size, run, run_id, step, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, now() + $9::interval)
ON CONFLICT (key) DO UPDATE SET tool = excluded.tool, agent = excluded.agent, digest = excluded.digest,
    size = excluded.size, run = excluded.run, run_id = excluded.run_id, step = excluded.step, kept_at = now(),
    expires_at = excluded.expires_at, hits = 0
"""
# A count that a power loss takes away is no loss: the commit does not wait until it is on disk.
_CACHED = """
UPDATE mandate_results SET hits = hits + 1 FROM set_config('synchronous_commit', 'off', true)
WHERE key = $1 AND expires_at > now() RETURNING tool, agent, digest, size, run, run_id, step, now() - kept_at
"""
_CHOSEN = "($1::text IS NULL OR tool = $1) AND ($2::text IS NULL OR agent = $2)"
_USE = f"""
SELECT tool, count(*), sum(size)::bigint, min(kept_at), sum(hits)::bigint FROM mandate_results
WHERE {_CHOSEN} AND expires_at > now() GROUP BY tool ORDER BY tool
"""  # noqa: S608 - ours
_CLEAR = f"""
WITH removed AS (DELETE FROM mandate_results WHERE {_CHOSEN} RETURNING expires_at)
SELECT count(*) FROM removed WHERE expires_at > now()
"""  # noqa: S608 - ours


async def keep(connection: asyncpg.Connection, key: str, result: KeptResult, lifetime: timedelta) -> None:
    """Keep a result and remove some that expired."""
    await connection.execute(_REMOVE_EXPIRED, EXPIRED_AT_ONCE)
    made = (result.tool, result.agent, result.digest, result.size, result.run, result.run_id, result.step)
    await connection.execute(_KEEP, key, *made, lifetime)


async def find(connection: asyncpg.Connection, key: str) -> KeptResult | None:
    """Return the result that is kept under `key`, and count that it has answered a call."""
    row = await connection.fetchrow(_CACHED, key)
    if row is None:
        return None
    tool, agent, digest, size, run, run_id, step, age = row
    return KeptResult(tool, agent, digest, size, run, run_id, step, max(age, timedelta(0)))


async def list_use(connection: asyncpg.Connection, tool: str | None, agent: str | None) -> tuple[CacheUse, ...]:
    """Return what is kept, by tool."""
    rows: Iterable[Iterable[object]] = await connection.fetch(_USE, tool, agent)
    return tuple(CacheUse(*row) for row in rows)  # type: ignore[arg-type]  # the columns of `_USE`


async def clear(connection: asyncpg.Connection, tool: str | None, agent: str | None) -> int:
    """Remove what is kept; return the number of results that had not expired."""
    return int(await connection.fetchval(_CLEAR, tool, agent))
