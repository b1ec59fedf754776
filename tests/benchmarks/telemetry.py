"""What telemetry costs a step: the runs of `steps` with spans and metrics, beside the same without, in one run.

`python -m tests.benchmarks.telemetry [--steps 100] [--output-bytes 2048] [--runs 5]`
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from temporalio.client import Client

from mandate.workers.client.client import AgentClient, connect
from mandate.workers.dev_server.server import run_private_server
from tests.benchmarks import peers
from tests.benchmarks.steps import Timed, timed
from tests.support.otlp_receiver import Receiver, receiving
from tests.support.ports import free_port


async def run(client: Client, queue: str, steps: int, pid: int) -> Timed:
    before, began = peers.Usage.of(pid).cpu_seconds, time.perf_counter()
    handle = await AgentClient(client, queue).start("bench", f"Take {steps} notes.")
    handle._result_type = dict  # type: ignore[assignment]
    return await timed(handle, began, pid, before)


async def measure(options: argparse.Namespace) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = f"openai:bench.steps={options.steps}.args=40"
        agents = peers.write_agent(folder, model=model, output_bytes=options.output_bytes)
        async with run_private_server() as server, peers.fake_provider() as provider, receiving() as receiver:
            environment = peers.name_environment(server.address, folder, agents, provider)
            traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "MANDATE_METRICS": f"127.0.0.1:{free_port()}"}
            client = await connect(address=server.address)
            worker = ("-m", "tests.benchmarks.agent_worker")
            async with (
                peers.process(*worker, **environment, MANDATE_TASK_QUEUE="plain") as plain,
                peers.process(*worker, **environment, **traced, MANDATE_TASK_QUEUE="traced") as other,
            ):
                return await compare(options, client, plain.pid, other.pid, receiver)


async def compare(
    options: argparse.Namespace, client: Client, plain: int, traced: int, receiver: Receiver
) -> dict[str, float]:
    for queue, pid in (("plain", plain), ("traced", traced)):
        await run(client, queue, options.steps, pid)
    pairs = [
        (await run(client, "plain", options.steps, plain), await run(client, "traced", options.steps, traced))
        for _ in range(options.runs)
    ]
    await asyncio.sleep(3)

    def ratio(figure: str) -> float:
        return round(statistics.median(getattr(ours, figure) / getattr(one, figure) for one, ours in pairs), 3)

    def per_step(which: int, figure: str) -> float:
        return round(statistics.median(getattr(pair[which], figure) for pair in pairs) / options.steps, 5)

    return {
        "steps": options.steps,
        "seconds_ratio": ratio("seconds"),
        "worker_cpu_ratio": ratio("cpu_seconds"),
        "history_ratio": ratio("history_bytes"),
        "events_ratio": ratio("events"),
        "ms_per_step_without": per_step(0, "seconds") * 1000,
        "ms_per_step_with": per_step(1, "seconds") * 1000,
        "worker_cpu_ms_per_step_without": per_step(0, "cpu_seconds") * 1000,
        "worker_cpu_ms_per_step_with": per_step(1, "cpu_seconds") * 1000,
        "history_bytes_per_step_without": per_step(0, "history_bytes"),
        "history_bytes_per_step_with": per_step(1, "history_bytes"),
        "spans_per_step": round(len(receiver.spans) / (options.steps * (options.runs + 1)), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--output-bytes", type=int, default=2048)
    parser.add_argument("--runs", type=int, default=5)
    for name, value in asyncio.run(measure(parser.parse_args())).items():
        print(f"{name:32} {value:g}")


if __name__ == "__main__":
    main()
