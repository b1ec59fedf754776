"""Proof by asking early: many runs, clients that query without pause and act at once on what they see, dying workers.

    python -m tests.acceptance.ahead [--runs 300] [--at-once 6] [--workers 2] [--seed S] [--bare]

Each run looks, pays twice after having asked people, and answers. A client a run asks what is open without a pause, and
decides, tells the agent something, pauses and resumes it at once on what it sees, by update and by signal. The workers
keep two runs each in memory, workflow tasks wait for them for nearly nothing, and one after another is killed. More
runs at once are played faster, and less of them are asked early: workers then hardly meet a run twice.

**Wanted**, and exit code 0: every run completes, and every history replays in the strict sandbox. With `--bare` the
workers do without receipts, and some runs fail each of their workflow tasks for ever; those are counted, and it is the
exit code that is 1.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from temporalio.client import Client, WorkflowFailureError, WorkflowHandle, WorkflowQueryFailedError
from temporalio.service import RPCError
from temporalio.worker import Replayer

from mandate.workers.client import messages, queries
from mandate.workers.client.client import connect
from mandate.workers.client.messages import MessageError
from mandate.workers.client.queries import AHEAD
from mandate.workers.converter import data_converter
from mandate.workers.dev_server.server import run_private_server
from mandate.workers.sandbox import workflow_runner
from mandate.workflows.agent import AgentWorkflow
from mandate.workflows.contracts.request import Decision, Halt, OpenRequests, Request, Steering
from tests.support.agents import Site, new_site
from tests.support.fault_crew import Crew, Post
from tests.support.people import ASK_ALL, write_people

BY = "ann@example.com"

DEADLINE_SECONDS = 120.0
"""After which a run counts as hanging."""

TURNS: list[Any] = [
    {"call": [{"look": {"what": "a"}}, {"pay": {"order": 1}}]},
    {"call": [{"pay": {"order": 2}}, {"pay": {"order": 3}}]},
    {"say": "done"},
]


@dataclass(frozen=True)
class Plan:
    """What is played."""

    runs: int = 300
    at_once: int = 6
    workers: int = 2
    seed: int = 1
    is_bare: bool = False
    patience_seconds: float = DEADLINE_SECONDS


@dataclass
class Played:
    """How the runs went."""

    killed: int = 0
    asked: int = 0
    refused: int = 0
    """Queries that ran ahead of a history, as the workers' logs say."""
    ended: Counter[str] = field(default_factory=Counter)
    said: Counter[str] = field(default_factory=Counter)
    """Messages, by verb and way."""
    histories: int = 0
    wedged: dict[str, str] = field(default_factory=dict)
    """How the replay of a run fails, by its id."""
    hung: dict[str, str] = field(default_factory=dict)
    """What a run that did not end in time was last seen to do, by its id."""
    seconds: float = 0.0


async def play(client: Client, folder: Path, plan: Plan) -> Played:
    """Play all runs to their end, then replay each of their histories."""
    site = new_site(folder, client, MANDATE_PEOPLE=str(write_people(folder)))
    site.write("asks", TURNS, policy=ASK_ALL)
    # Who is told something after the last turn is asked for another answer.
    script = {"turns": TURNS, "otherwise": {"say": "done"}, "strict": False}
    (folder / "agents" / "asks.script.yaml").write_text(json.dumps(script))
    played, dice, begun = Played(), random.Random(plan.seed), time.monotonic()
    crew = Crew(_post(site, plan), folder / "workers")
    keeping = asyncio.create_task(crew.keep())
    try:
        await crew.complete()
        reaping = asyncio.create_task(_reap(crew, random.Random(plan.seed), played))
        slots = asyncio.Semaphore(plan.at_once)

        async def one(number: int) -> str:
            run = f"run-{number}-{uuid4().hex[:6]}"
            async with slots:
                handle = await site.agents.start("asks", f"Pay {number}.", workflow_id=run, requester="bob@example.com")
                await Hasty(client, handle, random.Random(dice.random()), played).play(plan.patience_seconds)
            return run

        ids = await asyncio.gather(*map(one, range(plan.runs)))
        reaping.cancel()
        await asyncio.gather(*(_replay(client, run, played) for run in ids))
    finally:
        keeping.cancel()
        crew.end()
    logs = [path.read_text(errors="replace") for path in (folder / "workers").iterdir()]
    played.refused = sum(log.count(AHEAD) for log in logs)
    played.seconds = time.monotonic() - begun
    return played


def _post(site: Site, plan: Plan) -> Post:
    environment = {
        "TEMPORAL_ADDRESS": site.client.service_client.config.target_host,
        "MANDATE_FOLDER": str(site.folder),
        "MANDATE_AGENTS": str(site.folder / "agents"),
        "MANDATE_TASK_QUEUE": site.queue,
        **site.environment,
    }
    command = (sys.executable, "-m", "tests.support.hasty_worker", *(["--bare"] if plan.is_bare else []))
    return Post("worker", command, "ready", plan.workers, lambda _name: environment)


