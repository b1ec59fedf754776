"""Server-sent events, read from bytes that are cut anywhere."""

from collections.abc import AsyncIterator
from typing import NamedTuple

from mandate.activities.providers import response_limits
from mandate.activities.providers.rawjson import Object, Raw, is_object

DONE = b"[DONE]"
"""Data of the last event of OpenAI's older protocols."""

_MARK = b"\xef\xbb\xbf"
_STARTS = (b"data:", b"event:", b"id:", b"retry:", b":")
_LONGEST_START = 6
"""Bytes that tell events from anything else."""
_LONGEST_SPACE = 4096
"""Bytes of an answer after which its beginning is looked for no more."""
_PLAIN = (b"{", b"[", b"<")
"""Beginnings of what servers send in place of events, whatever its type is said to be."""


class Event(NamedTuple):
    """One event; one that has only a name or a comment is none."""

    name: bytes
    """Empty where the server gives none."""
    data: bytes

    def parse(self) -> Raw:
        """Return the JSON value that it is; raises `ValueError` for anything else."""
        if len(self.data) > response_limits.MAX_PARTS:
            response_limits.check_parts(self.data)
        return Raw.read(self.data.decode("utf-8", "surrogateescape"))

    def read(self) -> Object:
        """Return the JSON object that it is; raises `ValueError` for anything else."""
        value = self.parse().value
        if not is_object(value):
            raise ValueError("it has an event that is no JSON object")
        return value


class EventDecoder:
    """Decoder of the events of one answer."""

    def __init__(self) -> None:
        self._rest = bytearray()
        """What follows the last whole event."""
        self._seen = 0
        """Bytes of it in which no event ends."""
        self._has_begun = False
        self._is_after_return = False

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the events that end in `chunk`."""
        rest = self._rest
        rest += self._unify(chunk)
        if not self._has_begun and len(rest) >= len(_MARK):
            self._has_begun = True
            del rest[: len(_MARK) if rest.startswith(_MARK) else 0]
        events: list[Event] = []
        begin = 0
        while (end := rest.find(b"\n\n", max(begin, self._seen))) >= 0:
            event = _read(bytes(rest[begin:end]))
            begin = end + 2
            if event is not None:
                events.append(event)
        del rest[:begin]
        # The first half of a blank line may have come.
        self._seen = max(len(rest) - 1, 0)
        return events

    @property
    def size(self) -> int:
        """Bytes of the event that has begun."""
        return len(self._rest)

    def close(self) -> Event | None:
        """Return the last event, which may lack its blank line, or be cut."""
        return _read(bytes(self._rest))

    def _unify(self, chunk: bytes) -> bytes:
        """Return `chunk` with line feeds as its only ends of lines."""
        if self._is_after_return and chunk:
            self._is_after_return = False
            chunk = chunk.removeprefix(b"\n")
        if b"\r" in chunk:
            self._is_after_return = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return chunk


def _read(block: bytes) -> Event | None:
    name, data = b"", b""
    is_told = False
    for line in block.split(b"\n"):
        if line.startswith(b"data:"):
            value = line[6:] if line[5:6] == b" " else line[5:]
            data = data + b"\n" + value if is_told else value
            is_told = True
        elif line.startswith(b"event:"):
            name = line[6:].strip()
    return Event(name, data) if is_told and data else None


async def find_beginning(chunks: AsyncIterator[bytes]) -> bytes:
    """Return as much of an answer as tells events from anything else, all of it if it is shorter."""
    beginning = b""
    async for chunk in chunks:
        beginning += chunk
        if len(beginning) > _LONGEST_SPACE or len(beginning.removeprefix(_MARK).lstrip()) >= _LONGEST_START:
            break
    return beginning


def are_events(beginning: bytes, media: str) -> bool:
    """Return whether an answer of type `media` that begins so is one of events."""
    begin = beginning.removeprefix(_MARK).lstrip()
    if media.strip().lower() == "text/event-stream":
        return not begin.startswith(_PLAIN)
    return begin.startswith(_STARTS)
