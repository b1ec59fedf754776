"""Plans: steps of agents, tools and plans as data, with what each needs of others; and how one went."""

from decimal import Decimal
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, JsonValue, field_validator, model_validator

from mandate.workflows.contracts.base import Digest, Duration, JsonObject, Name, Record, Spec, Usd
from mandate.workflows.contracts.budget import Budget, BudgetRequest
from mandate.workflows.contracts.faults import find_repeated, given_twice, refuse
from mandate.workflows.contracts.policy import Asking, Rule
from mandate.workflows.contracts.request import By
from mandate.workflows.contracts.run import Label, RunResult, RunStatus
from mandate.workflows.contracts.tool import CallRequest, ToolResult
from mandate.workflows.contracts.tool_entry import ToolEntry
from mandate.workflows.contracts.verification import CheckSpec

MOST_STEPS = 2000
"""Steps of one plan, as it is written."""

MOST_ASKED = 20
"""Failed calls of a plan of which people are asked at once."""

MOST_PLANNED = 200
"""Steps of one plan that a model writes."""

MOST_ITEMS = 2000
"""Items of one `for_each`."""

SIDE_BY_SIDE = 50
"""Calls of a plan that are under way at once where it does not say."""

MOST_SIDE_BY_SIDE = 500


def _refuse_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty; leave the key out")
    return text


Expression = Annotated[str, Field(max_length=4000), AfterValidator(_refuse_blank)]
"""CEL over `input` and `steps`: `steps.find.output.order`; in a `for_each` also over `item` and `index`."""


STEP = "step"
"""What checks of a step come after: its own calls."""


def _fill_after(checks: object) -> object:
    """Return checks of a step as those of an agent file, which say what they come after."""
    if not isinstance(checks, list | tuple):
        return checks
    refuse(
        [
            ((index, "after"), "belongs to the checks of a plan; one of a step comes after each of its calls")
            for index, check in enumerate(checks)
            if isinstance(check, dict) and "after" in check and check["after"] != STEP
        ]
    )
    return tuple({**check, "after": STEP} if isinstance(check, dict) else check for check in checks)


class PlanStep(Spec):
    """One step: a call of an agent, a tool or another plan, once or for each item of a list."""

    id: Name = Field(description="What other steps call it: `steps.<id>`.")
    agent: Name | None = Field(default=None, description="An agent that does it, of an agent file.")
    tool: Name | None = Field(default=None, description="A tool that does it, one of the plan's.")
    plan: Name | None = Field(default=None, description="A plan that does it, of a plan file.")
    input: Expression | dict[str, Expression] | None = Field(
        default=None,
        description="What it is asked, in CEL: one text or object, or a mapping with CEL for each argument. Left out: "
        "the plan's input; with `for_each`, the item.",
    )
    depends_on: tuple[Name, ...] = Field(
        default=(), description="Steps that must have ended well, beside those that its expressions name."
    )
    for_each: Expression | None = Field(
        default=None, description="A list in CEL: the step is made for each of its items, known as `item` and `index`."
    )
    max_parallel: int | None = Field(
        default=None, ge=1, le=MOST_SIDE_BY_SIDE, description="With `for_each`: items that are under way at once."
    )
    needs: int | None = Field(
        default=None, ge=0, le=MOST_ITEMS, description="With `for_each`: items that must end well; all if left out."
    )
    when: Expression | None = Field(
        default=None, description="The step is skipped, and those that need it are not, unless this holds."
    )
    success: Expression | None = Field(
        default=None, description="A condition over `output` of the step: one that does not hold is a failure."
    )
    attempts: int = Field(
        default=1, ge=1, le=20, description="Times that it is made until it ends well; an agent is told what failed."
    )
    on_failure: Literal["skip", "stop", "continue", "ask"] = Field(
        default="skip",
        description="What happens when it has failed: those that need it are skipped; the plan ends; those that need "
        "it go on, with `null` as its output; or people are asked how it goes on.",
    )
    checks: Annotated[tuple[CheckSpec, ...], BeforeValidator(_fill_after)] = Field(
        default=(), description="What the result of each of its calls must pass; as in agent files, without `after`."
    )
    output_schema: JsonObject | None = Field(
        default=None, description="JSON Schema of its output, which expressions of others are checked against."
    )
    budget: BudgetRequest = Field(
        default=BudgetRequest(), description="Limits of one run of an agent or a plan, reserved of those of the plan."
    )
    timeout: Duration | None = Field(default=None, description="Longest time of one run of an agent or a plan.")

    @property
    def target(self) -> str:
        """The name of the agent, tool or plan that does it."""
        return self.agent or self.tool or self.plan or ""

    @model_validator(mode="after")
    def _keys_fit_together(self) -> Self:
        given = [key for key in ("agent", "tool", "plan") if getattr(self, key) is not None]
        found: list[tuple[tuple[str | int, ...], str]] = []
        if len(given) != 1:
            has = f"has {' and '.join(given)}" if given else "has none of them"
            found.append(((), f"a step has exactly one of 'agent', 'tool' and 'plan'; this one {has}"))
        if self.for_each is None:
            found += [
                ((key,), "belongs to a step with 'for_each'")
                for key in ("max_parallel", "needs")
                if getattr(self, key) is not None
            ]
        if self.tool is not None:
            found += [
                ((key,), "belongs to steps of agents and plans; a tool has its own settings")
                for key, default in (("budget", BudgetRequest()), ("timeout", None))
                if getattr(self, key) != default
            ]
        refuse([*found, *((("depends_on", *place), message) for place, message in given_twice(self.depends_on))])
        return self


