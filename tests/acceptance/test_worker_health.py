"""A worker as its supervisor sees it: probes, drain, exit codes."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from temporalio.client import Client

from mandate.workers.dev_server.server import DevServer
from mandate.workflows.contracts.run import RunStatus
from tests.support.agents import Site, new_site
from tests.support.grpc_proxy import grpc_proxy
from tests.support.ports import free_port
from tests.support.postgres import running_postgres
from tests.support.processes import Process, Processes, processes

DONE = {"say": "done"}
SLOW = {"call": [{"look": {"what": "a shelf", "seconds": 60}}]}


async def ask(port: int, path: str) -> tuple[int, dict[str, Any]]:
    """Code and body of one probe; code 0 where nobody listens."""
    async with httpx2.AsyncClient(timeout=10) as web:
        try:
            answer = await web.get(f"http://127.0.0.1:{port}{path}")
        except httpx2.TransportError:
            return 0, {}
    return answer.status_code, answer.json()


async def becomes(port: int, code: int, seconds: float = 60.0) -> dict[str, Any]:
    """The body of `/ready` once it is answered with `code`."""
    deadline = time.monotonic() + seconds
    while True:
        found, body = await ask(port, "/ready")
        if found == code:
            return body
        assert time.monotonic() < deadline, f"/ready still answers {found}: {body}"
        await asyncio.sleep(0.1)


@asynccontextmanager
async def supervised(
    site: Site, address: str, *words: str, **environment: str
) -> AsyncIterator[tuple[Processes, Process, int]]:
    """A worker that answers probes at a port."""
    port = free_port()
    variables = {
        "TEMPORAL_ADDRESS": address,
        "MANDATE_FOLDER": str(site.folder),
        "MANDATE_AGENTS": str(site.folder / "agents"),
        "MANDATE_TASK_QUEUE": site.queue,
        **environment,
    }
    with processes(site.folder / "processes", **variables) as started:
        yield started, started.mandate("worker", "--health", f"127.0.0.1:{port}", *words), port


async def test_ready_tells_the_agents_and_what_does_not_answer(
    tmp_path: Path, client: Client, temporal: DevServer
) -> None:
    async with running_postgres() as postgres, grpc_proxy(temporal.address) as proxy:
        site = new_site(tmp_path, client)
        site.write("looker", [DONE])
        store = await postgres.new_database()
        async with supervised(site, proxy.address, MANDATE_STORE=store) as (_, worker, port):
            ready = await becomes(port, 200)

            await postgres.stop()
            without_store = await becomes(port, 503)
            live_without_store = await ask(port, "/live")
            await postgres.start()
            with_store = await becomes(port, 200)

            await proxy.stop()
            without_temporal = await becomes(port, 503)
            live_without_temporal = await ask(port, "/live")
            await proxy.start()
            again = await becomes(port, 200)

            worker.send(signal.SIGTERM)
            assert await worker.ended() == 0

    assert ready["status"] == "ready"
    assert ready["task_queue"] == site.queue
    assert list(ready["agents"]) == ["looker"]
    assert ready["checks"] == with_store["checks"] == again["checks"] == {"polls": "ok", "store": "ok"}
    assert "did not answer" in without_store["checks"]["store"]
    assert "mandate:" not in json.dumps(without_store)
    assert without_temporal["checks"]["polls"] != "ok"
    assert live_without_store == live_without_temporal == (200, {"status": "live"})


async def in_a_call(site: Site, client: Client) -> Any:
    """A run whose tool is at work."""
    run = await site.start("looker")
    async with asyncio.timeout(60):
        while True:
            pending = (await run.describe()).raw_description.pending_activities
            if any(one.activity_type.name == "run_tool" and one.HasField("last_started_time") for one in pending):
                return run
            await asyncio.sleep(0.05)


async def test_a_stopping_worker_is_not_ready_and_lets_a_call_finish(
    tmp_path: Path, client: Client, temporal: DevServer
) -> None:
    site = new_site(tmp_path, client)
    site.write("looker", [{"call": [{"look": {"what": "a shelf", "seconds": 6}}]}, DONE])
    async with supervised(site, temporal.address, "--drain", "60s") as (started, worker, port):
        await becomes(port, 200)
        run = await in_a_call(site, client)

        worker.send(signal.SIGTERM)
        draining = await becomes(port, 503)
        live = await ask(port, "/live")
        code = await worker.ended()
        events = [event async for event in run.fetch_history_events()]
        second = await started.worker()
        result = await run.result()

    assert (draining, live, code) == ({"status": "draining"}, (200, {"status": "live"}), 0)
    assert not any(event.HasField("activity_task_failed_event_attributes") for event in events)
    assert result.status is RunStatus.COMPLETED
    assert second.process.poll() is not None


async def test_a_call_that_outlasts_the_drain_is_a_lost_attempt(
    tmp_path: Path, client: Client, temporal: DevServer
) -> None:
    site = new_site(tmp_path, client)
    site.write("looker", [SLOW, DONE])
    async with supervised(site, temporal.address, MANDATE_DRAIN="1s") as (_, worker, port):
        await becomes(port, 200)
        await in_a_call(site, client)

        worker.send(signal.SIGTERM)
        code = await worker.ended(30)

    assert code == 0


async def test_a_second_signal_ends_it_at_once(tmp_path: Path, client: Client, temporal: DevServer) -> None:
    site = new_site(tmp_path, client)
    site.write("looker", [SLOW, DONE])
    async with supervised(site, temporal.address, "--drain", "1h") as (_, worker, port):
        await becomes(port, 200)
        await in_a_call(site, client)

        worker.send(signal.SIGTERM)
        await becomes(port, 503)
        worker.send(signal.SIGTERM)
        code = await worker.ended(30)

    assert code == 130


@pytest.mark.parametrize(
    ("words", "environment", "code", "said"),
    [
        ((), {"TEMPORAL_ADDRESS": "127.0.0.1:1"}, 75, "no Temporal server at '127.0.0.1:1'"),
        ((), {"MANDATE_STORE": "postgresql://mandate@127.0.0.1:1/store"}, 75, "did not answer"),
        (("--agents", "nowhere"), {}, 2, "there are no agents"),
        (("--drain", "soon"), {}, 2, "--drain 'soon': a duration is a number and a unit"),
        (("--drain", "2d"), {}, 2, "--drain '2d': it is a duration of at most 1d"),
        ((), {"MANDATE_DRAIN": "30"}, 2, "MANDATE_DRAIN '30': a duration is a number and a unit"),
        (("--health", "8080"), {}, 2, "--health '8080' is not an address to listen at; allowed are ':8080'"),
        ((), {"MANDATE_HEALTH": ":99999"}, 2, "MANDATE_HEALTH ':99999' is not an address to listen at"),
        (("--health", "192.0.2.1:8080"), {}, 2, "cannot tell its health at 192.0.2.1:8080"),
        ((), {"MANDATE_SECRETS": "/nowhere"}, 2, "MANDATE_SECRETS: '/nowhere' is no folder that is there"),
        (("--health", ":0", "--watch"), {}, 2, "--health and --watch do not go together"),
    ],
)
async def test_exit_codes_say_whether_a_new_start_may_help(
    tmp_path: Path,
    client: Client,
    temporal: DevServer,
    words: tuple[str, ...],
    environment: dict[str, str],
    code: int,
    said: str,
) -> None:
    site = new_site(tmp_path, client)
    site.write("looker", [DONE])
    variables = {
        "TEMPORAL_ADDRESS": temporal.address,
        "MANDATE_FOLDER": str(tmp_path),
        "MANDATE_AGENTS": str(tmp_path / "agents"),
        "MANDATE_TASK_QUEUE": site.queue,
    }
    with processes(tmp_path / "processes", **(variables | environment)) as started:
        worker = started.mandate("worker", *words)
        ended = await worker.ended()

    assert ended == code, worker.stderr()
    assert said in worker.stderr()
    assert "Traceback" not in worker.stderr()
