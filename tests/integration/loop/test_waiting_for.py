"""Whom a run waits for, as lists of runs know it, and who is heard when a timer and a decision come together."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle
from temporalio.common import SearchAttributeKey

from tests.support.agents import REQUESTER, Site, new_site
from tests.support.people import asked, decide, decision, refusal_of, send_update, write_people
from tests.support.toolkit import calls_of

PAY: list[dict[str, Any]] = [{"call": [{"pay": {"order": 1, "amount": 120}}]}, {"say": "done"}]
WAITING_FOR = SearchAttributeKey.for_keyword_list("AgentWaitingFor")
ESCALATE = {"expires": "5s", "on_expiry": {"escalate": {"groups": ["legal"], "expires": "10m"}}}


def ask(name: str, group: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "match": {"tools": ["pay"]}, "verdict": "ask", "approvers": {"groups": [group]}, **more}


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))


async def until_it_waits_for(handle: WorkflowHandle[Any, Any], *names: str) -> None:
    async with asyncio.timeout(30):
        while True:
            described = await handle.describe()
            if tuple(described.typed_search_attributes.get(WAITING_FOR) or ()) == names:
                return
            await asyncio.sleep(0.05)


async def until_inboxes_of(site: Site, handle: WorkflowHandle[Any, Any], *groups: str) -> None:
    """Returns when these groups have the run in their inboxes, and no others: lists know of a change a moment later."""
    async with asyncio.timeout(30):
        while True:
            boxes = [(group, await site.agents.inbox(group=group)) for group in ("finance", "legal")]
            if tuple(group for group, box in boxes if handle.id in [run.workflow_id for run in box.runs]) == groups:
                return
            await asyncio.sleep(0.05)


async def test_lists_follow_a_request_to_whom_it_escalates(site: Site) -> None:
    # Long enough that a busy machine sees both lists before.
    escalate = {**ESCALATE, "expires": "12s"}
    site.write("asks", PAY, policy=[ask("large", "finance", **escalate)])

    async with site.serving():
        handle = await site.start("asks")
        await until_it_waits_for(handle, "finance")
        await until_inboxes_of(site, handle, "finance")
        await until_it_waits_for(handle, "finance", "legal")
        await until_inboxes_of(site, handle, "finance", "legal")
        await decide(handle, (await asked(handle))[0], by="cleo@example.com")
        await handle.result()
        await until_it_waits_for(handle)


async def test_lists_know_who_has_done_their_part(site: Site) -> None:
    site.write("asks", PAY, policy=[ask("large", "finance"), ask("contracts", "legal")])

    async with site.serving():
        handle = await site.start("asks")
        await until_it_waits_for(handle, "finance", "legal")
        (request,) = await asked(handle)
        await decide(handle, request)
        await until_it_waits_for(handle, "legal")
        await until_inboxes_of(site, handle, "legal")
        await decide(handle, request, by="cleo@example.com")
        await handle.result()


async def test_lists_know_whom_other_arguments_need(site: Site) -> None:
    contracts = ask("contracts", "legal", when="args.amount > 500.0")
    site.write("asks", PAY, policy=[ask("large", "finance"), contracts])

    async with site.serving():
        handle = await site.start("asks")
        await until_it_waits_for(handle, "finance")
        (request,) = await asked(handle)
        await decide(handle, request, value={"order": 1, "amount": 501})
        await until_it_waits_for(handle, "finance", "legal")


@pytest.mark.parametrize("via", ["signal", "update"])
async def test_who_may_decide_by_then_is_heard_in_the_task_in_which_the_timer_fires(site: Site, via: str) -> None:
    """While no worker ran the request went on to legal, and legal approved it."""
    site.write("asks", PAY, policy=[ask("large", "finance", **ESCALATE)])
    async with site.serving():
        handle = await site.start("asks")
        (request,) = await asked(handle)
    await asyncio.sleep(max(0.0, request.requested_at.timestamp() + 5.5 - time.time()))

    approval = decision(request, by="cleo@example.com")
    if via == "signal":
        await handle.signal("decide", approval)
        async with site.serving():
            result = await handle.result()
    else:
        update = asyncio.create_task(send_update(handle, "decide", approval))
        await asyncio.sleep(0.5)
        async with site.serving():
            await update
            result = await handle.result()

    assert result.effects.count == 1


async def test_a_person_counts_once_under_whatever_name(site: Site) -> None:
    """Between two decisions the file of people gives ann another name."""
    site.write("asks", PAY, policy=[ask("large", "finance", quorum=2)])
    renamed = {
        "people": [
            {"name": "ann.smith@example.com", "addresses": ["ann@example.com"], "groups": ["finance"]},
            {"name": "bob@example.com", "groups": ["finance"]},
            {"name": REQUESTER},
        ]
    }

    async with site.serving():
        handle = await site.start("asks")
        (request,) = await asked(handle)
        await decide(handle, request)
        write_people(site.folder, renamed)
        again = await refusal_of(handle, "decide", decision(request, by="ann.smith@example.com"))
        await decide(handle, request, by="bob@example.com")
        await handle.result()

    assert again == "by: 'ann.smith@example.com' has decided on r1 already, as 'ann@example.com'"
    assert len(calls_of(handle.id, "pay")) == 1
