"""Proof by spending: many runs against budgets, a provider that bills all that it took in, dying workers, lost answers.

    python -m tests.acceptance.spending [--seed S] [--runs 40] [--calls 5] [--limit 0.10] [--kills 6] [--json]

**The runs** want 200 model calls together. Each has limits of its own (`cost_usd`, `tokens`), and all of them share a
budget beyond one run (`budgets.yaml`) that pays for about a tenth of what they want. Their routes are a first model
that answers 503 and 429 at times, and a second one of another vendor. The provider speaks real HTTP and keeps an
account of its own: it bills each request that it took in, also where it cuts the connection before the answer, where
the answer does not tell what it took, or where the worker was killed meanwhile. A model costs more, for the whole call,
above a size of the input. Workers are killed with SIGKILL while they wait for answers, and others are started.

**Wanted**, and exit code 0: what was billed is never more than the budget beyond the runs, nor for any run more than
its limits or than it says itself; the budget shows at least what was billed; every run ends, completed or exhausted;
and at the end at least 90 % of the budget are used: spent, or held for calls that died with their worker and may have
been billed. With `--json` the last line is `{"limit", "billed", "usable_share", "runs"}`.
"""

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

from temporalio.client import Client, WorkflowFailureError, WorkflowHandle

from mandate.workers.client.client import AgentClient, connect
from mandate.workers.dev_server.server import run_private_server
from mandate.workflows.contracts.run import RunResult, RunStatus
from tests.support.fake_provider.billing import Billing, Charge, Tier
from tests.support.fake_provider.server import FakeProvider
from tests.support.fault_crew import Crew, Post, at_work
from tests.support.processes import MANDATE, PROJECT
from tests.support.spending_model import FIRST, SpendingModel, find_run, write_input

BUDGET = "all"

DEADLINE = 240.0
"""Seconds after which a run counts as hanging."""

USABLE = Decimal("0.9")
"""Share of the budget that must be of use."""

EDGE = 2000
"""Tokens of input above which a whole call costs more."""

LONGEST_ANSWER = 250
WINDOW = 32_000

_CHEAP = ("1", "0.5", "4"), ("2", "1", "6")
_DEAR = ("1.2", "0.6", "5"), ("2.4", "1.2", "7")
PRICES: dict[str, tuple[tuple[str, str, str], tuple[str, str, str]]] = {
    FIRST: _CHEAP,
    "gpt-6-sol": _DEAR,
    "claude-haiku-5-5": _DEAR,
}
"""Input, cached input and output up to the edge and above it, by model: for agent files and for the provider."""

AGENTS = {"reads": ("vllm:small", "openai:gpt-6-sol"), "studies": ("vllm:small", "anthropic:claude-haiku-5-5")}
"""Routes by agent."""

ENDED = {RunStatus.COMPLETED, RunStatus.EXHAUSTED}


@dataclass(frozen=True, slots=True)
class Plan:
    """What is played."""

    seed: int = 1
    runs: int = 40
    calls: int = 5
    """Model calls that each run wants to make."""
    limit: Decimal = Decimal("0.10")
    """US dollars of the budget beyond the runs."""
    kills: int = 6
    workers: int = 3


@dataclass(frozen=True, slots=True)
class Spent:
    """One run as it ended."""

    run: str
    limit: Decimal
    billed: Decimal
    tokens: int
    """Limit of them."""
    billed_tokens: int
    result: RunResult | None
    """`None` for one that hangs or failed."""


@dataclass
class Played:
    """How the runs went."""

    plan: Plan
    spent: list[Spent] = field(default_factory=list)
    charges: list[Charge] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    """Requests by what became of them."""
    shown: dict[str, Decimal] = field(default_factory=dict)
    """What `mandate budget` shows at the end: `spent`, the `assumed` part of it, and `held`."""
    killed: int = 0
    seconds: float = 0.0

    @property
    def billed(self) -> Decimal:
        return sum((each.cost_usd for each in self.charges), Decimal(0))

    @property
    def used(self) -> Decimal:
        """Spent and held: no call was under way any more."""
        return self.shown["spent"] + self.shown["held"]

    @property
    def usable_share(self) -> Decimal:
        return self.used / self.plan.limit

    def faults(self) -> list[str]:
        """Return each broken promise in one line."""
        found = []
        if self.billed > self.plan.limit:
            found.append(f"${self.billed} were billed, and the budget is ${self.plan.limit}")
        if self.used < self.billed:
            found.append(f"the budget shows ${self.used}, and ${self.billed} were billed")
        if self.usable_share < USABLE:
            found.append(f"only {self.usable_share:.1%} of the budget were of use")
        payers = {each.run for each in self.spent}
        found += [f"{each.payer} is no run, and was billed" for each in self.charges if each.payer not in payers]
        for each in self.spent:
            if each.billed > each.limit:
                found.append(f"{each.run}: ${each.billed} were billed, and its limit is ${each.limit}")
            if each.billed_tokens > each.tokens:
                found.append(f"{each.run}: {each.billed_tokens} tokens were billed, and its limit is {each.tokens}")
            if each.result is None:
                found.append(f"{each.run}: hangs or failed")
            elif each.result.status not in ENDED:
                found.append(f"{each.run}: {each.result.status}, {each.result.reason}")
            elif each.result.usage.cost_usd < each.billed:
                found.append(f"{each.run}: ${each.billed} were billed, and it says ${each.result.usage.cost_usd}")
        return found


