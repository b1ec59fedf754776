"""Order of a plan's steps: what each needs, and the levels that follow."""

from functools import lru_cache

from mandate.workflows.contracts.plan import PlanSpec, PlanStep
from mandate.workflows.rules.cel import evaluation
from mandate.workflows.rules.cel.evaluation import Unevaluable
from mandate.workflows.rules.cel.variables import list_reads
from mandate.workflows.rules.plans import graphs
from mandate.workflows.rules.plans.expressions import STEPS, list_expressions

INPUT = "input"

CACHED = 16_384
"""Expressions whose references a process keeps: those of a few of the largest plans, which are asked for each move."""


@lru_cache(maxsize=CACHED)
def find_references(expression: str) -> frozenset[str]:
    """Return the steps that an expression reads; none where it cannot be read."""
    tree = evaluation.parse(expression)
    if isinstance(tree, Unevaluable):
        return frozenset()
    return frozenset(read.key for read in list_reads(tree) if read.variable == STEPS and read.key is not None)


@lru_cache(maxsize=CACHED)
def find_input_keys(expression: str) -> frozenset[str] | None:
    """Return the keys of the plan's input that an expression reads; `None` where it may read any of it."""
    tree = evaluation.parse(expression)
    if isinstance(tree, Unevaluable):
        return None
    keys = [read.key for read in list_reads(tree) if read.variable == INPUT]
    return None if None in keys else frozenset(key for key in keys if key is not None)


def list_needs(step: PlanStep) -> frozenset[str]:
    """Return the steps that must have ended before a step begins: those it depends on, and those it reads."""
    read = (find_references(found.text) for found in list_expressions(step) if found.role != "success")
    return frozenset(step.depends_on).union(*read)


def map_needs(plan: PlanSpec) -> dict[str, frozenset[str]]:
    """Return the steps that each step needs; only those that the plan has."""
    ids = {step.id for step in plan.steps}
    return {step.id: list_needs(step) & ids for step in plan.steps}


def list_levels(plan: PlanSpec) -> tuple[tuple[str, ...], ...]:
    """Return the steps in levels, each of which can run side by side once those before it have ended.

    Steps of one level are in the order of their ids. Those that wait for each other, and what needs them, are left out.
    """
    return graphs.list_levels(map_needs(plan))
