"""HTTP requests as tools: what is sent, where it may go, and how each answer reads."""

import asyncio
import gzip
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mandate.activities.checks.findings import check_condition
from mandate.activities.tool_error import ToolError
from mandate.activities.toolbox.base import CallContext, ToolText
from mandate.activities.toolbox.http.hosts import AllowedHosts, HostRefused
from mandate.activities.toolbox.http.request import build_call, check_binding
from mandate.activities.toolbox.http.response import decide_outcome
from mandate.activities.toolbox.http.toolbox import HttpToolbox
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.tool import Effect, HttpBinding, Tool, ToolDefinition
from tests.support.http_peer import HttpPeer, Reply, http_peer

CONTEXT = CallContext("w", "r", 1, "key-1", 1, timedelta(seconds=5))
NO_AUTHORITIES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Loading the system's certificates takes longer than any test here."""
SECRETS = {"${secret:TOKEN}": "s3cr3t-token"}


def resolve(text: str) -> str:
    if text not in SECRETS:
        raise LookupError(f"secret {text[9:-1]!r} is missing")
    return SECRETS[text]


def definition(
    url: str,
    method: str = "GET",
    *,
    effect: Effect = Effect.READ,
    headers: dict[str, str] | None = None,
    query: tuple[str, ...] = (),
) -> ToolDefinition:
    return ToolDefinition(
        tool=Tool(name="t", source="http", effect=effect),
        input_schema={"type": "object"},
        binding=HttpBinding(kind="http", method=method, url=url, headers=headers or {}, query=query),
    )


@pytest.fixture
async def peer() -> AsyncIterator[HttpPeer]:
    async with http_peer() as peer:
        yield peer


@pytest.fixture
async def tools(peer: HttpPeer) -> AsyncIterator[HttpToolbox]:
    toolbox = HttpToolbox(resolve, allowed_hosts=(peer.host,), max_bytes=1000, verify=NO_AUTHORITIES)
    yield toolbox
    await toolbox.close()


async def failure(tools: HttpToolbox, tool: ToolDefinition, arguments: JsonObject | None = None) -> ToolError:
    with pytest.raises(ToolError) as raised:
        await tools.call(tool, arguments or {}, CONTEXT)
    return raised.value


@pytest.mark.parametrize(
    ("status", "without_key", "with_key"),
    [
        (200, Outcome.DONE, Outcome.DONE),
        (201, Outcome.DONE, Outcome.DONE),
        (204, Outcome.DONE, Outcome.DONE),
        (301, Outcome.UNKNOWN, Outcome.UNKNOWN),
        (304, Outcome.UNKNOWN, Outcome.UNKNOWN),
        (307, Outcome.UNKNOWN, Outcome.UNKNOWN),
        (400, Outcome.NOT_DONE, Outcome.NOT_DONE),
        (401, Outcome.NOT_DONE, Outcome.NOT_DONE),
        (404, Outcome.NOT_DONE, Outcome.NOT_DONE),
        (408, Outcome.UNKNOWN, Outcome.UNKNOWN),
        (409, Outcome.NOT_DONE, Outcome.UNKNOWN),
        (422, Outcome.NOT_DONE, Outcome.NOT_DONE),
        (425, Outcome.UNKNOWN, Outcome.UNKNOWN),
        (429, Outcome.NOT_DONE, Outcome.NOT_DONE),
        (499, Outcome.NOT_DONE, Outcome.NOT_DONE),
        (500, Outcome.UNKNOWN, Outcome.UNKNOWN),
        (503, Outcome.UNKNOWN, Outcome.UNKNOWN),
        (599, Outcome.UNKNOWN, Outcome.UNKNOWN),
        (999, Outcome.UNKNOWN, Outcome.UNKNOWN),
    ],
)
def test_a_status_says_what_became_of_the_call(status: int, without_key: Outcome, with_key: Outcome) -> None:
    assert (decide_outcome(status, keyed=False), decide_outcome(status, keyed=True)) == (without_key, with_key)


ALL = (Effect.READ, Effect.IDEMPOTENT, Effect.KEYED, Effect.ONCE)


