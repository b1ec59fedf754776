"""Plans that models write: the tool `run_plan` of an agent file, and what carries such plans out."""

from collections.abc import Iterator, Mapping, Sequence

from mandate.activities.documents import Document, Fault
from mandate.activities.toolbox import written_plans
from mandate.workers.catalog import children
from mandate.workers.catalog.children import UNLINKED, Member
from mandate.workflows.contracts.agent import AgentSpec, PinnedAgent, PlansSpec
from mandate.workflows.contracts.budget import Budget
from mandate.workflows.contracts.compensation import CompensationSpec
from mandate.workflows.contracts.faults import Place, did_you_mean
from mandate.workflows.contracts.tool import (
    RUN_PLAN,
    AgentBinding,
    ChildAgent,
    Effect,
    PlanTarget,
    PlanTerms,
    Tool,
    ToolDefinition,
)
from mandate.workflows.contracts.tool_entry import AgentTool
from mandate.workflows.contracts.verification import ProbeSpec
from mandate.workflows.rules.cel.shapes import list_names
from mandate.workflows.rules.children import find_terms, lower_budget

PREFIX = "plans of:"
"""Of the names, among those of agents, of what carries out the plans of an agent's model."""

OWN_BUDGET = Budget(steps=1_000_000)
"""Limits of a plan of which nothing is said, as in plan files."""


def define_tool(plans: PlansSpec) -> ToolDefinition:
    """Return `run_plan`; what its plans may name is filled in once all tools are known."""
    terms = PlanTerms(steps=plans.steps)
    share = find_terms(lower_budget(OWN_BUDGET, plans.budget, plans.timeout))
    return ToolDefinition(
        tool=Tool(
            name=RUN_PLAN,
            source="agent",
            effect=Effect.READ,
            child=ChildAgent(agent=RUN_PLAN, is_plan=True, digest=UNLINKED, share=share),
        ),
        description=written_plans.describe(terms),
        input_schema=written_plans.INPUT_SCHEMA,
        binding=AgentBinding(kind="agent", agent=RUN_PLAN, plans=terms),
    )


def list_agents(spec: AgentSpec, agents: Mapping[str, AgentSpec]) -> list[ToolDefinition]:
    """Return the agents that plans of an agent's model may name, as the tools that rules know them as."""
    names = [name for name in (spec.plans.agents if spec.plans is not None else ()) if name in agents]
    return [children.define_tool(_make_entry(spec, name), agents) for name in names]


def find_entry(spec: AgentSpec, name: str) -> AgentTool | None:
    """Return what an agent's `tools` say of another one."""
    return next((entry for entry in spec.tools if isinstance(entry, AgentTool) and entry.agent == name), None)


def _make_entry(spec: AgentSpec, name: str) -> AgentTool:
    """Return an agent as steps may call it: with all that `tools` say of it, but for how it is asked."""
    entry = find_entry(spec, name)
    if entry is None:
        return AgentTool.model_construct(agent=name, name=name)
    return entry.model_copy(update={"name": name, "input_schema": None})


def find_faults(
    document: Document, spec: AgentSpec, agents: Mapping[str, AgentSpec], tools: Sequence[ToolDefinition]
) -> Iterator[Fault]:
    """Yield what an agent's `plans` name and steps cannot call; `tools` are its own, all of them."""
    plans = spec.plans
    if plans is None:
        return
    names = sorted(name for name in agents if ":" not in name and name != spec.name)
    found = {made.tool.name: made for made in tools}
    for index, name in enumerate(plans.agents):
        if name not in agents:
            place: Place = ("plans", "agents", index)
            known = f"there are {list_names(names)}" if names else "there are none"
            yield document.fault(place, f"there is no agent {name!r}{did_you_mean(name, names)} {known}")
            continue
        own, place = found.get(name), ("plans", "agents", index)
        if own is not None and (own.tool.child is None or own.tool.child.agent != name):
            yield document.fault(place, f"the agent has a tool {name!r} already; give that another 'name'")
        elif (entry := find_entry(spec, name)) is not None and entry.sensitive:
            sensitive = list_names(entry.sensitive)
            yield document.fault(
                place,
                f"the steps of a plan are shown to people, and {name!r} is asked sensitive arguments: {sensitive}",
            )
    usable = [name for name, made in found.items() if made.tool.source not in {"agent", "builtin"}]
    for index, name in enumerate(plans.tools):
        place = ("plans", "tools", index)
        if name not in usable:
            where = "name the agent under 'agents'" if name in found and found[name].tool.child is not None else ""
            known = where or f"it has {list_names(usable) or 'none'}"
            yield document.fault(
                place, f"the agent has no tool {name!r} that a step could call{did_you_mean(name, usable)} {known}"
            )
        elif found[name].tool.sensitive:
            sensitive = list_names(found[name].tool.sensitive)
            yield document.fault(
                place, f"the steps of a plan are shown to people, and {name!r} has sensitive arguments: {sensitive}"
            )


