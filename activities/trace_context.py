"""Trace context of the activity that is performed, for the requests that it sends."""

from collections.abc import Mapping
from contextvars import ContextVar

TRACE_HEADERS: ContextVar[Mapping[str, str]] = ContextVar("trace_headers", default={})  # noqa: B039 - never changed
"""Headers of a request, by name; empty where spans are off."""
