"""A busy worker is not taken for a dead one: no attempt is given up that lives."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle

from mandate.workers.dev_server.server import DevServer
from mandate.workers.worker import PROCESSORS
from tests.acceptance.killed_tools import JOURNAL
from tests.acceptance.test_killed_workers import attempts_of, running
from tests.support.agents import ALLOW_ALL, new_site

RUNS = 16 * PROCESSORS
MODULE = "tests.acceptance.killed_tools"
LONG = timedelta(seconds=4)
"""A call of more than the heartbeat timeout, which costs its worker nothing but heartbeats."""

STEPS = 9


def work(number: int) -> list[dict[str, Any]]:
    """Steps of a run: every third call is long, the others keep the worker's processor busy."""
    calls = [
        {"pay_long": {"word": f"{number}-{step}", "seconds": LONG.total_seconds()}}
        if step % 3 == 0
        else {"compute": {"word": f"{number}-{step}"}}
        for step in range(STEPS)
    ]
    return [*({"call": [call]} for call in calls), {"say": "done"}]


@pytest.mark.alone
async def test_no_attempt_that_lives_is_given_up(tmp_path: Path, client: Client, temporal: DevServer) -> None:
    site = new_site(tmp_path, client)
    tools = [{"python": f"{MODULE}:{name}"} for name in ("pay_long", "compute")]
    for number in range(4):
        site.write(f"busy-{number}", work(number), tools=tools, policy=ALLOW_ALL, budget={"steps": 2 * STEPS})
    with running(site, temporal, **{JOURNAL: str(tmp_path / "journal")}) as started:
        for _ in range(PROCESSORS):
            await started.worker()
        async with asyncio.timeout(240):
            runs: Sequence[WorkflowHandle[Any, Any]] = [
                await site.start(f"busy-{number % 4}") for number in range(RUNS)
            ]
            results = await asyncio.gather(*(run.result() for run in runs))
            attempts = [attempt for run in runs for attempt in await attempts_of(run)]

    assert {result.status for result in results} == {"completed"}
    assert [attempt for attempt in attempts if attempt.number > 1] == []
