"""Events of the steps of a plan, as people are told them."""

from dataclasses import dataclass
from decimal import Decimal

from mandate.workflows.contracts.plan import PlanStep, StepStatus


@dataclass(frozen=True, slots=True)
class StepBegun:
    """The first call of a step has begun."""

    step: PlanStep
    items: int | None = None
    """Of a `for_each`."""


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """A call of a step has failed and is made again."""

    step: PlanStep
    index: int | None
    """The item, of a `for_each`."""
    attempt: int
    """The one that failed."""
    reason: str


@dataclass(frozen=True, slots=True)
class ItemEnded:
    """An item of a `for_each` has ended, and how far all of them are."""

    step: PlanStep
    index: int
    reason: str | None
    """Why it failed; `None` for one that has ended well."""
    output: str
    """Its beginning."""
    cost_usd: Decimal
    """Of all items so far."""
    items: int
    completed: int
    failed: int

    @property
    def ended(self) -> int:
        return self.completed + self.failed


@dataclass(frozen=True, slots=True)
class StepEnded:
    """A step has ended, with or without a call."""

    step: PlanStep
    status: StepStatus
    reason: str | None
    output: str
    """Its beginning; empty for a `for_each`."""
    cost_usd: Decimal
    attempts: int
    items: int | None = None
    completed: int = 0
    failed: int = 0


StepEvent = StepBegun | AttemptFailed | ItemEnded | StepEnded
