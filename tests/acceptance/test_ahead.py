"""Proof by asking early, in short: runs whose clients act at once on what they see, while workers die."""

from pathlib import Path

from temporalio.client import Client

from tests.acceptance.ahead import Plan, play, show


async def test_every_history_replays_whatever_was_asked_and_said_when(client: Client, tmp_path: Path) -> None:
    played = await play(client, tmp_path, Plan(runs=24))

    assert (dict(played.ended), played.wedged) == ({"completed": 24}, {}), show(played)
    assert played.killed > 0
    assert played.refused > 0, "no query was ahead of a history"
    assert {"decide by update", "decide by signal"} <= set(played.said)
    assert {said.partition(" ")[0] for said in played.said} == {"decide", "steer", "pause", "resume"}
