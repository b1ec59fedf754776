"""The purse of an activity: what its attempts tell the run, leave for each other, and hold in budgets beyond it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from mandate.activities.failures import make_model_failure, make_store_failure
from mandate.activities.period_budgets import PeriodBudgets
from mandate.activities.purse import SPENT_MARK, Purse
from mandate.activities.stores.budgets import Balance
from mandate.activities.stores.sqlite import SqliteStore
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.budget import Amount, Budget, Grant
from mandate.workflows.contracts.budget_file import BudgetFile
from mandate.workflows.contracts.failures import FailureType
from mandate.workflows.contracts.model import ModelFailure, NotSent, Payer, Usage
from mandate.workflows.contracts.route import Price, Rates
from mandate.workflows.rules.budget import CallSize
from mandate.workflows.rules.period_budgets import Spender

GRANT = Grant(input_tokens=1000, output_tokens=100, attempts=3)
NOTHING = Usage().model_dump_json()
ONE = Usage(model_calls=1, input_tokens=500, output_tokens=50, cost_usd=Decimal("0.25"))

STORE = make_store_failure("the store is down", FailureType.STORE_UNAVAILABLE)
NEEDS_STATE = ApplicationError(
    "to be cut", NotSent(input_tokens=900, too_long=900), type=FailureType.NEEDS_STATE, non_retryable=True
)
BEYOND = ApplicationError("no room", ModelFailure(fault="budget"), type=FailureType.BUDGET_USED_UP, non_retryable=True)
CUT = make_model_failure("connection", "gave no whole answer")
BUSY = make_model_failure("rate_limit", "answered 429", status=429, retry_after=0.5)

RATES = Rates(above=0, input=Decimal(1000), cached_input=Decimal(0), cache_write=Decimal(1000), output=Decimal(10_000))
SIZE = CallSize(1000, 100, Price(tiers=(RATES,), source="agent file"))
"""A call that costs two dollars at most."""
AGENT = PinnedAgent(
    name="a",
    instructions="",
    models=("x:m",),
    tools=(),
    policy=(),
    max_output_tokens=100,
    output_schema=None,
    budget=Budget(),
    attempts=3,
)


@dataclass(frozen=True)
class Answered:
    usage: Usage = ONE


def make_environment(
    *, left: tuple[object, ...] = (), attempt: int = 3
) -> tuple[ActivityEnvironment, list[tuple[Any, ...]]]:
    """Return an attempt, with the list of what it leaves for the next one."""
    environment, beats = ActivityEnvironment(), list[tuple[Any, ...]]()
    environment.info = replace(environment.info, attempt=attempt, heartbeat_details=left)
    environment.on_heartbeat = lambda *details: beats.append(details)
    return environment, beats


def asking(outcome: Usage | BaseException = ONE) -> Callable[[], Awaitable[Answered]]:
    async def ask() -> Answered:
        if isinstance(outcome, BaseException):
            raise outcome
        return Answered(outcome)

    return ask


async def buy(purse: Purse, outcome: Usage | BaseException = ONE) -> None:
    """Make one call with this outcome, whose answer is counted."""
    try:
        answer = await purse.buy("x:m", SIZE, asking(outcome), within=timedelta(seconds=5))
    except (ApplicationError, asyncio.CancelledError, RuntimeError):
        return
    purse.count(answer.usage)


def fail(error: ApplicationError, *, left: tuple[object, ...] = (), **changes: Any) -> Any:
    """Return the failure that an attempt raises in place of `error`, and what it leaves for the next one."""
    environment, beats = make_environment(left=left)

    def run() -> None:
        purse = Purse.read(GRANT)
        for name, value in changes.items():
            setattr(purse, name, value)
        purse.fail(error)

    with pytest.raises(ApplicationError) as raised:
        environment.run(run)
    return raised.value, beats


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (STORE, ModelFailure(lost=1)),
        (BEYOND, ModelFailure(fault="budget", lost=1)),
        (NEEDS_STATE, NotSent(input_tokens=900, too_long=900, lost=1)),
        (CUT, ModelFailure(fault="connection", may_be_billed=True, lost=1)),
        (BUSY, ModelFailure(fault="rate_limit", status=429, lost=1)),
    ],
    ids=lambda value: getattr(value, "type", None) or type(value).__name__,
)
def test_each_failure_tells_how_many_calls_were_lost(error: ApplicationError, told: ModelFailure | NotSent) -> None:
    raised, beats = fail(error, left=(SPENT_MARK, 3, 1, NOTHING, ""))

    assert raised.details == (told,)
    assert beats == [(SPENT_MARK, 4, 1, NOTHING, "")]
    assert (raised.message, raised.type, raised.next_retry_delay) == (error.message, error.type, error.next_retry_delay)
    assert raised.non_retryable == error.non_retryable


def test_each_failure_tells_what_was_spent() -> None:
    written = ONE.model_dump_json()

    raised, beats = fail(STORE, left=(SPENT_MARK, 3, 1, written, ""))

    spent = Amount(model_calls=1, tokens=550, cost_usd=Decimal("0.25"))
    assert raised.details == (ModelFailure(lost=1, spent=spent),)
    assert beats == [(SPENT_MARK, 4, 1, written, "")]
    assert raised.next_retry_delay == timedelta(seconds=1)


@pytest.mark.parametrize("changes", [{"lost": 3}, {"lost": 2, "usage": ONE}])
def test_an_attempt_that_nothing_is_held_for_is_not_made(changes: dict[str, Any]) -> None:
    raised, _ = fail(CUT, **changes)

    assert raised.non_retryable


@pytest.mark.parametrize(
    "left",
    [
        (),
        ("mine", 3, 0, NOTHING, ""),
        (SPENT_MARK, 3, 0, NOTHING, "forged"),
        (SPENT_MARK, 3, 0, "{", ""),
        (SPENT_MARK, 4, 0, NOTHING, ""),
        (SPENT_MARK, 1, 0, NOTHING, ""),
    ],
)
def test_attempts_that_left_nothing_may_have_been_billed(left: tuple[object, ...]) -> None:
    raised, _ = fail(BEYOND, left=left)

    assert raised.details == (ModelFailure(fault="budget", lost=2),)


def test_what_is_within_the_grant_is_sent() -> None:
    Purse(number=3, lost=2, grant=GRANT).check(1000)


@pytest.mark.parametrize(
    ("input_tokens", "lost", "usage", "refused"),
    [
        (1000, 3, Usage(), FailureType.MODEL_UNAVAILABLE),
        (1000, 2, ONE, FailureType.MODEL_UNAVAILABLE),
        (1001, 0, Usage(), FailureType.NEEDS_MORE),
    ],
)
def test_nothing_is_sent_beyond_the_grant(input_tokens: int, lost: int, usage: Usage, refused: FailureType) -> None:
    with pytest.raises(ApplicationError) as raised:
        Purse(number=lost + 1, lost=lost, grant=GRANT, usage=usage).check(input_tokens)

    assert (raised.value.type, raised.value.non_retryable) == (refused, True)


@pytest.mark.parametrize(
    ("outcome", "made", "lost"),
    [
        (ONE, 1, 0),
        (BUSY, 0, 0),
        (CUT, 1, 1),
        (asyncio.CancelledError(), 1, 1),
        (RuntimeError("unforeseen"), 1, 1),
    ],
    ids=["answered", "refused", "cut off", "cancelled", "unforeseen"],
)
async def test_a_call_counts_once_however_it_ends(outcome: Usage | BaseException, made: int, lost: int) -> None:
    environment, _ = make_environment(attempt=1)

    async def run() -> Purse:
        purse = Purse.read(GRANT)
        await buy(purse, outcome)
        return purse

    purse = await environment.run(run)

    assert (purse.made, purse.lost, purse.left) == (made, lost, 3 - made)


async def test_an_answer_that_was_not_counted_is_lost() -> None:
    environment, _ = make_environment(attempt=1)

    async def run() -> Purse:
        purse = Purse.read(None)
        await purse.buy("x:m", SIZE, asking(), within=timedelta(seconds=5))
        return purse

    assert (await environment.run(run)).lost == 1


async def test_what_was_made_before_a_second_call_is_left_before_it_is_sent() -> None:
    environment, beats = make_environment(attempt=2, left=(SPENT_MARK, 2, 4, NOTHING, ""))
    left_by_then = list[list[Any]]()

    async def ask() -> Answered:
        left_by_then.append(list(beats))
        return Answered()

    async def run() -> tuple[object, ...]:
        purse = Purse.read(None)
        for _ in range(2):
            purse.count((await purse.buy("x:m", SIZE, ask, within=timedelta(seconds=5))).usage)
        return purse.describe()

    told = await environment.run(run)

    assert left_by_then == [[], [(SPENT_MARK, 3, 5, ONE.model_dump_json(), "")]]
    assert told == (SPENT_MARK, 3, 4, (ONE + ONE).model_dump_json(), "")


@dataclass
class Beyond:
    """A budget beyond the run, of a hundred dollars."""

    store: SqliteStore

    async def read(self) -> BudgetFile:
        return BudgetFile.model_validate({"budgets": [{"id": "all", "per": "month", "cost_usd": "100"}]})

    async def spend(self, *outcomes: Usage | BaseException, attempt: int = 1) -> None:
        """Make calls with these outcomes in one attempt."""
        environment, _ = make_environment(attempt=attempt)

        async def run() -> None:
            purse = Purse.read(None, PeriodBudgets(self.store, self.read))
            await purse.enter(AGENT, Payer())
            for outcome in outcomes:
                await buy(purse, outcome)

        await environment.run(run)

    async def read_sums(self) -> tuple[str, str, str]:
        """Spent, assumed and held, in dollars."""
        (balance,) = await self.store.list_balances("", "9")
        return _write(balance)


def _write(balance: Balance) -> tuple[str, str, str]:
    spent, assumed, held = (amount.cost_usd for amount in (balance.spent, balance.assumed, balance.held))
    return f"{spent:.2f}", f"{assumed:.2f}", f"{held:.2f}"


@pytest.fixture
async def beyond(tmp_path: Path) -> AsyncIterator[Beyond]:
    store = SqliteStore(tmp_path / "store.db")
    yield Beyond(store)
    await store.close()


@pytest.mark.parametrize(
    ("outcomes", "sums"),
    [
        ((ONE, ONE, ONE), ("0.75", "0.00", "0.00")),
        ((BUSY, ONE), ("0.25", "0.00", "0.00")),
        ((CUT, ONE), ("2.25", "2.00", "0.00")),
        ((asyncio.CancelledError(), ONE), ("2.25", "2.00", "0.00")),
        ((RuntimeError("unforeseen"), BUSY, ONE), ("2.25", "2.00", "0.00")),
        ((Usage(model_calls=1, unpriced_calls=1), ONE), ("2.25", "2.00", "0.00")),
    ],
)
async def test_each_call_of_an_attempt_counts_beyond_the_run(
    beyond: Beyond, outcomes: tuple[Usage | BaseException, ...], sums: tuple[str, str, str]
) -> None:
    await beyond.spend(*outcomes)

    assert await beyond.read_sums() == sums


async def test_what_the_calls_of_a_killed_attempt_hold_is_assumed_by_the_next_one(beyond: Beyond) -> None:
    environment, _ = make_environment(attempt=1)
    info = environment.info
    for number in (1, 2):
        name = f"{info.workflow_run_id}:{info.activity_id}:1:{number}"
        held = await PeriodBudgets(beyond.store, beyond.read).hold(
            name, Spender("a"), Amount(model_calls=1, cost_usd=Decimal(3))
        )
        assert held.use is not None

    await beyond.spend(ONE, attempt=2)

    assert await beyond.read_sums() == ("6.25", "6.00", "0.00")
