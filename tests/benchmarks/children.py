"""Children at once on one worker: beside as many runs started by themselves, in one run.

`python -m tests.benchmarks.children [--children 50] [--steps 3] [--rounds 3] [--json]`
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from temporalio.client import Client, WorkflowHandle

from mandate.workers.client.client import AgentClient, connect
from mandate.workers.dev_server.server import run_private_server
from tests.benchmarks import peers


@dataclass(frozen=True, slots=True)
class Report:
    """Medians over the rounds; `ratio` is the median of the ratios of pairs that followed one another."""

    children: int
    steps: int
    tree_seconds: float
    runs_seconds: float
    ratio: float
    """A parent with its children to as many runs; less is better."""
    bytes_per_child: float
    """In the history of the parent."""
    events_per_child: float


@asynccontextmanager
async def opened(options: argparse.Namespace) -> AsyncIterator[tuple[Client, int]]:
    """Open a server, a provider and one worker; yield a client and the worker's process id."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = await stack.enter_async_context(run_private_server())
        provider = await stack.enter_async_context(peers.fake_provider())
        agents = peers.write_agent(
            folder, model=f"openai:bench.steps={options.steps}.args=40", output_bytes=1024, name="child"
        )
        for name, count in (("one", 1), ("many", options.children)):
            _write_parent(agents, name, count)
        environment = peers.name_environment(server.address, folder, agents, provider)
        worker = await stack.enter_async_context(peers.process("-m", "tests.benchmarks.agent_worker", **environment))
        assert worker.stdout is not None
        await worker.stdout.readline()
        yield await connect(address=server.address), worker.pid


def _write_parent(agents: Path, name: str, count: int) -> None:
    """Write an agent whose script calls so many children in one turn."""
    calls = [{"child": {"task": f"Take notes, part {number}."}} for number in range(count)]
    agent = {
        "name": name,
        "instructions": "You lead.",
        "models": [f"scripted:{name}.script.yaml"],
        "tools": [{"agent": "child"}],
        "requester": "anyone",
    }
    (agents / f"{name}.yaml").write_text(json.dumps(agent))
    (agents / f"{name}.script.yaml").write_text(json.dumps({"turns": [{"call": calls}, {"say": "done"}]}))


async def _time(handles: list[WorkflowHandle[Any, Any]], began: float) -> float:
    for result in await asyncio.gather(*(handle.result() for handle in handles)):
        assert result.status == "completed", result
    return time.perf_counter() - began


async def measure(options: argparse.Namespace) -> Report:
    async with opened(options) as (client, _):
        agents = AgentClient(client)
        pairs, histories = list[tuple[float, float]](), dict[str, list[Any]]()
        for number in range(options.rounds + 1):
            began = time.perf_counter()
            runs = await _time(
                await asyncio.gather(*(agents.start("child", "Take notes.") for _ in range(options.children))), began
            )
            began = time.perf_counter()
            parent = await agents.start("many", "Go.")
            tree = await _time([parent], began)
            if number:
                # The first warms up.
                pairs.append((tree, runs))
            histories.setdefault("many", []).append(await _measure_history(parent))
        single = await agents.start("one", "Go.")
        await single.result()
        base = await _measure_history(single)
    added = [
        [(figure - own) / (options.children - 1) for figure, own in zip(many, base, strict=True)]
        for many in histories["many"]
    ]
    return Report(
        children=options.children,
        steps=options.steps,
        tree_seconds=round(statistics.median(tree for tree, _ in pairs), 2),
        runs_seconds=round(statistics.median(runs for _, runs in pairs), 2),
        ratio=round(statistics.median(tree / runs for tree, runs in pairs), 2),
        bytes_per_child=round(statistics.median(one[0] for one in added), 1),
        events_per_child=round(statistics.median(one[1] for one in added), 2),
    )


async def _measure_history(handle: WorkflowHandle[Any, Any]) -> tuple[int, int]:
    described = await handle.describe()
    return described.raw_description.workflow_execution_info.history_size_bytes, described.history_length


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.children")
    parser.add_argument("--children", type=int, default=50)
    parser.add_argument("--steps", type=int, default=3, help="of each child, and one answer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="the last line is the report as JSON")
    options = parser.parse_args()
    report = asyncio.run(measure(options))
    for name, value in asdict(report).items():
        print(f"{name}: {value}")
    if options.json:
        print(json.dumps(asdict(report)))


if __name__ == "__main__":
    main()
