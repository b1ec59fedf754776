"""A proxy before a Temporal server, as production has one: TLS, client certificates, API keys, and times without it."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hpack import Decoder  # type: ignore[import-untyped]

from tests.support.certificates import Issued
from tests.support.ports import free_port

PREFACE = 24
"""Bytes that a client of HTTP/2 begins with."""

HEADERS, CONTINUATION = 1, 9
END_STREAM, END_HEADERS, PADDED, PRIORITY = 0x1, 0x4, 0x8, 0x20

UNAUTHENTICATED = "16"


@dataclass
class GrpcProxy:
    """A proxy on a loopback port; `stop` and `start` it as often as a test needs."""

    target: str
    port: int
    tls: ssl.SSLContext | None = None
    api_key: str | None = None
    refused: int = 0
    """Requests without the API key."""
    seen: set[str] = field(default_factory=set)
    """Paths of requests that were let through."""
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, ssl=self.tls)

    async def stop(self) -> None:
        """Drop all connections, and take none."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for writer in list(self._writers):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self.target.rpartition(":")
        self._writers.add(writer)
        try:
            behind_reader, behind = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.transport.abort()
            return
        self._writers.add(behind)
        inward = self._pass_requests(reader, writer, behind) if self.api_key is not None else _copy(reader, behind)
        both = [asyncio.create_task(inward), asyncio.create_task(_copy(behind_reader, writer))]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            for each in (writer, behind):
                self._writers.discard(each)
                each.transport.abort()

    async def _pass_requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, behind: asyncio.StreamWriter
    ) -> None:
        """Pass frames on; the first request without the API key, and all after it, are answered here."""
        decoder, block, is_refused = Decoder(), b"", False
        behind.write(await reader.readexactly(PREFACE))
        while True:
            head = await reader.readexactly(9)
            kind, flags, stream = head[3], head[4], head[5:9]
            body = await reader.readexactly(int.from_bytes(head[:3], "big"))
            if kind in {HEADERS, CONTINUATION}:
                block += _fragment(kind, flags, body)
                if flags & END_HEADERS:
                    headers = dict(decoder.decode(block))
                    block = b""
                    is_refused = is_refused or headers.get("authorization") != f"Bearer {self.api_key}"
                    if is_refused:
                        self.refused += 1
                        writer.write(_refusal(stream))
                    else:
                        self.seen.add(headers[":path"])
            if not is_refused:
                behind.write(head + body)
                await behind.drain()


def _fragment(kind: int, flags: int, body: bytes) -> bytes:
    if kind == CONTINUATION:
        return body
    start, end = 0, len(body)
    if flags & PADDED:
        start, end = 1, end - body[0]
    return body[start + (5 if flags & PRIORITY else 0) : end]


def _refusal(stream: bytes) -> bytes:
    """The answer to a request, in headers that change no table: literals that are not kept."""
    told = {
        ":status": "200",
        "content-type": "application/grpc",
        "grpc-status": UNAUTHENTICATED,
        "grpc-message": "Request unauthorized.",
    }
    block = b"".join(b"\x00" + b"".join(bytes([len(part)]) + part.encode() for part in pair) for pair in told.items())
    return len(block).to_bytes(3, "big") + bytes([HEADERS, END_STREAM | END_HEADERS]) + stream + block


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while part := await reader.read(65536):
            writer.write(part)
            await writer.drain()


def server_tls(own: Issued, *, clients_of: Path | None = None) -> ssl.SSLContext:
    """TLS of a server, which demands certificates of an authority from its clients if one is given."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=clients_of)
    context.load_cert_chain(own.certificate, own.key)
    context.set_alpn_protocols(["h2"])
    if clients_of is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@asynccontextmanager
async def grpc_proxy(
    target: str, *, tls: ssl.SSLContext | None = None, api_key: str | None = None
) -> AsyncIterator[GrpcProxy]:
    """A proxy before the server at `target` that is up, and down at the end of the block."""
    proxy = GrpcProxy(target, free_port(), tls, api_key)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
