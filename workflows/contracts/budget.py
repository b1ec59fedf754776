"""Limits of one run."""

from pydantic import Field

from mandate.workflows.contracts.base import Spec


class Budget(Spec):
    """Upper bounds on one run; a limit that the agent file leaves out has its default."""

    unavailable = ("model_calls", "tool_calls", "tokens", "cost_usd", "wall_time", "depth", "children")

    steps: int = Field(default=40, ge=1, le=1_000_000, description="Model calls that may be made, retries not counted.")


class BudgetRequest(Spec):
    """A start request may lower the agent's limits, never raise them."""

    steps: int | None = Field(default=None, ge=1, description="Model calls that this run may make.")
