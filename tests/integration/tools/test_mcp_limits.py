"""How much of one answer of an MCP server is taken: over stdio, over HTTP and in event streams, packed and not."""

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from aiohttp import web

from mandate.activities.tool_error import ToolError
from mandate.activities.toolbox.base import MAX_BYTES, CallContext, ToolText
from mandate.activities.toolbox.mcp.toolbox import McpToolbox
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.tool import Effect, ToolDefinition
from mandate.workflows.contracts.tool_entry import McpTools
from tests.support.mcp_peer import BARE_COMMAND

CONTEXT = CallContext("w", "r", 1, "key-1", 1, timedelta(seconds=30))
TOO_LONG = f"it is longer than {MAX_BYTES:,} bytes"
LARGE = "x" * (MAX_BYTES + 1)
FITTING = "é" * (MAX_BYTES // 2 - 1000)
WORDS = "the call is answered"


def sized(name: str) -> str:
    return {"fitting": FITTING, "small": WORDS}.get(name, LARGE)


class Peer:
    """An MCP server over HTTP: what a tool is called says how its call is answered.

    No peer of `tests.support`: it writes bytes without end, packed and in event streams, which no MCP library does.
    """

    names = ("json_fitting", "json_large", "json_packed", "json_error", "sse_fitting", "sse_large", "sse_packed",
             "sse_last", "sse_endless", "sse_after_news")  # fmt: skip

    def __init__(self) -> None:
        self.encodings: set[str | None] = set()
        self.port = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.encodings.add(request.headers.get("accept-encoding"))
        if request.method == "DELETE":
            await asyncio.sleep(60)
        if request.method != "POST":
            return web.Response(status=405)
        message = await request.json()
        if "id" not in message:
            return web.Response(status=202)
        if message["method"] == "tools/call":
            return await self._called(request, message["id"], message["params"]["name"])
        made: dict[str, object] = {"error": {"code": -32601, "message": "no such method"}}
        if message["method"] == "initialize":
            version = message["params"]["protocolVersion"]
            made = {"result": {"protocolVersion": version, "capabilities": {"tools": {}},
                               "serverInfo": {"name": "p", "version": "1"}}}  # fmt: skip
        elif message["method"] == "tools/list":
            made = {"result": {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in self.names]}}
        return web.json_response({"jsonrpc": "2.0", "id": message["id"], **made}, headers={"mcp-session-id": "s"})

    async def _called(self, request: web.Request, identity: int, name: str) -> web.StreamResponse:
        way, _, how = name.partition("_")
        result = {"content": [{"type": "text", "text": sized(how)}]}
        answer: dict[str, object] = {"jsonrpc": "2.0", "id": identity, "result": result}
        match how:
            case "error":
                answer = {"jsonrpc": "2.0", "id": identity, "error": {"code": -32602, "message": LARGE}}
            case "last":
                answer = {"result": result, "jsonrpc": "2.0", "id": identity}
            case "after_news":
                answer["result"] = {"content": [{"type": "text", "text": WORDS}]}
        headers = {"content-type": "application/json" if way == "json" else "text/event-stream"}
        body = json.dumps(answer, ensure_ascii=False).encode()
        if way == "sse":
            news = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": LARGE}}
            before = f"data: {json.dumps(news)}\n\n".encode() if how == "after_news" else b""
            body = before + b"event: message\r\ndata: " + body + (b"" if how == "endless" else b"\r\n\r\n")
        if how == "packed":
            headers["content-encoding"] = "gzip"
            body = gzip.compress(body.replace(b"xxxx", b"xxxx" * 20))
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        await response.write(body)
        while how == "endless":
            await response.write(b"x" * 65536)
        return response


@asynccontextmanager
async def over_http() -> AsyncIterator[Peer]:
    peer = Peer()
    app = web.Application()
    app.router.add_route("*", "/mcp", peer.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    peer.port = runner.addresses[0][1]
    try:
        yield peer
    finally:
        await runner.cleanup()


@pytest.fixture
async def toolbox() -> AsyncIterator[McpToolbox]:
    made = McpToolbox(lambda text: text)
    yield made
    await made.close()


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with over_http() as made:
        yield made


async def tools(toolbox: McpToolbox, effect: str, peer: Peer | None) -> dict[str, ToolDefinition]:
    where: dict[str, object] = {"command": [*BARE_COMMAND, "oversized", str(MAX_BYTES)]}
    if peer is not None:
        where = {"url": f"http://127.0.0.1:{peer.port}/mcp"}
    entry = McpTools.model_validate({"mcp": {"name": "peer", **where}, "effect": effect})
    return {definition.tool.name: definition for definition in await toolbox.definitions(entry)}


async def said(toolbox: McpToolbox, definition: ToolDefinition) -> ToolText | Outcome:
    try:
        return await toolbox.call(definition, {}, CONTEXT)
    except ToolError as error:
        return error.outcome


DONE = ToolText(f"The call was answered; it was done, but its result cannot be used: {TOO_LONG}", is_lost=True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fitting", ToolText(FITTING)),
        ("large", DONE),
        ("id_last", DONE),
        ("error", Outcome.UNKNOWN),
        ("endless", Outcome.UNKNOWN),
        ("log", ToolText(WORDS)),
    ],
)
async def test_a_line_has_a_bounded_length(toolbox: McpToolbox, name: str, expected: ToolText | Outcome) -> None:
    found = await tools(toolbox, Effect.ONCE, None)

    assert await said(toolbox, found[name]) == expected
    assert await said(toolbox, found["small"]) == ToolText(WORDS)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("json_fitting", ToolText(FITTING)),
        ("json_large", DONE),
        ("json_packed", DONE),
        ("json_error", Outcome.UNKNOWN),
        ("sse_fitting", ToolText(FITTING)),
        ("sse_large", DONE),
        ("sse_packed", DONE),
        ("sse_last", DONE),
        ("sse_endless", DONE),
        ("sse_after_news", ToolText(WORDS)),
    ],
)
async def test_an_answer_over_http_has_a_bounded_length(
    toolbox: McpToolbox, peer: Peer, name: str, expected: ToolText | Outcome
) -> None:
    found = await tools(toolbox, Effect.ONCE, peer)

    assert await said(toolbox, found[name]) == expected
    assert peer.encodings == {"identity"}


async def test_a_read_is_told_that_its_answer_is_too_long(toolbox: McpToolbox, peer: Peer) -> None:
    found = await tools(toolbox, Effect.READ, peer)

    expected = f"The call was answered; but its result cannot be used: {TOO_LONG}"
    assert await said(toolbox, found["json_large"]) == ToolText(expected, error=True)


async def test_a_server_that_does_not_say_goodbye_is_left(peer: Peer) -> None:
    toolbox = McpToolbox(lambda text: text)
    await tools(toolbox, Effect.READ, peer)
    begun = time.monotonic()

    await toolbox.close()

    assert time.monotonic() - begun < 5
