"""The report of the team's tree: the answer, what was done, refused and failed, and the money."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from mandate.workers.demo.answers import Asked
from mandate.workers.demo.report import describe_books, write_answer
from mandate.workers.examples.shop_books import Books
from mandate.workers.history.events import Call
from mandate.workers.history.run_history import RunHistory
from mandate.workflows.contracts.request import Closed
from mandate.workflows.contracts.run import EffectEntry, RunResult
from mandate.workflows.rules import quantities
from mandate.workflows.rules.period_budgets import format_usd

EFFECTS = "What the team did, by the records of its runs; and what the shop's database says"
MONEY = "Money and time: each share is taken out of the one above"


@dataclass(slots=True)
class TeamRun:
    """One run of the tree, as far as it has come; `task` is what it was asked."""

    workflow_id: str
    agent: str
    place: str
    """Its workflow id below the root, as `c4/c1`; empty for the root."""
    task: str = ""
    share_usd: Decimal | None = None
    """The money that it may spend, all below it included."""
    answer: str = ""
    began_at: datetime | None = None
    ended_at: datetime | None = None
    status: str = "running"
    reason: str | None = None
    result: RunResult | None = None
    history: RunHistory | None = None
    unmade: list[Call] = field(default_factory=list)
    """Calls that a rule or a person refused."""

    @property
    def name(self) -> str:
        return f"{self.place} {self.agent}".strip()

    @property
    def seconds(self) -> float:
        return (self.ended_at - self.began_at).total_seconds() if self.ended_at and self.began_at else 0.0


@dataclass(frozen=True, slots=True)
class TeamFacts:
    """All that there is to tell of a tree that has ended; `closed` by run and request."""

    result: RunResult
    runs: Sequence[TeamRun]
    asked: Sequence[Asked]
    closed: dict[tuple[str, str], Closed]
    before: Books
    books: Books
    is_unattended: bool

    def to_json(self) -> dict[str, object]:
        root = self.runs[0].workflow_id
        return {
            **self.result.model_dump(mode="json"),
            "runs": [self._run_to_json(run, root) for run in self.runs],
            "requests": [self._request_to_json(asked) for asked in self.asked],
            "shop": {**dataclasses.asdict(self.books), "restocked": self.books.restocked(self.before)},
        }

    def _run_to_json(self, run: TeamRun, root: str) -> dict[str, object]:
        return {
            "workflow_id": run.workflow_id,
            "parent": run.workflow_id.rpartition("/")[0] if run.workflow_id != root else None,
            "agent": run.agent,
            "task": run.task,
            "status": run.status,
            "reason": run.reason,
            "answer": run.answer,
            "share_usd": f"{run.share_usd:f}" if run.share_usd is not None else None,
            "cost_usd": f"{_cost(run):f}",
            "began_at": run.began_at.isoformat() if run.began_at is not None else None,
            "ended_at": run.ended_at.isoformat() if run.ended_at is not None else None,
            "effects": [entry.model_dump(mode="json") for entry in _effects(run)],
            "refused": [
                {"call": call.line, "reason": call.result.text if call.result is not None else None}
                for call in run.unmade
            ],
        }

    def _request_to_json(self, asked: Asked) -> dict[str, object]:
        closed = self.closed.get((asked.run, asked.request.id))
        decided = {"outcome": closed.outcome, "decision": closed.reason, "by": closed.by} if closed is not None else {}
        return {
            **asked.request.model_dump(mode="json", exclude={"id"}),
            "request": f"{asked.run}:{asked.request.id}",
            "place": asked.place,
            "waits_for": asked.request.waits_for,
            **decided,
            "unattended": self.is_unattended,
        }

    def sections(self) -> dict[str, list[str]]:
        """Return the lines of the report by their headings."""
        result = self.result
        heading = "The manager's answer" if result.status == "completed" else f"The run is {result.status}"
        return {heading: write_answer(result), EFFECTS: self._list_effects(), MONEY: self._list_money()}

    def _list_effects(self) -> list[str]:
        lines, keys = list[str](), set[str]()
        for run in self.runs:
            own = [entry for entry in _effects(run) if entry.run is None]
            keys |= {entry.key for entry in own}
            lines += [f"record    {run.name}: {entry.call}" for entry in own]
        lines.append(f"record    the manager's result names them by run and digest: {self._describe_references()}")
        for asked in self.asked:
            closed = self.closed.get((asked.run, asked.request.id))
            outcome = closed.outcome if closed is not None and asked.request.kind == "approval" else "asked"
            reason = f"; {closed.reason}{', unattended: --yes' * self.is_unattended}" if closed is not None else ""
            lines.append(f"{outcome:<10}{asked.place}: {asked.request.title.removesuffix('?')}{reason}")
        titles = {(asked.run, asked.request.title) for asked in self.asked}
        for run in self.runs:
            refused = [call for call in run.unmade if (run.workflow_id, f"{call.line}?") not in titles]
            lines += [f"refused   {run.name}: {call.line}" for call in refused]
        failed = [run for run in self.runs if run.status != "completed" and run.place]
        lines += [f"failed    {run.name}: {run.status}, {run.reason}" for run in failed]
        return lines + describe_books(self.books, self.before, keys)

    def _describe_references(self) -> str:
        root = self.runs[0].workflow_id
        entries = [entry for entry in self.result.effects.last if entry.run is not None]
        named = [
            f"{quantities.count_noun(entry.count, 'effect')} of {(entry.run or '').removeprefix(f'{root}/')}"
            f" ({(entry.digest or '')[:8]}…)"
            for entry in entries
        ]
        return ", ".join(named) or "none"

    def _list_money(self) -> list[str]:
        """Return a line for each run, and what working side by side has saved."""
        lines = [
            f"{'  ' * run.workflow_id.count('/')}{run.name:<{16 - 2 * run.workflow_id.count('/')}}"
            f"{'at most ' + format_usd(run.share_usd) if run.share_usd is not None else '':<16}"
            f"spent ${_cost(run).quantize(Decimal('0.0001'))}{', all below it included' * (not run.place)}"
            for run in self.runs
        ]
        return [*lines, *self._describe_time()]

    def _describe_time(self) -> list[str]:
        """Say what working side by side has saved to the agents that the manager called together."""
        called = [run for run in self.runs if run.place and "/" not in run.place]
        beginning = min((run.ended_at for run in called if run.ended_at is not None), default=None)
        spans = [
            (run.place, run.began_at, run.ended_at)
            for run in called
            if beginning and run.began_at and run.ended_at and run.began_at < beginning
        ]
        if len(spans) < 2:
            return []
        whole = max(end for _, _, end in spans) - min(begin for _, begin, _ in spans)
        added = sum((end - begin).total_seconds() for _, begin, end in spans)
        names = ", ".join(place for place, _, _ in spans)
        waited = ", with the wait for people" if self.asked else ""
        return [f"{names} side by side {whole.total_seconds():.1f} s, one by one {added:.1f} s{waited}."]


def _cost(run: TeamRun) -> Decimal:
    return run.result.usage.cost_usd if run.result is not None else Decimal(0)


def _effects(run: TeamRun) -> tuple[EffectEntry, ...]:
    return run.history.effects.last if run.history is not None else ()
