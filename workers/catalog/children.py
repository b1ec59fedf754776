"""Agents as tools of agents: what the model is told of one, and what it works under as a child."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from mandate.activities.documents import Document, Fault
from mandate.workflows.contracts.agent import AgentSpec, PinnedAgent
from mandate.workflows.contracts.base import Digest, canonical_json, digest_of
from mandate.workflows.contracts.faults import Place, did_you_mean
from mandate.workflows.contracts.policy import Asking, Rule
from mandate.workflows.contracts.tool import RUN_PLAN, AgentBinding, ChildAgent, Effect, Tool, ToolDefinition
from mandate.workflows.contracts.tool_entry import TASK, TASK_SCHEMA, AgentTool
from mandate.workflows.rules import wording
from mandate.workflows.rules.children import LENT, find_terms, lower_budget

UNLINKED: Digest = "A" * 43
"""Address of a child's agent until that is known."""

NAME_CHARACTERS = 64
INSTRUCTIONS_SHOWN = 300
SCHEMA_CHARACTERS = 2000
"""Longest schema of an answer that the description of a tool has."""


def list_agents(spec: AgentSpec) -> Iterator[tuple[Place, AgentTool]]:
    """Yield the agents that an agent may start: those of its tools, then those of its model's plans."""
    for index, entry in enumerate(spec.tools):
        if isinstance(entry, AgentTool):
            yield ("tools", index, "agent"), entry
    for index, name in enumerate(spec.plans.agents if spec.plans is not None else ()):
        yield ("plans", "agents", index), AgentTool.model_construct(agent=name, name=name)


def define_tool(entry: AgentTool, agents: Mapping[str, AgentSpec]) -> ToolDefinition:
    """Return an agent as a tool; the agent itself is linked once all are known.

    Raises:
        ValueError: there is no such agent.
    """
    spec = agents.get(entry.agent)
    kind, _, name = entry.agent.rpartition(":")
    if spec is None:
        names = sorted(other.rpartition(":")[2] for other in agents if other.rpartition(":")[0] == kind)
        known = f"there are {', '.join(names)}" if names else "there are none"
        raise ValueError(f"there is no {kind or 'agent'} {name!r}{did_you_mean(name, names)} {known}")
    limits = lower_budget(spec.budget, entry.budget, entry.timeout)
    settings = {
        "tags": entry.tags,
        "risk": entry.risk,
        "untrusted": entry.untrusted,
        "sensitive": entry.sensitive,
    }
    tool = Tool(
        name=entry.name or name,
        source="agent",
        effect=Effect.READ,
        child=ChildAgent(
            agent=name,
            is_plan=bool(kind),
            digest=UNLINKED,
            share=find_terms(limits),
        ),
    ).model_copy(update={key: value for key, value in settings.items() if value is not None})
    made = ToolDefinition(
        tool=tool,
        description=_describe(entry, spec),
        input_schema=entry.input_schema or TASK_SCHEMA,
        binding=AgentBinding(kind="agent", agent=name, task=TASK if entry.input_schema is None else None),
    )
    return made if entry.result_limit is None else made.model_copy(update={"result_limit_bytes": entry.result_limit})


def _describe(entry: AgentTool, spec: AgentSpec) -> str:
    """Return what the model is told of an agent."""
    text = entry.description or (
        f"Asks the agent {entry.agent!r}, which works by itself and answers. It was told: "
        f"{wording.shorten(spec.instructions, INSTRUCTIONS_SHOWN)}"
    )
    schema = entry.output_schema or spec.output_schema
    if schema is None:
        return text
    written = canonical_json(schema).decode()
    return text if len(written) > SCHEMA_CHARACTERS else f"{text}\nIt answers with JSON of this schema: {written}"


@dataclass(frozen=True, slots=True)
class Member:
    """An agent whose children are not linked yet."""

    pinned: PinnedAgent
    entries: Mapping[str, AgentTool]
    """Its agents, by the names of their tools."""


@dataclass(frozen=True, slots=True)
class Linked:
    """An agent with the addresses of all that may work below it."""

    pinned: PinnedAgent
    digest: Digest
    content: bytes
    below: dict[Digest, bytes] = field(default_factory=dict)
    """Contents of these, by their addresses."""


