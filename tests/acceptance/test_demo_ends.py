"""The end of `mandate demo`, and what is left of its processes then."""

import asyncio
import signal
import time
from pathlib import Path

import pytest

from mandate.workers.dev_server import lease
from mandate.workers.dev_server.server import share_dev_server
from tests.support.demo import server_is_gone
from tests.support.processes import Processes, children, lives


async def test_server_stays_when_it_is_to_be_kept(started: Processes, tmp_path: Path) -> None:
    demo = started.mandate("demo", "--fast", "--yes", "--keep")
    await demo.said("Look at the run")
    async with asyncio.timeout(30):
        while "stay until Ctrl-C" not in demo.stderr():
            await asyncio.sleep(0.02)
    assert lease.keeper_lives(tmp_path / "state")

    demo.send(signal.SIGINT)

    assert await demo.ended() == 0
    assert await server_is_gone(tmp_path / "state")


@pytest.mark.parametrize(
    ("number", "cue"),
    [
        (signal.SIGINT, "1. I start with the order"),
        (signal.SIGTERM, "1. I start with the order"),
        (signal.SIGINT, "Or in the Web UI"),
    ],
)
async def test_interrupted_demo_leaves_nothing_behind(
    started: Processes, tmp_path: Path, number: signal.Signals, cue: str
) -> None:
    demo = started.mandate("demo", "--fast")
    await demo.said(cue)
    workers = children(demo.pid)

    demo.send(number)

    assert await demo.ended() == 130
    assert workers
    assert not any(lives(pid) for pid in workers)
    assert "was cancelled" in demo.stderr()
    assert "Traceback" not in demo.stderr()
    assert await server_is_gone(tmp_path / "state")


async def test_worker_and_server_end_with_a_killed_demo(started: Processes, tmp_path: Path) -> None:
    demo = started.mandate("demo")
    await demo.said("1. I start with the order")
    workers = children(demo.pid)

    demo.send(signal.SIGKILL)

    deadline = time.monotonic() + 30
    while any(lives(pid) for pid in workers) and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    assert workers
    assert not any(lives(pid) for pid in workers)
    assert await server_is_gone(tmp_path / "state")


async def test_no_short_command_aborts_at_exit(started: Processes, tmp_path: Path) -> None:
    """The SDK's threads may crash an interpreter that goes down: exit codes 134 and 139."""
    with await share_dev_server(tmp_path / "state", on_progress=lambda line: None, ui=False) as server:
        codes = []
        for _ in range(5):
            pair = [started.mandate("show", "nobody", TEMPORAL_ADDRESS=server.address) for _ in range(2)]
            codes += [await command.ended() for command in pair]

    assert set(codes) == {2}, started.started[-1].stderr()
