"""Escalation when retries cannot help: checks that fail, outcomes that nobody knows, attempts that are used up."""

from collections.abc import Sequence
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

from mandate.workflows import steps
from mandate.workflows.contracts.base import JsonObject, canonical_json
from mandate.workflows.contracts.budget import Budget
from mandate.workflows.contracts.changes import Change
from mandate.workflows.contracts.model import ModelReply, Words
from mandate.workflows.contracts.plan import StepAsk
from mandate.workflows.contracts.policy import Verdict
from mandate.workflows.contracts.request import CHOICES, GO_BACK, Request, RequestKind, Stop
from mandate.workflows.contracts.run import EffectEntry
from mandate.workflows.contracts.state import Rescue, Resolution, Trouble
from mandate.workflows.contracts.tool import Tool
from mandate.workflows.contracts.verification import FINAL, CheckPin, CheckRequest, CheckResult
from mandate.workflows.loop import observations, resolutions
from mandate.workflows.loop.budget import RunBudget, find_needed
from mandate.workflows.loop.control import Control
from mandate.workflows.loop.people import PeopleGate
from mandate.workflows.loop.run import Run
from mandate.workflows.rules import backtrack, decisions, local_activities, quantities, recovery, wording
from mandate.workflows.rules import budget as rules_budget
from mandate.workflows.rules import needs as rules_needs
from mandate.workflows.rules.budget import Shortfall

EFFECTS_SHOWN = 10

REASON_CHARACTERS = 1000
"""Longest reason of a request, and of a halt; a decision's comment may be longer."""


def list_choices(*, has_result: bool) -> tuple[str, ...]:
    """Return the choices on what has failed; what has no result cannot be accepted as it is."""
    return tuple(choice for choice in CHOICES["escalation"] if has_result or choice != "accept")


