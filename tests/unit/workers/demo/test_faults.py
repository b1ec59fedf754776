"""Lost replies and failed checks as `mandate demo --break` tells of them."""

from mandate.workers.demo import faults
from mandate.workers.examples.shop_books import Books
from mandate.workers.history.events import Call, CallProbed, ResultChecked
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.model import Usage
from mandate.workflows.contracts.run import EffectEntry, EffectLog, RunResult, RunStatus
from mandate.workflows.contracts.tool import CallRequest

REFUND = Call(CallRequest(tool="issue_refund", arguments={"order": 1042}), "issue_refund order=1042", "key-1")
NOTE = Call(CallRequest(tool="send_customer_note", arguments={}), "send_customer_note", "key-2")
FAILED = ResultChecked(7, "told", "fail", "no amount", None)
KEY, GUESS = "under one idempotency key", "Not repeated on a guess:"
ASKED = "a person was asked, since it has no probe"
BOOKS = Books(refunds=[{}], stock={}, outbox=[], vouchers=0)


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


def test_lost_replies_and_failed_checks_are_told_with_what_became_of_them() -> None:
    probed = CallProbed(4, REFUND, "find_refund", Outcome.DONE, "it is there")
    paid = EffectEntry(
        step=4, tool="issue_refund", call=REFUND.line, key="key-1", reason="as find_refund shows", attempts=3
    )
    sent = EffectEntry(step=5, tool="send_customer_note", call=NOTE.line, key="key-2", reason="ann chose happened")
    plain = EffectEntry(step=6, tool="restock_item", call="restock_item", key="key-3")

    assert faults.describe(result(paid, sent, plain), [probed, FAILED], BOOKS) == [
        f"- No reply: {REFUND.line}; 3 attempts {KEY}. {GUESS} its probe was asked. Known now: as find_refund shows.",
        f"- No reply: {NOTE.line}; 1 attempt. {GUESS} {ASKED}. Known now: ann chose happened.",
        "- Check told failed once for the final answer: the model was told why; the next try passed.",
        "- The database has exactly one refund and no emails.",
    ]


def test_what_is_unknown_to_the_end_is_told_as_that() -> None:
    lost = EffectEntry(step=4, tool="issue_refund", call=REFUND.line, key="key-1", reason="the line broke", attempts=3)
    probed = CallProbed(4, REFUND, "find_refund", Outcome.UNKNOWN, "it cannot tell")

    assert faults.describe(result(uncertain=(lost,)), [probed], BOOKS)[0] == (
        "- Unknown to the end: issue_refund order=1042; 3 attempts under one idempotency key, no reply."
    )
    assert faults.to_json(result(uncertain=(lost,)), [probed], BOOKS)["lost"] == [
        {"call": REFUND.line, "attempts": 3, "known": False, "probe": None, "reason": "the line broke"}
    ]


def test_nothing_broke() -> None:
    assert faults.describe(result(), [], BOOKS) == [
        "Nothing: the agent issued no refund and wrote no email, and its answer passed."
    ]
