"""One typed function per activity: its name, queue, time limits, retries and summary.

The only place with activity options. Workflow code knows activities by name; a test holds each function here against
the activity of the same name.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from pydantic import BaseModel, JsonValue
from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue, RetryPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    FailureError,
    is_cancelled_exception,
)

from mandate.workflows import marks, outcomes
from mandate.workflows.contracts.agent import Pinned, PinRequest
from mandate.workflows.contracts.children import (
    CHILD_DONE,
    CHILD_WAITS,
    TELL_CHILD,
    ChildRequest,
    ChildWaits,
    FindReport,
    ParentMessage,
    ReportFound,
)
from mandate.workflows.contracts.compensation import CompensationRequest
from mandate.workflows.contracts.control import ControlCheck, ControlChecked
from mandate.workflows.contracts.decision_lookups import CheckedMany, DecisionChecks
from mandate.workflows.contracts.failures import FailureType, Outcome
from mandate.workflows.contracts.model import ANSWER_SPARE, ModelReply, ModelRequest
from mandate.workflows.contracts.plan import AdvanceRequest, PlanMove
from mandate.workflows.contracts.policy import Verdict
from mandate.workflows.contracts.request import Checked, DecisionCheck, Notified, NotifyRequest
from mandate.workflows.contracts.run import AGENT_WORKFLOW, PLAN_WORKFLOW, TASK_TIMEOUT
from mandate.workflows.contracts.session import SessionKeep, SessionKept
from mandate.workflows.contracts.tool import (
    CallRequest,
    Effect,
    RemoteActivity,
    Tool,
    ToolRequest,
    ToolResult,
)
from mandate.workflows.contracts.verification import CheckPin, CheckRequest, CheckResult, Probed, ProbePin, ProbeRequest
from mandate.workflows.rules import budget, wording
from mandate.workflows.rules import patience as rules_patience
from mandate.workflows.rules.marks import find_subject

R = TypeVar("R", bound=BaseModel)

SOON = timedelta(milliseconds=100)
"""First wait before another attempt: short, since only a lost worker gives none of its own."""

HEARTBEAT = timedelta(seconds=5)
"""A worker that is lost in a model call, a check or a probe is noticed after this."""

REPEATED_HEARTBEAT = timedelta(seconds=2.5)
"""The same in a call that may be repeated: what a busy worker still does then is done with the same key."""

EFFECT_HEARTBEAT = timedelta(seconds=10)
"""The same in a call that is made once: giving up on a worker that is only busy costs more here."""

TOLD_WITHIN = timedelta(seconds=5)
"""Time for an attempt to tell that it has reached its timeout, before Temporal does, which can say no more."""

FIRST = timedelta(seconds=rules_patience.FIRST)
"""First wait between attempts of somebody else's activity."""

MODEL_TIMEOUT = timedelta(minutes=10)

QUEUED_AT_MOST = timedelta(minutes=5)
"""Time that a remote activity may wait for one of its workers."""


@dataclass(frozen=True, slots=True)
class Locally:
    """Permission to perform an activity within the workflow task."""

    within: timedelta
    on_slow: Callable[[], None]
    """Told before it is done again as an ordinary activity."""


def _format_subject(index: int | None, name: str = "") -> str:
    """Return the rest of a local activity's id, by which those who read the history know what it was about."""
    return f":{'' if index is None else index}{f':{name}' if name else ''}"


async def _perform(
    name: str,
    request: BaseModel,
    wanted: type[R],
    *,
    locally: Locally | None = None,
    subject: str = "",
    summary: str,
    **options: Any,
) -> R:
    """Let a worker of ours perform an activity, and return what it answers; `subject` ends the id of a local one.

    Raises:
        ActivityError: it failed, or its answer was not made by a worker of this installation.
    """
    if locally is not None:
        try:
            return await _execute(
                workflow.execute_local_activity,
                name,
                request,
                wanted,
                subject=subject,
                schedule_to_close_timeout=locally.within,
                retry_policy=RetryPolicy(maximum_attempts=1),
                summary=summary,
            )
        except ActivityError as error:
            if is_cancelled_exception(error) or _is_final(error.cause):
                raise
            locally.on_slow()
    return await _execute(workflow.execute_activity, name, request, wanted, summary=summary, **options)


def _is_final(cause: BaseException | None) -> bool:
    """Return whether an ordinary activity would not be tried again either."""
    return isinstance(cause, ApplicationError) and cause.non_retryable


