"""The run above a child: what it asks and tells, and the report that it gets."""

from contextlib import suppress
from typing import Any

from pydantic import ValidationError
from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError, FailureError

from mandate.workflows import marks, steps
from mandate.workflows.contracts.agent import PinRequest
from mandate.workflows.contracts.children import ChildRequest, ChildState, ChildWaits, ParentMessage
from mandate.workflows.contracts.failures import FailureType
from mandate.workflows.contracts.marks import Marked, read_as
from mandate.workflows.contracts.request import Halt, Stop
from mandate.workflows.contracts.run import RunResult
from mandate.workflows.loop.control import Control
from mandate.workflows.loop.run import Run
from mandate.workflows.rules import children, totals

FOREIGN = "start request: it was not made by a run of an agent of this installation"


def read_request(given: Marked) -> ChildRequest | ApplicationError:
    """Return what a parent asks of this run, or why it fails at once."""
    place = marks.own_place()
    if place is None or not marks.is_genuine_content("child", place, given, workflow.info().start_time):
        marks.leave_to_others(marks.claimed_store(given))
        return ApplicationError(FOREIGN, type=FailureType.NOT_ASKED, non_retryable=True)
    return read_as(ChildRequest, given)


def pin_request(request: ChildRequest) -> PinRequest:
    """Return what `pin_agent` must know to say whether the child may begin, and what it is asked."""
    return PinRequest(
        agent=request.name,
        input="",
        requester=request.requester,
        labels=request.labels,
        run_id=workflow.info().first_execution_run_id,
        child=request,
    )


def begin(request: ChildRequest) -> ChildState:
    """Return the place of this run below its parent."""
    parent = workflow.info().parent
    assert parent is not None
    return ChildState(
        parent=parent.workflow_id,
        depth=request.depth,
        speaker=request.speaker,
        lent=request.lent,
        in_plan=request.in_plan,
        totals=request.totals,
        board=request.board,
        tells_waits=request.tells_waits,
    )


def take_message(run: Run, args: tuple[Any, ...]) -> ParentMessage | None:
    """Return a message of the parent once; anything else is ignored."""
    its = run.state.child
    if its is None or len(args) != 1 or not isinstance(args[0], Marked):
        return None
    info = workflow.info()
    place = marks.report_place(info.workflow_id, info.first_execution_run_id)
    if not marks.is_genuine_content("child", place, args[0]):
        return None
    try:
        message = read_as(ParentMessage, args[0])
    except ValidationError:
        return None
    if message.number <= its.heard:
        return None
    its.heard = message.number
    its.reports = its.reports or message.verb == "report"
    return message


def obey(control: Control, message: ParentMessage) -> None:
    """Do what the parent says; it has asked whether they may who want it."""
    halt = Halt.model_construct(by=message.by, reason=message.reason, tree=True)
    match message.verb:
        case "pause":
            control.pause(halt)
        case "resume":
            control.resume(halt)
        case "stop":
            control.stop(Stop.model_construct(by=message.by, reason=message.reason, keep=message.keep, tree=True))
        case "report":
            pass


async def tell_waits(run: Run) -> None:
    """Tell the parent whom this run and those below it wait for, whenever that changes; for ever."""
    its = run.state.child
    assert its is not None
    while True:
        await workflow.wait_condition(lambda: run.waits_for != its.told_waits)
        waits_for, number = run.waits_for, int(workflow.now().timestamp() * 1000)
        # A parent that has ended hears nothing any more.
        with suppress(FailureError):
            await steps.tell_parent_waits(its.parent, ChildWaits(number=number, waits_for=waits_for))
        # Not before: the run may continue as new meanwhile.
        its.told_waits = waits_for


async def report(run: Run, result: RunResult | None) -> RawValue | None:
    """Return the result as the parent believes it, and tell it where it would not hear of it otherwise.

    `None` for a run that is no child, or has no result.
    """
    its = run.state.child if run.is_begun else None
    if its is None:
        return None
    if result is not None:
        result = children.build_report(
            result,
            run.state.recovery.refused if its.in_plan else {},
            totals.add(run.state.totals, its.totals, -1) if its.totals is not None else {},
        )
    if its.reports:
        # A parent that has ended hears nothing any more.
        with suppress(FailureError):
            await steps.report_to_parent(its.parent, result)
    if result is None:
        return None
    info = workflow.info()
    return marks.mark("report", marks.report_place(info.workflow_id, info.first_execution_run_id), result)
