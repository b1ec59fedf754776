"""Proof by plans: steps of agents, tools and plans while workers die, judged by a model of its own.

    python -m tests.acceptance.plans [--seed S] [--plans 12] [--steps 14] [--kills 6] [--json]

**The plans** are made from the seed: chains and diamonds, `for_each` over lists and over outputs, with `max_parallel`
and `needs`, conditions, each `on_failure`, attempts, tools of each effect (`read`, `keyed`, `once` with a probe),
agents whose model is a script, and plans below them. The server suggests so early to continue as new that each does
several times. Workers are killed with SIGKILL at any moment, and die by themselves before and after a move of a plan,
in calls of tools and of models, as a plan continues as new and as it begins again (`tests.support.plan_points`).

**Wanted**, and exit code 0: what `tests.support.plan_cases` has worked out before from the plan alone. Each plan and
each step ends as it must, with the output that follows from what it was given; each effect was there once, and none
twice; nothing began before what it needs had ended; no more calls were under way than `max_parallel` allows; and costs
add up: a plan's are those of its steps, and those of the calls that its model has answered. With `--json` the last line
is `{"plans", "steps", "kills", "lost", "wrong", "twice", "out_of_order", "too_many", "uncounted", "parts", "points"}`.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import TypeAdapter
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle

from mandate.activities.stores.address import open_store
from mandate.activities.transcript.blobs import Blobs
from mandate.workers.client.client import AgentClient, connect
from mandate.workers.dev_server.server import run_private_server
from mandate.workers.settings import Settings
from mandate.workflows.contracts.plan import PlanResult, StepResult
from tests.support.agents import parts_taken
from tests.support.fake_provider.server import FakeProvider
from tests.support.fault_crew import Crew, Post, at_work
from tests.support.plan_book import PATH, Book, Row
from tests.support.plan_cases import CALL_COST, Case, Expected, expect, make_case, place_of
from tests.support.plan_model import PlanModel
from tests.support.plan_points import DEATHS, POINTS, RARE

EARLY = {"limit.historyCount.suggestContinueAsNew": "60"}
"""Setting of the server: events after which a run continues as new."""

DEADLINE = 420.0
"""Seconds after which a plan counts as hanging."""

_STEPS: TypeAdapter[list[StepResult]] = TypeAdapter(list[StepResult])


@dataclass(frozen=True, slots=True)
class Scene:
    """What is played."""

    seed: int = 1
    plans: int = 12
    steps: int = 14
    kills: int = 6
    """At any moment, beside those at each point."""
    deaths: int = 2
    """At each point."""
    workers: int = 3


@dataclass
class Played:
    """How one plan went, and what is wrong with it, in one line each."""

    case: Case
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    out_of_order: list[str] = field(default_factory=list)
    too_many: list[str] = field(default_factory=list)
    uncounted: list[str] = field(default_factory=list)
    parts: int = 0


KINDS = ("lost", "wrong", "twice", "out_of_order", "too_many", "uncounted")


@dataclass
class Proof:
    """How all went."""

    scene: Scene
    plans: list[Played]
    kills: int
    points: Counter[str]
    seconds: float

    def faults(self) -> list[str]:
        """Return each broken promise in one line."""
        return [
            f"{played.case.name}: {kind}: {line}"
            for played in self.plans
            for kind in KINDS
            for line in getattr(played, kind)
        ]


async def play(client: Client, address: str, folder: Path, scene: Scene) -> Proof:
    """Start all plans at once, and wait until each has ended."""
    began, queue = time.monotonic(), f"plans-{uuid4().hex[:6]}"
    cases = [make_case(f"case-{scene.seed}-{number}", scene.steps) for number in range(scene.plans)]
    folder.mkdir(parents=True, exist_ok=True)
    book = Book(folder / "book.db")
    model = PlanModel(book, scene.seed)
    async with FakeProvider(script=model.answer, keeps_requests=False) as provider:
        environment = _write_site(folder, address, queue, provider.url, cases)
        environment[DEATHS] = json.dumps(_choose_deaths(scene))
        command = (sys.executable, "-m", "tests.support.plan_worker", "worker")
        workers = Post("worker", command, "Task queue", scene.workers, lambda _: environment)
        async with at_work(workers, folder / "processes") as crew:
            agents = AgentClient(client, queue)
            handles = [
                await agents.start_plan(case.name, {"place": case.name, "flag": "yes"}, workflow_id=case.name)
                for case in cases
            ]
            reaping = asyncio.create_task(_reap(crew, scene, model))
            try:
                results = await asyncio.gather(*map(_ended, handles))
            finally:
                reaping.cancel()
            dead = crew.dead
    rows = book.list_rows()
    blobs = Blobs(open_store(Settings.from_environment(environment).store))
    try:
        plans = [
            await _judge(client, blobs, case, result, [row for row in rows if _is_below(row.place, case.name)], model)
            for case, result in zip(cases, results, strict=True)
        ]
    finally:
        await blobs.close()
    points = Counter(book.list_deaths())
    book.close()
    return Proof(scene, plans, dead, points, time.monotonic() - began)


def _choose_deaths(scene: Scene) -> dict[str, list[int]]:
    """Return at which passes of each point a worker dies."""
    dice = random.Random(f"{scene.seed} deaths")
    most = {point: scene.deaths + scene.plans * (1 if point in RARE else 2) for point in POINTS}
    return {point: sorted(dice.sample(range(1, most[point]), scene.deaths)) for point in POINTS}


def _write_site(folder: Path, address: str, queue: str, provider: str, cases: Sequence[Case]) -> dict[str, str]:
    """Write agents and plans; return the environment of workers."""
    probe = {"tool": "find_send", "with": {"key": "key"}, "done": "result.state == 'booked'",
             "not_done": "result.state == 'rejected'", "patience": "10s"}  # fmt: skip
    tools: list[dict[str, Any]] = [
        {"python": f"tests.support.plan_tools:{name}"} for name in ("look", "pay", "find_send")
    ]
    tools.append({"python": "tests.support.plan_tools:send", "probe": probe})
    common: dict[str, Any] = {
        "tools": tools,
        "policy": [{"id": "all", "match": {}, "verdict": "allow"}],
        "requester": "anyone",
        # Nobody answers: a run that asks is one that did not end as it should.
        "people": {"expires": "5s"},
        # With a limit what may have been spent counts too.
        "budget": {"steps": 1_000_000, "cost_usd": "100"},
    }
    price = {"input": "1", "output": "10"}
    agent = common | {
        "name": "worker",
        "instructions": "Do what you are told, and answer.",
        "models": [{"model": "vllm:worker", "price": price}],
        "tools": tools[1:2],
        "budget": {"cost_usd": "0.50"},
    }
    given = {"given": "input.given"}
    below = {
        "id": "b",
        "tool": "pay",
        "input": {"place": "input.place + '/b'", "given": "[steps.a.output]", "fail": "input.fail"},
    }
    first = {"id": "a", "input": {"place": "input.place + '/a'", "fail": "'0'", **given}}
    plans: list[dict[str, Any]] = [
        common | {"name": "inner", "budget": {"cost_usd": "2"}, "steps": [below, first | {"tool": "look"}]},
        common | {"name": "thinking", "budget": {"cost_usd": "2"}, "steps": [below, first | {"agent": "worker"}]},
        *(
            common | {"name": case.name, "max_parallel": case.most, "steps": [job.write() for job in case.jobs]}
            for case in cases
        ),
    ]
    for name, found in (("agents", [agent]), ("plans", plans)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for one in found:
            (folder / name / f"{one['name']}.yaml").write_text(json.dumps(one))
    return {
        "MANDATE_FOLDER": str(folder),
        "MANDATE_AGENTS": str(folder / "agents"),
        "MANDATE_TASK_QUEUE": queue,
        "TEMPORAL_ADDRESS": address,
        "VLLM_BASE_URL": f"{provider}/v1",
        "VLLM_API_KEY": "none",
        PATH: str(folder / "book.db"),
    }


async def _reap(crew: Crew, scene: Scene, model: PlanModel) -> None:
    """Kill one worker after another while it works, every second time as soon as a model is asked."""
    dice = random.Random(f"{scene.seed} kills")
    for number in range(scene.kills):
        asked = model.asked
        await asyncio.sleep(dice.uniform(0.5, 3.0))
        with suppress(TimeoutError):
            async with asyncio.timeout(5 if number % 2 else 0.01):
                while model.asked == asked:
                    await asyncio.sleep(0.005)
        while len(crew.ready) < 2:
            await asyncio.sleep(0.02)
        crew.members[dice.choice(crew.ready)].process.kill()
        await asyncio.sleep(0.1)


async def _ended(handle: WorkflowHandle[Any, PlanResult]) -> PlanResult | None:
    try:
        async with asyncio.timeout(DEADLINE):
            return await handle.result()
    except (TimeoutError, WorkflowFailureError):
        return None


def _is_below(place: str, above: str) -> bool:
    return place == above or place.startswith(f"{above}/")


async def _judge(
    client: Client, blobs: Blobs, case: Case, result: PlanResult | None, rows: list[Row], model: PlanModel
) -> Played:
    """Compare what happened with what the plan says."""
    played, expected = Played(case), expect(case)
    played.parts = await parts_taken(client, case.name)
    _judge_effects(played, expected, rows, has_ended=result is not None)
    _judge_order(played, rows)
    if result is None:
        played.lost.append("it did not end")
        return played
    assert result.steps_digest is not None, result
    steps = {step.id: step for step in _STEPS.validate_json(await blobs.get(result.steps_digest))}
    if result.status != expected.status:
        played.wrong.append(f"it ended {result.status} ({result.reason}), not {expected.status}")
    elif result.status == "completed" and result.output != expected.output:
        played.wrong.append(f"its output is {result.output}, not {expected.output}")
    if expected.stopping and not any(steps[name].status == "failed" for name in expected.stopping):
        played.wrong.append("no step has ended it")
    played.lost += [f"nothing is told of {job.id}" for job in case.jobs if job.id not in steps]
    for step in steps.values():
        _judge_step(played, expected, step)
    _judge_costs(played, expected, result, steps, model)
    return played


def _judge_step(played: Played, expected: Expected, step: StepResult) -> None:
    end, job = expected.ends[step.id], played.case.job(step.id)
    if not expected.allows(step.id, step.status):
        played.wrong.append(f"{step.id} is {step.status} ({step.reason}), not {end.status}")
        return
    if step.status != "completed":
        return
    if not _is_same(step.output, end.output):
        played.wrong.append(f"{step.id} has {step.output}, not {end.output}")
    if step.attempts != sum(end.made):
        played.wrong.append(f"{step.id} took {step.attempts} attempts, not {sum(end.made)}")
    well = sum(fail < job.attempts for fail in job.fails)
    if job.is_each and (step.items, step.completed, step.failed) != (len(job.fails), well, len(job.fails) - well):
        played.wrong.append(f"{step.id} has {step.items} items, {step.completed} ended well and {step.failed} did not")


def _is_same(shown: Any, output: Any) -> bool:
    """Return whether an output is the wanted one; a long one is shown as the beginning of its JSON."""
    text = json.dumps(output, separators=(",", ":"), sort_keys=True)
    if isinstance(shown, str) and not isinstance(output, str):
        return len(text) > len(shown) and text[:250] == shown[:250]
    return bool(shown == output)


def _judge_effects(played: Played, expected: Expected, rows: list[Row], *, has_ended: bool) -> None:
    done = Counter(row.place for row in rows if row.what == "done")
    by_key = Counter(row.key for row in rows if row.what == "done")
    played.twice += [f"{times} effects of one call ({key})" for key, times in by_key.items() if times > 1]
    for place in sorted({*done, *expected.effects}):
        wanted = expected.effects.get(place, frozenset({0}))
        if done[place] > max(wanted):
            played.twice.append(f"{place}: {done[place]} effects, and {sorted(wanted)} are right")
        elif done[place] not in wanted and has_ended:
            played.lost.append(f"{place}: {done[place]} effects, and {sorted(wanted)} are right")


@dataclass(slots=True)
class Span:
    """Time for which something was under way, at least."""

    began: float
    ended: float | None = None


def _find_spans(rows: list[Row]) -> dict[str, Span]:
    """Return each call with its first beginning and its first end: what a dead worker began goes on with the next."""
    spans: dict[str, Span] = {}
    for row in rows:
        if row.what == "began":
            spans.setdefault(row.key, Span(row.at))
        elif row.what == "ended" and row.key in spans and spans[row.key].ended is None:
            spans[row.key].ended = row.at
    return spans


def _judge_order(played: Played, rows: list[Row]) -> None:
    """Judge that each step came after those that it needs, and how many calls were under way at once."""
    case, spans = played.case, _find_spans(rows)
    units: dict[str, dict[str, Span]] = {}
    for job in case.jobs:
        own: dict[str, Span] = units.setdefault(job.id, {})
        for row in rows:
            # What an agent does is within its own time.
            if row.key in spans and _is_below(row.place, f"{case.name}/{job.id}") and not row.place.endswith("/paid"):
                span, unit = spans[row.key], own.setdefault(f"{_item(row)} {row.unit}", Span(spans[row.key].began))
                unit.began = min(unit.began, span.began)
                unit.ended = max(unit.ended or 0.0, span.ended or span.began)
    for job in case.jobs:
        for name in job.needs:
            began = min((span.began for span in units[job.id].values()), default=None)
            ended = max((span.ended or span.began for span in units[name].values()), default=None)
            if began is not None and ended is not None and began < ended:
                played.out_of_order.append(f"{job.id} began {ended - began:.3f} s before {name} had ended")
        if job.most is not None and (most := _count_at_once(list(units[job.id].values()))) > job.most:
            played.too_many.append(f"{most} items of {job.id} at once, and {job.most} are allowed")
    most = _count_at_once([span for own in units.values() for span in own.values()])
    if most > case.most:
        played.too_many.append(f"{most} calls at once, and {case.most} are allowed")


def _item(row: Row) -> str:
    return "/".join(row.place.split("/")[:3])


def _count_at_once(spans: list[Span]) -> int:
    return max((sum(one.began <= span.began < (one.ended or one.began) for one in spans) for span in spans), default=0)


def _judge_costs(
    played: Played, expected: Expected, result: PlanResult, steps: dict[str, StepResult], model: PlanModel
) -> None:
    case, cost = played.case, result.usage.cost_usd
    summed = sum((Decimal(step.cost_usd) for step in steps.values()), Decimal(0))
    if summed != cost:
        played.uncounted.append(f"its steps cost {summed}, and the plan {cost}")
    usage, answered, least = result.usage, model.answered[case.name], expected.model_calls
    if usage.model_calls + usage.assumed_calls < answered:
        counted = f"{usage.model_calls} and {usage.assumed_calls} assumed"
        played.uncounted.append(f"calls of the model: {counted}, and {answered} were answered")
    if expected.is_sure and usage.model_calls < least:
        played.uncounted.append(f"{usage.model_calls} calls of the model, and {least} belong to it")
    if not usage.assumed_calls and cost != usage.model_calls * CALL_COST:
        played.uncounted.append(f"it costs {cost}, and nothing of it is assumed: {usage.model_calls} calls")
    for job in case.jobs:
        if job.kind not in {"worker", "thinking"} and Decimal(steps[job.id].cost_usd):
            played.uncounted.append(f"{place_of(case, job, 0)} costs {steps[job.id].cost_usd} and asks no model")


def report(proof: Proof) -> dict[str, Any]:
    """The last line, as one JSON object."""
    figures: dict[str, Any] = {
        "plans": len(proof.plans),
        "steps": sum(len(played.case.jobs) for played in proof.plans),
        "kills": proof.kills,
    }
    figures |= {kind: sum(len(getattr(played, kind)) for played in proof.plans) for kind in KINDS}
    return figures | {
        "parts": sum(played.parts for played in proof.plans),
        "points": dict(sorted(proof.points.items())),
    }


def show(proof: Proof) -> str:
    """The report for people."""
    its, faults = report(proof), proof.faults()
    lines = [
        f"{its['plans']} plans of {proof.scene.steps} steps in {proof.seconds:.0f} s, seed {proof.scene.seed}",
        f"{its['kills']} workers killed, at {', '.join(f'{point} {times}' for point, times in its['points'].items())}",
        f"{its['parts']} runs of Temporal",
        ", ".join(f"{its[kind]} {kind.replace('_', ' ')}" for kind in KINDS),
        "",
        f"promises broken: {len(faults)}",
        *(f"  {fault}" for fault in faults),
    ]
    return "\n".join(lines)


async def _run(scene: Scene, *, as_json: bool, folder: Path) -> int:
    async with run_private_server(extra_dynamic_config=EARLY) as server:
        proof = await play(await connect(address=server.address), server.address, folder, scene)
    print(show(proof))
    if as_json:
        print(json.dumps(report(proof)))
    return 1 if proof.faults() else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.acceptance.plans",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plans", type=int, default=12)
    parser.add_argument("--steps", type=int, default=14, help="of each plan")
    parser.add_argument("--kills", type=int, default=6, help="workers that are killed at any moment")
    parser.add_argument("--deaths", type=int, default=2, help="workers that die at each point")
    parser.add_argument("--keep", type=Path, help="a folder for all that is written, which stays")
    parser.add_argument("--json", action="store_true", help="the last line is the report as JSON")
    given = parser.parse_args()
    scene = Scene(given.seed, given.plans, given.steps, given.kills, given.deaths)
    with tempfile.TemporaryDirectory(prefix="mandate-plans-") as folder:
        return asyncio.run(_run(scene, as_json=given.json, folder=given.keep or Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
