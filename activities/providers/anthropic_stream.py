"""Streamed answers of the Messages protocol: blocks that come in pieces."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from mandate.activities.providers import response_limits
from mandate.activities.providers.rawjson import (
    Object,
    Raw,
    escape_halves,
    is_object,
    join_halves,
    write,
    write_object,
)
from mandate.activities.providers.response_limits import Room
from mandate.activities.providers.server_events import DONE, Event
from mandate.activities.providers.streams import StreamEnded, StreamFailed, Tell

_SKIPPED = (b"ping", b"content_block_stop")
"""Events that say nothing of the answer."""
_INPUT = "partial_json"
_DELTAS = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": _INPUT}


@dataclass(slots=True)
class _Block:
    """A block of a message: its members as JSON, and those that come in pieces."""

    members: dict[str, str]
    is_text: bool
    pieces: dict[str, list[str]] = field(default_factory=dict)
    citations: list[str] = field(default_factory=list)

    def write(self) -> str:
        members = dict(self.members)
        for name, pieces in self.pieces.items():
            whole = "".join(pieces)
            if name != _INPUT:
                begun = Raw.read(members.get(name, "null")).value
                members[name] = write(begun + whole if isinstance(begun, str) else whole)
            elif whole:
                members["input"] = _write_input(whole)
        if self.citations:
            known = [item.text for item in Raw.read(members.get("citations", "null")).items]
            members["citations"] = f"[{','.join(known + self.citations)}]"
        return write_object(members)


def _write_input(text: str) -> str:
    """Return the arguments of a call as they were written; a text that holds those that were cut."""
    try:
        return Raw.read(escape_halves(join_halves(text))).text
    except ValueError:
        return write(text)


@dataclass(slots=True)
class _Message:
    """A message, its members as JSON."""

    members: dict[str, str] = field(default_factory=dict)
    usage: dict[str, str] = field(default_factory=dict)
    blocks: dict[int, _Block] = field(default_factory=dict)

    def begin(self, message: Raw) -> None:
        self.members = {name: value.text for name, value in message.members.items() if name != "usage"}
        # Of what was written so far; the count of all of it comes at the end.
        self._add_usage(message.get("usage"), left_out="output_tokens")

    def begin_block(self, event: Raw, tell: Tell) -> None:
        block = event.get("content_block")
        is_text = block.get("type").value == "text"
        members = {name: member.text for name, member in block.members.items()}
        self.blocks[_read_index(event.get("index").value)] = _Block(members, is_text)
        text = block.get("text").value
        if is_text and isinstance(text, str):
            tell(text)

    def add(self, value: Object, tell: Tell, room: Room) -> None:
        """Add the event of a delta; `tell` its text."""
        block, delta = self.blocks.get(_read_index(value.get("index"))), value.get("delta")
        if block is None or not is_object(delta):
            raise ValueError("it has a delta of no block")
        kind = str(delta.get("type"))
        if kind == "signature_delta":
            block.members["signature"] = write(delta.get("signature"))
        elif kind == "citations_delta":
            citation = write(delta.get("citation"))
            room.fill(len(citation))
            block.citations.append(citation)
        else:
            name = _DELTAS.get(kind)
            for member in (name,) if name else delta.keys() - {"type"}:
                if isinstance(piece := delta.get(member), str):
                    room.fill(len(piece))
                    block.pieces.setdefault(member, []).append(piece)
                    if block.is_text and member == "text":
                        tell(piece)

    def end(self, event: Raw) -> None:
        """Take in what is known at the end."""
        for name, value in {**event.members, **event.get("delta").members}.items():
            if name not in ("type", "delta", "usage"):
                self.members[name] = value.text
        self._add_usage(event.get("usage"))

    def write(self) -> bytes:
        members = dict(self.members)
        if self.blocks:
            members["content"] = f"[{','.join(self.blocks[index].write() for index in sorted(self.blocks))}]"
        if self.usage:
            members["usage"] = write_object(self.usage)
        # Bytes that were no text are bytes again.
        return write_object(members).encode("utf-8", "surrogateescape")

    def _add_usage(self, usage: Raw, left_out: str = "") -> None:
        for name, count in usage.members.items():
            if count.value is not None and name != left_out:
                self.usage[name] = count.text


def _read_index(index: object) -> int:
    if not isinstance(index, int):
        raise ValueError("it has a block without an index")
    return index


async def fold_messages(events: AsyncIterator[Event], tell: Tell, room: Room) -> Raw:
    """Return the message that the events add up to."""
    message = _Message()
    is_begun = False
    async for event in events:
        if event.name in _SKIPPED or event.data == DONE:
            continue
        value = event.read()
        match value.get("type"):
            case "content_block_delta":
                message.add(value, tell, room)
            case "message_start":
                is_begun = True
                message.begin(event.parse().get("message"))
            case "content_block_start":
                room.fill(len(event.data))
                message.begin_block(event.parse(), tell)
            case "message_delta":
                room.fill(len(event.data))
                message.end(event.parse())
            case "message_stop":
                return await response_limits.parse(message.write())
            case kind if kind == "error" or value.get("error"):
                raise StreamFailed(event.parse(), is_begun=is_begun)
    raise StreamEnded
