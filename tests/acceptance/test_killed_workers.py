"""A worker dies in the middle of five runs; another one goes on as if nothing had been."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity
from temporalio.api.enums.v1 import PendingActivityState, TaskQueueType, TimeoutType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client, WorkflowHandle
from temporalio.worker import Worker

from mandate.workers.dev_server.server import DevServer
from mandate.workflows.contracts.run import TASK_TIMEOUT, RunResult, RunStatus
from mandate.workflows.steps import EFFECT_HEARTBEAT, HEARTBEAT, REPEATED_HEARTBEAT
from tests.acceptance.killed_tools import JOURNAL
from tests.support.agents import ALLOW_ALL, Site, new_site
from tests.support.processes import Process, Processes, processes

MARGIN = timedelta(seconds=1)
MODULE = "tests.acceptance.killed_tools"
BEFORE = {"call": [{"note": {"word": "before"}}]}
AFTER = {"call": [{"note": {"word": "after"}}]}
DONE = {"say": "done"}

# Agent by agent, the second turn is where the worker dies.
TURNS: dict[str, dict[str, Any]] = {
    "model": {"fail": [{"slow": "60s"}], "call": [{"note": {"word": "middle"}}]},
    "read": {"call": [{"read_slowly": {"word": "middle"}}]},
    "keyed": {"call": [{"pay_slowly": {"word": "middle"}}]},
    "once": {"call": [{"send_slowly": {"word": "middle"}}]},
    "idle": {"call": [{"elsewhere": {"word": "middle"}}]},
}


@dataclass(frozen=True)
class Attempt:
    """The last attempt of one activity."""

    kind: str
    number: int
    began: datetime
    worker: str


@dataclass(frozen=True)
class Handed:
    """A workflow task that the server handed to a worker."""

    at: datetime
    worker: str
    lost: bool
    """The worker never answered, and the task's time ran out."""


@dataclass(frozen=True)
class Ending:
    """What became of one run whose worker was killed."""

    result: RunResult
    attempts: list[Attempt]
    tasks: list[Handed]
    journal: list[dict[str, Any]]
    closed: datetime


@dataclass(frozen=True)
class Scene:
    """One worker killed with all five runs on it."""

    endings: dict[str, Ending]
    killed_at: datetime
    released_at: datetime
    """When the activity was done that another worker made, and for which the run `idle` waited."""
    successor: str
    """How the identity of the worker that went on begins."""

    def taken_up(self, name: str) -> tuple[Attempt, timedelta]:
        """The first activity that began after the kill, and how long after it was due the run was handed over."""
        ended = self.endings[name]
        due = self.released_at if name == "idle" else self.killed_at
        return first_after(self.killed_at, ended.attempts), handed_over(ended, self.successor, due) - due

    def at_most(self, name: str, heartbeat: timedelta) -> timedelta:
        """How long a run may wait: what the server hands to a connection as it breaks costs the task's own time."""
        lost = any(task.lost and not task.worker.startswith(self.successor) for task in self.endings[name].tasks)
        return (max(heartbeat, TASK_TIMEOUT) if lost else heartbeat) + MARGIN


def write(site: Site, name: str, turn: dict[str, Any], remote: str) -> None:
    tools: list[dict[str, Any]] = [
        {"python": f"{MODULE}:{tool}"} for tool in ("note", "read_slowly", "pay_slowly", "send_slowly")
    ]
    schema = {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]}
    tools.append(
        {
            "activity": {"name": "elsewhere", "task_queue": remote},
            "effect": "read",
            "timeout": "60s",
            "input_schema": schema,
        }
    )
    site.write(name, [BEFORE, turn, AFTER, DONE], tools=tools, policy=ALLOW_ALL)


async def in_the_middle(handle: WorkflowHandle[Any, Any], kind: str) -> None:
    """Wait until a worker is busy with an activity of this type, after the run's first step."""
    async with asyncio.timeout(60):
        while True:
            description = (await handle.describe()).raw_description
            for pending in description.pending_activities:
                started = pending.state == PendingActivityState.PENDING_ACTIVITY_STATE_STARTED
                if pending.activity_type.name == kind and started and int(pending.activity_id) > 3:
                    return
            await asyncio.sleep(0.05)


