"""What rules see of a run, and what a request shows of its tool and its rule, in real runs."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from mandate.workers.client.client import connect
from mandate.workers.dev_server.server import run_private_server
from mandate.workflows.contracts.run import RunStatus
from tests.support.agents import ALLOW_ALL, Site, new_site, part_of, texts_told
from tests.support.http_peer import http_peer
from tests.support.mcp_peer import COMMAND
from tests.support.people import asked, decide, open_requests, write_people
from tests.support.toolkit import calls_of

PAY = {"call": [{"pay": {"order": 1}}]}
LOOK = {"call": [{"look": {"what": "a"}}]}
DONE = {"say": "done"}
DENY_TAINTED = {"id": "tainted", "match": {"tools": ["pay"]}, "when": "run.tainted", "verdict": "deny"}
DENIED = "refused: rule 'tainted' denies 'pay'"
PAID = '{"paid":1.0,"order":1}'


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))


@asynccontextmanager
async def continuing(folder: Path) -> AsyncIterator[Site]:
    """A site whose runs continue as new every few turns."""
    async with run_private_server(extra_dynamic_config={"limit.historyCount.suggestContinueAsNew": "40"}) as server:
        yield new_site(folder, await connect(address=server.address))


def tools(**look: Any) -> list[dict[str, Any]]:
    others = [{"python": f"tests.support.toolkit:{name}"} for name in ("pay", "send", "big")]
    return [{"python": "tests.support.toolkit:look", **look}, *others]


@pytest.mark.parametrize(("untrusted", "said", "paid"), [(True, DENIED, 0), (False, PAID, 1)])
async def test_content_of_an_untrusted_read_taints_later_turns(
    site: Site, untrusted: bool, said: str, paid: int
) -> None:
    policy = [DENY_TAINTED, *ALLOW_ALL]
    site.write("reader", [LOOK, PAY, DONE], policy=policy, tools=tools(untrusted=untrusted))

    result, run = await site.run("reader")

    assert await texts_told(site, result.head) == ["looked at a", said]
    assert len(calls_of(run, "pay")) == paid
    assert len(calls_of(run, "look")) == 1


async def test_call_of_the_same_answer_is_not_tainted_by_what_the_model_had_not_read(site: Site) -> None:
    both = {"call": [*LOOK["call"], *PAY["call"]]}
    site.write("reader", [both, PAY, DONE], policy=[DENY_TAINTED, *ALLOW_ALL], tools=tools(untrusted=True))

    result, run = await site.run("reader")

    assert await texts_told(site, result.head) == ["looked at a", PAID, DENIED]
    assert len(calls_of(run, "pay")) == 1


async def test_read_that_is_denied_taints_nothing(site: Site) -> None:
    policy = [DENY_TAINTED, {"id": "no", "match": {"tools": ["look"]}, "verdict": "deny"}, *ALLOW_ALL]
    site.write("reader", [LOOK, PAY, DONE], policy=policy, tools=tools(untrusted=True))

    result, run = await site.run("reader")

    assert await texts_told(site, result.head) == ["refused: rule 'no' denies 'look'", PAID]
    assert [call.tool for call in calls_of(run)] == ["pay"]


MCP = {"mcp": {"name": "files", "command": [*COMMAND, "good", "stdio"]}, "only": ["echo"], "effects": {"echo": "read"}}


@pytest.mark.parametrize(
    ("source", "keys", "said"),
    [
        ("http", {}, DENIED),
        ("http", {"untrusted": False}, PAID),
        ("mcp", {}, DENIED),
        ("mcp", {"untrusted": False}, PAID),
    ],
)
async def test_reads_over_http_and_mcp_taint_unless_they_are_said_to_be_trusted(
    tmp_path: Path, client: Client, source: str, keys: dict[str, Any], said: str
) -> None:
    async with http_peer() as peer:
        site = new_site(tmp_path, client, MANDATE_HTTP_HOSTS=peer.host)
        get = {
            "http": {"method": "GET", "url": peer.url + "/json"},
            "name": "echo",
            "input_schema": {"type": "object", "properties": {"text": {"type": "string"}}},
            "query": ["text"],
            "effect": "read",
        }
        tool = {**(get if source == "http" else MCP), **keys}
        turns = [{"call": [{"echo": {"text": "a"}}]}, PAY, DONE]
        site.write("reader", turns, policy=[DENY_TAINTED, *ALLOW_ALL], tools=[*tools(), tool])

        result, _ = await site.run("reader")

    assert (await texts_told(site, result.head))[1:] == [said]


@pytest.mark.parametrize(("untrusted", "said", "paid"), [(True, DENIED, 0), (False, PAID, 1)])
async def test_taint_survives_continue_as_new(tmp_path: Path, untrusted: bool, said: str, paid: int) -> None:
    turns = [LOOK, {"repeat": 10, "call": [{"big": {"size": 10}}]}, PAY, DONE]
    async with continuing(tmp_path) as site:
        site.write("reader", turns, policy=[DENY_TAINTED, *ALLOW_ALL], tools=tools(untrusted=untrusted))
        async with site.serving():
            handle = await site.start("reader")
            result = await handle.result()
            last = await part_of(handle)
        told = await texts_told(site, result.head)

    assert last != handle.first_execution_run_id
    assert told[-1] == said
    assert len(calls_of(handle.id, "pay")) == paid


FACTS = {
    "agent": "agent.name == 'fact-finder'",
    "requester": "run.requester == 'eve@example.com'",
    "labels": "run.labels == {'team': 'support', 'shop': 'north'}",
    "depth": "run.depth == 0",
    "step": "run.step == 2",
    "calls of another tool": "run.calls.look == 2",
    "calls of this tool": "run.calls.pay == 1",
    "calls of a tool without any": "run.calls.send == 0",
    "totals": "run.totals.pay.amount == 2.5",
    "cost": "run.cost_usd == 0.75",
    "taint": "run.tainted == false",
    "since": "run.now >= timestamp('SOON')",
    "until": "run.now <= timestamp('LATER')",
}
OTHERS = {
    "agent": "agent.name == 'fact-founder'",
    "requester": "run.requester == 'ann@example.com'",
    "labels": "run.labels == {'team': 'support', 'shop': 'south'}",
    "depth": "run.depth == 1",
    "step": "run.step == 1",
    "calls of another tool": "run.calls.look == 1",
    "calls of this tool": "run.calls.pay == 2",
    "calls of a tool without any": "run.calls.send == 1",
    "totals": "run.totals.pay.amount == 3.5",
    "cost": "run.cost_usd == 0.25",
    "taint": "run.tainted == true",
    "since": "run.now >= timestamp('LATER')",
    "until": "run.now <= timestamp('SOON')",
}


def a_rule_of(facts: dict[str, str]) -> dict[str, Any]:
    """It denies a payment of which all of these facts hold."""
    now = datetime.now(UTC)
    soon, later = (now - timedelta(seconds=1)).isoformat(), (now + timedelta(minutes=5)).isoformat()
    condition = " && ".join(facts.values()).replace("SOON", soon).replace("LATER", later)
    return {"id": "facts", "match": {"tools": ["pay"]}, "when": f"args.order == 2 && {condition}", "verdict": "deny"}


@pytest.mark.parametrize("changed", [None, *FACTS])
async def test_rule_denies_when_each_fact_of_the_run_is_as_it_says(site: Site, changed: str | None) -> None:
    facts = FACTS if changed is None else {**FACTS, changed: OTHERS[changed]}
    first = [{"look": {"what": "a"}}, {"pay": {"order": 1, "amount": 2.5}}, {"look": {"what": "b"}}]
    turns = [
        {"call": first, "usage": {"cost_usd": 0.25}},
        {"call": [{"pay": {"order": 2}}], "usage": {"cost_usd": 0.5}},
        DONE,
    ]
    site.write("fact-finder", turns, policy=[a_rule_of(facts), *ALLOW_ALL], tools=tools())

    labels = {"team": "support", "shop": "north"}
    result, run = await site.run("fact-finder", requester="eve@example.com", labels=labels)

    paid = [call.arguments["order"] for call in calls_of(run, "pay")]
    assert result.status is RunStatus.COMPLETED
    assert paid == ([1] if changed is None else [1, 2])
    refused = (await texts_told(site, result.head))[3] == "refused: rule 'facts' denies 'pay'"
    assert refused == (changed is None)


@pytest.mark.parametrize("wrong", ["", "x"])
async def test_rule_denies_by_the_ids_of_run_and_agent(tmp_path: Path, wrong: str) -> None:
    """Those of the first part of the run, in each of its parts."""
    rule = {"id": "ids", "match": {"tools": ["send"]}, "when": "args.to == run.id + agent.version", "verdict": "deny"}
    begun = [{"repeat": 6, "call": [{"big": {"size": 10}}]}, {"call": [{"ask_person": {"question": "Who?"}}]}]
    async with continuing(tmp_path) as site:
        site.environment["MANDATE_PEOPLE"] = str(write_people(tmp_path))
        site.write("ids", begun, policy=[rule, *ALLOW_ALL], tools=tools())
        async with site.serving():
            handle = await site.start("ids")
            (question,) = await asked(handle)
            to = f"{handle.first_execution_run_id}{(await open_requests(handle)).version}{wrong}"
            script = {"turns": [*begun, {"call": [{"send": {"to": to}}]}, DONE], "strict": False}
            (site.folder / "agents" / "ids.script.yaml").write_text(json.dumps(script))
            last = await part_of(handle)
            await decide(handle, question, "answer", value="them")
            result = await handle.result()

    assert last != handle.first_execution_run_id
    assert result.status is RunStatus.COMPLETED
    assert [call.arguments["to"] for call in calls_of(handle.id, "send")] == ([to] if wrong else [])


async def test_request_shows_risk_effect_reason_and_taint(site: Site) -> None:
    risky = {
        "id": "risky",
        "match": {},
        "when": "tool.risk >= 0.7",
        "verdict": "ask",
        "because": "Money does not come back.",
    }
    pay = {"python": "tests.support.toolkit:pay", "risk": 0.7}
    send = {"python": "tests.support.toolkit:send"}
    look = {"python": "tests.support.toolkit:look", "risk": 0.6, "untrusted": True}
    turns = [PAY, LOOK, {"call": [{"send": {"to": "Ann"}}]}, DONE]
    policy = [risky, {"id": "reads", "match": {"effects": ["read"]}, "verdict": "allow"}]
    site.write("risky", turns, policy=policy, tools=[pay, send, look])

    shown = []
    async with site.serving():
        handle = await site.start("risky")
        for _ in range(2):
            (request,) = await asked(handle)
            shown.append((request.kind, request.tool, request.effect, request.risk, request.tainted, request.reason))
            await decide(handle, request)
        await handle.result()

    assert shown == [
        ("approval", "pay", "keyed", 0.7, False, "rule 'risky' asks people about 'pay': Money does not come back"),
        ("approval", "send", "once", 0.0, True, "no rule matches this call of 'send', which changes the world"),
    ]
