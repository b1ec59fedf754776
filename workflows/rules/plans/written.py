"""Plans that models write: read from the arguments of a call, checked against what they may hold, and summed up."""

from collections.abc import Mapping
from decimal import Decimal

from pydantic import ValidationError

from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.faults import key_path
from mandate.workflows.contracts.plan import MOST_ITEMS, PlanSpec, PlanStep
from mandate.workflows.contracts.tool import PlanTarget, PlanTerms
from mandate.workflows.rules import quantities, validation
from mandate.workflows.rules.plans import faults, shares
from mandate.workflows.rules.plans.targets import Target, Targets
from mandate.workflows.rules.policy import UNLIMITED

FACTS = ("step_count", "agents", "tools", "cost_usd")
"""Arguments that are computed from the others, for rules and people; what a model gives for them does not count."""

OF_PLAN = ("name", "steps", "output", "max_parallel")
"""Arguments that are keys of a plan; the rest are what it is asked, and facts."""

FAULTS_TOLD = 12


def read_plan(arguments: Mapping[str, object]) -> PlanSpec:
    """Return the plan that is the arguments of a call.

    Raises:
        ValidationError: it is none.
    """
    given = {key: arguments[key] for key in OF_PLAN if key in arguments}
    return PlanSpec.model_validate({"name": "plan", **given})


def find_fault(arguments: Mapping[str, object], terms: PlanTerms) -> str | None:
    """Return all that is wrong with the plan that is the arguments of a call, or `None`."""
    try:
        plan = read_plan(arguments)
    except ValidationError as error:
        return validation.sentences(error, PlanSpec)
    if len(plan.steps) > terms.steps:
        return f"steps: {quantities.count_noun(len(plan.steps), 'step')}; a plan may have at most {terms.steps}"
    known = _find_targets(terms)
    found = faults.find_faults(plan, agents=known.agents, tools=known.tools, plans={})
    if not found:
        return None
    told = [f"{key_path(place)}: {message}" for place, message in found[:FAULTS_TOLD]]
    if len(found) > FAULTS_TOLD:
        told.append(f"and {len(found) - FAULTS_TOLD} faults more")
    return "; ".join(told)


def compute_facts(arguments: Mapping[str, object], terms: PlanTerms) -> JsonObject:
    """Return what rules and people are told of a plan beside its steps: `FACTS`, for a plan without faults."""
    plan, known = read_plan(arguments), _find_targets(terms)
    return {
        "step_count": len(plan.steps),
        "agents": [*sorted({step.agent for step in plan.steps if step.agent is not None})],
        "tools": [*sorted({step.tool for step in plan.steps if step.tool is not None})],
        "cost_usd": float(sum((_find_cost(step, known) for step in plan.steps), Decimal(0))),
    }


def _find_cost(step: PlanStep, targets: Targets) -> Decimal:
    """Return the most that a step may cost, in US dollars; `UNLIMITED` where nothing limits it."""
    if step.tool is not None:
        return Decimal(0)
    share = shares.find_share(step, "cost_usd", targets)
    if share is None:
        return UNLIMITED
    # How many items there will be is not known before.
    return share * step.attempts * (1 if step.for_each is None else MOST_ITEMS)


def _find_targets(terms: PlanTerms) -> Targets:
    return Targets(_read(terms.agents), _read(terms.tools), {})


def _read(targets: Mapping[str, PlanTarget]) -> dict[str, Target]:
    return {name: Target(one.input_schema, one.output_schema, one.share) for name, one in targets.items()}