@pytest.mark.parametrize("effect", ALL)
async def test_a_refusal_is_a_result_in_the_servers_words(tools: HttpToolbox, peer: HttpPeer, effect: Effect) -> None:
    result = await tools.call(definition(f"{peer.url}/status/404", "POST", effect=effect), {}, CONTEXT)

    assert result == ToolText("HTTP 404 Not Found: said 404", error=True, is_missing=True)


@pytest.mark.parametrize("effect", ALL)
@pytest.mark.parametrize("status", [302, 408, 425, 500, 503])
async def test_an_answer_that_proves_nothing_leaves_the_outcome_unknown(
    tools: HttpToolbox, peer: HttpPeer, effect: Effect, status: int
) -> None:
    error = await failure(tools, definition(f"{peer.url}/status/{status}", "POST", effect=effect))

    assert error.outcome is Outcome.UNKNOWN
    assert error.reason.startswith(f"HTTP {status} ")


async def test_a_conflict_over_a_key_means_ask_again(tools: HttpToolbox, peer: HttpPeer) -> None:
    url = f"{peer.url}/status/409"

    keyed = await failure(tools, definition(url, "POST", effect=Effect.KEYED))
    once = await tools.call(definition(url, "POST", effect=Effect.ONCE), {}, CONTEXT)

    assert keyed.outcome is Outcome.UNKNOWN
    assert once == ToolText("HTTP 409 Conflict: said 409", error=True)


async def test_a_reused_key_stops(tools: HttpToolbox, peer: HttpPeer) -> None:
    error = await failure(tools, definition(f"{peer.url}/status/422", "POST", effect=Effect.KEYED))

    assert (error.outcome, error.retry_after, error.is_of_key) == (Outcome.NOT_DONE, None, False)
    assert "idempotency key" in error.reason


@pytest.mark.parametrize(
    ("status", "is_of_key"), [(400, True), (401, False), (403, False), (404, True), (407, False), (410, True)]
)
async def test_who_refuses_before_the_key_is_looked_up_says_nothing_of_it(
    tools: HttpToolbox, peer: HttpPeer, status: int, is_of_key: bool
) -> None:
    result = await tools.call(definition(f"{peer.url}/status/{status}", "POST", effect=Effect.KEYED), {}, CONTEXT)

    assert (result.error, result.is_of_key) == (True, is_of_key)


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [
        ("7", 7, 7),
        ("0", 0, 0),
        (None, 1, 1),
        ("soon", 1, 1),
        ("-3", 1, 1),
        ("Wed, 21 Oct 99999 07:28:00 GMT", 1, 1),
        ("a date", 60, 100),
    ],
)
async def test_too_many_requests_waits_as_long_as_the_server_asks(
    tools: HttpToolbox, peer: HttpPeer, header: str | None, low: float, high: float
) -> None:
    if header == "a date":
        header = format_datetime(datetime.now(UTC) + timedelta(seconds=100))
    peer.answer_headers = {"Retry-After": header} if header else {}

    error = await failure(tools, definition(f"{peer.url}/status/429", "POST", effect=Effect.ONCE))

    assert error.outcome is Outcome.NOT_DONE
    assert error.retry_after is not None
    assert low <= error.retry_after <= high


@pytest.mark.parametrize("effect", [Effect.ONCE, Effect.KEYED, Effect.IDEMPOTENT])
@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("large/201", "it is larger than the worker's limit"),
        ("cut-body", "the connection was cut"),
        ("slow-body", "it did not arrive in time"),
    ],
)
async def test_an_effect_with_a_lost_answer_was_done(
    tools: HttpToolbox, peer: HttpPeer, path: str, why: str, effect: Effect
) -> None:
    seconds = 1.5 if path == "slow-body" else 30
    context = CallContext("w", "r", 1, "k", 1, timedelta(seconds=seconds))

    result = await tools.call(definition(f"{peer.url}/{path}", "POST", effect=effect), {}, context)

    assert result.text.endswith(f"it was done, but the answer is lost: {why}.")
    assert not result.error


async def test_a_read_with_a_cut_answer_is_worth_another_attempt(tools: HttpToolbox, peer: HttpPeer) -> None:
    cut = await failure(tools, definition(f"{peer.url}/cut-body"))
    large = await tools.call(definition(f"{peer.url}/large"), {}, CONTEXT)

    assert cut.outcome is Outcome.UNKNOWN
    assert large == ToolText(
        "HTTP 200 OK: the answer cannot be used: it is larger than the worker's limit.", error=True
    )


