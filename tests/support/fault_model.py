"""The model of the crash suite: a script of the fake provider that plays its tasks, and fails and kills as they say.

It is asked in Chat Completions and keeps nothing between calls but a list of what it was asked: the id of a call says
its turn, so that an answer follows from the conversation alone. What came back as an error it asks for again.
"""

import contextlib
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tests.support.fake_provider.behaviours import NAMED, Answer, Behaviour
from tests.support.fake_provider.behaviours import Call as Asked
from tests.support.fake_provider.requests import Request
from tests.support.fault_log import Hit
from tests.support.fault_plan import Call, Point, Task

FAULTS = {"429": NAMED["rate-limit-brief"], "500": NAMED["error"], "cut": NAMED["cut"]}
"""Behaviours by the faults of a task (`fault_plan.MODEL_FAULTS`)."""

DROP = NAMED["drop"]

DONE = "All done."
TRIES = 3
"""Times that a call is asked for at most, when the answers are errors."""

ERROR = "ERROR: "
"""How the answer to a call that failed begins in this protocol."""

Step = tuple[int, int]
"""Turn and try, both from 1."""


@dataclass(frozen=True, slots=True)
class Told:
    """What the model was told of one call that it had asked for."""

    call: Call
    text: str

    @property
    def done(self) -> bool:
        return not self.text.startswith(ERROR)


@dataclass
class FaultModel:
    """The script and what it has seen; `doomed` gives the pid of a worker that may be killed, by its name."""

    tasks: Mapping[str, Task]
    doomed: Callable[[str], Awaitable[int | None]]
    hits: list[Hit] = field(default_factory=list)
    worked: dict[tuple[str, Step], int] = field(default_factory=dict)
    """How often it has worked on an answer, by task and step; more than once if a worker died. Faults do not count."""
    asked: dict[str, list[Call]] = field(default_factory=dict)
    """All calls that it has asked for, in order, by task; those that it asked for again are there again."""
    told: dict[str, dict[str, Told]] = field(default_factory=dict)
    """By task and call id."""
    _arrived: dict[tuple[str, int], int] = field(default_factory=dict)

    @property
    def repeated(self) -> int:
        """Answers that it has worked on although there was one before."""
        return sum(times - 1 for times in self.worked.values())

    def count_answers(self) -> dict[str, int]:
        """Return how many answers it has worked on, by task."""
        answers: Counter[str] = Counter()
        for (task, _), times in self.worked.items():
            answers[task] += times
        return dict(answers)

    async def answer(self, request: Request) -> Behaviour:
        """Return the answer to one request; it is the script of a `FakeProvider`."""
        document = request.json
        task = self.tasks[_said(document)]
        (turn, tries), calls = self._step(task, document)
        arrival = self._arrived[task.name, turn] = self._arrived.get((task.name, turn), 0) + 1
        faults = task.model.get(turn, ())
        fault = faults[arrival - 1] if arrival <= len(faults) else None
        if fault in FAULTS:
            return FAULTS[fault]
        times = self.worked[task.name, (turn, tries)] = self.worked.get((task.name, (turn, tries)), 0) + 1
        self.asked.setdefault(task.name, []).extend(calls.values() if times == 1 else ())
        asked = tuple(_asked(task, position, call, (turn, tries)) for position, call in calls.items())
        answer = Answer(text="" if asked else DONE, calls=asked, reasoning=False)
        return answer if fault is None else await self._kill(request, answer, task, turn, Point(fault))

    async def _kill(self, request: Request, answer: Answer, task: Task, turn: int, point: Point) -> Behaviour:
        """Kill the caller, after the answer or instead of it; one that is dead already gets none."""
        pid = await self.doomed(request.headers["authorization"].removeprefix("Bearer "))
        if pid is None:
            return DROP

        def kill() -> None:
            self.hits.append(Hit(time.time(), task.name, f"turn {turn}", point, pid))
            # Another of its calls may be first.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

        if point is Point.MODEL_REPLIED:
            return replace(answer, then=kill)
        kill()
        return DROP

    def _step(self, task: Task, document: dict[str, Any]) -> tuple[Step, dict[int, Call]]:
        """What to answer with: the calls of the next turn by their positions, or again those that failed."""
        messages = document["messages"]
        asked = [message for message in messages if message["role"] == "assistant" and message.get("tool_calls")]
        if not asked:
            return (1, 1), dict(enumerate(task.turns[0]))
        told = self.told.setdefault(task.name, {})
        for message in messages:
            if message["role"] == "tool":
                turn, _, position = _parsed(message["tool_call_id"])
                call = task.turns[turn - 1][position]
                told[message["tool_call_id"]] = Told(call, str(message["content"]))
        ids = [call["id"] for call in asked[-1]["tool_calls"]]
        turn, tries, _ = _parsed(ids[0])
        failed = {_parsed(id_)[2]: told[id_].call for id_ in ids if id_ in told and not told[id_].done}
        if failed and tries < TRIES:
            return (turn, tries + 1), failed
        return (turn + 1, 1), dict(enumerate(task.turns[turn])) if turn < len(task.turns) else {}


def _asked(task: Task, position: int, call: Call, step: Step) -> Asked:
    arguments = json.dumps({"task": task.name, "item": call.item})
    return Asked(call.tool, arguments, id=f"t{step[0]}-{step[1]}-{position}")


def _said(document: dict[str, Any]) -> str:
    return str(next(message["content"] for message in document["messages"] if message["role"] == "user"))


def _parsed(call_id: str) -> tuple[int, int, int]:
    turn, tries, position = call_id.removeprefix("t").split("-")
    return int(turn), int(tries), int(position)
