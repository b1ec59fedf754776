"""The server of the fake provider."""

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from tests.support.fake_provider import benchmark, rules, streams, tokens
from tests.support.fake_provider.behaviours import (
    CHAT,
    MESSAGES,
    RESPONSES,
    Answer,
    Behaviour,
    Body,
    Broken,
    Problem,
    named,
)
from tests.support.fake_provider.billing import Billing
from tests.support.fake_provider.bodies import error_body, render, render_events
from tests.support.fake_provider.default import default_answer
from tests.support.fake_provider.requests import Request

Script = Callable[[Request], Awaitable[Behaviour]]
"""Answers what neither `will` nor the name of the model decides."""

PATHS = {"/v1/responses": RESPONSES, "/v1/chat/completions": CHAT, "/v1/messages": MESSAGES}
LARGEST_BODY = 256 << 20

READING_SECONDS = 0.005
"""Time in which a client can read its answer, before something follows."""


class FakeProvider:
    """The server; see the text of the folder."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        script: Script = default_answer,
        window: int | None = None,
        count: bool = False,
        billing: Billing | None = None,
        keeps_requests: bool = True,
    ) -> None:
        """Serve; with a `window` it refuses requests of one token more, and with `count` it reports exact tokens.

        With `billing` it counts too, and bills each request as soon as it knows the answer, before it is sent.
        """
        self.requests: list[Request] = []
        self.refused = 0
        """Requests that were too long."""
        self.window = window
        self._counts = count or window is not None or billing is not None
        self._billing = billing
        self._keeps_requests = keeps_requests
        self._last: dict[tuple[str, bytes], bytes] = {}
        """Request before, by model and beginning: what a prompt cache has."""
        self.answered = 0
        """Requests answered, those of benchmarks included."""
        self.dropped = 0
        """Requests whose client went away before the answer."""
        self.unknown: tuple[str, ...] = ()
        """Fields that it refuses."""
        self.url = ""
        self._host = host
        self._port = port
        self._next: deque[Behaviour] = deque()
        self._script = script
        self._runner: web.AppRunner | None = None

    def will(self, *behaviours: Behaviour) -> None:
        """Answer the next requests so, in this order."""
        self._next.extend(behaviours)

    def reset(self) -> None:
        """Forget the requests and what was to be answered."""
        self.requests.clear()
        self._next.clear()
        self.unknown = ()
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
        if turn := benchmark.next_turn(body):
            if benchmark.asks_for_events(body):
                return await _stream(
                    request, render_events(protocol, "bench", turn.number, turn.answer, tells_usage=True)
                )
            return _json(render(protocol, "bench", turn.number, turn.answer))
        headers = {name.lower(): value for name, value in request.headers.items()}
        asked = Request(protocol, headers, body)
        if self._keeps_requests:
            self.requests.append(asked)
        if refusal := _refusal(protocol, body, headers):
            return _json(error_body(protocol, refusal), refusal.status)
        document = asked.json
        if unknown := next((name for name in self.unknown if name in document), None):
            problem = Problem(400, "unknown_parameter", f"Unknown parameter: '{unknown}'.")
            return _json(error_body(protocol, problem), problem.status)
        model = document["model"]
        told = tokens.count_request(protocol, document) if self._counts else 0
        if self.window is not None and told > self.window:
            self.refused += 1
            refusal = tokens.refuse(protocol, told, self.window)
            return _json(error_body(protocol, refusal), refusal.status)
        behaviour = self._next.popleft() if self._next else named(model) or await self._script(asked)
        answer = behaviour.lost if isinstance(behaviour, Broken) else behaviour
        if self._counts and isinstance(answer, Answer) and answer.tokens is None:
            cached = self._find_cached(model, body)
            counted = (told, int(told * cached), tokens.count_answer(answer))
            if self._billing is not None:
                self._billing.charge(asked, model, counted)
            if answer is behaviour:
                behaviour = replace(answer, tokens=counted)
        return await self._behave(request, protocol, document, behaviour)

    def _find_cached(self, model: str, body: bytes) -> float:
        """The share of `body` that the request before it with the same beginning had too."""
        key = (model, body[:400])
        before, self._last[key] = self._last.get(key, b""), body
        return count_common(before, body) / len(body)

    async def _behave(
        self, request: web.Request, protocol: str, document: dict[str, Any], behaviour: Behaviour
    ) -> web.StreamResponse:
        model = document["model"]
        tells_usage = protocol != CHAT or bool(document.get("stream_options", {}).get("include_usage"))
        match behaviour:
            case Problem():
                return _json(error_body(protocol, behaviour), behaviour.status, dict(behaviour.headers))
            case Body():
                kind = {"content-type": behaviour.content_type}
                return web.Response(
                    body=behaviour.content, status=behaviour.status, headers=kind | dict(behaviour.headers)
                )
            case Broken() if document.get("stream") and behaviour.how != "drop":
                lost = behaviour.lost or Answer(text="The answer goes on and on.")
                events = render_events(protocol, model, self.answered, lost, tells_usage=tells_usage)
                return await _break_stream(request, protocol, behaviour, events)
            case Broken():
                return await _break_off(request, behaviour)
            case Answer():
                try:
                    await asyncio.sleep(behaviour.delay)
                except asyncio.CancelledError:
                    self.dropped += 1
                    raise
                if document.get("stream") and behaviour.streams:
                    events = render_events(protocol, model, self.answered, behaviour, tells_usage=tells_usage)
                    response = await _stream(request, events)
                    if behaviour.then is not None:
                        asyncio.get_running_loop().call_later(READING_SECONDS, behaviour.then)
                    return response
                response = _json(render(protocol, model, self.answered, behaviour))
                if behaviour.then is not None:
                    await response.prepare(request)
                    await response.write_eof()
                    # It follows even when the client goes away, which ends this handler.
                    asyncio.get_running_loop().call_later(READING_SECONDS, behaviour.then)
                return response


def count_common(first: bytes, second: bytes) -> int:
    """The bytes that both begin with."""
    low, high = 0, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if first[low:middle] == second[low:middle] else (low, middle - 1)
    return low


def _refusal(protocol: str, body: bytes, headers: dict[str, str]) -> Problem | None:
    if not headers.get("authorization", "").startswith("Bearer ") and "x-api-key" not in headers:
        return Problem(401, "invalid_api_key", "No API key was sent.")
    if not headers.get("content-type", "").startswith("application/json"):
        return Problem(415, "unsupported_media_type", "The body must be application/json.")
    try:
        document = json.loads(body, parse_constant=_no_constant)
        rules.check(protocol, document, headers)
    except rules.Refused as refused:
        return Problem(400, "fake_rule", str(refused))
    except (ValueError, KeyError, TypeError) as error:
        return Problem(400, "fake_rule", f"malformed request: {error!r}")
    return None


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def _json(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)


async def _break_off(request: web.Request, broken: Broken) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "application/json", "content-length": "1000"})
    if broken.how != "drop":
        await response.prepare(request)
        await response.write(b'{"id": "resp_1", "output": [{"type": "mess')
    if request.transport is not None:
        request.transport.abort()
    return response


async def _begin_stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream; charset=utf-8"})
    response.enable_chunked_encoding()
    await response.prepare(request)
    return response


async def _stream(request: web.Request, events: list[bytes]) -> web.StreamResponse:
    response = await _begin_stream(request)
    for event in events:
        await response.write(event)
    await response.write_eof()
    return response


async def _break_stream(request: web.Request, protocol: str, broken: Broken, events: list[bytes]) -> web.StreamResponse:
    # As far as its own text has gone on, that of another to the middle.
    half = next((index + 1 for index, event in enumerate(events) if b" goes" in event), len(events) // 2)
    response = await _begin_stream(request)
    await response.write(b"".join(events[:half]))
    match broken.how:
        case "half_event":
            await response.write(events[half][: len(events[half]) // 2])
        case "stall":
            await asyncio.sleep(30)
        case "error":
            assert broken.problem is not None
            await response.write(streams.write_error(protocol, broken.problem))
        case "cut":
            # What is written is on its way before the connection ends.
            await asyncio.sleep(READING_SECONDS)
            assert request.transport is not None
            request.transport.abort()
            return response
    await response.write_eof()
    return response


async def _unknown_path(request: web.Request) -> web.Response:
    problem = Problem(404, "unknown_url", f"Invalid URL ({request.method} {request.path})")
    return _json(error_body(RESPONSES, problem), 404)
