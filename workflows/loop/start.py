"""Start of a run: its input read, or refused with a sentence."""

from typing import Any

from pydantic import BaseModel, ValidationError
from temporalio import workflow
from temporalio.exceptions import ApplicationError

from mandate.workflows import marks, steps
from mandate.workflows.contracts.agent import Pinned, PinRequest
from mandate.workflows.contracts.base import JsonObject, canonical_json
from mandate.workflows.contracts.budget import BudgetRequest
from mandate.workflows.contracts.changes import PINS_LOCALLY
from mandate.workflows.contracts.failures import FailureType, Unreadable
from mandate.workflows.contracts.marks import Marked, read_as
from mandate.workflows.contracts.plan import PlanRequest, PlanSpec
from mandate.workflows.contracts.run import RunRequest
from mandate.workflows.contracts.session import SaidMessage
from mandate.workflows.contracts.state import RunState, SessionState
from mandate.workflows.rules import input_size, local_activities, quantities, sessions, validation, wording

GOAL_CHARACTERS = 500

JSON_KINDS = {str: "a text", list: "a list", bool: "a boolean", int: "a number", float: "a number", type(None): "null"}


def carried_state(args: tuple[Any, ...]) -> RunState | ApplicationError | None:
    """Return the state with which this run goes on, why it may not, or `None` for a run that begins.

    A cron schedule and a workflow retry continue a run with the input that its client gave. Any workflow can continue
    as new as one of ours, so a state counts with the mark of a run of the same chain only.
    """
    info = workflow.info()
    if info.continued_run_id is None or info.cron_schedule or info.attempt > 1 or len(args) != 1:
        return None
    given = args[0]
    if not isinstance(given, Marked) and not (isinstance(given, dict) and isinstance(given.get("agent"), dict)):
        return None
    if not marks.is_genuine_content("state", marks.state_place(), given, info.start_time):
        marks.leave_to_others(marks.claimed_store(given))
        return ApplicationError(FOREIGN, type=FailureType.NOT_ASKED, non_retryable=True)
    return read_as(RunState, given)


def pin_locally() -> steps.Locally | None:
    """Permit that the agent is pinned within the workflow task; older runs began with an ordinary activity."""
    if not workflow.patched(PINS_LOCALLY):
        return None
    return steps.Locally(local_activities.TASK_LIMIT, lambda: None)


def open_session(state: RunState, request: RunRequest, pinned: Pinned) -> RunState:
    """Return the state of a run that begins a session, or goes on with that of an earlier run of its workflow id."""
    assert request.session is not None
    asked, speaker = request.session, state.requester
    message_id = asked.message or str(workflow.uuid4())
    state.session = SessionState(idle=asked.idle, told=(message_id,), speaker=speaker)
    if pinned.earlier is None:
        return state
    resumed = sessions.resume(RunState.model_validate_json(pinned.earlier), state)
    its = resumed.session
    assert its is not None
    if not sessions.is_known(its, message_id):
        text = request.input if isinstance(request.input, str) else canonical_json(request.input).decode()
        its.queue = (*its.queue, SaidMessage(id=message_id, by=speaker or NOBODY, text=text, tainted=request.tainted))
    if its.told:
        # The run was ended from outside while it worked on them.
        its.waits_since = None
    return resumed


NOBODY = "somebody"
"""Name of the author of a message that nobody's name is known of."""

FOREIGN = "the state to go on with was not left by a run of an agent of this installation"


