"""Filter of a server's messages: those that the SDK gets to read.

The SDK checks every result against unions of models, on the event loop: a wrong list of 5 MB costs it a minute and ten
gigabytes. So a message is bounded here first, by bytes and by parts, and the result of a call goes through the SDK as
one text, which `result` reads. Whatever is left out of an answer is said in its place, so that nobody waits for it.
"""

import json
import logging
import re
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

import pydantic_core
from mcp_types import INTERNAL_ERROR

from mandate.activities.toolbox.base import MAX_BYTES
from mandate.workflows.contracts.base import JsonObject

log = logging.getLogger(__name__)

MAX_PARTS = 50_000
"""Objects and lists in one message."""
MAX_TOOLS = 1000
"""Of one server, over all pages."""
OTHER_BYTES = 256 * 1024
OTHER_PARTS = 2000
"""Of a message that is neither the result of a call nor a list of tools: handshakes, logs, progress, refusals."""

NOT_CONNECTED = -3_209_900_001
"""JSON-RPC code, outside the range of servers, for a request that found no connection."""
ANSWER_TOO_LARGE = -3_209_900_002
"""JSON-RPC code, outside the range of servers, for a result that came and is not taken."""

ENDS_BYTES = 4096
"""Bytes that are kept of either end of a message that is too long, to find whose answer it is."""

_UNITS_A_SECOND = 500.0
_UNIT_BYTES = 10_000
_REFUSED_BYTES = 1_000_000
"""Bytes that a message counts for which is not read to its end."""
_OPEN_REQUESTS = 10_000

_STRING = rb'"(?:[^"\\]|\\.)*+"'
_MEMBER = rb"(%b)\s*:\s*(%b|-?\d+|null|true|false)" % (_STRING, _STRING)
_FIRST_MEMBERS = re.compile(rb"\s*\{\s*(?:%b\s*,\s*)*(?:%b\s*:)?" % (_MEMBER, _STRING))
_LAST_MEMBERS = re.compile(rb"(?:,\s*%b\s*)+\}\s*\Z" % _MEMBER)
_MEMBERS = re.compile(_MEMBER)
_KEY = re.compile(rb"(%b)\s*:\Z" % _STRING)
# One that does not end goes to the end, or each quote in it would be tried as a beginning.
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Ends:
    """The first and the last bytes of a message that is too long to be kept."""

    head: bytes
    tail: bytes

    @classmethod
    def of(cls, message: bytes) -> "Ends":
        return cls(message[:ENDS_BYTES], message[-ENDS_BYTES:])

    def identify(self) -> "tuple[str | int | None, Literal['result', 'error'] | None]":
        """Return id and kind of an answer, as far as the members before and after the long one of the message tell.

        Exact where it says something: what stands before the first long value or after the last one is at the top.
        """
        first, last = _FIRST_MEMBERS.match(self.head), _LAST_MEMBERS.search(self.tail)
        members = dict(_MEMBERS.findall(first[0]) if first else ())
        members |= dict(_MEMBERS.findall(last[0]) if last else ())
        long = _KEY.search(first[0]) if first else None
        keys = {*members, *((long[1],) if long else ())}
        kind: Literal["result", "error"] | None = "result" if b'"result"' in keys else None
        kind = "error" if b'"error"' in keys else kind
        written = members.get(b'"id"')
        request_id = json.loads(written) if written is not None and b'"method"' not in keys else None
        is_id = isinstance(request_id, str | int) and not isinstance(request_id, bool)
        return (request_id if is_id else None), kind


