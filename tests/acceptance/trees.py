"""Proof by trees: parents with many children each, dying workers, runs that continue as new, stops and terminations.

    python -m tests.acceptance.trees [--seed S] [--trees 6] [--children 20] [--kills 6] [--json]

**The trees.** Each root asks its model, which calls a worker so many times in one turn. Every fourth worker has a
helper below it. All that have none pay once: a keyed tool, whose receiver counts what it has done, loses replies and
answers 503. The server suggests so early to continue as new that roots and children do several times. Workers are
killed with SIGKILL while they work, and others are started. Some children are terminated in the middle of their work,
and the last root is stopped.

**Wanted**, and exit code 0: each root ends, and its model was told one report of each call, in the order of the calls,
that of the child that was started for it; whoever ended by itself has its answer there, whoever was ended from outside
is told as that; what the model was told is paid was paid once, and nothing twice; the tree counts the model calls of
all in it. With `--json` the last line is `{"trees", "children", "reported", "lost", "wrong", "twice", "kills",
"parts"}`.
"""

import argparse
import asyncio
import json
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.service import RPCError

from mandate.activities.stores.address import open_store
from mandate.activities.transcript.blobs import Blobs
from mandate.activities.transcript.log import TranscriptLog
from mandate.workers.client.client import AgentClient, connect
from mandate.workers.dev_server.server import run_private_server
from mandate.workers.settings import Settings
from mandate.workflows.contracts.run import RunResult, RunStatus
from tests.support.fake_provider.behaviours import Answer, Behaviour, Call
from tests.support.fake_provider.requests import Request
from tests.support.fake_provider.server import FakeProvider
from tests.support.fault_client import CALLER, URL
from tests.support.fault_crew import Crew, Post, at_work, write_receiver
from tests.support.fault_log import FaultLog
from tests.support.ports import free_port
from tests.support.processes import MANDATE

EARLY = {"limit.historyCount.suggestContinueAsNew": "60"}
"""Setting of the server: events after which a run continues as new."""

DEADLINE = 240.0
"""Seconds after which a tree counts as hanging."""

HURT, ENDED, EVERY = 0.15, 0.2, 4
"""Shares of children whose payment is hurt, and that are terminated; one in so many has a helper."""

