"""Kept results in runs on a real server: tools of Python, HTTP and MCP, other tenants, and what people are shown."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowHandle

from mandate.workers.cli.output import Output
from mandate.workers.cli.runs.text import print_message
from mandate.workers.history.local_activities import MARKER, read_local_activity
from mandate.workers.history.record import conversation, read_record
from mandate.workflows.contracts.run import Progress
from mandate.workflows.contracts.tool import CacheHit
from tests.support.agents import Site, new_site, results_told, texts_told
from tests.support.http_peer import HttpPeer, Reply, Seen, http_peer
from tests.support.mcp_peer import COMMAND
from tests.support.toolkit import calls_of

LOOK = {"python": "tests.support.toolkit:look"}


@pytest.fixture
async def peer() -> AsyncIterator[HttpPeer]:
    async with http_peer(script=numbered) as peer:
        yield peer


async def numbered(seen: Seen) -> Reply:
    NUMBERS.append(seen.target)
    return Reply(body=f"answer {len(NUMBERS)} to {seen.headers.get('authorization', 'nobody')}")


NUMBERS: list[str] = []


@pytest.fixture
def site(tmp_path: Path, client: Client, peer: HttpPeer) -> Site:
    return new_site(tmp_path, client, MANDATE_HTTP_HOSTS=peer.host)


def look(*names: str) -> dict[str, Any]:
    return {"call": [{"look": {"what": name}} for name in names]}


def fetch(peer: HttpPeer, **more: Any) -> dict[str, Any]:
    return {
        "http": {"method": "GET", "url": f"{peer.url}/orders/{{order}}"},
        "name": "fetch",
        "input_schema": {"type": "object", "properties": {"order": {"type": "integer"}}, "required": ["order"]},
        "effect": "read",
        "cache": "10m",
        **more,
    }


FETCH: list[Any] = [{"call": [{"fetch": {"order": 81}}]}, {"say": "done"}]


async def events(handle: WorkflowHandle[Any, Any]) -> list[HistoryEvent]:
    return [event async for event in handle.fetch_history_events()]


async def test_python_tool_is_called_once_by_two_runs(site: Site) -> None:
    site.write("caches", [look("81"), look("81", "82"), {"say": "done"}], tools=[{**LOOK, "cache": "10m"}])
    async with site.serving():
        first = await site.start("caches")
        ended = await first.result()
        second = await site.start("caches")
        again = await second.result()

    assert [call.arguments["what"] for call in calls_of(first.id, "look")] == ["81", "82"]
    assert calls_of(second.id) == []
    told = await results_told(site, again.head or "")
    assert [part.text for part in told] == ["looked at 81", "looked at 81", "looked at 82"]
    assert [(part.cached.run, part.cached.step) for part in told] == [(first.id, 1), (first.id, 1), (first.id, 2)]
    assert await texts_told(site, ended.head) == [part.text for part in told]
    assert (ended.usage.cached_results, again.usage.cached_results) == (1, 3)


async def test_run_that_has_acted_looks_again(site: Site) -> None:
    """A lookup of before would tell the model that its payment was not made."""
    pay = {"python": "tests.support.toolkit:pay"}
    turns = [look("81"), look("81"), {"call": [{"pay": {"order": 81}}]}, look("81"), look("81"), {"say": "done"}]
    site.write("acts", turns, tools=[{**LOOK, "cache": "10m"}, pay])
    async with site.serving():
        handle = await site.start("acts")
        await handle.result()

    assert [call.step for call in calls_of(handle.id)] == [1, 3, 4]


async def test_check_always_calls_its_tool(site: Site) -> None:
    """A kept result tells nothing of what a call has just done."""
    check = {"after": "pay", "tool": "look", "with": {"what": "'81'"}, "expect": "true"}
    pay = {"python": "tests.support.toolkit:pay"}
    turns = [look("81"), {"call": [{"pay": {"order": 81}}]}, {"say": "done"}]
    site.write("checks", turns, tools=[{**LOOK, "cache": "10m"}, pay], checks=[check])
    async with site.serving():
        handle = await site.start("checks")
        await handle.result()

    assert [(call.tool, call.step) for call in calls_of(handle.id)] == [("look", 1), ("pay", 2), ("look", 2)]


async def test_tool_without_cache_is_called_each_time(site: Site) -> None:
    """A tool that is polled: each look is made."""
    site.write("polls", [look("81"), look("81"), look("81"), {"say": "done"}], tools=[LOOK])
    async with site.serving():
        handle = await site.start("polls")
        result = await handle.result()

    assert len(calls_of(handle.id, "look")) == 3
    assert [part.cached for part in await results_told(site, result.head or "")] == [None] * 3
    assert result.usage.cached_results == 0


async def test_result_is_asked_for_again_once_it_has_expired(site: Site) -> None:
    site.write("expires", [look("81"), look("81"), {"say": "done"}], tools=[{**LOOK, "cache": "1ms"}])
    async with site.serving():
        handle = await site.start("expires")
        await handle.result()

    assert len(calls_of(handle.id, "look")) == 2


@pytest.mark.parametrize("kept_in_memory", [1000, 0])
async def test_hit_may_be_a_local_activity(site: Site, kept_in_memory: int) -> None:
    site.write("local", [look("81"), look("81"), look("81"), {"say": "done"}], tools=[{**LOOK, "cache": "10m"}])
    async with site.serving(max_cached_workflows=kept_in_memory):
        handle = await site.start("local")
        result = await handle.result()

    local = [
        read_local_activity(event)
        for event in await events(handle)
        if event.marker_recorded_event_attributes.marker_name == MARKER
    ]
    assert [done.kind for done in local if done is not None] == ["pin_agent", "run_tool", "run_tool"]
    assert len(calls_of(handle.id, "look")) == 1
    assert await texts_told(site, result.head) == ["looked at 81"] * 3


async def test_http_tool_is_called_once(site: Site, peer: HttpPeer) -> None:
    site.write("http", FETCH, tools=[fetch(peer)])
    async with site.serving():
        results = [await (await site.start("http")).result() for _ in range(3)]

    assert [seen.target for seen in peer.seen] == ["/orders/81"]
    texts = [await texts_told(site, result.head) for result in results]
    assert texts[0] == texts[1] == texts[2]


@pytest.mark.parametrize("status", [404, 503])
async def test_error_of_an_http_tool_is_never_kept(site: Site, peer: HttpPeer, status: int) -> None:
    async def failing(seen: Seen) -> Reply:
        return Reply(status, "not now")

    peer.script = failing
    site.write("http", FETCH, tools=[fetch(peer, patience="1ms")])
    async with site.serving():
        await (await site.start("http")).result()
        peer.script = numbered
        result = await (await site.start("http")).result()

    (told,) = await results_told(site, result.head or "")
    assert (told.error, told.cached, told.text.startswith("answer ")) == (False, None, True)


async def test_another_credential_never_sees_a_result(site: Site, peer: HttpPeer) -> None:
    """Two workers of one store and queue whose secrets differ, one after the other."""
    site.write("http", FETCH, tools=[fetch(peer, headers={"Authorization": "${secret:ORDERS}"})])
    told = []
    for secret in ("ann-key", "bob-key", "ann-key"):
        of = replace(site, environment={**site.environment, "ORDERS": secret})
        async with of.serving():
            result = await (await of.start("http")).result()
        told += [text.rpartition(" to ")[2] for text in await texts_told(site, result.head)]

    assert told == ["***", "***", "***"]
    assert [seen.headers["authorization"] for seen in peer.seen] == ["ann-key", "bob-key"]
    store = Path(site.settings.store.removeprefix("sqlite:///"))
    files = [path.read_bytes() for path in store.parent.glob("store.db*")]
    assert not any(b"ann-key" in content or b"bob-key" in content for content in files)


async def test_another_tenant_never_sees_a_result(site: Site, peer: HttpPeer) -> None:
    site.write("http", FETCH, tools=[fetch(peer)])
    for queue in (site.queue, f"{site.queue}-other"):
        of = replace(site, queue=queue)
        async with of.serving():
            await (await of.start("http")).result()

    assert len(peer.seen) == 2


async def test_requester_never_sees_a_result_of_another_that_names_them(site: Site, peer: HttpPeer) -> None:
    site.write("http", FETCH, tools=[fetch(peer, headers={"Authorization": "${run.requester}"})])
    async with site.serving():
        told = []
        for requester in ("ann@example.com", "bob@example.com", "ann@example.com"):
            result = await (await site.start("http", requester=requester)).result()
            told += [text.rpartition(" to ")[2] for text in await texts_told(site, result.head)]

    assert told == ["ann@example.com", "bob@example.com", "ann@example.com"]
    assert len(peer.seen) == 2


async def test_mcp_tool_is_called_once_by_the_settings_of_its_server(site: Site, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    tools = [
        {
            "mcp": {"name": "files", "command": [*COMMAND, "good", "stdio", str(journal)]},
            "only": ["echo", "weather", "fail"],
            "effect": "read",
            "error": "not_done",
            "caches": {"echo": "10m", "fail": "10m"},
        }
    ]
    turn = {"call": [{"echo": {"text": "hello"}}, {"weather": {"city": "Rome"}}, {"fail": {}}]}
    site.write("mcp", [turn, {"say": "done"}], tools=tools)
    async with site.serving():
        await (await site.start("mcp")).result()
        result = await (await site.start("mcp")).result()

    made = sorted(json.loads(line)["tool"] for line in journal.read_text().splitlines())
    assert made == ["echo", "fail", "fail", "weather", "weather"]
    told = await results_told(site, result.head or "")
    assert [(part.tool, part.cached is not None) for part in told] == [
        ("echo", True),
        ("weather", False),
        ("fail", False),
    ]


async def test_mcp_server_has_the_secret_that_its_result_is_kept_for(site: Site, tmp_path: Path) -> None:
    """A secret that changes while a worker runs: the server is started anew, before anything is kept under the key."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    server = {"name": "files", "command": [*COMMAND, "good", "stdio"], "env": {"TOKEN": "x-${secret:TOKEN}"}}
    tools = [{"mcp": server, "only": ["environment"], "effect": "read", "cache": "10m"}]
    site.write("mcp", [{"call": [{"environment": {"name": "TOKEN"}}]}, {"say": "done"}], tools=tools)
    of = replace(site, environment={**site.environment, "MANDATE_SECRETS": str(secrets)})
    hits = []
    (secrets / "TOKEN").write_text("1st")
    async with of.serving():
        for secret in ("1st", "2nd", "1st", "2nd"):
            (secrets / "TOKEN").write_text(secret)
            result = await (await of.start("mcp")).result()
            (told,) = await results_told(of, result.head or "")
            hits.append((told.text, told.cached is not None))

    assert hits == [("x-1st", False), ("x-2nd", False), ("x-1st", True), ("x-2nd", True)]


