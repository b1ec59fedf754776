"""Not done, or done wrongly: what may be made again, and under which key."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle

from mandate.workflows.contracts.request import Request
from mandate.workflows.contracts.run import RunStatus
from tests.support.agents import Site, new_site, results_told
from tests.support.effect_tools import KEYS
from tests.support.people import ASK_ALL, asked, decide, write_people
from tests.support.toolkit import BOOKED, calls_of

PAID = {"pay": {"order": 1, "amount": 2}}
NOTE = {"write_note": {"text": "a"}}
SHORT = [{"after": "pay", "expect": "result.paid > 5.0"}]
AGAIN = "not made again: the same call failed before (pay order=1 amount=2.0: check 'pay_expect_1' failed: "


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))


async def told(site: Site, head: str | None) -> list[str]:
    return [part.text for part in await results_told(site, head or "")]


@pytest.mark.parametrize(
    "turns",
    [
        [[PAID], [NOTE], [PAID]],
        [[PAID, NOTE, PAID]],
        [[PAID, PAID]],
    ],
    ids=["after another effect", "in one turn with another effect", "twice in one turn"],
)
async def test_an_effect_that_failed_its_check_is_never_made_again(site: Site, turns: list[list[Any]]) -> None:
    site.write("spoiled", [*({"call": calls} for calls in turns), {"say": "done"}], checks=SHORT)

    result, run = await site.run("spoiled")

    assert len(calls_of(run, "pay")) == 1
    assert AGAIN in (await told(site, result.head))[-1]
    assert result.status is RunStatus.COMPLETED


async def test_a_person_who_helps_does_not_lift_it(site: Site) -> None:
    site.write("spoiled", [{"call": [PAID]}, {"call": [PAID]}, {"say": "done"}], checks=SHORT, attempts=1)

    async with site.serving():
        handle = await site.start("spoiled")
        (first,) = await asked(handle)
        await decide(handle, first, "retry", value="Pay it in two parts.")
        await decide(handle, await _request(handle, "r2"), "accept")
        result = await handle.result()

    assert len(calls_of(handle.id, "pay")) == 1
    assert result.status is RunStatus.COMPLETED


async def test_a_read_that_failed_its_check_may_be_made_after_the_world_has_changed(site: Site) -> None:
    look = {"look": {"what": "x"}}
    checks = [{"after": "look", "expect": "result == 'nothing'"}]
    site.write("spoiled", [{"call": [look]}, {"call": [look]}, {"call": [NOTE]}, {"call": [look]}], checks=checks)

    async with site.serving():
        handle = await site.start("spoiled")
        (request,) = await asked(handle)
        await decide(handle, request, "stop")
        await handle.result()

    assert len(calls_of(handle.id, "look")) == 2


async def test_turns_whose_calls_all_fail_their_checks_count(site: Site) -> None:
    checks = [{"after": tool, "expect": "false"} for tool in ("look", "write_note", "pay")]
    calls = [[{"look": {"what": "x"}}], [NOTE], [PAID]]
    site.write("lame", [*({"call": one} for one in calls), {"say": "done"}], checks=checks, people={"expires": "1s"})

    result, _ = await site.run("lame")

    assert result.status is RunStatus.DECLINED
    assert (result.reason or "").startswith("3 turns in a row had no call that worked; nobody decided before ")


async def test_calls_that_do_not_fit_count_for_their_tool(site: Site) -> None:
    turn = {"call": [{"pay": {"order": "one"}}, {"look": {"what": "x"}}]}
    site.write("misfits", [turn, turn, turn, {"say": "done"}], people={"expires": "1s"})

    result, _ = await site.run("misfits")

    assert result.status is RunStatus.DECLINED
    assert (result.reason or "").startswith("'pay' failed 3 times; nobody decided before ")


async def test_what_a_person_said_of_a_call_does_not_hide_its_failed_check(site: Site) -> None:
    site.write("asks", [{"call": [PAID]}, {"say": "done"}], policy=ASK_ALL, checks=SHORT)

    async with site.serving():
        handle = await site.start("asks")
        (request,) = await asked(handle)
        await decide(handle, request, comment="as agreed")
        result = await handle.result()

    (text,) = await told(site, result.head)
    assert text.startswith("[ann@example.com approved it: as agreed; it was done, but check 'pay_expect_1' failed: ")


@pytest.mark.parametrize(("valid", "keys"), [(None, 1), ("1h", 1), ("3s", 2)], ids=["for ever", "known", "forgotten"])
async def test_a_call_that_did_not_happen_is_made_again_under_its_key_while_it_is_known(
    site: Site, valid: str | None, keys: int
) -> None:
    order = hash(("rerun", valid, str(site.folder))) % 10**9
    tool = {"python": "tests.support.effect_tools:act", "effect": "keyed", "retries": 1}
    how = "raise, raise" if valid != "3s" else "raise"
    tools = [{**tool, "retries": how.count(","), **({"key_valid": valid} if valid else {})}]
    site.write("rerun", [{"call": [{"act": {"order": order, "how": how}}]}, {"say": "done"}], tools=tools)

    async with site.serving():
        handle = await site.start("rerun")
        (request,) = await asked(handle)
        if valid == "3s":
            await asyncio.sleep(3.2)
        await decide(handle, request, "not_happened")
        again = await _request(handle, "r2")
        await decide(handle, again, "happened")
        result = await handle.result()

    assert len(set(KEYS[order])) == keys
    (entry,) = result.effects.last
    assert entry.key == KEYS[order][-1]
    # All attempts under this key: two of two, or one of the second key.
    assert entry.attempts == (len(KEYS[order]) if keys == 1 else 1)


async def _request(handle: WorkflowHandle[Any, Any], name: str) -> Request:
    """The open request of this name, once there is one."""
    async with asyncio.timeout(30):
        while True:
            found = [one for one in await asked(handle) if one.id == name]
            if found:
                return found[0]
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(("untrusted", "runs"), [(True, 0), (False, 1)])
async def test_what_a_probe_found_taints_the_run(site: Site, untrusted: bool, runs: int) -> None:
    BOOKED.add("fay")
    probe = {"tool": "find_letter", "with": {"to": "args.to"}, "patience": "2s"}
    tools = [
        {"python": "tests.support.toolkit:find_letter", "untrusted": untrusted},
        {"python": "tests.support.toolkit:send", "probe": probe},
        {"python": "tests.support.toolkit:write_note"},
    ]
    policy = [
        {"id": "all", "match": {}, "verdict": "allow"},
        {"id": "clean", "match": {"tools": ["write_note"]}, "when": "run.tainted", "verdict": "deny"},
    ]
    turns = [{"call": [{"send": {"to": "fay", "lose_reply": True}}]}, {"call": [NOTE]}, {"say": "done"}]
    site.write("tainted", turns, tools=tools, policy=policy)

    result, run = await site.run("tainted")

    assert result.effects.last[0].reason == "as find_letter shows"
    assert len(calls_of(run, "write_note")) == runs


@pytest.mark.parametrize(
    ("check", "finding"),
    [({"expect": "!result.contains('error')"}, "could not be made"), ({"expect": "true", "unable": "pass"}, None)],
)
async def test_what_stands_in_for_a_lost_result_passes_no_check(
    site: Site, check: dict[str, Any], finding: str | None
) -> None:
    site.write(
        "lost",
        [{"call": [{"send": {"to": "ann", "lose_reply": True}}]}, {"say": "done"}],
        checks=[{"after": "send", **check}],
    )

    async with site.serving():
        handle = await site.start("lost")
        (request,) = await asked(handle)
        await decide(handle, request, "happened")
        result = await handle.result()

    (text,) = await told(site, result.head)
    assert (f"check 'send_expect_1' {finding}: what the call returned is not known" in text) is (finding is not None)
