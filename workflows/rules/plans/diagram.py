"""Plans as pictures: levels for a terminal, and a Mermaid flowchart."""

import textwrap
from collections.abc import Iterator

from mandate.workflows.contracts.plan import PlanSpec, PlanStep
from mandate.workflows.contracts.verification import CheckSpec
from mandate.workflows.rules import quantities
from mandate.workflows.rules.plain_text import make_plain, shorten
from mandate.workflows.rules.plans import graphs, order
from mandate.workflows.rules.plans.targets import TargetKind, find_kind

WIDTH = 100
"""Columns of a terminal of which nothing is known."""

LEAST_WIDTH = 40
EXPRESSION_CHARACTERS = 120
"""Longest expression that is drawn; the plan itself has the whole."""

_ID_COLUMNS = 24
_NO_LEVEL = "-"

_BOXES: dict[TargetKind, tuple[str, str]] = {"agent": ("(", ")"), "tool": ("[", "]"), "plan": ("[[", "]]")}
_ESCAPED = {ord(letter): f"#{ord(letter)};" for letter in '"#%&:;<>\\`{}'}
"""What Mermaid would read inside a label: `%%{` and `style x:` even in quotes."""


def draw(plan: PlanSpec, width: int = WIDTH) -> str:
    """Draw a plan as levels of steps that can run side by side; `<-` names what a step waits for.

    Steps that wait for each other, and what needs them, come last, without a level. No line is longer than `width`,
    of which there are at least `LEAST_WIDTH`.
    """
    width = max(width, LEAST_WIDTH)
    levels = order.list_levels(plan)
    placed = {name for level in levels for name in level}
    left_out = tuple(step.id for step in plan.steps if step.id not in placed)
    steps = {step.id: step for step in plan.steps}
    numbered = [(str(number), level) for number, level in enumerate(levels, 1)]
    numbered += [(_NO_LEVEL, left_out)] if left_out else []
    number_columns = max(len(number) for number, _ in numbered) + 2
    most = min(_ID_COLUMNS, width // 3)
    id_columns = max((len(name) for name in steps if len(name) <= most), default=most) + 2
    lines = _wrap(_describe_plan(plan, len(levels)), "", width)
    for number, level in numbered:
        lines.append("")
        for position, name in enumerate(level):
            head = (number if not position else "").ljust(number_columns)
            lines += _draw_step(steps[name], head, id_columns, width)
    if plan.output is not None:
        lines += ["", *_wrap(f"output: {_show(plan.output)}", " " * len("output: "), width)]
    return "\n".join(line.rstrip() for line in lines)


def write_mermaid(plan: PlanSpec) -> str:
    """Write a plan as a Mermaid flowchart, from what is needed to what needs it.

    Its nodes have names of their own, since an id may be a word of Mermaid; agents are round, plans have two edges.
    """
    names = [name for level in order.list_levels(plan) for name in level]
    placed = set(names)
    names += [step.id for step in plan.steps if step.id not in placed]
    nodes = {name: f"s{number}" for number, name in enumerate(names, 1)}
    steps = {step.id: step for step in plan.steps}
    lines = ["flowchart TD"]
    for name, node in nodes.items():
        left, right = _BOXES[find_kind(steps[name])]
        label = "<br/>".join(part.translate(_ESCAPED) for part in (name, *_list_facts(steps[name])))
        lines.append(f'    {node}{left}"{label}"{right}')
    for name, node in nodes.items():
        needed = graphs.sort_names(order.list_needs(steps[name]) & nodes.keys())
        lines += [f"    {nodes[before]} --> {node}" for before in needed]
    return "\n".join(lines)


def _describe_plan(plan: PlanSpec, levels: int) -> str:
    counts = f"{quantities.count_noun(len(plan.steps), 'step')} in {quantities.count_noun(levels, 'level')}"
    return f"{plan.name}: {counts}, at most {plan.max_parallel} at once"


def _draw_step(step: PlanStep, head: str, id_columns: int, width: int) -> Iterator[str]:
    indent = " " * (len(head) + id_columns)
    begin = f"{head}{step.id.ljust(id_columns)}"
    if len(step.id) > id_columns - 2:
        yield from _wrap(f"{head}{step.id}", " " * len(head), width)
        begin = indent
    doer, *facts = _list_facts(step)
    yield from _wrap(f"{begin}{doer}", indent, width)
    for fact in facts:
        yield from _wrap(f"{indent}{fact}", f"{indent}  ", width)
    if needs := graphs.sort_names(order.list_needs(step)):
        yield from _wrap(f"{indent}<- {', '.join(needs)}", f"{indent}   ", width)


ON_FAILURE = {
    "stop": "the plan ends if it fails",
    "continue": "others go on if it fails",
    "ask": "people are asked if it fails",
}
"""Ends of a step that fails, but for the usual one: those that need it are skipped."""


def _list_facts(step: PlanStep) -> Iterator[str]:
    """Yield who does a step, and all that says how."""
    yield f"{find_kind(step)} {step.target}"
    if step.for_each is not None:
        most = f", at most {step.max_parallel} at once" if step.max_parallel is not None else ""
        needs = f", {step.needs} must end well" if step.needs is not None else ""
        yield f"for each of {_show(step.for_each)}{most}{needs}"
    if step.when is not None:
        yield f"when {_show(step.when)}"
    if step.success is not None:
        yield f"well if {_show(step.success)}"
    if step.checks:
        yield f"checked by {', '.join(map(_name_check, step.checks))}"
    if step.attempts > 1:
        yield f"at most {step.attempts} attempts"
    if step.on_failure != "skip":
        yield ON_FAILURE[step.on_failure]


def _name_check(check: CheckSpec) -> str:
    return check.name or check.python or check.tool or ", ".join(check.route) or _show(check.expect or check.kind)


def _show(expression: str) -> str:
    return shorten(expression, EXPRESSION_CHARACTERS)


def _wrap(text: str, indent: str, width: int) -> list[str]:
    return textwrap.wrap(make_plain(text), width, subsequent_indent=indent, break_on_hyphens=False)
