"""What runs that do not answer say of the others of their queue."""

from typing import cast

import pytest
from temporalio.client import Client

from mandate.workers.client import rounds
from mandate.workers.client.answers import NotAnswering
from mandate.workers.client.diagnosis import TIMED_OUT, Diagnosis
from mandate.workers.client.rounds import AT_A_TIME, Round, Silent

FAILS = Diagnosis(5, "NON_DETERMINISTIC_ERROR", "[TMPRL1100] Nondeterminism error", 70)
BUSY = Diagnosis(4, TIMED_OUT, "", 70)


@pytest.fixture(autouse=True)
def _no_pollers(monkeypatch: pytest.MonkeyPatch) -> None:
    async def find_pollers(_client: Client, _queue: str) -> None:
        return None

    monkeypatch.setattr(rounds, "_find_pollers", find_pollers)


async def asked(silent: dict[str, Diagnosis | None]) -> Round[str]:
    """Those that do not answer first, each for its reason, then one that does."""

    async def question(workflow_id: str) -> str:
        if workflow_id in silent:
            found = silent[workflow_id]
            raise NotAnswering(found.sentence if found is not None else "no worker answered within 10 s", found)
        return workflow_id

    made = Round(cast(Client, None), question)
    for name in (*silent, "other"):
        await made.ask(name, "agents")
    return made


async def test_runs_whose_tasks_fail_keep_nobody_from_being_asked() -> None:
    made = await asked({f"wedged-{number}": FAILS for number in range(2 * AT_A_TIME)})

    assert made.told == ["other"]
    assert {one.diagnosis for one in made.silent} == {FAILS}
    assert made.silent[0].reason == (
        "its workflow task fails again and again (attempt 5): [TMPRL1100] Nondeterminism error; "
        "deploy/docs/recovery.md says how to reset it"
    )


@pytest.mark.parametrize("reason", [None, BUSY])
async def test_a_queue_of_which_nobody_answers_is_given_up(reason: Diagnosis | None) -> None:
    made = await asked({f"slow-{number}": reason for number in range(AT_A_TIME)})

    assert made.told == []
    assert made.silent[-1] == Silent("other", "no worker answered for the runs before it")