JSON = {"Content-Type": "application/json"}
PACKED = {**JSON, "Content-Encoding": "gzip"}


@pytest.mark.parametrize("effect", ALL)
@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (Reply(body=b'\xef\xbb\xbf{"state": "booked"}', headers=JSON), '{"state": "booked"}'),
        (Reply(body='{"name": "Jürgen"}'.encode("utf-16"), headers=JSON), '{"name": "Jürgen"}'),
        (Reply(body=b'{"name": "J\xfcrgen"}', headers=JSON), '{"name": "J\ufffdrgen"}'),
        (Reply(body=b'{"text": "\\ud83d", "n": NaN}', headers=JSON), '{"text": "\\ud83d", "n": NaN}'),
        (Reply(body=b"", headers=JSON), "HTTP 200 OK"),
        (Reply(body=b" \r\n", headers=JSON), "HTTP 200 OK"),
        (Reply(body=b"\xef\xbb\xbf", headers=JSON), "HTTP 200 OK"),
        (Reply(status=204, body=b"", headers=JSON), "HTTP 204 No Content"),
        (Reply(body=b"<html>", headers=JSON), "<html>"),
        (Reply(body=gzip.compress(b'{"n": 1}'), headers=PACKED), '{"n": 1}'),
        (Reply(body=b'{"n": 1}', headers=PACKED), '{"n": 1}'),
        (Reply(body=b'{"n": 1}', headers={"Content-Type": "application/octet-stream"}), '{"n": 1}'),
        (Reply(body=b"a\x00b", headers={"Content-Type": "text/plain; charset=nonsense"}), "a\x00b"),
    ],
)
async def test_odd_bytes_of_an_answer_are_read_and_the_call_is_done(
    tools: HttpToolbox, peer: HttpPeer, effect: Effect, reply: Reply, text: str
) -> None:
    peer.replies = [reply]

    assert await tools.call(definition(f"{peer.url}/", "POST", effect=effect), {}, CONTEXT) == ToolText(text)


@pytest.mark.parametrize(
    ("reply", "why", "is_passing"),
    [
        (
            Reply(body=gzip.compress(b'{"n": 1}')[:-6], headers=PACKED),
            "what it is packed in is cut or damaged",
            True,
        ),
        (
            Reply(body=b"\x1b\x03", headers={**JSON, "Content-Encoding": "br"}),
            "it is packed in a way that this worker cannot read",
            False,
        ),
        (
            Reply(body=gzip.compress(b"x" * 100_000), headers=PACKED),
            "it is larger than the worker's limit",
            False,
        ),
    ],
)
async def test_packed_answer_that_cannot_be_read_is_told(
    tools: HttpToolbox, peer: HttpPeer, reply: Reply, why: str, is_passing: bool
) -> None:
    peer.replies = [reply]

    done = await tools.call(definition(f"{peer.url}/", "POST", effect=Effect.ONCE), {}, CONTEXT)
    assert done == ToolText(f"HTTP 200 OK: it was done, but the answer is lost: {why}.", is_lost=True)
    if is_passing:
        read = await failure(tools, definition(f"{peer.url}/"))
        assert (read.outcome, read.reason) == (Outcome.UNKNOWN, f"HTTP 200 OK, but the answer is lost: {why}")
    else:
        told = await tools.call(definition(f"{peer.url}/"), {}, CONTEXT)
        assert told == ToolText(f"HTTP 200 OK: the answer cannot be used: {why}.", error=True)


async def test_mark_before_json_keeps_no_condition_from_it(tools: HttpToolbox, peer: HttpPeer) -> None:
    """Many programs on Windows put a byte order mark before their JSON."""
    peer.replies = [Reply(body=b'\xef\xbb\xbf{"state": "booked"}', headers=JSON)]

    text = (await tools.call(definition(f"{peer.url}/"), {}, CONTEXT)).text

    assert check_condition('result.state == "booked"', text, {}, shown=True).finding == "pass"


