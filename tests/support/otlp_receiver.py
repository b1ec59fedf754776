"""A receiver of spans: OTLP over HTTP, as protobuf, parsed with the schema of OpenTelemetry."""

import asyncio
import gzip
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass(frozen=True, slots=True)
class Received:
    """A span as it came."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    began: int
    ended: int
    attributes: dict[str, Any]
    links: tuple[tuple[str, str], ...]
    error: str
    resource: tuple[tuple[str, Any], ...]
    scope: tuple[str, str]
    kind: str

    @property
    def seconds(self) -> float:
        return (self.ended - self.began) / 1e9


@dataclass
class Receiver:
    """A receiver that keeps what came; with `refuses`, it says that it is overloaded."""

    spans: list[Received] = field(default_factory=list)
    requests: int = 0
    refuses: bool = False
    url: str = ""

    async def take(self, request: web.Request) -> web.Response:
        assert request.content_type == "application/x-protobuf"
        body = await request.read()
        self.requests += 1
        if self.refuses:
            return web.Response(status=400)
        if request.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        export = ExportTraceServiceRequest.FromString(body)
        for group in export.resource_spans:
            resource = tuple((one.key, _value(one.value)) for one in group.resource.attributes)
            for scoped in group.scope_spans:
                scope = (scoped.scope.name, scoped.scope.version)
                self.spans += [_read(span, resource, scope) for span in scoped.spans]
        return web.Response(body=b"", content_type="application/x-protobuf")

    def of(self, workflow_id: str) -> list[Received]:
        """Spans of a run, each id once, in the order of their beginnings."""
        known = {
            (span.trace_id, span.span_id): span
            for span in self.spans
            if span.attributes.get("gen_ai.conversation.id") == workflow_id
        }
        return sorted(known.values(), key=lambda span: (span.began, span.ended))

    def names(self, workflow_id: str) -> list[str]:
        return [span.name for span in self.of(workflow_id)]

    def repeated(self) -> list[Received]:
        """Spans of ids that came more than once."""
        times = Counter((span.trace_id, span.span_id) for span in self.spans)
        return [span for span in self.spans if times[span.trace_id, span.span_id] > 1]

    async def until(self, holds: Callable[[], bool], seconds: float = 60.0) -> None:
        async with asyncio.timeout(seconds):
            while not holds():
                await asyncio.sleep(0.1)


def tree(spans: Sequence[Received]) -> list[str]:
    """The spans as an indented tree; those whose parent is not among them are its roots."""
    known = {span.span_id for span in spans}
    lines: list[str] = []

    def walk(parent: str, depth: int) -> None:
        for span in spans:
            if span.parent_id == parent or (parent == "" and span.parent_id not in known and depth == 0):
                lines.append("  " * depth + span.name)
                walk(span.span_id, depth + 1)

    walk("", 0)
    return lines


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    application = web.Application(client_max_size=64 << 20)
    application.router.add_post("/v1/traces", receiver.take)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    receiver.url = f"http://127.0.0.1:{port}"
    try:
        yield receiver
    finally:
        await runner.cleanup()


def _read(span: Span, resource: tuple[tuple[str, Any], ...], scope: tuple[str, str]) -> Received:
    return Received(
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        began=span.start_time_unix_nano,
        ended=span.end_time_unix_nano,
        attributes={one.key: _value(one.value) for one in span.attributes},
        links=tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        error=span.status.message,
        resource=resource,
        scope=scope,
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
    )


def _value(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))
