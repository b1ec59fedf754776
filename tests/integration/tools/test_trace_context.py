"""Trace context of a call, as servers of tools get it."""

from pathlib import Path

import pytest
from opentelemetry import context, trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from tests.support.mcp_bench import WAYS, Way, listed, mcp_bench, text_result

TRACE, SPAN = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331


@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_an_mcp_server_gets_it_in_the_meta_of_the_call(tmp_path: Path, way: Way) -> None:
    place = SpanContext(TRACE, SPAN, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    plan = {"pages": [[listed("see")]], "calls": {"see": text_result("seen")}}
    async with mcp_bench(tmp_path, way, plan) as bench:
        await bench.say("see")
        token = context.attach(trace.set_span_in_context(NonRecordingSpan(place)))
        await bench.say("see")
        context.detach(token)

    before, after = (call["params"].get("_meta", {}).get("traceparent", "") for call in bench.seen("tools/call"))
    assert (before, after) == ("", f"00-{TRACE:032x}-{SPAN:016x}-01")
