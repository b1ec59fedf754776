"""What `waiting` measures against: a server, agents that ask people, and a worker whose figures can be read."""

import asyncio
import json
import os
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mandate.workers.dev_server import keeper
from mandate.workers.dev_server import server as dev_server
from tests.benchmarks import peers

BY = "ann@example.com"
ASKS = "bob@example.com"
"""Who decides."""

TOOL = """
import os, time
from mandate.activities.toolbox.decorator import ToolContext, tool

LOG = os.open(os.environ["WAITING_LOG"], os.O_APPEND | os.O_CREAT | os.O_WRONLY)

@tool(effect="keyed", timeout="20s")
async def pay(order: int, context: ToolContext, amount: float = 120.0) -> str:
    "Pay."
    os.write(LOG, f"{context.workflow_id} {context.idempotency_key} {time.time()}\\n".encode())
    return "paid"
"""

ASK = [{"id": "large", "match": {"tools": ["pay"]}, "verdict": "ask", "approvers": {"groups": ["finance"]}}]
ALLOW = [{"id": "all", "match": {}, "verdict": "allow"}]


@dataclass
class Site:
    """A folder of agents, and what their one tool has written."""

    folder: Path
    server: dev_server.DevServer
    cache: int | None
    """Runs that a worker keeps in memory; `None` for what workers do when nothing is said."""
    calls: dict[str, list[tuple[str, float]]] = field(default_factory=dict)
    """Key and time of the calls that reached the tool, by workflow id."""
    _read: int = 0

    def write(self, turn: int) -> None:
        """Agents `asks`, `allows` (one call each) and `turn`, which makes so many calls at once."""
        agents = self.folder / "agents"
        agents.mkdir(exist_ok=True)
        (self.folder / "waiting_tools.py").write_text(TOOL)
        (self.folder / "people.yaml").write_text(
            json.dumps({"people": [{"name": BY, "groups": ["finance"]}, {"name": ASKS}]})
        )
        for name, policy, calls in (("asks", ASK, 1), ("allows", ALLOW, 1), ("turn", ASK, turn)):
            agent = {
                "name": name,
                "instructions": "Pay.",
                "models": [f"scripted:{name}.script.yaml"],
                "tools": [{"python": "waiting_tools:pay"}],
                "policy": policy,
            }
            turns = [{"call": [{"pay": {"order": order}} for order in range(calls)]}, {"say": "done"}]
            (agents / f"{name}.yaml").write_text(json.dumps(agent))
            (agents / f"{name}.script.yaml").write_text(json.dumps({"turns": turns}))

    def read_calls(self) -> None:
        """Take in what the tool has written since."""
        path = self.folder / "calls.log"
        if not path.exists():
            return
        with path.open() as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith("\n"):
                    break
                self._read += len(line)
                workflow_id, key, at = line.split()
                self.calls.setdefault(workflow_id, []).append((key, float(at)))

    async def called(self, workflow_id: str) -> float:
        """When the tool call of a run happened, once it has; seconds since the epoch."""
        while workflow_id not in self.calls:
            await asyncio.sleep(0.002)
            self.read_calls()
        return self.calls[workflow_id][0][1]

    def done_and_calls(self, workflow_id: str) -> tuple[int, int]:
        """How many effects of a run reached the tool, and in how many calls."""
        keys = [key for key, _ in self.calls.get(workflow_id, [])]
        return len(set(keys)), len(keys)

    @asynccontextmanager
    async def worker(self) -> AsyncIterator["WaitingWorker"]:
        """A worker in a process of its own, serving."""
        port = keeper.any_port()
        chosen = () if self.cache is None else ("--max-cached-workflows", str(self.cache))
        environment = {
            "TEMPORAL_ADDRESS": self.server.address,
            "MANDATE_AGENTS": str(self.folder / "agents"),
            "MANDATE_FOLDER": str(self.folder),
            "MANDATE_PEOPLE": str(self.folder / "people.yaml"),
            "WAITING_LOG": str(self.folder / "calls.log"),
            "PYTHONPATH": str(self.folder),
        }
        module = ("-m", "tests.benchmarks.waiting_worker", "--metrics-port", str(port), *chosen)
        async with peers.process(*module, **environment) as process:
            assert process.stdout is not None
            await process.stdout.readline()
            sys.stderr.write(f"worker {process.pid}\n")
            yield WaitingWorker(process, f"http://127.0.0.1:{port}/metrics")


@dataclass(frozen=True, slots=True)
class WaitingWorker:
    """A worker process and what it tells of itself."""

    process: asyncio.subprocess.Process
    metrics: str

    @property
    def usage(self) -> peers.Usage:
        return peers.Usage.of(self.process.pid)

    @property
    def memory_mb(self) -> float:
        return self.usage.memory_bytes / 2**20

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric over all its series that have `labels`."""
        text = await asyncio.to_thread(self._scraped)
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        lines = (line for line in text.splitlines() if line.startswith((f"{name}{{", f"{name} ")))
        return sum(float(line.rpartition(" ")[2]) for line in lines if all(label in line for label in wanted))

    def _scraped(self) -> str:
        with urllib.request.urlopen(self.metrics, timeout=10) as answer:
            text: str = answer.read().decode()
        return text

    async def activity_slots(self) -> int:
        """Activity slots in use now."""
        return int(await self.metric("temporal_worker_task_slots_used", worker_type="ActivityWorker"))

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def open_site(database: str, cache: int | None, turn: int) -> AsyncIterator[Site]:
    """A site with a private server, whose database is in `memory` or in a `file`."""
    with tempfile.TemporaryDirectory(prefix="waiting-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        async with _server(database, folder / "server") as server:
            site = Site(folder, server, cache)
            site.write(turn)
            yield site


@asynccontextmanager
async def _server(database: str, folder: Path) -> AsyncIterator[dev_server.DevServer]:
    if database == "memory":
        async with dev_server.run_private_server() as server:
            yield server
        return
    folder.mkdir()
    command = ["server", "start-dev", "--db-filename", str(folder / "temporal.db")]
    orders = keeper.Orders(
        command=[*command, *dev_server.flags(dev_server.TUNING)],
        ports=[],
        any_port=True,
        ui=False,
        graceful=False,
        settings=dict(dev_server.TUNING),
    )
    with await dev_server.lease_server(folder, orders, search=None, on_progress=lambda _: None) as server:
        yield server


def progress(began: float, line: str) -> None:
    """Tell on stderr how far it is; `began` by `time.perf_counter`."""
    sys.stderr.write(f"{time.perf_counter() - began:7.1f} s  {line}\n")
    sys.stderr.flush()


def environment_is_clean() -> None:
    """A developer's server is never measured: whatever names one is forgotten."""
    for name in [name for name in os.environ if name.startswith(("TEMPORAL_", "MANDATE_"))]:
        del os.environ[name]
