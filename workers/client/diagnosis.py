"""Diagnosis of a run that does not answer: its workflow task fails again and again, or is not done in time.

The server says the same sentence of both to who asks or tells the run something, and nearly so of a task queue that
nobody polls. The attempts of the task and the run's history tell them apart, by the first attempt: the SDK reports no
later failure, which then looks like a worker that was not done in time.
"""

import re
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, replace

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import WorkflowTaskFailedCause
from temporalio.api.failure.v1 import Failure
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflowservice.v1 import (
    DescribeWorkflowExecutionResponse,
    GetWorkflowExecutionHistoryReverseRequest,
)
from temporalio.client import Client
from temporalio.exceptions import FailureError
from temporalio.service import RPCError

from mandate.workers.client.pollers import describe_unserved, find_unserved
from mandate.workflows.contracts.failures import FailureType
from mandate.workflows.rules import wording

AGAIN = 3
"""Attempts from which on a workflow task fails again and again; from then on the server refuses queries and updates.
One that failed once may have met a worker that died, or a query that ran ahead of the history."""

TIMED_OUT = "TIMED_OUT"
"""Cause of a task that no worker finished in time, so far as the history says."""

MESSAGE_CHARACTERS = 300

PAGE, PAGES = 200, 25
"""Events that are looked through at most, newest first: messages may have come since the task failed for the first
time."""

_HARMLESS = {
    WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_RESET_WORKFLOW,
    WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_UNHANDLED_COMMAND,
    WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_FORCE_CLOSE_COMMAND,
}
"""The server fails a task like that itself, for what came meanwhile."""


RESET_PAGE = "deploy/docs/recovery.md"
"""Page that says how a run is reset."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A workflow task that is tried again and again."""

    attempt: int
    cause: str
    """`NON_DETERMINISTIC_ERROR` and the like, as Temporal names it; `TIMED_OUT` when no worker was done in time."""
    message: str
    """Of the failure; empty when it timed out."""
    event_id: int
    """Of the failed or timed out task in the history: what comes after it was not taken in yet."""
    reset_event_id: int | None = None
    """The workflow task to reset the run to, where its code does not do what the history has; `None` where unknown."""

    @property
    def is_failing(self) -> bool:
        """True if it is known that more patience mends nothing."""
        return self.cause != TIMED_OUT

    @property
    def sentence(self) -> str:
        """The diagnosis for a person, without a full stop."""
        if not self.is_failing:
            return (
                f"its workflow task is not done in time (attempt {self.attempt}): its workers are too busy for it, "
                "or it fails on them; their logs say which"
            )
        return (
            f"its workflow task fails again and again (attempt {self.attempt}): {self.message or self.cause}; "
            f"{RESET_PAGE} says how to reset it{f', to event {self.reset_event_id}' if self.reset_event_id else ''}"
        )

    def to_json(self) -> dict[str, int | str | None]:
        """Return the diagnosis as programs read it."""
        return asdict(self)


async def diagnose(client: Client, workflow_id: str, *, run_id: str | None = None) -> Diagnosis | None:
    """Return why a run does not answer; `None` when its workflow task is no reason, or nothing is known of the run."""
    try:
        described = await client.get_workflow_handle(workflow_id, run_id=run_id).describe()
        return await diagnose_described(client, described.raw_description)
    except RPCError:
        return None


async def explain_silence(client: Client, workflow_id: str, queue: str | None = None) -> str | None:
    """Return why a run does not answer, or that no worker polls its task queue; `None` where neither is known."""
    if (found := await diagnose(client, workflow_id)) is not None:
        return found.sentence
    try:
        unserved = await find_unserved(client, workflow_id, queue)
    except RPCError:
        return None
    return describe_unserved(unserved) if unserved is not None else None


