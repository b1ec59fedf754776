"""Proof by size, in short: a plan of many steps and one of many items end on one worker that dies."""

from pathlib import Path

import pytest

from mandate.workers.client.client import connect
from mandate.workers.dev_server.server import run_private_server
from tests.acceptance.large_plans import Size, play, show

# They take the whole machine: others beside them would be late.
pytestmark = pytest.mark.alone

EARLY = {"limit.historyCount.suggestContinueAsNew": "150"}
"""Setting of the server: events after which a run continues as new."""


async def test_many_steps_and_many_items_end_on_one_worker_that_dies(tmp_path: Path) -> None:
    size = Size(steps=300, width=10, items=300, at_once=100, kills=1)

    async with run_private_server(extra_dynamic_config=EARLY) as server:
        found = await play(await connect(address=server.address), server.address, tmp_path, size)

    assert [large.faults for large in found] == [[], []], show(found)
    assert [large.kills for large in found] == [1, 1]
    assert all(large.parts > 1 for large in found), show(found)
    # Bounds of what history may cost: a reading step is a marker and its share of the workflow tasks.
    assert all(large.events_per_call < 8 and large.bytes_per_call < 2000 for large in found), show(found)
