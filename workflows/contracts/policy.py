"""Rules over tool calls, who is asked when they leave it open, and what judging a call by them says."""

from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    Field,
    FiniteFloat,
    NonNegativeInt,
    StringConstraints,
    field_validator,
    model_validator,
)

from mandate.workflows.contracts.base import Duration, JsonObject, Name, Record, Spec
from mandate.workflows.contracts.faults import find_repeated, refuse
from mandate.workflows.contracts.tool import Effect, ToolSource

EXPIRES = timedelta(hours=24)
"""Time that people have to answer unless a rule says otherwise."""

MOST_REMINDERS = 50
"""Reminders of one request; with more, the interval between them is too short."""

Person = Annotated[str, StringConstraints(pattern=r"^\S(?:.{0,198}\S)?$")]
"""Name of a person in decisions, for example `ann@example.com`."""

RequesterIs = Literal["known", "named", "anyone"]
"""Knowledge of who asked for a run: the file of people had them when it began, they gave a name and there was no
such file, or the agent file lets anyone ask."""

Group = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.@/-]{0,63}$")]


def _refuse_empty(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty; leave the key out for a rule without a condition")
    return text


class Match(Spec):
    """Calls that a rule is about; every key given must fit, and no key at all fits every call."""

    tools: tuple[str, ...] | None = Field(default=None, min_length=1, description="Names; `*` stands for any text.")
    effects: tuple[Effect, ...] | None = Field(default=None, min_length=1, description="Effects of the tool.")
    tags: tuple[str, ...] | None = Field(default=None, min_length=1, description="The tool has one of these tags.")
    sources: tuple[ToolSource, ...] | None = Field(default=None, min_length=1, description="Where the tool is from.")


class Approvers(Spec):
    """People who may decide or control: any of these users, and everybody in any of these groups."""

    users: tuple[Person, ...] = Field(default=(), description="People, by the name that they decide under.")
    groups: tuple[Group, ...] = Field(default=(), description="Groups of the file of people.")

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if not self.users and not self.groups:
            raise ValueError("names nobody; give 'users', 'groups' or both")
        for key in ("users", "groups"):
            refuse([((key, again), f"{name!r} is given twice") for again, name, _ in find_repeated(getattr(self, key))])
        return self


class Escalation(Spec):
    """People whom a request goes to when nobody has answered it in time; those asked before may still answer."""

    users: tuple[Person, ...] = Field(default=(), description="People who may decide from then on.")
    groups: tuple[Group, ...] = Field(default=(), description="Groups that may decide from then on.")
    expires: Duration = Field(default=EXPIRES, description="How long they have.")

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if not self.users and not self.groups:
            raise ValueError("names nobody; give 'users', 'groups' or both")
        return self


class OnExpiry(Spec):
    """Consequence when nobody has answered in time."""

    escalate: Escalation = Field(description="Ask these people next; when they do not answer either, it is denied.")


class Asking(Spec):
    """Terms on which people are asked; a key that a rule leaves out is the agent's under `people`, else the default."""

    approvers: Approvers | None = Field(
        default=None, description="Who may decide; left out: everybody in the file of people but the requester."
    )
    quorum: int | None = Field(default=None, ge=1, le=20, description="Distinct people who must approve; 1.")
    rejections: int | None = Field(default=None, ge=1, le=20, description="Rejections that reject; 1.")
    expires: Duration | None = Field(default=None, description="How long they have, for example `24h`, the default.")
    on_expiry: Literal["deny"] | OnExpiry | None = Field(
        default=None, description="What it means that nobody answered in time: `deny`, or whom to ask next."
    )
    remind: Duration | None = Field(default=None, description="Remind them at this interval, for example `4h`.")
    signature: Literal["required"] | None = Field(
        default=None, description="`required`: a decision counts only with a signed token of the person."
    )

    @model_validator(mode="after")
    def _reminders_are_few(self) -> Self:
        expires = self.expires or EXPIRES
        if self.remind is not None and expires / self.remind > MOST_REMINDERS:
            raise ValueError(f"'remind' is too short: at most {MOST_REMINDERS} reminders fit before 'expires'")
        return self


class Rule(Asking):
    """One rule of a policy."""

    id: Name = Field(description="Named in every verdict that the rule decides.")
    match: Match = Field(description="Which calls the rule is about.")
    when: Annotated[str, AfterValidator(_refuse_empty)] | None = Field(
        default=None,
        max_length=4000,
        description="A condition in CEL over `tool`, `args`, `agent` and `run`; numbers are written `100.0`.",
    )
    verdict: Literal["allow", "ask", "deny"] = Field(description="What becomes of a call that it matches.")
    because: str | None = Field(
        default=None, max_length=300, description="Why the rule is there, in one sentence; shown to people."
    )

    @model_validator(mode="after")
    def _only_ask_asks(self) -> Self:
        given = [key for key in Asking.model_fields if getattr(self, key) is not None]
        if self.verdict != "ask" and given:
            refuse([((key,), f"belongs to rules with 'verdict: ask', not {self.verdict!r}") for key in given])
        return self


class ExampleCall(Spec):
    """A call as the model would make it."""

    tool: Name = Field(description="Name of the tool.")
    effect: Effect | None = Field(default=None, description="Effect; the agent's own tool of this name otherwise.")
    tags: tuple[str, ...] | None = Field(default=None, description="Tags; the agent's own tool's otherwise.")
    source: ToolSource | None = Field(default=None, description="Source; the agent's own tool's otherwise.")
    risk: float | None = Field(default=None, ge=0, allow_inf_nan=False, description="Risk of the tool.")
    args: JsonObject = Field(default={}, description="Its arguments.")


class ExampleRun(Spec):
    """Earlier work of a run before an example's call; what is left out is as at the beginning of a run."""

    requester: str | None = Field(default=None, description="Who asked for the run.")
    speaker: str | None = Field(default=None, description="Who said the newest message; the requester if left out.")
    labels: dict[str, str] = Field(default={}, description="Labels of the run.")
    depth: int = Field(default=0, ge=0, description="0 for a run that nobody's agent started.")
    step: int = Field(default=1, ge=0, description="Model calls answered so far.")
    cost_usd: float = Field(default=0.0, ge=0, description="Money spent so far.")
    budget_left_usd: float | None = Field(
        default=None, ge=0, allow_inf_nan=False, description="Money left of the limit; left out: it is not limited."
    )
    tokens: int = Field(default=0, ge=0, description="Tokens of all model calls so far.")
    period_cost_usd: float = Field(
        default=0.0, ge=0, allow_inf_nan=False, description="Money spent in this period of a budget beyond the run."
    )
    now: AwareDatetime | None = Field(default=None, description="The time, for example `2026-11-02T09:00:00Z`.")
    tainted: bool = Field(default=False, description="Whether content of an untrusted tool has been read.")
    calls: dict[str, NonNegativeInt] = Field(default={}, description="Calls so far, by tool.")
    totals: dict[str, dict[str, FiniteFloat]] = Field(
        default={}, description="Sums so far, by tool and numeric argument."
    )


class Example(Spec):
    """A call, the facts of its run, and the verdict that the policy must give; `mandate validate` runs it."""

    name: str = Field(min_length=1, description="What it shows.")
    call: ExampleCall = Field(description="The call.")
    run: ExampleRun = Field(default=ExampleRun(), description="What the run has done before.")
    agent: str | None = Field(default=None, description="Name of the agent; any if left out.")
    verdict: Literal["allow", "ask", "deny"] = Field(description="What must become of it.")
    rule: str | None = Field(default=None, description="The rule that must decide it.")


class PolicySpec(Spec):
    """A shared policy file: rules that several agents name in their `policies`."""

    name: Name = Field(description="What agents call it; the name of its file without `.yaml`.")
    description: str | None = Field(default=None, description="What it is for.")
    rules: tuple[Rule, ...] = Field(min_length=1, description="Rules, merged with those of the agent file.")
    examples: tuple[Example, ...] = Field(default=(), description="Calls and the verdicts that they must get.")

    @field_validator("rules")
    @classmethod
    def _rule_ids_differ(cls, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        refuse(
            [
                ((again, "id"), f"{name!r} is the id of rules[{first}] too; each rule has its own")
                for again, name, first in find_repeated([rule.id for rule in rules])
            ]
        )
        return rules


class ToolTotals(Record):
    """Totals of the calls of one tool in a run, the denied and failed ones left out."""

    calls: int = 0
    sums: dict[str, Decimal] = {}
    """By numeric argument; exact."""


class RunFacts(Record):
    """Facts of a run that conditions see as `run`, without the call that is judged."""

    id: str
    """First run id of the chain."""
    agent: str
    """Seen as `agent.name`."""
    version: str
    """Seen as `agent.version`."""
    requester: str | None = None
    speaker: str | None = None
    """The author of the newest message of a session; the requester of any other run."""
    labels: dict[str, str] = {}
    depth: int = 0
    """0 for a run that no agent started."""
    step: int = 0
    cost_usd: Decimal = Decimal(0)
    budget_left_usd: Decimal | None = None
    """Neither spent nor held; `None` where money is not limited."""
    tokens: int = 0
    period_cost_usd: Decimal = Decimal(0)
    """Of the budget beyond the run that has the least left."""
    now: AwareDatetime
    tainted: bool = False
    totals: dict[str, ToolTotals] = {}
    """By tool; seen as `run.calls.NAME` and `run.totals.NAME.ARGUMENT`."""


class Reading(Record):
    """One rule as it was read for a call."""

    rule: str
    verdict: Literal["allow", "ask", "deny"]
    matched: bool
    why: str
    """In words: which key of `match` did not fit, what the condition came to, or why it could not be evaluated."""


class Verdict(Record):
    """Verdict on one call."""

    kind: Literal["allow", "ask", "deny"]
    rule: str | None = None
    """The rule that decided, or `None` when none matched."""
    reason: str
    """One sentence for people and for the model."""
    asking: tuple[str, ...] = ()
    """Ids of all rules that ask, for `ask`; each of them must be satisfied."""

    @property
    def allowed(self) -> bool:
        return self.kind == "allow"
