"""The models of the proof of budgets: a script of the fake provider that plays runs, fails, and loses answers.

It keeps nothing of a conversation: the ids of calls say the turn. What happens to a request follows from the seed, the
run, its turn, the model and how often this was asked before.
"""

import json
import random
import re
from collections import Counter
from dataclasses import dataclass, field, replace

from tests.support.fake_provider.behaviours import NAMED, Answer, Behaviour, Broken, Call, Problem
from tests.support.fake_provider.requests import Request
from tests.support.fake_provider.tokens import count_answer

TOOL = "read_page"

FIRST = "small"
"""Model that is down or busy at times; the others of the routes only lose answers."""

FAULTS: dict[str, Behaviour] = {"503": NAMED["unavailable"], "429": NAMED["rate-limit-brief"]}
"""Answers of the first model when it is down or busy for a moment."""

FAULTY = 0.2
"""Share of the requests to the first model that it answers so."""

DOWN = Problem(503, "overloaded", "Go away.", {"x-should-retry": "false"})
"""Its answer to every fourth run, which goes on with the next model of its route."""

LOST = 0.15
"""Share of the requests taken in whose answers nobody gets."""

UNTOLD = 0.07
"""Share of the answers that do not tell what they took."""

SHORTEST = 0.5
"""Share of the longest answer that is allowed which an answer has at least."""

_RUN = re.compile(rb"run (\S+-\d+):")
_TURN = re.compile(rb"turn-(\d+)")
_LONGEST = re.compile(rb'"max(?:_output|_completion)?_tokens":(\d+)')
_NO_TOOLS = re.compile(rb'"tool_choice":(?:"none"|\{"type":"none"\})')


def write_input(run: str, words: int) -> str:
    """Return what a run is asked: its name, by which it pays, and a text of about so many tokens."""
    return f"run {run}: read about what this says. " + "Then look at the next page. " * (words // 6)


def find_run(request: Request) -> str:
    """Return the run that a request is of."""
    found = _RUN.search(request.body)
    return found.group(1).decode() if found is not None else "nobody"


@dataclass
class SpendingModel:
    """The script and what it did."""

    seed: int
    calls: int
    """Model calls that a run wants to make."""
    done: Counter[str] = field(default_factory=Counter)
    """Requests by what became of them."""
    _arrived: Counter[str] = field(default_factory=Counter)

    async def answer(self, request: Request) -> Behaviour:
        """Return the answer to one request; it is the script of a `FakeProvider`."""
        model = str(request.json["model"])
        turn = max((int(number) for number in _TURN.findall(request.body)), default=0) + 1
        asked = f"{self.seed} {_number(find_run(request))} {turn} {model}"
        self._arrived[asked] += 1
        # Sure to repeat, and no secret.
        dice = random.Random(f"{asked} {self._arrived[asked]}")
        if model == FIRST and int(_number(find_run(request))) % 4 == 3:
            self.done["503 to stay"] += 1
            return DOWN
        if model == FIRST and dice.random() < FAULTY:
            fault = dice.choice(list(FAULTS))
            self.done[fault] += 1
            return FAULTS[fault]
        answer = self._write(request, turn, dice)
        # Every fourth run loses its first answer: some are lost however far the budget goes.
        is_first = turn == 1 and self._arrived[asked] == 1 and int(_number(find_run(request))) % 4 == 1
        if dice.random() < LOST or is_first:
            self.done["lost"] += 1
            return Broken("cut" if dice.random() < 0.5 else "drop", lost=answer)
        if dice.random() < UNTOLD:
            self.done["answered without usage"] += 1
            return replace(answer, usage=False)
        self.done["answered"] += 1
        return answer

    def _write(self, request: Request, turn: int, dice: random.Random) -> Answer:
        """Return a call of the tool or the last answer, within the longest that the request allows."""
        told = _LONGEST.search(request.body)
        assert told is not None, "a request without a limit of its answer"
        most = int(told.group(1))
        is_last = turn >= self.calls or _NO_TOOLS.search(request.body) is not None
        wanted = dice.uniform(SHORTEST, 1.1) * most
        words, delay = int(min(wanted, most)), dice.uniform(0.3, 2.5)
        while count_answer(answer := _make(words, turn, is_last=is_last)) > most:
            words -= 1
        return Answer(answer.text, answer.calls, reasoning=False, delay=delay)


def _make(words: int, turn: int, *, is_last: bool) -> Answer:
    text = "page " * words
    if is_last:
        return Answer(text=text)
    return Answer(calls=(Call(TOOL, json.dumps({"topic": text}), id=f"turn-{turn}"),))


def _number(run: str) -> str:
    """Return the part of a run's name that is the same each time."""
    return run.rpartition("-")[2]
