"""What `mandate demo --break` reads of lost replies and failed checks, and what it tells of them."""

from mandate.workers.converter import data_converter
from mandate.workers.demo import faults
from mandate.workers.demo.books import Books
from mandate.workers.demo.mending import Checked, Looked, Mended, Mending
from mandate.workers.history.events import Call
from mandate.workers.history.run_history import RunHistory
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.model import Usage
from mandate.workflows.contracts.run import EffectEntry, EffectLog, RunResult, RunStatus
from mandate.workflows.contracts.tool import CallRequest
from mandate.workflows.contracts.verification import CheckRequest, CheckResult, Probed, ProbeRequest
from pydantic import BaseModel
from temporalio.api.history.v1 import HistoryEvent

CONVERTER = data_converter()
DIGEST = "d" * 43
REFUND = Call(CallRequest(tool="issue_refund", arguments={"order": 1042}), "issue_refund order=1042", "key-1")
NOTE = Call(CallRequest(tool="send_customer_note", arguments={}), "send_customer_note", "key-2")
FAILED = Checked(7, "told", "fail", "no amount", None)
KEY, GUESS = "under one idempotency key", "Not repeated on a guess:"
ASKED = "a person was asked, since it has no probe"
BOOKS = Books(refunds=[{}], stock={}, outbox=[], vouchers=0)


async def events(kind: str, request: BaseModel, result: BaseModel) -> list[HistoryEvent]:
    """An activity is scheduled and completed."""
    scheduled, completed = HistoryEvent(event_id=5), HistoryEvent(event_id=7)
    begun = scheduled.activity_task_scheduled_event_attributes
    begun.activity_type.name = kind
    begun.input.payloads.extend(await CONVERTER.encode([request]))
    ended = completed.activity_task_completed_event_attributes
    ended.scheduled_event_id = 5
    ended.result.payloads.extend(await CONVERTER.encode([result]))
    return [scheduled, completed]


async def read(made: list[HistoryEvent]) -> list[Mended]:
    mending, chronicle = Mending(CONVERTER), RunHistory(CONVERTER, calls=[REFUND])
    return [one for event in made for one in await mending.add(event, chronicle)]


def result(*entries: EffectEntry, uncertain: tuple[EffectEntry, ...] = ()) -> RunResult:
    return RunResult(
        status=RunStatus.DECLINED if uncertain else RunStatus.COMPLETED,
        output="done",
        output_digest=None,
        reason=None,
        usage=Usage(),
        head=None,
        audit_head=None,
        effects=EffectLog(count=len(entries), last=entries),
        uncertain=uncertain,
    )


async def test_probe_is_read_with_the_call_that_it_is_about() -> None:
    asked = ProbeRequest(agent=DIGEST, head=DIGEST, step=4, index=0, key="key-1")
    made = await events("probe_call", asked, Probed(outcome=Outcome.DONE, reason="it is there"))

    assert await read(made) == [Looked(REFUND, "probe_call", Outcome.DONE, "it is there")]


async def test_check_of_the_answer_is_read() -> None:
    asked = CheckRequest(agent=DIGEST, check="told", head=DIGEST, step=7)
    made = await events("verify_result", asked, CheckResult(finding="fail", reason="no amount"))

    assert await read(made) == [FAILED]


async def test_other_activities_are_not_read() -> None:
    assert await read(await events("call_model", Usage(), Usage())) == []


def test_lost_replies_and_failed_checks_are_told_with_what_became_of_them() -> None:
    looked = Looked(REFUND, "find_refund", Outcome.DONE, "it is there")
    paid = EffectEntry(
        step=4, tool="issue_refund", call=REFUND.line, key="key-1", reason="as find_refund shows", attempts=3
    )
    sent = EffectEntry(step=5, tool="send_customer_note", call=NOTE.line, key="key-2", reason="ann chose happened")
    plain = EffectEntry(step=6, tool="restock_item", call="restock_item", key="key-3")

    assert faults.told(result(paid, sent, plain), [looked, FAILED], BOOKS) == [
        f"- No reply: {REFUND.line}; 3 attempts {KEY}. {GUESS} its probe was asked. Known now: as find_refund shows.",
        f"- No reply: {NOTE.line}; 1 attempt. {GUESS} {ASKED}. Known now: ann chose happened.",
        "- Check told failed once for the final answer: the model was told why; the next try passed.",
        "- The database has exactly one refund and no emails.",
    ]


def test_what_is_unknown_to_the_end_is_told_as_that() -> None:
    lost = EffectEntry(step=4, tool="issue_refund", call=REFUND.line, key="key-1", reason="the line broke", attempts=3)
    looked = Looked(REFUND, "find_refund", Outcome.UNKNOWN, "it cannot tell")

    assert faults.told(result(uncertain=(lost,)), [looked], BOOKS)[0] == (
        "- Unknown to the end: issue_refund order=1042; 3 attempts under one idempotency key, no reply."
    )
    assert faults.as_json(result(uncertain=(lost,)), [looked], BOOKS)["lost"] == [
        {"call": REFUND.line, "attempts": 3, "known": False, "probe": None, "reason": "the line broke"}
    ]


def test_nothing_broke() -> None:
    assert faults.told(result(), [], BOOKS) == [
        "Nothing: the agent issued no refund and wrote no email, and its answer passed."
    ]
