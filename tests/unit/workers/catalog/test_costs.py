"""Bounds on costs: of one run by the limit that it has, and of one call at a full window."""

from decimal import Decimal

import pytest

from mandate.activities.providers.prices import pin_price
from mandate.workers.catalog.costs import RunCost, compute_run_cost, list_call_costs
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.budget import Budget
from mandate.workflows.contracts.context import ContextSpec
from mandate.workflows.contracts.route import PriceSpec, RoutePin
from mandate.workflows.contracts.verification import CheckSpec

OWN = pin_price("vllm:own", PriceSpec.model_validate({"input": "1", "output": "4", "cache_write": "2"}))
DEAR = pin_price("vllm:dear", PriceSpec.model_validate({"input": "10", "output": "10"}))
CHEAP = RoutePin(model="vllm:own", group=0, window=100_000, max_output_tokens=1000, price=OWN)  # 0.2 + 0.004
STRONG = RoutePin(model="vllm:dear", group=1, window=50_000, price=DEAR)  # 0.5 + 0.02, by the agent's longest answer
ENDLESS = CHEAP.model_copy(update={"model": "vllm:endless", "window": None})
UNPRICED = CHEAP.model_copy(update={"model": "vllm:unpriced", "price": None})
JUDGE = CheckSpec.model_validate({"after": "final", "rubric": "It is true.", "model": "vllm:judge"})


def agent(budget: dict[str, object], *route: RoutePin, **more: object) -> PinnedAgent:
    made = PinnedAgent(
        name="desk",
        instructions="Help.",
        models=tuple(pin.model for pin in route),
        route=route,
        tools=(),
        policy=(),
        budget=Budget.model_validate(budget),
        max_output_tokens=2000,
        attempts=3,
        output_schema=None,
    )
    return made.model_copy(update=more)


NO_PRICE, NO_WINDOW = "no price is known for vllm:unpriced", "no window is known for vllm:endless"


@pytest.mark.parametrize(
    ("pinned", "cost"),
    [
        (agent({"cost_usd": "2.00", "model_calls": 1}, CHEAP), RunCost(Decimal(2), "cost_usd")),
        (agent({"cost_usd": "2.00"}, UNPRICED), RunCost(Decimal(2), "cost_usd")),
        # 40 * 0.204
        (agent({}, CHEAP), RunCost(Decimal("8.16"), "steps", 40, Decimal("0.204"), ("retries",))),
        (agent({"steps": 2}, CHEAP, STRONG), RunCost(Decimal("1.04"), "steps", 2, Decimal("0.52"), ("retries",))),
        (
            agent({"model_calls": 10}, CHEAP, STRONG),
            RunCost(Decimal("5.2"), "model_calls", 10, Decimal("0.52")),
        ),
        # All at the rate of output, which is the dearest.
        (agent({"tokens": 500_000}, CHEAP), RunCost(Decimal(2), "tokens", 500_000)),
        (agent({"tokens": 500_000}, ENDLESS), RunCost(Decimal(2), "tokens", 500_000)),
        (
            agent({"tokens": 500_000, "model_calls": 5}, CHEAP),
            RunCost(Decimal("1.02"), "model_calls", 5, Decimal("0.204")),
        ),
        (agent({}, UNPRICED, CHEAP, ENDLESS), RunCost(None, unknown=(NO_PRICE, NO_WINDOW))),
        (agent({"model_calls": 5, "tokens": 5}, UNPRICED), RunCost(None, unknown=(NO_PRICE,))),
        (agent({"model_calls": 5}, ENDLESS), RunCost(None, unknown=(NO_WINDOW,))),
        (
            agent({"model_calls": 5}, CHEAP, models_allowed=("vllm:*",)),
            RunCost(None, unknown=("a start may name any of vllm:*",)),
        ),
        # The check is no step, and what it costs is not known.
        (
            agent({"model_calls": 5}, CHEAP, checks=(JUDGE,), context=ContextSpec.model_validate({"summary": {}})),
            RunCost(Decimal("8.16"), "steps", 40, Decimal("0.204"), ("retries", "checks", "summaries")),
        ),
    ],
)
def test_cost_of_one_run(pinned: PinnedAgent, cost: RunCost) -> None:
    assert compute_run_cost(pinned) == cost


def test_cost_of_one_call_of_each_model() -> None:
    """Those of the route first; one that is asked in two places is told once."""
    haiku = "anthropic:claude-haiku-5-5"
    price = pin_price(haiku, None)
    assert price is not None
    checks = (JUDGE, JUDGE.model_copy(update={"model": None, "models": (haiku, "vllm:own")}))
    pinned = agent({}, CHEAP, ENDLESS, checks=checks, models_allowed=("vllm:x*", "vllm:y"), prices={haiku: price})

    assert [
        (call.model, call.is_step, call.window, call.output_tokens, call.usd) for call in list_call_costs(pinned)
    ] == [
        ("vllm:own", True, 100_000, 1000, Decimal("0.204")),
        ("vllm:endless", True, None, 1000, None),
        ("vllm:y", True, None, 2000, None),
        ("vllm:judge", False, None, 2000, None),
        (haiku, False, 1_000_000, 2000, Decimal("0.63")),  # 1,000,000 * 0.625 + 2000 * 2.5
    ]
