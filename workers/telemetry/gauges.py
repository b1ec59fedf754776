"""Metrics that are looked up now and then: open requests, budgets beyond runs, breakers.

What is of all workers is told by one of them at a time, so that the sum over workers is right. Another takes over
when it is gone.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from decimal import Decimal

import structlog
from temporalio.client import Client
from temporalio.service import RPCError

from mandate.activities.live_files import FileUnavailable
from mandate.activities.providers.breaker import BreakerState
from mandate.activities.stores.base import BlobStore, StoreUnavailable
from mandate.workers.telemetry.cursors import Cursors
from mandate.workers.telemetry.metrics import Metrics
from mandate.workflows.contracts.budget_file import BudgetFile
from mandate.workflows.contracts.run import AGENT_WORKFLOW, PLAN_WORKFLOW
from mandate.workflows.rules.period_budgets import name_period

log = structlog.stdlib.get_logger(__name__)

EVERY_SECONDS = 10.0
MOST_RUNS = 1000
"""Runs that wait, whose requests are looked up; of more, the newest count."""

DUTY = "gauges"


class Gauges:
    """Gauges of one worker."""

    def __init__(
        self,
        metrics: Metrics,
        client: Client,
        task_queue: str,
        cursors: Cursors,
        store: BlobStore,
        *,
        breakers: Callable[[], Iterable[BreakerState]],
        budgets: Callable[[], Awaitable[BudgetFile | None]],
        has_status: bool,
    ) -> None:
        """Take where they are looked up; `has_status` tells that runs can be found by their status."""
        self._metrics = metrics
        self._client = client
        self._queue = task_queue
        self._cursors = cursors
        self._store = store
        self._breakers = breakers
        self._budgets = budgets
        self._duty = f"{DUTY}/{client.namespace}/{task_queue}"
        self._status = " AND AgentStatus IN ('waiting', 'paused')" if has_status else ""
        self._told: set[tuple[str, tuple[tuple[str, str], ...]]] = set()

    async def run(self, every: float = EVERY_SECONDS) -> None:
        """Look them up, for ever."""
        while True:
            try:
                await self.look()
            except (StoreUnavailable, RPCError, FileUnavailable) as error:
                log.warning("metrics_wait", problem=str(error))
            await asyncio.sleep(every)

    async def look(self) -> None:
        """Look all of them up once."""
        for state in self._breakers():
            is_open = state.state == "open"
            self._metrics.set("mandate_breaker_open", float(is_open), model=f"{state.provider}:{state.model}")
        # The claim is not let go: it is renewed with each look, and runs out when this worker is gone.
        values = await self._look_up_shared() if await self._cursors.claim(self._duty) is not None else {}
        for name, labels in self._told - values.keys():
            self._metrics.set(name, 0.0, **dict(labels))
        for (name, labels), value in values.items():
            self._metrics.set(name, value, **dict(labels))
        self._told = self._told | values.keys()

    async def _look_up_shared(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        found: dict[tuple[str, tuple[tuple[str, str], ...]], float] = defaultdict(float)
        now = datetime.now(UTC).timestamp()
        query = (
            f"WorkflowType IN ('{AGENT_WORKFLOW}', '{PLAN_WORKFLOW}') AND TaskQueue = '{self._queue}' "
            f"AND ExecutionStatus = 'Running'{self._status}"
        )
        number = 0
        async for run in self._client.list_workflows(query):
            number += 1
            if number > MOST_RUNS:
                break
            cursor = await self._cursors.read(run.run_id)
            for asked in cursor.open.values():
                labels = (("agent", asked.agent), ("kind", asked.kind))
                found["mandate_requests_open", labels] += 1
                age = ("mandate_request_oldest_seconds", labels)
                found[age] = max(found[age], now - asked.asked_at)
        await self._look_up_budgets(found)
        return found

    async def _look_up_budgets(self, found: dict[tuple[str, tuple[tuple[str, str], ...]], float]) -> None:
        file, now = await self._budgets(), datetime.now(UTC)
        if file is None or not file.budgets:
            return
        periods = {budget.id: name_period(budget, now) for budget in file.budgets}
        limits = {budget.id: budget.cost_usd for budget in file.budgets}
        spent: dict[str, Decimal] = dict.fromkeys(periods, Decimal(0))
        held: dict[str, Decimal] = dict.fromkeys(periods, Decimal(0))
        for balance in await self._store.list_balances(min(periods.values()), max(periods.values())):
            account = balance.account
            if periods.get(account.budget) != account.period:
                continue
            spent[account.budget] += balance.spent.cost_usd
            held[account.budget] += balance.held.cost_usd
            limit, used = limits[account.budget], balance.spent.cost_usd + balance.held.cost_usd
            if limit is not None:
                place = ("mandate_budget_used_ratio", (("budget", account.budget),))
                found[place] = max(found[place], float(used / limit))
        for name in periods:
            labels = (("budget", name),)
            found["mandate_budget_spent_usd", labels] = float(spent[name])
            found["mandate_budget_held_usd", labels] = float(held[name])
