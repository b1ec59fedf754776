"""Workers of one queue with different files for one agent."""

import asyncio
import os
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog

from mandate.activities.stores.base import Announcement
from mandate.activities.toolbox.mcp.lazy_toolbox import LazyMcpToolbox
from mandate.workers import fleet as workers_fleet
from mandate.workers.catalog.catalog import Catalog
from mandate.workers.fleet import (
    Fleet,
    OlderFiles,
    Peer,
    ServedAgent,
    WorkerWord,
    describe_strangers,
    find_others,
    list_served,
)
from mandate.workers.secrets import Secrets
from tests.support.memory_store import MemoryStore

NOON = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
LATER = NOON + timedelta(seconds=1)
ONE, TWO, THREE = "1" * 43, "2" * 43, "3" * 43


def served(agent: str, digest: str, at: datetime | None = NOON, files: str | None = None) -> ServedAgent:
    path = f"agents/{agent}.yaml" if at is not None else None
    return ServedAgent(agent=agent, digest=digest, path=path, files=files or digest, changed_at=at)


OLD, NEW = served("till", ONE, NOON), served("till", TWO, LATER)


def new_fleet(
    store: MemoryStore,
    *agents: ServedAgent,
    identity: str = "own",
    build: str = "",
    group: str = "",
    polling: Collection[str] = (),
) -> Fleet:
    async def pollers() -> frozenset[str]:
        return frozenset(polling)

    place = {"namespace": "default", "queue": "agents", "identity": identity, "build": build, "group": group}
    return Fleet(store, served=agents, pollers=pollers, **place)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_fleet, "REFRESH_SECONDS", 0.02)
    monkeypatch.setattr(workers_fleet, "SILENT_AFTER", timedelta(seconds=0.3))
    monkeypatch.setattr(workers_fleet, "LOOK_SECONDS", 0.01)


@pytest.mark.parametrize(
    ("own", "other", "is_older"),
    [
        (OLD, NEW, True),
        (NEW, OLD, False),
        # At the same time: nothing says which one is meant.
        (served("till", ONE, NOON), served("till", TWO, NOON), False),
        # Made in code.
        (served("till", ONE, None), NEW, False),
        (OLD, served("till", TWO, None), False),
        # The same files, and another tool of an MCP server.
        (served("till", ONE, NOON, THREE), served("till", TWO, LATER, THREE), False),
        # Touched: a person wants the older text back.
        (served("till", ONE, LATER + timedelta(seconds=1)), NEW, False),
    ],
)
def test_files_that_were_changed_earlier_are_older(own: ServedAgent, other: ServedAgent, is_older: bool) -> None:
    assert own.is_older_than(other) is is_older


def test_other_versions_are_told_once_with_their_workers() -> None:
    def peer(name: str, since: datetime, *agents: ServedAgent) -> Peer:
        return Peer(name, WorkerWord(identity=name, agents=agents), since, LATER)

    touched = served("till", TWO, LATER + timedelta(hours=1))
    peers = [
        peer("b", LATER, NEW, served("shop", ONE)),
        peer("a", NOON, touched, served("shop", THREE), served("unknown", ONE)),
        peer("c", NOON, served("till", ONE)),
    ]

    others = find_others((OLD, served("shop", THREE)), peers)

    assert [(other.own.agent, other.other, other.workers, other.since) for other in others] == [
        ("till", touched, ("a", "b"), NOON),
        ("shop", served("shop", ONE), ("b",), LATER),
    ]
    assert others[0].sentence("agents") == (
        f"agent 'till': 2 other workers of task queue 'agents' serve version {TWO[:12]}, of newer files, since "
        f"2026-11-02 12:00:00 UTC, this worker version {ONE[:12]}; a run gets one or the other"
    )
    assert others[1].to_json() == {
        "agent": "shop",
        "version": ONE[:12],
        "digest": ONE,
        "workers": ["b"],
        "since": "2026-11-02T12:00:01+00:00",
        "changed_at": "2026-11-02T12:00:00+00:00",
        "newer": False,
    }


async def living(store: MemoryStore, *agents: ServedAgent, build: str = "") -> asyncio.Task[None]:
    """A worker that goes on announcing what it serves."""
    other = new_fleet(store, *agents, identity="other", build=build)
    await other.join(allow_older=True)
    return asyncio.create_task(other.keep_fresh())


@pytest.mark.parametrize(
    ("own", "also"),
    [((OLD,), ""), ((OLD, served("shop", ONE)), ""), ((OLD, served("desk", ONE)), " (so it is with 'desk')")],
)
async def test_older_files_are_refused_beside_a_worker_that_lives(own: Sequence[ServedAgent], also: str) -> None:
    store = MemoryStore()
    other = await living(store, NEW, served("shop", ONE), served("desk", TWO, LATER))
    joining = new_fleet(store, *own)

    with pytest.raises(OlderFiles) as refused:
        await joining.join(allow_older=False)
    await joining.leave()
    other.cancel()

    assert str(refused.value) == (
        f"agent 'till': another worker of task queue 'agents' serves version {TWO[:12]}, of files changed at "
        "2026-11-02 12:00:01 UTC, and those of this worker are older, agents/till.yaml of 2026-11-02 12:00:00 UTC"
        f"{also}; give this worker the newer files, or, to go back to these, touch agents/till.yaml or start it with "
        "--allow-older"
    )
    # The one that was refused serves nothing, as everybody can see.
    others = (NEW, served("shop", ONE), served("desk", TWO, LATER))
    assert [said.content for said in (await store.announcements("default/agents")).workers] == [
        WorkerWord(identity="other", agents=others).model_dump_json(),
        WorkerWord(identity="own", agents=()).model_dump_json(),
    ]


