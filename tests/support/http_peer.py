"""An HTTP server on loopback that remembers what it was sent, and answers by a script or as its paths say.

`http_peer(Reply(503), Reply())` answers with these in their order, the last again and again. Without replies, the path
says the answer: `/status/N`, `/cut` before and `/cut-body` in the body, `/slow`, `/slow-body`, `/large`, `/to?url=...`.
`/plan/503/cut/200` answers the first request with a key so, then so, and from the last on always so.
`http_peer(script=function)` asks a function for each reply.
"""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web


@dataclass(slots=True)
class Seen:
    """One request as it came over the wire."""

    method: str
    target: str
    """Path and query, still encoded."""
    headers: dict[str, str]
    body: bytes
    at: float
    """Time of arrival, by the loop's clock."""

    def json(self) -> object:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer."""

    status: int = 200
    body: str | bytes = "ok"
    headers: Mapping[str, str] = field(default_factory=dict)
    late: float = 0.0
    """Seconds before it."""
    cut: bool = False
    """The connection is closed instead of the answer, or in the middle of it if it is begun."""
    is_begun: bool = False
    """Only the beginning of the body is sent; the rest never comes."""
    is_last: bool = False
    """The server takes no further connection."""
    until: asyncio.Event | None = None
    """The answer waits for this."""


OK = Reply(body=b'{"ok": true}', headers={"Content-Type": "application/json; charset=utf-8"})

FIXED = {
    "json": Reply(body=b'{"b": 1,  "a": [true]}', headers={"Content-Type": "application/json"}),
    "latin": Reply(body="café".encode("latin-1"), headers={"Content-Type": "text/plain; charset=latin-1"}),
    "image": Reply(body=b"\x89PNG\x00", headers={"Content-Type": "image/png"}),
    "circle": Reply(302, "", {"Location": "/circle"}),
    "cut": Reply(cut=True),
    "cut-body": Reply(body="begun", is_begun=True, cut=True),
    "slow-body": Reply(body="begun", is_begun=True),
}
"""Answers of paths that take no parameter; all other paths get `OK`."""


@dataclass(slots=True)
class HttpPeer:
    """The server; see the module's text."""

    port: int = 0
    replies: list[Reply] = field(default_factory=list)
    script: Callable[[Seen], Awaitable[Reply]] | None = None
    seen: list[Seen] = field(default_factory=list)
    answer_headers: dict[str, str] = field(default_factory=dict)
    """Of `/status`."""
    large: int = 5000
    """Bytes of a large answer."""
    site: web.TCPSite | None = None

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        at = asyncio.get_running_loop().time()
        seen = Seen(request.method, request.raw_path, headers, await request.read(), at)
        self.seen.append(seen)
        if self.script is not None:
            return await self._send(request, await self.script(seen))
        return await self._send(request, self._next_reply() or self._reply_of_path(request, seen))

    def with_key(self, key: str | None) -> list[Seen]:
        """The requests with this idempotency key."""
        return [seen for seen in self.seen if seen.headers.get("idempotency-key") == key]

    def _next_reply(self) -> Reply | None:
        if len(self.replies) > 1:
            return self.replies.pop(0)
        return self.replies[0] if self.replies else None

    def _reply_of_path(self, request: web.BaseRequest, seen: Seen) -> Reply:
        verb, _, rest = request.path.lstrip("/").partition("/")
        if verb == "plan":
            steps = rest.split("/")
            step = steps[min(len(self.with_key(seen.headers.get("idempotency-key"))), len(steps)) - 1]
            verb, rest = ("status", step) if step.isdecimal() else (step, "")
        match verb:
            case "status":
                return Reply(int(rest), f"said {rest}", self.answer_headers)
            case "echo-token":
                return Reply(int(rest), f"you are {seen.headers.get('authorization')}")
            case "large":
                return Reply(int(rest or 200), "x" * self.large)
            case "to":
                return Reply(int(rest or 302), "", {"Location": request.query["url"]})
            case "slow":
                return Reply(body="late", late=float(rest or 10))
        return FIXED.get(verb, OK)

    async def _send(self, request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
        if reply.is_last:
            assert self.site is not None
            await self.site.stop()
        await asyncio.sleep(reply.late)
        if reply.until is not None:
            await reply.until.wait()
        if reply.is_begun:
            return await self._begin(request, reply)
        if reply.cut:
            _cut(request)
        if isinstance(reply.body, str):
            return web.Response(status=reply.status, text=reply.body, headers=reply.headers)
        return web.Response(status=reply.status, body=reply.body, headers=reply.headers)

    async def _begin(self, request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
        answer = web.StreamResponse(status=reply.status, headers={**reply.headers, "Content-Length": "1000"})
        await answer.prepare(request)
        await answer.write(reply.body.encode() if isinstance(reply.body, str) else reply.body)
        if reply.cut:
            _cut(request)
        else:
            await asyncio.sleep(30)
        return answer


def _cut(request: web.BaseRequest) -> None:
    assert request.transport is not None
    request.transport.close()


@asynccontextmanager
async def http_peer(
    *replies: Reply, script: Callable[[Seen], Awaitable[Reply]] | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[HttpPeer]:
    peer = HttpPeer(replies=list(replies), script=script)
    runner = web.ServerRunner(web.Server(peer.handle), shutdown_timeout=0.1)
    await runner.setup()
    peer.site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await peer.site.start()
    peer.port = runner.addresses[0][1]
    try:
        yield peer
    finally:
        await runner.cleanup()
