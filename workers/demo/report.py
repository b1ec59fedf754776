"""The end of the demo: the answer, what was done and how one knows, what it cost, where to look."""

import re
from dataclasses import dataclass

from mandate.workers.cli.output import Output
from mandate.workers.demo import faults
from mandate.workers.demo.books import Books, euros
from mandate.workers.demo.desk import Settled
from mandate.workers.demo.kill import TOOL, Killing
from mandate.workers.demo.mending import Mended
from mandate.workers.demo.narration import Answered, Step, indented, width
from mandate.workers.history.events import Call
from mandate.workflows.contracts.run import RunResult
from mandate.workflows.rules import wording

DEED_COLUMNS = 10


@dataclass(frozen=True, slots=True)
class Facts:
    """All that there is to tell."""

    workflow_id: str
    run_id: str
    asked: str
    model: str
    rules_server: str
    address: str
    run_url: str | None
    look: tuple[str, ...]
    """Commands that show the run."""
    steps: tuple[Step, ...]
    requests: tuple[Settled, ...]
    """Requests to people, and their outcomes."""
    result: RunResult
    before: Books
    books: Books
    killing: Killing | None
    mended: tuple[Mended, ...]
    """Look-ups and checks."""
    breaks: bool
    """Replies were to get lost."""
    startup_seconds: float
    """From the start of the command to the start of the run."""
    seconds: float
    """From the start of the run to its end."""

    @property
    def calls(self) -> list[Call]:
        """All that were answered, in that order."""
        return [answered.call for step in self.steps for answered in step.calls]

    @property
    def killed_call(self) -> Call | None:
        """The call during which the worker died."""
        paying = (call for call in self.calls if call.request.tool == TOOL and call.attempts > 1)
        return next(paying, None) if self.killing is not None else None

    def as_json(self) -> dict[str, object]:
        result = self.result.model_dump(mode="json")
        return {
            "workflow_id": self.workflow_id,
            "run_id": self.run_id,
            "input": self.asked,
            "model": self.model,
            "rules_server": self.rules_server,
            **result,
            "steps": [
                {"step": step.number, "says": step.says, "calls": [_call(answered) for answered in step.calls]}
                for step in self.steps
            ],
            "requests": [self._request(settled) for settled in self.requests],
            "shop": {
                "refunds": self.books.refunds,
                "restocked": {
                    sku: {"before": was, "after": now} for sku, (was, now) in self.books.restocked(self.before).items()
                },
                "outbox": self.books.outbox,
                "vouchers": self.books.vouchers,
            },
            "kill": self._kill(),
            "broken": faults.as_json(self.result, self.mended, self.books) if self.breaks else None,
            "startup_seconds": round(self.startup_seconds, 3),
            "seconds": round(self.seconds, 3),
            "address": self.address,
            "url": self.run_url,
            "look": list(self.look),
        }

    def _request(self, settled: Settled) -> dict[str, object]:
        asked, closed = settled.request, settled.closed
        return {
            "request": f"{self.workflow_id}:{asked.id}",
            "title": asked.title,
            "reason": asked.reason,
            "tool": asked.tool,
            "arguments": asked.arguments,
            "digest": asked.digest,
            "waits_for": list(asked.waits_for),
            "requested_at": asked.requested_at.isoformat(),
            "expires_at": asked.expires_at.isoformat(),
            "outcome": closed.outcome if closed is not None else None,
            "decision": closed.reason if closed is not None else None,
            "by": list(closed.by) if closed is not None else [],
            "unattended": settled.unattended,
        }

    def _kill(self) -> dict[str, object] | None:
        killing, call = self.killing, self.killed_call
        if killing is None:
            return None
        wait = killing.wait_seconds(call) if call is not None else None
        return {
            "in_flight": call.line if call is not None else None,
            "killed_pid": killing.killed_pid,
            "new_pid": killing.new_pid,
            "attempts": call.attempts if call is not None else None,
            "refunds_at_kill": killing.refunds_then,
            "seconds_until_taken_up": round(wait, 3) if wait is not None else None,
            "refunds": len(self.books.refunds),
        }