@pytest.mark.parametrize("effect", ALL)
async def test_a_cut_or_late_answer_leaves_the_outcome_unknown(
    tools: HttpToolbox, peer: HttpPeer, effect: Effect
) -> None:
    context = CallContext("w", "r", 1, "k", 1, timedelta(seconds=1))

    cut = await failure(tools, definition(f"{peer.url}/cut", "POST", effect=effect))
    with pytest.raises(ToolError) as late:
        await tools.call(definition(f"{peer.url}/slow/5", "POST", effect=effect), {}, context)

    assert (cut.outcome, late.value.outcome) == (Outcome.UNKNOWN, Outcome.UNKNOWN)
    assert late.value.reason == "POST 127.0.0.1: no answer in time"


async def test_what_never_left_is_not_sent() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        tools = HttpToolbox(resolve, allowed_hosts=(f"127.0.0.1:{port}", "nowhere.invalid"), look_up=_unknown)

        refused = await failure(tools, definition(f"http://127.0.0.1:{port}/", "POST", effect=Effect.ONCE))
        unknown = await failure(tools, definition("http://nowhere.invalid/", "POST", effect=Effect.ONCE))
        await tools.close()

    assert (refused.outcome, refused.reason) == (Outcome.NOT_SENT, "POST 127.0.0.1: no connection")
    assert (unknown.outcome, unknown.reason) == (
        Outcome.NOT_SENT,
        "POST nowhere.invalid: the name of the host is not known",
    )


async def _unknown(host: str, port: int) -> Sequence[str]:
    raise socket.gaierror(-2, "unknown")


async def test_a_cancelled_call_stops_at_once(tools: HttpToolbox, peer: HttpPeer) -> None:
    call = asyncio.create_task(tools.call(definition(f"{peer.url}/slow/5"), {}, CONTEXT))
    while not peer.seen:
        await asyncio.sleep(0.01)

    call.cancel()

    with pytest.raises(asyncio.CancelledError):
        await call


async def test_arguments_go_into_path_query_and_body(tools: HttpToolbox, peer: HttpPeer) -> None:
    tool = definition(f"{peer.url}/api/{{queue}}/x?v=1", "POST", query=("notify", "tag", "none"), effect=Effect.KEYED)

    await tools.call(
        tool, {"queue": "a b/c?d", "notify": True, "tag": ["x&y", 2, None], "none": None, "amount": 1.5}, CONTEXT
    )

    (seen,) = peer.seen
    assert seen.target == "/api/a%20b%2Fc%3Fd/x?v=1&notify=true&tag=x%26y&tag=2"
    assert seen.json() == {"amount": 1.5}
    assert seen.headers["idempotency-key"] == "key-1"
    assert seen.headers["content-type"] == "application/json"
    assert seen.headers["host"] == peer.host


async def test_a_read_sends_no_key_and_no_body(tools: HttpToolbox, peer: HttpPeer) -> None:
    await tools.call(definition(f"{peer.url}/json"), {}, CONTEXT)

    (seen,) = peer.seen
    assert "idempotency-key" not in seen.headers
    assert seen.body == b""


@pytest.mark.parametrize(
    ("method", "arguments", "body"),
    [
        ("GET", {}, None),
        ("HEAD", {}, None),
        ("DELETE", {}, None),
        ("DELETE", {"reason": "é"}, '{"reason": "é"}'.encode()),
        ("POST", {}, b"{}"),
        ("PUT", {"a": None}, b'{"a": null}'),
        ("PATCH", {}, b"{}"),
    ],
)
def test_what_is_left_is_the_body(method: str, arguments: JsonObject, body: bytes | None) -> None:
    assert build_call(HttpBinding(kind="http", method=method, url="http://h/x"), arguments).body == body


@pytest.mark.parametrize("value", ["..", ".", "../../admin", "a/../b", "..\\x", "a\\..", "", None, {"a": 1}, ["a"]])
def test_a_path_argument_cannot_leave_its_place(value: str | JsonObject | list[str] | None) -> None:
    binding = HttpBinding(kind="http", method="GET", url="http://h/a/{part}/b")

    with pytest.raises(ValueError, match=r"path|URL"):
        build_call(binding, {"part": value})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("value", "target"),
    [
        ("a/b", "/a/a%2Fb"),
        ("..a", "/a/..a"),
        ("%2e%2e", "/a/%252e%252e"),
        ("//evil.example", "/a/%2F%2Fevil.example"),
        ("@evil.example:80", "/a/%40evil.example%3A80"),
        ("x?y#z", "/a/x%3Fy%23z"),
        ("\r\nHost: evil", "/a/%0D%0AHost%3A%20evil"),
        (5, "/a/5"),
        (True, "/a/true"),
        ("ü", "/a/%C3%BC"),
    ],
)
def test_path_arguments_are_percent_encoded(value: str | int | bool, target: str) -> None:
    call = build_call(HttpBinding(kind="http", method="GET", url="http://h.example/a/{part}"), {"part": value})

    assert call.url.raw_path.decode() == target
    assert call.url.host == "h.example"


