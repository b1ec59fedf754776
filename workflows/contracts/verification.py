"""Checks of what was done, and probes of what may have been done."""

from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, StringConstraints, field_validator, model_validator

from mandate.workflows.contracts.base import Digest, Duration, JsonObject, Name, Record, Spec
from mandate.workflows.contracts.budget import Grant
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.faults import given_twice, refuse
from mandate.workflows.contracts.model import Payer, Usage
from mandate.workflows.contracts.route import ModelName
from mandate.workflows.contracts.tool import ToolResult

FINAL = "final"
"""In `after`: the final answer."""

PYTHON_PATH = r"^[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"

Condition = Annotated[str, StringConstraints(min_length=1, max_length=4000)]
"""An expression in CEL."""

Finding = Literal["pass", "fail", "unable"]


class ProbeSpec(Spec):
    """Probe to find out if a call whose outcome is unknown has happened: a read tool and what its result means."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    tool: Name = Field(description="A read tool of the agent.")
    arguments: dict[str, Condition] = Field(
        default={}, alias="with", description="Its arguments, each in CEL over `args` of the call and its `key`."
    )
    done: Condition = Field(default="result.done == true", description="In CEL over `result` and `args`: it happened.")
    not_done: Condition = Field(
        default="result.done == false", description="In CEL over `result` and `args`: it did not happen."
    )
    absent: Condition | None = Field(
        default=None,
        description="In CEL over `result` and `args`: there is no trace of it. It did not happen, if this still holds "
        "at the end of `patience`. A 404 of an HTTP tool is `null`: `result == null`.",
    )
    patience: Duration = Field(
        default=timedelta(minutes=2), description="How long it is asked again while nothing is known."
    )


class CheckSpec(Spec):
    """One check: of a tool's result each time it was called, or of the final answer."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    name: Name | None = Field(default=None, description="Named in findings; made from `after` if left out.")
    after: Name = Field(description="Name of a tool, or `final` for the final answer.")
    when: Condition | None = Field(
        default=None, description="In CEL over `tool`, `args`, `agent` and `run`: only then, e.g. `tool.risk >= 0.5`."
    )
    python: Annotated[str, StringConstraints(pattern=PYTHON_PATH)] | None = Field(
        default=None, description="A function decorated with `@check`, as `module:function`."
    )
    tool: Name | None = Field(default=None, description="A read tool of the agent, with `with` and `expect`.")
    arguments: dict[str, Condition] = Field(
        default={}, alias="with", description="Its arguments, each in CEL over `args` of the call and its `key`."
    )
    expect: Condition | None = Field(
        default=None, description="In CEL over `result` and `args`; without `tool`, over the call's own result."
    )
    model: ModelName | None = Field(default=None, description="A model that judges by `rubric`.")
    models: tuple[ModelName, ...] = Field(
        default=(), description="In place of `model`: a route of its own; the next judges when one gives no verdict."
    )
    rubric: str | None = Field(default=None, min_length=1, max_length=8000, description="What must hold, in words.")
    result_schema: JsonObject | None = Field(
        default=None, alias="schema", description="JSON Schema that the result, read as JSON, must fit."
    )
    unable: Literal["fail", "pass"] = Field(default="fail", description="What it counts as when it cannot be made.")
    timeout: Duration = Field(default=timedelta(seconds=60), description="Longest time of one attempt.")
    retries: int = Field(default=2, ge=0, le=20, description="Attempts after the first while it cannot be made.")

    @property
    def kind(self) -> Literal["python", "tool", "expect", "model", "schema"]:
        if self.python is not None:
            return "python"
        if self.tool is not None:
            return "tool"
        if self.route:
            return "model"
        return "expect" if self.expect is not None else "schema"

    @property
    def route(self) -> tuple[ModelName, ...]:
        """The models that may judge, the preferred one first."""
        return (self.model,) if self.model is not None else self.models

    @field_validator("models")
    @classmethod
    def _models_differ(cls, models: tuple[ModelName, ...]) -> tuple[ModelName, ...]:
        refuse(given_twice(models))
        return models

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [
            name
            for name, value in (
                ("python", self.python),
                ("tool", self.tool),
                ("model", self.model),
                ("models", self.models or None),
                ("schema", self.result_schema),
            )
            if value is not None
        ]
        if len(given) > 1 or (not given and self.expect is None):
            raise ValueError(
                "a check has exactly one of 'python', 'tool', 'model', 'models', 'schema', or 'expect' alone"
            )
        if self.tool is not None and self.expect is None:
            raise ValueError("'tool' goes with 'expect', which says what its result must be")
        if self.expect is not None and given and given != ["tool"]:
            raise ValueError(f"'expect' goes with 'tool' or stands alone, not with {given[0]!r}")
        if self.arguments and self.tool is None:
            raise ValueError("'with' goes with 'tool'")
        if bool(self.route) != (self.rubric is not None):
            raise ValueError("'model' and 'rubric' go together")
        return self


class CheckPin(Record):
    """Check as the workflow holds it."""

    name: str
    after: str
    kind: Literal["python", "tool", "expect", "model", "schema"]
    when: str | None = None
    tool: str | None = None
    arguments: dict[str, str] = {}
    unable: Literal["fail", "pass"] = "fail"
    timeout: timedelta = timedelta(seconds=60)
    retries: int = 2
    models: tuple[ModelName, ...] = ()
    """The models that may judge."""


class ProbePin(Record):
    """Probe as the workflow holds it."""

    tool: str
    arguments: dict[str, str] = {}
    patience: timedelta = timedelta(minutes=2)


class CheckRequest(Record):
    """Input of `verify_result`: one check of one call of the turn at `head`, or of the final answer there."""

    agent: Digest
    check: str
    head: Digest
    step: int
    index: int | None = None
    """Index of the call; `None` for the final answer."""
    result: ToolResult | None = None
    """Result of the call."""
    edited: Digest | None = None
    """Address of the arguments that a person put in place of the model's."""
    key: str | None = None
    arguments: JsonObject = {}
    """Of the check's tool."""
    requester: str | None = None
    """As of `ToolRequest`, for the check's tool."""
    payer: Payer | None = None
    """As of `ModelRequest`."""
    grant: Grant | None = None
    """As of `ModelRequest`, for all models that may judge together."""


class CheckResult(Record):
    """Output of `verify_result`."""

    finding: Finding
    reason: str
    """One sentence for the model and for people."""
    usage: Usage = Usage()
    """Of a check by a model."""
    quick: bool = False
    """It was made within `QUICK_SECONDS`."""
    needed: int = 0
    """Tokens of the request, where it was not sent since less is reserved."""
    lost: int = 0
    """Model calls whose answers were lost: they may have been billed."""


class ProbeRequest(Record):
    """Input of `probe_call`: whether call `index` of the turn at `head` has happened."""

    agent: Digest
    head: Digest
    step: int
    index: int
    key: str
    edited: Digest | None = None
    arguments: JsonObject = {}
    """Of the probe's tool."""
    requester: str | None = None
    """As of `ToolRequest`, for the probe's tool."""


class Probed(Record):
    """Output of `probe_call`."""

    outcome: Outcome
    """`done`, `not_done` or `unknown`."""
    reason: str
    """One sentence: what the probe saw."""
    result: ToolResult | None = None
    """Last result of the probe's tool."""
