"""Guard of activities: only what a run of this installation asks for is done, and the answer says who gave it.

Anybody who may write in the namespace can start an activity of any type, by itself or in a workflow of their own, and
can complete, fail or heartbeat the activities of others. So an input without the mark of a worker's workflow code is
refused before anything of it is read, and results, reasons of failures and what attempts leave behind are marked too.
"""

import asyncio
import inspect
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar, get_type_hints

import structlog
from pydantic import BaseModel
from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.client import Client
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from mandate.activities import failures
from mandate.activities.keyring import Keyring
from mandate.workflows.contracts.failures import FailureType, ToolFailure
from mandate.workflows.contracts.marks import METADATA_KEY, MarkKind
from mandate.workflows.contracts.run import AGENT_WORKFLOW, PLAN_WORKFLOW
from mandate.workflows.rules.marks import find_subject

log = structlog.stdlib.get_logger(__name__)

R = TypeVar("R", bound=BaseModel)

WORKFLOWS = (AGENT_WORKFLOW, PLAN_WORKFLOW)

RESETS_KEPT = 1000

LOCAL_SHARE = 0.8
"""Share of its time after which a local activity ends by itself."""

REFUSAL = "no run of an agent of this installation asked for this; this worker, which has store {}, did nothing"


@dataclass(frozen=True, slots=True)
class _Post:
    """The activity that this task performs, as its marks name it."""

    keyring: Keyring
    place: tuple[str, ...]

    def payload(self, kind: MarkKind, value: BaseModel) -> RawValue:
        payload = activity.payload_converter().to_payload(value)
        payload.metadata[METADATA_KEY] = self.keyring.sign(kind, self.place, payload.data)
        return RawValue(payload)


_POST: ContextVar[_Post | None] = ContextVar("post", default=None)


class Guard:
    """Guard that makes activities which check who asks for them."""

    def __init__(self, keyring: Keyring, store: str) -> None:
        """Take `store`, the id of the keyring's store."""
        self._keyring = keyring
        self._refusal = REFUSAL.format(store)
        self._originals: OrderedDict[str, str] = OrderedDict()

    def protect(self, perform: Callable[[Any], Awaitable[BaseModel]]) -> Callable[[RawValue], Awaitable[RawValue]]:
        """Return the activity of the name of `perform`, a method that takes and returns one contract."""
        hints = get_type_hints(perform)
        (parameter,) = inspect.signature(perform).parameters
        wanted: type[BaseModel] = hints[parameter]

        @activity.defn(name=perform.__name__)
        async def guarded(request: RawValue) -> RawValue:
            admitted = await self._admit(request.payload)
            asked = _decode(request.payload, wanted)
            post = replace(admitted, place=(*admitted.place, find_subject(asked)))
            token = _POST.set(post)
            try:
                async with _in_time():
                    return post.payload("output", await perform(asked))
            except ApplicationError as error:
                raise _mark_failure(error, post) from error.__cause__
            finally:
                _POST.reset(token)

        return guarded

    async def _admit(self, payload: Payload) -> _Post:
        """Return whose request it is.

        Raises:
            ApplicationError: `NotAsked`; another attempt may find the worker that has the run's store.
        """
        info = activity.info()
        if info.workflow_id and info.workflow_run_id and info.workflow_type in WORKFLOWS:
            post = self._post(info, info.workflow_id, info.workflow_run_id)
            if await self._is_genuine(post, payload):
                return post
            if METADATA_KEY in payload.metadata:
                original = await self._original_run(activity.client(), info.workflow_id, info.workflow_run_id)
                post = self._post(info, info.workflow_id, original)
                if await self._is_genuine(post, payload):
                    return post
        log.warning("activity_refused", activity_id=info.activity_id, workflow_type=info.workflow_type)
        raise ApplicationError(
            self._refusal, type=FailureType.NOT_ASKED, category=failures.EXPECTED, next_retry_delay=timedelta(seconds=1)
        )

    def _post(self, info: activity.Info, workflow_id: str, run_id: str) -> _Post:
        return _Post(self._keyring, (info.namespace, workflow_id, run_id, info.activity_type, info.activity_id))

    async def _is_genuine(self, post: _Post, payload: Payload) -> bool:
        mark = payload.metadata.get(METADATA_KEY)
        at = activity.info().scheduled_time
        return await self._keyring.is_genuine_now("input", post.place, payload.data, mark, at)

    async def _original_run(self, client: Client, workflow_id: str, run_id: str) -> str:
        """Return the run that a reset made this one from: what it had scheduled goes on in the new one."""
        if run_id not in self._originals:
            handle = client.get_workflow_handle(workflow_id, run_id=run_id)
            first = await anext(handle.fetch_history_events(page_size=1))
            original = first.workflow_execution_started_event_attributes.original_execution_run_id
            self._originals[run_id] = original or run_id
            if len(self._originals) > RESETS_KEPT:
                self._originals.popitem(last=False)
        return self._originals[run_id]


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    """Give a local activity up before the workflow task does, which says so in lines of its own.

    Raises:
        ApplicationError: `NotQuick`; it is done again as an ordinary activity.
    """
    info = activity.info()
    if not info.is_local or info.schedule_to_close_timeout is None:
        yield
        return
    try:
        async with asyncio.timeout(info.schedule_to_close_timeout.total_seconds() * LOCAL_SHARE):
            yield
    except TimeoutError:
        raise ApplicationError(
            "it takes too long for a local activity", type=FailureType.NOT_QUICK, category=failures.EXPECTED
        ) from None


def _decode(payload: Payload, wanted: type[R]) -> R:
    decoded: R = activity.payload_converter().from_payload(payload, wanted)
    return decoded


def _mark_failure(error: ApplicationError, post: _Post) -> ApplicationError:
    """Return `error`, its reasons marked where the run decides by them."""
    if error.type != FailureType.TOOL_FAILED or not error.details or not isinstance(error.details[0], ToolFailure):
        return error
    return ApplicationError(
        error.message,
        post.payload("failure", error.details[0]),
        type=error.type,
        non_retryable=error.non_retryable,
        next_retry_delay=error.next_retry_delay,
        category=error.category,
    )


def sign_heartbeat(content: str) -> str:
    """Return the mark of what an attempt leaves behind for the next one; empty for an activity without a guard."""
    post = _POST.get()
    return post.keyring.sign("heartbeat", post.place, content.encode()).hex() if post is not None else ""


def is_own_heartbeat(content: str, mark: object) -> bool:
    """Return whether an earlier attempt of this activity left `content` behind."""
    post = _POST.get()
    if post is None:
        return mark == ""
    try:
        given = bytes.fromhex(mark) if isinstance(mark, str) else b""
    except ValueError:
        return False
    at = activity.info().scheduled_time
    return bool(given) and post.keyring.is_genuine("heartbeat", post.place, content.encode(), given, at)
