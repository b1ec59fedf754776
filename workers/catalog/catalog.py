"""The agents that a worker offers: files, their tools resolved, pinned to content and digest."""

import asyncio
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from mandate.activities.documents import Document, Fault, in_order
from mandate.activities.files import FileError
from mandate.activities.toolbox import builtin
from mandate.activities.toolbox.written_plans import find_schema_faults
from mandate.workers.catalog import children, mcp_acceptance, plan_members, provider_tools, written_plans
from mandate.workers.catalog import plans as catalog_plans
from mandate.workers.catalog.agents import AgentFile, Scan, find_unknown_providers, scan_agents
from mandate.workers.catalog.checks import AgentChecks
from mandate.workers.catalog.children import Linked, Member
from mandate.workers.catalog.endpoints import Endpoints
from mandate.workers.catalog.plans import PlanScan
from mandate.workers.catalog.policies import PlacedRule, Policies, PolicyFile, policy_folder
from mandate.workers.catalog.prices import AgentPrices
from mandate.workers.catalog.rule_matches import find_misses, find_unknown, find_vain_matches
from mandate.workers.catalog.tools import McpDefinitions, ToolResolver
from mandate.workers.secrets import Secrets
from mandate.workflows.contracts.agent import AgentSpec, PinnedAgent
from mandate.workflows.contracts.base import Digest
from mandate.workflows.contracts.context import ContextSpec
from mandate.workflows.contracts.faults import Place
from mandate.workflows.contracts.plan import PlanSpec
from mandate.workflows.contracts.policy import Rule
from mandate.workflows.contracts.route import Route, RouteEntry, list_places
from mandate.workflows.contracts.tool import RUN_PLAN, Tool, ToolDefinition
from mandate.workflows.contracts.tool_entry import AgentTool, McpTools
from mandate.workflows.rules import policy
from mandate.workflows.rules.plans import targets
from mandate.workflows.rules.plans.faults import find_faults

