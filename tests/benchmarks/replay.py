"""What a replay costs, beside a trivial workflow of as many events, and a decision among few and among many requests.

`python -m tests.benchmarks.replay [--steps 120] [--rounds 5] [--json]`
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from temporalio import activity
from temporalio.client import Client, WorkflowHandle, WorkflowHistory
from temporalio.worker import Replayer, Worker

from mandate.workers.client.client import connect
from mandate.workers.converter import data_converter
from mandate.workers.dev_server.server import run_private_server
from mandate.workers.sandbox import workflow_runner
from mandate.workers.telemetry.logs import configure_logging
from mandate.workflows.agent import AgentWorkflow
from tests.benchmarks.floor import QUEUE, FloorWorkflow
from tests.support.agents import Site, new_site
from tests.support.people import ASK_ALL, asked, decide, write_people

AT_A_TIME = 4
"""Replays of one history in a row, so that what a replayer costs by itself hardly counts."""

DECISIONS = 20
"""Approvals of one run, each the first of two, so that all of its requests stay open."""

FEW, MANY = 20, 200


@dataclass(frozen=True, slots=True)
class Report:
    """CPU of this process; all figures of one program, only their ratios mean anything elsewhere."""

    events: int
    """Of a part of an ordinary run: each tenth of its steps is a payment that a person approves, the others read."""
    ms_per_event: float
    trivial_ms_per_event: float
    """Of a workflow of activities in a row with as many events, an integer in and out."""
    ratio: float
    """Median over rounds in which one followed the other."""
    decision_cpu_ms_20: float
    """What the workflow does for one decision beside 20 open requests, in a replay."""
    decision_cpu_ms_200: float


class Echo:
    @activity.defn
    async def ask(self, number: int) -> int:
        return number

    @activity.defn
    async def act(self, number: int) -> int:
        return number


def write_agents(site: Site, steps: int) -> None:
    looks, pay = {"repeat": 9, "call": [{"look": {"what": "a"}}]}, {"call": [{"pay": {"order": 1, "amount": 1}}]}
    policy = [{**ASK_ALL[0], "expires": "60m"}, ASK_ALL[1]]
    site.write("ordinary", [*[looks, pay] * (steps // 10), {"say": "done"}], policy=policy, budget={"steps": steps + 1})
    policy = [{**policy[0], "quorum": 2}, policy[1]]
    for requests in (FEW, MANY):
        calls = [{"pay": {"order": number, "amount": 1}} for number in range(requests)]
        site.write(f"asks-{requests}", [{"call": calls}, {"say": "done"}], policy=policy)


async def ordinary(site: Site, steps: int) -> WorkflowHistory:
    handle = await site.start("ordinary")
    for _ in range(steps // 10):
        (request,) = await asked(handle)
        await decide(handle, request)
    await handle.result()
    return await first_part(site.client, handle)


async def first_part(client: Client, handle: WorkflowHandle[Any, Any]) -> WorkflowHistory:
    return await client.get_workflow_handle(handle.id, run_id=handle.first_execution_run_id).fetch_history()


async def trivial(client: Client, events: int) -> WorkflowHistory:
    """A run of the floor's workflow: twelve events a step, and seven beside."""
    async with serving_trivial(client):
        steps = (events - 7) // 12
        handle = await client.start_workflow("FloorWorkflow", steps, id="trivial", task_queue=QUEUE)
        await handle.result()
        return await first_part(client, handle)


@asynccontextmanager
async def serving_trivial(client: Client) -> AsyncIterator[None]:
    echo = Echo()
    async with Worker(
        client,
        task_queue=QUEUE,
        workflows=[FloorWorkflow],
        activities=[echo.ask, echo.act],
        workflow_runner=workflow_runner(),
    ):
        yield


async def decided(site: Site, requests: int) -> tuple[WorkflowHistory, WorkflowHistory]:
    """A run that waits for so many requests, before and after `DECISIONS` on them, one after another."""
    handle = await site.start(f"asks-{requests}")
    open_requests = await asked(handle, requests)
    await quiet(handle)
    before = await first_part(site.client, handle)
    # Spread over all: what looks for a request has to pass those before it.
    for request in open_requests[:: requests // DECISIONS][:DECISIONS]:
        receipt = await decide(handle, request)
        assert receipt.status == "recorded", receipt
    await quiet(handle)
    after = await first_part(site.client, handle)
    await handle.terminate()
    return before, after


async def quiet(handle: WorkflowHandle[Any, Any]) -> None:
    """Returns when nothing is in flight: people have been told, all is written down."""
    while True:
        described = (await handle.describe()).raw_description
        if not described.pending_activities and not described.HasField("pending_workflow_task"):
            return
        await asyncio.sleep(0.05)


async def cpu_ms(workflow: type, histories: Sequence[WorkflowHistory]) -> float:
    """CPU that this process takes for one replay, in milliseconds."""
    replayer = Replayer(workflows=[workflow], data_converter=data_converter(), workflow_runner=workflow_runner())

    async def repeated() -> AsyncIterator[WorkflowHistory]:
        for history in histories:
            yield history

    before = time.process_time()
    async with replayer.workflow_replay_iterator(repeated()) as results:
        async for result in results:
            assert result.replay_failure is None, result.replay_failure
    return (time.process_time() - before) * 1000 / len(histories)


async def compare(options: argparse.Namespace, site: Site) -> Report:
    write_agents(site, options.steps)
    async with site.serving():
        ours = await ordinary(site, options.steps)
        few, many = await decided(site, FEW), await decided(site, MANY)
    theirs = await trivial(site.client, len(ours.events))
    pairs, decisions = [], []
    for round_ in range(options.rounds + 1):
        pair = (
            await cpu_ms(AgentWorkflow, [ours] * AT_A_TIME) / len(ours.events),
            await cpu_ms(FloorWorkflow, [theirs] * AT_A_TIME) / len(theirs.events),
        )
        costs = [
            (await cpu_ms(AgentWorkflow, [after] * AT_A_TIME) - await cpu_ms(AgentWorkflow, [before] * AT_A_TIME))
            / DECISIONS
            for before, after in (few, many)
        ]
        # The first round imports and compiles.
        if round_:
            pairs.append(pair)
            decisions.append(costs)
    return Report(
        events=len(ours.events),
        ms_per_event=round(statistics.median(pair[0] for pair in pairs), 3),
        trivial_ms_per_event=round(statistics.median(pair[1] for pair in pairs), 3),
        ratio=round(statistics.median(ours / theirs for ours, theirs in pairs), 3),
        decision_cpu_ms_20=round(statistics.median(costs[0] for costs in decisions), 3),
        decision_cpu_ms_200=round(statistics.median(costs[1] for costs in decisions), 3),
    )


async def measure(options: argparse.Namespace) -> Report:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with run_private_server() as server:
            client = await connect(address=server.address)
            site = new_site(folder, client, MANDATE_PEOPLE=str(write_people(folder)))
            return await compare(options, site)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=110, help="of the ordinary run, each of about twelve events")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    configure_logging(level="WARNING")
    report = asyncio.run(measure(options))
    if options.json:
        print(json.dumps(asdict(report)))
    else:
        for name, figure in asdict(report).items():
            print(f"{name:22} {figure}")


if __name__ == "__main__":
    main()
