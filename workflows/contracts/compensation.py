"""Compensation of a stopped run: the tool that takes a call back, and the calls that can be taken back."""

from pydantic import ConfigDict, Field

from mandate.workflows.contracts.base import Digest, Name, Record, Spec
from mandate.workflows.contracts.tool import ToolResult
from mandate.workflows.contracts.verification import Condition


class CompensationSpec(Spec):
    """The tool that takes a call back, and what it is called with."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    tool: Name = Field(description="A tool of the agent that changes the world.")
    arguments: dict[str, Condition] = Field(
        default={},
        alias="with",
        description="Its arguments, each in CEL over `args` and `result` of the call and its idempotency `key`.",
    )


class Compensable(Record):
    """A call that was done and has a compensation."""

    key: str
    """Its idempotency key."""
    tool: str
    line: str
    """The call in words."""
    head: Digest
    index: int
    edited: Digest | None = None
    """Address of the arguments that a person put in place of the model's."""
    result: ToolResult


class CompensationRequest(Record):
    """Input of `plan_compensation`: end the turn at `head`, and begin one that takes `calls` back in their order."""

    agent: Digest
    head: Digest
    results: tuple[ToolResult, ...] = ()
    """One for each call of the turn at `head`."""
    calls: tuple[Compensable, ...]
    step: int
