"""The facts of the demo's run, and its report: the answer, what was done and how one knows, what it cost."""

import dataclasses
import re
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from mandate.workers.demo import faults
from mandate.workers.examples.shop_books import Books, euros
from mandate.workers.history.events import Call
from mandate.workflows.contracts.request import Closed, Request
from mandate.workflows.contracts.run import RunResult

EFFECTS = "What it did, by its record; and what the shop's database says"


@dataclass(slots=True)
class Step:
    """One answer of the model, and its calls with their results in the order in which these came."""

    number: int
    says: str
    calls: list[tuple[Call, str]] = field(default_factory=list)


@dataclass(slots=True)
class Facts:
    """All that there is to tell of a run: filled while it goes on, `result` and `books` when it has ended."""

    workflow_id: str
    before: Books
    is_unattended: bool
    breaks: bool
    steps: list[Step] = field(default_factory=list)
    findings: list[faults.Finding] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    closed: dict[str, Closed] = field(default_factory=dict)
    kill: faults.Kill | None = None
    result: RunResult = field(init=False)
    books: Books = field(init=False)

    @property
    def calls(self) -> list[Call]:
        return [call for step in self.steps for call, _ in step.calls]

    def to_json(self) -> dict[str, object]:
        steps: list[dict[str, object]] = []
        for step in self.steps:
            calls = [{"call": call.line, "result": text, "made": call.is_made} for call, text in step.calls]
            steps.append({"step": step.number, "says": step.says, "calls": calls})
        return {
            **self.result.model_dump(mode="json"),
            "steps": steps,
            "requests": [self._request_to_json(request) for request in self.requests],
            "shop": {**dataclasses.asdict(self.books), "restocked": self.books.restocked(self.before)},
            "kill": dataclasses.asdict(self.kill) if self.kill is not None else None,
            "broken": faults.to_json(self.result, self.findings, self.books) if self.breaks else None,
        }

    def _request_to_json(self, request: Request) -> dict[str, object]:
        closed = self.closed.get(request.id)
        decided = {"outcome": closed.outcome, "decision": closed.reason, "by": closed.by} if closed is not None else {}
        return {
            **request.model_dump(mode="json", exclude={"id"}),
            "request": f"{self.workflow_id}:{request.id}",
            "waits_for": request.waits_for,
            **decided,
            "unattended": self.is_unattended,
        }

    def sections(self) -> dict[str, list[str]]:
        """Return the lines of the report by their headings."""
        result = self.result
        heading = "The agent's answer" if result.status == "completed" else f"The run is {result.status}"
        sections = {heading: write_answer(result), EFFECTS: self._effects()}
        if self.kill is not None and self.kill.in_flight is not None:
            sections["The worker was killed"] = self.kill.describe(self.calls)
        if self.breaks:
            sections["What broke, and what Mandate did"] = faults.describe(result, self.findings, self.books)
        return sections

    def _effects(self) -> list[str]:
        record, books = self.result.effects.last, self.books
        lines = [f"record    {entry.call}" for entry in record]
        lines += [f"unknown   {entry.call}" for entry in self.result.uncertain]
        for request in self.requests:
            closed = self.closed.get(request.id)
            outcome = closed.outcome if closed is not None and request.kind == "approval" else "asked"
            reason = f"; {closed.reason}{', unattended: --yes' * self.is_unattended}" if closed is not None else ""
            lines.append(f"{outcome:<10}{request.title.removesuffix('?')}{reason}")
        titles = {request.title for request in self.requests}
        refused = (call.line for call in self.calls if not call.is_made)
        lines += [f"refused   {line}" for line in refused if f"{line}?" not in titles]
        return lines + describe_books(books, self.before, {entry.key for entry in record})


def write_answer(result: RunResult) -> list[str]:
    """Return the paragraphs of a run's answer, or of the reason why there is none."""
    answer = str(result.output if isinstance(result.output, str) else result.reason).strip()
    # The later lines of a list item are one paragraph with its first, to be wrapped anew.
    return re.sub(r"\n +(?=[^\s*-])", " ", answer).splitlines()


def describe_books(books: Books, before: Books, keys: AbstractSet[str]) -> list[str]:
    """Return what the shop's database says, a line each; `keys` are the idempotency keys of the record."""
    lines = []
    for refund in books.refunds:
        paid = f"{euros(refund['amount_cents'])} of order {refund['order']} to {refund['method']}"
        proof = "; the record has the same idempotency key" if refund["key"] in keys else ""
        lines.append(f"database  refund {refund['refund']}: {paid}{proof}")
    for article, count in books.restocked(before).items():
        lines.append(f"database  {article} on the shelf: {count['before']} before, {count['after']} now")
    lines += [f"database  1 email to {email['recipient']}" for email in books.outbox]
    lines += ["database  no refund"] * (not books.refunds)
    return lines + ["database  no voucher"] * (not books.vouchers)
