"""The order of an inbox."""

from typing import cast

import pytest
from temporalio.client import Client

from mandate.workers.client import answers, inbox, rounds
from mandate.workers.client.answers import NotAnswering
from mandate.workers.client.diagnosis import TIMED_OUT, Diagnosis
from mandate.workers.client.inbox import Waiting
from mandate.workers.client.trees import Place

FAILS = Diagnosis(5, "NON_DETERMINISTIC_ERROR", "[TMPRL1100] Nondeterminism error", 70)
BUSY = Diagnosis(4, TIMED_OUT, "", 70)


async def test_runs_that_people_must_mend_are_told_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """An inbox shows the first of many only."""
    silent = {"a": None, "b": BUSY, "y": FAILS, "x": FAILS}

    async def listed(_client: Client, _query: str) -> list[Waiting]:
        return [Waiting(name, f"queue-{name}", Place()) for name in silent]

    async def open_requests(_client: Client, workflow_id: str) -> None:
        raise NotAnswering("it does not answer", silent[workflow_id])

    async def find_pollers(_client: Client, _queue: str) -> None:
        return None

    monkeypatch.setattr(inbox, "_listed", listed)
    monkeypatch.setattr(answers, "open_requests", open_requests)
    monkeypatch.setattr(rounds, "_find_pollers", find_pollers)
    found = await inbox.read_inbox(cast(Client, None), scan=True)

    assert [one.workflow_id for one in found.silent] == ["x", "y", "a", "b"]
