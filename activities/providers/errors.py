"""Faults of a provider, as the failures that `call_model` raises."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx2
from temporalio.exceptions import ApplicationError

from mandate.activities.failures import ModelFault, make_model_failure
from mandate.activities.providers import response_limits
from mandate.activities.providers.rawjson import Raw
from mandate.activities.retry_after import read_wait, retry_after
from mandate.activities.toolbox.redaction import SHORTEST_HIDDEN, list_forms
from mandate.workflows.rules import quantities
from mandate.workflows.rules.plain_text import shorten

EXCERPT_CHARACTERS = 200
_DELAY = re.compile(r"([0-9]+(?:\.[0-9]+)?)s")
SHOWN_BYTES = 4096

_TOO_LONG = (
    "context_length_exceeded",
    "prompt is too long",
    "maximum context length",
    "exceeds the context window",
    "exceed context limit",
    "exceed_context_size",
    "exceeds the available context size",
    "maximum model length",
    "input is too long",
    "request_too_large",
    "longer than the model's context length",
    "exceeds the maximum number of tokens allowed",
    "contextwindowexceedederror",
)
_QUOTA = (
    "insufficient_quota",
    "billing_hard_limit_reached",
    "enforced_spend_limit_reached",
    "contract_spend_limit_reached",
    "budget_exceeded",
)
_FILTERED = (
    "content_filter",
    "content_policy_violation",
    "invalid_prompt",
    "bio_policy",
    "misalignment_policy_violation",
)
_MISCONFIGURED = (
    "api_key_invalid",
    "api key not valid",
    "invalid model name",
    "invalid_model",
    "is not a valid model id",
    "model_not_found",
    "deploymentnotfound",
)
"""Of a wrong key or name of a model, which some servers answer with 400."""
_OF_IMAGES = ("image_", "invalid_image")
_WRITTEN_BADLY = "tool_use_failed"
"""Groq's code for a call that the model wrote and that cannot be read: another attempt may do better."""
_TRANSIENT: Mapping[str, ModelFault] = {
    "rate_limit_exceeded": "rate_limit",
    "rate_limit_error": "rate_limit",
    "overloaded_error": "overloaded",
}
_STATUSES: Mapping[str, int] = {
    "invalid_request_error": 400,
    "BadRequestError": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "too_many_requests": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""Statuses of the errors that a stream gives by their type; those of others are the server's faults."""


@dataclass(frozen=True, slots=True)
class Peer:
    """The model that was asked, in the words of an error."""

    provider: str
    model: str
    base_url: str
    attempt: int
    secrets: tuple[str, ...] = field(repr=False)
    """Cut out of whatever the provider says."""

    def failure(
        self,
        fault: ModelFault,
        what: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        retryable: bool | None = None,
        may_be_billed: bool | None = None,
    ) -> ApplicationError:
        """Return the failure to raise: `what` happened to a request to this model."""
        name = f"{self.provider}:{self.model}"
        text = f"{name!r} {what}"
        return make_model_failure(
            fault,
            self.redact(text),
            attempt=self.attempt,
            retry_after=retry_after,
            status=status,
            retryable=retryable,
            may_be_billed=may_be_billed,
        )

    def redact(self, text: str) -> str:
        """Return `text` without keys, which some servers repeat."""
        forms = {form for secret in self.secrets if len(secret) >= SHORTEST_HIDDEN for form in list_forms(secret)}
        for form in sorted(forms, key=len, reverse=True):
            text = text.replace(form, "[key]")
        return text

    @property
    def place(self) -> str:
        """The base URL without user, password and query."""
        url = urlsplit(self.base_url)
        return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}".rstrip("/")


