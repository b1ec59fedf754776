"""Values that a script reads from a conversation: what came in, answers of tools, values in texts.

Only the newest messages are looked at, however long the conversation is; an older value is found by its turn's number.
"""

import json
import re
from dataclasses import dataclass

from pydantic import JsonValue

from mandate.activities.providers.scripted.script import Cue, Plan
from mandate.activities.transcript.conversation import Conversation
from mandate.workflows.contracts.transcript import AssistantMessage, CallPart, ResultPart, TextPart, UserMessage
from mandate.workflows.rules.plain_text import shorten

_CALL_ID = re.compile(r"call_(\d+)_\d+")
_VALUE = re.compile(r"\$\$\{|\$\{([^{}]*)\}")
_HEAD = re.compile(r"([A-Za-z_][\w-]*)(?:#(\d+))?")


class ScriptFault(Exception):
    """The script cannot be played on; the text says what does not fit."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """Messages after the newest answer."""

    text: str
    results: tuple[ResultPart, ...]
    calls: tuple[CallPart, ...]
    """Calls that the newest answer asked for."""


def make_call_id(number: int, index: int) -> str:
    """Return the id of call `index` of turn `number`, both from 1."""
    return f"call_{number}_{index}"


def find_next_number(conversation: Conversation) -> int:
    """Return the number of the next turn, from 1: one more than there are answers."""
    later = 1
    for index in range(len(conversation) - 1, -1, -1):
        message = conversation[index]
        if isinstance(message, AssistantMessage):
            if (number := _number(message)) is not None:
                return number + later
            later += 1
    return later


def read_input(conversation: Conversation) -> str:
    """Return the text of the first message."""
    first = conversation[0] if len(conversation) else None
    return _text(first) if isinstance(first, UserMessage) else ""


def read_incoming(conversation: Conversation) -> Incoming:
    """Return all messages after the newest answer as one."""
    messages: list[UserMessage] = []
    calls: tuple[CallPart, ...] = ()
    for index in range(len(conversation) - 1, -1, -1):
        message = conversation[index]
        if isinstance(message, AssistantMessage):
            calls = message.calls
            break
        messages.insert(0, message)
    results = tuple(part for message in messages for part in message.parts if isinstance(part, ResultPart))
    return Incoming("\n".join(filter(None, map(_text, messages))), results, calls)


class Values:
    """Values at one turn."""

    def __init__(self, conversation: Conversation, plan: Plan, number: int, cue: Cue) -> None:
        self._conversation = conversation
        self._plan = plan
        self._number = number
        self._cue = cue

    def text(self, template: str) -> str:
        """Return `template` with every `${...}` replaced; values that are no texts as JSON.

        Raises:
            ScriptFault: a value that there is not.
        """
        return _VALUE.sub(lambda match: _spell(self._fill_match(match)), template)

    def fill(self, value: JsonValue) -> JsonValue:
        """Return `value` with every text in it filled; a text that is one `${...}` becomes the value itself."""
        if isinstance(value, dict):
            return {key: self.fill(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.fill(inner) for inner in value]
        if isinstance(value, str):
            alone = _VALUE.fullmatch(value)
            return self._fill_match(alone) if alone is not None else self.text(value)
        return value

    def check_taken(self) -> None:
        """Find all that the turn takes, so that a missing value is reported at the turn that takes it."""
        for name, path in self._cue.turn.take.items():
            try:
                self._from_answers(path, len(self._conversation))
            except ScriptFault as fault:
                raise ScriptFault(f"take {name!r}: {fault}") from None

    def _fill_match(self, match: re.Match[str]) -> JsonValue:
        return "${" if match[1] is None else self._value(match[1].strip())

    def _value(self, expression: str) -> JsonValue:
        name, *path = expression.split(".")
        if name == "n" and not path:
            return self._cue.repetition
        taken = self._plan.find_taken(name, self._number)
        if taken is None:
            return self._from_answers(expression, len(self._conversation))
        number, source = taken
        return _inner(self._from_answers(source, self._length_at(number)), path, name)

    def _from_answers(self, expression: str, length: int) -> JsonValue:
        """Return the value of `tool.key...` or `input.key...` in the first `length` messages."""
        name, *path = expression.split(".")
        if name == "input":
            text = read_input(self._conversation)
            return _inner(_json(text, "the input"), path, name) if path else text
        head = _HEAD.fullmatch(name)
        if head is None:
            raise ScriptFault(f"{expression!r} is not a value; write 'name', 'tool.key', 'tool#2.key', 'input' or 'n'")
        text = self._newest(head[1], int(head[2]) if head[2] else None, length).text
        return _inner(_json(text, f"the answer of {name!r}"), path, name) if path else _json_or_text(text)

    def _newest(self, tool: str, which: int | None, length: int) -> ResultPart:
        """Return the last answer of `tool`, or number `which` of the newest turn that has so many."""
        for index in range(length - 1, -1, -1):
            message = self._conversation[index]
            if isinstance(message, UserMessage):
                answers = [part for part in message.parts if isinstance(part, ResultPart) and part.tool == tool]
                if answers and (which is None or 1 <= which <= len(answers)):
                    return answers[-1 if which is None else which - 1]
        name = tool if which is None else f"{tool}#{which}"
        raise ScriptFault(f"{name!r} is neither taken by a turn nor a tool that has answered")

    def _length_at(self, number: int) -> int:
        """Return the number of messages when turn `number` was asked for.

        Messages mostly take turns, so its answer is looked for where that would put it, and else one by one.
        """
        later = self._number - number
        if later == 0:
            return len(self._conversation)
        likely = len(self._conversation) - 2 * later
        if likely >= 0:
            message = self._conversation[likely]
            if isinstance(message, AssistantMessage) and _number(message) == number:
                return likely
        for index in range(len(self._conversation) - 1, -1, -1):
            later -= isinstance(self._conversation[index], AssistantMessage)
            if later == 0:
                return index
        return 0


def parse_json(text: str) -> JsonValue:
    """Return `text` as JSON.

    Raises:
        ValueError: it is something else, is nested too deep, or has a number that JSON has not.
    """
    try:
        value: JsonValue = json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deep") from None
    return value


def _no_constant(name: str) -> JsonValue:
    raise ValueError(f"{name} is not JSON")


def _json(text: str, what: str) -> JsonValue:
    try:
        return parse_json(text)
    except ValueError:
        raise ScriptFault(f"{what} is not JSON: {shorten(text, 60)!r}") from None


def _json_or_text(text: str) -> JsonValue:
    try:
        return parse_json(text)
    except ValueError:
        return text


def _inner(value: JsonValue, path: list[str], name: str) -> JsonValue:
    for depth, key in enumerate(path):
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            place = ".".join((name, *path[:depth]))
            raise ScriptFault(f"{place!r} has no {key!r}: {shorten(json.dumps(value, ensure_ascii=False), 60)}")
    return value


def _spell(value: JsonValue) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _text(message: UserMessage) -> str:
    return "\n".join(part.text for part in message.parts if isinstance(part, TextPart))


def _number(message: AssistantMessage) -> int | None:
    """Return the turn that `message` played, when its call ids tell."""
    for part in message.parts if message.protocol == "scripted" else ():
        if isinstance(part, CallPart) and (match := _CALL_ID.fullmatch(part.call_id)):
            return int(match[1])
    return None
