"""Messages to sessions: each starts its run if none goes on, is sent again until it is answered, and counts once."""

import asyncio
import secrets
from contextlib import suppress
from dataclasses import dataclass

from temporalio.client import (
    Client,
    WithStartWorkflowOperation,
    WorkflowFailureError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from mandate.workers.client.in_flight import Pauses
from mandate.workers.client.updates import NoAnswer, Patience, Refused, is_passing
from mandate.workflows.contracts.failures import ENDED_BEFORE, REFUSALS, FailureType
from mandate.workflows.contracts.run import AGENT_WORKFLOW, TASK_TIMEOUT, RunResult, StartRequest
from mandate.workflows.contracts.session import Reply, Say
from mandate.workflows.rules import wording

_OVER = "AcceptedUpdateCompletedWorkflow"
"""The server's type of failure of a message that was taken in by a run which ended before it had answered."""

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


async def say(client: Client, opening: Opening, message: Say, patience: Patience) -> Reply:
    """Send one message until its reply is there; `patience` is for servers and workers that do not answer.

    Raises:
        MessageError: `Refused`, with the run's own sentence; `NoAnswer`, when nobody took it in in time.
    """
    pauses, said = Pauses(), ""
    while True:
        operation = opening.to_operation()
        try:
            reply: Reply = await client.execute_update_with_start_workflow(
                "say",
                message.model_dump(mode="json", exclude_defaults=True),
                start_workflow_operation=operation,
                # The server repeats its answer to a known id, and who is told to try again must be able to.
                id=f"say-{secrets.token_hex(8)}",
                result_type=Reply,
            )
            return reply
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
        raise Refused(failure) from None
    if message == ENDED_BEFORE:
        # Somebody cancelled it, and the next one may begin.
        return str(message)
    raise Refused(message) from None


async def _find_failure(client: Client, workflow_id: str) -> str | None:
    """Return why the newest run failed, if it did: it could not begin, and the message only tells that."""
    handle = client.get_workflow_handle(workflow_id)
    try:
        described = await handle.describe()
        if described.status is None or described.status.name != "FAILED":
            return None
        await handle.result()
    except WorkflowFailureError as error:
        return getattr(error.cause, "message", None) or str(error.cause)
    except RPCError:
        return None
    return None
