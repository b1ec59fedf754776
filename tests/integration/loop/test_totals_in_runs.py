"""Sums that rules see: what each call of a run adds to them, and what gives its share back."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client

from mandate.workers.client.client import connect
from mandate.workers.dev_server.server import run_private_server
from tests.support.agents import ALLOW_ALL, Site, continued, new_site, part_of
from tests.support.http_peer import http_peer
from tests.support.money import (
    ASK_90,
    ASKED,
    LIMIT,
    OVER_LIMIT,
    REFUSED,
    UNASKED,
    moved,
    told_before_the_end,
    transfers,
    write_payer,
)
from tests.support.people import asked, decide, decision, refusal_of, write_people

DENIED = f"refused: {OVER_LIMIT}"
PROBE = {"probe": {"tool": "find_transfer", "with": {"how": "args.how"}}}
IDLE = {"repeat": 5, "call": [{"big": {"size": 10}}]}
"""Turns that move nothing."""


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))


@pytest.mark.parametrize(
    ("choice", "left", "said"),
    [("approve", 10, "moved 90"), ("reject", 100, "refused: ann@example.com rejected it")],
)
async def test_rejection_gives_its_share_back(site: Site, choice: str, left: int, said: str) -> None:
    write_payer(site, [transfers(90)], ASKED, left)

    async with site.serving():
        handle = await site.start("payer")
        (request,) = await asked(handle)
        await decide(handle, request, choice)
        told = await told_before_the_end(site, handle, left)

    assert told == [said]


async def test_rejection_of_everything_gives_each_share_back(site: Site) -> None:
    ask = {**ASK_90, "when": "args.amount in [50.0, 30.0]"}
    write_payer(site, [transfers(50, 20, 30)], [ask, *UNASKED], 80)

    async with site.serving():
        handle = await site.start("payer")
        await asked(handle, 2)
        await handle.signal("decide", {"request": "*", "choice": "reject"})
        await told_before_the_end(site, handle, 80)

    assert moved(handle.id) == [20, 80]


async def test_expiry_gives_its_share_back(site: Site) -> None:
    write_payer(site, [transfers(90)], [{**ASK_90, "expires": "300ms"}, *UNASKED], 100)

    async with site.serving():
        handle = await site.start("payer")
        (told,) = await told_before_the_end(site, handle, 100)

    assert told.startswith("refused: nobody decided before ")


@pytest.mark.parametrize("effect", ["once", "keyed", "idempotent"])
async def test_call_that_was_not_done_gives_its_share_back(site: Site, effect: str) -> None:
    write_payer(site, [transfers(90, how="refused")], UNASKED, 100, tool={"effect": effect})

    async with site.serving():
        handle = await site.start("payer")
        told = await told_before_the_end(site, handle, 100)

    assert told == [REFUSED]
    assert moved(handle.id) == [90, 100]


@pytest.mark.parametrize(("status", "moves"), [(200, []), (403, [100]), (None, [100])])
async def test_call_of_another_source_that_was_not_done_gives_its_share_back(
    tmp_path: Path, client: Client, status: int | None, moves: list[int]
) -> None:
    """Whether the other side refuses the call or it is never sent, as to a host that is not allowed."""
    limit = {**LIMIT, "when": "run.totals.order.amount + args.amount > 100.0"}
    async with http_peer() as peer:
        order = {
            "http": {"method": "POST", "url": f"{peer.url}/status/{status}"},
            "name": "order",
            "input_schema": {"type": "object", "properties": {"amount": {"type": "number"}}},
            "effect": "keyed",
        }
        site = new_site(tmp_path, client, **({"MANDATE_HTTP_HOSTS": peer.host} if status else {}))
        turns = [{"call": [{"order": {"amount": 1}}]}, transfers(100), {"say": "done"}]
        tools = [order, {"python": "tests.support.money:transfer"}]
        site.write("buyer", turns, policy=[limit, *ALLOW_ALL], tools=tools)

        _, run = await site.run("buyer")

    assert len(peer.seen) == (status is not None)
    assert moved(run) == moves


async def test_equal_call_that_is_not_made_after_one_done_wrongly_gives_its_share_back(site: Site) -> None:
    checks = [{"after": "transfer", "when": "args.amount == 40.0", "expect": "result == 'moved 41'"}]
    write_payer(site, [transfers(40, 40)], UNASKED, 60, checks=checks)

    async with site.serving():
        handle = await site.start("payer")
        await told_before_the_end(site, handle, 60)

    assert moved(handle.id) == [40, 60]


OUTCOMES = [
    ("lost", "happened", 10, 1),
    # Made again, and refused: nothing is left of it.
    ("lost, refused", "not_happened", 100, 2),
    # Made again, and done: it counts once.
    ("lost, done", "not_happened", 10, 2),
]


@pytest.mark.parametrize("effect", ["once", "keyed"])
@pytest.mark.parametrize(("how", "choice", "left", "calls"), OUTCOMES)
async def test_unknown_outcome_keeps_its_share_until_it_is_found_not_done(
    site: Site, effect: str, how: str, choice: str, left: int, calls: int
) -> None:
    write_payer(site, [transfers(90, how=how)], UNASKED, left, tool={"effect": effect})

    async with site.serving():
        handle = await site.start("payer")
        (request,) = await asked(handle)
        await decide(handle, request, choice)
        await told_before_the_end(site, handle, left)

    assert request.kind == "outcome"
    assert moved(handle.id) == [*[90] * calls, left]


@pytest.mark.parametrize(("how", "left", "calls"), [("arrived", 10, 1), ("lost, refused", 100, 2)])
async def test_what_a_probe_finds_keeps_its_share_or_gives_it_back(site: Site, how: str, left: int, calls: int) -> None:
    write_payer(site, [transfers(90, how=how)], UNASKED, left, tool=PROBE)

    async with site.serving():
        handle = await site.start("payer")
        await told_before_the_end(site, handle, left)

    assert moved(handle.id) == [*[90] * calls, left]


async def test_call_that_never_happens_gives_its_share_back_after_its_last_attempt(site: Site) -> None:
    write_payer(site, [transfers(90, how="lost")], UNASKED, 100, tool=PROBE)

    async with site.serving():
        handle = await site.start("payer")
        (told,) = await told_before_the_end(site, handle, 100)

    assert told.startswith("not done: ")
    assert moved(handle.id) == [90, 90, 90, 90, 100]


@pytest.mark.parametrize("turns", [[transfers(99)] * 10, [transfers(*[99] * 10)]])
async def test_ten_times_99_do_not_all_run(site: Site, turns: list[dict[str, Any]]) -> None:
    write_payer(site, turns, UNASKED, 1)

    async with site.serving():
        handle = await site.start("payer")
        told = await told_before_the_end(site, handle, 1)

    assert moved(handle.id) == [99, 1]
    assert told == ["moved 99", *[DENIED] * 9]


async def test_ten_times_99_do_not_all_run_when_people_are_asked(site: Site) -> None:
    write_payer(site, [transfers(99)] * 10, [{**ASK_90, "when": "true"}, *UNASKED], 1)

    async with site.serving():
        handle = await site.start("payer")
        (first,) = await asked(handle)
        await decide(handle, first)
        async with asyncio.timeout(30):
            while (last := (await asked(handle))[0]).id == "r1":
                await asyncio.sleep(0.05)
        await decide(handle, last)
        await told_before_the_end(site, handle, 1)

    assert (last.id, last.arguments["amount"]) == ("r2", 1)
    assert moved(handle.id) == [99, 1]


@pytest.fixture
async def continuing(tmp_path: Path) -> AsyncIterator[Site]:
    """A site whose runs continue as new every few turns."""
    async with run_private_server(extra_dynamic_config={"limit.historyCount.suggestContinueAsNew": "40"}) as server:
        own = await connect(address=server.address)
        yield new_site(tmp_path, own, MANDATE_PEOPLE=str(write_people(tmp_path)))


async def test_totals_survive_continue_as_new(continuing: Site) -> None:
    """Also what an open request and an unknown outcome hold, so that it can be given back later."""
    turn = {"call": [*transfers(50)["call"], *transfers(40, how="lost, refused")["call"]]}
    policy = [{**ASK_90, "when": "args.amount == 50.0"}, *UNASKED]
    write_payer(continuing, [transfers(10), IDLE, turn, IDLE], policy, 90)

    async with continuing.serving():
        handle = await continuing.start("payer")
        (approval,) = await asked(handle)
        parts = [handle.first_execution_run_id, await part_of(handle)]
        await continued(handle)
        over = await refusal_of(handle, "decide", decision(approval, value={"amount": 51}))
        await decide(handle, approval, "reject")
        (outcome,) = await asked(handle)
        parts.append(await part_of(handle))
        await continued(handle)
        parts.append(await part_of(handle))
        await decide(handle, outcome, "not_happened")
        told = await told_before_the_end(continuing, handle, 90)
        parts.append(await part_of(handle))

    assert len(set(parts)) == 5
    assert over == f"value: {OVER_LIMIT}"
    assert (outcome.kind, told[6:8]) == ("outcome", ["refused: ann@example.com rejected it", REFUSED])
    assert moved(handle.id) == [10, 40, 40, 90]
