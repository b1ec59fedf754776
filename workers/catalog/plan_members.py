"""Plans as members of a catalog: each has tools, rules and people as an agent has, and steps in place of models."""

import re
from collections.abc import Container, Iterable, Iterator, Mapping

from mandate.activities.documents import Document, Fault
from mandate.workers.catalog.checks import named
from mandate.workers.catalog.tools import ToolResolver
from mandate.workflows.contracts.agent import AgentSpec, PinnedAgent
from mandate.workflows.contracts.faults import Located, Place
from mandate.workflows.contracts.plan import PlanSpec
from mandate.workflows.contracts.tool_entry import AgentTool
from mandate.workflows.contracts.verification import CheckSpec
from mandate.workflows.rules.plans import targets
from mandate.workflows.rules.plans.progress import name_tool
from mandate.workflows.rules.plans.targets import Target

PREFIX = "plan:"
"""Of the names of plans among those of agents."""

_CHECK = re.compile(r"checks\[(\d+)\](.*)")
_ENTRY = re.compile(r"tools\[(\d+)\]")


def to_agent(plan: PlanSpec) -> AgentSpec:
    """Return a plan as an agent without models, whose tools are those of the plan and all that its steps name."""
    return AgentSpec.model_construct(
        name=f"{PREFIX}{plan.name}",
        instructions=plan.description or plan.name,
        models=(),
        tools=(*plan.tools, *_list_entries(plan)),
        policy=plan.policy,
        policies=plan.policies,
        people=plan.people,
        requester=plan.requester,
        checks=(*plan.checks, *(check for _, check in _list_checks(plan))),
        budget=plan.budget,
    )


def list_check_places(plan: PlanSpec) -> list[Place]:
    """Return the places of all checks of a plan, in the order of those of its agent."""
    return [*(("checks", index) for index in range(len(plan.checks))), *(place for place, _ in _list_checks(plan))]


def _list_checks(plan: PlanSpec) -> Iterator[tuple[Place, CheckSpec]]:
    """Yield the checks of the steps with their places, each as one of the tool that its step calls.

    One without a name is named after its step: the tool of such a step has a name that nobody has written.
    """
    steps = [(index, step, number) for index, step in enumerate(plan.steps) for number in range(len(step.checks))]
    after_steps = (step.checks[number].model_copy(update={"after": step.id}) for _, step, number in steps)
    made = named((*plan.checks, *after_steps))[len(plan.checks) :]
    for (index, step, number), check in zip(steps, made, strict=True):
        yield ("steps", index, "checks", number), check.model_copy(update={"after": name_tool(plan, step)})


def add_variants(plan: PlanSpec, search: ToolResolver) -> None:
    """Add the tools that steps call with limits or checks of their own, once all tools have been looked for."""
    found = {made.tool.name: made for made in search.tools}
    for step in plan.steps:
        name = name_tool(plan, step)
        base = found.get(step.target if step.tool is not None else name)
        if name == step.target or base is None:
            continue
        tool = base.tool.model_copy(update={"name": name, "variant_of": step.target})
        found[name] = base.model_copy(update={"tool": tool})
        if step.tool in search.entry_of:
            search.entry_of[name] = search.entry_of[step.tool]
    search.tools = list(found.values())


def _list_entries(plan: PlanSpec) -> Iterator[AgentTool]:
    """Yield the agents and plans of the steps as tools, each once."""
    names = set[str]()
    for step in plan.steps:
        name = name_tool(plan, step)
        if step.tool is not None or name in names:
            continue
        names.add(name)
        yield AgentTool.model_construct(
            agent=step.agent or f"{PREFIX}{step.plan}",
            name=name,
            budget=step.budget,
            timeout=step.timeout,
            output_schema=step.output_schema if step.agent is not None else None,
        )


def find_data_faults(plan: PlanSpec) -> Iterator[Located]:
    """Yield what only a plan of a file may have: what reads files, runs code or asks models of the worker."""
    for key in ("tools", "policies"):
        if getattr(plan, key):
            yield (key,), "belongs to plan files; a plan as data names agents and plans of the workers"
    for index, step in enumerate(plan.steps):
        if step.tool is not None:
            yield ("steps", index, "tool"), f"a plan as data has no tool {step.tool!r}; it names agents and plans"
    places = [*((("checks", index), check) for index, check in enumerate(plan.checks)), *_list_checks(plan)]
    for place, check in places:
        if check.kind not in {"expect", "schema"}:
            yield place, f"a plan as data has checks of the kinds 'expect' and 'schema'; this one is {check.kind!r}"


def list_tools(plan: PlanSpec, search: ToolResolver) -> dict[str, Target] | None:
    """Return the tools that steps of a plan may name, once they have been looked for; `None` if some are not known."""
    if any(_find_entry(fault) < len(plan.tools) for fault in search.faults):
        return None
    found = {made.tool.name: made for made in search.tools}
    own = (name for name, entry in search.entry_of.items() if entry < len(plan.tools))
    return {name: targets.of_tool(found[name]) for name in own if name in found and found[name].tool.variant_of is None}


def place_in_steps(
    faults: Iterable[Fault], plan: PlanSpec, document: Document, agents: Container[str]
) -> Iterator[Fault]:
    """Yield faults of the tools of a plan; those of agents and plans at the first step that names them.

    Of those that are not among `agents` there is nothing to say: the plan's own faults tell that they are not there.
    """
    named, checks = list[AgentTool](_list_entries(plan)), list(_list_checks(plan))
    for fault in faults:
        check = _CHECK.match(fault.key)
        if check is not None and int(check[1]) >= len(plan.checks):
            place, _ = checks[int(check[1]) - len(plan.checks)]
            yield document.fault((*place, *(part for part in check[2].split(".") if part)), fault.message)
            continue
        entry = _find_entry(fault) - len(plan.tools)
        if entry < 0:
            yield fault
            continue
        if named[entry].agent not in agents:
            continue
        names = [f"{PREFIX}{step.plan}" if step.agent is None else step.agent for step in plan.steps]
        index = names.index(named[entry].agent)
        yield document.fault(("steps", index, "plan" if plan.steps[index].agent is None else "agent"), fault.message)


def _find_entry(fault: Fault) -> int:
    """Return the entry of `tools` that a fault is about; -1 for any other."""
    found = _ENTRY.match(fault.key)
    return int(found[1]) if found is not None else -1


def fill_schemas(plan: PlanSpec, agents: Mapping[str, AgentSpec]) -> PlanSpec:
    """Return `plan` with the schemas of answers that the agents of its steps have by themselves."""
    steps = tuple(
        step.model_copy(update={"output_schema": spec.output_schema})
        if step.output_schema is None
        and step.agent is not None
        and (spec := agents.get(step.agent)) is not None
        and spec.output_schema is not None
        else step
        for step in plan.steps
    )
    return plan.model_copy(update={"steps": steps})


def pin_plan(whole: PinnedAgent, plan: PlanSpec) -> PinnedAgent:
    """Return the agent that a plan is as its runs keep it; what a file alone says is not in it."""
    kept = plan.model_copy(update={"tools": (), "policy": (), "policies": ()})
    return whole.model_copy(update={"name": plan.name, "plan": kept})
