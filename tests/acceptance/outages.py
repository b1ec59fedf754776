"""Proof by outages: many runs on a real cluster, and in the middle of them something is gone for a while.

    python -m tests.acceptance.outages [--outages NAME,NAME] [--runs 40] [--payments 5] [--json]

**The cluster** is Temporal's server on PostgreSQL, and our store is in the same PostgreSQL (`tests.support.cluster`).
Runs pay one thing after another with a keyed tool, whose receiver counts what it has done, and two workers serve them.
When a third of it is paid, one thing happens:

- `worker`: a worker is killed (SIGKILL); another one is started.
- `temporal`: Temporal's server is killed, and started again.
- `postgres`: PostgreSQL is killed, with Temporal's data and our store, and started again.
- `network`: nothing passes between the workers and Temporal, and no connection ends; then it passes again.
- `store`: connections of the workers to the store end, and new ones are refused.
- `database`: the same between Temporal and PostgreSQL.
- `disk`: the disk of PostgreSQL is full; then there is room again, and what has ended is started again.

**Wanted**, and exit code 0: each run completes, its model was told of each payment once that it is done, in their
order; each was made once. How long it takes until it goes on is measured: until the first payment after the end of the
outage, and until each run has gone on. With `--json` the last line is an object with one entry an outage:
`{"runs", "lost", "doubled", "down_s", "first_s", "all_s"}`.
"""

import argparse
import asyncio
import contextlib
import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg  # type: ignore[import-untyped]
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.service import RPCError

from mandate.activities.stores.address import open_store
from mandate.activities.transcript.blobs import Blobs
from mandate.activities.transcript.log import TranscriptLog
from mandate.workers.client.client import AgentClient, connect
from mandate.workflows.contracts.run import RunResult, RunStatus
from mandate.workflows.contracts.transcript import ResultPart
from tests.support.cluster import STORE, Cluster, running_cluster
from tests.support.fake_provider.behaviours import Answer, Behaviour, Call
from tests.support.fake_provider.requests import Request
from tests.support.fake_provider.server import FakeProvider
from tests.support.fault_client import CALLER, URL
from tests.support.fault_crew import Crew, Post, at_work, write_receiver
from tests.support.fault_log import Executed, FaultLog
from tests.support.ports import free_port
from tests.support.postgres import PASSWORD
from tests.support.processes import MANDATE
from tests.support.small_disk import SmallDisk, small_disk
from tests.support.wire import Wire, open_wire

AGENT = "payer"

WORKERS = 2

DEADLINE = 180.0
"""Seconds after which a run counts as hanging."""

DISK_MEGABYTES = 400

SMALL = {"max_wal_size": "64MB", "min_wal_size": "32MB"}
"""Settings of PostgreSQL on that disk."""

NO_SPACE = "No space left on device"
FULL_SECONDS = 30.0

EARLY = {"limit.historyCount.suggestContinueAsNew": 40}
"""Setting of the server: events after which a run continues as new."""


@dataclass(frozen=True, slots=True)
class Place:
    """A cluster, and the ways to it that can be cut."""

    cluster: Cluster
    client: Client
    """Its way is never cut."""
    disk: SmallDisk | None
    to_temporal: Wire
    """From the workers."""
    to_store: Wire
    """From the workers."""
    to_database: Wire
    """From Temporal to PostgreSQL."""

    @property
    def worker_environment(self) -> dict[str, str]:
        return {
            "TEMPORAL_ADDRESS": f"127.0.0.1:{self.to_temporal.port}",
            "MANDATE_STORE": f"postgresql://mandate:{PASSWORD}@127.0.0.1:{self.to_store.port}/{STORE}",
        }


@asynccontextmanager
async def open_place(disk: SmallDisk | None, **config: Any) -> AsyncIterator[Place]:
    """A cluster that hears of PostgreSQL over a wire, and wires for its workers."""
    async with AsyncExitStack() as stack:
        data = disk.folder / "data" if disk is not None else None
        if data is not None:
            data.mkdir()
        cluster = await stack.enter_async_context(
            running_cluster(config={**EARLY, **config}, postgres=SMALL, data=data)
        )
        to_database = await stack.enter_async_context(open_wire(cluster.postgres.port))
        await cluster.kill()
        cluster.database_port = to_database.port
        await cluster.start()
        to_temporal = await stack.enter_async_context(open_wire(int(cluster.address.rpartition(":")[2])))
        to_store = await stack.enter_async_context(open_wire(cluster.postgres.port))
        client = await connect(address=cluster.address)
        yield Place(cluster, client, disk, to_temporal, to_store, to_database)


