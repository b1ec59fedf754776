"""A run whose workflow task fails again and again says so to those who ask; recovery.md says how to mend it."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError
from temporalio.worker import (
    Replayer,
    UnsandboxedWorkflowRunner,
    Worker,
    WorkflowInstance,
    WorkflowInstanceDetails,
)

from mandate.workers.client import answers
from mandate.workers.client.answers import NotAnswering
from mandate.workers.client.diagnosis import TIMED_OUT, Diagnosis, diagnose
from mandate.workers.converter import data_converter
from mandate.workers.dev_server.server import DevServer
from mandate.workers.sandbox import Uninterrupted, workflow_runner
from mandate.workflows.agent import AgentWorkflow
from mandate.workflows.contracts.run import RunResult, RunStatus
from tests.support.agents import Site, new_site
from tests.support.bare_worker import activity_worker, bare_worker
from tests.support.gate_workflow import GateWorkflow
from tests.support.people import asked, decide, send_update, write_people
from tests.support.place import BIN, Done
from tests.support.processes import PROJECT
from tests.support.temporal_cli import new_shell
from tests.support.toolkit import LET_GO, calls_of

Handle = WorkflowHandle[Any, Any]

TASK_TIMEOUT = timedelta(seconds=1)
"""The SDK reports the first failure only: each attempt after it takes so long."""

BY = "ann@example.com"

TURNS: list[Any] = [
    {"call": [{"send": {"to": "ann"}}, {"look": {"what": "a", "held": True}}]},
    {"call": [{"pay": {"order": 1}}]},
    {"say": "done"},
]
POLICY: list[Any] = [
    {"id": "sent", "match": {"tools": ["send", "look"]}, "verdict": "allow"},
    {"id": "asked", "match": {"tools": ["pay"]}, "verdict": "ask", "approvers": {"groups": ["finance"]}},
]


async def diagnosed(client: Client, handle: Handle) -> Diagnosis:
    async with asyncio.timeout(30):
        while (found := await diagnose(client, handle.id)) is None:
            await asyncio.sleep(0.1)
    return found


class Broken(Uninterrupted):
    """A run whose tasks fail, after so many seconds for the first of them."""

    def __init__(self, instance: WorkflowInstance, seconds: list[float]) -> None:
        super().__init__(instance)
        self._seconds = seconds

    def activate(self, act: Any) -> Any:
        if any(job.HasField("remove_from_cache") for job in act.jobs):
            return self._instance.activate(act)
        time.sleep(self._seconds.pop() if self._seconds else 0)
        raise RuntimeError("the shelf\nis empty")


class BreakingRunner(UnsandboxedWorkflowRunner):
    def __init__(self, *seconds: float) -> None:
        super().__init__()
        self._left = list(seconds)

    def create_instance(self, det: WorkflowInstanceDetails) -> WorkflowInstance:
        return Broken(super().create_instance(det), self._left)


@asynccontextmanager
async def broken(client: Client, *seconds: float) -> AsyncIterator[Handle]:
    queue = f"broken-{uuid4().hex[:6]}"
    async with Worker(client, task_queue=queue, workflows=[GateWorkflow], workflow_runner=BreakingRunner(*seconds)):
        handle = await client.start_workflow(
            "Gate", args=["none", queue], id=queue, task_queue=queue, task_timeout=TASK_TIMEOUT
        )
        try:
            yield handle
        finally:
            await handle.terminate()


async def test_a_task_that_fails_again_and_again_is_told_with_its_failure(client: Client) -> None:
    async with broken(client) as handle:
        found = await diagnosed(client, handle)

    attempt = found.attempt
    assert attempt >= 3
    assert found == Diagnosis(attempt, "WORKFLOW_WORKER_UNHANDLED_FAILURE", "the shelf is empty", 4)
    assert found.sentence == (
        f"its workflow task fails again and again (attempt {attempt}): the shelf is empty; "
        "deploy/docs/recovery.md says how to reset it"
    )


async def test_a_task_that_is_not_done_in_time_is_not_said_to_fail(client: Client) -> None:
    async with broken(client, 1.5) as handle:
        found = await diagnosed(client, handle)

    assert (found.cause, found.is_failing) == (TIMED_OUT, False)
    assert found.sentence == (
        f"its workflow task is not done in time (attempt {found.attempt}): its workers are too busy for it, "
        "or it fails on them; their logs say which"
    )


async def test_a_run_that_no_worker_takes_up_or_that_is_not_there_is_not_diagnosed(client: Client) -> None:
    queue = f"nobody-{uuid4().hex[:6]}"
    handle = await client.start_workflow("Gate", args=["none", queue], id=queue, task_queue=queue)

    assert await diagnose(client, handle.id) is None
    assert await diagnose(client, "not-there") is None
    await handle.terminate()
    assert await diagnose(client, handle.id) is None


def environment(site: Site) -> dict[str, str]:
    """What a process of ours there is told."""
    return {
        **os.environ,
        **site.environment,
        "TEMPORAL_ADDRESS": site.client.service_client.config.target_host,
        "MANDATE_FOLDER": str(site.folder),
        "MANDATE_AGENTS": str(site.folder / "agents"),
        "MANDATE_TASK_QUEUE": site.queue,
    }


@dataclass(frozen=True)
class Wedged:
    """A run whose history no replay follows: it was paused on what a query had shown too early."""

    site: Site
    handle: WorkflowHandle[Any, RunResult]
    diagnosis: Diagnosis

    async def type(self, *words: str) -> Done:
        """What a `mandate` command says."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            str(BIN / "mandate"),
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            env=environment(self.site),
        )
        async with asyncio.timeout(60):
            out, err = await process.communicate()
        assert process.returncode is not None
        return Done(process.returncode, out.decode(), err.decode())