class PlanSpec(Spec):
    """A plan, as a file, as data of a program, or as an agent has made it."""

    name: Name = Field(description="What a start request calls it.")
    description: str | None = Field(default=None, max_length=2000, description="What it is for.")
    pattern: Literal["debate"] | None = Field(
        default=None,
        description="The pattern that it follows, where `mandate validate` warns of what that breaks at.",
    )
    input_schema: JsonObject | None = Field(default=None, description="JSON Schema of its input; any if left out.")
    steps: tuple[PlanStep, ...] = Field(min_length=1, max_length=MOST_STEPS, description="Its steps, in any order.")
    output: Expression | None = Field(
        default=None,
        description="The plan's output in CEL; left out: the output of the step that no other needs, or an object of "
        "all such steps.",
    )
    max_parallel: int = Field(
        default=SIDE_BY_SIDE, ge=1, le=MOST_SIDE_BY_SIDE, description="Calls that are under way at once."
    )
    tools: tuple[ToolEntry, ...] = Field(default=(), description="Tools that its steps may name, as in agent files.")
    policy: tuple[Rule, ...] = Field(default=(), description="Rules over its calls, and those of all below it.")
    policies: tuple[Name, ...] = Field(default=(), description="Shared policy files whose rules count too.")
    people: Asking = Field(default=Asking(), description="How people are asked where no rule says it.")
    requester: Literal["required", "anyone"] | None = Field(default=None, description="As in agent files.")
    checks: tuple[CheckSpec, ...] = Field(default=(), description="What results of its tools and agents must pass.")
    budget: Budget = Field(default=Budget(steps=1_000_000), description="Limits of one run of it, all below included.")

    @field_validator("steps")
    @classmethod
    def _ids_differ(cls, steps: tuple[PlanStep, ...]) -> tuple[PlanStep, ...]:
        refuse(
            [
                ((again, "id"), f"{name!r} is the id of steps[{first}] too; each step has its own")
                for again, name, first in find_repeated([step.id for step in steps])
            ]
        )
        return steps

    def step(self, id: str) -> PlanStep:  # noqa: A002 - the steps' own word
        """Return the step of an id that is there."""
        return next(step for step in self.steps if step.id == id)


