"""Messages sent as signals: those that count do what the updates do, those that do not stand where people look."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.common import RawValue

from mandate.workers.client import queries
from mandate.workflows.contracts.run import Progress, RunStatus
from tests.support.agents import Site, conversation, new_site
from tests.support.people import ASK_ALL, asked, decide, decision, open_requests, send_update, write_people
from tests.support.toolkit import calls_of, held

Handle = WorkflowHandle[Any, Any]
Via = Literal["signal", "update"]

PAY = [{"call": [{"pay": {"order": 1, "amount": 120.0}}]}, {"say": "done"}]
PAY_TWICE = [{"call": [{"pay": {"order": 1}}, {"pay": {"order": 2}}]}, {"say": "done"}]
ANN = {"by": "ann@example.com"}

both_ways = pytest.mark.parametrize("via", ["signal", "update"])


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))


async def tell(handle: Handle, via: Via, verb: str, said: Mapping[str, Any]) -> None:
    """Send a message; a signal is taken in before any query or update that follows it."""
    if via == "signal":
        await handle.signal(verb, said)
    else:
        await send_update(handle, verb, said)


async def recent(handle: Handle) -> tuple[str, ...]:
    return (await queries.ask(handle, "progress", Progress)).recent


async def details(handle: Handle) -> list[str]:
    """The lines of the current details, as the Web UI and `temporal workflow metadata` have them."""
    metadata = await handle.query("__temporal_workflow_metadata", result_type=RawValue)
    text: str = json.loads(metadata.payload.data)["currentDetails"]
    return text.splitlines()


async def status_of(handle: Handle, wanted: str) -> str:
    """`AgentStatus` in lists, once it is this."""
    async with asyncio.timeout(30):
        while True:
            found = {pair.key.name: pair.value for pair in (await handle.describe()).typed_search_attributes}
            if found.get("AgentStatus") == wanted:
                return wanted
            await asyncio.sleep(0.05)


@both_ways
async def test_words_reach_the_model_at_the_next_step(site: Site, via: Via) -> None:
    site.write("steered", PAY, policy=ASK_ALL)

    async with site.serving():
        handle = await site.start("steered")
        (request,) = await asked(handle)
        await tell(handle, via, "steer", {**ANN, "text": "Be brief."})
        shown = await recent(handle)
        await decide(handle, request)
        result = await handle.result()
        refusals = (await open_requests(handle)).refusals

    users = [message for message in await conversation(site, result.head or "") if message.role == "user"]
    assert [part.text for message in users for part in message.parts][-1] == "[ann@example.com says] Be brief."
    assert shown[-1] == "step 1: ann@example.com says: Be brief."
    assert (result.status, refusals) == (RunStatus.COMPLETED, 0)


@both_ways
async def test_a_pause_lets_nothing_begin_and_a_resume_lets_it_go_on(site: Site, via: Via) -> None:
    site.write("paused", PAY, policy=ASK_ALL)

    async with site.serving():
        handle = await site.start("paused")
        (request,) = await asked(handle)
        await tell(handle, via, "pause", {**ANN, "reason": "lunch"})
        paused = await status_of(handle, "paused")
        await decide(handle, request)
        await asyncio.sleep(0.5)
        before = calls_of(handle.id)
        shown = await recent(handle)
        await tell(handle, via, "resume", {"by": "bob@example.com"})
        result = await handle.result()
        told, refusals = await recent(handle), (await open_requests(handle)).refusals

    assert (paused, before) == ("paused", [])
    assert "step 1: paused by ann@example.com: lunch" in shown
    assert "step 1: resumed by bob@example.com" in told
    assert len(calls_of(handle.id, "pay")) == result.effects.count == 1
    assert (result.status, refusals) == (RunStatus.COMPLETED, 0)


@both_ways
async def test_a_stop_finishes_the_call_in_hand_and_begins_no_other(site: Site, via: Via) -> None:
    site.write("stopped", PAY_TWICE)

    async with site.serving():
        with held("pay"):
            handle = await site.start("stopped")
            async with asyncio.timeout(30):
                while not calls_of(handle.id):
                    await asyncio.sleep(0.05)
            await tell(handle, via, "stop", {**ANN, "reason": "enough"})
            # What was sent as a signal has been taken in before a query is answered.
            await recent(handle)
        result = await handle.result()
        refusals = (await open_requests(handle)).refusals

    assert (result.status, result.reason) == (RunStatus.STOPPED, "stopped by ann@example.com: enough")
    assert [call.arguments["order"] for call in calls_of(handle.id)] == [1]
    assert calls_of(handle.id)[0].ended is not None
    assert (result.effects.count, refusals) == (1, 0)


@both_ways
async def test_a_stop_withdraws_what_is_asked(site: Site, via: Via) -> None:
    site.write("stopped", PAY, policy=ASK_ALL)

    async with site.serving():
        handle = await site.start("stopped")
        await asked(handle)
        await tell(handle, via, "stop", {**ANN, "reason": "enough"})
        result = await handle.result()
        found = await open_requests(handle)

    assert (result.status, result.reason) == (RunStatus.STOPPED, "stopped by ann@example.com: enough")
    assert (found.requests, [(one.id, one.outcome) for one in found.closed]) == ((), [("r1", "withdrawn")])
    assert calls_of(handle.id) == []


async def test_a_signal_that_does_not_count_stands_in_the_current_details(site: Site) -> None:
    """With its sentence, in which nothing is left that Markdown or HTML would read."""
    site.write("asks", PAY, policy=ASK_ALL)

    async with site.serving():
        handle = await site.start("asks", requester="eve@example.com")
        (request,) = await asked(handle)
        before = await details(handle)
        await handle.signal("decide", decision(request, by="eve@example.com"))
        one = await details(handle)
        await handle.signal("decide", decision(request, "<b>`x`*</b>"))
        await handle.signal("stop", {"reason": "enough"})
        three = await details(handle)
        await decide(handle, request)
        result = await handle.result()

    assert not any("did not count" in line for line in before)
    assert after_heading(one, 1) == [
        "- `r1` `approve` by `eve@example.com`: by: 'eve@example.com' asked for this run and cannot decide for it"
    ]
    assert after_heading(three, 3) == [
        "- `?` `stop` by `?`: by: is missing (allowed keys: by, reason, tree, keep)",
        "- `r1` `<b>'x'*</b>` by `ann@example.com`: choice: '\\<b\\>\\`x\\`\\*\\</b\\>' is not one of approve, reject",
        *after_heading(one, 1),
    ]
    assert result.effects.count == 1


async def test_current_details_show_the_last_five_signals_that_did_not_count(site: Site) -> None:
    site.write("asks", PAY, policy=ASK_ALL)

    async with site.serving():
        handle = await site.start("asks")
        (request,) = await asked(handle)
        for number in range(1, 8):
            await handle.signal("decide", decision(request, f"maybe{number}"))
        shown = await details(handle)
        await decide(handle, request)
        await handle.result()
        at_the_end = await details(handle)

    lines = [
        f"- `r1` `maybe{number}` by `ann@example.com`: choice: 'maybe{number}' is not one of approve, reject"
        for number in (7, 6, 5, 4, 3)
    ]
    assert after_heading(shown, 7) == lines
    assert after_heading(at_the_end, 7) == lines


def after_heading(shown: list[str], count: int) -> list[str]:
    """The list of decisions that did not count, of which there are said to be so many."""
    first = shown.index(f"Decisions that did not count: {count}, the last of them:") + 2
    return shown[first : shown.index("", first)]
