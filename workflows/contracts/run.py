"""A run from outside: how it is started, what it returns, and what survives of it."""

import json
from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import Field, JsonValue, StringConstraints, field_validator

from mandate.workflows.contracts.base import Digest, JsonObject, Name, Record, Spec, check_storable
from mandate.workflows.contracts.budget import BudgetRequest, BudgetUse
from mandate.workflows.contracts.model import Usage
from mandate.workflows.contracts.origin import ContinuesRequest
from mandate.workflows.contracts.request import By
from mandate.workflows.contracts.route import ModelName
from mandate.workflows.contracts.session import SessionRequest
from mandate.workflows.contracts.tool import ToolResult

Label = Annotated[str, StringConstraints(min_length=1, max_length=64)]

AGENT_WORKFLOW = "AgentWorkflow"
"""Workflow type of a run of an agent; clients rely on it."""

PLAN_WORKFLOW = "PlanWorkflow"
"""The same of a plan."""

TASK_QUEUE = "agents"
"""Task queue of `AgentWorkflow` and its activities unless a worker is told otherwise; clients rely on it."""

TASK_TIMEOUT = timedelta(seconds=10)
"""Time that a worker may take for one workflow task of a run, a replay of its history included.

What was handed to a worker as it died is handed out again after this. A task that takes longer is begun anew, with the
same replay; from the fourth time on the server gives it five seconds more, then ten, twenty and so on, so that a worker
that has too little of a processor gets through in the end.
"""

ATTRIBUTE_BYTES = 1900
"""Temporal takes at most 2 KiB of ASCII JSON for one search attribute, and ends a run that sets more."""


class RunRequest(Spec):
    """The one argument of `AgentWorkflow`."""

    agent: Name = Field(description="Name of an agent file of the workers.")
    input: str | JsonObject = Field(description="What the agent is asked: a text, or an object that it reads as JSON.")
    requester: str | None = Field(default=None, min_length=1, max_length=200, description="Who asks.")
    labels: dict[Label, Label] = Field(default={}, max_length=20, description="For finding the run again.")
    budget: BudgetRequest | None = Field(default=None, description="Lower limits than the agent file's.")
    model: ModelName | None = Field(
        default=None, description="Ask this model in place of the route; the agent says which ones it allows."
    )
    continues: ContinuesRequest | None = Field(
        default=None,
        description="Begin with the conversation of another run, for example {run: refunds-1a2b3c4d, step: 3}.",
    )
    session: SessionRequest | None = Field(
        default=None, description="Wait for more messages after each answer, for example {idle: 30m}."
    )
    tainted: bool = Field(
        default=False, description="The input comes from strangers: rules see `run.tainted` from the beginning."
    )
    token: str | None = Field(
        default=None,
        max_length=8192,
        repr=False,
        description="Signed token of the requester, where decisions on the agent's runs are signed.",
    )

    @field_validator("input")
    @classmethod
    def _says_something(cls, value: str | JsonObject) -> str | JsonObject:
        if not value or (isinstance(value, str) and not value.strip()):
            raise ValueError("must not be empty")
        check_storable(value)
        return value

    @field_validator("requester")
    @classmethod
    def _is_a_search_attribute(cls, value: str | None) -> str | None:
        if value is not None and len(json.dumps(value)) > ATTRIBUTE_BYTES:
            raise ValueError(f"is longer than a search attribute takes, {ATTRIBUTE_BYTES} bytes of JSON")
        return value

    @field_validator("labels")
    @classmethod
    def _fits_a_search_attribute(cls, value: dict[str, str]) -> dict[str, str]:
        size = len(json.dumps([f"{name}={text}" for name, text in value.items()]))
        if size > ATTRIBUTE_BYTES:
            raise ValueError(f"are {size} bytes of JSON together; at most {ATTRIBUTE_BYTES} are allowed")
        return value


class StartRequest(RunRequest):
    """A `RunRequest` as clients make it: who asks is named as whoever decides is.

    Runs read `RunRequest`, since those that began with other names go on; `pin_agent` refuses such names.
    """

    requester: By | None = Field(default=None, description="Who asks.")


class RunStatus(StrEnum):
    COMPLETED = "completed"
    STOPPED = "stopped"
    """By a person."""
    EXHAUSTED = "exhausted"
    """A limit was reached."""
    DECLINED = "declined"
    """It could not go on and nobody helped in time."""


class EffectEntry(Record):
    """One call that was sent out to change the world."""

    step: int
    tool: str
    call: str
    """Name and arguments in one line of up to 100 characters, sensitive ones hidden."""
    key: str
    """Idempotency key."""
    reason: str | None = None
    """The reason why its outcome is unknown, or how it became known after it was."""
    attempts: int = 1
    """Number of attempts it is known to have had; at least, where only the other side counts them."""
    undoes: str | None = None
    """Idempotency key of the call that this one took back."""
    run: str | None = None
    """Workflow id of the child that made it, or whose effects this entry stands for; `None` for the run's own."""
    count: int = 1
    """Effects that it stands for: a child's, which its own record has."""
    digest: Digest | None = None
    """Of the child's whole list."""


class EffectLog(Record):
    """The calls that changed the world: how many, the last 50, and the digest of them all."""

    count: int = 0
    digest: Digest | None = None
    """Of the previous digest and the newest entry, so that it covers the whole list."""
    last: tuple[EffectEntry, ...] = ()


class RunResult(Record):
    """Result of a run: under 32 KiB, readable without Mandate; every key is always there."""

    status: RunStatus
    output: JsonValue = None
    """The final answer: a text, or an object when the agent has an `output_schema`; `None` when there is none."""
    output_digest: Digest | None = None
    """Address of an answer over 16 KiB, of a child's over 128 bytes; `output` is then its beginning."""
    reason: str | None = None
    """The reason why it did not complete, in one sentence."""
    usage: Usage = Usage()
    head: Digest | None = None
    audit_head: Digest | None = None
    effects: EffectLog = EffectLog()
    uncertain: tuple[EffectEntry, ...] = ()
    """Calls whose outcome is unknown: they may have happened; those of children too."""
    output_size: int | None = None
    """UTF-8 bytes of the answer under `output_digest`."""
    tainted: bool = False
    """Content of an untrusted tool has entered its conversation, or a child's whose result it read."""


class Progress(Record):
    """Answer of the query `progress`."""

    agent: Name
    version: str
    doing: str
    """Current work, in words."""
    step: int
    head: Digest
    answers: tuple[ToolResult | None, ...]
    """Results of the turn at `head` so far; `None` for a call that is still open."""
    usage: Usage
    effects: EffectLog
    uncertain: tuple[EffectEntry, ...]
    recent: tuple[str, ...]
    model: str = ""
    """The one that is asked, or was asked last."""
    why_model: str = ""
    """Why it is that one, in words."""
    kept_in_mind: tuple[str, ...] = ()
    """What the model wants to be told whatever is left out."""
    budget: BudgetUse | None = None
    """`None` in runs that began before budgets were kept."""
