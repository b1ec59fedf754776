"""An async tool that blocks its event loop is made once, and its worker goes on."""

import asyncio
from pathlib import Path
from time import monotonic

import pytest
from temporalio.client import Client

from mandate.workflows.contracts.run import RunStatus
from mandate.workflows.steps import REPEATED_HEARTBEAT
from tests.support.agents import Site, new_site, texts_told
from tests.support.people import send_update, write_people
from tests.support.toolkit import calls_of

TOOLS = [{"python": "tests.support.toolkit:block"}]
SECONDS = REPEATED_HEARTBEAT.total_seconds() + 1.5


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))


async def test_call_that_blocks_for_longer_than_the_heartbeat_is_not_given_up(site: Site) -> None:
    call = {"call": [{"block": {"word": "a", "seconds": SECONDS}}]}
    site.write("blocks", [call, {"say": "done"}], tools=TOOLS)
    async with site.serving():
        handle = await site.start("blocks")
        async with asyncio.timeout(20):
            while not calls_of(handle.id, "block"):
                await asyncio.sleep(0.02)
        asked = monotonic()
        await send_update(handle, "steer", {"by": "ann@example.com", "text": "Be brief."})
        waited = monotonic() - asked
        result = await handle.result()

    assert (result.status, result.uncertain) == (RunStatus.COMPLETED, ())
    assert await texts_told(site, result.head) == ["blocked for a"]
    assert [call.attempt for call in calls_of(handle.id, "block")] == [1]
    assert waited < 1.0
