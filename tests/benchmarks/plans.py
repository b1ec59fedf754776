"""Cost of a plan: its steps beside the turns of an agent, its agents beside runs of their own, and work side by side.

`python -m tests.benchmarks.plans [--steps 50] [--children 50] [--companies 50] [--delay 0.3] [--rounds 3] [--json]`
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

from mandate.workers.client import patterns
from mandate.workers.client.client import AgentClient, connect
from mandate.workers.dev_server.server import run_private_server
from tests.benchmarks import peers
from tests.benchmarks.steps import Timed, timed

MODEL_STEPS = 3
"""Turns of each agent of a plan, and one answer."""

READ = [{"python": "bench_tools:note"}]


@dataclass(frozen=True, slots=True)
class Report:
    """Medians over the rounds; each ratio is the median of those of pairs that followed one another."""

    steps: int
    events_per_step: float
    bytes_per_step: float
    ms_per_step: float
    cpu_ms_per_step: float
    turn_events: float
    """Of a turn of an agent that makes the same call: its model is asked before each."""
    turn_bytes: float
    turn_ms: float
    turn_cpu_ms: float
    ratio_to_turns: float
    """Seconds of a step of a plan, one after another, to those of a turn."""
    cpu_ratio_to_turns: float
    children: int
    events_per_child: float
    """In the history of the plan."""
    bytes_per_child: float
    ratio_to_runs: float
    """A plan with its agents side by side to as many runs that are started by themselves; less is better."""
    cpu_ratio_to_runs: float
    companies: int
    fan_out_seconds: float
    one_by_one_seconds: float
    fan_out_ratio: float
    """One after another to side by side; more is better."""


@asynccontextmanager
async def opened(options: argparse.Namespace) -> AsyncIterator[tuple[Client, int]]:
    """Open a server, a provider and one worker; yield a client and the worker's process id."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = await stack.enter_async_context(run_private_server())
        provider = await stack.enter_async_context(peers.fake_provider())
        for name, steps in (("turns", options.steps), ("child", MODEL_STEPS)):
            agents = peers.write_agent(
                folder, model=f"openai:bench.steps={steps}.args=40", output_bytes=1024, name=name
            )
        for name in ("researcher", "writer"):
            _write_scripted(agents, name, options.delay)
        _write_plans(folder / "plans", options.steps)
        environment = peers.name_environment(server.address, folder, agents, provider)
        worker = await stack.enter_async_context(peers.process("-m", "tests.benchmarks.agent_worker", **environment))
        assert worker.stdout is not None
        await worker.stdout.readline()
        yield await connect(address=server.address), worker.pid


def _write_scripted(agents: Path, name: str, delay: float) -> None:
    agent = {
        "name": name,
        "instructions": "Answer.",
        "models": [f"scripted:{name}.script.yaml"],
        "requester": "anyone",
    }
    script = {"turns": [{"say": f"the {name} has looked at it", "delay": f"{delay}s"}]}
    (agents / f"{name}.yaml").write_text(json.dumps(agent))
    (agents / f"{name}.script.yaml").write_text(json.dumps(script))


def _write_plans(folder: Path, steps: int) -> None:
    folder.mkdir()
    chain = [
        {
            "id": f"s{number}",
            "tool": "note",
            "input": {"text": f"'{number:>032}'"},
            "depends_on": [f"s{number - 1}"] if number else [],
        }
        for number in range(steps)
    ]
    agents = [{"id": "each", "agent": "child", "for_each": "input"}]
    for name, made in (("chain", {"steps": chain, "tools": READ}), ("agents", {"steps": agents})):
        plan = {"name": name, "requester": "anyone", **made}
        (folder / f"{name}.yaml").write_text(json.dumps(plan))


async def _time(pid: int, start: Callable[[], Awaitable[WorkflowHandle[Any, Any]]]) -> Timed:
    before, began = peers.Usage.of(pid).cpu_seconds, time.perf_counter()
    handle = await start()
    handle._result_type = dict
    return await timed(handle, began, pid, before)


