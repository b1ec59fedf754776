"""A call that may be repeated outlasts an outage; people see what the run waits for, and can stop it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowQueryFailedError
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from mandate.workers.history.record import read_record
from tests.support.agents import Site, new_site, texts_told
from tests.support.http_peer import OK, HttpPeer, Reply, Seen, http_peer
from tests.support.mcp_bench import lines, listed, text_result
from tests.support.mcp_peer import BARE_COMMAND
from tests.support.people import asked, decide, decision, open_requests, send_update, write_people

DOWN = Reply(503, "down")


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))


@pytest.fixture
async def peer() -> AsyncIterator[HttpPeer]:
    async with http_peer() as found:
        yield found


def ticket(site: Site, peer: HttpPeer, **settings: Any) -> list[dict[str, Any]]:
    site.environment["MANDATE_HTTP_HOSTS"] = peer.host
    schema = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}
    tool = {"http": {"method": "POST", "url": f"{peer.url}/tickets"}, "name": "create_ticket", "input_schema": schema}
    return [{**tool, "effect": "keyed", **settings}]


def key_of(seen: Seen) -> str:
    return {name.lower(): value for name, value in seen.headers.items()}["idempotency-key"]


ASKED = [{"id": "asked", "match": {}, "verdict": "ask", "approvers": {"groups": ["finance"]}}]
CALL: dict[str, Any] = {"call": [{"create_ticket": {"title": "Printer"}}]}


async def doing(handle: Any) -> str:
    return str((await handle.query("progress"))["doing"])


async def until_waiting(handle: Any, word: str = "again in") -> str:
    now = ""
    async with asyncio.timeout(30):
        while word not in now:
            await asyncio.sleep(0.05)
            # A run that has not begun its work yet has nothing to say.
            with contextlib.suppress(WorkflowQueryFailedError):
                now = await doing(handle)
    return now


async def test_an_outage_of_seconds_is_outlasted_with_one_key_and_nobody_is_asked(site: Site) -> None:
    async with http_peer(DOWN, Reply(cut=True), DOWN, OK) as peer:
        site.write("outage", [CALL, {"say": "done"}], tools=ticket(site, peer))
        result, _ = await site.run("outage")

        assert (result.status, result.output) == ("completed", "done")
        assert [entry.attempts for entry in result.effects.last] == [4]
        assert len({key_of(seen) for seen in peer.seen}) == 1
        gaps = [later.at - sooner.at for sooner, later in zip(peer.seen, peer.seen[1:], strict=False)]
        assert [gap >= least for gap, least in zip(gaps, (0.9, 1.9, 3.9), strict=True)] == [True] * 3


async def test_people_see_what_a_run_waits_for_and_the_wait_is_the_runs_own(site: Site) -> None:
    """Retry-After is longer than Temporal's share, so that the run itself waits."""
    busy = Reply(503, "busy", {"Retry-After": "6"})
    async with http_peer(busy, busy, OK) as peer:
        site.write("seen", [CALL, {"say": "done"}], tools=ticket(site, peer))
        async with site.serving():
            handle = await site.start("seen")
            first = await until_waiting(handle)
            record = await read_record(site.client, handle.id, None)
            metadata = await handle.query("__temporal_workflow_metadata")
            result = await handle.result()

    assert first == "create_ticket: attempt 1, HTTP 503 Service Unavailable: busy, again in 6 s"
    assert record.history.doing == first
    assert f"- waits: `{first}`" in str(metadata)
    assert result.status == "completed"
    assert [entry.attempts for entry in result.effects.last] == [3]


async def test_waiting_run_stops_at_once_and_says_what_is_not_known(site: Site) -> None:
    busy = Reply(503, "busy", {"Retry-After": "300"})
    async with http_peer(busy) as peer:
        site.write("halted", [CALL, {"say": "done"}], tools=ticket(site, peer))
        async with site.serving():
            handle = await site.start("halted")
            await until_waiting(handle)
            await send_update(handle, "stop", {"by": "ann@example.com", "reason": "enough"})
            result = await asyncio.wait_for(handle.result(), 20)

    assert result.status == "stopped"
    assert [entry.tool for entry in result.uncertain] == ["create_ticket"]
    assert len(peer.seen) == 1


async def test_pause_holds_the_next_attempt_back(site: Site) -> None:
    async with http_peer(Reply(503, "busy", {"Retry-After": "6"}), OK) as peer:
        site.write("held", [CALL, {"say": "done"}], tools=ticket(site, peer))
        async with site.serving():
            handle = await site.start("held")
            await until_waiting(handle)
            await send_update(handle, "pause", {"by": "ann@example.com"})
            await until_waiting(handle, "paused")
            before = len(peer.seen)
            await send_update(handle, "resume", {"by": "ann@example.com"})
            result = await handle.result()

    assert (before, len(peer.seen), result.status) == (1, 2, "completed")


