"""What it costs that somebody reads along: processor time of the worker and history, beside the same run without.

`python -m tests.benchmarks.streaming [--steps 50] [--words 40] [--pieces 10] [--runs 5] [--json]`

Each step is an answer with one call of a quick tool; the last answer has so many words, in so many pieces.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from temporalio.client import Client

from mandate.activities.stores.address import open_store
from mandate.activities.transcript.blobs import Blobs
from mandate.workers.client.client import AgentClient, connect
from mandate.workers.client.streams import StreamReader
from mandate.workers.dev_server.server import run_private_server
from tests.benchmarks import peers
from tests.benchmarks.steps import Timed, timed


@dataclass(frozen=True, slots=True)
class Report:
    """Medians over pairs of runs that followed one another; `alone` is the one that nobody reads along with."""

    steps: int
    words: int
    pieces: int
    events_read: int
    """Of one run."""
    cpu_ms_per_step: float
    alone_cpu_ms_per_step: float
    cpu_ratio: float
    history_bytes_per_step: float
    alone_history_bytes_per_step: float
    ms_per_step: float
    alone_ms_per_step: float
    runs: int


async def run(client: Client, pid: int, *, store: str | None = None) -> tuple[Timed, int]:
    """Figures of one run, and the events that were read; with a `store`, somebody reads along."""
    workflow_id = f"bench-{time.time_ns():x}"
    read = 0
    if store is not None:
        blobs = Blobs(open_store(store))
        reader = StreamReader(client, blobs, workflow_id)
        await reader.open()

        async def follow() -> int:
            return sum([1 async for _ in reader.events()])

        following = asyncio.create_task(follow())
    # Workers look twice a second who reads; the other run waits as long.
    await asyncio.sleep(0.7)
    before, began = peers.Usage.of(pid).cpu_seconds, time.perf_counter()
    handle = await AgentClient(client).start("bench", "Take notes.", workflow_id=workflow_id)
    handle._result_type = dict
    figures = await timed(handle, began, pid, before)
    if store is not None:
        read = await following
        await blobs.close()
    return figures, read


async def measure(options: argparse.Namespace) -> Report:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = f"openai:bench.steps={options.steps}.args=40.words={options.words}.pieces={options.pieces}"
        agents = peers.write_agent(folder, model=model, output_bytes=2048)
        async with run_private_server() as server, peers.fake_provider() as provider:
            environment = peers.name_environment(server.address, folder, agents, provider)
            client = await connect(address=server.address)
            async with peers.process("-m", "tests.benchmarks.agent_worker", **environment) as worker:
                store = f"sqlite:///{folder}/store.db"
                await run(client, worker.pid)
                pairs = [
                    (await run(client, worker.pid, store=store), await run(client, worker.pid))
                    for _ in range(options.runs)
                ]
    followed, alone = [pair[0][0] for pair in pairs], [pair[1][0] for pair in pairs]

    def per_step(runs: list[Timed], figure: str, scale: float = 1.0) -> float:
        return round(statistics.median(getattr(each, figure) for each in runs) / options.steps * scale, 2)

    ratios = [first.cpu_seconds / second.cpu_seconds for first, second in zip(followed, alone, strict=True)]
    return Report(
        steps=options.steps,
        words=options.words,
        pieces=options.pieces,
        events_read=pairs[-1][0][1],
        cpu_ms_per_step=per_step(followed, "cpu_seconds", 1000),
        alone_cpu_ms_per_step=per_step(alone, "cpu_seconds", 1000),
        cpu_ratio=round(statistics.median(ratios), 3),
        history_bytes_per_step=per_step(followed, "history_bytes"),
        alone_history_bytes_per_step=per_step(alone, "history_bytes"),
        ms_per_step=per_step(followed, "seconds", 1000),
        alone_ms_per_step=per_step(alone, "seconds", 1000),
        runs=options.runs,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--words", type=int, default=40)
    parser.add_argument("--pieces", type=int, default=10)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    options = parser.parse_args()
    report = asdict(asyncio.run(measure(options)))
    if options.json:
        print(json.dumps(report))
        return
    for name, value in report.items():
        print(f"{name:32} {value}")


if __name__ == "__main__":
    main()