Tell = Callable[[str], None]


async def play(client: Client, address: str, folder: Path, plan: Plan, tell: Tell = lambda _: None) -> Played:
    """Play all runs at once until each has ended."""
    began, dice = time.monotonic(), random.Random(plan.seed)
    queue, name = f"spending-{uuid4().hex[:8]}", f"spend{uuid4().hex[:6]}"
    model = SpendingModel(plan.seed, plan.calls)
    billing = Billing({name: _list_tiers(rates) for name, rates in PRICES.items()}, find_run)
    async with FakeProvider(script=model.answer, billing=billing, keeps_requests=False) as provider:
        environment = _write_site(folder, address, queue, provider.url, plan)
        post = Post("worker", (*MANDATE, "worker"), "Task queue", plan.workers, lambda _: environment)
        async with at_work(post, folder / "processes") as crew:
            agents = AgentClient(client, queue)
            limits = {f"{name}-{number}": _draw_limits(dice) for number in range(plan.runs)}
            names = list(AGENTS)
            runs = {
                run: await agents.start(
                    names[number % len(names)],
                    write_input(run, dice.choice((300, 600, 1800))),
                    workflow_id=run,
                    budget={"cost_usd": str(limit), "tokens": tokens},
                )
                for number, (run, (limit, tokens)) in enumerate(limits.items())
            }
            ending = [asyncio.create_task(_wait(handle)) for handle in runs.values()]
            reaping = asyncio.create_task(_reap(crew, plan, dice, billing))
            telling = asyncio.create_task(_tell_progress(ending, billing, tell))
            try:
                results = await asyncio.gather(*ending)
            finally:
                reaping.cancel()
                telling.cancel()
            killed = crew.dead
        shown = await asyncio.to_thread(_read_budget, environment)
        bills, took = billing.by_payer, billing.tokens_by_payer
        spent = [
            Spent(run, limits[run][0], bills.get(run, Decimal(0)), limits[run][1], took.get(run, 0), result)
            for run, result in zip(runs, results, strict=True)
        ]
        done = model.done + Counter(abandoned=provider.dropped)
        return Played(plan, spent, billing.charges, done, shown, killed, time.monotonic() - began)


def _list_tiers(rates: tuple[tuple[str, str, str], tuple[str, str, str]]) -> list[Tier]:
    return [Tier(above, *map(Decimal, texts)) for above, texts in zip((0, EDGE), rates, strict=True)]


def _draw_limits(dice: random.Random) -> tuple[Decimal, int]:
    """Return dollars and tokens of a run: some pay for all of its calls, others for a few and the last answer."""
    return Decimal(dice.choice(("0.012", "0.02", "0.04", "0.08"))), dice.choice((10_000, 25_000, 60_000))


def _write_site(folder: Path, address: str, queue: str, provider: str, plan: Plan) -> dict[str, str]:
    """Write the agents and the file of budgets; return the environment of workers and commands."""
    (folder / "agents").mkdir(parents=True, exist_ok=True)
    for name, models in AGENTS.items():
        agent = {
            "name": name,
            "instructions": "Read what you are asked about, and say what it is.",
            "models": [_write_entry(model) for model in models],
            "max_output_tokens": LONGEST_ANSWER,
            # Without it the conversation would be cut before its price rises.
            "context": {"limit": 0.9},
            "tools": [{"python": "tests.support.spending_tools:read_page"}],
            "policy": [{"id": "all", "match": {}, "verdict": "allow"}],
            "requester": "anyone",
            # Nobody answers: a run that asks is one that did not end as it should.
            "people": {"expires": "5s"},
            "budget": {"cost_usd": "1.00"},
        }
        (folder / "agents" / f"{name}.yaml").write_text(json.dumps(agent))
    # A month: a day would begin anew within the runs more often.
    budgets = {"budgets": [{"id": BUDGET, "per": "month", "cost_usd": str(plan.limit)}]}
    (folder / "budgets.yaml").write_text(json.dumps(budgets))
    return {
        "MANDATE_FOLDER": str(folder),
        "MANDATE_AGENTS": str(folder / "agents"),
        "MANDATE_BUDGETS": str(folder / "budgets.yaml"),
        "MANDATE_TASK_QUEUE": queue,
        "TEMPORAL_ADDRESS": address,
        "VLLM_BASE_URL": f"{provider}/v1",
        "VLLM_API_KEY": "none",
        "OPENAI_BASE_URL": f"{provider}/v1",
        "OPENAI_API_KEY": "none",
        "ANTHROPIC_BASE_URL": provider,
        "ANTHROPIC_API_KEY": "none",
    }


