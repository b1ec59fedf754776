"""Accounts of budgets in PostgreSQL: functions for one connection."""

from collections.abc import Sequence

import asyncpg  # type: ignore[import-untyped]

from mandate.activities.stores.budgets import (
    HELD_AT_MOST,
    REMEMBERED_FOR,
    Account,
    Balance,
    Line,
    Reserved,
    find_full,
    find_range,
    move_stale,
    round_up,
    to_amount,
    to_nano_usd,
)
from mandate.workflows.contracts.budget import Amount

SCHEMA = """
CREATE TABLE IF NOT EXISTS mandate_budget_accounts (
    budget text COLLATE "C", scope text COLLATE "C", period text COLLATE "C",
    spent_nano_usd bigint NOT NULL DEFAULT 0, spent_tokens bigint NOT NULL DEFAULT 0,
    assumed_nano_usd bigint NOT NULL DEFAULT 0, assumed_tokens bigint NOT NULL DEFAULT 0,
    held_nano_usd bigint NOT NULL DEFAULT 0, held_tokens bigint NOT NULL DEFAULT 0,
    since timestamptz NOT NULL DEFAULT now(), last_used timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (budget, scope, period)
);
CREATE TABLE IF NOT EXISTS mandate_budget_reservations (
    id text COLLATE "C" PRIMARY KEY, nano_usd bigint NOT NULL, tokens bigint NOT NULL,
    budgets text[] NOT NULL, scopes text[] NOT NULL, periods text[] NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now(), settled_at timestamptz
);
CREATE INDEX IF NOT EXISTS mandate_budget_open ON mandate_budget_reservations (made_at) WHERE settled_at IS NULL;
CREATE INDEX IF NOT EXISTS mandate_budget_settled ON mandate_budget_reservations (settled_at)
    WHERE settled_at IS NOT NULL;
"""
TABLES = ("mandate_budget_accounts", "mandate_budget_reservations")

_BALANCE = """
account.budget, account.scope, account.period, account.spent_nano_usd, account.spent_tokens, account.assumed_nano_usd,
account.assumed_tokens, account.held_nano_usd, account.held_tokens, account.since, account.last_used
"""
# In one order everywhere: two reservations on the same accounts would otherwise wait for each other. What comes back
# is each account's newest version, also where another reservation was waited for.
_LOCK = f"""
INSERT INTO mandate_budget_accounts AS account (budget, scope, period)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[]) AS line (budget, scope, period) ORDER BY budget, scope, period
ON CONFLICT (budget, scope, period) DO UPDATE SET last_used = now()
RETURNING {_BALANCE}
"""  # noqa: S608 - ours
# Whatever the server's setting is, the commit waits until it is on disk.
_HOLD = f"""
WITH forgotten AS (
    DELETE FROM mandate_budget_reservations WHERE id IN (
        SELECT id FROM mandate_budget_reservations WHERE settled_at < now() - $7::interval
        ORDER BY settled_at LIMIT 100 FOR UPDATE SKIP LOCKED
    )
), made AS (
    INSERT INTO mandate_budget_reservations (id, nano_usd, tokens, budgets, scopes, periods)
    SELECT $1, $2::bigint, $3::bigint, $4::text[], $5::text[], $6::text[]
    FROM set_config('synchronous_commit', 'on', true)
    ON CONFLICT DO NOTHING RETURNING true
)
UPDATE mandate_budget_accounts AS account
SET held_nano_usd = account.held_nano_usd + $2, held_tokens = account.held_tokens + $3
FROM made, unnest($4::text[], $5::text[], $6::text[]) AS line (budget, scope, period)
WHERE (account.budget, account.scope, account.period) = (line.budget, line.scope, line.period)
RETURNING {_BALANCE}
"""  # noqa: S608 - ours
_SETTLE = f"""
WITH settled AS (
    UPDATE mandate_budget_reservations SET settled_at = now() WHERE id = $1 AND settled_at IS NULL
    RETURNING nano_usd, tokens, budgets, scopes, periods
)
INSERT INTO mandate_budget_accounts AS account (
    budget, scope, period, spent_nano_usd, spent_tokens, assumed_nano_usd, assumed_tokens, held_nano_usd, held_tokens
)
SELECT
    line.budget, line.scope, line.period, coalesce($2::bigint, nano_usd), coalesce($3::bigint, tokens),
    CASE WHEN $2 IS NULL THEN nano_usd ELSE 0 END, CASE WHEN $3 IS NULL THEN tokens ELSE 0 END, -nano_usd, -tokens
FROM settled, unnest(budgets, scopes, periods) AS line (budget, scope, period),
    set_config('synchronous_commit', 'on', true)
ORDER BY line.budget, line.scope, line.period
ON CONFLICT (budget, scope, period) DO UPDATE SET
    spent_nano_usd = account.spent_nano_usd + excluded.spent_nano_usd,
    spent_tokens = account.spent_tokens + excluded.spent_tokens,
    assumed_nano_usd = account.assumed_nano_usd + excluded.assumed_nano_usd,
    assumed_tokens = account.assumed_tokens + excluded.assumed_tokens,
    held_nano_usd = account.held_nano_usd + excluded.held_nano_usd,
    held_tokens = account.held_tokens + excluded.held_tokens,
    last_used = now()
RETURNING {_BALANCE}
"""  # noqa: S608 - ours
_IS_KNOWN = "SELECT EXISTS (SELECT 1 FROM mandate_budget_reservations WHERE id = $1)"
_OPEN = """
SELECT id FROM mandate_budget_reservations
WHERE settled_at IS NULL AND (id = $1 OR (id >= $2 AND id < $3)) ORDER BY id
"""
_STALE = """
SELECT line.budget, line.scope, line.period, sum(nano_usd)::bigint AS nano_usd, sum(tokens)::bigint AS tokens
FROM mandate_budget_reservations, unnest(budgets, scopes, periods) AS line (budget, scope, period)
WHERE settled_at IS NULL AND made_at < now() - $1::interval
GROUP BY line.budget, line.scope, line.period
"""
_LIST = f"""
SELECT {_BALANCE} FROM mandate_budget_accounts AS account
WHERE period BETWEEN $1 AND $2 ORDER BY budget, scope, period
"""  # noqa: S608 - ours


