"""Expressions of plans: where they stand, what each may read, and what is wrong with one before it has values."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from mandate.workflows.contracts.faults import Place, did_you_mean
from mandate.workflows.contracts.plan import PlanSpec, PlanStep
from mandate.workflows.rules.cel import evaluation
from mandate.workflows.rules.cel.evaluation import Facts, Unevaluable
from mandate.workflows.rules.cel.inference import Inference
from mandate.workflows.rules.cel.shapes import ANYTHING, ListShape, ObjectShape, Shape, of_kinds, of_schema
from mandate.workflows.rules.cel.tree import NAME
from mandate.workflows.rules.cel.variables import list_reads
from mandate.workflows.rules.plain_text import shorten
from mandate.workflows.rules.plans.targets import Targets, find_output

Role = Literal["input", "for_each", "when", "success", "output"]
"""Key that an expression belongs to; `output` is the plan's."""

STEPS, ITEM, INDEX, OUTPUT, INPUT = "steps", "item", "index", "output", "input"
"""Variables of expressions."""

_VARIABLES = (STEPS, ITEM, INDEX, OUTPUT, INPUT)
_FOREIGN = re.compile(r"(?<![=!<>])=(?!=)|\b(?:and|or|not|AND|OR|NOT)\b")
"""Operators of other languages."""

_OPERATORS = "; CEL writes '==' for equality, '&&' for and, '||' for or, '!' for not"

_QUOTES = "; a text has quotes of its own inside those of YAML: \"'...'\""
_SHOWN_CHARACTERS = 60


class Expression(NamedTuple):
    """An expression of a step."""

    place: Place
    """Within the step."""
    role: Role
    text: str


def list_expressions(step: PlanStep) -> Iterator[Expression]:
    """Yield the expressions of a step."""
    if isinstance(step.input, dict):
        yield from (Expression(("input", key), "input", text) for key, text in step.input.items())
    elif step.input is not None:
        yield Expression(("input",), "input", step.input)
    for role in ("for_each", "when", "success"):
        if (text := getattr(step, role)) is not None:
            yield Expression((role,), role, text)


@dataclass(frozen=True, slots=True)
class Reading:
    """All that is known of one expression before it has values."""

    faults: tuple[str, ...]
    shape: Shape