Act = Callable[[Place, Crew], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Outage:
    """What is gone for a while."""

    name: str
    begin: Act
    """Returns when it is gone."""
    end: Act
    """Returns when it is there again."""
    seconds: float
    """Between the two."""


async def _kill_worker(_: Place, crew: Crew) -> None:
    crew.members[crew.ready[0]].process.kill()


async def _nothing(_: Place, crew: Crew) -> None:
    pass


async def _kill_temporal(place: Place, _: Crew) -> None:
    await place.cluster.kill()


async def _start_temporal(place: Place, _: Crew) -> None:
    await place.cluster.start()


async def _kill_postgres(place: Place, _: Crew) -> None:
    await place.cluster.postgres.kill()


async def _start_postgres(place: Place, _: Crew) -> None:
    await place.cluster.postgres.start()


async def _silence_network(place: Place, _: Crew) -> None:
    place.to_temporal.silence()


async def _cut_store(place: Place, _: Crew) -> None:
    place.to_store.cut()


async def _cut_database(place: Place, _: Crew) -> None:
    place.to_database.cut()


async def _mend(place: Place, _: Crew) -> None:
    for wire in (place.to_temporal, place.to_store, place.to_database):
        wire.mend()


async def _fill_disk(place: Place, _: Crew) -> None:
    """Leave no room, and let PostgreSQL need some: it has a stock of empty files, and lives on that for a while."""
    assert place.disk is not None
    postgres, log = place.cluster.postgres, place.cluster.postgres.log()
    async with asyncio.timeout(FULL_SECONDS):
        while NO_SPACE not in postgres.log().removeprefix(log):
            await asyncio.to_thread(place.disk.fill)
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await postgres.execute("SELECT pg_switch_wal()")
            await asyncio.sleep(0.1)


async def _make_room(place: Place, _: Crew) -> None:
    """Do what an operator does: make room, and start what has ended."""
    assert place.disk is not None
    place.disk.make_room()
    cluster = place.cluster
    if cluster.postgres.pid is None:
        await cluster.postgres.start()
    if cluster.process is None or cluster.process.poll() is not None:
        await cluster.start()


OUTAGES = {
    outage.name: outage
    for outage in (
        Outage("worker", _kill_worker, _nothing, 0.0),
        Outage("temporal", _kill_temporal, _start_temporal, 2.0),
        Outage("postgres", _kill_postgres, _start_postgres, 2.0),
        Outage("network", _silence_network, _mend, 8.0),
        Outage("store", _cut_store, _mend, 5.0),
        Outage("database", _cut_database, _mend, 5.0),
        Outage("disk", _fill_disk, _make_room, 5.0),
    )
}


@dataclass(frozen=True, slots=True)
class Ended:
    """One run as it ended."""

    name: str
    payments: int
    result: RunResult | None
    told: tuple[str, ...]
    """Results of its calls, as its model was told them."""
    done: Mapping[str, int]
    """How often each payment was made."""

    @property
    def lost(self) -> list[str]:
        """Return what is missing, each in one line."""
        if self.result is None:
            return [f"{self.name}: it did not end"]
        found = []
        if self.result.status is not RunStatus.COMPLETED:
            found.append(f"{self.name}: {self.result.status} ({self.result.reason})")
        wanted = list(map(str, range(self.payments)))
        told = [match[1] if (match := re.search(r'"item": "(\d+)"', text)) else text[:120] for text in self.told]
        if told != wanted:
            found.append(f"{self.name}: its model was told {told}")
        return found + [f"{self.name}: {item} was not paid" for item in wanted if not self.done.get(item)]

    @property
    def doubled(self) -> list[str]:
        return [f"{self.name}: {item} was paid {times} times" for item, times in self.done.items() if times > 1]


@dataclass
class Played:
    """How the runs went over one outage."""

    outage: Outage
    runs: list[Ended] = field(default_factory=list)
    down: float = 0.0
    """Seconds for which it was gone, with what had to be started again."""
    first: float = 0.0
    """Seconds from its end to the first payment after it."""
    every: float = 0.0
    """Seconds from its end until each run that had payments left has made one."""
    behind: int = 0
    """Payments that were made before it."""
    during: int = 0
    ahead: int = 0
    """Payments that were made after it."""
    parts: int = 0
    """Runs of Temporal that they took."""
    seconds: float = 0.0

    def faults(self) -> list[str]:
        return [fault for run in self.runs for fault in (*run.lost, *run.doubled)]

    def report(self) -> dict[str, Any]:
        return {
            "runs": len(self.runs),
            "lost": sum(len(run.lost) for run in self.runs),
            "doubled": sum(len(run.doubled) for run in self.runs),
            "down_s": round(self.down, 1),
            "first_s": round(self.first, 1),
            "all_s": round(self.every, 1),
        }


class PayingModel:
    """The model of the agent: it pays one thing after another, then answers."""

    def __init__(self, payments: int) -> None:
        self._payments = payments

    async def answer(self, request: Request) -> Behaviour:
        messages = request.json["messages"]
        run = next(_read(message) for message in messages if message["role"] == "user").strip().split()[-1]
        paid = sum(message["role"] == "tool" for message in messages)
        if paid >= self._payments:
            return Answer(text="all is paid", reasoning=False)
        call = Call("pay_slowly", json.dumps({"task": run, "item": str(paid)}), id=f"call-{paid}")
        return Answer(calls=(call,), reasoning=False, delay=0.1)


def _read(message: Any) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)


