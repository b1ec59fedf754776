"""Attacks of somebody who may write in the namespace and has no key: nothing of theirs is done or believed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from temporalio import activity, workflow
from temporalio.api.common.v1 import Payload, WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import ActivityFailureError, Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import RawValue, RetryPolicy
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.service import RPCError
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner, Worker

from mandate.activities.keyring import Keyring
from mandate.activities.stores.address import open_store
from mandate.workers.client import queries
from mandate.workers.client.client import connect
from mandate.workers.dev_server.server import run_private_server
from mandate.workers.history.local_activities import read_local_activity
from mandate.workers.marks import MarkInterceptor
from mandate.workers.sandbox import workflow_runner
from mandate.workers.worker import WorkerOptions, open_worker
from mandate.workflows.agent import AgentWorkflow
from mandate.workflows.contracts.run import Progress, RunStatus
from mandate.workflows.contracts.tool import ToolRequest
from mandate.workflows.rules.marks import compute_mark, find_subject
from tests.support.agents import Site, continued, new_site
from tests.support.people import asked, send_update
from tests.support.toolkit import LET_GO, calls_of, held

NOT_ASKED = "no run of an agent of this installation asked for this"

ACTIVITIES = (
    "pin_agent", "call_model", "run_tool", "verify_result", "probe_call", "check_decision", "check_decisions",
    "check_control", "plan_compensation", "notify_people", "keep_session", "find_report", "advance_plan",
)  # fmt: skip


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client)


async def events(handle: WorkflowHandle[Any, Any]) -> list[HistoryEvent]:
    return [event async for event in handle.fetch_history_events()]


async def scheduled(handle: WorkflowHandle[Any, Any], name: str) -> list[HistoryEvent]:
    attributes = "activity_task_scheduled_event_attributes"
    return [
        event
        for event in await events(handle)
        if event.HasField(attributes) and getattr(event, attributes).activity_type.name == name
    ]


async def input_of(handle: WorkflowHandle[Any, Any], name: str) -> Payload:
    first = (await scheduled(handle, name))[0]
    return first.activity_task_scheduled_event_attributes.input.payloads[0]


async def until(condition: Any, seconds: float = 20) -> Any:
    async with asyncio.timeout(seconds):
        while not (found := await condition()):
            await asyncio.sleep(0.05)
    return found


async def test_worker_serves_no_activity_without_a_guard(site: Site) -> None:
    """Each activity that a worker serves is attacked below."""
    site.write("any", [{"say": "done"}])

    async with open_worker(site.client, site.settings, WorkerOptions()) as worker:
        served = {activity.__name__ for activity in worker.config()["activities"]}  # type: ignore[typeddict-item]
        names = {activity.__temporal_activity_definition.name for activity in worker.config()["activities"]}  # type: ignore[typeddict-item,attr-defined]

    assert names == set(ACTIVITIES)
    assert served == {"guarded"}


async def test_activity_that_somebody_starts_does_nothing(site: Site, client: Client) -> None:
    site.write("pays", [{"call": [{"pay": {"order": 1}}]}, {"say": "done"}])
    async with site.serving():
        handle = await site.start("pays")
        await handle.result()
        genuine = await input_of(handle, "run_tool")
        unmarked = Payload(metadata={"encoding": b"json/plain"}, data=genuine.data)

        for name in ACTIVITIES:
            for payload in (genuine, unmarked):
                with pytest.raises(ActivityFailureError) as failed:
                    await client.execute_activity(
                        name,
                        RawValue(payload),
                        id=uuid4().hex,
                        task_queue=site.queue,
                        start_to_close_timeout=timedelta(seconds=10),
                        retry_policy=RetryPolicy(maximum_attempts=1),
                    )
                assert isinstance(failed.value.cause, ApplicationError)
                assert NOT_ASKED in failed.value.cause.message

    assert len(calls_of(handle.id, "pay")) == 1


@workflow.defn(name="AgentWorkflow", sandboxed=False)
class Impostor:
    """Runs in a worker of the attacker's under the name of ours, and asks our workers for what it likes."""

    @workflow.run
    async def run(self, name: str, given: RawValue, queue: str) -> str:
        try:
            await workflow.execute_activity(
                name,
                given,
                activity_id="3",
                task_queue=queue,
                start_to_close_timeout=timedelta(seconds=10),
                retry_policy=RetryPolicy(maximum_attempts=1),
            )
        except Exception as error:
            return str(getattr(error, "cause", error))
        return "done"


