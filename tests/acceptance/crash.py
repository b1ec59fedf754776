"""Proof by crashing: many runs, workers killed at every point, judged by the tool server's log alone.

    python -m tests.acceptance.crash --tasks N --points all|random --seed S [--no-keys] [--probes]
        [--bad keyed|retrying] [--naive-mcp] [--json]

**The runs** call tools of every effect over HTTP, Python functions, MCP and remote activities, all of which end at one
tool server (`tests.support.fault_server`), and are told what to do by a model over HTTP that answers 429, 500 and cut
connections. Their budgets, of each run and of all together, are kept and wide enough. With `--points all` each run is
hurt once, at the next cell of the table of points and tools; `--tasks` says how many cells, and without it all are gone
through, in rounds until each was hit. With `--points random` every call of every run may be hurt, several times, as
`--seed` says, and workers are also killed at any moment.

Calls of one worker that are to be hurt at the same time die together, once another worker stands ready; a dead worker
is always replaced.

**Wanted**, and exit code 0: nothing lost, doubled, out of order or silent, no run that hangs, none that asks people
without need or counts fewer model calls than were answered, and with `--points all` no point that was never hit. Nobody
answers, so a run that asks ends declined; what needs to be asked is what became of a `once` call that was hurt. By
default the tools that matter are `keyed` and the server knows keys; with `--no-keys` they are `once` and it knows none,
and with `--probes` beside it the runs find out by themselves what became of a call: none ends uncertain. Two cases that
must fail: `--bad keyed` declares tools `keyed` although the server ignores keys, and `--bad retrying` has a worker that
repeats whatever fails. With `--naive-mcp` the MCP server reports a lost reply as `isError`, as SDKs do by themselves;
that is no answer to a `keyed` or `once` call, and nothing may be lost or doubled by it. MCP tools stand third in the
table: `--tasks 26` and more.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from temporalio.client import Client, WorkflowFailureError, WorkflowHandle

from mandate.workers.client.client import AgentClient, connect
from mandate.workers.dev_server.server import run_private_server
from mandate.workflows.contracts.run import RunResult, RunStatus
from tests.support.fault_client import NAIVE
from tests.support.fault_crew import Crew
from tests.support.fault_judge import Judgement, Ran, judge
from tests.support.fault_log import Executed, FaultLog, Hit
from tests.support.fault_plan import Hurt, Task, every_point, random_task, task
from tests.support.fault_stage import AGENT, PROBED, RETRYING, Setting, open_stage

ROUNDS = 3
"""Times that the suite goes for a point that was not hit: the run may have been hurt by another's fault before."""

DEADLINE = 300.0
"""Seconds after which a run counts as hanging."""


@dataclass
class Played:
    """What is left of runs that have ended."""

    runs: list[Ran] = field(default_factory=list)
    log: list[Executed] = field(default_factory=list)
    hits: list[Hit] = field(default_factory=list)
    waits: list[tuple[Hit, float]] = field(default_factory=list)
    """For each call in which a worker was killed: seconds until another one went on with the run."""
    killed: int = 0
    """Workers."""
    model_calls_repeated: int = 0
    uncounted: list[str] = field(default_factory=list)
    """Runs whose budgets count fewer model calls than the model has answered, each in one line."""
    missed: list[Hurt] = field(default_factory=list)
    """Cells of the table that no run was hurt at."""
    seconds: float = 0.0

    def and_then(self, other: "Played") -> "Played":
        """Both, as if they were one; their logs are of different runs."""
        pairs = {name: getattr(self, name) + getattr(other, name) for name in vars(self)}
        return Played(**pairs)

    def judged(self, prefix: str = "", *, naive_mcp: bool = False) -> Judgement:
        """The runs whose names begin so."""
        runs = [ran for ran in self.runs if ran.task.name.startswith(prefix)]
        return judge(runs, self.log, self.hits, naive_mcp=naive_mcp)


async def play(client: Client, setting: Setting, tasks: Sequence[Task], reaping: random.Random | None = None) -> Played:
    """Run all tasks at once until each has ended; with `reaping` workers are also killed at any moment."""
    agent = {each.name: PROBED if each.name.startswith(setting.probed) else AGENT for each in tasks}
    began = time.monotonic()
    async with open_stage(setting, tasks) as stage:
        agents = AgentClient(client, stage.queue)
        runs = {name: await agents.start(agent[name], name, workflow_id=name) for name in agent}
        reaper = asyncio.create_task(_reap(stage.workers, reaping))
        try:
            results = await asyncio.gather(*map(_ended, runs.values()))
        finally:
            reaper.cancel()
        log = FaultLog(setting.folder / "faults.db")
        executed, hits = log.executed(), [*log.hits(), *stage.model.hits]
        log.close()
        found = await asyncio.gather(*(_wait_after(runs[hit.run], hit) for hit in hits if hit.pid is not None))
        asked, told = stage.model.asked, stage.model.told
        return Played(
            runs=[
                Ran(each, result, asked.get(each.name, ()), tuple(told.get(each.name, {}).values()))
                for each, result in zip(tasks, results, strict=True)
            ],
            log=executed,
            hits=hits,
            waits=[(hit, seconds) for hit, seconds in found if seconds is not None],
            killed=stage.workers.dead + stage.remote_workers.dead,
            model_calls_repeated=stage.model.repeated,
            uncounted=_find_uncounted(dict(zip(agent, results, strict=True)), stage.model.count_answers()),
            seconds=time.monotonic() - began,
        )