async def play(place: Place, outage: Outage, folder: Path, *, runs: int = 40, payments: int = 5) -> Played:
    """Start all runs at once, let the outage happen in the middle of them, and wait until each has ended."""
    began, queue = time.monotonic(), f"{outage.name}-{uuid4().hex[:8]}"
    names = [f"{queue}-{number}" for number in range(runs)]
    folder.mkdir(parents=True, exist_ok=True)
    port, played = free_port(), Played(outage)
    async with FakeProvider(script=PayingModel(payments).answer, keeps_requests=False) as provider:
        environment = _write_site(folder, queue, provider.url, port) | place.worker_environment
        receiver = write_receiver(folder, port, (), seed=0, share=0.0)
        workers = Post(
            "worker", (*MANDATE, "worker"), "Task queue", WORKERS, lambda name: {**environment, CALLER: name}
        )
        processes = folder / "processes"
        async with at_work(receiver, processes), at_work(workers, processes) as crew:
            agents = AgentClient(place.client, queue)
            handles = [await agents.start(AGENT, f"Pay for {name}", workflow_id=name) for name in names]
            await _paid(folder, runs * payments // 3)
            ended_at = await _suffer(place, outage, crew, played)
            results = await asyncio.gather(*map(_ended, handles))
    log = FaultLog(folder / "faults.db")
    executed = log.executed()
    log.close()
    _measure(played, executed, ended_at)
    done = Counter((call.run, call.item) for call in executed)
    told = await _read_told(place.cluster.store, results)
    for name, result, texts in zip(names, results, told, strict=True):
        paid = {item: times for (run, item), times in done.items() if run == name}
        played.runs.append(Ended(name, payments, result, texts, paid))
    played.parts = (await place.client.count_workflows(f"TaskQueue = '{queue}'")).count
    played.seconds = time.monotonic() - began
    return played


async def _suffer(place: Place, outage: Outage, crew: Crew, played: Played) -> float:
    """Let it happen; return when it was over."""
    await outage.begin(place, crew)
    began = time.time()
    await asyncio.sleep(outage.seconds)
    await outage.end(place, crew)
    ended_at = time.time()
    played.down = ended_at - began
    return ended_at


def _measure(played: Played, executed: Sequence[Executed], ended_at: float) -> None:
    began_at = ended_at - played.down
    after: dict[str, float] = {}
    for call in executed:
        if call.at > ended_at:
            after.setdefault(call.run, call.at - ended_at)
    played.behind = sum(call.at < began_at for call in executed)
    played.ahead = sum(call.at > ended_at for call in executed)
    played.during = len(executed) - played.behind - played.ahead
    if after:
        played.first, played.every = min(after.values()), max(after.values())


async def _paid(folder: Path, number: int) -> None:
    """Wait until so much is paid."""
    log = FaultLog(folder / "faults.db")
    try:
        async with asyncio.timeout(DEADLINE):
            while len(log.executed()) < number:
                await asyncio.sleep(0.05)
    finally:
        log.close()


def _write_site(folder: Path, queue: str, provider: str, port: int) -> dict[str, str]:
    """Write the agent; return the environment of workers."""
    (folder / "agents").mkdir(exist_ok=True)
    agent = {
        "name": AGENT,
        "instructions": "Pay, and answer.",
        "models": [f"vllm:{AGENT}"],
        "tools": [{"python": "tests.support.session_tools:pay_slowly"}],
        "policy": [{"id": "all", "match": {}, "verdict": "allow"}],
        "requester": "anyone",
        # Nobody answers: a run that asks is one that did not go on by itself.
        "people": {"expires": "5s"},
        "budget": {"steps": 100, "model_calls": 100},
    }
    (folder / "agents" / f"{AGENT}.yaml").write_text(json.dumps(agent))
    return {
        "MANDATE_FOLDER": str(folder),
        "MANDATE_AGENTS": str(folder / "agents"),
        "MANDATE_TASK_QUEUE": queue,
        "VLLM_BASE_URL": f"{provider}/v1",
        "VLLM_API_KEY": "none",
        URL: f"http://127.0.0.1:{port}",
    }


async def _ended(handle: WorkflowHandle[Any, RunResult]) -> RunResult | None:
    """Return the result, however often the server is gone while it is waited for."""
    with contextlib.suppress(TimeoutError, WorkflowFailureError):
        async with asyncio.timeout(DEADLINE):
            while True:
                with contextlib.suppress(RPCError):
                    return await handle.result()
                await asyncio.sleep(0.2)
    return None


async def _read_told(store: str, results: Sequence[RunResult | None]) -> list[tuple[str, ...]]:
    """Return what the model of each run was told of its calls, as the store has it."""
    blobs = Blobs(open_store(store))
    try:
        return [await _read_results(blobs, result.head) if result is not None else () for result in results]
    finally:
        await blobs.close()


async def _read_results(blobs: Blobs, head: str | None) -> tuple[str, ...]:
    if head is None:
        return ()
    return tuple(
        [
            part.text
            async for _, segment in TranscriptLog(blobs).segments(head)
            for message in segment.messages
            if message.role == "user"
            for part in message.parts
            if isinstance(part, ResultPart)
        ]
    )


def show(played: Played) -> str:
    """The line for people, and a line for each broken promise."""
    its = played.report()
    line = f"{played.outage.name:<10}{its['runs']:>5}{played.behind:>8}{played.during:>8}{its['down_s']:>8}"
    line += f"{its['first_s']:>8}{its['all_s']:>8}{its['lost']:>6}{its['doubled']:>9}{played.seconds:>8.1f}"
    return "\n".join([line, *(f"  {fault}" for fault in played.faults())])


HEAD = "outage     runs  before  during  down s first s   all s  lost  doubled       s"


async def _run(names: Sequence[str], runs: int, payments: int, *, as_json: bool) -> int:
    found: dict[str, Any] = {}
    with small_disk(DISK_MEGABYTES) as disk, tempfile.TemporaryDirectory(prefix="mandate-outages-") as folder:
        async with open_place(disk) as place:
            print(HEAD, flush=True)
            faults = 0
            for name in names:
                played = await play(place, OUTAGES[name], Path(folder) / name, runs=runs, payments=payments)
                print(show(played), flush=True)
                found[name] = played.report()
                faults += len(played.faults())
    if as_json:
        print(json.dumps(found))
    return 1 if faults else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.acceptance.outages",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--outages", default=",".join(OUTAGES), help="one after another")
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--payments", type=int, default=5, help="of each run")
    parser.add_argument("--json", action="store_true", help="the last line is the report as JSON")
    given = parser.parse_args()
    return asyncio.run(_run(given.outages.split(","), given.runs, given.payments, as_json=given.json))


if __name__ == "__main__":
    sys.exit(main())
