"""Ids of traces and spans: the same for the same run, and of the caller's trace where there is one."""

import pytest

from mandate.workflows.rules.trace_ids import compute_span_id, find_place, read_traceparent

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_run_has_a_trace_of_its_own_and_each_of_its_spans_another_id() -> None:
    root, model = find_place("run-1", ""), find_place("run-1", "", "model:1")

    assert root == find_place("run-1", "")
    assert root.trace_id == model.trace_id != find_place("run-2", "").trace_id
    assert root.span_id != model.span_id == compute_span_id("run-1", "model:1")
    assert read_traceparent(root.traceparent) == root


def test_a_run_is_in_the_trace_of_its_caller() -> None:
    place = find_place("run-1", CALLER)

    assert (place.trace_id, place.flags) == ("0af7651916cd43dd8448eb211c80319c", "01")
    assert place.span_id == find_place("run-1", "").span_id


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        CALLER[:-1],
        CALLER.upper(),
        "01" + CALLER[2:],
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
    ],
)
def test_what_is_no_traceparent_counts_as_none(text: str) -> None:
    assert read_traceparent(text) is None
    assert find_place("run-1", text) == find_place("run-1", "")
