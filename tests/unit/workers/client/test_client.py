"""Where client code starts runs."""

from typing import Any, cast

import pytest
from temporalio.client import Client

from mandate.workers.client.client import AgentClient


class Started:
    """In place of a connection: what it was asked to start."""

    task_queue: str = ""

    async def start_workflow(self, _name: str, _request: Any, *, task_queue: str, **_options: Any) -> None:
        self.task_queue = task_queue


@pytest.mark.parametrize(
    ("environment", "given", "queue"),
    [(None, None, "agents"), ("own", None, "own"), ("own", "other", "other"), ("", None, "agents")],
)
async def test_runs_start_where_the_workers_of_the_environment_poll(
    monkeypatch: pytest.MonkeyPatch, environment: str | None, given: str | None, queue: str
) -> None:
    monkeypatch.delenv("MANDATE_TASK_QUEUE", raising=False)
    if environment is not None:
        monkeypatch.setenv("MANDATE_TASK_QUEUE", environment)
    started = Started()

    await AgentClient(cast(Client, started), given).start("till", "hi")

    assert started.task_queue == queue