def first_after(moment: datetime, attempts: list[Attempt]) -> Attempt:
    return min((attempt for attempt in attempts if attempt.began > moment), key=lambda attempt: attempt.began)


def handed_over(ended: Ending, successor: str, since: datetime) -> datetime:
    """When the server first gave the successor something of a run to do; how fast that is, is the machine's affair."""
    given = [(task.at, task.worker) for task in ended.tasks] + [(one.began, one.worker) for one in ended.attempts]
    return min(at for at, worker in given if at > since and worker.startswith(successor))


async def handed_to(handle: WorkflowHandle[Any, Any], worker: Process, since: datetime) -> None:
    """Wait until the server has handed `worker` a workflow task of this run after `since`."""
    async with asyncio.timeout(30):
        while not any(task.at > since and task.worker.startswith(f"{worker.pid}@") for task in await tasks_of(handle)):
            await asyncio.sleep(0.05)


async def tasks_of(handle: WorkflowHandle[Any, Any]) -> list[Handed]:
    found: dict[int, Handed] = {}
    async for event in handle.fetch_history_events():
        if event.HasField("workflow_task_started_event_attributes"):
            began = event.event_time.ToDatetime(UTC)
            found[event.event_id] = Handed(began, event.workflow_task_started_event_attributes.identity, lost=False)
        if event.HasField("workflow_task_timed_out_event_attributes"):
            timed_out = event.workflow_task_timed_out_event_attributes
            if timed_out.timeout_type == TimeoutType.TIMEOUT_TYPE_START_TO_CLOSE:
                found[timed_out.started_event_id] = replace(found[timed_out.started_event_id], lost=True)
    return list(found.values())


async def attempts_of(handle: WorkflowHandle[Any, Any]) -> list[Attempt]:
    kinds: dict[int, str] = {}
    found = []
    async for event in handle.fetch_history_events():
        if event.HasField("activity_task_scheduled_event_attributes"):
            kinds[event.event_id] = event.activity_task_scheduled_event_attributes.activity_type.name
        if event.HasField("activity_task_started_event_attributes"):
            started = event.activity_task_started_event_attributes
            began = event.event_time.ToDatetime(UTC)
            found.append(Attempt(kinds[started.scheduled_event_id], started.attempt, began, started.identity))
    return found


async def ending(handle: WorkflowHandle[Any, RunResult], journal: Path) -> Ending:
    result = await handle.result()
    entries = [json.loads(line) for line in journal.read_text().splitlines()]
    described = await handle.describe()
    assert described.close_time is not None
    return Ending(
        result,
        await attempts_of(handle),
        await tasks_of(handle),
        [one for one in entries if one["run"] == handle.id],
        described.close_time,
    )


def running(site: Site, temporal: DevServer, **environment: str) -> Any:
    settings = {
        "MANDATE_FOLDER": str(site.folder),
        "MANDATE_AGENTS": str(site.folder / "agents"),
        "MANDATE_TASK_QUEUE": site.queue,
        "TEMPORAL_ADDRESS": temporal.address,
    }
    return processes(site.folder / "processes", **settings, **environment)


@asynccontextmanager
async def other_side(client: Client, queue: str) -> AsyncIterator[asyncio.Event]:
    """A worker of somebody else whose activity `elsewhere` is done once the event is set."""
    release = asyncio.Event()

    @activity.defn
    async def elsewhere(arguments: dict[str, str]) -> str:
        await release.wait()
        return arguments["word"]

    async with Worker(client, task_queue=queue, activities=[elsewhere]):
        yield release


async def second_worker(started: Processes, site: Site) -> Process:
    """A worker that polls for everything: it says that it is there just before it does."""
    worker = await started.worker()
    async with asyncio.timeout(60):
        for kind in (TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW, TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY):
            request = DescribeTaskQueueRequest(
                namespace=site.client.namespace, task_queue=TaskQueue(name=site.queue), task_queue_type=kind
            )
            while True:
                described = await site.client.workflow_service.describe_task_queue(request)
                if any(poller.identity.startswith(f"{worker.pid}@") for poller in described.pollers):
                    break
                await asyncio.sleep(0.05)
    return worker


