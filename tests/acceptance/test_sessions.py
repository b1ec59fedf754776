"""Proof by talking, in short: each message is answered once and in order, whatever dies, ends and gets lost."""

from pathlib import Path

from temporalio.client import Client

from mandate.workers.dev_server.server import DevServer
from tests.acceptance.sessions import Plan, play, report, show


async def test_each_message_is_answered_once_and_in_order(client: Client, temporal: DevServer, tmp_path: Path) -> None:
    plan = Plan(seed=3, sessions=12, messages=3, kills=2)

    played = await play(client, temporal.address, tmp_path, plan)

    assert played.faults() == [], show(played)
    its = report(played)
    assert (its["twice"], its["lost"], its["out_of_order"]) == (0, 0, 0)
    assert its["answered"] == its["messages"]
    assert played.killed > 0
    assert played.ended > 0
    assert played.hurt > 0
    assert played.parts > plan.sessions, "no message met the end of a run"