class MessageFilter:
    """The messages of one connection."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self._open: OrderedDict[str, str] = OrderedDict()
        self._units = _UNITS_A_SECOND
        self._counted = time.monotonic()

    def expect(self, request_id: str | int, method: str) -> None:
        """Note what a request asks for, to know its answer."""
        self._open[str(request_id)] = method
        if len(self._open) > _OPEN_REQUESTS:
            self._open.popitem(last=False)

    def admit(self, message: bytes, *, request_id: str | int | None = None) -> bytes | None:
        """Return `message` as the SDK may read it, or `None` when there is nothing in it for us.

        `request_id` is of the request whose answer it is, if it is one: over HTTP the place where it comes tells.
        """
        parts = _count_parts(message)
        if parts > MAX_PARTS:
            why = f"it has more than {MAX_PARTS:,} objects and lists"
            return self.refuse(Ends.of(message), why, request_id=request_id)
        try:
            # Not UTF-8 is not the end of the connection: what is no message is passed over, as other noise is.
            value = pydantic_core.from_json(message.decode("utf-8", "replace"))
        except ValueError as error:
            why = f"it is no JSON that can be read ({error})"[:200]
            return self.refuse(Ends.of(message), why, request_id=request_id)
        if not isinstance(value, dict):
            self._pass_over(len(message), "it is no object")
            return None
        other = len(message) > OTHER_BYTES or parts > OTHER_PARTS
        answered = value.get("id") if request_id is None else request_id
        method = None if "method" in value else self._open.pop(str(answered), None)
        if method is not None:
            return _answer(method, value, message, other=other)
        if other:
            self._pass_over(len(message), "it is too large")
            return None
        self._charge(len(message))
        return message

    def refuse(self, ends: Ends, why: str, *, request_id: str | int | None = None) -> bytes | None:
        """Return what stands for an answer that is not taken; `None` if it is nobody's answer as far as can be told."""
        answered, kind = ends.identify()
        answered = request_id if kind is not None and request_id is not None else answered
        if answered is None or self._open.pop(str(answered), None) is None:
            self._pass_over(_REFUSED_BYTES, why)
            return None
        return _error(answered, ANSWER_TOO_LARGE if kind == "result" else INTERNAL_ERROR, why)

    @property
    def pause(self) -> float:
        """Seconds to wait before more is read: messages that nobody asked for come at a bounded rate."""
        now = time.monotonic()
        self._units = min(self._units + (now - self._counted) * _UNITS_A_SECOND, _UNITS_A_SECOND)
        self._counted = now
        return min(max(-self._units / _UNITS_A_SECOND, 0.0), 1.0)

    def _charge(self, length: int) -> None:
        self._units -= 1 + length / _UNIT_BYTES

    def _pass_over(self, length: int, why: str) -> None:
        self._charge(length)
        log.debug("a message of an mcp server was passed over: %s", why)


def _answer(method: str, value: JsonObject, message: bytes, *, other: bool) -> bytes:
    if isinstance(value.get("error"), dict):
        return _shorten(value) if other else message
    if method == "tools/call" and "result" in value:
        return _as_text(value, message)
    if method == "tools/list" and isinstance(value.get("result"), dict):
        return _strip_pictures(value, message)
    if not other:
        return message
    return _error(value.get("id"), ANSWER_TOO_LARGE, f"it is larger than {OTHER_BYTES:,} bytes")


def _count_parts(message: bytes) -> int:
    """Count the objects and lists in `message`; brackets inside texts count only where that makes no difference."""
    count = message.count(b"{") + message.count(b"[")
    if count <= OTHER_PARTS:
        return count
    bare = _STRINGS.sub(b"", message)
    return bare.count(b"{") + bare.count(b"[")


def _as_text(value: JsonObject, message: bytes) -> bytes:
    """Return the result of a call with all of its message as one text."""
    content = [{"type": "text", "text": message.decode("utf-8", "replace")}]
    result = {"content": content, "resultType": "complete"}
    return json.dumps({"jsonrpc": "2.0", "id": value["id"], "result": result}, ensure_ascii=False).encode()


def _strip_pictures(value: JsonObject, message: bytes) -> bytes:
    """Return a page of tools without their pictures, which are many models each and of no use here."""
    result = value["result"]
    tools = result.get("tools") if isinstance(result, dict) else None
    if not isinstance(result, dict) or not isinstance(tools, list):
        return message
    if len(tools) > MAX_TOOLS:
        identity = value["id"] if isinstance(value["id"], str | int) else None
        return _error(identity, ANSWER_TOO_LARGE, f"it lists more than {MAX_TOOLS:,} tools")
    if not any(isinstance(tool, dict) and "icons" in tool for tool in tools):
        return message
    plain = [{k: v for k, v in tool.items() if k != "icons"} if isinstance(tool, dict) else tool for tool in tools]
    return json.dumps({**value, "result": {**result, "tools": plain}}).encode()


def _shorten(value: JsonObject) -> bytes:
    error = value["error"]
    assert isinstance(error, dict)
    code, identity = error.get("code"), value.get("id")
    known = code if isinstance(code, int) else INTERNAL_ERROR
    return _error(identity if isinstance(identity, str | int) else None, known, str(error.get("message"))[:2000])


def _error(request_id: object, code: int, message: str) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": message}}).encode()
