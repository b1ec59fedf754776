"""Decisions of people: the requests that they are about, looked up, and the decisions, sent."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from temporalio.client import Client, WorkflowQueryFailedError
from temporalio.service import RPCError

from mandate.workers.client import answers, messages, queries
from mandate.workers.client.rounds import AT_A_TIME
from mandate.workflows.contracts.budget import Budget
from mandate.workflows.contracts.request import Decision, OpenRequests, Request
from mandate.workflows.contracts.run import Progress
from mandate.workflows.rules import validation


class RunUnavailable(Exception):
    """A run that cannot be asked what it wants; `cause` is why."""

    def __init__(self, workflow_id: str, cause: answers.Unknown | answers.NotAnswering) -> None:
        super().__init__(f"run {workflow_id!r} cannot be asked: {cause}")
        self.workflow_id = workflow_id
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Target:
    """One request as it was named."""

    workflow_id: str
    request: str
    digest: str | None = None
    """Of the request as the last inbox showed it, when it was named by its number."""
    number: int | None = None

    @property
    def name(self) -> str:
        return f"{self.workflow_id}:{self.request}"

    @property
    def shown(self) -> str:
        """The name, and the number that stood for it."""
        return self.name if self.number is None else f"{self.number} ({self.name})"


@dataclass(frozen=True, slots=True)
class Found:
    """A request that is open, or why it cannot be decided on."""

    target: Target
    run: OpenRequests
    request: Request | None
    error: str | None = None
    has_changed: bool = False
    """It is open, and is not what the last inbox showed."""


@dataclass(slots=True)
class SentDecision:
    """One decision, and what became of it."""

    name: str
    workflow_id: str
    decision: Decision | None
    """`None` for one that was not worth sending."""
    kept: Path | None = None
    """The file in which a person wrote its value."""
    status: str | None = None
    said: str = ""

    def to_json(self) -> dict[str, object]:
        """Return one entry of `-o json`."""
        if self.status is None:
            return {"request": self.name, "refused": self.said}
        return {"request": self.name, "status": self.status, "message": self.said}


async def look_up(client: Client, targets: Sequence[Target]) -> list[Found]:
    """Look up each request as it is now; those that are not open with the reason.

    Raises:
        RunUnavailable: there is no such run, or no worker answers for it.
    """
    slots = asyncio.Semaphore(AT_A_TIME)

    async def ask(workflow_id: str) -> OpenRequests:
        async with slots:
            try:
                return await answers.open_requests(client, workflow_id)
            except (answers.Unknown, answers.NotAnswering) as error:
                raise RunUnavailable(workflow_id, error) from None

    ids = list(dict.fromkeys(target.workflow_id for target in targets))
    runs = dict(zip(ids, await asyncio.gather(*map(ask, ids)), strict=True))
    return [_find(target, runs[target.workflow_id]) for target in targets]


def _find(target: Target, run: OpenRequests) -> Found:
    request = next((request for request in run.requests if request.id == target.request), None)
    if request is None or run.status == "done":
        return Found(target, run, None, why_not_open(run, target.request))
    if target.digest is not None and target.digest != request.digest:
        return Found(target, run, None, "it has changed since the inbox", has_changed=True)
    return Found(target, run, request)


def why_not_open(run: OpenRequests, request: str) -> str:
    """Return why a request cannot be decided on, in one sentence."""
    closed = next((closed for closed in run.closed if closed.id == request), None)
    if closed is not None:
        return f"request {request} is {closed.outcome} already: {closed.reason}"
    if run.status == "done":
        return "the run is over"
    known = ", ".join(open_request.id for open_request in run.requests[:20]) or "none"
    return f"request {request} is not open; open are: {known}"


async def read_limits(client: Client, workflow_id: str) -> Budget | None:
    """Return the limits of a run as they are by now; `None` where it does not tell."""
    try:
        told = await queries.ask(client.get_workflow_handle(workflow_id), "progress", Progress)
        return Budget.model_validate(told.budget.limits) if told.budget is not None else None
    except (RPCError, WorkflowQueryFailedError, ValidationError):
        return None


def build_decision(fields: Mapping[str, Any]) -> Decision:
    """Return a decision with these fields.

    Raises:
        ValueError: they do not fit; in sentences that show neither value nor token.
    """
    try:
        return Decision.model_validate(fields)
    except ValidationError as error:
        raise ValueError(validation.sentences(error, Decision, unshown=("value", "token"))) from None


async def send(client: Client, sending: Sequence[SentDecision], *, on_result: Callable[[SentDecision], None]) -> bool:
    """Send the decisions and note in each what became of it; tell whether all count.

    `on_result` is called for each as soon as that is known, first for those that are not worth sending.
    """
    going = {id(sent.decision): sent for sent in sending if sent.decision is not None}

    def on_outcome(outcome: messages.DecisionResult) -> None:
        sent = going[id(outcome.decision)]
        if outcome.receipt is not None:
            sent.status, sent.said = outcome.receipt.status, outcome.receipt.message
        else:
            sent.said = outcome.error or ""
        on_result(sent)

    for sent in sending:
        if sent.decision is None:
            on_result(sent)
    decisions = [(sent.workflow_id, sent.decision) for sent in sending if sent.decision is not None]
    await messages.decide_many(client, decisions, on_outcome=on_outcome)
    return all(sent.status is not None for sent in sending)
