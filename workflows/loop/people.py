"""People's part in a run: open requests, decisions on them, and the clock that ends them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Literal, NoReturn

from pydantic import JsonValue
from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

from mandate.workflows import steps
from mandate.workflows.contracts.budget import BudgetRequest
from mandate.workflows.contracts.changes import Change
from mandate.workflows.contracts.decision_lookups import KeptDecision
from mandate.workflows.contracts.failures import FailureType
from mandate.workflows.contracts.request import (
    EVERY,
    GO_BACK,
    Checked,
    Decision,
    DecisionCheck,
    EditedCall,
    Receipt,
    Refusal,
    Request,
    RequestKind,
)
from mandate.workflows.contracts.state import PeopleState
from mandate.workflows.contracts.tool import ToolResult
from mandate.workflows.loop import approvals, observations, questions, resolutions
from mandate.workflows.loop.decision_lookups import Lookups
from mandate.workflows.loop.deferred_decisions import Kept
from mandate.workflows.loop.notifications import Notifications
from mandate.workflows.loop.resolutions import ClosedRequest
from mandate.workflows.loop.run import Run
from mandate.workflows.rules import backtrack, budget, decisions, local_activities, redaction, wording
from mandate.workflows.rules import needs as rules_needs

Via = Literal["update", "signal"]
LookUp = Callable[[DecisionCheck], Awaitable[Checked]]

CROWD = 1500
"""Messages from which on a run takes in no more before it continues as new, which it cannot while some are checked."""

CROWD_EVENTS = 2000
"""A run that is about to continue as new, and waits only for those who go on talking to it, takes nothing in from so
many events on."""

CROWDED = "too many messages came to the run at once; send it again in a moment"


CLOSE: Mapping[RequestKind, Callable[[Run, ClosedRequest], None]] = {
    "approval": approvals.close,
    "question": questions.close,
    "escalation": resolutions.keep,
    "outcome": resolutions.keep,
    "budget": resolutions.keep,
}
"""Functions that apply the outcome of a request to its run."""


class PeopleGate:
    """The open requests of one run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._locks: dict[str, asyncio.Lock] = {}
        self._checks: dict[str, int] = {}
        self._lookups = Lookups(lambda: run.perform_locally(local_activities.DECISIONS))
        self._due_of: tuple[tuple[Request, ...], tuple[str, ...], datetime | None] | None = None
        self._is_draining = False
        self._kept = Kept(run, self._take_in)
        self.notifications = Notifications(run)
        for kept in self.state.kept if run.is_begun else ():
            self._hold(kept.decision.request)

    @property
    def state(self) -> PeopleState:
        return self._run.state.people

    def next_id(self) -> str:
        return f"r{self.state.made + 1}"

    def ask(self, request: Request) -> None:
        """Open `request`, whose id is `next_id()`; people are told of all that opened together by `notices`."""
        self.state.made = self.state.made + 1
        self.state.open = (*self.state.open, rules_needs.make_readable(request))
        observations.note_request(self._run, self.state.open[-1])

    def withdraw(self, reason: str) -> None:
        """Close all requests that are still open: the run ends."""
        for request in self.state.open:
            self._close(request, "withdrawn", reason)
        self.notifications.cancel()

    def end_wait(self, index: int, reason: str) -> None:
        """Close the request about a call that nobody has decided; a decision that is being checked still counts."""
        for request in self.state.open:
            if request.index == index and request.kind in {"approval", "question"} and request.id not in self._checks:
                self._close(request, "expired", reason)

    def end_request(self, request_id: str, reason: str) -> None:
        """Close a request that nobody has decided; a decision that is being checked still counts."""
        for request in self.state.open:
            if request.id == request_id and request.id not in self._checks:
                self._close(request, "expired", reason)

    def find_crowding(self, decision: Decision) -> str | None:
        """Return why a decision is not taken in at all, in one sentence; one that rejects everything always is."""
        return CROWDED if self._run.messages >= CROWD and decision.request != EVERY else None

    @property
    def crowd(self) -> str | None:
        """The reason why nothing is taken in, in one sentence: the server ends at 2,000 updates of one run."""
        return CROWDED if self._run.messages >= CROWD or self._is_overdue else None

    @property
    def _is_overdue(self) -> bool:
        """True if only messages keep the run from continuing as new, and have for too long."""
        return self._is_draining and workflow.info().get_current_history_length() >= CROWD_EVENTS

    async def drain(self) -> None:
        """Wait until the run may continue as new: nobody is being told or answered."""
        self._is_draining = True
        # Each may begin while the others are waited for.
        await workflow.wait_condition(
            lambda: self.notifications.is_quiet and self._kept.is_quiet and workflow.all_handlers_finished()
        )

    def refusal(self, decision: Decision, at: datetime) -> str | None:
        """Return why a decision cannot count, as far as that needs no look-up."""
        if decisions.is_repeated(self.state, decision):
            return None
        requester = self._run.state.requester
        reason = decisions.find_refusal(self.state, decision, at, requester, speaker=self._run.speaker)
        return (
            reason
            or self._find_raise_fault(decision)
            or self._find_way_fault(decision)
            or self.in_clear(decision.request, decision.value)
        )

    def _find_way_fault(self, decision: Decision) -> str | None:
        """Return why the run cannot go back as a person wants it."""
        if decision.choice != GO_BACK:
            return None
        to = backtrack.read_value(decision.value)
        if to is None:
            return 'value: must be the step to go back to, for example 3 or {"to": 3}'
        fault = backtrack.find_fault(self._run.state, to)
        return f"value: {fault}" if fault is not None else None

    def _find_raise_fault(self, decision: Decision) -> str | None:
        """Return why the limits of the run cannot be raised so; the answer to a request about its budget may."""
        request = decisions.find(self.state, decision.request)
        if request is None or request.kind != "budget":
            return None
        if decision.choice != "raise":
            return f"value: goes with raise, not with {decision.choice!r}" if decision.value is not None else None
        limits = self._run.state.budget or self._run.state.agent.budget
        rescue = self._run.state.rescue
        fault = budget.find_value_fault(limits, decision.value, rescue.limit if rescue is not None else None)
        child = self._run.state.child
        if fault is not None or child is None or not isinstance(decision.value, dict):
            return fault
        held = next((name for name in child.lent if decision.value.get(name) is not None), None)
        return (
            None if held is None else f"value: {held}: is a share of {child.parent!r}, which holds no more for this run"
        )

    def in_clear(self, request: str, value: JsonValue) -> str | None:
        """Return why a changed argument cannot be taken that is sensitive: what is taken in stays in the history."""
        asked = decisions.find(self.state, request) if value is not None else None
        tool = questions.find_tool(self._run, asked) if asked is not None else None
        if tool is None or not self._run.has(Change.HIDES_SENSITIVE):
            return None
        given = value if asked is None else questions.read_value(asked, value)
        name = redaction.find_in_clear(given, tool.sensitive)
        return f"value: {redaction.explain_in_clear(name)}" if name is not None else None

    def is_open(self, request: object) -> bool:
        return isinstance(request, str) and decisions.find(self.state, request) is not None

    def in_clear_anywhere(self, given: JsonValue) -> str | None:
        """Return the same for what is no decision: it is not known which call it would change."""
        agent = self._run.state.agent
        sensitive = tuple(dict.fromkeys(name for tool in agent.tools for name in tool.sensitive))
        # A key of decisions may have the name of somebody's argument.
        items = [(name, item) for name, item in given.items() if name != "token"] if isinstance(given, dict) else []
        rest = given if not isinstance(given, dict) else {f"{name} of a decision": item for name, item in items}
        name = redaction.find_in_clear(rest, sensitive) if self._run.has(Change.HIDES_SENSITIVE) else None
        return f"value: {redaction.explain_in_clear(name)}" if name is not None else None

    async def hear(self, decision: Decision, at: datetime, *, is_one_of_many: bool = False) -> None:
        """Decide as `decide`, for one that came by signal and would not be sent again: a crowded run keeps it."""
        if self._run.has(Change.DEFERS_DECISIONS) and self.crowd is not None and decision.request != EVERY:
            self._end_expired(at, decision.request)
            counts = not decisions.is_repeated(self.state, decision) and self.refusal(decision, at) is None
            if counts and self._kept.keep(KeptDecision(decision=decision, at=at)):
                self._hold(decision.request)
                return
        await self.decide(decision, at, "signal", is_one_of_many=is_one_of_many)

    async def _take_in(self, kept: KeptDecision) -> None:
        try:
            await self.decide(kept.decision, kept.at, "signal")
        finally:
            self._let_go(kept.decision.request)

    async def decide(self, decision: Decision, at: datetime, via: Via, *, is_one_of_many: bool = False) -> Receipt:
        """Check one decision and count it; decisions of one request are taken in the order in which they came.

        `is_one_of_many` says that its message was counted when it came.

        Raises:
            ApplicationError: `DecisionRefused`, with the sentence that is also recorded; `TryAgain`.
        """
        self._end_expired(at, decision.request)
        if (crowded := self.find_crowding(decision)) is not None:
            if via == "update":
                raise ApplicationError(crowded, type=FailureType.TRY_AGAIN, non_retryable=True)
            self._refuse(decision, crowded, via, FailureType.TRY_AGAIN)
        reason = self.refusal(decision, at)
        self._run.messages += not is_one_of_many
        if reason is not None:
            self._refuse(decision, reason, via)
        if (known := decisions.find_receipt(self.state, decision)) is not None:
            return known
        if decision.request == EVERY:
            observations.note_decision(self._run, decision, None, via, counts=True)
            return self._reject_all(decision)
        with self._checking(decision.request):
            async with self._locks.setdefault(decision.request, asyncio.Lock()):
                # Another decision may have been taken, or the same one again, while this one waited for its turn.
                if (reason := self.refusal(decision, at)) is not None:
                    self._refuse(decision, reason, via)
                is_new = is_one_of_many or self._run.has(Change.LOOKS_UP_TOGETHER)
                look_up = self._lookups.checked if is_new else steps.check_decision
                asked = decisions.find(self.state, decision.request)
                receipt = await self._take(decision, at, via, look_up)
                observations.note_decision(self._run, decision, asked, via, counts=True)
                return receipt

    @contextmanager
    def _checking(self, request: str) -> Iterator[None]:
        self._hold(request)
        try:
            yield
        finally:
            self._let_go(request)

    def _hold(self, request: str) -> None:
        """Let nothing expire of which somebody has decided in time, until that is checked."""
        self._checks[request] = self._checks.get(request, 0) + 1

    def _let_go(self, request: str) -> None:
        self._checks[request] -= 1
        if not self._checks[request]:
            del self._checks[request]
            self._locks.pop(request, None)

    async def _take(self, decision: Decision, at: datetime, via: Via, look_up: LookUp) -> Receipt:
        if (known := decisions.find_receipt(self.state, decision)) is not None:
            return known
        request = self._escalated(self._found(decision), at)
        checked = await self._checked(decision, request, at, via, look_up)
        if (reason := checked.refusal or self.refusal(decision, at)) is not None:
            self._refuse(decision, reason, via)
        request = self._found(decision)
        if (reason := decisions.repeats(request, decision, checked)) is not None:
            self._refuse(decision, reason, via)
        if request.kind == "approval" and checked.edited is not None:
            before = len(request.needs)
            request = self._edited(request, decision, checked.edited, via)
            if len(request.needs) > before:
                # Whether the person may decide for the new needs is not known: they approve once more, or others do.
                checked = checked.model_copy(update={"needs": ()})
        return self._apply(decisions.take(request, decision, checked, at, beside=len(self.state.open)), decision)

    def _apply(self, taken: decisions.Taken, decision: Decision) -> Receipt:
        self._replace(taken.request)
        if taken.outcome is not None:
            reason = taken.reason
            if taken.request.kind == "budget" and decision.choice == "raise":
                reason += f": {budget.describe_limits(BudgetRequest.model_validate(decision.value))}"
            return self._settled(taken.request, taken.outcome, reason, decision, by=taken.by, answer=taken.answer)
        self._stand()
        self._run.record_step(taken.reason)
        return decisions.confirm_recorded(taken.request)

    async def _checked(self, decision: Decision, request: Request, at: datetime, via: Via, look_up: LookUp) -> Checked:
        check = DecisionCheck(
            decision=decision,
            request=approvals.view(self._run, request),
            tool=approvals.find_tool(self._run, request),
            agent=self._run.state.agent.digest,
            requester=self._run.state.requester,
            requester_is=self._run.state.agent.requester,
            speaker=self._run.speaker,
            workflow_id=workflow.info().workflow_id,
            at=at,
        )
        try:
            return await look_up(check)
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            cause = error.cause
            is_said = isinstance(cause, ApplicationError)
            why = cause.message if isinstance(cause, ApplicationError) else "no worker answered in time"
            kind = FailureType.DECISION_REFUSED if is_said else FailureType.TRY_AGAIN
            self._refuse(
                decision, f"the decision could not be checked ({why}) and used nothing up; try again", via, kind
            )

    def _edited(self, request: Request, decision: Decision, call: EditedCall, via: Via) -> Request:
        verdict, needs = approvals.judge_edit(self._run, request, call)
        if verdict.kind == "deny":
            self._refuse(decision, f"value: {verdict.reason}", via)
        return decisions.replace_call(
            request,
            call,
            approvals.edit_digest(self._run, request, call),
            decisions.needs_after_edit(request, needs),
            approvals.edit_title(self._run, request, call),
        )

    def _reject_all(self, decision: Decision) -> Receipt:
        by = decision.by or "somebody who signalled the run"
        rejected = [request for request in self.state.open if decision.choice in request.choices]
        for request in rejected:
            self._settled(request, "rejected", f"{by} rejected all open requests", decision)
        return decisions.confirm_all_rejected(len(rejected))

    def _settled(
        self,
        request: Request,
        outcome: decisions.Decided,
        reason: str,
        decision: Decision,
        *,
        by: str = "",
        answer: ToolResult | None = None,
    ) -> Receipt:
        self._close(request, outcome, reason, decision=decision, by=by, answer=answer)
        return decisions.confirm_settled(request.id, outcome, reason)

    def _close(
        self,
        request: Request,
        outcome: Literal["approved", "rejected", "answered", "settled", "expired", "withdrawn"],
        reason: str,
        *,
        decision: Decision | None = None,
        by: str = "",
        answer: ToolResult | None = None,
    ) -> None:
        left = tuple(one for one in self.state.open if one.id != request.id)
        is_every = decision is not None and decision.request == EVERY
        last = decisions.close_request(request, outcome, reason, by_every=decision if is_every else None)
        closed = (*self.state.closed, last)[-decisions.CLOSED_KEPT :]
        self.state.open = left
        self.state.closed = closed
        observations.note_closed(self._run, request, outcome)
        CLOSE[request.kind](self._run, ClosedRequest(request, outcome, reason, decision, by, answer))

    def note_refusal(self, *, request: str, choice: str, by: str, reason: str, via: Via) -> None:
        """Keep a decision that does not count where people look."""
        refusal = Refusal(
            request=request, by=by, choice=choice, reason=wording.shorten(reason, 300), at=workflow.now(), via=via
        )
        kept = (*self.state.refused, refusal)[-decisions.REFUSED_KEPT :]
        self.state.refused = kept
        self.state.refusals = self.state.refusals + 1
        self._run.refresh()

    def _refuse(
        self, decision: Decision, reason: str, via: Via, kind: FailureType = FailureType.DECISION_REFUSED
    ) -> NoReturn:
        asked = decisions.find(self.state, decision.request)
        observations.note_decision(self._run, decision, asked, via, counts=False)
        self.note_refusal(
            request=decision.request, choice=decision.choice, by=decision.by or "unknown", reason=reason, via=via
        )
        raise ApplicationError(reason, type=kind, non_retryable=True)

    async def keep_time(self) -> None:
        """Let requests expire, go on to the next group and be reminded of; runs as long as its run."""
        self._kept.begin()
        while True:
            await workflow.wait_condition(lambda: self._due() is not None)
            due = self._due()
            assert due is not None
            wait = due - workflow.now()
            if wait.total_seconds() > 0:
                try:
                    await workflow.wait_condition(
                        _sooner(self._due, due), timeout=wait, timeout_summary=f"until {decisions.format_time(due)}"
                    )
                    continue
                except TimeoutError:
                    pass
            self._tick(workflow.now())

    def _due(self) -> datetime | None:
        requests, but = self.state.open, tuple(self._checks)
        if self._due_of is None or self._due_of[0] is not requests or self._due_of[1] != but:
            self._due_of = (requests, but, self._run.request_facts.next_due(requests, self._checks))
        return self._due_of[2]

    def _tick(self, now: datetime) -> None:
        self._end_expired(now)
        escalated, reminded = [], []
        for request in self.state.open:
            if request.id in self._checks:
                continue
            going_on = decisions.escalate_expired(request, now)
            later = going_on.model_copy(
                update={"needs": tuple(decisions.schedule_reminder(need, now) for need in going_on.needs)}
            )
            if going_on.needs != request.needs:
                escalated.append(going_on)
            elif later.needs != going_on.needs:
                reminded.append(later)
            self._replace(later)
        self._tell_escalated(escalated)
        if reminded:
            self.notifications.tell(reminded, "reminder")

    def _escalated(self, request: Request, at: datetime) -> Request:
        """Return `request` as it is at `at`: who may decide by then is not refused because the timer comes second."""
        going_on = decisions.escalate_expired(request, at)
        if going_on.needs != request.needs and self._run.has(Change.ESCALATES_IN_TIME):
            self._replace(going_on)
            self._tell_escalated([going_on])
            return going_on
        return request

    def _tell_escalated(self, requests: Sequence[Request]) -> None:
        if not requests:
            return
        self.notifications.tell(requests, "escalated")
        for request in requests:
            observations.note_escalated(self._run, request)
        ids = ", ".join(request.id for request in requests)
        self._run.record_step(f"nobody answered {ids} in time; it went on to the next people")
        self._stand()

    def _stand(self) -> None:
        """Publish whom requests wait for when that has changed while they are open."""
        if self._run.has(Change.PUBLISHES_ESCALATIONS):
            self._run.publish_status()

    def _end_expired(self, now: datetime, which: str = EVERY) -> None:
        for request in [one for one in self.state.open if which in (EVERY, one.id)]:
            if request.id not in self._checks and decisions.is_expired(request, now):
                self._close(request, "expired", f"nobody decided before {decisions.format_time(request.expires_at)}")

    def _found(self, decision: Decision) -> Request:
        found = decisions.find(self.state, decision.request)
        assert found is not None
        return found

    def _replace(self, request: Request) -> None:
        self.state.open = tuple(request if one.id == request.id else one for one in self.state.open)


def _sooner(due: Callable[[], datetime | None], than: datetime) -> Callable[[], bool]:
    """Return whether there is nothing to wait for any more, or something earlier."""

    def is_sooner() -> bool:
        now_due = due()
        return now_due is None or now_due < than

    return is_sooner
