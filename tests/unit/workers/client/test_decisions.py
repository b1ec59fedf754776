"""What any face needs to decide on requests: a sentence for what is not open, and decisions that fit."""

from datetime import UTC, datetime

import pytest

from mandate.workers.client.decisions import SentDecision, build_decision, why_not_open
from mandate.workers.history.events import RequestOpened
from mandate.workflows.contracts.request import CHOICES, Closed, Need, OpenRequests, Request

DIGEST = "d" * 43
AT = datetime(2026, 11, 2, 9, tzinfo=UTC)
NEED = Need.model_validate({"rule": "large", "quorum": 1, "groups": ["finance"], "expires_at": AT})
REQUEST = Request(
    id="r2",
    kind="approval",
    digest=DIGEST,
    title="issue_refund order=1042?",
    reason="because",
    step=1,
    index=0,
    head=DIGEST,
    choices=CHOICES["approval"],
    needs=(NEED,),
    requested_at=AT,
)
CLOSED = Closed(id="r1", kind="approval", digest=DIGEST, outcome="approved", reason="ann approved it")


def run(status: str) -> OpenRequests:
    return OpenRequests.model_validate(
        {
            "workflow_id": "shop-1",
            "run_id": "1",
            "agent": "shop",
            "version": "v",
            "status": status,
            "requests": [REQUEST],
            "closed": [CLOSED],
        }
    )


@pytest.mark.parametrize(
    ("status", "request_id", "sentence"),
    [
        ("waiting", "r1", "request r1 is approved already: ann approved it"),
        ("waiting", "r3", "request r3 is not open; open are: r2"),
        ("done", "r3", "the run is over"),
    ],
)
def test_it_is_said_why_a_request_is_not_open(status: str, request_id: str, sentence: str) -> None:
    assert why_not_open(run(status), request_id) == sentence


@pytest.mark.parametrize(
    ("occasion", "line"),
    [
        ("asked", "asks finance: issue_refund order=1042? (r2, until 2026-11-02 09:00 UTC)"),
        (
            "escalated",
            "asks finance now, since nobody has answered: issue_refund order=1042? (r2, until 2026-11-02 09:00 UTC)",
        ),
        ("reminder", "still waits for finance: issue_refund order=1042? (r2, until 2026-11-02 09:00 UTC)"),
    ],
)
def test_opened_request_is_one_line(occasion: str, line: str) -> None:
    assert RequestOpened(1, REQUEST, occasion).line == line  # type: ignore[arg-type] # one of the three


def test_decision_that_does_not_fit_is_refused_without_its_value() -> None:
    with pytest.raises(ValueError, match="by") as refused:
        build_decision({"request": "r2", "choice": "approve", "by": "", "value": "4000-1234", "digest": DIGEST})

    assert "4000-1234" not in str(refused.value)


def test_sent_decision_is_told_to_programs() -> None:
    sent = SentDecision("shop-1:r2", "shop-1", None, said="the run is over")

    assert sent.to_json() == {"request": "shop-1:r2", "refused": "the run is over"}
    sent.status, sent.said = "closed", "r2 is approved"
    assert sent.to_json() == {"request": "shop-1:r2", "status": "closed", "message": "r2 is approved"}
