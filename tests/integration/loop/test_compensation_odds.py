"""Taking back under odd circumstances: nothing twice, nothing hidden, and no run that it kills."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity
from temporalio.worker import Worker

from mandate.workers.client import queries
from mandate.workers.client.client import connect
from mandate.workers.dev_server.server import run_private_server
from mandate.workflows.contracts.run import RunResult, RunStatus
from tests.integration.loop.test_compensation import ASK, BY, DONE, STOP, TOOLS, WAITS, site, until_busy, write
from tests.integration.loop.test_control import until_it
from tests.support.agents import ALLOW_ALL, Site, new_site
from tests.support.people import asked, decide, refusal_of, send_update, stop, write_people
from tests.support.toolkit import LET_GO, calls_of

__all__ = ["site"]

OWN = {"call": [{"write_note": {"text": "ann"}}]}
"""What takes the letter back."""


async def stopped(site: Site) -> tuple[RunResult, str]:
    async with site.serving():
        handle = await site.start("undone")
        await until_busy(handle)
        await stop(handle, STOP)
        LET_GO.add(handle.id)
        return await handle.result(), handle.id


async def test_what_the_agent_took_back_itself_is_not_taken_back_again(site: Site) -> None:
    write(site, OWN, WAITS)

    result, run = await stopped(site)

    assert [call.arguments for call in calls_of(run, "write_note")] == [{"text": "ann"}]
    assert "; 2 of 3 calls that can be taken back were; not: send to=ann (the agent has taken it back itself)" in (
        result.reason or ""
    )


async def test_the_same_call_before_what_it_would_take_back_took_nothing_back(site: Site) -> None:
    site.write("undone", [OWN, {"call": DONE}, WAITS, {"say": "done"}], tools=TOOLS, policy=ALLOW_ALL)

    result, run = await stopped(site)

    assert [call.arguments for call in calls_of(run, "write_note")] == [{"text": "ann"}] * 2
    assert (result.reason or "").endswith("; 3 of 3 calls that can be taken back were")


async def test_a_failure_before_the_stop_does_not_bar_it(site: Site) -> None:
    """The model's own note to Bob failed its check; the same call takes Bob's letter back."""
    refused = {"after": "write_note", "expect": "false"}
    calls = {"call": [{"write_note": {"text": "bob"}}, {"send": {"to": "bob"}}, {"send": {"to": "cleo"}}]}
    write(site, {"call": [{"give_back": {"order": 9, "paid": 1, "key": "k"}}]}, calls, WAITS, checks=[refused])

    result, run = await stopped(site)

    assert [call.arguments["text"] for call in calls_of(run, "write_note")] == ["bob", "cleo", "bob", "ann"]
    assert "2 of 5 calls that can be taken back were; not: send to=cleo (it was done, but check" in (
        result.reason or ""
    )


async def test_what_was_never_made_does_not_count_against_it(site: Site) -> None:
    limit = {
        "id": "limit",
        "match": {"tools": ["give_back"]},
        "when": "run.totals.give_back.paid + args.paid > 60.0",
        "verdict": "deny",
    }
    waiting = {"call": [{"look": {"what": "x"}}, {"give_back": {"order": 9, "paid": 55, "key": "k"}}]}
    ask = {**ASK, "when": "args.paid == 55.0", "match": {"tools": ["give_back"]}}
    write(site, waiting, policy=[*ALLOW_ALL, limit, ask])

    async with site.serving():
        handle = await site.start("undone")
        await asked(handle)
        await stop(handle, STOP)
        result = await handle.result()

    assert (result.reason or "").endswith("; 3 of 3 calls that can be taken back were")


async def test_an_unknown_compensation_ends_the_run_stopped_and_says_so(site: Site) -> None:
    letter = {**TOOLS[1], "compensate": {"tool": "fail_once", "with": {"to": "args.to"}}}
    tools = [TOOLS[0], letter, *TOOLS[2:], {"python": "tests.support.toolkit:fail_once"}]
    write(site, tools=tools, people={"expires": "1s"})

    result, _ = await stopped(site)

    assert result.status is RunStatus.STOPPED
    assert (result.reason or "").startswith("stopped by ann@example.com: wrong customer; 1 of 3 calls ")
    assert "it is unknown whether this happened: fail_once to=ann" in (result.reason or "")
    assert [entry.tool for entry in result.uncertain] == ["fail_once"]


async def test_one_result_that_is_gone_costs_that_call_only(site: Site) -> None:
    big = {
        "python": "tests.support.toolkit:big",
        "effect": "idempotent",
        "compensate": {"tool": "write_note", "with": {"text": "result"}},
    }
    turns = [{"call": [{"big": {"size": 500}}, *DONE]}, WAITS, {"say": "done"}]
    site.write("undone", turns, tools=[*TOOLS, big], policy=ALLOW_ALL)

    async with site.serving():
        handle = await site.start("undone")
        await until_busy(handle)
        answers = (await queries.ask(handle, "progress", dict))["effects"]["count"]
        # Else it might go on, and be over, before it is told to stop.
        await send_update(handle, "pause", BY)
        LET_GO.add(handle.id)
    with sqlite3.connect(site.settings.store.removeprefix("sqlite:///")) as store:
        store.execute("delete from blobs where instr(content, x'3030303030303030300a') = 1")
    async with site.serving():
        await stop(handle, STOP)
        result = await handle.result()

    assert answers == 4
    assert "; 3 of 4 calls that can be taken back were; not: big size=500 (" in (result.reason or "")


async def test_many_large_results_of_remote_activities_fit_into_a_run(tmp_path: Path) -> None:
    @activity.defn(name="Book")
    async def book(whole: dict[str, Any]) -> str:
        return "x" * 200_000

    @activity.defn(name="Unbook")
    async def unbook(whole: dict[str, Any]) -> str:
        return "unbooked"

    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    entry = {"input_schema": schema, "effect": "once", "result_limit": 256}
    async with run_private_server(extra_dynamic_config={"limit.historyCount.suggestContinueAsNew": "60"}) as server:
        site = new_site(tmp_path, await connect(address=server.address))
        queue = f"{site.queue}-remote"
        tools = [
            {**entry, "activity": {"name": "Book", "task_queue": queue}, "name": "book", "compensate": "unbook"},
            {**entry, "activity": {"name": "Unbook", "task_queue": queue}, "name": "unbook"},
            {"python": "tests.support.toolkit:look"},
        ]
        turns = [{"call": [{"book": {"n": 2 * n}}, {"book": {"n": 2 * n + 1}}]} for n in range(6)]
        site.write("undone", [*turns, WAITS, {"say": "done"}], tools=tools, policy=ALLOW_ALL)
        async with Worker(site.client, task_queue=queue, activities=[book, unbook]):
            result, _ = await stopped(site)

    assert (result.reason or "").endswith("; 12 of 12 calls that can be taken back were")


async def test_its_answer_survives_continue_as_new(tmp_path: Path) -> None:
    async with run_private_server(extra_dynamic_config={"limit.historyCount.suggestContinueAsNew": "40"}) as server:
        people = str(write_people(tmp_path))
        site = new_site(tmp_path, await connect(address=server.address), MANDATE_PEOPLE=people)
        checks = [{"after": "final", "python": "tests.support.toolkit:is_true_in_the_end"}]
        turns = [{"call": DONE}, {"say": "THE ANSWER"}]
        site.write("undone", turns, tools=TOOLS, checks=checks, policy=[*ALLOW_ALL, ASK])
        async with site.serving():
            handle = await site.start("undone")
            await until_it(handle, "verify_result")
            await stop(handle, STOP)
            LET_GO.add(handle.id)
            for request in await asked(handle, 3):
                await decide(handle, request)
            result = await handle.result()

    assert (result.status, result.output) == (RunStatus.STOPPED, "THE ANSWER")


@pytest.mark.parametrize("verb", ["update", "signal"])
async def test_reject_all_of_nothing_that_can_be_rejected_is_refused(site: Site, verb: str) -> None:
    site.write("lost", [{"call": [{"send": {"to": "ann", "lose_reply": True}}]}, {"say": "done"}], tools=TOOLS)

    async with site.serving():
        handle = await site.start("lost")
        (request,) = await asked(handle)
        every = {"request": "*", "choice": "reject", **BY}
        if verb == "update":
            said = await refusal_of(handle, "decide", every)
        else:
            await handle.signal("decide", every)
            async with asyncio.timeout(30):
                while not (refused := (await queries.ask(handle, "open_requests", dict)).get("refused")):
                    await asyncio.sleep(0.05)
            said = refused[0]["reason"]
        await decide(handle, request, "stop")
        await handle.result()

    assert said == "the run has no open approvals or questions, only outcomes"
