"""Unknown outcomes, escalations and counts of failures in runs that continue as new meanwhile."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle

from mandate.workers.client.client import connect
from mandate.workers.dev_server.server import run_private_server
from mandate.workflows.contracts.request import Request
from mandate.workflows.contracts.run import RunStatus
from tests.support.agents import Site, continued, conversation, new_site, parts_taken, results_told
from tests.support.people import asked, decide, decision, refusal_of, write_people
from tests.support.toolkit import BOOKED, calls_of

LOOK = {"look": {"what": "x"}}


@pytest.fixture(scope="module")
async def brief(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    """A server that wants runs to continue as new after 40 events."""
    async with run_private_server(extra_dynamic_config={"limit.historyCount.suggestContinueAsNew": "40"}) as server:
        yield await connect(address=server.address)


@pytest.fixture
def site(tmp_path: Path, brief: Client) -> Site:
    return new_site(tmp_path, brief, MANDATE_PEOPLE=str(write_people(tmp_path)))


async def asked_anew(handle: WorkflowHandle[Any, Any]) -> Request:
    """What the run asks, the same before and after it has continued as new for what people tell it."""
    (before,) = await asked(handle)
    await continued(handle)
    (after,) = await asked(handle)
    assert after == before
    return after


async def test_outcome_that_is_told_afterwards_counts(site: Site) -> None:
    calls = [{"pay": {"order": 1}}, {"send": {"to": "ann", "lose_reply": True}}, {"write_note": {"text": "b"}}, LOOK]
    site.write("lost", [{"call": calls}, {"say": "done"}])

    async with site.serving():
        handle = await site.start("lost")
        request = await asked_anew(handle)
        stale = await refusal_of(handle, "decide", decision(request, "happened") | {"digest": "x" * 43})
        await decide(handle, request, "happened", value="letter 7")
        result = await handle.result()

    assert (request.kind, request.choices) == ("outcome", ("happened", "not_happened", "stop"))
    assert stale == "digest: it is not that of request r1; look at it again and decide on what it says now"
    assert (result.status, result.uncertain) == (RunStatus.COMPLETED, ())
    assert [entry.tool for entry in result.effects.last] == ["pay", "send", "write_note"]
    lost = result.effects.last[1]
    assert (lost.reason, lost.key) == ("ann@example.com chose happened", calls_of(handle.id, "send")[0].key)
    texts = [part.text for part in await results_told(site, result.head or "")]
    assert texts[1:] == ["[it happened, says ann@example.com]\nletter 7", "kept 1 characters", "looked at x"]
    assert sorted(call.tool for call in calls_of(handle.id)) == ["look", "pay", "send", "write_note"]


async def test_what_did_not_happen_is_made_again_afterwards(site: Site) -> None:
    site.write("lost", [{"call": [{"send": {"to": "bob", "lose_first": True}}]}, {"say": "done"}])

    async with site.serving():
        handle = await site.start("lost")
        await decide(handle, await asked_anew(handle), "not_happened")
        result = await handle.result()

    first, second = calls_of(handle.id, "send")
    (entry,) = result.effects.last
    assert first.key != second.key
    assert (entry.key, entry.attempts, entry.reason) == (second.key, 1, None)


async def test_outcome_expires_afterwards(site: Site) -> None:
    turns = [{"call": [{"send": {"to": "ann", "lose_reply": True}}]}, {"say": "done"}]
    site.write("lost", turns, people={"expires": "10s"})

    async with site.serving():
        handle = await site.start("lost")
        request = await asked_anew(handle)
        result = await handle.result()

    assert result.status is RunStatus.DECLINED
    assert [entry.key for entry in result.uncertain] == [calls_of(handle.id, "send")[0].key]
    assert request.evidence[0] == "send to=ann lose_reply=true: ConnectionError: the line broke"


async def test_probe_of_a_second_call_is_asked_afterwards(site: Site) -> None:
    """What one call waits for holds back the next, whose outcome is then found out as if nothing had been."""
    BOOKED.add("cy")
    lost = [{"write_note": {"text": "a"}}, {"send": {"to": "cy", "lose_reply": True}}]
    probe = {"tool": "find_letter", "with": {"to": "args.to"}}
    names = ("find_letter", "write_note")
    tools = [
        *({"python": f"tests.support.toolkit:{name}"} for name in names),
        {"python": "tests.support.toolkit:send", "probe": probe},
    ]
    policy = [
        {"id": "notes", "match": {"tools": ["write_note"]}, "verdict": "ask"},
        {"id": "all", "match": {}, "verdict": "allow"},
    ]
    site.write("probed", [{"call": lost}, {"say": "done"}], tools=tools, policy=policy)

    async with site.serving():
        handle = await site.start("probed")
        await decide(handle, await asked_anew(handle))
        result = await handle.result()

    assert [(entry.tool, entry.reason) for entry in result.effects.last] == [
        ("write_note", None),
        ("send", "as find_letter shows"),
    ]


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ("retry", "[attempt 3 of 3 of 'send' failed; a person is asked]\nthere is no such address"),
        ("supply", "[supplied by ann@example.com]\nit is in the cellar"),
    ],
)
async def test_escalation_that_is_decided_afterwards_counts(site: Site, choice: str, told: str) -> None:
    turns = [{"call": [{"send": {"to": f"n{number}", "refuse": True}}, LOOK]} for number in range(4)]
    site.write("bad", [*turns, {"say": "done"}])

    async with site.serving():
        handle = await site.start("bad")
        request = await asked_anew(handle)
        await decide(handle, request, choice, value="it is in the cellar")
        result = await handle.result()

    assert [line.partition(" to=")[0] for line in request.evidence] == [f"attempt {n}: send" for n in (1, 2, 3)]
    assert (result.status, result.output) == (RunStatus.COMPLETED, "done")
    texts = [part.text for part in await results_told(site, result.head or "")]
    # The fourth failure is the first of the count that began anew.
    assert texts[4:] == [told, "looked at x", "there is no such address", "looked at x"]
    parts = [part for message in await conversation(site, result.head or "") for part in message.parts]
    words = [part.text for part in parts if part.kind == "text" and part.text.startswith("[ann")]
    said = "Try again. it is in the cellar" if choice == "retry" else "I have supplied the result."
    assert words == [f"[ann@example.com says] {said}"]


async def test_answer_that_failed_its_check_is_accepted_afterwards(site: Site) -> None:
    checks = [{"after": "final", "schema": {"type": "object"}}]
    site.write("form", [{"repeat": 3, "say": "no json"}], checks=checks)

    async with site.serving():
        handle = await site.start("form")
        request = await asked_anew(handle)
        await decide(handle, request, "accept")
        result = await handle.result()

    assert request.evidence[-1] == "its answer: no json"
    assert (result.status, result.output) == (RunStatus.COMPLETED, "no json")


async def test_failures_and_bars_are_carried_over(site: Site) -> None:
    failing = [{"call": [{"send": {"to": f"n{number}", "refuse": True}}, LOOK]} for number in (1, 2)]
    barred = {"call": [{"send": {"to": "n1", "refuse": True}}, LOOK]}
    site.write("long", [*failing, {"repeat": 8, "call": [LOOK]}, barred, {"say": "done"}])

    async with site.serving():
        handle = await site.start("long")
        (request,) = await asked(handle)
        runs = await parts_taken(site.client, handle.id)
        await decide(handle, request, "stop")
        await handle.result()

    assert runs > 1
    assert request.title == "'send' failed 3 times"
    assert request.evidence == (
        "attempt 1: send to=n1 refuse=true: error: there is no such address",
        "attempt 2: send to=n2 refuse=true: error: there is no such address",
        "attempt 3: send to=n1 refuse=true: repeated",
    )
    assert [call.arguments["to"] for call in calls_of(handle.id, "send")] == ["n1", "n2"]


async def test_call_that_was_done_wrongly_stays_barred(site: Site) -> None:
    pay = {"call": [{"pay": {"order": 1}}, LOOK]}
    checks = [{"after": "pay", "expect": "result.paid > 5.0"}]
    site.write("long", [pay, {"repeat": 8, "call": [LOOK]}, pay, {"say": "done"}], checks=checks)

    async with site.serving():
        handle = await site.start("long")
        result = await handle.result()
        runs = await parts_taken(site.client, handle.id)

    assert runs > 1
    assert (len(calls_of(handle.id, "pay")), result.effects.count) == (1, 1)
    again = (await results_told(site, result.head or ""))[-2].text
    assert again.startswith("[attempt 2 of 3 of 'pay' failed]\nnot made again: the same call failed before (")


async def test_same_call_is_counted_on(site: Site) -> None:
    site.write("loop", [{"repeat": 20, "call": [LOOK]}], same_call=6)

    async with site.serving():
        handle = await site.start("loop")
        (request,) = await asked(handle)
        runs = await parts_taken(site.client, handle.id)
        await decide(handle, request, "stop")
        result = await handle.result()

    assert runs > 2
    assert request.evidence == tuple(
        f"attempt {number}: look what=x, 12 times with the same result" for number in (1, 2, 3)
    )
    texts = [part.text for part in await results_told(site, result.head or "")]
    assert [number for number, text in enumerate(texts, 1) if "do something else" in text] == [6]


async def test_answers_that_were_not_taken_are_carried_over(site: Site) -> None:
    site.write("empty", [{"repeat": 10, "finish": "empty"}], attempts=10)

    async with site.serving():
        handle = await site.start("empty")
        (request,) = await asked(handle)
        runs = await parts_taken(site.client, handle.id)
        await decide(handle, request, "stop")
        await handle.result()

    assert runs > 1
    assert request.reason.startswith("10 answers in a row could not be taken; ")
    assert request.evidence == ("answer not taken: the model answered with nothing",) * 10
