"""A conversation in memory, where whatever is made from a message is made once."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from mandate.workflows.contracts.transcript import AssistantMessage, CallPart, Message

T = TypeVar("T")

NOTE = "[Note from the runtime]"
"""Beginning of what the runtime tells a model, by which it is told apart from people's words."""


PLANNED = "plan"
"""Name, in place of a model's, of what makes the calls of a plan."""


def is_planned(message: AssistantMessage) -> bool:
    """Return whether the calls of a message are those of a plan."""
    return message.protocol == "runtime" and message.model == PLANNED


class Conversation:
    """The first messages of a shared, append-only list.

    Conversations that grow out of one another share the list and everything mapped from it, so that a step costs
    what it adds and not what came before. A conversation that forks off gets a copy.
    """

    __slots__ = ("_length", "_log")

    def __init__(self, messages: Sequence[Message] = ()) -> None:
        self._log = _Log(list(messages), {})
        self._length = len(messages)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Message:
        if not -self._length <= index < self._length:
            raise IndexError(index)
        return self._log.messages[index % self._length]

    def __iter__(self) -> Iterator[Message]:
        return iter(self._log.messages[: self._length])

    def extend(self, *messages: Message) -> "Conversation":
        """Return this conversation and `messages` after it."""
        longer = Conversation()
        held = self._log.messages[self._length : self._length + len(messages)]
        same = all(mine is other or mine == other for mine, other in zip(held, messages, strict=False))
        fits = same and len(self._log.messages) == self._length + len(held)
        longer._log = self._log if fits else self._log.copy(self._length)
        longer._log.messages.extend(messages[len(held) :] if fits else messages)
        longer._length = self._length + len(messages)
        return longer

    def shares_with(self, other: "Conversation") -> bool:
        """Return whether both hold the same list, so that keeping one keeps the other."""
        return self._log is other._log

    def last_assistant(self) -> AssistantMessage | None:
        """Return the newest answer, or `None` before the first."""
        return self._assistant_before(self._length)

    def find_call(self, index: int) -> CallPart | None:
        """Return a call of the last turn by its position; of a plan, whose turns overlap, one of all of its calls."""
        found = self.find_turn(index)
        return found[0].calls[found[1]] if found is not None else None

    def find_turn(self, index: int) -> tuple[AssistantMessage, int] | None:
        """Return the answer that has a call, and the position of the call there; `index` as for `find_call`."""
        last = self.last_assistant()
        if last is None or not is_planned(last):
            return (last, index) if last is not None and index < len(last.calls) else None
        for message in self:
            if isinstance(message, AssistantMessage) and is_planned(message):
                if index < len(message.calls):
                    return message, index
                index -= len(message.calls)
        return None

    def map_messages(self, key: str, function: Callable[[Message, AssistantMessage | None], T]) -> list[T]:
        """Apply `function` to each message and the last answer before it, once a message and `key`.

        `key` must tell apart all that `function` depends on, for example protocol and model.
        """
        values = self._log.mapped.setdefault(key, [])
        if len(values) < self._length:
            assistant = self._assistant_before(len(values))
            for message in self._log.messages[len(values) : self._length]:
                values.append(function(message, assistant))
                assistant = message if isinstance(message, AssistantMessage) else assistant
        return values[: self._length]

    def add_up(self, key: str, function: Callable[[Message], T], add: Callable[[T, T], T], length: int) -> T | None:
        """Return the sum of `function` over the first `length` messages, applied once a message and `key`.

        `None` for no message.
        """
        sums: list[T] = self._log.mapped.setdefault(key, [])
        for message in self._log.messages[len(sums) : length]:
            value = function(message)
            sums.append(add(sums[-1], value) if sums else value)
        return sums[length - 1] if length else None

    def cache(self, key: str, make: Callable[[], T]) -> T:
        """Return the value that `make` made once for `key`; the caller fills it from messages that are there to stay.

        Conversations that share their messages share it, also an earlier and a later one.
        """
        if key not in self._log.kept:
            self._log.kept[key] = make()
        kept: T = self._log.kept[key]
        return kept

    def _assistant_before(self, index: int) -> AssistantMessage | None:
        for position in range(index - 1, -1, -1):
            if isinstance(message := self._log.messages[position], AssistantMessage):
                return message
        return None


class _Log:
    __slots__ = ("kept", "mapped", "messages")

    def __init__(self, messages: list[Message], mapped: dict[str, list[Any]]) -> None:
        self.messages = messages
        self.mapped = mapped
        self.kept: dict[str, Any] = {}

    def copy(self, length: int) -> "_Log":
        return _Log(self.messages[:length], {key: values[:length] for key, values in self.mapped.items()})