def from_status(peer: Peer, status: int, headers: Mapping[str, str], body: str) -> ApplicationError:
    """Return the failure for an answer that is not 2xx; `headers` are looked up in lower case.

    408, 409, 429 and 5xx may be repeated and other statuses not, unless `x-should-retry` says so.
    """
    # Once more when it is read: a key may be escaped in a way of its own, and is whole only until it is shortened.
    code, message = map(peer.redact, _explain_body(peer.redact(body)))
    fault = _fault(status, code, message)
    wish = headers.get("x-should-retry", "").strip().lower()
    if wish == "true" and fault == "bad_request":
        fault = "server"
    limit, advice = (100, _advice(peer, status, message)) if fault == "configuration" else (EXCERPT_CHARACTERS, "")
    what = f"answered {status}{f' ({code})' if code else ''}: {shorten(message, limit) or 'no text'}{advice}"
    retryable = False if wish == "false" else None
    wait = retry_after(headers) or _find_wait(body)
    return peer.failure(fault, what, status=status, retry_after=wait or None, retryable=retryable)


def from_response(peer: Peer, response: httpx2.Response) -> ApplicationError:
    """Return the failure for an answer that is not 2xx and has been read."""
    return from_status(peer, response.status_code, response.headers, response.text)


def from_error_object(peer: Peer, error: Raw) -> ApplicationError:
    """Return the failure for an error that came with HTTP 200."""
    raw_code = error.get("code")
    code = raw_code.string or error.get("type").string
    message = error.get("message").string or error.string or (error.text if error.value else "no text")
    message = shorten(peer.redact(message), EXCERPT_CHARACTERS)
    status = raw_code.count if 400 <= raw_code.count <= 599 else None
    what = f"failed{f' ({code})' if code else ''}: {message}"
    if code.startswith(_OF_IMAGES):
        return peer.failure("bad_request", what, status=200)
    return peer.failure(_TRANSIENT.get(code) or _fault(status or 500, code, message), what, status=status or 200)


def from_error_event(peer: Peer, event: Raw, *, is_begun: bool) -> ApplicationError:
    """Return the failure for an error in a stream: that of the same error with a status, after HTTP 200.

    What `is_begun` may be billed, whatever came of it.
    """
    code, message = map(peer.redact, _explain_body(peer.redact(event.text)) if event.value else ("", ""))
    error = event.get("error") if isinstance(event.get("error").value, dict) else event
    told = next((told for name in ("code", "status") if 400 <= (told := error.get(name).count) <= 599), None)
    status = told or _STATUSES.get(code) or _STATUSES.get(error.get("type").string, 500)
    what = f"failed{f' ({code})' if code else ''}: {shorten(message, EXCERPT_CHARACTERS) or 'no text'}"
    is_of_request = code.startswith(_OF_IMAGES)
    fault: ModelFault = "bad_request" if is_of_request else _TRANSIENT.get(code) or _fault(status, code, message)
    wait = _find_wait(event.text) or read_wait(error.get("retry_after").value)
    billed = True if is_begun else None
    return peer.failure(fault, what, status=told or 200, retry_after=wait or None, may_be_billed=billed)


def from_malformed(peer: Peer, why: str, body: str, content_type: str) -> ApplicationError:
    """Return the failure for HTTP 200 with something else than an answer of the protocol."""
    excerpt = shorten(peer.redact(body), 80)
    return peer.failure(
        "malformed",
        f"answered 200 with {content_type or 'no content type'}, not an answer: {why}; {excerpt!r}",
        status=200,
    )


def from_connection(peer: Peer, error: BaseException) -> ApplicationError:
    """Return the failure for no whole answer: refused, dropped, cut, too long, or a name that does not resolve.

    One that is too long is malformed: `max_output_tokens` bounds every answer that a model gives, so the server or what
    stands before it is broken, and another attempt or another model of the route may do better.
    """
    cause = error.__cause__ or error
    if isinstance(cause, response_limits.AnswerTooLarge):
        return peer.failure(
            "malformed", f"answered with more than {response_limits.MAX_BYTES:,} bytes, which are not read"
        )
    detail = shorten(peer.redact(str(cause)), EXCERPT_CHARACTERS)
    what = f"gave no whole answer at {peer.place!r}: {type(cause).__name__}{f': {detail}' if detail else ''}"
    return peer.failure("connection", what, may_be_billed=not isinstance(cause, httpx2.ConnectError))


