"""Answers that nobody gets, or that do not tell what they took: they count in every budget."""

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from mandate.workers.history.record import read_record
from mandate.workflows.contracts.run import RunResult, RunStatus
from tests.support.agents import Site, new_site
from tests.support.fake_provider.behaviours import NAMED, Answer, Call
from tests.support.fake_provider.server import FakeProvider

LIMITED_TO_ONE = {"budgets": [{"id": "all", "per": "month", "cost_usd": "0.015"}]}
"""One call of up to a cent, and no second one."""


@pytest.fixture
async def fake() -> AsyncIterator[FakeProvider]:
    async with FakeProvider() as fake:
        yield fake


@pytest.fixture
def site(tmp_path: Path, client: Client, fake: FakeProvider) -> Site:
    environment = {"VLLM_BASE_URL": f"{fake.url}/v1", "VLLM_API_KEY": "none"}
    return new_site(tmp_path, client, MANDATE_BUDGETS=str(tmp_path / "budgets.yaml"), **environment)


async def run(site: Site, model: str, budget: dict[str, Any], beyond: dict[str, Any] | None = None) -> RunResult:
    """The result of a run that asks `model`, whose longest answer costs a cent."""
    (site.folder / "budgets.yaml").write_text(json.dumps(beyond or {"budgets": []}))
    models = [{"model": f"vllm:{model}", "price": {"input": "1", "output": "10"}, "max_output_tokens": 1000}]
    site.write("spends", [], models=models, budget={"when_used_up": "stop", **budget})
    async with asyncio.timeout(100):
        result, _ = await site.run("spends")
    return result


async def test_run_counts_a_lost_answer_after_which_a_budget_beyond_it_has_no_room(
    site: Site, fake: FakeProvider
) -> None:
    result = await run(site, "fake-drop", {"cost_usd": "1"}, LIMITED_TO_ONE)

    assert result.status == RunStatus.EXHAUSTED
    assert "the budget 'all' for" in (result.reason or "")
    assert (len(fake.requests), result.usage.assumed_calls) == (1, 1)
    assert Decimal("0.01") < result.usage.cost_usd < Decimal("0.015")


async def test_run_whose_budget_is_used_up_by_lost_answers_is_exhausted(site: Site, fake: FakeProvider) -> None:
    result = await run(site, "fake-drop", {"cost_usd": "0.04"})

    assert (result.status, result.reason) == (RunStatus.EXHAUSTED, "the limit of $0.04 is used up")
    assert result.usage.assumed_calls == len(fake.requests) > 2
    assert Decimal("0.02") < result.usage.cost_usd <= Decimal("0.04")


async def test_answer_that_does_not_tell_its_tokens_counts_as_it_was_reserved(site: Site) -> None:
    result = await run(site, "fake-no-usage", {"tokens": 100_000})

    assert (result.status, result.output) == (RunStatus.COMPLETED, "All done.")
    assert 1000 < result.usage.input_tokens + result.usage.output_tokens < 3000


async def test_answer_without_its_tokens_is_assumed_where_money_is_limited(site: Site) -> None:
    result = await run(site, "fake-no-usage", {"cost_usd": "1"})

    assert (result.usage.assumed_calls, result.usage.unpriced_calls) == (1, 0)
    assert Decimal("0.005") < result.usage.cost_usd < Decimal("0.02")


async def test_answer_that_was_lost_before_a_cut_counts_once_in_run_and_record(site: Site, fake: FakeProvider) -> None:
    """Attempt 1 is lost, attempt 2 is refused as too long; the cut that follows is told of the first."""
    looks = [Answer(calls=(Call("look", json.dumps({"what": "x" * 2000})),)) for _ in range(6)]
    for behaviour in (*looks, NAMED["drop"], NAMED["context"], Answer(text="All done.")):
        fake.will(behaviour)
    (site.folder / "budgets.yaml").write_text('{"budgets": []}')
    model = {"model": "vllm:llama", "price": {"input": "1", "output": "10"}, "max_output_tokens": 1000}
    site.write("cut", [], models=[model], budget={"cost_usd": "1"})

    result, workflow_id = await site.run("cut")
    record = await read_record(site.client, workflow_id, None)

    assert (result.status, result.output) == (RunStatus.COMPLETED, "All done.")
    assert (len(fake.requests), result.usage.model_calls, result.usage.assumed_calls) == (9, 7, 1)
    assert record.budget is not None
    spent = record.budget.use["cost_usd"]
    assert (spent.spent, record.budget.use["model_calls"].assumed) == (f"{result.usage.cost_usd:f}", 1)
    assert Decimal(spent.assumed) > Decimal("0.01")
