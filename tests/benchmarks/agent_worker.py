"""A worker as `mandate worker` runs it, for benchmarks: serves until it is terminated."""

import asyncio
import os
import sys
import time
from pathlib import Path

STARTED = time.perf_counter()


async def main() -> None:
    from mandate.workers.client.client import connect
    from mandate.workers.interpreter import tune_collection
    from mandate.workers.settings import Settings
    from mandate.workers.telemetry.logs import configure_logging
    from mandate.workers.telemetry.settings import TelemetrySettings
    from mandate.workers.worker import open_worker

    configure_logging()
    if metrics := TelemetrySettings.from_environment(os.environ).metrics:
        from temporalio.runtime import Runtime

        from mandate.workers.telemetry.runtime import open_runtime

        Runtime.set_default(open_runtime(None, metrics))
    client = await connect()
    async with open_worker(client, Settings.from_environment()) as worker:
        serving = asyncio.create_task(worker.run())
        await asyncio.sleep(0)
        tune_collection()
        sys.stdout.write(f"{time.perf_counter() - STARTED:.3f}\n")
        sys.stdout.flush()
        await serving


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    from mandate.workers.interpreter import make_event_loop

    with asyncio.Runner(loop_factory=make_event_loop) as runner:
        runner.run(main())
