"""An MCP server over streamable HTTP: what of its answers reaches the SDK, and what stands for those that do not."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx2
from mcp.client.streamable_http import MCP_SESSION_ID, streamable_http_client
from mcp_types import CONNECTION_CLOSED, INTERNAL_ERROR
from pydantic import JsonValue

from mandate.activities.toolbox.http.response import ERROR_BYTES, Body, read_body
from mandate.activities.toolbox.mcp import http_refusal, json_message
from mandate.activities.toolbox.mcp.message_filter import ENDS_BYTES, NOT_CONNECTED, Ends, MessageFilter

if TYPE_CHECKING:
    from mcp.client._transport import TransportStreams

SKIPPED = 16
"""Longest event of a stream in times of the limit: until there it is read to find whose answer it is."""
_READ_GAP_SECONDS = 3600.0
_FAREWELL_SECONDS = 2.0
"""For the server to take note that the session is over."""

_MARK = b"\xef\xbb\xbf"
_UNSENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.LocalProtocolError,
    httpx2.UnsupportedProtocol,
)
"""Errors before the first byte of a request has left."""
_EVENT_END = re.compile(rb"(?:\r\n|\n|\r(?!\n)){2}")
_LINE = re.compile(rb"\r\n|\n|\r")


@asynccontextmanager
async def open_http(
    url: str, headers: Mapping[str, str], message_filter: MessageFilter
) -> "AsyncIterator[TransportStreams]":
    """Open streams to the server at `url`."""
    # A connection kept open may be closed by the server at the moment of a call, whose outcome is then unknown.
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
    transport = _Contained(httpx2.AsyncHTTPTransport(trust_env=False, limits=limits), message_filter)
    timeout = httpx2.Timeout(30.0, read=_READ_GAP_SECONDS)
    client = httpx2.AsyncClient(transport=transport, trust_env=False, headers=headers, timeout=timeout)
    streams_of = streamable_http_client(url, http_client=client, max_sse_event_size=None)
    async with client, streams_of as streams:
        yield streams


class _Contained(httpx2.AsyncBaseTransport):
    """Client that bounds what comes, and answers a message that does not get through by an error; the SDK would end all
    calls of the session.
    """

    def __init__(self, inner: httpx2.AsyncHTTPTransport, message_filter: MessageFilter) -> None:
        self._inner = inner
        self._filter = message_filter

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        # A packed answer costs its sender nothing; servers that pack all the same are read as far as the limit goes.
        request.headers["Accept-Encoding"] = "identity"
        asked = self._asked(request)
        try:
            if request.method == "DELETE":
                async with asyncio.timeout(_FAREWELL_SECONDS):
                    return await self._answer(request, asked)
            return await self._answer(request, asked)
        except TimeoutError:
            return httpx2.Response(204, request=request)
        except _UNSENT as error:
            if request.method != "POST":
                raise
            return _rpc_error(NOT_CONNECTED, f"no connection{_cause(error)}")
        except httpx2.TransportError as error:
            if request.method != "POST":
                raise
            return _rpc_error(CONNECTION_CLOSED, f"the connection was cut ({type(error).__name__})")

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _answer(self, request: httpx2.Request, asked: str | int | None) -> httpx2.Response:
        response = await self._inner.handle_async_request(request)
        if response.status_code < 300 and _media(response) == "text/event-stream":
            return _rebuild(response, _Events(response, self._filter, asked))
        try:
            large = self._filter.max_bytes if response.status_code < 300 else ERROR_BYTES
            body = await read_body(response, large, asyncio.get_running_loop().time() + _READ_GAP_SECONDS)
        finally:
            await response.aclose()
        if asked is not None and response.status_code >= 400:
            return _refuse(request, response, body.content)
        if asked is None or response.status_code >= 300:
            return _rebuild(response, httpx2.ByteStream(body.content))
        if body.fault in {"late", "cut"}:
            raise httpx2.ReadError("the answer did not come to its end")
        return self._admitted(response, body, asked)

    def _asked(self, request: httpx2.Request) -> str | int | None:
        """Return the id of the JSON-RPC request that is sent, if it is one."""
        sent = json.loads(request.content) if request.method == "POST" else {}
        if "method" not in sent or "id" not in sent:
            return None
        self._filter.expect(sent["id"], sent["method"])
        request_id: str | int = sent["id"]
        return request_id

    def _admitted(self, response: httpx2.Response, body: Body, asked: str | int) -> httpx2.Response:
        is_json = _media(response) == "application/json"
        # Some servers name no type, or plain text.
        if response.status_code == 202 or not (is_json or body.content.lstrip()[:1] in (b"{", b"[")):
            return _rebuild(response, httpx2.ByteStream(body.content))
        if body.fault == "too large":
            why = f"it is longer than {self._filter.max_bytes:,} bytes"
            taken = self._filter.refuse(Ends.of(body.content), why, request_id=asked)
        else:
            taken = self._filter.admit(body.content, request_id=asked)
        why = "its answer is no answer of the protocol"
        message = taken or json_message.write_error(asked, INTERNAL_ERROR, why)
        answered = _rebuild(response, httpx2.ByteStream(message))
        answered.headers["content-type"] = "application/json"
        return answered


class _Events(httpx2.AsyncByteStream):
    """A stream of events, each whole and with a message that may be read."""

    def __init__(self, response: httpx2.Response, message_filter: MessageFilter, asked: str | int | None) -> None:
        self._response = response
        self._filter = message_filter
        self._asked = asked

    async def __aiter__(self) -> AsyncIterator[bytes]:
        buffer, searched, skipped = bytearray(), 0, 0
        ends: Ends | None = None
        is_first = True
        async for chunk in self._response.aiter_bytes():
            buffer += chunk
            if is_first and len(buffer) >= len(_MARK):
                buffer, is_first = buffer.removeprefix(_MARK), False
            while end := _EVENT_END.search(buffer, searched):
                event = bytes(buffer[: end.end()])
                del buffer[: end.end()]
                if ends is None and len(event) > self._filter.max_bytes:
                    ends = Ends.of(event)
                    event = b""
                taken = self._take(event) if ends is None else self._refuse(ends.head, ends.tail + event)
                searched, skipped, ends = 0, 0, None
                if taken is not None:
                    yield taken
                if seconds := self._filter.pause:
                    await asyncio.sleep(seconds)
            searched = max(len(buffer) - 3, 0)
            if ends is None and len(buffer) > self._filter.max_bytes:
                ends = Ends.of(bytes(buffer))
            if ends is not None:
                # All but what may be the beginning of the event's end.
                ends = Ends(ends.head, (ends.tail + buffer[:-3])[-ENDS_BYTES:])
                skipped += len(buffer)
                del buffer[:-3]
                searched = 0
            if skipped > SKIPPED * self._filter.max_bytes:
                taken = None if ends is None else self._refuse(ends.head, b"")
                if taken is not None:
                    yield taken
                raise httpx2.ReadError("an event of the stream does not end")

    async def aclose(self) -> None:
        await self._response.aclose()

    def _take(self, event: bytes) -> bytes | None:
        lines = [line for line in _LINE.split(event) if line]
        texts = [line.partition(b":")[2].removeprefix(b" ") for line in lines if line.partition(b":")[0] == b"data"]
        message = b"\n".join(texts)
        if not message:
            return event
        taken = self._filter.admit(message, request_id=self._asked)
        return event if taken is message else _event(lines, taken)

    def _refuse(self, head: bytes, tail: bytes) -> bytes | None:
        """Return the refusal in place of an event that was too long, whose data is one line."""
        data = re.search(rb"(?:^|[\r\n])data: ?", head)
        start = head[data.end() :] if data else head
        end = re.split(rb"[\r\n]+(?=id:|event:|retry:|[\r\n]|\Z)", tail)[0]
        why = f"it is longer than {self._filter.max_bytes:,} bytes"
        taken = self._filter.refuse(Ends(start, end), why, request_id=self._asked)
        return None if taken is None else _event([], taken)


def _event(lines: list[bytes], message: bytes | None) -> bytes:
    kept = [line for line in lines if line.partition(b":")[0] != b"data"]
    return b"\n".join((*kept, *(() if message is None else (b"data: " + message,)))) + b"\n\n"


def _media(response: httpx2.Response) -> str:
    media: str = response.headers.get("content-type", "")
    return media.partition(";")[0].strip().lower()


def _rebuild(response: httpx2.Response, stream: httpx2.AsyncByteStream) -> httpx2.Response:
    """Return `response` with another body, which is not packed."""
    dropped = ("content-encoding", "content-length", "transfer-encoding")
    headers = [(name, value) for name, value in response.headers.multi_items() if name.lower() not in dropped]
    return httpx2.Response(response.status_code, headers=headers, stream=stream, extensions=response.extensions)


def _refuse(request: httpx2.Request, response: httpx2.Response, body: bytes) -> httpx2.Response:
    """Return the answer that stands for a status of 400 or more."""
    in_session = MCP_SESSION_ID in request.headers
    refusal = http_refusal.find_refusal(response.status_code, response.headers, body, in_session=in_session)
    return _rpc_error(refusal.code, refusal.message, refusal.data)


def _rpc_error(code: int, message: str, data: JsonValue = None) -> httpx2.Response:
    content = json_message.write_error(None, code, message, data)
    return httpx2.Response(502, content=content, headers={"content-type": "application/json"})


def _cause(error: httpx2.TransportError) -> str:
    """Return why there is no connection where that helps: a name or a certificate, never an address or a header."""
    words = str(error)
    if "CERTIFICATE" in words.upper() or "SSL" in words:
        return f": {words}"
    if "Name or service" in words or "name resolution" in words or "getaddrinfo" in words:
        return ": its name is not known"
    return ": the request breaks HTTP" if isinstance(error, httpx2.LocalProtocolError) else ""
