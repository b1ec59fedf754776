"""Many decisions in one message, and many people at one run, against a server with the limit that servers have."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowHandle, WorkflowUpdateFailedError

from mandate.activities import agent as opening
from mandate.workers.client import messages
from mandate.workers.client.client import connect
from mandate.workers.dev_server.server import run_private_server
from mandate.workflows.contracts.request import Answer, Decision, Receipts, Request
from mandate.workflows.contracts.run import RunStatus
from mandate.workflows.loop import people
from tests.support.agents import REQUESTER, Site, continued, new_site, parts_taken
from tests.support.attacks import failed_tasks, kept, whole_history
from tests.support.people import (
    ASK_ALL,
    asked,
    decide,
    decision,
    open_requests,
    refusal_of,
    send_update,
    stop,
    write_people,
)
from tests.support.toolkit import calls_of

Handle = WorkflowHandle[Any, Any]

IN_FLIGHT = {"history.maxInFlightUpdates": "10"}
"""What a server allows that nobody has told otherwise."""


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))


@pytest.fixture
async def strict(tmp_path: Path) -> AsyncIterator[Site]:
    """A site on a server with `IN_FLIGHT`."""
    async with run_private_server(extra_dynamic_config=IN_FLIGHT) as server:
        yield new_site(tmp_path, await connect(address=server.address))


def write_payer(site: Site, count: int, **rule: Any) -> None:
    calls = [{"pay": {"order": number, "amount": 1}} for number in range(count)]
    policy = [{**ASK_ALL[0], "expires": "10m", **rule}, ASK_ALL[1]]
    site.write("payer", [{"call": calls}, {"say": "Paid."}], policy=policy)


async def decide_each(handle: Handle, *decisions: object) -> tuple[Answer, ...]:
    told: Receipts = await send_update(handle, "decide", {"decisions": list(decisions)}, result_type=Receipts)
    return told.receipts


def said(answers: tuple[Answer, ...]) -> list[str | None]:
    """Status or refusal of each."""
    assert all((one.receipt is None) != (one.refusal is None) for one in answers)
    return [one.receipt.status if one.receipt is not None else one.refusal for one in answers]


async def test_each_decision_of_one_message_is_answered_by_itself(site: Site) -> None:
    write_payer(site, 4)
    async with site.serving():
        handle = await site.start("payer")
        first, second, third, fourth = await asked(handle, 4)

        answers = await decide_each(
            handle,
            decision(first),
            decision(second.model_copy(update={"digest": first.digest})),
            {"request": "r3", "choise": "approve"},
            "r3",
            {"request": "*", "choice": "reject"},
            decision(third, "reject"),
            decision(fourth, by="dan@example.com"),
            decision(fourth, value=["x" * 200_000]),
            decision(fourth.model_copy(update={"id": "r9"})),
            decision(first),
            decision(fourth),
            decision(second),
        )
        result = await handle.result()

    assert said(answers) == [
        "approved",
        "digest: it is that of request r1, not of r2",
        f"choice: is missing; choise: is not a known key; did you mean 'choice'? (allowed keys: {KEYS})",
        "takes one JSON object",
        "request: '*' is sent by itself, not among other decisions",
        "rejected",
        "by: 'dan@example.com' may not decide on r4: group finance",
        "takes one JSON object of at most 50 keys and 131072 characters in all",
        "request: 'r9' is not a request of this run; open are: r1, r2, r3, r4",
        "approved",
        "approved",
        "approved",
    ]
    assert not any(answer.again for answer in answers)
    assert result.effects.count == 3


KEYS = "request, digest, choice, by, comment, value, token"
ONE = {"request": "r1", "digest": "d" * 43, "choice": "approve", "by": "ann"}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"decisions": [ONE] * 51}, "decisions: must be a list of 1 to 50 decisions, not 51 of them"),
        ({"decisions": []}, "decisions: must be a list of 1 to 50 decisions, not 0 of them"),
        (
            {"decisions": ONE},
            "decisions: must be a list of 1 to 50 decisions, not {'request': 'r1', 'digest': 'dddddddddd…",
        ),
        ({"decisions": None}, "decisions: must be a list of 1 to 50 decisions, not None"),
        (
            {"decisions": [ONE], "by": "ann", "request": "r1"},
            "decisions: holds whole decisions and stands alone; there is 'by', 'request' beside it",
        ),
        (
            {"decisions": [{**ONE, "value": "x" * 110_000}] * 5},
            "decisions: takes at most 524288 characters in all; send fewer at once",
        ),
    ],
    ids=["51", "none", "an object", "null", "both forms", "vast"],
)
async def test_a_message_of_no_such_shape_is_refused_as_a_whole(site: Site, given: object, sentence: str) -> None:
    write_payer(site, 1)
    async with site.serving():
        handle = await site.start("payer")
        (request,) = await asked(handle)
        refused = await refusal_of(handle, "decide", given)
        await handle.signal("decide", given)
        found = await kept(handle, 1)
        await decide(handle, request)
        await handle.result()
    events = [event for part in await whole_history(site.client, handle) for event in part]

    assert refused == sentence
    assert [one.reason for one in found.refused] == [sentence]
    assert sum(_is_accepted(event) for event in events) == 1


def _is_accepted(event: HistoryEvent) -> bool:
    return event.HasField("workflow_execution_update_accepted_event_attributes")


async def test_decisions_on_one_request_are_taken_in_their_order(site: Site) -> None:
    write_payer(site, 2, quorum=2)
    async with site.serving():
        handle = await site.start("payer")
        first, second = await asked(handle, 2)

        answers = await decide_each(
            handle,
            decision(first),
            decision(second, "reject"),
            decision(first, by="bob@example.com"),
            decision(second, by="bob@example.com"),
            decision(first, "reject", by="bob@example.com"),
        )
        result = await handle.result()

    assert said(answers) == [
        "recorded",
        "rejected",
        "approved",
        "request r2 is rejected already: ann@example.com rejected it",
        "request r1 is approved already: ann@example.com and bob@example.com approved it",
    ]
    assert result.effects.count == 1


async def test_many_decisions_by_signal_count_and_their_refusals_are_kept(site: Site) -> None:
    write_payer(site, 3)
    async with site.serving():
        handle = await site.start("payer")
        first, second, third = await asked(handle, 3)

        many = [decision(first), decision(second, by="dan@example.com"), {"request": "r3"}, decision(third, "reject")]
        await handle.signal("decide", {"decisions": many})
        found = await kept(handle, 2)
        await decide(handle, second)
        result = await handle.result()

    assert sorted((one.request, one.reason[:36], one.via) for one in found.refused) == [
        ("r2", "by: 'dan@example.com' may not decide", "signal"),
        ("r3", "choice: is missing (allowed keys: re", "signal"),
    ]
    assert result.effects.count == 2


async def test_what_one_message_costs_in_history(site: Site) -> None:
    """One lookup for fifty, so that a decision takes a tenth of the events that it takes by itself."""
    write_payer(site, 50, quorum=2)
    async with site.serving():
        handle = await site.start("payer")
        requests = await asked(handle, 50)
        before = (await handle.describe()).history_length
        answers = await decide_each(handle, *map(decision, requests))
        together = (await handle.describe()).history_length - before
        await decide(handle, requests[0], by="bob@example.com")
        await stop(handle, {"by": "ann@example.com"})
        await handle.result()

    assert said(answers) == ["recorded"] * 50
    assert together <= 20


async def test_one_that_cannot_be_checked_keeps_the_others_from_nothing(site: Site) -> None:
    """This worker has no keys: whoever must sign cannot be checked."""
    calls = [{"pay": {"order": 1}}, {"send": {"to": "Ann"}}, {"pay": {"order": 2}}]
    signed = {**ASK_ALL[0], "id": "signed", "match": {"tools": ["send"]}, "signature": "required"}
    site.write("payer", [{"call": calls}, {"say": "Paid."}], policy=[*ASK_ALL, signed], requester="anyone")
    async with site.serving():
        handle = await site.start("payer")
        first, second, third = await asked(handle, 3)
        answers = await decide_each(handle, decision(first), decision(second, token="x.y.z"), decision(third))
        await stop(handle, {"by": "ann@example.com"})
        result = await handle.result()

    assert said(answers)[::2] == ["approved", "approved"]
    assert answers[1].refusal is not None
    assert answers[1].refusal.startswith("the decision could not be checked")
    assert not answers[1].again
    assert result.effects.count >= 1


@pytest.mark.parametrize("loop", [0, 1])
async def test_runs_that_began_before_take_many_decisions(
    site: Site, loop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "LOOP", loop)
    write_payer(site, 8)
    async with site.serving(max_cached_workflows=0):
        handle = await site.start("payer")
        requests = await asked(handle, 8)
        answers = await decide_each(handle, *map(decision, requests))
        result = await handle.result()

    assert said(answers) == ["approved"] * 8
    assert result.effects.count == 8


async def test_a_decision_that_comes_again_is_answered_with_what_it_did(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also once the run has continued as new."""
    write_payer(site, 4, quorum=2)
    async with site.serving(sandboxed=False):
        handle = await site.start("payer")
        first, second, third, fourth = await asked(handle, 4)
        sent = [
            decision(first),
            decision(second, "reject"),
            decision(third),
            decision(first, by="bob@example.com"),
            decision(third, "reject", by="bob@example.com"),
        ]
        before = await decide_each(handle, *sent)
        again = await decide_each(handle, *sent)
        monkeypatch.setattr("mandate.workflows.loop.run.EVENTS", 50)
        await continued(handle)
        monkeypatch.undo()
        later = await decide_each(handle, *sent)
        every = [await send_update(handle, "decide", {"request": "*", "choice": "reject", "by": "ann"})]
        await handle.result()

    assert said(before) == said(again) == said(later) == ["recorded", "rejected", "recorded", "approved", "rejected"]
    assert [(one.receipt.message if one.receipt else None) for one in later] == [
        "recorded; r1 is approved since: ann@example.com and bob@example.com approved it",
        "r2 is rejected: ann@example.com rejected it",
        "recorded; r3 is rejected since: bob@example.com rejected it",
        "r1 is approved: ann@example.com and bob@example.com approved it",
        "r3 is rejected: bob@example.com rejected it",
    ]
    assert every[0]["message"] == "1 request rejected"
    assert fourth.id == "r4"


