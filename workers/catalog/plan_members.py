"""Plans as members of a catalog: each has tools, rules and people as an agent has, and steps in place of models."""

import re
from collections.abc import Container, Iterable, Iterator, Mapping

from mandate.activities.documents import Document, Fault
from mandate.workers.catalog.tools import ToolResolver
from mandate.workflows.contracts.agent import AgentSpec, PinnedAgent
from mandate.workflows.contracts.plan import PlanSpec
from mandate.workflows.contracts.tool_entry import AgentTool
from mandate.workflows.rules.plans import targets
from mandate.workflows.rules.plans.progress import name_tool
from mandate.workflows.rules.plans.targets import Target

PREFIX = "plan:"
"""Of the names of plans among those of agents."""

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
        checks=plan.checks,
        budget=plan.budget,
    )


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


def list_tools(plan: PlanSpec, search: ToolResolver) -> dict[str, Target] | None:
    """Return the tools that steps of a plan may name, once they have been looked for; `None` if some are not known."""
    if any(_find_entry(fault) < len(plan.tools) for fault in search.faults):
        return None
    found = {made.tool.name: made for made in search.tools}
    own = (name for name, entry in search.entry_of.items() if entry < len(plan.tools))
    return {name: targets.of_tool(found[name]) for name in own if name in found}


def place_in_steps(
    faults: Iterable[Fault], plan: PlanSpec, document: Document, agents: Container[str]
) -> Iterator[Fault]:
    """Yield faults of the tools of a plan; those of agents and plans at the first step that names them.

    Of those that are not among `agents` there is nothing to say: the plan's own faults tell that they are not there.
    """
    named = list[AgentTool](_list_entries(plan))
    for fault in faults:
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
