"""Budgets: limits of one run, and the ledger of what it has used and holds."""

from datetime import timedelta
from decimal import Decimal
from typing import Literal, Self

from pydantic import AwareDatetime, ConfigDict, Field, model_validator

from mandate.workflows.contracts.base import Duration, JsonObject, PositiveMoney, Record, Spec, Usd

Limit = Literal["steps", "model_calls", "tool_calls", "tokens", "cost_usd", "wall_time", "work_time"]
"""A limit that one run can use up by itself."""


class BudgetRequest(Spec):
    """Limits of one run as a start request gives them: they lower the agent's, and never raise them."""

    steps: int | None = Field(
        default=None, strict=True, ge=1, le=1_000_000, description="Answers of the model that the run may have."
    )
    model_calls: int | None = Field(
        default=None,
        strict=True,
        ge=1,
        le=1_000_000,
        description="Model calls that are answered or may be billed, those of checks and summaries too: what a "
        "provider refuses, or fails at for certain, is not billed and does not count.",
    )
    tool_calls: int | None = Field(
        default=None, strict=True, ge=0, le=1_000_000, description="Calls of tools that may be made."
    )
    tokens: int | None = Field(
        default=None,
        strict=True,
        ge=1,
        le=10**12,
        description="Tokens of all model calls, input and output, cached ones included.",
    )
    cost_usd: PositiveMoney | None = Field(
        default=None, description='US dollars for all model calls, as a text: `"2.00"`.'
    )
    wall_time: Duration | None = Field(default=None, description="Time since the start, for example `2h`.")
    work_time: Duration | None = Field(
        default=None, description="Time since the start without waiting for people and pauses, for example `20m`."
    )
    depth: int | None = Field(
        default=None, strict=True, ge=0, le=20, description="Levels of children below the run; 0 allows no children."
    )
    children: int | None = Field(
        default=None, strict=True, ge=0, le=10_000, description="Children that the run may start."
    )


class Budget(BudgetRequest):
    """Upper bounds on one run; a limit that the agent file leaves out has its default, or is none."""

    steps: int = Field(
        default=40,
        strict=True,
        ge=1,
        le=1_000_000,
        description="Answers of the model that a run may have, retries not counted.",
    )
    when_used_up: Literal["answer", "ask", "stop"] = Field(
        default="answer",
        description="What happens as a limit is reached: the model gives a last answer from what it has, for which "
        "enough is kept back; people are asked to raise it; or the run ends.",
    )
    raise_at_most: BudgetRequest | None = Field(
        default=None, description="With `when_used_up: ask`: limits that people may raise it to; left out, any."
    )

    @model_validator(mode="after")
    def _raises_are_asked_for(self) -> Self:
        if self.raise_at_most is not None and self.when_used_up != "ask":
            raise ValueError("'raise_at_most' belongs to 'when_used_up: ask'")
        return self


class Amount(Record):
    """Calls, tokens and money that model calls and children take."""

    model_calls: int = 0
    tokens: int = 0
    cost_usd: Usd = Decimal(0)
    tool_calls: int = 0
    """Of children; the run's own are counted by themselves."""

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(
            model_calls=self.model_calls + other.model_calls,
            tokens=self.tokens + other.tokens,
            cost_usd=self.cost_usd + other.cost_usd,
            tool_calls=self.tool_calls + other.tool_calls,
        )

    def __sub__(self, other: "Amount") -> "Amount":
        return Amount(
            model_calls=self.model_calls - other.model_calls,
            tokens=self.tokens - other.tokens,
            cost_usd=self.cost_usd - other.cost_usd,
            tool_calls=self.tool_calls - other.tool_calls,
        )


class Ledger(Record):
    """Account of what a run has used and what it holds for calls in flight; the run is its only writer."""

    model_config = ConfigDict(frozen=False)

    spent: Amount = Amount()
    assumed: Amount = Amount()
    """The part of `spent` that nobody has reported: calls whose answers were lost count as they were reserved."""
    held: dict[str, Amount] = {}
    """By call: `model` for the model's turn, the name of a check for a model that judges, `child 3` for a child."""
    tool_calls: int = 0
    """Calls of the run itself that were made, and those that were not because of the limit."""
    began_at: AwareDatetime | None = None
    waited: timedelta = timedelta(0)
    """Time so far in which the run was paused, or only waited for people."""
    waits_since: AwareDatetime | None = None
    """Begin of such a time that is not over."""
    used_up: str = ""
    """Why the model was told to give its last answer, in one sentence; empty before."""

    @property
    def is_answering(self) -> bool:
        """True if the model was told to give its last answer."""
        return bool(self.used_up)


class LimitUse(Record):
    """Use of one thing that a run may be limited in: whole numbers, and texts for money and time."""

    limit: int | str | None
    """`None` where the run has no such limit."""
    spent: int | str
    """All that counts as used, the assumed part included."""
    assumed: int | str
    """The part of it that nobody has reported."""
    held: int | str
    """Reserved for calls that are under way."""
    left: int | str | None
    """The limit without what is spent and held."""


class BudgetUse(Record):
    """Budget of a run as people see it."""

    limits: JsonObject
    """Limits of the run as they are by now, as they are written in agent files."""
    use: dict[Limit, LimitUse]
    used_up: str = ""
    """Why the model was told to give its last answer, in one sentence."""
    period_cost_usd: str | None = None
    """Spent and held in the current period of the budget beyond the run that has the least left, as last known."""


class Grant(Record):
    """Share of the budget that one model call may take; the activity sends nothing that needs more.

    A failure `NeedsMore` tells how much input the request really has; nothing was sent then.
    """

    input_tokens: int
    output_tokens: int
    attempts: int = 1
    """Attempts that may be billed: each one beyond the first needs as much again."""
