"""A run of many steps against a model that knows nothing but what it is sent.

At step 3 the run is told three needles: an order number by a tool, which the model keeps in mind; a rule by a person;
and a sum by the same tool, of which only a summary can tell later. Each step looks something up. At the end the model
answers with what its last request says of the three.
"""

import json
import random
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from mandate import tool
from tests.support.fake_provider.behaviours import MESSAGES, RESPONSES, Answer, Behaviour, Call
from tests.support.fake_provider.requests import Request
from tests.support.fake_provider.server import count_common

ORDER, RULE, SUM = "AX-48213-Q", "never refund more than 120 EUR", "1274.35"
NEEDLES = {
    "order": re.compile(r"order number is (AX-\d+-Q)"),
    "rule": re.compile(r"\[ann@example\.com says\] Rule: (never refund more than \d+ EUR)"),
    "sum": re.compile(r"the sum is (\d+\.\d+)"),
}
RIGHT = {"order": ORDER, "rule": RULE, "sum": SUM}
GOAL = "Look all entries up, one after another. At the end say the order number, the rule and the sum."

_STEP = re.compile(rb"step-(\d+)")
_WORDS = (  # noqa: SIM905 - shorter than a list
    "order customer refund status shipment account invoice delivery address payment warehouse return label carrier "
    "request approved pending settled partial review manual check amount balance entry ledger note"
).split(" ")


@tool(effect="read", timeout="20s")
def look_up(number: int, size: int = 1500) -> str:
    """Look one entry up."""
    if number == 3:
        return f"Entry 3: the order number is {ORDER}; the sum is {SUM} EUR. {_fill(number, size)}"
    return f"Entry {number}: {_fill(number, size)}"


def _fill(number: int, size: int) -> str:
    source, words = random.Random(number), list[str]()
    length = 0
    while length < size:
        word = source.choice(_WORDS) if source.random() < 0.9 else str(source.randrange(10_000))
        words.append(word)
        length += len(word) + 1
    return " ".join(words)


async def _say_nothing() -> None:
    pass


@dataclass
class LongRunModel:
    """The model, as the script of a fake provider; all that it keeps are figures about requests."""

    steps: int
    at_step_3: Callable[[], Awaitable[None]] = _say_nothing
    at_step: Callable[[int], Awaitable[None]] | None = None
    sizes: list[int] = field(default_factory=list)
    """Bytes of each request of the run."""
    shared: list[int] = field(default_factory=list)
    """Bytes of each that the one before it begins with."""
    digests: list[int] = field(default_factory=list)
    summaries: int = 0
    recalls: int = 0
    run: str = ""
    """Its workflow id."""
    refused: int = 0
    """Requests that its provider refused as too long."""
    answer: dict[str, str] = field(default_factory=dict)
    _before: bytes = b""

    async def __call__(self, request: Request) -> Behaviour:
        if b"You keep the notes of an AI agent" in request.body[:4000]:
            self.summaries += 1
            return Answer(text="\n".join(_sum_up(_read_texts(request)[-1])), reasoning=False)
        body = request.body
        head, start = body.partition(b'"input":' if request.protocol == RESPONSES else b'"messages":')[1:]
        conversation = head + start
        self.sizes.append(len(body))
        self.shared.append(count_common(self._before, conversation) + len(body) - len(conversation))
        self.digests.append(hash(body))
        self._before = conversation.rstrip(b"]}")
        numbers = _STEP.findall(body)
        step = max(map(int, numbers), default=0) + 1
        if step == 3:
            await self.at_step_3()
        if self.at_step is not None:
            await self.at_step(step)
        if step > self.steps:
            text = "\n".join(_read_texts(request))
            found = {name: pattern.findall(text) for name, pattern in NEEDLES.items()}
            self.answer = {name: values[-1] for name, values in found.items() if values}
            if len(self.answer) < len(NEEDLES) and b"recall-3" not in body and (name := _find_name(request)):
                self.recalls += 1
                arguments = json.dumps({"result": name, "start": 0})
                return Answer(calls=(Call("read_result", arguments, id="recall-3"),), reasoning=False)
            return Answer(text=json.dumps(self.answer), reasoning=False)
        calls = [Call("look_up", json.dumps({"number": step}), id=f"step-{step}")]
        if step == 4:
            text = "\n".join(_read_texts(request))
            number = NEEDLES["order"].search(text)
            fact = {"text": f"The order number is {number[1] if number else 'unknown'}."}
            calls.append(Call("keep_in_mind", json.dumps(fact), id="step-4-keep"))
        return Answer(text=f"Looking at entry {step}.", calls=tuple(calls), reasoning=False)

    @property
    def cached_share(self) -> float:
        return sum(self.shared) / max(sum(self.sizes), 1)

    @property
    def needles_right(self) -> int:
        return sum(self.answer.get(name, "").lower() == right.lower() for name, right in RIGHT.items())


def _sum_up(text: str) -> Sequence[str]:
    """Lines for the sources that say a sum, and two that no source bears out."""
    lines = []
    for source in re.finditer(r"^\[(\d+)\] (.*(?:\n(?!\[\d+\] ).*)*)", text.partition("\nSources:\n")[2], re.MULTILINE):
        if found := NEEDLES["sum"].search(source[2]):
            lines.append(f"- In entry 3 the sum is {found[1]} EUR. [{source[1]}]")
    return [*lines, "- The sum is 9999.99 EUR. [1]", "- Order ZZ-1 was refunded. [2]"]


def _find_name(request: Request) -> str | None:
    """The name by which the result of step 3 can be read again, where it has shrunk to a line."""
    at = request.body.rfind(b'"step-3"')
    named = re.compile(rb'read_result\(result=\\"([\w-]+)').search(request.body, max(at, 0), max(at, 0) + 500)
    return named[1].decode() if at >= 0 and named else None


def _read_texts(request: Request) -> list[str]:
    document = request.json
    texts: list[str] = []
    for item in document["input" if request.protocol == RESPONSES else "messages"]:
        content = item.get("content", item.get("output"))
        if isinstance(content, str):
            texts.append(content)
            continue
        for part in content or ():
            inner = part.get("content", part.get("text", "")) if request.protocol == MESSAGES else part.get("text", "")
            texts.append(inner if isinstance(inner, str) else json.dumps(inner))
    return texts


def write_agent(model: str, steps: int, *, window: int | None, **context: object) -> dict[str, object]:
    """The agent file of the run."""
    return {
        "name": "long",
        "instructions": "Look up what you are asked for, one entry a step.",
        "models": [{"model": model, **({"window": window} if window else {})}],
        "tools": [{"python": "tests.support.long_run:look_up"}],
        "max_output_tokens": 2048,
        "same_call": 1_000_000,
        "people": {"expires": "1s"},
        "requester": "anyone",
        "budget": {"steps": steps + 50},
        "context": context,
    }
