"""Budget of a run: reserved before each model call, settled after it, and what happens as it is used up."""

from collections.abc import Sequence
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError

from mandate.workflows.contracts.budget import Amount, Budget, BudgetUse, Grant
from mandate.workflows.contracts.changes import Change
from mandate.workflows.contracts.failures import FailureType
from mandate.workflows.contracts.model import ModelFailure, ModelReply, NotSent, Usage, Words
from mandate.workflows.contracts.route import Price, find_price
from mandate.workflows.contracts.state import RunState
from mandate.workflows.contracts.tool import ChildAgent
from mandate.workflows.contracts.verification import FINAL, CheckPin
from mandate.workflows.loop.run import Run
from mandate.workflows.rules import budget as rules
from mandate.workflows.rules import quantities, routing
from mandate.workflows.rules.budget import CallSize, Planned, Shortfall
from mandate.workflows.rules.budget_use import Standing, measure_use
from mandate.workflows.rules.children import Share, find_share

BYTES_PER_TOKEN = 3
"""Of text that is new in a request; the activity knows better, and says so where it is more."""

PART_TOKENS = 24
"""Of each part of a request beside its text."""


class RunBudget:
    """Ledger of one run, against the limits that it has now."""

    def __init__(self, run: Run) -> None:
        self._run = run

    @property
    def _state(self) -> RunState:
        return self._run.state

    @property
    def limits(self) -> Budget:
        """Limits of the run: as they were lowered at its start, and raised by people since."""
        return self._state.budget or self._state.agent.budget

    @property
    def is_kept(self) -> bool:
        """True if the run began when budgets were kept."""
        return self._run.has(Change.KEEPS_BUDGET)

    @property
    def is_granted(self) -> bool:
        """True if each model call needs a grant: something that it takes is limited."""
        limits = self.limits
        return self.is_kept and any(value is not None for value in (limits.tokens, limits.cost_usd, limits.model_calls))

    def find_exceeded(self) -> Shortfall | None:
        """Return the limit that leaves no room for another ordinary step."""
        return rules.exceeded(
            self._state.ledger,
            self.limits,
            step=self._state.step,
            since_start=self._since_start,
            worked=self.worked,
            keeps_last=self._keeps_last,
        )

    @property
    def _keeps_last(self) -> bool:
        """True if enough is kept back for a last answer, should a limit be used up."""
        return self.limits.when_used_up != "stop" or not self._run.has(Change.SPENDS_LIMITS)

    @property
    def worked(self) -> timedelta:
        """Time since the start in which the run was not paused, and did not only wait for people."""
        ledger, now = self._state.ledger, workflow.now()
        waiting = now - ledger.waits_since if ledger.waits_since is not None else timedelta(0)
        return self._since_start - ledger.waited - waiting

    def find_time_left(self, *, is_last: bool = False) -> timedelta | None:
        """Return the time of a model call, a read or a check that begins now; `None` where nothing limits it.

        `is_last` says that nothing more is kept back: the final answer is there, or being asked for.
        """
        if not self.is_kept:
            return None
        keeps_time = self._run.has(Change.KEEPS_TIME)
        return rules.find_time_left(
            self.limits,
            since_start=self._since_start,
            worked=self.worked,
            keeps_last=keeps_time and self._keeps_last,
            is_last=not keeps_time or is_last or self._state.ledger.is_answering,
        )

    def find_time_exceeded(self, spare: timedelta = timedelta(0)) -> Shortfall | None:
        """Return the limit of time that leaves no more than `spare` for a call that has not begun."""
        if not self._run.has(Change.KEEPS_TIME):
            return None
        return rules.find_time_exceeded(
            self.limits, since_start=self._since_start, worked=self.worked, keeps_last=self._keeps_last, spare=spare
        )

    def find_waiting_left(self) -> timedelta | None:
        """Return the time for which a call may still wait for people: only the time since the start counts it."""
        most = self.limits.wall_time
        if most is None or not self._run.has(Change.KEEPS_TIME):
            return None
        last = rules.find_last_time(most) if self._keeps_last else timedelta(0)
        return max(most - last - self._since_start, timedelta(0))

    @property
    def _since_start(self) -> timedelta:
        now = workflow.now()
        return now - (self._state.ledger.began_at or now)

    @property
    def has_no_step(self) -> bool:
        """True if not even the last answer can be asked for."""
        return self._run.has(Change.COUNTS_LAST_STEP) and self._state.step >= self.limits.steps

    @property
    def most_steps(self) -> int:
        """Steps that the run may have by now; in older runs, as at its start."""
        return self.limits.steps if self._run.has(Change.REFUSES_LATE_WORDS) else self._state.step_limit

    def plan(self, model: str, words: Sequence[Words], input_tokens: int | None = None) -> Planned | Shortfall:
        """Return what the next call of `model`, which is told `words`, may take.

        `input_tokens` are what the activity has found out of it.
        """
        most, price = self._find_longest(model), self._find_price(model)
        if price is None and self.limits.cost_usd is not None:
            return Shortfall("cost_usd", f"no price is known for {model!r}, and the cost of the run is limited")
        size = CallSize(self._estimate(words) if input_tokens is None else input_tokens, most, price)
        is_last = self._state.ledger.is_answering
        return rules.plan_call(
            self._state.ledger, self.limits, size, kept=self._kept_last if is_last else self._kept, is_last=is_last
        )

    def plan_check(self, check: CheckPin, input_tokens: int | None = None) -> Planned | Shortfall:
        """Return what the models of a check may take, each at most; as `plan`."""
        if self.limits.cost_usd is not None and None in map(self._find_price, check.models):
            return Shortfall("cost_usd", f"no price is known for a model of {check.name!r}, and the cost is limited")
        tokens = self._state.context_tokens + rules.RESULT_TOKENS if input_tokens is None else input_tokens
        size = self._size_check(check, tokens, self._state.agent.max_output_tokens)
        # After the final answer nothing is kept back any more.
        kept = _keep_nothing if check.after == FINAL else self._kept
        return rules.plan_call(self._state.ledger, self.limits, size, kept=kept, is_last=True)

    def describe_next(self, model: str) -> str:
        """Return the most that the next call of `model` would take, in words."""
        price = self._find_price(model)
        amount = rules.measure_call(CallSize(self._estimate(()), self._find_longest(model), price))
        return rules.describe_amount(amount) if price is not None else quantities.count_noun(amount.tokens, "token")

    def _find_longest(self, model: str) -> int:
        """Return the output tokens that an answer of `model` may have where nothing else limits it."""
        pin = routing.find_pin(self._state.route or self._state.agent.route, model)
        return (pin and pin.max_output_tokens) or self._state.agent.max_output_tokens

    def _find_price(self, model: str) -> Price | None:
        route = (*self._state.route, *self._state.agent.route)
        return find_price(model, route, self._state.agent.prices)

    def _kept(self, size: CallSize) -> Amount:
        """Return what is kept back for the last answer and its checks; for these alone where nobody asks for one."""
        if not self._keeps_last:
            return self._kept_last(size)
        last = rules.final_reserve(size)
        return last + self._kept_last(CallSize(last.tokens, rules.LAST_OUTPUT, size.price))

    def _kept_last(self, size: CallSize) -> Amount:
        """Return what is kept back for the checks of the last answer."""
        judges = (check for check in self._state.agent.checks if check.kind == "model" and check.after == FINAL)
        sizes = (self._size_check(check, size.input_tokens, rules.LAST_OUTPUT) for check in judges)
        return rules.sum_amounts(*map(rules.measure_call, sizes))

    def _size_check(self, check: CheckPin, input_tokens: int, output_tokens: int) -> CallSize:
        """Return the size of a call of the dearest model of a check."""
        sizes = [CallSize(input_tokens, output_tokens, self._find_price(model)) for model in check.models]
        return max(sizes, key=lambda size: rules.measure_call(size).cost_usd)

    def _estimate(self, words: Sequence[Words]) -> int:
        """Return the tokens of the next request as far as the run can tell: its conversation, and what is new."""
        its = self._state
        new = sum(
            (answer.size if answer.size is not None else len((answer.text or "").encode())) // BYTES_PER_TOKEN
            + PART_TOKENS
            for answer in its.answers
            if answer is not None
        )
        new += sum(len(word.text.encode()) // BYTES_PER_TOKEN + PART_TOKENS for word in words)
        note = len((its.note or "").encode()) // BYTES_PER_TOKEN + PART_TOKENS
        return (its.context_tokens or its.estimate) + new + note

    def lend(self, child: ChildAgent, model: str | None) -> Share | str:
        """Return the share of a child, or why it gets none; what `model` needs for the last answer is kept back."""
        if not self.is_kept:
            return Share(child.share, Amount())
        kept = Amount()
        if model is not None and self.is_granted:
            size = CallSize(self._estimate(()), self._find_longest(model), self._find_price(model))
            kept = self._kept(size)
        return find_share(self._state.ledger, self.limits, child, kept, time_left=self.find_waiting_left())

    def hold_share(self, key: str, share: Share) -> None:
        """Hold the share of a child until it has reported."""
        if self.is_kept:
            self._state.ledger = rules.reserve(self._state.ledger, key, share.amount)

    def settle_share(self, key: str, usage: Usage, *, is_known: bool) -> None:
        """Count what a child has used, or all of its share where nobody knows."""
        self._state.ledger, counted = rules.settle_share(self._state.ledger, key, usage, is_known=is_known)
        self._state.usage = self._state.usage + counted

    def hold(self, planned: Planned, key: str = rules.MODEL) -> Grant:
        """Hold what a call may take, for all of its attempts."""
        self._state.ledger = rules.reserve(self._state.ledger, key, planned.amount)
        return planned.grant

    def settle(self, usage: Usage, lost: int, key: str = rules.MODEL, grant: Grant | None = None) -> None:
        """Count what a call has taken, and what `lost` attempts before it may have taken."""
        self._state.ledger, counted = rules.settle_usage(
            self._state.ledger, key, usage, lost=lost, grant=grant, limits=self.limits
        )
        self._state.usage = self._state.usage + counted

    def settle_reply(self, reply: ModelReply, grant: Grant | None, *, before: int = 0) -> None:
        """Count what the answer of a model took, and keep the size of the conversation with it.

        `before` are attempts that were lost before the conversation was cut.
        """
        self.settle(reply.usage, reply.lost + before, grant=grant)
        if reply.period_cost_usd is not None:
            self._state.period_cost_usd = reply.period_cost_usd
        whole = reply.usage.input_tokens + reply.usage.output_tokens
        self._state.context_tokens = reply.context_tokens or whole

    def settle_failed(self, error: ActivityError, grant: Grant | None, *, before: int = 0) -> None:
        """Count what a call without an answer may have taken, and `before` as of `settle_reply`."""
        usage, lost = rules.read_failed(read_failure(error), grant)
        self.settle(usage, lost + before, grant=grant)

    def take_tool_call(self) -> str | None:
        """Count a call of a tool; return why it is not made where the limit is used up."""
        if not self.is_kept:
            return None
        self._state.ledger = self._state.ledger.model_copy(update={"tool_calls": self._state.ledger.tool_calls + 1})
        limit = self.limits.tool_calls
        if limit is None or rules.count_tool_calls(self._state.ledger) <= limit:
            return None
        return f"not made: the limit of {rules.describe_limit('tool_calls', limit)} is used up"

    @property
    def use(self) -> BudgetUse | None:
        """Budget as people see it; `None` in runs that began before budgets were kept."""
        its = self._state
        if not self.is_kept:
            return None
        standing = Standing(its.step, self._since_start, self.worked)
        return measure_use(its.ledger, self.limits, standing, its.period_cost_usd if its.is_counted else None)

    def begin_last_answer(self, reason: str) -> None:
        """Let the model answer with what it has."""
        self._state.ledger = self._state.ledger.model_copy(update={"used_up": reason})


def _keep_nothing(_: CallSize) -> Amount:
    return Amount()


def find_needed(error: ActivityError) -> NotSent | None:
    """Return what a request needs that was not sent, since it is larger than its grant or is to be cut first."""
    cause = error.cause
    kinds = (FailureType.NEEDS_MORE, FailureType.NEEDS_STATE)
    if not isinstance(cause, ApplicationError) or cause.type not in kinds or not cause.details:
        return None
    return NotSent.model_validate(cause.details[0])


def is_beyond(error: ActivityError) -> bool:
    """Return whether a budget beyond the run has no room."""
    return isinstance(error.cause, ApplicationError) and error.cause.type == FailureType.BUDGET_USED_UP


def is_used_up(error: ActivityError, grant: Grant | None) -> bool:
    """Return whether answers were lost as often as the budget paid for, which was less often than usual."""
    failure = read_failure(error)
    if grant is None or failure is None or is_beyond(error):
        return False
    return grant.attempts < rules.MOST_ATTEMPTS and failure.lost >= grant.attempts


def read_failure(error: ActivityError) -> ModelFailure | None:
    """Return what the activity said of its attempts; `None` where its worker was lost or it failed unforeseen."""
    cause = error.cause
    if not isinstance(cause, ApplicationError) or not cause.details:
        return None
    return ModelFailure.model_validate(cause.details[0])