async def diagnose_described(client: Client, described: DescribeWorkflowExecutionResponse) -> Diagnosis | None:
    """Return the same of a run that was described already.

    Raises:
        RPCError: its history cannot be read.
    """
    attempt = described.pending_workflow_task.attempt
    if attempt < AGAIN:
        return None
    found: Diagnosis | None = None
    unfit: _Unfit | None = None
    async for event in _newest_first(client, described.workflow_execution_info.execution):
        if found is None and event.HasField("workflow_task_timed_out_event_attributes"):
            return Diagnosis(attempt, TIMED_OUT, "", event.event_id)
        if found is None and event.HasField("workflow_task_completed_event_attributes"):
            return None
        if found is None and event.HasField("workflow_task_failed_event_attributes"):
            its = event.workflow_task_failed_event_attributes
            if its.cause in _HARMLESS:
                return None
            cause = WorkflowTaskFailedCause.Name(its.cause).removeprefix("WORKFLOW_TASK_FAILED_CAUSE_")
            message = await _message(client, its.failure)
            found = Diagnosis(attempt, cause, wording.shorten(message, MESSAGE_CHARACTERS), event.event_id)
            unfit = _Unfit.named_in(message)
            if unfit is None:
                return found
        if found is not None and unfit is not None and unfit.comes_after(event):
            return replace(found, reset_event_id=event.event_id)
    return found


@dataclass(slots=True)
class _Unfit:
    """The event that the run's code does not bring about, as the failure names it."""

    event_id: int | None
    update_id: str | None

    @classmethod
    def named_in(cls, message: str) -> "_Unfit | None":
        if not message.startswith("[TMPRL1100]"):
            return None
        if (named := re.search(r"HistoryEvent\(id: (\d+)", message)) is not None:
            return cls(int(named[1]), None)
        if (named := re.search(r"update \w+ \(id (.+?)\) in state", message)) is not None:
            return cls(None, named[1])
        return None

    def comes_after(self, event: HistoryEvent) -> bool:
        """Return whether this is the last workflow task before it; ask it of all events, newest first."""
        accepted = event.workflow_execution_update_accepted_event_attributes
        if self.update_id is not None and accepted.protocol_instance_id == self.update_id:
            self.event_id = event.event_id
        is_before = self.event_id is not None and event.event_id < self.event_id
        return is_before and event.HasField("workflow_task_completed_event_attributes")


async def _message(client: Client, failure: Failure) -> str:
    error = await client.data_converter.decode_failure(failure)
    return error.message if isinstance(error, FailureError) else str(error)


async def _newest_first(client: Client, execution: WorkflowExecution) -> AsyncIterator[HistoryEvent]:
    token = b""
    for _ in range(PAGES):
        page = await client.workflow_service.get_workflow_execution_history_reverse(
            GetWorkflowExecutionHistoryReverseRequest(
                namespace=client.namespace, execution=execution, maximum_page_size=PAGE, next_page_token=token
            )
        )
        for event in page.history.events:
            yield event
        token = page.next_page_token
        if not token:
            return


RETRY_CHARACTERS = 300

_MENDED_BY_PEOPLE = frozenset(
    {
        FailureType.BLOB_CORRUPTED,
        FailureType.BLOB_MISSING,
        FailureType.CHECK_UNAVAILABLE,
        FailureType.STORE_UNAVAILABLE,
    }
)
"""Types of failures of what all workers share: files that people write, keys, the store."""


@dataclass(frozen=True, slots=True)
class Retry:
    """An activity that is tried again."""

    activity: str
    attempt: int
    """From 1; the next one, or the one that is under way."""
    failure: str
    """Message of the last attempt."""
    failure_type: str

    @property
    def is_mended_by_people(self) -> bool:
        """True if more attempts mend nothing by themselves."""
        return self.failure_type in _MENDED_BY_PEOPLE

    def describe(self, limit: int = RETRY_CHARACTERS) -> str:
        """Return what is tried again and why, the failure in at most `limit` characters."""
        return f"{self.activity}, attempt {self.attempt}: {wording.shorten(self.failure or 'no answer', limit)}"


def find_retry(described: DescribeWorkflowExecutionResponse) -> Retry | None:
    """Return the activity that is tried again, one that people must mend before others; `None` when none is."""
    retries = [
        Retry(
            activity.activity_type.name,
            activity.attempt,
            activity.last_failure.message,
            activity.last_failure.application_failure_info.type,
        )
        for activity in described.pending_activities
        if activity.attempt > 1
    ]
    return next((retry for retry in retries if retry.is_mended_by_people), next(iter(retries), None))