def request_of(args: tuple[Any, ...]) -> RunRequest | ApplicationError:
    """Return the request, or why the run fails at once; `run` raises that, since the SDK leaves an odd trace else."""
    if workflow.info().cron_schedule:
        # All runs of a cron chain would share their idempotency keys.
        return _bad_input("a cron schedule is not supported; make a Temporal schedule, which starts a run of its own")
    if len(args) != 1:
        return _bad_input(f"AgentWorkflow takes one JSON object, got {len(args)} arguments")
    if isinstance(args[0], Unreadable):
        return _bad_input(f"the argument is no JSON that can be read: {args[0].reason}")
    if not isinstance(args[0], dict):
        kind = JSON_KINDS.get(type(args[0]), "nothing")
        return _bad_input(f"AgentWorkflow takes one JSON object, got {kind}")
    try:
        request = RunRequest.model_validate(args[0])
    except ValidationError as error:
        return _bad_input(validation.sentences(error, RunRequest, unshown=("input", "token")))
    # No worker could begin such a run: the request to pin its agent would not be taken.
    if input_size.measure(pin_request(request).model_dump(mode="json")) > input_size.PAYLOAD_BYTES:
        return _bad_input(f"input: {input_size.describe_excess(f'{input_size.measure(request.input):,}')}")
    return request


def pin_request(request: RunRequest) -> PinRequest:
    """Return what `pin_agent` must know of a request to say whether the run may begin."""
    return PinRequest(
        agent=request.agent,
        input=request.input,
        requester=request.requester,
        labels=request.labels,
        token=request.token,
        model=request.model,
        run_id=workflow.info().first_execution_run_id,
        continues=request.continues,
        in_session=request.session is not None,
    )


def is_marked(args: tuple[Any, ...]) -> bool:
    """Return whether a parent may have started this run."""
    return len(args) == 1 and isinstance(args[0], Marked)


def plan_request_of(args: tuple[Any, ...]) -> PlanRequest | ApplicationError:
    """Return the request of a plan, or why its run fails at once."""
    if len(args) != 1 or not isinstance(args[0], dict):
        return _bad_input("PlanWorkflow takes one JSON object", PlanRequest)
    try:
        request = PlanRequest.model_validate(args[0])
    except ValidationError as error:
        return _bad_input(validation.sentences(error, PlanRequest, unshown=("input", "token")), PlanRequest)
    size = input_size.measure(pin_plan_request(request).model_dump(mode="json"))
    if size > input_size.PAYLOAD_BYTES:
        return _bad_input(f"plan and input: {input_size.describe_excess(f'{size:,}')}", PlanRequest)
    return request


def pin_plan_request(request: PlanRequest) -> PinRequest:
    """Return what `pin_agent` must know of the request of a plan."""
    return PinRequest(
        agent=request.plan if isinstance(request.plan, str) else request.plan.name,
        plan=request.plan if isinstance(request.plan, PlanSpec) else None,
        input=canonical_json(request.input).decode(),
        requester=request.requester,
        labels=request.labels,
        token=request.token,
        run_id=workflow.info().first_execution_run_id,
    )


def describe_plan(request: PlanRequest) -> str:
    """Return what a plan is asked, for people."""
    given = "" if request.input is None else canonical_json(request.input).decode()
    name = request.plan if isinstance(request.plan, str) else request.plan.name
    return wording.shorten(f"plan {name}{f': {given}' if given else ''}", GOAL_CHARACTERS)


def _bad_input(reason: str, model: type[BaseModel] = RunRequest) -> ApplicationError:
    allowed = ", ".join(model.model_fields)
    return ApplicationError(
        f"start request: {wording.shorten(reason, 600)} (allowed keys: {allowed})",
        type=FailureType.BAD_INPUT,
        non_retryable=True,
    )


def goal_of(asked: str | JsonObject) -> str:
    """Return the beginning of the run's task: for people who are to help it."""
    text = asked if isinstance(asked, str) else canonical_json(asked).decode()
    return wording.shorten(text, GOAL_CHARACTERS)


def used_up(limit: int) -> str:
    return f"the limit of {quantities.count_noun(limit, 'step')} is used up"


def step_limit(asked: BudgetRequest | None, allowed: int) -> int:
    return allowed if asked is None or asked.steps is None else min(asked.steps, allowed)