def _write_entry(model: str) -> Mapping[str, object]:
    low, high = (
        dict(zip(("input", "cached_input", "output"), rates, strict=True)) for rates in PRICES[model.partition(":")[2]]
    )
    return {"model": model, "window": WINDOW, "price": {**low, "tiers": [{"above": EDGE, **high}]}}


async def _wait(run: WorkflowHandle[Any, RunResult]) -> RunResult | None:
    try:
        async with asyncio.timeout(DEADLINE):
            return await run.result()
    except (TimeoutError, WorkflowFailureError):
        return None


async def _reap(crew: Crew, plan: Plan, dice: random.Random, billing: Billing) -> None:
    """Kill one worker after another while it waits for answers, as long as another one is there."""
    billed = 0
    for _ in range(plan.kills):
        # Nothing is under way where nothing was asked since the last time.
        while len(billing.charges) == billed or len(crew.ready) < 2:
            await asyncio.sleep(0.02)
        await asyncio.sleep(dice.uniform(0.1, 0.8))
        billed = len(billing.charges)
        crew.members[dice.choice(crew.ready)].process.kill()
        await asyncio.sleep(0.1)


async def _tell_progress(ending: list[asyncio.Task[RunResult | None]], billing: Billing, tell: Tell) -> None:
    while True:
        await asyncio.sleep(5)
        ended = sum(task.done() for task in ending)
        tell(f"{ended} of {len(ending)} runs ended, {len(billing.charges)} requests billed, ${billing.total:.4f}")


def _read_budget(environment: Mapping[str, str]) -> dict[str, Decimal]:
    """Return what `mandate budget` shows."""
    asked = subprocess.run(
        [*MANDATE, "budget", BUDGET, "-o", "json"],
        cwd=PROJECT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    row = json.loads(asked.stdout)["budgets"][0]
    return {name: Decimal(row[name]["cost_usd"]) for name in ("spent", "assumed", "held")}


def report(played: Played) -> dict[str, object]:
    """The last line, as one JSON object."""
    return {
        "limit": float(played.plan.limit),
        "billed": float(played.billed),
        "usable_share": round(float(played.usable_share), 4),
        "runs": len(played.spent),
    }


def show(played: Played) -> str:
    """The report for people."""
    plan, done = played.plan, played.done
    statuses = Counter(str(each.result.status) if each.result else "no end" for each in played.spent)
    by_model = Counter(each.model for each in played.charges)
    lines = [
        f"{len(played.spent)} runs in {played.seconds:.0f} s, seed {plan.seed}: {_list(statuses)}",
        f"{played.killed} workers killed; requests: {_list(done)}",
        f"billed: {_list(by_model)}; {sum(each.is_dear for each in played.charges)} above {EDGE:,} tokens of input",
        "",
        f"{'budget of all runs':<34}{'$':>10}{'share':>9}",
    ]
    sums = {
        "limit": plan.limit,
        "billed by the provider": played.billed,
        "shown as spent": played.shown["spent"],
        "  of that assumed": played.shown["assumed"],
        "held for calls of killed workers": played.shown["held"],
        "of use: spent and held": played.used,
    }
    lines += [f"{name:<34}{usd:>10.5f}{usd / plan.limit:>9.1%}" for name, usd in sums.items()]
    lines += ["", f"{'limit of a run':<20}{'runs':>6}{'most billed':>14}{'most said':>12}{'used up':>9}"]
    for limit in sorted({each.limit for each in played.spent}):
        own = [each for each in played.spent if each.limit == limit]
        said = max(each.result.usage.cost_usd if each.result else Decimal(0) for each in own)
        beyond = sum("the limit of" in (each.result.reason or "") for each in own if each.result)
        billed = max(each.billed for each in own)
        lines.append(f"{f'${limit}':<20}{len(own):>6}{billed:>14.5f}{said:>12.5f}{beyond:>9}")
    faults = played.faults()
    lines += ["", f"promises broken: {len(faults)}", *(f"  {fault}" for fault in faults)]
    return "\n".join(lines)


def _list(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(counts.items())) or "none"


async def _run(plan: Plan, *, as_json: bool, folder: Path) -> int:
    async with run_private_server() as server:
        client = await connect(address=server.address)
        played = await play(client, server.address, folder, plan, lambda line: print(line, flush=True))
    print(show(played))
    if as_json:
        print(json.dumps(report(played)))
    return 1 if played.faults() else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.acceptance.spending",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--calls", type=int, default=5, help="model calls that each run wants to make")
    parser.add_argument("--limit", type=Decimal, default=Decimal("0.10"), help="US dollars for all runs together")
    parser.add_argument("--kills", type=int, default=6, help="workers that are killed")
    parser.add_argument("--json", action="store_true", help="the last line is the report as JSON")
    given = parser.parse_args()
    plan = Plan(given.seed, given.runs, given.calls, given.limit, given.kills)
    with tempfile.TemporaryDirectory(prefix="mandate-spending-") as folder:
        return asyncio.run(_run(plan, as_json=given.json, folder=Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
