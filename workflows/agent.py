"""`AgentWorkflow`: decide, judge, ask people, act, until there is an answer."""

import asyncio
from dataclasses import replace
from typing import Any, NoReturn

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

from mandate.workflows import marks, steps
from mandate.workflows.contracts.agent import PinRequest
from mandate.workflows.contracts.budget import BudgetRequest, Ledger
from mandate.workflows.contracts.changes import Change
from mandate.workflows.contracts.children import ChildRequest
from mandate.workflows.contracts.marks import Marked
from mandate.workflows.contracts.model import Finish, ModelReply
from mandate.workflows.contracts.plan import PlanRequest
from mandate.workflows.contracts.run import RunRequest, RunResult, RunStatus
from mandate.workflows.contracts.state import Answered, RecoveryState, Rescue, Resolution, RunState, Trouble
from mandate.workflows.handlers import MessageHandlers
from mandate.workflows.loop import observations, parent, session, start, visibility
from mandate.workflows.loop.compensation import Compensation
from mandate.workflows.loop.control import Control
from mandate.workflows.loop.model_calls import ModelCalls, explain_failure
from mandate.workflows.loop.model_route import ModelRoute
from mandate.workflows.loop.run import Run
from mandate.workflows.loop.session import Session
from mandate.workflows.loop.telemetry import Telemetry
from mandate.workflows.loop.turn import Turn
from mandate.workflows.rules import budget, next_step, recovery, wording
from mandate.workflows.rules import result as rules_result

Request = RunRequest | ChildRequest | PlanRequest
"""What a run is asked."""

WHY_CHARACTERS = 250

NOTHING_LEFT = "nothing is left for a last answer"
"""Of why a run was stopped, before how much was taken back: the reason of a result has room for 500."""


