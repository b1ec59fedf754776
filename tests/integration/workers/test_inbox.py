"""What client code does with runs that wait for people, against a real server."""

import asyncio
import socket
import time
from pathlib import Path
from uuid import uuid4

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from mandate.workers.client import answers, inbox, messages
from mandate.workers.client.client import AgentClient, connect
from mandate.workers.client.trees import Place
from mandate.workers.dev_server.server import run_private_server
from mandate.workflows.contracts.request import Decision, Request
from tests.support import interrupted_workflow
from tests.support.agents import Site, new_site
from tests.support.asking_workflow import AskingWorkflow
from tests.support.interrupted_workflow import EndingWorkflow, InterruptedWorkflow
from tests.support.people import ASK_ALL, asked, write_people


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))


def approval(request: Request, by: str = "ann@example.com", choice: str = "approve") -> Decision:
    return Decision(request=request.id, digest=request.digest, choice=choice, by=by)


async def test_run_that_waits_is_found_by_group_and_agent_and_approved(site: Site) -> None:
    site.write("payer", [{"call": [{"pay": {"order": 1, "amount": 7}}]}, {"say": "Paid."}], policy=ASK_ALL)
    async with site.serving():
        handle = await site.start("payer")
        (request,) = await asked(handle)
        found = await _found(site.agents, handle.id, agent="payer", group="finance")
        others = await site.agents.inbox(agent="payer", group="legal")

        receipt = await site.agents.decide(handle.id, approval(request))
        result = await handle.result()

    assert not found.scanned
    assert [run.requests for run in found.runs if run.workflow_id == handle.id] == [(request,)]
    assert handle.id not in [run.workflow_id for run in others.runs]
    assert (receipt.status, receipt.message) == ("approved", "r1 is approved: ann@example.com approved it")
    assert (result.status, result.effects.count) == ("completed", 1)


async def test_a_child_that_waits_is_found_like_any_run_and_by_its_tree(site: Site) -> None:
    site.write("boss", [{"call": [{"payer": {"task": "pay"}}]}, {"say": "done"}], tools=[{"agent": "payer"}])
    site.write("payer", [{"call": [{"pay": {"order": 1, "amount": 7}}]}, {"say": "Paid."}], policy=ASK_ALL)
    async with site.serving():
        handle, other = await site.start("boss"), await site.start("boss")
        child = f"{handle.id}/c1"
        found = await _found(site.agents, child, agent="payer", group="finance")
        await _found(site.agents, f"{other.id}/c1", root=other.id)
        of_tree = await _found(site.agents, child, root=handle.id)
        everything, _ = await inbox.open_runs(site.client, root=handle.id, scan=True)
        (request,) = of_tree.runs[0].requests
        await site.agents.decide(child, approval(request))
        result = await handle.result()
        await other.terminate()

    assert not found.scanned
    assert [run.workflow_id for run in of_tree.runs] == [child]
    assert of_tree.places == {child: Place(parent=handle.id, root=handle.id)}
    assert {run.workflow_id: run.place for run in everything} == {handle.id: Place(), **of_tree.places}
    assert (result.status, result.effects.count) == ("completed", 1)


async def _found(agents: AgentClient, workflow_id: str, **wanted: str) -> inbox.Inbox:
    """The inbox, once the run is listed: what a run upserts is listed a moment later."""
    async with asyncio.timeout(30):
        while True:
            found = await agents.inbox(**wanted)
            if workflow_id in [run.workflow_id for run in found.runs]:
                return found
            await asyncio.sleep(0.1)


async def test_refusals_are_sentences_and_the_same_words_can_be_sent_again(site: Site) -> None:
    site.write("payer", [{"call": [{"pay": {"order": 1, "amount": 7}}]}, {"say": "Paid."}], policy=ASK_ALL)
    people = Path(site.environment["MANDATE_PEOPLE"])
    everybody = people.read_text()
    async with site.serving():
        handle = await site.start("payer", requester="cleo@example.com")
        (request,) = await asked(handle)
        refused = [
            await _refusal(site, handle.id, approval(request, "dan@example.com")),
            await _refusal(site, handle.id, approval(request, "cleo@example.com")),
            await _refusal(site, handle.id, approval(request.model_copy(update={"id": "r9"}))),
        ]
        # A person joins the group: what was refused before counts now.
        people.write_text(
            everybody.replace(
                '"name": "dan@example.com", "groups": []', '"name": "dan@example.com", "groups": ["finance"]'
            )
        )
        receipt = await site.agents.decide(handle.id, approval(request, "dan@example.com"))
        await handle.result()
        late = await _refusal(site, handle.id, approval(request))

    assert refused == [
        "by: 'dan@example.com' may not decide on r1: group finance",
        "by: 'cleo@example.com' asked for this run and cannot decide for it",
        "request: 'r9' is not a request of this run; open are: r1",
    ]
    assert receipt.status == "approved"
    assert late == f"run {handle.id!r} is over"
    assert await _refusal(site, "no-such-run", approval(request)) == "there is no run 'no-such-run'"


