"""Decisions that are looked up together: whatever goes wrong, whoever waits hears of it."""

import asyncio
from typing import Any

import pytest

from mandate.workflows import steps
from mandate.workflows.loop import decision_lookups
from mandate.workflows.loop.decision_lookups import Lookups
from mandate.workflows.marks import OtherStore


class Check:
    """Stands for a `DecisionCheck`; nothing of it is read but its size and whether it changes a call."""

    class request:
        kind = "question"

    def model_dump_json(self) -> str:
        return "{}"


@pytest.mark.parametrize("count", [1, 3])
async def test_worker_that_cannot_decide_for_a_run_leaves_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """The exception has to reach a handler, which fails the workflow task; in a task of its own nobody hears it."""

    async def fail(_: Any, *, locally: object) -> Any:
        raise OtherStore("this worker has store a, and the run is of store b")

    monkeypatch.setattr(steps, "check_decision", fail)
    monkeypatch.setattr(steps, "check_decisions", fail)
    monkeypatch.setattr(decision_lookups, "DecisionChecks", lambda checks: checks)
    asked = Lookups(lambda: None)

    async with asyncio.timeout(5):
        answers = await asyncio.gather(*(asked.checked(Check()) for _ in range(count)), return_exceptions=True)  # type: ignore[arg-type]

    assert [type(answer) for answer in answers] == [OtherStore] * count
