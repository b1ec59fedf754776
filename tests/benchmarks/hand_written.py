"""A hand-written agent loop on Temporal, as its samples show it: the whole conversation goes through each model call.

`python -m tests.benchmarks.hand_written --address A --provider URL` serves it until it is terminated.
"""

import argparse
import asyncio
import json
from datetime import timedelta
from typing import Any

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import Worker

QUEUE = "hand-written"

NOTE = {
    "type": "function",
    "name": "note",
    "description": "Take a note.",
    "parameters": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
}


@workflow.defn
class HandWrittenWorkflow:
    """Ask the model, call its tools, until it answers with a text."""

    @workflow.run
    async def run(self, model: str) -> str:
        options = {"start_to_close_timeout": timedelta(seconds=60), "heartbeat_timeout": timedelta(seconds=5)}
        messages: list[dict[str, Any]] = [{"role": "user", "content": "Take notes."}]
        while True:
            items = await workflow.execute_activity("ask_model", args=[model, messages], result_type=list, **options)
            messages += items
            calls = [item for item in items if item["type"] == "function_call"]
            if not calls:
                return "done"
            for call in calls:
                result = await workflow.execute_activity("note", call["arguments"], result_type=str, **options)
                messages.append({"type": "function_call_output", "call_id": call["call_id"], "output": result})


class HandWrittenActivities:
    """The model by the vendor's SDK, and one tool."""

    def __init__(self, provider: str, output_bytes: int) -> None:
        from openai import AsyncOpenAI

        self._client = AsyncOpenAI(api_key="none", base_url=provider, max_retries=0)
        self._result = "x" * output_bytes

    @activity.defn
    async def ask_model(self, model: str, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        given: Any = {"model": model, "input": messages, "tools": [NOTE]}
        response = await self._client.responses.create(**given)
        return [item.model_dump(mode="json", exclude_none=True) for item in response.output]

    @activity.defn
    async def note(self, arguments: str) -> str:
        json.loads(arguments)
        return self._result


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--provider", required=True)
    parser.add_argument("--output-bytes", type=int, default=2048)
    options = parser.parse_args()
    client = await Client.connect(options.address)
    activities = HandWrittenActivities(options.provider, options.output_bytes)
    worker = Worker(
        client,
        task_queue=QUEUE,
        workflows=[HandWrittenWorkflow],
        activities=[activities.ask_model, activities.note],
    )
    await worker.run()


if __name__ == "__main__":
    asyncio.run(main())