_TASK = re.compile(r"task (\S+)/(\d+)")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is played."""

    seed: int = 1
    trees: int = 6
    children: int = 20
    kills: int = 6
    workers: int = 3


@dataclass(frozen=True, slots=True)
class Tree:
    """One tree as it ended."""

    root: str
    children: int
    result: RunResult | None
    told: tuple[str, ...]
    """Results of its calls, as its model was told them."""
    ended: frozenset[int]
    """Children that were terminated."""
    done: Counter[str]
    """Payments that were made, by child."""
    is_stopped: bool = False

    @property
    def reported(self) -> int:
        return len(self.told)

    @property
    def lost(self) -> int:
        """Calls without a report."""
        return 0 if self.is_stopped else self.children - len(self.told)

    @property
    def twice(self) -> list[str]:
        return [f"{self.root}: {item} was paid {times} times" for item, times in self.done.items() if times > 1]

    def wrong(self) -> list[str]:
        """Return each report that says what is not so, in one line."""
        if self.result is None:
            return [f"{self.root}: it did not end"]
        wanted = RunStatus.STOPPED if self.is_stopped else RunStatus.COMPLETED
        found = [] if self.result.status is wanted else [f"{self.root}: {self.result.status} ({self.result.reason})"]
        if self.is_stopped:
            return found
        for place, text in enumerate(self.told):
            fault = self._find_fault(place, text)
            if fault is not None:
                found.append(f"{self.root}: call {place}: {fault}: {text[:160]}")
        return found

    def _find_fault(self, place: int, text: str) -> str | None:
        answered = f"done {place}" in text
        if "nobody could tell" in text:
            return "its end is not known"
        if place in self.ended and not answered:
            return None if "terminated" in text else "its end is told otherwise"
        if not answered:
            return "it is not the report of that child"
        paid = self.done[str(place)]
        return None if paid == 1 else f"it was paid {paid} times"


@dataclass
class Played:
    """How the trees went."""

    plan: Plan
    trees: list[Tree] = field(default_factory=list)
    parts: int = 0
    """Runs of Temporal that the trees took."""
    killed: int = 0
    hurt: int = 0
    uncounted: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def faults(self) -> list[str]:
        """Return each broken promise in one line."""
        found = [fault for tree in self.trees for fault in (*tree.wrong(), *tree.twice)]
        found += [f"{tree.root}: {tree.lost} reports are lost" for tree in self.trees if tree.lost]
        return found + self.uncounted


class TreeModel:
    """The model of all agents: a script of the fake provider, which keeps nothing of a conversation."""

    def __init__(self, plan: Plan) -> None:
        self.asked = 0
        self.answered = Counter[str]()
        """Requests, by root."""
        self._plan = plan

    async def answer(self, request: Request) -> Behaviour:
        """Return the answer to one request."""
        self.asked += 1
        messages, model = request.json["messages"], request.json["model"]
        first = next(_read(message) for message in messages if message["role"] == "user")
        root, number = _find_task(first)
        self.answered[root] += 1
        # Sure to repeat, and no secret.
        delay = random.Random(f"{self._plan.seed} {root} {number} {len(messages)}").uniform(0.02, 0.4)
        results = [_read(message) for message in messages if message["role"] == "tool"]
        if model == "boss":
            return self._lead(root, results, delay)
        if any("receipt" in result or f"done {number}" in result for result in results) or len(results) > 3:
            return Answer(text=f"done {number}", reasoning=False, delay=delay)
        if model == "worker" and number % EVERY == 0:
            call = Call("helper", json.dumps({"task": f"task {root}/{number}"}), id=f"call-{len(results)}")
        else:
            call = Call("pay_slowly", json.dumps({"task": root, "item": str(number)}), id=f"call-{len(results)}")
        return Answer(calls=(call,), reasoning=False, delay=delay)

    def _lead(self, root: str, results: list[str], delay: float) -> Behaviour:
        if results:
            return Answer(text="all have reported", reasoning=False, delay=delay)
        calls = (
            Call("worker", json.dumps({"task": f"task {root}/{number}"}), id=f"call-{number}")
            for number in range(self._plan.children)
        )
        return Answer(calls=tuple(calls), reasoning=False, delay=delay)


def _read(message: Any) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)


def _find_task(text: str) -> tuple[str, int]:
    found = _TASK.search(text)
    return (found[1], int(found[2])) if found is not None else (text.strip(), -1)


async def play(client: Client, address: str, folder: Path, plan: Plan, *, store: str | None = None) -> Played:
    """Start all trees at once, and wait until each root has ended; the store is in `folder` if nothing else is said."""
    began, queue = time.monotonic(), f"trees-{uuid4().hex[:8]}"
    roots, port = [f"{queue}-{number}" for number in range(plan.trees)], free_port()
    model = TreeModel(plan)
    async with FakeProvider(script=model.answer, keeps_requests=False) as provider:
        environment = _write_site(folder, address, queue, provider.url, port)
        if store is not None:
            environment["MANDATE_STORE"] = store
        payments = (f"{root}/{number}" for root in roots for number in range(plan.children))
        receiver = write_receiver(folder, port, payments, seed=plan.seed, share=HURT)
        workers = Post(
            "worker", (*MANDATE, "worker"), "Task queue", plan.workers, lambda name: {**environment, CALLER: name}
        )
        processes = folder / "processes"
        async with at_work(receiver, processes), at_work(workers, processes) as crew:
            agents = AgentClient(client, queue)
            handles = {root: await agents.start("boss", root, workflow_id=root) for root in roots}
            reaping = asyncio.create_task(_reap(crew, plan, model))
            ended = {root: await _end_some(client, root, plan) for root in roots[:-1]}
            stopping = asyncio.create_task(_stop(handles[roots[-1]]))
            try:
                results = await asyncio.gather(*map(_ended, handles.values()))
                await stopping
            finally:
                reaping.cancel()
            await _all_ended(client, queue)
            killed = crew.dead
        log = FaultLog(folder / "faults.db")
        done = Counter((call.run, call.item) for call in log.executed())
        hurt = len(log.hits())
        log.close()
        trees = await _read_trees(environment, plan, dict(zip(roots, results, strict=True)), ended, done)
        parts = (await client.count_workflows(f"TaskQueue = '{queue}'")).count
    uncounted = [
        f"{tree.root}: {usage.model_calls + usage.assumed_calls} calls counted, {model.answered[tree.root]} answered"
        for tree in trees
        if tree.result is not None and not tree.is_stopped and not tree.ended
        for usage in (tree.result.usage,)
        if usage.model_calls + usage.assumed_calls < model.answered[tree.root]
    ]
    return Played(plan, trees, parts, killed, hurt, uncounted, time.monotonic() - began)


def _write_site(folder: Path, address: str, queue: str, provider: str, port: int) -> dict[str, str]:
    """Write the agents; return the environment of workers."""
    (folder / "agents").mkdir(parents=True, exist_ok=True)
    pay = {"python": "tests.support.session_tools:pay_slowly"}
    agents: dict[str, list[Any]] = {
        "boss": [{"agent": "worker", "budget": {"model_calls": 60}}],
        "worker": [{"agent": "helper", "budget": {"model_calls": 20}}, pay],
        "helper": [pay],
    }
    for name, tools in agents.items():
        agent = {
            "name": name,
            "instructions": "Do what you are told, and answer.",
            "models": [f"vllm:{name}"],
            "tools": tools,
            "policy": [{"id": "all", "match": {}, "verdict": "allow"}],
            "requester": "anyone",
            # Nobody answers: a run that asks is one that did not end as it should.
            "people": {"expires": "5s"},
            "budget": {"steps": 100, "model_calls": 5000} if name == "boss" else {"steps": 50, "model_calls": 100},
        }
        (folder / "agents" / f"{name}.yaml").write_text(json.dumps(agent))
    return {
        "MANDATE_FOLDER": str(folder),
        "MANDATE_AGENTS": str(folder / "agents"),
        "MANDATE_TASK_QUEUE": queue,
        "TEMPORAL_ADDRESS": address,
        "VLLM_BASE_URL": f"{provider}/v1",
        "VLLM_API_KEY": "none",
        URL: f"http://127.0.0.1:{port}",
    }


async def _reap(crew: Crew, plan: Plan, model: TreeModel) -> None:
    """Kill one worker after another while it works, as long as another one is there."""
    dice, asked = random.Random(f"{plan.seed} kills"), 0
    for _ in range(plan.kills):
        while model.asked == asked or len(crew.ready) < 2:
            await asyncio.sleep(0.02)
        await asyncio.sleep(dice.uniform(0.2, 2.0))
        asked = model.asked
        crew.members[dice.choice(crew.ready)].process.kill()
        await asyncio.sleep(0.1)


async def _end_some(client: Client, root: str, plan: Plan) -> frozenset[int]:
    """Terminate some children of a root once they are there; return the numbers of their calls."""
    dice = random.Random(f"{plan.seed} {root[-2:]} ends")
    chosen = frozenset(number for number in range(plan.children) if dice.random() < ENDED)
    asyncio.get_running_loop().create_task(_terminate(client, root, chosen, dice))
    return chosen


async def _terminate(client: Client, root: str, chosen: frozenset[int], dice: random.Random) -> None:
    for number in chosen:
        handle = client.get_workflow_handle(f"{root}/c{number + 1}")
        for _ in range(200):
            with suppress(RPCError):
                await asyncio.sleep(dice.uniform(0.0, 0.6))
                await handle.terminate(reason="to see what becomes of it")
                break
            await asyncio.sleep(0.1)


async def _stop(handle: WorkflowHandle[Any, Any]) -> None:
    """Stop a root while its children work."""
    child = handle._client.get_workflow_handle(f"{handle.id}/c1")
    while True:
        with suppress(RPCError):
            await child.describe()
            break
        await asyncio.sleep(0.1)
    await asyncio.sleep(1.0)
    with suppress(RPCError):
        await handle.signal("stop", {"by": "ann", "reason": "enough"})


async def _ended(handle: WorkflowHandle[Any, RunResult]) -> RunResult | None:
    try:
        async with asyncio.timeout(DEADLINE):
            return await handle.result()
    except (TimeoutError, WorkflowFailureError):
        return None


async def _all_ended(client: Client, queue: str) -> None:
    """Wait until nothing of the trees goes on: those below a child that was terminated do a little longer."""
    with suppress(TimeoutError):
        async with asyncio.timeout(30):
            running = f"TaskQueue = '{queue}' AND ExecutionStatus = 'Running'"
            while (await client.count_workflows(running)).count:
                await asyncio.sleep(0.3)


async def _read_trees(
    environment: Mapping[str, str],
    plan: Plan,
    results: Mapping[str, RunResult | None],
    ended: Mapping[str, frozenset[int]],
    done: Mapping[tuple[str, str], int],
) -> list[Tree]:
    """Return the trees as the store has them."""
    blobs = Blobs(open_store(Settings.from_environment(environment).store))
    try:
        trees = []
        for root, result in results.items():
            told = await _read_told(blobs, result.head) if result is not None and result.head is not None else []
            paid = Counter({item: times for (run, item), times in done.items() if run == root})
            trees.append(
                Tree(root, plan.children, result, tuple(told), ended.get(root, frozenset()), paid, root not in ended)
            )
        return trees
    finally:
        await blobs.close()


async def _read_told(blobs: Blobs, head: str) -> list[str]:
    return [
        part.text
        async for _, segment in TranscriptLog(blobs).segments(head)
        for message in segment.messages
        if message.role == "user"
        for part in message.parts
        if part.kind == "result"
    ]


def report(played: Played) -> dict[str, object]:
    """The last line, as one JSON object."""
    trees = played.trees
    return {
        "trees": len(trees),
        "children": sum(tree.children for tree in trees),
        "reported": sum(tree.reported for tree in trees),
        "lost": sum(tree.lost for tree in trees),
        "wrong": sum(len(tree.wrong()) for tree in trees) + len(played.uncounted),
        "twice": sum(len(tree.twice) for tree in trees),
        "kills": played.killed,
        "parts": played.parts,
    }


def show(played: Played) -> str:
    """The report for people."""
    its = report(played)
    ended = sum(len(tree.ended) for tree in played.trees)
    lines = [
        f"{its['trees']} trees of {played.plan.children} children in {played.seconds:.0f} s, seed {played.plan.seed}",
        f"{its['parts']} runs of Temporal",
        f"{played.killed} workers killed, {ended} children terminated, {played.hurt} payments hurt",
        f"{its['reported']} reports, {its['lost']} lost, {its['wrong']} wrong, {its['twice']} paid twice",
    ]
    faults = played.faults()
    lines += ["", f"promises broken: {len(faults)}", *(f"  {fault}" for fault in faults)]
    return "\n".join(lines)


async def _run(plan: Plan, *, as_json: bool, folder: Path) -> int:
    async with run_private_server(extra_dynamic_config=EARLY) as server:
        client = await connect(address=server.address)
        played = await play(client, server.address, folder, plan)
    print(show(played))
    if as_json:
        print(json.dumps(report(played)))
    return 1 if played.faults() else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.acceptance.trees",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--trees", type=int, default=6)
    parser.add_argument("--children", type=int, default=20, help="of each root, beside those below them")
    parser.add_argument("--kills", type=int, default=6, help="workers that are killed")
    parser.add_argument("--json", action="store_true", help="the last line is the report as JSON")
    given = parser.parse_args()
    plan = Plan(given.seed, given.trees, given.children, given.kills)
    with tempfile.TemporaryDirectory(prefix="mandate-trees-") as folder:
        return asyncio.run(_run(plan, as_json=given.json, folder=Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
