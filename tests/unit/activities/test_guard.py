"""The guard of activities: who asks, what is answered, and what an attempt leaves for the next one."""

import dataclasses
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from mandate.activities import guard
from mandate.activities.guard import Guard
from mandate.activities.keyring import Keyring
from mandate.workers.converter import SlimPayloadConverter
from mandate.workflows.contracts.failures import Outcome, ToolFailure
from mandate.workflows.contracts.tool import ToolRequest, ToolResult
from mandate.workflows.rules.marks import find_subject
from tests.support.memory_store import MemoryStore

REQUEST = ToolRequest(agent="a" * 43, head="h" * 43, key="k" * 43, step=1)


class Activities:
    """Stands for the activities of a worker; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[ToolRequest] = []
        self.fails = False
        self.own: list[bool] = []

    async def run_tool(self, request: ToolRequest) -> ToolResult:
        self.asked.append(request)
        self.own = [guard.is_own_heartbeat("not sent 1", guard.sign_heartbeat("not sent 1"))]
        self.own += [guard.is_own_heartbeat("not sent 1", mark) for mark in ("", None, "zz", "00" * 18, 7)]
        self.own.append(guard.is_own_heartbeat("not sent 2", guard.sign_heartbeat("not sent 1")))
        if self.fails:
            raise ApplicationError("no", ToolFailure(outcome=Outcome.NOT_DONE, reason="no"), type="ToolFailed")
        return ToolResult(text="done")


async def post(**changes: Any) -> tuple[Activities, Any, Any]:
    """A guarded activity, whom to ask for marks, and how to perform it with an input."""
    store = MemoryStore()
    keyring = Keyring(store)
    await keyring.refresh()
    activities = Activities()
    guarded = Guard(keyring, "memory-1").protect(activities.run_tool)
    environment = ActivityEnvironment()
    environment.payload_converter = SlimPayloadConverter()
    environment.info = dataclasses.replace(
        ActivityEnvironment.default_info(), workflow_type="AgentWorkflow", activity_type="run_tool", **changes
    )
    info = environment.info
    place = (info.namespace, info.workflow_id or "", info.workflow_run_id or "", "run_tool", info.activity_id)
    content = SlimPayloadConverter().to_payloads([REQUEST])[0].data

    async def perform(mark: bytes | None = None) -> RawValue:
        made = keyring.sign("input", place, content) if mark is None else mark
        payload = Payload(metadata={"encoding": b"json/plain", **({"mark": made} if made else {})}, data=content)
        answer: RawValue = await environment.run(guarded, RawValue(payload))
        return answer

    return (
        activities,
        lambda kind, payload: keyring.is_genuine(
            kind, (*place, find_subject(REQUEST)), payload.data, payload.metadata.get("mark"), info.scheduled_time
        ),
        perform,
    )


async def test_marked_request_is_performed_and_its_answer_marked() -> None:
    activities, is_genuine, perform = await post()

    answer = await perform()

    assert activities.asked == [REQUEST]
    assert is_genuine("output", answer.payload)
    assert not is_genuine("input", answer.payload)


async def test_unmarked_request_is_refused_before_it_is_read() -> None:
    activities, _, perform = await post()

    with pytest.raises(ApplicationError, match="no run of an agent of this installation asked for this") as refused:
        await perform(b"")

    assert refused.value.type == "NotAsked"
    assert activities.asked == []


@pytest.mark.parametrize(
    "changes",
    [{"workflow_type": "Other"}, {"workflow_id": None, "workflow_run_id": None, "workflow_type": None}],
    ids=["workflow of another type", "standalone activity"],
)
async def test_no_mark_helps_whoever_is_no_run_of_an_agent(changes: dict[str, Any]) -> None:
    store = MemoryStore()
    keyring = Keyring(store)
    await keyring.refresh()
    activities = Activities()
    environment = ActivityEnvironment()
    environment.payload_converter = SlimPayloadConverter()
    environment.info = dataclasses.replace(ActivityEnvironment.default_info(), activity_type="run_tool", **changes)
    info = environment.info
    place = (info.namespace, info.workflow_id or "", info.workflow_run_id or "", "run_tool", info.activity_id)
    payload = Payload(metadata={"encoding": b"json/plain", "mark": keyring.sign("input", place, b"{}")}, data=b"{}")

    with pytest.raises(ApplicationError, match="no run of an agent"):
        await environment.run(Guard(keyring, "memory-1").protect(activities.run_tool), RawValue(payload))

    assert activities.asked == []


async def test_reasons_of_failures_are_marked() -> None:
    activities, is_genuine, perform = await post()
    activities.fails = True

    with pytest.raises(ApplicationError) as failed:
        await perform()

    (reason,) = failed.value.details
    assert isinstance(reason, RawValue)
    assert is_genuine("failure", reason.payload)
    assert ToolFailure.model_validate_json(reason.payload.data).outcome is Outcome.NOT_DONE


async def test_only_an_attempt_of_the_same_activity_leaves_something_behind() -> None:
    """Anybody may heartbeat an activity by its id, and say that nothing was sent."""
    activities, _, perform = await post()

    await perform()

    assert activities.own == [True, False, False, False, False, False, False]
