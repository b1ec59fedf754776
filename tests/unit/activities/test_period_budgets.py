"""Budgets beyond one run: what is held before a model call, what refuses it, and what conditions may read of it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from temporalio.exceptions import ApplicationError

from mandate.activities.live_files import LiveFile
from mandate.activities.period_budgets import PeriodBudgets, PeriodUse
from mandate.activities.stores.base import StoreUnavailable
from mandate.activities.stores.sqlite import SqliteStore
from mandate.workflows.contracts.budget import Amount
from mandate.workflows.contracts.budget_file import BudgetFile
from mandate.workflows.contracts.failures import FailureType
from mandate.workflows.rules.period_budgets import Spender

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
ANN = Spender("refunds", "ann@example.com", {"team": "support"})
BOB = Spender("refunds", "bob@example.com")


def dollars(cost_usd: str, tokens: int = 0) -> Amount:
    return Amount(cost_usd=Decimal(cost_usd), tokens=tokens)


class CountingStore(SqliteStore):
    """A store that counts what it is asked, and may be away."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.asked: list[str] = []
        self.is_away = False
        self.answers_after = timedelta(0)

    async def reserve(self, *arguments, **more):
        self._ask("reserve")
        reserved = await super().reserve(*arguments, **more)
        await asyncio.sleep(self.answers_after.total_seconds())
        return reserved

    async def settle(self, *arguments, **more):
        self._ask("settle")
        return await super().settle(*arguments, **more)

    async def assume_all(self, *arguments, **more):
        self._ask("settle")
        return await super().assume_all(*arguments, **more)

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if self.is_away:
            raise StoreUnavailable("the store x did not answer")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[CountingStore]:
    store = CountingStore(tmp_path / "store.db")
    yield store
    await store.close()


class Site:
    def __init__(self, store: CountingStore, file: Path) -> None:
        self.store = store
        self.file = file
        live = LiveFile(file, BudgetFile, subject="budgets")
        self.budgets = PeriodBudgets(store, live.read, patience=timedelta(0))
        self.waiting = PeriodBudgets(store, live.read, patience=timedelta(seconds=20))

    def write(self, budgets: str) -> None:
        self.file.write_text(f"budgets: [{budgets}]")

    async def refusal(self, name: str, spender: Spender, amount: Amount, **more: object) -> ApplicationError:
        with pytest.raises(ApplicationError) as refused:
            await self.budgets.hold(name, spender, amount, now=NOON, **more)
        return refused.value


@pytest.fixture
def site(store: CountingStore, tmp_path: Path) -> Site:
    return Site(store, tmp_path / "budgets.yaml")


@pytest.mark.parametrize("budgets", [None, "", "{id: shop, agent: shop, per: day, tokens: 1}"])
async def test_without_a_budget_that_fits_the_store_is_not_asked(site: Site, budgets: str | None) -> None:
    if budgets is not None:
        site.write(budgets)

    await site.budgets.assume_lost(["r0"], ANN)
    held = await site.budgets.hold("r1", ANN, dollars("9"), unpriced_model="openai:x")
    await held.settle(dollars("8"))
    await held.assume()

    assert held.use is None
    assert site.store.asked == []


async def test_what_is_held_and_what_it_took_is_there_for_conditions(site: Site) -> None:
    site.write("{id: all, per: month, cost_usd: '10'}")

    held = await site.budgets.hold("r1", ANN, dollars("4"), now=NOON)
    before = held.use
    await held.settle(dollars("1.5"))

    assert before == PeriodUse("all", Decimal(4), Decimal(6))
    assert held.use == PeriodUse("all", Decimal("1.5"), Decimal("8.5"))


@pytest.mark.parametrize(
    ("budgets", "use"),
    [
        ("{id: a, per: day, cost_usd: '10'}, {id: b, per: day, cost_usd: '5'}", PeriodUse("b", Decimal(1), Decimal(4))),
        ("{id: a, per: day, cost_usd: '10', tokens: 100}, {id: b, per: day, cost_usd: '5'}",
         PeriodUse("a", Decimal(1), Decimal(9))),
        ("{id: a, per: day, cost_usd: '10'}, {id: b, per: day, tokens: 60}", PeriodUse("a", Decimal(1), Decimal(9))),
        ("{id: b, per: day, tokens: 60}", PeriodUse("b", Decimal(1), None)),
    ],
)  # fmt: skip
async def test_conditions_see_the_budget_that_is_used_up_most(site: Site, budgets: str, use: PeriodUse) -> None:
    site.write(budgets)

    held = await site.budgets.hold("r1", ANN, dollars("1", 50), now=NOON)

    assert held.use == use


