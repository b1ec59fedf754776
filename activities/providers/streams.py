"""Streamed answers: asked for where somebody reads along, and read as the documents that they would have been."""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Protocol

import httpx2
import structlog

from mandate.activities.providers import errors, response_limits
from mandate.activities.providers.base import Completion, Prompt
from mandate.activities.providers.rawjson import Raw, join_halves
from mandate.activities.providers.response_limits import AnswerTooLarge, Room
from mandate.activities.providers.server_events import Event, EventDecoder, are_events, find_beginning

log = structlog.stdlib.get_logger(__name__)

Tell = Callable[[str], None]
Fold = Callable[[AsyncIterator[Event], Tell, Room], Awaitable[Raw]]
"""Makes the document of an answer from its events, and tells the pieces of its text.

Raises `StreamFailed`, `StreamEnded`, `AnswerTooLarge`, or `ValueError` for what is no event of the protocol.
"""


class Send(Protocol):
    """Posts a body and returns the answer, whatever its status; one that is streamed is still open."""

    async def __call__(self, body: bytes, *, is_streamed: bool) -> httpx2.Response: ...


STREAM = b'"stream":true,'
DRAIN_SECONDS = 0.5
"""For the end of an answer after its last event, so that its connection can be used again."""
REFUSED_STATUSES = (400, 422)
MOST_REMEMBERED = 1000

_FIRST_HALF = re.compile(r"[\ud800-\udbff]\Z")


class StreamEnded(httpx2.RemoteProtocolError):
    """A stream without its last event."""

    def __init__(self) -> None:
        super().__init__("the stream ended before its last event")


class StreamFailed(Exception):
    """An error that a server gives in a stream."""

    def __init__(self, event: Raw, *, is_begun: bool) -> None:
        super().__init__()
        self.event = event
        self.is_begun = is_begun
        """Something of the answer came before."""


class Listener:
    """Reader of an answer's text: told of it in whole characters, and of no more once it has failed."""

    def __init__(self, on_text: Callable[[str], None]) -> None:
        self._on_text = on_text
        self._told: list[str] = []
        self._half = ""
        """The first half of a surrogate pair whose second has not come."""
        self._is_deaf = False

    def tell(self, piece: str) -> None:
        if self._half or not piece.isascii():
            piece = self._complete(piece)
        if not piece or self._is_deaf:
            return
        self._told.append(piece)
        try:
            self._on_text(piece)
        except Exception as error:  # noqa: BLE001 - the answer is not theirs
            self._is_deaf = True
            log.warning("text_listener_failed", error=type(error).__name__)

    def finish(self, completion: Completion) -> Completion:
        """Tell what of the text has not come in pieces, as of a server that does not stream."""
        text, told = completion.message.text, "".join(self._told)
        if text.startswith(told):
            self._half = ""
            self.tell(text[len(told) :])
        return completion

    def _complete(self, piece: str) -> str:
        """Return `piece` without a half of a character at its end, which is kept for the next one."""
        piece, self._half = join_halves(self._half + piece), ""
        if half := _FIRST_HALF.search(piece):
            piece, self._half = piece[: half.start()], half[0]
        return Raw(piece).string


def make_listener(prompt: Prompt) -> Listener | None:
    return None if prompt.on_text is None else Listener(prompt.on_text)


