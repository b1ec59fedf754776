"""What a route pays: cheap first against strong always, and a loop with checks against a fixed chain, in one run.

`python -m tests.benchmarks.routing [--cases 200] [--seed 7] [--cheap 0.19] [--strong 0.06] [--unseen 0.5] [--json]`

The models are fakes behind a real protocol, and each of their answers is wrong with a seeded probability: a call with
the wrong order, or a wrong fact in the final answer, which a check sees or, for a share of them, does not. All ways to
work meet the same draws. Costs are list prices of a dear and a cheap model for the same tokens.
"""

import argparse
import asyncio
import json
import logging
import random
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import structlog
from temporalio.client import Client

from mandate.activities.checks.functions import check
from mandate.activities.providers.openai_responses import OpenAiResponses
from mandate.activities.toolbox.decorator import NotDone, ToolContext, tool
from mandate.workers.client.client import connect
from mandate.workers.dev_server.server import run_private_server
from mandate.workflows.contracts.run import RunResult, RunStatus
from tests.support import prompts
from tests.support.agents import REQUESTER, Site, new_site
from tests.support.fake_provider.behaviours import Answer, Behaviour, Call
from tests.support.fake_provider.requests import Request
from tests.support.fake_provider.server import FakeProvider

CHEAP, STRONG = "gpt-6-luna", "gpt-6-sol"
AT_ONCE = 40
NO_ORDER = 5000
"""What a wrong call adds to the number of its order."""

ROUTES: dict[str, dict[str, Any]] = {
    "cheap first, strong after a failure": {
        "models": [f"openai:{CHEAP}", f"openai:{STRONG}"],
        "after_failure": "next_model",
    },
    "strong always": {"models": [f"openai:{STRONG}"]},
    "cheap always": {"models": [f"openai:{CHEAP}"]},
}


@dataclass(frozen=True, slots=True)
class Odds:
    """Error rates of the models, and the draws of a seed."""

    seed: int
    wrong: dict[str, float]
    """Share of wrong answers, by model."""
    unseen: float
    """Share of wrong final answers that no check sees."""

    def answer(self, model: str, asked: str, turn: int, *, is_found: bool) -> Answer:
        """Return what `model` says at its turn: a call until the order is found, then the final answer."""
        order = int(asked.rsplit(maxsplit=1)[-1])
        draw = random.Random(f"{self.seed}/{order}/{model}/{turn}")
        is_wrong, is_unseen = draw.random() < self.wrong[model], draw.random() < self.unseen
        if not is_found:
            number = order + NO_ORDER * is_wrong
            return Answer(calls=(Call("find_order", json.dumps({"order": number}), id=f"call_{turn}"),))
        return Answer(text=describe(order, wrong_sum=is_wrong and not is_unseen, wrong_days=is_wrong and is_unseen))

    async def script(self, request: Request) -> Behaviour:
        items = request.json["input"]
        asked = next(item for item in items if item.get("role") == "user")["content"]
        text = asked if isinstance(asked, str) else asked[0]["text"]
        is_found = any("costs" in str(item.get("output", "")) for item in items)
        return self.answer(request.json["model"], text, len(items), is_found=is_found)


def describe(order: int, *, wrong_sum: bool = False, wrong_days: bool = False) -> str:
    return f"Order {order} costs {order * 7 % 1000 + wrong_sum} and ships in {order % 9 + 1 + wrong_days} days."


@tool(effect="read")
def find_order(order: int) -> str:
    """Find an order."""
    if order >= NO_ORDER:
        raise NotDone(f"there is no order {order}")
    return describe(order)


@check
def costs_right(result: str, context: ToolContext) -> tuple[bool, str]:
    """Look the sum up; nobody looks up the days."""
    order = int(context.workflow_id.rpartition("-")[2])
    expected = describe(order).partition(" and ")[0]
    return result.startswith(f"{expected} and "), f"expected {expected!r}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One way to work, over all cases."""

    name: str
    completed_share: float
    failed_share: float
    """Cases without an answer, or with a wrong one."""
    cost_per_completed_usd: str
    steps: float
    """Model calls a case."""

    @classmethod
    def of(cls, name: str, cases: Iterable[tuple[bool, bool, Decimal, int]]) -> "Outcome":
        """Sum up cases, each as whether it was completed, whether it is right, its cost and its model calls."""
        found = list(cases)
        completed = sum(is_completed for is_completed, *_ in found)
        return cls(
            name=name,
            completed_share=round(completed / len(found), 3),
            failed_share=round(1 - sum(is_right for _, is_right, *_ in found) / len(found), 3),
            cost_per_completed_usd=f"{sum(cost for _, _, cost, _ in found) / max(completed, 1):.6f}",
            steps=round(sum(calls for *_, calls in found) / len(found), 2),
        )


