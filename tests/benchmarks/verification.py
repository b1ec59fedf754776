"""What a check, a retry and a probe add to a step, beside the same run without them, in one worker and on one server.

`python -m tests.benchmarks.verification [--steps 30] [--runs 3] [--json]`
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHandle

from mandate.workers.client.client import AgentClient, connect
from mandate.workers.dev_server.server import run_private_server
from tests.benchmarks import peers, steps

OUTPUT_BYTES = 2048

TOOLS = f"""
from typing import Any

from mandate.activities.checks.functions import check
from mandate.activities.toolbox.decorator import ToolContext, tool

@tool(effect="read")
def look(text: str) -> dict[str, str]:
    return {{"kept": "x" * {OUTPUT_BYTES}}}

@tool(effect="keyed")
def keep(text: str) -> dict[str, str]:
    return look(text)

@tool(effect="keyed")
def keep_at_second(text: str, context: ToolContext) -> dict[str, str]:
    if context.attempt == 1:
        raise ConnectionError("the line broke")
    return look(text)

@tool(effect="once")
def send(text: str) -> dict[str, str]:
    return look(text)

@tool(effect="once")
def send_and_lose(text: str) -> dict[str, str]:
    raise ConnectionError("the line broke")

@tool(effect="read")
def find(text: str) -> dict[str, object]:
    return {{"done": True, "kept": "x" * {OUTPUT_BYTES}}}

@check
def is_kept(result: Any) -> bool:
    return "kept" in result
"""

FIND: dict[str, Any] = {"tool": "find", "with": {"text": "args.text"}}


@dataclass(frozen=True, slots=True)
class Case:
    """One agent: its tool `note`, what its file says besides, and which case does without that."""

    function: str
    base: str | None = None
    check: Mapping[str, Any] | None = None
    probe: Mapping[str, Any] | None = None
    attempts: int = 1
    """What each effect of a run must have had, so that a case measures what it says."""
    reason: str | None = None
    """What each effect of a run must have as its reason."""

    def agent(self, name: str, run_steps: int) -> dict[str, Any]:
        note = {"python": f"bench_checked:{self.function}", "name": "note", "description": "Take a note."}
        return {
            "name": name,
            "instructions": "You take notes.",
            "models": [f"openai:bench.steps={run_steps}.args=40"],
            "tools": [{**note, **({"probe": self.probe} if self.probe else {})}, {"python": "bench_checked:find"}],
            "policy": [{"id": "all", "match": {}, "verdict": "allow"}],
            "requester": "anyone",
            "checks": [{"after": "note", **self.check}] if self.check else [],
            "budget": {"steps": 1_000_000},
        }


CASES: dict[str, Case] = {
    "read": Case("look"),
    "check-not-due": Case("look", "read", {"expect": "has(result.kept)", "when": "args.text == 'never'"}),
    "check-python": Case("look", "read", {"python": "bench_checked:is_kept"}),
    "check-expect": Case("look", "read", {"expect": "has(result.kept)"}),
    "check-schema": Case("look", "read", {"schema": {"type": "object", "required": ["kept"]}}),
    "check-tool": Case("look", "read", {**FIND, "expect": "result.done == true"}),
    "keyed": Case("keep"),
    "retry": Case("keep_at_second", "keyed", attempts=2),
    "once": Case("send"),
    "probe-not-needed": Case("send", "once", probe=FIND),
    "probe": Case("send_and_lose", "once", probe=FIND, reason="as find shows"),
}
PLAIN = "bench"
"""The agent of the benchmark of steps."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One run."""

    timed: steps.Timed
    begin_bytes: int
    """History before the first model call: the start and the pinned agent, whatever the number of steps."""

    @property
    def step_bytes(self) -> int:
        return self.timed.history_bytes - self.begin_bytes


@dataclass(frozen=True, slots=True)
class Added:
    """What a case adds to its base; medians over the rounds, and each round compares its own two runs."""

    case: str
    base: str
    activities_per_step: float
    history_bytes_per_step: float
    history_bytes_once: float
    """For what the agent file says, when the run begins."""
    ms_per_step: float
    worker_cpu_ms_per_step: float
    ratio: float
    """Of the seconds of the two runs."""


@dataclass(frozen=True, slots=True)
class Report:
    steps: int
    runs: int
    plain_history_bytes_per_step: float
    """Of the agent of the benchmark of steps, counted as there."""
    base_history_bytes_per_step: dict[str, float]
    base_ms_per_step: dict[str, float]
    added: tuple[Added, ...]


