"""One typed function per activity: its name, queue, time limits, retries and summary.

The only place with activity options. Workflow code knows activities by name; a test holds each function here against
the activity of the same name.
"""

import asyncio
from datetime import timedelta
from typing import Any, TypeVar

from pydantic import BaseModel, JsonValue
from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue, RetryPolicy
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    is_cancelled_exception,
)

from mandate.workflows import marks, outcomes
from mandate.workflows.contracts.agent import Pinned, PinRequest
from mandate.workflows.contracts.compensation import CompensationRequest
from mandate.workflows.contracts.control import ControlCheck, ControlChecked
from mandate.workflows.contracts.decision_lookups import CheckedMany, DecisionChecks
from mandate.workflows.contracts.failures import FailureType, Outcome
from mandate.workflows.contracts.model import ModelReply, ModelRequest
from mandate.workflows.contracts.policy import Verdict
from mandate.workflows.contracts.request import Checked, DecisionCheck, Notified, NotifyRequest
from mandate.workflows.contracts.tool import (
    CallRequest,
    RemoteActivity,
    Tool,
    ToolRequest,
    ToolResult,
)
from mandate.workflows.contracts.verification import CheckPin, CheckRequest, CheckResult, Probed, ProbePin, ProbeRequest
from mandate.workflows.rules import wording
from mandate.workflows.rules.marks import find_subject

R = TypeVar("R", bound=BaseModel)

SOON = timedelta(milliseconds=100)
"""First wait before another attempt: short, since only a lost worker gives none of its own."""

HEARTBEAT = timedelta(seconds=5)
"""A worker that is lost in a model call or a read is noticed after this."""

EFFECT_HEARTBEAT = timedelta(seconds=10)
"""In a call that changes the world: giving up on a worker that is only busy costs more here."""

MODEL_TIMEOUT = timedelta(minutes=10)

QUEUED_AT_MOST = timedelta(minutes=5)
"""Time that a remote activity may wait for one of its workers."""


async def _perform(name: str, request: BaseModel, wanted: type[R], **options: Any) -> R:
    """Let a worker of ours perform an activity, and return what it answers.

    Raises:
        ActivityError: it failed, or its answer was not made by a worker of this installation.
    """
    activity_id = _next_activity_id()
    place = marks.activity_place(name, activity_id)
    answered = (*place, find_subject(request))
    try:
        answer: RawValue | None = await workflow.execute_activity(
            name, marks.mark("input", place, request), result_type=RawValue, activity_id=activity_id, **options
        )
    except ActivityError as error:
        if is_cancelled_exception(error) and not _is_being_cancelled():
            # Anybody can report an activity as cancelled by its id; that ends no run.
            raise _foreign(name, activity_id) from ApplicationError(FOREIGN, type=FailureType.NOT_ASKED)
        _forget_foreign_reasons(error.cause, answered)
        raise
    if answer is None or not marks.is_genuine("output", answered, answer.payload):
        claimed = marks.claimed_store(answer.payload.data) if answer is not None else None
        marks.leave_to_others(workflow.instance().store or claimed)
        raise _foreign(name, activity_id) from ApplicationError(FOREIGN, type=FailureType.NOT_ASKED)
    decoded: R = workflow.payload_converter().from_payload(answer.payload, wanted)
    return decoded


def _foreign(name: str, activity_id: str) -> ActivityError:
    return ActivityError(
        FOREIGN,
        scheduled_event_id=0,
        started_event_id=0,
        identity="",
        activity_type=name,
        activity_id=activity_id,
        retry_state=None,
    )


def _is_being_cancelled() -> bool:
    """Return whether the run, or the part of it that waits, is cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


FOREIGN = "the answer was not made by a worker of this installation"


def _next_activity_id() -> str:
    """Return the id that the SDK gives the next activity by itself: which of this run's it is."""
    run = workflow.instance()
    run.activities_begun += 1
    return str(run.activities_begun)


def _forget_foreign_reasons(cause: BaseException | None, place: marks.Place) -> None:
    """Take out of a failure what nobody of this installation has said of a call."""
    while cause is not None:
        if isinstance(cause, ApplicationError) and cause.details:
            given = cause.details[0]
            if cause.type == FailureType.TOOL_FAILED and not marks.is_genuine_content("failure", place, given):
                marks.leave_to_others(workflow.instance().store)
                cause._details = ()
        cause = cause.__cause__