def test_two_arguments_cannot_join_to_leave_the_path() -> None:
    with pytest.raises(ValueError, match="path segments"):
        build_call(HttpBinding(kind="http", method="GET", url="http://h/{a}{b}"), {"a": ".", "b": "."})


SCHEMA: JsonObject = {"properties": {"id": {"type": "string"}, "q": {"type": "string"}}, "required": ["id"]}


@pytest.mark.parametrize(
    ("method", "url", "query", "headers", "reason"),
    [
        ("GET", "http://h/{id}", ("q",), {}, None),
        ("POST", "http://h/{id}", (), {"Authorization": "x"}, None),
        ("GET", "http://{id}.h/", (), {}, "url: the host must be written out"),
        ("GET", "http://user:pw@h/", (), {}, "url: the host must be written out"),
        ("GET", "http://h:{id}/", (), {}, "url: the host must be written out"),
        ("GET", "http://h/#{id}", (), {}, "without a fragment"),
        ("POST", "http://h/{q}", (), {}, "url: {q} must be a required property"),
        ("POST", "http://h/{gone}", (), {}, "url: {gone} must be a required property"),
        ("POST", "http://h/{id", (), {}, "stand only around the name"),
        ("POST", "http://h/", ("gone",), {}, "query: 'gone' is not a property"),
        ("GET", "http://h/{id}", (), {}, "GET has no body: put 'q' into the url or into 'query'"),
        ("POST", "http://h/", (), {"Host": "x"}, "'Host' is set by Mandate"),
        ("POST", "http://h/", (), {"idempotency-key": "x"}, "'idempotency-key' is set by Mandate"),
        ("POST", "http://h/", (), {"A B": "x"}, "'A B' is not a header name"),
    ],
)
def test_a_template_is_checked_before_any_call(
    method: str, url: str, query: tuple[str, ...], headers: dict[str, str], reason: str | None
) -> None:
    binding = HttpBinding(kind="http", method=method, url=url, query=query, headers=headers)

    try:
        check_binding(binding, SCHEMA)
        said = None
    except ValueError as error:
        said = str(error)

    assert (said is None) == (reason is None)
    assert reason is None or reason in (said or "")


RUN = CallContext("shop/order 81", "r", 1, "key-1", 1, timedelta(seconds=5), requester="ann@example.com")


def naming(url: str, method: str = "POST", **keys: Any) -> ToolDefinition:
    made = definition(url, method, effect=Effect.KEYED)
    return made.model_copy(update={"binding": HttpBinding(kind="http", method=method, url=url, **keys)})


async def test_values_of_the_run_go_into_address_headers_and_body(tools: HttpToolbox, peer: HttpPeer) -> None:
    tool = naming(
        f"{peer.url}/runs/${{run.workflow_id}}/{{id}}?by=${{run.requester}}&v=1",
        headers={"X-By": "<${run.requester}> $${key}", "X-Request-Id": "${key}", "X-Token": "${secret:TOKEN} ${key}"},
        query=("q",),
        body={"reference": "${key}", "by": {"name": "${run.requester}", "tags": ["${run.workflow_id}", 1, None]}},
    )

    await tools.call(tool, {"id": "7", "q": "x", "amount": 2}, RUN)

    (seen,) = peer.seen
    assert seen.target == "/runs/shop%2Forder%2081/7?by=ann%40example.com&v=1&q=x"
    assert seen.headers["x-by"] == "<ann@example.com> ${key}"
    assert seen.headers["x-request-id"] == "key-1"
    assert seen.headers["x-token"] == "s3cr3t-token key-1"
    assert seen.json() == {
        "reference": "key-1",
        "by": {"name": "ann@example.com", "tags": ["shop/order 81", 1, None]},
        "amount": 2,
    }


