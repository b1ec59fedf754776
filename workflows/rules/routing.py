"""Routing of model calls: the model that a run asks for its next step, and why.

A run stays with its model until an entry further on has a condition that holds, an attempt failed and the agent file
wants the next model then, or the model gave no answer. It never goes back to an entry before; among equal models it
may, by price or speed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.policy import RunFacts
from mandate.workflows.contracts.route import Preference, Price, RouteFacts, RoutePin
from mandate.workflows.contracts.tool import Tool
from mandate.workflows.rules import policy, quantities, wording
from mandate.workflows.rules.price import compute_cost

CONDITION_CHARACTERS = 120

OUTPUT_TOKENS = 1000
"""Output of a call whose cost is compared; its input is what the context has, at least as much."""

CHEAPER = Decimal("0.5")
"""An equal model is asked instead of the present one if its calls cost at most this share: a change costs the cache."""

FASTER = 0.8
"""The same for the time that answers take."""

NEWEST_SHARE = 0.3
"""Share of the newest answer in the moving average of what answers take."""

FIRST = "it is the first of the route"
FAILED = "an attempt failed, and the agent goes on with its next model then"
NAMED = "the start request names it"


@dataclass(frozen=True, slots=True)
class Choice:
    """A model and why it is asked: the rest of a sentence about it."""

    model: str
    why: str


@dataclass(frozen=True, slots=True)
class Standing:
    """Place of a run in its route, with what decides among equal models."""

    route: Sequence[RoutePin]
    """At least one."""
    model: str | None = None
    """The one that was asked last; `None` before the first."""
    why: str = ""
    prefer: Preference = "order"
    context_tokens: int = 0
    latencies: Mapping[str, float] = field(default_factory=dict)
    silent: Sequence[str] = ()
    """Equal models of this place that gave no answer: they are not preferred any more."""

    @property
    def current(self) -> RoutePin | None:
        return find_pin(self.route, self.model)

    def members(self, group: int) -> list[RoutePin]:
        return [pin for pin in self.route if pin.group == group]


def find_pin(route: Sequence[RoutePin], model: str | None) -> RoutePin | None:
    return next((pin for pin in route if pin.model == model), None)


def choose(standing: Standing, holds: Callable[[RoutePin], bool]) -> Choice:
    """Return the model of the next step; `holds` tells whether the condition of an entry does."""
    present = standing.current
    group = standing.route[0].group if present is None else present.group
    for pin in standing.route:
        if pin.group > group and pin.when is not None and holds(pin):
            equals = [
                other for other in standing.members(pin.group) if other is pin or other.when is None or holds(other)
            ]
            condition = wording.shorten(pin.when, CONDITION_CHARACTERS)
            return _choose_among(standing, equals, f"a condition of the route holds: {condition}")
    if present is None:
        only = "it is the only model of the agent" if len(standing.route) == 1 else FIRST
        return _choose_among(standing, standing.members(group), only)
    return _choose_better(standing, present) or Choice(present.model, standing.why)


def follow_failure(standing: Standing) -> Choice | None:
    """Return the model after an attempt that failed; `None` at the end of the route."""
    present = standing.current or standing.route[0]
    following = _find_next_group(standing, present)
    return None if following is None else _choose_among(standing, standing.members(following), FAILED)


def follow_silence(standing: Standing, reason: str, tried: Sequence[str]) -> Choice | None:
    """Return the model that is asked in place of the present one, which gave no answer for `reason`.

    `tried` are all that were asked for this step. Equal ones come first; `None` when no model is left.
    """
    present = standing.current or standing.route[0]
    why = f"{present.model} gave no answer: {reason}"
    equals = [pin for pin in standing.members(present.group) if pin.model not in {*tried, present.model}]
    fresh = [pin for pin in equals if pin.model not in standing.silent]
    if equals:
        return _choose_among(standing, fresh or equals, why)
    following = _find_next_group(standing, present)
    return None if following is None else _choose_among(standing, standing.members(following), why)


def average_latency(before: float | None, seconds: float) -> float:
    """Return the moving average with one more answer, to a hundredth of a second."""
    if before is None:
        return round(seconds, 2)
    return round(before + NEWEST_SHARE * (seconds - before), 2)


def compute_call_cost(price: Price, context_tokens: int) -> Decimal:
    """Return the cost of a call with a context of this size and a usual answer, in US dollars."""
    tokens = max(context_tokens, OUTPUT_TOKENS)
    return compute_cost(price, input_tokens=tokens, cached_input=0, cache_write=0, output=OUTPUT_TOKENS)


def collect_variables(run: RunFacts, facts: RouteFacts, tools: Sequence[Tool]) -> dict[str, object]:
    """Return the variables of conditions of routes: `agent` and `run`."""
    variables = policy.collect_run_variables(run, tools)
    known = variables["run"]
    assert isinstance(known, dict)
    variables["run"] = {
        **known,
        "failures": facts.failures,
        "context_tokens": facts.context_tokens,
        "last_tools": facts.last_tools,
        "risk": facts.risk,
    }
    return variables


def name_route(agent: PinnedAgent, model: str) -> tuple[RoutePin, ...]:
    """Return the route of a run whose start request names `model`; empty when the agent does not allow it.

    A pattern is no model: only names without `*` fit those of `models_allowed`.
    """
    known = find_pin(agent.route, model)
    if known is not None:
        return (known.model_copy(update={"group": 0, "when": None}),)
    is_allowed = "*" not in model and any(_fits(allowed, model) for allowed in agent.models_allowed)
    if model not in agent.models and not is_allowed:
        return ()
    return (RoutePin(model=model, group=0, price=agent.prices.get(model)),)


def list_allowed(agent: PinnedAgent) -> tuple[str, ...]:
    """Return the models that a start request may name; `*` at the end stands for any text."""
    return tuple(dict.fromkeys((*agent.models, *agent.models_allowed)))


def _fits(allowed: str, model: str) -> bool:
    return model == allowed or (allowed.endswith("*") and model.startswith(allowed[:-1]))


def _find_next_group(standing: Standing, present: RoutePin) -> int | None:
    return next((pin.group for pin in standing.route if pin.group > present.group), None)


def _choose_among(standing: Standing, equals: Sequence[RoutePin], why: str) -> Choice:
    """Return the one of `equals` that is preferred."""
    if len(equals) == 1:
        return Choice(equals[0].model, why)
    count = len(equals)
    match standing.prefer:
        case "cost":
            costs = dict(_known_costs(equals, standing.context_tokens))
            if not costs:
                return Choice(equals[0].model, f"{why}; of {count} equal ones, no price of which is known, the first")
            model = min(costs, key=lambda name: costs[name])
            return Choice(model, f"{why}; of {count} equal ones the cheapest, {_describe_cost(costs[model])} a call")
        case "latency":
            fresh = next((pin.model for pin in equals if pin.model not in standing.latencies), None)
            if fresh is not None:
                return Choice(fresh, f"{why}; of {count} equal ones one whose speed is not known yet")
            model = min((pin.model for pin in equals), key=lambda name: standing.latencies[name])
            seconds = standing.latencies[model]
            return Choice(
                model, f"{why}; of {count} equal ones the fastest, {quantities.write_seconds(seconds)} an answer"
            )
        case "order":
            return Choice(equals[0].model, f"{why}; of {count} equal ones the first")


def _choose_better(standing: Standing, present: RoutePin) -> Choice | None:
    """Return an equal model that is so much better than the present one that a change pays."""
    if standing.prefer == "order":
        return None
    others = [
        pin
        for pin in standing.members(present.group)
        if pin.model not in standing.silent and pin.model != present.model
    ]
    if not others:
        return None
    if standing.prefer == "cost":
        return _choose_cheaper(standing, present, others)
    return _choose_faster(standing, present, others)


def _choose_cheaper(standing: Standing, present: RoutePin, others: Sequence[RoutePin]) -> Choice | None:
    costs = dict(_known_costs(others, standing.context_tokens))
    if not costs or present.price is None:
        return None
    model, now = min(costs, key=lambda name: costs[name]), compute_call_cost(present.price, standing.context_tokens)
    if costs[model] > CHEAPER * now:
        return None
    why = f"a call costs {_describe_cost(costs[model])}, one of {present.model} {_describe_cost(now)}"
    return Choice(model, f"with a context of {standing.context_tokens:,} tokens {why}")


def _choose_faster(standing: Standing, present: RoutePin, others: Sequence[RoutePin]) -> Choice | None:
    now = standing.latencies.get(present.model)
    if now is None:
        return None
    fresh = next((pin.model for pin in others if pin.model not in standing.latencies), None)
    if fresh is not None:
        return Choice(
            fresh, f"its speed is not known yet; that of {present.model} is {quantities.write_seconds(now)} an answer"
        )
    model = min((pin.model for pin in others), key=lambda name: standing.latencies[name])
    if standing.latencies[model] > FASTER * now:
        return None
    its, other = quantities.write_seconds(standing.latencies[model]), quantities.write_seconds(now)
    return Choice(model, f"it takes {its} an answer, {present.model} {other}")


def _known_costs(pins: Sequence[RoutePin], context_tokens: int) -> Iterator[tuple[str, Decimal]]:
    for pin in pins:
        if pin.price is not None:
            yield pin.model, compute_call_cost(pin.price, context_tokens)


def _describe_cost(cost: Decimal) -> str:
    return f"${cost.quantize(Decimal('0.000001')).normalize():f}"
