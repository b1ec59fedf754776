"""A model provider over real HTTP: all three protocols, with the vendors' own refusals, told what to do.

**In a test**: `async with FakeProvider() as fake:`; the base URL is `fake.url`, with `/v1` for OpenAI's protocols.
**As a process**: `python -m tests.support.fake_provider --port 4720`; it prints its URL once it listens.

What it answers is, in this order:

1. the next of `fake.will(...)`, whatever was asked;
2. the behaviour that the model's name says: `fake-quota`, `fake-cut`, ... (`fake_behaviours.NAMED`);
3. two calls of the first tool offered, in parallel, once after each text; else the text `All done.`

A request that the vendor would refuse gets its 400 instead (`fake_rules`); nothing is used up then. Every request is
recorded in `fake.requests` as it came.

**For benchmarks**, the model's name says the whole run, and no body is parsed or kept:
`bench.steps=200.args=40.tool=note.key=text` answers with one call of `note` a turn, with the arguments
`{"text": "..."}` of 40 bytes in all, and with a text after 200 of them. The number of a turn is in the ids of its
calls (`bench-17`), and the next request is asked for the last id in it: so the server holds no state, and repeating a
request repeats its answer. Defaults: 10 steps, 40 bytes, tool `note`, key `text`; `steps=0` answers with the text at
once. The body is looked through from its end, so `bench-` with a number must not be in a tool's result.
"""

import argparse
import asyncio
import contextlib
import json
import re
from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from tests.support import fake_rules
from tests.support.fake_behaviours import (
    CHAT,
    MESSAGES,
    RESPONSES,
    Answer,
    Behaviour,
    Body,
    Broken,
    Call,
    Problem,
    named,
)
from tests.support.fake_bodies import error_body, render

PATHS = {"/v1/responses": RESPONSES, "/v1/chat/completions": CHAT, "/v1/messages": MESSAGES}
LARGEST_BODY = 256 << 20

_BENCH = re.compile(rb'"model"\s*:\s*"bench([^"]*)"')
_TURN = re.compile(rb"bench-(\d+)")


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came."""

    protocol: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class FakeProvider:
    """The server; see the module's text."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.requests: list[Request] = []
        self.answered = 0
        """Requests answered, those of benchmarks included."""
        self.dropped = 0
        """Requests whose client went away before the answer."""
        self.url = ""
        self._host = host
        self._port = port
        self._script: deque[Behaviour] = deque()
        self._runner: web.AppRunner | None = None

    def will(self, *behaviours: Behaviour) -> None:
        """Answer the next requests so, in this order."""
        self._script.extend(behaviours)

    def reset(self) -> None:
        """Forget the requests and what was to be answered."""
        self.requests.clear()
        self._script.clear()
        self.answered = self.dropped = 0

    async def __aenter__(self) -> Self:
        application = web.Application(client_max_size=LARGEST_BODY)
        application.add_routes([web.post(path, self._serve) for path in PATHS])
        application.router.add_route("*", "/{path:.*}", _unknown_path)
        # Lets a handler notice that its client went away.
        self._runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        await site.start()
        self.url = f"http://{self._host}:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        protocol = PATHS[request.path]
        body = await request.read()
        self.answered += 1
        if bench := _BENCH.search(body, 0, 2000) or _BENCH.search(body, max(len(body) - 2000, 0)):
            number, answer = bench_answer(bench.group(1).decode(), body)
            return _json(render(protocol, "bench", number, answer))
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append(Request(protocol, headers, body))
        if refusal := _refusal(protocol, body, headers):
            return _json(error_body(protocol, refusal), refusal.status)
        document = json.loads(body)
        behaviour = self._script.popleft() if self._script else named(document["model"]) or _usual(protocol, document)
        return await self._behave(request, protocol, document["model"], behaviour)

    async def _behave(
        self, request: web.Request, protocol: str, model: str, behaviour: Behaviour
    ) -> web.StreamResponse:
        match behaviour:
            case Problem():
                return _json(error_body(protocol, behaviour), behaviour.status, dict(behaviour.headers))
            case Body():
                return web.Response(
                    body=behaviour.content, status=behaviour.status, content_type=behaviour.content_type
                )
            case Broken():
                return await _break_off(request, behaviour)
            case Answer():
                try:
                    await asyncio.sleep(behaviour.delay)
                except asyncio.CancelledError:
                    self.dropped += 1
                    raise
                return _json(render(protocol, model, self.answered, behaviour))


