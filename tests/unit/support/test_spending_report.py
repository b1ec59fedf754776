"""What the proof of budgets counts as a broken promise, and what its provider bills."""

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal

import pytest

from mandate.workflows.contracts.model import Usage
from mandate.workflows.contracts.run import EffectLog, RunResult, RunStatus
from tests.acceptance.spending import Plan, Played, Spent, report, show
from tests.support.fake_provider.behaviours import CHAT
from tests.support.fake_provider.billing import Billing, Charge, Tier
from tests.support.fake_provider.requests import Request

REQUEST = Request(CHAT, {}, b"")

ENDED = RunResult(
    status=RunStatus.EXHAUSTED,
    output=None,
    output_digest=None,
    reason="the limit of $0.50 is used up",
    usage=Usage(model_calls=2, cost_usd=Decimal("0.4")),
    head=None,
    audit_head=None,
    effects=EffectLog(),
    uncertain=(),
)

GOOD = Spent("run-1", Decimal("0.5"), Decimal("0.3"), 1000, 110, ENDED)


def charge(usd: str, payer: str = "run-1") -> Charge:
    return Charge(payer, "small", 100, 0, 10, Decimal(usd), is_dear=False)


def played(
    *spent: Spent, charges: Sequence[Charge] = (charge("0.3"),), shown: str = "0.4", held: str = "0.55"
) -> Played:
    sums = {"spent": Decimal(shown), "assumed": Decimal("0.1"), "held": Decimal(held)}
    return Played(Plan(limit=Decimal(1)), list(spent), list(charges), shown=sums)


def test_nothing_is_broken() -> None:
    found = played(GOOD)

    assert found.faults() == []
    assert report(found) == {"limit": 1.0, "billed": 0.3, "usable_share": 0.95, "runs": 1}
    assert "promises broken: 0" in show(found)


@pytest.mark.parametrize(
    ("found", "fault"),
    [
        (played(GOOD, charges=[charge("1.1")], held="0.7"), "$1.1 were billed, and the budget is $1"),
        (played(GOOD, charges=[charge("0.96")]), "the budget shows $0.95, and $0.96 were billed"),
        (played(GOOD, held="0.49"), "only 89.0% of the budget were of use"),
        (played(GOOD, charges=[charge("0.1", "x")]), "x is no run, and was billed"),
        (played(replace(GOOD, limit=Decimal("0.2"))), "run-1: $0.3 were billed, and its limit is $0.2"),
        (played(replace(GOOD, billed_tokens=1001)), "run-1: 1001 tokens were billed, and its limit is 1000"),
        (played(replace(GOOD, billed=Decimal("0.45"))), "run-1: $0.45 were billed, and it says $0.4"),
        (played(replace(GOOD, result=None)), "run-1: hangs or failed"),
        (
            played(replace(GOOD, result=ENDED.model_copy(update={"status": RunStatus.DECLINED, "reason": "no one"}))),
            "run-1: declined, no one",
        ),
    ],
)
def test_each_broken_promise_is_named(found: Played, fault: str) -> None:
    assert found.faults() == [fault]
    assert fault in show(found)


@pytest.mark.parametrize(
    ("tokens", "cost_usd", "is_dear"),
    [((2000, 0, 100), "0.0024", False), ((2001, 0, 100), "0.004602", True), ((2001, 1001, 0), "0.003001", True)],
)
def test_the_provider_bills_a_whole_call_at_the_tier_of_its_input(
    tokens: tuple[int, int, int], cost_usd: str, is_dear: bool
) -> None:
    prices = [Tier(0, Decimal(1), Decimal("0.5"), Decimal(4)), Tier(2000, Decimal(2), Decimal(1), Decimal(6))]
    billing = Billing({"small": prices}, lambda _: "run-1")

    billing.charge(REQUEST, "small", tokens)

    assert [(each.cost_usd, each.is_dear) for each in billing.charges] == [(Decimal(cost_usd), is_dear)]
    assert billing.by_payer == {"run-1": Decimal(cost_usd)}
    assert billing.tokens_by_payer == {"run-1": tokens[0] + tokens[2]}
