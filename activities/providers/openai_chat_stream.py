"""Streamed answers of Chat Completions: chunks that add up to a completion."""

from collections.abc import AsyncIterator, Iterable

from mandate.activities.providers import response_limits
from mandate.activities.providers.rawjson import Object, Raw, is_object, list_objects, write
from mandate.activities.providers.response_limits import Room
from mandate.activities.providers.server_events import DONE, Event
from mandate.activities.providers.streams import StreamEnded, StreamFailed, Tell

_WHOLE = ("id", "type", "role", "format", "index")
"""Members of deltas that come as a whole, by some servers again and again."""
_TEXT_PART = {"type", "text"}
_CALL_BYTES = 200
"""At least of each call that is kept."""


async def fold_chat(events: AsyncIterator[Event], tell: Tell, room: Room) -> Raw:
    """Return the completion that the chunks add up to.

    It ends with `[DONE]`, which some servers leave out after the reason for its end.
    """
    answer: Object = {}
    message = _ChatMessage(room)
    reason: object = None
    is_begun = is_ended = False
    async for event in events:
        if event.data == DONE:
            is_ended = True
            break
        chunk = event.read()
        if chunk.get("error") or event.name == b"error" or chunk.get("object") == "error":
            raise StreamFailed(event.parse(), is_begun=is_begun)
        if not answer:
            answer.update(chunk)
        for name in ("model", "usage", "service_tier"):
            if (value := chunk.get(name)) is not None:
                answer[name] = value
        for choice in list_objects(chunk.get("choices")):
            if choice.get("index") in (0, None):
                is_begun = True
                delta = choice.get("delta")
                message.add(delta if is_object(delta) else choice.get("message"), tell)
                reason = choice.get("finish_reason") or reason
    if not is_ended and not reason:
        raise StreamEnded
    whole = {"index": 0, "message": message.write(), "finish_reason": reason}
    return await response_limits.parse(write(answer | {"choices": [whole] if is_begun else []}).encode())


class _ChatMessage:
    """The message that the deltas of one choice add up to."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._members: Object = {"role": "assistant"}
        self._content: list[_Text | Object] = []
        self._calls: list[Object] = []
        self._known: dict[object, Object] = {}
        """The last call of each index."""

    def add(self, delta: object, tell: Tell) -> None:
        """Add what a delta holds; `tell` its text."""
        if not is_object(delta):
            return
        for name, value in delta.items():
            if name == "content":
                self._add_content(value, tell)
            elif name == "tool_calls":
                for call in list_objects(value if isinstance(value, list) else [value]):
                    _grow(self._find_call(call), call, self._room)
            elif name != "role":
                _grow(self._members, {name: value}, self._room)

    def write(self) -> Object:
        """Return the message as it is without a stream, where what is empty is left out."""
        whole = {name: value for name, part in self._members.items() if (value := _settle(part)) != ""}
        message: Object = {"role": "assistant", "content": self._write_content(), **whole}
        if self._calls:
            message["tool_calls"] = [
                {name: _settle(value) for name, value in call.items() if name != "index"} for call in self._calls
            ]
        return message

    def _add_content(self, content: object, tell: Tell) -> None:
        # Mistral's servers give a list of parts where the model thinks.
        for part in content if isinstance(content, list) else [content]:
            text = part.get("text") if is_object(part) and part.keys() == _TEXT_PART else part
            if isinstance(text, str):
                if text:
                    self._add_text(text)
                    tell(text)
            elif is_object(part):
                self._room.fill(len(write(part)))
                self._add_part(part)

    def _add_text(self, text: str) -> None:
        self._room.fill(len(text))
        last = self._content[-1] if self._content else None
        if isinstance(last, _Text):
            last.append(text)
        else:
            self._content.append(_Text((text,)))

    def _add_part(self, part: Object) -> None:
        thoughts = part.get("thinking")
        if not isinstance(thoughts, list):
            self._content.append(part)
            return
        last = self._content[-1] if self._content else None
        held = last.get("thinking") if is_object(last) else None
        if isinstance(held, list):
            held.extend(thoughts)
        else:
            self._content.append(part | {"thinking": [*thoughts]})

    def _write_content(self) -> object:
        match self._content:
            case []:
                return None
            case [_Text() as text]:
                return "".join(text)
            case parts:
                return [{"type": "text", "text": "".join(part)} if isinstance(part, _Text) else part for part in parts]

    def _find_call(self, delta: Object) -> Object:
        """Return the call that a delta belongs to: that of its index, unless its id says that it is another.

        Some servers give no index, and some the same one to all calls, each of which is then whole.
        """
        index, call_id = delta.get("index"), delta.get("id")
        last = self._calls[-1] if self._calls else None
        found = self._known.get(index) if isinstance(index, int) else last
        if found is None or (call_id and found.get("id") not in (None, "", call_id)):
            self._room.fill(_CALL_BYTES)
            found = {}
            self._calls.append(found)
            if isinstance(index, int):
                self._known[index] = found
        return found


class _Text(list[str]):
    """A text in pieces."""


class _Entries(list[object]):
    """Entries of a list, those of an `index` found by it."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[tuple[int, str], Object] = {}


def _grow(held: Object, delta: Object, room: Room) -> None:
    """Add a delta to what is held: texts are joined, entries of lists are found by their `index`."""
    for name, value in delta.items():
        before = held.get(name)
        if isinstance(value, str) and name not in _WHOLE:
            room.fill(len(value))
            if not isinstance(before, _Text):
                held[name] = _Text((value,))
            elif name != "name" or before != [value]:
                before.append(value)
        elif is_object(value):
            if not is_object(before):
                before = held[name] = {}
            _grow(before, value, room)
        elif isinstance(value, list):
            if not isinstance(before, _Entries):
                before = held[name] = _Entries()
            _grow_list(before, value, room)
        elif value is not None and (name not in _WHOLE or before in (None, "")):
            room.fill(len(name))
            held[name] = value


def _grow_list(held: _Entries, entries: Iterable[object], room: Room) -> None:
    for entry in entries:
        index = entry.get("index") if is_object(entry) else None
        if not is_object(entry) or not isinstance(index, int):
            room.fill(len(write(entry)))
            held.append(entry)
            continue
        key = (index, str(entry.get("type")))
        if key not in held.known:
            room.fill(_CALL_BYTES)
            held.known[key] = {}
            held.append(held.known[key])
        _grow(held.known[key], entry, room)


def _settle(value: object) -> object:
    if isinstance(value, _Text):
        return "".join(value)
    if is_object(value):
        return {name: _settle(member) for name, member in value.items()}
    return [_settle(entry) for entry in value] if isinstance(value, list) else value
