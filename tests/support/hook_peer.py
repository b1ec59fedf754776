"""A receiver of notices over HTTP that answers as it is told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from tests.support.http_peer import Seen


@dataclass(slots=True)
class Reply:
    """One answer; `cut` closes the connection instead, `late` seconds pass before it, and it waits for `until`."""

    status: int = 200
    text: str = "ok"
    headers: dict[str, str] = field(default_factory=dict)
    late: float = 0.0
    cut: bool = False
    until: asyncio.Event | None = None


@dataclass(slots=True)
class HookPeer:
    """Answers with `replies` in their order, the last again and again."""

    port: int = 0
    replies: list[Reply] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    at: list[float] = field(default_factory=list)
    """When each request came, by the loop's clock."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.seen.append(Seen(request.method, request.raw_path, headers, await request.read()))
        self.at.append(asyncio.get_running_loop().time())
        reply = self.replies.pop(0) if len(self.replies) > 1 else (self.replies or [Reply()])[0]
        await asyncio.sleep(reply.late)
        if reply.until is not None:
            await reply.until.wait()
        if reply.cut:
            assert request.transport is not None
            request.transport.close()
        return web.Response(status=reply.status, text=reply.text, headers=reply.headers)


@asynccontextmanager
async def hook_peer(*replies: Reply) -> AsyncIterator[HookPeer]:
    peer = HookPeer(replies=list(replies))
    runner = web.ServerRunner(web.Server(peer.handle), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    peer.port = runner.addresses[0][1]
    try:
        yield peer
    finally:
        await runner.cleanup()