async def _time_runs(pid: int, agents: AgentClient, count: int) -> tuple[float, float]:
    """Return seconds of so many runs at once, and of the worker's processor."""
    before, began = peers.Usage.of(pid).cpu_seconds, time.perf_counter()
    handles = await asyncio.gather(*(agents.start("child", "Take notes, part 1.") for _ in range(count)))
    for result in await asyncio.gather(*(handle.result() for handle in handles)):
        assert result.status == "completed", result
    return time.perf_counter() - began, peers.Usage.of(pid).cpu_seconds - before


async def _time_fan_out(agents: AgentClient, companies: int, most: int | None) -> float:
    plan = patterns.fan_out("researcher", "input", join="writer", max_parallel=most)
    began = time.perf_counter()
    result = await agents.run_plan(plan, [f"Company {number}" for number in range(companies)])
    assert result.status == "completed", result
    return time.perf_counter() - began


async def measure(options: argparse.Namespace) -> Report:
    async with opened(options) as (client, pid):
        agents, steps, children = AgentClient(client), options.steps, options.children
        texts = [f"Take notes, part {number}." for number in range(children)]
        chains, trees = list[tuple[Timed, Timed]](), list[tuple[Timed, tuple[float, float]]]()
        fans = list[tuple[float, float]]()
        for number in range(options.rounds + 1):
            turns = await _time(pid, lambda: agents.start("turns", f"Take {steps} notes."))
            chain = await _time(pid, lambda: agents.start_plan("chain"))
            runs = await _time_runs(pid, agents, children)
            tree = await _time(pid, lambda: agents.start_plan("agents", texts))
            if number:
                # The first warms up.
                chains.append((chain, turns))
                trees.append((tree, runs))
        fans = [
            (await _time_fan_out(agents, options.companies, 1), await _time_fan_out(agents, options.companies, None))
            for _ in range(max(1, options.rounds // 2))
        ]
        single = await _time(pid, lambda: agents.start_plan("agents", texts[:1]))

    def per_step(figure: str, which: int) -> float:
        return statistics.median(getattr(pair[which], figure) for pair in chains) / steps

    def per_child(figure: str) -> float:
        many = statistics.median(getattr(tree, figure) for tree, _ in trees)
        return float((many - getattr(single, figure)) / (children - 1))

    return Report(
        steps=steps,
        events_per_step=round(per_step("events", 0), 2),
        bytes_per_step=round(per_step("history_bytes", 0), 1),
        ms_per_step=round(per_step("seconds", 0) * 1000, 2),
        cpu_ms_per_step=round(per_step("cpu_seconds", 0) * 1000, 2),
        turn_events=round(per_step("events", 1), 2),
        turn_bytes=round(per_step("history_bytes", 1), 1),
        turn_ms=round(per_step("seconds", 1) * 1000, 2),
        turn_cpu_ms=round(per_step("cpu_seconds", 1) * 1000, 2),
        ratio_to_turns=round(statistics.median(ours.seconds / other.seconds for ours, other in chains), 2),
        cpu_ratio_to_turns=round(statistics.median(ours.cpu_seconds / other.cpu_seconds for ours, other in chains), 2),
        children=children,
        events_per_child=round(per_child("events"), 2),
        bytes_per_child=round(per_child("history_bytes"), 1),
        ratio_to_runs=round(statistics.median(tree.seconds / runs[0] for tree, runs in trees), 2),
        cpu_ratio_to_runs=round(statistics.median(tree.cpu_seconds / runs[1] for tree, runs in trees), 2),
        companies=options.companies,
        fan_out_seconds=round(statistics.median(fan for _, fan in fans), 2),
        one_by_one_seconds=round(statistics.median(one for one, _ in fans), 2),
        fan_out_ratio=round(statistics.median(one / fan for one, fan in fans), 2),
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.plans")
    parser.add_argument("--steps", type=int, default=50, help="of a chain, and turns of an agent")
    parser.add_argument("--children", type=int, default=50, help="agents of a plan at once, and runs of their own")
    parser.add_argument("--companies", type=int, default=50, help="items of the fan out")
    parser.add_argument("--delay", type=float, default=0.3, help="seconds that each model takes there")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="the last line is the report as JSON")
    options = parser.parse_args()
    report = asdict(asyncio.run(measure(options)))
    for name, value in report.items():
        print(f"{name}: {value}")
    if options.json:
        print(json.dumps(report))


if __name__ == "__main__":
    main()
