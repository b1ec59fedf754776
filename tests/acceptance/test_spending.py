"""Proof by spending, in short: nothing is billed beyond a budget, whatever dies and gets lost, and most is used."""

from decimal import Decimal
from pathlib import Path

from temporalio.client import Client

from mandate.workers.dev_server.server import DevServer
from tests.acceptance.spending import Plan, play, report, show


async def test_nothing_is_billed_beyond_a_budget(client: Client, temporal: DevServer, tmp_path: Path) -> None:
    plan = Plan(seed=3, runs=16, calls=4, limit=Decimal("0.08"), kills=2)

    played = await play(client, temporal.address, tmp_path, plan)

    assert played.faults() == [], show(played)
    assert played.killed > 0
    assert played.done["lost"] > 0
    assert {each.model for each in played.charges} > {"small"}, "no run went on with another model"
    assert any(each.is_dear for each in played.charges)
    assert (report(played)["limit"], report(played)["runs"]) == (0.08, 16)
