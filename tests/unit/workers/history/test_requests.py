"""What a run's history tells of requests and decisions, also a history that nobody expects."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.api.history.v1 import HistoryEvent

from mandate.workers.converter import data_converter
from mandate.workers.history.events import Call, MessageReceived, RequestOpened
from mandate.workers.history.requests import RequestHistory
from mandate.workers.history.run_history import RunHistory
from mandate.workflows.contracts.agent import AgentPin
from mandate.workflows.contracts.budget import Budget
from mandate.workflows.contracts.compensation import CompensationRequest
from mandate.workflows.contracts.control import ControlCheck, ControlChecked, ControlVerb
from mandate.workflows.contracts.decision_lookups import CheckedMany, DecisionChecks
from mandate.workflows.contracts.request import (
    Answer,
    Checked,
    Decision,
    DecisionCheck,
    Halt,
    Need,
    Notice,
    NotifyRequest,
    Receipt,
    Receipts,
    Request,
    Steering,
    Stop,
    Then,
)
from mandate.workflows.contracts.state import ControlState, PeopleState, RunState
from mandate.workflows.contracts.tool import CallRequest, ToolResult

NOW = datetime(2026, 11, 2, 9, 0, tzinfo=UTC)
DIGEST = "d" * 43
CONVERTER = data_converter()


def request(id_: str = "r1", index: int = 0, **need: Any) -> Request:
    return Request(
        id=id_,
        kind="approval",
        digest=DIGEST,
        title="pay amount=120?",
        reason="rule 'large' asks",
        step=1,
        head=DIGEST,
        index=index,
        choices=("approve", "reject"),
        needs=(Need(**{"rule": "large", "groups": ("finance",), "expires_at": NOW + timedelta(hours=1), **need}),),
        requested_at=NOW,
    )


async def payloads(value: Any) -> Payloads:
    return Payloads(payloads=await CONVERTER.encode([value]))


def event(number: int, at: datetime = NOW) -> HistoryEvent:
    moment = Timestamp()
    moment.FromDatetime(at)
    return HistoryEvent(event_id=number, event_time=moment)


async def scheduled(number: int, kind: str, value: Any) -> HistoryEvent:
    its = event(number)
    its.activity_task_scheduled_event_attributes.activity_type.name = kind
    its.activity_task_scheduled_event_attributes.input.CopyFrom(await payloads(value))
    return its


async def completed(number: int, of: int, value: Any) -> HistoryEvent:
    its = event(number)
    its.activity_task_completed_event_attributes.scheduled_event_id = of
    its.activity_task_completed_event_attributes.result.CopyFrom(await payloads(value))
    return its


async def accepted(number: int, name: str, value: Any) -> HistoryEvent:
    its = event(number)
    update = its.workflow_execution_update_accepted_event_attributes.accepted_request.input
    update.name = name
    update.args.CopyFrom(await payloads(value))
    return its


async def answered(number: int, of: int, value: Any = None, *, failure: str | None = None) -> HistoryEvent:
    its = event(number)
    told = its.workflow_execution_update_completed_event_attributes
    told.accepted_event_id = of
    if failure is None:
        told.outcome.success.CopyFrom(await payloads(value))
    else:
        told.outcome.failure.message = failure
        told.outcome.failure.application_failure_info.type = "DecisionRefused"
    return its


async def signaled(number: int, name: str, value: Any) -> HistoryEvent:
    its = event(number)
    its.workflow_execution_signaled_event_attributes.signal_name = name
    its.workflow_execution_signaled_event_attributes.input.CopyFrom(await payloads(value))
    return its


async def parked(*requests: Request) -> RequestHistory:
    its = RequestHistory(CONVERTER)
    notices = tuple(Notice(request=one, occasion="asked") for one in requests)
    told = NotifyRequest(workflow_id="wf", run_id="x", agent="till", requester=None, notices=notices)
    happened = await its.add(await scheduled(1, "notify_people", told), 1)
    assert happened == [RequestOpened(1, one, "asked") for one in requests]
    return its


def decision(choice: str = "approve", by: str = "ann", **given: Any) -> Decision:
    return Decision(**{"request": "r1", "digest": DIGEST, "choice": choice, "by": by, **given})


async def test_requests_are_open_until_they_are_answered() -> None:
    its = await parked(request(), request("r2", 1))
    before = its.doing

    await its.add(await accepted(5, "decide", decision()), 1)
    receipt = Receipt(request="r1", status="approved", message="r1 is approved: ann approved it")
    happened = await its.add(await answered(6, 5, receipt), 1)

    assert before == "waiting for finance (r1, r2)"
    assert happened == [MessageReceived(1, "r1 is approved: ann approved it")]
    assert its.doing == "waiting for finance (r2)"


async def test_decision_that_does_not_count_leaves_its_request_open() -> None:
    its = await parked(request())

    await its.add(await accepted(5, "decide", decision(by="bob", value={"amount": 1})), 1)
    happened = await its.add(await answered(6, 5, failure="by: 'bob' may not decide"), 1)

    line = "bob chose approve with other arguments on r1, which does not count: by: 'bob' may not decide"
    assert happened == [MessageReceived(1, line, counts=False)]
    assert list(its.requests) == ["r1"]


async def test_decision_by_signal_is_told_when_it_was_checked() -> None:
    its = await parked(request(quorum=2))
    for number, by, checked in (
        (5, "ann", Checked(needs=(0,), person="ann")),
        (8, "eve", Checked(refusal="by: 'eve' may not decide")),
    ):
        assert await its.add(await signaled(number, "decide", decision(by=by)), 1) == []
        check = DecisionCheck(
            decision=decision(by=by), request=its.requests["r1"], tool=None, agent=DIGEST, requester=None,
            workflow_id="wf", at=NOW,
        )  # fmt: skip
        await its.add(await scheduled(number + 1, "check_decision", check), 1)
        (heard,) = await its.add(await completed(number + 2, number + 1, checked), 1)
        assert heard.counts is (by == "ann")  # type: ignore[union-attr]
    assert its.requests["r1"].needs[0].approved_by == ("ann",)

    check = DecisionCheck(
        decision=decision(by="bob"), request=its.requests["r1"], tool=None, agent=DIGEST, requester=None,
        workflow_id="wf", at=NOW,
    )  # fmt: skip
    await its.add(await scheduled(20, "check_decision", check), 1)
    happened = await its.add(await completed(21, 20, Checked(needs=(0,), person="bob")), 1)

    assert happened == [MessageReceived(1, "bob chose approve on r1")]
    assert its.requests == {}


async def test_many_decisions_of_one_message_are_told_one_by_one() -> None:
    its = await parked(request(), request("r2", 1, quorum=2), request("r3", 2))
    given = [decision(), decision(request="r2"), decision(request="r3", by="eve"), decision(request="r3"), {"by": 1}]
    answers = (
        Answer(receipt=Receipt(request="r1", status="approved", message="r1 is approved: ann approved it")),
        Answer(receipt=Receipt(request="r2", status="recorded", message="recorded; r2 still needs 1 of finance")),
        Answer(refusal="by: 'eve' may not decide"),
        Answer(refusal="send it again in a moment", again=True),
        Answer(refusal="request: is missing"),
    )
    checks = DecisionChecks(
        checks=tuple(
            DecisionCheck(
                decision=one, request=its.requests[one.request], tool=None, agent=DIGEST, requester=None,
                workflow_id="wf", at=NOW,
            )
            for one in given[:2] if isinstance(one, Decision)
        )
    )  # fmt: skip
    checked = CheckedMany(checked=(Checked(needs=(0,), person="ann"),) * 2)

    sent = {"decisions": [one.model_dump(mode="json") if isinstance(one, Decision) else one for one in given]}
    happened = [
        *await its.add(await accepted(5, "decide", sent), 1),
        *await its.add(await scheduled(6, "check_decisions", checks), 1),
        *await its.add(await completed(7, 6, checked), 1),
        *await its.add(await answered(8, 5, Receipts(receipts=answers)), 1),
    ]

    assert happened == [
        MessageReceived(1, "r1 is approved: ann approved it"),
        MessageReceived(1, "ann chose approve on r2: recorded; r2 still needs 1 of finance"),
        MessageReceived(1, "eve chose approve on r3, which does not count: by: 'eve' may not decide", counts=False),
    ]
    assert list(its.requests) == ["r2", "r3"]


async def test_many_decisions_by_signal_are_told_when_they_were_checked() -> None:
    its = await parked(request(), request("r2", 1, quorum=2))
    given = [decision(), decision(request="r2")]
    checks = DecisionChecks(
        checks=tuple(
            DecisionCheck(
                decision=one, request=its.requests[one.request], tool=None, agent=DIGEST, requester=None,
                workflow_id="wf", at=NOW,
            )
            for one in given
        )
    )  # fmt: skip
    checked = CheckedMany(checked=(Checked(needs=(0,), person="ann"), Checked(refusal="by: may not")))

    sent = {"decisions": [one.model_dump(mode="json") for one in given]}
    assert await its.add(await signaled(5, "decide", sent), 1) == []
    assert await its.add(await scheduled(6, "check_decisions", checks), 1) == []
    happened = await its.add(await completed(7, 6, checked), 1)

    assert happened == [
        MessageReceived(1, "ann chose approve on r1"),
        MessageReceived(1, "ann chose approve on r2, which does not count: by: may not", counts=False),
    ]
    assert list(its.requests) == ["r2"]


async def test_rejection_of_all_by_signal_closes_all() -> None:
    its = await parked(request(), request("r2", 1))

    happened = await its.add(await signaled(5, "decide", Decision(request="*", choice="reject", by="ann")), 1)

    assert happened == [MessageReceived(1, "ann rejects all open requests")]
    assert its.doing == ""


async def test_request_that_expires_is_closed_unless_others_are_asked() -> None:
    its = await parked(request(), request("r2", 1, then=Then(groups=("leads",), expires=timedelta(hours=1))))
    fired = event(9, NOW + timedelta(hours=1))
    fired.timer_fired_event_attributes.timer_id = "1"

    happened = await its.add(fired, 1)

    assert happened == [MessageReceived(1, "r1 has expired: nobody decided in time", counts=False)]
    assert list(its.requests) == ["r2"]


async def test_words_of_people_are_told() -> None:
    its = await parked(request())
    said = []
    for number, name, message in (
        (5, "steer", Steering(text="Be kind.", by="ann")),
        (6, "pause", Halt(by="ann", reason="lunch")),
        (7, "resume", Halt(by="bob")),
        (8, "pause", Halt(by="cy")),
    ):
        said += await its.add(await signaled(number, name, message), 2)

    assert [heard.line for heard in said if isinstance(heard, MessageReceived)] == [
        "ann says: Be kind.",
        "ann pauses the run: lunch",
        "bob lets the run go on",
        "cy pauses the run",
    ]
    assert its.doing == "paused by cy"


async def test_run_that_does_not_wait_any_more_has_no_open_requests() -> None:
    its = await parked(request())
    upsert = event(9)
    fields = upsert.upsert_workflow_search_attributes_event_attributes.search_attributes.indexed_fields
    fields["AgentStatus"].CopyFrom(Payload(metadata={"encoding": b"json/plain"}, data=b'"running"'))

    await its.add(upsert, 1)

    assert its.requests == {}


@pytest.mark.parametrize("value", ["text", 7, None, [], {}, {"request": "r1"}, {"notices": 1}, {"by": "\x00" * 300}])
async def test_messages_that_do_not_fit_are_passed_over(value: Any) -> None:
    its = RequestHistory(CONVERTER)

    for name in ("decide", "steer", "pause", "something_else"):
        assert await its.add(await signaled(5, name, value), 1) == []
        assert await its.add(await accepted(6, name, value), 1) == []
        assert await its.add(await answered(7, 6, value), 1) == []
    for kind in ("notify_people", "check_decision", "check_decisions", "check_control"):
        assert await its.add(await scheduled(8, kind, value), 1) == []
        assert await its.add(await completed(9, 8, value), 1) == []
    nothing = event(10)
    nothing.workflow_execution_signaled_event_attributes.signal_name = "decide"
    assert await its.add(nothing, 1) == []
    unreadable = event(11)
    unreadable.workflow_execution_signaled_event_attributes.signal_name = "decide"
    unreadable.workflow_execution_signaled_event_attributes.input.payloads.append(
        Payload(metadata={"encoding": b"json/plain"}, data=b"{")
    )
    assert await its.add(unreadable, 1) == []
    assert await its.add(await answered(12, 99, value), 1) == []
    assert its.doing == ""


async def test_open_requests_are_known_after_continue_as_new() -> None:
    pin = AgentPin(
        name="till", digest=DIGEST, models=("scripted:x",), tools=(), policy=(), attempts=3, budget=Budget(), store="s"
    )
    state = RunState(
        agent=pin,
        head=DIGEST,
        step_limit=9,
        people=PeopleState(made=1, open=(request(),)),
        control=ControlState(paused=Halt(by="ann")),
    )
    started = event(1)
    started.workflow_execution_started_event_attributes.input.CopyFrom(await payloads(state))
    started.workflow_execution_started_event_attributes.continued_execution_run_id = "before"
    history = RunHistory(CONVERTER)

    await history.add(started)

    assert list(history.parked.requests) == ["r1"]
    assert history.doing == "paused by ann"


async def test_run_that_takes_back_what_it_did_is_not_paused_any_more() -> None:
    history = RunHistory(CONVERTER)
    history.parked = await parked(request())
    for verb, said in (("pause", Halt(by="ann")), ("stop", Stop(by="ann"))):
        await history.add(await signaled(5, verb, said))
    before = history.parked.status

    planned = CompensationRequest(agent=DIGEST, head=DIGEST, results=(), calls=(), step=2)
    await history.add(await scheduled(7, "plan_compensation", planned))

    assert (before, history.parked.status) == ("paused", "running")


async def test_signal_counts_once_it_is_known_who_may_control_the_run() -> None:
    its = await parked()
    its.is_controlled = True

    heard = [*await its.add(await signaled(5, "pause", Halt(by="eve")), 1)]
    heard += await its.add(await signaled(6, "pause", Halt(by="ann")), 1)
    before = its.status
    for number, by in ((7, "eve"), (8, "ann")):
        check = ControlCheck(verb="pause", by=by, agent="till", workflow_id="till-1")
        heard += await its.add(await scheduled(number, "check_control", check), 1)
    refused = await its.add(await completed(9, 7, ControlChecked(refusal="by: 'eve' may not pause runs")), 1)
    between = its.status
    counted = await its.add(await completed(10, 8, ControlChecked()), 1)

    assert (heard, before, between, its.status) == ([], "running", "running", "paused")
    assert refused == [
        MessageReceived(1, "eve pauses the run, which does not count: by: 'eve' may not pause runs", counts=False)
    ]
    assert counted == [MessageReceived(1, "ann pauses the run")]


@pytest.mark.parametrize(("verb", "counts"), [("pause", True), ("resume", False)])
async def test_signal_whose_author_cannot_be_looked_up_counts_in_the_safe_direction(
    verb: ControlVerb, counts: bool
) -> None:
    its = await parked()
    its.is_controlled = True
    await its.add(await signaled(5, verb, Halt(by="ann")), 1)
    check = ControlCheck(verb=verb, by="ann", agent="till", workflow_id="till-1")
    await its.add(await scheduled(6, "check_control", check), 1)
    failed = event(7)
    failed.activity_task_failed_event_attributes.scheduled_event_id = 6

    (happened,) = await its.add(failed, 1)

    assert isinstance(happened, MessageReceived)
    assert happened.counts is counts
    assert its.status == ("paused" if counts else "running")


async def test_stop_that_keeps_what_was_done_is_told_as_one() -> None:
    its = await parked()

    happened = await its.add(await signaled(5, "stop", Stop(by="ann", reason="good enough", keep=True)), 1)

    assert happened == [MessageReceived(1, "ann stops the run, and what it did is kept: good enough")]


def test_call_that_was_never_made_is_not_one_of_the_calls_that_were() -> None:
    call = Call(CallRequest(tool="pay"), "pay", None, state="not made", result=ToolResult(text="x", error=True))

    assert not call.is_made
