"""What a machine does under load: steps a second, and what bends first, on the embedded server or on a cluster.

`python -m tests.benchmarks.load --workers 1 --runs 40 --steps 10 [--server embedded|cluster] [--finished 100,20000]
[--rounds 2] [--durable] [--untuned] [--shards 4] [--json]`

All runs start at once, on so many worker processes. `--finished` first lets so many runs end, so that Temporal and the
store hold them, and measures at each number. The cluster is Temporal's server on PostgreSQL (`tests.support.cluster`),
where our store is too; `--durable` lets PostgreSQL wait for the disk at each commit, as in production. The last line of
`--json` is of the last measurement: steps a second; the 95th percentile of the time from one model call of a run to its
next; the time for which a step waits for the store; processor time of a step, of the server with its database and of
the workers.
"""

import argparse
import asyncio
import json
import math
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHandle

from mandate.workers.client.client import AgentClient, connect
from mandate.workers.dev_server.server import share_dev_server
from tests.benchmarks import peers
from tests.support.cluster import SHARDS, running_cluster
from tests.support.processes import children

FILLED_AT_ONCE = 60

FILLING = "Nothing is to be done. " * 40
"""1 KB that each finished run is asked."""

READ_AT_MOST = 60
"""Histories that are read for the percentile."""

DURABLE = {"fsync": "on", "full_page_writes": "on", "shared_buffers": "256MB"}


@dataclass(frozen=True, slots=True)
class Report:
    """Figures of one crowd of runs, medians over the rounds."""

    workers: int
    steps_per_s: float
    p95_ms: float
    store_ms: float
    server_cpu_ms_per_step: float
    worker_cpu_ms_per_step: float


@dataclass(frozen=True, slots=True)
class Bench:
    """A server, a provider and workers, each a process of its own."""

    client: Client
    server: Sequence[int]
    """Processes of Temporal and its database; those below them count too."""
    workers: Sequence[int]
    store_times: Sequence[Path]

    def server_seconds(self) -> tuple[float, ...]:
        """Processor time of each of them so far."""
        return tuple(map(family_seconds, self.server))

    def worker_seconds(self) -> float:
        return sum(peers.Usage.of(pid).cpu_seconds for pid in self.workers)

    def store_seconds(self) -> float:
        return sum(float(json.loads(path.read_text())["seconds"]) for path in self.store_times)


def family_seconds(pid: int) -> float:
    """Processor time of a process and of those below it, with those that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ended = (int(fields[13]) + int(fields[14])) / 100
    return peers.Usage.of(pid).cpu_seconds + ended + sum(peers.Usage.of(child).cpu_seconds for child in children(pid))


@asynccontextmanager
async def open_server(options: argparse.Namespace, folder: Path) -> AsyncIterator[tuple[str, str, list[int]]]:
    """Open a server; its address, that of the store, and its processes."""
    if options.server == "embedded":
        with await share_dev_server(folder / "server", on_progress=lambda _: None, ui=False) as server:
            yield server.address, f"sqlite:///{folder}/store.db", [server.pid]
        return
    postgres = DURABLE if options.durable else None
    async with running_cluster(postgres=postgres, tuned=not options.untuned, shards=options.shards) as cluster:
        assert cluster.postgres.pid is not None
        yield cluster.address, cluster.store, [cluster.pid, cluster.postgres.pid]


@asynccontextmanager
async def open_bench(options: argparse.Namespace) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        address, store, server = await stack.enter_async_context(open_server(options, folder))
        provider = await stack.enter_async_context(peers.fake_provider())
        for steps in {0, options.steps}:
            model = f"openai:bench.steps={steps}.args=40"
            agents = peers.write_agent(folder, model=model, output_bytes=options.output_bytes, name=f"bench{steps}")
        environment = peers.name_environment(address, folder, agents, provider) | {"MANDATE_STORE": store}
        times = [folder / f"store-{number}.json" for number in range(options.workers)]
        workers = []
        for path in times:
            command = ("-m", "tests.benchmarks.load_worker", str(path))
            worker = await stack.enter_async_context(peers.process(*command, **environment))
            assert worker.stdout is not None
            assert await worker.stdout.readline(), "the worker did not start"
            workers.append(worker.pid)
        yield Bench(await connect(address=address), server, workers, times)


async def fill(bench: Bench, number: int) -> None:
    """Let so many runs end that answer at once."""
    agents, left = AgentClient(bench.client), iter(range(number))

    async def finish() -> None:
        for _ in left:
            # No two conversations are the same: the store keeps equal ones once.
            handle = await agents.start("bench0", f"Take no notes of {uuid4()}. {FILLING}")
            await handle.result()

    await asyncio.gather(*(finish() for _ in range(FILLED_AT_ONCE)))


async def load(bench: Bench, options: argparse.Namespace) -> tuple[Report, float]:
    """Let a crowd of runs start at once until all have ended; the figures, and the last server process's CPU alone."""
    agents = AgentClient(bench.client)
    await asyncio.sleep(1)  # what is told of the store is half a second old
    before = bench.server_seconds(), bench.worker_seconds(), bench.store_seconds()
    began = time.perf_counter()
    handles = await asyncio.gather(
        *(agents.start(f"bench{options.steps}", f"Go {uuid4()}.") for _ in range(options.runs))
    )
    results = await asyncio.gather(*(handle.result() for handle in handles))
    seconds = time.perf_counter() - began
    server = [after - then for after, then in zip(bench.server_seconds(), before[0], strict=True)]
    workers = bench.worker_seconds() - before[1]
    assert {str(result.status) for result in results} == {"completed"}, results[0]
    await asyncio.sleep(1)
    store = bench.store_seconds() - before[2]
    steps = options.runs * options.steps
    report = Report(
        workers=options.workers,
        steps_per_s=round(steps / seconds, 1),
        p95_ms=round(await find_p95(handles[:READ_AT_MOST]), 1),
        store_ms=round(1000 * store / steps, 2),
        server_cpu_ms_per_step=round(1000 * sum(server) / steps, 2),
        worker_cpu_ms_per_step=round(1000 * workers / steps, 2),
    )
    return report, 1000 * server[-1] / steps


