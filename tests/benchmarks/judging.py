"""One call under many rules with conditions, judged in plain code and in a workflow."""

import asyncio
import time
from datetime import datetime
from decimal import Decimal

from temporalio import workflow

from mandate.workflows.contracts.policy import Rule, RunFacts, ToolTotals
from mandate.workflows.contracts.tool import Effect, Tool
from mandate.workflows.rules import policy

REPEATS = 9
TOOLS = tuple(
    Tool(name=f"tool_{number}", source="python", effect=Effect.ONCE, numeric=("amount",)) for number in range(20)
)
ARGUMENTS = {
    "amount": 99.5,
    "order": "81",
    "note": "as agreed on the phone, " * 20,
    "items": [{"sku": f"s-{number}", "quantity": number} for number in range(10)],
}
CONDITIONS = (
    "args.amount >= {0}.0 && args.order == '{0}'",
    "run.totals.tool_0.amount + args.amount > {0}000.0",
    "run.calls.tool_1 >= {0} && run.tainted",
    "args.items.exists(i, i.quantity > 1{0})",
    "run.now.getHours() > 23 && tool.risk > 0.{0}",
)


def rules_of(number: int) -> tuple[Rule, ...]:
    """So many rules, each with a condition of its own that does not hold."""
    return tuple(
        Rule.model_validate(
            {
                "id": f"rule-{index}",
                "match": {"tools": ["tool_*"]},
                "when": CONDITIONS[index % len(CONDITIONS)].format(100 + index),
                "verdict": ("allow", "ask", "deny")[index % 3],
            }
        )
        for index in range(number)
    )


def judge(rules: tuple[Rule, ...], now: datetime) -> None:
    """Judge one call as the loop does, the facts of the run included."""
    totals = {tool.name: ToolTotals(calls=3, sums={"amount": Decimal("99.5")}) for tool in TOOLS}
    run = RunFacts(id="run", agent="bench", version="1", labels={"team": "bench"}, now=now, totals=totals)
    verdict = policy.judge(rules, TOOLS[0], ARGUMENTS, run, tools=TOOLS)
    assert verdict.rule is None, verdict
    assert "evaluated" not in verdict.reason, verdict


def milliseconds(rules: tuple[Rule, ...], calls: int, now: datetime) -> float:
    """CPU of one call, from so many of them."""
    began = time.process_time()
    for _ in range(calls):
        judge(rules, now)
    return (time.process_time() - began) / calls * 1000


@workflow.defn
class JudgingWorkflow:
    """CPU milliseconds of one judged call, once a repeat."""

    @workflow.run
    async def run(self, rules: int, calls: int) -> list[float]:
        made = rules_of(rules)
        judge(made, workflow.now())
        found = []
        for _ in range(REPEATS):
            with workflow.unsafe.sandbox_unrestricted():
                found.append(milliseconds(made, calls, workflow.now()))
            # A task of its own for each: none may hold the workflow for long.
            await asyncio.sleep(0.001)
        return found
