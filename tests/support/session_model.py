"""The model of the proof of sessions: a script of the fake provider that pays where a message says so, then answers.

It keeps nothing of a conversation. Each message is `(ID) pay` or `(ID) talk`. Whatever it hears of a payment but that
it is done, it asks for it once more.
"""

import json
import random
import re
from dataclasses import dataclass
from typing import Any

from tests.support.fake_provider.behaviours import Answer, Behaviour, Call
from tests.support.fake_provider.requests import Request

TOOL = "pay_slowly"

MOST_ASKED = 4
"""How often it asks for a payment that is never done."""

SHORTEST, LONGEST = 0.05, 0.5
"""Seconds that an answer takes."""

_SAID = re.compile(r"\[(\S+) says\] \((\S+)/(\S+)\) (pay|talk)")


@dataclass(frozen=True, slots=True)
class Told:
    """A message as the model was told it."""

    by: str
    session: str
    message: str
    pays: bool


def write_text(session: str, message: str, *, pays: bool) -> str:
    """Return the words of a message."""
    return f"({session}/{message}) {'pay' if pays else 'talk'}"


def find_told(text: str) -> list[Told]:
    """Return the messages in what the model was told, in their order."""
    return [Told(by, session, message, verb == "pay") for by, session, message, verb in _SAID.findall(text)]


def is_done(result: str) -> bool:
    """Return whether a result says that the payment was made."""
    return "receipt" in result or result.startswith("not made again")


def is_unknown(result: str) -> bool:
    """Return whether a result leaves open whether the payment was made."""
    return "not known" in result


@dataclass
class SessionModel:
    """The script and what it did."""

    seed: int
    asked: int = 0
    """Requests so far."""

    async def answer(self, request: Request) -> Behaviour:
        """Return the answer to one request; it is the script of a `FakeProvider`."""
        self.asked += 1
        messages = request.json["messages"]
        told = [one for message in messages if message["role"] == "user" for one in find_told(_read(message))]
        results = _list_results(messages)
        # Sure to repeat, and no secret.
        dice = random.Random(f"{self.seed} {len(messages)} {told[-1:]}")
        delay = dice.uniform(SHORTEST, LONGEST)
        for one in told:
            if one.pays and _is_asked_for(results.get(one.message, [])):
                number = sum(map(len, results.values()))
                arguments = json.dumps({"task": one.session, "item": one.message})
                return Answer(calls=(Call(TOOL, arguments, id=f"call-{number}"),), reasoning=False, delay=delay)
        return Answer(text=f"answered {' '.join(one.message for one in told)}", reasoning=False, delay=delay)


def _is_asked_for(results: list[str]) -> bool:
    """Return whether the payment with these results so far is asked for once more."""
    if any(map(is_done, results)) or len(results) >= MOST_ASKED:
        return False
    return sum(map(is_unknown, results)) < 2


def _list_results(messages: list[Any]) -> dict[str, list[str]]:
    """Return the results of all payments, by message."""
    texts = {message["tool_call_id"]: _read(message) for message in messages if message["role"] == "tool"}
    found = dict[str, list[str]]()
    for message in messages:
        for call in message.get("tool_calls") or ():
            item = json.loads(call["function"]["arguments"])["item"]
            found.setdefault(item, []).append(texts[call["id"]])
    return found


def _read(message: Any) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)
