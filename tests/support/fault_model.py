"""A model over HTTP that plays the tasks of the crash suite, and that fails and kills as they say.

It speaks Chat Completions and keeps nothing between calls but a list of what it was asked: the id of a call says its
turn, so that an answer follows from the conversation alone. What came back as an error it asks for again.
"""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from tests.support.fake_behaviours import CHAT, Answer, Problem
from tests.support.fake_behaviours import Call as Asked
from tests.support.fake_bodies import error_body, render
from tests.support.fault_log import Hit
from tests.support.fault_plan import Call, Point, Task

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
    """The server, and on its path `/doomed/NAME` whom the tool server may kill."""

    tasks: Mapping[str, Task]
    doomed: Callable[[str], Awaitable[int | None]]
    url: str = ""
    hits: list[Hit] = field(default_factory=list)
    worked: dict[tuple[str, Step], int] = field(default_factory=dict)
    """How often it has worked on an answer, by task and step; more than once if a worker died. Faults do not count."""
    asked: dict[str, list[Call]] = field(default_factory=dict)
    """All calls that it has asked for, in order, by task; those that it asked for again are there again."""
    told: dict[str, dict[str, Told]] = field(default_factory=dict)
    """By task and call id."""
    _arrived: dict[tuple[str, int], int] = field(default_factory=dict)
    _runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        application = web.Application(client_max_size=16 << 20)
        application.add_routes(
            [web.post("/v1/chat/completions", self._serve), web.get("/doomed/{name}", self._may_die)]
        )
        self._runner = web.AppRunner(application, handler_cancellation=False, shutdown_timeout=0.2, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    @property
    def repeated(self) -> int:
        """Answers that it has worked on although there was one before."""
        return sum(times - 1 for times in self.worked.values())

    async def _may_die(self, request: web.Request) -> web.Response:
        pid = await self.doomed(request.match_info["name"])
        return web.Response(status=410) if pid is None else web.Response(text=str(pid))

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        document = json.loads(await request.read())
        task = self.tasks[_said(document)]
        (turn, tries), calls = self._step(task, document)
        arrival = self._arrived[task.name, turn] = self._arrived.get((task.name, turn), 0) + 1
        faults = task.model.get(turn, ())
        fault = faults[arrival - 1] if arrival <= len(faults) else None
        match fault:
            case "429":
                return _problem(Problem(429, "rate_limit_exceeded", "Slow down.", {"retry-after": "0.2"}))
            case "500":
                return _problem(Problem(500, "server_error", "Something broke."))
        if fault != "cut":
            times = self.worked[task.name, (turn, tries)] = self.worked.get((task.name, (turn, tries)), 0) + 1
            self.asked.setdefault(task.name, []).extend(calls.values() if times == 1 else ())
        asked = tuple(_asked(task, position, call, (turn, tries)) for position, call in calls.items())
        answer = Answer(text="" if asked else DONE, calls=asked, reasoning=False)
        content = render(CHAT, document["model"], turn, answer)
        response = web.Response(body=content, content_type="application/json")
        if fault is None:
            return response
        if fault == "cut":
            await _begin(request, content[: len(content) // 2])
            return _cut(request)
        return await self._kill(request, response, task, turn, Point(fault))

    async def _kill(
        self, request: web.Request, response: web.Response, task: Task, turn: int, point: Point
    ) -> web.StreamResponse:
        pid = await self.doomed(request.headers["authorization"].removeprefix("Bearer "))
        if pid is None:
            return _cut(request)
        if point is Point.MODEL_REPLIED:
            await response.prepare(request)
            await response.write_eof()
            await asyncio.sleep(0.005)
        self.hits.append(Hit(time.time(), task.name, f"turn {turn}", point, pid))
        # Another of its calls may be first.
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return response if point is Point.MODEL_REPLIED else _cut(request)

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


def _problem(problem: Problem) -> web.Response:
    body = error_body(CHAT, problem)
    return web.Response(
        body=body, status=problem.status, content_type="application/json", headers=dict(problem.headers)
    )


async def _begin(request: web.Request, part: bytes) -> None:
    """The beginning of an answer that says it is longer."""
    response = web.StreamResponse(headers={"content-type": "application/json", "content-length": str(len(part) * 2)})
    await response.prepare(request)
    await response.write(part)


def _cut(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
