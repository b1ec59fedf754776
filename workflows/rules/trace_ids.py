"""Ids of traces and spans: computed from the run and what happened in it, so that a repeated span is the same one.

The names are those of W3C Trace Context.
"""

import hashlib
import re
from dataclasses import dataclass

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")

ROOT = "run"
"""Key of the span of a run, the parent of all others that have none."""


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Place in a trace."""

    trace_id: str
    span_id: str
    flags: str = "01"

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"

    @property
    def is_sampled(self) -> bool:
        return bool(int(self.flags, 16) & 1)


def read_traceparent(text: str) -> TraceContext | None:
    """Return the place that a `traceparent` names; `None` for what is none."""
    found = _TRACEPARENT.fullmatch(text)
    if found is None or set(found[1]) == {"0"} or set(found[2]) == {"0"}:
        return None
    return TraceContext(found[1], found[2], found[3])


def compute_span_id(run_id: str, key: str) -> str:
    """Return the id of the span of what has `key` in a run."""
    return hashlib.sha256(f"mandate span {run_id} {key}".encode()).hexdigest()[:16]


def find_place(run_id: str, caller: str, key: str = ROOT) -> TraceContext:
    """Return the place of what has `key` in a run that `caller` has started, in the caller's trace if it has one."""
    above = read_traceparent(caller)
    if above is not None:
        return TraceContext(above.trace_id, compute_span_id(run_id, key), above.flags)
    trace_id = hashlib.sha256(f"mandate trace {run_id}".encode()).hexdigest()[:32]
    return TraceContext(trace_id, compute_span_id(run_id, key))
