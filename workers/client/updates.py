"""One message to a run as a Temporal update, sent until it is answered.

Without the SDK's own retries: they come between the waits of a client that was told to wait, and hide from it that a
run is crowded; see `windows`.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message as Protobuf
from temporalio.client import (
    Client,
    WorkflowExecutionStatus,
    WorkflowHandle,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode, ServiceClient

from mandate.workers.client.diagnosis import diagnose, explain_silence
from mandate.workers.client.in_flight import Pauses, window_of
from mandate.workflows.contracts.base import digest_of
from mandate.workflows.contracts.failures import FailureType
from mandate.workflows.contracts.request import Decision, Decisions, Halt, Receipt, Receipts, Steering, Told
from mandate.workflows.rules import quantities

T = TypeVar("T", Receipt, Receipts, Told)

_PASSING = (
    RPCStatusCode.RESOURCE_EXHAUSTED,
    RPCStatusCode.UNAVAILABLE,
    RPCStatusCode.ABORTED,
    RPCStatusCode.INTERNAL,
    RPCStatusCode.UNKNOWN,
    RPCStatusCode.DATA_LOSS,
    RPCStatusCode.OUT_OF_RANGE,
)
"""Statuses after which the SDK sends again by itself, if it is let."""

_CLOSING = ("update was aborted", "due to unexpected workflow task failure")
"""The server's words, also as `NOT_FOUND`, on an update that came while the run ended or continued as new, or in a
task that is done again since something else came meanwhile."""

_BUSY = "workflow task in failed state"
"""The server's words, as `FAILED_PRECONDITION`, on a run whose workflow task is at its third attempt: a slow worker."""


class MessageError(Exception):
    """A message that did not do what it was sent for; the text is one sentence for the person."""


class Refused(MessageError):
    """The run has read the message and does not act on it."""


class WronglyAsked(Refused):
    """The error for a run that the workers do not begin: they have no such agent, or its input does not fit."""


class NoRun(MessageError):
    """The error for a run that does not exist or is over."""


class RunIsOver(NoRun):
    """The error for a run that is over."""


class NoAnswer(MessageError):
    """The error for no answer in time; the message may still be taken in."""


@dataclass(frozen=True, slots=True)
class Message(Generic[T]):
    """Message to a run, and the kind of its answer."""

    verb: str
    payload: Decision | Decisions | Steering | Halt
    answer: type[T]

    @property
    def names_its_run(self) -> bool:
        """True if no other run takes it: the digest of a request holds the run's id."""
        payload = self.payload
        return isinstance(payload, Decisions) or (isinstance(payload, Decision) and payload.digest is not None)

    @property
    def is_urgent(self) -> bool:
        """True if it goes before decisions that wait for their turn."""
        return isinstance(self.payload, Halt)

    def new_update_id(self) -> str:
        """Return another id for each call.

        All attempts of one call have the same, so that it is taken in once; but the server repeats its answer to a
        known id, and who is told to try again must be able to, with the same words.
        """
        said = digest_of(self.payload.model_dump_json(exclude={"token"}).encode())
        return f"{self.verb}-{said[:22]}-{secrets.token_hex(6)}"


