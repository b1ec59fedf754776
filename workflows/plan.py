"""`PlanWorkflow`: steps of agents, tools and plans, each as soon as what it needs is there."""

from typing import Any

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from mandate.workflows.agent import AgentWorkflow, Request
from mandate.workflows.contracts.agent import PinRequest
from mandate.workflows.contracts.model import ModelReply
from mandate.workflows.contracts.plan import PlanEnd, PlanRequest, PlanResult, PlanState
from mandate.workflows.contracts.run import RunResult, RunStatus
from mandate.workflows.contracts.state import Resolution, RunState
from mandate.workflows.loop import start
from mandate.workflows.loop.plan import PlanAttempts, PlanCalls, pack, unpack
from mandate.workflows.rules import result as rules_result


@workflow.defn
class PlanWorkflow(AgentWorkflow):
    """One run of one plan, from a request to a `PlanResult`."""

    @workflow.init
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        if self._run.is_begun:
            unpack(self._state)
        self._turn.attempt_limits = PlanAttempts(self._run)
        self._plan = PlanCalls(self._run, self._control, self._turn)
        self._end_of_plan: PlanEnd | None = None

    @workflow.run
    async def run(self, *_: Any) -> RunResult:
        """Work on one `PlanRequest` until each step has ended."""
        return await self._perform()

    def _read_request(self, args: tuple[Any, ...]) -> Request | ApplicationError:
        return super()._read_request(args) if start.is_marked(args) else start.plan_request_of(args)

    def _ask(self, request: Request) -> PinRequest:
        asked = super()._ask(request) if not isinstance(request, PlanRequest) else start.pin_plan_request(request)
        return asked.model_copy(update={"is_plan": True})

    def _describe_goal(self, request: Request) -> str:
        return start.describe_plan(request) if isinstance(request, PlanRequest) else ""

    async def _pinned(self, request: Request) -> RunState:
        state = await super()._pinned(request)
        state.plan = PlanState()
        return state

    async def _work(self) -> RunResult:
        while True:
            if self._control.is_compensating and self._turn.is_answered:
                return await self._close(RunStatus.STOPPED, self._stop_reason)
            goes_on = not self._control.is_compensating and self._plan.has_news
            if goes_on and await self._control.go_ahead():
                self._end_of_plan = await self._plan.advance()
                # A person may have stopped it over its last step: then what it did is taken back first.
                if self._end_of_plan is not None and not self._control.is_stopping:
                    return await self._close(self._end_of_plan.status, self._end_of_plan.reason)
            await self._make_calls()
            if self._state.uncertain:
                return await self._close(*self._unknown())
            if self._control.is_stopping:
                if not self._compensation.is_wanted:
                    if not self._control.is_compensating:
                        await self._close_plan()
                    return await self._close(RunStatus.STOPPED, self._stop_reason)
                await self._take_back()
            if self._run.is_leaving:
                await self._continue_as_new()

    def _pack_state(self) -> None:
        pack(self._state)

    async def _take_back(self) -> None:
        """Begin the last turn of a stopped plan, once the plan knows what has ended."""
        await self._close_plan()
        await super()._take_back()

    async def _close_plan(self) -> None:
        # A second stop comes after there is nothing left to tell.
        self._end_of_plan = await self._plan.close() or self._end_of_plan

    async def _make_calls(self) -> None:
        """Make the open calls until the plan has news; of a plan that is being stopped, wait for its children."""
        if self._control.is_compensating:
            await self._turn.act()
        elif not self._control.is_stopping:
            await self._plan.act()
        elif self._turn.children.are_open:
            await self._turn.children.end()
        if self._turn.children.are_open and self._run.is_leaving:
            await self._continue_as_new()

    def _build_result(
        self, status: RunStatus, reason: str | None, answer: ModelReply | Resolution | None
    ) -> PlanResult:
        result = rules_result.build_result(self._state, status, reason, answer)
        return rules_result.build_plan_result(result, self._end_of_plan)
