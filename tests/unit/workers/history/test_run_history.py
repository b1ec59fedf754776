"""Probes, checks and moves of plans as the history of a run tells of them."""

import json

from pydantic import BaseModel
from temporalio.api.history.v1 import HistoryEvent

from mandate.workers.converter import data_converter
from mandate.workers.history.events import Call, CallProbed, CallReturned, Happening, ResultChecked
from mandate.workers.history.run_history import RunHistory
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.model import Usage
from mandate.workflows.contracts.plan import AdvanceRequest, EndedCall, PlanMove
from mandate.workflows.contracts.tool import CallRequest, ToolResult
from mandate.workflows.contracts.verification import CheckRequest, CheckResult, Probed, ProbeRequest

CONVERTER = data_converter()
DIGEST = "d" * 43
REFUND = Call(CallRequest(tool="issue_refund", arguments={"order": 1042}), "issue_refund order=1042", "key-1")


async def events(kind: str, request: BaseModel, result: BaseModel) -> list[HistoryEvent]:
    """Return the events of an activity that is scheduled and completed."""
    scheduled, completed = HistoryEvent(event_id=5), HistoryEvent(event_id=7)
    begun = scheduled.activity_task_scheduled_event_attributes
    begun.activity_type.name = kind
    begun.input.payloads.extend(await CONVERTER.encode([request]))
    ended = completed.activity_task_completed_event_attributes
    ended.scheduled_event_id = 5
    ended.result.payloads.extend(await CONVERTER.encode([result]))
    return [scheduled, completed]


async def read(made: list[HistoryEvent]) -> list[Happening]:
    history = RunHistory(CONVERTER, calls=[REFUND])
    return [happening for event in made for happening in await history.add(event)]


async def test_probe_is_read_with_the_call_that_it_is_about() -> None:
    asked = ProbeRequest(agent=DIGEST, head=DIGEST, step=4, index=0, key="key-1")
    made = await events("probe_call", asked, Probed(outcome=Outcome.DONE, reason="it is there"))

    assert await read(made) == [CallProbed(4, REFUND, "probe_call", Outcome.DONE, "it is there")]


async def test_check_of_the_answer_is_read() -> None:
    asked = CheckRequest(agent=DIGEST, check="told", head=DIGEST, step=7)
    made = await events("verify_result", asked, CheckResult(finding="fail", reason="no amount"))

    assert await read(made) == [ResultChecked(7, "told", "fail", "no amount", None)]


async def test_check_whose_result_cannot_be_read_is_left_out() -> None:
    asked = CheckRequest(agent=DIGEST, check="told", head=DIGEST, step=7)

    assert await read(await events("verify_result", asked, Usage())) == []


async def test_other_activities_are_not_read() -> None:
    assert await read(await events("summarize_context", Usage(), Usage())) == []


LOOKS = tuple(CallRequest(tool="look", arguments={"what": what}) for what in ("a", "b"))


async def advanced(move: PlanMove, *ended: EndedCall) -> list[HistoryEvent]:
    request = AdvanceRequest(agent=DIGEST, head=DIGEST, ended=ended, step=1)
    return await events("advance_plan", request, move)


async def test_the_move_of_a_plan_is_a_step_of_its_run() -> None:
    history = RunHistory(CONVERTER, is_plan=True)
    for calls in (LOOKS, LOOKS[:1]):
        for event in await advanced(PlanMove(head="h" * 43, calls=calls, doing="0 of 3 steps ended")):
            await history.add(event)

    assert (history.step, history.head, history.doing) == (2, "h" * 43, "0 of 3 steps ended")
    assert [call.line for call in history.calls] == ["look what=a", "look what=b", "look what=a"]


async def test_a_call_of_a_plan_that_was_refused_is_told_with_the_next_move() -> None:
    history = RunHistory(CONVERTER, is_plan=True)
    refused = EndedCall(number=1, answer=ToolResult(text="denied by rule 'no'", error=True))
    made = [*await advanced(PlanMove(head=DIGEST, calls=LOOKS)), *await advanced(PlanMove(head=DIGEST), refused)]

    happened = [happening for event in made for happening in await history.add(event)]

    assert happened == [CallReturned(1, history.calls[1])]
    assert [call.state for call in history.calls] == ["waiting", "refused"]


async def test_the_move_of_a_plan_may_be_a_local_activity() -> None:
    event = HistoryEvent(event_id=5)
    recorded = event.marker_recorded_event_attributes
    recorded.marker_name = "core_local_activity"
    told = json.dumps({"activity_type": "advance_plan", "activity_id": "3"}).encode()
    recorded.details["data"].payloads.add(data=told)
    recorded.details["result"].payloads.extend(await CONVERTER.encode([PlanMove(head=DIGEST, calls=LOOKS)]))
    history = RunHistory(CONVERTER, is_plan=True)

    await history.add(event)

    assert (history.step, len(history.calls)) == (1, 2)
