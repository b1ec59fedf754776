"""Waits of calls between attempts: how long, until when, and what is known meanwhile."""

from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

from temporalio import workflow

from mandate.workflows import steps
from mandate.workflows.contracts.changes import Change
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.run import EffectEntry
from mandate.workflows.contracts.state import Wait
from mandate.workflows.contracts.tool import Effect, Tool
from mandate.workflows.loop.budget import RunBudget
from mandate.workflows.loop.control import Control
from mandate.workflows.loop.run import Run
from mandate.workflows.outcomes import Attempted
from mandate.workflows.rules import patience, wording

SHORTEST_VALIDITY = timedelta(seconds=1)
"""A key that is known for less is not used again."""


class Waits:
    """Waits of one run."""

    def __init__(self, run: Run, control: Control) -> None:
        self._run = run
        self._control = control
        self._budget = RunBudget(run)

    def begin(
        self,
        index: int,
        tool: Tool,
        attempted: Attempted,
        entry: EffectEntry | None,
        *,
        begun_at: datetime | None,
        attempts: int,
    ) -> Wait | None:
        """Begin the wait before the next attempt, and return it; `None` for a call that is over."""
        before = self._run.state.waits.get(index)
        failed = attempted.failed
        if tool.remote is not None:
            failed += before.failed if before is not None else 0
        seconds = self._find_seconds(tool, attempted, failed, begun_at, before)
        valid = find_validity(tool, begun_at)
        if seconds is None or begun_at is None:
            return None
        left = self._budget.find_time_left() if tool.effect is Effect.READ else None
        if left is not None and left <= timedelta(seconds=seconds):
            return None
        if valid is not None and valid - timedelta(seconds=seconds) < SHORTEST_VALIDITY:
            return None
        reason = "failed" if tool.sensitive else wording.shorten(attempted.answer.text or "failed", 80)
        wait = Wait(
            entry=entry,
            begun_at=begun_at,
            again_at=workflow.now() + timedelta(seconds=seconds),
            line=patience.describe_wait(tool.name, attempts, reason, seconds),
            answer=attempted.answer,
            outcome=attempted.outcome,
            attempts=attempts,
            failed=failed,
        )
        self._run.state.waits = {**self._run.state.waits, index: wait}
        return wait

    def end(self, index: int) -> None:
        """End the wait of a call that is over."""
        if index in self._run.state.waits:
            self._run.state.waits = {other: one for other, one in self._run.state.waits.items() if other != index}

    async def wait_out(self, wait: Wait) -> bool:
        """Wait until the next attempt is due; return whether it may begin."""
        self._run.set_doing(wait.line)
        rest = wait.again_at - workflow.now()
        if rest > timedelta(0):
            with suppress(TimeoutError):
                await workflow.wait_condition(lambda: self._control.is_halting, timeout=rest, timeout_summary=wait.line)
        return await self._control.go_ahead() and not self._control.is_halting

    def find_rest(self, tool: Tool, begun_at: datetime | None, wait: Wait | None) -> timedelta | None:
        """Return the time within which another attempt may begin; `None` where attempts are only counted."""
        whole = patience.find_patience(tool) if self._run.has(Change.WAITS_OUT) else None
        if whole is None or begun_at is None or wait is None:
            return whole
        given_back = (wait.attempts - wait.failed) * steps.REPEATED_HEARTBEAT
        return max(whole - (workflow.now() - begun_at) + given_back, timedelta(0))

    def insist(self, tool: Tool, attempted: Attempted, *, begun_at: datetime | None, wait: Wait | None) -> Attempted:
        """Return `attempted` with another attempt to come, for a failure that is not believed yet."""
        whole = patience.find_second_patience(tool)
        is_told = attempted.outcome is Outcome.NOT_DONE and not (attempted.is_passing or attempted.is_lasting)
        if whole is None or begun_at is None or not is_told or attempted.answer.asking is not None:
            return attempted
        failed = (wait.failed if wait is not None else 0) + 1
        seconds = patience.compute_wait(failed)
        if workflow.now() - begun_at + timedelta(seconds=seconds) > whole or not patience.may_repeat(tool, failed):
            return attempted
        return replace(attempted, failed=failed, again_in=seconds)

    def heed_delay(self, tool: Tool, attempted: Attempted) -> Attempted:
        """Return `attempted` as what it is if it says when to try again: no definite no, also by `failed_types`."""
        if attempted.asked is None or not self._run.has(Change.HEEDS_DELAYS):
            return replace(attempted, asked=None)
        if attempted.outcome is not Outcome.NOT_DONE or attempted.is_lasting:
            return attempted
        # Several attempts had this key, and Temporal does not tell of those before the last one.
        outcome = Outcome.UNKNOWN if tool.effect is Effect.KEYED else Outcome.NOT_DONE
        return replace(attempted, outcome=outcome, is_passing=True)

    def _find_seconds(
        self, tool: Tool, attempted: Attempted, failed: int, begun_at: datetime | None, before: Wait | None
    ) -> float | None:
        """Return the seconds before another attempt, `None` for none; our own activities say so themselves."""
        if tool.remote is None:
            return attempted.again_in
        is_open = attempted.outcome in {Outcome.UNKNOWN, Outcome.NOT_SENT} or attempted.is_passing
        is_over = not is_open or attempted.is_lasting
        rest = self.find_rest(tool, begun_at, before)
        if is_over or rest is None or not patience.may_repeat(tool, failed):
            return None
        whole = patience.find_patience(tool)
        assert whole is not None
        assert begun_at is not None
        seconds = patience.compute_wait(failed, attempted.asked)
        return seconds if workflow.now() - begun_at + timedelta(seconds=seconds) <= whole else None

    def is_passing(self, tool: Tool, attempted: Attempted) -> bool:
        """Return whether somebody else's activity failed because they were not there."""
        if tool.remote is None or attempted.is_lasting or not self._run.has(Change.WAITS_OUT):
            return False
        is_repeated = tool.effect is not Effect.ONCE and attempted.outcome is Outcome.UNKNOWN
        return is_repeated or attempted.outcome is Outcome.NOT_SENT


def find_validity(tool: Tool, begun_at: datetime | None) -> timedelta | None:
    """Return the time within which a call must have its answer: later the other side may have forgotten the key."""
    if tool.effect is not Effect.KEYED or tool.key_valid is None:
        return None
    return tool.key_valid if begun_at is None else begun_at + tool.key_valid - workflow.now()


def join_outcomes(tool: Tool, outcome: Outcome, wait: Wait | None) -> Outcome:
    """Return what is known of all attempts after one more of them; activities of ours have joined theirs."""
    if tool.remote is None or not tool.effect.changes_world or wait is None or wait.outcome is not Outcome.UNKNOWN:
        return outcome
    is_definite = outcome is Outcome.DONE or (outcome is Outcome.NOT_DONE and tool.effect is Effect.KEYED)
    return outcome if is_definite else Outcome.UNKNOWN
