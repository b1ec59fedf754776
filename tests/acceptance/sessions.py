"""Proof by talking: many sessions at once, each message sent many times, dying workers, runs ended from outside.

    python -m tests.acceptance.sessions [--seed S] [--sessions 60] [--messages 6] [--kills 6] [--json]

**The sessions** are talked with all at once. A client sends a message once it has the reply to the one before: five
times at once with one id, by several clients, and some of them as a signal too. It pauses around the idle end of the
session in between, so that many messages meet a run that is just ending. Some messages are those of a second speaker,
some come `now` while the agent works. The model speaks real HTTP, and pays where a message says so: a keyed tool, whose
receiver counts what it has done, loses replies, and answers 503. Workers are killed with SIGKILL while they work, and
others are started. Some runs are terminated in the middle of a turn.

**Wanted**, and exit code 0: the model is told each message once in the whole conversation, in the order in which they
were sent; each is answered, in the same way to all who sent it; what the model was told is done was done once, what it
was told is not done was not done, and nothing was done twice; nothing hangs. With `--json` the last line is
`{"sessions", "messages", "answered", "twice", "lost", "out_of_order", "kills", "parts"}`.
"""

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

from temporalio.client import Client
from temporalio.service import RPCError

from mandate.activities.stores.address import open_store
from mandate.activities.transcript.blobs import Blobs
from mandate.activities.transcript.log import TranscriptLog
from mandate.workers.client.client import AgentClient, connect
from mandate.workers.client.messages import MessageError
from mandate.workers.dev_server.server import run_private_server
from mandate.workers.settings import Settings
from mandate.workflows.contracts.session import Reply, SessionRecord
from mandate.workflows.contracts.state import RunState
from mandate.workflows.contracts.transcript import AssistantMessage, ResultPart, TextPart
from tests.support.fake_provider.server import FakeProvider
from tests.support.fault_client import CALLER, URL
from tests.support.fault_crew import Crew, Post, at_work, write_receiver
from tests.support.fault_log import FaultLog
from tests.support.ports import free_port
from tests.support.processes import MANDATE
from tests.support.session_model import SessionModel, find_told, is_done, is_unknown, write_text

AGENT = "clerk"

COPIES = 5
"""How often each message is sent."""

CLIENTS = 3

SPEAKERS = ("eve@example.com", "bob@example.com")

DEADLINE = 120.0
"""Seconds after which a message counts as hanging."""

HURT, ENDED, SIGNALLED, BESIDE, SECOND = 0.15, 0.2, 0.4, 0.25, 0.3
"""Shares of messages: its payment is hurt, its run terminated, it comes as a signal too, another one comes `now` beside
it, the second speaker says it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is played."""

    seed: int = 1
    sessions: int = 60
    messages: int = 6
    """By each session, those that come `now` beside others left out."""
    kills: int = 6
    workers: int = 3


@dataclass(frozen=True, slots=True)
class Sent:
    """One message and what came back."""

    id: str
    pays: bool
    turn: int
    """Messages of one turn are sent side by side."""
    replies: tuple[Reply | str, ...]
    """To all copies but signals; a text says why there is none."""