def write_agents(folder: Path, run_steps: int) -> Path:
    """All agents and their tools; the folder to give to a worker."""
    agents = peers.write_agent(folder, model=f"openai:bench.steps={run_steps}.args=40", output_bytes=OUTPUT_BYTES)
    (folder / "bench_checked.py").write_text(TOOLS)
    for name, case in CASES.items():
        (agents / f"{name}.yaml").write_text(json.dumps(case.agent(name, run_steps)))
    return agents


async def warm_up(client: Client, name: str) -> None:
    """What a process does once, such as loading the library of conditions."""
    handle = await AgentClient(client).start(name, "Take two notes.", steps=2)
    await handle.result()


async def run_case(client: Client, name: str, pid: int) -> Measured:
    before, began = peers.Usage.of(pid).cpu_seconds, time.perf_counter()
    handle: WorkflowHandle[Any, Any] = await AgentClient(client).start(name, "Take notes.")
    handle._result_type = dict
    timed = await steps.timed(handle, began, pid, before)
    if case := CASES.get(name):
        for entry in (await handle.result())["effects"]["last"]:
            assert (entry["attempts"], entry["reason"]) == (case.attempts, case.reason), entry
    return Measured(timed, await begin_bytes(handle))


async def begin_bytes(handle: WorkflowHandle[Any, Any]) -> int:
    size = 0
    first = handle._client.get_workflow_handle(handle.id, run_id=handle.first_execution_run_id)
    async for event in first.fetch_history_events():
        scheduled = event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED
        if scheduled and event.activity_task_scheduled_event_attributes.activity_type.name == "call_model":
            break
        size += event.ByteSize()
    return size


def compared(case: str, base: str, rounds: Sequence[Mapping[str, Measured]], run_steps: int) -> Added:
    pairs = [(measured[case], measured[base]) for measured in rounds]

    def per_step(values: list[float]) -> float:
        return round(statistics.median(values) / run_steps, 2)

    return Added(
        case=case,
        base=base,
        activities_per_step=per_step([its.timed.activities - its_base.timed.activities for its, its_base in pairs]),
        history_bytes_per_step=per_step([its.step_bytes - its_base.step_bytes for its, its_base in pairs]),
        history_bytes_once=statistics.median(its.begin_bytes - its_base.begin_bytes for its, its_base in pairs),
        ms_per_step=per_step([(its.timed.seconds - its_base.timed.seconds) * 1000 for its, its_base in pairs]),
        worker_cpu_ms_per_step=per_step(
            [(its.timed.cpu_seconds - its_base.timed.cpu_seconds) * 1000 for its, its_base in pairs]
        ),
        ratio=round(statistics.median(its.timed.seconds / its_base.timed.seconds for its, its_base in pairs), 2),
    )


async def compare(client: Client, options: argparse.Namespace, pid: int) -> Report:
    names = (PLAIN, *CASES)
    for name in names:
        await warm_up(client, name)
    rounds = [{name: await run_case(client, name, pid) for name in names} for _ in range(options.runs)]

    def of(name: str, figure: str) -> float:
        return float(statistics.median(getattr(measured[name].timed, figure) for measured in rounds) / options.steps)

    bases = [name for name, case in CASES.items() if case.base is None]
    return Report(
        steps=options.steps,
        runs=options.runs,
        plain_history_bytes_per_step=round(of(PLAIN, "history_bytes"), 1),
        base_history_bytes_per_step={name: round(of(name, "history_bytes"), 1) for name in bases},
        base_ms_per_step={name: round(of(name, "seconds") * 1000, 1) for name in bases},
        added=tuple(compared(name, case.base, rounds, options.steps) for name, case in CASES.items() if case.base),
    )


async def measure(options: argparse.Namespace) -> Report:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        agents = write_agents(folder, options.steps)
        async with run_private_server() as server, peers.fake_provider() as provider:
            environment = peers.name_environment(server.address, folder, agents, provider)
            client = await connect(address=server.address)
            async with peers.process("-m", "tests.benchmarks.agent_worker", **environment) as worker:
                return await compare(client, options, worker.pid)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    options = parser.parse_args()
    report = asyncio.run(measure(options))
    if options.json:
        print(json.dumps(asdict(report)))
        return
    print(f"plain {report.plain_history_bytes_per_step} B/step; bases {report.base_history_bytes_per_step} B/step")
    print(f"bases {report.base_ms_per_step} ms/step")
    for added in report.added:
        print("  ".join(f"{name}={value}" for name, value in asdict(added).items()))


if __name__ == "__main__":
    main()
