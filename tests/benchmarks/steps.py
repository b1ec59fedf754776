"""What a step costs: history, activities, time and CPU, beside the floor, in one run.

`python -m tests.benchmarks.steps --steps 200 --output-bytes 2048 [--argument-bytes 40] [--runs 3] [--json]`
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHandle

from mandate.workers.client.client import AgentClient, connect
from mandate.workers.dev_server.server import run_private_server
from tests.benchmarks import floor, peers


@dataclass(frozen=True, slots=True)
class Report:
    """Figures of one run of N steps, each the median over the runs; a step is one model call and one tool call."""

    steps: int
    output_bytes: int
    argument_bytes: int
    history_bytes_per_step: float
    floor_history_bytes_per_step: float
    events_per_step: float
    activities_per_step: float
    ms_per_step: float
    floor_ms_per_step: float
    ratio: float
    """Median of the ratios of runs that followed one another."""
    worker_cpu_ms_per_step: float
    floor_worker_cpu_ms_per_step: float
    send_ms_per_step: float
    """Posting a conversation of the mean length to the provider, beyond a small request: no part of the runtime."""
    runs: int


@dataclass(frozen=True, slots=True)
class Timed:
    seconds: float
    cpu_seconds: float
    history_bytes: int
    events: int
    activities: int


async def timed(handle: WorkflowHandle[Any, Any], began: float, pid: int, cpu_before: float) -> Timed:
    """Figures of a run over all its continuations."""
    result = await handle.result()
    seconds = time.perf_counter() - began
    cpu = peers.Usage.of(pid).cpu_seconds - cpu_before
    assert not isinstance(result, dict) or result["status"] == "completed", result
    size = events = activities = 0
    run_id: str | None = handle.first_execution_run_id
    while run_id:
        part = handle._client.get_workflow_handle(handle.id, run_id=run_id)
        size += (await part.describe()).raw_info.history_size_bytes
        run_id = None
        async for event in part.fetch_history_events():
            events += 1
            activities += event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
            if event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW:
                run_id = event.workflow_execution_continued_as_new_event_attributes.new_execution_run_id
    return Timed(seconds, cpu, size, events, activities)


async def run_agent(client: Client, steps: int, pid: int) -> Timed:
    before, began = peers.Usage.of(pid).cpu_seconds, time.perf_counter()
    handle = await AgentClient(client).start("bench", f"Take {steps} notes.")
    handle._result_type = dict
    return await timed(handle, began, pid, before)


async def run_floor(client: Client, steps: int, pid: int) -> Timed:
    before, began = peers.Usage.of(pid).cpu_seconds, time.perf_counter()
    handle = await client.start_workflow("FloorWorkflow", steps, id=f"floor-{began}", task_queue=floor.QUEUE)
    return await timed(handle, began, pid, before)


async def measure(options: argparse.Namespace) -> Report:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = f"openai:bench.steps={options.steps}.args={options.argument_bytes}"
        agents = peers.write_agent(folder, model=model, output_bytes=options.output_bytes)
        async with run_private_server() as server, peers.fake_provider() as provider:
            environment = peers.name_environment(server.address, folder, agents, provider)
            client = await connect(address=server.address)
            floor_worker = ("-m", "tests.benchmarks.floor", "--address", server.address, "--provider", f"{provider}/v1")
            async with (
                peers.process("-m", "tests.benchmarks.agent_worker", **environment) as ours,
                peers.process(*floor_worker) as theirs,
            ):
                return await compare(options, client, ours.pid, theirs.pid, f"{provider}/v1")


async def compare(options: argparse.Namespace, client: Client, ours: int, theirs: int, provider: str) -> Report:
    steps = options.steps
    await run_agent(client, steps, ours) if steps <= 200 else await run_floor(client, 50, theirs)
    await run_floor(client, min(steps, 50), theirs)
    pairs = [
        (await run_agent(client, steps, ours), await run_floor(client, steps, theirs)) for _ in range(options.runs)
    ]
    agent_runs, floor_runs = [pair[0] for pair in pairs], [pair[1] for pair in pairs]

    def per_step(runs: list[Timed], figure: str) -> float:
        return statistics.median(getattr(run, figure) for run in runs) / steps

    return Report(
        steps=steps,
        output_bytes=options.output_bytes,
        argument_bytes=options.argument_bytes,
        history_bytes_per_step=round(per_step(agent_runs, "history_bytes"), 1),
        floor_history_bytes_per_step=round(per_step(floor_runs, "history_bytes"), 1),
        events_per_step=round(per_step(agent_runs, "events"), 2),
        activities_per_step=round((agent_runs[0].activities - 2) / steps, 3),
        ms_per_step=round(per_step(agent_runs, "seconds") * 1000, 2),
        floor_ms_per_step=round(per_step(floor_runs, "seconds") * 1000, 2),
        ratio=round(statistics.median(ours.seconds / theirs.seconds for ours, theirs in pairs), 3),
        worker_cpu_ms_per_step=round(per_step(agent_runs, "cpu_seconds") * 1000, 2),
        floor_worker_cpu_ms_per_step=round(per_step(floor_runs, "cpu_seconds") * 1000, 2),
        send_ms_per_step=round(await send_ms(provider, steps, options.output_bytes + options.argument_bytes), 2),
        runs=options.runs,
    )


async def send_ms(provider: str, steps: int, bytes_per_step: int) -> float:
    """Milliseconds that posting a conversation of half the run's length takes beyond posting a tiny one."""
    from mandate.activities.providers.openai_client import OpenAiClient
    from mandate.activities.providers.service import Service

    client = OpenAiClient("/responses", Service("openai", provider, "none"))
    overhead = 300
    filler = b"x" * (steps // 2 * (bytes_per_step + overhead))
    medians = []
    for content in (floor.BODY, floor.BODY[:-1] + b',"input2":"' + filler + b'"}'):
        times = []
        for _ in range(30):
            began = time.perf_counter()
            await client._client.post("/responses", content=content, cast_to=object)
            times.append(time.perf_counter() - began)
        medians.append(statistics.median(times))
    await client.close()
    return (medians[1] - medians[0]) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--output-bytes", type=int, default=2048)
    parser.add_argument("--argument-bytes", type=int, default=40)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    options = parser.parse_args()
    report = asdict(asyncio.run(measure(options)))
    if not options.json:
        for name, value in report.items():
            print(f"{name:32} {value}")
    else:
        print(json.dumps(report))


if __name__ == "__main__":
    main()
