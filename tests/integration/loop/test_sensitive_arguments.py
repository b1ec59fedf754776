"""Sensitive arguments: whatever becomes of a call, nobody who reads Temporal or a log finds them."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle

from mandate.workers.client.client import connect
from mandate.workers.dev_server.server import run_private_server
from mandate.workflows.contracts.base import canonical_json, digest_of
from mandate.workflows.contracts.request import Decision
from mandate.workflows.contracts.run import RunStatus
from mandate.workflows.loop.visibility import AGENT_VERSION
from tests.integration.loop.test_signed_decisions import SIGNER, shell
from tests.support.agents import ALLOW_ALL, Site, continued, new_site, parts_taken, results_told, texts_told
from tests.support.card_tools import CARD
from tests.support.people import asked, decide, decision, refusal_of, stop, write_people
from tests.support.toolkit import LET_GO, calls_of

MODULE = "tests.support.card_tools"
PROBE = {"tool": "find_charge", "with": {"card": "args.card"}, "not_done": "result.card == args.card", "patience": "2s"}
TOOLS: list[dict[str, Any]] = [
    {"python": f"{MODULE}:charge", "compensate": "pay_back", "probe": PROBE},
    {"python": f"{MODULE}:find_charge"},
    {"python": f"{MODULE}:pay_back"},
    {"python": "tests.support.toolkit:look"},
]
ASK = [{"id": "asked", "match": {"tools": ["charge"]}, "verdict": "ask"}, *ALLOW_ALL]
CALL: dict[str, Any] = {"card": CARD, "amount": 5.0, "parts": [{"card": CARD, "amount": 1.0}]}


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))


def write(site: Site, *turns: dict[str, Any], policy: Any = ALLOW_ALL, says: str = "", **keys: Any) -> None:
    calls = [{"say": f"Now {CARD} is charged.{says}", "call": [{"charge": {**CALL, **turn}}]} for turn in turns]
    site.write("cards", [*calls, {"say": "done"}], **{"tools": TOOLS, "policy": policy, **keys})


async def assert_hidden(handle: WorkflowHandle[Any, Any], told: str = "") -> None:
    """Neither the number nor what is it to whoever tries all numbers is in any part of the run, or was told."""
    client, run_id = handle._client, None
    seen = [told.encode(), str(await handle.query("__temporal_workflow_metadata")).encode()]
    for query in ("open_requests", "progress"):
        seen.append(json.dumps(await handle.query(query)).encode())
    while run_id != "":
        part = client.get_workflow_handle(handle.id, run_id=run_id)
        seen.append((await part.describe()).raw_description.SerializeToString())
        events = [event async for event in part.fetch_history_events()]
        seen += [event.SerializeToString() for event in events]
        run_id = events[0].workflow_execution_started_event_attributes.continued_execution_run_id
    guesses = [CARD, *_digests()]
    found = [guess for guess in guesses for content in seen if guess.encode() in content]
    assert not found, found


def _digests() -> list[str]:
    """Plain digests by which the number could be found out."""
    whole = {**CALL, "how": "well"}
    arguments = [CALL, whole, *({**CALL, "how": how} for how in ("refused", "lost")), {**CALL, "amount": 2.0}]
    texts = [CARD, f'"{CARD}"', f"charged {CARD}", json.dumps({"done": False, "card": CARD})]
    return [
        *(digest_of(text.encode()) for text in texts),
        *(digest_of(canonical_json(value)) for value in arguments),
        *(digest_of(canonical_json({"tool": "charge", "arguments": value})) for value in arguments),
    ]


async def test_call_that_is_allowed(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    write(site, {}, {})

    async with site.serving():
        handle = await site.start("cards")
        result = await handle.result()
        await assert_hidden(handle, "".join(capfd.readouterr()))

    first, second = calls_of(handle.id, "charge")
    assert first.arguments == {"card": CARD, "amount": 5.0, "parts": [CARD]}
    assert first.key != second.key
    assert result.effects.last[0].call == 'charge card=*** amount=5.0 parts=[{"card": "***", "amount": 1.0}]'
    assert await texts_told(site, result.head) == [f"charged {CARD}"] * 2


@pytest.mark.parametrize("how", ["panicked", "left", "lost", "refused"])
async def test_call_whose_tool_dies_of_any_error(site: Site, capfd: pytest.CaptureFixture[str], how: str) -> None:
    """Also of one that is no `Exception`, in its own task or in one that it began; the worker goes on."""
    tools = [{"python": f"{MODULE}:{name}"} for name in ("charge", "charge_async")]
    calls: list[dict[str, Any]] = [{"charge": {**CALL, "how": how}}, {"charge_async": {"card": CARD, "how": how}}]
    turns = [{"call": [call]} for call in calls] if how == "refused" else [{"call": calls[1:]}]
    site.write("cards", [*turns, {"say": "done"}], tools=tools, policy=ALLOW_ALL, attempts=5)

    async with site.serving():
        handle = await site.start("cards")
        if how != "refused":
            (request,) = await asked(handle)
            assert "***" in (request.reason or "")
            await assert_hidden(handle, "".join(capfd.readouterr()))
            await decide(handle, request, "stop")
        await asyncio.wait_for(handle.result(), 60)
        await assert_hidden(handle, "".join(capfd.readouterr()))


async def test_call_that_is_approved_and_one_that_is_rejected(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    write(site, {}, {}, policy=ASK)

    async with site.serving():
        handle = await site.start("cards")
        (request,) = await asked(handle)
        assert request.arguments == {**CALL, "card": "***", "parts": [{"card": "***", "amount": 1.0}]}
        await assert_hidden(handle)
        await decide(handle, request)
        while (request := (await asked(handle))[0]).id != "r2":
            await asyncio.sleep(0.05)
        await decide(handle, request, "reject")
        await handle.result()
        await assert_hidden(handle, "".join(capfd.readouterr()))

    assert [call.arguments["card"] for call in calls_of(handle.id, "charge")] == [CARD]


async def test_call_that_a_person_changes(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    """What is hidden is given back as it was shown, and stays as it is, through another part of the run too."""
    write(site, {}, policy=ASK)

    async with site.serving():
        handle = await site.start("cards")
        (request,) = await asked(handle)
        value = {**request.arguments, "amount": 2.0}
        first = await decide(handle, request, value=value)
        result = await handle.result()
        await assert_hidden(handle, "".join(capfd.readouterr()))

    (call,) = calls_of(handle.id, "charge")
    assert first.status == "approved"
    assert call.arguments == {"card": CARD, "amount": 2.0, "parts": [CARD]}
    (told,) = await texts_told(site, result.head)
    assert told.startswith("[ann@example.com changed this call before it ran; it ran with {")
    assert f'{{"card": "***", "amount": 2.0, "parts": [{{"card": "***", "amount": 1.0}}]}}]\ncharged {CARD}' in told


@pytest.mark.parametrize(
    "value",
    [
        {**CALL, "card": "5500000000000004"},
        {**CALL, "card": "***", "parts": [{"card": "5500000000000004", "amount": 1.0}]},
        {"amount": 5.0, "Card": "5500000000000004"},
        {"amount": 5.0, "parts": [{"CARD": "5500000000000004"}]},
    ],
)
async def test_new_value_in_clear_is_refused_before_it_is_in_the_history(site: Site, value: dict[str, Any]) -> None:
    write(site, {}, policy=ASK)

    async with site.serving():
        handle = await site.start("cards")
        (request,) = await asked(handle)
        reason = await refusal_of(handle, "decide", decision(request, value=value))
        await assert_hidden(handle)
        events = [event.SerializeToString() async for event in handle.fetch_history_events()]
        await decide(handle, request, "reject")
        await handle.result()

    name = next(name for name in ("Card", "CARD", "card") if name in json.dumps(value))
    assert reason == (
        f"value: {name!r} is sensitive, and what people send stays in the run's history in clear; leave it as '***', "
        "or reject the call and say why"
    )
    assert not any(b"5500000000000004" in event for event in events)


CLEAR = {"card": "5500000000000004"}


@pytest.mark.parametrize(
    "misshapen",
    [
        {}, {"choise": "approve"}, {"by": 7}, {"request": ["r1"]}, {"request": "r1 "}, {"request": "r2"},
        {"value": None, "values": CLEAR}, {"value": None, "Value": CLEAR}, {"value": {"CARD ": "5500000000000004"}},
        {"comment": [CLEAR]}, {"value": [[CLEAR]]},
    ],
    ids=[
        "", "unknown key", "no name", "request as list", "space", "not open", "values", "Value", "name with a space",
        "comment", "lists",
    ],
)  # fmt: skip
async def test_new_value_in_clear_among_many_decisions_keeps_all_of_them_out(
    site: Site, misshapen: dict[str, Any]
) -> None:
    """They would enter the history together; sent through a client of ours, the others count by themselves."""
    write(site, {}, {}, policy=ASK)

    async with site.serving():
        handle = await site.start("cards")
        (request,) = await asked(handle)
        wrong = {**decision(request, value={**CALL, "card": "5500000000000004"}), **misshapen}
        reason = await refusal_of(handle, "decide", {"decisions": [wrong, decision(request)]})
        both = (decision(request, value={**CALL, "card": "5500000000000004"}), decision(request))
        outcomes = await site.agents.decide_many([(handle.id, Decision.model_validate(one)) for one in both])
        events = [event.SerializeToString() async for event in handle.fetch_history_events()]
        await stop(handle, {"by": "ann@example.com"})
        await handle.result()

    assert "value: 'card' is sensitive, and what people send stays in the run's history" in reason.lower().replace(
        "'card '", "'card'"
    )
    assert [outcome.receipt is not None for outcome in outcomes] == [False, True]
    assert not any(b"5500000000000004" in event for event in events)


@pytest.mark.parametrize("how", ["refused", "lost"])
async def test_tool_that_fails_and_says_with_what(site: Site, how: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Also the probe of an unknown outcome, whose tool is given the number and returns it."""
    write(site, {"how": how}, attempts=1)

    async with site.serving():
        handle = await site.start("cards")
        (request,) = await asked(handle)
        await assert_hidden(handle)
        await decide(handle, request, "stop")
        await handle.result()
        await assert_hidden(handle, "".join(capfd.readouterr()))

    looked = calls_of(handle.id, "find_charge")
    assert {call.arguments["card"] for call in looked} == ({CARD} if how == "lost" else set())


