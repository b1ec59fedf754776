"""Calls that people must decide on: asked, answered, refused, expired."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client, WorkflowHandle

from mandate.workers.client.client import connect
from mandate.workers.dev_server.server import run_private_server
from mandate.workflows.contracts.run import RunStatus
from tests.support.agents import Site, conversation, new_site, results_told
from tests.support.attacks import held_up
from tests.support.people import (
    ASK_ALL,
    PEOPLE,
    asked,
    decide,
    decision,
    open_requests,
    refusal_of,
    send_update,
    stop,
    write_people,
)
from tests.support.toolkit import calls_of, held

PAY = [{"call": [{"pay": {"order": 1, "amount": 120.0}}]}, {"say": "done"}]
OTHER_DIGEST = "A" * 43


@pytest.fixture
def site(tmp_path: Path, client: Client) -> Site:
    return new_site(tmp_path, client, MANDATE_PEOPLE=str(write_people(tmp_path)))


def _rule(**keys: Any) -> list[dict[str, Any]]:
    return [{**ASK_ALL[0], **keys}, ASK_ALL[1]]


async def test_a_call_runs_when_it_is_approved_and_not_before(site: Site) -> None:
    site.write("asks", PAY, policy=ASK_ALL)

    async with site.serving():
        handle = await site.start("asks", requester="eve@example.com")
        (request,) = await asked(handle)
        assert calls_of(handle.id) == []
        receipt = await decide(handle, request, comment="as agreed")
        result = await handle.result()

    assert request.title == "pay order=1 amount=120.0?"
    assert request.reason == "rule 'asked' asks people about 'pay'"
    assert request.waits_for == ("finance",)
    assert request.arguments == {"order": 1, "amount": 120.0}
    assert receipt.status == "approved"
    assert receipt.message == "r1 is approved: ann@example.com approved it"
    assert result.status is RunStatus.COMPLETED
    assert result.effects.count == 1
    (told,) = await results_told(site, result.head or "")
    assert told.text.startswith("[ann@example.com approved it: as agreed]\n")


async def test_a_rejected_call_never_reaches_its_tool_and_the_model_is_told_why(site: Site) -> None:
    site.write("asks", PAY, policy=ASK_ALL)

    async with site.serving():
        handle = await site.start("asks")
        (request,) = await asked(handle)
        await decide(handle, request, "reject", comment="too much")
        result = await handle.result()

    assert calls_of(handle.id) == []
    assert result.effects.count == 0
    (told,) = await results_told(site, result.head or "")
    assert told.text == "refused: ann@example.com rejected it (too much)"
    assert told.error


async def test_an_unmatched_effect_is_asked_for_and_an_unmatched_read_runs(site: Site) -> None:
    turns = [{"call": [{"look": {"what": "a"}}, {"pay": {"order": 1}}]}, {"say": "done"}]
    site.write("asks", turns, policy=[])

    async with site.serving():
        handle = await site.start("asks")
        (request,) = await asked(handle)
        while not calls_of(handle.id, "look"):
            await asyncio.sleep(0.05)
        await decide(handle, request, by="dan@example.com")
        result = await handle.result()

    assert request.reason == "no rule names 'pay', which changes the world"
    assert request.waits_for == ("anyone",)
    assert result.effects.count == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"choice": "maybe"}, "choice: 'maybe' is not one of approve, reject"),
        ({"request": "r9"}, "request: 'r9' is not a request of this run; open are: r1, r2"),
        ({"request": "nine"}, "request: 'nine' must be a request's id such as 'r3', or '*' (allowed keys: "),
        ({"digest": OTHER_DIGEST}, "digest: it is not that of request r1; look at it again and decide on what it says"),
        ({"digest": "short"}, "digest: 'short' must be the request's digest, 43 letters, digits, '-' and '_'"),
        ({"digest": "of r2"}, "digest: it is that of request r2, not of r1"),
        ({"by": "eve@example.com"}, "by: 'eve@example.com' asked for this run and cannot decide for it"),
        (
            {"by": " EVE@example.com"},
            "by: ' EVE@example.com' must be a name of 1 to 200 characters that can all be seen",
        ),
        (
            {"by": "ann\u200b@example.com"},
            "by: 'ann\\u200b@example.com' must be a name of 1 to 200 characters that can",
        ),
        ({"by": "EVE@Example.com"}, "by: 'EVE@Example.com' asked for this run and cannot decide for it"),
        ({"by": None}, "it: 'by' is missing; only 'request: *' goes without it"),
        ({"choice": "reject", "value": {"a": 1}}, "value: goes with approve, not with 'reject'"),
        ({"colour": "red"}, "colour: is not a known key (allowed keys: request, digest, choice, by, comment, value"),
        ({"request": "*"}, "it: 'request: *' goes with 'choice: reject' only, not 'approve'"),
    ],
)
async def test_a_decision_that_cannot_count_is_refused_without_a_trace(
    site: Site, change: dict[str, Any], said: str
) -> None:
    turns = [{"call": [{"pay": {"order": 1}}, {"pay": {"order": 2}}]}, {"say": "done"}]
    site.write("asks", turns, policy=ASK_ALL)

    async with site.serving():
        handle = await site.start("asks", requester="eve@example.com")
        first, second = await asked(handle, 2)
        if change.get("digest") == "of r2":
            change = {"digest": second.digest}
        refused = await refusal_of(handle, "decide", {**decision(first), **change})
        await handle.signal("stop", {"by": "ann@example.com"})
        result = await handle.result()

    kinds = [event.WhichOneof("attributes") or "" async for event in handle.fetch_history_events()]
    assert refused.startswith(said)
    assert [kind for kind in kinds if "update" in kind] == []
    assert result.status is RunStatus.STOPPED
    assert calls_of(handle.id) == []


async def test_who_is_not_entitled_now_is_refused_and_that_is_kept(site: Site) -> None:
    site.write("asks", PAY, policy=ASK_ALL)

    async with site.serving():
        handle = await site.start("asks")
        (request,) = await asked(handle)
        stranger = await refusal_of(handle, "decide", decision(request, by="cleo@example.com"))
        write_people(site.folder, {"people": [one for one in PEOPLE["people"] if one["name"] != "ann@example.com"]})
        removed = await refusal_of(handle, "decide", decision(request))
        kept = await open_requests(handle)
        await decide(handle, request, by="bob@example.com")
        result = await handle.result()

    assert "cleo@example.com" in stranger
    assert "ann@example.com" in removed
    assert [refused.by for refused in kept.refused] == ["cleo@example.com", "ann@example.com"]
    assert kept.refusals == 2
    assert result.effects.count == 1


async def test_a_quorum_takes_distinct_people(site: Site) -> None:
    site.write("asks", PAY, policy=_rule(quorum=2))

    async with site.serving():
        handle = await site.start("asks")
        (request,) = await asked(handle)
        first = await decide(handle, request)
        again = await decide(handle, request)
        twice = await refusal_of(handle, "decide", decision(request, "reject"))
        alias = await refusal_of(handle, "decide", decision(request, by="ann"))
        assert calls_of(handle.id) == []
        second = await decide(handle, request, by="bob@example.com")
        late = await refusal_of(handle, "decide", decision(request, by="dan@example.com"))
        result = await handle.result()

    assert (first.status, first.message) == ("recorded", "recorded; r1 still needs 1 of finance")
    assert (again.status, again.message) == ("recorded", "recorded; r1 still needs 1 of finance")
    assert twice == "by: 'ann@example.com' has decided on r1 already; it waits for somebody else"
    assert alias == "by: 'ann' has decided on r1 already, as 'ann@example.com'"
    assert second.message == "r1 is approved: ann@example.com and bob@example.com approved it"
    assert late == "request r1 is approved already: ann@example.com and bob@example.com approved it"
    assert result.effects.count == 1


async def test_all_rules_that_ask_must_be_satisfied(site: Site) -> None:
    legal = {"id": "law", "match": {"tools": ["pay"]}, "verdict": "ask", "approvers": {"groups": ["legal"]}}
    site.write("asks", PAY, policy=[*ASK_ALL, legal])

    async with site.serving():
        handle = await site.start("asks")
        (request,) = await asked(handle)
        first = await decide(handle, request)
        await decide(handle, request, by="cleo@example.com")
        result = await handle.result()

    assert request.waits_for == ("finance", "legal")
    assert first.message == "recorded; r1 still needs 1 of legal"
    assert result.effects.count == 1


async def test_what_runs_is_what_was_approved_last(site: Site) -> None:
    limit = {"id": "limit", "match": {"tools": ["pay"]}, "when": "args.amount > 500.0", "verdict": "deny"}
    site.write("asks", PAY, policy=[*_rule(quorum=2), limit])

    async with site.serving():
        handle = await site.start("asks")
        (request,) = await asked(handle)
        await decide(handle, request, by="bob@example.com")
        misfit = await refusal_of(handle, "decide", decision(request, value={"order": "one"}))
        denied = await refusal_of(handle, "decide", decision(request, value={"order": 1, "amount": 501}))
        changed = await decide(handle, request, value={"order": 1, "amount": 80})
        stale = await refusal_of(handle, "decide", decision(request, by="dan@example.com"))
        (edited,) = await asked(handle)
        await decide(handle, edited, by="bob@example.com")
        result = await handle.result()

    assert "order" in misfit
    assert denied == "value: rule 'limit' denies 'pay'"
    assert changed.message == "recorded; r1 still needs 1 of finance"
    assert stale == "digest: the arguments of r1 were changed by ann@example.com; look at it again"
    assert edited.arguments == {"order": 1, "amount": 80.0}
    assert edited.title == "pay order=1 amount=80.0?"
    (call,) = calls_of(handle.id, "pay")
    assert call.arguments == {"order": 1, "amount": 80}
    (told,) = await results_told(site, result.head or "")
    assert told.text.startswith("[ann@example.com changed this call before it ran; it ran with {")


async def test_a_parked_effect_holds_back_later_effects_and_no_reads(site: Site) -> None:
    calls = [{"pay": {"order": 1}}, {"write_note": {"text": "a"}}, {"look": {"what": "b"}}, {"send": {"to": "c"}}]
    site.write("asks", [{"call": calls}, {"say": "done"}], policy=ASK_ALL)

    async with site.serving():
        handle = await site.start("asks")
        first, second = await asked(handle, 2)
        while not calls_of(handle.id, "look"):
            await asyncio.sleep(0.05)
        await decide(handle, second)
        await asyncio.sleep(0.3)
        before = [call.tool for call in calls_of(handle.id)]
        await decide(handle, first)
        await handle.result()

    assert before == ["look"]
    assert [call.tool for call in calls_of(handle.id)] == ["look", "pay", "write_note", "send"]


async def test_nobody_in_time_means_denied(site: Site) -> None:
    site.write("asks", PAY, policy=_rule(expires="1s"))

    async with site.serving():
        handle = await site.start("asks")
        result = await handle.result()
        (closed,) = (await open_requests(handle)).closed
        status = (await results_told(site, result.head or ""))[0].text

    assert (closed.id, closed.outcome) == ("r1", "expired")
    assert calls_of(handle.id) == []
    assert status.startswith("refused: nobody decided before ")
    assert result.status is RunStatus.COMPLETED


async def test_an_escalated_request_goes_to_the_next_people(site: Site) -> None:
    escalate = {"escalate": {"groups": ["legal"], "expires": "10m"}}
    site.write("asks", PAY, policy=_rule(expires="5s", on_expiry=escalate))

    async with site.serving():
        handle = await site.start("asks")
        (request,) = await asked(handle)
        early = await refusal_of(handle, "decide", decision(request, by="cleo@example.com"))
        async with asyncio.timeout(30):
            while (await asked(handle))[0].waits_for == ("finance",):
                await asyncio.sleep(0.1)
        await decide(handle, request, by="cleo@example.com")
        result = await handle.result()

    assert "cleo@example.com" in early
    assert result.effects.count == 1


async def test_a_question_is_answered_by_a_person(site: Site) -> None:
    turns = [{"call": [{"ask_person": {"question": "Which colour?", "options": ["red", "blue"]}}]}, {"say": "done"}]
    site.write("asks", turns)

    async with site.serving():
        handle = await site.start("asks")
        (request,) = await asked(handle)
        empty = await refusal_of(handle, "decide", decision(request, "answer"))
        other = await refusal_of(handle, "decide", decision(request, "answer", value="green, rather"))
        await decide(handle, request, "answer", value="Blue")
        result = await handle.result()

    assert (request.kind, request.question, request.options) == ("question", "Which colour?", ("red", "blue"))
    assert "value" in empty
    assert other == "value: 'green, rather' is none of the answers to choose from: red, blue"
    (told,) = await results_told(site, result.head or "")
    assert told.text.endswith("\nblue")
    assert "ann@example.com" in told.text


async def test_one_signal_rejects_all(site: Site) -> None:
    calls = [{"pay": {"order": 1}}, {"send": {"to": "a"}}]
    site.write("asks", [{"call": calls}, {"say": "done"}], policy=ASK_ALL)

    async with site.serving():
        handle = await site.start("asks")
        await asked(handle, 2)
        await handle.signal("decide", {"request": "*", "choice": "reject"})
        result = await handle.result()

    assert calls_of(handle.id) == []
    texts = {told.text for told in await results_told(site, result.head or "")}
    assert texts == {"refused: somebody who signalled the run rejected all open requests"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "takes one JSON object, got 0 arguments"),
        (["approve"], "takes one JSON object"),
        ([{"request": "r1"}, {"request": "r1"}], "takes one JSON object, got 2 arguments"),
        ([{"request": "r1", "digest": OTHER_DIGEST, "choice": "approve", "by": "ann"}], "digest: it is not that of"),
        ([{"request": "r7", "choice": "approve"}], "it: 'digest' is missing"),
    ],
)
async def test_a_signal_that_does_not_count_is_kept_where_people_look(
    site: Site, arguments: list[Any], said: str
) -> None:
    site.write("asks", PAY, policy=ASK_ALL)

    async with site.serving():
        handle = await site.start("asks")
        (request,) = await asked(handle)
        await handle.signal("decide", args=arguments)
        async with asyncio.timeout(30):
            while not (found := await open_requests(handle)).refusals:
                await asyncio.sleep(0.05)
        await handle.signal("decide", decision(request))
        result = await handle.result()

    assert found.refused[0].reason.startswith(said)
    assert found.refused[0].via == "signal"
    assert result.effects.count == 1


async def test_two_hundred_requests_of_one_turn_are_decided_by_signals_at_once(site: Site) -> None:
    calls = [{"pay": {"order": number}} for number in range(200)]
    site.write("many", [{"call": calls}, {"say": "done"}], policy=ASK_ALL)

    async with site.serving():
        handle = await site.start("many")
        requests = await asked(handle, 200)
        await asyncio.gather(*(handle.signal("decide", decision(request)) for request in requests))
        result = await handle.result()

    assert result.effects.count == 200
    assert len({call.key for call in calls_of(handle.id, "pay")}) == 200


async def test_requests_survive_continue_as_new_and_restarts(tmp_path: Path) -> None:
    """A run that waits continues as new; its requests keep id, digest, decisions and expiry."""
    calls = [{"pay": {"order": 1}}, {"send": {"to": "a"}}]
    async with run_private_server(extra_dynamic_config={"limit.historyCount.suggestContinueAsNew": "40"}) as server:
        site = new_site(tmp_path, await connect(address=server.address), MANDATE_PEOPLE=str(write_people(tmp_path)))
        site.write("asks", [{"call": calls}, {"say": "done"}], policy=_rule(quorum=2))
        async with site.serving():
            handle = await site.start("asks")
            first, second = await asked(handle, 2)
            await decide(handle, first)
            for number in range(12):
                await handle.signal("decide", {"request": f"r{number + 10}", "choice": "approve"})
        async with site.serving(max_cached_workflows=0):
            await _continued(site, handle)
            kept = await asked(handle, 2)
            again = await decide(handle, first)
            await decide(handle, first, by="bob@example.com")
            await asyncio.gather(decide(handle, second), decide(handle, second, by="bob@example.com"))
            result = await handle.result()

    assert [(one.id, one.digest, one.expires_at) for one in kept] == [
        (one.id, one.digest, one.expires_at) for one in (first, second)
    ]
    assert (again.status, again.message) == ("recorded", "recorded; r1 still needs 1 of finance")
    assert [call.tool for call in calls_of(handle.id)] == ["pay", "send"]
    assert result.effects.count == 2


async def _continued(site: Site, handle: WorkflowHandle[Any, Any]) -> None:
    async with asyncio.timeout(30):
        while True:
            runs = [run async for run in site.client.list_workflows(f'WorkflowId="{handle.id}"')]
            if len(runs) > 1:
                return
            await asyncio.sleep(0.2)


async def test_lists_show_who_waits_for_whom(site: Site) -> None:
    site.write("asks", PAY, policy=ASK_ALL)

    async with site.serving():
        handle = await site.start("asks")
        (request,) = await asked(handle)
        waiting = await _attributes(handle, "waiting")
        await decide(handle, request)
        await handle.result()
        done = await _attributes(handle, "done")

    assert waiting["AgentWaitingFor"] == ["finance"]
    assert done.get("AgentWaitingFor", []) == []


async def _attributes(handle: WorkflowHandle[Any, Any], status: str) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while True:
            found = {pair.key.name: pair.value for pair in (await handle.describe()).typed_search_attributes}
            if found.get("AgentStatus") == status:
                return found
            await asyncio.sleep(0.1)


async def test_totals_of_a_run_hold_across_calls_of_one_turn(site: Site) -> None:
    limit = {
        "id": "limit",
        "match": {"tools": ["pay"]},
        "when": "run.totals.pay.amount + args.amount > 100.0",
        "verdict": "deny",
    }
    allow = {"id": "small", "match": {"tools": ["pay"]}, "verdict": "allow"}
    calls = [{"pay": {"order": 1, "amount": 60}}, {"pay": {"order": 2, "amount": 60}}]
    site.write("limited", [{"call": calls}, {"say": "done"}], policy=[limit, allow])

    result, workflow_id = await site.run("limited")

    assert [call.arguments["order"] for call in calls_of(workflow_id)] == [1]
    assert [told.text for told in await results_told(site, result.head or "")][
        1
    ] == "refused: rule 'limit' denies 'pay'"


async def test_stop_finishes_the_call_in_hand_and_makes_no_new_one(site: Site) -> None:
    calls = [{"pay": {"order": 1}}, {"pay": {"order": 2}}]
    site.write("stopped", [{"call": calls}, {"say": "done"}])

    async with site.serving():
        with held("pay"):
            handle = await site.start("stopped")
            while not calls_of(handle.id):
                await asyncio.sleep(0.05)
            told = await stop(handle, {"by": "ann@example.com", "reason": "enough"})
        result = await handle.result()

    assert told["message"] == "the call in hand is finished, then the run ends"
    assert result.status is RunStatus.STOPPED
    assert result.reason == "stopped by ann@example.com: enough"
    assert result.effects.count == 1
    assert len(calls_of(handle.id)) == 1


async def test_a_paused_run_begins_nothing_takes_decisions_and_goes_on(site: Site) -> None:
    site.write("paused", PAY, policy=ASK_ALL)

    async with site.serving():
        handle = await site.start("paused")
        (request,) = await asked(handle)
        await send_update(handle, "pause", {"by": "ann@example.com", "reason": "lunch"})
        await decide(handle, request)
        await asyncio.sleep(0.5)
        before = len(calls_of(handle.id))
        paused = await _attributes(handle, "paused")
        await send_update(handle, "resume", {"by": "ann@example.com"})
        result = await handle.result()

    assert before == 0
    assert paused["AgentStatus"] == "paused"
    assert result.effects.count == 1


async def test_words_of_a_person_reach_the_model_at_the_next_step(site: Site) -> None:
    site.write("steered", [{"call": [{"look": {"what": "a"}}]}, {"say": "done"}])

    async with site.serving():
        with held("look"):
            handle = await site.start("steered")
            while not calls_of(handle.id):
                await asyncio.sleep(0.05)
            await send_update(handle, "steer", {"text": "Be brief.", "by": "ann@example.com"})
        result = await handle.result()
        messages = await conversation(site, result.head or "")

    assert [part.text for message in messages if message.role == "user" for part in message.parts][-1] == (
        "[ann@example.com says] Be brief."
    )


async def test_expiry_waits_for_a_decision_that_came_before_it(site: Site) -> None:
    """The check of a decision takes as long as it takes; the decision's time is when it came."""
    site.write("asks", PAY, policy=_rule(expires="5s"))

    async with site.serving():
        handle = await site.start("asks")
        (request,) = await asked(handle)
        await asyncio.sleep(max(0.0, request.expires_at.timestamp() - time.time() - 2.5))
        with held_up(site.folder / "people.yaml"):
            deciding = asyncio.create_task(decide(handle, request))
            await asyncio.sleep(max(0.0, request.expires_at.timestamp() - time.time() + 0.3))
            assert not deciding.done()
        receipt = await deciding
        result = await handle.result()

    assert receipt.status == "approved"
    assert result.effects.count == 1


async def test_a_check_that_cannot_be_made_uses_nothing_up(site: Site) -> None:
    site.write("asks", PAY, policy=ASK_ALL)

    async with site.serving():
        handle = await site.start("asks")
        (request,) = await asked(handle)
        people = (site.folder / "people.yaml").read_text()
        (site.folder / "people.yaml").write_text("people: [")
        refused = await refusal_of(handle, "decide", decision(request))
        (site.folder / "people.yaml").write_text(people)
        receipt = await decide(handle, request)
        await handle.result()

    assert refused.startswith("the decision could not be checked (")
    assert refused.endswith("and used nothing up; try again")
    assert receipt.status == "approved"
