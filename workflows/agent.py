"""`AgentWorkflow`: decide, judge, act, until there is an answer."""

import asyncio
import json
from typing import Any, NoReturn

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

from workflows import display, starting, steps
from workflows.contracts.agent import PinRequest
from workflows.contracts.failures import FailureType, Outcome
from workflows.contracts.model import ModelReply, ModelRequest
from workflows.contracts.policy import Verdict
from workflows.contracts.run import EffectEntry, Progress, RunRequest, RunResult, RunState, RunStatus
from workflows.contracts.tool import TURN_LIMIT_BYTES, CallRequest, Tool, ToolRequest, ToolResult
from workflows.rules import effects, policy, recovery, routing, wording

RECENT = 8
"""Steps that the current details show."""

RESULT_BYTES = 31 * 1024
"""Most that a result takes; the list of the last effects is shortened for it."""

PARALLEL_READS = 64
"""Reads of one turn that are in flight at once."""


@workflow.defn
class AgentWorkflow:
    """One run of one agent, from a request to a `RunResult`."""

    @workflow.init
    def __init__(self, *args: Any) -> None:
        self._doing = "starting"
        self._answers: list[ToolResult | None] = []
        self._in_flight: dict[int, EffectEntry] = {}
        self._state: RunState | None = None
        self._request: RunRequest | ApplicationError | None = None
        if starting.is_continued(args):
            self._state = RunState.model_validate(args[0])
            self._answers = list(self._state.answers)
        else:
            self._request = starting.request_of(args)

    @workflow.run
    async def run(self, *_: Any) -> RunResult:
        """Work on one `RunRequest` until there is an answer, a limit or nothing left to try."""
        try:
            if isinstance(self._request, ApplicationError):
                raise self._request
            if self._request is not None:
                self._state = await self._begin(self._request)
            return await self._work()
        except (asyncio.CancelledError, ActivityError) as error:
            if is_cancelled_exception(error) and self._state is not None:
                self._close_cancelled()
            raise

    async def _begin(self, request: RunRequest) -> RunState:
        try:
            pinned = await steps.pin_agent(PinRequest(agent=request.agent, input=request.input))
        except ActivityError as error:
            if isinstance(error.cause, ApplicationError) and not is_cancelled_exception(error):
                raise error.cause from None
            raise
        state = RunState(
            agent=pinned.agent,
            head=pinned.head,
            requester=request.requester,
            labels=request.labels,
            step_limit=starting.step_limit(request.budget, pinned.agent.budget.steps),
        )
        display.announce(state)
        return state

    async def _work(self) -> RunResult:
        while True:
            if all(answer is not None for answer in self._answers):
                if self._now.step >= self._now.step_limit:
                    return self._end(
                        RunStatus.EXHAUSTED, reason=f"the limit of {self._now.step_limit} steps is used up"
                    )
                result = await self._decide()
                if result is not None:
                    return result
            await self._act()
            if self._now.uncertain:
                lost = "; ".join(f"{entry.call} ({entry.reason})" for entry in self._now.uncertain)
                return self._end(RunStatus.DECLINED, reason=f"it is unknown whether this happened: {lost}")
            if workflow.info().is_continue_as_new_suggested():
                await self._continue_as_new()

    async def _decide(self) -> RunResult | None:
        """Ask the model what to do next; the result of the run when there is nothing more to do."""
        reply = await self._ask_model()
        if isinstance(reply, RunResult):
            return reply
        move = recovery.next_after(reply, self._now.misfits, self._now.agent.attempts)
        counted = isinstance(move, recovery.AskAgain) and move.counts
        self._update(
            head=reply.head,
            step=self._now.step + 1,
            usage=self._now.usage + reply.usage,
            calls=reply.calls,
            note=move.note if isinstance(move, recovery.AskAgain) else None,
            misfits=self._now.misfits + 1 if counted else 0,
        )
        self._answers = [ToolResult(text=call.misfit, error=True) if call.misfit else None for call in reply.calls]
        self._remember(reply)
        match move:
            case recovery.Done():
                return self._end(RunStatus.COMPLETED, reply=reply)
            case recovery.GiveUp(reason):
                return self._end(RunStatus.DECLINED, reason=reason, reply=reply)
            case _:
                return None

    async def _ask_model(self) -> ModelReply | RunResult:
        """The answer of the first model of the route that gives one, from the run's current model on."""
        route = self._now.agent.models
        while True:
            model = self._now.model or route[0]
            self._show(f"asking {model}")
            try:
                return await steps.call_model(self._model_request(), model)
            except ActivityError as error:
                if is_cancelled_exception(error):
                    raise
                reason = _reason(error, self._now.agent.store)
                following = routing.after(route, model) if _another_model_may_help(error) else None
                if following is None:
                    return self._end(RunStatus.DECLINED, reason=f"{model} gave no answer: {reason}")
                self._recall(f"{model} gave no answer ({reason}); going on with {following}")
                self._update(model=following)

    def _model_request(self) -> ModelRequest:
        return ModelRequest(
            agent=self._now.agent.digest,
            head=self._now.head,
            model=self._now.model,
            results=tuple(answer.model_copy(update={"preview": ""}) for answer in self._answers if answer is not None),
            note=self._now.note,
            step=self._now.step + 1,
        )

    async def _act(self) -> None:
        """Answer the open calls of the turn: reads side by side, effects one by one in the model's order."""
        calls = self._now.calls
        tools = {call.tool: tool for call in calls if (tool := self._now.agent.tool(call.tool)) is not None}
        open_calls = [index for index, answer in enumerate(self._answers) if answer is None]
        acting = [index for index in open_calls if tools[calls[index].tool].effect.changes_world]
        reading = [index for index in open_calls if index not in acting]
        slots = asyncio.Semaphore(PARALLEL_READS)

        async def read(index: int) -> None:
            async with slots:
                await self._answer(index, tools[calls[index].tool])

        if open_calls:
            await asyncio.gather(*(read(index) for index in reading), self._act_in_order(acting, tools))
        self._update(answers=tuple(self._answers))

    async def _act_in_order(self, indexes: list[int], tools: dict[str, Tool]) -> None:
        for index in indexes:
            if self._now.uncertain or workflow.info().is_continue_as_new_suggested():
                return
            await self._answer(index, tools[self._now.calls[index].tool])

    async def _answer(self, index: int, tool: Tool) -> None:
        """Judge one call, make it if it may run, and keep its answer."""
        call = self._now.calls[index]
        verdict = policy.judge(self._now.agent.policy, tool)
        if not verdict.allowed:
            self._recall(f"refused: {wording.call(call.tool, call.arguments, tool.sensitive)} ({verdict.reason})")
            self._answers[index] = ToolResult(text=f"refused: {verdict.reason}", error=True)
            return
        self._show(wording.call(call.tool, call.arguments, tool.sensitive))
        attempted = await self._attempt(index, call, tool, verdict)
        line = wording.call(call.tool, call.arguments, tool.sensitive)
        # A result may repeat what the arguments hold.
        told = attempted.outcome.value.replace("_", " ") if tool.sensitive else wording.result(attempted.answer)
        self._recall(f"{line} → {told}")
        self._answers[index] = attempted.answer

    async def _attempt(self, index: int, call: CallRequest, tool: Tool, verdict: Verdict) -> steps.Attempted:
        entry = self._effect_entry(call, tool) if tool.effect.changes_world else None
        key = entry.key if entry else None
        if entry is not None:
            self._in_flight[index] = entry
        if tool.remote is not None:
            attempted = self._carried(await steps.call_remote_activity(tool.remote, call, tool, key, verdict))
        else:
            request = ToolRequest(
                agent=self._now.agent.digest, head=self._now.head, index=index, key=key, step=self._now.step
            )
            attempted = await steps.run_tool(request, call, tool, verdict)
        if entry is not None:
            del self._in_flight[index]
            self._account(entry, attempted)
        return attempted

    def _carried(self, attempted: steps.Attempted) -> steps.Attempted:
        """`attempted`, without its result if Temporal could not carry all inline results of the turn together."""
        size = len(attempted.answer.text or "")
        held = sum(len(answer.text or "") for answer in self._answers if answer is not None)
        if held + size <= TURN_LIMIT_BYTES // 2:
            return attempted
        text = f"done, but its result of {size} characters is more than one turn can return; ask for fewer at once"
        return steps.Attempted(attempted.outcome, ToolResult(text=text))

    def _effect_entry(self, call: CallRequest, tool: Tool) -> EffectEntry:
        assert call.digest is not None
        return EffectEntry(
            step=self._now.step,
            tool=tool.name,
            call=wording.call(call.tool, call.arguments, tool.sensitive),
            key=effects.idempotency_key(workflow.info().first_execution_run_id, call.digest, call.repeat),
        )

    def _account(self, entry: EffectEntry, attempted: steps.Attempted) -> None:
        if attempted.outcome is Outcome.DONE:
            self._update(effects=effects.logged(self._now.effects, entry))
        elif attempted.outcome is Outcome.UNKNOWN:
            unclear = entry.model_copy(update={"reason": attempted.answer.text})
            self._update(uncertain=(*self._now.uncertain, unclear))

    async def _continue_as_new(self) -> NoReturn:
        await workflow.wait_condition(workflow.all_handlers_finished)
        display.note_cost(self._now)
        workflow.continue_as_new(self._now)

    def _end(self, status: RunStatus, *, reason: str | None = None, reply: ModelReply | None = None) -> RunResult:
        self._doing = f"{status}: {reason}" if reason else str(status)
        self._recall(self._doing)
        display.close(self._now)
        return self._result(status, reason, reply)

    def _result(self, status: RunStatus | str, reason: str | None, reply: ModelReply | None = None) -> RunResult:
        output: Any = reply.text or None if reply else None
        if reply and self._now.agent.structured and status == RunStatus.COMPLETED and reply.output_digest is None:
            output = json.loads(reply.text)
        result = RunResult(
            status=RunStatus(status),
            output=output,
            output_digest=reply.output_digest if reply else None,
            reason=wording.shorten(reason, 500) if reason else None,
            usage=self._now.usage,
            head=self._now.head,
            audit_head=None,
            effects=self._now.effects,
            uncertain=self._now.uncertain,
        )
        while len(result.model_dump_json()) > RESULT_BYTES and result.effects.last:
            fewer = result.effects.last[len(result.effects.last) // 2 + 1 :]
            result = result.model_copy(update={"effects": result.effects.model_copy(update={"last": fewer})})
        return result

    def _close_cancelled(self) -> None:
        """A cancelled run has no result: what it did, and what may have happened, is in its memo."""
        for entry in self._in_flight.values():
            unclear = entry.model_copy(update={"reason": "the run was cancelled while it ran"})
            self._update(uncertain=(*self._now.uncertain, unclear))
        self._doing = "cancelled"
        self._recall("cancelled")
        display.close(self._now, memo=True)

    @property
    def _now(self) -> RunState:
        assert self._state is not None
        return self._state

    def _update(self, **changes: Any) -> None:
        self._state = self._now.model_copy(update=changes)

    def _remember(self, reply: ModelReply) -> None:
        if reply.text and reply.calls:
            self._recall(f"says: {wording.shorten(reply.text, 80)}")
        for call in reply.calls:
            if call.misfit:
                self._recall(f"cannot be called: {call.tool} ({wording.shorten(call.misfit, 80)})")

    def _recall(self, line: str) -> None:
        """Keep `line` among the last few steps and show them."""
        self._update(recent=(*self._now.recent, f"step {self._now.step}: {line}")[-RECENT:])
        display.details(self._now, self._doing)

    def _show(self, doing: str) -> None:
        self._doing = doing
        display.details(self._now, doing)

    @workflow.query(description="What the run does now, its last steps, usage and effects")
    def progress(self) -> Progress:
        state = self._state
        if state is None:
            raise ApplicationError("the run has not begun its work yet", non_retryable=True)
        return Progress(
            agent=state.agent.name,
            version=state.agent.version,
            doing=self._doing,
            step=state.step,
            head=state.head,
            answers=tuple(self._answers),
            usage=state.usage,
            effects=state.effects,
            uncertain=state.uncertain,
            recent=state.recent,
        )


def _another_model_may_help(error: ActivityError) -> bool:
    blobs = (FailureType.BLOB_MISSING, FailureType.BLOB_CORRUPTED, FailureType.STORE_UNAVAILABLE)
    return not (isinstance(error.cause, ApplicationError) and error.cause.type in blobs)


def _reason(error: ActivityError, store: str) -> str:
    cause = error.cause
    if not isinstance(cause, ApplicationError):
        return wording.shorten(getattr(cause, "message", None) or "no worker finished the call in time", 300)
    if cause.type == FailureType.BLOB_MISSING:
        return f"{cause.message}; this run's conversation is in store {store}"
    return cause.message