async def test_budget_without_room_is_told_in_one_sentence(site: Site) -> None:
    site.write("{id: team, labels: {team: '*'}, per: month, time_zone: Europe/Berlin, cost_usd: '5'}")
    first = await site.budgets.hold("r1", ANN, dollars("3"), now=NOON)
    await first.settle(dollars("2.25"))
    await site.budgets.hold("r2", ANN, dollars("1.5"), now=NOON)

    error = await site.refusal("r3", ANN, dollars("1.250001"))

    assert error.message == (
        "the budget 'team' of team=support for 2026-11 has no room for a call of up to $1.250001: its limit is $5.00, "
        "$2.25 spent and $1.50 held; it begins anew at 2026-12-01 00:00 Europe/Berlin"
    )
    assert (error.type, error.non_retryable) == (FailureType.BUDGET_USED_UP, True)
    assert error.details[0].fault == "budget"


async def test_tokens_without_room_are_told_as_tokens(site: Site) -> None:
    site.write("{id: all, per: day, cost_usd: '5', tokens: 10000}")
    await (await site.budgets.hold("r1", ANN, dollars("1", 9000), now=NOON)).assume()

    error = await site.refusal("r2", BOB, dollars("1", 1500))

    assert error.message == (
        "the budget 'all' for 2026-11-30 has no room for a call of up to 1,500 tokens: its limit is 10,000 tokens, "
        "9,000 spent and 0 held; it begins anew at 2026-12-01 00:00 UTC"
    )


async def test_each_requester_has_their_own(site: Site) -> None:
    site.write("{id: each, requester: '*', per: day, cost_usd: '1'}")

    await site.budgets.hold("r1", ANN, dollars("1"), now=NOON)
    await site.budgets.hold("r2", BOB, dollars("1"), now=NOON)
    await site.budgets.hold("r3", Spender("refunds"), dollars("1"), now=NOON)

    refused = await site.refusal("r4", Spender("shop", "ANN@example.com"), dollars("0.1"))
    assert refused.message.startswith("the budget 'each' of ann@example.com for 2026-11-30 has no room")


async def test_next_day_begins_anew_and_a_call_counts_where_it_was_reserved(site: Site) -> None:
    site.write("{id: all, per: day, cost_usd: '1'}")
    late = await site.budgets.hold("r1", ANN, dollars("1"), now=NOON)

    await site.budgets.hold("r2", ANN, dollars("1"), now=NOON + timedelta(days=1))
    await late.settle(dollars("0.5"))

    await site.budgets.hold("r3", ANN, dollars("0.5"), now=NOON)
    await site.refusal("r4", ANN, dollars("0.1"))


async def test_changed_limit_counts_at_once(site: Site) -> None:
    site.write("{id: all, per: day, cost_usd: '10'}")
    held = await site.budgets.hold("r1", ANN, dollars("4"), now=NOON)

    site.write("{id: all, per: day, cost_usd: '4'}")
    lowered = await site.refusal("r2", ANN, dollars("0.01"))
    site.write("{id: all, per: day, cost_usd: '8'}")
    await site.budgets.hold("r3", ANN, dollars("4"), now=NOON)
    await held.settle(dollars("9"))

    assert "its limit is $4.00, $0.00 spent and $4.00 held" in lowered.message
    assert held.use == PeriodUse("all", Decimal(13), Decimal(-3))


async def test_same_reservation_holds_once(site: Site) -> None:
    site.write("{id: all, per: day, cost_usd: '1'}")

    for _ in range(3):
        held = await site.budgets.hold("r1", ANN, dollars("0.6"), now=NOON)
    await held.settle(dollars("0.2"))
    await held.settle(dollars("0.9"))
    await held.assume()

    assert held.use == PeriodUse("all", Decimal("0.2"), Decimal("0.8"))


async def test_what_attempts_with_lost_workers_hold_is_assumed_by_the_next_one(site: Site) -> None:
    site.write("{id: all, per: day, cost_usd: '5'}")
    told = await site.budgets.hold("r:1", ANN, dollars("1"), now=NOON)
    await told.settle(dollars("0.25"))
    await site.budgets.hold("r:2", ANN, dollars("2"), now=NOON)

    await site.budgets.assume_lost(["r:1", "r:2"], ANN)
    held = await site.budgets.hold("r:3", ANN, dollars("1.5"), now=NOON)

    assert held.use == PeriodUse("all", Decimal("3.75"), Decimal("1.25"))
    (balance,) = await site.store.list_balances("", "9999")
    assert (balance.spent, balance.assumed, balance.held) == (dollars("2.25"), dollars("2"), dollars("1.5"))


async def test_call_does_not_wait_for_what_its_own_lost_attempts_hold(site: Site) -> None:
    site.write("{id: all, per: day, cost_usd: '5'}")
    await site.budgets.hold("r:1", ANN, dollars("3"), now=NOON)
    await site.budgets.assume_lost(["r:1"], ANN)

    async with asyncio.timeout(5):
        with pytest.raises(ApplicationError, match=r"its limit is \$5.00, \$3.00 spent and \$0.00 held"):
            await site.waiting.hold("r:2", ANN, dollars("3"), now=NOON)


