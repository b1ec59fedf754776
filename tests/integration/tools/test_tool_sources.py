"""Four kinds of tools side by side in one agent, on a real server."""

import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import Client
from temporalio.worker import Worker

from mandate.activities.files import FileError
from mandate.workers.worker import open_worker
from mandate.workflows.contracts.run import RunStatus
from tests.support.agents import Site, new_site, results_told
from tests.support.http_peer import HttpPeer, Reply, Seen, http_peer
from tests.support.mcp_peer import COMMAND
from tests.support.toolkit import calls_of

CHARGED: list[str] = []


@activity.defn(name="Charge")
async def charge(whole: dict[str, Any]) -> str:
    CHARGED.append(activity.info().activity_id)
    return f"charged {whole['amount']}"


@dataclass
class Peers:
    http: HttpPeer
    journal: Path
    queue: str

    def journalled(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.journal.read_text().splitlines()] if self.journal.exists() else []

    def tools(self) -> list[dict[str, Any]]:
        schema = {"type": "object", "properties": {"amount": {"type": "number"}}, "required": ["amount"]}
        server = [*COMMAND, "good", "stdio", str(self.journal)]
        return [
            {"python": "tests.support.toolkit:pay"},
            {"mcp": {"name": "files", "command": server}, "only": ["echo"], "effects": {"echo": "keyed"}},
            {
                "activity": {"name": "Charge", "task_queue": self.queue},
                "name": "charge",
                "input_schema": schema,
                "effect": "keyed",
            },
            {
                "http": {"method": "POST", "url": self.http.url + "/json/{order}"},
                "name": "create_ticket",
                "input_schema": {
                    "type": "object",
                    "properties": {
                        "order": {"type": "integer"},
                        "text": {"type": "string"},
                        "notify": {"type": "boolean"},
                    },
                    "required": ["order"],
                },
                "query": ["notify"],
                "headers": {"Authorization": "Bearer ${secret:TICKETS}"},
                "effect": "keyed",
            },
        ]


@pytest.fixture
async def peers(tmp_path: Path, client: Client) -> AsyncIterator[Peers]:
    queue = f"payments-{time.monotonic_ns()}"
    foreign = await Client.connect(client.service_client.config.target_host)
    async with http_peer() as http, Worker(foreign, task_queue=queue, activities=[charge]):
        CHARGED.clear()
        yield Peers(http, tmp_path / "journal", queue)


CALLS: list[dict[str, Any]] = [
    {"pay": {"order": 1}},
    {"echo": {"text": "hello"}},
    {"charge": {"amount": 2.5}},
    {"create_ticket": {"order": 81, "text": "broken", "notify": True}},
]


def site_with(tmp_path: Path, client: Client, peers: Peers, **environment: str) -> Site:
    return new_site(tmp_path, client, MANDATE_HTTP_HOSTS=peers.http.host, **environment)


async def test_requests_of_a_run_name_it_and_who_asked(tmp_path: Path, client: Client, peers: Peers) -> None:
    """Calls, checks after them and probes of them; the key of a call is in its body as in its header."""
    values = {"headers": {"X-Run": "${run.workflow_id}", "X-By": "${run.requester}"}, "effect": "read"}
    nothing = {"type": "object"}
    tools = [
        {
            "http": {"method": "POST", "url": peers.http.url + "/status/500?by=${run.requester}"},
            "name": "pay",
            "input_schema": {"type": "object", "properties": {"n": {"type": "integer"}}},
            "body": {"reference": "${key}", "run": "${run.workflow_id}"},
            "effect": "once",
            "probe": {"tool": "find", "done": "result.ok"},
        },
        {"http": {"method": "GET", "url": peers.http.url + "/json/find"}, "name": "find", "input_schema": nothing}
        | values,
        {"http": {"method": "GET", "url": peers.http.url + "/json/see"}, "name": "see", "input_schema": nothing}
        | values,
    ]
    checks = [{"after": "pay", "tool": "see", "expect": "result.b == 1"}]
    peers.http.script = answer_by_path
    site = site_with(tmp_path, client, peers)
    site.write("sources", [{"call": [{"pay": {"n": 1}}]}, {"say": "done"}], tools=tools, checks=checks)

    async with site.serving():
        handle = await site.start("sources", requester="ann@example.com")
        result = await handle.result()

    paid, found, seen = peers.http.seen
    assert [request.target for request in (paid, found, seen)] == [
        "/status/500?by=ann%40example.com",
        "/json/find",
        "/json/see",
    ]
    assert paid.json() == {"reference": paid.headers["idempotency-key"], "run": handle.id, "n": 1}
    for request in (found, seen):
        assert (request.headers["x-run"], request.headers["x-by"]) == (handle.id, "ann@example.com")
    assert (result.status, result.uncertain) == (RunStatus.COMPLETED, ())


async def answer_by_path(seen: Seen) -> Reply:
    if seen.target.startswith("/status/500"):
        return Reply(500)
    return Reply(body=b'{"ok": true, "b": 1}', headers={"Content-Type": "application/json"})


