"""What `waiting` does with its runs, one phase after another, and the figures of each."""

import asyncio
import random
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from temporalio.client import Client, WorkflowHandle

from mandate.workers.client import answers, messages
from mandate.workers.client.client import AgentClient
from mandate.workflows.contracts.request import Decision, Request
from mandate.workflows.contracts.run import RunResult
from tests.benchmarks import peers
from tests.benchmarks.waiting_site import ASKS, BY, Site, WaitingWorker, progress

T = TypeVar("T")

STARTED_AT_A_TIME = 16
READ_AT_A_TIME = 32
CONTROL_RUNS = 5

Asked = list[tuple[str, Request]]
"""Requests by workflow id."""


class Measuring:
    """One site, its client and what is known so far."""

    def __init__(self, site: Site, client: Client) -> None:
        self.site, self.client, self.agents = site, client, AgentClient(client)
        self.figures: dict[str, Any] = {}
        self.found: Counter[str] = Counter(lost=0, doubled=0, refused=0)
        self.began = time.perf_counter()

    def tell(self, line: str) -> None:
        progress(self.began, line)

    async def start(self, count: int, worker: WaitingWorker) -> None:
        """Start runs; returns when all wait."""
        before, spent, began = worker.memory_mb, self.spent(worker), time.perf_counter()
        await each(range(count), STARTED_AT_A_TIME, lambda _: self.agents.start("asks", "Pay.", requester=ASKS))
        started = time.perf_counter() - began
        self.tell(f"{count} started")
        await self.waiting(count)
        parked = time.perf_counter() - began
        self.figures |= self.cpu_since(spent, worker, count, "run")
        slots = await self.quiet(worker)
        after = worker.memory_mb
        self.figures |= {
            "starts_per_second": round(count / started, 1),
            "parked_per_second": round(count / parked, 1),
            "memory_mb_before": round(before, 1),
            "memory_mb_after": round(after, 1),
            "kb_per_run": round((after - before) * 1024 / count, 1),
            "cached_runs": int(await worker.metric("temporal_sticky_cache_size")),
            "activity_slots_waiting": slots,
        }
        self.tell(f"{count} wait; worker {after:.0f} MB")

    async def quiet(self, worker: WaitingWorker) -> int:
        """Activity slots in use once people have been told, or after half a minute."""
        for _ in range(60):
            await asyncio.sleep(0.5)
            if not (slots := await worker.activity_slots()):
                break
        return slots

    def spent(self, worker: WaitingWorker) -> list[float]:
        """CPU seconds so far of worker, server and this process."""
        pids = (worker.process.pid, self.site.server.pid)
        return [*(peers.Usage.of(pid).cpu_seconds for pid in pids), time.process_time()]

    def cpu_since(self, spent: list[float], worker: WaitingWorker, count: int, what: str) -> dict[str, float]:
        used = [(now - then) / count * 1000 for then, now in zip(spent, self.spent(worker), strict=True)]
        return {
            f"{name}_cpu_ms_per_{what}": round(ms, 1)
            for name, ms in zip(("worker", "server", "client"), used, strict=True)
        }

    async def waiting(self, count: int) -> None:
        query = 'AgentName="asks" AND AgentStatus="waiting"'
        told = -1
        while (found := (await self.client.count_workflows(query)).count) < count:
            if found // 500 != told // 500:
                self.tell(f"{found} wait")
                told = found
            await asyncio.sleep(0.25)

    async def read(self) -> Asked:
        """The requests of all runs, in an order that has nothing to do with the worker's cache."""
        began = time.perf_counter()
        box = await self.agents.inbox(agent="asks")
        seconds = time.perf_counter() - began
        self.figures |= {"inbox_per_second": round(len(box.runs) / seconds, 1), "inbox_silent": len(box.silent)}
        self.tell(f"{len(box.runs)} requests read in {seconds:.1f} s, {len(box.silent)} runs silent")
        asked = [(run.workflow_id, request) for run in box.runs for request in run.requests]
        for silent in box.silent:
            asked += await self.asked_of(self.agents.handle(silent.workflow_id), 1)
        random.Random(4).shuffle(asked)
        return asked

    async def singly(self, asked: Asked, worker: WaitingWorker) -> None:
        """One decision at a time, each until its run has ended."""
        receipts, applied = [], []
        misses = await worker.metric("temporal_sticky_cache_miss")
        for workflow_id, request in asked:
            sent, wall = time.perf_counter(), time.time()
            await self.agents.decide(workflow_id, approval(request))
            receipts.append(time.perf_counter() - sent)
            applied.append(await self.site.called(workflow_id) - wall)
            await self.agents.handle(workflow_id).result()
        misses = await worker.metric("temporal_sticky_cache_miss") - misses
        self.figures |= {"sample": len(asked), "cache_misses": round(misses / len(asked), 2)}
        for name, values in (("decide", receipts), ("applied", applied)):
            self.figures |= {f"{name}_ms_p{percent}": ms_at(values, percent) for percent in (50, 95)}
            self.figures[f"{name}_ms_max"] = round(max(values) * 1000, 1)
        self.tell(f"{len(asked)} decided one at a time")

    async def in_bulk(self, asked: Asked, worker: WaitingWorker) -> None:
        """All decisions by one call of the client, then the ends of all runs."""
        spent, began = self.spent(worker), time.perf_counter()
        await self.decide(asked)
        receipts = time.perf_counter() - began
        self.tell(f"{len(asked)} decided in bulk")
        await self.ended([workflow_id for workflow_id, _ in asked])
        done = time.perf_counter() - began
        self.figures |= {
            "bulk": len(asked),
            "bulk_per_second": round(len(asked) / receipts, 1),
            "bulk_done_per_second": round(len(asked) / done, 1),
            "memory_mb_end": round(worker.memory_mb, 1),
        }
        self.figures |= self.cpu_since(spent, worker, len(asked), "decision")
        self.tell(f"{len(asked)} ended")

    async def decide(self, asked: Asked) -> None:
        decisions = [(workflow_id, approval(request)) for workflow_id, request in asked]
        outcomes = await messages.decide_many(self.client, decisions, patience_seconds=300)
        refused = [outcome.error for outcome in outcomes if outcome.error is not None]
        self.found["refused"] += len(refused)
        for error in refused[:3]:
            self.tell(f"refused: {error}")

    async def ended(self, workflow_ids: Sequence[str], effects: int = 1) -> None:
        """Returns when these runs have ended; whatever they lost or did twice is counted."""
        results = await each(workflow_ids, READ_AT_A_TIME, lambda one: self.agents.handle(one).result())
        self.site.read_calls()
        for workflow_id, result in zip(workflow_ids, results, strict=True):
            done, calls = self.site.done_and_calls(workflow_id)
            told = result.effects.count if result.status == "completed" else 0
            self.found["lost"] += max(0, effects - min(done, told))
            self.found["doubled"] += calls - done

    async def asked_of(self, handle: WorkflowHandle[Any, RunResult], count: int) -> Asked:
        """The requests of one run, once it has so many."""
        while True:
            try:
                found = (await answers.open_requests(self.client, handle.id)).requests
            except answers.NotAnswering:
                found = ()
            if len(found) >= count:
                return [(handle.id, request) for request in found]
            await asyncio.sleep(0.1)

    async def turns(self, count: int) -> None:
        """So many requests of one turn, decided at once: by the client, and by signals."""
        self.figures["turn"] = count
        for name in ("client", "signals"):
            handle = await self.agents.start("turn", "Pay.", requester=ASKS)
            asked = await self.asked_of(handle, count)
            before, began = await size_of(handle), time.perf_counter()
            if name == "client":
                await self.decide(asked)
            else:
                await asyncio.gather(*(handle.signal("decide", approval(request)) for _, request in asked))
            await self.ended([handle.id], effects=count)
            self.figures[f"turn_{name}_seconds"] = round(time.perf_counter() - began, 2)
            grown = [(now - then) / count for then, now in zip(before, await size_of(handle), strict=True)]
            prefix = "turn" if name == "client" else "signals"
            self.figures[f"{prefix}_history_bytes_per_request"] = round(grown[0], 1)
            self.figures[f"{prefix}_events_per_request"] = round(grown[1], 2)
            self.tell(f"{count} requests of one turn decided ({name})")

    async def control(self) -> None:
        """What a request adds to the history of a run: the same run with and without."""
        sizes: dict[str, list[tuple[int, int]]] = {}
        for agent in ("allows", "asks") * CONTROL_RUNS:
            handle = await self.agents.start(agent, "Pay.", requester=ASKS)
            if agent == "asks":
                await self.decide(await self.asked_of(handle, 1))
            await self.ended([handle.id])
            sizes.setdefault(agent, []).append(await size_of(handle))
        medians = {
            agent: [statistics.median(column) for column in zip(*found, strict=True)] for agent, found in sizes.items()
        }
        self.figures["history_bytes_per_request"] = medians["asks"][0] - medians["allows"][0]
        self.figures["events_per_request"] = medians["asks"][1] - medians["allows"][1]


async def size_of(handle: WorkflowHandle[Any, Any]) -> tuple[int, int]:
    """Bytes and events of a run's history over all its continuations, up to now."""
    size = events = 0
    async for run in handle._client.list_workflows(f'WorkflowId="{handle.id}"'):
        described = await handle._client.get_workflow_handle(handle.id, run_id=run.run_id).describe()
        size += described.raw_info.history_size_bytes
        events += described.history_length
    return size, events


async def each(items: Sequence[Any], at_a_time: int, do: Callable[[Any], Awaitable[T]]) -> list[T]:
    slots = asyncio.Semaphore(at_a_time)

    async def one(item: Any) -> T:
        async with slots:
            return await do(item)

    return await asyncio.gather(*map(one, items))


def approval(request: Request) -> Decision:
    return Decision(request=request.id, digest=request.digest, choice="approve", by=BY)


def ms_at(values: Sequence[float], percent: int) -> float:
    return round(statistics.quantiles(values, n=100, method="inclusive")[percent - 1] * 1000, 1)
