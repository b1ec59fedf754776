"""Purse of a check: what the models that judge may take of the run's budget, and of those beyond it."""

from collections.abc import Callable
from dataclasses import dataclass

from temporalio import activity

from mandate.activities.checks.findings import Unable
from mandate.activities.grants import refuse
from mandate.activities.period_budgets import Held, PeriodBudgets
from mandate.workflows.contracts.budget import Amount, Grant
from mandate.workflows.contracts.failures import FailureType
from mandate.workflows.contracts.model import Usage
from mandate.workflows.contracts.route import Price
from mandate.workflows.rules import budget
from mandate.workflows.rules.period_budgets import Spender


@dataclass(slots=True)
class Purse:
    """Calls of one attempt of a check."""

    measure: Callable[[str], int]
    """Estimates the tokens of a request."""
    grant: Grant | None = None
    budgets: PeriodBudgets | None = None
    spender: Spender | None = None
    """The run, where it counts in budgets beyond it."""
    made: int = 0
    """Calls so far that may be billed, of earlier attempts too."""
    lost: int = 0
    """Those of them whose answers nobody got."""

    def find_longest(self, wanted: int) -> int:
        """Return the output tokens that one answer may have."""
        return wanted if self.grant is None else min(wanted, self.grant.output_tokens)

    async def hold(self, model: str, request: str, longest: int, price: Price | None) -> Held | None:
        """Reserve one call; `request` is its whole text.

        Raises:
            Unable: as many calls were made as the run holds money for.
            ApplicationError: `NeedsMore`, `BudgetUsedUp`, store failures.
        """
        tokens = self.measure(request)
        if self.grant is not None:
            if tokens > self.grant.input_tokens:
                refuse(FailureType.NEEDS_MORE, "the check needs more than what is reserved for it", tokens, self.lost)
            if self.made >= self.grant.attempts:
                raise Unable("the budget of the run holds no further call of a model that judges", lasting=True)
        self.made += 1
        if self.budgets is None or self.spender is None:
            return None
        info = activity.info()
        return await self.budgets.hold(
            f"{info.workflow_run_id}:{info.activity_id}:{info.attempt}:{self.made}",
            self.spender,
            budget.measure_call(budget.CallSize(tokens, longest, price)),
            unpriced_model=model if price is None else None,
        )

    async def settle(self, held: Held | None, usage: Usage) -> None:
        """Count what an answer took."""
        if held is not None:
            await (held.assume() if usage.unpriced_calls else held.settle(budget.measure_usage(usage)))

    async def give_up(self, held: Held | None, *, may_be_billed: bool) -> None:
        """Count a call without an answer."""
        self.lost += may_be_billed
        self.made -= not may_be_billed
        if held is not None:
            await (held.assume() if may_be_billed else held.settle(Amount()))