async def pin_agent(request: PinRequest) -> Pinned:
    """Fix the agent that a run works under and open its conversation."""
    return await _perform(
        "pin_agent",
        request,
        Pinned,
        start_to_close_timeout=HEARTBEAT,
        retry_policy=RetryPolicy(initial_interval=SOON, maximum_interval=timedelta(seconds=10), maximum_attempts=20),
        summary=wording.shorten(f"pin_agent {request.agent}", wording.SUMMARY_CHARACTERS),
    )


async def call_model(request: ModelRequest, model: str) -> ModelReply:
    """Tell `model` what is new and get its answer.

    Raises:
        ActivityError: its cause says why the model gave no answer, after all attempts.
    """
    return await _perform(
        "call_model",
        request,
        ModelReply,
        start_to_close_timeout=MODEL_TIMEOUT,
        heartbeat_timeout=HEARTBEAT,
        retry_policy=RetryPolicy(initial_interval=SOON, maximum_interval=timedelta(seconds=30), maximum_attempts=6),
        summary=wording.shorten(f"call_model {model}, step {request.step}", wording.SUMMARY_CHARACTERS),
    )


async def check_control(check: ControlCheck) -> ControlChecked:
    """Look up whether somebody may steer, pause, resume or stop the run, as the file of people is now.

    Raises:
        ActivityError: the check could not be made within a few seconds: who pauses or stops a run does not wait long.
    """
    return await _perform(
        "check_control",
        check,
        ControlChecked,
        start_to_close_timeout=HEARTBEAT,
        schedule_to_close_timeout=timedelta(seconds=10),
        retry_policy=RetryPolicy(initial_interval=SOON, maximum_interval=timedelta(seconds=2), maximum_attempts=4),
        summary=wording.shorten(f"check_control {check.verb} by {check.by}", wording.SUMMARY_CHARACTERS),
    )


async def plan_compensation(request: CompensationRequest) -> ModelReply:
    """Begin the turn that takes back what a stopped run has done."""
    return await _perform(
        "plan_compensation",
        request,
        ModelReply,
        start_to_close_timeout=timedelta(seconds=30),
        retry_policy=RetryPolicy(initial_interval=SOON, maximum_interval=timedelta(seconds=10), maximum_attempts=20),
        summary=f"plan_compensation of {len(request.calls)}, step {request.step}",
    )


async def check_decision(check: DecisionCheck) -> Checked:
    """Look up what a decision counts for: who may decide as things are now, signature, edited arguments.

    Raises:
        ActivityError: the check could not be made; the decision has used nothing up.
    """
    return await _perform(
        "check_decision",
        check,
        Checked,
        start_to_close_timeout=HEARTBEAT,
        schedule_to_close_timeout=timedelta(minutes=1),
        retry_policy=RetryPolicy(initial_interval=SOON, maximum_interval=timedelta(seconds=2), maximum_attempts=4),
        summary=wording.shorten(
            f"check_decision {check.request.id} {check.decision.choice} by {check.decision.by}",
            wording.SUMMARY_CHARACTERS,
        ),
    )


async def check_decisions(checks: DecisionChecks) -> CheckedMany:
    """Check decisions that came together, as `check_decision`.

    Raises:
        ActivityError: one of them could not be checked; none has used anything up.
    """
    ids = ", ".join(check.request.id for check in checks.checks)
    return await _perform(
        "check_decisions",
        checks,
        CheckedMany,
        start_to_close_timeout=timedelta(seconds=30),
        schedule_to_close_timeout=timedelta(minutes=2),
        # Then each is checked by itself.
        retry_policy=RetryPolicy(initial_interval=SOON, maximum_attempts=2),
        summary=wording.shorten(f"check_decisions {len(checks.checks)}: {ids}", wording.SUMMARY_CHARACTERS),
    )


async def notify_people(request: NotifyRequest) -> Notified:
    """Tell people of requests through all channels of the worker.

    Raises:
        ActivityError: no worker could try.
    """
    asked = ", ".join(notice.request.id for notice in request.notices)
    return await _perform(
        "notify_people",
        request,
        Notified,
        start_to_close_timeout=timedelta(minutes=2),
        schedule_to_close_timeout=timedelta(minutes=15),
        heartbeat_timeout=EFFECT_HEARTBEAT,
        retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_attempts=5),
        summary=wording.shorten(f"notify_people {request.notices[0].occasion}: {asked}", wording.SUMMARY_CHARACTERS),
    )


