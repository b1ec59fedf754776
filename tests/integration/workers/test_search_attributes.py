"""Search attributes: made where that is allowed, asked for where it is not, and done without."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCStatusCode

from mandate.workers import search_attributes
from mandate.workers.client import inbox
from mandate.workers.client.client import AgentClient, connect
from mandate.workers.dev_server.server import DevServer, run_private_server
from mandate.workers.search_attributes import WrongSearchAttribute
from mandate.workers.worker import open_worker
from mandate.workflows.contracts.request import Decision
from mandate.workflows.contracts.run import RunStatus
from tests.support.agents import Site, new_site
from tests.support.guarded_client import ADDING, LISTING, GuardedClient
from tests.support.people import ASK_ALL, asked, decision, write_people
from tests.support.processes import processes
from tests.support.temporal_cli import new_shell

KEYWORD = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
LIST = IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD_LIST
DOUBLE = IndexedValueType.INDEXED_VALUE_TYPE_DOUBLE
INT = IndexedValueType.INDEXED_VALUE_TYPE_INT

OURS = {
    "AgentName": KEYWORD,
    "AgentVersion": KEYWORD,
    "AgentStatus": KEYWORD,
    "AgentRequester": KEYWORD,
    "AgentWaitingFor": LIST,
    "AgentLabels": LIST,
    "AgentCostUsd": DOUBLE,
}

REFUSALS = (RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNIMPLEMENTED)

PAY = [{"call": [{"pay": {"order": 1, "amount": 120.0}}]}, {"say": "done"}]


@pytest.fixture
async def server() -> AsyncIterator[DevServer]:
    """A server of this test alone, which has none of our search attributes."""
    async with run_private_server() as started:
        yield started


@pytest.fixture
async def owner(server: DevServer) -> Client:
    """A client that may do everything."""
    return await connect(address=server.address)


def new_payer(folder: Path, client: Client) -> Site:
    site = new_site(folder, client, MANDATE_PEOPLE=str(write_people(folder)))
    site.write("payer", PAY, policy=ASK_ALL)
    return site


async def add(client: Client, types: Mapping[str, Any]) -> None:
    request = AddSearchAttributesRequest(namespace=client.namespace, search_attributes=types)
    await client.operator_service.add_search_attributes(request)


async def existing(client: Client) -> dict[str, int]:
    request = ListSearchAttributesRequest(namespace=client.namespace)
    return dict((await client.operator_service.list_search_attributes(request)).custom_attributes)


async def set_on(handle: WorkflowHandle[Any, Any]) -> set[str]:
    """Those of ours that a run has set."""
    return {pair.key.name for pair in (await handle.describe()).typed_search_attributes} & OURS.keys()


async def test_missing_ones_are_created_and_others_left_alone(owner: Client) -> None:
    await add(owner, {"Theirs": INT, "AgentName": KEYWORD})

    with capture_logs() as logs:
        names = await search_attributes.ensure(owner)
        again = await search_attributes.ensure(GuardedClient(owner, ADDING))

    assert names == again == tuple(OURS)
    assert await existing(owner) == {**OURS, "Theirs": INT}
    assert logs == []


async def test_workers_that_start_together_all_have_them(server: DevServer, owner: Client) -> None:
    clients = [await connect(address=server.address) for _ in range(6)]

    with capture_logs() as logs:
        names = await asyncio.gather(*map(search_attributes.ensure, clients))

    assert names == [tuple(OURS)] * 6
    assert await existing(owner) == OURS
    assert logs == []


@pytest.mark.parametrize(
    ("name", "kind", "word"),
    [
        ("AgentStatus", INT, "Keyword"),
        ("AgentStatus", DOUBLE, "Keyword"),
        ("AgentWaitingFor", KEYWORD, "KeywordList"),
        ("AgentCostUsd", KEYWORD, "Double"),
    ],
)
async def test_a_wrong_type_keeps_a_worker_from_opening(
    tmp_path: Path, owner: Client, name: str, kind: Any, word: str
) -> None:
    await add(owner, {name: kind})
    site = new_payer(tmp_path, owner)

    with pytest.raises(WrongSearchAttribute) as refused:
        async with open_worker(owner, site.settings):
            pass

    assert str(refused.value) == f"search attribute {name!r} exists, but is not a {word}; remove or rename it"
    assert await existing(owner) == {name: kind}


async def test_a_wrong_type_ends_the_command_with_its_sentence(
    tmp_path: Path, server: DevServer, owner: Client
) -> None:
    await add(owner, {"AgentStatus": INT})
    new_payer(tmp_path, owner)
    settings = {"MANDATE_FOLDER": str(tmp_path), "MANDATE_AGENTS": str(tmp_path / "agents")}

    with processes(tmp_path / "processes", TEMPORAL_ADDRESS=server.address, **settings) as started:
        worker = started.mandate("worker")
        code = await worker.ended()

    assert (code, worker.stdout()) == (2, "")
    assert worker.stderr().splitlines()[-1] == (
        "error: search attribute 'AgentStatus' exists, but is not a Keyword; remove or rename it"
    )


@pytest.mark.parametrize("status", REFUSALS)
async def test_who_may_not_create_them_is_told_the_commands_and_they_work(
    tmp_path: Path, server: DevServer, owner: Client, status: RPCStatusCode
) -> None:
    await add(owner, {"AgentName": KEYWORD, "AgentCostUsd": DOUBLE})
    shell = new_shell(server, tmp_path / "bin")
    barred = GuardedClient(owner, ADDING, status=status)

    with capture_logs() as logs:
        before = await search_attributes.ensure(barred)
        (warning,) = logs
        for command in warning["create_with"]:
            await shell.out(command)
        after = await search_attributes.ensure(barred)

    assert before == ("AgentName", "AgentCostUsd")
    assert after == tuple(OURS)
    assert await existing(owner) == OURS
    words = {KEYWORD: "Keyword", LIST: "KeywordList", DOUBLE: "Double"}
    missing = [name for name in OURS if name not in before]
    assert (warning["event"], warning["log_level"], warning["names"]) == (
        "search_attributes_missing",
        "warning",
        missing,
    )
    assert warning["create_with"] == [
        f"temporal operator search-attribute create --name {name} --type {words[OURS[name]]}" for name in missing
    ]
    assert logs == [warning]


@pytest.mark.parametrize("status", REFUSALS)
async def test_who_may_not_even_look_sets_none_and_says_so(owner: Client, status: RPCStatusCode) -> None:
    with capture_logs() as logs:
        names = await search_attributes.ensure(GuardedClient(owner, LISTING, status=status))

    assert names == ()
    assert await existing(owner) == {}
    said = {"event": "search_attributes_unknown", "reason": "not for you", "effect": "runs set none"}
    assert logs == [{**said, "log_level": "warning"}]


async def test_a_run_sets_those_for_which_the_server_has_room(tmp_path: Path, owner: Client) -> None:
    """Its store of lists takes three, and somebody else has them all."""
    await add(owner, dict.fromkeys(("A", "B", "C"), LIST))
    site = new_payer(tmp_path, owner)

    with capture_logs() as logs:
        async with site.serving():
            handle = await site.start("payer", requester="eve@example.com", labels={"team": "support"})
            (request,) = await asked(handle)
            finance = await found(site.agents, handle.id, group="finance")
            legal = await site.agents.inbox(group="legal")
            receipt = await site.agents.decide(handle.id, Decision(**decision(request)))
            result = await handle.result()

    assert [line["names"] for line in logs if line["event"] == "search_attributes_missing"] == [
        ["AgentWaitingFor", "AgentLabels"]
    ]
    assert await set_on(handle) == OURS.keys() - {"AgentWaitingFor", "AgentLabels"}
    assert finance.scanned
    assert [(run.workflow_id, run.requests) for run in finance.runs] == [(handle.id, (request,))]
    assert legal.runs == ()
    assert receipt.status == "approved"
    assert (result.status, result.effects.count) == (RunStatus.COMPLETED, 1)


async def test_a_run_without_any_is_found_by_a_scan_and_decided(
    tmp_path: Path, server: DevServer, owner: Client
) -> None:
    """Its worker may neither list nor create them; later somebody does, and lists do not have the run all the same."""
    site = new_payer(tmp_path, GuardedClient(owner, LISTING, ADDING))
    desk = {
        "TEMPORAL_ADDRESS": server.address,
        "MANDATE_FOLDER": str(tmp_path),
        "MANDATE_PEOPLE": site.environment["MANDATE_PEOPLE"],
        "MANDATE_USER": "ann@example.com",
    }

    async with site.serving():
        handle = await site.start("payer", requester="eve@example.com")
        (request,) = await asked(handle)
        at_first = await found(AgentClient(owner), handle.id, agent="payer", group="finance")
        await search_attributes.ensure(owner)
        listed = await listed_by_attributes(owner)
        scanned = await inbox.read_inbox(owner, agent="payer", group="finance", scan=True)
        with processes(tmp_path / "processes", **desk) as started:
            plain = await said(started.mandate("inbox"))
            whole = await said(started.mandate("inbox", "--scan"))
            done = await said(started.mandate("approve", "1"))
        result = await handle.result()

    assert (at_first.scanned, [run.requests for run in at_first.runs]) == (True, [(request,)])
    assert (listed.scanned, listed.runs) == (False, ())
    assert [run.requests for run in scanned.runs] == [(request,)]
    assert plain == "nothing is open\n"
    assert f"  {handle.id}:r1  payer  finance    pay order=1 amount=120.0?\n" in whole
    assert done == f"1 ({handle.id}:r1)  r1 is approved: ann@example.com approved it\n"
    assert await set_on(handle) == set()
    assert (result.status, result.effects.count) == (RunStatus.COMPLETED, 1)


async def found(agents: AgentClient, workflow_id: str, **wanted: str) -> inbox.Inbox:
    """The inbox, once the run is listed: what starts is listed a moment later."""
    async with asyncio.timeout(30):
        while True:
            box = await agents.inbox(**wanted)
            if workflow_id in [run.workflow_id for run in box.runs]:
                return box
            await asyncio.sleep(0.1)


async def listed_by_attributes(client: Client) -> inbox.Inbox:
    """The inbox, once the server takes queries by attributes that have just been made."""
    async with asyncio.timeout(30):
        while (box := await inbox.read_inbox(client)).scanned:
            await asyncio.sleep(0.1)
    return box


async def said(process: Any) -> str:
    """What a command that succeeds prints."""
    assert await process.ended() == 0, process.stderr()
    output: str = process.stdout()
    return output
