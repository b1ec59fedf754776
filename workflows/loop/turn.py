"""The calls of one turn: judged in order, asked for, made, answered."""

import asyncio

from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.request import Request
from mandate.workflows.contracts.run import EffectEntry
from mandate.workflows.contracts.tool import CallRequest, ToolResult
from mandate.workflows.loop.approvals import Approvals, is_question
from mandate.workflows.loop.attempts import AttemptLimits
from mandate.workflows.loop.calls import Calls
from mandate.workflows.loop.control import Control
from mandate.workflows.loop.desk import Settled
from mandate.workflows.loop.escalation import Escalations
from mandate.workflows.loop.open_calls import OpenCalls
from mandate.workflows.loop.people import MESSAGES, PeopleGate
from mandate.workflows.loop.run import Run
from mandate.workflows.loop.tool_calls import JudgedCall
from mandate.workflows.rules import policy, wording
from temporalio import workflow

PARALLEL_READS = 64
"""Reads of one turn that are in flight at once."""

EVENTS = 1500
"""Events after which a run continues as new, so that another worker replays it within a second or two."""


class Turn:
    """Calls that the model asked for last, until each has an answer."""

    def __init__(self, run: Run, control: Control) -> None:
        self.calls = OpenCalls(run)
        self._approvals = Approvals(run, self.calls, self._resolve)
        self.gate = PeopleGate(run, self._approvals)
        self.escalations = Escalations(run, control, self.gate, lambda: self.is_leaving)
        self._run = run
        self._control = control
        self._maker = Calls(run, control, self.escalations, self.calls)
        self.attempt_limits = AttemptLimits(run, self.calls)

    @property
    def is_answered(self) -> bool:
        return all(answer is not None for answer in self._run.state.answers)

    @property
    def is_leaving(self) -> bool:
        """True if the run continues as new as soon as nothing is in flight."""
        info = workflow.info()
        return (
            info.is_continue_as_new_suggested()
            or info.get_current_history_length() >= EVENTS
            or self.gate.messages >= MESSAGES
        )

    @property
    def lost(self) -> tuple[EffectEntry, ...]:
        """Calls that were sent out and whose end the run will not see."""
        return self._maker.lost

    def reopen(self) -> None:
        """Go on with a turn that was open when the run continued as new; older runs kept no verdicts."""
        missing = len(self._run.state.calls) - len(self._run.state.verdicts)
        self._run.update(verdicts=(*self._run.state.verdicts, *[None] * missing))

    def open(self, calls: tuple[CallRequest, ...]) -> None:
        """Begin a turn; what does not fit has its answer already."""
        answers = tuple(ToolResult(text=call.misfit, error=True) if call.misfit else None for call in calls)
        self._run.update(
            calls=calls,
            answers=answers,
            verdicts=tuple(None for _ in calls),
            edits={},
            notes={},
            signed={},
            turn_counted=False,
        )
        if not self._run.is_current_loop:
            return
        # Once a tool: of three hundred calls at once those beyond the limit are one mistake.
        for index, call in {call.tool: (index, call) for index, call in enumerate(calls) if call.misfit}.values():
            if self._run.state.agent.tool(call.tool) is not None:
                self.attempt_limits.failed(call.tool, f"{call.tool}: {call.misfit}", index=index)

    async def act(self) -> None:
        """Answer the open calls: reads side by side, effects one by one in the model's order.

        Returns early when the run stops, has to continue as new, or does not know what became of an effect.
        """
        self._judge()
        calls, answers = self._run.state.calls, self._run.state.answers
        open_calls = [index for index, answer in enumerate(answers) if answer is None]
        acting = [index for index in open_calls if self.calls.tool(calls[index].tool).effect.changes_world]
        reading = [index for index in open_calls if index not in acting]
        slots = asyncio.Semaphore(PARALLEL_READS)
        if open_calls:
            await asyncio.gather(*(self._read(index, slots) for index in reading), self._act_in_order(acting))

    def _judge(self) -> None:
        """Judge each call that is not judged yet, one after another, and ask people for all that need it at once."""
        asked = []
        for index, call in enumerate(self._run.state.calls):
            if self._run.state.answers[index] is not None or self._run.state.verdicts[index] is not None:
                continue
            tool = self.calls.tool(call.tool)
            verdict = policy.judge(
                self.calls.rules, tool, call.arguments, self._run.facts, tools=self._run.state.agent.tools
            )
            if verdict.kind == "deny" or (verdict.kind == "ask" and not self._run.state.agent.asks):
                self.calls.deny(index, verdict.reason)
                continue
            if call.undoes is None and (before := self.attempt_limits.barred(call)) is not None:
                self.attempt_limits.refuse(index, call, before)
                continue
            self.calls.set_verdict(index, verdict)
            self.calls.reserve(tool, call.arguments)
            if verdict.kind == "ask" or is_question(tool):
                self.calls.set_verdict(index, verdict.model_copy(update={"kind": "ask"}))
                asked.append(self._approvals.ask(self.gate, index, call, tool, verdict))
        if asked:
            self._run.publish_status()
            self._run.refresh()
            self.gate.notifications.tell(asked, "asked")

    async def _read(self, index: int, slots: asyncio.Semaphore) -> None:
        if await self._is_cleared(index):
            async with slots:
                if await self._may_begin():
                    await self._make(index)

    async def _act_in_order(self, indexes: list[int]) -> None:
        for index in indexes:
            if self._is_halting:
                return
            if await self._is_cleared(index) and await self._may_begin():
                await self._make(index)

    @property
    def _is_halting(self) -> bool:
        return self._control.is_stopping or bool(self._run.state.uncertain) or self.is_leaving

    async def _is_cleared(self, index: int) -> bool:
        """Wait until a call may run: at once, or when people decide; return false also when the run has to halt."""

        def is_decided() -> bool:
            verdict = self._run.state.verdicts[index]
            return self._run.state.answers[index] is not None or verdict is None or verdict.kind != "ask"

        if not is_decided():
            self._wait_for_people()
            await workflow.wait_condition(lambda: is_decided() or self._is_halting)
        verdict = self._run.state.verdicts[index]
        return self._run.state.answers[index] is None and verdict is not None and verdict.allowed

    def _wait_for_people(self) -> None:
        if not self._maker.is_busy:
            names = self._run.board.waits_for(self.gate.state.open)
            self._run.set_doing(f"waiting for {', '.join(names)}")

    async def _may_begin(self) -> bool:
        return await self._control.go_ahead(lambda: self.is_leaving) and not self._is_halting

    async def _make(self, index: int) -> None:
        """Make one call that may run, and keep its answer."""
        call, edit = self._run.state.calls[index], self._run.state.edits.get(index)
        tool, verdict = self.calls.tool(call.tool), self._run.state.verdicts[index]
        assert verdict is not None
        if edit is not None:
            call = call.model_copy(update={"arguments": edit.call.arguments, "digest": edit.call.digest})
        if (before := self.attempt_limits.spoiled_meanwhile(index, call)) is not None:
            self.calls.give_back(tool, call.arguments)
            self.attempt_limits.refuse(index, call, before)
            return
        placed = JudgedCall(index, call, tool, verdict, edit)
        self._run.set_doing(placed.line)
        made = await self._maker.make(placed)
        self._run.update(tainted=self._run.state.tainted or tool.untrusted)
        if made is None:
            return
        if made.outcome in {Outcome.NOT_DONE, Outcome.NOT_SENT}:
            self.calls.give_back(tool, call.arguments)
        answer = self.attempt_limits.told(placed, made)
        # A result may repeat what the arguments hold.
        told = made.outcome.value.replace("_", " ") if tool.sensitive else wording.describe_result(made.answer)
        self.calls.answer(index, answer)
        self._run.record_step(f"{placed.line} → {told}")

    def _resolve(self, settled: Settled) -> None:
        self.escalations.resolve(settled)

    def view(self, request: Request) -> Request:
        """Return `request` as people may see it."""
        return self._approvals.view(request)

    async def failed_final_check(self) -> str | None:
        """Return the check that the final answer does not pass and why; `None` when it passes all."""
        return await self._maker.failed_final_check()

    def supply(self, index: int | None, answer: ToolResult) -> None:
        """Put a person's result in place of what a call of the open turn returned."""
        if index is not None and index < len(self._run.state.answers):
            self.calls.answer(index, answer)