def complete(whole: PinnedAgent, spec: AgentSpec, plans: PlansSpec, agents: Mapping[str, AgentSpec]) -> PinnedAgent:
    """Return an agent whose `run_plan` knows what plans may name."""
    terms = PlanTerms(
        agents={name: _read_agent(agents[name], _make_entry(spec, name)) for name in plans.agents},
        tools={name: _read_tool(whole, name) for name in plans.tools},
        steps=plans.steps,
    )

    def fill(made: ToolDefinition) -> ToolDefinition:
        if made.tool.name != RUN_PLAN or not isinstance(made.binding, AgentBinding):
            return made
        binding = made.binding.model_copy(update={"plans": terms})
        return made.model_copy(update={"binding": binding, "description": written_plans.describe(terms)})

    return whole.model_copy(update={"tools": tuple(map(fill, whole.tools))})


def make_member(whole: PinnedAgent, spec: AgentSpec, plans: PlansSpec, agents: Mapping[str, AgentSpec]) -> Member:
    """Return what carries out plans of an agent's model: its rules and people, with the tools that steps may name."""
    undo = {tool: made for tool, made in whole.compensations.items() if tool in plans.tools}
    probes = {tool: made for tool, made in whole.probes.items() if tool in plans.tools}
    checks = tuple(check for check in whole.checks if check.after in plans.tools)
    needed = {*plans.tools, *_list_beside(undo, probes), *(check.tool for check in checks if check.tool is not None)}
    entries = {name: _make_entry(spec, name) for name in plans.agents}
    carries = whole.model_copy(
        update={
            "models": (),
            "route": (),
            "models_allowed": (),
            "params": {},
            "tools": (*(made for made in whole.tools if made.tool.name in needed), *list_agents(spec, agents)),
            "checks": checks,
            "probes": probes,
            "compensations": undo,
            "attempts": 1,
            "budget": lower_budget(OWN_BUDGET, plans.budget, plans.timeout),
            "output_schema": None,
            "max_output_tokens": 1,
        }
    )
    return Member(carries, entries)


def make_entry(name: str, plans: PlansSpec) -> AgentTool:
    """Return what links an agent's `run_plan` to what carries its plans out."""
    return AgentTool.model_construct(agent=f"{PREFIX}{name}", name=RUN_PLAN, budget=plans.budget, timeout=plans.timeout)


def _list_beside(undo: Mapping[str, CompensationSpec], probes: Mapping[str, ProbeSpec]) -> Iterator[str]:
    """Yield the tools that take calls of others back, or tell whether these have happened."""
    yield from (made.tool for made in undo.values())
    yield from (made.tool for made in probes.values())


def _read_agent(spec: AgentSpec, entry: AgentTool) -> PlanTarget:
    share = find_terms(lower_budget(spec.budget, entry.budget, entry.timeout))
    return PlanTarget(output_schema=entry.output_schema or spec.output_schema, share=share)


def _read_tool(whole: PinnedAgent, name: str) -> PlanTarget:
    made = whole.definition(name)
    return PlanTarget(input_schema=made.input_schema if made is not None else None)
