"""Budgets beyond one run on a real server: what they count of calls that have no answer."""

import asyncio
import json
from pathlib import Path

import pytest
from temporalio.client import Client

from mandate.activities.stores.address import open_store
from mandate.activities.stores.budgets import Balance
from mandate.workflows.contracts.budget import Amount
from mandate.workflows.contracts.run import RunStatus
from tests.support.agents import Site, new_site


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    file = tmp_path / "budgets.yaml"
    file.write_text(json.dumps({"budgets": [{"id": "all", "per": "month", "tokens": 1_000_000}]}))
    return new_site(tmp_path, client, MANDATE_BUDGETS=str(file))


async def read_balance(site: Site) -> Balance:
    store = open_store(site.settings.store)
    try:
        (balance,) = await store.list_balances("", "9999")
    finally:
        await store.close()
    return balance


async def test_call_that_a_limit_of_time_cuts_off_is_assumed(site: Site) -> None:
    site.write("slow", [{"delay": "60s", "say": "late"}], budget={"wall_time": "5s"}, max_output_tokens=500)
    async with site.serving(), asyncio.timeout(30):
        handle = await site.start("slow")
        result = await handle.result()

    balance = await read_balance(site)
    assert result.status == RunStatus.EXHAUSTED
    assert balance.held == Amount()
    assert balance.assumed.tokens > 500
    # Beside it stands the last answer, as it was told.
    assert balance.spent.tokens - balance.assumed.tokens == 55
