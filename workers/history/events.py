"""Events of a run, as people are told them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, cast

from pydantic import ValidationError
from temporalio import exceptions
from temporalio.api.common.v1 import Payload
from temporalio.api.history.v1 import HistoryEvent
from temporalio.converter import DataConverter
from temporalio.exceptions import ApplicationError, CancelledError

from mandate.workflows.contracts.failures import FailureType, Outcome
from mandate.workflows.contracts.plan import PlanResult
from mandate.workflows.contracts.request import Request
from mandate.workflows.contracts.run import RunResult
from mandate.workflows.contracts.tool import CallRequest, ToolResult
from mandate.workflows.contracts.verification import Finding
from mandate.workflows.rules import decisions, wording

BAD_INPUT = (FailureType.BAD_INPUT, FailureType.UNKNOWN_AGENT)

TITLE_CHARACTERS = 160

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
    is_made: bool = False
    """It got as far as its tool, which no call does that is refused, does not fit, or is answered by the run."""


@dataclass(frozen=True, slots=True)
class ModelAsked:
    """A model is being asked."""

    step: int
    line: str
    model: str = ""
    why: str = ""
    """Why it is this model, where another one or none was asked before."""


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

    @property
    def line(self) -> str:
        """The request in one line: who is asked what, and until when."""
        request = self.request
        who = ", ".join(request.waits_for)
        title = wording.shorten(request.title, TITLE_CHARACTERS)
        what = f"{title} ({request.id}, until {decisions.format_time(request.expires_at)})"
        match self.occasion:
            case "asked":
                return f"asks {who}: {what}"
            case "escalated":
                return f"asks {who} now, since nobody has answered: {what}"
            case "reminder":
                return f"still waits for {who}: {what}"


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


async def ended_by(event: HistoryEvent, converter: DataConverter) -> RunEnded | None:
    """Return how `event` ends the run; `None` when it does not."""
    match event.WhichOneof("attributes"):
        case "workflow_execution_completed_event_attributes":
            return await _completed(event.workflow_execution_completed_event_attributes.result.payloads, converter)
        case "workflow_execution_failed_event_attributes":
            error = await converter.decode_failure(event.workflow_execution_failed_event_attributes.failure)
            return RunEnded("failed", describe_failure(error), bad_input=getattr(error, "type", None) in BAD_INPUT)
        case "workflow_execution_canceled_event_attributes":
            return RunEnded("cancelled")
        case "workflow_execution_terminated_event_attributes":
            return RunEnded("terminated", event.workflow_execution_terminated_event_attributes.reason or None)
        case "workflow_execution_timed_out_event_attributes":
            return RunEnded("timed_out", "it took longer than its time limit")
        case "workflow_execution_continued_as_new_event_attributes":
            following = event.workflow_execution_continued_as_new_event_attributes.new_execution_run_id
            return RunEnded("continued_as_new", continued_as=following)
    return None


async def _completed(payloads: Sequence[Payload], converter: DataConverter) -> RunEnded:
    try:
        (result,) = await converter.decode(payloads, [cast(type[RunResult], RunResult | PlanResult)])
    except (ValidationError, ValueError, RuntimeError):
        return RunEnded("completed", "its result is not one of Mandate's")
    return RunEnded(str(result.status), result.reason, result)


def describe_failure(error: BaseException | None) -> str:
    """Return what a failure says: the first of our own making, else its cause."""
    if isinstance(error, CancelledError):
        return "cancelled"
    while error is not None and error.__cause__ is not None and not isinstance(error, ApplicationError):
        error = error.__cause__
    if isinstance(error, exceptions.TimeoutError):
        # Its own words are about options of Temporal.
        return "it had no answer in its time"
    return getattr(error, "message", None) or str(error or "no reason is known")
