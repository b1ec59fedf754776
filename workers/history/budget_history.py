"""Budget of a run as its history tells it: the account that the run itself keeps, from the same rules."""

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pydantic import JsonValue, ValidationError
from temporalio.exceptions import ApplicationError

from mandate.workflows.contracts.agent import AgentPin
from mandate.workflows.contracts.budget import Budget, BudgetRequest, BudgetUse, Grant, Ledger
from mandate.workflows.contracts.changes import Change
from mandate.workflows.contracts.failures import FailureType
from mandate.workflows.contracts.model import ModelFailure, ModelReply, ModelRequest, Usage
from mandate.workflows.contracts.route import RoutePin
from mandate.workflows.contracts.state import RunState
from mandate.workflows.rules import budget, wording
from mandate.workflows.rules.budget_use import Standing, measure_use

_KEY = "model"


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
    _grant: Grant | None = None
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
        self._grant = request.grant
        if request.is_last and request.note:
            self.ledger.used_up = request.note.partition(wording.LAST_ANSWER.format(""))[0]
        if self._pin is None or request.grant is None:
            return
        model = request.model or (self._route[0].model if self._route else self._pin.models[0])
        price = budget.find_price(model, (*self._route, *self._pin.route), self._pin.prices)
        amount = budget.measure_grant(request.grant, price)
        self.ledger = self.ledger.model_copy(update={"held": {_KEY: amount}})

    def settle(self, reply: ModelReply) -> Usage:
        """Count what an answer took, and return that."""
        if reply.period_cost_usd is not None:
            self._period = f"{reply.period_cost_usd:f}"
        return self._settle(reply.usage, reply.lost)

    def _settle(self, usage: Usage, lost: int) -> Usage:
        if self.limits is None:
            return usage
        self.ledger, assumed = budget.settle_usage(
            self.ledger, _KEY, usage, lost=lost, grant=self._grant, limits=self.limits
        )
        return usage + Usage(input_tokens=assumed.tokens, cost_usd=assumed.cost_usd, assumed_calls=lost)

    def settle_failed(self, error: BaseException) -> Usage:
        """Count what a call without an answer may have taken, and return that; one that needs a cut goes on holding."""
        failure: ModelFailure | None = None
        if isinstance(error, ApplicationError):
            if error.type == FailureType.NEEDS_STATE:
                return Usage()
            failure = ModelFailure()
            with suppress(ValidationError, IndexError):
                failure = ModelFailure.model_validate(error.details[0])
        usage, lost = budget.read_failed(failure, self._grant)
        return self._settle(usage, lost) if self.limits is not None else Usage()

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