async def test_wait_survives_continue_as_new(tmp_path: Path) -> None:
    from mandate.workers.client.client import connect  # noqa: PLC0415 - a server of its own
    from mandate.workers.dev_server.server import run_private_server  # noqa: PLC0415

    config = {"limit.historyCount.suggestContinueAsNew": "12"}
    async with run_private_server(extra_dynamic_config=config) as server:
        client = await connect(address=server.address)
        site = new_site(tmp_path, client)
        busy = Reply(503, "busy", {"Retry-After": "6"})
        async with http_peer(busy, busy, OK) as peer:
            # It counts as one call, also after the run has continued as new while it waited.
            site.write("moved", [CALL, {"say": "done"}], tools=ticket(site, peer), budget={"tool_calls": 1})
            async with site.serving():
                handle = await site.start("moved")
                result = await handle.result()

    assert result.status == "completed"
    assert [entry.attempts for entry in result.effects.last] == [3]
    assert len({key_of(seen) for seen in peer.seen}) == 1


async def test_patience_ends_and_a_person_is_asked_about_what_may_have_happened(site: Site) -> None:
    async with http_peer(DOWN) as peer:
        site.write("ended", [CALL, {"say": "done"}], tools=ticket(site, peer, patience="2s"))
        async with site.serving():
            handle = await site.start("ended")
            (request,) = await asked(handle)
            await decide(handle, request, "happened")
            result = await handle.result()

    assert request.kind == "outcome"
    assert len(peer.seen) == 2
    assert result.status == "completed"


async def test_retries_bound_attempts_for_who_wants_that(site: Site) -> None:
    async with http_peer(DOWN) as peer:
        site.write("bounded", [CALL, {"say": "done"}], tools=ticket(site, peer, effect="read", retries=1))
        result, _ = await site.run("bounded")

    assert len(peer.seen) == 2
    assert await texts_told(site, result.head) == ["HTTP 503 Service Unavailable: down"]


async def test_what_the_other_side_was_down_for_is_no_attempt_of_the_agent(site: Site) -> None:
    """Three calls in a row that could not reach it would have been an escalation."""
    turns = [{"call": [{"create_ticket": {"title": f"Printer {number}"}}]} for number in range(4)]
    async with http_peer(DOWN) as peer:
        tools = ticket(site, peer, effect="read", patience="500ms")
        site.write("excused", [*turns, {"say": "done"}], tools=tools, attempts=2)
        async with site.serving():
            handle = await site.start("excused")
            result = await handle.result()

    assert (result.status, result.output) == ("completed", "done")
    assert len(peer.seen) == 4


async def test_what_an_agent_does_wrong_still_counts(site: Site) -> None:
    async with http_peer(Reply(404, "no such queue")) as peer:
        turns = [{"call": [{"create_ticket": {"title": f"Printer {number}"}}]} for number in range(4)]
        site.write("wrong", [*turns, {"say": "done"}], tools=ticket(site, peer), attempts=2)
        async with site.serving():
            handle = await site.start("wrong")
            (request,) = await asked(handle)
            await send_update(handle, "stop", {"by": "ann@example.com"})
            await handle.result()

    assert (request.kind, len(peer.seen)) == ("escalation", 2)


async def test_rejections_are_no_attempts_and_the_same_call_is_not_asked_for_again(site: Site) -> None:
    async with http_peer(OK) as peer:
        other = {"call": [{"create_ticket": {"title": "Scanner"}}]}
        site.write("refused", [CALL, CALL, other, {"say": "done"}], tools=ticket(site, peer), policy=ASKED, attempts=2)
        async with site.serving():
            handle = await site.start("refused")
            (first,) = await asked(handle)
            await decide(handle, first, "reject", comment="not now")
            while (second := (await asked(handle))[0]).id == first.id:
                await asyncio.sleep(0.05)
            await handle.signal("decide", decision(second, "reject"))
            result = await handle.result()

    assert (result.status, result.output) == ("completed", "done")
    assert "Scanner" in second.title
    told = await texts_told(site, result.head)
    assert told[0] == "refused: ann@example.com rejected it (not now)"
    assert told[1].startswith(
        "refused: people have rejected the same call before (ann@example.com rejected it (not now))"
    )
    assert told[2] == "refused: ann@example.com rejected it"
    assert not peer.seen


async def test_a_person_who_speaks_to_the_run_lets_it_ask_again(site: Site) -> None:
    async with http_peer(OK) as peer:
        site.write("steered", [CALL, CALL, {"say": "done"}], tools=ticket(site, peer), policy=ASKED)
        async with site.serving():
            handle = await site.start("steered")
            (first,) = await asked(handle)
            await send_update(handle, "pause", {"by": "ann@example.com"})
            await decide(handle, first, "reject")
            await send_update(handle, "steer", {"by": "ann@example.com", "text": "Now you may."})
            await send_update(handle, "resume", {"by": "ann@example.com"})
            while not (again := (await open_requests(handle)).requests) or again[0].id == first.id:
                await asyncio.sleep(0.05)
            await decide(handle, (await asked(handle))[0])
            result = await handle.result()

    assert (result.status, len(peer.seen)) == ("completed", 1)


