"""What waiting for people costs, and how fast decisions are applied while many runs wait.

`python -m tests.benchmarks.waiting --runs 1000 [--max-cached-workflows N] [--database memory] [--sample 200]
[--turn 200] [--restart] [--json]`
"""

import argparse
import asyncio
import json
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass

from mandate.workers.client.client import connect
from mandate.workers.worker import WorkerOptions
from tests.benchmarks.waiting_phases import Measuring
from tests.benchmarks.waiting_site import environment_is_clean, open_site

DURING = 20
"""Decisions that are sent while no worker runs."""


@dataclass(frozen=True, slots=True)
class Report:
    """Figures of R runs that wait for one approval each, on one worker process."""

    runs: int
    max_cached_workflows: int
    database: str
    starts_per_second: float
    parked_per_second: float
    """From the first start until the server lists all as waiting."""
    worker_cpu_ms_per_run: float
    """From the start of a run until it waits: its agent is pinned, its model asked, people are told."""
    server_cpu_ms_per_run: float
    client_cpu_ms_per_run: float
    memory_mb_before: float
    """Resident memory of the worker that has served a few runs."""
    memory_mb_after: float
    """While all runs wait."""
    kb_per_run: float
    """The difference for each waiting run, in the cache or not."""
    memory_mb_end: float
    """When all runs have ended."""
    cached_runs: int
    activity_slots_waiting: int
    """Activity slots in use while all runs wait."""
    inbox_per_second: float
    """Waiting runs that are found and asked for their requests."""
    inbox_silent: int
    """Of these, how many did not answer in time and were asked again."""
    sample: int
    """Decisions made one at a time, in runs chosen at random."""
    decide_ms_p50: float
    """From sending an update to its receipt, one decision at a time."""
    decide_ms_p95: float
    decide_ms_max: float
    applied_ms_p50: float
    """From sending the update to the tool's first line."""
    applied_ms_p95: float
    applied_ms_max: float
    cache_misses: float
    """Tasks for runs that the worker had put out of its memory, for each decision; after a restart the server sends
    whole histories, which do not count here."""
    bulk: int
    bulk_per_second: float
    """Receipts of `decide_many`."""
    bulk_done_per_second: float
    """Runs that have ended, from the first decision to the last end."""
    worker_cpu_ms_per_decision: float
    """In bulk, from the decision to the end of its run."""
    server_cpu_ms_per_decision: float
    client_cpu_ms_per_decision: float
    turn: int
    """Requests of one turn of one run, all decided at once."""
    turn_client_seconds: float
    turn_signals_seconds: float
    history_bytes_per_request: float
    """Of a run that asks once, beyond the same run that may act."""
    events_per_request: float
    turn_history_bytes_per_request: float
    """Of the run that asks many at once and is decided by updates; and by signals below."""
    turn_events_per_request: float
    signals_history_bytes_per_request: float
    signals_events_per_request: float
    restarted: bool
    lost: int
    """Effects that are missing, over all runs."""
    doubled: int
    """Calls that reached the tool beyond one for each effect."""
    refused: int
    """Decisions that did not count, for whatever reason."""


async def measure(options: argparse.Namespace) -> Report:
    async with (
        open_site(options.database, options.max_cached_workflows, options.turn) as site,
        AsyncExitStack() as workers,
    ):
        its = Measuring(site, await connect(address=site.server.address))
        worker = await workers.enter_async_context(site.worker())
        await its.control()
        await its.start(options.runs, worker)
        asked = await its.read()
        if options.restart:
            await worker.kill()
            its.tell("worker killed")
            during, asked = asked[:DURING], asked[DURING:]
            deciding = asyncio.create_task(its.decide(during))
            worker = await workers.enter_async_context(site.worker())
            await deciding
            await its.ended([workflow_id for workflow_id, _ in during])
        sample = min(options.sample, len(asked) // 2)
        await its.singly(asked[:sample], worker)
        await its.ended([workflow_id for workflow_id, _ in asked[:sample]])
        await its.in_bulk(asked[sample:], worker)
        await its.turns(options.turn)
        its.found["lost"] += options.runs - len(asked) - (DURING if options.restart else 0)
        cache = options.max_cached_workflows
        return Report(
            runs=options.runs,
            max_cached_workflows=WorkerOptions().max_cached_workflows if cache is None else cache,
            database=options.database,
            restarted=options.restart,
            **its.figures,
            **its.found,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--max-cached-workflows", type=int, default=None, help="as workers have it if left out")
    parser.add_argument("--database", choices=("memory", "file"), default="memory", help="of the server")
    parser.add_argument("--sample", type=int, default=200, help="decisions made one at a time")
    parser.add_argument("--turn", type=int, default=200, help="requests of one run that are decided at once")
    parser.add_argument("--restart", action="store_true", help="kill the worker while all wait, and start another")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    environment_is_clean()
    options = parser.parse_args()
    report = asdict(asyncio.run(measure(options)))
    if options.json:
        print(json.dumps(report))
    else:
        for name, value in report.items():
            print(f"{name:36} {value}")


if __name__ == "__main__":
    main()
