"""Accounts of budgets, whatever order reservations and settlements come in."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mandate.activities.stores import sqlite_budgets
from mandate.activities.stores.budgets import Account, Line, round_up, to_amount, to_nano_usd
from mandate.workflows.contracts.budget import Amount

ACCOUNTS = tuple(Account(name, "{}", "2026-11") for name in "abc")
AMOUNTS = st.builds(
    lambda cost, tokens: Amount(cost_usd=cost, tokens=tokens),
    st.decimals(0, 3, places=11),
    st.integers(0, 50),
)
LIMITS = st.tuples(st.none() | st.decimals(0, 8, places=9), st.none() | st.integers(0, 200))
LINES = st.lists(st.tuples(st.sampled_from(ACCOUNTS), LIMITS), min_size=1, max_size=3, unique_by=lambda line: line[0])
NAMES = st.integers(0, 7).map("r{}".format)
RESERVE = st.tuples(st.just("reserve"), NAMES, LINES, AMOUNTS)
SETTLE = st.tuples(st.just("settle"), NAMES, st.just([]), st.none() | AMOUNTS)


@dataclass
class Book:
    """What the accounts must say, kept in the plainest way."""

    held: dict[str, tuple[tuple[Account, ...], Amount]] = field(default_factory=dict)
    spent: list[tuple[Account, Amount, bool]] = field(default_factory=list)
    known: set[str] = field(default_factory=set)

    def total(self, account: Account) -> tuple[Amount, Amount, Amount]:
        spent = [amount for own, amount, _ in self.spent if own == account]
        assumed = [amount for own, amount, is_assumed in self.spent if own == account and is_assumed]
        held = [amount for accounts, amount in self.held.values() if account in accounts]
        return tuple(sum(amounts, Amount()) for amounts in (spent, assumed, held))  # type: ignore[return-value]

    def has_room(self, line: Line, amount: Amount) -> bool:
        spent, _, held = self.total(line.account)
        total = spent + held + amount
        return (line.cost_usd is None or total.cost_usd <= line.cost_usd) and (
            line.tokens is None or total.tokens <= line.tokens
        )

    def reserve(self, name: str, lines: list[Line], amount: Amount) -> bool:
        if name in self.known:
            return True
        if not all(self.has_room(line, amount) for line in lines):
            return False
        self.known.add(name)
        self.held[name] = (tuple(line.account for line in lines), amount)
        return True

    def settle(self, name: str, actual: Amount | None) -> None:
        if name in self.held:
            accounts, amount = self.held.pop(name)
            self.spent += [(account, amount if actual is None else actual, actual is None) for account in accounts]


@pytest.fixture(scope="module")
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        for statement in sqlite_budgets.SCHEMA:
            connection.execute(statement)
        yield connection


@given(st.lists(RESERVE | SETTLE, max_size=30))
def test_accounts_are_what_was_granted_and_settled(connection: sqlite3.Connection, steps: list) -> None:
    book = Book()
    for table in sqlite_budgets.TABLES:
        connection.execute(f"DELETE FROM {table}")

    for step, name, entries, amount in steps:
        lines = [Line(account, *limits) for account, limits in entries]
        if step == "reserve":
            reserved = sqlite_budgets.reserve(connection, name, lines, amount)
            assert (reserved.full is None) == book.reserve(name, lines, round_up(amount))
        else:
            sqlite_budgets.settle(connection, name, amount)
            book.settle(name, None if amount is None else round_up(amount))

    balances = sqlite_budgets.list_balances(connection, "", "9")
    assert {one.account: (one.spent, one.assumed, one.held) for one in balances} == {
        account: book.total(account)
        for account in ACCOUNTS
        if any(account in accounts for accounts, _ in book.held.values())
        or any(own == account for own, *_ in book.spent)
    }


@given(st.decimals(0, 10**9, places=12))
def test_rounding_is_never_short_and_never_more_than_a_billionth_over(cost_usd: Decimal) -> None:
    rounded = to_amount(to_nano_usd(cost_usd), 0).cost_usd

    assert cost_usd <= rounded < cost_usd + Decimal("0.000000001")
    assert to_nano_usd(rounded) == to_nano_usd(cost_usd)
