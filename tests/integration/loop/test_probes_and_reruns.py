"""Calls that were found not to have happened and are made again; and what may go on while that is not known."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from mandate.workflows.contracts.run import RunStatus
from tests.support.agents import Site, new_site, results_told
from tests.support.people import asked, decide, open_requests, write_people
from tests.support.toolkit import calls_of

PROBE = {"tool": "find_letter", "with": {"to": "args.to"}, "patience": "2s"}
LATE = {**PROBE, "not_done": "false", "absent": "result.done == false", "patience": "1200ms"}
"""Says no only after more than a second."""


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))


def probed(**settings: Any) -> list[dict[str, Any]]:
    """Tools of which `send` is looked up by `find_letter`, who finds none."""
    names = ("look", "pay", "write_note", "find_letter")
    others = [{"python": f"tests.support.toolkit:{name}"} for name in names]
    return [*others, {"python": "tests.support.toolkit:send", "probe": PROBE, **settings}]


async def told(site: Site, head: str | None) -> list[str]:
    return [part.text for part in await results_told(site, head or "")]


async def test_three_reruns_and_then_the_model_is_told(site: Site) -> None:
    calls = [{"send": {"to": "nobody", "lose_reply": True}}, {"write_note": {"text": "b"}}]
    site.write("bound", [{"call": calls}, {"say": "done"}], tools=probed())

    result, run = await site.run("bound")

    sent, looked = calls_of(run, "send"), calls_of(run, "find_letter")
    assert (len(sent), len(looked)) == (4, 4)
    # A `once` call is never made under a key that was sent before.
    assert len({call.key for call in sent}) == 4
    assert (result.status, result.uncertain) == (RunStatus.COMPLETED, ())
    assert [entry.tool for entry in result.effects.last] == ["write_note"]
    seen = '{"done":false,"to":"nobody"}'
    no = f"not done: 'result.done == false' holds; 'find_letter' returned {seen}"
    assert await told(site, result.head) == [no, "kept 1 characters"]


async def test_person_is_told_what_the_probe_saw(site: Site) -> None:
    probe = {**PROBE, "done": "false", "not_done": "false", "patience": "100ms"}
    site.write(
        "unclear", [{"call": [{"send": {"to": "x", "lose_reply": True}}]}, {"say": "done"}], tools=probed(probe=probe)
    )

    async with site.serving():
        handle = await site.start("unclear")
        (request,) = await asked(handle)
        await decide(handle, request, "happened")
        await handle.result()

    lost, key, saw = request.evidence
    assert (lost, key[:16]) == ("send to=x lose_reply=true: ConnectionError: the line broke", "idempotency key ")
    assert saw.startswith("the probe find_letter could not tell: ")
    assert '{"done":false,"to":"x"}' in saw


async def test_a_person_may_say_so_four_times(site: Site) -> None:
    site.write("bound", [{"call": [{"send": {"to": "nobody", "lose_reply": True}}]}, {"say": "done"}])

    async with site.serving():
        handle = await site.start("bound")
        for number in range(1, 5):
            async with asyncio.timeout(30):
                while (request := (await asked(handle))[0]).id != f"r{number}":
                    await asyncio.sleep(0.05)
            await decide(handle, request, "not_happened")
        result = await handle.result()

    assert len(calls_of(handle.id, "send")) == 4
    assert (result.status, result.effects.count, result.uncertain) == (RunStatus.COMPLETED, 0, ())
    assert await told(site, result.head) == ["not done: ann@example.com chose not happened"]


@pytest.mark.parametrize(
    ("settings", "keys", "attempts"),
    [
        ({}, 2, 1),
        ({"effect": "keyed", "retries": 0}, 1, 2),
        ({"effect": "keyed", "retries": 0, "key_valid": "1h"}, 1, 2),
        # By the time it is made again the other side has forgotten the key.
        ({"effect": "keyed", "retries": 0, "key_valid": "1s", "probe": LATE}, 2, 1),
        ({"effect": "idempotent", "retries": 0}, 1, 2),
    ],
    ids=["once", "keyed", "keyed for an hour", "keyed for a second", "idempotent"],
)
async def test_entry_is_of_the_call_that_happened(
    site: Site, settings: dict[str, Any], keys: int, attempts: int
) -> None:
    turns = [{"call": [{"send": {"to": "bob", "lose_first": True}}]}, {"say": "done"}]
    site.write("again", turns, tools=probed(**settings))

    result, run = await site.run("again")

    sent = calls_of(run, "send")
    (entry,) = result.effects.last
    assert (len(sent), len({call.key for call in sent})) == (2, keys)
    assert (entry.key, entry.attempts, entry.reason) == (sent[-1].key, attempts, None)
    assert (await told(site, result.head)) == ["sent to bob"]


async def test_read_that_is_approved_meanwhile_is_made(site: Site) -> None:
    calls = [{"send": {"to": "ann", "lose_reply": True}}, {"write_note": {"text": "b"}}, {"look": {"what": "c"}}]
    policy = [
        {"id": "looks", "match": {"tools": ["look"]}, "verdict": "ask"},
        {"id": "all", "match": {}, "verdict": "allow"},
    ]
    site.write("lost", [{"call": calls}, {"say": "done"}], policy=policy)

    async with site.serving():
        handle = await site.start("lost")
        approval, outcome = await asked(handle, 2)
        before = [call.tool for call in calls_of(handle.id)]
        await decide(handle, approval)
        async with asyncio.timeout(30):
            while not calls_of(handle.id, "look"):
                await asyncio.sleep(0.05)
        still_open = [request.id for request in (await open_requests(handle)).requests]
        meanwhile = [call.tool for call in calls_of(handle.id)]
        await decide(handle, outcome, "happened")
        result = await handle.result()

    assert (approval.kind, outcome.kind) == ("approval", "outcome")
    assert (before, meanwhile) == (["send"], ["send", "look"])
    assert still_open == [outcome.id]
    assert [entry.tool for entry in result.effects.last] == ["send", "write_note"]


async def test_effect_that_is_approved_meanwhile_waits(site: Site) -> None:
    calls = [{"send": {"to": "ann", "lose_reply": True}}, {"write_note": {"text": "b"}}]
    policy = [
        {"id": "notes", "match": {"tools": ["write_note"]}, "verdict": "ask"},
        {"id": "all", "match": {}, "verdict": "allow"},
    ]
    site.write("lost", [{"call": calls}, {"say": "done"}], policy=policy)

    async with site.serving():
        handle = await site.start("lost")
        approval, outcome = await asked(handle, 2)
        await decide(handle, approval)
        await asyncio.sleep(0.5)
        meanwhile = [call.tool for call in calls_of(handle.id)]
        await decide(handle, outcome, "happened")
        result = await handle.result()

    assert meanwhile == ["send"]
    assert [entry.tool for entry in result.effects.last] == ["send", "write_note"]


async def test_identical_repetition_is_an_attempt(site: Site) -> None:
    turn = {"call": [{"send": {"to": "ann", "refuse": True}}, {"look": {"what": "x"}}]}
    site.write("again", [turn, turn, {"say": "done"}], attempts=2)

    async with site.serving():
        handle = await site.start("again")
        (request,) = await asked(handle)
        await decide(handle, request, "retry")
        result = await handle.result()

    assert (request.kind, request.title) == ("escalation", "'send' failed 2 times")
    assert request.evidence == (
        "attempt 1: send to=ann refuse=true: error: there is no such address",
        "attempt 2: send to=ann refuse=true: repeated",
    )
    assert len(calls_of(handle.id, "send")) == 1
    again = "not made again: the same call failed before (send to=ann refuse=true: error: there is no such address)"
    assert (await told(site, result.head))[2] == (
        f"[attempt 2 of 2 of 'send' failed; a person is asked]\n{again}; try another way"
    )
