"""Children of a run: started, told, waited for, and what they report.

A child outlives the part of the run that started it. As long as that part goes on, the end of the child is an event of
it; once the run has continued as new, children that are open are asked to report by a signal. Whoever ends without a
word is looked up.
"""

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Any

from pydantic import ValidationError
from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ActivityError, FailureError, WorkflowAlreadyStartedError, is_cancelled_exception

from mandate.workflows import marks, steps
from mandate.workflows.contracts.board import BoardPlace
from mandate.workflows.contracts.children import (
    FIRST_LOOK,
    HARD_STOP,
    LOOK_AFTER,
    LOOK_AGAIN,
    ChildReport,
    ChildRequest,
    ChildWaits,
    FindReport,
    OpenChild,
    ParentMessage,
    ReportFound,
)
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.marks import Marked, read_as
from mandate.workflows.contracts.model import Usage
from mandate.workflows.contracts.run import EffectEntry
from mandate.workflows.contracts.tool import RUN_PLAN, ToolResult
from mandate.workflows.loop import observations
from mandate.workflows.loop.budget import RunBudget
from mandate.workflows.loop.control import Control
from mandate.workflows.loop.model_route import ModelRoute
from mandate.workflows.loop.run import Run
from mandate.workflows.loop.tool_calls import JudgedCall
from mandate.workflows.outcomes import Attempted
from mandate.workflows.rules import children as rules
from mandate.workflows.rules import effects, totals, wording
from mandate.workflows.rules import recovery as rules_recovery

MOST_ID_BYTES = 1000
"""Of a workflow id, as the server takes it."""

CANCEL_PATIENCE = timedelta(seconds=10)
"""Time in which children of a cancelled run may end, so that it knows what they did."""

ABOVE = "the run above"
"""By whom a child is resumed that its parent had paused."""

UNTOLD = "it has ended, and nobody could tell what it did"