async def _refusal(site: Site, workflow_id: str, decision: Decision) -> str:
    with pytest.raises(messages.MessageError) as refused:
        await site.agents.decide(workflow_id, decision)
    return str(refused.value)


async def test_many_requests_of_one_run_are_decided_by_two_people_at_once(site: Site) -> None:
    count = 200
    calls = [{"pay": {"order": amount, "amount": 1}} for amount in range(count)]
    rule = {**ASK_ALL[0], "quorum": 2, "expires": "10m"}
    site.write("payer", [{"call": calls}, {"say": "Paid."}], policy=[rule, ASK_ALL[1]])
    async with site.serving():
        handle = await site.start("payer")
        requests = await asked(handle, count)

        # Together more than the ten updates that the server takes at a time.
        outcomes = await asyncio.gather(
            *(
                site.agents.decide_many([(handle.id, approval(request, by)) for request in requests])
                for by in ("ann@example.com", "bob@example.com")
            )
        )
        result = await handle.result()

    told = [outcome for person in outcomes for outcome in person]
    assert [outcome.error for outcome in told if outcome.error is not None] == []
    statuses = [outcome.receipt.status for outcome in told if outcome.receipt is not None]
    assert (statuses.count("recorded"), statuses.count("approved")) == (count, count)
    assert result.effects.count == count


async def test_run_is_steered_paused_resumed_and_stopped(site: Site) -> None:
    site.write("payer", [{"call": [{"pay": {"order": 1, "amount": 7}}]}, {"say": "Paid."}], policy=ASK_ALL)
    async with site.serving():
        handle = await site.start("payer")
        await asked(handle)

        steered = await site.agents.steer(handle.id, "Be kind.", by="ann@example.com")
        paused = await site.agents.pause(handle.id, by="ann@example.com", reason="lunch")
        resumed = await site.agents.resume(handle.id, by="ann@example.com")
        await site.agents.stop(handle.id, by="ann@example.com", reason="enough")
        result = await handle.result()

    assert (steered.status, paused.status, resumed.status) == ("waiting", "paused", "waiting")
    assert (result.status, result.reason) == ("stopped", "stopped by ann@example.com: enough")


async def test_runs_are_scanned_where_search_attributes_are_missing_and_silent_ones_are_named() -> None:
    async with run_private_server() as server:
        client = await connect(address=server.address)
        queue, nobodys = f"asking-{uuid4().hex[:8]}", f"nobody-{uuid4().hex[:8]}"
        async with Worker(client, task_queue=queue, workflows=[AskingWorkflow]):
            for name, group, served in (("a", "finance", queue), ("b", "legal", queue), ("c", "legal", nobodys)):
                await client.start_workflow("AgentWorkflow", {"group": group}, id=name, task_queue=served)
            progress: list[tuple[int, int]] = []
            # What has just begun is listed a moment later.
            async with asyncio.timeout(30):
                while len([run async for run in client.list_workflows(inbox.RUNNING)]) < 3:
                    await asyncio.sleep(0.05)

            everything = await inbox.read_inbox(client, on_progress=lambda asked, of: progress.append((asked, of)))
            legal = await inbox.read_inbox(client, group="legal")

    assert everything.scanned
    assert sorted(run.workflow_id for run in everything.runs) == ["a", "b"]
    assert [run.workflow_id for run in legal.runs] == ["b"]
    assert [(one.workflow_id, one.reason) for one in everything.silent] == [
        ("c", f"no worker polls task queue {nobodys!r}")
    ]
    assert progress[-1] == (3, 3)


