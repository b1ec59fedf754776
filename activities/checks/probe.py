"""Probes of a call whose outcome is unknown: a read tool is asked until its answer tells if the call has happened."""

import asyncio
from dataclasses import dataclass, replace
from datetime import timedelta

from mandate.activities.checks.findings import SHOWN_CHARACTERS, make_facts
from mandate.activities.checks.lookup import Question, ReadTools, Unaskable
from mandate.activities.tool_error import ToolError
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.verification import ProbeSpec
from mandate.workflows.rules.cel import evaluation
from mandate.workflows.rules.plain_text import shorten

FIRST_WAIT = 1.0
LONGEST_WAIT = 30.0
SHORTEST_LOOK = 1.0
"""All in seconds."""


@dataclass(frozen=True, slots=True)
class ProbeFinding:
    """Finding of one look."""

    outcome: Outcome
    """`done`, `not_done` or `unknown`."""
    reason: str
    text: str | None = None
    """Result of the probe's tool; `None` when it returned none."""
    lasting: bool = False
    """Another look would say the same."""
    is_absent: bool = False
    """There is nothing yet; that it did not happen, if this stays so."""


@dataclass(frozen=True, slots=True)
class Prober:
    """Prober of one call."""

    tools: ReadTools
    agent: PinnedAgent
    probe: ProbeSpec
    question: Question
    args: JsonObject
    """Of the call that is looked for."""
    shown: bool
    """True if reasons may hold the beginning of results."""

    async def look_until(self, patience: timedelta, time: timedelta) -> ProbeFinding:
        """Look at once, and again after growing waits while nothing is known and `patience` lasts.

        Absence is believed when `patience` is over: until then it may only be that the call is still on its way.
        `time` is all that there is: the last look is cut off there.
        """
        loop = asyncio.get_running_loop()
        deadline, end = (loop.time() + span.total_seconds() for span in (patience, time))
        wait, last = FIRST_WAIT, None
        while True:
            seen = await self._look(max(end - loop.time(), SHORTEST_LOOK))
            if seen.outcome is not Outcome.UNKNOWN or seen.lasting:
                return seen
            # What was once returned tells people more than that the tool failed afterwards.
            last = seen if last is None or last.text is None or seen.text is not None else last
            left = min(deadline, end) - loop.time()
            if left <= 0:
                return replace(seen, outcome=Outcome.NOT_DONE) if seen.is_absent and end >= deadline else last
            await asyncio.sleep(min(wait, left))
            wait = min(2 * wait, LONGEST_WAIT)

    async def _look(self, within: float) -> ProbeFinding:
        try:
            text = await self.tools.look(self.agent, self.question, within=timedelta(seconds=within))
        except ToolError as error:
            reason = f"the probe {self.question.tool!r} failed: {error.reason}"
            return ProbeFinding(Outcome.UNKNOWN, reason, lasting=isinstance(error, Unaskable))
        return self._read(text)

    def _read(self, text: str) -> ProbeFinding:
        """Return the finding of a result: the one condition that holds; one that cannot be evaluated does not."""
        seen = make_facts(text, self.args)
        excerpt = f"; {self.question.tool!r} returned {shorten(text, SHOWN_CHARACTERS)}" if self.shown else ""
        holding, faults = [], []
        for name in ("done", "not_done", "absent"):
            condition: str | None = getattr(self.probe, name)
            outcome = seen.evaluate(condition) if condition is not None else False
            if type(outcome) is evaluation.Unevaluable:
                faults.append(f"{name!r} cannot be evaluated: {outcome.reason}")
            elif outcome is True:
                holding.append(name)
        match holding:
            case ["done"]:
                return ProbeFinding(Outcome.DONE, f"{_quote(self.probe.done)} holds{excerpt}", text)
            case ["not_done"] | ["not_done", "absent"]:
                return ProbeFinding(Outcome.NOT_DONE, f"{_quote(self.probe.not_done)} holds{excerpt}", text)
            case ["absent"]:
                reason = f"{_quote(self.probe.absent or '')} holds{excerpt}"
                return ProbeFinding(Outcome.UNKNOWN, reason, text, is_absent=True)
            case [first, second, *_]:
                reason = f"{first!r} and {second!r} of the probe both hold{excerpt}"
                return ProbeFinding(Outcome.UNKNOWN, reason, text, lasting=True)
        why = f" ({'; '.join(faults)})" if faults else ""
        return ProbeFinding(Outcome.UNKNOWN, f"no condition of the probe holds{why}{excerpt}", text)


def _quote(condition: str) -> str:
    return repr(shorten(condition, SHOWN_CHARACTERS))