async def verify_result(request: CheckRequest, check: CheckPin) -> CheckResult:
    """Check a call's result or the final answer.

    Raises:
        ActivityError: no worker could make the check within its attempts.
    """
    return await _perform(
        "verify_result",
        request,
        CheckResult,
        start_to_close_timeout=check.timeout,
        heartbeat_timeout=HEARTBEAT,
        retry_policy=RetryPolicy(
            initial_interval=SOON, maximum_interval=timedelta(seconds=30), maximum_attempts=check.retries + 1
        ),
        summary=wording.shorten(f"verify_result {check.name}, step {request.step}", wording.SUMMARY_CHARACTERS),
    )


async def probe_call(request: ProbeRequest, probe: ProbePin, tool: str, verdict: Verdict) -> Probed:
    """Look up, by a read that `verdict` allows, whether a call of `tool` has happened.

    Raises:
        ActivityError: no worker could look it up.
    """
    assert verdict.allowed, verdict.reason
    return await _perform(
        "probe_call",
        request,
        Probed,
        start_to_close_timeout=probe.patience + timedelta(minutes=1),
        heartbeat_timeout=HEARTBEAT,
        retry_policy=RetryPolicy(initial_interval=SOON, maximum_interval=timedelta(seconds=10), maximum_attempts=5),
        summary=wording.shorten(f"probe_call {tool} by {probe.tool}", wording.SUMMARY_CHARACTERS),
    )


async def run_tool(
    request: ToolRequest, call: CallRequest, tool: Tool, verdict: Verdict, *, valid: timedelta | None = None
) -> outcomes.Attempted:
    """Make a call that `verdict` allows, in a worker of ours; its key is known to the other side for `valid`."""
    assert verdict.allowed, verdict.reason
    try:
        answer = await _perform(
            "run_tool",
            request,
            ToolResult,
            start_to_close_timeout=tool.timeout,
            heartbeat_timeout=EFFECT_HEARTBEAT if tool.effect.changes_world else HEARTBEAT,
            schedule_to_close_timeout=valid,
            retry_policy=_retries(tool),
            summary=wording.describe_call(tool.name, call.arguments, tool.sensitive),
        )
    except ActivityError as error:
        return outcomes.outcome_of(error, tool, ours=True)
    outcome = Outcome.NOT_DONE if answer.error else Outcome.DONE
    return outcomes.Attempted(outcome, answer.model_copy(update={"attempts": 1}), answer.attempts)


async def call_remote_activity(
    remote: RemoteActivity,
    call: CallRequest,
    tool: Tool,
    key: str | None,
    verdict: Verdict,
    *,
    valid: timedelta | None = None,
    at_once: bool = False,
) -> outcomes.Attempted:
    """Make a call that `verdict` allows, in a worker of somebody else; `key` is the activity id.

    With `at_once` there is one attempt and no other after it.
    """
    assert verdict.allowed, verdict.reason
    own_id = _next_activity_id()
    arguments: list[JsonValue] = [dict(call.arguments)]
    if remote.arguments is not None:
        arguments = [call.arguments.get(name) for name in remote.arguments]
    try:
        returned: RawValue | None = await workflow.execute_activity(
            remote.name,
            args=arguments,
            task_queue=remote.task_queue,
            activity_id=key or own_id,
            result_type=RawValue,
            start_to_close_timeout=tool.timeout,
            schedule_to_start_timeout=QUEUED_AT_MOST,
            schedule_to_close_timeout=valid,
            retry_policy=RetryPolicy(maximum_attempts=1) if at_once else _retries(tool, remote.failed_types),
            summary=wording.describe_call(tool.name, call.arguments, tool.sensitive),
        )
    except ActivityError as error:
        return outcomes.outcome_of(error, tool, failed_types=remote.failed_types)
    return outcomes.Attempted(Outcome.DONE, outcomes.result_of(returned.payload if returned is not None else Payload()))


def _retries(tool: Tool, never: tuple[str, ...] = ()) -> RetryPolicy:
    return RetryPolicy(
        initial_interval=SOON,
        maximum_interval=timedelta(seconds=30),
        maximum_attempts=outcomes.attempts_at_most(tool),
        non_retryable_error_types=never or None,
    )