@pytest.mark.parametrize("name", ["requester", "Requester", "REQUESTER"])
async def test_argument_cannot_take_the_place_of_a_fixed_field(tools: HttpToolbox, peer: HttpPeer, name: str) -> None:
    tool = naming(f"{peer.url}/json", body={"requester": "${run.requester}"})

    with pytest.raises(ToolError) as refused:
        await tools.call(tool, {name: "the boss"}, RUN)

    assert refused.value.outcome is Outcome.NOT_SENT
    assert refused.value.reason == f"the argument {name!r} is a field that the agent file has fixed"
    assert peer.seen == []


@pytest.mark.parametrize("requester", ["${secret:TOKEN}", "${key}", "$${x}", '", "admin": "1', "Jürgen", "李雷", "a b"])
async def test_name_of_a_requester_is_only_a_name(tools: HttpToolbox, peer: HttpPeer, requester: str) -> None:
    tool = naming(
        f"{peer.url}/json?by=${{run.requester}}", headers={"X-By": "${run.requester}"}, body={"by": "${run.requester}"}
    )

    await tools.call(tool, {}, replace(RUN, requester=requester))

    (seen,) = peer.seen
    assert seen.json() == {"by": requester}
    assert seen.headers["x-by"].encode("utf-8", "surrogateescape").decode() == requester
    assert unquote(seen.target.partition("by=")[2]) == requester


@pytest.mark.parametrize(
    "requester", ["ann\r\nX-Admin: 1", "ann\nX-Admin: 1", "ann\x00", "ann\x7f", "ann\x85", "\ud83d"]
)
async def test_name_of_a_requester_begins_no_header(tools: HttpToolbox, peer: HttpPeer, requester: str) -> None:
    tool = naming(f"{peer.url}/json", headers={"X-By": "${run.requester}"})

    with pytest.raises(ToolError) as refused:
        await tools.call(tool, {}, replace(RUN, requester=requester))

    assert refused.value.outcome is Outcome.NOT_SENT
    assert refused.value.reason == "headers: the value of 'X-By' holds characters that a header cannot have"
    assert peer.seen == []


@pytest.mark.parametrize(
    "keys",
    [
        {"headers": {"X-By": "${run.requester}"}},
        {"body": {"by": ["${run.requester}"]}},
        {"url": "/json?by=${run.requester}"},
    ],
)
async def test_request_that_names_the_requester_is_not_sent_without_one(
    tools: HttpToolbox, peer: HttpPeer, keys: dict[str, Any]
) -> None:
    tool = naming(peer.url + str(keys.pop("url", "/json")), **keys)

    with pytest.raises(ToolError) as refused:
        await tools.call(tool, {}, CONTEXT)

    assert refused.value.outcome is Outcome.NOT_SENT
    assert refused.value.reason == (
        "the request names '${run.requester}', and the start of this run does not say who asks"
    )
    assert peer.seen == []


async def test_spaces_around_a_header_value_are_no_part_of_it(tools: HttpToolbox, peer: HttpPeer) -> None:
    await tools.call(naming(f"{peer.url}/json", headers={"X-By": " ${run.requester}\t"}), {}, RUN)

    assert peer.seen[0].headers["x-by"] == "ann@example.com"


async def test_a_host_made_of_arguments_is_never_called(tools: HttpToolbox) -> None:
    error = await failure(tools, definition("http://{host}/x", "POST", effect=Effect.ONCE), {"host": "127.0.0.1"})

    assert error.outcome is Outcome.NOT_SENT


async def test_secrets_are_filled_in_and_struck_out_of_every_answer(tools: HttpToolbox, peer: HttpPeer) -> None:
    headers = {"Authorization": "Bearer ${secret:TOKEN}"}

    answer = await tools.call(definition(f"{peer.url}/echo-token/200", headers=headers), {}, CONTEXT)
    refusal = await tools.call(definition(f"{peer.url}/echo-token/403", headers=headers), {}, CONTEXT)
    error = await failure(tools, definition(f"{peer.url}/echo-token/500", headers=headers))

    assert [seen.headers["authorization"] for seen in peer.seen] == ["Bearer s3cr3t-token"] * 3
    assert answer.text == "you are Bearer ***"
    assert refusal.text == "HTTP 403 Forbidden: you are Bearer ***"
    assert error.reason == "HTTP 500 Internal Server Error: you are Bearer ***"


