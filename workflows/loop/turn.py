"""The calls of one turn: judged in order, asked for, made, answered."""

import asyncio
from dataclasses import replace
from datetime import timedelta

from temporalio import workflow

from mandate.workflows.contracts.changes import Change
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.run import EffectEntry
from mandate.workflows.contracts.tool import RUN_PLAN, CallRequest, Tool, ToolResult
from mandate.workflows.loop import approvals, compensation, observations
from mandate.workflows.loop.attempts import AttemptLimits
from mandate.workflows.loop.budget import RunBudget
from mandate.workflows.loop.children import Children
from mandate.workflows.loop.control import Control
from mandate.workflows.loop.dialogues import Dialogues
from mandate.workflows.loop.escalation import Escalations
from mandate.workflows.loop.people import PeopleGate
from mandate.workflows.loop.reconciliation import Reconciliation
from mandate.workflows.loop.run import Run
from mandate.workflows.loop.tool_calls import CallOutcome, JudgedCall, ToolCalls
from mandate.workflows.loop.verification import Verification
from mandate.workflows.outcomes import Attempted
from mandate.workflows.rules import backtrack, policy, wording
from mandate.workflows.rules.state_text import is_keeping

PARALLEL_READS = 64
"""Reads of one turn that are in flight at once."""

TOO_MANY_QUESTIONS = ToolResult(
    text="not done: it asks people a question, and too many of them are open; make the call later", error=True
)