@dataclass(frozen=True, slots=True)
class Talk:
    """One session as it ended."""

    session: str
    sent: tuple[Sent, ...]
    told: tuple[str, ...]
    """Ids of messages in the conversation."""
    results: Mapping[str, list[str]]
    """What the model was told of the payment of a message, by its id."""
    done: Counter[str]
    """Payments that were made, by message."""

    @property
    def answered(self) -> int:
        return sum(self._find_fault(sent) is None for sent in self.sent)

    @property
    def twice(self) -> list[str]:
        """Messages that were told twice, or paid twice."""
        return [sent.id for sent in self.sent if self.told.count(sent.id) > 1 or self.done[sent.id] > 1]

    @property
    def lost(self) -> list[str]:
        """Messages that were not told, or have no reply."""
        missing = [sent for sent in self.sent if any(isinstance(reply, str) for reply in sent.replies)]
        return [sent.id for sent in self.sent if sent.id not in self.told or sent in missing]

    @property
    def out_of_order(self) -> list[str]:
        turns = {sent.id: sent.turn for sent in self.sent}
        known = [name for name in self.told if name in turns]
        return [after for before, after in pairwise(known) if turns[before] > turns[after]]

    def faults(self) -> list[str]:
        """Return each broken promise in one line."""
        found = [f"{self.session}: {name} was told out of order" for name in self.out_of_order]
        found += [f"{self.session}: {name} was told, and never sent" for name in set(self.told) - self._ids]
        found += [f"{self.session}: {fault}" for sent in self.sent if (fault := self._find_fault(sent)) is not None]
        return found + [f"{self.session}: {fault}" for sent in self.sent if (fault := self._find_false(sent))]

    @property
    def _ids(self) -> set[str]:
        return {sent.id for sent in self.sent}

    def _find_fault(self, sent: Sent) -> str | None:
        """Return what went wrong with a message and its replies."""
        if (times := self.told.count(sent.id)) != 1:
            return f"{sent.id} was told {times} times"
        for reply in sent.replies:
            if isinstance(reply, str):
                return f"{sent.id} has no reply: {reply}"
            if reply.status != "completed" or sent.id not in (reply.text or "").split():
                return f"{sent.id} was answered with {reply!r}"
        if len(different := {reply.model_dump_json() for reply in sent.replies if isinstance(reply, Reply)}) > 1:
            return f"{sent.id} has {len(different)} different replies"
        return None

    def _find_false(self, sent: Sent) -> str | None:
        """Return what went wrong with the payment of a message."""
        done, results = self.done[sent.id], self.results.get(sent.id, [])
        if done > 1:
            return f"{sent.id} was paid {done} times"
        if any(map(is_done, results)) and not done:
            return f"{sent.id} was never paid, and the model was told so: {results}"
        if done and not any(is_done(result) or is_unknown(result) for result in results):
            return f"{sent.id} was paid, and the model was told {results}"
        if sent.pays and not results:
            return f"{sent.id} was to be paid, and the model was told nothing of it"
        return None


@dataclass
class Played:
    """How the sessions went."""

    plan: Plan
    talks: list[Talk] = field(default_factory=list)
    parts: int = 0
    """Runs of Temporal that the sessions took."""
    killed: int = 0
    ended: int = 0
    """Runs that were terminated."""
    hurt: int = 0
    """Payments that were hurt."""
    asked: int = 0
    """Requests to the model."""
    seconds: float = 0.0

    def faults(self) -> list[str]:
        """Return each broken promise in one line."""
        return [fault for talk in self.talks for fault in talk.faults()]


@dataclass
class Stage:
    """All that sessions are talked with through."""

    queue: str
    clients: list[AgentClient]
    ended: int = 0
    answered: int = 0


Tell = Callable[[str], None]


async def play(
    client: Client,
    address: str,
    folder: Path,
    plan: Plan,
    tell: Tell = lambda _: None,
    *,
    store: str | None = None,
) -> Played:
    """Talk with all sessions at once until each message has its reply."""
    began, queue = time.monotonic(), f"sessions-{uuid4().hex[:8]}"
    names, port = [f"{queue}-{number}" for number in range(plan.sessions)], free_port()
    model = SessionModel(plan.seed)
    async with FakeProvider(script=model.answer, keeps_requests=False) as provider:
        environment = _write_site(folder, address, queue, provider.url, port)
        if store is not None:
            environment["MANDATE_STORE"] = store
        payments = (f"{name}/m{number}" for name in names for number in range(plan.messages))
        receiver = write_receiver(folder, port, payments, seed=plan.seed, share=HURT)
        workers = Post(
            "worker", (*MANDATE, "worker"), "Task queue", plan.workers, lambda name: {**environment, CALLER: name}
        )
        processes = folder / "processes"
        async with at_work(receiver, processes), at_work(workers, processes) as crew:
            clients = [AgentClient(await connect(address=address), queue) for _ in range(CLIENTS)]
            stage = Stage(queue, clients)
            talking = [asyncio.create_task(_talk(stage, name, plan, number)) for number, name in enumerate(names)]
            reaping = asyncio.create_task(_reap(crew, plan, model))
            telling = asyncio.create_task(_tell_progress(talking, stage, model, tell))
            try:
                sent = await asyncio.gather(*talking)
            finally:
                reaping.cancel()
                telling.cancel()
            killed = crew.dead
        log = FaultLog(folder / "faults.db")
        done = Counter((call.run, call.item) for call in log.executed())
        talks = await _read_talks(client, environment, dict(zip(names, sent, strict=True)), done)
        parts = (await client.count_workflows(f"TaskQueue = '{queue}'")).count
        hurt = len(log.hits())
        log.close()
    return Played(plan, talks, parts, killed, stage.ended, hurt, model.asked, time.monotonic() - began)


