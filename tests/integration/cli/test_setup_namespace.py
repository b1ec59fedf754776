"""`mandate setup-namespace`: what it makes, what it leaves alone, and what it says when it cannot."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from mandate.workers import namespaces, search_attributes
from mandate.workers.client.client import AgentClient, connect
from mandate.workers.dev_server.server import DevServer, run_private_server
from tests.support.agents import new_site
from tests.support.guarded_client import ADDING, LISTING, GuardedClient
from tests.support.ports import free_port
from tests.support.processes import Processes, processes

NAMES = ["AgentName", "AgentVersion", "AgentStatus", "AgentRequester", "AgentWaitingFor", "AgentLabels", "AgentCostUsd"]
INT = IndexedValueType.INDEXED_VALUE_TYPE_INT


@pytest.fixture
async def server() -> AsyncIterator[DevServer]:
    """A server of this test alone, which has none of our search attributes."""
    async with run_private_server() as started:
        yield started


@pytest.fixture
def typing(tmp_path: Path, server: DevServer) -> Any:
    with processes(tmp_path / "processes", TEMPORAL_ADDRESS=server.address) as started:
        yield started


async def said(typing: Processes, *words: str) -> tuple[int, str, str]:
    process = typing.mandate("setup-namespace", *words)
    code = await process.ended()
    return code, process.stdout(), process.stderr()


async def test_namespace_is_made_once_and_runs_are_found_there_at_once(
    tmp_path: Path, typing: Processes, server: DevServer
) -> None:
    first = await said(typing, "-n", "shop", "--retention", "3d", "-o", "json")
    client = await connect(address=server.address, namespace="shop")
    # Queries by all of them, without waiting for anything.
    found = await client.count_workflows("AgentName = 'x' AND AgentLabels = 'x' AND AgentCostUsd > 1")
    site = new_site(tmp_path, client)
    site.write("clerk", [{"say": "done"}])
    result, _ = await site.run("clerk")
    second = await said(typing, "-n", "shop")

    assert json.loads(first[1]) == {
        "address": server.address,
        "namespace": {"name": "shop", "state": "made", "retention": "3d"},
        "search_attributes": [
            {"name": name, "type": word, "state": "made"}
            for name, word in zip(NAMES, [*["Keyword"] * 4, "KeywordList", "KeywordList", "Double"], strict=True)
        ],
    }
    assert (first[0], first[2]) == (0, "")
    assert found.count == 0
    assert result.status == "completed"
    assert second[0] == 0
    assert second[1].splitlines()[0] == f"namespace shop at {server.address}: there, keeps closed runs for 3d"
    assert [line.split()[::2] for line in second[1].splitlines()[1:]] == [[name, "there"] for name in NAMES]


async def test_what_is_there_is_left_alone(typing: Processes, server: DevServer) -> None:
    client = await connect(address=server.address)
    await search_attributes.create(client, ["AgentName", "AgentLabels"])

    code, out, err = await said(typing, "--retention", "2h", "-o", "json")

    states = {one["name"]: one["state"] for one in json.loads(out)["search_attributes"]}
    assert code == 0
    assert {name for name, state in states.items() if state == "there"} == {"AgentName", "AgentLabels"}
    assert json.loads(out)["namespace"] == {"name": "default", "state": "there", "retention": "30d"}
    assert err == (
        "--retention 2h changes nothing, since the namespace was there; "
        "`temporal operator namespace update -n default --retention 2h` does\n"
    )


async def test_a_wrong_type_is_named_and_nothing_is_created(typing: Processes, server: DevServer) -> None:
    client = await connect(address=server.address)
    request = AddSearchAttributesRequest(namespace="default", search_attributes={"AgentStatus": INT})
    await client.operator_service.add_search_attributes(request)

    code, out, err = await said(typing)

    found = {one.name: one.found for one in await search_attributes.read(client)}
    assert (code, out) == (2, "")
    assert err == ("error: search attribute 'AgentStatus' exists, but is not a Keyword; remove or rename it\n")
    assert found == {**dict.fromkeys(NAMES), "AgentStatus": "Int"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("--retention", "30"),
            "--retention '30': a duration is a number and a unit, for example '30s', '5m', '1h30m' or '2d'",
        ),
        (("--retention", "10m"), "--retention '10m': must be an hour or longer, for example 30d"),
    ],
)
async def test_bad_input_is_refused_with_one_sentence(typing: Processes, words: tuple[str, ...], sentence: str) -> None:
    code, out, err = await said(typing, *words)

    assert (code, out) == (2, "")
    assert err == f"error: {sentence}\n"


async def test_a_server_that_is_away_is_named(typing: Processes) -> None:
    address = f"127.0.0.1:{free_port()}"

    code, out, err = await said(typing, "--address", address)

    assert (code, out) == (2, "")
    assert err.startswith(f"error: no Temporal server at {address!r}: ")


async def test_other_commands_tell_how_a_missing_namespace_is_made(typing: Processes, server: DevServer) -> None:
    inbox = typing.mandate("inbox", "-n", "shop")

    assert await inbox.ended() == 2
    assert inbox.stderr() == (
        f"error: there is no namespace 'shop' at {server.address}; name another with --namespace, "
        "or make it with `mandate setup-namespace`\n"
    )


@pytest.mark.parametrize("refused", [LISTING, ADDING])
async def test_who_may_not_look_or_create_is_told_by_the_server(server: DevServer, refused: str) -> None:
    barred = GuardedClient(await connect(address=server.address), refused)

    with pytest.raises(RPCError) as caught:
        await namespaces.prepare(barred)

    assert caught.value.status is RPCStatusCode.PERMISSION_DENIED


async def test_two_who_set_up_at_once_both_succeed(server: DevServer) -> None:
    clients = [await connect(address=server.address, namespace="shop") for _ in range(2)]

    both = await asyncio.gather(*(namespaces.prepare(client, timedelta(days=2)) for client in clients))

    assert sum(one.was_made for one in both) == 1
    assert {one.namespace.retention for one in both} == {timedelta(days=2)}
    assert not any(one.is_missing for one in await search_attributes.read(clients[0]))


async def test_client_without_a_namespace_of_its_own_starts_runs_there(server: DevServer) -> None:
    client: Client = await connect(address=server.address, namespace="shop")
    await namespaces.prepare(client)

    box = await AgentClient(client).inbox()

    assert (box.runs, box.scanned) == ((), False)
