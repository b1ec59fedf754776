"""Faults that `--break` and `--kill` bring about, and what became of them by the run's record."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mandate.workers.demo.worker import DemoWorker
from mandate.workers.examples.shop_books import Books, read_books
from mandate.workers.history.events import Call, CallProbed, ResultChecked
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.run import EffectEntry, RunResult
from mandate.workflows.rules import quantities

ANNOUNCED = (
    "--break: the shop does what it is asked, but its replies to refunds and to the first email get lost;"
    " a script as model also says wrong things in its answer"
)
LOST_REPLIES = {"MANDATE_DEMO_LOST_REPLIES": "issue_refund,send_customer_note"}
SLOW_BANK = {"MANDATE_DEMO_BANK_SECONDS": "15"}
"""Environment of a worker with `--break`, whose replies get lost, and with `--kill`, which waits for the bank."""
Finding = CallProbed | ResultChecked


@dataclass(slots=True)
class Kill:
    """A worker that was killed after it had paid and before it could say so; then how the payment went on."""

    killed_pid: int
    new_pid: int
    refunds_at_kill: int
    at: float
    refunds: int = 0
    in_flight: str | None = None
    attempts: int = 0
    seconds_until_taken_up: float = 0.0

    def find_payment(self, calls: Sequence[Call], books: Books) -> None:
        """Note how the payment among all `calls` of the run went on."""
        self.refunds = len(books.refunds)
        for call in calls:
            if call.request.tool == "issue_refund" and call.attempts > 1 and call.begun_at is not None:
                self.in_flight, self.attempts = call.line, call.attempts
                self.seconds_until_taken_up = round(call.begun_at.timestamp() - self.at, 3)

    def describe(self, calls: Sequence[Call]) -> list[str]:
        is_only = all(call.attempts == 1 or call.line == self.in_flight for call in calls)
        again = f"made attempt {self.attempts} {self.seconds_until_taken_up:.1f} s later, with the same idempotency key"
        return [
            f"In flight: {self.in_flight}. The refund was in the database; nobody had been told.",
            f"Process {self.new_pid} {again}.",
            f"The database has {_count(self.refunds, 'refund')}.{' No other call was made a second time.' * is_only}",
        ]


async def kill_when_paid(worker: DemoWorker, shop: Path, on_kill: Callable[[Kill], None]) -> None:
    """Kill the worker's process as soon as the shop's books have a refund, and start another."""
    while not (refunds := len(read_books(shop).refunds)):  # noqa: ASYNC110 another process writes the books
        await asyncio.sleep(0.02)
    killed_pid, at = worker.process.pid, time.time()
    worker.kill()
    worker.start({})
    on_kill(Kill(killed_pid, worker.process.pid, refunds, at))


def list_failed(findings: Sequence[Finding]) -> list[ResultChecked]:
    """Return the checks that were not passed, oldest first."""
    return [found for found in findings if isinstance(found, ResultChecked) and found.finding != "pass"]


def to_json(result: RunResult, findings: Sequence[Finding], books: Books) -> dict[str, object]:
    """Return what broke, for `-o json`."""
    lost = [
        {
            **entry.model_dump(include={"call", "attempts", "reason"}),
            "known": entry not in result.uncertain,
            "probe": next((found.probe for found in _probes(entry, findings) if found.outcome is Outcome.DONE), None),
        }
        for entry in _lost(result)
    ]
    failed = [{"step": one.step, "check": one.check, "finding": one.finding} for one in list_failed(findings)]
    return {"lost": lost, "failed_checks": failed, "refunds": len(books.refunds), "emails": len(books.outbox)}


def describe(result: RunResult, findings: Sequence[Finding], books: Books) -> list[str]:
    """Return what broke and what Mandate did, a line each."""
    lines = []
    for entry in _lost(result):
        attempts = quantities.count_noun(entry.attempts, "attempt")
        attempts += " under one idempotency key" if entry.attempts > 1 else ""
        outcomes = [found.outcome for found in _probes(entry, findings)]
        why = "its probe could not tell" if outcomes else "it has no probe"
        how = "its probe was asked" if Outcome.DONE in outcomes else f"a person was asked, since {why}"
        known = f"Not repeated on a guess: {how}. Known now: {entry.reason}."
        unknown = f"- Unknown to the end: {entry.call}; {attempts}, no reply."
        lines.append(unknown if entry in result.uncertain else f"- No reply: {entry.call}; {attempts}. {known}")
    if failed := list_failed(findings):
        times = quantities.count_times(len(failed))
        then = "the next try passed" if result.status == "completed" else f"the run is {result.status}"
        lines.append(f"- Check {failed[0].check} failed {times} for the final answer: the model was told why; {then}.")
    if not lines:
        return ["Nothing: the agent issued no refund and wrote no email, and its answer passed."]
    counts = f"{_count(len(books.refunds), 'refund')} and {_count(len(books.outbox), 'email')}"
    return [*lines, f"- The database has {counts}."]


def _lost(result: RunResult) -> list[EffectEntry]:
    """Return the calls without a reply: those that were found out to be done, then those still unknown."""
    return [*(entry for entry in result.effects.last if entry.reason is not None), *result.uncertain]


def _probes(entry: EffectEntry, findings: Sequence[Finding]) -> list[CallProbed]:
    return [found for found in findings if isinstance(found, CallProbed) and found.call.key == entry.key]


def _count(number: int, noun: str) -> str:
    return f"exactly one {noun}" if number == 1 else f"{number or 'no'} {noun}s"