class PlanReader:
    """Reader of the expressions of one plan."""

    def __init__(self, plan: PlanSpec, targets: Targets) -> None:
        self._dashed = [step.id for step in plan.steps if "-" in step.id]
        self._targets = targets
        known = {step.id: self._see(step) for step in plan.steps}
        self._steps = ObjectShape(where=STEPS, known=known)
        self._input = ANYTHING if plan.input_schema is None else of_schema(plan.input_schema, INPUT)
        self._items: dict[str, Shape] = {}
        """Items of each `for_each`, by step."""

    def read_step(self, step: PlanStep) -> dict[Place, Reading]:
        """Return all of a step's expressions, by their places within the step."""
        readings: dict[Place, Reading] = {}
        # The list first: the others see its items.
        for found in sorted(list_expressions(step), key=lambda one: one.role != "for_each"):
            readings[found.place] = self._read(found.text, found.role, step)
            if found.role == "for_each":
                self._items[step.id] = readings[found.place].shape.find_items()
        return readings

    def read_output(self, text: str) -> Reading:
        """Return the plan's own expression."""
        return self._read(text, "output", None)

    def find_given(self, step: PlanStep, readings: Mapping[Place, Reading]) -> Shape:
        """Return what a call of a step is asked; `readings` are of its expressions."""
        if isinstance(step.input, dict):
            return ObjectShape(known={key: readings["input", key].shape for key in step.input})
        if step.input is not None:
            return readings["input",].shape
        return self._input if step.for_each is None else self._items[step.id]

    def _see(self, step: PlanStep) -> Shape:
        """Return what expressions can read of a step."""
        where = f"{STEPS}.{step.id}" if "-" not in step.id else f"{STEPS}[{step.id!r}]"
        target, status = self._targets.find(step), of_kinds("string")
        output = find_output(step, target, f"{where}.{OUTPUT}")
        of_item = find_output(step, target, f"{where}.items[0].{OUTPUT}")
        if step.for_each is not None:
            item = find_output(step, target, f"{where}.{OUTPUT}[0]")
            output = ListShape(where=f"{where}.{OUTPUT}", item=item, why=f"step {step.id!r} has a 'for_each'")
        items = ListShape(
            where=f"{where}.items",
            item=ObjectShape(where=f"{where}.items[0]", known={OUTPUT: of_item, "status": status}),
        )
        return ObjectShape(where=where, known={OUTPUT: output, "status": status, "items": items})

    def _list_variables(self, role: Role, step: PlanStep | None) -> dict[str, Shape]:
        """Return what an expression sees."""
        seen = {INPUT: self._input}
        if role == "success" and step is not None:
            seen[OUTPUT] = find_output(step, self._targets.find(step), OUTPUT)
        else:
            seen[STEPS] = self._steps
        if role in {"input", "success"} and step is not None and step.for_each is not None:
            seen |= {ITEM: self._items.get(step.id, ANYTHING), INDEX: of_kinds("number")}
        return seen

    def _read(self, text: str, role: Role, step: PlanStep | None) -> Reading:
        tree = evaluation.parse(text)
        if isinstance(tree, Unevaluable):
            hint = _OPERATORS if _FOREIGN.search(text) else ""
            hint += "" if any(name in text for name in _VARIABLES) else _QUOTES
            return Reading((f"{_show(text)} cannot be evaluated: {tree.reason}{hint}",), ANYTHING)
        seen, reads = self._list_variables(role, step), dict.fromkeys(list_reads(tree))
        unseen = dict.fromkeys(read.variable for read in reads if read.variable not in seen)
        faults = [self._describe_unseen(name, role, step, list(seen)) for name in unseen]
        if faults and tree.kind == NAME:
            faults[0] += f"; a text has quotes of its own: \"'{tree.name}'\""
        if not faults and (unevaluable := evaluation.check(text, _VARIABLES)) is not None:
            faults.append(f"{_show(text)} cannot be evaluated: {unevaluable.reason}")
        if any(read.variable == STEPS and read.key is None for read in reads) and STEPS in seen:
            faults.append("reads 'steps' as a whole, so that nothing says which of them it needs; name each of them")
        inference = Inference(tree, seen)
        faults += inference.misfits
        if (fault := _find_wrong_type(role, inference.shape)) is not None:
            faults.append(fault)
        return Reading(tuple(faults), inference.shape)

    def _describe_unseen(self, name: str, role: Role, step: PlanStep | None, seen: Sequence[str]) -> str:
        sees = f"it sees {', '.join(sorted(seen))}"
        if name in {ITEM, INDEX} and role == "when" and step is not None and step.for_each is not None:
            return f"reads {name!r}, and 'when' decides over the whole step, not over each item; {sees}"
        if name in {ITEM, INDEX} and role == "for_each":
            return f"reads {name!r}, and this is the list that has the items; {sees}"
        if name in {ITEM, INDEX}:
            return f"reads {name!r}, which only a step with 'for_each' has; {sees}"
        if name == OUTPUT:
            return f"reads 'output', which only 'success' sees; that of a step is steps.<id>.output; {sees}"
        if name == STEPS:
            return f"reads 'steps', and 'success' is about the step's own output; {sees}"
        dashed = next((step_id for step_id in self._dashed if name in step_id.split("-")), None)
        hint = f"; write {STEPS}[{dashed!r}] for the step {dashed!r}" if dashed is not None else ""
        return f"there is no variable {name!r}{hint}{';' if hint else did_you_mean(name, seen)} {sees}"


def find_constant(text: str) -> bool | None:
    """Return what a condition comes to that reads nothing; `None` for one that reads something, or fails."""
    tree = evaluation.parse(text)
    if isinstance(tree, Unevaluable) or any(True for _ in list_reads(tree)):
        return None
    outcome = Facts({}).evaluate(text)
    return None if isinstance(outcome, Unevaluable) else outcome


def _find_wrong_type(role: Role, shape: Shape) -> str | None:
    """Return why what an expression comes to cannot be used, or `None`."""
    if role in {"when", "success"} and "boolean" not in shape.kinds:
        return f"comes to {shape.describe()}; {role!r} is true or false"
    if role == "for_each" and "array" not in shape.kinds:
        return f"comes to {shape.describe()}; 'for_each' goes through a list"
    return None


def _show(text: str) -> str:
    return repr(shorten(text, _SHOWN_CHARACTERS))
