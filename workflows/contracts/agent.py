"""An agent: as people write it, as a run pins it, and as the workflow holds it."""

from collections.abc import Iterator
from typing import Literal, Self

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from mandate.workflows.contracts.base import Digest, Duration, JsonObject, Name, Record, Spec
from mandate.workflows.contracts.board import BoardAccess
from mandate.workflows.contracts.budget import Budget, BudgetRequest
from mandate.workflows.contracts.children import ChildRequest
from mandate.workflows.contracts.compensation import CompensationSpec
from mandate.workflows.contracts.context import ContextSpec
from mandate.workflows.contracts.faults import Located, find_repeated, given_twice, refuse
from mandate.workflows.contracts.origin import ContinuesRequest, Origin
from mandate.workflows.contracts.plan import MOST_PLANNED, PlanSpec
from mandate.workflows.contracts.policy import Asking, RequesterIs, Rule
from mandate.workflows.contracts.route import (
    ModelName,
    Preference,
    Price,
    PriceSpec,
    Route,
    RouteEntry,
    RoutePin,
    find_price,
    list_entries,
    list_places,
)
from mandate.workflows.contracts.tool import Tool, ToolDefinition
from mandate.workflows.contracts.tool_entry import ToolEntry, entry_name
from mandate.workflows.contracts.verification import CheckPin, CheckSpec, ProbePin, ProbeSpec


class PlansSpec(Spec):
    """Terms of the plans of an agent's model."""

    agents: tuple[Name, ...] = Field(
        default=(), description="Agents that its steps may name, of files beside this one."
    )
    tools: tuple[Name, ...] = Field(default=(), description="Tools of this agent that its steps may name.")
    steps: int = Field(default=20, ge=1, le=MOST_PLANNED, description="Steps of one plan at most.")
    budget: BudgetRequest = Field(
        default=BudgetRequest(), description="Limits of one plan, reserved of those of the run that makes it."
    )
    timeout: Duration | None = Field(default=None, description="Longest time of one plan, for example `1h`.")

    @model_validator(mode="after")
    def _keys_fit_together(self) -> Self:
        found: list[Located] = []
        for key in ("agents", "tools"):
            found += [((key, *place), message) for place, message in given_twice(getattr(self, key))]
        if not self.agents and not self.tools:
            found.append(((), "names neither 'agents' nor 'tools'; leave it out, or name what steps may call"))
        if self.timeout is not None and self.budget.wall_time is not None:
            found.append((("timeout",), "is the same as 'wall_time' of 'budget'; give one of them"))
        refuse(found)
        return self


class RecordSpec(Spec):
    """Contents of calls in telemetry."""

    arguments: bool = Field(
        default=False,
        strict=True,
        description="Whether spans hold the arguments of calls and the beginnings of their results; sensitive ones "
        "never.",
    )


