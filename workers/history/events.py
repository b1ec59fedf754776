"""Events of a run, as people are told them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.request import Request
from mandate.workflows.contracts.run import RunResult
from mandate.workflows.contracts.tool import CallRequest, ToolResult
from mandate.workflows.contracts.verification import Finding

CallState = Literal[
    "waiting", "running", "done", "failed", "refused", "misfit", "unknown", "cancelled", "stopped", "not made"
]
"""At its run's end a call that is going on becomes `stopped` if it only reads, else `unknown`; one that waits becomes
`not made`."""


@dataclass(slots=True)
class Call:
    """One call of the turn at the head."""

    request: CallRequest
    line: str
    """Name and arguments in one line, sensitive ones hidden."""
    key: str | None
    """Idempotency key; `None` for reads."""
    state: CallState = "waiting"
    result: ToolResult | None = None
    attempts: int = 1
    """Number of the last attempt, from 1; known, with what follows, when it is over."""
    worker: str = ""
    """The worker of the last attempt, as workers name themselves to Temporal."""
    begun_at: datetime | None = None
    """Time when the last attempt began."""
    done_at: datetime | None = None

    @property
    def is_made(self) -> bool:
        """True if it got as far as its tool, which calls that are refused or do not fit never do."""
        return self.state not in {"waiting", "refused", "misfit", "not made"}


@dataclass(frozen=True, slots=True)
class ModelAsked:
    """A model is being asked."""

    step: int
    line: str


@dataclass(frozen=True, slots=True)
class ModelAnswered:
    """A model has answered; with `note`, how its answer cannot be taken or that none came."""

    step: int
    text: str
    """The beginning only when it also makes calls."""
    note: str | None = None
    final: bool = False
    """There are no calls: it is the answer, or an attempt at one."""


@dataclass(frozen=True, slots=True)
class CallStarted:
    """A call has begun."""

    step: int
    call: Call


@dataclass(frozen=True, slots=True)
class CallReturned:
    """A call has its answer, or was refused."""

    step: int
    call: Call


@dataclass(frozen=True, slots=True)
class CallProbed:
    """A probe has looked up whether a call with an unknown outcome has happened."""

    step: int
    call: Call
    probe: str
    """The tool that was asked."""
    outcome: Outcome
    reason: str


@dataclass(frozen=True, slots=True)
class ResultChecked:
    """A check of a call's result or of the final answer is over."""

    step: int
    check: str
    finding: Finding
    reason: str
    call: Call | None
    """`None` for the final answer."""


@dataclass(frozen=True, slots=True)
class RequestOpened:
    """A request that is opened, repeated as a reminder, or passed to other people."""

    step: int
    request: Request
    occasion: Literal["asked", "reminder", "escalated"]


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A message of somebody to the run, or the lack of one in time."""

    step: int
    line: str
    """Speaker and words, in one sentence."""
    counts: bool = True
    """True if it is what the person wanted."""


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The run is over, or goes on as `continued_as`."""

    status: str
    """A `RunStatus`, or `failed`, `cancelled`, `terminated`, `timed_out` or `continued_as_new`."""
    reason: str | None = None
    result: RunResult | None = None
    bad_input: bool = False
    continued_as: str | None = None


Happening = (
    ModelAsked
    | ModelAnswered
    | CallStarted
    | CallReturned
    | CallProbed
    | ResultChecked
    | RequestOpened
    | MessageReceived
    | RunEnded
)