@workflow.defn
class AgentWorkflow(MessageHandlers):
    """One run of one agent, from a request to a `RunResult`."""

    @workflow.init
    def __init__(self, *args: Any) -> None:
        self.activities_begun = 0
        carried: RunState | Any = start.carried_state(args)
        self._run = Run(carried if isinstance(carried, RunState) else None)
        self._control = Control(self._run)
        self._turn = Turn(self._run, self._control)
        self._budget = self._turn.budget
        self._route = ModelRoute(self._run)
        self._model_calls = ModelCalls(self._run, self._control, self._route, self._budget)
        self._compensation = Compensation(self._run, self._control)
        self._session = Session(self._run, self._control)
        self._request = None if isinstance(carried, RunState) else carried or self._read_request(args)
        if self._run.is_begun:
            self._turn.reopen()
        self._is_over = False

    @workflow.run
    async def run(self, *_: Any) -> RunResult:
        """Work on one `RunRequest` until there is an answer, a limit or nothing left to try."""
        return await self._perform()

    async def _perform(self) -> RunResult:
        beside = list[asyncio.Task[None]]()
        try:
            if isinstance(self._request, ApplicationError):
                raise self._request
            is_continued = self._request is None
            if self._request is not None:
                self._run.begin(await self._pinned(self._request))
            observations.note_begin(self._run, is_continued=is_continued)
            beside.append(asyncio.create_task(self._turn.gate.keep_time()))
            if self._state.child is not None and self._state.child.tells_waits:
                beside.append(asyncio.create_task(parent.tell_waits(self._run)))
            self._run.publish_status()
            result = await self._work()
            # What a child returns has a mark, which no type tells of.
            returned: Any = await parent.report(self._run, result)
            observations.note_end(self._run, str(result.status))
            return result if returned is None else returned
        except (asyncio.CancelledError, ActivityError) as error:
            if is_cancelled_exception(error) and self._run.is_begun:
                await asyncio.shield(asyncio.create_task(self._end_cancelled()))
            observations.note_end(self._run, "cancelled" if is_cancelled_exception(error) else "failed")
            raise
        except ApplicationError:
            observations.note_end(self._run, "failed")
            raise
        finally:
            self._is_over = True
            for task in beside:
                task.cancel()

    async def _pinned(self, request: Request) -> RunState:
        asked = self._ask(request)
        try:
            pinned = await steps.pin_agent(asked, locally=start.pin_locally())
        except ActivityError as error:
            if isinstance(error.cause, ApplicationError) and not is_cancelled_exception(error):
                raise error.cause from None
            raise
        state = RunState(
            agent=pinned.agent,
            head=pinned.head,
            requester=pinned.requester or request.requester,
            labels=request.labels,
            goal=pinned.goal or self._describe_goal(request),
            step_limit=start.step_limit(request.budget, pinned.agent.budget.steps),
            budget=budget.lower(pinned.agent.budget, request.budget) if request.budget is not None else None,
            ledger=Ledger(began_at=workflow.now()),
            estimate=pinned.estimate,
            is_counted=pinned.is_counted,
            tainted=pinned.agent.tainted or pinned.tainted or request.tainted,
            child=parent.begin(request) if isinstance(request, ChildRequest) else None,
            origin=pinned.origin,
            totals=(request.totals or {}) if isinstance(request, ChildRequest) else {},
            recovery=RecoveryState(refused=request.refused if isinstance(request, ChildRequest) else {}),
            quick=dict.fromkeys(pinned.slow, False),
            route=pinned.route,
        )
        if not isinstance(request, RunRequest) or request.session is None:
            return state
        return start.open_session(state, request, pinned)

    def _read_request(self, args: tuple[Any, ...]) -> Request | ApplicationError:
        """Return what this run is asked, by a client or as a child; or why it fails at once."""
        if len(args) == 1 and isinstance(args[0], Marked):
            return parent.read_request(args[0])
        return start.request_of(args)

    def _ask(self, request: Request) -> PinRequest:
        """Return what `pin_agent` must know of the request."""
        if isinstance(request, ChildRequest):
            return parent.pin_request(request)
        assert isinstance(request, RunRequest)
        return start.pin_request(request)

    def _describe_goal(self, request: Request) -> str:
        return start.goal_of(request.input) if isinstance(request, RunRequest) else ""

    async def _work(self) -> RunResult:
        while True:
            if self._session.is_idle and self._state.control.stopped is None and not await self._hear():
                return await self._close_session()
            if self._control.is_compensating and self._turn.is_answered:
                return await self._close(RunStatus.STOPPED, self._stop_reason, self._state.last_answer)
            if self._turn.is_answered and not self._session.is_idle and await self._control.go_ahead():
                result = await self._go_on()
                if result is not None:
                    return result
            await self._act()
            if self._state.uncertain:
                return await self._close(*self._unknown())
            if self._control.is_stopping:
                if not self._compensation.is_wanted:
                    return await self._close(RunStatus.STOPPED, self._stop_reason, self._state.last_answer)
                await self._take_back()
            if self._run.is_leaving:
                await self._continue_as_new()

    async def _act(self) -> None:
        """Answer the open calls; of a run that is being stopped, those that children are under way for."""
        if not self._control.is_stopping:
            await self._turn.act()
        elif self._turn.children.are_open:
            await self._turn.children.end()
        if self._turn.children.are_open:
            # They are waited for by the next part of the run.
            await self._continue_as_new()

    async def _hear(self) -> bool:
        """Wait for a message and begin its turn; return false when none came in time."""
        if not await self._session.wait():
            return False
        if self._state.ledger.is_answering and self._session.has_messages:
            # Its last answer was given: nothing is left to ask the model with.
            self._session.begin_turn()
            await self._end(RunStatus.EXHAUSTED, self._state.ledger.used_up)
        elif not self._run.is_leaving:
            self._session.begin_turn()
        return True

    async def _close_session(self) -> RunResult:
        """End a session that nobody has said anything to for long, with its last answer."""
        last = self._state.session.last if self._state.session is not None else None
        assert last is not None
        return await self._close(last.status, last.reason, last.answer)

    async def _take_back(self) -> None:
        """Begin the last turn of a stopped run, in which what it did is taken back."""
        self._turn.gate.withdraw("the run is being stopped")
        try:
            reply = await self._compensation.begin()
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            self._control.end_compensation()
            self._run.record_step(f"nothing could be taken back: {explain_failure(error, self._state.agent.store)}")
            return
        self._state.head = reply.head
        self._state.step = self._state.step + 1
        self._state.rescue = None
        self._turn.open(reply.calls)

    @property
    def _stop_reason(self) -> str:
        """The one who stopped the run and why, and how much of it was taken back."""
        reason, outcome = self._control.stop_reason, self._compensation.outcome
        return f"{wording.shorten(reason, WHY_CHARACTERS)}; {outcome}" if outcome else reason

    def _unknown(self) -> tuple[RunStatus, str]:
        """Return the end of a run that does not know what it did: nobody could say, or somebody stopped it over it."""
        lost = "; ".join(f"{entry.call} ({entry.reason})" for entry in self._state.uncertain)
        unknown = f"it is unknown whether this happened: {lost}"
        if self._control.is_compensating:
            return RunStatus.STOPPED, f"{self._stop_reason}; {unknown}"
        if self._control.is_stopping:
            return RunStatus.STOPPED, self._stop_reason
        return RunStatus.DECLINED, unknown

    async def _go_on(self) -> RunResult | None:
        """Return the next step of the model, once people have said how to go on where that is needed."""
        if self._state.ledger.is_answering:
            if self._budget.has_no_step:
                return await self._end(RunStatus.EXHAUSTED, f"{self._state.ledger.used_up}; {NOTHING_LEFT}")
            return await self._decide()
        self._turn.attempt_limits.count_turn()
        about = recovery.find_exhausted(self._state.recovery, self._state.agent.attempts)
        if self._state.rescue is None and about is not None and self._run.has(Change.ESCALATES):
            failures = self._state.recovery.troubles[about].failures
            self._turn.escalations.escalate(about, recovery.describe(about, failures))
        if self._state.rescue is not None:
            return await self._rescued(self._state.rescue)
        if self._budget.is_kept and (short := self._budget.find_exceeded()) is not None:
            return await self._use_up(short)
        if self._state.step >= self._state.step_limit and not self._budget.is_kept:
            return await self._end(RunStatus.EXHAUSTED, start.used_up(self._state.step_limit))
        return await self._decide()

    async def _use_up(self, short: budget.Shortfall) -> RunResult | None:
        """Do as the agent file says now that a limit leaves no room for another ordinary step."""
        used_up = self._state.ledger.used_up
        if short.is_beyond and self._budget.limits.when_used_up == "ask":
            return await self._give_up(recovery.MODEL, short.reason)
        if short.is_beyond:
            return await self._end(RunStatus.EXHAUSTED, "; ".join(filter(None, (used_up, short.reason))))
        if self._state.ledger.is_answering:
            why = "" if short.reason == used_up else f" ({short.reason})"
            return await self._end(RunStatus.EXHAUSTED, f"{used_up}; {NOTHING_LEFT}{why}")
        match self._budget.limits.when_used_up:
            case "stop":
                return await self._end(RunStatus.EXHAUSTED, short.reason)
            case "ask":
                if not short.missing and self._run.has(Change.TELLS_NEXT_STEP):
                    short = replace(short, missing=self._budget.describe_next(self._route.model))
                self._turn.escalations.ask_budget(short, self._budget.limits)
            case _:
                self._begin_last_answer(short.reason)
        return None

    def _begin_last_answer(self, reason: str) -> None:
        self._budget.begin_last_answer(reason)
        self._run.record_step(f"{reason}; asks for the last answer")

    async def _rescued(self, rescue: Rescue) -> RunResult | None:
        """Wait for a person, and do as they say; nothing when the run has to halt before they have."""
        said = await self._turn.escalations.resolution(rescue.request)
        if said is None:
            return None
        if rescue.about == recovery.BUDGET:
            self._settle_budget(rescue, said)
            return None
        match said.choice:
            case "stop":
                self._turn.escalations.stop(said)
                return None
            case "expired":
                return await self._end(RunStatus.DECLINED, f"{rescue.reason}; {said.reason}", rescue.reply)
            case "accept" if rescue.reply is not None:
                return await self._end(RunStatus.COMPLETED, f"as it is: {said.reason}", rescue.reply)
            case "supply" if rescue.about in {recovery.FINAL, recovery.MODEL}:
                return await self._end(RunStatus.COMPLETED, f"{wording.SUPPLIED}: {said.reason}", said)
            case "supply" if said.answer is not None:
                self._turn.supply(self._state.recovery.troubles.get(rescue.about, Trouble()).index, said.answer)
                self._turn.escalations.settle(said, f"I have supplied the result. {said.comment}")
            case "go_back":
                self._turn.escalations.go_back(said)
            case "accept":
                self._turn.escalations.settle(said, f"I accept it as it is; go on. {said.comment}")
            case _:
                self._turn.escalations.settle(said, f"Try again. {said.guidance}")
        if rescue.about == recovery.MODEL:
            self._route.begin_again()
        return None

    def _settle_budget(self, rescue: Rescue, said: Resolution) -> None:
        """Raise the limits as a person says, or let the model give its last answer."""
        self._state.rescue = None
        match said.choice:
            case "stop":
                self._turn.escalations.stop(said)
            case "raise":
                asked = BudgetRequest.model_validate(said.value)
                self._state.budget = budget.raise_limits(self._budget.limits, asked)
                self._run.record_step(f"{said.by or 'somebody'} raises the limits: {budget.describe_limits(asked)}")
            case "answer":
                self._begin_last_answer(rescue.reason)
            case _:
                self._begin_last_answer(f"{rescue.reason}; {said.reason}")

    async def _decide(self) -> RunResult | None:
        """Ask the model what to do next; the result of the run when there is nothing more to do."""
        words, messages = self._control.take_words(), self._session.take_messages()
        reply = await self._model_calls.ask((*words, *session.write_words(messages)))
        if isinstance(reply, ModelReply):
            self._session.note_told()
        else:
            self._control.give_back_words(words)
            self._session.give_back()
        if isinstance(reply, budget.Shortfall):
            return await self._use_up(reply)
        if not isinstance(reply, ModelReply):
            if reply and self._state.ledger.is_answering:
                return await self._end(RunStatus.EXHAUSTED, f"{self._state.ledger.used_up}; {reply[-1]}")
            return await self._give_up(recovery.MODEL, reply[-1], tried=reply) if reply else None
        if self._state.ledger.is_answering:
            return await self._take_last_answer(reply)
        move = next_step.choose_next(reply, self._state.misfits, self._state.agent.attempts)
        counted = isinstance(move, next_step.AskAgain) and move.counts
        self._keep_misfit(reply, move)
        self._state.head = reply.head
        self._state.step = self._state.step + 1
        self._state.back = None
        if not self._budget.is_kept:
            self._state.usage = self._state.usage + reply.usage
        self._state.note = move.note if isinstance(move, next_step.AskAgain) else None
        self._state.misfits = self._state.misfits + 1 if counted else 0
        self._turn.open(reply.calls)
        self._remember(reply)
        match move:
            case next_step.Done() if self._control.is_stopping:
                self._state.last_answer = reply
                return None
            case next_step.Done() if not self._is_told_more:
                return await self._finish(reply)
            case next_step.GiveUp(reason):
                return await self._give_up(recovery.FINAL, reason, reply, tried=self._state.untaken)
            case _:
                return None

    async def _take_last_answer(self, reply: ModelReply) -> RunResult | None:
        """End with the answer that was kept back for, checked like any other and told of, whatever the checks find."""
        self._state.head = reply.head
        self._state.step = self._state.step + 1
        self._state.back = None
        self._state.note = None
        self._turn.open(())
        if self._control.is_stopping:
            self._state.last_answer = reply
            return None
        reasons = [self._state.ledger.used_up]
        if reply.finish is not Finish.COMPLETE:
            reasons.append(f"its last answer: {reply.problem or reply.finish}")
        elif (failed := await self._turn.failed_final_check()) is not None:
            reasons.append(f"its last answer did not pass: {failed}")
        return await self._end(RunStatus.EXHAUSTED, "; ".join(reasons), reply)

    async def _finish(self, reply: ModelReply) -> RunResult | None:
        """Return the run's end if its answer passes all checks; else tell the model what did not."""
        failed = await self._turn.failed_final_check()
        if self._run.has(Change.HOLDS_BEFORE_ATTEMPTS) and self._control.is_stopping:
            self._state.last_answer = reply
            return None
        if failed is None and self._run.has(Change.HEARS_LATE_WORDS) and self._is_told_more:
            return None
        if failed is None:
            return await self._end(RunStatus.COMPLETED, None, reply)
        self._state.recovery = recovery.count_failure(self._state.recovery, recovery.FINAL, failed)
        failures = self._state.recovery.troubles[recovery.FINAL].failures
        self._state.note = f"Your answer was not taken: {failed}. Put that right, then answer again."
        if failures >= self._state.agent.attempts:
            return await self._give_up(recovery.FINAL, recovery.describe(recovery.FINAL, failures), reply)
        self._turn.attempt_limits.try_next_model()
        return None

    def _keep_misfit(self, reply: ModelReply, move: next_step.Next) -> None:
        """Keep the faults of answers in a row that could not be taken, for whoever is asked in the end."""
        match move:
            case next_step.AskAgain(note=str()) | next_step.GiveUp():
                line = wording.shorten(f"answer not taken: {reply.problem or reply.finish}", 300)
                self._state.untaken = (*self._state.untaken, line)[-recovery.LINES :]
                self._turn.attempt_limits.try_next_model()
            case next_step.Done() | next_step.Act():
                self._state.untaken = ()

    @property
    def _is_told_more(self) -> bool:
        """True if people have said something that the model can still be told."""
        can_be_told = self._state.step < self._budget.most_steps or not self._run.has(Change.HEARS_LATE_WORDS)
        return (self._control.has_words or self._session.has_untold) and can_be_told

    async def _give_up(
        self, about: str, reason: str, reply: ModelReply | None = None, tried: tuple[str, ...] = ()
    ) -> RunResult | None:
        """Ask a person how to go on; a run that began before people were asked ends."""
        if not self._run.has(Change.ESCALATES):
            return await self._end(RunStatus.DECLINED, reason, reply)
        self._turn.escalations.escalate(about, reason, reply, tried)
        return None

    async def _continue_as_new(self) -> NoReturn:
        await self._turn.gate.drain()
        self._run.clear_status()
        self._pack_state()
        state = marks.mark("state", marks.state_place(), self._state)
        observations.note_end(self._run, "continued")
        workflow.continue_as_new(state)

    def _pack_state(self) -> None:
        """Leave out of the state what the next part does not need: nothing waits or happens after this."""

    async def _end(
        self, status: RunStatus, reason: str | None = None, answer: ModelReply | Resolution | None = None
    ) -> RunResult | None:
        """Return the run's result; nothing for a session, which goes on after its answer."""
        if self._session.state is None:
            return await self._close(status, reason, answer)
        self._turn.gate.withdraw(f"the answer was given: {reason or status}")
        self._run.record_step(f"answers: {reason or status}")
        if status is not RunStatus.COMPLETED:
            # They have been answered with that: nobody can be told them any more.
            self._control.take_words()
        if status is RunStatus.DECLINED:
            self._route.begin_again()
        result = self._build_result(status, reason, answer)
        await self._session.answer(Answered(status=status, reason=reason, answer=answer), result)
        self._begin_anew()
        return None

    def _begin_anew(self) -> None:
        """Forget what stood in the way of the last answer; what people refused stays refused.

        Answers to calls that the model was not told yet are told with the next message.
        """
        self._state.rescue, self._state.note = None, None
        self._state.misfits, self._state.untaken = 0, ()
        self._state.recovery = self._state.recovery.model_copy(update={"troubles": {}, "same": {}})

    async def _close(
        self, status: RunStatus, reason: str | None = None, answer: ModelReply | Resolution | None = None
    ) -> RunResult:
        """Return the result of a run that is over; `answer` is the model's, or a person's in its place."""
        self._control.is_ending = True
        if self._session.state is not None:
            await self._session.close(status, self._build_result(status, reason, answer))
        self._run.doing = f"{status}: {reason}" if reason else str(status)
        self._turn.gate.withdraw(f"the run ended: {reason or status}")
        # A decision that is being checked gets its answer, that the run has ended.
        await workflow.wait_condition(workflow.all_handlers_finished)
        if self._turn.lost:
            self._state.uncertain = (*self._state.uncertain, *self._turn.lost)
            self._state.unclear = {}
        self._run.record_step(self._run.doing)
        visibility.close(self._state)
        return self._build_result(status, reason, answer)

    async def _end_cancelled(self) -> None:
        """End a cancelled run: its children are cancelled too, and its parent is told."""
        if self._turn.children.are_open:
            await self._turn.children.cancel()
        self._close_cancelled()
        await parent.report(self._run, None)

    def _build_result(self, status: RunStatus, reason: str | None, answer: ModelReply | Resolution | None) -> RunResult:
        return rules_result.build_result(self._state, status, reason, answer)

    def _close_cancelled(self) -> None:
        """Close a cancelled run, which has no result: what it did, and what may have happened, is in its memo."""
        for entry in self._turn.lost:
            reason = entry.reason or "the run was cancelled while it ran"
            unclear = entry.model_copy(update={"reason": reason})
            self._state.uncertain = (*self._state.uncertain, unclear)
        self._run.doing = "cancelled"
        self._run.record_step("cancelled")
        visibility.close(self._state, memo=True)

    def note_activity(self, change: int) -> None:
        """Count the activities that run, for the time that the run only waits."""
        self._run.running += change
        self._run.note_time()

    @property
    def telemetry(self) -> Telemetry:
        """Telemetry of this run, for what it starts."""
        return self._run.telemetry

    @property
    def store(self) -> str | None:
        """Id of the store of this run; not known before its agent is pinned."""
        return self._state.agent.store if self._run.is_begun else None

    @property
    def _state(self) -> RunState:
        return self._run.state

    def _remember(self, reply: ModelReply) -> None:
        if reply.text and reply.calls:
            self._run.record_step(f"says: {wording.shorten(reply.text, 80)}")
        for call in reply.calls:
            if call.misfit:
                self._run.record_step(f"cannot be called: {call.tool} ({wording.shorten(call.misfit, 80)})")
