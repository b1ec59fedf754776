"""Who asks for runs on a real server: refused at once, kept by the name of the file, and told apart to the end."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleSpec,
    WorkflowFailureError,
)
from temporalio.exceptions import ApplicationError

from mandate.workflows.contracts.run import RunStatus
from tests.support.agents import Site, new_site
from tests.support.people import ASK_ALL, PEOPLE, asked, decide, decision, open_requests, refusal_of, write_people
from tests.support.toolkit import calls_of

PAY: list[Any] = [{"call": [{"pay": {"order": 1, "amount": 120.0}}]}, {"say": "done"}]
OPENS = "(`requester: anyone` in the agent file lets anybody ask)"
MISSING = f"start request: requester: is missing; a run of 'asks' wants a name or address of the file of people {OPENS}"


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    site = new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))
    site.write("asks", PAY, policy=ASK_ALL)
    return site


GONE = (
    "requester: 'ann@example.com' asked for this run and is not in the file of people, so only 'reject' can be chosen; "
    "put the name there, as an address if the person has another name now"
)


NOBODY = (
    "requester: the start of this run does not say who asks, so only 'reject' can be chosen; start it again with a "
    "requester of the file of people"
)

BOTH = ("ann@example.com", "bob@example.com")


def unknown(name: str) -> str:
    return (
        f"start request: requester: {name!r} is not in the file of people; it must be a name or address there {OPENS}"
    )


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({}, MISSING),
        ({"requester": None}, MISSING),
        ({"requester": "Ann Example <ann@example.com>"}, unknown("Ann Example <ann@example.com>")),
        ({"requester": "ann@example.com\u200b"},
         "start request: requester: 'ann@example.com\\u200b' holds characters that cannot be seen"),
        ({"requester": " ann@example.com"},
         "start request: requester: ' ann@example.com' must be 1 to 200 characters without spaces around it"),
    ],
)  # fmt: skip
async def test_a_start_by_nobody_who_is_known_fails_at_once(site: Site, keys: dict[str, Any], says: str) -> None:
    site.write("asks", PAY, policy=ASK_ALL, requester="required")
    async with site.serving():
        handle = await site.client.start_workflow(
            "AgentWorkflow", {"agent": "asks", "input": "Go on.", **keys}, id=f"n-{site.queue}", task_queue=site.queue
        )
        with pytest.raises(WorkflowFailureError) as failed:
            await asyncio.wait_for(handle.result(), 10)

    assert isinstance(failed.value.cause, ApplicationError)
    assert failed.value.cause.type == "BadInput"
    assert failed.value.cause.message == says


@pytest.mark.parametrize(
    ("requester", "says"),
    [
        (
            None,
            NOBODY,
        ),
        ("Ann Example <ann@example.com>", GONE.replace("ann@example.com", "Ann Example <ann@example.com>")),
    ],
)
async def test_what_nobody_known_asked_for_can_only_be_rejected(site: Site, requester: str | None, says: str) -> None:
    """Whoever leaves their name out, or spells it otherwise, cannot approve what they asked for."""
    async with site.serving():
        handle = await site.start("asks", requester=requester)
        (request,) = await asked(handle)
        refused = [await refusal_of(handle, "decide", decision(request, by=by)) for by in BOTH]
        receipt = await decide(handle, request, "reject", by="bob@example.com")
        await handle.result()

    assert refused == [says, says]
    assert receipt.status == "rejected"
    assert calls_of(handle.id, "pay") == []


async def test_a_run_keeps_the_name_of_the_file_wherever_it_names_who_asked(site: Site) -> None:
    async with site.serving():
        handle = await site.start("asks", requester="ANN")
        (request,) = await asked(handle)
        told = await open_requests(handle)
        attributes = (await handle.describe()).typed_search_attributes
        own = [await refusal_of(handle, "decide", decision(request, by=by)) for by in ("ann@example.com", "Ann")]
        await decide(handle, request, by="bob@example.com")
        result = await handle.result()

    assert told.requester == "ann@example.com"
    assert {pair.key.name: pair.value for pair in attributes}["AgentRequester"] == "ann@example.com"
    assert own == [
        "by: 'ann@example.com' asked for this run and cannot decide for it",
        "by: 'Ann' is 'ann@example.com', who asked for this run and cannot decide for it",
    ]
    assert result.status is RunStatus.COMPLETED


@pytest.mark.parametrize("rule", [{}, {"quorum": 1}, {"approvers": None}])
async def test_where_anyone_may_ask_a_requester_who_is_named_still_decides_nothing(
    site: Site, rule: dict[str, Any]
) -> None:
    policy = [{key: value for key, value in {**ASK_ALL[0], **rule}.items() if value is not None}, ASK_ALL[1]]
    site.write("open", PAY, policy=policy, requester="anyone")

    async with site.serving():
        handle = await site.start("open", requester="ann")
        (request,) = await asked(handle)
        own = await refusal_of(handle, "decide", decision(request, by="ann@example.com"))
        await handle.terminate()
        nobody = await site.start("open", requester=None)
        (request,) = await asked(nobody)
        receipt = await decide(nobody, request, by="ann@example.com")
        await nobody.result()

    assert own == "by: 'ann@example.com' asked for this run and cannot decide for it"
    assert receipt.status == "approved"


async def test_who_gets_another_name_does_not_approve_the_own_run(site: Site) -> None:
    others = [one for one in PEOPLE["people"] if one["name"] != "ann@example.com"]
    renamed = {"people": [*others, {"name": "ann.smith@example.com", "groups": ["finance"]}]}
    mended = {"people": [*others, {**renamed["people"][-1], "addresses": ["ann@example.com"]}]}

    async with site.serving():
        handle = await site.start("asks", requester="ann@example.com")
        (request,) = await asked(handle)
        write_people(site.folder, renamed)
        own = await refusal_of(handle, "decide", decision(request, by="ann.smith@example.com"))
        other = await refusal_of(handle, "decide", decision(request, by="bob@example.com"))
        write_people(site.folder, mended)
        known = await refusal_of(handle, "decide", decision(request, by="ann.smith@example.com"))
        before = calls_of(handle.id, "pay")
        await decide(handle, request, by="bob@example.com")
        await handle.result()

    assert own == other == GONE
    assert known == "by: 'ann.smith@example.com' is 'ann@example.com', who asked for this run and cannot decide for it"
    assert before == []
    assert len(calls_of(handle.id, "pay")) == 1


async def test_what_is_asked_for_somebody_who_left_can_still_be_rejected(site: Site) -> None:
    async with site.serving():
        handle = await site.start("asks")
        (request,) = await asked(handle)
        write_people(site.folder, {"people": [one for one in PEOPLE["people"] if one["name"] != "eve@example.com"]})
        receipt = await decide(handle, request, "reject", by="bob@example.com")
        result = await handle.result()

    assert receipt.status == "rejected"
    assert result.status is RunStatus.COMPLETED
    assert calls_of(handle.id, "pay") == []


async def test_a_file_that_is_broken_holds_the_start_until_it_is_mended(site: Site) -> None:
    site.write("asks", PAY, policy=ASK_ALL, requester="required")
    async with site.serving():
        (site.folder / "people.yaml").write_text("people: 3")
        known, nobody = await site.start("asks"), await site.start("asks", requester=None)
        await asyncio.sleep(1.0)
        begun = [(await handle.describe()).status for handle in (known, nobody)]
        write_people(site.folder)
        (request,) = await asked(known)
        with pytest.raises(WorkflowFailureError) as failed:
            await nobody.result()
        await known.terminate()

    assert [status.name for status in begun if status] == ["RUNNING", "RUNNING"]
    assert request.id == "r1"
    assert isinstance(failed.value.cause, ApplicationError)
    assert failed.value.cause.message == MISSING


async def test_a_schedule_asks_under_the_name_that_it_gives(site: Site) -> None:
    name = f"nightly-{site.queue}"
    action = ScheduleActionStartWorkflow(
        "AgentWorkflow",
        {"agent": "asks", "input": "Go on.", "requester": "dan@example.com"},
        id=name,
        task_queue=site.queue,
    )
    schedule = await site.client.create_schedule(name, Schedule(action=action, spec=ScheduleSpec()))
    try:
        async with site.serving():
            await schedule.trigger()
            async with asyncio.timeout(30):
                while not (actions := (await schedule.describe()).info.recent_actions):
                    await asyncio.sleep(0.1)
            started: Any = actions[-1].action
            handle = site.client.get_workflow_handle(started.workflow_id)
            (request,) = await asked(handle)
            own = await refusal_of(handle, "decide", decision(request, by="dan@example.com"))
            await handle.terminate()
    finally:
        await schedule.delete()

    assert own == "by: 'dan@example.com' asked for this run and cannot decide for it"