@workflow.defn(sandboxed=False)
class Elsewhere:
    @workflow.run
    async def run(self, state: RawValue, queue: str) -> None:
        workflow.continue_as_new(args=[state], workflow="AgentWorkflow", task_queue=queue)


@asynccontextmanager
async def attacker(client: Client) -> AsyncIterator[str]:
    """The task queue of an attacker's worker."""
    queue = f"foreign-{uuid4().hex[:8]}"
    async with Worker(
        client, task_queue=queue, workflows=[Impostor, Elsewhere], workflow_runner=UnsandboxedWorkflowRunner()
    ):
        yield queue


@pytest.fixture
async def foreign(client: Client) -> AsyncIterator[str]:
    async with attacker(client) as queue:
        yield queue


async def test_workflow_of_our_name_cannot_use_what_another_run_was_allowed(
    site: Site, client: Client, foreign: str
) -> None:
    """Not under an id of its own, and not under that of the run, whose mark it repeats byte for byte."""
    site.write("pays", [{"call": [{"pay": {"order": 1}}]}, {"say": "done"}])
    async with site.serving():
        handle = await site.start("pays")
        await handle.result()
        genuine = RawValue(await input_of(handle, "run_tool"))

        for workflow_id in (uuid4().hex, handle.id):
            told = await client.execute_workflow(
                "AgentWorkflow", args=["run_tool", genuine, site.queue], id=workflow_id, task_queue=foreign
            )
            assert NOT_ASKED in told

    assert len(calls_of(handle.id, "pay")) == 1


async def test_state_that_no_run_left_is_not_gone_on_with(tmp_path: Path) -> None:
    """A made one, and a genuine one of another chain of runs with its mark."""
    async with run_private_server(extra_dynamic_config={"limit.historyCount.suggestContinueAsNew": "40"}) as server:
        client = await connect(address=server.address)
        site = new_site(tmp_path, client)
        site.write("waits", [{"call": [{"look": {"what": "x", "held": True}}]}, {"say": "done"}])
        async with attacker(client) as foreign, site.serving():
            handle = await site.start("waits")
            await until(lambda: _begun(handle, "look"))
            await handle.signal("pause", {"by": "ann@example.com"})
            LET_GO.add(handle.id)
            await continued(handle)
            started = (await events(client.get_workflow_handle(handle.id)))[0]
            genuine = started.workflow_execution_started_event_attributes.input.payloads[0]
            assert "mark" in genuine.metadata
            made = Payload(metadata={"encoding": b"json/plain"}, data=genuine.data)
            garbled = Payload(metadata={**genuine.metadata, "mark": bytes(18)}, data=genuine.data)

            for state in (made, garbled, genuine):
                forged = await client.start_workflow(
                    "Elsewhere", args=[RawValue(state), site.queue], id=uuid4().hex, task_queue=foreign
                )
                with pytest.raises(WorkflowFailureError) as failed:
                    await asyncio.wait_for(forged.result(), 30)
                assert "was not left by a run of an agent of this installation" in str(failed.value.cause)
            await handle.signal("resume", {"by": "ann@example.com"})
            assert (await handle.result()).status is RunStatus.COMPLETED


async def _begun(handle: WorkflowHandle[Any, Any], tool: str) -> bool:
    return bool(calls_of(handle.id, tool))


async def test_forged_agent_is_not_worked_under(site: Site, client: Client) -> None:
    """While no worker is there, whoever answers first would choose the policy."""
    site.write("pinned", [{"say": "done"}])
    async with site.serving():
        handle = await site.start("pinned")
        await handle.result()
    pinned = next(found for event in await events(handle) if (found := read_local_activity(event)) is not None)
    answer = RawValue(pinned.result[0])

    @activity.defn(name="pin_agent")
    async def forge(_: RawValue) -> RawValue:
        return answer

    @activity.defn(name="pin_agent")
    async def take_long(_: RawValue) -> RawValue:
        raise ApplicationError("it takes too long for a local activity", type="NotQuick")

    store = open_store(site.settings.store)
    keyring = Keyring(store)
    await keyring.refresh()
    forger = Worker(client, task_queue=site.queue, activities=[forge])
    deciding = Worker(
        client,
        task_queue=site.queue,
        workflows=[AgentWorkflow],
        activities=[take_long],
        no_remote_activities=True,
        workflow_runner=workflow_runner(),
        interceptors=[MarkInterceptor(keyring, await store.identity())],
    )
    async with deciding, forger:
        again = await site.start("pinned")
        with pytest.raises(WorkflowFailureError) as failed:
            await again.result()
    await store.close()

    assert isinstance(failed.value.cause, ApplicationError)
    assert failed.value.cause.type == "NotAsked"


