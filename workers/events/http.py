"""Events over HTTP: CloudEvents in structured and binary mode, each answered once Temporal has it."""

import asyncio
from collections.abc import Mapping

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mandate.workers.events.cloud_event import (
    BATCH,
    MOST_BYTES,
    STRUCTURED,
    CloudEvent,
    NotAnEvent,
    read_event,
    unquote_header,
)
from mandate.workers.events.dead_letters import DeadLetterFolder, FolderFull
from mandate.workers.events.intake import Intake, Outcome, Unavailable
from mandate.workers.events.signatures import Denied, Senders

PATH = "/events"
HEALTH = "/health"

BODY_SECONDS = 10.0
"""Time for which the body of one event is waited for."""

RETRY_SECONDS = 5
"""Time after which a sender is asked to send an event again."""

_PREFIX = "ce-"
_CODES = {"accepted": 202, "duplicate": 200, "ignored": 202, "dead": 202}

_log = structlog.stdlib.get_logger(__name__)


class _Refused(Exception):
    """An answer other than that an event was taken."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class EventApp:
    """The web application: takes one event a request."""

    def __init__(self, intake: Intake, senders: Senders, dead_letters: DeadLetterFolder) -> None:
        self._intake = intake
        self._senders = senders
        self._dead_letters = dead_letters

    def to_asgi(self) -> Starlette:
        return Starlette(
            routes=[Route(PATH, self.receive, methods=["POST"]), Route(HEALTH, self.tell_health, methods=["GET"])],
            exception_handlers={HTTPException: _refuse_request},
        )

    async def tell_health(self, _request: Request) -> Response:
        """Answer that this process lives; it says nothing of Temporal."""
        return JSONResponse({"status": "ok"})

    async def receive(self, request: Request) -> Response:
        """Take the event of a request."""
        try:
            event = await self._read(request)
            outcome = await self._take(event)
        except _Refused as error:
            _log.info("event_refused", code=error.code, reason=str(error))
            later = {"retry-after": str(RETRY_SECONDS)} if error.code == 503 else {}
            return JSONResponse({"error": str(error)}, error.code, later)
        told = {"status": outcome.status, "workflow_id": outcome.workflow_id, "trigger": outcome.trigger}
        if outcome.reason is not None:
            told["reason"] = outcome.reason
        return JSONResponse(told, _CODES[outcome.status])

    async def _read(self, request: Request) -> CloudEvent:
        headers = request.headers
        content_type = headers.get("content-type", "")
        is_structured = content_type.partition(";")[0].strip().lower() == STRUCTURED
        try:
            # Before the body is read: who has no secret and no signature sends nothing more.
            is_known = self._senders.check_secret(headers)
            body = await _read_body(request)
            if not is_known:
                self._senders.check_signature(headers, body)
                if not is_structured:
                    raise Denied(f"a signature covers the body alone: send the event as {STRUCTURED!r}")
            return read_event(content_type, {} if is_structured else _attributes(headers), body)
        except Denied as error:
            raise _Refused(401, str(error)) from None
        except NotAnEvent as error:
            raise _Refused(415 if content_type.strip().lower().startswith(BATCH) else 400, str(error)) from None

    async def _take(self, event: CloudEvent) -> Outcome:
        try:
            outcome = await self._intake.take(event)
            if outcome.status == "dead":
                await asyncio.to_thread(self._dead_letters.bury, event, outcome)
        except Unavailable as error:
            _log.warning("event_put_off", event_id=event.workflow_id, reason=str(error))
            raise _Refused(503, "it could not be taken in; send it again") from None
        except (FolderFull, OSError) as error:
            _log.error("dead_letter_not_kept", event_id=event.workflow_id, reason=str(error))
            raise _Refused(503, "it could not be kept; send it again") from None
        log = _log.warning if outcome.status == "dead" else _log.info
        log(
            f"event_{outcome.status}",
            event_id=event.workflow_id,
            trigger=outcome.trigger,
            run=outcome.workflow_id,
            reason=outcome.reason,
        )
        return outcome


async def _refuse_request(request: Request, error: Exception) -> Response:
    """Answer a request that is none of those that are taken: another path or another method."""
    assert isinstance(error, HTTPException)
    said = {
        404: f"there is nothing at this path; events are posted to {PATH}, and GET {HEALTH} tells of the process",
        405: f"{request.method} is not taken here; events are posted to {PATH}, and GET {HEALTH} tells of the process",
    }
    return JSONResponse({"error": said.get(error.status_code, error.detail)}, error.status_code, error.headers)


async def _read_body(request: Request) -> bytes:
    """Return the whole body, and no more of a larger one than is needed to know that."""
    told = request.headers.get("content-length", "0")
    if told.isdecimal() and len(told) < 20 and int(told) > MOST_BYTES:
        raise _Refused(413, f"the event has {int(told):,} bytes; at most {MOST_BYTES:,} are taken")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > MOST_BYTES:
                    raise _Refused(413, f"the event has more than {MOST_BYTES:,} bytes")
    except TimeoutError:
        raise _Refused(408, f"the whole event did not come within {BODY_SECONDS:g} s") from None
    except ClientDisconnect:
        raise _Refused(400, "the event ended too early") from None
    return bytes(body)


def _attributes(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the attributes of binary mode."""
    return {
        name.lower().removeprefix(_PREFIX): unquote_header(value)
        for name, value in headers.items()
        if name.lower().startswith(_PREFIX)
    }
