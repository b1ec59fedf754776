"""Proof by size: the largest plans there are end on one worker, though it is killed now and then.

    python -m tests.acceptance.large_plans [--steps 2000] [--width 10] [--items 2000] [--at-once 500] [--kills 3]
        [--json]

**The plans.** One has so many steps, in `width` chains side by side; each tenth pays once, with a keyed tool, the
others read. The other has one `for_each` over so many items, of which as many pay at once as a plan may have under way.
One worker serves them, one after the other, and is killed with SIGKILL in the middle of each, again and again.

**Wanted**, and exit code 0: each ends as `completed`, with the output that follows from what its steps were given; each
payment was made once. With `--json` the last line has the figures of both: `moves` are advances of the plan, `parts`
runs of Temporal, `tasks_lost` workflow tasks that were made again, `task_seconds` the longest of the others,
`state_bytes` the largest state with which it continued as new, and `rss_mb` the most memory of a worker.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle

from mandate.activities.stores.address import open_store
from mandate.activities.transcript.blobs import Blobs
from mandate.workers.client.client import AgentClient, connect
from mandate.workers.dev_server.server import run_private_server
from mandate.workers.settings import Settings
from mandate.workflows.contracts.plan import PlanResult
from mandate.workflows.contracts.run import RunStatus
from tests.support.fault_crew import Crew, Post, at_work
from tests.support.plan_book import PATH, Book
from tests.support.plan_tools import make_output
from tests.support.processes import MANDATE

DEADLINE = 1500.0
"""Seconds after which a plan counts as hanging."""

PAYS = 10
"""One step in so many pays."""


@dataclass(frozen=True, slots=True)
class Size:
    """How large the plans are."""

    steps: int = 2000
    width: int = 10
    items: int = 2000
    at_once: int = 500
    kills: int = 3
    """Of each plan."""


@dataclass
class Large:
    """Figures of one plan."""

    name: str
    calls: int
    seconds: float = 0.0
    events_per_call: float = 0.0
    bytes_per_call: float = 0.0
    parts: int = 0
    moves: int = 0
    state_bytes: int = 0
    task_seconds: float = 0.0
    tasks_lost: int = 0
    """Workflow tasks that timed out or failed."""
    rss_mb: int = 0
    kills: int = 0
    faults: list[str] = field(default_factory=list)


def write_chains(size: Size) -> dict[str, Any]:
    """Return the plan of many steps."""
    steps = [
        {
            "id": f"s{number}",
            "tool": "pay" if number % PAYS == 0 else "look",
            "input": {
                "place": f"input.place + '/s{number}'",
                "given": f"[steps.s{number - size.width}.output]" if number >= size.width else "[]",
                "fail": "'0'",
            },
        }
        for number in range(size.steps)
    ]
    return {"name": "chains", "steps": steps, "max_parallel": 500}


def expect_chains(size: Size, name: str) -> Any:
    """Return the output of the plan of many steps."""
    outputs: list[str] = []
    for number in range(size.steps):
        given = [outputs[number - size.width]] if number >= size.width else []
        outputs.append(make_output("pay" if number % PAYS == 0 else "look", f"{name}/s{number}", given))
    last = range(max(size.steps - size.width, 0), size.steps)
    return outputs[-1] if len(last) == 1 else {f"s{number}": outputs[number] for number in last}


def write_items(size: Size) -> dict[str, Any]:
    """Return the plan of many items."""
    each = {
        "id": "each",
        "tool": "pay",
        "for_each": "input.items",
        "input": {"place": "input.place + '/each/' + string(index)", "given": "[item]", "fail": "'0'"},
    }
    return {"name": "items", "steps": [each], "max_parallel": size.at_once}


def expect_items(size: Size, name: str) -> Any:
    """Return the output of the plan of many items."""
    return [make_output("pay", f"{name}/each/{number}", [f"i{number}"]) for number in range(size.items)]


async def play(client: Client, address: str, folder: Path, size: Size) -> list[Large]:
    """Run both plans, one after the other."""
    queue = f"large-{uuid4().hex[:6]}"
    environment = _write_site(folder, address, queue, [write_chains(size), write_items(size)])
    worker = Post("worker", (*MANDATE, "worker"), "Task queue", 1, lambda _: environment)
    book = Book(folder / "book.db")
    blobs = Blobs(open_store(Settings.from_environment(environment).store))
    found = []
    try:
        for name, calls, wanted in (
            ("chains", size.steps, expect_chains(size, "chains-1")),
            ("items", size.items, expect_items(size, "items-1")),
        ):
            if not calls:
                continue
            async with at_work(worker, folder / "processes") as crew:
                items = [f"i{number}" for number in range(size.items)] if name == "items" else []
                given = {"place": f"{name}-1", "items": items}
                found.append(await _play_one(AgentClient(client, queue), crew, book, Large(name, calls), given, size))
            await _judge(client, blobs, book, found[-1], wanted)
    finally:
        await blobs.close()
        book.close()
    return found


async def _play_one(
    agents: AgentClient, crew: Crew, book: Book, large: Large, given: dict[str, Any], size: Size
) -> Large:
    began = time.perf_counter()
    handle = await agents.start_plan(large.name, given, workflow_id=f"{large.name}-1")
    watching = asyncio.create_task(_watch(crew, book, large, size.kills))
    try:
        result = await _ended(handle)
    finally:
        watching.cancel()
    large.seconds = round(time.perf_counter() - began, 1)
    large.kills = crew.dead
    if result is None:
        large.faults.append("it did not end")
    elif result.status is not RunStatus.COMPLETED:
        large.faults.append(f"it ended {result.status}: {result.reason}")
    return large


async def _ended(handle: WorkflowHandle[Any, PlanResult]) -> PlanResult | None:
    try:
        async with asyncio.timeout(DEADLINE):
            return await handle.result()
    except (TimeoutError, WorkflowFailureError):
        return None


async def _watch(crew: Crew, book: Book, large: Large, kills: int) -> None:
    """Note the memory of the worker, and kill it after each of so many equal parts of the calls."""
    done = 0
    while True:
        await asyncio.sleep(0.05)
        for process in list(crew.members.values()):
            with suppress(OSError, StopIteration):
                status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
                peak = next(line for line in status if line.startswith("VmHWM"))
                large.rss_mb = max(large.rss_mb, int(peak.split()[1]) // 1024)
        if (
            done < kills
            and book.count_ended(f"{large.name}-1") > large.calls * (done + 1) // (kills + 1)
            and crew.ready
        ):
            done += 1
            crew.members[crew.ready[0]].process.kill()
            await asyncio.sleep(0.1)


def _write_site(folder: Path, address: str, queue: str, plans: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Write the plans; return the environment of workers."""
    common = {
        "tools": [{"python": f"tests.support.plan_tools:{name}"} for name in ("look", "pay")],
        "policy": [{"id": "all", "match": {}, "verdict": "allow"}],
        "requester": "anyone",
        "people": {"expires": "5s"},
    }
    for name in ("agents", "plans"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for plan in plans:
        if plan["steps"]:
            (folder / "plans" / f"{plan['name']}.yaml").write_text(json.dumps(common | plan))
    agent = common | {"name": "idle", "instructions": "Wait.", "models": ["scripted:idle.script.yaml"]}
    (folder / "agents" / "idle.yaml").write_text(json.dumps(agent))
    (folder / "agents" / "idle.script.yaml").write_text(json.dumps({"turns": [{"say": "done"}]}))
    return {
        "MANDATE_FOLDER": str(folder),
        "MANDATE_AGENTS": str(folder / "agents"),
        "MANDATE_TASK_QUEUE": queue,
        "MANDATE_TEST_LONGEST": "0",
        "TEMPORAL_ADDRESS": address,
        PATH: str(folder / "book.db"),
    }


async def _judge(client: Client, blobs: Blobs, book: Book, large: Large, wanted: Any) -> None:
    """Compare what was done with what the plan says, and read the figures from its history."""
    place = f"{large.name}-1"
    rows = [row for row in book.list_rows() if row.place.startswith(f"{place}/") and row.what == "done"]
    paid = Counter(row.place for row in rows)
    payments = large.calls if large.name == "items" else -(-large.calls // PAYS)
    if len(paid) != payments:
        large.faults.append(f"{len(paid)} of {payments} payments were made")
    large.faults += [f"{name} was paid {times} times" for name, times in paid.items() if times > 1]
    await _read_history(client, large, place)
    if not large.faults:
        result = await client.get_workflow_handle(place, result_type=PlanResult).result()
        output = result.output
        if result.output_digest is not None:
            output = json.loads(await blobs.get(result.output_digest))
        if output != wanted:
            large.faults.append(f"its output is not the wanted one: {str(output)[:200]}")


async def _read_history(client: Client, large: Large, workflow_id: str) -> None:
    """Read what the plan has cost of history, over all its parts."""
    first = await client.get_workflow_handle(workflow_id).describe()
    run_id: str | None = first.raw_info.first_run_id or first.run_id
    events = size = 0
    while run_id:
        part = client.get_workflow_handle(workflow_id, run_id=run_id)
        size += (await part.describe()).raw_info.history_size_bytes
        large.parts += 1
        run_id, started = None, 0.0
        async for event in part.fetch_history_events():
            events += 1
            at = event.event_time.ToNanoseconds() / 1e9
            match event.event_type:
                case EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED:
                    started = at
                case EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
                    large.task_seconds = max(large.task_seconds, round(at - started, 2))
                case EventType.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT | EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED:
                    large.tasks_lost += 1
                case EventType.EVENT_TYPE_MARKER_RECORDED:
                    large.moves += b"advance_plan" in event.SerializeToString()
                case EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
                    attributes = event.activity_task_scheduled_event_attributes
                    large.moves += attributes.activity_type.name == "advance_plan"
                case EventType.EVENT_TYPE_WORKFLOW_EXECUTION_CONTINUED_AS_NEW:
                    going = event.workflow_execution_continued_as_new_event_attributes
                    run_id = going.new_execution_run_id
                    large.state_bytes = max(large.state_bytes, going.input.ByteSize())
    large.events_per_call = round(events / large.calls, 2)
    large.bytes_per_call = round(size / large.calls, 1)


def show(found: Sequence[Large]) -> str:
    """The report for people."""
    lines = [f"{name}: {value}" for large in found for name, value in asdict(large).items() if name != "faults"]
    faults = [f"{large.name}: {fault}" for large in found for fault in large.faults]
    return "\n".join([*lines, "", f"promises broken: {len(faults)}", *(f"  {fault}" for fault in faults)])


async def _run(size: Size, *, as_json: bool, folder: Path) -> int:
    async with run_private_server() as server:
        found = await play(await connect(address=server.address), server.address, folder, size)
    print(show(found))
    if as_json:
        print(json.dumps({large.name: asdict(large) for large in found}))
    return 1 if any(large.faults for large in found) else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.acceptance.large_plans",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--width", type=int, default=10, help="chains side by side")
    parser.add_argument("--items", type=int, default=2000)
    parser.add_argument("--at-once", type=int, default=500)
    parser.add_argument("--kills", type=int, default=3, help="of the worker, in each plan")
    parser.add_argument("--keep", type=Path, help="a folder for all that is written, which stays")
    parser.add_argument("--json", action="store_true", help="the last line is the report as JSON")
    given = parser.parse_args()
    size = Size(given.steps, given.width, given.items, given.at_once, given.kills)
    with tempfile.TemporaryDirectory(prefix="mandate-large-") as folder:
        return asyncio.run(_run(size, as_json=given.json, folder=given.keep or Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