async def run_route(site: Site, name: str, cases: int) -> Outcome:
    """Run an agent on all cases, with its checks."""
    slots = asyncio.Semaphore(AT_ONCE)
    agent = f"route{list(ROUTES).index(name)}"

    async def run(order: int) -> tuple[bool, bool, Decimal, int]:
        async with slots:
            handle = await site.agents.start(
                agent, f"Tell me of order {order}", workflow_id=f"{agent}-{order}", requester=REQUESTER
            )
            result: RunResult = await handle.result()
            is_completed = result.status is RunStatus.COMPLETED
            is_right = is_completed and result.output == describe(order)
            return is_completed, is_right, result.usage.cost_usd, result.usage.model_calls

    return Outcome.of(name, await asyncio.gather(*map(run, range(1, cases + 1))))


async def run_chain(fake: FakeProvider, model: str, cases: int) -> Outcome:
    """Do the same cases by a fixed chain: one call, its tool, one answer; no loop and no checks."""
    adapter = OpenAiResponses(api_key="none", base_url=f"{fake.url}/v1")
    schema: Any = {"type": "object", "properties": {"order": {"type": "integer"}}, "required": ["order"]}
    tools = (prompts.tool("find_order", schema),)

    async def run(order: int) -> tuple[bool, bool, Decimal, int]:
        asked = prompts.told(f"Tell me of order {order}")
        first = await adapter.complete(prompts.prompt((asked,), model=model, tools=tools))
        try:
            found = find_order(**json.loads(first.message.calls[0].arguments))
        except NotDone as error:
            found = str(error)
        told = (asked, first.message, prompts.results(first.message, found))
        last = await adapter.complete(prompts.prompt(told, model=model, tools=tools))
        text, cost = last.message.text, first.usage.cost_usd + last.usage.cost_usd
        return bool(text), text == describe(order), cost, 2

    try:
        return Outcome.of(f"fixed chain, {model}", [await run(order) for order in range(1, cases + 1)])
    finally:
        await adapter.close()


def write_agents(site: Site) -> None:
    for index, keys in enumerate(ROUTES.values()):
        site.write(
            f"route{index}",
            [],
            tools=[{"python": "tests.benchmarks.routing:find_order"}],
            checks=[{"after": "final", "python": "tests.benchmarks.routing:costs_right"}],
            **keys,
        )


async def measure(options: argparse.Namespace) -> tuple[list[Outcome], list[Outcome]]:
    """Return the outcomes of the routes, and those of the fixed chains."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    odds = Odds(options.seed, {CHEAP: options.cheap, STRONG: options.strong}, options.unseen)
    with tempfile.TemporaryDirectory() as name:
        async with run_private_server() as server, FakeProvider(script=odds.script) as fake:
            client: Client = await connect(address=server.address)
            site = new_site(Path(name), client, OPENAI_API_KEY="none", OPENAI_BASE_URL=f"{fake.url}/v1")
            write_agents(site)
            async with site.serving():
                routes = [await run_route(site, route, options.cases) for route in ROUTES]
            chains = [await run_chain(fake, model, options.cases) for model in (CHEAP, STRONG)]
    return routes, chains


def print_table(outcomes: Iterable[Outcome]) -> None:
    print(f"{'':38}{'completed':>10}{'failed':>9}{'$ a completed run':>20}{'model calls':>13}")
    for its in outcomes:
        shares = f"{its.completed_share:>10.1%}{its.failed_share:>9.1%}"
        print(f"{its.name:38}{shares}{its.cost_per_completed_usd:>20}{its.steps:>13}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--cheap", type=float, default=0.19, help="share of the cheap model's answers that are wrong")
    parser.add_argument("--strong", type=float, default=0.06, help="share of the strong model's")
    parser.add_argument("--unseen", type=float, default=0.5, help="share of wrong final answers that no check sees")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    options = parser.parse_args()
    routes, chains = asyncio.run(measure(options))
    print_table([*routes, *chains])
    loop, chain = routes[-1], chains[0]
    print(f"\nthe cheap model: {chain.failed_share:.1%} of cases fail in a fixed chain, ", end="")
    print(f"{loop.failed_share:.1%} in the loop with checks")
    if options.json:
        settings = {name: getattr(options, name) for name in ("cases", "seed", "cheap", "strong", "unseen")}
        found = {"routes": [asdict(its) for its in routes], "chains": [asdict(its) for its in chains]}
        print(json.dumps({**settings, **found}))


if __name__ == "__main__":
    main()
