"""Decisions that come at the same moment: each counts once, each sender hears, and a call runs as often as approved."""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.service import RPCError, RPCStatusCode

from mandate.workers.client.client import connect
from mandate.workers.client.messages import NoRun, Refused
from mandate.workers.client.messages import decide as decide_patiently
from mandate.workers.dev_server.server import DevServer, run_private_server
from mandate.workflows.contracts.request import Decision, OpenRequests, Receipt, Request
from mandate.workflows.contracts.run import RunResult
from mandate.workflows.loop import people, run
from tests.support.agents import Site, new_site
from tests.support.attacks import failed_tasks, held_up, place, whole_history
from tests.support.people import ASK_ALL, asked, decide, decision, open_requests, send_update, write_people
from tests.support.toolkit import calls_of

Handle = WorkflowHandle[Any, Any]
ROUNDS = 4
ANYBODY = {"groups": ["finance", "legal"], "users": ["dan@example.com"]}


def rule(**keys: Any) -> list[dict[str, Any]]:
    return [{**ASK_ALL[0], **keys}, ASK_ALL[1]]


@pytest.fixture
async def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))


@dataclass(frozen=True)
class Said:
    """A decision and what its sender heard."""

    decision: Decision
    receipt: Receipt | None
    refusal: str | None


async def say(client: Client, run: str, given: dict[str, Any]) -> Said:
    """Send an update until there is an answer; a sender that hears nothing fails the test."""
    whole = Decision.model_validate(given)
    try:
        return Said(whole, await decide_patiently(client, run, whole, patience_seconds=30), None)
    except (Refused, NoRun) as refused:
        return Said(whole, None, str(refused))


async def at_once(saying: Sequence[Awaitable[Said]]) -> list[Said]:
    return list(await asyncio.gather(*saying))


def check(result: RunResult, found: OpenRequests, said: Sequence[Said], ran: Sequence[Any]) -> None:
    """What holds of every story: one run of each approved call, nobody counted twice, and no sender without answer."""
    approved = [one for one in found.closed if one.outcome == "approved"]
    assert len(ran) == result.effects.count == len(approved)
    assert len({call["order"] for call in ran}) == len(ran)
    for closed in found.closed:
        assert len(set(closed.by)) == len(closed.by)
        assert len(set(closed.decided)) == len(closed.decided)
    by_request = {one.id: one for one in found.closed}
    for one in said:
        assert (one.receipt is None) != (one.refusal is None)
        if one.receipt is not None and one.decision.by is not None:
            assert one.decision.by in by_request[one.decision.request].by


def orders(run: str) -> list[dict[str, Any]]:
    return [dict(call.arguments) for call in calls_of(run, "pay")]


async def test_two_people_on_the_last_place_of_a_quorum(site: Site) -> None:
    calls = [{"pay": {"order": number}} for number in range(ROUNDS)]
    site.write("pairs", [{"call": calls}, {"say": "done"}], policy=rule(quorum=2, approvers=ANYBODY))

    async with site.serving():
        handle = await site.start("pairs")
        requests = await asked(handle, ROUNDS)
        for request in requests:
            await decide(handle, request, by="cleo@example.com")
        names = ("ann@example.com", "bob@example.com", "dan@example.com")
        said = await at_once(
            [say(site.client, handle.id, decision(request, by=by)) for by in names for request in requests]
        )
        result = await handle.result()
        found = await open_requests(handle)

    check(result, found, said, orders(handle.id))
    receipts = [one.receipt for one in said if one.receipt is not None]
    assert [receipt.status for receipt in receipts] == ["approved"] * ROUNDS
    refused = [one.refusal or "" for one in said if one.receipt is None]
    assert len(refused) == 2 * ROUNDS
    told = " is approved already: cleo@example.com and "
    assert [sentence for sentence in refused if told not in sentence and not sentence.endswith(" is over")] == []


async def test_approvals_and_rejections_at_once(site: Site) -> None:
    calls = [{"pay": {"order": number}} for number in range(ROUNDS)]
    site.write("torn", [{"call": calls}, {"say": "done"}], policy=rule())

    async with site.serving():
        handle = await site.start("torn")
        requests = await asked(handle, ROUNDS)
        said = await at_once(
            [
                say(site.client, handle.id, decision(request, choice, by=by))
                for number, request in enumerate(requests)
                for choice, by in ends(number)
            ]
        )
        result = await handle.result()
        found = await open_requests(handle)

    check(result, found, said, orders(handle.id))
    assert all(len(closed.by) == 1 for closed in found.closed)
    assert sum(one.receipt is not None for one in said) == ROUNDS
    for one in said:
        closed = next(closed for closed in found.closed if closed.id == one.decision.request)
        if one.receipt is not None:
            assert closed.outcome == {"approve": "approved", "reject": "rejected"}[one.decision.choice]


def ends(number: int) -> list[tuple[str, str]]:
    both = [("approve", "ann@example.com"), ("reject", "bob@example.com")]
    return both if number % 2 else both[::-1]