class Family:
    """Agents that may be each other's children; none is below itself."""

    def __init__(self, members: Mapping[str, Member]) -> None:
        self._members = members
        self._roots: dict[str, Linked] = {}
        self._adopted: dict[Digest, Linked] = {}

    @property
    def members(self) -> Mapping[str, Member]:
        """All of them, by their names."""
        return self._members

    @property
    def agents(self) -> list[PinnedAgent]:
        """All of them, as their files say; those below them differ from these in rules and limits alone."""
        return [member.pinned for member in self._members.values()]

    def link(self, name: str) -> Linked:
        """Return an agent as runs keep it that a client starts."""
        if name not in self._roots:
            self._roots[name] = self._link(self._members[name], ())
        return self._roots[name]

    def link_made(self, member: Member) -> Linked:
        """Return an agent that is made of these and is no file."""
        return self._link(member, ())

    def _link(self, member: Member, above: Sequence[Rule]) -> Linked:
        """Return an agent that works under its own rules and those `above` it."""
        own = member.pinned
        above = tuple(_rename(above, {rule.id for rule in own.policy}))
        handed_down = (*above, *_hand_down(own, above))
        below: dict[Digest, bytes] = {}
        tools = list[ToolDefinition]()
        for made in own.tools:
            entry, asked = member.entries.get(made.tool.name), made.tool.child
            if entry is None or asked is None:
                tools.append(made)
                continue
            # What carries out its plans has all its rules.
            child = self._adopt(entry, above if made.tool.name == RUN_PLAN else handed_down)
            below |= {**child.below, child.digest: child.content}
            tool = made.tool.model_copy(update={"child": asked.model_copy(update={"digest": child.digest})})
            tools.append(made.model_copy(update={"tool": tool}))
        linked = {"tools": tuple(tools), "policy": (*above, *own.policy), "handed_down": len(above)}
        return _write(own.model_copy(update=linked), below)

    def _adopt(self, entry: AgentTool, above: Sequence[Rule]) -> Linked:
        """Return the agent of an entry as it works as a child."""
        terms = entry.model_dump(mode="json", include={"agent", "budget", "timeout", "output_schema"})
        key = digest_of(canonical_json([terms, [rule.model_dump(mode="json") for rule in above]]))
        if key not in self._adopted:
            self._adopted[key] = self._adopt_anew(entry, above)
        return self._adopted[key]

    def _adopt_anew(self, entry: AgentTool, above: Sequence[Rule]) -> Linked:
        member, root = self._members[entry.agent], self.link(entry.agent)
        changes: dict[str, object] = {"budget": lower_budget(member.pinned.budget, entry.budget, entry.timeout)}
        if entry.output_schema is not None:
            changes["output_schema"] = entry.output_schema
        child = self._link(Member(member.pinned.model_copy(update=changes), member.entries), above)
        if child.digest == root.digest:
            return child
        return _write(child.pinned.model_copy(update={"base": root.digest}), child.below)


def _write(whole: PinnedAgent, below: dict[Digest, bytes]) -> Linked:
    content = canonical_json(whole.model_dump(mode="json"))
    # Read back, so that this worker has it in no other form than one that loads the blob.
    return Linked(PinnedAgent.model_validate_json(content), digest_of(content), content, below)


def _rename(above: Sequence[Rule], own: AbstractSet[str]) -> Iterator[Rule]:
    """Yield the rules of agents above under names that none of an agent's own rules has."""
    taken = own | {rule.id for rule in above}
    for rule in above:
        if rule.id not in own:
            yield rule
            continue
        name = _make_distinct(rule.id, taken)
        taken = taken | {name}
        yield rule.model_copy(update={"id": name})


def _hand_down(agent: PinnedAgent, above: Sequence[Rule]) -> Iterator[Rule]:
    """Yield the rules of an agent that hold for its children: those that ask or deny, with whom they ask."""
    taken = {rule.id for rule in above}
    for rule in agent.policy:
        if rule.verdict == "allow" or rule in above:
            continue
        name = _name_rule(agent.name, rule.id, taken)
        taken.add(name)
        asked: dict[str, object] = {}
        if rule.verdict == "ask":
            # Elsewhere the people of another agent file would be asked.
            asked = {
                key: getattr(agent.people, key)
                for key in Asking.model_fields
                if getattr(rule, key) is None and getattr(agent.people, key) is not None
            }
        yield rule.model_copy(update={**asked, "id": name})


def _name_rule(agent: str, rule: str, taken: AbstractSet[str]) -> str:
    """Return the name of a rule in the agents below, where rules of their own have the same id."""
    return _make_distinct(f"{agent}--{rule}"[:NAME_CHARACTERS], taken)