class Escalations:
    """Checks of what was done, and questions to people on how a run goes on that cannot by itself."""

    def __init__(self, run: Run, control: Control, gate: PeopleGate) -> None:
        self._run = run
        self._control = control
        self._gate = gate
        self._budget = RunBudget(run)

    async def verify(self, check: CheckPin, request: CheckRequest) -> CheckResult:
        """Make a check and return what it finds; one that no worker can make is `unable`."""
        self._run.set_doing(f"checking {check.name}")
        if check.kind == "model" and self._budget.is_kept:
            return await self._verify_within(check, request)
        found = await self._find(check, request)
        self._run.state.usage = self._run.state.usage + found.usage
        return self._tell(check, found)

    async def _verify_within(self, check: CheckPin, request: CheckRequest) -> CheckResult:
        """Make a check by a model within the budget; one that does not fit is `unable`."""
        key, needed = rules_budget.name_check(request), None
        while True:
            grant = None
            if self._budget.is_granted:
                planned = self._budget.plan_check(check, needed)
                if isinstance(planned, Shortfall):
                    return self._tell(check, CheckResult(finding="unable", reason=planned.reason))
                grant = self._budget.hold(planned, key)
            found = await self._find(check, request.model_copy(update={"grant": grant}))
            self._budget.settle(found.usage, found.lost, key, grant)
            if not found.needed or found.needed == needed:
                return self._tell(check, found)
            needed = found.needed

    def _tell(self, check: CheckPin, found: CheckResult) -> CheckResult:
        self._run.record_step(f"check {check.name}: {found.finding}{f', {found.reason}' if found.reason else ''}")
        return found

    async def _find(self, check: CheckPin, request: CheckRequest) -> CheckResult:
        name, its = local_activities.name_check(check), observations.Check(self._run, check, request)
        try:
            with self._run.telemetry.within(its.key):
                found = await steps.verify_result(
                    request, check, locally=self._run.perform_locally(name), within=self._find_time(check)
                )
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            cause = error.cause
            why = cause.message if isinstance(cause, ApplicationError) else "no worker made it in time"
            sent = find_needed(error)
            lost = sent.lost if sent is not None else request.grant.attempts if request.grant is not None else 0
            reason, needed = wording.shorten(why, 200), sent.input_tokens if sent is not None else 0
            found = CheckResult(finding="unable", reason=reason, lost=lost, needed=needed)
        self._run.keep_speed(name, was_quick=found.quick)
        its.end(found)
        return found

    def _find_time(self, check: CheckPin) -> timedelta | None:
        """Return the time of a check by a model; any other is short, or has its own."""
        if check.kind != "model" or not self._run.has(Change.KEEPS_TIME):
            return None
        return self._budget.find_time_left(is_last=check.after == FINAL)

    def ask_outcome(self, index: int, entry: EffectEntry, tool: Tool, seen: str) -> str:
        """Ask whether a call has happened, telling what its probe has `seen` if it has one; the request's id."""
        reason = f"it is unknown whether this happened: {entry.reason or 'no answer came'}"
        key = f"idempotency key {entry.key}, {quantities.count_noun(entry.attempts, 'attempt')}"
        return self._ask(
            "outcome",
            title=f"did this happen? {entry.call}",
            reason=reason,
            evidence=tuple(filter(None, (f"{entry.call}: {entry.reason}", key, wording.shorten(seen, 500)))),
            arguments={"key": entry.key},
            index=index,
            tool=tool,
        )

    async def go_ahead(self) -> bool:
        """Wait until the run is not paused, or has to halt; return whether it may begin something."""
        return await self._control.go_ahead()

    def escalate(self, about: str, reason: str, reply: ModelReply | None = None, tried: Sequence[str] = ()) -> Rescue:
        """Ask how the run goes on after `about` has failed too often; `tried` is what no attempt counts."""
        trouble = self._run.state.recovery.troubles.get(about, Trouble())
        first = trouble.failures - len(trouble.lines) + 1
        lines = [f"attempt {number}: {line}" for number, line in enumerate(trouble.lines, first)]
        lines += tried
        lines += recovery.list_others(self._run.state.recovery, about)
        lines += [f"done so far: {entry.call}" for entry in self._run.state.effects.last[-EFFECTS_SHOWN:]]
        if reply is not None and reply.text.strip():
            lines.append(f"its answer: {wording.shorten(reply.text, 1000)}")
        choices = list_choices(has_result=self._can_be_accepted(about, trouble, reply))
        if backtrack.can_go_back(self._run.state) and backtrack.find_fault(self._run.state, 1) is None:
            choices = (*choices[:-1], GO_BACK, choices[-1])
        request = self._ask("escalation", title=reason, reason=reason, evidence=tuple(lines), choices=choices)
        rescue = Rescue(request=request, about=about, reason=reason, reply=reply)
        self._run.state.rescue = rescue
        return rescue

    def ask_budget(self, short: Shortfall, budget: Budget) -> None:
        """Ask whether the limit may be raised that the next step would pass."""
        its = self._run.state
        spent, assumed = its.ledger.spent, its.ledger.assumed
        lines = [f"spent so far: {rules_budget.describe_amount(spent)}"]
        if assumed.model_calls:
            lines.append(f"of that assumed, since answers were lost: {rules_budget.describe_amount(assumed)}")
        calls = ", ".join(f"{name} {totals.calls}" for name, totals in sorted(its.totals.items()) if totals.calls)
        steps = quantities.count_noun(its.step, "step")
        answered = quantities.count_noun(spent.model_calls, "model call")
        lines.append(f"on: {steps}, {answered}{f'; calls of {calls}' if calls else ''}")
        if short.missing:
            lines.append(f"the next step would take up to {short.missing}")
        is_offered = not self._run.has(Change.OFFERS_RAISES) or rules_budget.can_be_raised(budget, short.limit)
        if self._run.state.child is not None and short.limit in self._run.state.child.lent:
            # Its parent holds no more for it.
            is_offered = False
        if budget.raise_at_most is not None:
            lines.append(f"it may be raised to {rules_budget.describe_limits(budget.raise_at_most)} at most")
        lines += [f"done so far: {entry.call}" for entry in its.effects.last[-EFFECTS_SHOWN:]]
        request = self._ask(
            "budget",
            title=f"{short.reason}: {'raise it' if is_offered else 'a last answer'}?",
            reason=short.reason,
            evidence=tuple(lines),
            arguments={"limit": short.limit, "reason": short.reason},
            options=(canonical_json(rules_budget.suggest_raise(budget, short.limit)).decode(),) if is_offered else (),
            choices=None if is_offered else tuple(choice for choice in CHOICES["budget"] if choice != "raise"),
        )
        needed = short.limit if self._run.has(Change.OFFERS_RAISES) else None
        its.rescue = Rescue(request=request, about=recovery.BUDGET, reason=short.reason, limit=needed)

    def ask_step(self, ask: StepAsk) -> str:
        """Ask how a plan goes on in which a step has failed; the request's id."""
        reason = f"step {ask.call} failed: {ask.reason}"
        lines = (*ask.tried, *(f"done so far: {entry.call}" for entry in self._run.state.effects.last[-EFFECTS_SHOWN:]))
        choices = list_choices(has_result=ask.has_output)
        return self._ask("escalation", title=reason, reason=reason, evidence=lines, choices=choices, plan_step=ask.step)

    def _can_be_accepted(self, about: str, trouble: Trouble, reply: ModelReply | None) -> bool:
        if self._run.has(Change.ACCEPTS_RESULTS):
            return recovery.can_be_accepted(about, trouble, reply.text if reply is not None else None)
        is_blank = reply is not None and not reply.text.strip()
        return about != recovery.MODEL and not (about == recovery.FINAL and is_blank)

    def _ask(
        self,
        kind: RequestKind,
        *,
        title: str,
        reason: str,
        evidence: tuple[str, ...],
        choices: tuple[str, ...] | None = None,
        options: tuple[str, ...] = (),
        arguments: JsonObject | None = None,
        index: int = 0,
        tool: Tool | None = None,
        plan_step: str | None = None,
    ) -> str:
        its, now = self._run.state, workflow.now()
        request_id = self._gate.next_id()
        unmatched = Verdict(kind="ask", reason=reason)
        needs = rules_needs.list_needs(unmatched, its.agent.policy, its.agent.people, now)
        request = Request(
            id=request_id,
            kind=kind,
            digest=decisions.compute_digest(
                workflow.info().first_execution_run_id,
                request_id,
                kind=kind,
                tool=tool.name if tool is not None else None,
                arguments=arguments or {"reason": reason},
                agent=its.agent.digest,
            ),
            title=wording.shorten(title, 160),
            tool=tool.name if tool is not None else None,
            reason=wording.shorten(reason, REASON_CHARACTERS),
            goal=its.goal or None,
            evidence=evidence,
            plan_step=plan_step,
            effect=str(tool.effect) if tool is not None else None,
            risk=tool.risk if tool is not None else 0.0,
            tainted=its.tainted,
            step=its.step,
            head=its.head,
            index=index,
            choices=choices or CHOICES[kind],
            options=options,
            # One person's word settles it; what expires is denied by ending the run.
            needs=tuple(need.model_copy(update={"quorum": 1, "rejections": 1}) for need in needs),
            requested_at=now,
        )
        self._gate.ask(request)
        self._run.record_step(f"asks {', '.join(request.waits_for)}: {request.title} ({request_id})")
        self._run.publish_status()
        self._gate.notifications.tell([request], "asked")
        return request_id

    async def resolution(self, request: str) -> Resolution | None:
        """Return the choice of a person; `None` when the run has to halt before."""
        if request not in self._run.state.resolutions:
            found = decisions.find(self._gate.state, request)
            self._run.set_doing(f"waiting for {', '.join(found.waits_for) if found else 'people'}")

            def is_over() -> bool:
                return request in self._run.state.resolutions or self._control.is_stopping or self._run.is_leaving

            try:
                await workflow.wait_condition(is_over, timeout=self._find_waiting_left(found))
            except TimeoutError:
                self._gate.end_request(request, "nobody decided before the time of the run was used up")
                await workflow.wait_condition(is_over)
        return resolutions.take(self._run, request)

    def _find_waiting_left(self, request: Request | None) -> timedelta | None:
        """Return the time for which people may be waited for; `None` where they may raise that, or are to find out."""
        if request is None or request.kind != "escalation" or not self._run.has(Change.ENDS_WAITS):
            return None
        return None if self._budget.limits.when_used_up == "ask" else self._budget.find_waiting_left()

    def stop(self, said: Resolution) -> None:
        self._control.stop(Stop(by=said.by or "somebody", reason=wording.shorten(said.comment, REASON_CHARACTERS)))

    def go_back(self, said: Resolution) -> None:
        """Go on from the step that a person names, and tell the model so as their words."""
        to = backtrack.read_value(said.value)
        fault = backtrack.find_fault(self._run.state, to)
        if to is None or fault is not None:
            # It was right when the decision was taken in.
            self.settle(said, f"Try again. {said.comment}")
            return
        self._run.go_back(to, said.comment or "a person said so")
        self.settle(said, f"I have put you back to step {to}. {said.comment}")

    def settle(self, said: Resolution, text: str) -> None:
        """Count everything anew, and tell the model `text` as that person's words."""
        self._run.state.recovery = recovery.reset(self._run.state.recovery)
        self._run.state.misfits = 0
        self._run.state.untaken = ()
        self._run.state.rescue = None
        self._control.add_words(Words(by=said.by or "somebody", text=text.strip()))
