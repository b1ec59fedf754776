"""Shares of a plan's steps against the plan's own budget."""

from collections.abc import Iterator, Sequence
from decimal import Decimal

from mandate.workflows.contracts.budget import BudgetRequest
from mandate.workflows.contracts.faults import Located
from mandate.workflows.contracts.plan import PlanSpec, PlanStep
from mandate.workflows.rules import quantities
from mandate.workflows.rules.cel.shapes import list_names
from mandate.workflows.rules.children import LENT
from mandate.workflows.rules.period_budgets import format_usd
from mandate.workflows.rules.plans.targets import Targets

MOST_NAMED = 6
"""Steps that one sentence names, those with the largest shares."""


def find_faults(plan: PlanSpec, targets: Targets) -> Iterator[Located]:
    """Yield limits of a plan that are lower than what its steps are to get together, or that let some never begin.

    A `for_each` counts as one call, and so does a step of several attempts: how many there will be is not known.
    """
    for limit in LENT:
        if (most := getattr(plan.budget, limit)) is not None:
            shares = [(step, share) for step in plan.steps if (share := find_share(step, limit, targets)) is not None]
            if sum((share for _, share in shares), Decimal(0)) > most:
                yield ("budget", limit), _describe_sum(limit, shares, most)
    runs = [step.id for step in plan.steps if step.tool is None]
    if runs and plan.budget.depth == 0:
        yield ("budget", "depth"), f"0 allows no runs below the plan, and these steps are such: {list_names(runs)}"
    if plan.budget.children is not None and len(runs) > plan.budget.children:
        message = (
            f"allows {quantities.count_noun(plan.budget.children, 'run')} below the plan, and "
            f"{quantities.count_noun(len(runs), 'step')} start at least one each: {list_names(runs)}"
        )
        yield ("budget", "children"), message


def find_share(step: PlanStep, limit: str, targets: Targets) -> Decimal | None:
    """Return what one call of a step may take of a limit; `None` where nothing says it."""
    if step.tool is not None and limit == "tool_calls":
        return Decimal(1)
    target = targets.find(step)
    limits: tuple[BudgetRequest, ...] = (step.budget, *((target.share,) if target is not None else ()))
    amounts = [Decimal(amount) for one in limits if (amount := getattr(one, limit)) is not None]
    return min(amounts, default=None)


def _describe_sum(limit: str, shares: Sequence[tuple[PlanStep, Decimal]], most: Decimal | int) -> str:
    largest = sorted(shares, key=lambda share: (-share[1], share[0].id))
    named = [f"{step.id} {_write(limit, amount)}" for step, amount in largest[:MOST_NAMED]]
    more = f" and {len(shares) - MOST_NAMED} more" if len(shares) > MOST_NAMED else ""
    whole = _write(limit, sum((amount for _, amount in shares), Decimal(0)))
    note = ""
    if any(step.for_each is not None for step, _ in shares):
        note = "; a 'for_each' counts once, since the number of its items is not known"
    return (
        f"the shares of its steps come to {whole}, more than the plan's {_write(limit, Decimal(most))}: "
        f"{', '.join(named)}{more}{note}"
    )


def _write(limit: str, amount: Decimal) -> str:
    return format_usd(amount) if limit == "cost_usd" else f"{int(amount):,}"
