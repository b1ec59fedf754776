"""Attempts of one call, and the account that the run keeps of calls that change the world."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from temporalio import workflow

from mandate.workflows import steps
from mandate.workflows.contracts.changes import Change
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.policy import Verdict
from mandate.workflows.contracts.question import ServerQuestions
from mandate.workflows.contracts.run import EffectEntry
from mandate.workflows.contracts.state import Edit, Unclear, Wait
from mandate.workflows.contracts.tool import (
    TURN_LIMIT_BYTES,
    CallRequest,
    Effect,
    RemoteActivity,
    Tool,
    ToolRequest,
    ToolResult,
)
from mandate.workflows.loop import observations, questions
from mandate.workflows.loop.budget import RunBudget
from mandate.workflows.loop.control import Control
from mandate.workflows.loop.run import Run
from mandate.workflows.loop.waits import SHORTEST_VALIDITY, Waits, find_validity, join_outcomes
from mandate.workflows.outcomes import Attempted, attempts_at_most
from mandate.workflows.rules import board, effects, local_activities, wording
from mandate.workflows.rules import recovery as rules_recovery

FIRST_WAIT = timedelta(milliseconds=100)
LONGEST_WAIT = timedelta(seconds=30)
"""Between attempts that are made one by one."""


@dataclass(frozen=True, slots=True)
class JudgedCall:
    """A call of the open turn that may run."""

    index: int
    call: CallRequest
    """With the arguments that a person gave, if one did."""
    tool: Tool
    verdict: Verdict
    edit: Edit | None

    @property
    def line(self) -> str:
        return wording.describe_call(self.call.tool, self.call.arguments, self.tool.sensitive)


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """Outcome of a call, its checks included."""

    outcome: Outcome
    answer: ToolResult
    failed: str | None = None
    """Check that failed and why, for a call that was made."""
    is_passing: bool = False
    """It was not done for a reason that may be gone another time."""


class ToolCalls:
    """Sender of calls; what is in flight, done and unclear stands in the state."""

    def __init__(self, run: Run, control: Control) -> None:
        self._run = run
        self._control = control
        self._waits = Waits(run, control)
        self._budget = RunBudget(run)
        self._in_flight: dict[int, EffectEntry] = {}

    @property
    def is_busy(self) -> bool:
        """True if a call that changes the world is in flight."""
        return bool(self._in_flight)

    @property
    def lost(self) -> tuple[EffectEntry, ...]:
        """Calls that were sent out and whose end is not known."""
        unclear = self._run.state.unclear.items()
        left = (one.entry for index, one in unclear if index not in self._in_flight and not one.is_not_done)
        known = {*self._in_flight, *self._run.state.unclear}
        waiting = (
            wait.entry.model_copy(update={"reason": wait.answer.text})
            for index, wait in self._run.state.waits.items()
            if wait.entry is not None and wait.outcome is Outcome.UNKNOWN and index not in known
        )
        return (*self._in_flight.values(), *left, *waiting)

    def needs_reconciliation(self, tool: Tool) -> bool:
        """Return whether an unknown outcome of this tool is found out; a read is just told to the model."""
        return tool.effect.changes_world and self._run.has(Change.RECONCILES)

    async def make(self, placed: JudgedCall) -> Attempted | None:
        """Make a call, or go on with one that waits for its next attempt.

        Returns:
            Its outcome once it is done, failed for good, or its patience is over; `None` when the run has to continue
            as new first.
        """
        wait = self._run.state.waits.get(placed.index)
        if wait is not None:
            return await self._attempt(placed, wait.entry, begun_at=wait.begun_at, wait=wait)
        return await self._attempt(placed, self._entry(placed), begun_at=workflow.now())

    async def make_again(self, placed: JudgedCall, unclear: Unclear) -> Attempted | None:
        """Make a call again that has not happened; `None` as for `make`.

        Under the same key while the other side knows it; else under one of its own, which was never sent.
        """
        entry, begun_at, before = unclear.entry.model_copy(update={"reason": None}), unclear.begun_at, 0
        if self._may_use_again(placed.tool, begun_at):
            before = unclear.entry.attempts if self._run.has(Change.SUMS_ATTEMPTS) else 0
        else:
            made, begun_at = self._entry(placed, rerun=f"{unclear.reruns + 1}"), workflow.now()
            assert made is not None
            entry = made
        self.keep_unknown(placed.index, Unclear(entry=entry, reruns=unclear.reruns + 1, begun_at=begun_at))
        replaced = unclear.entry.key if unclear.entry.key != entry.key else None
        return await self._attempt(placed, entry, begun_at=begun_at, before=before, instead_of=replaced)

    def _may_use_again(self, tool: Tool, begun_at: datetime | None) -> bool:
        if tool.effect is Effect.ONCE:
            return False
        if tool.effect is not Effect.KEYED or tool.key_valid is None:
            return tool.key_valid is None or self._run.has(Change.REUSES_VALID_KEYS)
        if begun_at is None or not self._run.has(Change.REUSES_VALID_KEYS):
            return False
        return begun_at + tool.key_valid - workflow.now() >= SHORTEST_VALIDITY

    async def _attempt(
        self,
        placed: JudgedCall,
        entry: EffectEntry | None,
        *,
        begun_at: datetime | None,
        before: int = 0,
        instead_of: str | None = None,
        wait: Wait | None = None,
    ) -> Attempted | None:
        """Make a call for as long as its patience lasts; `before` attempts had the same key."""
        attempts = wait.attempts if wait is not None else 0
        is_doubted = rules_recovery.is_doubted(self._run.state.recovery, placed.call.tool, placed.call.arguments)
        while True:
            if wait is not None and not await self._waits.wait_out(wait):
                if not self._control.is_stopping and not self._run.state.uncertain:
                    self._leave(placed.index, wait)
                    return None
                attempted = Attempted(wait.outcome, wait.answer, is_passing=True, failed=wait.failed)
                break
            attempted = await self._send(placed, entry, begun_at, wait, instead_of)
            if is_doubted:
                attempted = self._waits.insist(placed.tool, attempted, begun_at=begun_at, wait=wait)
            if attempted.answer.asking is None:
                attempted = replace(attempted, outcome=join_outcomes(placed.tool, attempted.outcome, wait))
            attempts += attempted.attempts
            wait = self._waits.begin(placed.index, placed.tool, attempted, entry, begun_at=begun_at, attempts=attempts)
            if wait is None:
                break
        self._waits.end(placed.index)
        is_passing = attempted.is_passing or self._waits.is_passing(placed.tool, attempted)
        attempted = replace(attempted, attempts=attempts, is_passing=is_passing)
        if entry is not None:
            counted = entry.model_copy(update={"attempts": before + attempts})
            self._account(placed, counted, attempted, begun_at)
        return replace(attempted, key=entry.key if entry is not None else None)

    def _leave(self, index: int, wait: Wait) -> None:
        """Keep what is known of a call that waits while the run continues as new."""
        unclear = self._run.state.unclear.get(index)
        if unclear is None:
            return
        # It is being made again: what became of it is looked up anew.
        self._waits.end(index)
        is_not_done = wait.outcome is not Outcome.UNKNOWN
        self.keep_unknown(index, unclear.model_copy(update={"is_not_done": is_not_done, "request": None}))

    async def _send(
        self,
        placed: JudgedCall,
        entry: EffectEntry | None,
        begun_at: datetime | None,
        wait: Wait | None,
        instead_of: str | None,
    ) -> Attempted:
        """Let a worker make the next attempts, as many as are left to Temporal."""
        key = entry.key if entry is not None else None
        if entry is not None:
            self._in_flight[placed.index] = entry
        its = observations.ToolCall(self._run, placed.index, placed.tool)
        is_local = False
        valid, rest = find_validity(placed.tool, begun_at), self._waits.find_rest(placed.tool, begun_at, wait)
        if placed.tool.effect is Effect.READ and (left := self._budget.find_time_left()) is not None:
            # It is cut off at a limit of time; an effect is waited for.
            valid = left
        if placed.tool.remote is not None:
            is_first = wait is None
            with self._run.telemetry.within(its.key):
                sent = await self._send_remote(placed, placed.tool.remote, key, valid, rest, is_first=is_first)
            attempted = self._bounded(sent)
        else:
            request = ToolRequest(
                agent=self._run.state.agent.digest,
                head=self._run.state.head,
                index=placed.index,
                key=key,
                instead_of=instead_of,
                edited=placed.edit.call.blob if placed.edit is not None else None,
                signed=self._run.state.signed.get(placed.index),
                answers=questions.find_answers(self._run, placed.index),
                requester=self._run.requester_for(placed.tool),
                step=self._run.state.step,
                patience=rest,
                failed=wait.failed if wait is not None else 0,
                reached=wait is not None and wait.outcome is Outcome.UNKNOWN,
            )
            if board.uses_board(placed.tool):
                place = self._run.board_place
                request = request.model_copy(update={"board": place, "tainted": self._run.state.tainted})
            name = local_activities.name_tool(placed.tool)
            locally = self._run.perform_locally(name) if wait is None else None
            if locally is not None and valid is not None:
                locally = replace(locally, within=min(locally.within, valid))
            is_local = locally is not None
            with self._run.telemetry.within(its.key):
                attempted = await steps.run_tool(
                    request, placed.call, placed.tool, placed.verdict, valid=valid, locally=locally
                )
            self._run.keep_speed(name, was_quick=attempted.is_quick)
        its.end(placed.call, attempted, key, is_local=is_local)
        if entry is not None:
            del self._in_flight[placed.index]
        return attempted

    async def _send_remote(
        self,
        placed: JudgedCall,
        remote: RemoteActivity,
        key: str | None,
        valid: timedelta | None,
        rest: timedelta | None,
        *,
        is_first: bool,
    ) -> Attempted:
        """Make a call of somebody else's activity.

        Without a key nothing ties the answer "no" to an attempt, and Temporal does not tell how many there were: those
        of `idempotent` tools are made one by one, and joined here.
        """
        call, tool, verdict = placed.call, placed.tool, placed.verdict
        joins = tool.effect is Effect.IDEMPOTENT and remote.failed_types and self._run.has(Change.JOINS_ATTEMPTS)
        if not joins:
            sent = await steps.call_remote_activity(
                remote, call, tool, key, verdict, valid=valid, patience=rest, at_once=not is_first
            )
            return self._waits.heed_delay(tool, sent)
        was_lost, wait = False, FIRST_WAIT
        at_most = attempts_at_most(tool, rest, at_once=not is_first, remote=True)
        for number in range(1, at_most + 1):
            if number > 1:
                await workflow.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT)
            sent = await steps.call_remote_activity(
                remote, call, tool, key, verdict, valid=valid, patience=rest, at_once=True
            )
            sent = self._waits.heed_delay(tool, sent)
            if sent.outcome is not Outcome.UNKNOWN:
                break
            was_lost = True
        outcome = Outcome.UNKNOWN if was_lost and sent.outcome is not Outcome.DONE else sent.outcome
        # A definite answer is no reason for another attempt, whatever it is worth.
        is_lasting = sent.is_lasting or (sent.outcome is Outcome.NOT_DONE and not sent.is_passing)
        return replace(sent, outcome=outcome, attempts=number, failed=number, is_lasting=is_lasting)

    def _account(
        self, placed: JudgedCall, counted: EffectEntry, attempted: Attempted, begun_at: datetime | None
    ) -> None:
        if attempted.answer.asking is not None:
            self._account_question(placed, counted, attempted.answer.asking)
        elif attempted.outcome is Outcome.DONE:
            self.settle_done(placed.index, counted)
        elif attempted.outcome is Outcome.UNKNOWN:
            unclear = counted.model_copy(update={"reason": attempted.answer.text})
            if self.needs_reconciliation(placed.tool):
                known = self._run.state.unclear.get(placed.index)
                reruns = known.reruns if known else 0
                self.keep_unknown(placed.index, Unclear(entry=unclear, reruns=reruns, begun_at=begun_at))
            else:
                self.settle_unknown(placed.index, unclear)
        else:
            self.settle(placed.index)

    def _account_question(self, placed: JudgedCall, counted: EffectEntry, asking: ServerQuestions) -> None:
        """Keep a call as one that may have happened while people are asked, unless it is known that it has not."""
        if asking.is_not_done:
            self.settle(placed.index)
            return
        reason = f"MCP server {asking.server!r} asked a question; it does not say whether it had acted before"
        known = self._run.state.unclear.get(placed.index)
        entry = counted.model_copy(update={"reason": reason})
        self.keep_unknown(placed.index, Unclear(entry=entry, reruns=known.reruns if known else 0))

    def _entry(self, placed: JudgedCall, rerun: str = "") -> EffectEntry | None:
        if not placed.tool.effect.changes_world:
            return None
        assert placed.call.digest is not None
        run = workflow.info().first_execution_run_id
        repeat: int | str = placed.call.repeat if placed.edit is None else placed.edit.request
        return EffectEntry(
            step=self._run.state.step,
            tool=placed.tool.name,
            call=placed.line,
            undoes=placed.call.undoes,
            key=effects.compute_key(run, placed.call.digest, f"{repeat}/{rerun}" if rerun else repeat),
        )

    def _bounded(self, attempted: Attempted) -> Attempted:
        """Return `attempted`, without its result if Temporal could not carry all inline results of the turn."""
        size = len(attempted.answer.text or "")
        held = sum(len(answer.text or "") for answer in self._run.state.answers if answer is not None)
        if held + size <= TURN_LIMIT_BYTES // 2:
            return attempted
        text = f"done, but its result of {size} characters is more than one turn can return; ask for fewer at once"
        return replace(attempted, answer=ToolResult(text=text, stands_in=True))

    def settle_done(self, index: int, entry: EffectEntry) -> None:
        self._run.state.effects = effects.add_effect(self._run.state.effects, entry)
        self.settle(index)

    def settle_unknown(self, index: int, entry: EffectEntry) -> None:
        """Settle a call of which nobody could say the outcome."""
        self.settle(index)
        self._run.state.uncertain = (*self._run.state.uncertain, entry)

    def keep_unknown(self, index: int, unclear: Unclear) -> None:
        self._run.state.unclear = {**self._run.state.unclear, index: unclear}

    def settle(self, index: int) -> None:
        if index in self._run.state.unclear:
            left = {other: one for other, one in self._run.state.unclear.items() if other != index}
            self._run.state.unclear = left
