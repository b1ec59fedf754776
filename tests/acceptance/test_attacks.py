"""What somebody with access to the namespace, and with no right to decide, cannot do to a run."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHandle, WorkflowUpdateFailedError
from temporalio.service import RPCError

from mandate.workers.client.client import connect
from mandate.workers.client.messages import decide as decide_patiently
from mandate.workers.dev_server.server import DevServer, run_private_server
from mandate.workflows.contracts.request import Decision
from mandate.workflows.contracts.run import RunStatus
from tests.support.agents import REQUESTER
from tests.support.attacks import Place, failed_tasks, kept, place, raw, refused, whole_history
from tests.support.people import PEOPLE, asked, decide, decision, send_update, write_people
from tests.support.signing import Issuer

Handle = WorkflowHandle[Any, Any]

SAME = {"call": [{"transfer": {"order": 1, "amount": 120}}]}
OTHER = {"call": [{"transfer": {"order": 3, "amount": 120}}]}
TWO = {"call": [{"transfer": {"order": 1}}, {"transfer": {"order": 2}}]}
DONE = {"say": "done"}
MANY = 250
SIGNALS = 1000


def asks(**keys: Any) -> list[dict[str, Any]]:
    return [{"id": "asked", "match": {}, "verdict": "ask", "approvers": {"groups": ["finance"]}, **keys}]


LIMIT = {"id": "limit", "match": {"tools": ["transfer"]}, "when": "args.amount > 500.0", "verdict": "deny"}

AGENTS: dict[str, dict[str, Any]] = {
    "once": {"turns": [SAME, DONE], "policy": [*asks(), LIMIT]},
    "again": {"turns": [SAME, SAME, DONE], "policy": asks()},
    "next": {"turns": [SAME, OTHER, DONE], "policy": asks()},
    "two": {"turns": [TWO, DONE], "policy": asks()},
    "pair": {"turns": [SAME, DONE], "policy": asks(quorum=2)},
    "brief": {"turns": [SAME, DONE], "policy": asks(expires="6s")},
    "signed": {"turns": [SAME, DONE], "policy": asks(signature="required")},
    "many": {
        "turns": [{"call": [{"transfer": {"order": number}} for number in range(MANY)]}, DONE],
        "policy": asks(),
    },
}

ISSUER, FORGER = Issuer(), Issuer()
"""Both say that their key is `k1`; the worker knows the first."""


@pytest.fixture(scope="module")
async def there(tmp_path_factory: pytest.TempPathFactory, client: Client, temporal: DevServer) -> AsyncIterator[Place]:
    folder = tmp_path_factory.mktemp("attacks")
    keys = {"MANDATE_JWKS": str(ISSUER.write(folder / "jwks.json")), "MANDATE_TOKEN_ISSUER": "corp"}
    async with place(folder, client, temporal, AGENTS, **keys) as found:
        yield found


async def update_events(there: Place, handle: Handle) -> list[str]:
    events = [event for part in await whole_history(there.client, handle) for event in part]
    kinds = [event.WhichOneof("attributes") or "" for event in events]
    return [kind for kind in kinds if "update" in kind]


async def unharmed(there: Place, handle: Handle) -> None:
    """No task of the run has failed, and nothing has reached the tool."""
    assert failed_tasks(await whole_history(there.client, handle)) == []
    assert there.moved(handle.id) == []


async def test_decisions_that_do_not_fit_are_refused_without_a_trace(there: Place) -> None:
    handle = await there.site.start("two", requester="eve@example.com")
    other = await there.site.start("two", requester="eve@example.com")
    first, second = await asked(handle, 2)
    elsewhere, _ = await asked(other, 2)
    attacks: list[tuple[dict[str, Any], str]] = [
        ({"digest": "A" * 43}, "digest: it is not that of request r1"),
        ({"digest": second.digest}, "digest: it is that of request r2, not of r1"),
        ({"digest": elsewhere.digest}, "digest: it is not that of request r1"),
        ({"digest": first.digest.lower()}, "digest: it is not that of request r1"),
        ({"digest": None}, "it: 'digest' is missing"),
        ({"request": "r3"}, "request: 'r3' is not a request of this run; open are: r1, r2"),
        ({"request": "r01"}, "request: 'r01' must be a request's id"),
        ({"request": "*"}, "it: 'request: *' goes with 'choice: reject' only, not 'approve'"),
        ({"request": "*", "choice": "reject"}, "it: 'request: *' goes without 'digest' and 'value'"),
        ({"choice": "APPROVE"}, "choice: 'APPROVE' is not one of approve, reject"),
        ({"choice": "answer", "value": "yes"}, "choice: 'answer' is not one of approve, reject"),
        ({"by": "eve@example.com"}, "by: 'eve@example.com' asked for this run"),
        ({"by": "Eve@EXAMPLE.com"}, "by: 'Eve@EXAMPLE.com' asked for this run"),
        ({"by": None}, "it: 'by' is missing"),
        ({"at": "2020-01-01T00:00:00Z"}, "at: is not a known key"),
        ({"signed": True}, "signed: is not a known key"),
    ]

    sentences = [await refused(handle, "decide", [{**decision(first), **attack}]) for attack, _ in attacks]

    for sentence, (_, says) in zip(sentences, attacks, strict=True):
        assert sentence.startswith(says)
    assert await update_events(there, handle) == []
    for attack, _ in attacks:
        await handle.signal("decide", {**decision(first), **attack})
    found = await kept(handle, len(attacks))
    assert len(found.requests) == 2
    for one, (_, says) in zip(found.refused, attacks, strict=True):
        assert one.reason.startswith(says)
    await unharmed(there, handle)
    await asyncio.gather(handle.terminate(), other.terminate())


async def test_temporals_cli_is_refused_in_the_same_words(there: Place) -> None:
    handle = await there.site.start("once")
    (request,) = await asked(handle)
    target = ("--workflow-id", handle.id, "--name", "decide")
    wrong = json.dumps(decision(request) | {"digest": "A" * 43})
    everything = json.dumps({"request": "*", "choice": "approve", "by": "ann@example.com"})

    updates = [
        await there.temporal("workflow", "update", "execute", *target, *inputs)
        for inputs in (("--input", wrong), ("--input", everything), (), ("--input", "1", "--input", "2"))
    ]
    signals = [
        await there.temporal("workflow", "signal", *target, *inputs)
        for inputs in (("--input", wrong), ("--input", everything), ())
    ]
    found = await kept(handle, 3)
    right, _ = await there.temporal("workflow", "update", "execute", *target, "--input", json.dumps(decision(request)))
    await handle.result()

    says = [
        "digest: it is not that of request r1",
        "'request: *' goes with 'choice: reject' only",
        "takes one JSON object, got 0 arguments",
        "takes one JSON object, got 2 arguments",
    ]
    assert [code for code, _ in updates] == [1, 1, 1, 1]
    assert [sentence in said for sentence, (_, said) in zip(says, updates, strict=True)] == [True] * 4
    assert [code for code, _ in signals] == [0, 0, 0]
    assert [sentence in one.reason for sentence, one in zip(says, found.refused, strict=False)] == [True] * 3
    assert right == 0
    assert len(there.moved(handle.id)) == 1


async def test_an_approval_copied_from_history_is_good_for_nothing_else(there: Place) -> None:
    """Another run of the same agent with the same call, the same call asked again, the same workflow id again."""
    handle, other = await there.site.start("again"), await there.site.start("again")
    (request,) = await asked(handle)
    await asked(other)
    await decide(handle, request)
    copied = await accepted(there, handle)
    second = await next_request(handle, "r2")
    in_other_run = await refused(other, "decide", [copied])
    for_second = await refused(handle, "decide", [{**copied, "request": "r2"}])
    again = await send_update(handle, "decide", copied)
    for attempt in (copied, {**copied, "request": "r2"}, {**copied, "request": "r2", "by": "bob@example.com"}):
        await handle.signal("decide", attempt)
    found = await kept(handle, 2)
    moved = len(there.moved(handle.id))
    await send_update(handle, "stop", {"by": "ann@example.com"})
    await handle.result()
    reborn = await there.client.start_workflow(
        "AgentWorkflow",
        {"agent": "again", "input": "Go on.", "requester": REQUESTER},
        id=handle.id,
        task_queue=there.site.queue,
    )
    (anew,) = await asked(reborn)
    in_new_life = await refused(reborn, "decide", [copied])

    assert second.digest != request.digest
    assert in_other_run.startswith("digest: it is not that of request r1")
    assert for_second.startswith("digest: it is not that of request r2")
    assert (again["status"], again["message"]) == ("approved", "r1 is approved: ann@example.com approved it")
    assert [one.id for one in found.requests] == ["r2"]
    assert anew.digest != request.digest
    assert in_new_life.startswith("digest: it is not that of request r1")
    assert (moved, len(there.moved(handle.id)), there.moved(other.id)) == (1, 1, [])
    await asyncio.gather(reborn.terminate(), other.terminate())


async def accepted(there: Place, handle: Handle) -> dict[str, Any]:
    """The decision that the first accepted update of a run carried, as anybody can read it."""
    for event in (await whole_history(there.client, handle))[0]:
        request = event.workflow_execution_update_accepted_event_attributes.accepted_request
        if request.input.name:
            found: dict[str, Any] = json.loads(request.input.args.payloads[0].data)
            return found
    raise AssertionError("no update was accepted")


async def next_request(handle: Handle, name: str) -> Any:
    async with asyncio.timeout(30):
        while (found := (await asked(handle))[0]).id != name:
            await asyncio.sleep(0.05)
    return found


async def test_one_person_is_one_person_under_every_name(there: Place) -> None:
    handle = await there.site.start("pair", requester="DAN@example.com")
    (request,) = await asked(handle)
    await decide(handle, request)

    same = [await decide(handle, request, by=by) for by in ("ANN@example.com", "ann@EXAMPLE.COM")]
    twice = [await refused(handle, "decide", [decision(request, by=by)]) for by in ("ann", "Ann")]
    others = [
        await refused(handle, "decide", [decision(request, by=by)])
        for by in (
            "agent:pair",
            "AGENT:somebody",
            "pair",
            handle.id,
            "cleo@example.com",
            "dan@example.com",
            "\u0430nn@example.com",  # its first letter is Cyrillic
            "ann@example.com\u200b",
            "bob@example.com, ann@example.com",
            "finance",
            "<your name>",
        )
    ]
    write_people(there.site.folder, {"people": [one for one in PEOPLE["people"] if one["name"] != "bob@example.com"]})
    removed = await refused(handle, "decide", [decision(request, by="bob@example.com")])
    write_people(there.site.folder)
    before = there.moved(handle.id)
    await decide(handle, request, by="bob@example.com")
    await handle.result()

    assert [receipt.message for receipt in same] == ["recorded; r1 still needs 1 of finance"] * 2
    assert all("has decided on r1 already, as 'ann@example.com'" in sentence for sentence in twice)
    assert all(sentence.startswith("by: ") for sentence in others)
    assert removed.startswith("by: 'bob@example.com' is not in the file of people")
    assert (before, len(there.moved(handle.id))) == ([], 1)


async def test_what_is_decided_is_not_decided_again(there: Place) -> None:
    """Nobody turns an approval into a rejection, a rejection into an approval, or either into another call."""
    approved, rejected = await there.site.start("next"), await there.site.start("next")
    (first,), (second,) = await asked(approved), await asked(rejected)
    await decide(approved, first)
    await decide(rejected, second, "reject")
    await next_request(approved, "r2")
    await next_request(rejected, "r2")
    turned: list[dict[str, Any]] = [
        {"choice": "reject"},
        {"choice": "approve"},
        {"choice": "approve", "value": {"order": 2}},
        {"choice": "approve", "digest": "A" * 43},
    ]

    too_late = [
        [await refused(handle, "decide", [decision(request, by="bob@example.com") | change]) for change in turned]
        for handle, request in ((approved, first), (rejected, second))
    ]
    for change in turned:
        await approved.signal("decide", decision(first, by="bob@example.com") | change)
        await rejected.signal("decide", decision(second, by="bob@example.com") | change)
    found = [await kept(handle, 4) for handle in (approved, rejected)]

    says = [
        "request r1 is approved already: ann@example.com approved it",
        "request r1 is rejected already: ann@example.com rejected it",
    ]
    assert too_late == [[sentence] * 4 for sentence in says]
    assert [[one.reason for one in each.refused] for each in found] == [[sentence] * 4 for sentence in says]
    assert [[(one.id, one.outcome) for one in each.closed] for each in found] == [
        [("r1", "approved")],
        [("r1", "rejected")],
    ]
    assert ([one["order"] for one in there.moved(approved.id)], there.moved(rejected.id)) == ([1], [])
    await asyncio.gather(approved.terminate(), rejected.terminate())


async def test_a_removed_persons_first_approval_is_kept_and_theirs_alone(there: Place) -> None:
    """What counted when it was given stays; nobody who is gone can add to it."""
    handle = await there.site.start("pair")
    (request,) = await asked(handle)
    await decide(handle, request)
    write_people(there.site.folder, {"people": [one for one in PEOPLE["people"] if one["name"] != "ann@example.com"]})
    again = await send_update(handle, "decide", decision(request))
    write_people(there.site.folder)

    assert (again["status"], again["message"]) == ("recorded", "recorded; r1 still needs 1 of finance")
    await unharmed(there, handle)
    await handle.terminate()


def claims(request: Any, **changes: Any) -> dict[str, Any]:
    now = int(time.time())
    whole = {
        "iss": "corp",
        "aud": "mandate",
        "sub": "ann@example.com",
        "iat": now,
        "exp": now + 300,
        "request_digest": request.digest,
        "choice": "approve",
        **changes,
    }
    return {name: value for name, value in whole.items() if value is not None}


async def signed_start(there: Place, name: str, **changes: Any) -> WorkflowHandle[Any, Any]:
    """A run of `signed` that eve asks for, or seems to."""
    token = ISSUER.sign_start("signed", "Go on.", workflow_id=name, requester=REQUESTER, issuer="corp", **changes)
    return await there.site.start("signed", workflow_id=name, token=token)


async def test_tokens_of_others_are_worth_nothing(there: Place) -> None:
    handle, other = await signed_start(there, "claimed-1"), await signed_start(there, "claimed-2")
    (request,), (elsewhere,) = await asked(handle), await asked(other)
    good = ISSUER.sign(claims(request))
    head, body, _ = good.split(".")
    tokens = {
        None: "token: is missing",
        "<signed token>": "token: '<signed token>' is where your own words go",
        "x.y.z": "token: is not a JWT signed with ES256",
        f"{head}.{body}.": "token: ",
        FORGER.sign(claims(request)): "token: its signature is not that of the key it names",
        ISSUER.sign(claims(request, sub="bob@example.com")): "token: is not of 'ann@example.com'",
        ISSUER.sign(claims(elsewhere)): "token: is for another request",
        ISSUER.sign(claims(request, choice="reject")): "token: is for another choice",
        ISSUER.sign(claims(request, exp=int(time.time()) - 100, iat=int(time.time()) - 400)): "token: was expired",
        ISSUER.sign(claims(request, iss="evil")): "token: is not from the issuer 'corp'",
        ISSUER.sign(claims(request, aud="other")): "token: is not for the audience 'mandate'",
    }

    sentences = [
        await refused(handle, "decide", [decision(request, **({"token": token} if token else {}))]) for token in tokens
    ]
    # A good token that was stolen is good for this person's choice on this request, and for no other arguments.
    edited = await refused(handle, "decide", [decision(request, value={"order": 2}, token=good)])
    as_bob = await refused(handle, "decide", [decision(request, by="bob@example.com", token=good)])
    rejecting = await refused(handle, "decide", [decision(request, "reject", token=good)])
    there_too = await refused(other, "decide", [decision(elsewhere, token=good)])
    await unharmed(there, handle)
    receipt = await decide(handle, request, token=good)
    await handle.result()

    for sentence, says in zip(sentences, tokens.values(), strict=True):
        assert sentence.startswith(says)
    assert edited == "token: is for a decision without a value: it has no claim 'value_digest'"
    assert as_bob.startswith("token: is not of 'bob@example.com'")
    assert rejecting.startswith("token: is for another choice")
    assert there_too.startswith("token: is for another request")
    assert receipt.status == "approved"
    assert len(there.moved(handle.id)) == 1
    assert good not in json.dumps((await kept(other, 1)).model_dump(mode="json"))
    await other.terminate()


async def test_edits_are_held_to_schema_and_policy(there: Place) -> None:
    handle = await there.site.start("once")
    (request,) = await asked(handle)
    values: list[tuple[Any, str]] = [
        ({"order": "one"}, "value: "),
        ({}, "value: "),
        ([], "value: "),
        ("approve", "value: "),
        (7, "value: "),
        ({"order": 1, "to": "me"}, "value: "),
        ({"order": 1.5}, "value: "),
        ({"order": 10**30}, "value: "),
        ({"order": 1, "amount": 500.01}, "value: rule 'limit' denies 'transfer'"),
        ({"order": 1, "amount": 10**15}, "value: rule 'limit' denies 'transfer'"),
        ({"order": 1, "amount": "x" * 70_000}, "value: has "),
        ({"order": [1] * 40_000}, "value: has "),
    ]

    sentences = [await refused(handle, "decide", [decision(request, value=value)]) for value, _ in values]
    await unharmed(there, handle)
    edited = await decide(handle, request, value={"order": 2, "amount": 500})
    await handle.result()

    for sentence, (_, says) in zip(sentences, values, strict=True):
        assert sentence.startswith(says)
    assert edited.status == "approved"
    assert [(one["order"], one["amount"]) for one in there.moved(handle.id)] == [(2, 500.0)]


async def test_a_decision_that_comes_together_with_the_expiry_is_late(there: Place) -> None:
    """Sent in time, but no worker took it in: what counts is the clock of the run when it comes to the decision."""
    handle = await there.site.start("brief")
    (request,) = await asked(handle)
    # The task that the worker then has in hand lives for five seconds: the end comes in that time.
    await asyncio.sleep(max(0.0, request.expires_at.timestamp() - time.time() - 3.5))
    there.worker.send(signal.SIGSTOP)
    try:
        # What is sent first is handed to the worker at once; all that follows comes in one task, with the timer.
        await handle.signal("decide", decision(request, "maybe"))
        await task_started(handle)
        await handle.signal("decide", decision(request))
        updating = asyncio.create_task(refused(handle, "decide", [decision(request, by="bob@example.com")]))
        await asyncio.sleep(max(0.0, request.expires_at.timestamp() - time.time()) + 0.3)
    finally:
        there.worker.send(signal.SIGCONT)
    late = await updating
    result = await handle.result()
    found = await kept(handle, 2)

    assert late.startswith("request r1 ")
    assert "expired" in late
    assert "expired" in found.refused[-1].reason
    assert found.closed[0].outcome == "expired"
    assert result.status is RunStatus.COMPLETED
    await unharmed(there, handle)


async def task_started(handle: Handle) -> None:
    """A worker has a workflow task of the run in hand: what is sent from now on comes in the next one."""
    async with asyncio.timeout(3):
        while True:
            events = [event async for event in handle.fetch_history_events()]
            if events[-1].event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_STARTED:
                return
            await asyncio.sleep(0.02)


OBJECTS: dict[str, Any] = {
    "decide": {"request": "r1", "digest": "A" * 43, "choice": "approve", "by": "ann@example.com"},
    "steer": {"text": "be brief", "by": "ann@example.com"},
    "pause": {"by": "ann@example.com"},
    "resume": {"by": "ann@example.com"},
    "stop": {"by": "ann@example.com"},
}


def malformed(verb: str) -> list[list[Any]]:
    """Arguments that no message of this name can have."""
    whole = OBJECTS[verb]
    text = json.dumps(whole)[:-1]
    single: list[Any] = [
        None, [], [whole], "stop", "", 7, -1.5, True, {},
        {**whole, "by": None}, {**whole, "by": 7}, {**whole, "by": ""}, {**whole, "by": " ann"},
        {**whole, "by": "x" * 201}, {**whole, "by": [whole]}, {**whole, "by": {"name": "ann"}}, {**whole, "by": True},
        {**whole, "extra": 1}, {**whole, "by\u0000": 1}, {**whole, "": ""}, {"BY": "ann"},
        {**whole, "by": "x" * 400_000}, {"x" * 400_000: 1}, {f"k{number}": number for number in range(30_000)},
        raw(f'{text}, "by": NaN}}'.encode()),
        raw(f'{text}, "value": 1e999}}'.encode()),
        raw(f'{text}, "value": -Infinity}}'.encode()),
        raw(f'{text}, "by": "\\ud800"}}'.encode()),
        raw(f'{text}, "\\udfff": 1}}'.encode()),
        raw(f'{text}, "by": {"1" * 5000}}}'.encode()),
        raw(f'{text}, "by": {"[" * 500}{"]" * 500}}}'.encode()),
        raw(text.encode()),
        raw(b""), raw(b"\xff\xfe"), raw(b"nul"), raw(b"[" * 5000 + b"]" * 5000),
        raw(json.dumps(whole).encode("utf-16")),
        raw(json.dumps(whole).encode(), "binary/plain"),
        raw(b"", "binary/null"),
        raw(json.dumps(whole).encode(), "avro/unknown"),
        raw(json.dumps(whole).encode(), ""),
        raw(b"{}", "json/protobuf", messageType="temporal.api.common.v1.WorkflowExecution"),
        raw(b"\x0a\x01x", "binary/protobuf", messageType="temporal.api.common.v1.WorkflowExecution"),
        raw(b"\x0a\x01x", "binary/protobuf", messageType="no.such.Message"),
        raw(json.dumps(whole).encode(), "binary/encrypted"),
    ]  # fmt: skip
    return [[], [whole, whole], [whole, None], *([one] for one in single)]


@pytest.mark.parametrize("verb", list(OBJECTS))
async def test_messages_in_no_shape_harm_nothing(there: Place, verb: str) -> None:
    handle = await there.site.start("once")
    (request,) = await asked(handle)
    messages = malformed(verb)

    sentences = [await refused(handle, verb, arguments) for arguments in messages]
    events = await update_events(there, handle)
    for arguments in messages:
        await handle.signal(verb, args=arguments)
    found = await kept(handle, len(messages))

    assert all(0 < len(sentence) < 700 for sentence in sentences)
    assert events == []
    assert found.refusals == len(messages)
    assert found.status == "waiting"
    assert all(one.via == "signal" and len(one.reason) <= 300 for one in found.refused)
    await unharmed(there, handle)
    await decide(handle, request)
    assert (await handle.result()).status is RunStatus.COMPLETED
    assert len(there.moved(handle.id)) == 1


async def test_a_thousand_refused_signals_that_come_at_once(there: Place) -> None:
    """They wait for the worker and come in one task, which has two seconds, to a run that shows many requests."""
    handle = await there.site.start("many")
    before = await asked(handle, MANY)
    there.worker.send(signal.SIGSTOP)
    try:
        await all_of(handle.signal("decide", decision(before[0], "maybe", comment=str(one))) for one in range(SIGNALS))
    finally:
        there.worker.send(signal.SIGCONT)
    found = await kept(handle, SIGNALS)
    after = await asked(handle, MANY)
    await decide_patiently(there.client, handle.id, Decision.model_validate(decision(before[0])))
    await handle.signal("decide", {"request": "*", "choice": "reject"})
    result = await handle.result()

    parts = await whole_history(there.client, handle)
    assert found.refusals == SIGNALS
    assert [one.digest for one in after] == [one.digest for one in before]
    assert len(parts) > 1
    assert failed_tasks(parts) == []
    assert result.effects.count == len(there.moved(handle.id)) == 1


async def all_of(sending: Any) -> None:
    """Sends everything, forty at a time."""
    slots = asyncio.Semaphore(40)

    async def one(message: Any) -> None:
        async with slots:
            await message

    await asyncio.gather(*map(one, sending))


async def test_long_words_to_many_requests_still_fit_into_a_message(there: Place) -> None:
    """The comment comes with each of the results, and Temporal carries at most two megabytes at a time."""
    handle = await there.site.start("many")
    await asked(handle, MANY)
    words = "\U0001f4b8" * 2000

    await handle.signal("decide", {"request": "*", "choice": "reject", "by": "ann@example.com", "comment": words})
    result = await handle.result()

    assert result.status is RunStatus.COMPLETED
    await unharmed(there, handle)


async def test_a_flood_of_checked_decisions_does_not_wear_a_run_out(tmp_path: Path) -> None:
    """Each costs a check and a place among the updates that the server allows: here 200 and not 2,000."""
    async with run_private_server(extra_dynamic_config={"history.maxTotalUpdates": "200"}) as server:
        client = await connect(address=server.address)
        async with place(tmp_path, client, server, {"once": AGENTS["once"]}) as there:
            handle = await there.site.start("once")
            (request,) = await asked(handle)
            answers: list[str] = []

            async def attack(number: int) -> None:
                for attempt in range(30):
                    said = decision(request, by="cleo@example.com", comment=f"{number}.{attempt}")
                    # While the run continues as new it may hear nobody.
                    while not await answered(handle, said, answers):
                        await asyncio.sleep(0.1)

            async with asyncio.timeout(120):
                await asyncio.gather(*(attack(number) for number in range(8)))
            found = await kept(handle, 1)
            approval = Decision.model_validate(decision(request))
            receipt = await decide_patiently(client, handle.id, approval, patience_seconds=20)
            result = await handle.result()
            parts = await whole_history(client, handle)

    assert len(answers) == 240
    assert [answer for answer in answers if "may not decide on r1" not in answer] == []
    assert [one.digest for one in found.requests] == [request.digest]
    assert len(parts) > 1
    assert failed_tasks(parts) == []
    assert receipt.status == "approved"
    assert result.effects.count == len(there.moved(handle.id)) == 1


async def answered(handle: Handle, said: dict[str, Any], answers: list[str]) -> bool:
    """Whether the run has answered a decision, with what is then the last of `answers`."""
    try:
        await send_update(handle, "decide", said)
        answers.append("taken")
    except WorkflowUpdateFailedError as error:
        if "aborted" in str(error.cause) or "send it again in a moment" in str(error.cause):
            return False
        answers.append(str(error.cause))
    except RPCError:
        return False
    return True
