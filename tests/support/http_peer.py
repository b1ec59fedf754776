"""An HTTP server on loopback that behaves and misbehaves as its paths say, and remembers what it was sent."""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
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

    def json(self) -> object:
        return json.loads(self.body)


@dataclass(slots=True)
class HttpPeer:
    """`/status/N` answers so, `/cut` before and `/cut-body` in the body, `/slow`, `/slow-body`, `/large`, `/to?...`.

    `/plan/503/cut/200` answers the first request with a key so, then so, and from the last on always so.
    """

    port: int = 0
    seen: list[Seen] = field(default_factory=list)
    answer_headers: dict[str, str] = field(default_factory=dict)
    large: int = 5000
    """Bytes of a large answer."""

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    async def handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append(Seen(request.method, request.raw_path, headers, await request.read()))
        verb, _, rest = request.path.lstrip("/").partition("/")
        if verb == "plan":
            steps = rest.split("/")
            step = steps[min(len(self.with_key(headers.get("idempotency-key"))), len(steps)) - 1]
            verb, rest = ("status", step) if step.isdecimal() else (step, "")
        return await self._answer(request, headers, verb, rest)

    def with_key(self, key: str | None) -> list[Seen]:
        """The requests with this idempotency key."""
        return [seen for seen in self.seen if seen.headers.get("idempotency-key") == key]

    async def _answer(self, request: web.Request, headers: dict[str, str], verb: str, rest: str) -> web.StreamResponse:
        match verb:
            case "status":
                return web.Response(status=int(rest), text=f"said {rest}", headers=self.answer_headers)
            case "json":
                return web.Response(body=b'{"b": 1,  "a": [true]}', content_type="application/json")
            case "latin":
                return web.Response(
                    body="café".encode("latin-1"), headers={"Content-Type": "text/plain; charset=latin-1"}
                )
            case "image":
                return web.Response(body=b"\x89PNG\x00", content_type="image/png")
            case "echo-token":
                return web.Response(text=f"you are {headers.get('authorization')}", status=int(rest))
            case "large":
                return web.Response(text="x" * self.large, status=int(rest or 200))
            case "circle":
                return web.Response(status=302, headers={"Location": "/circle"})
            case "to":
                return web.Response(status=int(rest or 302), headers={"Location": request.query["url"]})
            case "slow":
                await asyncio.sleep(float(rest or 10))
                return web.Response(text="late")
            case "cut":
                assert request.transport is not None
                request.transport.close()
                return web.Response()
            case "cut-body" | "slow-body":
                return await self._partial(request, cut=verb == "cut-body")
        return web.json_response({"ok": True})

    async def _partial(self, request: web.Request, *, cut: bool) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Length": "1000"})
        await answer.prepare(request)
        await answer.write(b"begun")
        if cut:
            assert request.transport is not None
            request.transport.close()
        else:
            await asyncio.sleep(30)
        return answer


@asynccontextmanager
async def http_peer(tls: ssl.SSLContext | None = None) -> AsyncIterator[HttpPeer]:
    peer = HttpPeer()
    server = web.Server(peer.handle)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    peer.port = runner.addresses[0][1]
    try:
        yield peer
    finally:
        await runner.cleanup()