@pytest.mark.parametrize("identity", ["12@elsewhere", f"{2**22 + 1}@{socket.gethostname()}"])
async def test_queue_whose_worker_is_gone_keeps_nobody_waiting(identity: str) -> None:
    async with run_private_server() as server:
        client = await connect(address=server.address)
        served, left = f"served-{uuid4().hex[:8]}", f"left-{uuid4().hex[:8]}"
        async with Worker(client, task_queue=served, workflows=[AskingWorkflow]):
            gone = await connect(address=server.address, identity=identity)
            async with Worker(gone, task_queue=left, workflows=[AskingWorkflow]):
                for name, queue in (("a", served), *((f"left-{number}", left) for number in range(9))):
                    await client.start_workflow("AgentWorkflow", {"group": "finance"}, id=name, task_queue=queue)
                    await answers.open_requests(client, name)
                async with asyncio.timeout(30):
                    while len([run async for run in client.list_workflows(inbox.RUNNING)]) < 10:
                        await asyncio.sleep(0.05)

            began = time.monotonic()
            found = await inbox.read_inbox(client)
            seconds = time.monotonic() - began

    assert [run.workflow_id for run in found.runs] == ["a"]
    assert [(one.workflow_id, one.reason, one.unserved) for one in found.silent] == [
        (f"left-{number}", f"no worker polls task queue {left!r}", left) for number in range(9)
    ]
    assert seconds < 5, "of nine runs four are asked at once, for a second"


async def test_name_that_would_change_the_query_is_refused(client: Client) -> None:
    with pytest.raises(ValueError, match="quotes and backslashes are not allowed"):
        await inbox.open_runs(client, group='x" OR WorkflowType="Other')


async def test_decision_that_no_worker_takes_in_says_that_it_may_still_be(client: Client) -> None:
    name = f"unserved-{uuid4().hex[:8]}"
    await client.start_workflow("AgentWorkflow", {}, id=name, task_queue=name)
    decision = Decision(request="*", choice="reject")

    with pytest.raises(messages.NoAnswer) as refused:
        await messages.decide(client, name, decision, patience_seconds=1)

    assert str(refused.value) == (
        f"no worker has answered for run {name!r} within 1 s (no worker polls task queue {name!r}); "
        "the message may still be taken in when one does, and sending it again is safe"
    )


async def test_decision_that_comes_as_a_run_ends_is_told_so_at_once(client: Client) -> None:
    """The server says of it that it was aborted, however often it is sent."""
    interrupted_workflow.BEGUN.clear()
    interrupted_workflow.GO_ON.clear()
    name = f"ending-{uuid4().hex[:8]}"
    handle = await client.start_workflow("AgentWorkflow", id=name, task_queue=name)
    runner = UnsandboxedWorkflowRunner()
    async with Worker(client, task_queue=name, workflows=[EndingWorkflow], workflow_runner=runner):
        await asyncio.to_thread(interrupted_workflow.BEGUN.wait, 30)
        deciding = asyncio.create_task(messages.decide(client, name, Decision(request="*", choice="reject")))
        # Nothing tells when the server has it.
        await asyncio.sleep(0.5)
        interrupted_workflow.GO_ON.set()
        await handle.result()
        with pytest.raises(messages.NoRun, match=f"^run '{name}' is over$"):
            await asyncio.wait_for(deciding, 20)


async def test_decision_is_sent_again_when_the_task_that_had_it_is_done_again(client: Client) -> None:
    interrupted_workflow.BEGUN.clear()
    interrupted_workflow.GO_ON.clear()
    name = f"interrupted-{uuid4().hex[:8]}"
    handle = await client.start_workflow("AgentWorkflow", 2, id=name, task_queue=name)
    deciding = asyncio.create_task(messages.decide(client, name, Decision(request="*", choice="reject")))
    # Nothing tells when the server has it, which without a worker is soon.
    await asyncio.sleep(0.5)

    # What holds the task up is beyond the sandbox.
    runner = UnsandboxedWorkflowRunner()
    async with Worker(client, task_queue=name, workflows=[InterruptedWorkflow], workflow_runner=runner):
        await asyncio.to_thread(interrupted_workflow.BEGUN.wait, 30)
        await handle.signal("pause", {})
        interrupted_workflow.GO_ON.set()
        receipt = await deciding
        await handle.result()

    first = client.get_workflow_handle(name, run_id=handle.first_execution_run_id)
    kinds = [event.event_type async for event in first.fetch_history_events()]
    assert kinds.count(EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED) == 1
    assert receipt == interrupted_workflow.RECEIPT
