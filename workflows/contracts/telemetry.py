"""Telemetry of a run, as its workflow code tells it to the worker: plain values without texts of people or models."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypedDict

from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.model import Usage

NOTHING = Usage()


@dataclass(frozen=True, slots=True)
class RunIdentity:
    """One part of a run, from its start to its end or to where it continues as new."""

    namespace: str
    workflow_id: str
    run_id: str
    caller: str = ""
    """Trace context of whoever started it, as a W3C `traceparent`."""
    previous: str = ""
    """The same of the part before, whose run continued as new."""


@dataclass(frozen=True, slots=True)
class RunBegun:
    agent: str
    version: str
    is_plan: bool = False
    is_child: bool = False
    is_continued: bool = False
    """It is a further part of a run."""
    depth: int = 0
    open: Mapping[str, "RequestAsked"] = field(default_factory=dict)
    """Requests that were open when the part before ended, by id."""


@dataclass(frozen=True, slots=True)
class RunEnded:
    agent: str
    version: str
    outcome: str
    """A status of a result; or `failed`, `cancelled`, `continued` as new."""
    steps: int = 0
    usage: Usage = NOTHING
    began_at: datetime | None = None
    uncertain: int = 0
    is_plan: bool = False


@dataclass(frozen=True, slots=True)
class ModelCalled:
    agent: str
    step: int
    model: str
    """`provider:model`."""
    finish: str = ""
    usage: Usage = NOTHING
    latency: float = 0.0
    lost: int = 0
    """Attempts before whose answers were lost."""
    is_cut: bool = False
    is_last: bool = False
    calls: int = 0
    """Calls of tools that it asks for."""
    error: str = ""
    """Type of the failure that gave no answer."""


@dataclass(frozen=True, slots=True)
class CallJudged:
    agent: str
    step: int
    index: int
    tool: str
    verdict: Literal["allow", "ask", "deny"]
    rule: str | None
    arguments_digest: str
    is_refused: bool = False
    """No rule refuses it: the same call failed before, or people have rejected it."""


@dataclass(frozen=True, slots=True)
class ToolCalled:
    agent: str
    step: int
    index: int
    tool: str
    source: str
    effect: str
    outcome: str
    attempts: int
    is_error: bool = False
    is_local: bool = False
    is_cached: bool = False
    arguments_digest: str = ""
    result_digest: str = ""
    result_size: int | None = None
    key: str = ""
    """Idempotency key."""
    arguments: JsonObject | None = None
    """Where the agent file wants them recorded; sensitive ones are references even here."""
    result: str | None = None
    """The same of the beginning of the result."""


@dataclass(frozen=True, slots=True)
class ProbeMade:
    agent: str
    step: int
    index: int
    tool: str
    """Whose outcome is unknown."""
    probe: str
    outcome: str


@dataclass(frozen=True, slots=True)
class CheckMade:
    agent: str
    step: int
    check: str
    kind: str
    after: str
    finding: str
    usage: Usage = NOTHING
    index: int | None = None


@dataclass(frozen=True, slots=True)
class RequestAsked:
    agent: str
    request: str
    kind: str
    digest: str
    tool: str | None
    step: int
    asked_at: datetime
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RequestClosed:
    agent: str
    request: str
    kind: str
    outcome: str
    asked_at: datetime
    tool: str | None = None


@dataclass(frozen=True, slots=True)
class RequestEscalated:
    agent: str
    request: str
    kind: str


@dataclass(frozen=True, slots=True)
class DecisionTaken:
    agent: str
    request: str
    kind: str
    choice: str
    via: str
    counts: bool
    """False for one that was refused."""
    asked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ChildBegun:
    agent: str
    step: int
    index: int
    tool: str
    child: str
    """Workflow id."""
    name: str
    is_plan: bool


@dataclass(frozen=True, slots=True)
class ChildEnded:
    agent: str
    step: int
    index: int
    tool: str
    child: str
    status: str
    usage: Usage = NOTHING


@dataclass(frozen=True, slots=True)
class PlanAdvanced:
    agent: str
    step: int
    begun: int
    """Calls that begin now."""
    ended: int
    asked: int
    """Steps that have failed and of which people are asked."""
    is_over: bool


@dataclass(frozen=True, slots=True)
class MessageTaken:
    agent: str
    verb: str
    """`steer`, `pause`, `resume`, `stop` or `say`."""


Fact = (
    RunBegun
    | RunEnded
    | ModelCalled
    | CallJudged
    | ToolCalled
    | ProbeMade
    | CheckMade
    | RequestAsked
    | RequestClosed
    | RequestEscalated
    | DecisionTaken
    | ChildBegun
    | ChildEnded
    | PlanAdvanced
    | MessageTaken
)


@dataclass(frozen=True, slots=True)
class Noted:
    """A fact and its place in the trace of its run."""

    run: RunIdentity
    key: str
    """Unique in its run, and the same in each replay: the id of the span is made from it."""
    parent: str
    """Key of what caused it; empty for the run itself."""
    fact: Fact
    at: datetime
    began: datetime | None
    """`None` for what takes no time, or what would be held open over a wait."""
    event: int
    """Length of the history when its workflow task began."""
    is_replayed: bool


class TelemetryFunctions(TypedDict):
    """The function that a worker with telemetry offers to workflow code, by name."""

    mandate_note: Callable[[Noted], None]