class Children:
    """Children of one run; those that have not reported are in its state, by the position of their call."""

    def __init__(self, run: Run, control: Control) -> None:
        self._run = run
        self._control = control
        self._budget = RunBudget(run)
        self._route = ModelRoute(run)
        self._watches: dict[str, asyncio.Task[None]] = {}
        """Of children that this part of the run has started."""
        self._looks: dict[str, int] = {}
        """How often each was looked for that this part of the run has not started."""
        self._taking_up = asyncio.Lock()
        self._patrol: asyncio.Task[None] | None = None

    @property
    def are_open(self) -> bool:
        """True if some have not reported."""
        return bool(self._run.state.children)

    def is_open(self, index: int) -> bool:
        """Return whether the child of a call has not reported."""
        return index in self._run.state.children

    @property
    def lost(self) -> tuple[EffectEntry, ...]:
        """Children whose end the run will not see, as calls of which it does not know what they did."""
        return tuple(map(self._describe, sorted(self._run.state.children)))

    async def make(self, placed: JudgedCall) -> Attempted | None:
        """Start a child and wait for its report, or go on waiting; `None` when the run has to continue as new first."""
        if not self.is_open(placed.index) and (refused := await self._start(placed)) is not None:
            return refused
        return await self._wait(placed.index)

    async def _start(self, placed: JudgedCall) -> Attempted | None:
        """Start the child of a call; return why it was not."""
        its, asked = self._run.state, placed.tool.child
        assert asked is not None
        depth = its.child.depth if its.child is not None else 0
        reason = rules.find_limit(self._budget.limits, depth=depth, made=its.children_made)
        share = self._budget.lend(asked, self._route.model if its.plan is None else None)
        if reason is not None or isinstance(share, str):
            return _refuse(reason or str(share))
        number = its.children_made + 1
        its.children_made = number
        in_plan = asked.is_plan or its.plan is not None or (its.child is not None and its.child.in_plan)
        key = _held(number)
        self._budget.hold_share(key, share)
        request = ChildRequest(
            name=asked.agent,
            head=its.head,
            index=placed.index,
            edited=placed.edit.call.blob if placed.edit is not None else None,
            depth=depth + 1,
            requester=its.requester,
            standing=its.agent.requester,
            speaker=self._run.speaker,
            labels=its.labels,
            budget=rules.find_lowered(share.limits, asked.share),
            lent=rules.list_lent(self._budget.limits),
            store=its.agent.store,
            tainted=its.tainted,
            in_plan=in_plan,
            refused=its.recovery.refused if in_plan else {},
            totals=its.totals if placed.tool.name == RUN_PLAN and asked.is_plan else None,
            board=self._find_board(),
            tells_waits=its.session is not None or (its.child is not None and its.child.tells_waits),
        )
        with self._run.telemetry.within(f"child:{rules.name_child(workflow.info().workflow_id, number)}"):
            reason = await self._place(placed, request, number, share.limits.wall_time)
        if reason is not None:
            its.children = {other: one for other, one in its.children.items() if other != placed.index}
            self._budget.settle_share(key, Usage(), is_known=True)
            return _refuse(reason)
        self._run.record_step(f"{placed.line}: {its.children[placed.index].id} begins")
        observations.note_child(self._run, placed.index, placed.tool, its.children[placed.index].id)
        self._run.note_time()
        self._begin_patrol()
        return None

    def _find_board(self) -> BoardPlace | None:
        """Return the run that holds the board, where that at Temporal's root does not."""
        its = self._run.state.child
        if its is not None:
            return its.board
        return self._run.board_place if workflow.info().root is not None else None

    async def _place(
        self, placed: JudgedCall, request: ChildRequest, number: int, limit: timedelta | None
    ) -> str | None:
        """Start a child under an id that is free, or take up the one that was started for this call before a reset.

        Return why there is none. It is in the state before it is started, so that a cancelled run cancels it too.
        """
        own, run, its = workflow.info().workflow_id, workflow.info().first_execution_run_id, self._run.state
        within = limit + HARD_STOP if limit is not None else None
        due = workflow.now() + within if within is not None else None
        is_plan = placed.tool.child is not None and placed.tool.child.is_plan
        made = OpenChild(number=number, id="", run_id="", due_at=due, resumes=its.control.tree_resumes)
        if len(f"{own}/{run}/c{number}".encode()) > MOST_ID_BYTES:
            return (
                f"not started: the workflow id of the run has {len(own.encode())} bytes, and children need longer ones"
            )
        if its.child_ids_lost:
            usual = made.model_copy(update={"id": rules.name_child(own, number)})
            its.children = {**its.children, placed.index: usual}
            if await self._take_up(placed.index):
                return None
        for id_ in rules.list_ids(own, run, number, is_taken=its.child_ids_taken):
            its.children = {**its.children, placed.index: made.model_copy(update={"id": id_})}
            try:
                handle = await steps.start_child(id_, request, placed.verdict, is_plan=is_plan, within=within)
            except WorkflowAlreadyStartedError:
                found = await self._look_up(self._ask_for(id_, placed.index))
                if found is None:
                    return f"not started: {id_} exists already, and nobody can say now what it is"
                if found.status in {"running", "ended"}:
                    self._keep_id(placed.index, id_, found.run_id)
                    return None
                if found.status == "sibling":
                    its.child_ids_lost = True
                    if await self._take_up(placed.index):
                        return None
                else:
                    its.child_ids_taken = True
                continue
            except FailureError as error:
                if is_cancelled_exception(error):
                    raise
                return f"not started: {error.message}"
            run_id = handle.first_execution_run_id or ""
            self._watches[id_] = asyncio.create_task(self._watch(id_, run_id, handle))
            self._keep_id(placed.index, id_, run_id)
            return None
        return f"not started: the names of child {number} are taken by other runs"

    async def _take_up(self, index: int) -> bool:
        """Look for a child that was started for this call before a reset, under another number; wait for that one."""
        its, child = self._run.state, self._run.state.children[index]
        # Two that look at the same time would take up the same one.
        async with self._taking_up:
            begin = {one.number for one in its.children.values() if not one.run_id}
            known = rules.list_known(workflow.info().workflow_id, its.children_made, its.child_ids, but=begin)
            found = await self._look_up(self._ask_for(child.id, index).model_copy(update={"known": known}))
            if found is None or found.status not in {"running", "ended"}:
                return False
            self._keep_id(index, found.child, found.run_id)
            return True

    def _keep_id(self, index: int, id_: str, run_id: str) -> None:
        child = self._keep(index, id=id_, run_id=run_id)
        if id_ != rules.name_child(workflow.info().workflow_id, child.number):
            self._run.state.child_ids = {**self._run.state.child_ids, child.number: id_}

    async def _watch(self, child: str, run_id: str, handle: Any) -> None:
        """Wait for the end of a child that this part of the run has started."""
        try:
            returned: RawValue | None = await handle
        except FailureError:
            self._note_end(child, None)
            return
        payload = returned.payload if returned is not None else None
        is_ours = payload is not None and marks.is_genuine("report", marks.report_place(child, run_id), payload)
        self._note_end(child, payload.data if payload is not None and is_ours else None)

    def _note_end(self, child: str, report: bytes | None) -> None:
        """Keep that a child has ended, and its report if it came with one."""
        for index, one in self._run.state.children.items():
            if one.id == child and one.report is None:
                result = ChildReport.model_validate_json(report) if report is not None else None
                ended = one.model_copy(update={"has_ended": True, "report": result})
                self._run.state.children = {**self._run.state.children, index: ended}
                return

    def hear(self, args: tuple[Any, ...]) -> None:
        """Take the report of a child in, `[its workflow id, its result]`; what is none is ignored."""
        child = next((one for one in self._run.state.children.values() if args[:1] == (one.id,)), None)
        if child is None:
            return
        report = args[1] if len(args) > 1 else None
        place = marks.report_place(child.id, child.run_id)
        is_ours = isinstance(report, Marked) and marks.is_genuine_content("report", place, report)
        # Whoever says so without a proof makes the run look.
        self._note_end(child.id, report.content if isinstance(report, Marked) and is_ours else None)

    def hear_waits(self, args: tuple[Any, ...]) -> None:
        """Take in whom a child waits for, `[its workflow id, a ChildWaits]`; what is none is ignored."""
        found = next((item for item in self._run.state.children.items() if args[:1] == (item[1].id,)), None)
        told = args[1] if len(args) > 1 else None
        if found is None or not isinstance(told, Marked):
            return
        index, child = found
        if not marks.is_genuine_content("child", marks.report_place(child.id, child.run_id), told):
            return
        try:
            waits = read_as(ChildWaits, told)
        except ValidationError:
            return
        if waits.number > child.waits_number:
            self._keep(index, waits_for=waits.waits_for, waits_number=waits.number)

    async def _wait(self, index: int) -> Attempted | None:
        """Wait until a child has reported, and tell it meanwhile what it has to know."""
        while True:
            child = self._run.state.children[index]
            if child.report is not None:
                return self._settle(index, child.report)
            if child.has_ended:
                if (result := await self._find_result(index)) is not None:
                    return self._settle(index, result)
                continue
            if self._run.is_leaving:
                return None
            if (message := self._find_message(child)) is not None:
                await self._tell(index, message)
                continue
            self._show_wait()
            try:
                await workflow.wait_condition(
                    lambda: self._is_called(index),
                    timeout=self._find_patience(child),
                    timeout_summary=f"{child.id} may have ended",
                )
            except TimeoutError:
                self._looks[child.id] = self._looks.get(child.id, 0) + 1
                await self._look_for(index)

    async def _find_result(self, index: int) -> ChildReport | None:
        """Return the result of a child that has ended without a word; `None` if it has not ended after all."""
        child = self._run.state.children[index]
        found = await self._look_up(self._ask_for(child.id, index))
        if found is not None and found.status == "running":
            # Somebody has said that it had ended.
            self._keep(index, has_ended=False)
            return None
        return (found.result if found is not None else None) or rules.build_unknown(child.id, UNTOLD)

    def _begin_patrol(self) -> None:
        """Look after the children now and then: a reset of the run may have cut off the event of an end."""
        if self._patrol is None or self._patrol.done():
            self._patrol = asyncio.create_task(self._look_after_all())

    async def _look_after_all(self) -> None:
        while self._run.state.children:
            with suppress(TimeoutError):
                await workflow.wait_condition(
                    lambda: not self._run.state.children, timeout=LOOK_AFTER, timeout_summary="children may have ended"
                )
                return
            watched = [index for index, child in self._run.state.children.items() if child.id in self._watches]
            await asyncio.gather(*map(self._look_for, watched))

    def _is_called(self, index: int) -> bool:
        child = self._run.state.children[index]
        return child.has_ended or self._run.is_leaving or self._find_message(child) is not None

    async def _look_for(self, index: int) -> None:
        """Note that a child has ended if it has without a word."""
        child = self._run.state.children[index]
        found = await self._look_up(self._ask_for(child.id, index))
        if found is not None and found.status != "running" and index in self._run.state.children:
            self._keep(index, has_ended=True)

    def _ask_for(self, child: str, index: int) -> FindReport:
        edit = self._run.state.edits.get(index)
        return FindReport(
            child=child,
            run=workflow.info().first_execution_run_id,
            head=self._run.state.head,
            index=index,
            edited=edit.call.blob if edit is not None else None,
            is_ending=index in self._run.state.children and self._run.state.children[index].has_ended,
        )

    def _keep(self, index: int, **changes: object) -> OpenChild:
        child = self._run.state.children[index].model_copy(update=changes)
        self._run.state.children = {**self._run.state.children, index: child}
        return child

    def _show_wait(self) -> None:
        names = ", ".join(child.id for child in list(self._run.state.children.values())[:3])
        more = len(self._run.state.children) - 3
        self._run.set_doing(f"waiting for {names}{f' and {more} more' if more > 0 else ''}")

    def _find_patience(self, child: OpenChild) -> timedelta | None:
        """Return the time after which a child is looked up; `None` where its end is an event of this run."""
        if child.id in self._watches:
            return None
        again = min(LOOK_AGAIN, FIRST_LOOK * float(2 ** min(self._looks.get(child.id, 0), 10)))
        if child.due_at is None:
            return again
        return min(again, max(child.due_at - workflow.now(), timedelta(seconds=1)))

    def _find_message(self, child: OpenChild) -> ParentMessage | None:
        """Return what a child has to be told next; its number is given as it is sent."""
        control = self._run.state.control
        if child.id not in self._watches and not child.reports:
            return ParentMessage(verb="report")
        level = 0
        if control.stopped is not None:
            level = 2 if control.undo in {"kept", "ended"} else 1
        if level > child.stopped and control.stopped is not None:
            said = control.stopped
            return ParentMessage(verb="stop", by=said.by, reason=said.reason, keep=level == 2)
        halt = control.paused if control.paused is not None and control.paused.tree else None
        if halt is not None and not child.paused:
            return ParentMessage(verb="pause", by=halt.by, reason=halt.reason)
        if halt is None and (child.paused or child.resumes < control.tree_resumes):
            return ParentMessage(verb="resume", by=ABOVE)
        return None

    def _next_number(self, child: OpenChild) -> int:
        """Return the number of the next message: after a reset the run does not know which it has sent."""
        return max(int(workflow.now().timestamp() * 1000), child.messages + 1)

    async def _tell(self, index: int, message: ParentMessage) -> None:
        """Tell a child something; one that has ended is looked up."""
        number = self._next_number(self._run.state.children[index])
        child, resumes = self._keep(index, messages=number), self._run.state.control.tree_resumes
        try:
            await steps.tell_child(child.id, child.run_id, message.model_copy(update={"number": number}))
        except FailureError as error:
            if is_cancelled_exception(error):
                raise
            if child.id not in self._watches:
                self._keep(index, has_ended=True)
        match message.verb:
            case "report":
                self._keep(index, reports=True)
            case "pause":
                self._keep(index, paused=True)
            case "resume":
                self._keep(index, paused=False, resumes=resumes)
            case "stop":
                self._keep(index, stopped=2 if message.keep else 1)

    async def _look_up(self, request: FindReport) -> ReportFound | None:
        """Return what a child is or was; `None` when nobody can say now."""
        try:
            return await steps.find_report(request)
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            return None

    def _settle(self, index: int, result: ChildReport) -> Attempted:
        """Take what a child has done into the run, and return what the model is told of it."""
        its = self._run.state
        child = its.children[index]
        is_known = rules.is_told(child.id, result)
        self._budget.settle_share(_held(child.number), result.usage, is_known=is_known)
        observations.note_child_end(self._run, index, child.id, str(result.status), result.usage)
        entry = rules.stand_for(self._describe(index), result)
        if entry is not None:
            its.effects = effects.add_effect(its.effects, entry)
        unknown = rules.name_uncertain(child.id, result.uncertain)
        its.uncertain_below = (*its.uncertain_below, *unknown)[-rules.UNCERTAIN_KEPT :]
        its.tainted = its.tainted or result.tainted
        its.recovery = rules_recovery.keep_refused(its.recovery, result.refused)
        its.totals = totals.add(its.totals, result.totals)
        its.children = {other: one for other, one in its.children.items() if other != index}
        self._watches.pop(child.id, None)
        if its.children:
            self._show_wait()
        if its.plan is not None:
            its.plan.costs = {**its.plan.costs, index: result.usage.cost_usd}
        answer = rules.write_answer(child.id, result)
        # What it has done counts in the totals, whatever its end.
        is_undone = answer.error and not result.effects.count and not result.uncertain
        return Attempted(Outcome.NOT_DONE if is_undone else Outcome.DONE, answer)

    async def end(self) -> None:
        """Stop the children of a run that is being stopped, and take their reports in.

        Returns early when the run has to continue as new first.
        """
        await asyncio.gather(*(self._end_one(index) for index in list(self._run.state.children)))

    async def _end_one(self, index: int) -> None:
        if (attempted := await self._wait(index)) is not None:
            self._run.answer(index, attempted.answer)

    async def cancel(self) -> None:
        """Cancel the children of a cancelled run, and wait a little for their ends."""
        await asyncio.gather(*(self._cancel(index) for index in list(self._run.state.children)))
        with suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: all(child.has_ended for child in self._run.state.children.values()), timeout=CANCEL_PATIENCE
            )
        with suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_PATIENCE.total_seconds()):
                await asyncio.gather(*(self._settle_ended(index) for index in sorted(self._run.state.children)))

    async def _cancel(self, index: int) -> None:
        child = self._run.state.children[index]
        if child.id not in self._watches and not child.reports:
            await self._tell(index, ParentMessage(verb="report"))
        with suppress(FailureError):
            await workflow.get_external_workflow_handle(child.id).cancel()

    async def _settle_ended(self, index: int) -> None:
        """Take in what a child did that has ended; a cancelled one has no result."""
        child = self._run.state.children[index]
        if not child.has_ended:
            return
        result = child.report
        if result is None and (found := await self._look_up(self._ask_for(child.id, index))) is not None:
            result = found.result
        if result is not None:
            self._settle(index, result)

    def _describe(self, index: int) -> EffectEntry:
        """Return a child as one call that changes the world."""
        its = self._run.state
        call, child = its.calls[index], its.children[index]
        line = wording.describe_call(call.tool, call.arguments, self._run.tool(call.tool).sensitive)
        return EffectEntry(
            step=its.step, tool=call.tool, call=line, key=child.id, run=child.id, reason="it tells itself what it did"
        )


def _held(number: int) -> str:
    """Return the key under which the ledger holds the share of a child."""
    return f"child {number}"


def _refuse(reason: str) -> Attempted:
    return Attempted(Outcome.NOT_SENT, ToolResult(text=reason, error=True, cause="budget"))