class Streams:
    """Streamed answers of one server, which remembers the fields that it refuses for a model."""

    def __init__(self, fold: Fold, *forms: bytes) -> None:
        """Take the fields that ask for a stream: in full, then without those that a server may not know."""
        self._fold = fold
        self._forms = (*forms, b"")
        """The last asks for no stream."""
        self._known: dict[str, int] = {}

    async def ask(self, peer: errors.Peer, body: bytes, send: Send, listener: Listener) -> Raw:
        """Return the document of an answer.

        Raises:
            ApplicationError: as `errors` says.
            httpx2.RequestError: there is no whole answer.
        """
        number = self._known.get(peer.model, 0)
        while True:
            form = self._forms[number]
            response = await send(b"{%b%b" % (form, body[1:]), is_streamed=bool(form))
            if response.is_success:
                break
            refused = self._find_next(number, response)
            if refused is None:
                raise errors.from_response(peer, response)
            number = refused
        self._remember(peer.model, number)
        return await self._read(peer, response, listener) if form else await errors.read_document(peer, response)

    def _find_next(self, number: int, response: httpx2.Response) -> int | None:
        """Return the number of the form without the field that a refusal names; `None` where it names none."""
        if response.status_code not in REFUSED_STATUSES:
            return None
        text = response.text
        for following in range(number + 1, len(self._forms)):
            dropped = _list_fields(self._forms[number]) - _list_fields(self._forms[following])
            if any(re.search(rf"\b{field}(ing|ed)?\b", text, re.IGNORECASE) for field in dropped):
                return following
        return None

    def _remember(self, model: str, number: int) -> None:
        if number != self._known.get(model, 0):
            if len(self._known) >= MOST_REMEMBERED:
                self._known.clear()
            self._known[model] = number
            log.info("stream_fields_refused", model=model, asked=self._forms[number].decode())

    async def _read(self, peer: errors.Peer, response: httpx2.Response, listener: Listener) -> Raw:
        media = response.headers.get("content-type", "")
        try:
            async with aclosing(response.aiter_bytes()) as chunks:
                beginning = await find_beginning(chunks)
                if are_events(beginning, media):
                    return await self._read_events(peer, beginning, chunks, listener)
                return await errors.read_body(peer, await _read_all(beginning, chunks), media)
        finally:
            await response.aclose()

    async def _read_events(
        self, peer: errors.Peer, beginning: bytes, chunks: AsyncIterator[bytes], listener: Listener
    ) -> Raw:
        reader = _EventReader(beginning, chunks)
        try:
            async with aclosing(reader.read()) as events:
                document = await self._fold(events, listener.tell, Room())
        except StreamFailed as error:
            raise errors.from_error_event(peer, error.event, is_begun=error.is_begun) from None
        except (ValueError, RecursionError) as error:
            if reader.is_cut:
                raise StreamEnded from None
            why = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
            shown = response_limits.decode(reader.last.data[: errors.SHOWN_BYTES])
            raise errors.from_malformed(peer, why, shown, response_limits.EVENTS) from None
        await _drain(chunks)
        return document


class _EventReader:
    """Events of one answer, with what is known of the last one."""

    def __init__(self, beginning: bytes, chunks: AsyncIterator[bytes]) -> None:
        self._beginning = beginning
        self._chunks = chunks
        self.last = Event(b"", b"")
        self.is_cut = False
        """The last one lacks its end, so that it may be half of one."""

    async def read(self) -> AsyncGenerator[Event]:
        decoder = EventDecoder()
        for event in decoder.feed(self._beginning):
            self.last = event
            yield event
        async for chunk in self._chunks:
            for event in decoder.feed(chunk):
                self.last = event
                yield event
            if decoder.size > response_limits.MAX_BYTES:
                raise AnswerTooLarge
        if (cut := decoder.close()) is not None:
            self.last, self.is_cut = cut, True
            yield cut


def _list_fields(form: bytes) -> set[str]:
    return set(Raw.read(f"{{{form.decode().rstrip(',')}}}").members)


async def _read_all(beginning: bytes, chunks: AsyncIterator[bytes]) -> bytes:
    parts, size = [beginning], len(beginning)
    async for chunk in chunks:
        size += len(chunk)
        if size > response_limits.MAX_BYTES:
            raise AnswerTooLarge
        parts.append(chunk)
    return b"".join(parts)


async def _drain(chunks: AsyncIterator[bytes]) -> None:
    """Read what follows the last event, which nobody misses."""
    with suppress(TimeoutError, httpx2.RequestError):
        async with asyncio.timeout(DRAIN_SECONDS):
            async for _ in chunks:
                pass
