"""Budget of a run as its history tells it: the account that the run itself keeps, from the same rules."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pydantic import JsonValue, ValidationError
from temporalio.exceptions import ApplicationError

from mandate.workflows.contracts.agent import AgentPin
from mandate.workflows.contracts.budget import Amount, Budget, BudgetRequest, BudgetUse, Grant, Ledger
from mandate.workflows.contracts.changes import Change
from mandate.workflows.contracts.failures import FailureType
from mandate.workflows.contracts.model import ModelFailure, ModelReply, ModelRequest, NotSent, Usage
from mandate.workflows.contracts.route import RoutePin, find_price
from mandate.workflows.contracts.state import RunState
from mandate.workflows.contracts.verification import CheckRequest, CheckResult
from mandate.workflows.rules import budget, wording
from mandate.workflows.rules.budget_use import Standing, measure_use


@dataclass(slots=True)
class BudgetHistory:
    """Ledger and limits of a run after the events so far."""

    limits: Budget | None = None
    """`None` until the agent is pinned, and in runs that began before budgets were kept."""
    ledger: Ledger = field(default_factory=Ledger)
    asked: JsonValue = None
    """Limits of the start request."""
    _pin: AgentPin | None = None
    _route: tuple[RoutePin, ...] = ()
    _grants: dict[str, Grant | None] = field(default_factory=dict)
    """Of the calls under way, by the key under which the ledger holds what they may take."""
    _lost: int | None = None
    """Attempts that were lost before the cut that the model call under way waits for; `None` for no such call."""
    _period: str | None = None

    def begin(self, pin: AgentPin, route: tuple[RoutePin, ...], at: datetime) -> None:
        """Take in the agent and its limits, which the start request may have lowered."""
        self._pin, self._route = pin, route
        if not Change.KEEPS_BUDGET.is_in(pin):
            return
        self.ledger.began_at = at
        asked = None
        with suppress(ValidationError):
            asked = BudgetRequest.model_validate(self.asked) if self.asked is not None else None
        self.limits = budget.lower(pin.budget, asked)

    def go_on(self, earlier: RunState, at: datetime) -> None:
        """Go on with the account of a session's earlier run, whose limits were its own."""
        if self.limits is None:
            return
        since = earlier.session.waits_since if earlier.session is not None else earlier.ledger.waits_since
        between = max(at - since, timedelta(0)) if since is not None else timedelta(0)
        waited = earlier.ledger.waited + between
        self.ledger = earlier.ledger.model_copy(update={"held": {}, "waited": waited, "waits_since": None})

    def describe_asked(self) -> str:
        """Describe the limits that the start request gave: each counts, or the agent's, which is lower."""
        if self.limits is None or self.asked is None:
            return ""
        try:
            asked = BudgetRequest.model_validate(self.asked)
        except ValidationError:
            return ""
        told = []
        for name in BudgetRequest.model_fields:
            wanted, counts = getattr(asked, name), getattr(self.limits, name)
            if wanted is not None and wanted != counts:
                more, own = (budget.describe_limit(name, value) for value in (wanted, counts))
                told.append(f"{own}, the agent's, which is lower than {more}")
            elif wanted is not None:
                told.append(budget.describe_limit(name, counts))
        return "; ".join(told)

    def carry_over(self, state: RunState) -> None:
        """Go on as the run did when it continued as new."""
        self._pin, self._route = state.agent, state.route
        if Change.KEEPS_BUDGET.is_in(state.agent):
            self.limits, self.ledger = state.budget or state.agent.budget, state.ledger
            self._period = f"{state.period_cost_usd:f}" if state.is_counted else None

    def hold(self, request: ModelRequest) -> None:
        """Hold what a model call may take that is being made."""
        if request.is_last and request.note:
            self.ledger.used_up = request.used_up or request.note.partition(wording.LAST_ANSWER.format(""))[0]
        if self._lost is not None:
            # The same call, after its cut: what it may take is held already.
            return
        first = self._route or (self._pin.route if self._pin is not None else ())
        self._hold(budget.MODEL, request.grant, [request.model or (first[0].model if first else "")])

    def hold_check(self, request: CheckRequest) -> None:
        """Hold what the models of a check may take that is being made."""
        pin = self._pin
        check = next((one for one in pin.checks if one.name == request.check), None) if pin is not None else None
        if check is not None and check.kind == "model":
            self._hold(budget.name_check(request), request.grant, check.models)

    def _hold(self, key: str, grant: Grant | None, models: Sequence[str]) -> None:
        """Hold for a call of one of `models`, as for the dearest."""
        self._grants[key] = grant
        if self._pin is None or grant is None:
            return
        route = (*self._route, *self._pin.route)
        prices = [find_price(model, route, self._pin.prices) for model in models] or [None]
        amounts = [budget.measure_grant(grant, price) for price in prices]
        amount = max(amounts, key=lambda one: one.cost_usd)
        self.ledger = self.ledger.model_copy(update={"held": {**self.ledger.held, key: amount}})

    def hold_share(self, key: str, share: BudgetRequest, lowered: BudgetRequest | None) -> None:
        """Hold the share of a child that begins: that of its tool, with what the run has `lowered` of it."""
        if self.limits is None or key in self.ledger.held:
            return
        given = {name: getattr(lowered, name, None) for name in Amount.model_fields}
        own = {name: getattr(share, name) for name in Amount.model_fields}
        taken = {name: given[name] if given[name] is not None else own[name] for name in Amount.model_fields}
        amount = Amount(**{name: value for name, value in taken.items() if value is not None})
        self.ledger = budget.reserve(self.ledger, key, amount)

    def settle_share(self, key: str, usage: Usage, *, is_known: bool) -> Usage:
        """Count what a child has used, or all of its share where nobody knows, and return that."""
        if self.limits is None:
            return usage
        self.ledger, counted = budget.settle_share(self.ledger, key, usage, is_known=is_known)
        return counted

    def count_tool_calls(self, open_calls: int) -> int:
        """Return the calls of the run's own tools that were made, with those of the turn that is not over."""
        limit = self.limits.tool_calls if self.limits is not None else None
        made = self.ledger.tool_calls + open_calls
        return made if limit is None else min(made, limit)

    def settle(self, reply: ModelReply) -> Usage:
        """Count what an answer took, and return that."""
        if reply.period_cost_usd is not None:
            self._period = f"{reply.period_cost_usd:f}"
        return self._settle_model(reply.usage, reply.lost)

    def settle_check(self, request: CheckRequest, found: CheckResult) -> Usage:
        """Count what a check took, and return that."""
        key = budget.name_check(request)
        return self._settle(key, found.usage, found.lost) if key in self._grants else found.usage

    def settle_failed_check(self, request: CheckRequest, error: BaseException) -> Usage:
        """Count what a check may have taken that was not made, and return that."""
        lost = request.grant.attempts if request.grant is not None else 0
        if isinstance(error, ApplicationError) and error.type in {FailureType.NEEDS_MORE, FailureType.NEEDS_STATE}:
            with suppress(ValidationError, IndexError):
                lost = NotSent.model_validate(error.details[0]).lost
        return self.settle_check(request, CheckResult(finding="unable", reason="", lost=lost))

    def _settle(self, key: str, usage: Usage, lost: int) -> Usage:
        grant = self._grants.pop(key, None)
        if self.limits is None:
            return usage
        self.ledger, counted = budget.settle_usage(self.ledger, key, usage, lost=lost, grant=grant, limits=self.limits)
        return counted

    def settle_failed(self, error: BaseException) -> Usage:
        """Count what a call without an answer may have taken, and return that; one that needs a cut goes on holding."""
        failure: ModelFailure | None = None
        if isinstance(error, ApplicationError):
            if error.type == FailureType.NEEDS_STATE and self._lost is None:
                with suppress(ValidationError, IndexError):
                    self._lost = NotSent.model_validate(error.details[0]).lost
                return Usage()
            failure = ModelFailure()
            with suppress(ValidationError, IndexError):
                failure = ModelFailure.model_validate(error.details[0])
        usage, lost = budget.read_failed(failure, self._grants.get(budget.MODEL))
        return self._settle_model(usage, lost) if self.limits is not None else Usage()

    def _settle_model(self, usage: Usage, lost: int) -> Usage:
        before, self._lost = self._lost or 0, None
        return self._settle(budget.MODEL, usage, lost + before)

    def raise_limits(self, value: JsonValue) -> None:
        """Take in limits to which a person has raised those of the run."""
        with suppress(ValidationError):
            if self.limits is not None:
                self.limits = budget.raise_limits(self.limits, BudgetRequest.model_validate(value))

    def count_calls(self, made: int) -> None:
        """Count calls of tools of a turn that is over."""
        self.ledger.tool_calls += made

    def note_wait(self, at: datetime, *, is_waiting: bool) -> None:
        """Note from when on the run is paused, or only waits for people."""
        since = self.ledger.waits_since
        if is_waiting and since is None:
            self.ledger.waits_since = at
        elif not is_waiting and since is not None:
            self.ledger.waited, self.ledger.waits_since = self.ledger.waited + (at - since), None

    def measure(self, step: int, open_calls: int, now: datetime) -> BudgetUse | None:
        """Return the use of the budget at a time; `open_calls` are those of the turn that is not over."""
        if self.limits is None:
            return None
        ledger = self.ledger.model_copy(update={"tool_calls": self.ledger.tool_calls + open_calls})
        since_start = now - (ledger.began_at or now)
        waiting = now - ledger.waits_since if ledger.waits_since is not None else timedelta(0)
        standing = Standing(step, since_start, since_start - ledger.waited - waiting)
        use = measure_use(ledger, self.limits, standing)
        return use.model_copy(update={"period_cost_usd": self._period})