def _find_uncounted(results: Mapping[str, RunResult | None], answers: Mapping[str, int]) -> list[str]:
    ended = {name: result.usage for name, result in results.items() if result is not None}
    counted = {name: usage.model_calls + usage.assumed_calls for name, usage in ended.items()}
    return [
        f"{name}: {number} model calls counted, {answers[name]} answered"
        for name, number in counted.items()
        if number < answers.get(name, 0)
    ]


async def _ended(run: WorkflowHandle[Any, RunResult]) -> RunResult | None:
    try:
        async with asyncio.timeout(DEADLINE):
            return await run.result()
    except (TimeoutError, WorkflowFailureError):
        return None


async def _reap(workers: Crew, dice: random.Random | None) -> None:
    """Kill a worker now and then, wherever it is in its work."""
    while dice is not None:
        await asyncio.sleep(dice.uniform(3, 9))
        if len(workers.ready) > 1:
            name = dice.choice(workers.ready)
            if await workers.doomed(name) is not None:
                workers.members[name].process.kill()


async def _wait_after(run: WorkflowHandle[Any, Any], hit: Hit) -> tuple[Hit, float | None]:
    """Seconds from a kill to the first thing that another process did in this run."""
    killed_at = datetime.fromtimestamp(hit.at, UTC)
    began = []
    async for event in run.fetch_history_events():
        for kind in ("workflow_task_started_event_attributes", "activity_task_started_event_attributes"):
            if event.HasField(kind):
                at, by = event.event_time.ToDatetime(UTC), str(getattr(event, kind).identity)
                if at > killed_at and not by.startswith(f"{hit.pid}@"):
                    began.append(at)
    return hit, (min(began) - killed_at).total_seconds() if began else None


@dataclass(frozen=True, slots=True)
class Case:
    """A suite as the command line asks for it."""

    main: str = "pay"
    keys: bool = True
    retrying: bool = False
    naive_mcp: bool = False
    probes: bool = False

    def setting(self, address: str, folder: Path) -> Setting:
        setting = Setting(address, folder, no_keys=() if self.keys else ("",), probed=("",) if self.probes else ())
        if self.naive_mcp:
            setting = replace(setting, mcp_environment={NAIVE: "1"})
        return replace(setting, worker=RETRYING) if self.retrying else setting


async def play_points(client: Client, setting: Setting, case: Case, cells: Sequence[Hurt], name: str) -> Played:
    """One run a cell of the table."""
    tasks = [task(f"{name}-{number}", number, hurt, case.main) for number, hurt in enumerate(cells)]
    return await play(client, setting, tasks)


async def play_all_points(client: Client, address: str, folder: Path, case: Case, limit: int | None) -> Played:
    """All cells of the table, or the first `limit`, in rounds until each was hit."""
    cells, played = every_point(case.main, keys=case.keys)[:limit], Played()
    for number in range(1, ROUNDS + 1):
        its = folder / f"round-{number}"
        name = f"{case.main}{number}-{int(time.time()):x}"
        more = await play_points(client, case.setting(address, its), case, cells, name)
        played = played.and_then(more)
        cells = not_hit(more, cells, name)
        if not cells:
            break
    return replace(played, missed=list(cells))


async def play_at_random(client: Client, setting: Setting, case: Case, tasks: int, seed: int) -> Played:
    """So many runs whose every call may be hurt."""
    name = f"{case.main}-{int(time.time()):x}"
    made = [random_task(f"{name}-{number}", number, seed, case.main) for number in range(tasks)]
    return await play(client, setting, made, random.Random(seed))


def not_hit(played: Played, cells: Sequence[Hurt], name: str) -> list[Hurt]:
    """Those of `cells` that none of the runs of this name was hurt at, each by its number."""
    hits = {(hit.run, hit.point) for hit in played.hits}
    return [cell for number, cell in enumerate(cells) if (f"{name}-{number}", cell.point) not in hits]