def _write_site(folder: Path, address: str, queue: str, provider: str, port: int) -> dict[str, str]:
    """Write the agent; return the environment of workers."""
    (folder / "agents").mkdir(parents=True, exist_ok=True)
    agent = {
        "name": AGENT,
        "instructions": "Do what you are told, and answer.",
        "models": ["vllm:clerk"],
        "tools": [{"python": "tests.support.session_tools:pay_slowly"}],
        "policy": [{"id": "all", "match": {}, "verdict": "allow"}],
        "requester": "anyone",
        # Nobody answers: a run that asks is one that did not answer as it should.
        "people": {"expires": "5s"},
        "budget": {"steps": 500, "model_calls": 500},
    }
    (folder / "agents" / f"{AGENT}.yaml").write_text(json.dumps(agent))
    return {
        "MANDATE_FOLDER": str(folder),
        "MANDATE_AGENTS": str(folder / "agents"),
        "MANDATE_TASK_QUEUE": queue,
        "TEMPORAL_ADDRESS": address,
        "VLLM_BASE_URL": f"{provider}/v1",
        "VLLM_API_KEY": "none",
        URL: f"http://127.0.0.1:{port}",
    }


async def _talk(stage: Stage, session: str, plan: Plan, number: int) -> list[Sent]:
    """Send all messages of one session, one after another."""
    dice, sent = random.Random(f"{plan.seed} {number}"), list[Sent]()
    idle = dice.uniform(0.3, 2.0)
    for turn in range(plan.messages):
        sending = [_send(stage, session, turn, f"m{turn}", idle, dice)]
        if dice.random() < BESIDE:
            sending.append(_send(stage, session, turn, f"n{turn}", idle, dice, late=dice.uniform(0.0, 0.8)))
        ending = None
        if dice.random() < ENDED:
            # The run that goes on may be ended before it has taken a step.
            late = [dice.uniform(0.05, 1.5), *(dice.uniform(0.1, 0.8) for _ in range(dice.choice((0, 0, 1, 2))))]
            ending = asyncio.create_task(_end(stage, session, late))
        sent += await asyncio.gather(*sending)
        if ending is not None:
            await ending
        await asyncio.sleep(idle * dice.uniform(0.8, 1.6) if dice.random() < 0.7 else dice.uniform(0.0, 0.2))
    return sent


async def _send(
    stage: Stage, session: str, turn: int, message: str, idle: float, dice: random.Random, late: float | None = None
) -> Sent:
    """Send one message as often as it is sent, and return all replies; one that is `late` is told `now`."""
    pays, by = dice.random() < 0.5, SPEAKERS[late is not None or dice.random() < SECOND]
    delay = dice.uniform(0.0, 0.3) if dice.random() < SIGNALLED else None
    text = write_text(session, message, pays=pays)
    if late is not None:
        await asyncio.sleep(late)

    async def say(agents: AgentClient) -> Reply | str:
        try:
            async with asyncio.timeout(DEADLINE):
                return await agents.say(
                    session,
                    AGENT,
                    text,
                    by=by,
                    message_id=message,
                    when="next" if late is None else "now",
                    until="answer",
                    idle=f"{idle * 1000:.0f}ms",
                    patience_seconds=DEADLINE,
                )
        except TimeoutError:
            return "hangs"
        except (MessageError, RPCError) as error:
            return f"{type(error).__name__}: {error}"

    copies = COPIES if delay is None else COPIES - 1
    saying = [asyncio.create_task(say(stage.clients[number % CLIENTS])) for number in range(copies)]
    if delay is not None:
        await asyncio.sleep(delay)
        with suppress(RPCError):
            said = {"text": text, "by": by, "id": message, "when": "next" if late is None else "now"}
            await stage.clients[0].handle(session).signal("say", said)
    replies = await asyncio.gather(*saying)
    stage.answered += 1
    return Sent(message, pays, turn, tuple(replies))


async def _end(stage: Stage, session: str, late: Sequence[float]) -> None:
    """Terminate what goes on of a session, so long after one another."""
    for seconds in late:
        await asyncio.sleep(seconds)
        with suppress(RPCError):
            await stage.clients[0].handle(session).terminate("to see what becomes of it")
            stage.ended += 1


async def _reap(crew: Crew, plan: Plan, model: SessionModel) -> None:
    """Kill one worker after another while it works, as long as another one is there."""
    dice, asked = random.Random(f"{plan.seed} kills"), 0
    for _ in range(plan.kills):
        # Nothing is under way where nothing was asked since the last time.
        while model.asked == asked or len(crew.ready) < 2:
            await asyncio.sleep(0.02)
        await asyncio.sleep(dice.uniform(0.5, 2.0))
        asked = model.asked
        crew.members[dice.choice(crew.ready)].process.kill()
        await asyncio.sleep(0.1)


