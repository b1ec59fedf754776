"""What people say to runs: decisions and words as Temporal updates, sent until they are answered."""

import asyncio
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from temporalio.client import (
    Client,
    WorkflowHandle,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from workflows.contracts.base import digest_of
from workflows.contracts.request import Decision, Halt, Receipt, Steering, Stop, Told

T = TypeVar("T", Receipt, Told)

PATIENCE_SECONDS = 60.0
"""How long one message is sent again and waited for."""

PER_RUN = 8
"""Messages in flight to one run; the server refuses the eleventh."""
IN_ALL = 32

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 2.0

_PASSING = (RPCStatusCode.RESOURCE_EXHAUSTED, RPCStatusCode.UNAVAILABLE, RPCStatusCode.ABORTED)
_ABORTED = ("update was aborted", "due to unexpected workflow task failure")
"""What the server says, also as `NOT_FOUND`, to an update that came while the run ended or continued as new, or in a
task that is done again since something else came meanwhile."""


class MessageError(Exception):
    """A message that did not do what it was sent for; the text is one sentence for the person."""


class Refused(MessageError):
    """The run has read the message and does not act on it."""


class NoRun(MessageError):
    """There is no such run, or it is over."""


class NoAnswer(MessageError):
    """Nobody answered in time; the message may still be taken in."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one decision of many."""

    workflow_id: str
    decision: Decision
    receipt: Receipt | None = None
    """`None` when it did not count."""
    error: str | None = None
    """Why it did not count, in one sentence."""


async def decide(
    client: Client, workflow_id: str, decision: Decision, *, patience_seconds: float = PATIENCE_SECONDS
) -> Receipt:
    """Answer a request of a run; the run is asked by its workflow id, so that it may continue as new meanwhile.

    Raises:
        MessageError: it does not count: `Refused`, `NoRun` or `NoAnswer`.
    """
    return await _sent(client, workflow_id, _Message("decide", decision, Receipt), _Patience(patience_seconds))


async def decide_many(
    client: Client,
    decisions: Sequence[tuple[str, Decision]],
    *,
    on_outcome: Callable[[Outcome], None] | None = None,
    patience_seconds: float = PATIENCE_SECONDS,
) -> list[Outcome]:
    """Decisions by workflow id, at most `PER_RUN` at a time for one run and `IN_ALL` in all; outcomes in their order.

    `on_outcome` is told of each as it comes. One that does not count does not keep the others back. For each answer of
    a run the others are waited for `patience_seconds` more: it takes so many at a time, and others send it some too.
    """
    everywhere = asyncio.Semaphore(IN_ALL)
    runs: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(PER_RUN))
    patience: dict[str, _Patience] = defaultdict(lambda: _Patience(patience_seconds))

    async def one(workflow_id: str, decision: Decision) -> Outcome:
        # Those of a busy run queue up before they take a place of all.
        async with runs[workflow_id], everywhere:
            try:
                message = _Message("decide", decision, Receipt)
                receipt = await _sent(client, workflow_id, message, patience[workflow_id])
                outcome = Outcome(workflow_id, decision, receipt)
            except MessageError as error:
                outcome = Outcome(workflow_id, decision, error=str(error))
            except RPCError as error:
                outcome = Outcome(workflow_id, decision, error=f"Temporal refused: {' '.join(error.message.split())}")
        if on_outcome is not None:
            on_outcome(outcome)
        return outcome

    return await asyncio.gather(*(one(workflow_id, decision) for workflow_id, decision in decisions))


async def steer(client: Client, workflow_id: str, steering: Steering) -> Told:
    """Tell the model something at its next step, as this person's words. Raises as `decide`."""
    return await _sent(client, workflow_id, _Message("steer", steering, Told))


async def pause(client: Client, workflow_id: str, halt: Halt) -> Told:
    """Let a run begin nothing new until it is resumed. Raises as `decide`."""
    return await _sent(client, workflow_id, _Message("pause", halt, Told))


async def resume(client: Client, workflow_id: str, halt: Halt) -> Told:
    """Let a paused run go on. Raises as `decide`."""
    return await _sent(client, workflow_id, _Message("resume", halt, Told))


