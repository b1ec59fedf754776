"""`mandate listen` over HTTP: events start runs, plans and messages once, and what is none is refused."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from temporalio.client import Client

from mandate.workers.events.cloud_event import MOST_BYTES, STRUCTURED
from mandate.workflows.contracts.run import RunResult
from tests.support.events import BEARER, ENVIRONMENT, Listener, listening, new_event, sign
from tests.support.place import Place, new_place

AGENT = {
    "name": "writer",
    "instructions": "Write.",
    "models": ["scripted:writer.script.yaml"],
    "requester": "anyone",
}
PLAN = {"name": "poem", "requester": "anyone", "steps": [{"id": "write", "agent": "writer", "input": "input.about"}]}
SCRIPT = {"turns": [], "otherwise": {"say": "a poem"}, "strict": False}
TRIGGERS = {
    "triggers": [
        {
            "id": "orders",
            "match": "event.type == 'com.example.returned'",
            "start": {"agent": "writer", "input": "'Order ' + string(int(event.data.order))"},
            "requester": "orders@example.com",
            "labels": {"team": "art"},
            "budget": {"steps": 5},
        },
        {
            "id": "chat",
            "match": "event.type == 'chat'",
            "say": {"agent": "writer", "session": "event.data.chat", "text": "event.data.text"},
            "requester_from": "event.data.by",
        },
        {
            "id": "poems",
            "match": "event.type == 'poem'",
            "plan": {"name": "poem", "input": "event.data"},
            "requester": "ann@example.com",
        },
        {
            "id": "unknown",
            "match": "event.type == 'unknown'",
            "say": {"agent": "nobody", "session": "event.id", "text": "event.id"},
            "requester": "ann@example.com",
        },
        {
            "id": "trusted",
            "match": "event.type == 'trusted'",
            "start": {"agent": "writer", "input": "'Write.'"},
            "requester": "ann@example.com",
            "untrusted": False,
        },
        {"id": "rest", "match": "event.source == '/noise'", "ignore": True},
    ]
}
FILES = {
    "agents/writer.yaml": json.dumps(AGENT),
    "agents/writer.script.yaml": json.dumps(SCRIPT),
    "plans/poem.yaml": json.dumps(PLAN),
    "triggers.yaml": json.dumps(TRIGGERS),
}


@pytest.fixture(scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    folder = tmp_path_factory.mktemp("events")
    async with (
        new_place(folder, FILES, MANDATE_TRIGGERS=str(folder / "triggers.yaml"), **ENVIRONMENT) as made,
        made.serving("writer"),
    ):
        yield made


@pytest.fixture(scope="module")
async def listener(place: Place) -> AsyncIterator[Listener]:
    async with listening(place) as found:
        yield found


async def ended(client: Client, workflow_id: str) -> RunResult:
    return await client.get_workflow_handle(workflow_id, result_type=RunResult).result()


def letters(place: Place) -> dict[str, dict[str, Any]]:
    """Return the dead letters by the ids of their events."""
    found = [json.loads(path.read_text()) for path in (place.folder / "state/dead-letters").glob("*.json")]
    return {one["event"]["id"]: one for one in found}


async def test_an_event_starts_one_run_however_often_it_comes(place: Place, listener: Listener) -> None:
    event = new_event("r1", data={"order": 81})

    first, again, changed = [
        await listener.send(one) for one in (event, event, new_event("r1", data={"order": 82}, subject="x"))
    ]

    run = first[1]["workflow_id"]
    assert first == (202, {"status": "accepted", "workflow_id": run, "trigger": "orders"})
    assert again == changed == (200, {"status": "duplicate", "workflow_id": run, "trigger": "orders"})
    assert (await ended(place.client, run)).output == "a poem"
    described = await place.client.get_workflow_handle(run).describe()
    assert described.search_attributes["AgentRequester"] == ["orders@example.com"]
    assert described.search_attributes["AgentLabels"] == ["team=art"]
    assert await described.static_summary() == "writer: Order 81"


async def test_one_event_that_comes_many_times_at_once_starts_one_run(place: Place, listener: Listener) -> None:
    event = new_event("crowd", data={"order": 1})

    answers = await asyncio.gather(*(listener.send(event) for _ in range(20)))

    assert sorted(code for code, _ in answers) == [200] * 19 + [202]
    assert len({answer["workflow_id"] for _, answer in answers}) == 1


async def test_binary_mode_is_the_same_event(place: Place, listener: Listener) -> None:
    sent = await listener.send(new_event("b1", data={"order": 5}))
    headers = {f"ce-{name}": value for name, value in new_event("b1").items()}

    again = await listener.post(b'{"order": 5}', {**headers, **BEARER, "content-type": "application/json"})

    assert (again[0], again[1]["workflow_id"]) == (200, sent[1]["workflow_id"])


async def test_a_plan_is_started(place: Place, listener: Listener) -> None:
    code, answer = await listener.send(new_event("p1", type="poem", data={"about": "Trees."}))

    assert code == 202
    assert (await ended(place.client, answer["workflow_id"])).status == "completed"


async def test_a_message_reaches_its_session_once(place: Place, listener: Listener) -> None:
    said = {"chat": "42", "text": "Hello.", "by": "bob@example.com"}
    first = await listener.send(new_event("c1", type="chat", data=said))
    again = await listener.send(new_event("c1", type="chat", data=said))
    next_one = await listener.send(new_event("c2", type="chat", data={**said, "text": "More."}))

    assert [code for code, _ in (first, again, next_one)] == [202, 202, 202]
    session = first[1]["workflow_id"]
    assert session == next_one[1]["workflow_id"]
    assert session.startswith("chat-42-")
    state = await place.client.get_workflow_handle(session).query("state")
    assert state["session"]["number"] == 2


async def test_what_events_start_is_tainted_unless_all_their_senders_are_trusted(
    place: Place, listener: Listener
) -> None:
    said = {"chat": "77", "text": "Hello.", "by": "bob@example.com"}
    events = [
        new_event("t1", data={"order": 1}),
        new_event("t2", type="poem", data={"about": "Trees."}),
        new_event("t3", type="trusted"),
        new_event("t4", type="chat", data=said),
    ]
    order, plan, trusted, chat = [(await listener.send(event))[1]["workflow_id"] for event in events]

    assert [(await ended(place.client, run)).tainted for run in (order, plan, trusted)] == [True, True, False]
    assert (await place.client.get_workflow_handle(chat).query("state"))["tainted"]


async def test_a_message_does_not_wait_for_its_answer(tmp_path: Path) -> None:
    slow = json.dumps({"turns": [{"say": "a poem", "delay": "30s"}], "delay": "30s", "strict": False})
    env = {**ENVIRONMENT, "MANDATE_TRIGGERS": str(tmp_path / "triggers.yaml")}
    async with (
        new_place(tmp_path, {**FILES, "agents/writer.script.yaml": slow}, **env) as place,
        place.serving("writer"),
        listening(place) as listener,
        asyncio.timeout(20),
    ):
        said = {"chat": "1", "text": "Hello.", "by": "bob@example.com"}
        code, _ = await listener.send(new_event("s1", type="chat", data=said))

    assert code == 202


async def test_what_nothing_can_be_done_with_is_a_dead_letter(place: Place, listener: Listener) -> None:
    answers = [
        await listener.send(new_event("d1", type="strange", authorization="none")),
        await listener.send(new_event("d2", data={"no": "order"})),
        await listener.send(new_event("d3", type="chat", data={"chat": "1", "text": "x" * 100_000, "by": "bob"})),
        await listener.send(new_event("d4", type="unknown")),
    ]

    assert [(code, answer["status"]) for code, answer in answers] == [(202, "dead")] * 4
    found = letters(place)
    assert {name: found[name]["trigger"] for name in ("d1", "d2", "d3", "d4")} == {
        "d1": None,
        "d2": "orders",
        "d3": "chat",
        "d4": "unknown",
    }
    assert found["d2"]["reason"] == "trigger 'orders': start.input: the key 'order' is missing"
    assert found["d2"]["event"] == new_event("d2", data={"no": "order"})
    assert "nobody" in found["d4"]["reason"]
    folder = place.folder / "state/dead-letters"
    assert {path.stat().st_mode & 0o077 for path in (folder, *folder.iterdir())} == {0}
    assert not [path for path in folder.iterdir() if ENVIRONMENT["MANDATE_EVENT_SECRET"] in path.read_text()]


async def test_events_of_no_interest_are_no_dead_letters(place: Place, listener: Listener) -> None:
    code, answer = await listener.send(new_event("n1", type="noise", source="/noise"))

    assert (code, answer["status"]) == (202, "ignored")
    assert "n1" not in letters(place)


async def test_a_signature_stands_for_the_secret(listener: Listener) -> None:
    body = json.dumps(new_event("s1", data={"order": 1})).encode()
    headers = {"content-type": STRUCTURED}
    binary = {f"ce-{name}": value for name, value in new_event("s2").items()}

    assert (await listener.post(body, {**headers, **sign(body)}))[0] == 202
    assert await listener.post(body + b" ", {**headers, **sign(body)}) == (
        401,
        {"error": "the signature is not that of this body"},
    )
    assert await listener.post(body, {**headers, **sign(body, "another-key-of-16-characters")}) == (
        401,
        {"error": "the signature is not that of this body"},
    )
    # It does not cover the headers: whoever has one signed body could send it as many events.
    assert await listener.post(b"{}", {**binary, **sign(b"{}"), "content-type": "application/json"}) == (
        401,
        {"error": f"a signature covers the body alone: send the event as {STRUCTURED!r}"},
    )


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ({}, "send the secret as 'Authorization: Bearer ...', or a signature as 'x-hub-signature-256'"),
        ({"authorization": "Bearer wrong"}, "the secret is not the one that is expected here"),
        ({"authorization": "Basic x"}, "the secret is not the one that is expected here"),
        # Who shows a secret is not let off by a signature.
        ({"authorization": "Bearer wrong", "x-hub-signature-256": "sha256="}, None),
    ],
)
async def test_who_has_no_secret_sends_nothing(listener: Listener, headers: dict[str, str], error: str | None) -> None:
    body = json.dumps(new_event("x1", data={"order": 1})).encode()

    code, answer = await listener.post(body, {"content-type": STRUCTURED, **headers})

    assert code == 401
    assert error in {None, answer["error"]}


@pytest.mark.parametrize(
    ("content_type", "body", "code"),
    [
        (STRUCTURED, b"{", 400),
        (STRUCTURED, b"{}", 400),
        ("application/json", b"{}", 400),
        ("application/cloudevents-batch+json", b"[]", 415),
        (STRUCTURED, b" " * (MOST_BYTES + 1), 413),
    ],
)
async def test_what_is_no_event_is_refused(listener: Listener, content_type: str, body: bytes, code: int) -> None:
    answered, answer = await listener.post(body, {"content-type": content_type, **BEARER})

    assert answered == code
    assert set(answer) == {"error"}


async def test_without_temporal_the_event_is_to_be_sent_again(tmp_path: Path) -> None:
    """And is taken in once Temporal is back."""
    env = {**ENVIRONMENT, "MANDATE_TRIGGERS": str(tmp_path / "triggers.yaml")}
    event = new_event("away", data={"order": 1})
    async with new_place(tmp_path, FILES, **env) as place:
        process = await place.start("listen", "--port", "0", "-o", "json", "--log-level", "error")
        assert process.stdout is not None
        url = json.loads(await process.stdout.readline())["url"]
        assert (await Listener(url).send(event))[0] == 202
    try:
        code, answer = await Listener(url).send(new_event("away-2", data={"order": 1}))
        assert (code, answer) == (503, {"error": "it could not be taken in; send it again"})
    finally:
        process.kill()
        await process.wait()


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        (
            {"MANDATE_EVENT_SECRET": "", "MANDATE_EVENT_SIGNING_KEY": ""},
            (
                "there is neither MANDATE_EVENT_SECRET nor MANDATE_EVENT_SIGNING_KEY, and anybody could start runs; "
                "set one of them, for example to what `openssl rand -hex 32` prints"
            ),
        ),
        (
            {"MANDATE_EVENT_SECRET": "short"},
            "MANDATE_EVENT_SECRET has a value of fewer than 16 characters, which can be guessed",
        ),
        (
            {"MANDATE_TRIGGERS": ""},
            (
                "there are no triggers: write deploy/triggers.yaml, or name another file with --triggers or "
                "MANDATE_TRIGGERS; `mandate validate --schema triggers` prints what it holds"
            ),
        ),
    ],
)
async def test_what_cannot_listen_is_one_sentence(place: Place, env: dict[str, str], sentence: str) -> None:
    done = await place.run("listen", "--port", "0", **env)

    assert (done.code, done.out, done.err) == (2, "", f"error: {sentence}\n")


async def test_a_port_that_is_in_use_is_told(place: Place, listener: Listener) -> None:
    port = listener.url.split(":")[2].partition("/")[0]

    done = await place.run("listen", "--port", port)

    assert (done.code, done.err) == (2, f"error: cannot listen at 127.0.0.1:{port}: Address already in use\n")


async def test_kafka_that_is_not_there_is_one_sentence(place: Place) -> None:
    done = await place.run("listen", "--topic", "orders", "--kafka", "127.0.0.1:1", "--log-level", "never")

    assert (done.code, done.err) == (
        2,
        (
            "error: Kafka at 127.0.0.1:1: it cannot be reached; check the address (--kafka, MANDATE_KAFKA_SERVERS), "
            "TLS and that it runs\n"
        ),
    )


@pytest.mark.parametrize(("method", "path", "code"), [("GET", "/events", 405), ("POST", "/event", 404)])
async def test_requests_that_are_not_taken_are_answered_in_json(
    listener: Listener, method: str, path: str, code: int
) -> None:
    async with httpx2.AsyncClient(timeout=60) as http:
        answer = await http.request(method, listener.url.removesuffix("/events") + path, headers=BEARER)

    assert answer.status_code == code
    assert "events are posted to /events" in answer.json()["error"]