@pytest.fixture(scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory, client: Client, temporal: DevServer) -> AsyncIterator[Scene]:
    site = new_site(tmp_path_factory.mktemp("killed"), client)
    journal, remote = site.folder / "journal", f"{site.queue}-remote"
    for name, turn in TURNS.items():
        write(site, name, turn, remote)
    with running(site, temporal, **{JOURNAL: str(journal)}) as started:
        async with other_side(client, remote) as release:
            yield await play(site, started, release, journal)


async def play(site: Site, started: Processes, release: asyncio.Event, journal: Path) -> Scene:
    doomed = await started.worker()
    runs = {name: await site.start(name) for name in TURNS}
    kinds = {"model": "call_model", "idle": "elsewhere"}
    await asyncio.gather(*(in_the_middle(runs[name], kinds.get(name, "run_tool")) for name in TURNS))
    successor = await second_worker(started, site)

    killed_at = datetime.now(UTC)
    doomed.send(signal.SIGKILL)
    # Time for the server to see the connection break: what it hands over before that is lost, which is another test's.
    await asyncio.sleep(0.3)
    released_at = datetime.now(UTC)
    release.set()

    async with asyncio.timeout(120):
        endings = await asyncio.gather(*(ending(run, journal) for run in runs.values()))
    return Scene(dict(zip(runs, endings, strict=True)), killed_at, released_at, f"{successor.pid}@")


@pytest.mark.alone
@pytest.mark.parametrize(
    ("name", "kind", "attempt", "heartbeat"),
    [
        ("model", "call_model", 2, HEARTBEAT),
        # Three and a half seconds with the margin.
        ("read", "run_tool", 2, REPEATED_HEARTBEAT),
        ("keyed", "run_tool", 2, REPEATED_HEARTBEAT),
        ("idle", "call_model", 1, timedelta(0)),
    ],
)
async def test_another_worker_goes_on_within_the_heartbeat_timeout_and_a_second(
    scene: Scene, name: str, kind: str, attempt: int, heartbeat: timedelta
) -> None:
    first, waited = scene.taken_up(name)

    print(f"{name}: taken up {waited.total_seconds():.2f} s late, heartbeat timeout {heartbeat}")
    assert (first.kind, first.number) == (kind, attempt)
    assert first.worker.startswith(scene.successor)
    assert waited <= scene.at_most(name, heartbeat)


@pytest.mark.alone
async def test_task_that_was_handed_to_a_dying_worker_is_taken_up_within_the_task_timeout_and_a_second(
    tmp_path: Path, client: Client, temporal: DevServer
) -> None:
    """A process that stands still keeps its polls open: what the server hands it then dies with it."""
    site, journal = new_site(tmp_path, client), tmp_path / "journal"
    remote = f"{site.queue}-remote"
    write(site, "idle", TURNS["idle"], remote)
    with running(site, temporal, **{JOURNAL: str(journal)}) as started:
        async with other_side(client, remote) as release, asyncio.timeout(180):
            doomed = await started.worker()
            run = await site.start("idle")
            await in_the_middle(run, "elsewhere")
            successor = await second_worker(started, site)

            doomed.send(signal.SIGSTOP)
            released_at = datetime.now(UTC)
            release.set()
            await handed_to(run, doomed, released_at)
            doomed.send(signal.SIGKILL)
            ended = await ending(run, journal)

    first = first_after(released_at, ended.attempts)
    waited = handed_over(ended, f"{successor.pid}@", released_at) - released_at
    print(f"handed to the dying: taken up {waited.total_seconds():.2f} s late, task timeout {TASK_TIMEOUT}")
    assert [task.worker.partition("@")[0] for task in ended.tasks if task.lost] == [str(doomed.pid)]
    assert first.worker.startswith(f"{successor.pid}@")
    assert waited <= TASK_TIMEOUT + MARGIN
    assert [entry["word"] for entry in ended.journal] == ["before", "after"]
    assert ended.result.status is RunStatus.COMPLETED