async def test_decisions_wait_for_the_one_that_is_being_checked(site: Site) -> None:
    """The order in which they came decides, whatever the check takes; the same decision again waits with them."""
    site.write("slow", [{"call": [{"pay": {"order": 1}}]}, {"say": "done"}], policy=rule())

    async with site.serving():
        handle = await site.start("slow")
        (request,) = await asked(handle)
        with held_up(site.folder / "people.yaml"):
            first = asyncio.create_task(say(site.client, handle.id, decision(request, "reject")))
            await being_checked(handle)
            # One client would keep the third back.
            others = asyncio.gather(
                say(another(site.client), handle.id, decision(request, by="bob@example.com")),
                say(another(site.client), handle.id, decision(request, "reject")),
            )
            await handle.signal("decide", decision(request, by="bob@example.com"))
            await accepted(handle, 3)
        said = [await first, *await others]
        result = await handle.result()
        found = await open_requests(handle)

    check(result, found, said, orders(handle.id))
    assert said[0].receipt is not None
    assert said[0].receipt.status == "rejected"
    assert said[1].refusal == "request r1 is rejected already: ann@example.com rejected it"
    assert said[2].receipt is not None
    assert (said[2].receipt.status, said[2].receipt.message) == ("rejected", said[0].receipt.message)
    assert {(one.via, one.reason) for one in found.refused} == {(via, said[1].refusal) for via in ("update", "signal")}


def another(client: Client) -> Client:
    """One that knows nothing of what this one sends."""
    return Client(**client.config())


async def accepted(handle: Handle, count: int) -> None:
    """Returns when a run has taken in so many updates."""
    async with asyncio.timeout(30):
        while True:
            events = [event async for event in handle.fetch_history_events()]
            if sum(event.HasField("workflow_execution_update_accepted_event_attributes") for event in events) >= count:
                return
            await asyncio.sleep(0.02)


async def being_checked(handle: Handle) -> None:
    async with asyncio.timeout(30):
        while True:
            pending = (await handle.describe()).raw_description.pending_activities
            if any(one.activity_type.name == "check_decision" for one in pending):
                return
            await asyncio.sleep(0.02)


async def test_rejecting_everything_overtakes_a_check(site: Site) -> None:
    site.write("swept", [{"call": [{"pay": {"order": 1}}]}, {"say": "done"}], policy=rule())

    async with site.serving():
        handle = await site.start("swept")
        (request,) = await asked(handle)
        with held_up(site.folder / "people.yaml"):
            approving = asyncio.create_task(say(site.client, handle.id, decision(request)))
            await being_checked(handle)
            await handle.signal("decide", {"request": "*", "choice": "reject", "by": "bob@example.com"})
        said = await approving
        result = await handle.result()
        found = await open_requests(handle)

    check(result, found, [said], orders(handle.id))
    assert said.refusal == "request r1 is rejected already: bob@example.com rejected all open requests"
    assert calls_of(handle.id) == []


async def test_a_run_that_is_stopped_answers_whoever_is_being_checked(site: Site) -> None:
    site.write("stopped", [{"call": [{"pay": {"order": 1}}]}, {"say": "done"}], policy=rule())

    async with site.serving():
        handle = await site.start("stopped")
        (request,) = await asked(handle)
        with held_up(site.folder / "people.yaml"):
            approving = asyncio.create_task(say(site.client, handle.id, decision(request)))
            await being_checked(handle)
            await handle.signal("stop", {"by": "bob@example.com"})
        said = await approving
        result = await handle.result()

    assert said.refusal == "request r1 is withdrawn already: the run ended: stopped by bob@example.com"
    assert result.effects.count == 0
    assert calls_of(handle.id) == []


async def test_decisions_at_the_moment_of_expiry(site: Site) -> None:
    """Ten requests that expire while they are decided: each is one or the other, and its sender knows which."""
    calls = [{"pay": {"order": number}} for number in range(10)]
    site.write("moment", [{"call": calls}, {"say": "done"}], policy=rule(expires="5s"))

    async with site.serving():
        handle = await site.start("moment")
        requests = await asked(handle, 10)
        due = requests[0].expires_at.timestamp()

        async def late(number: int, request: Request) -> Said:
            await asyncio.sleep(max(0.0, due - time.time() - 0.3 + 0.04 * number))
            return await say(site.client, handle.id, decision(request))

        said = await at_once([late(number, request) for number, request in enumerate(requests)])
        result = await handle.result()
        found = await open_requests(handle)

    check(result, found, said, orders(handle.id))
    assert Counter(one.outcome for one in found.closed).keys() <= {"approved", "expired"}
    for one in said:
        closed = next(closed for closed in found.closed if closed.id == one.decision.request)
        assert (one.receipt is not None) == (closed.outcome == "approved")
        assert one.refusal is None or "expired" in one.refusal or one.refusal.endswith(" is over")


