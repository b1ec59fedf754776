import pytest
from pydantic import JsonValue

from mandate.workers.examples.shop_books import Books, Evidence

BOOKS = Books(
    refunds=[{"refund": 1, "order": 1042, "amount_cents": 10690, "method": "PayPal", "reason": "broken", "key": "k"}],
    stock={"FIL-02": 16},
    outbox=[{"order": 1042, "recipient": "ada@example.com", "text": "Dear Ada, we are sorry."}],
    vouchers=0,
)
SENT = Evidence("the shop's outbox has the email to ada@example.com", "sent to ada@example.com")
NOT_SENT = Evidence("the shop's outbox has no such email", is_done=False)


@pytest.mark.parametrize(
    ("tool", "arguments", "evidence"),
    [
        ("send_customer_note", {"order": 1042, "text": "Dear Ada, we are sorry."}, SENT),
        ("send_customer_note", {"order": 1042, "text": {"digest": "d", "size": 23, "preview": "Dear Ada"}}, SENT),
        ("send_customer_note", {"order": 1042, "text": "Dear Ada"}, NOT_SENT),
        ("send_customer_note", {"order": 1043, "text": "Dear Ada, we are sorry."}, NOT_SENT),
        (
            "issue_refund",
            {"order": 1042, "amount_cents": 10690},
            Evidence("the shop's books have refund 1: 106.90 EUR of order 1042", "refund 1: 106.90 EUR of order 1042"),
        ),
        (
            "issue_refund",
            {"order": 1042, "amount_cents": 8900},
            Evidence("the shop's books have no such refund", is_done=False),
        ),
        (
            "restock_item",
            {"sku": "FIL-02", "on_hand": 14},
            Evidence("the shop's books have 16 of FIL-02 on the shelf", "16 of FIL-02 on the shelf", is_done=False),
        ),
        ("issue_voucher", {"order": 1042, "amount_cents": 1000}, None),
        (None, {}, None),
    ],
)
def test_books_tell_whether_a_call_was_done(
    tool: str | None, arguments: dict[str, JsonValue], evidence: Evidence | None
) -> None:
    assert BOOKS.evidence(tool, arguments) == evidence
