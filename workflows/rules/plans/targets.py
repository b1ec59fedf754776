"""Agents, tools and plans that steps of plans name, and arguments that do not fit what these take."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from mandate.workflows.contracts.agent import AgentSpec
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.budget import BudgetRequest
from mandate.workflows.contracts.faults import Place, did_you_mean
from mandate.workflows.contracts.plan import PlanSpec, PlanStep
from mandate.workflows.contracts.tool import ToolDefinition
from mandate.workflows.rules.cel import shapes
from mandate.workflows.rules.cel.shapes import ANYTHING, Shape, list_names

_NO_LIMITS = BudgetRequest()

TargetKind = Literal["agent", "tool", "plan"]


@dataclass(frozen=True, slots=True)
class Target:
    """An agent, a tool or a plan, as far as calls of it can be checked."""

    input_schema: JsonObject | None = None
    """JSON Schema of what it is asked; `None` for anything."""
    output_schema: JsonObject | None = None
    """JSON Schema of its output; `None` where nothing says, and for an agent that answers with a text."""
    share: BudgetRequest = _NO_LIMITS
    """Limits of one run of it, of its own file."""
    changes_world: bool = False
    """Calls of it change the world."""
    is_debate: bool = False
    """It is a plan in which agents debate."""


@dataclass(frozen=True, slots=True)
class Targets:
    """All that steps may name; what is `None` is not known, and names of it are not checked."""

    agents: Mapping[str, Target] | None
    tools: Mapping[str, Target] | None
    plans: Mapping[str, Target] | None

    def list_kind(self, kind: TargetKind) -> Mapping[str, Target] | None:
        return {"agent": self.agents, "tool": self.tools, "plan": self.plans}[kind]

    def find(self, step: PlanStep) -> Target | None:
        """Return what does a step; `None` if it is not known."""
        return (self.list_kind(find_kind(step)) or {}).get(step.target)

    def describe_unknown(self, step: PlanStep) -> str | None:
        """Return why nothing is there that could do a step, or `None`."""
        kind, name = find_kind(step), step.target
        known = self.list_kind(kind)
        if known is None or name in known:
            return None
        others = [
            other for other in ("agent", "tool", "plan") if other != kind and name in (self.list_kind(other) or {})
        ]
        if others:
            return f"there is no {kind} {name!r}; there is {_with_article(others[0])} of this name: write '{others[0]}'"
        return f"there is no {kind} {name!r}{did_you_mean(name, known)} there are {list_names(known) or 'none'}"


def of_agent(spec: AgentSpec) -> Target:
    """Return an agent as its file says it."""
    return Target(output_schema=spec.output_schema, share=_find_share(spec.budget))


def of_plan(spec: PlanSpec) -> Target:
    """Return a plan as its file says it."""
    return Target(input_schema=spec.input_schema, share=_find_share(spec.budget), is_debate=spec.pattern == "debate")


def of_tool(definition: ToolDefinition) -> Target:
    """Return a tool as it is pinned."""
    child = definition.tool.child
    return Target(
        input_schema=definition.input_schema,
        share=_NO_LIMITS if child is None else child.share,
        changes_world=definition.tool.effect.changes_world,
    )


def _find_share(budget: BudgetRequest) -> BudgetRequest:
    return BudgetRequest(**{name: getattr(budget, name) for name in BudgetRequest.model_fields})


def find_kind(step: PlanStep) -> TargetKind:
    """Return of which kind the one is that does a step."""
    if step.agent is not None:
        return "agent"
    return "tool" if step.tool is not None else "plan"


def find_output(step: PlanStep, target: Target | None, where: str) -> Shape:
    """Return the output of one call of a step, as its own schema or its target's says it."""
    schema = step.output_schema or (target.output_schema if target is not None else None)
    if schema is not None:
        return shapes.of_schema(schema, where)
    if step.agent is None or target is None:
        return Shape(where=where)
    why = f"neither step {step.id!r} nor agent {step.agent!r} has an 'output_schema'"
    return Shape(frozenset({"string"}), where, why, is_prose=True)


class Misfit(NamedTuple):
    """Something that a call is given and its target does not take, or that it lacks."""

    key: str | None
    """The argument; `None` for all of them."""
    message: str
    is_prose: bool = False
    """True where a text of a model stands for something else, which may go well."""


def find_misfits(step: PlanStep, target: Target, given: Shape) -> Iterator[Misfit]:
    """Yield what does not fit of what a call of a step is given."""
    if target.input_schema is None:
        return
    name, wanted = f"{find_kind(step)} {step.target!r}", shapes.of_schema(target.input_schema)
    members = wanted.find_members()
    takes = f"it takes {list_names(members) or 'nothing'}" if members is not None else "it takes others"
    if given.kinds.isdisjoint(wanted.kinds):
        of = f" with {list_names(members)}" if members else ""
        yield Misfit(None, f"comes to {given.describe()}; {name} takes {wanted.describe()}{of}", given.is_prose)
        return
    has = given.find_members()
    if has is None or wanted.kinds != {"object"}:
        return
    for key in sorted(given.find_required()):
        if members is not None and key not in members:
            yield Misfit(key, f"{key!r} is no argument of {name}{did_you_mean(key, members)} {takes}")
    for key in sorted(wanted.find_required()):
        if key not in has:
            yield Misfit(None, f"{name} requires {key!r}, which is not given; {takes}")
    for key in sorted(has):
        one, other = has[key], (members or {}).get(key, ANYTHING)
        if one.kinds.isdisjoint(other.kinds):
            message = f"comes to {one.describe()}; {key!r} of {name} takes {other.describe()}"
            yield Misfit(key, message, one.is_prose)


def find_place(step: PlanStep, key: str | None) -> Place:
    """Return where an argument of a step is written, within the step."""
    return ("input", key) if isinstance(step.input, dict) and key in step.input else ("input",)


def _with_article(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"
