"""The plans that come with the project, as they run on its own agents."""

from pathlib import Path
from uuid import uuid4

import pytest
from temporalio.client import Client

from mandate.workers.client.client import AgentClient
from mandate.workers.examples.shop_data import create_shop
from mandate.workers.settings import Settings
from mandate.workers.worker import open_worker
from mandate.workflows.contracts.run import RunStatus

PROJECT = Path(__file__).parents[3]


async def test_orders_are_checked_without_a_model(
    tmp_path: Path, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_shop(tmp_path / "shop.db")
    monkeypatch.setenv("MANDATE_DEMO_SHOP", str(tmp_path / "shop.db"))
    queue = f"plans-{uuid4().hex[:8]}"
    settings = Settings.from_environment(
        {
            "MANDATE_FOLDER": str(tmp_path),
            "MANDATE_AGENTS": str(PROJECT / "deploy" / "agents"),
            "MANDATE_TASK_QUEUE": queue,
        }
    )
    async with open_worker(client, settings) as worker, worker:
        result = await AgentClient(client, queue).run_plan("check-orders", [1042, 9999, 1034])

    assert result.status is RunStatus.COMPLETED
    assert isinstance(result.output, dict)
    assert (result.output["unknown"], result.output["cancelled"]) == (1, [1034])
    assert [(step.id, step.completed, step.items) for step in result.steps] == [("orders", 2, 3), ("payments", 2, 2)]


async def test_companies_are_compared_without_a_key(tmp_path: Path, client: Client) -> None:
    queue = f"plans-{uuid4().hex[:8]}"
    project = PROJECT / "deploy" / "examples" / "patterns"
    settings = Settings.from_environment(
        {"MANDATE_FOLDER": str(tmp_path), "MANDATE_AGENTS": str(project / "agents"), "MANDATE_TASK_QUEUE": queue}
    )
    async with open_worker(client, settings) as worker, worker:
        result = await AgentClient(client, queue).run_plan("compare", {"companies": ["Acme", "Bolt", "Core"]})

    assert (result.status, result.output) == ("completed", "Acme is the oldest: it was founded in 1904.")
    assert [(step.id, step.completed, step.items) for step in result.steps] == [("each", 3, 3), ("write", 1, None)]