async def test_call_waits_for_those_that_hold_more_than_they_take(site: Site) -> None:
    site.write("{id: all, per: day, cost_usd: '1'}")

    async def call(number: int) -> None:
        held = await site.waiting.hold(f"r{number}", ANN, dollars("0.4"), now=NOON)
        await asyncio.sleep(0.02)
        await held.settle(dollars("0.05"))

    await asyncio.gather(*(call(number) for number in range(12)))

    (balance,) = await site.store.list_balances("", "9")
    assert (balance.spent, balance.held) == (dollars("0.60"), Amount())


async def test_call_does_not_wait_for_what_is_spent(site: Site) -> None:
    site.write("{id: all, per: day, cost_usd: '1'}")
    await (await site.waiting.hold("r1", ANN, dollars("0.7"), now=NOON)).assume()
    site.store.asked.clear()

    with pytest.raises(ApplicationError, match=r"the budget 'all' for 2026-11-30 has no room"):
        await site.waiting.hold("r2", ANN, dollars("0.4"), now=NOON)

    assert site.store.asked == ["reserve"]


async def test_without_the_store_no_call_is_made_and_it_is_tried_again(site: Site) -> None:
    site.write("{id: all, per: day, cost_usd: '1'}")
    site.store.is_away = True

    error = await site.refusal("r1", ANN, dollars("0.1"))

    assert (error.type, error.non_retryable) == (FailureType.STORE_UNAVAILABLE, False)
    assert error.next_retry_delay == timedelta(seconds=1)
    assert error.message == "the store x did not answer"


async def test_answer_is_not_lost_with_the_store_and_what_was_held_stays_held(site: Site) -> None:
    site.write("{id: all, per: day, cost_usd: '1'}")
    held = await site.budgets.hold("r1", ANN, dollars("0.7"), now=NOON)
    site.store.is_away = True

    await held.settle(dollars("0.1"))

    site.store.is_away = False
    assert held.use == PeriodUse("all", Decimal("0.7"), Decimal("0.3"))
    await site.refusal("r2", ANN, dollars("0.4"))


async def test_what_a_call_reserves_that_is_cut_off_meanwhile_is_free_again(site: Site) -> None:
    site.write("{id: all, per: day, cost_usd: '1'}")
    site.store.answers_after = timedelta(seconds=10)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await site.budgets.hold("r1", ANN, dollars("0.7"), now=NOON)

    (balance,) = await site.store.list_balances("", "9")
    assert (balance.spent, balance.held) == (Amount(), Amount())


async def test_call_waits_no_longer_than_its_time_allows(site: Site) -> None:
    site.write("{id: all, per: day, cost_usd: '1'}")
    await site.budgets.hold("r1", ANN, dollars("0.7"), now=NOON)

    with pytest.raises(ApplicationError, match="has no room"):
        async with asyncio.timeout(5):
            await site.waiting.hold("r2", ANN, dollars("0.4"), now=NOON, within=timedelta(seconds=0.3))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("budgets: [{id: a, per: day}]", "the file of budgets has a fault in line 1; `mandate validate {}` tells more"),
        (
            "budgets:\n  - {id: a, per: day, token: 3}",
            "the file of budgets has a fault in line 2; `mandate validate {}` tells more",
        ),
        ("", "the file of budgets has a fault; `mandate validate {}` tells more"),
        (None, "the file of budgets is gone; put {} back"),
    ],
)
async def test_file_that_breaks_lets_nothing_through_until_it_is_mended(
    site: Site, content: str | None, sentence: str
) -> None:
    site.write("{id: all, per: day, cost_usd: '1'}")
    await site.budgets.find_shares(ANN)

    site.file.unlink()
    if content is not None:
        site.file.write_text(content)
    error = await site.refusal("r1", ANN, dollars("0.1"))
    site.write("{id: all, per: day, cost_usd: '1'}")
    mended = await site.budgets.hold("r1", ANN, dollars("0.1"), now=NOON)

    assert error.message == sentence.format(site.file)
    assert (error.type, error.non_retryable) == (FailureType.STORE_UNAVAILABLE, False)
    assert mended.use is not None


async def test_model_without_a_price_is_refused_where_money_is_limited(site: Site) -> None:
    site.write("{id: tokens, per: day, tokens: 1000}")
    await site.budgets.hold("r1", ANN, dollars("0", 10), unpriced_model="vllm:qwen", now=NOON)
    site.write("{id: tokens, per: day, tokens: 1000}, {id: money, per: day, cost_usd: '1'}")

    error = await site.refusal("r2", ANN, dollars("0", 10), unpriced_model="vllm:qwen")

    assert (error.type, error.non_retryable) == (FailureType.MODEL_REJECTED, True)
    assert error.message == (
        "the budget 'money' limits money, and the price of vllm:qwen is not known; give it as 'price' in the agent file"
    )
