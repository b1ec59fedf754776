"""Proof by trees, in short: each report comes once, whatever dies, continues as new and is ended."""

from pathlib import Path

from mandate.workers.client.client import connect
from mandate.workers.dev_server.server import run_private_server
from tests.acceptance.trees import EARLY, Plan, play, report, show


async def test_no_report_is_lost_and_nothing_is_done_twice(tmp_path: Path) -> None:
    plan = Plan(seed=2, trees=3, children=10, kills=2)

    async with run_private_server(extra_dynamic_config=EARLY) as server:
        played = await play(await connect(address=server.address), server.address, tmp_path, plan)

    assert played.faults() == [], show(played)
    its = report(played)
    assert (its["lost"], its["wrong"], its["twice"]) == (0, 0, 0)
    assert played.killed > 0
    assert played.hurt > 0
    assert any(tree.ended for tree in played.trees)
    assert played.parts > plan.trees * (plan.children + 1), "no run continued as new"