async def find_p95(handles: Sequence[WorkflowHandle[Any, Any]]) -> float:
    """Return the 95th percentile of milliseconds between the model calls of a run that follow one another."""
    spans = sorted([span for handle in handles async for span in _spans(handle)])
    return spans[math.ceil(0.95 * len(spans)) - 1]


async def _spans(handle: WorkflowHandle[Any, Any]) -> AsyncIterator[float]:
    last = None
    async for event in handle.fetch_history_events():
        if event.event_type != EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
            continue
        if event.activity_task_scheduled_event_attributes.activity_type.name == "call_model":
            at = event.event_time.ToDatetime()
            if last is not None:
                yield (at - last).total_seconds() * 1000
            last = at


def middle(reports: Sequence[Report]) -> Report:
    """Return the median of each figure."""
    figures = [asdict(report) for report in reports]
    return Report(**{name: round(statistics.median(one[name] for one in figures), 2) for name in figures[0]})


async def measure(options: argparse.Namespace) -> Report:
    async with open_bench(options) as bench:
        warm = argparse.Namespace(**{**vars(options), "runs": 2})
        await load(bench, warm)
        ended = 0
        for number in options.finished:
            began = time.perf_counter()
            await fill(bench, max(0, number - ended))
            ended = max(ended, number)
            filled = time.perf_counter() - began
            rounds = [await load(bench, options) for _ in range(options.rounds)]
            report = middle([one for one, _ in rounds])
            database = statistics.median(one for _, one in rounds) if options.server == "cluster" else 0.0
            figures = "".join(f"{value:>13.1f}" for value in (*list(asdict(report).values())[1:], database))
            print(f"{ended:>9}{options.workers:>8}{figures}   filled in {filled:.0f} s", flush=True)
        return report


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.load",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--server", choices=("embedded", "cluster"), default="embedded")
    parser.add_argument("--finished", default="0", help="runs that have ended before, as 100,20000")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output-bytes", type=int, default=2048)
    parser.add_argument("--durable", action="store_true", help="PostgreSQL waits for the disk")
    parser.add_argument("--untuned", action="store_true", help="the cluster has the server's default settings")
    parser.add_argument("--shards", type=int, default=SHARDS, help="of the cluster's history service")
    parser.add_argument("--json", action="store_true", help="the last line is the report as JSON")
    options = parser.parse_args()
    options.finished = sorted(map(int, options.finished.split(",")))
    if min(options.workers, options.runs, options.rounds) < 1 or options.steps < 2:
        parser.error("--workers, --runs and --rounds are at least 1, --steps at least 2")
    heads = ("steps/s", "p95 ms", "store ms", "server CPU", "worker CPU", "database CPU")
    print(f"{'finished':>9}{'workers':>8}" + "".join(f"{head:>13}" for head in heads))
    report = asyncio.run(measure(options))
    if options.json:
        print(json.dumps(asdict(report)))


if __name__ == "__main__":
    main()
