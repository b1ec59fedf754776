"""Tool server, workers and remote workers of one crash suite, each of which may die at any time."""

import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.support.fake_provider.server import FakeProvider
from tests.support.fault_client import CALLER, METHODS, URL
from tests.support.fault_crew import Crew, Post, at_work
from tests.support.fault_model import FaultModel
from tests.support.fault_plan import EFFECTS, Task
from tests.support.fault_remote import BUSY, READY, REJECTED
from tests.support.http_peer import Reply, Seen, http_peer
from tests.support.ports import free_port
from tests.support.processes import MANDATE, PROJECT

AGENT = "crash"

PROBED = "crash_probed"
"""The same agent, whose `once` tools have a probe."""

ONCE = next(name for name, effect in EFFECTS.items() if effect == "once")

_PROBE: dict[str, Any] = {
    "tool": "find_call",
    "with": {"key": "key"},
    "done": "result.receipt > 0",
    "absent": "result == null",
    # The server and workers may have to be started again first.
    "patience": "20s",
}

PRICE = {"input": "1", "output": "4"}

LIMITS = {"cost_usd": "5", "tokens": 2_000_000, "model_calls": 200}
"""Of each run: reserved for each model call, and wide enough for all of them."""

BEYOND = {"id": "crash", "per": "month", "cost_usd": "5000"}
"""Of all runs together, as wide."""

PRODUCT = (*MANDATE, "worker")
"""The command of a worker as it is."""

RETRYING = (sys.executable, "-m", "tests.support.retrying_worker", "worker")
"""The command of a worker that repeats whatever fails."""

_SCHEMA = {
    "type": "object",
    "properties": {"task": {"type": "string"}, "item": {"type": "string"}},
    "required": ["task", "item"],
}
_CALLER = f"${{secret:{CALLER}}}"


@dataclass(frozen=True, slots=True)
class Setting:
    """How a stage is set up."""

    address: str
    """Of the Temporal server."""
    folder: Path
    no_keys: tuple[str, ...] = ()
    """The tool server ignores keys of runs whose names begin so; `""` fits all."""
    probed: tuple[str, ...] = ()
    """Runs whose names begin so are of the agent `PROBED`."""
    worker: Sequence[str] = PRODUCT
    workers: int = 3
    """Two can be killed at once: the third goes on."""
    remote_workers: int = 3
    mcp_environment: Mapping[str, str] = field(default_factory=dict)
    store: str | None = None
    """Its address, if it is not in `folder`."""


@dataclass(frozen=True, slots=True)
class Stage:
    """All that a suite needs, at work."""

    queue: str
    model: FaultModel
    workers: Crew
    remote_workers: Crew

    async def doomed(self, name: str) -> int | None:
        """The pid of a worker of either crew, once it may be killed; see `Crew`."""
        crew = self.remote_workers if name.startswith(self.remote_workers.post.kind) else self.workers
        return await crew.doomed(name)


@asynccontextmanager
async def open_stage(setting: Setting, tasks: Sequence[Task]) -> AsyncIterator[Stage]:
    """Everything started and ready; all of it is gone after the block."""
    queue, port = f"crash-{uuid4().hex[:8]}", free_port()
    url = f"http://127.0.0.1:{port}"
    for agent, probe in ((AGENT, None), (PROBED, _PROBE)):
        _write_agent(setting, queue, url, agent, probe)
    plan = setting.folder / "plan.json"
    faults = {f"{task.name}/{item}": points for task in tasks for item, points in task.points.items()}
    plan.write_text(json.dumps(faults))
    async with AsyncExitStack() as stack:
        crews: list[Crew] = []

        async def doomed(name: str) -> int | None:
            return await Stage(queue, model, crews[0], crews[1]).doomed(name)

        async def tell_pid(seen: Seen) -> Reply:
            pid = await doomed(seen.target.removeprefix("/"))
            return Reply(410) if pid is None else Reply(body=str(pid))

        model = FaultModel({task.name: task for task in tasks}, doomed)
        provider = await stack.enter_async_context(FakeProvider(script=model.answer))
        asked = await stack.enter_async_context(http_peer(script=tell_pid))
        processes = setting.folder / "processes"
        server = at_work(_server(setting, plan, port, asked.url), processes)
        await stack.enter_async_context(server)
        for post in (_workers(setting, queue, url, provider.url), _remote_workers(setting, queue, url)):
            crews.append(await stack.enter_async_context(at_work(post, processes)))
        yield Stage(queue, model, crews[0], crews[1])