class PlanRequest(Spec):
    """The one argument of `PlanWorkflow`."""

    plan: Name | PlanSpec = Field(description="Name of a plan file of the workers, or a plan of agents as data.")
    input: JsonValue = Field(default=None, description="What the plan is asked.")
    requester: By | None = Field(default=None, description="Who asks.")
    labels: dict[Label, Label] = Field(default={}, max_length=20, description="For finding the run again.")
    budget: BudgetRequest | None = Field(default=None, description="Lower limits than the plan's.")
    tainted: bool = Field(default=False, description="As in a start of an agent.")
    token: str | None = Field(default=None, max_length=8192, repr=False, description="As in a start of an agent.")


StepStatus = Literal["waiting", "running", "completed", "failed", "skipped", "stopped"]


class StepResult(Record):
    """End of one step; of a `for_each`, of all its items."""

    id: Name
    status: StepStatus
    output: JsonValue = None
    """Whole where it is short; its beginning beside a digest."""
    output_digest: Digest | None = None
    reason: str | None = None
    """Why it failed or was skipped, in one sentence."""
    cost_usd: str = "0"
    attempts: int = 0
    items: int | None = None
    """Of a `for_each`."""
    completed: int = 0
    """Items that have ended well."""
    failed: int = 0


class PlanResult(RunResult):
    """Result of a plan: under 32 KiB, readable without Mandate; every key is always there."""

    steps: tuple[StepResult, ...] = ()
    """As far as there is room; `mandate plan show` has all."""
    steps_digest: Digest | None = None
    """Address of the whole list, as JSON."""


class EndedCall(Record):
    """A call of a plan that has its answer."""

    number: int
    """Its position among all calls of the plan."""
    answer: ToolResult
    cost_usd: Usd = Decimal(0)


class StepAsk(Record):
    """A step that has failed, of which people are asked how it goes on."""

    call: str
    """Label of its last call."""
    reason: str
    tried: tuple[str, ...] = ()
    """Why each of its last attempts failed."""
    has_output: bool = True
    """Its last attempt came to something that can be accepted as it is."""

    @property
    def step(self) -> str:
        """Id of the step: the label goes on with the item and the attempt."""
        return self.call.partition("#")[0].partition("[")[0]


class StepSettled(Record):
    """Choice of a person on a step that has failed."""

    call: str
    """As of `StepAsk`."""
    choice: Literal["retry", "accept", "supply", "expired"]
    text: str = ""
    """With `retry`: what they tell whoever makes it again; with `expired`: why nobody chose."""
    answer: ToolResult | None = None
    """With `supply`: what takes the place of its output."""


class AdvanceRequest(Record):
    """Input of `advance_plan`: take in what has ended, and say what to begin."""

    agent: Digest
    head: Digest
    ended: tuple[EndedCall, ...] = ()
    settled: tuple[StepSettled, ...] = ()
    step: int
    is_stopping: bool = False
    """Nothing is begun any more."""
    is_closing: bool = False
    """It ends now, whatever is under way."""
    is_child: bool = False
    """Its output goes to the run above."""


class PlanEnd(Record):
    """End of a plan."""

    status: RunStatus
    output: ToolResult | None = None
    reason: str | None = None
    steps: tuple[StepResult, ...] = ()
    """As of `PlanResult`."""
    steps_digest: Digest | None = None


class PlanMove(Record):
    """Output of `advance_plan`."""

    head: Digest
    calls: tuple[CallRequest, ...] = ()
    """To begin now: their positions follow those of the calls before them."""
    asks: tuple[StepAsk, ...] = ()
    """Steps of which people are to be asked, or are."""
    end: PlanEnd | None = None
    doing: str = ""
    """How far it is, in words."""
    quick: bool = False
    """It was found within `QUICK_SECONDS`."""


class PlanState(Record):
    """A plan under way, in the state of its run."""

    model_config = ConfigDict(frozen=False)

    pending: tuple[int, ...] = ()
    """Calls whose answers the plan has not taken in, by position."""
    costs: dict[int, Usd] = {}
    """Of children among these that have reported."""
    made: int = 0
    """Calls so far, in a state on its way to the next part of the run; there is no place then for those taken in."""
    kept: tuple[int, ...] = ()
    """Positions of the calls that are in such a state."""
    asking: dict[str, str] = {}
    """Requests about steps that have failed, by the labels of their last calls."""
