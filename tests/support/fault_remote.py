"""A worker of somebody else with activities over the fault server: `python -m tests.support.fault_remote QUEUE`.

It knows nothing of Mandate: the SDK's own converter, and the activity id as the key. A 503 is an error that says when
to try again.
"""

import asyncio
import os
import sys
from datetime import timedelta

from temporalio import activity
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from tests.support import fault_client

READY = "polling"

BUSY = "Busy"
"""Type of the error for a call that was not done, and may be made again."""

REJECTED = "Rejected"
"""Type of an error that no call of a suite meets: a definite no."""


async def _call(arguments: dict[str, str]) -> str:
    its = activity.info()
    try:
        return await asyncio.to_thread(
            fault_client.call, its.activity_type, arguments["task"], arguments["item"], its.activity_id
        )
    except fault_client.Busy as busy:
        again = timedelta(seconds=busy.retry_after)
        raise ApplicationError(str(busy), type=BUSY, next_retry_delay=again) from None


@activity.defn
async def look_activity(arguments: dict[str, str]) -> str:
    return await _call(arguments)


@activity.defn
async def set_activity(arguments: dict[str, str]) -> str:
    return await _call(arguments)


@activity.defn
async def pay_activity(arguments: dict[str, str]) -> str:
    return await _call(arguments)


@activity.defn
async def send_activity(arguments: dict[str, str]) -> str:
    return await _call(arguments)


async def main() -> None:
    client = await Client.connect(os.environ["TEMPORAL_ADDRESS"])
    made = [look_activity, set_activity, pay_activity, send_activity]
    async with Worker(client, task_queue=sys.argv[1], activities=made):
        print(READY, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