async def test_a_missing_secret_is_named_and_nothing_is_sent(tools: HttpToolbox, peer: HttpPeer) -> None:
    error = await failure(tools, definition(f"{peer.url}/json", headers={"X": "${secret:GONE}"}))

    assert (error.outcome, error.reason) == (Outcome.NOT_SENT, "secret 'GONE' is missing")
    assert peer.seen == []


async def test_a_secret_with_a_line_break_sends_no_second_header(tools: HttpToolbox, peer: HttpPeer) -> None:
    SECRETS["${secret:BROKEN}"] = "abcd\r\nX-Evil: 1"

    error = await failure(tools, definition(f"{peer.url}/json", headers={"X": "${secret:BROKEN}"}))

    assert error.outcome is Outcome.NOT_SENT
    assert "abcd" not in error.reason
    assert peer.seen == []


@pytest.mark.parametrize(
    ("path", "method", "text"),
    [
        ("json", "GET", '{"b": 1,  "a": [true]}'),
        ("latin", "GET", "café"),
        ("image", "GET", "[image/png, 5 bytes]"),
        ("status/204", "POST", "HTTP 204 No Content"),
        ("json", "HEAD", "HTTP 200 OK: content-type: application/json\ncontent-length: 22"),
    ],
)
async def test_an_answer_is_text_or_a_line_about_it(
    tools: HttpToolbox, peer: HttpPeer, path: str, method: str, text: str
) -> None:
    assert await tools.call(definition(f"{peer.url}/{path}", method), {}, CONTEXT) == ToolText(text)


async def test_a_read_follows_redirects_within_its_host(tools: HttpToolbox, peer: HttpPeer) -> None:
    result = await tools.call(
        definition(f"{peer.url}/to", query=("url",), headers={"Authorization": "${secret:TOKEN}"}),
        {"url": f"{peer.url}/json"},
        CONTEXT,
    )

    assert result.text == '{"b": 1,  "a": [true]}'
    assert [seen.headers["authorization"] for seen in peer.seen] == ["s3cr3t-token"] * 2


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_redirect_to_another_port_is_not_followed(tools: HttpToolbox, peer: HttpPeer, method: str) -> None:
    async with http_peer() as other:
        error = await failure(
            tools, definition(f"{peer.url}/to/307", method, query=("url",)), {"url": f"{other.url}/json"}
        )

        assert error.outcome is Outcome.UNKNOWN
        assert other.seen == []


async def test_an_effect_follows_no_redirect(tools: HttpToolbox, peer: HttpPeer) -> None:
    tool = definition(f"{peer.url}/to/307", "POST", query=("url",), effect=Effect.IDEMPOTENT)

    error = await failure(tools, tool, {"url": f"{peer.url}/json"})

    assert error.outcome is Outcome.UNKNOWN
    assert len(peer.seen) == 1


async def test_redirects_in_a_circle_end(tools: HttpToolbox, peer: HttpPeer) -> None:
    error = await failure(tools, definition(f"{peer.url}/circle"))

    assert error.outcome is Outcome.UNKNOWN
    assert len(peer.seen) == 6


async def test_cookies_are_not_kept(tools: HttpToolbox, peer: HttpPeer) -> None:
    peer.answer_headers = {"Set-Cookie": "session=1"}

    await tools.call(definition(f"{peer.url}/status/200"), {}, CONTEXT)
    await tools.call(definition(f"{peer.url}/status/200"), {}, CONTEXT)

    assert "cookie" not in peer.seen[1].headers


async def test_proxies_of_the_environment_are_not_used(
    tools: HttpToolbox, peer: HttpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)

    assert (await tools.call(definition(f"{peer.url}/json"), {}, CONTEXT)).error is False