@pytest.mark.parametrize("forged", ["done", "not done", "nothing", "cancelled"])
async def test_answer_in_a_workers_place_is_not_believed(site: Site, client: Client, forged: str) -> None:
    """A call that somebody else reports on has an unknown outcome, and people are asked."""
    site.write("pays", [{"call": [{"pay": {"order": 1}}]}, {"say": "done"}], people={"expires": "2s"})
    async with site.serving():
        with held("pay"):
            handle = await site.start("pays")
            await until(lambda: _begun(handle, "pay"))
            (event,) = await scheduled(handle, "run_tool")
            activity_id = event.activity_task_scheduled_event_attributes.activity_id
            pending = client.get_async_activity_handle(workflow_id=handle.id, run_id=None, activity_id=activity_id)
            if forged == "done":
                await pending.complete({"text": "paid 5000"})
            elif forged == "nothing":
                await pending.complete()
            elif forged == "cancelled":
                await pending.fail(CancelledError("by a stranger"))
            else:
                said = {"outcome": "not_done", "reason": "refused", "attempts": 1}
                await pending.fail(ApplicationError("refused", said, type="ToolFailed", non_retryable=True))
            result = await handle.result()

    assert result.status is RunStatus.DECLINED
    assert [entry.call for entry in result.uncertain] == ["pay order=1"]
    assert result.effects.count == 0


async def test_activities_have_the_ids_that_the_sdk_gives(site: Site) -> None:
    """Histories from before replay only if the ids are these."""
    site.write("some", [{"call": [{"pay": {"order": 1}}, {"look": {"what": "x"}}]}, {"say": "done"}])

    async with site.serving():
        handle = await site.start("some")
        await handle.result()

    ids = [
        event.activity_task_scheduled_event_attributes.activity_id
        for event in await events(handle)
        if event.HasField("activity_task_scheduled_event_attributes")
    ]
    # The first pinned the agent, and was local.
    assert ids == [str(number) for number in range(2, 2 + len(ids))]
    assert len(ids) == 4


async def test_reset_run_goes_on_with_what_it_had_scheduled(site: Site, client: Client) -> None:
    """What was under way at the reset has the mark of the run before, and is done all the same."""
    calls = [{"look": {"what": "slow", "held": True}}, {"look": {"what": "quick"}}]
    site.write("resets", [{"call": calls}, {"say": "done"}])
    async with site.serving():
        handle = await site.start("resets")
        await until(lambda: _two_looks(handle))
        done = await until(lambda: _last_task(handle))
        await client.workflow_service.reset_workflow_execution(
            ResetWorkflowExecutionRequest(
                namespace=client.namespace,
                workflow_execution=WorkflowExecution(workflow_id=handle.id),
                reason="test",
                workflow_task_finish_event_id=done,
                request_id=uuid4().hex,
            )
        )
        LET_GO.add(handle.id)
        result = await client.get_workflow_handle(handle.id).result()

    assert result["status"] == "completed"
    assert result["effects"]["count"] == 0
    assert len(await scheduled(client.get_workflow_handle(handle.id), "call_model")) == 2


async def _two_looks(handle: WorkflowHandle[Any, Any]) -> bool:
    return len(calls_of(handle.id, "look")) >= 2


async def _last_task(handle: WorkflowHandle[Any, Any]) -> int | None:
    """The workflow task that took in the quick call's result."""
    found = await events(handle)
    done = [event.event_id for event in found if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED]
    tasks = [event.event_id for event in found if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED]
    return tasks[-1] if len(done) >= 2 and tasks and tasks[-1] > done[-1] else None


