"""Sums that rules see when people change the calls that they decide on."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle

from mandate.workers.client import queries
from tests.support.agents import Site, new_site
from tests.support.money import (
    ASK_90,
    ASKED,
    OVER_LIMIT,
    REFUSED,
    UNASKED,
    moved,
    told_before_the_end,
    transfers,
    write_payer,
)
from tests.support.people import asked, decide, decision, refusal_of, write_people

TWO: dict[str, Any] = {**ASK_90, "quorum": 2}
"""Whatever a call is changed to, it still waits for somebody else."""

BOB = "bob@example.com"


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))


@pytest.mark.parametrize("amount", [20, 0, 100])
async def test_changed_call_holds_what_it_was_changed_to(site: Site, amount: int) -> None:
    write_payer(site, [transfers(90)], ASKED, 100 - amount)

    async with site.serving():
        handle = await site.start("payer")
        (request,) = await asked(handle)
        await decide(handle, request, value={"amount": amount})
        await told_before_the_end(site, handle, 100 - amount)

    assert moved(handle.id) == [amount, 100 - amount]


async def test_refused_change_changes_no_sum(site: Site) -> None:
    write_payer(site, [transfers(90)], ASKED, 10)

    async with site.serving():
        handle = await site.start("payer")
        (request,) = await asked(handle)
        refused = await refusal_of(handle, "decide", decision(request, value={"amount": 101}))
        await decide(handle, request)
        await told_before_the_end(site, handle, 10)

    assert refused == f"value: {OVER_LIMIT}"
    assert moved(handle.id) == [90, 10]


@pytest.mark.parametrize(
    ("ending", "left", "said"),
    [
        ("approve", 50, "[ann@example.com changed this call"),
        ("reject", 100, "refused: dan@example.com rejected it"),
        ("nobody", 100, "refused: nobody decided before "),
    ],
)
async def test_call_that_is_changed_twice_holds_the_last_amount_and_gives_back_no_other(
    site: Site, ending: str, left: int, said: str
) -> None:
    ask = {**TWO, "expires": "8s"} if ending == "nobody" else TWO
    write_payer(site, [transfers(90)], [ask, *UNASKED], left)

    async with site.serving():
        handle = await site.start("payer")
        (request,) = await asked(handle)
        await decide(handle, request, by=BOB, value={"amount": 20})
        (once,) = await asked(handle)
        await decide(handle, once, value={"amount": 50})
        (twice,) = await asked(handle)
        if ending != "nobody":
            await decide(handle, twice, ending, by="dan@example.com")
        (told,) = await told_before_the_end(site, handle, left)

    assert told.startswith(said)
    assert moved(handle.id) == ([50, left] if ending == "approve" else [left])


async def test_changed_call_that_was_not_done_gives_back_what_it_was_changed_to(site: Site) -> None:
    write_payer(site, [transfers(90)], ASKED, 100)

    async with site.serving():
        handle = await site.start("payer")
        (request,) = await asked(handle)
        await decide(handle, request, value={"amount": 20, "how": "refused"})
        (told,) = await told_before_the_end(site, handle, 100)

    assert told.endswith(f"]\n{REFUSED}")
    assert moved(handle.id) == [20, 100]


@pytest.mark.parametrize(
    ("how", "choice", "left", "calls"),
    [("lost", "happened", 80, 1), ("lost, refused", "not_happened", 100, 2), ("lost, done", "not_happened", 80, 2)],
)
async def test_changed_call_of_unknown_outcome_keeps_what_it_was_changed_to(
    site: Site, how: str, choice: str, left: int, calls: int
) -> None:
    write_payer(site, [transfers(90)], ASKED, left)

    async with site.serving():
        handle = await site.start("payer")
        (request,) = await asked(handle)
        await decide(handle, request, value={"amount": 20, "how": how})
        (outcome,) = await asked(handle)
        await decide(handle, outcome, choice)
        await told_before_the_end(site, handle, left)

    assert moved(handle.id) == [*[20] * calls, left]


async def test_what_one_call_gives_up_another_may_take(site: Site) -> None:
    write_payer(site, [transfers(50, 50)], [{**ASK_90, "when": "args.amount == 50.0"}, *UNASKED], 0)

    async with site.serving():
        handle = await site.start("payer")
        first, second = await asked(handle, 2)
        early = await refusal_of(handle, "decide", decision(first, value={"amount": 60}))
        await decide(handle, second, value={"amount": 40})
        late = await decide(handle, first, value={"amount": 60})
        await told_before_the_end(site, handle, 0)

    assert early == f"value: {OVER_LIMIT}"
    assert late.status == "approved"
    assert moved(handle.id) == [60, 40, 0]


async def test_other_calls_are_judged_with_the_share_of_an_unknown_one(site: Site) -> None:
    """While nobody knows, a person can raise another call of the turn by no more than what is left."""
    unsure, other = transfers(80, how="lost, refused"), transfers(15)
    turn = {"call": [*unsure["call"], *other["call"]]}
    write_payer(site, [turn], [{**ASK_90, "when": "args.amount == 15.0"}, *UNASKED], 1)

    async with site.serving():
        handle = await site.start("payer")
        approval, outcome = await asked(handle, 2)
        unknown = await refusal_of(handle, "decide", decision(approval, value={"amount": 21}))
        await decide(handle, outcome, "not_happened")
        await answered(handle)
        known = await decide(handle, approval, value={"amount": 99})
        told = await told_before_the_end(site, handle, 1)

    assert unknown == f"value: {OVER_LIMIT}"
    assert known.status == "approved"
    assert told[0] == REFUSED
    assert moved(handle.id) == [80, 80, 99, 1]


async def answered(handle: WorkflowHandle[Any, Any]) -> None:
    """Returns once the first call of the open turn has its answer."""
    async with asyncio.timeout(30):
        while (await queries.ask(handle, "progress", dict))["answers"][0] is None:
            await asyncio.sleep(0.05)
