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
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pydantic_core
from mcp_types import INTERNAL_ERROR
from pydantic import JsonValue

from mandate.activities.toolbox.base import MAX_BYTES
from mandate.activities.toolbox.mcp import json_message, tool_entries
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.rules.plain_text import shorten

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
        self.last_noise: str | None = None
        """Beginning of the last message that was no JSON: it may explain why no answer came."""
        self._version = ""
        self._open: OrderedDict[str, tuple[str | int, str]] = OrderedDict()
        self._units = _UNITS_A_SECOND
        self._counted = time.monotonic()

    def expect(self, request_id: str | int, method: str) -> None:
        """Note what a request asks for, to know its answer."""
        self._open[str(request_id)] = request_id, method
        if len(self._open) > _OPEN_REQUESTS:
            self._open.popitem(last=False)

    def admit(self, message: bytes, *, request_id: str | int | None = None) -> bytes | None:
        """Return `message` as the SDK may read it, or `None` when there is nothing in it for us.

        `request_id` is of the request whose answer it is, if it is one: over HTTP the place where it comes tells.
        """
        return next(self.admit_each(message, request_id=request_id), None)

    def admit_each(self, message: bytes, *, request_id: str | int | None = None) -> Iterator[bytes]:
        """Yield the messages in one line or body, which may be a list of them, as the SDK may read them."""
        parts = _count_parts(message)
        if parts > MAX_PARTS:
            why = f"it has more than {MAX_PARTS:,} objects and lists"
            yield from _found(self.refuse(Ends.of(message), why, request_id=request_id))
            return
        try:
            # Not JSON is not the end of the connection: what is no message is passed over, as other noise is.
            value, is_clean = _read(message)
        except ValueError as error:
            if request_id is None and (behind := self._answer_behind_noise(message)) is not None:
                yield from _found(self._take(behind, None, len(message), parts))
                return
            self.last_noise = shorten(message[:1000].decode("utf-8", "replace"), 200)
            why = f"it is no JSON that can be read ({error})"[:200]
            yield from _found(self.refuse(Ends.of(message), why, request_id=request_id))
            return
        if not isinstance(value, list):
            yield from _found(self._take(value, message if is_clean else None, len(message), parts, request_id))
            return
        for each in value:
            # Of several over HTTP only one is the answer to what was asked.
            asked = request_id if isinstance(each, dict) and str(each.get("id")) == str(request_id) else None
            yield from _found(self._take(each, None, len(message), parts, asked))

    def refuse(self, ends: Ends, why: str, *, request_id: str | int | None = None) -> bytes | None:
        """Return what stands for an answer that is not taken; `None` if it is nobody's answer as far as can be told."""
        answered, kind = ends.identify()
        answered = request_id if kind is not None and request_id is not None else answered
        known = None if answered is None else self._open.pop(str(answered), None)
        if known is None:
            self._pass_over(_REFUSED_BYTES, why)
            return None
        return json_message.write_error(known[0], ANSWER_TOO_LARGE if kind == "result" else INTERNAL_ERROR, why)

    def _take(
        self, value: JsonValue, message: bytes | None, length: int, parts: int, request_id: str | int | None = None
    ) -> bytes | None:
        """Return one message as the SDK may read it; `message` is as it was written, `None` if it cannot stay so."""
        if not isinstance(value, dict):
            self._pass_over(length, "it is no object")
            return None
        other = length > OTHER_BYTES or parts > OTHER_PARTS
        answered = json_message.read_request_id(value.get("id")) if request_id is None else request_id
        known = None if "method" in value else self._open.pop(str(answered), None)
        if known is not None:
            return self._answer(known, value, message, other=other)
        if other:
            self._pass_over(length, "it is too large")
            return None
        self._charge(length)
        return message or json_message.dump(value)

    def _answer(self, known: tuple[str | int, str], value: JsonObject, message: bytes | None, *, other: bool) -> bytes:
        request_id, method = known
        if value.get("error") is not None:
            return _error_answer(request_id, value["error"], other=other)
        if "result" not in value:
            return json_message.write_error(request_id, INTERNAL_ERROR, "its answer has neither a result nor an error")
        result = value["result"]
        if method == "tools/call":
            return _as_text(request_id, message or json_message.dump(value))
        if not isinstance(result, dict):
            return json_message.write_error(request_id, INTERNAL_ERROR, "its answer breaks the protocol: no object")
        if method == "tools/list":
            return self._list_answer(request_id, result)
        if other:
            why = f"it is larger than {OTHER_BYTES:,} bytes"
            return json_message.write_error(request_id, ANSWER_TOO_LARGE, why)
        self._version = tool_entries.find_version(method, result) or self._version
        return json_message.write_answer(request_id, result=result)

    def _list_answer(self, request_id: str | int, result: JsonObject) -> bytes:
        tools = result.get("tools")
        if isinstance(tools, list) and len(tools) > MAX_TOOLS:
            return json_message.write_error(request_id, ANSWER_TOO_LARGE, f"it lists more than {MAX_TOOLS:,} tools")
        return json_message.write_answer(request_id, result=tool_entries.mend_page(result, self._version))

    def _answer_behind_noise(self, line: bytes) -> JsonObject | None:
        """Return the answer to an open request that stands behind other text on its line."""
        value = json_message.find_behind_noise(line)
        is_ours = value is not None and "method" not in value and str(value.get("id")) in self._open
        return value if is_ours else None

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


def _read(message: bytes) -> tuple[JsonValue, bool]:
    """Return the value of a message, and whether others can read the message as it is."""
    try:
        return pydantic_core.from_json(message), True
    except ValueError:
        return json_message.parse(message), False


def _found(message: bytes | None) -> tuple[bytes, ...]:
    return () if message is None else (message,)


def _count_parts(message: bytes) -> int:
    """Count the objects and lists in `message`; brackets inside texts count only where that makes no difference."""
    count = message.count(b"{") + message.count(b"[")
    if count <= OTHER_PARTS:
        return count
    bare = _STRINGS.sub(b"", message)
    return bare.count(b"{") + bare.count(b"[")


def _as_text(request_id: str | int, message: bytes) -> bytes:
    """Return the result of a call with all of its message as one text."""
    content: list[JsonValue] = [{"type": "text", "text": message.decode("utf-8", "replace")}]
    return json_message.write_answer(request_id, result={"content": content, "resultType": "complete"})


def _error_answer(request_id: str | int, value: JsonValue, *, other: bool) -> bytes:
    code, message, data = json_message.read_error(value)
    if other:
        return json_message.write_error(request_id, code, message[:2000])
    return json_message.write_error(request_id, code, message, data)