AGENTS = Path("deploy/agents")
"""Folder of agents that are made in code, if they had files."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """One agent that runs can be started with."""

    pinned: PinnedAgent
    digest: Digest
    content: bytes
    """Contents of a blob: `pinned` as canonical JSON, whose address is `digest`."""
    path: Path | None
    """Its file; `None` for an agent that was made in code."""
    document: Document
    """What was read of the file, with the places of its values."""
    rules: tuple[PlacedRule, ...]
    """Those of `pinned.policy`, each with the place where it is written."""
    policies: tuple[str, ...] = ()
    """The shared policies whose rules it has after its own."""
    strange: tuple[str, ...] = ()
    """Its MCP servers whose words in the prompt nobody has accepted."""
    places: tuple[Place, ...] = ()
    """Of the models of the route, in their order."""
    below: Mapping[Digest, bytes] = field(default_factory=dict)
    """Contents of the agents that may work below it, by their addresses."""

    def _list_check_places(self) -> list[Place]:
        plan = self.pinned.plan
        if plan is None:
            return [("checks", index) for index in range(len(self.pinned.checks))]
        return plan_members.list_check_places(plan)

    def models(self) -> Iterator[tuple[Place, str]]:
        """Yield each model that it may ask, also in checks and for summaries, and its place in the file."""
        yield from zip(self.places, self.pinned.models, strict=True)
        for index, model in enumerate(self.pinned.models_allowed):
            if not model.endswith("*"):
                yield ("models_allowed", index), model
        for where, check in zip(self._list_check_places(), self.pinned.checks, strict=True):
            if check.model is not None:
                yield (*where, "model"), check.model
            yield from (((*where, "models", place), model) for place, model in enumerate(check.models))
        yield from _list_summary_models(self.pinned.context)


@dataclass(frozen=True, slots=True)
class Catalog:
    """All agents of a worker, by name."""

    agents: Mapping[str, Loaded]
    warnings: tuple[Fault, ...] = ()
    """Settings that are allowed and yet probably not meant."""
    policies: Mapping[str, PolicyFile] = field(default_factory=dict)
    """The shared policies that the agents name."""
    endpoints: Endpoints = field(default_factory=Endpoints)
    """Providers beside those that are built in."""
    plans: Mapping[str, Loaded] = field(default_factory=dict)
    """All plans of a worker, by name."""
    specs: Mapping[str, AgentSpec] = field(default_factory=dict)
    """What plans may name, those of plans with `plan_members.PREFIX`."""
    family: children.Family = field(default_factory=lambda: children.Family({}))
    """All agents and plans that runs may have here, those that are only children included."""

    @property
    def members(self) -> tuple[Loaded, ...]:
        """All agents and plans: what is demanded of an agent is demanded of a plan."""
        return (*self.agents.values(), *self.plans.values())

    @classmethod
    async def load(
        cls,
        source: Path | Iterable[AgentSpec],
        mcp: McpDefinitions,
        *,
        secrets: Secrets,
        builtins: tuple[ToolDefinition, ...] = builtin.DEFINITIONS,
        policies: Path | None = None,
        project: Path | None = None,
        endpoints: Endpoints | None = None,
        plans: Path | None = None,
    ) -> "Catalog":
        """Load the agents of a folder, of one file, or made in code, with all their tools.

        Modules of Python tools are also looked for in the current directory, in the folder of `mandate.yaml` and in the
        folder above the agent files.

        Args:
            source: Where the agents are.
            mcp: Asks MCP servers for their tools; each entry once, at the same time.
            secrets: Where the secrets that the agents name must be.
            builtins: Tools that every agent has.
            policies: Folder of shared policies; `None`: `policies` beside the folder of the agents.
            project: Folder of `mandate.yaml`.
            endpoints: Providers that the models of the agents may name beside those that are built in.
            plans: Folder of plans, or the file of one; none if left out.

        Raises:
            FileError: all faults of all agents; none of them is loaded then.
        """
        known = endpoints or Endpoints()
        scan = _scan(source, project, known)
        files = [*scan.files, *_find_children(source, scan.files)]
        planned = catalog_plans.scan_plans(plans) if plans is not None else PlanScan()
        agents = {file.spec.name: file.spec for file in files}
        as_agents = [AgentFile(file.path, plan_members.to_agent(file.spec), file.document) for file in planned.files]
        specs = {file.spec.name: file.spec for file in (*files, *as_agents)}
        shared = Policies(policy_folder(source if isinstance(source, Path) else AGENTS, policies))
        drafts = [_Draft(file, secrets, shared, known) for file in files]
        drafts += [
            _Draft(as_agent, secrets, shared, known, plan_members.fill_schemas(file.spec, agents))
            for as_agent, file in zip(as_agents, planned.files, strict=True)
        ]
        await asyncio.gather(
            *(draft.search.run(mcp, draft.list_builtins(builtins), draft.spec.output_schema, specs) for draft in drafts)
        )
        for draft in drafts:
            if draft.plan is not None:
                plan_members.add_variants(draft.plan, draft.search)
        tools = {draft.spec.name: draft.search.tools for draft in drafts}
        for draft in drafts:
            draft.below = children.list_below(draft.spec.name, specs, tools)
            rule_names = {made.tool.name for made in (*draft.search.tools, *draft.below)}
            draft.below += (
                made for made in written_plans.list_agents(draft.spec, specs) if made.tool.name not in rule_names
            )
        found = [*scan.faults, *planned.faults, *shared.faults()]
        tools_of_plans = {
            draft.plan.name: known_tools
            for draft in drafts
            if draft.plan is not None and (known_tools := plan_members.list_tools(draft.plan, draft.search)) is not None
        }
        found += catalog_plans.find_faults(planned, agents, tools_of_plans)
        for draft in drafts:
            found += [
                *draft.place(draft.search.faults, specs),
                *draft.provider_faults(),
                *draft.rule_faults(),
                *draft.place(draft.checked.faults(), specs),
            ]
            found += [*draft.priced.faults(), *draft.route_faults(), *draft.model_faults()]
            if draft.plan is None:
                found += children.find_faults(draft.document, draft.spec, specs)
            if not draft.search.faults:
                found += written_plans.find_faults(draft.document, draft.spec, specs, draft.search.tools)
        if not found and _is_whole(source):
            found += _shared_faults(shared, drafts)
        members = {} if found else dict(chain.from_iterable(draft.pin(specs) for draft in drafts))
        for draft in drafts if not found else ():
            unsigned = children.find_unsigned(draft.document, members[draft.spec.name], members, draft.spec)
            unpriced = children.find_unpriced(draft.document, draft.spec, members, specs)
            found += draft.place((*unsigned, *unpriced), specs)
        if found:
            raise FileError(found)
        family = children.Family(members)
        of_drafts = (draft.place((*draft.search.warnings, *draft.warnings()), specs) for draft in drafts)
        of_plans = catalog_plans.find_warnings(planned, agents, tools_of_plans)
        warnings = in_order([*chain.from_iterable(of_drafts), *of_plans])
        named = {name: file for draft in drafts for name in draft.spec.policies if (file := shared.get(name))}
        offered = [draft for draft, _ in zip(drafts, scan.files, strict=False)]
        return cls(
            {of.spec.name: of.load(family.link(of.spec.name)) for of in offered},
            warnings,
            named,
            known,
            {of.plan.name: of.load(family.link(of.spec.name)) for of in drafts if of.plan is not None},
            specs,
            family,
        )

    async def make_plan(self, plan: PlanSpec) -> Loaded:
        """Return a plan that is data, made of agents and plans of this worker.

        Raises:
            ValueError: all that is wrong with it; one sentence a fault.
        """
        self._demand_sound(plan)
        file = AgentFile(Path(), plan_members.to_agent(plan), Document(f"plan {plan.name!r}", None, (), {}))
        shared = Policies(policy_folder(AGENTS, None))
        draft = _Draft(file, Secrets({}), shared, self.endpoints, plan_members.fill_schemas(plan, self.specs))
        await draft.search.run(_NoServers(), builtin.DEFINITIONS, None, self.specs)
        plan_members.add_variants(plan, draft.search)
        found = [*draft.search.faults, *draft.rule_faults(), *draft.checked.faults()]
        if not found:
            ((name, made),) = draft.pin(self.specs)
            members = {**self.family.members, name: made}
            found += children.find_unsigned(draft.document, made, members, draft.spec)
            found += children.find_unpriced(draft.document, draft.spec, members, {**self.specs, name: draft.spec})
        _refuse(draft.place(found, self.specs))
        return draft.load(self.family.link_made(made))

    def _demand_sound(self, plan: PlanSpec) -> None:
        """Do nothing for a plan without faults; raise `ValueError` with all of them."""
        agents = {
            name: targets.of_agent(spec)
            for name, spec in self.specs.items()
            if not name.startswith(plan_members.PREFIX)
        }
        known = {name: loaded.pinned.plan for name, loaded in self.plans.items()}
        plans = {name: targets.of_plan(spec) for name, spec in known.items() if spec is not None}
        # That its steps may name no tools is told already.
        found = [*plan_members.find_data_faults(plan), *find_faults(plan, agents=agents, tools=None, plans=plans)]
        found += find_schema_faults(plan)
        _refuse(Document("", None, (), {}).fault(place, message) for place, message in found)

    def providers(self) -> set[str]:
        """Return the names of the model providers that the agents and their checks use."""
        return {model.partition(":")[0] for agent in self.family.agents for model in agent.models_asked}


class _NoServers:
    """No MCP servers: plans as data name none."""

    async def definitions(self, entry: McpTools) -> tuple[ToolDefinition, ...]:
        raise AssertionError(entry)


def _refuse(faults: Iterable[Fault]) -> None:
    """Raise `ValueError` with all faults, each once, if there are any."""
    if told := dict.fromkeys(f"{fault.key}: {fault.message}" for fault in faults):
        raise ValueError("; ".join(told))


class _Draft:
    """One valid agent on its way into the catalog."""

    def __init__(
        self,
        file: AgentFile,
        secrets: Secrets,
        shared: Policies,
        endpoints: Endpoints,
        plan: PlanSpec | None = None,
    ) -> None:
        """Take an agent file; or that of a plan, as the agent without models that it is."""
        self.spec = file.spec
        self.plan = plan
        self._rules, self._faults = shared.merged(file)
        self.search = ToolResolver(file.document, file.spec.tools, secrets)
        self.checked = AgentChecks(file.spec, file.document, self.search)
        self.priced = AgentPrices(file.spec, file.document, endpoints.find_prices)
        self._path = file.path
        self.document = file.document
        self._endpoints = endpoints
        self.below: list[ToolDefinition] = []
        """Tools of the agents that may work below it, but for those of names that it has itself."""

    def list_builtins(self, definitions: tuple[ToolDefinition, ...]) -> tuple[ToolDefinition, ...]:
        """Return the built-in tools of the agent."""
        own = [builtin.GO_BACK] if self.spec.backtrack else []
        if self.spec.board is not None:
            own += [builtin.READ_BOARD, *([builtin.WRITE_BOARD] if self.spec.board == "write" else [])]
        if self.spec.plans is not None:
            own.append(written_plans.define_tool(self.spec.plans))
        return (*definitions, *own)

    def place(self, faults: Iterable[Fault], specs: Mapping[str, AgentSpec]) -> Iterable[Fault]:
        """Return faults where people look for them: those of agents that a plan names at its steps."""
        return faults if self.plan is None else plan_members.place_in_steps(faults, self.plan, self.document, specs)

    def model_faults(self) -> Iterator[Fault]:
        """Yield request fields that cannot be sent."""
        spec, places = self.spec, _list_model_places(self.spec.models)
        for place, (entry, _) in zip(places, spec.entries, strict=True):
            provider = entry.model.partition(":")[0]
            if not entry.params or not self._endpoints.is_known(provider):
                continue
            # Here: the SDKs' types take long to import.
            from mandate.workers.catalog.params import find_faults  # noqa: PLC0415 - only where there are such fields

            protocol = self._endpoints.find_protocol(provider)
            for inside, why in find_faults(entry.params, protocol, has_output_schema=spec.output_schema is not None):
                yield self.document.fault((*place[:-1], "params", *inside), why)

    def provider_faults(self) -> Iterator[Fault]:
        """Yield what the providers of its models would refuse, once all tools are there."""
        if self.search.faults:
            return
        places, find_protocol = _list_model_places(self.spec.models), self._endpoints.find_protocol
        for refusal in provider_tools.find_refusals(self.spec.model_names, self.search.tools, find_protocol):
            entry = self.search.entry_of.get(refusal.tool or "")
            place: Place = places[refusal.model] if entry is None else ("tools", entry)
            is_of_server = entry is not None and isinstance(self.spec.tools[entry], McpTools)
            yield self.document.fault(place, f"{refusal.why}; leave it out by 'only'" if is_of_server else refusal.why)

    def rule_faults(self) -> Iterator[Fault]:
        """Yield the faults of the rules; their conditions are looked at once all tools are there."""
        yield from self._faults
        if self.search.faults:
            return
        for index, rule in enumerate(self.spec.policy):
            for place, message in find_misses(rule, self._reach(rule)):
                yield self.document.fault(("policy", index, "match", *place), message)
        if all(placed.rule.when is None for placed in self._rules):
            return
        from mandate.workers.catalog.conditions import Conditions  # noqa: PLC0415 - CEL only where conditions are

        own = Conditions(self.search.tools, agent=self.spec.name)
        whole = Conditions([*self.search.tools, *self.below], agent=self.spec.name) if self.below else own
        for placed in self._rules:
            yield from (own if placed.rule.verdict == "allow" else whole).faults(placed)

    def route_faults(self) -> Iterator[Fault]:
        """Yield the faults of the conditions of its models; they are looked at once all tools are there."""
        if self.search.faults or all(entry.when is None for entry, _ in self.spec.entries):
            return
        from mandate.workers.catalog.conditions import Conditions  # noqa: PLC0415 - CEL only where conditions are

        conditions = Conditions(self.search.tools, agent=self.spec.name)
        for place, (entry, _) in zip(list_places(self.spec.models), self.spec.entries, strict=True):
            for problem in conditions.of_route(entry.when) if entry.when is not None else ():
                where = problem.place(entry.when or "")
                yield self.document.fault(("models", *place, "when"), f"{where}: {problem.message}")

    @property
    def tools(self) -> list[Tool]:
        return [made.tool for made in self.search.tools]

    @property
    def all_tools(self) -> list[Tool]:
        """Its own tools, and those of the agents below it, for which its rules hold that ask or deny."""
        return [*self.tools, *(made.tool for made in self.below)]

    def _reach(self, rule: Rule) -> list[Tool]:
        return self.tools if rule.verdict == "allow" else self.all_tools

    def pin(self, specs: Mapping[str, AgentSpec]) -> Iterator[tuple[str, Member]]:
        """Yield the agent as runs keep it, but for the addresses of its children; and what carries out its plans."""
        whole = PinnedAgent(
            name=self.spec.name if self.plan is None else self.plan.name,
            instructions=self.spec.instructions,
            models=self.spec.model_names,
            route=self.priced.route,
            prefer=self.spec.prefer,
            models_allowed=self.spec.models_allowed,
            prices=self.priced.others,
            params={entry.model: entry.params for entry, _ in self.spec.entries if entry.params},
            context=self.spec.context,
            tools=tuple(self.search.tools),
            policy=tuple(placed.rule for placed in self._rules),
            people=self.spec.people,
            requester=self.spec.requester,
            checks=self.checked.checks,
            probes=self.checked.probes,
            compensations=self.checked.compensations,
            attempts=self.spec.attempts,
            after_failure=self.spec.after_failure,
            same_call=self.spec.same_call,
            budget=self.spec.budget,
            output_schema=self.spec.output_schema,
            max_output_tokens=self.spec.max_output_tokens,
            signed_calls=True,
            records=self.spec.record.arguments,
            tainted=any(map(mcp_acceptance.is_strange, self.spec.tools)),
        )
        entries = {entry.name or entry.agent: entry for entry in self.spec.tools if isinstance(entry, AgentTool)}
        name, plans = self.spec.name, self.spec.plans
        if plans is not None:
            entries[RUN_PLAN] = written_plans.make_entry(name, plans)
            yield entries[RUN_PLAN].agent, written_plans.make_member(whole, self.spec, plans, specs)
            whole = written_plans.complete(whole, self.spec, plans, specs)
        yield name, Member(whole if self.plan is None else plan_members.pin_plan(whole, self.plan), entries)

    def load(self, linked: Linked) -> Loaded:
        """Return the agent as a worker offers it."""
        strange = tuple(
            entry.mcp.name
            for entry in self.spec.tools
            if isinstance(entry, McpTools) and mcp_acceptance.is_strange(entry)
        )
        return Loaded(
            linked.pinned,
            linked.digest,
            linked.content,
            self._path if self.document.value is not None else None,
            self.document,
            self._rules,
            self.spec.policies,
            strange,
            _list_model_places(self.spec.models),
            linked.below,
        )

    def _idle_preference(self) -> Iterator[Fault]:
        if self.spec.prefer != "order" and not any(isinstance(item, tuple) for item in self.spec.models):
            message = "chooses among equal models, a list in the list of 'models', of which there are none"
            yield self.document.fault(("prefer",), message, self.spec.prefer)

    def warnings(self) -> list[Fault]:
        """Return what rules of its own match in vain and is no fault, and policies where no rule fits."""
        tools = self.tools
        return (
            [*self._idle_preference(), *children.find_warnings(self.document, self.spec, tools)]
            + [
                self.document.fault(("policy", index, "match", *place), message)
                for index, rule in enumerate(self.spec.policy)
                for place, message in find_vain_matches(rule, self._reach(rule))
            ]
            + [
                self.document.fault(("policies", index), f"no rule of policy {name!r} is about a tool of this agent")
                for index, name in enumerate(self.spec.policies)
                if not any(
                    policy.matches(placed.rule.match, tool)
                    for placed in self._rules
                    if placed.policy == name
                    for tool in self._reach(placed.rule)
                )
            ]
        )


def _scan(source: Path | Iterable[AgentSpec], project: Path | None, endpoints: Endpoints) -> Scan:
    if isinstance(source, Path):
        above = source.absolute().parent if source.is_dir() else source.absolute().parent.parent
        _look_for_modules(Path.cwd(), *([project.absolute()] if project is not None else []), above)
        return scan_agents(source, endpoints.find_unknown)
    made = [AgentFile(Path(), spec, Document(f"agent {spec.name!r}", None, (), {})) for spec in source]
    faults = [
        fault
        for file in made
        for fault in find_unknown_providers(file.document, file.spec.model_dump(mode="json"), endpoints.find_unknown)
    ]
    return Scan(tuple(made), tuple(faults))


def _find_children(source: Path | Iterable[AgentSpec], files: Sequence[AgentFile]) -> Iterator[AgentFile]:
    """Yield the agents that the one of a single file names, from the files beside it, and those that these name."""
    if not isinstance(source, Path) or source.is_dir():
        return
    named = [entry.agent for file in files for entry in file.spec.tools if isinstance(entry, AgentTool)]
    if not named:
        return
    beside = {file.spec.name: file for file in scan_agents(source.absolute().parent).files}
    known = {file.spec.name for file in files}
    while named:
        name = named.pop()
        if name in known or name not in beside:
            continue
        known.add(name)
        yield beside[name]
        named += [entry.agent for entry in beside[name].spec.tools if isinstance(entry, AgentTool)]


def _is_whole(source: Path | Iterable[AgentSpec]) -> bool:
    """Tell whether these are all agents: others than those of one file may have the tools that a shared rule names."""
    return not (isinstance(source, Path) and source.is_file())


def _look_for_modules(*folders: Path) -> None:
    """Look for modules behind everything else, so that no file of a user replaces an installed module."""
    for wanted in folders:
        if not any(Path(known or ".").absolute() == wanted for known in sys.path):
            sys.path.append(str(wanted))


def _shared_faults(shared: Policies, drafts: Iterable[_Draft]) -> list[Fault]:
    """Return the rules of shared policies that ask about or deny a tool that no agent with the policy has."""
    users: dict[str, list[_Draft]] = {}
    for draft in drafts:
        for name in draft.spec.policies:
            users.setdefault(name, []).append(draft)
    found: list[Fault] = []
    for name, of_policy in users.items():
        file = shared.get(name)
        tools = [tool for draft in of_policy for tool in draft.all_tools]
        agents = ", ".join(sorted(draft.spec.name for draft in of_policy))
        for placed in file.rules if file is not None else ():
            found += [
                placed.fault(message, "match", *place) for place, message in find_unknown(placed.rule, tools, agents)
            ]
    return found


def _list_model_places(route: Route) -> tuple[Place, ...]:
    """Return the place of each model of a route in its file."""
    return tuple(
        (*place, "model") if isinstance(each, RouteEntry) else place
        for position, item in enumerate(route)
        for place, each in (
            [(("models", position, inner), each) for inner, each in enumerate(item)]
            if isinstance(item, tuple)
            else [(("models", position), item)]
        )
    )


def _list_summary_models(context: ContextSpec) -> list[tuple[Place, str]]:
    models = context.summary.models if context.summary is not None else ()
    return [(("context", "summary", "models", index), model) for index, model in enumerate(models)]
