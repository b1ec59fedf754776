"""Workers are killed while runs go on: each span comes to the collector, and an id never stands for two spans."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle

from mandate.workers.dev_server.server import DevServer
from tests.support.agents import Site, new_site
from tests.support.otlp_receiver import Receiver, receiving
from tests.support.people import ASK_ALL, asked, decide, write_people
from tests.support.processes import Process, Processes, processes

STEPS = 12
LOOK = {"call": [{"look": {"what": "shelf", "seconds": 0.15}}]}
TURNS = [*[LOOK] * STEPS, {"say": "done"}]
WANTED = sorted(
    ["invoke_agent busy", "end completed"]
    + ["chat busy.script.yaml"] * (STEPS + 1)
    + ["judge look", "execute_tool look"] * STEPS
)

pytestmark = pytest.mark.alone


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Processes]:
    with processes(tmp_path) as started:
        yield started


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    site = new_site(tmp_path, client)
    site.write("busy", TURNS)
    return site


async def serve(started: Processes, site: Site, temporal: DevServer, receiver: Receiver) -> Process:
    return await started.worker(
        MANDATE_FOLDER=str(site.folder),
        MANDATE_AGENTS=str(site.folder / "agents"),
        MANDATE_TASK_QUEUE=site.queue,
        TEMPORAL_ADDRESS=temporal.address,
        OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
        OTEL_SERVICE_NAME="shop-agents",
        **site.environment,
    )


def log_of(worker: Process) -> list[dict[str, Any]]:
    return [json.loads(line) for line in worker.stderr().splitlines() if line.startswith("{")]


async def ended(handles: list[WorkflowHandle[Any, Any]], receiver: Receiver) -> None:
    await asyncio.gather(*(handle.result() for handle in handles))
    await receiver.until(lambda: all("end completed" in receiver.names(handle.id) for handle in handles), seconds=90)


async def test_killed_in_the_middle_again_and_again(
    site: Site, started: Processes, temporal: DevServer, receiver: Receiver
) -> None:
    worker = await serve(started, site, temporal, receiver)
    handles = [await site.start("busy") for _ in range(4)]

    for pause in (2.2, 2.7, 1.4):
        await asyncio.sleep(pause)
        worker.send(signal.SIGKILL)
        worker = await serve(started, site, temporal, receiver)
        await ended(handles, receiver)

    for handle in handles:
        spans = receiver.of(handle.id)
        assert sorted(span.name for span in spans) == WANTED
        known = {span.span_id for span in spans}
        assert [span.name for span in spans if span.parent_id not in known] == ["invoke_agent busy"]
    # Where a worker dies between an export and the move of its cursor, the same span comes again.
    assert len(set(map(repr, receiver.repeated()))) <= len(receiver.repeated()) / 2
    assert {dict(span.resource)["service.name"] for span in receiver.spans} == {"shop-agents"}
    called = [line for each in started.started for line in log_of(each) if line["event"] == "tool_called"]
    tools = {
        (span.attributes["mandate.run.id"], span.attributes["mandate.step"], span.trace_id, span.span_id)
        for span in receiver.spans
        if span.name == "execute_tool look"
    }
    assert tools
    assert {(line["run_id"], line["step"], line["trace_id"], line["span_id"]) for line in called} == tools
    assert {line["call"] for line in called} == {0}


async def test_no_line_at_info_has_a_text_of_people_or_models(
    tmp_path: Path, client: Client, started: Processes, temporal: DevServer, receiver: Receiver
) -> None:
    site = new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))
    question = {"call": [{"ask_person": {"question": "Which coffee, dear?"}}]}
    pay = {"say": "I pay now.", "call": [{"pay": {"order": 4711, "amount": 120.5}}]}
    site.write("asks", [question, pay, {"say": "All is well."}], policy=ASK_ALL)
    worker = await serve(started, site, temporal, receiver)

    handle = await site.start("asks", "Please buy a machine.", requester="eve@example.com")
    (asking,) = await asked(handle)
    await decide(handle, asking, "answer", value="The dark one.")
    (paying,) = await asked(handle)
    await handle.signal("steer", {"text": "Hurry up.", "by": "ann@example.com"})
    await decide(handle, paying, comment="As agreed on.")
    await handle.result()

    lines = [json.dumps(line) for line in log_of(worker) if line["level"] == "info"]
    assert len(lines) >= 8
    for text in ("coffee", "pay now", "4711", "120.5", "is well", "machine", "dark one", "Hurry", "agreed"):
        assert [line for line in lines if text in line] == []


async def test_runs_that_ended_with_their_worker_are_made_up_for(
    site: Site, started: Processes, temporal: DevServer, receiver: Receiver
) -> None:
    receiver.refuses = True
    worker = await serve(started, site, temporal, receiver)
    handle, stopped = await site.start("busy"), await site.start("busy")
    await asyncio.sleep(2)
    await stopped.terminate()
    await handle.result()
    worker.send(signal.SIGKILL)
    assert receiver.spans == []

    receiver.refuses = False
    await serve(started, site, temporal, receiver)
    await receiver.until(lambda: {"end completed"} <= set(receiver.names(handle.id)), seconds=60)
    await receiver.until(lambda: {"end terminated"} <= set(receiver.names(stopped.id)), seconds=60)

    assert sorted(receiver.names(handle.id)) == WANTED
    assert receiver.repeated() == []