async def _execute(
    execute: Callable[..., Awaitable[RawValue | None]],
    name: str,
    request: BaseModel,
    wanted: type[R],
    *,
    subject: str = "",
    **options: Any,
) -> R:
    activity_id = f"{_next_activity_id()}{subject}"
    run = workflow.instance()
    run.note_activity(1)
    place = marks.activity_place(name, activity_id)
    answered = (*place, find_subject(request))
    try:
        answer = await execute(
            name, marks.mark("input", place, request), result_type=RawValue, activity_id=activity_id, **options
        )
    except FailureError as failure:
        # A replay gives the failure of a local activity without its frame.
        error = failure if isinstance(failure, ActivityError) else _failed(name, activity_id, failure)
        if is_cancelled_exception(error) and not _is_being_cancelled():
            # Anybody can report an activity as cancelled by its id; that ends no run.
            foreign = _foreign(name, activity_id)
            raise foreign from foreign.cause
        _forget_foreign_reasons(error.cause, answered)
        raise error from error.cause
    finally:
        # A run that is thrown away ends its coroutines outside of it: anywhere, within another run too.
        if workflow.in_workflow() and workflow.instance() is run:
            run.note_activity(-1)
    if answer is None or not marks.is_genuine("output", answered, answer.payload):
        claimed = marks.claimed_store(answer.payload.data) if answer is not None else None
        marks.leave_to_others(run.store or claimed)
        raise _foreign(name, activity_id)
    decoded: R = workflow.payload_converter().from_payload(answer.payload, wanted)
    return decoded


def _foreign(name: str, activity_id: str) -> ActivityError:
    return _failed(name, activity_id, ApplicationError(FOREIGN, type=FailureType.NOT_ASKED))


def _failed(name: str, activity_id: str, cause: FailureError) -> ActivityError:
    error = ActivityError(
        cause.message,
        scheduled_event_id=0,
        started_event_id=0,
        identity="",
        activity_type=name,
        activity_id=activity_id,
        retry_state=None,
    )
    error.__cause__ = cause
    return error


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


async def pin_agent(request: PinRequest, *, locally: Locally | None = None) -> Pinned:
    """Fix the agent that a run works under and open its conversation."""
    return await _perform(
        "pin_agent",
        request,
        Pinned,
        locally=locally,
        start_to_close_timeout=HEARTBEAT,
        retry_policy=RetryPolicy(initial_interval=SOON, maximum_interval=timedelta(seconds=10), maximum_attempts=20),
        summary=wording.shorten(f"pin_agent {request.agent}", wording.SUMMARY_CHARACTERS),
    )