async def test_older_files_may_be_allowed() -> None:
    store = MemoryStore()
    other = await living(store, NEW)
    joining = new_fleet(store, OLD)

    await joining.join(allow_older=True)
    other.cancel()

    assert [(found.other, found.is_newer) for found in joining.others] == [(NEW, True)]


async def test_newer_files_join_and_know_of_the_older_ones() -> None:
    store = MemoryStore()
    other = await living(store, OLD)
    joining = new_fleet(store, NEW)

    await joining.join(allow_older=False)
    other.cancel()

    assert [(found.other, found.is_newer, found.is_older) for found in joining.others] == [(OLD, False, True)]


@pytest.mark.parametrize("leaves", [False, True], ids=["killed", "stopped"])
async def test_worker_that_died_a_moment_ago_is_waited_for_and_refuses_nothing(leaves: bool) -> None:
    store, said = MemoryStore(), list[str]()
    dead = new_fleet(store, NEW, identity="7@here")
    await dead.join(allow_older=False)
    joining = new_fleet(store, OLD)
    leaving = (
        asyncio.get_running_loop().call_later(0.05, lambda: asyncio.ensure_future(dead.leave())) if leaves else None
    )

    await joining.join(allow_older=False, on_progress=said.append)

    assert leaving is None or not leaving.cancelled()
    assert joining.others == ()
    assert said == ["worker 7@here serves newer files; looking whether it is still there"]


async def test_other_builds_queues_and_unreadable_words_do_not_count() -> None:
    store = MemoryStore()
    other = await living(store, NEW, build="mandate/2")
    await store.announce("default/elsewhere", "x", WorkerWord(identity="x", agents=(NEW,)).model_dump_json())
    await store.announce("default/agents", "y", '{"of": "another version of Mandate"}')
    joining = new_fleet(store, OLD)

    await joining.join(allow_older=False)
    other.cancel()

    assert joining.others == ()


async def test_workers_that_take_each_others_place_do_not_count_for_each_other() -> None:
    store = MemoryStore()
    await new_fleet(store, NEW, identity="other", group="watch-1").join(allow_older=False)
    fresh, alone = (new_fleet(store, OLD, identity="own", group=group) for group in ("watch-1", "watch-2"))

    await fresh.join(allow_older=False)
    await alone.join(allow_older=True)

    assert fresh.others == ()
    assert [other.other for other in alone.others] == [NEW]


async def test_worker_that_polls_and_has_said_nothing_has_another_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers_fleet, "STRANGERS_EVERY", 1)
    store, polling = MemoryStore(), {"own", "8@here", "7@here"}
    await (stopped := new_fleet(store, NEW, identity="8@here")).join(allow_older=False)
    await stopped.leave()
    joining = new_fleet(store, OLD, polling=polling)

    await joining.join(allow_older=False)
    first = joining.strangers
    polling.add("9@there")
    with structlog.testing.capture_logs() as logged:
        going_on = asyncio.create_task(joining.keep_fresh())
        await asyncio.sleep(0.2)
        going_on.cancel()

    assert first == ("7@here",)
    assert joining.strangers == ("7@here", "9@there")
    (line,) = logged
    assert (line["event"], line["hint"]) == ("unknown_worker", describe_strangers(["9@there"], "agents"))
    assert line["hint"].startswith(
        "worker 9@there polls task queue 'agents' too and has not told this worker's store what its files are: "
    )
    many = describe_strangers(["a", "b", "c", "d"], "agents")
    assert many.startswith("4 workers (a, b, c ...) poll task queue 'agents' too and have not told this worker's store")


async def test_word_that_is_old_does_not_count() -> None:
    store = MemoryStore()
    long_ago = datetime.now(UTC) - timedelta(minutes=5)
    word = WorkerWord(identity="x", agents=(NEW,)).model_dump_json()
    store.announced["default/agents", "x"] = Announcement("x", word, long_ago, long_ago)
    joining = new_fleet(store, OLD)

    await joining.join(allow_older=False)

    assert joining.others == ()


async def test_age_is_that_of_the_last_changed_file_of_agent_and_policies(tmp_path: Path) -> None:
    (tmp_path / "agents").mkdir()
    (tmp_path / "policies").mkdir()
    agent, policy = tmp_path / "agents" / "till.yaml", tmp_path / "policies" / "limits.yaml"
    agent.write_text("name: till\ninstructions: Do it.\nmodels: [openai:gpt-6-sol]\npolicies: [limits]\n")
    policy.write_text("name: limits\nrules:\n  - {id: all, match: {}, verdict: ask}\n")
    os.utime(agent, (NOON.timestamp(), NOON.timestamp()))
    os.utime(policy, (LATER.timestamp(), LATER.timestamp()))

    async def read() -> ServedAgent:
        secrets = Secrets({})
        catalog = await Catalog.load(tmp_path / "agents", LazyMcpToolbox(secrets), secrets=secrets)
        (found,) = list_served(catalog)
        return found

    first = await read()
    to_come = datetime.now(UTC) + timedelta(days=1)
    os.utime(policy, (to_come.timestamp(), to_come.timestamp()))
    second = await read()
    policy.write_text("name: limits\nrules:\n  - {id: all, match: {}, verdict: deny}\n")
    third = await read()

    assert (first.agent, first.path, first.changed_at) == ("till", str(agent), LATER)
    assert second.changed_at is not None
    assert second.changed_at <= datetime.now(UTC)
    assert (second.files, second.digest) == (first.files, first.digest)
    assert third.files != first.files
    assert third.digest != first.digest