def _server(setting: Setting, plan: Path, port: int, ask: str) -> Post:
    command = [sys.executable, "-m", "tests.support.fault_server", "--database", str(setting.folder / "faults.db")]
    command += ["--port", str(port), "--plan", str(plan), "--ask", ask]
    if setting.no_keys:
        command += ["--no-keys", *setting.no_keys]
    return Post("server", command, "http://", 1, lambda _: {})


def _workers(setting: Setting, queue: str, url: str, provider: str) -> Post:
    environment = {
        "MANDATE_FOLDER": str(setting.folder),
        "MANDATE_AGENTS": str(setting.folder / "agents"),
        "MANDATE_TASK_QUEUE": queue,
        "MANDATE_BUDGETS": str(setting.folder / "budgets.yaml"),
        "MANDATE_HTTP_HOSTS": url.removeprefix("http://"),
        "TEMPORAL_ADDRESS": setting.address,
        "VLLM_BASE_URL": f"{provider}/v1",
        URL: url,
        **({"MANDATE_STORE": setting.store} if setting.store is not None else {}),
    }
    return Post(
        "worker",
        setting.worker,
        "Task queue",
        setting.workers,
        lambda name: {**environment, "VLLM_API_KEY": name, CALLER: name},
    )


def _remote_workers(setting: Setting, queue: str, url: str) -> Post:
    return Post(
        "remote",
        (sys.executable, "-m", "tests.support.fault_remote", f"{queue}-remote"),
        READY,
        setting.remote_workers,
        lambda name: {"TEMPORAL_ADDRESS": setting.address, URL: url, CALLER: name},
    )


def _write_agent(setting: Setting, queue: str, url: str, name: str, probe: dict[str, Any] | None) -> None:
    """One agent with every effect of every source."""
    command = ["python", "-m", "tests.support.mcp_peer", "faults"]
    environment = {"PYTHONPATH": str(PROJECT), CALLER: _CALLER, URL: url, **setting.mcp_environment}
    tools: list[dict[str, Any]] = [
        {
            "mcp": {"name": "faults", "command": command, "env": environment},
            "effects": {f"{name}_mcp": effect for name, effect in EFFECTS.items()},
            "timeout": "60s",
        }
    ]
    for tool, effect in EFFECTS.items():
        tools.append({"python": f"tests.support.fault_tools:{tool}_python"})
        tools.append(_http(tool, effect, url))
        tools.append(_activity(tool, effect, f"{queue}-remote"))
    if probe is not None:
        # An entry of a server is all of its tools: there the probe is of those that are `keyed` too.
        for entry in tools:
            if "mcp" in entry or any(ONCE in str(entry.get(key)) for key in ("python", "name")):
                entry["probe"] = probe
        tools.append(_find(url))
    agent = {
        "name": name,
        "instructions": "Do what you are told.",
        "models": [{"model": "vllm:crash", "price": PRICE}],
        "tools": tools,
        "policy": [{"id": "all", "match": {}, "verdict": "allow"}],
        "people": {"expires": "2s"},
        "requester": "anyone",
        "budget": {"steps": 60, **LIMITS},
    }
    (setting.folder / "agents").mkdir(parents=True, exist_ok=True)
    (setting.folder / "agents" / f"{name}.yaml").write_text(json.dumps(agent))
    (setting.folder / "budgets.yaml").write_text(json.dumps({"budgets": [BEYOND]}))


def _find(url: str) -> dict[str, Any]:
    return {
        "name": _PROBE["tool"],
        "http": {"method": "GET", "url": f"{url}/calls/{{key}}"},
        "input_schema": {"type": "object", "properties": {"key": {"type": "string"}}, "required": ["key"]},
        "effect": "read",
    }


def _http(name: str, effect: str, url: str) -> dict[str, Any]:
    return {
        "name": f"{name}_http",
        "http": {"method": METHODS[effect], "url": f"{url}/{name}_http/{{task}}/{{item}}"},
        "headers": {"X-Caller": _CALLER},
        "input_schema": _SCHEMA,
        "effect": effect,
        "timeout": "60s",
    }


def _activity(name: str, effect: str, queue: str) -> dict[str, Any]:
    return {
        "name": f"{name}_activity",
        "activity": {"name": f"{name}_activity", "task_queue": queue},
        "input_schema": _SCHEMA,
        "effect": effect,
        # Who lists an error wants no other attempt. Of a call that has none, that is how it says that it was not done.
        "failed_types": [REJECTED, BUSY] if effect == "once" else [REJECTED],
        # Nothing else tells that a remote worker was killed.
        "timeout": "12s",
    }