async def test_signals_to_a_run_that_cannot_leave_count_once_it_has(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From so many events on a run that is about to continue as new takes nothing in; no signal is lost for it."""
    monkeypatch.setattr("mandate.workflows.loop.run.EVENTS", 60)
    monkeypatch.setattr(people, "CROWD_EVENTS", 60)
    write_payer(site, 20, quorum=2)
    async with site.serving(sandboxed=False):
        handle = await site.start("payer")
        requests = await asked(handle, 20)
        sending = [
            handle.signal("decide", decision(request, by=by))
            for request in requests
            for by in ("ann", "bob@example.com")
        ]
        await asyncio.gather(*sending)
        result = await handle.result()
        found = await open_requests(handle)
        parts = await whole_history(site.client, handle)

    assert (result.status, result.effects.count) == (RunStatus.COMPLETED, 20)
    assert found.refused == ()
    assert len(calls_of(handle.id)) == 20
    assert len(parts) > 2
    assert failed_tasks(parts) == []


async def test_updates_to_a_run_that_cannot_leave_are_told_to_come_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mandate.workflows.loop.run.EVENTS", 60)
    monkeypatch.setattr(people, "CROWD_EVENTS", 60)
    write_payer(site, 100, quorum=2)
    async with site.serving(sandboxed=False):
        handle = await site.start("payer")
        requests = await asked(handle, 100)
        crowd = ("ann@example.com", "bob@example.com")
        told = await asyncio.gather(*(_decide_all(site.client, handle, requests, by, bulk=7) for by in crowd))
        result = await handle.result()

    assert Counter(told[0] + told[1]) == {"recorded": 100, "approved": 100}
    assert (result.status, result.effects.count) == (RunStatus.COMPLETED, 100)
    assert await parts_taken(site.client, handle.id) > 3


async def _decide_all(client: Client, handle: Handle, requests: tuple[Request, ...], by: str, bulk: int) -> list[str]:
    """Statuses of one person's approvals, sent so many at a time by a client of their own."""
    mine = Client(**client.config())
    told: list[str] = []
    for first in range(0, len(requests), bulk):
        outcomes = await messages.decide_many(mine, _approvals(handle, requests[first : first + bulk], by))
        assert [outcome.error for outcome in outcomes if outcome.error is not None] == []
        told += [outcome.receipt.status for outcome in outcomes if outcome.receipt is not None]
    return told


def _approvals(handle: Handle, requests: tuple[Request, ...], by: str) -> list[tuple[str, Decision]]:
    return [(handle.id, Decision.model_validate(decision(request, by=by))) for request in requests]


@pytest.mark.parametrize("persons", [2, 3, 5])
async def test_many_requests_are_decided_by_many_people_at_once(strict: Site, persons: int) -> None:
    """Each has a client that knows nothing of the others; the server takes ten updates of a run at a time."""
    names = [f"person-{number}@example.com" for number in range(persons)]
    everybody = {"people": [*({"name": name, "groups": ["finance"]} for name in names), {"name": REQUESTER}]}
    strict.environment["MANDATE_PEOPLE"] = str(write_people(strict.folder, everybody))
    count = 200
    write_payer(strict, count, quorum=persons)
    async with strict.serving():
        handle = await strict.start("payer")
        requests = await asked(handle, count)
        begun = time.monotonic()
        told = await asyncio.gather(*(_decide_all(strict.client, handle, requests, name, bulk=count) for name in names))
        seconds = time.monotonic() - begun
        result = await handle.result()
        parts = await whole_history(strict.client, handle)

    statuses = Counter(status for one in told for status in one)
    assert statuses == {"recorded": count * (persons - 1), "approved": count}
    assert (result.status, result.effects.count) == (RunStatus.COMPLETED, count)
    assert failed_tasks(parts) == []
    # A run that the server threw away again and again took minutes; one that it did not takes a second or two.
    assert seconds < 30


async def test_people_who_send_one_by_one_beside_each_other_lose_nothing(strict: Site) -> None:
    """Twelve programs with single decisions are more than the server takes at a time: they come again, ever later."""
    names = [f"person-{number}@example.com" for number in range(12)]
    everybody = {"people": [*({"name": name, "groups": ["finance"]} for name in names), {"name": REQUESTER}]}
    strict.environment["MANDATE_PEOPLE"] = str(write_people(strict.folder, everybody))
    write_payer(strict, 12, quorum=12)
    async with strict.serving():
        handle = await strict.start("payer")
        requests = await asked(handle, 12)

        async def person(name: str) -> list[str]:
            mine = Client(**strict.client.config())
            receipts = await asyncio.gather(
                *(messages.decide(mine, *one) for one in _approvals(handle, requests, name))
            )
            return [receipt.status for receipt in receipts]

        told = await asyncio.gather(*map(person, names))
        result = await handle.result()

    assert Counter(status for one in told for status in one) == {"recorded": 12 * 11, "approved": 12}
    assert (result.status, result.effects.count) == (RunStatus.COMPLETED, 12)


async def test_a_crowded_run_says_that_a_message_may_come_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people, "CROWD", 1)
    write_payer(site, 1)
    async with site.serving(sandboxed=False):
        handle = await site.start("payer")
        (request,) = await asked(handle)
        await send_update(handle, "pause", {"by": "ann@example.com"})
        for verb, given in (
            ("decide", decision(request)),
            ("decide", {"decisions": [decision(request)]}),
            ("resume", {"by": "ann@example.com"}),
        ):
            with pytest.raises(WorkflowUpdateFailedError) as refused:
                await send_update(handle, verb, given)
            assert str(refused.value.cause) == f"TryAgain: {people.CROWDED}"
        await stop(handle, {"by": "ann@example.com"})
        result = await handle.result()

    assert result.status is RunStatus.STOPPED