async def call_model(
    request: ModelRequest, model: str, *, each: timedelta | None = None, within: timedelta | None = None
) -> ModelReply:
    """Tell `model` what is new and get its answer: each attempt in its time, and all `within` another one.

    Raises:
        ActivityError: its cause says why the model gave no answer, after all attempts.
    """
    return await _perform(
        "call_model",
        request,
        ModelReply,
        start_to_close_timeout=MODEL_TIMEOUT if each is None else each + ANSWER_SPARE,
        schedule_to_close_timeout=within,
        heartbeat_timeout=HEARTBEAT,
        retry_policy=RetryPolicy(
            initial_interval=SOON, maximum_interval=timedelta(seconds=30), maximum_attempts=budget.MOST_ATTEMPTS
        ),
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


async def keep_session(keep: SessionKeep, *, locally: Locally | None = None) -> SessionKept:
    """Keep the state of a session in the store, where a later run of the same workflow id finds it."""
    return await _perform(
        "keep_session",
        keep,
        SessionKept,
        locally=locally,
        start_to_close_timeout=timedelta(seconds=30),
        retry_policy=RetryPolicy(initial_interval=SOON, maximum_interval=timedelta(seconds=10)),
        summary=f"keep_session, answer {keep.record.number}",
    )


async def advance_plan(request: AdvanceRequest, *, locally: Locally | None = None) -> PlanMove:
    """Take in what has ended of a plan, and find what begins now or how it ends."""
    return await _perform(
        "advance_plan",
        request,
        PlanMove,
        locally=locally,
        start_to_close_timeout=timedelta(minutes=2),
        heartbeat_timeout=HEARTBEAT,
        retry_policy=RetryPolicy(initial_interval=SOON, maximum_interval=timedelta(seconds=10)),
        summary=f"advance_plan, {len(request.ended)} ended",
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


async def check_decision(check: DecisionCheck, *, locally: Locally | None = None) -> Checked:
    """Look up what a decision counts for: who may decide as things are now, signature, edited arguments.

    Raises:
        ActivityError: the check could not be made; the decision has used nothing up.
    """
    return await _perform(
        "check_decision",
        check,
        Checked,
        locally=locally,
        start_to_close_timeout=HEARTBEAT,
        schedule_to_close_timeout=timedelta(minutes=1),
        retry_policy=RetryPolicy(initial_interval=SOON, maximum_interval=timedelta(seconds=2), maximum_attempts=4),
        summary=wording.shorten(
            f"check_decision {check.request.id} {check.decision.choice} by {check.decision.by}",
            wording.SUMMARY_CHARACTERS,
        ),
    )


async def check_decisions(checks: DecisionChecks, *, locally: Locally | None = None) -> CheckedMany:
    """Check decisions that came together, as `check_decision`.

    Raises:
        ActivityError: one of them could not be checked; none has used anything up.
    """
    ids = ", ".join(check.request.id for check in checks.checks)
    return await _perform(
        "check_decisions",
        checks,
        CheckedMany,
        locally=locally,
        start_to_close_timeout=timedelta(seconds=30),
        schedule_to_close_timeout=timedelta(minutes=2),
        # Then each is checked by itself.
        retry_policy=RetryPolicy(initial_interval=SOON, maximum_attempts=2),
        summary=wording.shorten(f"check_decisions {len(checks.checks)}: {ids}", wording.SUMMARY_CHARACTERS),
    )


async def notify_people(request: NotifyRequest, *, locally: Locally | None = None) -> Notified:
    """Tell people of requests through all channels of the worker.

    Raises:
        ActivityError: no worker could try.
    """
    asked = ", ".join(notice.request.id for notice in request.notices)
    return await _perform(
        "notify_people",
        request,
        Notified,
        locally=locally,
        start_to_close_timeout=timedelta(minutes=2),
        schedule_to_close_timeout=timedelta(minutes=15),
        heartbeat_timeout=EFFECT_HEARTBEAT,
        retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_attempts=5),
        summary=wording.shorten(f"notify_people {request.notices[0].occasion}: {asked}", wording.SUMMARY_CHARACTERS),
    )


async def verify_result(
    request: CheckRequest, check: CheckPin, *, locally: Locally | None = None, within: timedelta | None = None
) -> CheckResult:
    """Check a call's result or the final answer, with all attempts `within` a time.

    Raises:
        ActivityError: no worker could make the check within its attempts.
    """
    return await _perform(
        "verify_result",
        request,
        CheckResult,
        locally=locally,
        subject=_format_subject(request.index, check.name),
        start_to_close_timeout=check.timeout,
        schedule_to_close_timeout=within,
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


async def start_child(
    child: str, request: ChildRequest, verdict: Verdict, *, is_plan: bool = False, within: timedelta | None = None
) -> workflow.ChildWorkflowHandle[Any, RawValue]:
    """Start the child of a call that `verdict` allows; the server ends it after `within`.

    It outlives this part of the run, which is told when it ends only while it goes on as it is. It has no summary: a
    run may have many children, and the details of each say what it does.

    Raises:
        WorkflowAlreadyStartedError: there has been one of this id.
    """
    assert verdict.allowed, verdict.reason
    return await workflow.start_child_workflow(
        PLAN_WORKFLOW if is_plan else AGENT_WORKFLOW,
        marks.mark("child", marks.child_place(child), request),
        id=child,
        result_type=RawValue,
        id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
        parent_close_policy=workflow.ParentClosePolicy.ABANDON,
        cancellation_type=workflow.ChildWorkflowCancellationType.ABANDON,
        execution_timeout=within,
        task_timeout=TASK_TIMEOUT,
    )


async def tell_child(child: str, run_id: str, message: ParentMessage) -> None:
    """Tell a child something; `run_id` is the first of its chain.

    Raises:
        ApplicationError: it has ended.
    """
    told = marks.mark("child", marks.report_place(child, run_id), message)
    # The SDK forgets a cancellation that comes before the server has taken the signal.
    sending = asyncio.create_task(workflow.get_external_workflow_handle(child).signal(TELL_CHILD, told))
    await asyncio.shield(sending)


async def report_to_parent(parent: str, result: BaseModel | None) -> None:
    """Tell the parent that this run has ended, with its result if it has one.

    Raises:
        ApplicationError: the parent has ended.
    """
    info = workflow.info()
    place = marks.report_place(info.workflow_id, info.first_execution_run_id)
    report = [] if result is None else [marks.mark("report", place, result)]
    await workflow.get_external_workflow_handle(parent).signal(CHILD_DONE, args=[info.workflow_id, *report])


async def tell_parent_waits(parent: str, waits: ChildWaits) -> None:
    """Tell the parent whom this run waits for.

    Raises:
        ApplicationError: the parent has ended.
    """
    info = workflow.info()
    told = marks.mark("child", marks.report_place(info.workflow_id, info.first_execution_run_id), waits)
    await workflow.get_external_workflow_handle(parent).signal(CHILD_WAITS, args=[info.workflow_id, told])


async def find_report(request: FindReport) -> ReportFound:
    """Look up what a child is or was that does not report.

    Raises:
        ActivityError: nobody could say now.
    """
    return await _perform(
        "find_report",
        request,
        ReportFound,
        start_to_close_timeout=timedelta(seconds=45),
        schedule_to_close_timeout=timedelta(minutes=5),
        heartbeat_timeout=HEARTBEAT,
        retry_policy=RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=30)),
        summary=wording.shorten(f"find_report {request.child}", wording.SUMMARY_CHARACTERS),
    )


