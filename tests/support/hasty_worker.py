"""A worker whose runs hardly stay where they are: `python -m tests.support.hasty_worker [--bare]`; prints `ready`.

Its memory holds two runs, it works on two workflow tasks at once, and they wait for it for nearly nothing. With
`--bare` its runs are driven as the SDK does by itself, without receipts.
"""

import asyncio
import sys
from datetime import timedelta
from typing import Any

from mandate.workers import worker
from mandate.workers.client.client import connect
from mandate.workers.settings import Settings
from mandate.workers.worker import WorkerOptions, open_worker
from tests.support.bare_worker import BareRunner

CACHED = 2
SLOTS = 2
STICKY = timedelta(milliseconds=10)


def _replace(owner: Any, name: str, made: Any) -> None:
    """Like an assignment, but of something that is there: else this worker would be an honest one."""
    assert hasattr(owner, name), f"{owner!r} has no {name!r} any more"
    setattr(owner, name, made)


def be_bare() -> None:
    """Let the workers of this process do without receipts."""
    _replace(worker, "SandboxedRunner", BareRunner)


async def main(words: list[str]) -> None:
    if "--bare" in words:
        be_bare()
    _replace(worker, "STICKY", STICKY)
    _replace(worker, "WORKFLOW_TASKS", SLOTS)
    client = await connect()
    options = WorkerOptions(max_cached_workflows=CACHED)
    async with open_worker(client, Settings.from_environment(), options) as serving:
        task = asyncio.create_task(serving.run())
        await asyncio.sleep(0)
        print("ready", flush=True)
        await task


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
