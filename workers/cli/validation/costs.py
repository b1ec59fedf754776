"""Costs of agents in words and JSON for `mandate validate`."""

from collections.abc import Iterator, Sequence
from decimal import ROUND_UP, Decimal

from mandate.workers.catalog.costs import CallCost, RunCost, compute_run_cost, list_call_costs
from mandate.workflows.contracts.agent import PinnedAgent

_SHOWN = Decimal("0.0001")


def describe_costs(agent: PinnedAgent) -> Iterator[str]:
    """Yield what one run can cost at most, then what one call of each model costs at a full window, a line each."""
    run = compute_run_cost(agent)
    calls = list_call_costs(agent)
    yield f"cost      {_describe_run(run, calls)}{_describe_raise(agent, run)}"
    for call in calls:
        yield f"call      {call.model}: {_describe_call(call)}"


def costs_json(agent: PinnedAgent) -> dict[str, object]:
    """Return the same for `-o json`; sums are exact, as texts."""
    run = compute_run_cost(agent)
    return {
        "run_usd": _format(run.usd),
        "limited_by": run.limit,
        "not_counted": list(run.beside),
        "unknown": list(run.unknown),
        "may_be_raised": agent.budget.when_used_up == "ask",
        "calls": [
            {
                "model": call.model,
                "usd": _format(call.usd),
                "window": call.window,
                "max_output_tokens": call.output_tokens,
                "price": call.price.source if call.price is not None else None,
            }
            for call in list_call_costs(agent)
        ],
    }


def _describe_run(run: RunCost, calls: Sequence[CallCost]) -> str:
    if run.usd is None:
        unpriced = [call.model for call in calls if call.price is None]
        return f"not limited: {', and '.join(run.unknown)}; {_explain_limit(unpriced)}"
    most = f"at most {_dollars(run.usd)} a run"
    match run.limit:
        case "cost_usd":
            return f"{most}, by 'cost_usd'"
        case "tokens":
            return f"{most}, by 'tokens': {run.count:,} at the dearest rate"
    each = f"{run.count:,} at a full window, {_dollars(run.call_usd or Decimal(0))} each"
    beside = f"; {_join(run.beside)} are not counted" if run.beside else ""
    return f"{most}, by {run.limit!r}: {each}{beside}"


def _explain_limit(unpriced: Sequence[str]) -> str:
    """Say how the cost of a run is limited; `cost_usd` is refused where a model has no price."""
    if not unpriced:
        return "limit it by 'cost_usd' in 'budget'"
    prices = "its price" if len(unpriced) == 1 else f"the prices of {', '.join(unpriced)}"
    return f"first add {prices}, then limit it by 'cost_usd' in 'budget'; 'tokens' and 'model_calls' need no price"


def _describe_raise(agent: PinnedAgent, run: RunCost) -> str:
    if run.usd is None or agent.budget.when_used_up != "ask":
        return ""
    bounds = agent.budget.raise_at_most
    most = bounds.cost_usd if bounds is not None and run.limit == "cost_usd" else None
    return f"; people may raise it{f' to at most {_dollars(most)}' if most is not None else ''}"


def _describe_call(call: CallCost) -> str:
    if call.price is None:
        return "unknown, no price is known"
    if call.usd is None:
        return f"unknown, no window is known (price: {call.price.source})"
    return f"at most {_dollars(call.usd)} at a full window of {call.window:,} tokens ({call.price.source})"


def _dollars(amount: Decimal) -> str:
    """Write a bound as `$0.0023` or `$1,250.00`; it is never rounded down."""
    whole, _, cents = f"{amount.quantize(_SHOWN, ROUND_UP):,f}".partition(".")
    return f"${whole}.{cents[:2]}{cents[2:].rstrip('0')}"


def _format(amount: Decimal | None) -> str | None:
    return f"{amount.normalize():f}" if amount is not None else None


def _join(words: tuple[str, ...]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
