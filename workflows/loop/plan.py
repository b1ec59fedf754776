"""A plan under way in its run: calls that overlap, each begun as soon as what it needs is there."""

import asyncio
from collections.abc import Iterator
from decimal import Decimal

from temporalio import workflow

from mandate.workflows import steps
from mandate.workflows.contracts.plan import (
    MOST_ASKED,
    MOST_SIDE_BY_SIDE,
    AdvanceRequest,
    EndedCall,
    PlanEnd,
    PlanState,
    StepAsk,
    StepSettled,
)
from mandate.workflows.contracts.state import RunState
from mandate.workflows.contracts.tool import CallRequest, ToolResult
from mandate.workflows.loop import observations, resolutions
from mandate.workflows.loop.attempts import AttemptLimits
from mandate.workflows.loop.control import Control
from mandate.workflows.loop.run import Run
from mandate.workflows.loop.tool_calls import CallOutcome, JudgedCall
from mandate.workflows.loop.turn import Turn
from mandate.workflows.rules import local_activities, wording

TOLD = CallRequest(tool="-")
"""In the place of a call that the plan has taken in: positions are never used again."""

DONE = ToolResult(text="")
"""In the place of its answer."""


def pack(state: RunState) -> None:
    """Leave out the places of calls that the plan has taken in: a plan of any size can continue as new."""
    plan = state.plan
    if plan is None or TOLD not in state.calls:
        return
    plan.made = len(state.calls)
    plan.kept = tuple(index for index, call in enumerate(state.calls) if call != TOLD)
    state.calls = tuple(state.calls[index] for index in plan.kept)
    state.answers = tuple(state.answers[index] for index in plan.kept)
    state.verdicts = tuple(state.verdicts[index] for index in plan.kept)


def unpack(state: RunState) -> None:
    """Put the calls of a state that was packed back in their places."""
    plan = state.plan
    if plan is None or not plan.made:
        return
    places = {position: place for place, position in enumerate(plan.kept)}
    calls, answers, verdicts = state.calls, state.answers, state.verdicts
    positions = range(plan.made)
    state.calls = tuple(calls[places[position]] if position in places else TOLD for position in positions)
    state.answers = tuple(answers[places[position]] if position in places else DONE for position in positions)
    state.verdicts = tuple(verdicts[places[position]] if position in places else None for position in positions)
    plan.made, plan.kept = 0, ()


class PlanAttempts(AttemptLimits):
    """Failures of a plan's calls, which the plan counts by itself, step by step."""

    def count_outcome(self, placed: JudgedCall, made: CallOutcome) -> ToolResult:
        """Return the answer; one that did not pass its checks is a failure."""
        if made.failed is None:
            return made.answer
        failed = f"did not pass: {made.failed}"
        self.keep_failed(placed, failed)
        rejected = made.answer.model_copy(update={"preview": ""}) if not made.answer.error else None
        return ToolResult(text=wording.shorten(failed, 1000), error=True, unfit=True, rejected=rejected)

    def find_earlier_failure(self, call: CallRequest) -> str | None:
        """Return nothing: a step that failed is made again as its plan says; what was done wrongly is not."""
        del call
        return None


