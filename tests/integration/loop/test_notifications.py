"""Runs that tell people on their channels: what a dead one holds up, when they are reminded, and the timers of days."""

import asyncio
import dataclasses
import itertools
import json
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle

from mandate.workers.client import queries
from mandate.workflows.contracts.run import Progress, RunStatus
from tests.support.agents import Site, new_site
from tests.support.http_peer import HttpPeer, Reply, http_peer
from tests.support.people import ASK_ALL, asked, decide, write_people
from tests.support.toolkit import calls_of

Handle = WorkflowHandle[Any, Any]

PAY = {"call": [{"pay": {"order": 1, "amount": 120.0}}]}
ASK = {"call": [{"ask_person": {"question": "Anything else?"}}]}
DONE = {"say": "done"}

BUSY = Reply(503, headers={"Retry-After": "1"})


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)), HOOK="s3cr3t-of-the-hook")


def put_up(site: Site, **peers: HttpPeer) -> None:
    """A file of channels, one for each peer, which tell of approvals only."""
    channels = [
        {"name": name, "kind": "webhook", "url": peer.url, "secret": "${secret:HOOK}", "kinds": ["approval"]}
        for name, peer in peers.items()
    ]
    file = site.folder / "channels.yaml"
    file.write_text(json.dumps({"channels": channels}))
    site.environment["MANDATE_CHANNELS"] = str(file)


def asking(**keys: Any) -> list[dict[str, Any]]:
    return [{**ASK_ALL[0], **keys}, ASK_ALL[1]]


async def seen_by(peer: HttpPeer, count: int) -> None:
    """Returns when so many messages have come."""
    async with asyncio.timeout(30):
        while len(peer.seen) < count:
            await asyncio.sleep(0.02)


def told(peer: HttpPeer) -> list[tuple[object, object]]:
    """Request and occasion of each message."""
    return [(body["request"]["id"], body["occasion"]) for body in bodies(peer)]


def bodies(peer: HttpPeer) -> list[Any]:
    return [seen.json() for seen in peer.seen]


async def recent(handle: Handle) -> tuple[str, ...]:
    return (await queries.ask(handle, "progress", Progress)).recent


async def test_a_dead_channel_holds_up_neither_the_decision_nor_the_call(site: Site) -> None:
    looked = asyncio.Event()
    async with http_peer(Reply()) as good, http_peer(dataclasses.replace(BUSY, until=looked), BUSY) as dead:
        put_up(site, good=good, dead=dead)
        site.write("asks", [PAY, ASK, DONE], policy=asking())

        async with site.serving():
            handle = await site.start("asks")
            (request,) = await asked(handle)
            await asyncio.gather(seen_by(good, 1), seen_by(dead, 1))
            receipt = await decide(handle, request)
            question = await next_request(handle, "r2")
            attempts, meanwhile, calls = len(dead.seen), await recent(handle), len(calls_of(handle.id, "pay"))
            looked.set()
            await seen_by(dead, 4)
            afterwards = await failure_in(handle)
            await decide(handle, question, "answer", value="no")
            result = await handle.result()

    assert receipt.status == "approved"
    assert (attempts < 4, calls) == (True, 1)
    assert [line for line in meanwhile if "channel" in line] == []
    assert afterwards == ["step 2: channel 'dead' did not tell of r1: HTTP 503 Service Unavailable (4 attempts)"]
    assert told(good) == [("r1", "asked")]
    assert told(dead) == [("r1", "asked")] * 4
    assert (result.status, result.effects.count) == (RunStatus.COMPLETED, 1)


async def next_request(handle: Handle, name: str) -> Any:
    async with asyncio.timeout(30):
        while (found := (await asked(handle))[0]).id != name:
            await asyncio.sleep(0.05)
    return found


async def failure_in(handle: Handle) -> list[str]:
    """What the last steps say of channels, once they say anything."""
    async with asyncio.timeout(30):
        while not (lines := [line for line in await recent(handle) if "channel" in line]):
            await asyncio.sleep(0.05)
    return lines


async def test_people_are_reminded_until_they_decide_and_not_after(site: Site) -> None:
    async with http_peer(Reply()) as peer:
        put_up(site, oncall=peer)
        site.write("asks", [PAY, ASK, DONE], policy=asking(expires="40s", remind="1s"))

        async with site.serving():
            handle = await site.start("asks")
            (request,) = await asked(handle)
            await seen_by(peer, 3)
            await decide(handle, request)
            decided_at = time.time()
            question = await next_request(handle, "r2")
            await asyncio.sleep(3)
            await decide(handle, question, "answer", value="no")
            result = await handle.result()

    # A notice whose reply comes late is sent again, with its key.
    keys = {seen.headers["idempotency-key"]: notice for seen, notice in zip(peer.seen, told(peer), strict=True)}
    assert list(keys.values()) == [("r1", "asked"), *[("r1", "reminder")] * (len(keys) - 1)]
    # Reminders are numbered by their second; one from before the decision may come after it.
    assert max(body["number"] for body in bodies(peer)) <= decided_at
    reminded = sorted({body["number"] for body in bodies(peer) if body["occasion"] == "reminder"})
    times = [int(request.requested_at.timestamp()), *reminded]
    assert all(later - earlier >= 1 for earlier, later in itertools.pairwise(times))
    assert (result.status, result.effects.count) == (RunStatus.COMPLETED, 1)


@pytest.mark.parametrize(("keys", "hours"), [({"remind": "24h"}, 24), ({}, 72)])
async def test_a_run_that_waits_for_days_has_one_timer_and_nothing_else(
    site: Site, keys: dict[str, str], hours: int
) -> None:
    """Its worker is not asked for anything until the first reminder, or the end if there is none."""
    site.write("asks", [PAY, DONE], policy=asking(expires="3d", **keys))

    async with site.serving():
        handle = await site.start("asks")
        (request,) = await asked(handle)
        length = await at_rest(handle)
        begun = await durations(handle)
        await asyncio.sleep(1.5)
        later = (await handle.describe()).history_length
        await decide(handle, request)
        result = await handle.result()

    (duration,) = begun
    assert timedelta() <= timedelta(hours=hours) - duration < timedelta(seconds=60)
    assert request.expires_at - request.requested_at == timedelta(days=3)
    assert later == length
    assert await durations(handle) == begun
    assert (result.status, result.effects.count) == (RunStatus.COMPLETED, 1)


async def at_rest(handle: Handle) -> int:
    """Length of the history of a run, once no worker has anything to do for it."""
    async with asyncio.timeout(30):
        while True:
            described = await handle.describe()
            raw = described.raw_description
            if not raw.pending_activities and not raw.HasField("pending_workflow_task"):
                return described.history_length
            await asyncio.sleep(0.05)


async def durations(handle: Handle) -> list[timedelta]:
    """How long the timers of a run are, in the order in which they began."""
    return [
        event.timer_started_event_attributes.start_to_fire_timeout.ToTimedelta()
        async for event in handle.fetch_history_events()
        if event.HasField("timer_started_event_attributes")
    ]
