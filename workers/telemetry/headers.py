"""Trace context that goes along: from whoever starts a run to the run, its calls, its children and their tools.

It travels in the header that the OpenTelemetry interceptors of Temporal's SDKs use, so that remote activities in any
language find it where they look.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import structlog
from opentelemetry import context, trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.worker import (
    ActivityInboundInterceptor,
    ContinueAsNewInput,
    ExecuteActivityInput,
    Interceptor,
    StartActivityInput,
    StartChildWorkflowInput,
    StartLocalActivityInput,
    WorkflowInboundInterceptor,
    WorkflowInterceptorClassInput,
    WorkflowOutboundInterceptor,
)

from mandate.activities.trace_context import TRACE_HEADERS
from mandate.workflows.contracts.telemetry import Noted
from mandate.workflows.loop.telemetry import CALLER, PREVIOUS, Telemetry
from mandate.workflows.rules import trace_ids


class NoteInterceptor(Interceptor):
    """Interceptor that lets workflow code note facts."""

    def __init__(self, note: Callable[[Noted], None]) -> None:
        self._note = note

    def workflow_interceptor_class(
        self,
        input: WorkflowInterceptorClassInput,  # noqa: A002 - the SDK's name
    ) -> type[WorkflowInboundInterceptor] | None:
        input.unsafe_extern_functions["mandate_note"] = self._note
        return None


class TraceInterceptor(Interceptor):
    """Interceptor that hands trace context on; needs a `NoteInterceptor` beside it."""

    def workflow_interceptor_class(
        self,
        input: WorkflowInterceptorClassInput,  # noqa: A002, ARG002 - the SDK's name
    ) -> type[WorkflowInboundInterceptor] | None:
        return _WorkflowInbound

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002
        return _ActivityInbound(next)


class _WorkflowInbound(WorkflowInboundInterceptor):
    def init(self, outbound: WorkflowOutboundInterceptor) -> None:
        super().init(_WorkflowOutbound(outbound))


class _WorkflowOutbound(WorkflowOutboundInterceptor):
    def start_activity(self, input: StartActivityInput) -> workflow.ActivityHandle[Any]:  # noqa: A002
        input.headers = _add(input.headers, CALLER, _telemetry().traceparent)
        return super().start_activity(input)

    def start_local_activity(self, input: StartLocalActivityInput) -> workflow.ActivityHandle[Any]:  # noqa: A002
        input.headers = _add(input.headers, CALLER, _telemetry().traceparent)
        return super().start_local_activity(input)

    async def start_child_workflow(
        self,
        input: StartChildWorkflowInput,  # noqa: A002
    ) -> workflow.ChildWorkflowHandle[Any, Any]:
        input.headers = _add(input.headers, CALLER, _telemetry().traceparent)
        return await super().start_child_workflow(input)

    def continue_as_new(self, input: ContinueAsNewInput) -> NoReturn:  # noqa: A002
        input.headers = _add(input.headers, PREVIOUS, _telemetry().root)
        super().continue_as_new(input)


def _telemetry() -> Telemetry:
    telemetry: Telemetry = workflow.instance().telemetry
    return telemetry


def make_payload(traceparent: str) -> Payload:
    """Return a header with a trace context."""
    return Payload(metadata={"encoding": b"json/plain"}, data=json.dumps({"traceparent": traceparent}).encode())


def _add(headers: Mapping[str, Payload], name: str, traceparent: str) -> Mapping[str, Payload]:
    return {**headers, name: make_payload(traceparent)}


class _ActivityInbound(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002
        place = _read(input.headers.get(CALLER))
        if place is None:
            return await super().execute_activity(input)
        token = TRACE_HEADERS.set({"traceparent": place.traceparent})
        # Libraries that know OpenTelemetry, as the MCP client, hand it on from here.
        attached = context.attach(trace.set_span_in_context(NonRecordingSpan(_span_context(place))))
        try:
            with structlog.contextvars.bound_contextvars(trace_id=place.trace_id, span_id=place.span_id):
                return await super().execute_activity(input)
        finally:
            context.detach(attached)
            TRACE_HEADERS.reset(token)


def _read(payload: Payload | None) -> trace_ids.TraceContext | None:
    if payload is None:
        return None
    try:
        found = json.loads(payload.data)["traceparent"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return trace_ids.read_traceparent(found) if isinstance(found, str) else None


def _span_context(place: trace_ids.TraceContext) -> SpanContext:
    flags = TraceFlags(int(place.flags, 16))
    return SpanContext(int(place.trace_id, 16), int(place.span_id, 16), is_remote=True, trace_flags=flags)
