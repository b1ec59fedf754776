"""A worker as `mandate worker` runs it that also tells its own figures: serves until it is ended.

`python -m tests.benchmarks.waiting_worker --max-cached-workflows 1000 --metrics-port 9090`
"""

import argparse
import asyncio
import sys
from pathlib import Path


async def main(options: argparse.Namespace) -> None:
    from temporalio.runtime import PrometheusConfig, Runtime, TelemetryConfig

    from mandate.workers.client.client import connect
    from mandate.workers.settings import Settings
    from mandate.workers.telemetry.logs import configure_logging
    from mandate.workers.worker import WorkerOptions, open_worker

    configure_logging()
    address = f"127.0.0.1:{options.metrics_port}"
    Runtime.set_default(Runtime(telemetry=TelemetryConfig(metrics=PrometheusConfig(bind_address=address))))
    client = await connect()
    chosen = {} if options.max_cached_workflows is None else {"max_cached_workflows": options.max_cached_workflows}
    async with open_worker(client, Settings.from_environment(), WorkerOptions(**chosen)) as worker:
        serving = asyncio.create_task(worker.run())
        await asyncio.sleep(0)
        sys.stdout.write("serving\n")
        sys.stdout.flush()
        await serving


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    parser = argparse.ArgumentParser()
    parser.add_argument("--max-cached-workflows", type=int, default=None)
    parser.add_argument("--metrics-port", type=int, required=True)
    asyncio.run(main(parser.parse_args()))
