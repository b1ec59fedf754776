"""Proof by outages, in short: nothing is lost and nothing doubled, whatever of a cluster is gone for a while."""

from pathlib import Path

import pytest

from tests.acceptance.outages import NO_SPACE, OUTAGES, Place, play, show
from tests.support.postgres import give_up

# They take the whole machine, and so does each of them.
# The first one waits until the server is built.
pytestmark = [pytest.mark.alone, pytest.mark.cluster, pytest.mark.timeout(1800)]

RUNS = {"worker": 40, "temporal": 40, "postgres": 40}
"""Of the others half as many."""


@pytest.mark.parametrize("name", OUTAGES)
async def test_nothing_is_lost_and_nothing_doubled(cluster_place: Place, tmp_path: Path, name: str) -> None:
    if name == "disk" and cluster_place.disk is None:
        give_up("this machine lets nobody mount a small file system, so no disk can be filled")
    runs = RUNS.get(name, 20)

    played = await play(cluster_place, OUTAGES[name], tmp_path, runs=runs, payments=5)

    assert played.faults() == [], show(played)
    assert len(played.runs) == runs
    assert played.parts > runs, "no run continued as new"
    # It was in the middle, and nothing went on during it but what was in hand.
    assert played.behind > runs, show(played)
    assert played.during <= runs, show(played)
    assert played.ahead > runs, show(played)
    if name == "disk":
        assert NO_SPACE in cluster_place.cluster.postgres.log()