async def _reap(crew: Crew, dice: random.Random, played: Played) -> None:
    """Kill one worker after another, whatever it does, as long as another one is there."""
    while True:
        await asyncio.sleep(dice.uniform(1.0, 3.0))
        if len(crew.ready) > 1:
            crew.members[dice.choice(crew.ready)].process.kill()
            played.killed += 1


@dataclass
class Hasty:
    """Who asks one run without a pause, and acts at once."""

    client: Client
    handle: WorkflowHandle[Any, Any]
    dice: random.Random
    played: Played
    told: set[tuple[str, str]] = field(default_factory=set)
    """Requests that were decided on by an update that counted."""
    seen: str = "never seen"
    """What the run said last."""

    async def play(self, patience_seconds: float) -> None:
        """Act on the run until it has ended, or for so long."""
        acting = asyncio.create_task(self._act_for_ever())
        try:
            async with asyncio.timeout(patience_seconds):
                result = await self.handle.result()
            self.played.ended[str(result.status)] += 1
        except TimeoutError:
            self.played.ended["hangs"] += 1
            its = (await self.handle.describe()).raw_description
            activities = [f"{one.activity_type.name} attempt {one.attempt}" for one in its.pending_activities]
            task = f"workflow task attempt {its.pending_workflow_task.attempt}"
            self.played.hung[self.handle.id] = f"{self.seen}; {', '.join((task, *activities))}"
        except WorkflowFailureError as error:
            self.played.ended[f"failed: {error.cause}"] += 1
        finally:
            acting.cancel()
            with suppress(asyncio.CancelledError):
                await acting
            with suppress(RPCError):
                await self.handle.terminate("it hangs")

    async def _act_for_ever(self) -> None:
        while True:
            try:
                seen = await queries.ask(self.handle, "open_requests", OpenRequests, timeout_seconds=5)
            except (WorkflowQueryFailedError, RPCError) as error:
                self.seen = repr(error)
                await asyncio.sleep(0.05)
                continue
            self.played.asked += 1
            self.seen = f"{seen.status}, open: {[request.id for request in seen.requests]}, told: {self.told}"
            if seen.status == "paused":
                await self._say("resume", Halt(by=BY))
            for request in seen.requests:
                await self._act_on(request)
            await asyncio.sleep(0)

    async def _act_on(self, request: Request) -> None:
        if (request.id, request.digest) in self.told:
            return
        if self.dice.random() < 0.15:
            await self._say("pause", Halt(by=BY))
        if self.dice.random() < 0.15:
            await self._say("steer", Steering(text="Be quick.", by=BY))
        choice = request.choices[0]
        decision = Decision(request=request.id, digest=request.digest, choice=choice, by=BY)
        if await self._say("decide", decision):
            self.told.add((request.id, request.digest))

    async def _say(self, verb: str, payload: Decision | Halt | Steering) -> bool:
        """Whether it is known to count."""
        by_signal = self.dice.random() < 0.5
        self.played.said[f"{verb} by {'signal' if by_signal else 'update'}"] += 1
        send: Callable[..., Awaitable[object]] = getattr(messages, verb)
        try:
            if by_signal:
                await self.handle.signal(verb, payload)
            else:
                await send(self.client, self.handle.id, payload)
        except (MessageError, RPCError):
            return False
        return not by_signal


async def _replay(client: Client, run: str, played: Played) -> None:
    """Replay all parts of a run as strictly as tests of stored histories do."""
    replayer = Replayer(
        workflows=[AgentWorkflow], data_converter=data_converter(), workflow_runner=workflow_runner(strict=True)
    )
    run_id: str | None = None
    while run_id != "":
        history = await client.get_workflow_handle(run, run_id=run_id).fetch_history()
        played.histories += 1
        result = await replayer.replay_workflow(history, raise_on_replay_failure=False)
        if result.replay_failure is not None:
            played.wedged[run] = str(result.replay_failure)
        run_id = history.events[0].workflow_execution_started_event_attributes.continued_execution_run_id


def show(played: Played) -> str:
    """What was played, in a few lines."""
    runs = sum(played.ended.values())
    lines = [
        f"{runs} runs in {played.seconds:.0f} s, {played.killed} workers killed",
        f"{played.asked} queries answered, {played.refused} refused for being ahead",
        f"ended: {', '.join(f'{count} {how}' for how, count in sorted(played.ended.items()))}",
        f"said: {', '.join(f'{count} {what}' for what, count in sorted(played.said.items()))}",
        f"{played.histories} histories, of which {len(played.wedged)} do not replay",
    ]
    lines += [f"  {run}: {failure[:200]}" for run, failure in played.wedged.items()]
    lines += [f"  {run} hangs: {last}" for run, last in played.hung.items()]
    return "\n".join(lines)


async def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--at-once", type=int, default=6)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bare", action="store_true")
    given = parser.parse_args(words)
    patience_seconds = DEADLINE_SECONDS / 3 if given.bare else DEADLINE_SECONDS
    plan = Plan(given.runs, given.at_once, given.workers, given.seed, given.bare, patience_seconds)
    with tempfile.TemporaryDirectory() as folder:
        async with run_private_server() as server:
            played = await play(await connect(address=server.address), Path(folder), plan)
    print(show(played))
    return 0 if set(played.ended) == {"completed"} and not played.wedged else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