@pytest.fixture(scope="module")
async def wedged(
    tmp_path_factory: pytest.TempPathFactory, client: Client, temporal: DevServer
) -> AsyncIterator[Wedged]:
    folder = tmp_path_factory.mktemp("wedged")
    site = new_site(folder, client, MANDATE_PEOPLE=str(write_people(folder)))
    site.write("asks", TURNS, policy=POLICY)
    async with activity_worker(temporal.address, site.settings):
        for _ in range(4):
            handle = await _taken_in_early(site)
            if await replay_failure(handle) is not None:
                break
            await handle.terminate()
    # Workers with receipts are no help any more.
    async with site.serving():
        with suppress(RPCError):
            await handle.signal("steer", {"text": "Be quick.", "by": BY})
        yield Wedged(site, handle, await diagnosed(client, handle))


async def _taken_in_early(site: Site) -> WorkflowHandle[Any, RunResult]:
    """A run that is paused after a query has run ahead to a result, each on a worker without receipts."""
    client, name = site.client, f"asks-{uuid4().hex[:6]}"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.bare_worker",
        stdout=asyncio.subprocess.PIPE, cwd=PROJECT, env=environment(site),
    )  # fmt: skip
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    handle = await client.start_workflow(
        "AgentWorkflow", {"agent": "asks", "input": "Pay.", "requester": "bob@example.com"}, id=name,
        task_queue=site.queue, task_timeout=TASK_TIMEOUT, result_type=RunResult,
    )  # fmt: skip
    async with asyncio.timeout(30):
        while not calls_of(name, "look"):
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)
    process.kill()
    await process.wait()
    query = asyncio.create_task(handle.query("open_requests"))
    await asyncio.sleep(0.7)
    LET_GO.add(name)
    await asyncio.sleep(0.3)
    async with bare_worker(client.service_client.config.target_host, site.settings):
        await query
        await send_update(handle, "pause", {"by": BY})
        await asyncio.sleep(1)
    return handle


async def replay_failure(handle: Handle) -> Exception | None:
    replayer = Replayer(
        workflows=[AgentWorkflow], data_converter=data_converter(), workflow_runner=workflow_runner(strict=True)
    )
    result = await replayer.replay_workflow(await handle.fetch_history(), raise_on_replay_failure=False)
    return result.replay_failure


def test_a_wedged_run_is_known_with_the_event_to_reset_it_to(wedged: Wedged) -> None:
    its = wedged.diagnosis

    assert its.cause == "NON_DETERMINISTIC_ERROR"
    assert its.message.startswith("[TMPRL1100] Nondeterminism error: ")
    assert its.reset_event_id is not None
    assert its.sentence.startswith(f"its workflow task fails again and again (attempt {its.attempt}): [TMPRL1100] ")
    assert its.sentence.endswith(f"; deploy/docs/recovery.md says how to reset it, to event {its.reset_event_id}")


async def test_clients_are_told_that_it_fails_and_not_that_no_worker_is_there(wedged: Wedged) -> None:
    with pytest.raises(NotAnswering, match=r"fails again and again .* \[TMPRL1100\]") as told:
        await answers.open_requests(wedged.site.client, wedged.handle.id)

    assert told.value.diagnosis is not None
    assert told.value.diagnosis.reset_event_id == wedged.diagnosis.reset_event_id


async def test_show_and_inbox_say_what_fails(wedged: Wedged) -> None:
    run = wedged.handle.id
    shown, as_json, listed, listed_json, decided = await asyncio.gather(
        wedged.type("show", run),
        wedged.type("show", run, "-o", "json"),
        wedged.type("inbox", "--scan"),
        wedged.type("inbox", "--scan", "-o", "json"),
        wedged.type("approve", f"{run}:r1", "--by", BY),
    )

    told = "its workflow task fails again and again (attempt "
    assert shown.code == 0
    assert told in " ".join(shown.out.split())
    task = json.loads(as_json.out)["workflow_task"]
    assert (task["cause"], task["reset_event_id"]) == ("NON_DETERMINISTIC_ERROR", wedged.diagnosis.reset_event_id)
    assert any(run in line and told in line for line in listed.err.splitlines())
    (silent,) = [one for one in json.loads(listed_json.out)["silent"] if one["workflow_id"] == run]
    assert told in silent["reason"]
    assert silent["workflow_task"]["cause"] == "NON_DETERMINISTIC_ERROR"
    assert decided.code == 2
    assert told in decided.err
    assert "start one with" not in decided.err


async def test_a_reset_as_on_the_page_lets_it_go_on(wedged: Wedged, temporal: DevServer, tmp_path: Path) -> None:
    """The last test of this run: the result stays, the pause comes again, in order."""
    handle, to = wedged.handle, wedged.diagnosis.reset_event_id
    shell = new_shell(temporal, tmp_path / "bin")
    await shell.out(f"temporal workflow reset -w {handle.id} --event-id {to} --reason wedged")

    again: WorkflowHandle[Any, RunResult] = wedged.site.client.get_workflow_handle(handle.id, result_type=RunResult)
    await send_update(again, "resume", {"by": BY})
    (request,) = await asked(again)
    await decide(again, request)
    result = await again.result()

    assert result.status is RunStatus.COMPLETED
    assert len(calls_of(handle.id, "send")) == 1, "what was done before that task stays done"
    assert await replay_failure(again) is None
