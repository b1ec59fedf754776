"""Messages to sessions: each starts its run if none goes on, is sent again until it is answered, and counts once."""

import asyncio
import secrets
from contextlib import suppress
from dataclasses import dataclass

from temporalio.client import (
    Client,
    WithStartWorkflowOperation,
    WorkflowExecutionDescription,
    WorkflowFailureError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
    WorkflowUpdateStage,
)
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from mandate.workers.client.diagnosis import explain_silence
from mandate.workers.client.in_flight import Pauses
from mandate.workers.client.trees import read_attribute
from mandate.workers.client.updates import NoAnswer, Patience, Refused, WronglyAsked, is_passing
from mandate.workflows.contracts.failures import ENDED_BEFORE, REFUSALS, FailureType
from mandate.workflows.contracts.run import AGENT_WORKFLOW, PLAN_WORKFLOW, TASK_TIMEOUT, RunResult, StartRequest
from mandate.workflows.contracts.session import Reply, Say
from mandate.workflows.rules import wording

OTHER_ID = "give the session an id of its own"

_OVER = "AcceptedUpdateCompletedWorkflow"
"""The server's type of failure of a message that was taken in by a run which ended before it had answered."""

_WRONGLY_ASKED = (FailureType.BAD_INPUT, FailureType.UNKNOWN_AGENT)

_MOVED = (RPCStatusCode.NOT_FOUND, RPCStatusCode.FAILED_PRECONDITION, RPCStatusCode.ALREADY_EXISTS)
"""Statuses of a message that met the end of a run: the next one starts another."""


@dataclass(frozen=True, slots=True)
class Opening:
    """The run that a message starts where none goes on."""

    workflow_id: str
    task_queue: str
    request: StartRequest
    """With the message as its input."""

    def to_operation(self) -> WithStartWorkflowOperation[object, RunResult]:
        """Return the start that goes with one attempt."""
        request = self.request
        return WithStartWorkflowOperation(
            AGENT_WORKFLOW,
            request.model_dump(mode="json", exclude_defaults=True),
            id=self.workflow_id,
            task_queue=self.task_queue,
            task_timeout=TASK_TIMEOUT,
            result_type=RunResult,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            static_summary=f"{request.agent}: {wording.shorten(str(request.input), 100)}",
        )


async def check(client: Client, workflow_id: str, agent: str) -> None:
    """Do nothing for an id that has no run, or is that of a session of `agent`.

    Raises:
        Refused: a message would begin something else under the id, or reach another agent.
    """
    try:
        described = await client.get_workflow_handle(workflow_id).describe()
    except RPCError:
        # Whoever sends the message is told, as far as patience does not help.
        return
    if described.workflow_type != AGENT_WORKFLOW:
        kind = "a plan" if described.workflow_type == PLAN_WORKFLOW else f"the workflow {described.workflow_type}"
        raise Refused(f"{workflow_id!r} is a run of {kind}, and no session; {OTHER_ID}")
    if described.close_time is not None and not await _was_session(client, described):
        raise Refused(f"{workflow_id!r} is a run that has ended and was no session; {OTHER_ID}")
    named = read_attribute(described, "AgentName")
    if named is not None and named != agent:
        raise Refused(f"the session {workflow_id!r} is one of the agent {named!r}, not of {agent!r}")


async def _was_session(client: Client, described: WorkflowExecutionDescription) -> bool:
    """Return whether a run began as a session; true where nobody can say."""
    first = described.raw_description.workflow_execution_info.first_run_id or described.run_id
    try:
        async for event in client.get_workflow_handle(described.id, run_id=first).fetch_history_events(page_size=1):
            given = event.workflow_execution_started_event_attributes.input.payloads
            (asked,) = await client.data_converter.decode(given, [dict])
            return bool(asked.get("session"))
    except (RPCError, RuntimeError, ValueError, AttributeError):
        pass
    return True


async def say(client: Client, opening: Opening, message: Say, patience: Patience) -> Reply:
    """Send one message until its reply is there; `patience` is for servers and workers that do not answer.

    Raises:
        MessageError: `Refused`, with the run's own sentence; `NoAnswer`, when nobody took it in in time.
    """
    pauses, said = Pauses(), ""
    while True:
        operation = opening.to_operation()
        try:
            # A worker has taken it in, or not in time; its answer may take as long as people do.
            async with asyncio.timeout(max(patience.left_seconds, 0.1)):
                update = await client.start_update_with_start_workflow(
                    "say",
                    message.model_dump(mode="json", exclude_defaults=True),
                    start_workflow_operation=operation,
                    wait_for_stage=WorkflowUpdateStage.ACCEPTED,
                    # The server repeats its answer to a known id, and who is told to try again must be able to.
                    id=f"say-{secrets.token_hex(8)}",
                    result_type=Reply,
                )
            patience.renew()
            reply: Reply = await update.result()
            return reply
        except TimeoutError:
            await _read_start(operation)
        except WorkflowUpdateFailedError as error:
            said = await _read_refusal(client, opening.workflow_id, error.cause)
        except WorkflowUpdateRPCTimeoutOrCancelledError:
            await _read_start(operation)
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise asyncio.CancelledError from None
        except RPCError as error:
            await _read_start(operation)
            if not is_passing(error) and error.status not in _MOVED:
                raise
            said = " ".join(error.message.split())
        if patience.left_seconds <= 0:
            said = await explain_silence(client, opening.workflow_id, opening.task_queue) or said
            raise NoAnswer(
                f"session {opening.workflow_id!r} did not take the message within {patience.seconds:g} s"
                f"{f' ({said})' if said else ''}; it may still be taken in, and sending it again with its id is safe"
            )
        await pauses.wait()


async def _read_start(operation: WithStartWorkflowOperation[object, RunResult]) -> None:
    """Take what the start has come to, which is known by then: asyncio complains of an error that nobody reads."""
    with suppress(RPCError, asyncio.CancelledError):
        await operation.workflow_handle()


async def _read_refusal(client: Client, workflow_id: str, cause: BaseException) -> str:
    """Return why a message has to be sent again.

    Raises:
        Refused: it is not to be sent again.
    """
    message = getattr(cause, "message", None) or str(cause) or type(cause).__name__
    kind = cause.type if isinstance(cause, ApplicationError) else None
    if kind in {FailureType.TRY_AGAIN, _OVER}:
        return str(message)
    if kind in REFUSALS and (failure := await _find_failure(client, workflow_id)) is not None:
        raise failure from None
    if message == ENDED_BEFORE:
        # Somebody cancelled it, and the next one may begin.
        return str(message)
    raise Refused(message) from None


async def _find_failure(client: Client, workflow_id: str) -> Refused | None:
    """Return why the newest run failed, if it did: it could not begin, and the message only tells that."""
    handle = client.get_workflow_handle(workflow_id)
    try:
        described = await handle.describe()
        if described.status is None or described.status.name != "FAILED":
            return None
        await handle.result()
    except WorkflowFailureError as error:
        said = getattr(error.cause, "message", None) or str(error.cause)
        is_wrong = isinstance(error.cause, ApplicationError) and error.cause.type in _WRONGLY_ASKED
        return WronglyAsked(said) if is_wrong else Refused(said)
    except RPCError:
        return None
    return None