@pytest.mark.parametrize(
    "wrong",
    [
        {"card": int(CARD)},
        {"card": [CARD]},
        {"amount": CARD},
        {"Card": CARD},
        {"parts": [{"card": {"number": CARD}, "amount": 1.0}]},
        {"parts": {"card": CARD}},
        {"parts": [{"Card": CARD, "card": CARD, "amount": 1.0}]},
    ],
)
async def test_call_that_does_not_fit(site: Site, wrong: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    write(site, wrong)

    async with site.serving():
        handle = await site.start("cards")
        result = await handle.result()
        await assert_hidden(handle, "".join(capfd.readouterr()))

    assert calls_of(handle.id, "charge") == []
    (told,) = await texts_told(site, result.head)
    assert told.startswith("not called: ")
    assert CARD not in told


@pytest.mark.parametrize(
    "check",
    [
        {"python": f"{MODULE}:has_no_card"},
        {"expect": "!result.contains(args.card)"},
        {"schema": {"const": "nothing"}},
        {"tool": "find_charge", "with": {"card": "args.card"}, "expect": "result.card != args.card"},
    ],
)
async def test_checks_have_the_value_and_do_not_tell_it(
    site: Site, check: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    write(site, {}, checks=[{"after": "charge", **check}])

    async with site.serving():
        handle = await site.start("cards")
        result = await handle.result()
        await assert_hidden(handle, "".join(capfd.readouterr()))

    (told,) = await results_told(site, result.head or "")
    assert "it was done, but check" in told.text
    assert [call.arguments["card"] for call in calls_of(handle.id, "find_charge")] == [CARD] * ("tool" in check)


async def test_what_was_done_is_taken_back_with_the_value(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    """After the run continued as new, by a worker that has not seen its beginning."""
    waits = {"call": [{"look": {"what": "x", "held": True}}]}
    site.write("cards", [{"call": [{"charge": CALL}]}, waits, {"say": "done"}], tools=TOOLS, policy=ALLOW_ALL)

    async with site.serving():
        handle = await site.start("cards")
        async with asyncio.timeout(30):
            while not calls_of(handle.id, "look"):
                await asyncio.sleep(0.05)
    async with site.serving():
        stopping = asyncio.create_task(stop(handle, {"by": "ann@example.com"}))
        LET_GO.add(handle.id)
        await stopping
        result = await handle.result()
        await assert_hidden(handle, "".join(capfd.readouterr()))

    assert result.status is RunStatus.STOPPED
    assert [call.arguments for call in calls_of(handle.id, "pay_back")] == [{"card": CARD, "amount": 5.0}]


async def test_run_that_continues_as_new_while_it_waits(tmp_path: Path) -> None:
    """Another worker, with nothing in memory, knows the same call by the same key and restores the edit."""
    async with run_private_server(extra_dynamic_config={"limit.historyCount.suggestContinueAsNew": "100"}) as server:
        people = str(write_people(tmp_path))
        site = new_site(tmp_path, await connect(address=server.address), MANDATE_PEOPLE=people)
        write(site, {}, policy=[{**ASK[0], "quorum": 2}, *ALLOW_ALL])
        async with site.serving():
            handle = await site.start("cards")
            (request,) = await asked(handle)
            await decide(handle, request, value={**request.arguments, "amount": 2.0})
            await continued(handle)
        async with site.serving():
            (request,) = await asked(handle)
            assert request.edited is not None
            await decide(handle, request, by="bob@example.com")
            await handle.result()
            await assert_hidden(handle)
        parts = await parts_taken(site.client, handle.id)

    assert parts == 2
    (call,) = calls_of(handle.id, "charge")
    assert call.arguments == {"card": CARD, "amount": 2.0, "parts": [CARD]}


async def test_same_call_in_two_runs_looks_different(site: Site) -> None:
    """A digest that is equal in two runs would tell that it is the same card."""
    write(site, {}, policy=ASK)
    words = []

    async with site.serving():
        for _ in range(2):
            handle = await site.start("cards")
            (request,) = await asked(handle)
            await decide(handle, request, value={**request.arguments, "amount": 2.0})
            await handle.result()
            events = [event.SerializeToString() async for event in handle.fetch_history_events()]
            words.append([{word for word in event.split(b'"') if len(word) == 43} for event in events])

    same = set().union(*words[0]) & set().union(*words[1])
    (agent,) = (word for word in same if b" " not in word)
    version = (await handle.describe()).typed_search_attributes[AGENT_VERSION]
    assert agent.decode().startswith(version)


async def test_signed_change_by_a_real_command_and_one_with_a_new_value(tmp_path: Path, client: Client) -> None:
    """What is signed is checked once more where the call is made, over keyed digests."""
    code, said = await shell(f"{SIGNER} --make-key --key {tmp_path}/issuer.pem --jwks {tmp_path}/jwks.json")
    assert code == 0, said
    keys = {"MANDATE_JWKS": str(tmp_path / "jwks.json"), "MANDATE_TOKEN_ISSUER": "example"}
    site = new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)), **keys)
    write(site, {}, policy=[{**ASK[0], "signature": "required"}, *ALLOW_ALL], requester="anyone")
    environment = {"MANDATE_STORE": site.settings.store, "MANDATE_FOLDER": str(tmp_path)}

    async with site.serving():
        handle = await site.start("cards")
        (request,) = await asked(handle)
        approve = (
            f"{sys.executable} -m mandate.workers.main approve {handle.id}:{request.id} --by ann@example.com "
            f"--address {client.service_client.config.target_host} "
            f"--token-command '{SIGNER} --key {tmp_path}/issuer.pem --issuer example'"
        )
        refused = await shell(f"{approve} --set card=5500", **environment)
        shown = await shell(f"{sys.executable} -m mandate.workers.main show {handle.id} --address "
                            f"{client.service_client.config.target_host} -o json", **environment)  # fmt: skip
        signed = await shell(f"{approve} --set amount=2", **environment)
        assert signed[0] == 0, signed[1]
        await asyncio.wait_for(handle.result(), 30)
        await assert_hidden(handle, shown[1] + signed[1])

    assert refused[0] == 2
    assert "'card' is sensitive, and what people send stays in the run's history" in refused[1]
    assert shown[0] == 0
    (call,) = calls_of(handle.id, "charge")
    assert call.arguments == {"card": CARD, "amount": 2.0, "parts": [CARD]}
