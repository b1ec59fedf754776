"""Costs of an agent, as far as they are known before it runs: of one call, and of one run."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from mandate.activities.providers.prices import find_window
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.budget import Limit
from mandate.workflows.contracts.route import Price
from mandate.workflows.rules.price import compute_dearest, compute_worst


@dataclass(frozen=True, slots=True)
class CallCost:
    """Cost of one call of a model whose input fills its window."""

    model: str
    is_step: bool
    """It may be asked for a step of a run; `False`: by checks or for summaries alone."""
    price: Price | None
    window: int | None
    output_tokens: int
    """The longest answer that it is asked for."""

    @property
    def usd(self) -> Decimal | None:
        """The most that it can cost, or `None` where price or window is unknown."""
        if self.price is None or self.window is None:
            return None
        return compute_worst(self.price, input_tokens=self.window, output_tokens=self.output_tokens)


@dataclass(frozen=True, slots=True)
class RunCost:
    """Bound on the cost of one run."""

    usd: Decimal | None
    """The most that it can cost; `None` where nothing limits it."""
    limit: Limit | None = None
    """The limit of the budget that it follows from."""
    count: int = 0
    """Of calls, steps or tokens, where the limit is one of these."""
    call_usd: Decimal | None = None
    """Of the dearest call, where the limit is one of calls or steps."""
    beside: tuple[str, ...] = ()
    """Calls that the limit does not count."""
    unknown: tuple[str, ...] = ()
    """Reasons why there is no bound: models of which too little is known."""


def list_call_costs(agent: PinnedAgent) -> tuple[CallCost, ...]:
    """Return the costs of one call of each model that runs of the agent may ask."""
    route = {pin.model: pin for pin in agent.route}
    found = [
        CallCost(
            pin.model,
            is_step=True,
            price=pin.price,
            window=pin.window,
            output_tokens=pin.max_output_tokens or agent.max_output_tokens,
        )
        for pin in agent.route
    ]
    steps = [model for model in agent.models_allowed if not model.endswith("*")]
    asked = [*steps, *(model for check in agent.checks for model in check.route), *_list_summary_models(agent)]
    found += [
        CallCost(
            model,
            is_step=model in steps,
            price=agent.prices.get(model),
            window=find_window(model),
            output_tokens=agent.max_output_tokens,
        )
        for model in dict.fromkeys(asked)
        if model not in route
    ]
    return tuple(found)


def compute_run_cost(agent: PinnedAgent) -> RunCost:
    """Return the most that one run can cost by the budget of the agent file."""
    budget = agent.budget
    if budget.cost_usd is not None:
        return RunCost(budget.cost_usd, "cost_usd")
    calls = list_call_costs(agent)
    bounds = [*_by_calls(budget.model_calls, agent, calls), *_by_tokens(budget.tokens, agent, calls)]
    if bounds:
        return min(bounds, key=lambda bound: bound.usd or 0)
    steps = [call for call in calls if call.is_step]
    unknown = (*_list_unknown(steps), *_list_wildcards(agent))
    if unknown:
        return RunCost(None, unknown=unknown)
    dearest = _find_dearest(steps)
    beside = ["retries"]
    beside += ["checks"] if any(check.route for check in agent.checks) else []
    beside += ["summaries"] if agent.context.summary is not None else []
    return RunCost(budget.steps * dearest, "steps", budget.steps, dearest, tuple(beside))


def _by_calls(limit: int | None, agent: PinnedAgent, calls: Sequence[CallCost]) -> Iterator[RunCost]:
    if limit is not None and not _list_wildcards(agent) and not _list_unknown(calls):
        dearest = _find_dearest(calls)
        yield RunCost(limit * dearest, "model_calls", limit, dearest)


def _by_tokens(limit: int | None, agent: PinnedAgent, calls: Sequence[CallCost]) -> Iterator[RunCost]:
    prices = [(call.price, call.window) for call in calls if call.price is not None]
    if limit is not None and not _list_wildcards(agent) and len(prices) == len(calls):
        yield RunCost(
            max(
                compute_dearest(price, tokens=limit, input_tokens=min(limit, window or limit))
                for price, window in prices
            ),
            "tokens",
            limit,
        )


def _find_dearest(calls: Sequence[CallCost]) -> Decimal:
    return max(call.usd for call in calls if call.usd is not None)


def _list_unknown(calls: Sequence[CallCost]) -> tuple[str, ...]:
    """Return what is not known of the models, in half sentences."""
    unpriced = [call.model for call in calls if call.price is None]
    endless = [call.model for call in calls if call.price is not None and call.window is None]
    told = [("price", unpriced), ("window", endless)]
    return tuple(f"no {what} is known for {', '.join(models)}" for what, models in told if models)


def _list_wildcards(agent: PinnedAgent) -> tuple[str, ...]:
    """Return those of the models that a start may name of which nobody knows which ones they are."""
    allowed = [model for model in agent.models_allowed if model.endswith("*")]
    return (f"a start may name any of {', '.join(allowed)}",) if allowed else ()


def _list_summary_models(agent: PinnedAgent) -> tuple[str, ...]:
    return agent.context.summary.models if agent.context.summary is not None else ()
