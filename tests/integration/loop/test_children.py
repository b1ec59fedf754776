"""Children: agents as tools of agents, and all that passes between a run and those below it."""

from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from mandate.workflows.contracts.run import RunResult, RunStatus
from tests.support.agents import Site, new_site, results_told


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client)


def parent(site: Site, turns: list[Any], **keys: Any) -> None:
    site.write("boss", turns, **{"tools": [{"agent": "worker"}], **keys})


def call(*tasks: str) -> dict[str, Any]:
    return {"call": [{"worker": {"task": task}} for task in tasks]}


async def test_a_child_works_and_its_answer_is_the_result_of_the_call(site: Site) -> None:
    parent(site, [call("Look it up."), {"say": "done"}])
    site.write("worker", [{"call": [{"look": {"what": "a"}}]}, {"say": "It is a."}])
    async with site.serving():
        handle = await site.start("boss", "Find out.")
        result: RunResult = await handle.result()
        child: RunResult = await site.agents.handle(f"{handle.id}/c1").result()

    assert (result.status, result.output) == (RunStatus.COMPLETED, "done")
    assert (child.status, child.output) == (RunStatus.COMPLETED, "It is a.")
    assert result.usage.model_calls == 4
    (told,) = await results_told(site, result.head)
    print(told, result)