def _call(answered: Answered) -> dict[str, object]:
    call = answered.call
    return {
        "call": call.line,
        "tool": call.request.tool,
        "result": answered.text,
        "error": answered.is_error,
        "made": call.is_made,
        "attempts": call.attempts,
    }


def tell(facts: Facts, out: Output) -> None:
    """Print the report for people."""
    out.print("")
    columns = width(out)
    answer = facts.result.output if isinstance(facts.result.output, str) else facts.result.reason
    _heading(out, "The agent's answer" if facts.result.status == "completed" else f"The run is {facts.result.status}")
    # The later lines of a list item are one paragraph with its first, to be wrapped anew.
    for line in re.sub(r"\n +(?=[^\s*-])", " ", str(answer or facts.result.reason).strip()).splitlines():
        out.print(indented(line, 2, columns))
    out.print("")
    _heading(out, "What it did, by its record; and what the shop's database says")
    for line in _deeds(facts):
        out.print(indented(line, 2, columns, hang=DEED_COLUMNS))
    if facts.killing is not None:
        out.print("")
        _heading(out, "The worker was killed")
        for line in _death(facts, facts.killing):
            out.print(indented(line, 2, columns))
    if facts.breaks:
        out.print("")
        _heading(out, "What broke, and what Mandate did")
        for line in faults.told(facts.result, facts.mended, facts.books):
            out.print(indented(line, 2, columns))
    out.print("")
    used = f"{wording.describe_usage(facts.result.usage)}; {facts.seconds:.1f} s from question to answer."
    out.print(indented(used, 0, columns))


def _deeds(facts: Facts) -> list[str]:
    asked = facts.requests
    lines = [f"record    {entry.call}" for entry in facts.result.effects.last]
    lines += [f"unknown   {entry.call}" for entry in facts.result.uncertain]
    lines += [f"{_outcome(settled):<10}{settled.request.title.removesuffix('?')}" + _by(settled) for settled in asked]
    titles = {settled.request.title for settled in asked}
    lines += [f"refused   {call.line}" for call in facts.calls if not call.is_made and f"{call.line}?" not in titles]
    keys = {entry.key for entry in facts.result.effects.last}
    for refund in facts.books.refunds:
        same = "; the record has the same idempotency key" if refund["key"] in keys else ""
        lines.append(
            f"database  refund {refund['refund']}: {euros(refund['amount_cents'])} of order {refund['order']}"
            f" to {refund['method']}{same}"
        )
    for sku, (was, now) in facts.books.restocked(facts.before).items():
        lines.append(f"database  {sku} on the shelf: {was} before, {now} now")
    lines += [f"database  1 email to {email['recipient']}" for email in facts.books.outbox]
    if not facts.books.refunds:
        lines.append("database  no refund")
    if not facts.books.vouchers:
        lines.append("database  no voucher")
    return lines


def _outcome(settled: Settled) -> str:
    if settled.request.kind != "approval":
        return "asked"
    return settled.closed.outcome if settled.closed is not None else "asked"


def _by(settled: Settled) -> str:
    """Return the person who decided, after the call that it was about."""
    if settled.closed is None:
        return ""
    return f"; {settled.closed.reason}{', unattended: --yes' if settled.unattended else ''}"


def _death(facts: Facts, killing: Killing) -> list[str]:
    call = facts.killed_call
    if call is None:
        return [f"Process {killing.killed_pid} was killed, and its call was not found again; see the run's history."]
    wait = killing.wait_seconds(call) or 0.0
    refunds = len(facts.books.refunds)
    again = [other.line for other in facts.calls if other is not call and other.attempts > 1]
    others = f"Made again, too: {', '.join(again)}." if again else "No other call was made a second time."
    # Temporal tells when the last attempt began, which is not the first of the worker where replies get lost, too.
    took = "took it up" if call.attempts == 2 else "made its last attempt"
    once = "exactly one" if refunds == 1 else str(refunds)
    return [
        f"In flight: {call.line}. The refund was in the database; nobody had been told.",
        f"Process {killing.new_pid} {took} {wait:.1f} s later: attempt {call.attempts}, same idempotency key.",
        f"The database has {once} refund. {others}",
    ]


def _heading(out: Output, text: str) -> None:
    out.result.print(text, style="bold", markup=False, highlight=False)