async def test_decisions_while_the_run_continues_as_new_again_and_again(tmp_path: Path) -> None:
    """Twenty requests with a quorum of two, half by update and half by signal, and roll pressure all the while."""
    count = 20
    config = {"limit.historyCount.suggestContinueAsNew": "60"}
    async with run_private_server(extra_dynamic_config=config) as server:
        site = new_site(tmp_path, await connect(address=server.address), MANDATE_PEOPLE=str(write_people(tmp_path)))
        calls = [{"pay": {"order": number}} for number in range(count)]
        site.write("rolled", [{"call": calls}, {"say": "done"}], policy=rule(quorum=2))
        async with site.serving():
            handle = await site.start("rolled")
            requests = await asked(handle, count)
            slots = asyncio.Semaphore(6)

            async def update(request: Request) -> Said:
                async with slots:
                    return await say(site.client, handle.id, decision(request))

            async def by_signal(request: Request) -> None:
                async with slots:
                    await handle.signal("decide", decision(request, by="bob@example.com"))
                    await handle.signal("decide", decision(request, by="nobody"))

            said, _ = await asyncio.gather(
                at_once([update(request) for request in requests]), asyncio.gather(*map(by_signal, requests))
            )
            again = await at_once([update(request) for request in requests[:5]])
            again = [one for one in again if one.receipt is not None]
            result = await handle.result()
            found = await open_requests(handle)
        parts = await whole_history(site.client, handle)

    check(result, found, [*said, *again], orders(handle.id))
    assert len(parts) > 2
    assert failed_tasks(parts) == []
    assert [one.refusal for one in said] == [None] * count
    assert {one.outcome for one in found.closed} == {"approved"}
    assert result.effects.count == count
    assert len({call.key for call in calls_of(handle.id)}) == count


async def test_a_crowd_cannot_keep_a_run_from_continuing_as_new(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks in progress hold it back: after so many messages it takes in no more until it has left."""
    monkeypatch.setattr(run, "MESSAGES", 10)
    monkeypatch.setattr(people, "CROWD", 15)
    site.write("crowd", [{"call": [{"pay": {"order": 1}}]}, {"say": "done"}], policy=rule())

    async with site.serving(sandboxed=False):
        handle = await site.start("crowd")
        (request,) = await asked(handle)
        with held_up(site.folder / "people.yaml"):
            for number in range(15):
                await handle.signal("decide", decision(request, by="cleo@example.com", comment=str(number)))
            await being_checked(handle)
            with pytest.raises(WorkflowUpdateFailedError) as crowded:
                await send_update(handle, "decide", decision(request, by="bob@example.com"))
            # Nobody would send it again: it counts once the run has left.
            await handle.signal("decide", decision(request))
            await asyncio.sleep(0.3)
        result = await handle.result()
        found = await open_requests(handle)
        parts = await whole_history(site.client, handle)

    assert str(crowded.value.cause) == f"TryAgain: {people.CROWDED}"
    assert people.CROWDED not in [one.reason for one in found.refused]
    assert [(one.outcome, one.by) for one in found.closed] == [("approved", ("ann@example.com",))]
    assert len(parts) == 2
    assert result.effects.count == len(calls_of(handle.id)) == 1


async def test_a_worker_that_dies_between_check_and_record(tmp_path: Path, client: Client, temporal: DevServer) -> None:
    """The check is made again by the next worker; the decision counts once, and the call is made once."""
    turns = [{"call": [{"transfer": {"order": 1}}]}, {"say": "done"}]
    policy = [{**ASK_ALL[0], "match": {}, "quorum": 2}]
    agents = {"pair": {"turns": turns, "policy": policy}}
    async with place(tmp_path, client, temporal, agents) as there:
        handle = await there.site.start("pair")
        (request,) = await asked(handle)
        await decide(handle, request)
        with held_up(tmp_path / "people.yaml"):
            last = asyncio.create_task(say(client, handle.id, decision(request, by="bob@example.com")))
            await handle.signal("decide", decision(request, by="bob@example.com"))
            await being_checked(handle)
            there.worker.send(signal.SIGKILL)
        await there.another()
        said = await last
        result = await handle.result()
        found = await open_requests(handle)
        parts = await whole_history(client, handle)

    check(result, found, [said], there.moved(handle.id))
    assert said.receipt is not None
    assert found.closed[0].by == ("ann@example.com", "bob@example.com")
    assert failed_tasks(parts) == []


async def test_an_update_to_a_run_that_is_over_is_told_so(site: Site) -> None:
    site.write("over", [{"say": "done"}])

    async with site.serving():
        handle = await site.start("over")
        await handle.result()
        with pytest.raises((RPCError, WorkflowUpdateFailedError)) as error:
            await send_update(handle, "decide", {"request": "r1", "digest": "A" * 43, "choice": "approve", "by": "a"})

    assert isinstance(error.value, RPCError)
    assert error.value.status is RPCStatusCode.NOT_FOUND
