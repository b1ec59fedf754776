"""A worker of the load benchmark: `mandate worker`, which also writes down how long it waits for the store.

`python -m tests.benchmarks.load_worker FILE`: FILE gets calls and seconds as JSON, twice a second.
"""

import asyncio
import functools
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CALLS = ("put", "get", "claim", "reserve", "settle", "cached", "keep", "session", "keep_session")
"""What activities wait for in a step."""


@dataclass
class StoreTime:
    """Time for which this process has waited for the store."""

    calls: int = 0
    seconds: float = 0.0

    def timed(self, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(call)
        async def wrapped(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return await call(*arguments, **options)
            finally:
                self.calls += 1
                self.seconds += time.perf_counter() - began

        return wrapped

    async def tell(self, file: Path) -> None:
        while True:
            draft = file.with_suffix(".draft")
            draft.write_text(json.dumps({"calls": self.calls, "seconds": self.seconds}))
            draft.replace(file)
            await asyncio.sleep(0.5)


async def main() -> None:
    from mandate.activities.stores.postgres import PostgresStore
    from mandate.activities.stores.sqlite import SqliteStore
    from mandate.workers.client.client import connect
    from mandate.workers.interpreter import tune_collection
    from mandate.workers.settings import Settings
    from mandate.workers.telemetry import configure_logging
    from mandate.workers.worker import open_worker

    store_time = StoreTime()
    for store in (PostgresStore, SqliteStore):
        for name in CALLS:
            setattr(store, name, store_time.timed(getattr(store, name)))
    configure_logging()
    client = await connect()
    async with open_worker(client, Settings.from_environment()) as worker:
        telling = asyncio.create_task(store_time.tell(Path(sys.argv[1])))
        serving = asyncio.create_task(worker.run())
        await asyncio.sleep(0)
        tune_collection()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await serving
        telling.cancel()


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    from mandate.workers.interpreter import make_event_loop

    with asyncio.Runner(loop_factory=make_event_loop) as runner:
        runner.run(main())
