"""Responses of HTTP tools: the outcome of the attempt, and the text for the model."""

import asyncio
from dataclasses import dataclass
from typing import Literal

import httpx2

from mandate.activities.retry_after import retry_after
from mandate.activities.tool_error import ToolError
from mandate.activities.toolbox.base import ToolText
from mandate.activities.toolbox.http.body_text import BrokenPacking, UnknownPacking, read_text, unpack
from mandate.activities.toolbox.http.status import describe_status
from mandate.activities.toolbox.redaction import SecretValues
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.tool import Effect

ERROR_BYTES = 32 * 1024
"""Most that is read of an answer that is no result."""

_BUSY_SECONDS = 1.0
_BEFORE_THE_KEY = (401, 403, 407)
"""Refusals by whoever lets requests in, who does not look the key up."""
_MISSING = (404, 410)
_FAULTS = {
    "too large": "it is larger than the worker's limit",
    "late": "it did not arrive in time",
    "cut": "the connection was cut",
    "broken": "what it is packed in is cut or damaged",
    "packed": "it is packed in a way that this worker cannot read",
}
_LASTING_FAULTS = ("too large", "packed")
"""Another attempt would end in the same way."""


@dataclass(frozen=True, slots=True)
class Body:
    """Body of an answer, as much of it as came."""

    content: bytes
    fault: Literal["too large", "late", "cut", "broken", "packed"] | None = None
    """The reason why it is not whole."""


def decide_outcome(status: int, *, keyed: bool) -> Outcome:
    """Return the outcome that an answer shows; `keyed` says that the server knows our idempotency key.

    A 409 to a key may mean that the first attempt is still at work; a 408 or 425 says nothing of it.
    """
    if 200 <= status < 300:
        return Outcome.DONE
    if not 400 <= status < 500 or status in (408, 425) or (status == 409 and keyed):
        return Outcome.UNKNOWN
    return Outcome.NOT_DONE


async def read_body(response: httpx2.Response, max_bytes: int, deadline: float) -> Body:
    """Read the body, as much as comes until `deadline` of the loop's clock; the server cannot make it raise."""
    content = bytearray()
    try:
        async with asyncio.timeout_at(deadline):
            async for chunk in response.aiter_raw():
                content += chunk
                if len(content) > max_bytes:
                    return _unpack(response, Body(bytes(content[:max_bytes]), "too large"), max_bytes)
    except TimeoutError:
        return _unpack(response, Body(bytes(content), "late"), max_bytes)
    except (httpx2.TransportError, httpx2.StreamError):
        return _unpack(response, Body(bytes(content), "cut"), max_bytes)
    return _unpack(response, Body(bytes(content)), max_bytes)


def _unpack(response: httpx2.Response, body: Body, max_bytes: int) -> Body:
    """Return the body without what it is packed in, although nothing was asked for that is packed."""
    encodings = response.headers.get_list("content-encoding", split_commas=True)
    try:
        content = unpack(body.content, encodings, max_bytes)
    except UnknownPacking:
        return Body(b"", body.fault or "packed")
    except BrokenPacking as broken:
        return Body(broken.beginning, body.fault or "broken")
    return Body(content[:max_bytes], body.fault or ("too large" if len(content) > max_bytes else None))


def build_result(
    response: httpx2.Response, body: Body, *, effect: Effect, secrets: SecretValues, head: bool = False
) -> ToolText:
    """Return the result for the model; a definite refusal is one too, so that it is read in the server's words.

    Raises:
        ToolError: the outcome is unknown, or the server asks to wait, or it knows the key from another call.
    """
    status = describe_status(response.status_code)
    text = secrets.strike(_head(response) if head else _text(response, body.content))
    answer = f"{status}: {text}" if text else status
    wait = retry_after(response.headers)
    match decide_outcome(response.status_code, keyed=effect is Effect.KEYED):
        case Outcome.DONE:
            whole = ToolText(answer if head else text or status)
            return whole if body.fault is None else _report_lost(status, body.fault, effect)
        case Outcome.NOT_DONE if response.status_code == 429:
            raise ToolError(Outcome.NOT_DONE, answer, retry_after=_BUSY_SECONDS if wait is None else wait)
        case Outcome.NOT_DONE if response.status_code == 422 and effect is Effect.KEYED:
            reason = f"the server refused the idempotency key or the request: {answer}"
            raise ToolError(Outcome.NOT_DONE, reason, is_of_key=False)
        case Outcome.NOT_DONE:
            return ToolText(
                answer,
                error=True,
                is_of_key=response.status_code not in _BEFORE_THE_KEY,
                is_missing=response.status_code in _MISSING,
            )
    raise ToolError(Outcome.UNKNOWN, answer, retry_after=wait)


def _report_lost(status: str, fault: str, effect: Effect) -> ToolText:
    """Return the failure for a call that was done and whose answer is not whole; a cut read may be tried again."""
    if effect.changes_world:
        return ToolText(f"{status}: it was done, but the answer is lost: {_FAULTS[fault]}.", is_lost=True)
    if fault in _LASTING_FAULTS:
        return ToolText(f"{status}: the answer cannot be used: {_FAULTS[fault]}.", error=True)
    raise ToolError(Outcome.UNKNOWN, f"{status}, but the answer is lost: {_FAULTS[fault]}")


def _text(response: httpx2.Response, content: bytes) -> str:
    """Return text as it is, anything else as one line that says what it is; empty where there is nothing to read."""
    text = read_text(content, response.headers.get("content-type", ""), response.charset_encoding)
    return text if text.strip() else ""


def _head(response: httpx2.Response) -> str:
    shown = ("content-type", "content-length", "etag", "last-modified")
    return "\n".join(f"{name}: {response.headers[name]}" for name in shown if name in response.headers)


def describe_error(error: httpx2.RequestError) -> str:
    """Say what became of a request that got no answer, without its address."""
    match error:
        case httpx2.ConnectError() | httpx2.ConnectTimeout():
            return "no connection"
        case httpx2.TimeoutException():
            return "no answer in time"
        case _:
            return f"the connection was cut ({type(error).__name__})"
