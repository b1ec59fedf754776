"""Many runs at once on one worker: steps a second beside a hand-written loop and beside the floor, in one run.

`python -m tests.benchmarks.crowd --runs 40 --steps 10 [--output-bytes 2048] [--rounds 3] [--json]`
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from temporalio.client import Client, WorkflowHandle

from mandate.workers.client.client import AgentClient, connect
from mandate.workers.dev_server.server import run_private_server
from tests.benchmarks import floor, hand_written, peers

Begin = Callable[[int], Awaitable[WorkflowHandle[Any, Any]]]


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to run an agent, with the worker that does."""

    name: str
    worker: int
    """Process id."""
    begin: Begin


@dataclass(frozen=True, slots=True)
class Timed:
    """One crowd, from the first start to the last result."""

    seconds: float
    worker_cpu_seconds: float


@dataclass(frozen=True, slots=True)
class Costs:
    """What a start and what a step cost: a crowd of `steps` beside a crowd that answers at once."""

    start_ms: float
    """A run without steps, one of the crowd: wall time of the whole divided by their number."""
    start_worker_cpu_ms: float
    step_ms: float
    step_worker_cpu_ms: float


@dataclass(frozen=True, slots=True)
class Report:
    """Medians over the rounds; `ratio` is the median of the ratios of crowds that followed one another."""

    runs: int
    steps: int
    steps_per_s: float
    hand_written_steps_per_s: float
    floor_steps_per_s: float
    ratio: float
    """Ours to the hand-written loop; more is better."""


async def crowd(contender: Contender, runs: int, steps: int) -> Timed:
    """Start `runs` at once and wait for all of them."""
    before, began = peers.Usage.of(contender.worker).cpu_seconds, time.perf_counter()
    handles = await asyncio.gather(*(contender.begin(steps) for _ in range(runs)))
    results = await asyncio.gather(*(handle.result() for handle in handles))
    for result in results:
        assert not isinstance(result, dict) or result["status"] == "completed", result
    cpu = peers.Usage.of(contender.worker).cpu_seconds - before
    return Timed(time.perf_counter() - began, cpu)


@asynccontextmanager
async def contenders(options: argparse.Namespace) -> AsyncIterator[tuple[Contender, Contender, Contender]]:
    """Open ours, the hand-written loop and the floor: one server, one provider, a worker process each."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = await stack.enter_async_context(run_private_server())
        provider = f"{await stack.enter_async_context(peers.fake_provider())}/v1"
        for steps in {0, options.steps}:
            agents = peers.write_agent(
                folder, model=_model(steps), output_bytes=options.output_bytes, name=f"bench{steps}"
            )
        environment = {
            "TEMPORAL_ADDRESS": server.address,
            "MANDATE_AGENTS": str(agents),
            "MANDATE_FOLDER": str(folder),
            "OPENAI_API_KEY": "none",
            "OPENAI_BASE_URL": provider,
            "PYTHONPATH": str(folder),
        }
        place = ("--address", server.address, "--provider", provider)
        hand_options = (*place, "--output-bytes", str(options.output_bytes))
        ours = await stack.enter_async_context(peers.process("-m", "tests.benchmarks.agent_worker", **environment))
        hand = await stack.enter_async_context(peers.process("-m", "tests.benchmarks.hand_written", *hand_options))
        base = await stack.enter_async_context(peers.process("-m", "tests.benchmarks.floor", *place))
        client = await connect(address=server.address)
        plain = await Client.connect(server.address)
        yield (
            Contender("mandate", ours.pid, lambda steps: _begin_ours(client, steps)),
            Contender("hand-written", hand.pid, lambda steps: _begin(plain, hand_written.QUEUE, _model(steps, ""))),
            Contender("floor", base.pid, lambda steps: _begin(plain, floor.QUEUE, steps)),
        )


def _model(steps: int, provider: str = "openai:") -> str:
    return f"{provider}bench.steps={steps}.args=40"


async def _begin_ours(client: Client, steps: int) -> WorkflowHandle[Any, Any]:
    handle = await AgentClient(client).start(f"bench{steps}", "Take notes.")
    handle._result_type = dict
    return handle


async def _begin(client: Client, queue: str, given: object) -> WorkflowHandle[Any, Any]:
    kind = {hand_written.QUEUE: "HandWrittenWorkflow", floor.QUEUE: "FloorWorkflow"}[queue]
    return await client.start_workflow(kind, given, id=f"{queue}-{time.perf_counter_ns()}", task_queue=queue)


async def measure(options: argparse.Namespace) -> tuple[Report, dict[str, Costs]]:
    async with contenders(options) as sides:
        for side in sides:
            await crowd(side, 2, options.steps)
            await crowd(side, 2, 0)
        rounds: list[dict[str, Timed]] = []
        starts: list[dict[str, Timed]] = []
        for _ in range(options.rounds):
            rounds.append({side.name: await crowd(side, options.runs, options.steps) for side in sides})
            starts.append({side.name: await crowd(side, options.runs, 0) for side in sides})
    names = [side.name for side in sides]
    work = options.runs * options.steps
    rates = {name: statistics.median(work / one[name].seconds for one in rounds) for name in names}
    ratio = statistics.median(one["hand-written"].seconds / one["mandate"].seconds for one in rounds)
    report = Report(
        runs=options.runs,
        steps=options.steps,
        steps_per_s=round(rates["mandate"], 1),
        hand_written_steps_per_s=round(rates["hand-written"], 1),
        floor_steps_per_s=round(rates["floor"], 1),
        ratio=round(ratio, 2),
    )
    return report, {name: _costs(name, rounds, starts, options) for name in names}


def _costs(
    name: str, rounds: list[dict[str, Timed]], starts: list[dict[str, Timed]], options: argparse.Namespace
) -> Costs:
    def median(some: list[dict[str, Timed]], figure: str) -> float:
        return 1000 * statistics.median(getattr(one[name], figure) for one in some) / options.runs

    start, start_cpu = median(starts, "seconds"), median(starts, "worker_cpu_seconds")
    return Costs(
        start_ms=round(start, 2),
        start_worker_cpu_ms=round(start_cpu, 2),
        step_ms=round((median(rounds, "seconds") - start) / options.steps, 2),
        step_worker_cpu_ms=round((median(rounds, "worker_cpu_seconds") - start_cpu) / options.steps, 2),
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.crowd")
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--output-bytes", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="the last line is the report as JSON")
    options = parser.parse_args()
    report, costs = asyncio.run(measure(options))
    print(f"{'':14}{'start ms':>10}{'CPU ms':>10}{'step ms':>10}{'CPU ms':>10}")
    for name, cost in costs.items():
        figures = (cost.start_ms, cost.start_worker_cpu_ms, cost.step_ms, cost.step_worker_cpu_ms)
        print(f"{name:14}" + "".join(f"{figure:10.2f}" for figure in figures))
    if options.json:
        print(json.dumps(asdict(report)))
    else:
        print("\n".join(f"{name}: {value}" for name, value in asdict(report).items()))


if __name__ == "__main__":
    main()
