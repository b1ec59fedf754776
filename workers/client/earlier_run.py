"""The run that has a workflow id already, told to whoever wants to start another one under it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError
from temporalio.client import Client, WorkflowExecutionDescription, WorkflowExecutionStatus, WorkflowFailureError
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError

from mandate.workflows.contracts.run import RunResult
from mandate.workflows.rules import wording
from mandate.workflows.rules.decisions import format_time

REASON_CHARACTERS = 300

_ENDED = {"completed": "completed", "stopped": "was stopped", "cancelled": "was cancelled", "terminated": "was ended"}
"""Statuses in words; a run of any other status `ended as` that."""


@dataclass(frozen=True, slots=True)
class EarlierRun:
    """The newest run of a workflow id, as far as it is known."""

    workflow_id: str
    run_id: str
    status: str
    """`running`, `waiting`, `paused`; or how it ended: a `RunStatus`, `failed`, `cancelled`, `terminated`, `timed_out`.
    """
    started_at: datetime
    closed_at: datetime | None = None
    """`None` for a run that goes on."""
    reason: str | None = None
    """Why it did not complete, in one sentence."""
    result: RunResult | None = None
    """`None` for a run that goes on or left none."""

    @property
    def is_open(self) -> bool:
        return self.closed_at is None

    @property
    def sentence(self) -> str:
        """The status and since when, as a clause that goes on after `its run`."""
        if self.closed_at is None:
            return f"is going on, {self.status}, since {format_time(self.started_at)}"
        ended = _ENDED.get(self.status, f"ended as {self.status}")
        return f"{ended} at {format_time(self.closed_at)}{f' ({self.reason})' if self.reason else ''}"

    def to_json(self) -> dict[str, object]:
        """Return the run as programs read it."""
        return {
            "workflow_id": self.workflow_id,
            "run_id": self.run_id,
            "status": self.status,
            "started_at": self.started_at.isoformat(),
            "closed_at": self.closed_at.isoformat() if self.closed_at is not None else None,
            "reason": self.reason,
            "result": self.result.model_dump(mode="json") if self.result is not None else None,
        }


class UsedId(WorkflowAlreadyStartedError):
    """A workflow id that a run has, or had and that was to be its own; `run` is that run."""

    def __init__(self, error: WorkflowAlreadyStartedError, run: EarlierRun | None) -> None:
        super().__init__(error.workflow_id, error.workflow_type, run_id=error.run_id, first_run_id=error.first_run_id)
        self.run = run
        """`None` where the server does not tell of it."""

    def __str__(self) -> str:
        run, name = self.run, self.workflow_id
        if run is None:
            return f"the workflow id {name!r} is used already; again=True starts another run once that one has ended"
        if run.is_open:
            return f"the workflow id {name!r} is used: its run {run.sentence}; handle({name!r}) follows it"
        return (
            f"the workflow id {name!r} is used: its run {run.sentence}; handle({name!r}).result() reads it, and "
            "again=True starts another one"
        )


async def find_earlier_run(client: Client, workflow_id: str) -> EarlierRun | None:
    """Return the newest run of an id with its result; `None` where the server tells of none."""
    try:
        described = await client.get_workflow_handle(workflow_id).describe()
        return await _read(client, described)
    except RPCError:
        return None


async def _read(client: Client, described: WorkflowExecutionDescription) -> EarlierRun:
    name, run_id, status = described.id, described.run_id, described.status
    if status is None or described.close_time is None:
        return EarlierRun(name, run_id, _open_status(described), described.start_time)
    word = "cancelled" if status is WorkflowExecutionStatus.CANCELED else status.name.lower()
    reason: str | None = None
    result: RunResult | None = None
    if status in {WorkflowExecutionStatus.COMPLETED, WorkflowExecutionStatus.FAILED}:
        handle = client.get_workflow_handle(name, run_id=run_id, result_type=RunResult)
        try:
            result = await handle.result(follow_runs=False)
            word, reason = str(result.status), result.reason
        except WorkflowFailureError as error:
            reason = _describe(error.cause)
        except (ValidationError, ValueError, RuntimeError):
            reason = "its result is not one of Mandate's"
    reason = wording.shorten(reason, REASON_CHARACTERS) if reason else None
    return EarlierRun(name, run_id, word, described.start_time, described.close_time, reason, result)


def _open_status(described: WorkflowExecutionDescription) -> str:
    found: Any = described.search_attributes.get("AgentStatus")
    return str(found[0]) if found else "running"


def _describe(error: BaseException | None) -> str:
    while error is not None and error.__cause__ is not None and not isinstance(error, ApplicationError):
        error = error.__cause__
    return getattr(error, "message", None) or str(error or "no reason is known")
