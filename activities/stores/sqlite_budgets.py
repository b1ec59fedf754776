"""Accounts of budgets in SQLite: functions for one connection, inside the transaction of their caller."""

import json
import sqlite3
import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime

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

SCHEMA = (
    """
    CREATE TABLE IF NOT EXISTS budget_accounts (
        budget TEXT NOT NULL, scope TEXT NOT NULL, period TEXT NOT NULL,
        spent_nano_usd INTEGER NOT NULL DEFAULT 0, spent_tokens INTEGER NOT NULL DEFAULT 0,
        assumed_nano_usd INTEGER NOT NULL DEFAULT 0, assumed_tokens INTEGER NOT NULL DEFAULT 0,
        held_nano_usd INTEGER NOT NULL DEFAULT 0, held_tokens INTEGER NOT NULL DEFAULT 0,
        since REAL NOT NULL, last_used REAL NOT NULL, PRIMARY KEY (budget, scope, period)
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS budget_reservations (
        id TEXT PRIMARY KEY, nano_usd INTEGER NOT NULL, tokens INTEGER NOT NULL, accounts TEXT NOT NULL,
        made_at REAL NOT NULL, settled_at REAL
    )
    """,
    "CREATE INDEX IF NOT EXISTS budget_open ON budget_reservations (made_at) WHERE settled_at IS NULL",
    "CREATE INDEX IF NOT EXISTS budget_settled ON budget_reservations (settled_at) WHERE settled_at IS NOT NULL",
)
TABLES = ("budget_accounts", "budget_reservations")

_BALANCE = (
    "SELECT budget, scope, period, spent_nano_usd, spent_tokens, assumed_nano_usd, assumed_tokens,"
    " held_nano_usd, held_tokens, since, last_used FROM budget_accounts"
)
_ACCOUNT = "budget = ? AND scope = ? AND period = ?"
_HOLD = """
INSERT INTO budget_accounts (budget, scope, period, held_nano_usd, held_tokens, since, last_used)
VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET held_nano_usd = held_nano_usd + excluded.held_nano_usd,
    held_tokens = held_tokens + excluded.held_tokens, last_used = excluded.last_used
"""
_SETTLE = f"""
UPDATE budget_accounts SET spent_nano_usd = spent_nano_usd + ?, spent_tokens = spent_tokens + ?,
    assumed_nano_usd = assumed_nano_usd + ?, assumed_tokens = assumed_tokens + ?,
    held_nano_usd = held_nano_usd - ?, held_tokens = held_tokens - ?, last_used = ?
WHERE {_ACCOUNT}
"""  # noqa: S608 - ours

_OPEN = "SELECT id FROM budget_reservations WHERE settled_at IS NULL AND (id = ? OR (id >= ? AND id < ?)) ORDER BY id"


def reserve(connection: sqlite3.Connection, reservation: str, lines: Sequence[Line], amount: Amount) -> Reserved:
    """Hold `amount` on all lines or on none."""
    now = time.time()
    _forget(connection, now)
    accounts = [line.account for line in lines]
    is_known = connection.execute("SELECT 1 FROM budget_reservations WHERE id = ?", (reservation,)).fetchone()
    balances = [_read(connection, account, now) for account in accounts]
    if is_known:
        return Reserved(tuple(balances))
    full = find_full(lines, balances, round_up(amount))
    if full is not None:
        stale = _read_stale(connection, now)
        return Reserved(move_stale(balances, stale), full)
    nano_usd, tokens = to_nano_usd(amount.cost_usd), amount.tokens
    connection.execute(
        "INSERT INTO budget_reservations VALUES (?, ?, ?, ?, ?, NULL)",
        (reservation, nano_usd, tokens, _write_accounts(accounts), now),
    )
    held = [(*_key(account), nano_usd, tokens, now, now) for account in accounts]
    connection.executemany(_HOLD, held)
    return Reserved(tuple(_read(connection, account, now) for account in accounts))


def settle(connection: sqlite3.Connection, reservation: str, actual: Amount | None) -> tuple[Balance, ...]:
    """Replace what a reservation holds by what was spent."""
    now = time.time()
    found = connection.execute(
        "SELECT nano_usd, tokens, accounts FROM budget_reservations WHERE id = ? AND settled_at IS NULL", (reservation,)
    ).fetchone()
    if found is None:
        return ()
    nano_usd, tokens, written = found
    accounts = _read_accounts(written)
    connection.execute("UPDATE budget_reservations SET settled_at = ? WHERE id = ?", (now, reservation))
    held = (nano_usd, tokens)
    spent = held if actual is None else (to_nano_usd(actual.cost_usd), actual.tokens)
    assumed = held if actual is None else (0, 0)
    connection.executemany(_SETTLE, [(*spent, *assumed, *held, now, *_key(account)) for account in accounts])
    return tuple(_read(connection, account, now) for account in accounts)


def assume_all(connection: sqlite3.Connection, name: str) -> None:
    """Settle all that is still held under a name, and under those that go on after it, as assumed."""
    for (reservation,) in connection.execute(_OPEN, (name, *find_range(name))).fetchall():
        settle(connection, reservation, None)


def list_balances(connection: sqlite3.Connection, first: str, last: str) -> tuple[Balance, ...]:
    """Return the accounts of these periods; none in the file of an older version, which is left as it is."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'budget_accounts'").fetchone() is None:
        return ()
    statement = f"{_BALANCE} WHERE period BETWEEN ? AND ? ORDER BY budget, scope, period"
    rows = connection.execute(statement, (first, last)).fetchall()
    return move_stale(map(_to_balance, rows), _read_stale(connection, time.time()))


def _read(connection: sqlite3.Connection, account: Account, now: float) -> Balance:
    row = connection.execute(f"{_BALANCE} WHERE {_ACCOUNT}", _key(account)).fetchone()
    return _to_balance(row or (*_key(account), 0, 0, 0, 0, 0, 0, now, now))


def _read_stale(connection: sqlite3.Connection, now: float) -> dict[Account, Amount]:
    sums: defaultdict[Account, Amount] = defaultdict(Amount)
    statement = "SELECT nano_usd, tokens, accounts FROM budget_reservations WHERE settled_at IS NULL AND made_at < ?"
    for nano_usd, tokens, written in connection.execute(statement, (now - HELD_AT_MOST.total_seconds(),)):
        for account in _read_accounts(written):
            sums[account] += to_amount(nano_usd, tokens)
    return sums


def _forget(connection: sqlite3.Connection, now: float) -> None:
    settled_before = now - REMEMBERED_FOR.total_seconds()
    connection.execute("DELETE FROM budget_reservations WHERE settled_at < ?", (settled_before,))


def _to_balance(row: tuple[str, str, str, int, int, int, int, int, int, float, float]) -> Balance:
    budget, scope, period, *amounts, since, last_used = row
    spent, assumed, held = (to_amount(*amounts[at : at + 2]) for at in (0, 2, 4))
    times = (datetime.fromtimestamp(moment, UTC) for moment in (since, last_used))
    return Balance(Account(budget, scope, period), spent, assumed, held, *times)


def _key(account: Account) -> tuple[str, str, str]:
    return account.budget, account.scope, account.period


def _write_accounts(accounts: Sequence[Account]) -> str:
    return json.dumps([_key(account) for account in accounts])


def _read_accounts(written: str) -> list[Account]:
    return [Account(*key) for key in json.loads(written)]