@pytest.mark.alone
async def test_worker_killed_in_a_local_activity_costs_the_task_timeout_and_nothing_is_lost(
    tmp_path: Path, client: Client, temporal: DevServer
) -> None:
    """The call is part of a workflow task, which nobody misses before its own time is over."""
    site, journal = new_site(tmp_path, client), tmp_path / "journal"
    turns = [{"call": [{"read_first_slowly": {"word": word}}]} for word in ("before", "middle", "after")]
    site.write("local", [*turns, DONE], tools=[{"python": f"{MODULE}:read_first_slowly"}], policy=ALLOW_ALL)
    with running(site, temporal, **{JOURNAL: str(journal)}) as started:
        async with asyncio.timeout(180):
            doomed = await started.worker()
            run = await site.start("local")
            while not journal.is_file() or '"middle"' not in journal.read_text():
                await asyncio.sleep(0.01)
            doomed.send(signal.SIGKILL)
            killed_at = datetime.now(UTC)
            successor = await second_worker(started, site)
            ended = await ending(run, journal)

    waited = handed_over(ended, f"{successor.pid}@", killed_at) - killed_at
    print(f"local: taken up {waited.total_seconds():.2f} s late, task timeout {TASK_TIMEOUT}")
    assert [entry["word"] for entry in ended.journal] == ["before", "middle", "middle", "after"]
    assert [task.worker.partition("@")[0] for task in ended.tasks if task.lost] == [str(doomed.pid)]
    assert [attempt.kind for attempt in ended.attempts].count("run_tool") == 1
    assert ended.result.status is RunStatus.COMPLETED
    assert waited <= TASK_TIMEOUT + MARGIN


@pytest.mark.alone
@pytest.mark.parametrize("name", ["model", "read", "keyed", "idle"])
async def test_finished_steps_are_not_repeated(scene: Scene, name: str) -> None:
    ended = scene.endings[name]

    words = [entry["word"] for entry in ended.journal]

    expected = {"idle": ["before", "after"], "model": ["before", "middle", "after"]}
    assert words == expected.get(name, ["before", "middle", "middle", "after"])
    assert [attempt.number for attempt in ended.attempts if attempt.number > 1] == ([] if name == "idle" else [2])
    assert ended.result.status is RunStatus.COMPLETED
    assert ended.result.output == "done"


@pytest.mark.alone
async def test_keyed_effect_is_tried_again_with_its_key(scene: Scene) -> None:
    ended = scene.endings["keyed"]

    calls = [entry for entry in ended.journal if entry["tool"] == "pay_slowly"]

    assert [call["attempt"] for call in calls] == [1, 2]
    assert calls[0]["key"] == calls[1]["key"] == ended.result.effects.last[0].key
    assert calls[0]["pid"] != calls[1]["pid"]
    assert ended.result.effects.count == 1


NOBODY_ANSWERS = timedelta(seconds=1)
"""How long the run asks people what became of the call; nobody does in these tests."""


@pytest.mark.alone
async def test_effect_that_may_happen_once_is_not_tried_again(scene: Scene) -> None:
    ended = scene.endings["once"]

    waited = ended.closed - scene.killed_at

    print(f"once: declined {waited.total_seconds():.2f} s after the kill")
    assert [entry["word"] for entry in ended.journal] == ["before", "middle"]
    assert ended.result.status is RunStatus.DECLINED
    assert [entry.call for entry in ended.result.uncertain] == ["send_slowly word=middle"]
    assert ended.result.effects.count == 0
    assert waited <= EFFECT_HEARTBEAT + MARGIN + NOBODY_ANSWERS


async def test_worker_that_is_told_to_stop_finishes_its_model_call(
    tmp_path: Path, client: Client, temporal: DevServer
) -> None:
    site = new_site(tmp_path, client)
    write(site, "slow", {"delay": "4s", "call": [{"note": {"word": "middle"}}]}, "nowhere")
    with running(site, temporal, **{JOURNAL: str(tmp_path / "journal")}) as started:
        first = await started.worker()
        run = await site.start("slow")
        await in_the_middle(run, "call_model")

        first.send(signal.SIGTERM)
        second = await started.worker()
        async with asyncio.timeout(90):
            result = await run.result()

        assert await first.ended() == 0
        attempts = await attempts_of(run)
        second.send(signal.SIGTERM)
        assert await second.ended() == 0
    assert result.status is RunStatus.COMPLETED
    assert {attempt.number for attempt in attempts} == {1}
    calls = [attempt for attempt in attempts if attempt.kind == "call_model"]
    assert calls[1].worker.startswith(f"{first.pid}@")
    assert calls[2].worker.startswith(f"{second.pid}@")
