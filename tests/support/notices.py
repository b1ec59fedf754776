"""Requests and notices as a run would make them."""

from datetime import UTC, datetime, timedelta

from mandate.workflows.contracts.base import JsonObject, digest_of
from mandate.workflows.contracts.channels import Occasion
from mandate.workflows.contracts.request import CHOICES, Need, Notice, NotifyRequest, Request, RequestKind

AT = datetime(2026, 11, 2, 9, tzinfo=UTC)
EXPIRES = AT + timedelta(hours=24)


def need(*groups: str, users: tuple[str, ...] = (), rule: str | None = "large", signature: bool = False) -> Need:
    return Need(rule=rule, groups=groups, users=users, signature=signature, expires_at=EXPIRES)


def approval(
    number: int = 3,
    *needs: Need,
    title: str = "issue_refund order=81 amount=120",
    reason: str = "refunds from 100 need finance",
    arguments: JsonObject | None = None,
) -> Request:
    return _request(
        "approval", number, needs, title=title, reason=reason, tool="issue_refund", effect="keyed", risk=0.4,
        arguments={"order": "81", "amount": 120.0} if arguments is None else arguments,
    )  # fmt: skip


def question(number: int = 4, *needs: Need, text: str = "Which of the two?", options: tuple[str, ...] = ()) -> Request:
    return _request(
        "question", number, needs, title="Which of the two?", reason="the agent asks", question=text, options=options
    )


def notice(request: Request, occasion: Occasion = "asked", number: int = 0) -> Notice:
    return Notice(request=request, occasion=occasion, number=number)


def run_of(*notices: Notice, workflow_id: str = "shop-7f3a") -> NotifyRequest:
    return NotifyRequest(
        workflow_id=workflow_id, run_id="first-run", agent="shop", requester="ann@example.com",
        labels={"team": "support"}, notices=notices,
    )  # fmt: skip


def _request(kind: RequestKind, number: int, needs: tuple[Need, ...], **more: object) -> Request:
    told = {
        "id": f"r{number}",
        "kind": kind,
        "digest": digest_of(f"request {number}".encode()),
        "step": 2,
        "head": "h" * 43,
        "index": 0,
        "choices": CHOICES[kind],
        "needs": needs or (need("finance"),),
        "requested_at": AT,
    }
    return Request.model_validate(told | more)
