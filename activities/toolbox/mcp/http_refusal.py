"""Statuses of streamable HTTP that mean something else than an answer to the call."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, METHOD_NOT_FOUND
from pydantic import JsonValue

from mandate.activities.retry_after import retry_after
from mandate.activities.toolbox.http.status import describe_status
from mandate.activities.toolbox.mcp import json_message
from mandate.workflows.rules.plain_text import shorten

SESSION_GONE = -3_209_900_004
"""JSON-RPC code, outside the range of servers, for a request in a session that the server does not know any more."""
TURNED_AWAY = -3_209_900_005
"""The same for a request that was refused before it was taken: whose sender, size or rate was not accepted."""
SERVER_FAILED = -3_209_900_006
"""The same for a status that does not say what became of the request."""

_BUSY_SECONDS = 1.0
_TURNED_AWAY = (401, 403, 407, 429)
_UNCERTAIN = (408, 409, 425)
_NOT_SESSIONS = (METHOD_NOT_FOUND, INVALID_PARAMS)
_WORD_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Refusal:
    """A JSON-RPC error that says why there is no result."""

    code: int
    message: str
    data: JsonValue = None
    """With a code of ours: seconds after which the server wants to be asked again, if it says so."""


def find_refusal(status: int, headers: Mapping[str, str], body: bytes, *, in_session: bool) -> Refusal:
    """Return what a status of 400 or more says of a request, or the answer in its body where that says it."""
    error = _error_in(body)
    code = None if error is None else error.code
    words = _words(headers, body) if error is None else error.message
    sentence = f"{describe_status(status)}: {words}" if words else describe_status(status)
    wait = retry_after(headers)
    if in_session and _names_session(status, words) and code not in _NOT_SESSIONS:
        return Refusal(SESSION_GONE, sentence)
    if status in _TURNED_AWAY:
        wait = _BUSY_SECONDS if wait is None and status == 429 else wait
        return Refusal(TURNED_AWAY, sentence, wait)
    if error is not None:
        return error
    if status >= 500 or status in _UNCERTAIN:
        return Refusal(SERVER_FAILED, sentence, wait)
    return Refusal(TURNED_AWAY, sentence, wait)


def find_wait(error: BaseException) -> float | None:
    """Return the seconds after which the server wants to be asked again, if it said so."""
    is_ours = isinstance(error, MCPError) and error.code in (TURNED_AWAY, SERVER_FAILED)
    wait = error.data if is_ours and isinstance(error, MCPError) else None
    return wait if isinstance(wait, int | float) else None


def _names_session(status: int, words: str) -> bool:
    # Servers on the TypeScript SDK's example answer 400 with these words.
    return status == 404 or (status == 400 and re.search("session", words, re.IGNORECASE) is not None)


def _error_in(body: bytes) -> Refusal | None:
    try:
        value = json_message.parse(body)
    except ValueError:
        return None
    if not isinstance(value, dict) or not isinstance(error := value.get("error"), dict) or "code" not in error:
        return None
    return Refusal(*json_message.read_error(error))


def _words(headers: Mapping[str, str], body: bytes) -> str:
    media = headers.get("content-type", "").partition(";")[0].strip().lower()
    if not body or media == "text/html":
        return ""
    return shorten(body[:4000].decode("utf-8", "replace"), _WORD_CHARACTERS)
