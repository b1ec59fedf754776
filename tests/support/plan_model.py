"""The model of the agents of the proof by plans: a script of the fake provider, which knows a call by its task."""

import asyncio
import json
import random
from collections import Counter
from typing import Any

from tests.support.fake_provider.behaviours import Answer, Behaviour, Call
from tests.support.fake_provider.requests import Request
from tests.support.plan_book import Book
from tests.support.plan_cases import pays
from tests.support.plan_tools import make_output

LONGEST = 0.3
"""Seconds that an answer takes at most."""

TOKENS = (1000, 0, 100)


class PlanModel:
    """Answers follow from the task alone, but for what the attempt before has told."""

    def __init__(self, book: Book, seed: int) -> None:
        self.asked = 0
        self.answered = Counter[str]()
        """Answers, by plan."""
        self._book = book
        self._seed = seed

    async def answer(self, request: Request) -> Behaviour:
        """Return the answer to one request."""
        self.asked += 1
        messages = request.json["messages"]
        task = next(_read(message) for message in messages if message["role"] == "user")
        asked, _ = json.JSONDecoder().raw_decode(task[task.index("{") :])
        place, attempt = str(asked["place"]), 1 + ("The attempt before this one failed" in task)
        plan, unit = place.split("/", maxsplit=1)[0], f"{place} {attempt}"
        self._book.write(place, "worker", unit, unit, "began")
        await asyncio.sleep(random.Random(f"{self._seed} {place} {len(messages)}").uniform(0.0, LONGEST))
        if pays(place) and not any(message["role"] == "tool" for message in messages):
            arguments = {"place": f"{place}/paid", "given": None, "fail": "0"}
            return self._tell(plan, Answer(calls=(Call("pay", json.dumps(arguments), id="call-1"),)))
        is_good = int(asked["fail"]) < attempt
        self._book.write(place, "worker", unit, unit, "ended")
        return self._tell(
            plan, Answer(text=f"{'good' if is_good else 'bad'} {make_output('worker', place, asked['given'])}")
        )

    def _tell(self, plan: str, answer: Answer) -> Answer:
        def count() -> None:
            self.answered[plan] += 1

        return Answer(answer.text, answer.calls, reasoning=False, tokens=TOKENS, then=count)


def _read(message: Any) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)
