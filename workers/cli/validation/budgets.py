"""Budgets beyond one run, in words for `mandate validate`."""

from collections.abc import Sequence

from rich.text import Text

from mandate.activities.documents import Fault
from mandate.workers.cli.output import Output, print_table
from mandate.workflows.contracts.budget_file import EACH, PeriodBudget
from mandate.workflows.rules import quantities
from mandate.workflows.rules.period_budgets import format_usd


def print_budgets(out: Output, budgets: Sequence[PeriodBudget], warnings: Sequence[Fault]) -> None:
    """Print a line for each budget, and first the warnings; nothing where there are none."""
    for warning in warnings:
        out.print(Text(f"warning: {warning}", style="yellow"))
    if budgets:
        rows = [
            (budget.id, describe_runs(budget), describe_limits(budget), _describe_period(budget)) for budget in budgets
        ]
        print_table(out, rows, ("budget", "runs", "at most", "per"))


def describe_runs(budget: PeriodBudget) -> str:
    """Return the runs that count in a budget, and who has one of their own: `refunds, each requester`."""
    parts = []
    if budget.agent is not None:
        parts.append("each agent" if budget.agent == EACH else f"agent {budget.agent}")
    if budget.requester is not None:
        parts.append("each requester" if budget.requester == EACH else f"requester {budget.requester}")
    parts += [f"each {name}" if value == EACH else f"{name}={value}" for name, value in budget.labels.items()]
    return ", ".join(parts) or "all"


def describe_limits(budget: PeriodBudget) -> str:
    """Return the limits of a budget, one a line."""
    money = [format_usd(budget.cost_usd)] if budget.cost_usd is not None else []
    return "\n".join([*money, *([quantities.count_noun(budget.tokens, "token")] if budget.tokens is not None else [])])


def _describe_period(budget: PeriodBudget) -> str:
    return budget.per if budget.time_zone == "UTC" else f"{budget.per} of {budget.time_zone}"