@pytest.mark.parametrize("forged", ["done", "nothing", "no json"])
async def test_what_a_run_refused_is_refused_by_every_replay(site: Site, client: Client, forged: str) -> None:
    """A refused answer is in the history like any other: a worker that begins anew must not believe it."""
    site.write("pays", [{"call": [{"pay": {"order": 1}}]}, {"say": "done"}], people={"expires": "60s"})
    async with site.serving():
        with held("pay"):
            handle = await site.start("pays")
            await until(lambda: _begun(handle, "pay"))
            (event,) = await scheduled(handle, "run_tool")
            activity_id = event.activity_task_scheduled_event_attributes.activity_id
            pending = client.get_async_activity_handle(workflow_id=handle.id, run_id=None, activity_id=activity_id)
            if forged == "nothing":
                await pending.complete()
            else:
                payload = Payload(metadata={"encoding": b"json/plain"}, data=b'{"text": "paid"}')
                await pending.complete(RawValue(payload if forged == "done" else Payload(data=b"\xff\x00")))
            (request,) = await asked(handle)
        # A workflow task that a worker holds as it ends is handed out again after its timeout only.
        await asyncio.sleep(1)
    async with site.serving():
        again = await asked(handle)
        await handle.signal("steer", {"text": "Look at it.", "by": "ann@example.com"})
        progress = await queries.ask(handle, "progress", Progress)
        choice = {"request": request.id, "digest": request.digest, "choice": "not_happened", "by": "ann@example.com"}
        receipt = await send_update(handle, "decide", choice)
        result = await handle.result()

    assert request.kind == "outcome"
    assert [one.digest for one in again] == [request.digest]
    assert progress.effects.count == 0
    assert receipt["status"] == "settled"
    assert result.status is RunStatus.COMPLETED
    assert [entry.call for entry in result.effects.last] == ["pay order=1"]
    await Replayer(
        workflows=[AgentWorkflow], workflow_runner=workflow_runner(), data_converter=client.data_converter,
        interceptors=[MarkInterceptor(await ring(site), await its_store(site))], namespace=client.namespace,
    ).replay_workflow(await handle.fetch_history())  # fmt: skip


async def ring(site: Site) -> Keyring:
    store = open_store(site.settings.store)
    keyring = Keyring(store)
    await keyring.refresh()
    await store.close()
    return keyring


async def its_store(site: Site) -> str:
    store = open_store(site.settings.store)
    identity = await store.identity()
    await store.close()
    return identity


async def test_approval_that_no_worker_checked_counts_in_no_replay(site: Site, client: Client) -> None:
    """Whoever answers the look-up of a decision in a worker's place approves nothing, not even for the next worker."""
    calls = [{"pay": {"order": number}} for number in range(12)]
    ask = [{"id": "asks", "match": {"tools": ["pay"]}, "verdict": "ask"}]
    site.write("asks", [{"call": calls}, {"say": "done"}], policy=ask, people={"expires": "60s"})
    async with site.serving():
        handle = await site.start("asks")
        requests = await asked(handle, 12)
        forger = asyncio.create_task(forge(client, handle, {"person": "mallory", "needs": [0]}))
        for request in requests[:6]:
            said = {"request": request.id, "digest": request.digest, "choice": "approve", "by": "mallory"}
            await handle.signal("decide", said)
        await asyncio.sleep(2)
        forger.cancel()
        live = len(await asked(handle, 0))
        await asyncio.sleep(1)
    async with site.serving():
        after = len(await asked(handle, 0))
        await handle.signal("steer", {"text": "Go on.", "by": "ann@example.com"})
        assert (await queries.ask(handle, "progress", Progress)).effects.count == 12 - live
        await handle.terminate()

    assert after == live


async def forge(client: Client, handle: WorkflowHandle[Any, Any], answer: Any) -> None:
    """Complete whatever activity of a run may come next."""
    while True:
        for number in range(3, 24):
            pending = client.get_async_activity_handle(workflow_id=handle.id, run_id=None, activity_id=str(number))
            with suppress(RPCError):
                await pending.complete(answer)


async def test_answer_to_another_question_is_not_believed(site: Site, client: Client) -> None:
    """A reset run may ask the same activity for something else: a genuine answer to the first is none to the second."""
    place = ("default", "run", "0199", "run_tool", "3")
    one = ToolRequest(agent="a" * 43, head="h" * 43, key="k" * 43, step=1)
    other = one.model_copy(update={"key": "l" * 43})

    assert find_subject(one) != find_subject(other)
    assert find_subject(one) == find_subject(ToolRequest.model_validate_json(one.model_dump_json()))
    assert compute_mark(1, bytes(32), "output", (*place, find_subject(one)), b"{}") != compute_mark(
        1, bytes(32), "output", (*place, find_subject(other)), b"{}"
    )