class Patience:
    """Time for which a run is waited for since it last answered, or was first asked."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._since = time.monotonic()

    def renew(self) -> None:
        self._since = time.monotonic()

    @property
    def left_seconds(self) -> float:
        return self._since + self.seconds - time.monotonic()


class _Plain(ServiceClient):
    """The connection of another one, keys that change included, without its retries."""

    def __init__(self, service: ServiceClient) -> None:
        super().__init__(service.config)
        self._service = service

    @property
    def worker_service_client(self) -> Any:
        return self._service.worker_service_client

    def update_rpc_metadata(self, metadata: Mapping[str, str | bytes]) -> None:
        self._service.update_rpc_metadata(metadata)

    def update_api_key(self, api_key: str | None) -> None:
        self._service.update_api_key(api_key)

    async def _rpc_call(
        self,
        rpc: str,
        req: Protobuf,
        resp_type: type[Any],
        *,
        service: str,
        retry: bool,  # noqa: ARG002 - that is what this is for
        metadata: Mapping[str, str | bytes],
        timeout: timedelta | None,  # noqa: ASYNC109 - the SDK's
    ) -> Any:
        return await self._service._rpc_call(
            rpc, req, resp_type, service=service, retry=False, metadata=metadata, timeout=timeout
        )


def _without_retries(client: Client) -> Client:
    """Return `client` with all that it has: namespace, converter, codec, interceptors and its one connection."""
    config: Any = {**client.config(), "service_client": _Plain(client.service_client)}
    return Client(**config)


async def send(client: Client, workflow_id: str, message: Message[T], patience: Patience) -> T:
    """Send a message, again under the same id while the server cannot take it, and return the answer.

    Raises:
        MessageError: see there.
        RPCError: the server refuses it for good.
    """
    if patience.left_seconds <= 0:
        raise NoAnswer(f"no worker answers for run {workflow_id!r}; the message was not sent")
    sending: _Sending[T] = _Sending(client, workflow_id, message)
    update = asyncio.create_task(sending.until_answered())
    try:
        # Not a timeout around the call, which the SDK would report as an error of its own.
        while not update.done() and patience.left_seconds > 0:
            await asyncio.wait({update}, timeout=patience.left_seconds)
        if not update.done():
            raise NoAnswer(sending.no_answer(patience.seconds, await explain_silence(client, workflow_id)))
        if not isinstance(update.exception(), TryAgain):
            patience.renew()
        return update.result()
    finally:
        update.cancel()


class TryAgain(Refused):
    """The run has read the message and cannot take it in now."""


class _Sending(Generic[T]):
    """One message on its way."""

    def __init__(self, client: Client, workflow_id: str, message: Message[T]) -> None:
        self._given, self._client = client, _without_retries(client)
        self._workflow_id = workflow_id
        self._message: Message[T] = message
        self._update_id = message.new_update_id()
        self._was_sent = False
        self._says = ""
        """What the server said last."""

    def no_answer(self, seconds: float, why: str | None) -> str:
        if not self._was_sent:
            return f"no worker answers for run {self._workflow_id!r}; the message was not sent"
        said = f" ({why})" if why else f" (Temporal says: {self._says})" if self._says else ""
        return (
            f"no worker has answered for run {self._workflow_id!r} within {quantities.write_seconds(seconds)}{said}; "
            "the message may still be taken in when one does, and sending it again is safe"
        )

    async def until_answered(self) -> T:
        message, pauses = self._message, Pauses()
        handle = self._client.get_workflow_handle(self._workflow_id) if message.names_its_run else None
        while True:
            try:
                handle = handle or await _run_of_now(self._client, self._workflow_id)
                async with self._place() as place:
                    self._was_sent = True
                    told: T = await handle.execute_update(
                        message.verb, message.payload, id=self._update_id, result_type=message.answer
                    )
                    place.is_answered = True
                return told
            except WorkflowUpdateFailedError as error:
                raise _refusal(error.cause) from None
            except WorkflowUpdateRPCTimeoutOrCancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise asyncio.CancelledError from None
            except RPCError as error:
                self._says = " ".join(error.message.split())
                is_closing = any(words in error.message for words in _CLOSING)
                if error.status is RPCStatusCode.NOT_FOUND and not is_closing:
                    seen = handle is not None and not message.names_its_run
                    raise _no_run(self._workflow_id, error, seen=seen) from None
                if is_closing and await _is_over(self._client, self._workflow_id):
                    raise RunIsOver(f"run {self._workflow_id!r} is over") from None
                if not is_closing and not is_passing(error):
                    raise
                await self._refuse_failing(error)
            await pauses.wait()

    async def _refuse_failing(self, error: RPCError) -> None:
        """Raise unless the run may answer yet; one whose workflow task fails does not until somebody mends it."""
        if error.status is not RPCStatusCode.FAILED_PRECONDITION:
            return
        found = await diagnose(self._client, self._workflow_id)
        if found is not None and found.is_failing:
            raise NoAnswer(f"run {self._workflow_id!r} takes no message: {found.sentence}") from None

    @asynccontextmanager
    async def _place(self) -> AsyncIterator["_Place"]:
        window = window_of(self._given, self._workflow_id)
        place = _Place(await window.enter(is_urgent=self._message.is_urgent))
        try:
            yield place
        except WorkflowUpdateFailedError:
            place.is_answered = True
            raise
        except RPCError as error:
            place.is_crowded = is_crowded(error)
            raise
        finally:
            window.leave(place.entered, is_crowded=place.is_crowded, is_answered=place.is_answered)


@dataclass(slots=True)
class _Place:
    entered: float
    is_crowded: bool = False
    is_answered: bool = False


def is_passing(error: RPCError) -> bool:
    """Return whether the same message may be taken in a moment later."""
    if error.status is RPCStatusCode.FAILED_PRECONDITION:
        return _BUSY in error.message.lower()
    return error.status in _PASSING


def is_crowded(error: RPCError) -> bool:
    """Return whether the server had too many updates of a run, or has thrown this one away for others."""
    if error.status is RPCStatusCode.RESOURCE_EXHAUSTED:
        return True
    return error.status in {RPCStatusCode.UNAVAILABLE, RPCStatusCode.ABORTED} and "was aborted" in error.message


async def _run_of_now(client: Client, workflow_id: str) -> WorkflowHandle[Any, Any]:
    """Return the run that has this workflow id, with all parts in which it goes on; no later run of the same id."""
    described = await client.get_workflow_handle(workflow_id).describe()
    first = described.raw_description.workflow_execution_info.first_run_id
    # A server that does not say it gets the message as one for whatever run has the id.
    return client.get_workflow_handle(workflow_id, first_execution_run_id=first or None)


async def _is_over(client: Client, workflow_id: str) -> bool:
    """Return whether a run has ended: of one that ended as a message came, the server says it for an hour."""
    try:
        described = await client.get_workflow_handle(workflow_id).describe()
    except RPCError:
        # What is wrong is told to whoever sends the message again.
        return False
    return described.status in _OVER


_OVER = (
    WorkflowExecutionStatus.COMPLETED,
    WorkflowExecutionStatus.FAILED,
    WorkflowExecutionStatus.CANCELED,
    WorkflowExecutionStatus.TERMINATED,
    WorkflowExecutionStatus.TIMED_OUT,
)


def _refusal(cause: BaseException) -> Refused:
    if not isinstance(cause, ApplicationError):
        return Refused(str(cause) or type(cause).__name__)
    return TryAgain(cause.message) if cause.type == FailureType.TRY_AGAIN else Refused(cause.message)


def _no_run(workflow_id: str, error: RPCError, *, seen: bool) -> NoRun:
    if seen or "already completed" in error.message:
        return RunIsOver(f"run {workflow_id!r} is over")
    return NoRun(f"there is no run {workflow_id!r}")
