"""What a history with a failed workflow task says of it, and of the event to reset the run to."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from temporalio.api.enums.v1 import WorkflowTaskFailedCause
from temporalio.api.history.v1 import History, HistoryEvent
from temporalio.api.workflowservice.v1 import (
    DescribeWorkflowExecutionResponse,
    GetWorkflowExecutionHistoryReverseRequest,
    GetWorkflowExecutionHistoryReverseResponse,
)
from temporalio.client import Client
from temporalio.converter import DataConverter

from mandate.workers.client.diagnosis import TIMED_OUT, Diagnosis, Retry, diagnose_described, find_retry

UNFIT = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_NON_DETERMINISTIC_ERROR
CRASHED = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_WORKFLOW_WORKER_UNHANDLED_FAILURE
BY_HAND = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_RESET_WORKFLOW

NAMES_EVENT = "[TMPRL1100] Nondeterminism error: Timer machine does not handle this event: HistoryEvent(id: {}, Timer)"
NAMES_UPDATE = (
    "[TMPRL1100] Nondeterminism error: Invalid transition while handling update response (id decide-7-a) in state X"
)


@dataclass
class Service:
    """A history that is read from its end, so many events at a time."""

    events: Sequence[HistoryEvent]
    page: int = 2
    asked: int = 0
    data_converter: DataConverter = field(default_factory=DataConverter)
    namespace: str = "default"

    @property
    def workflow_service(self) -> "Service":
        return self

    async def get_workflow_execution_history_reverse(
        self, request: GetWorkflowExecutionHistoryReverseRequest
    ) -> GetWorkflowExecutionHistoryReverseResponse:
        self.asked += 1
        begin = int(request.next_page_token or b"0")
        newest_first = list(reversed(self.events))
        end = begin + self.page
        return GetWorkflowExecutionHistoryReverseResponse(
            history=History(events=newest_first[begin:end]),
            next_page_token=str(end).encode() if end < len(newest_first) else b"",
        )


def event(number: int, kind: str, **attributes: Any) -> HistoryEvent:
    its = HistoryEvent(event_id=number)
    getattr(its, f"{kind}_event_attributes").SetInParent()
    for name, value in attributes.items():
        setattr(getattr(its, f"{kind}_event_attributes"), name, value)
    return its


def failed(number: int, cause: int, message: str) -> HistoryEvent:
    its = event(number, "workflow_task_failed", cause=cause)
    its.workflow_task_failed_event_attributes.failure.message = message
    its.workflow_task_failed_event_attributes.failure.application_failure_info.SetInParent()
    return its


BEFORE = [
    event(1, "workflow_execution_started"),
    event(4, "workflow_task_completed"),
    event(5, "activity_task_scheduled"),
    event(7, "activity_task_completed"),
    event(10, "workflow_task_completed"),
    event(11, "activity_task_scheduled"),
    event(12, "workflow_execution_update_accepted", protocol_instance_id="decide-7-a"),
    event(15, "workflow_task_completed"),
    event(16, "workflow_execution_update_accepted", protocol_instance_id="decide-8-b"),
]


async def diagnosed(*last: HistoryEvent, attempt: int = 5) -> Diagnosis | None:
    described = DescribeWorkflowExecutionResponse()
    described.pending_workflow_task.attempt = attempt
    return await diagnose_described(cast(Client, Service([*BEFORE, *last])), described)


@pytest.mark.parametrize(
    ("cause", "message", "to"),
    [
        (UNFIT, NAMES_EVENT.format(16), 15),
        (UNFIT, NAMES_EVENT.format(15), 10),
        (UNFIT, NAMES_EVENT.format(11), 10),
        (UNFIT, NAMES_EVENT.format(5), 4),
        (UNFIT, NAMES_EVENT.format(2), None),
        (UNFIT, NAMES_UPDATE, 10),
        (UNFIT, NAMES_UPDATE.replace("decide-7-a", "decide-8-b"), 15),
        (UNFIT, NAMES_UPDATE.replace("decide-7-a", "another"), None),
        (UNFIT, "[TMPRL1100] Nondeterminism error: something else", None),
        (CRASHED, "HistoryEvent(id: 11, a text of somebody's)", None),
    ],
)
async def test_a_run_is_reset_to_the_task_before_what_does_not_fit(cause: int, message: str, to: int | None) -> None:
    found = await diagnosed(failed(19, cause, message), event(20, "workflow_execution_signaled"))

    assert found is not None
    assert (found.attempt, found.event_id, found.message, found.reset_event_id) == (5, 19, message, to)


async def test_a_task_that_timed_out_after_a_failure_that_was_mended_timed_out() -> None:
    found = await diagnosed(
        failed(19, CRASHED, "broken"), event(22, "workflow_task_completed"), event(25, "workflow_task_timed_out")
    )

    assert found == Diagnosis(5, TIMED_OUT, "", 25)


@pytest.mark.parametrize(
    "last",
    [
        [],
        [failed(19, CRASHED, "broken"), event(22, "workflow_task_completed")],
        [failed(19, BY_HAND, "wedged")],
    ],
)
async def test_nothing_is_said_of_tasks_that_did_not_fail(last: list[HistoryEvent]) -> None:
    assert await diagnosed(*last) is None


async def test_a_task_that_failed_once_or_twice_is_not_looked_into() -> None:
    assert await diagnosed(failed(19, CRASHED, "broken"), attempt=2) is None


async def test_a_long_failure_is_cut_and_read_whole() -> None:
    message = f"[TMPRL1100] {'x' * 500}\nHistoryEvent(id: 16, Timer)"

    found = await diagnosed(failed(19, UNFIT, message))

    assert found is not None
    assert (len(found.message), found.reset_event_id) == (300, 15)


def retried(*activities: tuple[str, int, str, str]) -> DescribeWorkflowExecutionResponse:
    described = DescribeWorkflowExecutionResponse()
    for name, attempt, message, failure_type in activities:
        activity = described.pending_activities.add(attempt=attempt)
        activity.activity_type.name = name
        activity.last_failure.message = message
        activity.last_failure.application_failure_info.type = failure_type
    return described


BUSY = ("run_tool", 3, "the shop is down", "ToolFailed")


@pytest.mark.parametrize(
    ("activities", "retry", "is_mended_by_people"),
    [
        ([("run_tool", 1, "", "")], None, None),
        ([BUSY], Retry("run_tool", 3, "the shop is down", "ToolFailed"), False),
        ([("call_model", 2, "later", "ModelUnavailable")], Retry("call_model", 2, "later", "ModelUnavailable"), False),
        (
            [BUSY, ("call_model", 2, "broken", "StoreUnavailable")],
            Retry("call_model", 2, "broken", "StoreUnavailable"),
            True,
        ),
        ([("pin_agent", 9, "broken", "CheckUnavailable")], Retry("pin_agent", 9, "broken", "CheckUnavailable"), True),
    ],
)
def test_activity_that_people_must_mend_is_told_first(
    activities: Sequence[tuple[str, int, str, str]], retry: Retry | None, is_mended_by_people: bool | None
) -> None:
    found = find_retry(retried(*activities))

    assert found == retry
    assert (found.is_mended_by_people if found is not None else None) is is_mended_by_people


def test_retry_is_described_with_its_failure_shortened() -> None:
    assert Retry("run_tool", 3, "", "").describe() == "run_tool, attempt 3: no answer"
    assert len(Retry("run_tool", 3, "x" * 500, "").describe(100)) == len("run_tool, attempt 3: ") + 100
