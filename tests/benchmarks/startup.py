"""What starting costs: a worker until its first poll, a run until its first activity, memory.

`python -m tests.benchmarks.startup [--runs 5] [--json]`
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client

from mandate.workers.client.client import AgentClient, connect
from mandate.workers.dev_server.server import run_private_server
from tests.benchmarks import peers
from tests.support.mcp_peer import BARE_COMMAND
from tests.support.processes import PROJECT

RUNS_STARTED = 50


@dataclass(frozen=True, slots=True)
class Report:
    """Medians; seconds from the start of the process until the server sees it poll."""

    help_seconds: float
    """`mandate --help`, the whole process."""
    inbox_cpu_seconds: float
    """Processor time of `mandate inbox` until it asks a server, which is not there; so of the next two."""
    show_cpu_seconds: float
    approve_cpu_seconds: float
    validate_cpu_seconds: float
    """Of `mandate validate` for an agent without MCP servers."""
    validate_mcp_cpu_seconds: float
    """Of the same agent with a server."""
    import_client_cpu_seconds: float
    """A process that imports Temporal's client and ends: below that no command that asks a server can be."""
    import_temporal_seconds: float
    """A process that imports what every Temporal worker needs and ends: below that no worker can start."""
    scripted_first_poll_seconds: float
    """A worker whose agents name the `scripted` provider."""
    openai_first_poll_seconds: float
    openai_import_seconds: float
    """A process that imports the SDK and ends."""
    scripted_memory_mib: float
    openai_memory_mib: float
    start_run_cpu_ms: float
    """Worker CPU of a run of one step, model call included."""
    runs: int


def process_seconds(*command: str) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def cpu_seconds(*command: str) -> float:
    """Processor time of one process, whatever its exit code."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, _, usage = os.wait4(process.pid, 0)
    return usage.ru_utime + usage.ru_stime


def write_mcp_agent(folder: Path) -> Path:
    """Write an agent with an MCP server that costs next to nothing itself; its file."""
    plan = json.dumps({"pages": [[{"name": "read_note", "inputSchema": {"type": "object"}}]], "calls": {}})
    env = {"PYTHONPATH": str(PROJECT), "PLAN": plan, "JOURNAL": str(folder / "journal")}
    server = {"name": "notes", "command": [*BARE_COMMAND, "planned"], "env": env}
    agent = folder / "notes.yaml"
    agent.write_text(f"name: notes\ninstructions: x\nmodels: [openai:gpt-6-sol]\ntools: [mcp: {json.dumps(server)}]\n")
    return agent


async def first_poll(client: Client, queue: str, began: float) -> float:
    """Seconds from `began` until the server sees a poller of `queue`."""
    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=queue),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
    )
    while not (await client.workflow_service.describe_task_queue(request)).pollers:
        await asyncio.sleep(0.01)
    return time.perf_counter() - began


async def worker(client: Client, model: str, number: int, address: str) -> tuple[float, float, float]:
    """Seconds to the first poll, memory in MiB, CPU milliseconds of a started run."""
    queue = f"startup-{model.partition(':')[0]}-{number}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        agents = peers.write_agent(folder, model=model, output_bytes=10)
        (agents / "hello.script.yaml").write_text("turns: [{say: hello}]")
        environment = {
            "TEMPORAL_ADDRESS": address,
            "MANDATE_AGENTS": str(agents),
            "MANDATE_FOLDER": name,
            "MANDATE_TASK_QUEUE": queue,
            "OPENAI_API_KEY": "none",
            "PYTHONPATH": name,
        }
        began = time.perf_counter()
        async with peers.process("-m", "tests.benchmarks.agent_worker", **environment) as process:
            seconds = await first_poll(client, queue, began)
            memory = peers.Usage.of(process.pid).memory_bytes / 2**20
            cpu = await started_runs(client, queue, process.pid) if model.startswith("scripted") else 0.0
            return seconds, memory, cpu


async def started_runs(client: Client, queue: str, pid: int) -> float:
    agents = AgentClient(client, queue)
    await (await agents.start("bench", "Hello.")).result()
    before = peers.Usage.of(pid).cpu_seconds
    for _ in range(RUNS_STARTED):
        await (await agents.start("bench", "Hello.")).result()
    return (peers.Usage.of(pid).cpu_seconds - before) / RUNS_STARTED * 1000


async def measure(runs: int) -> Report:
    async with run_private_server() as server:
        client = await connect(address=server.address)
        scripted = [await worker(client, "scripted:hello.script.yaml", n, server.address) for n in range(runs)]
        openai = [await worker(client, "openai:gpt-6-sol", n, server.address) for n in range(runs)]
    mandate = str(Path(sys.executable).with_name("mandate"))

    def median_of(*command: str) -> float:
        return round(statistics.median(process_seconds(*command) for _ in range(runs)), 2)

    def cpu_of(*command: str) -> float:
        return round(statistics.median(cpu_seconds(*command) for _ in range(runs)), 2)

    no_server = ("--address", "127.0.0.1:1")
    with tempfile.TemporaryDirectory() as name:
        agents = peers.write_agent(Path(name), model="openai:gpt-6-sol", output_bytes=10)
        validate_cpu = cpu_of(mandate, "validate", str(agents))
        validate_mcp_cpu = cpu_of(mandate, "validate", str(write_mcp_agent(Path(name))))
    return Report(
        help_seconds=median_of(mandate, "--help"),
        inbox_cpu_seconds=cpu_of(mandate, "inbox", *no_server),
        show_cpu_seconds=cpu_of(mandate, "show", "x", *no_server),
        approve_cpu_seconds=cpu_of(mandate, "approve", "x:r1", *no_server),
        validate_cpu_seconds=validate_cpu,
        validate_mcp_cpu_seconds=validate_mcp_cpu,
        import_client_cpu_seconds=cpu_of(sys.executable, "-c", "import temporalio.client"),
        import_temporal_seconds=median_of(
            sys.executable, "-c", "import temporalio.worker, temporalio.contrib.pydantic"
        ),
        scripted_first_poll_seconds=round(statistics.median(one[0] for one in scripted), 2),
        openai_first_poll_seconds=round(statistics.median(one[0] for one in openai), 2),
        openai_import_seconds=median_of(sys.executable, "-c", "import openai"),
        scripted_memory_mib=round(statistics.median(one[1] for one in scripted), 1),
        openai_memory_mib=round(statistics.median(one[1] for one in openai), 1),
        start_run_cpu_ms=round(statistics.median(one[2] for one in scripted), 1),
        runs=runs,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    options = parser.parse_args()
    report = asdict(asyncio.run(measure(options.runs)))
    if options.json:
        print(json.dumps(report))
    else:
        for name, value in report.items():
            print(f"{name:32} {value}")


if __name__ == "__main__":
    main()