class Turn:
    """Calls that the model asked for last, until each has an answer."""

    def __init__(self, run: Run, control: Control) -> None:
        self.gate = PeopleGate(run)
        self.escalations = Escalations(run, control, self.gate)
        self._run = run
        self._control = control
        self._tool_calls = ToolCalls(run, control)
        self._dialogues = Dialogues(run, self.gate)
        self.children = Children(run, control)
        self._reconciliation = Reconciliation(run, control, self.escalations, self._tool_calls)
        self._verification = Verification(run, control, self.escalations)
        self.attempt_limits = AttemptLimits(run)
        self.budget = RunBudget(run)

    @property
    def is_answered(self) -> bool:
        return all(answer is not None for answer in self._run.state.answers)

    @property
    def lost(self) -> tuple[EffectEntry, ...]:
        """Calls that were sent out and whose end the run will not see."""
        return (*self._tool_calls.lost, *self.children.lost)

    def reopen(self) -> None:
        """Go on with a turn that was open when the run continued as new; older runs kept no verdicts."""
        missing = len(self._run.state.calls) - len(self._run.state.verdicts)
        self._run.state.verdicts = (*self._run.state.verdicts, *[None] * missing)

    def open(self, calls: tuple[CallRequest, ...]) -> None:
        """Begin a turn; what does not fit has its answer already."""
        answers = tuple(ToolResult(text=call.misfit, error=True) if call.misfit else None for call in calls)
        self._run.state.calls = calls
        self._run.state.answers = answers
        self._run.state.verdicts = tuple(None for _ in calls)
        self._run.state.edits = {}
        self._run.state.notes = {}
        self._run.state.asked = {}
        self._run.state.signed = {}
        self._run.state.turn_counted = False
        if not self._run.has(Change.COUNTS_MISFITS):
            return
        # Once a tool: of three hundred calls at once those beyond the limit are one mistake.
        for index, call in {call.tool: (index, call) for index, call in enumerate(calls) if call.misfit}.values():
            if self._run.state.agent.tool(call.tool) is not None:
                self.attempt_limits.count_failure(call.tool, f"{call.tool}: {call.misfit}", index=index)

    async def act(self) -> None:
        """Answer the open calls: reads side by side, effects one by one in the model's order.

        Returns early when the run stops, has to continue as new, or does not know what became of an effect.
        """
        self.judge()
        calls, answers = self._run.state.calls, self._run.state.answers
        open_calls = [index for index, answer in enumerate(answers) if answer is None]
        acting = [index for index in open_calls if _acts(self._run.tool(calls[index].tool))]
        reading = [index for index in open_calls if index not in acting]
        slots = asyncio.Semaphore(PARALLEL_READS)
        if open_calls:
            await asyncio.gather(*(self.make(index, slots) for index in reading), self._act_in_order(acting))

    def judge(self) -> None:
        """Judge each call that is not judged yet, one after another, and ask people for all that need it at once."""
        asked = []
        for index, call in enumerate(self._run.state.calls):
            if self._run.state.answers[index] is not None or self._run.state.verdicts[index] is not None:
                continue
            if (earlier := self._run.take_earlier(call)) is not None:
                self._run.answer(index, earlier)
                continue
            tool = self._run.tool(call.tool)
            verdict = policy.judge(
                self._run.rules, tool, call.arguments, self._run.facts, tools=self._run.state.agent.tools
            )
            if verdict.kind == "deny" or (verdict.kind == "ask" and not self._run.has(Change.ASKS_UNMATCHED)):
                observations.note_verdict(self._run, index, verdict)
                self._run.deny(index, verdict.reason)
                continue
            if call.undoes is None and (before := self.attempt_limits.find_earlier_failure(call)) is not None:
                observations.note_verdict(self._run, index, verdict, is_refused=True)
                self.attempt_limits.refuse(index, call, before)
                continue
            if verdict.kind == "ask" and (rejected := self.attempt_limits.find_refusal(call)) is not None:
                observations.note_verdict(self._run, index, verdict, is_refused=True)
                self.attempt_limits.refuse_again(index, call, rejected)
                continue
            observations.note_verdict(self._run, index, verdict)
            self._run.set_verdict(index, verdict)
            self._run.reserve(tool, call.arguments)
            if verdict.kind == "ask" or approvals.is_question(tool):
                self._run.set_verdict(index, verdict.model_copy(update={"kind": "ask"}))
                request = approvals.build_request(self._run, self.gate.next_id(), index, verdict)
                self.gate.ask(request)
                self._run.record_step(f"asks {', '.join(request.waits_for)}: {request.title} ({request.id})")
                asked.append(request)
        if asked:
            self._run.publish_status()
            self._run.refresh()
            self.gate.notifications.tell(asked, "asked")

    async def make(self, index: int, slots: asyncio.Semaphore) -> None:
        """Make one call once it may run; its answer stays open when the run has to halt before."""
        if self.children.is_open(index):
            await self._make_call(index)
        elif await self._is_cleared(index):
            async with slots:
                if await self._may_begin():
                    await self._make_call(index)

    async def _act_in_order(self, indexes: list[int]) -> None:
        for index in indexes:
            if self._control.is_halting:
                return
            if await self._is_cleared(index) and await self._may_begin():
                await self._make_call(index)

    async def _is_cleared(self, index: int) -> bool:
        """Wait until a call may run: at once, or when people decide; return false also when the run has to halt."""

        def is_decided() -> bool:
            verdict = self._run.state.verdicts[index]
            return self._run.state.answers[index] is not None or verdict is None or verdict.kind != "ask"

        if not is_decided():
            self._wait_for_people()
            try:
                await workflow.wait_condition(
                    lambda: is_decided() or self._control.is_halting, timeout=self._find_waiting_left(index)
                )
            except TimeoutError:
                self.gate.end_wait(index, "nobody decided before the time of the run was used up")
                await workflow.wait_condition(lambda: is_decided() or self._control.is_halting)
        verdict = self._run.state.verdicts[index]
        return self._run.state.answers[index] is None and verdict is not None and verdict.allowed

    def _find_waiting_left(self, index: int) -> timedelta | None:
        """Return the time for which call `index` may wait for people; what takes another one back waits for them."""
        return None if self._run.state.calls[index].undoes is not None else self.budget.find_waiting_left()

    def _wait_for_people(self) -> None:
        if not self._tool_calls.is_busy:
            names = self._run.request_facts.waits_for(self.gate.state.open)
            self._run.set_doing(f"waiting for {', '.join(names)}")

    async def _may_begin(self) -> bool:
        return await self._control.go_ahead() and not self._control.is_halting

    async def _make_call(self, index: int) -> None:
        """Make one call that may run, and keep its answer."""
        call, edit = self._run.state.calls[index], self._run.state.edits.get(index)
        tool, verdict = self._run.tool(call.tool), self._run.state.verdicts[index]
        assert verdict is not None
        if edit is not None:
            call = call.model_copy(update={"arguments": edit.call.arguments, "digest": edit.call.digest})
        is_open = self.children.is_open(index)
        if not is_open and (before := self.attempt_limits.find_spoiled(index, call)) is not None:
            self._run.release(tool, call.arguments)
            self.attempt_limits.refuse(index, call, before)
            return
        if is_keeping(tool):
            self._run.keep_in_mind(index, call.arguments)
            return
        if backtrack.is_going_back(tool):
            self._run.answer(index, self._go_back(call))
            return
        is_new = call.undoes is None and not is_open
        if is_new and (used_up := self._too_late or self._count_call(index)) is not None:
            self._run.release(tool, call.arguments)
            self._run.answer(index, ToolResult(text=used_up, error=True, cause="budget"))
            return
        placed = JudgedCall(index, call, tool, verdict, edit)
        self._run.set_doing(placed.line)
        made = await self._perform(placed)
        self._run.state.tainted = self._run.state.tainted or tool.untrusted
        if made is None:
            return
        self._run.state.tainted = self._run.state.tainted or made.answer.tainted
        if made.outcome in {Outcome.NOT_DONE, Outcome.NOT_SENT}:
            self._run.release(tool, call.arguments)
        answer = self.attempt_limits.count_outcome(placed, made)
        # A result may repeat what the arguments hold.
        told = made.outcome.value.replace("_", " ") if tool.sensitive else wording.describe_result(made.answer)
        self._run.answer(index, answer)
        self._run.record_step(f"{placed.line} → {told}")

    def _go_back(self, call: CallRequest) -> ToolResult:
        """Let the next request begin at an earlier step, once this turn has its answers."""
        state, (to, because) = self._run.state, backtrack.read_arguments(call.arguments)
        if (fault := backtrack.find_limit(state) or backtrack.find_fault(state, to)) is not None:
            return ToolResult(text=f"not gone back: {fault}", error=True)
        assert isinstance(to, int)
        state.ways_back += 1
        self._run.go_back(to, because)
        return backtrack.GONE_BACK

    def _count_call(self, index: int) -> str | None:
        """Count a call, unless it was before the run continued as new; return why it is not made."""
        its = self._run.state
        is_begun = index in its.waits or index in its.unclear or index in its.asked
        return None if is_begun and self._run.has(Change.COUNTS_CALLS_ONCE) else self.budget.take_tool_call()

    @property
    def _too_late(self) -> str | None:
        """The reason why no call is made any more, where a limit of time is used up."""
        short = self.budget.find_time_exceeded()
        return None if short is None else f"not made: {short.reason}"

    async def _perform(self, placed: JudgedCall) -> CallOutcome | None:
        """Make one call; return `None` when the run has to halt before its outcome is known."""
        attempted = await self._attempt(placed)
        while attempted is not None and (asking := attempted.answer.asking) is not None:
            if not self._dialogues.has_room(asking):
                attempted = replace(attempted, answer=TOO_MANY_QUESTIONS)
                break
            self._dialogues.ask(placed, asking)
            attempted = await self._attempt(placed)
        if attempted is None:
            return None
        compensation.keep(self._run, placed, attempted)
        failed = None
        if attempted.outcome is Outcome.DONE and not attempted.answer.error:
            failed = await self._verification.verify_after(placed, attempted)
        return CallOutcome(attempted.outcome, attempted.answer, failed, attempted.is_passing)

    async def _attempt(self, placed: JudgedCall) -> Attempted | None:
        """Make one call, once people have answered what its server asks; return `None` when the run has to halt."""
        if self._dialogues.is_open(placed.index):
            await self._dialogues.wait(placed.index, until=lambda: self._control.is_halting)
            if not self._dialogues.is_answered(placed.index) or not await self._may_begin():
                return None
            self._dialogues.note_sent(placed.index)
        elif placed.index in self._run.state.unclear:
            return await self._reconciliation.reconcile(placed)
        if placed.tool.child is not None:
            return await self.children.make(placed)
        attempted = await self._tool_calls.make(placed)
        if attempted is None or attempted.answer.asking is not None:
            return attempted
        if attempted.outcome is Outcome.UNKNOWN and self._tool_calls.needs_reconciliation(placed.tool):
            return await self._reconciliation.reconcile(placed)
        return attempted

    async def failed_final_check(self) -> str | None:
        """Return the check that the final answer does not pass and why; `None` when it passes all."""
        return await self._verification.verify_final()

    def supply(self, index: int | None, answer: ToolResult) -> None:
        """Put a person's result in place of what a call of the open turn returned."""
        if index is not None and index < len(self._run.state.answers):
            self._run.answer(index, answer)


def _acts(tool: Tool) -> bool:
    """Return whether a call is made in the model's order: it changes the world, or is a plan, whose calls may."""
    return tool.effect.changes_world or (tool.name == RUN_PLAN and tool.child is not None)
