"""What runs that do not answer say of the others of their queue."""

from typing import cast

import pytest
from temporalio.client import Client

from mandate.workers.client import inbox
from mandate.workers.client.diagnosis import TIMED_OUT, Diagnosis
from mandate.workers.client.inbox import AT_A_TIME, NotAnswering, Waiting
from mandate.workflows.contracts.request import OpenRequests

FAILS = Diagnosis(5, "NON_DETERMINISTIC_ERROR", "[TMPRL1100] Nondeterminism error", 70)
BUSY = Diagnosis(4, TIMED_OUT, "", 70)


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> dict[str, Diagnosis | None]:
    """Why each of some runs does not answer; all others do."""
    reasons: dict[str, Diagnosis | None] = {}

    async def open_requests(_client: Client, workflow_id: str) -> OpenRequests:
        if workflow_id in reasons:
            found = reasons[workflow_id]
            raise NotAnswering(found.sentence if found is not None else "no worker answered within 10 s", found)
        return OpenRequests(workflow_id=workflow_id, run_id="r", agent="a", version="v", status="waiting", requests=())

    async def find_pollers(_client: Client, _queue: str) -> None:
        return None

    monkeypatch.setattr(inbox, "open_requests", open_requests)
    monkeypatch.setattr(inbox, "_find_pollers", find_pollers)
    return reasons


async def asked(silent: dict[str, Diagnosis | None]) -> inbox._Round:
    """Those that do not answer first, then one that does."""
    found = inbox._Round(cast(Client, None))
    for name in (*silent, "other"):
        await found.ask(Waiting(name, "agents"))
    return found


async def test_runs_whose_tasks_fail_keep_nobody_from_being_asked(silent: dict[str, Diagnosis | None]) -> None:
    silent |= {f"wedged-{number}": FAILS for number in range(2 * AT_A_TIME)}

    found = await asked(silent)

    assert [run.workflow_id for run in found.told] == ["other"]
    assert {one.diagnosis for one in found.silent} == {FAILS}
    assert found.silent[0].reason == (
        "its workflow task fails again and again (attempt 5): [TMPRL1100] Nondeterminism error; "
        "deploy/docs/recovery.md says how to reset it"
    )


@pytest.mark.parametrize("reason", [None, BUSY])
async def test_a_queue_of_which_nobody_answers_is_given_up(
    silent: dict[str, Diagnosis | None], reason: Diagnosis | None
) -> None:
    silent |= {f"slow-{number}": reason for number in range(AT_A_TIME)}

    found = await asked(silent)

    assert found.told == []
    assert found.silent[-1] == inbox.Silent("other", "no worker answered for the runs before it")


async def test_runs_that_people_must_mend_are_told_first(
    silent: dict[str, Diagnosis | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An inbox shows the first of many only."""
    silent |= {"a": None, "b": BUSY, "y": FAILS, "x": FAILS}

    async def listed(_client: Client, _query: str) -> list[Waiting]:
        return [Waiting(name, f"queue-{name}") for name in silent]

    monkeypatch.setattr(inbox, "_listed", listed)
    found = await inbox.read_inbox(cast(Client, None), scan=True)

    assert [one.workflow_id for one in found.silent] == ["x", "y", "a", "b"]