class _Unchanged(Exception):
    """End of a transaction that is to leave nothing behind, with its answer."""

    def __init__(self, reserved: Reserved) -> None:
        self.reserved = reserved


async def reserve(connection: asyncpg.Connection, reservation: str, lines: Sequence[Line], amount: Amount) -> Reserved:
    """Hold `amount` on all lines or on none, in one transaction."""
    try:
        async with connection.transaction(isolation="read_committed"):
            return await _reserve(connection, reservation, lines, amount)
    except _Unchanged as unchanged:
        return unchanged.reserved


async def _reserve(connection: asyncpg.Connection, reservation: str, lines: Sequence[Line], amount: Amount) -> Reserved:
    accounts = [line.account for line in lines]
    columns = [[getattr(account, name) for account in accounts] for name in ("budget", "scope", "period")]
    balances = _in_order(accounts, await connection.fetch(_LOCK, *columns))
    full = find_full(lines, balances, round_up(amount))
    # A statement of its own, after the wait for the accounts, sees what was reserved meanwhile.
    if full is not None and not await connection.fetchval(_IS_KNOWN, reservation):
        stale = await _read_stale(connection)
        raise _Unchanged(Reserved(move_stale(balances, stale), full))
    nano_usd = to_nano_usd(amount.cost_usd)
    rows = await connection.fetch(_HOLD, reservation, nano_usd, amount.tokens, *columns, REMEMBERED_FOR)
    if not rows:
        raise _Unchanged(Reserved(balances))
    return Reserved(_in_order(accounts, rows))


async def settle(connection: asyncpg.Connection, reservation: str, actual: Amount | None) -> tuple[Balance, ...]:
    """Replace what a reservation holds by what was spent."""
    spent = (None, None) if actual is None else (to_nano_usd(actual.cost_usd), actual.tokens)
    return tuple(map(_to_balance, await connection.fetch(_SETTLE, reservation, *spent)))


async def assume_all(connection: asyncpg.Connection, name: str) -> None:
    """Settle all that is still held under a name, and under those that go on after it, as assumed."""
    for row in await connection.fetch(_OPEN, name, *find_range(name)):
        await settle(connection, row["id"], None)


async def list_balances(connection: asyncpg.Connection, first: str, last: str) -> tuple[Balance, ...]:
    """Return the accounts of these periods."""
    rows = await connection.fetch(_LIST, first, last)
    return move_stale(map(_to_balance, rows), await _read_stale(connection)) if rows else ()


async def _read_stale(connection: asyncpg.Connection) -> dict[Account, Amount]:
    rows = await connection.fetch(_STALE, HELD_AT_MOST)
    return {_to_account(row): to_amount(row["nano_usd"], row["tokens"]) for row in rows}


def _in_order(accounts: Sequence[Account], rows: Sequence[asyncpg.Record]) -> tuple[Balance, ...]:
    found = {balance.account: balance for balance in map(_to_balance, rows)}
    return tuple(found[account] for account in accounts)


def _to_account(row: asyncpg.Record) -> Account:
    return Account(row["budget"], row["scope"], row["period"])


def _to_balance(row: asyncpg.Record) -> Balance:
    spent, assumed, held = (
        to_amount(row[f"{name}_nano_usd"], row[f"{name}_tokens"]) for name in ("spent", "assumed", "held")
    )
    return Balance(_to_account(row), spent, assumed, held, row["since"], row["last_used"])
