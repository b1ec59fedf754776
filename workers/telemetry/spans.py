"""Spans of facts: built whole, with ids that are computed, so that a span that is sent again is the same one.

The SDK's tracer is not used: it makes ids by chance, and exports a span only if the process that began it ends it. No
tracer provider is set either, so that no instrumentation of another library adds spans of its own.
"""

from datetime import datetime

from opentelemetry import trace
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from mandate.workers.telemetry import conventions
from mandate.workflows.contracts.telemetry import Noted, RunBegun
from mandate.workflows.rules import trace_ids
from mandate.workflows.rules.trace_ids import TraceContext

_KINDS = {"internal": SpanKind.INTERNAL, "client": SpanKind.CLIENT}

SAMPLES_KEPT = 1000


class SpanBuilder:
    """Builder of spans for this process, as its environment names it and samples its traces."""

    def __init__(self) -> None:
        # It reads the resource and the sampler of the variables of OpenTelemetry, and is not used for more.
        provider = TracerProvider(resource=Resource.create())
        self._sampler = provider.sampler
        named = provider.resource.attributes.get(SERVICE_NAME, "")
        unnamed = not named or str(named).startswith("unknown_service")
        self._resource = provider.resource.merge(Resource({SERVICE_NAME: "mandate"})) if unnamed else provider.resource
        self._scope = InstrumentationScope(conventions.SCOPE, conventions.VERSION)
        self._sampled: dict[str, bool] = {}

    def build(self, noted: Noted) -> ReadableSpan | None:
        """Return the span of a fact; `None` where its trace is not sampled."""
        run = noted.run
        place = trace_ids.find_place(run.run_id, run.caller, noted.key)
        if not self._is_sampled(place, run.caller):
            return None
        described = conventions.describe(noted.fact)
        waited = {name: (noted.at - since).total_seconds() for name, since in described.waited.items()}
        attributes = {
            **described.attributes,
            **waited,
            "gen_ai.conversation.id": run.workflow_id,
            "mandate.run.id": run.run_id,
        }
        return ReadableSpan(
            name=described.name,
            context=_context(place),
            parent=self._parent(noted),
            resource=self._resource,
            attributes=attributes,
            links=self._links(noted),
            kind=_KINDS[described.kind],
            status=Status(StatusCode.ERROR, described.error) if described.error else Status(StatusCode.UNSET),
            start_time=_nanoseconds(noted.began if noted.began is not None else noted.at),
            end_time=_nanoseconds(noted.at),
            instrumentation_scope=self._scope,
        )

    def _parent(self, noted: Noted) -> SpanContext | None:
        run = noted.run
        if noted.key == trace_ids.ROOT:
            caller = trace_ids.read_traceparent(run.caller)
            return _context(caller, is_remote=True) if caller is not None else None
        return _context(trace_ids.find_place(run.run_id, run.caller, noted.parent or trace_ids.ROOT))

    def _links(self, noted: Noted) -> tuple[Link, ...]:
        """Link a further part of a run to the one before: it is a trace of its own."""
        previous = trace_ids.read_traceparent(noted.run.previous) if isinstance(noted.fact, RunBegun) else None
        return (Link(_context(previous, is_remote=True), {"mandate.link": "previous"}),) if previous is not None else ()

    def _is_sampled(self, place: TraceContext, caller: str) -> bool:
        known = self._sampled.get(place.trace_id)
        if known is not None:
            return known
        above = trace_ids.read_traceparent(caller)
        parent = None
        if above is not None:
            parent = trace.set_span_in_context(NonRecordingSpan(_context(above, is_remote=True)))
        found = self._sampler.should_sample(parent, int(place.trace_id, 16), "invoke_agent", SpanKind.INTERNAL, {})
        if len(self._sampled) >= SAMPLES_KEPT:
            self._sampled.clear()
        is_sampled = self._sampled[place.trace_id] = found.decision is Decision.RECORD_AND_SAMPLE
        return is_sampled


def _context(place: TraceContext, *, is_remote: bool = False) -> SpanContext:
    flags = TraceFlags(int(place.flags, 16)) if is_remote else TraceFlags(TraceFlags.SAMPLED)
    return SpanContext(int(place.trace_id, 16), int(place.span_id, 16), is_remote, flags)


def _nanoseconds(at: datetime) -> int:
    # In whole microseconds: a float has no room for more.
    return int(at.timestamp()) * 1_000_000_000 + at.microsecond * 1000
