"""What a stopped run did is taken back: the last call first, by policy and by people, and never on a guess."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle

from mandate.workers.client.client import connect
from mandate.workers.dev_server.server import run_private_server
from mandate.workflows.contracts.run import RunResult, RunStatus
from tests.support.agents import ALLOW_ALL, Site, conversation, new_site, parts_taken, results_told
from tests.support.people import asked, decide, send_update, stop, write_people
from tests.support.toolkit import LET_GO, calls_of, held

BY = {"by": "ann@example.com"}
STOP = {**BY, "reason": "wrong customer"}
TOOLS: list[dict[str, Any]] = [
    {
        "python": "tests.support.toolkit:pay",
        "compensate": {"tool": "give_back", "with": {"order": "args.order", "paid": "result.paid", "key": "key"}},
    },
    {"python": "tests.support.toolkit:send", "compensate": {"tool": "write_note", "with": {"text": "args.to"}}},
    {"python": "tests.support.toolkit:give_back"},
    {"python": "tests.support.toolkit:write_note"},
    {"python": "tests.support.toolkit:look"},
]
DONE = [{"pay": {"order": 1, "amount": 20}}, {"send": {"to": "ann"}}, {"pay": {"order": 2, "amount": 30}}]
WAITS = {"call": [{"look": {"what": "x", "held": True}}]}
ASK = {
    "id": "back",
    "match": {"tools": ["give_back", "write_note"]},
    "verdict": "ask",
    "approvers": {"groups": ["finance"]},
}


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))


def write(site: Site, *more: Any, policy: list[dict[str, Any]] | None = None, **keys: Any) -> None:
    """An agent that makes three calls and is then busy until it is let go."""
    turns = [{"call": DONE}, *(more or (WAITS,)), {"say": "done"}]
    site.write("undone", turns, **{"tools": TOOLS, "policy": policy or ALLOW_ALL, **keys})


async def until_busy(handle: WorkflowHandle[Any, Any], tool: str = "look") -> None:
    async with asyncio.timeout(30):
        while not calls_of(handle.id, tool):
            await asyncio.sleep(0.05)


async def stopped(site: Site, tool: str = "look") -> tuple[RunResult, str]:
    async with site.serving():
        handle = await site.start("undone")
        await until_busy(handle, tool)
        told = await stop(handle, STOP)
        assert told["message"] == (
            "the call in hand is finished, then what it did is taken back as far as that may be, the last call first "
            "(pay order=2 amount=30.0; send to=ann; pay order=1 amount=20.0), and the run ends"
        )
        LET_GO.add(handle.id)
        return await handle.result(), handle.id


async def test_what_was_done_is_taken_back_the_last_call_first(site: Site) -> None:
    write(site)

    result, run = await stopped(site)

    first, letter, second = result.effects.last[:3]
    made = [(call.tool, call.arguments) for call in calls_of(run)[4:]]
    assert made == [
        ("give_back", {"order": 2, "paid": 30.0, "key": second.key}),
        ("write_note", {"text": "ann"}),
        ("give_back", {"order": 1, "paid": 20.0, "key": first.key}),
    ]
    assert [entry.undoes for entry in result.effects.last[3:]] == [second.key, letter.key, first.key]
    assert (result.status, result.reason) == (
        RunStatus.STOPPED,
        "stopped by ann@example.com: wrong customer; 3 of 3 calls that can be taken back were",
    )


async def test_the_conversation_says_what_was_taken_back(site: Site) -> None:
    write(site)

    result, _ = await stopped(site)

    last = [message for message in await conversation(site, result.head or "") if message.role == "assistant"][-1]
    assert (last.protocol, last.text.startswith("The run was stopped.")) == ("runtime", True)
    assert [call.tool for call in last.calls] == ["give_back", "write_note", "give_back"]


async def test_people_are_asked_where_the_policy_says_so(site: Site) -> None:
    write(site, policy=[*ALLOW_ALL, ASK])

    async with site.serving():
        handle = await site.start("undone")
        await until_busy(handle)
        await stop(handle, STOP)
        LET_GO.add(handle.id)
        requests = await asked(handle, 3)
        for request, choice in zip(requests, ("approve", "reject", "approve"), strict=True):
            await decide(handle, request, choice)
        result = await handle.result()

    assert [call.tool for call in calls_of(handle.id)[4:]] == ["give_back", "give_back"]
    assert requests[1].reason == (
        "the run was stopped, and this takes back send to=ann; rule 'back' asks people about 'write_note'"
    )
    assert (result.reason or "").endswith(
        "; 2 of 3 calls that can be taken back were; not: send to=ann (refused: ann@example.com rejected it)"
    )


async def test_a_denied_compensation_never_reaches_its_tool(site: Site) -> None:
    write(site, policy=[*ALLOW_ALL, {"id": "never", "match": {"tools": ["give_back"]}, "verdict": "deny"}])

    result, run = await stopped(site)

    assert [call.tool for call in calls_of(run)[4:]] == ["write_note"]
    assert "; 1 of 3 calls that can be taken back were; not: pay order=2 amount=30.0 (refused: rule 'never' " in (
        result.reason or ""
    )


async def test_nobody_answers_and_the_run_ends_all_the_same(site: Site) -> None:
    write(site, policy=[*ALLOW_ALL, {**ASK, "expires": "1s"}])

    result, run = await stopped(site)

    assert len(calls_of(run)) == 4
    assert (result.status, result.effects.count) == (RunStatus.STOPPED, 3)


async def test_a_stop_may_keep_what_was_done(site: Site) -> None:
    write(site)

    async with site.serving():
        handle = await site.start("undone")
        await until_busy(handle)
        told = await stop(handle, {**STOP, "keep": True})
        LET_GO.add(handle.id)
        result = await handle.result()

    assert told["message"] == "the call in hand is finished, then the run ends; what it did is kept"
    assert (result.status, result.reason) == (
        RunStatus.STOPPED,
        "stopped by ann@example.com: wrong customer; what it did is kept",
    )
    assert [call.tool for call in calls_of(handle.id)] == ["pay", "send", "pay", "look"]
    assert result.effects.count == 3


async def test_a_long_reason_leaves_room_for_what_became_of_it(site: Site) -> None:
    write(site)

    async with site.serving():
        handle = await site.start("undone")
        await until_busy(handle)
        await stop(handle, {**BY, "reason": "why " * 249, "keep": True})
        LET_GO.add(handle.id)
        result = await handle.result()

    assert (result.reason or "").endswith("…; what it did is kept")


async def test_a_second_stop_may_still_keep_it(site: Site) -> None:
    write(site)

    async with site.serving():
        handle = await site.start("undone")
        await until_busy(handle)
        await stop(handle, STOP)
        await stop(handle, {**BY, "keep": True})
        again = await stop(handle, {**BY, "keep": True})
        LET_GO.add(handle.id)
        result = await handle.result()

    assert again["message"] == "the run is being stopped already"
    assert (result.reason or "").endswith("stopped by ann@example.com: wrong customer; what it did is kept")
    assert len(calls_of(handle.id)) == 4


async def test_a_stop_after_one_that_keeps_it_is_told_so(site: Site) -> None:
    write(site)

    async with site.serving():
        handle = await site.start("undone")
        await until_busy(handle)
        await stop(handle, {**STOP, "keep": True})
        told = [await send_update(handle, verb, BY) for verb in ("stop", "pause", "resume")]
        LET_GO.add(handle.id)
        await handle.result()

    assert [one["message"] for one in told] == [
        "the run is being stopped already; what it did is kept",
        "the run is being stopped",
        "the run is being stopped",
    ]


async def test_a_stop_tells_that_the_call_in_hand_is_taken_back(site: Site) -> None:
    site.write("undone", [{"call": DONE[:1]}, {"say": "done"}], tools=TOOLS)

    async with site.serving():
        with held("pay"):
            handle = await site.start("undone")
            await until_busy(handle, "pay")
            told = await stop(handle, STOP)
        result = await handle.result()

    assert told["message"] == (
        "the call in hand is finished, then what it did is taken back as far as that may be, and the run ends"
    )
    assert (result.reason or "").endswith("; 1 of 1 call that can be taken back was")


async def test_a_second_stop_ends_it(site: Site) -> None:
    write(site, policy=[*ALLOW_ALL, ASK])

    async with site.serving():
        handle = await site.start("undone")
        await until_busy(handle)
        await stop(handle, STOP)
        LET_GO.add(handle.id)
        requests = await asked(handle, 3)
        await decide(handle, requests[0])
        await until_busy(handle, "give_back")
        told = await stop(handle, BY)
        result = await handle.result()

    assert told["message"] == "nothing more is taken back; the run ends"
    assert (result.reason or "").endswith(
        "wrong customer; 1 of 3 calls that can be taken back were; "
        "not: send to=ann (not made); pay order=1 amount=20.0 (not made)"
    )


async def test_nothing_is_taken_back_while_it_is_unknown_what_was_done(site: Site) -> None:
    write(site, {"call": [{"send": {"to": "bob", "lose_reply": True}}]})

    async with site.serving():
        handle = await site.start("undone")
        (request,) = await asked(handle)
        await decide(handle, request, "stop")
        result = await handle.result()

    assert [call.tool for call in calls_of(handle.id)] == ["pay", "send", "pay", "send"]
    assert [entry.call for entry in result.uncertain] == ["send to=bob lose_reply=true"]
    assert result.reason == "stopped by ann@example.com; nothing is taken back while it is unknown what was done"


async def test_a_stop_while_it_is_unknown_what_was_done_says_so(site: Site) -> None:
    write(site, {"call": [{"send": {"to": "bob", "lose_reply": True}}]})

    async with site.serving():
        handle = await site.start("undone")
        await asked(handle)
        told = await stop(handle, STOP)
        result = await handle.result()

    assert told["message"].endswith(
        "; nothing is taken back while it is unknown whether this happened: send to=bob lose_reply=true"
    )
    assert (result.reason or "").endswith("; nothing is taken back while it is unknown what was done")


async def test_calls_that_were_not_made_are_told_so_and_their_requests_withdrawn(site: Site) -> None:
    waiting = {"call": [{"look": {"what": "x"}}, {"write_note": {"text": "never"}}]}
    ask = {"id": "note", "match": {"tools": ["write_note"]}, "when": "args.text == 'never'", "verdict": "ask"}
    write(site, waiting, policy=[*ALLOW_ALL, ask])

    async with site.serving():
        handle = await site.start("undone")
        await asked(handle)
        await stop(handle, STOP)
        result = await handle.result()

    texts = [part.text for part in await results_told(site, result.head or "")]
    assert "not made: the run is being stopped" in texts
    assert [call.arguments for call in calls_of(handle.id, "write_note")] == [{"text": "ann"}]


async def test_a_call_whose_result_is_lost_is_taken_back_only_if_that_needs_no_result(site: Site) -> None:
    lost = {"call": [{"send": {"to": "bob", "lose_reply": True}}]}
    tools = [
        {**tool, "compensate": {"tool": "write_note", "with": {"text": "result"}}} if "send" in tool["python"] else tool
        for tool in TOOLS
    ]
    write(site, lost, WAITS, tools=tools)

    async with site.serving():
        handle = await site.start("undone")
        (request,) = await asked(handle)
        await decide(handle, request, "happened")
        await until_busy(handle)
        await stop(handle, STOP)
        LET_GO.add(handle.id)
        result = await handle.result()

    assert [call.arguments for call in calls_of(handle.id, "write_note")] == [{"text": "sent to ann"}]
    assert "; 3 of 4 calls that can be taken back were; not: send to=bob lose_reply=true (" in (result.reason or "")


async def test_a_paused_run_that_is_stopped_takes_it_back(site: Site) -> None:
    write(site)

    async with site.serving():
        handle = await site.start("undone")
        await until_busy(handle)
        await send_update(handle, "pause", BY)
        await stop(handle, STOP)
        LET_GO.add(handle.id)
        result = await handle.result()

    assert (result.reason or "").endswith("; 3 of 3 calls that can be taken back were")


async def test_what_takes_back_is_not_taken_back(site: Site) -> None:
    back = {"python": "tests.support.toolkit:give_back", "compensate": {"tool": "write_note", "with": {"text": "key"}}}
    write(site, tools=[back if "give_back" in tool["python"] else tool for tool in TOOLS])

    result, run = await stopped(site)

    assert [call.tool for call in calls_of(run)[4:]] == ["give_back", "write_note", "give_back"]
    assert (result.reason or "").endswith("; 3 of 3 calls that can be taken back were")


async def test_a_completed_run_takes_nothing_back(site: Site) -> None:
    site.write("undone", [{"call": DONE}, {"say": "done"}], tools=TOOLS)

    result, run = await site.run("undone")

    assert (result.status, len(calls_of(run))) == (RunStatus.COMPLETED, 3)


async def test_it_survives_continue_as_new_and_restarts(tmp_path: Path) -> None:
    async with run_private_server(extra_dynamic_config={"limit.historyCount.suggestContinueAsNew": "40"}) as server:
        people = str(write_people(tmp_path))
        site = new_site(tmp_path, await connect(address=server.address), MANDATE_PEOPLE=people)
        write(site, policy=[*ALLOW_ALL, ASK])
        async with site.serving():
            handle = await site.start("undone")
            await until_busy(handle)
            await stop(handle, STOP)
            LET_GO.add(handle.id)
            requests = await asked(handle, 3)
        async with site.serving():
            for request in requests:
                await decide(handle, request)
            result = await handle.result()
            parts = await parts_taken(site.client, handle.id)

    assert parts > 1
    assert [call.tool for call in calls_of(handle.id)[4:]] == ["give_back", "write_note", "give_back"]
    assert (result.reason or "").endswith("; 3 of 3 calls that can be taken back were")
