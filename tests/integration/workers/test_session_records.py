"""Sessions as their histories tell of them, without a worker."""

from pathlib import Path
from uuid import uuid4

from temporalio.client import Client

from mandate.workers.history.record import read_record
from mandate.workflows.contracts.state import RunState
from mandate.workflows.rules.result import sum_usage
from tests.support.agents import REQUESTER, new_site

PRICE = {"input": "1000", "output": "1000"}


async def test_the_next_part_of_a_session_spends_what_is_left_of_its_budget(tmp_path: Path, client: Client) -> None:
    site = new_site(tmp_path, client)
    site.write(
        "talker",
        [{"call": [{"look": {"what": "a"}}]}, {"say": "first"}, {"say": "second"}],
        models=[{"model": "scripted:talker.script.yaml", "price": PRICE}],
        max_output_tokens=100,
        budget={"cost_usd": "100.00", "tool_calls": 5},
    )
    name = f"talk-{uuid4().hex[:8]}"
    async with site.serving():
        await site.agents.say(name, "talker", "Hello.", by=REQUESTER, idle="1s")
        await site.agents.handle(name).result()
        await site.agents.say(name, "talker", "And now?", by=REQUESTER, idle="1m")
        handle = site.client.get_workflow_handle(name)
        state: RunState = await handle.query("state", result_type=RunState)
        record = await read_record(site.client, name, None)
        await handle.terminate()

    its = record.history
    assert its.budget.ledger.spent == state.ledger.spent
    assert its.sum_usage() == sum_usage(state)
    assert record.budget is not None
    assert record.budget.use["tool_calls"].spent == 1