async def test_activity_of_others_is_repeated_too(site: Site, client: Client) -> None:
    attempts: list[str] = []

    @activity.defn(name="Charge")
    async def charge(whole: dict[str, Any]) -> str:
        attempts.append(activity.info().activity_id)
        if len(attempts) < 6:
            raise ApplicationError("the line broke", type="ConnectionError")
        return f"charged {whole['amount']}"

    schema = {"type": "object", "properties": {"amount": {"type": "number"}}, "required": ["amount"]}
    place = {"name": "Charge", "task_queue": f"payments-{site.queue}"}
    tools = [{"activity": place, "name": "charge", "input_schema": schema, "effect": "keyed"}]
    site.write("charged", [{"call": [{"charge": {"amount": 5}}]}, {"say": "done"}], tools=tools)
    async with Worker(client, task_queue=place["task_queue"], activities=[charge]), site.serving():
        handle = await site.start("charged")
        await until_waiting(handle)
        result = await handle.result()

    assert result.status == "completed"
    assert (len(attempts), len(set(attempts))) == (6, 1)
    assert [entry.attempts for entry in result.effects.last] == [6]


async def test_a_run_has_the_events_of_one_activity_for_attempts_that_are_temporals(site: Site) -> None:
    async def script(seen: Seen) -> Reply:
        return OK if len(peer.seen) > 2 else DOWN

    async with http_peer(script=script) as peer:
        site.write("short", [CALL, {"say": "done"}], tools=ticket(site, peer))
        async with site.serving():
            handle = await site.start("short")
            await handle.result()
        kinds = [event.event_type async for event in handle.fetch_history_events()]

    assert kinds.count(EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED) == 3
    assert kinds.count(EventType.EVENT_TYPE_TIMER_STARTED) == 0


BUSY = text_result("the back end is away", isError=True)
FIND: dict[str, Any] = {"call": [{"find": {}}]}


def finder(journal: Path, *answers: dict[str, Any], **settings: Any) -> list[dict[str, Any]]:
    """An MCP server with one tool that answers so, one call after another, and with the last for ever."""
    plan = {"pages": [[listed("find")]], "calls": {"find": {"answers": answers}}}
    env = {"PLAN": json.dumps(plan), "JOURNAL": str(journal)}
    server = {"name": "peer", "command": [*BARE_COMMAND, "planned"], "env": env}
    return [{"mcp": server, "effect": "read", **settings}]


def calls_of(journal: Path) -> int:
    return sum(line.get("method") == "tools/call" for line in lines(journal))


@pytest.mark.parametrize("effect", ["read", "idempotent"])
async def test_call_that_an_mcp_server_says_has_failed_is_waited_for_when_it_is_made_again(
    site: Site, tmp_path: Path, effect: str
) -> None:
    """`isError` says nothing of why: the model is told at once, and only what it asks for once more has patience."""
    journal = tmp_path / "journal"
    tools = finder(journal, BUSY, BUSY, BUSY, text_result("found"), effect=effect)
    site.write("insists", [FIND, FIND, {"say": "done"}], tools=tools)
    async with site.serving():
        handle = await site.start("insists")
        waits = await until_waiting(handle)
        result = await handle.result()

    assert waits == "find: attempt 1, the back end is away, again in 1 s"
    assert (result.status, calls_of(journal)) == ("completed", 4)
    assert await texts_told(site, result.head) == ["the back end is away", "found"]


async def test_call_that_goes_on_failing_is_believed_in_the_end(site: Site, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    site.write("believes", [FIND, FIND, FIND, {"say": "done"}], tools=finder(journal, BUSY, patience="1500ms"))
    async with site.serving():
        handle = await site.start("believes")
        (request,) = await asked(handle)
        await send_update(handle, "stop", {"by": "ann@example.com"})
        await handle.result()

    # Once at once, twice within its patience, and not a third time.
    assert (request.kind, calls_of(journal)) == ("escalation", 3)


@pytest.mark.parametrize(("effect", "calls"), [("read", 1), ("idempotent", 1), ("keyed", 1), ("once", 3)])
async def test_activity_that_says_when_to_try_again_has_not_failed_for_good(
    site: Site, client: Client, effect: str, calls: int
) -> None:
    """Also with an error of `failed_types`; a `once` call is made again by the agent, who has done nothing wrong."""
    attempts: list[str] = []

    @activity.defn(name="Charge")
    async def charge(_: dict[str, Any]) -> str:
        attempts.append(activity.info().activity_id)
        if len(attempts) < 3:
            raise ApplicationError("come later", type="Busy", next_retry_delay=timedelta(seconds=1))
        return "charged"

    place = {"name": "Charge", "task_queue": f"payments-{site.queue}"}
    tool = {"activity": place, "name": "charge", "input_schema": {"type": "object"}, "failed_types": ["Busy"]}
    call = {"call": [{"charge": {}}]}
    site.write("later", [*[call] * calls, {"say": "done"}], tools=[{**tool, "effect": effect}], attempts=2)
    async with Worker(client, task_queue=place["task_queue"], activities=[charge]), site.serving():
        handle = await site.start("later")
        result = await handle.result()

    assert (result.status, len(attempts)) == ("completed", 3)
    assert result.uncertain == ()
    assert (await texts_told(site, result.head))[-1] == '"charged"'
