"""Limits on what is read of a provider's answer; a large one is parsed in a thread."""

import codecs
import json
import threading
from collections.abc import AsyncIterator

import httpx2

from mandate.activities.providers.rawjson import Raw
from mandate.activities.threads import run_in_thread

MAX_BYTES = 8 * 1024 * 1024
"""Of one answer, unpacked; the longest output of any model is a tenth of it."""
MAX_STREAM_BYTES = 16 * MAX_BYTES
"""Of an answer in events, of which what is kept has the limit of one answer: a word comes with a hundred times its size
around it."""
PIECE_BYTES = 16
"""At least of each piece of such an answer that is kept."""
MAX_ERROR_BYTES = 64 * 1024
"""Of an answer that is not 2xx; what stands beyond is left out."""
MAX_PARTS = 200_000
"""Objects and lists of one answer."""
ASIDE_BYTES = 256 * 1024
"""Size from which an answer is parsed in a thread: heartbeats and other calls go on meanwhile."""

_LEVELS = 4
"""Down to the calls of an answer in every protocol."""


EVENTS = "text/event-stream"
ACCEPT_EVENTS = f"{EVENTS}, application/json"
"""Header of a request for an answer in events, by which its limit is known."""


class AnswerTooLarge(httpx2.ReadError):
    """An answer that is not read to its end."""

    def __init__(self) -> None:
        super().__init__(f"the answer is longer than {MAX_BYTES:,} bytes")


class Room:
    """Room for what is kept of an answer in events."""

    def __init__(self) -> None:
        self._left = MAX_BYTES

    def fill(self, size: int) -> None:
        """Take in a piece of this size.

        Raises:
            AnswerTooLarge: there is no room for it.
        """
        self._left -= size + PIECE_BYTES
        if self._left < 0:
            raise AnswerTooLarge


def limit(client: httpx2.AsyncClient) -> httpx2.AsyncClient:
    """Make `client` read no more of an answer than is allowed, whatever way a request takes, and return it."""
    # The way through a proxy of the environment is made by the client itself, when no transport is given to it.
    client._transport = _Bounded(client._transport)
    for pattern, transport in client._mounts.items():
        client._mounts[pattern] = None if transport is None else _Bounded(transport)
    return client


async def parse(content: bytes) -> Raw:
    """Return the JSON value in an answer.

    Raises:
        ValueError: it is not JSON, nested too deeply, or has too many parts.
    """
    check_parts(content)
    if len(content) < ASIDE_BYTES:
        return Raw.read(decode(content))
    raw = await run_in_thread(lambda: _parse(content), threading.Event(), ended=lambda: None)
    assert isinstance(raw, Raw)
    return raw


def check_parts(content: bytes) -> None:
    """Raise `ValueError` for JSON of so many parts that it is not to be parsed."""
    if content.count(b"{") + content.count(b"[") > MAX_PARTS:
        raise ValueError(f"it has more than {MAX_PARTS:,} objects and lists")


def decode(content: bytes) -> str:
    """Return the text of an answer, without a byte order mark.

    A byte that is no text becomes the lone surrogate that Python has for it: in a text it is replaced, and arguments
    that hold one are refused, since nobody knows what stood there.
    """
    try:
        return content.decode(json.detect_encoding(content))
    except UnicodeDecodeError:
        return content.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")


def _parse(content: bytes) -> Raw:
    raw = Raw.read(decode(content))
    _unfold(raw, _LEVELS)
    return raw


def _unfold(raw: Raw, levels: int) -> None:
    """Read the members of `raw` now, which it would read when they are asked for."""
    if levels:
        for part in (*raw.members.values(), *raw.items):
            _unfold(part, levels - 1)


class _Bounded(httpx2.AsyncBaseTransport):
    def __init__(self, inner: httpx2.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await self._inner.handle_async_request(request)
        unpacked = ("content-encoding", "content-length", "transfer-encoding")
        headers = [
            # JSON is UTF-8 whatever `charset` says, and for some of its values the SDKs would find no decoder.
            (name, value.partition(";")[0].strip() if name.lower() == "content-type" else value)
            for name, value in response.headers.multi_items()
            if name.lower() not in unpacked
        ]
        is_streamed = request.headers.get("accept") == ACCEPT_EVENTS
        body = _Body(response, MAX_STREAM_BYTES if is_streamed else MAX_BYTES)
        return httpx2.Response(response.status_code, headers=headers, stream=body, extensions=response.extensions)

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Body(httpx2.AsyncByteStream):
    def __init__(self, response: httpx2.Response, limit: int) -> None:
        self._response = response
        self._limit = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        is_answer = self._response.status_code < 300
        left = self._limit if is_answer else MAX_ERROR_BYTES
        try:
            async for chunk in self._response.aiter_bytes():
                if len(chunk) > left:
                    if is_answer:
                        raise AnswerTooLarge
                    yield chunk[:left]
                    return
                left -= len(chunk)
                yield chunk
        except httpx2.RequestError:
            # The status and the headers of an error say more than that its text cannot be read to its end.
            if is_answer:
                raise

    async def aclose(self) -> None:
        await self._response.aclose()
