"""The floor: a workflow with two activities a step, tiny constant payloads, and one small request to the provider.

What no runtime on Temporal can be below, at the same server and with the same worker settings.
"""

import argparse
import asyncio
import os
import socket
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    from mandate.workers.client.client import connect
    from mandate.workers.worker import ACTIVITY_SLOTS, STICKY
from mandate.workers.sandbox import workflow_runner

QUEUE = "floor"
BODY = b'{"model":"bench.steps=0","input":"go on"}'


@workflow.defn
class FloorWorkflow:
    """`steps` times two activities."""

    @workflow.run
    async def run(self, steps: int) -> int:
        options = {"start_to_close_timeout": timedelta(seconds=60), "heartbeat_timeout": timedelta(seconds=5)}
        for step in range(steps):
            await workflow.execute_activity("ask", step, result_type=int, **options)
            await workflow.execute_activity("act", step, result_type=int, **options)
        return steps


class FloorActivities:
    """One client of the vendor's SDK, as the adapters have."""

    def __init__(self, base_url: str) -> None:
        from mandate.activities.providers.openai_client import OpenAiClient
        from mandate.activities.providers.service import Service

        self._client = OpenAiClient("/responses", Service("openai", base_url, "none"))

    @activity.defn
    async def ask(self, number: int) -> int:
        await self._client._client.post("/responses", content=BODY, cast_to=object)
        return number

    @activity.defn
    async def act(self, number: int) -> int:
        return number


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--provider", required=True)
    options = parser.parse_args()
    client = await connect(address=options.address)
    activities = FloorActivities(options.provider)
    worker = Worker(
        client,
        task_queue=QUEUE,
        workflows=[FloorWorkflow],
        activities=[activities.ask, activities.act],
        workflow_runner=workflow_runner(),
        identity=f"{os.getpid()}@{socket.gethostname()}",
        max_concurrent_activities=ACTIVITY_SLOTS,
        sticky_queue_schedule_to_start_timeout=STICKY,
        max_heartbeat_throttle_interval=timedelta(seconds=1),
    )
    await worker.run()


if __name__ == "__main__":
    asyncio.run(main())
