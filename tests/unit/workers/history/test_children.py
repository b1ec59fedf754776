"""Children as stored histories tell of them: without the last event, what the result then says itself."""

from pathlib import Path

import pytest
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowHistory

from mandate.workers.converter import data_converter
from mandate.workers.history.events import CallReturned, CallStarted
from mandate.workers.history.run_history import RunHistory

HISTORIES = Path(__file__).parents[3] / "replay" / "histories"


def events(name: str) -> list[HistoryEvent]:
    return list(WorkflowHistory.from_json("run", (HISTORIES / f"{name}.json").read_text()).events)


@pytest.mark.parametrize("name", ["0.9-led", "0.9-told"])
async def test_what_children_used_and_did_is_what_the_result_says(name: str) -> None:
    history = RunHistory(data_converter())
    *before, last = events(name)

    for event in before:
        await history.add(event)
    used, effects, uncertain = history.sum_usage(), history.effects, history.list_uncertain()
    held = history.budget.ledger.held
    await history.add(last)

    assert history.ended is not None
    assert (result := history.ended.result) is not None
    assert (used, effects, uncertain) == (result.usage, result.effects, result.uncertain)
    assert (held, len(history.children.ended)) == ({}, 3)


async def test_calls_of_children_begin_and_return_like_others() -> None:
    history = RunHistory(data_converter())
    told = [
        (type(happening).__name__, happening.call.line, happening.call.result.note if happening.call.result else "")
        for event in events("0.9-led")
        for happening in await history.add(event)
        if isinstance(happening, CallStarted | CallReturned)
    ]

    # Children that worked side by side report as they end.
    assert sorted(told[:3]) + sorted(told[3:], key=lambda one: one[1]) == [
        *(("CallStarted", f"helper task=part {number}", "") for number in (1, 2, 3)),
        ("CallReturned", "helper task=part 1", "c1: completed, $0.0000"),
        ("CallReturned", "helper task=part 2", "c2: completed, $0.0000"),
        # It was terminated: that is its whole answer.
        ("CallReturned", "helper task=part 3", None),
    ]