async def test_each_kind_is_called_with_its_idempotency_key(tmp_path: Path, client: Client, peers: Peers) -> None:
    site = site_with(tmp_path, client, peers, TICKETS="t0p-secret")
    site.write("sources", [{"call": CALLS}, {"say": "done"}], tools=peers.tools())

    async with site.serving():
        handle = await site.start("sources")
        result = await handle.result()
        history = (await handle.fetch_history()).to_json()

    keys = [entry.key for entry in result.effects.last]
    request = peers.http.seen[0]
    told = [part.text for part in await results_told(site, result.head or "")]
    assert result.status is RunStatus.COMPLETED
    assert told == ['{"paid":1.0,"order":1}', "hello", '"charged 2.5"', '{"b": 1,  "a": [true]}']
    assert keys == [
        calls_of(handle.id, "pay")[0].key,
        peers.journalled()[0]["key"],
        CHARGED[0],
        request.headers["idempotency-key"],
    ]
    assert (request.method, request.target) == ("POST", "/json/81?notify=true")
    assert request.json() == {"text": "broken"}
    assert request.headers["authorization"] == "Bearer t0p-secret"
    assert "t0p-secret" not in history
    assert b"t0p-secret" not in (tmp_path / "store.db").read_bytes()


DENY_ALL: list[dict[str, Any]] = [{"id": "none", "match": {}, "verdict": "deny"}]


async def test_denied_calls_reach_no_source(tmp_path: Path, client: Client, peers: Peers) -> None:
    site = site_with(tmp_path, client, peers, TICKETS="t0p-secret")
    site.write("sources", [{"call": CALLS}, {"say": "done"}], tools=peers.tools(), policy=DENY_ALL)

    result, run = await site.run("sources")

    told = await results_told(site, result.head or "")
    assert [part.text for part in told] == [
        f"refused: rule 'none' denies {name!r}" for name in ("pay", "echo", "charge", "create_ticket")
    ]
    assert calls_of(run) == []
    assert peers.journalled() == []
    assert CHARGED == []
    assert peers.http.seen == []


def _beyond(more: dict[str, Any]) -> list[dict[str, Any]]:
    return [{name: {**arguments, **more}} for call in CALLS for name, arguments in call.items()]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"approved": True}, "'approved' is no argument of this tool; there are: "),
        ({"Amount": 5000, "amount": 50, "Order": 2, "Text": "x"}, " are one name to many receivers; give only one"),
    ],
)
async def test_arguments_that_policy_does_not_know_reach_no_source(
    tmp_path: Path, client: Client, peers: Peers, more: dict[str, Any], says: str
) -> None:
    site = site_with(tmp_path, client, peers, TICKETS="t0p-secret")
    site.write("sources", [{"call": _beyond(more)}, {"say": "done"}], tools=peers.tools())

    result, run = await site.run("sources")

    told = [part.text for part in await results_told(site, result.head or "")]
    assert all(text.startswith("not called: ") and says in text for text in told), told
    assert calls_of(run) == []
    assert peers.journalled() == []
    assert CHARGED == []
    assert peers.http.seen == []


async def test_file_may_open_each_source(tmp_path: Path, client: Client, peers: Peers) -> None:
    """All but Python functions, which have no place for more; folded names are refused all the same."""
    site = site_with(tmp_path, client, peers, TICKETS="t0p-secret")
    _, mcp, activity_tool, http = peers.tools()
    opened = [
        {**mcp, "additional_arguments": "allow"},
        *(
            {**tool, "input_schema": {**tool["input_schema"], "additionalProperties": True}}
            for tool in (activity_tool, http)
        ),
    ]
    more = [{name: {**arguments, "approved": True}} for call in CALLS[1:] for name, arguments in call.items()]
    folding = [
        {name: {**arguments, "Text": "x", "AMOUNT": 1}} for call in CALLS[1:] for name, arguments in call.items()
    ]
    site.write("sources", [{"call": more}, {"call": folding}, {"say": "done"}], tools=opened)

    result, _ = await site.run("sources")

    told = [part.text for part in await results_told(site, result.head or "")]
    assert told[:3] == ["hello", '"charged 2.5"', '{"b": 1,  "a": [true]}']
    assert all("receivers" in text for text in told[3:]), told
    assert peers.http.seen[0].json() == {"text": "broken", "approved": True}
    assert len(peers.journalled()) == len(CHARGED) == len(peers.http.seen) == 1


async def test_a_missing_secret_stops_the_start_and_is_named(tmp_path: Path, client: Client, peers: Peers) -> None:
    site = site_with(tmp_path, client, peers)
    site.write("sources", [{"say": "done"}], tools=peers.tools())

    with pytest.raises(FileError, match="secret 'TICKETS' is not in the environment"):
        async with open_worker(client, site.settings):
            pass


async def test_a_host_that_is_not_allowed_is_not_called(tmp_path: Path, client: Client, peers: Peers) -> None:
    site = new_site(tmp_path, client, TICKETS="t0p-secret")
    site.write("sources", [{"call": CALLS[3:]}, {"say": "done"}], tools=peers.tools()[3:])

    result, _ = await site.run("sources")

    told = (await results_told(site, result.head or ""))[0]
    assert peers.http.seen == []
    assert (result.status, result.uncertain) == (RunStatus.COMPLETED, ())
    assert told.text == f"host {peers.http.host!r} is not allowed; MANDATE_HTTP_HOSTS of the worker allows: none"