async def test_run_shows_which_results_were_kept_ones(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    turns = [look("81"), look("81"), {"say": "done"}]
    site.write("shows", turns, tools=[{**LOOK, "cache": "10m"}])
    async with site.serving():
        first = await site.start("shows")
        await first.result()
        handle = await site.start("shows")
        await handle.result()
        progress = await site.client.get_workflow_handle(handle.id).query("progress", result_type=Progress)

    assert [line for line in progress.recent if "look" in line] == [
        "step 1: look what=81 → looked at 81 (cached, 0 s old)",
        "step 2: look what=81 → looked at 81 (cached, 0 s old)",
    ]
    record = await read_record(site.client, handle.id, None)
    assert record.history.usage.cached_results == 2
    async with conversation(site.settings.store, record) as stored:
        said = [message async for message in stored.messages(record.history.head or "")]
    (part,) = said[2].parts
    assert CacheHit.model_validate(part["cached"]).run == first.id
    print_message(Output(), said[2], why=None, full=False)
    shown = capsys.readouterr().out
    assert f"← look (cached, 0 s old, of {first.id} step 1) looked at 81" in shown


async def test_cleared_result_is_asked_for_again_and_a_store_without_results_stops_nobody(site: Site) -> None:
    site.write("clears", [look("81"), {"say": "done"}], tools=[{**LOOK, "cache": "10m"}])
    store = site.settings.store.removeprefix("sqlite:///")
    runs = []
    async with site.serving():
        for statement in ("SELECT 1", "DELETE FROM results", "DROP TABLE results"):
            connection = sqlite3.connect(store)
            with connection:
                connection.execute(statement)
            connection.close()
            handle = await site.start("clears")
            assert (await asyncio.wait_for(handle.result(), 20)).status == "completed"
            runs.append(len(calls_of(handle.id, "look")))

    assert runs == [1, 1, 1]
