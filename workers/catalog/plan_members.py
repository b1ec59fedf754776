"""Plans as members of a catalog: each has tools, rules and people as an agent has, and steps in place of models."""

from collections.abc import Iterator, Mapping

from mandate.workflows.contracts.agent import AgentSpec, PinnedAgent
from mandate.workflows.contracts.plan import PlanSpec
from mandate.workflows.contracts.tool_entry import AgentTool
from mandate.workflows.rules.plan_progress import name_tool

PREFIX = "plan:"
"""Of the names of plans among those of agents."""


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