async def _tell_progress(
    talking: list[asyncio.Task[list[Sent]]], stage: Stage, model: SessionModel, tell: Tell
) -> None:
    while True:
        await asyncio.sleep(5)
        ended = sum(task.done() for task in talking)
        tell(
            f"{ended} of {len(talking)} sessions ended, {stage.answered} messages answered, {model.asked} requests, "
            f"{stage.ended} runs terminated"
        )


async def _read_talks(
    client: Client, environment: Mapping[str, str], sent: Mapping[str, list[Sent]], done: Mapping[tuple[str, str], int]
) -> list[Talk]:
    """Return the sessions as the store has them."""
    blobs = Blobs(open_store(Settings.from_environment(environment).store))
    try:
        talks = []
        for session, messages in sent.items():
            told, results = await _read_conversation(blobs, f"{client.namespace}/{session}")
            paid = Counter({item: times for (run, item), times in done.items() if run == session})
            talks.append(Talk(session, tuple(messages), tuple(told), results, paid))
        return talks
    finally:
        await blobs.close()


async def _read_conversation(blobs: Blobs, key: str) -> tuple[list[str], dict[str, list[str]]]:
    """Return the ids of the messages that the model was told, and what it was told of payments."""
    content = await blobs.find_session(key)
    if content is None or (state := SessionRecord.model_validate_json(content).state) is None:
        return [], {}
    told, results, calls = list[str](), dict[str, list[str]](), dict[str, str]()
    async for _, segment in TranscriptLog(blobs).segments(RunState.model_validate_json(state).head):
        for message in segment.messages:
            if isinstance(message, AssistantMessage):
                calls |= {call.call_id: json.loads(call.arguments)["item"] for call in message.calls}
                continue
            for part in message.parts:
                match part:
                    case TextPart():
                        told += [one.message for one in find_told(part.text)]
                    case ResultPart():
                        results.setdefault(calls[part.call_id], []).append(part.text)
    return told, results


def report(played: Played) -> dict[str, object]:
    """The last line, as one JSON object."""
    talks = played.talks
    return {
        "sessions": len(talks),
        "messages": sum(len(talk.sent) for talk in talks),
        "answered": sum(talk.answered for talk in talks),
        "twice": sum(len(talk.twice) for talk in talks),
        "lost": sum(len(talk.lost) for talk in talks),
        "out_of_order": sum(len(talk.out_of_order) for talk in talks),
        "kills": played.killed,
        "parts": played.parts,
    }


def show(played: Played) -> str:
    """The report for people."""
    its = report(played)
    results = [result for talk in played.talks for told in talk.results.values() for result in told]
    replies = sum(len(sent.replies) for talk in played.talks for sent in talk.sent)
    paid = Counter(times for talk in played.talks for times in talk.done.values())
    lines = [
        f"{its['sessions']} sessions in {played.seconds:.0f} s, seed {played.plan.seed}: {its['parts']} runs",
        f"{its['messages']} messages, {replies} replies, {played.asked} requests to the model",
        f"{played.killed} workers killed, {played.ended} runs terminated, {played.hurt} payments hurt",
        "",
        f"{'messages':<42}{'':>6}",
        f"{'  answered once, in the same way to all':<42}{its['answered']:>6}",
        f"{'  told or paid twice':<42}{its['twice']:>6}",
        f"{'  not told, or without a reply':<42}{its['lost']:>6}",
        f"{'  told out of order':<42}{its['out_of_order']:>6}",
        "",
        f"{'results of payments, as the model was told':<42}{len(results):>6}",
        f"{'  done':<42}{sum(map(is_done, results)):>6}",
        f"{'  not known':<42}{sum(is_unknown(result) and not is_done(result) for result in results):>6}",
        f"{'payments made once':<42}{paid[1]:>6}",
        f"{'payments made more than once':<42}{paid.total() - paid[1]:>6}",
    ]
    faults = played.faults()
    lines += ["", f"promises broken: {len(faults)}", *(f"  {fault}" for fault in faults)]
    return "\n".join(lines)


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
        prog="python -m tests.acceptance.sessions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sessions", type=int, default=60)
    parser.add_argument("--messages", type=int, default=6, help="messages to each session, one after another")
    parser.add_argument("--kills", type=int, default=6, help="workers that are killed")
    parser.add_argument("--json", action="store_true", help="the last line is the report as JSON")
    given = parser.parse_args()
    plan = Plan(given.seed, given.sessions, given.messages, given.kills)
    with tempfile.TemporaryDirectory(prefix="mandate-sessions-") as folder:
        return asyncio.run(_run(plan, as_json=given.json, folder=Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