@pytest.mark.parametrize(
    ("entries", "url", "address", "allowed"),
    [
        (("api.example.com",), "https://api.example.com/x", "93.184.216.34", True),
        (("api.example.com",), "https://API.Example.com./x", "93.184.216.34", True),
        (("api.example.com",), "https://api.example.com:8443/x", "93.184.216.34", False),
        (("api.example.com:8443",), "https://api.example.com:8443/x", "93.184.216.34", True),
        (("api.example.com:8443",), "https://api.example.com/x", "93.184.216.34", False),
        (("*.example.com",), "https://a.b.example.com/", "93.184.216.34", True),
        (("*.example.com",), "https://example.com/", "93.184.216.34", False),
        (("*.example.com",), "https://badexample.com/", "93.184.216.34", False),
        (("example.com",), "https://example.com.evil.test/", "93.184.216.34", False),
        ((), "https://example.com/", "93.184.216.34", False),
        (("api.example.com",), "http://api.example.com/", "10.0.0.1", False),
        (("api.example.com",), "http://api.example.com/", "169.254.169.254", False),
        (("api.example.com",), "http://api.example.com/", "::ffff:127.0.0.1", False),
        (("*.example.com",), "http://x.example.com/", "127.0.0.1", False),
        (("private:api.example.com",), "http://api.example.com/", "10.0.0.1", True),
        (("private:*.internal:8080",), "http://tickets.internal:8080/", "10.0.0.1", True),
        (("127.0.0.1:8080",), "http://127.0.0.1:8080/", "", True),
        (("127.0.0.1:8080",), "http://127.0.0.1:8081/", "", False),
        (("[::1]:8080",), "http://[::1]:8080/", "", True),
        (("localhost:8080",), "http://localhost:8080/", "127.0.0.1", True),
        (("127.0.0.1",), "http://2130706433/", "127.0.0.1", False),
    ],
)
async def test_only_allowed_hosts_and_public_addresses_are_reached(
    entries: tuple[str, ...], url: str, address: str, allowed: bool
) -> None:
    async def look_up(host: str, port: int) -> Sequence[str]:
        return (address,)

    try:
        found = await AllowedHosts(entries, look_up).addresses(httpx2.URL(url))
    except HostRefused:
        found = ()

    assert bool(found) is allowed


@pytest.mark.parametrize("entry", ["", "http://h", "h/x", "h:port", "*", "a b", "u@h", "private:"])
def test_a_misshapen_entry_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="allowed host"):
        AllowedHosts((entry,))


async def test_a_name_is_looked_up_once_and_the_checked_address_is_used(peer: HttpPeer) -> None:
    asked: list[str] = []

    async def rebinding(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ("127.0.0.1",) if len(asked) == 1 else ("203.0.113.1",)

    tools = HttpToolbox(resolve, allowed_hosts=(f"private:shop.test:{peer.port}",), look_up=rebinding)
    await tools.call(definition(f"http://shop.test:{peer.port}/json"), {}, CONTEXT)
    await tools.close()

    assert asked == ["shop.test"]
    assert peer.seen[0].headers["host"] == f"shop.test:{peer.port}"


async def test_the_next_address_is_tried_when_one_does_not_answer(peer: HttpPeer) -> None:
    async def two(host: str, port: int) -> Sequence[str]:
        return ("127.0.0.9", "127.0.0.1")

    tools = HttpToolbox(resolve, allowed_hosts=(f"private:shop.test:{peer.port}",), look_up=two)
    result = await tools.call(definition(f"http://shop.test:{peer.port}/json"), {}, CONTEXT)
    await tools.close()

    assert not result.error


async def test_a_certificate_is_checked_against_the_name_and_not_the_address(tmp_path: Path) -> None:
    server, trusting = _certificate("shop.test", tmp_path)

    async def local(host: str, port: int) -> Sequence[str]:
        return ("127.0.0.1",)

    async with http_peer(tls=server) as peer:
        allowed = (f"private:shop.test:{peer.port}", f"private:other.test:{peer.port}")
        tools = HttpToolbox(resolve, allowed_hosts=allowed, look_up=local, verify=trusting)
        right = await tools.call(definition(f"https://shop.test:{peer.port}/json"), {}, CONTEXT)
        wrong = await failure(tools, definition(f"https://other.test:{peer.port}/json"))
        await tools.close()

    assert not right.error
    assert wrong.outcome is Outcome.NOT_SENT
    assert len(peer.seen) == 1


def _certificate(name: str, folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Contexts of a server with a certificate for `name`, and of a client that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "peer.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    client = ssl.create_default_context(cadata=certificate.public_bytes(serialization.Encoding.PEM).decode())
    return server, client