def from_timeout(peer: Peer, seconds: float, error: BaseException) -> ApplicationError:
    """Return the failure for a passed deadline, or for one step of the request that took too long."""
    if isinstance(error.__cause__, httpx2.PoolTimeout):
        return peer.failure("not_asked", "was not asked: all connections to it are in use")
    if isinstance(error.__cause__, httpx2.ConnectTimeout):
        return peer.failure("timeout", f"did not take a connection at {peer.place!r}", may_be_billed=False)
    return peer.failure("timeout", f"gave no whole answer within {quantities.write_seconds(seconds)}")


async def read_document(peer: Peer, response: httpx2.Response) -> Raw:
    """Return the JSON object in a 2xx answer.

    Raises:
        ApplicationError: it is something else, for example a proxy's HTML page.
    """
    return await read_body(peer, response.content, response.headers.get("content-type", ""))


async def read_body(peer: Peer, content: bytes, media: str) -> Raw:
    """Return the JSON object in the body of a 2xx answer; raise as `read_document`."""
    beginning = content[:SHOWN_BYTES].decode("utf-8", "replace")
    try:
        raw = await response_limits.parse(content)
    except ValueError as error:
        raise from_malformed(peer, str(error), beginning, media) from None
    if not isinstance(raw.value, dict):
        raise from_malformed(peer, "it is no JSON object", beginning, media)
    return raw


def _fault(status: int, code: str, message: str) -> ModelFault:
    words = f"{code} {message}".lower()
    if status == 413 or (status != 429 and any(marker in words for marker in _TOO_LONG)):
        return "context_length"
    if status == 402 or code in _QUOTA:
        return "quota"
    if code == _WRITTEN_BADLY:
        return "malformed"
    if status == 400 and any(marker in words for marker in _MISCONFIGURED):
        return "configuration"
    if code in _FILTERED:
        return "content_filter"
    match status:
        case 429:
            return "rate_limit"
        # 498: Groq's for a tier without room.
        case 498 | 529:
            return "overloaded"
        case 408 | 409:
            return "server"
        case _ if status >= 500:
            return "server"
        case _ if status in (401, 403, 404, 405) or status < 400:
            return "configuration"
        case _:
            return "bad_request"


def _read_body(body: str) -> Raw:
    """Return the object that an error body is; raises `ValueError` for one that is no JSON."""
    document = Raw.read(body.removeprefix("\ufeff"))
    # Google's is in a list.
    return document.items[0] if document.items else document


def _find_wait(body: str) -> float | None:
    """Return the seconds that Google asks to wait, which stand in the body: `"retryDelay": "36s"`."""
    try:
        details = _read_body(body).get("error").get("details").items
    except ValueError:
        return None
    delays = (_DELAY.fullmatch(detail.get("retryDelay").string) for detail in details)
    return next((read_wait(delay[1]) for delay in delays if delay is not None), None)


def _explain_body(body: str) -> tuple[str, str]:
    """Return code and message of an error body of either vendor, of a compatible server, or of a proxy in between."""
    try:
        document = _read_body(body)
    except ValueError:
        return "", body.removeprefix("\ufeff")
    error = document.get("error") if isinstance(document.get("error").value, dict) else document
    if error.get("metadata").get("flagged_input").value is not None:
        return _FILTERED[0], error.get("message").string
    named = (error.get("details").get("error_code").string, error.get("code").string, _named_type(error))
    # A code that repeats the status says less than a type.
    code = next((code for code in named if code and not code.isdecimal()), next(filter(None, named), ""))
    message = (
        error.get("message").string
        or error.get("Message").string
        or document.get("error").string
        or document.get("detail").string
        or "; ".join(filter(None, (detail.get("msg").string for detail in document.get("detail").items)))
    )
    return code, message or body


def _named_type(error: Raw) -> str:
    kinds = (error.get(name).string for name in ("type", "status", "__type"))
    return next((kind for kind in kinds if kind and kind.lower() not in {"error", "none"}), "")


def _advice(peer: Peer, status: int, message: str) -> str:
    if status in (401, 403) or "api key" in message.lower():
        return "; check the API key and what it may use"
    return f"; check the model's name and the base URL {peer.place!r} (OpenAI's ends in /v1, Anthropic's does not)"