def report(played: Played, judgement: Judgement) -> dict[str, Any]:
    """All that is printed, as one JSON object."""
    faults = {name: value for name, value in asdict(judgement).items() if isinstance(value, list)}
    waits = sorted(seconds for _, seconds in played.waits)
    return {
        "good": judgement.is_good and not played.missed and not played.uncounted,
        "runs": len(played.runs),
        "status": dict(Counter(str(ran.result.status) if ran.result else "none" for ran in played.runs)),
        "asked_people": {
            ran.task.name: ran.result.reason
            for ran in played.runs
            if ran.result and ran.result.status is RunStatus.DECLINED
        },
        "uncertain": sum(len(ran.result.uncertain) for ran in played.runs if ran.result),
        "calls_executed": len(played.log),
        **{name: len(value) for name, value in faults.items()},
        "idempotent_repeated": judgement.repeated,
        "missed": list(map(str, played.missed)),
        "hits": dict(Counter(str(hit.point) for hit in played.hits)),
        "workers_killed": played.killed,
        "model_calls_repeated": played.model_calls_repeated,
        "model_calls_repeated_per_kill": round(played.model_calls_repeated / max(played.killed, 1), 2),
        "model_calls_assumed": sum(ran.result.usage.assumed_calls for ran in played.runs if ran.result),
        "uncounted": played.uncounted,
        "seconds_to_go_on": {"median": statistics.median(waits), "most": waits[-1]} if waits else None,
        "seconds": round(played.seconds, 1),
        "faults": faults,
    }


def show(found: dict[str, Any], played: Played) -> None:
    """The report for people."""
    print(f"{found['runs']} runs in {found['seconds']} s: {_listed(found['status'])}; {found['uncertain']} uncertain")
    print(f"{found['calls_executed']} calls executed, {found['workers_killed']} workers killed\n")
    print(f"{'point':<36}{'hit':>5}{'goes on after, median and most':>36}")
    for point, times in sorted(found["hits"].items()):
        waits = sorted(seconds for hit, seconds in played.waits if hit.point == point)
        shown = f"{statistics.median(waits):.2f} s {waits[-1]:>8.2f} s" if waits else ""
        print(f"{point:<36}{times:>5}{shown:>36}")
    repeated, each = found["model_calls_repeated"], found["model_calls_repeated_per_kill"]
    print(f"\nmodel calls made twice: {repeated}, {each} a kill")
    print(f"model calls counted as assumed: {found['model_calls_assumed']}")
    for line in found["uncounted"]:
        print(f"  {line}")
    print(f"idempotent calls repeated: {found['idempotent_repeated']}")
    print(f"runs that asked people: {len(found['asked_people'])}, {found['declined']} of them without need")
    for name, lines in found["faults"].items():
        print(f"{name.replace('_', ' ')}: {len(lines)}")
        for line in lines:
            print(f"  {line}")
    if found["missed"]:
        print(f"points that were not hit: {len(found['missed'])}")
        print(*(f"  {cell}" for cell in found["missed"]), sep="\n")


def exit_code(found: dict[str, Any], case: Case) -> int:
    """Runs that can find out everything by themselves must."""
    return 0 if found["good"] and not (case.probes and found["uncertain"]) else 1


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(counts.items()))


async def _run(options: argparse.Namespace, folder: Path) -> int:
    main = "send" if (options.no_keys and options.bad is None) or options.bad == "retrying" else "pay"
    case = Case(
        main,
        keys=not options.no_keys and options.bad is None,
        retrying=options.bad == "retrying",
        naive_mcp=options.naive_mcp,
        probes=options.probes,
    )
    async with run_private_server() as server:
        client = await connect(address=server.address)
        if options.points == "all":
            played = await play_all_points(client, server.address, folder, case, options.tasks)
        else:
            setting = case.setting(server.address, folder)
            played = await play_at_random(client, setting, case, options.tasks or 50, options.seed)
    found = report(played, played.judged(naive_mcp=case.naive_mcp))
    show(found, played)
    if options.json:
        print(json.dumps(found))
    return exit_code(found, case)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.acceptance.crash")
    parser.add_argument("--tasks", type=int, help="runs; all cells of the table, or 50 at random, if left out")
    parser.add_argument("--points", choices=("all", "random"), default="all", help="where it is hurt")
    parser.add_argument("--seed", type=int, default=1, help="for --points random")
    parser.add_argument("--no-keys", action="store_true", help="tools are once, and the server ignores keys")
    parser.add_argument("--probes", action="store_true", help="once tools have a probe, which finds calls by their key")
    parser.add_argument("--bad", choices=("keyed", "retrying"), help="a case that must fail")
    parser.add_argument("--naive-mcp", action="store_true", help="the MCP server says isError when it does not know")
    parser.add_argument("--json", action="store_true", help="the last line is the report as JSON")
    with tempfile.TemporaryDirectory(prefix="mandate-crash-") as folder:
        return asyncio.run(_run(parser.parse_args(), Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
