"""`--break`: what got lost or was wrong in the run, and what became of it, by its record."""

from collections.abc import Sequence

from mandate.workers.demo.books import Books
from mandate.workers.demo.mending import Checked, Looked, Mended
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.run import EffectEntry, RunResult
from mandate.workflows.contracts.verification import FINAL

ANNOUNCED = (
    "--break: the shop does what it is asked, but its replies to refunds and to the first email get lost;"
    " a script as model also says wrong things in its answer"
)


def lost(result: RunResult) -> list[EffectEntry]:
    """Return the calls without a reply: those found to have been done, then those still unknown."""
    return [*(entry for entry in result.effects.last if entry.reason is not None), *result.uncertain]


def failed(mended: Sequence[Mended]) -> list[Checked]:
    """Return the checks that were not passed, oldest first."""
    return [one for one in mended if isinstance(one, Checked) and one.finding != "pass"]


def as_json(result: RunResult, mended: Sequence[Mended], books: Books) -> dict[str, object]:
    """Return the faults for programs."""
    return {
        "lost": [
            {
                "call": entry.call,
                "attempts": entry.attempts,
                "known": entry not in result.uncertain,
                "probe": _probe(entry, mended),
                "reason": entry.reason,
            }
            for entry in lost(result)
        ],
        "failed_checks": [
            {"step": one.step, "check": one.check, "finding": one.finding, "reason": one.reason}
            for one in failed(mended)
        ],
        "refunds": len(books.refunds),
        "emails": len(books.outbox),
    }


def told(result: RunResult, mended: Sequence[Mended], books: Books) -> list[str]:
    """Describe what broke and what Mandate did, a line each."""
    lines = [_loss(entry, result, mended) for entry in lost(result)]
    wrong = failed(mended)
    if wrong:
        about = wrong[0].call.line if wrong[0].call is not None else f"the {FINAL} answer"
        times = "once" if len(wrong) == 1 else f"{len(wrong)} times"
        then = "the next try passed" if result.status == "completed" else f"the run is {result.status}"
        lines.append(f"- Check {wrong[0].check} failed {times} for {about}: the model was told why; {then}.")
    if not lines:
        return ["Nothing: the agent issued no refund and wrote no email, and its answer passed."]
    refunds, emails = len(books.refunds), len(books.outbox)
    lines.append(f"- The database has {_counted(refunds, 'refund')} and {_counted(emails, 'email')}.")
    return lines


def _loss(entry: EffectEntry, result: RunResult, mended: Sequence[Mended]) -> str:
    tries = "1 attempt" if entry.attempts == 1 else f"{entry.attempts} attempts under one idempotency key"
    if entry in result.uncertain:
        return f"- Unknown to the end: {entry.call}; {tries}, no reply."
    why = "its probe could not tell" if _looks(entry, mended) else "it has no probe"
    how = "its probe was asked" if _probe(entry, mended) else f"a person was asked, since {why}"
    return f"- No reply: {entry.call}; {tries}. Not repeated on a guess: {how}. Known now: {entry.reason}."


def _probe(entry: EffectEntry, mended: Sequence[Mended]) -> str | None:
    """Return the tool that told the outcome of a call; `None` when none could."""
    return next((one.probe for one in _looks(entry, mended) if one.outcome is Outcome.DONE), None)


def _looks(entry: EffectEntry, mended: Sequence[Mended]) -> list[Looked]:
    return [one for one in mended if isinstance(one, Looked) and one.call.key == entry.key]


def _counted(number: int, what: str) -> str:
    return f"exactly one {what}" if number == 1 else f"{number or 'no'} {what}s"