class AgentSpec(Spec):
    """An agent file."""

    unavailable = ("memory",)

    name: Name = Field(description="What a start request calls it.")
    instructions: str = Field(min_length=1, description="The system text of every model call.")
    models: Route = Field(
        min_length=1,
        description="A route: preferred first, the rest are fallbacks; names, or objects that say more. Those of a "
        "list in the list are equal.",
    )
    prefer: Preference = Field(
        default="order", description="Which of equal models is asked first: the first, the cheapest or the fastest."
    )
    models_allowed: tuple[ModelName, ...] = Field(
        default=(), description="Models beside the route that a start request may name; `*` at the end for any text."
    )
    prices: dict[ModelName, PriceSpec] = Field(
        default={}, description="Prices of models beside the route, of checks for example, where they are not known."
    )
    tools: tuple[ToolEntry, ...] = Field(default=(), description="What the agent can do.")
    policy: tuple[Rule, ...] = Field(
        default=(), description="Which calls run, are asked for or refused; unmatched calls run only if they read."
    )
    policies: tuple[Name, ...] = Field(
        default=(), description="Shared policy files whose rules count too, for example `escalation`."
    )
    people: Asking = Field(
        default=Asking(), description="How people are asked where no rule says it: unmatched calls and questions."
    )
    requester: Literal["required", "anyone"] | None = Field(
        default=None,
        description="Who may ask for a run. `required`: somebody in the file of people; without such a file, whoever "
        "gives a name. `anyone`: nobody has to say who asks, so that who asks may also approve. Left out: `required` "
        "where decisions are signed; else, with a file of people, a run begins, and nothing that it asks can be "
        "approved while the file does not have its requester; without one, `anyone`.",
    )
    checks: tuple[CheckSpec, ...] = Field(default=(), description="What results and the final answer must pass.")
    attempts: int = Field(
        default=3, ge=1, le=20, description="Failures of a tool since its last success, or of the answer, then people."
    )
    after_failure: Literal["same_model", "next_model"] = Field(
        default="same_model", description="Who tries after a failed check: the same model, or the next of the route."
    )
    same_call: int = Field(
        default=5,
        ge=2,
        le=1_000_000,
        description="Identical calls with identical results until the model is told to stop.",
    )
    backtrack: bool = Field(
        default=False,
        strict=True,
        description="Whether the model may go back to an earlier step and try another way, at most `attempts` times.",
    )
    plans: PlansSpec | None = Field(
        default=None,
        description="Lets the model carry out plans that it writes, with the tool `run_plan`: `{agents: [...], "
        "tools: [...]}` say what their steps may name.",
    )
    board: BoardAccess | None = Field(
        default=None,
        description="Lets the model `read` the values that the runs of its tree share, or `write` them too.",
    )
    budget: Budget = Field(default=Budget(), description="Limits of one run.")
    context: ContextSpec = Field(default=ContextSpec(), description="How the conversation is kept within the window.")
    output_schema: JsonObject | None = Field(default=None, description="JSON Schema that the final answer must fit.")
    max_output_tokens: int = Field(
        default=8192, ge=1, description="Longest answer of one model call, reasoning included."
    )
    record: RecordSpec = Field(default=RecordSpec(), description="Contents of calls that spans of telemetry hold.")

    @field_validator("models")
    @classmethod
    def _models_differ(cls, models: Route) -> Route:
        for place, item in enumerate(models):
            if isinstance(item, tuple) and len(item) < 2:
                refuse([((place,), "equal models are at least two; write one model without a list")])
        places, entries = list_places(models), list_entries(models)
        twice = find_repeated([entry.model for entry, _ in entries])
        refuse([(places[again], f"{name!r} is given twice") for again, name, _ in twice])
        refuse(
            [
                ((*place, "when"), "belongs to models further on; the first is asked from the start")
                for place, (entry, group) in zip(places, entries, strict=True)
                if group == 0 and entry.when is not None
            ]
        )
        return models

    @field_validator("budget")
    @classmethod
    def _can_be_raised(cls, budget: Budget) -> Budget:
        most = budget.raise_at_most
        if most is None:
            return budget
        raised = [(name, value) for name in BudgetRequest.model_fields if (value := getattr(most, name)) is not None]
        if not raised:
            refuse([(("raise_at_most",), "names no limit; leave it out if people may raise any")])
        faults: list[tuple[tuple[str, ...], str]] = []
        for name, value in raised:
            limit = getattr(budget, name)
            if limit is None:
                faults.append((("raise_at_most", name), f"there is no limit {name!r} to be raised"))
            elif value <= limit:
                faults.append((("raise_at_most", name), f"must be more than {name!r} itself"))
        refuse(faults)
        return budget

    @field_validator("models_allowed")
    @classmethod
    def _stars_end(cls, models: tuple[ModelName, ...]) -> tuple[ModelName, ...]:
        stars = [
            ((place,), f"{name!r}: `*` stands at the end only") for place, name in enumerate(models) if "*" in name[:-1]
        ]
        refuse([*given_twice(models), *stars])
        return models

    @property
    def entries(self) -> tuple[tuple[RouteEntry, int], ...]:
        """The models of the route in order, equal ones with the same number."""
        return list_entries(self.models)

    @property
    def model_names(self) -> tuple[str, ...]:
        return tuple(entry.model for entry, _ in self.entries)

    @field_validator("tools")
    @classmethod
    def _tool_names_differ(cls, tools: tuple[ToolEntry, ...]) -> tuple[ToolEntry, ...]:
        refuse(
            [
                ((again,), f"the name {name!r} is taken by tools[{first}]; set another 'name'")
                for again, name, first in find_repeated([entry_name(entry) for entry in tools])
            ]
        )
        return tools

    @field_validator("policies")
    @classmethod
    def _policies_differ(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        refuse(given_twice(names))
        return names

    @field_validator("policy")
    @classmethod
    def _rule_ids_differ(cls, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        refuse(
            [
                ((again, "id"), f"{name!r} is the id of policy[{first}] too; each rule has its own")
                for again, name, first in find_repeated([rule.id for rule in rules])
            ]
        )
        return rules


class PinnedAgent(Record):
    """An agent with the schemas of all its tools: stored as a blob, so that a run keeps it when files change."""

    name: Name
    instructions: str
    models: tuple[ModelName, ...]
    tools: tuple[ToolDefinition, ...]
    route: tuple[RoutePin, ...] = ()
    """`models` in the same order, with all that is known of each; empty in agents that were pinned before routes."""
    prefer: Preference = "order"
    models_allowed: tuple[ModelName, ...] = ()
    params: dict[str, JsonObject] = {}
    """Request fields of the vendor, by model."""
    prices: dict[str, Price] = {}
    """Of all models that it may ask beside its route: in checks, for summaries, and those that it allows by name.

    One that is in the route too has its price there, for its `params`; one without an entry has no known price.
    """
    context: ContextSpec = ContextSpec()
    policy: tuple[Rule, ...]
    """Its own rules, then those of the shared files that it names."""
    people: Asking = Asking()
    requester: Literal["required", "anyone"] | None = None
    """As the agent file says; see `needs_requester`."""
    checks: tuple[CheckSpec, ...] = ()
    probes: dict[str, ProbeSpec] = {}
    """By the tool that they are about."""
    compensations: dict[str, CompensationSpec] = {}
    """By the tool whose calls they take back."""
    attempts: int
    after_failure: Literal["same_model", "next_model"] = "same_model"
    same_call: int = 5
    budget: Budget
    output_schema: JsonObject | None
    max_output_tokens: int
    signed_calls: bool = False
    """Calls that people sign for bring the signatures along; false in agents that were pinned before they did."""
    tainted: bool = False
    """Its prompt holds words of strangers that nobody has accepted."""
    plan: PlanSpec | None = None
    """Set for a plan, which has steps in place of models."""
    base: Digest | None = None
    """Of the agent as its file says, for one that works as a child under the rules of others."""
    handed_down: int = 0
    """Rules at the beginning of its policy that are those of the agents above it."""
    records: bool = False
    """Spans hold the arguments of its calls."""

    @property
    def models_asked(self) -> Iterator[ModelName]:
        """Yield each model that it may ask, also in checks and for summaries; patterns are none."""
        yield from self.models
        yield from (model for model in self.models_allowed if not model.endswith("*"))
        for check in self.checks:
            yield from check.route
        if self.context.summary is not None:
            yield from self.context.summary.models

    def price(self, model: str) -> Price | None:
        """Return the price of a model as it was pinned."""
        return find_price(model, self.route, self.prices)

    def definition(self, tool: str) -> ToolDefinition | None:
        return next((definition for definition in self.tools if definition.tool.name == tool), None)

    @property
    def needs_signatures(self) -> bool:
        """True if some decision on its runs counts only with a signature."""
        return any(asking.signature == "required" for asking in (self.people, *self.policy))

    def needs_requester(self, *, has_people: bool) -> bool:
        """Return whether a run must say who asks; `has_people` is whether there is a file of people.

        Every agent can ask people: for calls, with `ask_person`, and when it cannot go on. Who asked for a run decides
        on none of that, which nobody can hold to without knowing who that is. Where the agent file says `required`, the
        start is refused; where it says nothing, what the run asks can only be rejected.
        """
        if self.requester is None:
            return has_people or self.needs_signatures
        return self.requester == "required"

    @property
    def needs_signed_start(self) -> bool:
        """True if a run must be asked for with a token: where decisions are signed, unless anyone may ask."""
        return self.needs_signatures and self.requester != "anyone"


class AgentPin(Record):
    """Pinned part of an agent that the workflow decides with."""

    name: Name
    digest: Digest
    """Of the `PinnedAgent`."""
    base: Digest | None = None
    """As of `PinnedAgent`."""
    handed_down: int = 0
    """As of `PinnedAgent`."""
    models: tuple[ModelName, ...]
    route: tuple[RoutePin, ...] = ()
    """As of `PinnedAgent`."""
    prefer: Preference = "order"
    models_allowed: tuple[ModelName, ...] = ()
    prices: dict[str, Price] = {}
    max_output_tokens: int = 8192
    tools: tuple[Tool, ...]
    policy: tuple[Rule, ...]
    """Its own rules, then those of the shared files that it names."""
    asks: bool = False
    """Calls that no rule matched are asked for; false in runs that began when they were refused."""
    people: Asking = Asking()
    requester: RequesterIs = "anyone"
    """Knowledge of who asked; runs from before that was looked at keep `anyone`."""
    checks: tuple[CheckPin, ...] = ()
    probes: dict[str, ProbePin] = {}
    """By the tool that they are about."""
    compensable: tuple[str, ...] = ()
    """Tools whose calls can be taken back."""
    attempts: int
    after_failure: Literal["same_model", "next_model"] = "same_model"
    same_call: int = 5
    recovers: bool = False
    """Failures that retries cannot mend go to people; false in runs that began when they ended the run."""
    hides: bool = False
    """Sensitive arguments are here by reference only; false in runs that have none or began when they were in clear."""
    controls: bool = False
    """Messages that control the run are checked: the file of people said who may control runs when it began."""
    loop: int = 0
    """`changes.LOOP` when the run began."""
    budget: Budget
    tainted: bool = False
    """Its runs are tainted from their beginning: what its MCP servers say of their tools was not accepted."""
    structured: bool = False
    """The final answer is JSON that fits the agent's `output_schema`."""
    store: str
    """Id of the blob store that holds the run's conversation."""
    search_attributes: tuple[str, ...] = ()
    """Names that the namespace has; only these are upserted."""
    records: bool = False
    """As of `PinnedAgent`."""

    @property
    def version(self) -> str:
        """The version of its agent file, also where it works as a child."""
        return (self.base or self.digest)[:12]

    def tool(self, name: str) -> Tool | None:
        return next((tool for tool in self.tools if tool.name == name), None)


class PinRequest(Record):
    """Input of `pin_agent`."""

    agent: str
    input: str | JsonObject
    requester: str | None = None
    labels: dict[str, str] = {}
    token: str | None = Field(default=None, repr=False)
    model: str | None = None
    """The start request's."""
    run_id: str = ""
    """First run id of the chain: a token starts one."""
    continues: ContinuesRequest | None = None
    """The run that it goes on from."""
    in_session: bool = False
    """It begins a session, or goes on with that of an earlier run of its workflow id."""
    is_plan: bool = False
    """`agent` is the name of a plan."""
    plan: PlanSpec | None = None
    """A plan as data, in place of one of a file."""
    child: ChildRequest | None = None
    """Set for a child, which is asked a call of its parent's; `agent` is its name and `input` empty."""


class Pinned(Record):
    """Output of `pin_agent`: the agent as this run keeps it, and the conversation with its first message."""

    agent: AgentPin
    head: Digest
    requester: str | None = None
    """The one who asked, by their name in the file of people if they are there, however the start named them."""
    estimate: int = 0
    """Tokens of the first request, as they are estimated."""
    route: tuple[RoutePin, ...] = ()
    """In place of the agent's, where the start request names a model."""
    is_counted: bool = False
    """There were budgets beyond one run when it began, and it counts in some."""
    earlier: str | None = Field(default=None, repr=False)
    """The `RunState` of the session's earlier run as JSON, from which this one goes on; `head` is its."""
    goal: str = ""
    """The beginning of what a child is asked."""
    origin: Origin | None = None
    """The run that this one goes on from, whose conversation is before `head`."""
    tainted: bool = False
    """That run had read content of an untrusted tool."""
    slow: tuple[str, ...] = ()
    """Names of `rules.local_activities` that wait for others where these workers are."""