async def run_tool(
    request: ToolRequest,
    call: CallRequest,
    tool: Tool,
    verdict: Verdict,
    *,
    valid: timedelta | None = None,
    locally: Locally | None = None,
) -> outcomes.Attempted:
    """Make a call that `verdict` allows, in a worker of ours; its key is known to the other side for `valid`."""
    assert verdict.allowed, verdict.reason
    try:
        answer = await _perform(
            "run_tool",
            request,
            ToolResult,
            locally=locally,
            subject=_format_subject(request.index),
            start_to_close_timeout=tool.timeout if request.patience is None else tool.timeout + TOLD_WITHIN,
            heartbeat_timeout=_heartbeat(tool),
            schedule_to_close_timeout=_time_of_all(tool, request.patience, valid),
            retry_policy=_retries(at_most=outcomes.attempts_at_most(tool, request.patience)),
            summary=wording.describe_call(tool.name, call.arguments, tool.sensitive),
        )
    except ActivityError as error:
        return outcomes.outcome_of(error, tool, ours=True, at_most=outcomes.attempts_at_most(tool, request.patience))
    outcome = Outcome.NOT_DONE if answer.error else Outcome.DONE
    kept = answer.model_copy(update={"attempts": 1, "quick": False})
    return outcomes.Attempted(outcome, kept, answer.attempts, is_quick=answer.quick)


async def call_remote_activity(
    remote: RemoteActivity,
    call: CallRequest,
    tool: Tool,
    key: str | None,
    verdict: Verdict,
    *,
    valid: timedelta | None = None,
    at_once: bool = False,
    patience: timedelta | None = None,
) -> outcomes.Attempted:
    """Make a call that `verdict` allows, in a worker of somebody else; `key` is the activity id.

    With `at_once` there is one attempt and no other after it; with `patience`, the first few of those that it allows.
    """
    at_most = outcomes.attempts_at_most(tool, patience, at_once=at_once, remote=True)
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
            schedule_to_close_timeout=_time_of_all(tool, patience, valid),
            retry_policy=_retries(remote.failed_types, at_most=at_most, first=SOON if patience is None else FIRST),
            summary=wording.describe_call(tool.name, call.arguments, tool.sensitive),
        )
    except ActivityError as error:
        return outcomes.outcome_of(error, tool, failed_types=remote.failed_types, at_most=at_most)
    return outcomes.Attempted(Outcome.DONE, outcomes.result_of(returned.payload if returned is not None else Payload()))


def _heartbeat(tool: Tool) -> timedelta:
    return EFFECT_HEARTBEAT if tool.effect is Effect.ONCE else REPEATED_HEARTBEAT


def _time_of_all(tool: Tool, patience: timedelta | None, valid: timedelta | None) -> timedelta | None:
    """Return the time of all attempts of one activity together."""
    if patience is None or tool.effect is Effect.ONCE:
        return valid
    whole = patience + tool.timeout + rules_patience.ROOM
    return whole if valid is None else min(valid, whole)


def _retries(never: tuple[str, ...] = (), *, at_most: int, first: timedelta = SOON) -> RetryPolicy:
    return RetryPolicy(
        initial_interval=first,
        maximum_interval=timedelta(seconds=rules_patience.LONGEST),
        maximum_attempts=at_most,
        non_retryable_error_types=never or None,
    )
