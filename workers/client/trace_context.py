"""Trace context of who starts a run: of the span that is open in this process, else of the variable `TRACEPARENT`."""

import json
import os
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.client import (
    Interceptor,
    OutboundInterceptor,
    StartWorkflowInput,
    StartWorkflowUpdateWithStartInput,
    WorkflowHandle,
)

from mandate.workflows.rules.trace_ids import read_traceparent

HEADER = "_tracer-data"
"""The header of the OpenTelemetry interceptors of Temporal's SDKs."""

CALLER: ContextVar[str] = ContextVar("caller", default="")
"""The `traceparent` of what makes this process start a run, for example of an event; wins over the others."""


class CallerInterceptor(Interceptor):
    """Interceptor that hands the trace context of this process to the runs that it starts."""

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:  # noqa: A002 - the SDK's name
        return _Outbound(next)


class _Outbound(OutboundInterceptor):
    async def start_workflow(self, input: StartWorkflowInput) -> WorkflowHandle[Any, Any]:  # noqa: A002
        input.headers = _add_caller(input.headers)
        return await super().start_workflow(input)

    async def start_update_with_start_workflow(self, input: StartWorkflowUpdateWithStartInput) -> Any:  # noqa: A002
        started = input.start_workflow_input
        started.headers = _add_caller(started.headers)
        return await super().start_update_with_start_workflow(input)


def find_caller() -> str:
    """Return the `traceparent` of who starts something now; empty where there is none."""
    text = CALLER.get() or _find_open_span() or os.environ.get("TRACEPARENT", "")
    return text if read_traceparent(text) is not None else ""


def _find_open_span() -> str:
    # Who uses OpenTelemetry has imported it; for others it is not.
    if "opentelemetry.trace" not in sys.modules:
        return ""
    context = sys.modules["opentelemetry.trace"].get_current_span().get_span_context()
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def _add_caller(headers: Mapping[str, Payload]) -> Mapping[str, Payload]:
    caller = find_caller()
    if not caller or HEADER in headers:
        return headers
    content = json.dumps({"traceparent": caller}).encode()
    return {**headers, HEADER: Payload(metadata={"encoding": b"json/plain"}, data=content)}