async def stop(client: Client, workflow_id: str, stop: Stop) -> Told:
    """Let a run finish the call in hand, take back what it may, and end as `stopped`. Raises as `decide`."""
    return await _sent(client, workflow_id, _Message("stop", stop, Told))


@dataclass(frozen=True, slots=True)
class _Message(Generic[T]):
    verb: str
    payload: Decision | Steering | Halt
    answer: type[T]

    @property
    def names_its_run(self) -> bool:
        """Whether no other run takes it: the digest of a request holds the run's id."""
        return isinstance(self.payload, Decision) and self.payload.digest is not None

    def new_update_id(self) -> str:
        """Another one for each call.

        All attempts of one call have the same, so that it is taken in once; but the server repeats its answer to a
        known id, and who is told to try again must be able to, with the same words.
        """
        said = digest_of(self.payload.model_dump_json(exclude={"token"}).encode())
        return f"{self.verb}-{said[:22]}-{secrets.token_hex(6)}"


class _Patience:
    """How long a run is waited for since it last answered, or was first asked."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._since = time.monotonic()

    def renew(self) -> None:
        self._since = time.monotonic()

    @property
    def left_seconds(self) -> float:
        return self._since + self.seconds - time.monotonic()


async def _sent(client: Client, workflow_id: str, message: _Message[T], patience: _Patience | None = None) -> T:
    """The answer to an update, which is sent again under the same id while the server cannot take it."""
    patience = patience or _Patience(PATIENCE_SECONDS)
    if patience.left_seconds <= 0:
        raise NoAnswer(f"no worker answers for run {workflow_id!r}; the message was not sent")
    update = asyncio.create_task(_until_answered(client, workflow_id, message))
    try:
        # Not a timeout around the call, which the SDK would report as an error of its own.
        while not update.done() and patience.left_seconds > 0:
            await asyncio.wait({update}, timeout=patience.left_seconds)
        if not update.done():
            raise NoAnswer(
                f"no worker has answered for run {workflow_id!r} within {patience.seconds:g} s; "
                "the message may still be taken in when one does, and sending it again is safe"
            )
        patience.renew()
        return update.result()
    finally:
        update.cancel()


async def _until_answered(client: Client, workflow_id: str, message: _Message[T]) -> T:
    handle = client.get_workflow_handle(workflow_id) if message.names_its_run else None
    update_id = message.new_update_id()
    pause_seconds = FIRST_PAUSE_SECONDS
    while True:
        try:
            handle = handle or await _run_of_now(client, workflow_id)
            told: T = await handle.execute_update(
                message.verb, message.payload, id=update_id, result_type=message.answer
            )
            return told
        except WorkflowUpdateFailedError as error:
            raise Refused(_sentence(error.cause)) from None
        except WorkflowUpdateRPCTimeoutOrCancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise asyncio.CancelledError from None
        except RPCError as error:
            aborted = any(words in error.message for words in _ABORTED)
            if error.status is RPCStatusCode.NOT_FOUND and not aborted:
                raise NoRun(
                    _no_run(workflow_id, error, seen=handle is not None and not message.names_its_run)
                ) from None
            if error.status not in _PASSING and not aborted:
                raise
        await asyncio.sleep(pause_seconds)
        pause_seconds = min(pause_seconds * 2, LONGEST_PAUSE_SECONDS)


async def _run_of_now(client: Client, workflow_id: str) -> WorkflowHandle[Any, Any]:
    """The run that has this workflow id now, with all parts in which it goes on; no later run of the same id."""
    described = await client.get_workflow_handle(workflow_id).describe()
    first = described.raw_description.workflow_execution_info.first_run_id
    # A server that does not say it gets the message as one for whatever run has the id.
    return client.get_workflow_handle(workflow_id, first_execution_run_id=first or None)


def _sentence(cause: BaseException) -> str:
    if isinstance(cause, ApplicationError):
        return cause.message
    return str(cause) or type(cause).__name__


def _no_run(workflow_id: str, error: RPCError, *, seen: bool) -> str:
    over = seen or "already completed" in error.message
    return f"run {workflow_id!r} is over" if over else f"there is no run {workflow_id!r}"
