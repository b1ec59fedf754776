"""Run the patterns of many agents with scripted models, on a Temporal server of this program's own; no key is needed.

`python run.py` runs all of them, `python run.py fan_out reflect` these. The models answer as late as their scripts say:
the researcher after 0.564 s, a hundredth of what one company took with a real model.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mandate.workers.client.client import AgentClient, connect
from mandate.workers.client.patterns import chain, debate, fan_out, plan_and_execute, reflect, supervise
from mandate.workers.dev_server.server import run_private_server
from mandate.workers.settings import Settings
from mandate.workers.telemetry.logs import configure_logging
from mandate.workers.worker import open_worker
from mandate.workflows.contracts.plan import PlanResult, PlanSpec

QUESTION = "When was Acme founded, and what does it do?"

PLANS: dict[str, Callable[[], PlanSpec]] = {
    "chain": lambda: chain("writer", "editor"),
    "fan_out": lambda: fan_out("researcher"),
    "reflect": lambda: reflect("writer", "critic", 2),
    "plan_and_execute": lambda: plan_and_execute("planner", "worker", "joiner"),
    "supervise": lambda: supervise("manager", ["careful", "hasty"]),
    "debate": lambda: debate(["ann", "bob"], "judge"),
}


async def run(client: AgentClient, plan: PlanSpec, given: object) -> tuple[PlanResult, float]:
    """Run one plan; return its result and the seconds that it took."""
    began = time.monotonic()
    result = await client.run_plan(plan, given)
    return result, time.monotonic() - began


async def show(client: AgentClient, name: str, companies: int) -> None:
    """Run a pattern and print how its steps went."""
    make = PLANS[name]
    given = [f"company {number}" for number in range(1, companies + 1)] if name == "fan_out" else QUESTION
    result, seconds = await run(client, make(), given)
    print(f"\n{name}: {result.status}, {seconds:.1f} s")
    for step in result.steps:
        items = f" ({step.completed} of {step.items} items)" if step.items is not None else ""
        print(f"  {step.id:<20} {step.status}{items}{f': {step.reason}' if step.reason else ''}")
    print(f"  output: {str(result.output)[:200]}")
    if name == "fan_out":
        _, alone = await run(client, fan_out("researcher", max_parallel=1), given)
        print(f"  one after another: {alone:.1f} s, {alone / seconds:.1f} times as long")


async def main(names: list[str], companies: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with run_private_server() as server:
            client = await connect(address=server.address)
            settings = Settings.from_environment(
                {"MANDATE_FOLDER": folder, "MANDATE_AGENTS": str(Path(__file__).parent / "agents")}
            )
            async with open_worker(client, settings) as worker, worker:
                for name in names:
                    await show(AgentClient(client, settings.task_queue), name, companies)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--companies", type=int, default=50, help="of fan_out; 50 if left out")
    parser.add_argument("patterns", nargs="*", choices=[*PLANS, []], metavar="PATTERN", help=", ".join(PLANS))
    asked = parser.parse_args()
    configure_logging(level="ERROR")
    asyncio.run(main(asked.patterns or list(PLANS), asked.companies))