class PlanCalls:
    """The calls of one plan: all that have ended since are told to it together."""

    def __init__(self, run: Run, control: Control, turn: Turn) -> None:
        self._run = run
        self._control = control
        self._turn = turn
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._slots = asyncio.Semaphore(MOST_SIDE_BY_SIDE)

    @property
    def _state(self) -> PlanState:
        assert self._run.state.plan is not None
        return self._run.state.plan

    @property
    def has_news(self) -> bool:
        """True if the plan has not begun, or some call has ended that it has not taken in."""
        answers = self._run.state.answers
        if not answers or any(answers[index] is not None for index in self._state.pending):
            return True
        return any(request in self._run.state.resolutions for request in self._state.asking.values())

    async def close(self) -> PlanEnd | None:
        """Tell the plan what has ended, and give up the rest; return how each of its steps went."""
        end = await self.advance(is_closing=True)
        self._run.release_open_calls()
        its = self._run.state
        its.calls, its.answers, its.verdicts = (), (), ()
        self._state.pending, self._state.asking = (), {}
        return end.model_copy(update={"output": None}) if end is not None else None

    async def advance(self, *, is_closing: bool = False) -> PlanEnd | None:
        """Tell the plan what has ended, and open what it begins; return how it ends."""
        its, plan = self._run.state, self._state
        ended = tuple(index for index in plan.pending if its.answers[index] is not None)
        told = tuple(self._describe(index) for index in ended)
        settled = tuple(self._take_settled())
        request = AdvanceRequest(
            agent=its.agent.digest,
            head=its.head,
            ended=told,
            settled=settled,
            step=its.step + 1,
            is_stopping=self._turn.budget.find_time_exceeded() is not None,
            is_closing=is_closing,
            is_child=its.child is not None,
        )
        advance = observations.Advance(self._run)
        move = await steps.advance_plan(request, locally=self._run.perform_locally(local_activities.PLANS))
        advance.end(request, move)
        self._run.keep_speed(local_activities.PLANS, was_quick=move.quick)
        its.head, its.step = move.head, its.step + 1
        self._forget(ended)
        self._open(move.calls)
        self._ask(move.asks)
        self._run.record_step(move.doing)
        return move.end

    def _take_settled(self) -> Iterator[StepSettled]:
        """Yield what people have said of failed steps since; one who stops has stopped the plan."""
        for label, request in list(self._state.asking.items()):
            said = resolutions.take(self._run, request)
            if said is None:
                continue
            self._state.asking = {name: one for name, one in self._state.asking.items() if name != label}
            match said.choice:
                case "retry":
                    yield StepSettled(call=label, choice="retry", text=said.guidance)
                case "accept":
                    yield StepSettled(call=label, choice="accept")
                case "supply" if said.answer is not None:
                    yield StepSettled(
                        call=label, choice="supply", answer=said.answer.model_copy(update={"preview": ""})
                    )
                case "stop":
                    self._turn.escalations.stop(said)
                    yield StepSettled(call=label, choice="expired", text=said.reason)
                case _:
                    yield StepSettled(call=label, choice="expired", text=said.reason)

    def _ask(self, asks: tuple[StepAsk, ...]) -> None:
        """Ask people of failed steps, of each call once."""
        for ask in asks:
            if ask.call not in self._state.asking and len(self._state.asking) < MOST_ASKED:
                request = self._turn.escalations.ask_step(ask)
                self._state.asking = {**self._state.asking, ask.call: request}

    def _describe(self, index: int) -> EndedCall:
        answer = self._run.state.answers[index]
        assert answer is not None
        cost = self._state.costs.get(index, Decimal(0))
        return EndedCall(number=index, answer=answer.model_copy(update={"preview": ""}), cost_usd=cost)

    def _forget(self, ended: tuple[int, ...]) -> None:
        """Keep nothing of calls that the plan has taken in but their places."""
        its, plan, gone = self._run.state, self._state, set(ended)
        if not gone:
            return
        plan.pending = tuple(index for index in plan.pending if index not in gone)
        plan.costs = {index: cost for index, cost in plan.costs.items() if index not in gone}
        its.calls = tuple(TOLD if index in gone else call for index, call in enumerate(its.calls))
        its.answers = tuple(DONE if index in gone else answer for index, answer in enumerate(its.answers))
        its.verdicts = tuple(None if index in gone else verdict for index, verdict in enumerate(its.verdicts))
        its.edits = {index: edit for index, edit in its.edits.items() if index not in gone}
        its.notes = {index: note for index, note in its.notes.items() if index not in gone}
        its.asked = {index: asked for index, asked in its.asked.items() if index not in gone}
        its.signed = {index: signed for index, signed in its.signed.items() if index not in gone}

    def _open(self, calls: tuple[CallRequest, ...]) -> None:
        its, plan = self._run.state, self._state
        first = len(its.calls)
        its.calls = (*its.calls, *calls)
        misfits = (ToolResult(text=call.misfit, error=True) if call.misfit else None for call in calls)
        its.answers = (*its.answers, *misfits)
        its.verdicts = (*its.verdicts, *(None for _ in calls))
        plan.pending = (*plan.pending, *range(first, first + len(calls)))

    async def act(self) -> None:
        """Make the open calls side by side, until the plan has news or the run has to halt."""
        self._turn.judge()
        for index in self._state.pending:
            if self._run.state.answers[index] is None and index not in self._tasks:
                self._tasks[index] = asyncio.create_task(self._turn.make(index, self._slots))
        try:
            await self._wait()
            if self._control.is_halting:
                await asyncio.gather(*self._tasks.values())
        except asyncio.CancelledError:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            raise
        for index, task in list(self._tasks.items()):
            if task.done():
                del self._tasks[index]
                task.result()

    async def _wait(self) -> None:
        """Wait until the plan has news or the run has to halt; people are not waited for beyond its time."""

        def is_over() -> bool:
            return self.has_news or self._are_done or self._control.is_halting

        left = self._turn.budget.find_waiting_left() if self._state.asking else None
        try:
            await workflow.wait_condition(is_over, timeout=left)
        except TimeoutError:
            for request in self._state.asking.values():
                self._turn.gate.end_request(request, "nobody decided before the time of the plan was used up")
            await workflow.wait_condition(is_over)

    @property
    def _are_done(self) -> bool:
        return not self._state.asking and all(task.done() for task in self._tasks.values())