def _make_distinct(whole: str, taken: AbstractSet[str]) -> str:
    name, number = whole, 1
    while name in taken:
        number += 1
        name = f"{whole[: NAME_CHARACTERS - 5]}-{number}"
    return name


def list_below(
    name: str, specs: Mapping[str, AgentSpec], tools: Mapping[str, Sequence[ToolDefinition]]
) -> list[ToolDefinition]:
    """Return the tools of all agents that may work below one, but for those of names that it has itself.

    `specs` and `tools` are those of all agents, by their names.
    """
    own = {made.tool.name for made in tools[name]}
    found: dict[str, ToolDefinition] = {}
    for below in _list_names(name, specs)[1:]:
        for made in tools[below]:
            found.setdefault(made.tool.name, made)
    return [made for made in found.values() if made.tool.name not in own]


def find_faults(document: Document, spec: AgentSpec, agents: Mapping[str, AgentSpec]) -> Iterator[Fault]:
    """Yield agents of an agent that work below themselves, and that demand more of who asks than it does."""
    for place, entry in list_agents(spec):
        if entry.agent not in agents:
            continue
        if (cycle := _find_cycle(spec.name, entry.agent, agents)) is not None:
            yield document.fault(place, f"an agent cannot work below itself: {' -> '.join(cycle)}")


def _find_cycle(root: str, name: str, agents: Mapping[str, AgentSpec]) -> list[str] | None:
    """Return the way from `root` by way of `name` back to `root`; `None` where there is none."""
    waiting, seen = [[root, name]], set[str]()
    while waiting:
        way = waiting.pop()
        if way[-1] == root:
            return way
        if way[-1] in seen or way[-1] not in agents:
            continue
        seen.add(way[-1])
        waiting += [[*way, entry.agent] for _, entry in list_agents(agents[way[-1]])]
    return None


def find_unsigned(
    document: Document, member: Member, members: Mapping[str, Member], spec: AgentSpec
) -> Iterator[Fault]:
    """Yield agents whose starts are signed while those of the agent above them are not."""
    if member.pinned.needs_signed_start:
        return
    for place, entry in list_agents(spec):
        if members[entry.agent].pinned.needs_signed_start:
            yield document.fault(
                place,
                f"who asks for a run of {entry.agent!r} signs for it, and nobody signs for one of {spec.name!r}; "
                "its decisions must be signed too (`people: {signature: required}`)",
            )


def find_unpriced(
    document: Document, spec: AgentSpec, members: Mapping[str, Member], specs: Mapping[str, AgentSpec]
) -> Iterator[Fault]:
    """Yield agents of an agent with a limit in money below which a model without a price works."""
    if spec.budget.cost_usd is None:
        return
    for place, entry in list_agents(spec):
        for name in _list_names(entry.agent, specs):
            # One with a limit of its own has that fault itself.
            models = [pin.model for pin in members[name].pinned.route if pin.price is None]
            if models and specs[name].budget.cost_usd is None:
                yield document.fault(
                    place,
                    f"no price is known for {models[0]!r}, the model of {specs[name].name!r}, and 'budget' limits "
                    f"'cost_usd' for all that works below; add 'price' in the 'models' of {specs[name].name!r}",
                )


def _list_names(name: str, specs: Mapping[str, AgentSpec]) -> list[str]:
    """Return an agent and all that may work below it, as far as they are there."""
    found, waiting = {name: None}, [name]
    while waiting:
        for _, entry in list_agents(specs[waiting.pop()]):
            if entry.agent in specs and entry.agent not in found:
                found[entry.agent] = None
                waiting.append(entry.agent)
    return list(found)


def find_warnings(document: Document, spec: AgentSpec, tools: Iterable[Tool]) -> Iterator[Fault]:
    """Yield agents of which one run may take all that is left of the budget of the agent above."""
    shares = {tool.name: tool.child.share for tool in tools if tool.child is not None}
    for index, entry in enumerate(spec.tools):
        if not isinstance(entry, AgentTool) or (share := shares.get(entry.name or entry.agent)) is None:
            continue
        names = [name for name in LENT if getattr(spec.budget, name) is not None and getattr(share, name) is None]
        if names:
            yield document.fault(
                ("tools", index),
                f"a run of {entry.agent!r} is lent all that is left of {', '.join(names)}, so that no other can begin "
                "beside it; give its share by 'budget'",
            )
