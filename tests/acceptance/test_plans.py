"""Proof by plans, in short: each step is made once, in its turn, whatever dies."""

from pathlib import Path

import pytest

from mandate.workers.client.client import connect
from mandate.workers.dev_server.server import run_private_server
from tests.acceptance.plans import EARLY, KINDS, Scene, play, report, show
from tests.support.plan_points import POINTS

# They take the whole machine: others beside them would be late.
pytestmark = pytest.mark.alone


async def test_plans_end_as_they_say_whatever_dies(tmp_path: Path) -> None:
    scene = Scene(seed=17, plans=4, steps=10, kills=1, deaths=1)

    async with run_private_server(extra_dynamic_config=EARLY) as server:
        proof = await play(await connect(address=server.address), server.address, tmp_path, scene)

    assert proof.faults() == [], show(proof)
    its = report(proof)
    assert {kind: its[kind] for kind in KINDS} == dict.fromkeys(KINDS, 0)
    assert set(proof.points) == set(POINTS)
    assert its["kills"] > len(POINTS)
    assert its["parts"] > scene.plans, "no plan continued as new"
