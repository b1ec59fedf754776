"""JSON-RPC messages as servers write them: byte order marks, bytes that are not UTF-8, halves of characters."""

import json
import re

import pydantic_core
from mcp_types import CONNECTION_CLOSED, INTERNAL_ERROR
from pydantic import JsonValue

from mandate.workflows.contracts.base import JsonObject

_MARK = b"\xef\xbb\xbf"
_AROUND = b" \t\r\n\0"
_HALVES = re.compile("[\ud800-\udfff]")
_REPLACEMENT = "\ufffd"
_START = b'{"jsonrpc"'
"""Beginning of a message that the server wrote behind other text on one line."""
OWN_SERVER_ERROR = -3_209_900_003
"""JSON-RPC code that stands for a server's own -32000, which the SDK gives a connection that was closed."""
_OWN_CODES = range(-3_209_900_099, -3_209_900_000)


def parse(message: bytes) -> JsonValue:
    """Return the value of a message; what is no text in it becomes U+FFFD.

    Raises:
        ValueError: it is no JSON.
    """
    text = message.removeprefix(_MARK).strip(_AROUND).decode("utf-8", "replace")
    value: JsonValue
    try:
        value = pydantic_core.from_json(text)
    except ValueError as error:
        try:
            # Python's parser takes what that one refuses: halves of characters, and control characters in texts.
            written = json.dumps(json.loads(text, strict=False), ensure_ascii=False)
            value = pydantic_core.from_json(_HALVES.sub(_REPLACEMENT, written))
        except (ValueError, RecursionError):
            raise error from None
    return value


def find_behind_noise(line: bytes) -> JsonObject | None:
    """Return the message that ends a line which begins with something else, if there is one."""
    start = line.find(_START)
    if start <= 0:
        return None
    try:
        value = parse(line[start:])
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def dump(value: JsonValue) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")


def write_answer(request_id: str | int | None, **member: JsonValue) -> bytes:
    """Write an answer with one member, `result` or `error`."""
    return dump({"jsonrpc": "2.0", "id": request_id, **member})


def write_error(request_id: str | int | None, code: int, message: str, data: JsonValue = None) -> bytes:
    error: JsonObject = {"code": code, "message": message}
    return write_answer(request_id, error=error if data is None else {**error, "data": data})


def read_request_id(value: JsonValue) -> str | int | None:
    """Return the id of a message: whole numbers may be written as `1.0`."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, str | int) and not isinstance(value, bool) else None


def read_error(value: JsonValue) -> tuple[int, str, JsonValue]:
    """Return code, message and data of an error, with all that the server says in some shape of its own.

    No code is one that stands for something else here.
    """
    if not isinstance(value, dict):
        return INTERNAL_ERROR, _words(value), None
    code = value.get("code")
    if isinstance(code, str) and re.fullmatch(r"-?\d{1,9}", code.strip()):
        code = int(code)
    known = int(code) if isinstance(code, int | float) and code == code // 1 else INTERNAL_ERROR
    if known == CONNECTION_CLOSED:
        known = OWN_SERVER_ERROR
    elif known in _OWN_CODES:
        known = INTERNAL_ERROR
    return known, _words(value.get("message") or value.get("data")), value.get("data")


def _words(value: JsonValue) -> str:
    if value is None:
        return "no reason is given"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