def bench_answer(parameters: str, body: bytes) -> tuple[int, Answer]:
    """Number of the turn and a benchmark model's answer to `body`; see the module's text."""
    values = dict(item.split("=", 1) for item in parameters.split(".") if "=" in item)
    at = body.rfind(b"bench-")
    turn = _TURN.match(body, at) if at >= 0 else None
    number = 1 + (int(turn.group(1)) if turn else 0)
    if number > int(values.get("steps", "10")):
        return number, Answer(text="All done.", reasoning=False)
    frame = len(json.dumps({values.get("key", "text"): ""}))
    padding = f"{number} ".ljust(max(int(values.get("args", "40")) - frame, 0), "x")
    arguments = json.dumps({values.get("key", "text"): padding})
    call = Call(values.get("tool", "note"), arguments, id=f"bench-{number}")
    return number, Answer(calls=(call,), reasoning=False)


def _refusal(protocol: str, body: bytes, headers: dict[str, str]) -> Problem | None:
    if not headers.get("authorization", "").startswith("Bearer ") and "x-api-key" not in headers:
        return Problem(401, "invalid_api_key", "No API key was sent.")
    if not headers.get("content-type", "").startswith("application/json"):
        return Problem(415, "unsupported_media_type", "The body must be application/json.")
    try:
        document = json.loads(body, parse_constant=_no_constant)
        fake_rules.check(protocol, document, headers)
    except fake_rules.Refused as refused:
        return Problem(400, "fake_rule", str(refused))
    except (ValueError, KeyError, TypeError) as error:
        return Problem(400, "fake_rule", f"malformed request: {error!r}")
    return None


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _usual(protocol: str, document: dict[str, Any]) -> Answer:
    last = document["input" if protocol == RESPONSES else "messages"][-1]
    said = last["content"][-1]["type"] == "text" if protocol == MESSAGES else last.get("role") == "user"
    if not said or not document.get("tools"):
        return Answer(text="All done.")
    tool = document["tools"][0]
    tool = tool.get("function", tool)
    schema = tool.get("parameters") or tool.get("input_schema")
    calls = tuple(
        Call(tool["name"], json.dumps({name: _sample(schema, name, n) for name in schema.get("required", ())}))
        for n in (1, 2)
    )
    return Answer(text="Let me see.", calls=calls)


def _sample(schema: dict[str, Any], name: str, number: int) -> object:
    samples = {"integer": number, "number": number + 0.5, "boolean": True, "array": [], "object": {}}
    return samples.get(schema["properties"].get(name, {}).get("type"), f"{name} {number}")


def _json(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)


async def _break_off(request: web.Request, broken: Broken) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "application/json", "content-length": "1000"})
    if broken.how == "cut":
        await response.prepare(request)
        await response.write(b'{"id": "resp_1", "output": [{"type": "mess')
    if request.transport is not None:
        request.transport.abort()
    return response


async def _unknown_path(request: web.Request) -> web.Response:
    problem = Problem(404, "unknown_url", f"Invalid URL ({request.method} {request.path})")
    return _json(error_body(RESPONSES, problem), 404)


async def _serve_forever(host: str, port: int) -> None:
    async with FakeProvider(host, port) as fake:
        print(fake.url, flush=True)
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.support.fake_provider")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve_forever(options.host, options.port))


if __name__ == "__main__":
    main()
