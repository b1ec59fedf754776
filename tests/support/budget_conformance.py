"""What every store must do with budgets beyond one run: a test class for each store inherits this one."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal

import pytest

from mandate.activities.stores.address import open_store
from mandate.activities.stores.base import BlobStore, StoreUnavailable
from mandate.activities.stores.budgets import Account, Balance, Line, Reserved
from mandate.workflows.contracts.budget import Amount
from tests.support.budget_spender import CALL, FITTING, lines, start_spender
from tests.support.store_writer import finished

ALL = Account("all", "{}", "2026-11")
TEAM = Account("team", '{"team": "support"}', "2026-11-30")
NOTHING = Amount()


def dollars(cost_usd: str, tokens: int = 0) -> Amount:
    return Amount(cost_usd=Decimal(cost_usd), tokens=tokens)


def parts(balance: Balance) -> tuple[Amount, Amount, Amount]:
    """Spent, assumed, held."""
    return balance.spent, balance.assumed, balance.held


async def balance_of(store: BlobStore, account: Account) -> tuple[Amount, Amount, Amount]:
    (found,) = [one for one in await store.list_balances("", "9") if one.account == account]
    return parts(found)


class BudgetConformance:
    """Inherited with a fixture `url`: the address of a store that nobody has used."""

    @pytest.fixture
    async def store(self, url: str) -> AsyncIterator[BlobStore]:
        store = open_store(url)
        yield store
        await store.close()

    async def make_older(self, url: str) -> None:
        """Make the store, which nobody has open, one of the version before budgets."""
        raise NotImplementedError

    async def forbid_writing(self, url: str) -> None:
        """Make the store, which nobody has open, one that can only be read."""
        raise NotImplementedError

    async def test_what_is_reserved_is_held_and_what_is_settled_is_spent(self, store: BlobStore) -> None:
        line = Line(ALL, Decimal("1.00"), 5000)

        reserved = await store.reserve("r1", [line], dollars("0.40", 2000))
        held = await balance_of(store, ALL)
        (settled,) = await store.settle("r1", dollars("0.15", 700))

        assert reserved.full is None
        assert [parts(one) for one in reserved.balances] == [(NOTHING, NOTHING, dollars("0.40", 2000))]
        assert held == (NOTHING, NOTHING, dollars("0.40", 2000))
        assert parts(settled) == (dollars("0.15", 700), NOTHING, NOTHING)
        assert await balance_of(store, ALL) == parts(settled)
        assert reserved.balances[0].since <= settled.since <= settled.last_used

    async def test_line_without_room_is_told_and_nothing_is_held_anywhere(self, store: BlobStore) -> None:
        wide, narrow = Line(ALL, Decimal(5)), Line(TEAM, Decimal("0.50"))
        await store.reserve("r1", [wide, narrow], dollars("0.20"))
        await store.settle("r1", dollars("0.20"))
        await store.reserve("r2", [narrow], dollars("0.10"))

        refused = await store.reserve("r3", [wide, narrow], dollars("0.200000001"))

        assert refused.full == narrow
        assert [parts(one) for one in refused.balances] == [
            (dollars("0.20"), NOTHING, NOTHING),
            (dollars("0.20"), NOTHING, dollars("0.10")),
        ]
        assert await balance_of(store, ALL) == (dollars("0.20"), NOTHING, NOTHING)
        assert (await store.reserve("r4", [wide, narrow], dollars("0.20"))).full is None

    async def test_refusal_leaves_no_account_behind(self, store: BlobStore) -> None:
        refused = await store.reserve("r1", [Line(ALL, None, 10)], dollars("0", 11))

        assert refused.full == Line(ALL, None, 10)
        assert await store.list_balances("", "9") == ()
        assert await store.settle("r1", NOTHING) == ()

    @pytest.mark.parametrize(
        ("limit", "amount", "is_granted"),
        [
            (Line(ALL, Decimal(1)), dollars("1"), True),
            (Line(ALL, Decimal(1)), dollars("1.0000000001"), False),
            (Line(ALL, Decimal(1)), dollars("0.1", 10**15), True),
            (Line(ALL, None, 7), dollars("999999", 7), True),
            (Line(ALL, None, 7), dollars("0", 8), False),
            (Line(ALL, Decimal("999999.999999999"), 10**15), dollars("999999.999999999", 10**15), True),
        ],
    )
    async def test_limit_may_be_reached_and_not_passed(
        self, store: BlobStore, limit: Line, amount: Amount, is_granted: bool
    ) -> None:
        assert ((await store.reserve("r1", [limit], amount)).full is None) == is_granted

    async def test_reservation_made_again_changes_nothing_and_is_granted(self, store: BlobStore) -> None:
        line = Line(ALL, Decimal(1))

        answers = [await store.reserve("r1", [line], dollars("0.8")) for _ in range(3)]
        answers.append(await store.reserve("r1", [Line(ALL, Decimal("0.1")), Line(TEAM, Decimal(0))], dollars("5")))
        settled = [await store.settle("r1", dollars("0.3")), await store.settle("r1", dollars("0.9"))]
        settled.append(await store.settle("r1"))
        answers.append(await store.reserve("r1", [line], dollars("0.8")))

        assert [answer.full for answer in answers] == [None] * 5
        assert [len(one) for one in settled] == [1, 0, 0]
        assert [one.account for one in await store.list_balances("", "9")] == [ALL]
        assert await balance_of(store, ALL) == (dollars("0.3"), NOTHING, NOTHING)

    async def test_settling_without_an_amount_assumes_all_that_was_held(self, store: BlobStore) -> None:
        line = Line(ALL, Decimal(1), 5000)
        await store.reserve("r1", [line], dollars("0.4", 1000))
        await store.reserve("r2", [line], dollars("0.3", 500))

        await store.settle("r1")
        await store.settle("r1", dollars("0.1", 1))
        await store.settle("r2", dollars("0.2", 400))

        assert await balance_of(store, ALL) == (dollars("0.6", 1400), dollars("0.4", 1000), NOTHING)

    async def test_all_that_is_held_under_a_name_is_assumed_at_once(self, store: BlobStore) -> None:
        line = Line(ALL, Decimal(1), 5000)
        mine, others = ("run:7:1", "run:7:1:1", "run:7:1:2"), ("run:7:10", "run:7:2:1", "run:7:1;", "run:7:1-1", "x")
        for name in (*mine, *others):
            await store.reserve(name, [line], dollars("0.1", 100))
        await store.settle("run:7:1:2", dollars("0.05", 10))

        for _ in range(2):
            await store.assume_all("run:7:1")

        assert await balance_of(store, ALL) == (dollars("0.25", 210), dollars("0.2", 200), dollars("0.5", 500))

    async def test_more_than_was_held_is_counted_as_it_was_billed(self, store: BlobStore) -> None:
        await store.reserve("r1", [Line(ALL, Decimal(1))], dollars("0.9"))

        await store.settle("r1", dollars("1.5"))

        assert await balance_of(store, ALL) == (dollars("1.5"), NOTHING, NOTHING)
        assert (await store.reserve("r2", [Line(ALL, Decimal(1))], dollars("0"))).full is not None
        assert (await store.reserve("r3", [Line(ALL, Decimal(2))], dollars("0.5"))).full is None

    async def test_what_is_sent_back_unused_is_free_again(self, store: BlobStore) -> None:
        line = Line(ALL, Decimal(1))
        await store.reserve("r1", [line], dollars("1"))

        await store.settle("r1", NOTHING)

        assert await balance_of(store, ALL) == (NOTHING, NOTHING, NOTHING)
        assert (await store.reserve("r2", [line], dollars("1"))).full is None

    async def test_limit_of_the_call_counts_and_not_an_earlier_one(self, store: BlobStore) -> None:
        await store.reserve("r1", [Line(ALL, Decimal(10))], dollars("4"))

        lowered = await store.reserve("r2", [Line(ALL, Decimal(4))], dollars("0.01"))
        raised = await store.reserve("r3", [Line(ALL, Decimal(20))], dollars("16"))

        assert lowered.full == Line(ALL, Decimal(4))
        assert raised.full is None

    async def test_sums_are_exact_and_never_short(self, store: BlobStore) -> None:
        line = Line(ALL, Decimal("0.3"))
        await store.reserve("r1", [line], dollars("0.1"))
        await store.reserve("r2", [line], dollars("0.2"))
        await store.settle("r1", dollars("0.0000000074"))

        spent, _, held = await balance_of(store, ALL)

        assert (spent.cost_usd, held.cost_usd) == (Decimal("0.000000008"), Decimal("0.200000000"))

    async def test_accounts_are_apart(self, store: BlobStore) -> None:
        accounts = [
            Account("b", '{"agent": "x"}', "2026-11"),
            Account("b", '{"agent": "y"}', "2026-11"),
            Account("b", '{"agent": "x"}', "2026-10-31"),
            Account("a", '{"agent": "x"}', "2026-12-01"),
            Account("a", '{"team": "quo\\"te \\u0000 \\ud83d é"}', "2026-12"),
        ]
        for number, account in enumerate(accounts):
            assert (await store.reserve(f"r{number}", [Line(account, None, 1)], dollars("0", 1))).full is None

        listed = [one.account for one in await store.list_balances("2026-11", "2026-12-99")]

        assert listed == [accounts[3], accounts[4], accounts[0], accounts[1]]
        assert [one.account for one in await store.list_balances("2026-10", "2026-10-99")] == [accounts[2]]
        assert await store.list_balances("2027", "2028") == ()

    async def test_accounts_outlive_the_process(self, store: BlobStore, url: str) -> None:
        await store.reserve("r1", [Line(ALL, Decimal(1))], dollars("0.7"))
        await store.close()
        again = open_store(url)

        assert (await again.reserve("r2", [Line(ALL, Decimal(1))], dollars("0.4"))).full is not None
        assert [parts(one) for one in await again.settle("r1", dollars("0.6"))] == [
            (dollars("0.6"), NOTHING, NOTHING)
        ]  # fmt: skip
        await again.close()

    async def test_of_200_parallel_reservers_exactly_as_many_are_granted_as_fit(
        self, store: BlobStore, url: str
    ) -> None:
        spenders = [await start_spender(url, f"s{number}", 50) for number in range(4)]

        granted = [name for spender in spenders for name in (await finished(spender)).split()]

        assert len(set(granted)) == len(granted) == FITTING
        total = dollars("1.00", 20_000)
        assert await balance_of(store, ALL) == (NOTHING, NOTHING, total)
        assert await balance_of(store, TEAM) == (NOTHING, NOTHING, total)

    async def test_what_200_killed_reservers_held_stays_held(self, store: BlobStore, url: str) -> None:
        spenders = [await start_spender(url, f"s{number}", 50, "hold") for number in range(4)]
        for _ in range(400):
            await asyncio.sleep(0.05)
            if sum(one.held.tokens for one in await store.list_balances("2026-11", "2026-11")) >= 10_000:
                break
        for spender in spenders:
            spender.kill()
        granted = [name for spender in spenders for name in (await spender.communicate())[0].decode().split()]

        held = (await balance_of(store, ALL))[2]
        calls = held.tokens // CALL.tokens
        # One that was killed between its commit and its word has its hold all the same.
        assert len(granted) <= calls <= FITTING
        assert await balance_of(store, TEAM) == (NOTHING, NOTHING, held)
        rest = [await store.reserve(f"rest-{number}", lines(), CALL) for number in range(FITTING + 1)]
        assert [one.full for one in rest].count(None) == FITTING - calls

    async def test_parallel_retries_count_once(self, store: BlobStore, url: str) -> None:
        stores = [store, *(open_store(url) for _ in range(4))]

        answers = await asyncio.gather(
            *(
                one.reserve(f"r{number}", lines(is_turned=bool(number % 2)), CALL)
                for number in range(40)
                for one in stores
            )
        )

        by_call = [{answer.full is None for answer in answers[at : at + 5]} for at in range(0, 200, 5)]
        assert by_call.count({True}) == FITTING
        assert by_call.count({False}) == 40 - FITTING
        assert (await balance_of(store, ALL))[2] == dollars("1.00", 20_000)
        for one in stores[1:]:
            await one.close()

    async def test_parallel_settlements_count_once(self, store: BlobStore, url: str) -> None:
        stores = [store, *(open_store(url) for _ in range(4))]
        for number in range(FITTING):
            await store.reserve(f"r{number}", lines(is_turned=bool(number % 2)), CALL)

        answers = await asyncio.gather(
            *(one.settle(f"r{number}", dollars("0.01", 10)) for number in range(FITTING) for one in stores)
        )

        assert sorted(map(len, answers)) == [0] * 80 + [2] * 20
        assert await balance_of(store, ALL) == (dollars("0.20", 200), NOTHING, NOTHING)
        assert await balance_of(store, TEAM) == (dollars("0.20", 200), NOTHING, NOTHING)
        for one in stores[1:]:
            await one.close()

    async def test_never_more_than_the_limit_is_spent_or_held_while_calls_come_and_go(
        self, store: BlobStore, url: str
    ) -> None:
        stores = [store, *(open_store(url) for _ in range(4))]
        chance = random.Random(7)
        spent = NOTHING
        seen: list[Reserved] = []

        async def call(number: int) -> Amount:
            own = stores[number % 5]
            reserved = await own.reserve(f"r{number}", lines(is_turned=bool(number % 2)), CALL)
            seen.append(reserved)
            if reserved.full is not None:
                return NOTHING
            await asyncio.sleep(chance.random() / 100)
            actual = chance.choice([NOTHING, dollars("0.02", 300), None])
            await own.settle(f"r{number}", actual)
            return CALL if actual is None else actual

        for amount in await asyncio.gather(*(call(number) for number in range(200))):
            spent += amount

        limit = CALL.cost_usd * FITTING
        totals = [balance.spent + balance.held for one in seen for balance in one.balances if balance.account == ALL]
        assert max(total.cost_usd for total in totals) <= limit
        counted, _, held = await balance_of(store, ALL)
        assert (counted, held) == (spent, NOTHING)
        assert any(one.full is None for one in seen)
        for one in stores[1:]:
            await one.close()

    async def test_what_is_held_for_too_long_counts_as_spent_and_assumed(
        self, store: BlobStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        line = Line(ALL, Decimal(1))
        await store.reserve("r1", [line], dollars("0.4"))
        for module in ("sqlite", "postgres"):
            monkeypatch.setattr(f"mandate.activities.stores.{module}_budgets.HELD_AT_MOST", timedelta(0))
        await asyncio.sleep(0.01)

        stale = await balance_of(store, ALL)
        refused = await store.reserve("r2", [line], dollars("0.7"))
        (late,) = await store.settle("r1", dollars("0.1"))

        assert stale == (dollars("0.4"), dollars("0.4"), NOTHING)
        assert refused.full == line
        assert parts(refused.balances[0]) == stale
        assert parts(late) == (dollars("0.1"), NOTHING, NOTHING)

    async def test_settled_reservations_are_forgotten_in_the_end_and_open_ones_never(
        self, store: BlobStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        line = Line(ALL, Decimal(1))
        await store.reserve("r1", [line], dollars("0.4"))
        await store.reserve("r2", [line], dollars("0.1"))
        await store.settle("r1", dollars("0.2"))
        for module in ("sqlite", "postgres"):
            monkeypatch.setattr(f"mandate.activities.stores.{module}_budgets.REMEMBERED_FOR", timedelta(0))
        await asyncio.sleep(0.01)

        await store.reserve("r3", [line], dollars("0.1"))
        await store.reserve("r1", [line], dollars("0.3"))
        await store.reserve("r2", [line], dollars("0.1"))

        assert await balance_of(store, ALL) == (dollars("0.2"), NOTHING, dollars("0.5"))

    async def test_store_older_than_budgets_keeps_them(self, store: BlobStore, url: str) -> None:
        identity = await store.identity()
        await store.close()
        await self.make_older(url)
        newer = open_store(url)

        assert await newer.list_balances("", "9") == ()
        assert (await newer.reserve("r1", [Line(ALL, Decimal(1))], dollars("0.4"))).full is None

        assert await balance_of(newer, ALL) == (NOTHING, NOTHING, dollars("0.4"))
        assert await newer.identity() == identity
        await newer.close()

    async def test_nothing_is_granted_by_a_store_that_can_only_be_read(self, store: BlobStore, url: str) -> None:
        await store.reserve("r1", [Line(ALL, Decimal(1))], dollars("0.4"))
        await store.close()
        await self.forbid_writing(url)
        reading = open_store(url)

        with pytest.raises(StoreUnavailable):
            await reading.reserve("r2", [Line(ALL, Decimal(1))], dollars("0.4"))
        with pytest.raises(StoreUnavailable):
            await reading.settle("r1")
        with pytest.raises(StoreUnavailable):
            await reading.assume_all("r1")
        assert await balance_of(reading, ALL) == (NOTHING, NOTHING, dollars("0.4"))
        await reading.close()

    async def test_negative_amounts_are_no_amounts(self, store: BlobStore) -> None:
        with pytest.raises(ValueError, match=r"^an amount of -0\.1 dollars is negative$"):
            await store.reserve("r1", [Line(ALL, Decimal(1))], dollars("-0.1"))
