"""The gallery of endpoints, each over real HTTP against a server that speaks as its vendor does."""

import json
import re
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from temporalio.exceptions import ApplicationError

from mandate.activities.failures import BILLED_FAULTS
from mandate.activities.model import ModelActivities
from mandate.activities.own_files import OwnFiles
from mandate.activities.providers import errors
from mandate.activities.providers.base import Provider
from mandate.workers.catalog.endpoints import read_endpoints
from mandate.workers.providers import makers
from mandate.workers.settings import Settings
from mandate.workflows.contracts.endpoints import Endpoint
from mandate.workflows.contracts.transcript import AssistantMessage, CallPart
from tests.support.dialects import DIALECTS, SECRETS, Dialect, chat, reply, used
from tests.support.fake_provider.behaviours import CHAT, MESSAGES, RESPONSES, Answer
from tests.support.fake_provider.server import FakeProvider
from tests.support.http_peer import HttpPeer, Reply, Seen, http_peer
from tests.support.pages import PROJECT
from tests.support.prompts import QUESTION, prompt, results

GALLERY = PROJECT / "deploy" / "providers.example.yaml"


def settings(**environment: str) -> Settings:
    return Settings.from_environment({"MANDATE_PROVIDERS": str(GALLERY), **environment})


ENDPOINTS = read_endpoints(settings()).by_name


@pytest.fixture
async def peer() -> AsyncIterator[HttpPeer]:
    async with http_peer() as found:
        yield found


async def make(endpoint: Endpoint, url: str, name: str = "there", **environment: str) -> Provider:
    """The provider of an endpoint, at this server in place of its own."""
    moved = endpoint.model_copy(update={"base_url": f"{url}{urlsplit(endpoint.base_url).path}"})
    return await makers(settings(**environment), OwnFiles(), {name: moved})[name]()


def speak(peer: HttpPeer, dialect: Dialect, answer: Reply) -> None:
    async def script(seen: Seen) -> Reply:
        return dialect.refusal(seen) or answer

    peer.script = script


def test_the_gallery_has_the_ten() -> None:
    assert list(ENDPOINTS) == list(DIALECTS)


@pytest.mark.parametrize("name", DIALECTS)
async def test_request_is_as_the_vendor_wants_it_and_the_answer_is_read(peer: HttpPeer, name: str) -> None:
    dialect = DIALECTS[name]
    speak(peer, dialect, reply(dialect.answer))
    provider = await make(ENDPOINTS[name], peer.url, name, **SECRETS)

    completion = await provider.complete(prompt(model=dialect.model))

    usage = completion.usage
    assert [(call.tool, json.loads(call.arguments)) for call in completion.message.calls] == [
        ("get_weather", {"city": "Rome"})
    ]
    assert (usage.input_tokens, usage.cached_input_tokens, usage.output_tokens) == dialect.tokens
    assert completion.answered_by == dialect.answer["model"]
    await provider.close()


@pytest.mark.parametrize("name", DIALECTS)
async def test_streamed_answer_of_the_vendor_is_that_of_its_document(peer: HttpPeer, name: str) -> None:
    dialect = DIALECTS[name]

    async def script(seen: Seen) -> Reply:
        return dialect.refusal(seen) or dialect.respond(seen)

    peer.script = script
    provider = await make(ENDPOINTS[name], peer.url, name, **SECRETS)

    plain = await provider.complete(prompt(model=dialect.model))
    streamed = await provider.complete(replace(prompt(model=dialect.model), on_text=lambda _: None))
    again = await provider.complete(replace(prompt(model=dialect.model), on_text=lambda _: None))

    assert streamed.message.parts == again.message.parts == plain.message.parts
    assert (streamed.usage, streamed.answered_by) == (plain.usage, plain.answered_by)
    assert (streamed.finish, streamed.problem) == (plain.finish, plain.problem)
    assert bool(streamed.message.native) is bool(plain.message.native)
    # Mistral's servers refuse `stream_options`, once.
    assert len(peer.seen) == (4 if name == "mistral" else 3)
    await provider.close()


@pytest.mark.parametrize("name", DIALECTS)
async def test_error_of_the_vendor_is_the_right_fault(peer: HttpPeer, name: str) -> None:
    dialect = DIALECTS[name]
    speak(peer, dialect, dialect.error)
    provider = await make(ENDPOINTS[name], peer.url, name, **SECRETS)

    with pytest.raises(ApplicationError) as caught:
        await provider.complete(prompt(model=dialect.model))

    billed = {"may_be_billed": True} if dialect.fault in BILLED_FAULTS else {}
    assert caught.value.details[0] == {"fault": dialect.fault, "status": dialect.status, **billed}
    assert f"'{name}:{dialect.model}' {dialect.says}" in caught.value.message
    assert caught.value.non_retryable is not dialect.retried
    await provider.close()


def google(message: str, status: str = "INVALID_ARGUMENT") -> object:
    return [{"error": {"code": 400, "message": message, "status": status}}]


def named(message: str, **more: object) -> object:
    return {"error": {"message": message, **more}}


FLAGGED = {"reasons": ["violence"], "flagged_input": "x"}
NOT_PERMITTED = {"loc": ["body", "x"], "msg": "Extra inputs are not permitted", "type": "extra_forbidden"}


@pytest.mark.parametrize(
    ("error", "status", "fault"),
    [
        (google("API key not valid. Please pass a valid API key."), 400, "configuration"),
        (google("The input token count (2) exceeds the maximum number of tokens allowed (1)."), 400, "context_length"),
        (named("Your input was flagged", code=403, metadata=FLAGGED), 403, "content_filter"),
        (named("litellm.ContextWindowExceededError: much", type=None, code="400"), 400, "context_length"),
        (named("Invalid model name passed in model=x.", type="None", code="400"), 400, "configuration"),
        (named("x is not a valid model ID", code=400), 400, "configuration"),
        (named("flex tier capacity exceeded", code="capacity_exceeded"), 498, "overloaded"),
        ({"detail": [NOT_PERMITTED]}, 422, "bad_request"),
        (named("The API deployment does not exist.", code="DeploymentNotFound"), 404, "configuration"),
        (named("Access denied due to invalid subscription key.", code="401"), 401, "configuration"),
        ({"message": "Too many tokens, please wait before trying again."}, 429, "rate_limit"),
    ],
)
async def test_other_errors_of_these_vendors(peer: HttpPeer, error: object, status: int, fault: str) -> None:
    peer.replies.append(reply(error, status))
    provider = await make(ENDPOINTS["sglang"], peer.url)

    with pytest.raises(ApplicationError) as caught:
        await provider.complete(prompt())

    assert caught.value.details[0] == {"fault": fault, "status": status}
    assert "{" not in caught.value.message
    await provider.close()


async def test_wait_that_google_asks_for_in_the_body_is_kept(peer: HttpPeer) -> None:
    error = {
        "code": 429,
        "message": "You exceeded your current quota.",
        "status": "RESOURCE_EXHAUSTED",
        "details": [
            {"@type": "type.googleapis.com/google.rpc.QuotaFailure"},
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "36.5s"},
        ],
    }
    peer.replies.append(reply([{"error": error}], 429))
    provider = await make(ENDPOINTS["sglang"], peer.url)

    with pytest.raises(ApplicationError) as caught:
        await provider.complete(prompt())

    assert caught.value.details[0] == {"fault": "rate_limit", "status": 429}
    assert caught.value.next_retry_delay == timedelta(seconds=36.5)
    await provider.close()


@pytest.mark.parametrize("name", DIALECTS)
async def test_conversation_goes_on_with_the_vendors_own_call(peer: HttpPeer, name: str) -> None:
    dialect = DIALECTS[name]
    speak(peer, dialect, reply(dialect.answer))
    provider = await make(ENDPOINTS[name], peer.url, name, **SECRETS)

    first = await provider.complete(prompt(model=dialect.model))
    await provider.complete(prompt((QUESTION, first.message, results(first.message)), model=dialect.model))

    sent = json.loads(peer.seen[-1].body)
    if "input" in sent:
        assert [item.get("call_id") for item in sent["input"]] == [None, None, "call_1", "call_1"]
    else:
        asked, answered = sent["messages"][-2:]
        (call,) = dialect.answer["choices"][0]["message"]["tool_calls"]
        assert asked["tool_calls"] == [call]
        assert (answered["tool_call_id"], answered["content"]) == (call["id"], "21C")
    await provider.close()


@pytest.mark.parametrize("call_id", ["call_a", "toolu_01A-b", "fc_" + "a" * 40, "D681PevKs"])
async def test_calls_of_other_models_have_ids_that_mistral_takes(peer: HttpPeer, call_id: str) -> None:
    parts = (CallPart(kind="call", call_id=call_id, tool="get_weather", arguments='{"city": "Rome"}'),)
    other = AssistantMessage(role="assistant", parts=parts, protocol="anthropic.messages", model="other")
    peer.replies.append(reply(chat("m", used())))
    provider = await make(ENDPOINTS["mistral"], peer.url, **SECRETS)

    await provider.complete(prompt((QUESTION, other, results(other))))

    asked, answered = json.loads(peer.seen[0].body)["messages"][-2:]
    assert re.fullmatch(r"[a-zA-Z0-9]{9}", answered["tool_call_id"])
    assert asked["tool_calls"][0]["id"] == answered["tool_call_id"]
    assert (answered["tool_call_id"] == call_id) == (call_id == "D681PevKs")
    await provider.close()


@pytest.mark.parametrize(
    ("protocol", "path", "params"),
    [
        (RESPONSES, "/v1", {"reasoning": {"effort": "low"}, "service_tier": "flex"}),
        (CHAT, "/v1", {"reasoning_effort": "low", "extra_body": {"user": "ann"}}),
        (MESSAGES, "", {"thinking": {"type": "adaptive"}, "cache_control": {"type": "ephemeral", "ttl": "1h"}}),
    ],
)
async def test_params_are_in_the_body_of_every_protocol(protocol: str, path: str, params: dict[str, object]) -> None:
    async with FakeProvider() as fake:
        fake.will(Answer(text="Hello."))
        endpoint = Endpoint.model_validate(
            {"protocol": protocol, "base_url": f"{fake.url}{path}", "key": "${secret:K}"}
        )
        provider = await makers(settings(K="sk-0123"), OwnFiles(), {"it": endpoint})["it"]()

        completion = await provider.complete(prompt(params=params))

        sent = fake.requests[0].json
        expected = {name: value for name, value in params.items() if name != "extra_body"}
        expected |= params.get("extra_body", {})  # type: ignore[call-overload, operator]
        assert completion.message.text == "Hello."
        assert {name: sent[name] for name in expected} == expected
        assert "extra_body" not in sent
        await provider.close()


async def test_params_that_are_the_runtimes_are_never_sent(peer: HttpPeer) -> None:
    provider = await make(ENDPOINTS["sglang"], peer.url)

    with pytest.raises(ApplicationError) as caught:
        await provider.complete(prompt(params={"extra_body": {"Tools": []}}))

    assert "Tools is not an agent file's to set: the agent's 'tools' say what there is" in caught.value.message
    assert peer.seen == []
    await provider.close()


async def test_request_begins_with_the_same_bytes_whatever_the_params(peer: HttpPeer) -> None:
    peer.replies.append(reply(chat("m", used())))
    provider = await make(ENDPOINTS["sglang"], peer.url)

    for _ in range(2):
        await provider.complete(prompt(params={"top_p": 0.5, "seed": 3}))

    first, second = (seen.body for seen in peer.seen)
    assert first == second
    assert first.startswith(b'{"model":"fake","max_completion_tokens":4096,"seed":3,"top_p":0.5,"tools":')
    await provider.close()


async def test_rotated_secret_is_sent_from_then_on(peer: HttpPeer, tmp_path: Path) -> None:
    peer.replies.append(reply(chat("m", used())))
    (tmp_path / "VERTEX_ACCESS_TOKEN").write_text("first\n")
    provider = await make(ENDPOINTS["vertex"], peer.url, MANDATE_SECRETS=str(tmp_path))

    await provider.complete(prompt())
    (tmp_path / "VERTEX_ACCESS_TOKEN").write_text("second\n")
    await provider.complete(prompt())
    (tmp_path / "VERTEX_ACCESS_TOKEN").unlink()
    with pytest.raises(ApplicationError) as caught:
        await provider.complete(prompt())

    assert [seen.headers["authorization"] for seen in peer.seen] == ["Bearer first", "Bearer second"]
    assert caught.value.message == (
        f"'there:fake' was not asked: secret 'VERTEX_ACCESS_TOKEN' is neither in the environment nor in {tmp_path}"
    )
    assert caught.value.next_retry_delay is not None
    await provider.close()


async def test_secret_that_no_header_takes_is_not_shown(peer: HttpPeer) -> None:
    provider = await make(ENDPOINTS["groq"], peer.url, GROQ_API_KEY="gsk_secret\nX-Other: 1")

    with pytest.raises(ApplicationError) as caught:
        await provider.complete(prompt())

    assert caught.value.message == (
        "'there:fake' was not asked: secret 'GROQ_API_KEY' holds a character that no header takes, "
        "for example a line break"
    )
    assert peer.seen == []
    await provider.close()


@pytest.mark.parametrize("name", ["azure", "groq"])
async def test_key_that_a_server_repeats_is_cut_out(peer: HttpPeer, name: str) -> None:
    key = next(value for value in DIALECTS[name].headers.values()).removeprefix("Bearer ")
    peer.replies.append(reply({"error": {"message": f"Incorrect API key provided: {key}."}}, 401))
    provider = await make(ENDPOINTS[name], peer.url, **SECRETS)

    with pytest.raises(ApplicationError) as caught:
        await provider.complete(prompt())

    assert "Incorrect API key provided: [key]." in caught.value.message
    await provider.close()


async def test_keys_go_to_no_other_server(peer: HttpPeer) -> None:
    async with http_peer(reply(chat("m", used()))) as other:
        peer.replies.append(Reply(307, "", {"Location": f"{other.url}/v1/chat/completions"}))
        provider = await make(ENDPOINTS["azure"], peer.url, **SECRETS)

        with pytest.raises(ApplicationError) as caught:
            await provider.complete(prompt())

        assert caught.value.details[0] == {"fault": "configuration", "status": 307}
        assert other.seen == []
        await provider.close()


async def test_what_the_environment_says_of_the_vendor_is_not_sent_to_others(
    peer: HttpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (
        ("OPENAI_API_KEY", "sk-openai"), ("OPENAI_ORG_ID", "org-1"), ("OPENAI_PROJECT_ID", "proj-1"),
        ("OPENAI_CUSTOM_HEADERS", "X-Gateway-Key: gate-1"), ("ANTHROPIC_CUSTOM_HEADERS", "X-Gateway-Key: gate-1"),
        ("ANTHROPIC_API_KEY", "sk-ant"),
    ):  # fmt: skip
        monkeypatch.setenv(name, value)
    peer.replies.append(reply({"error": {"message": "no"}}, 400))

    for protocol in ("openai.chat", "openai.responses", "anthropic.messages"):
        endpoint = Endpoint.model_validate({"protocol": protocol, "base_url": peer.url})
        provider = await make(endpoint, peer.url)
        with pytest.raises(ApplicationError):
            await provider.complete(prompt())
        await provider.close()

    sent = "\n".join(f"{name}: {value}" for seen in peer.seen for name, value in seen.headers.items())
    assert len(peer.seen) == 3
    assert not [text for text in ("sk-openai", "org-1", "proj-1", "gate-1", "sk-ant", "authorization") if text in sent]


async def test_prices_are_those_of_the_provider_that_the_file_names(peer: HttpPeer) -> None:
    peer.replies.append(reply(chat("llama-3.3-70b-versatile", used(1_000_000, 0, prompt_tokens_details=None))))
    priced = ENDPOINTS["groq"]
    costs = []
    for endpoint in (priced, priced.model_copy(update={"prices_as": None})):
        provider = await make(endpoint, peer.url, "groq", **SECRETS)
        usage = (await provider.complete(prompt(model="llama-3.3-70b-versatile"))).usage
        costs.append((str(usage.cost_usd), usage.unpriced_calls))
        await provider.close()

    assert costs == [("0.59", 0), ("0", 1)]


async def test_call_at_an_endpoint_that_only_another_worker_has_is_not_sent_and_may_be_tried_again() -> None:
    models = ModelActivities(makers(settings(), OwnFiles(), {"groq": ENDPOINTS["groq"]}), None, None)  # type: ignore[arg-type]

    with pytest.raises(ApplicationError) as caught:
        await models.provider("mistral")

    assert caught.value.message == (
        "this worker has no provider 'mistral'; it has: anthropic, groq, openai, scripted, vllm"
    )
    assert not caught.value.non_retryable
    assert caught.value.next_retry_delay == timedelta(seconds=15)


@pytest.mark.parametrize(
    "write",
    [
        json.dumps,
        lambda key: json.dumps(key).replace("/", "\\/"),
        lambda key: '"' + "".join(f"\\u{ord(character):04x}" for character in key) + '"',
        lambda key: json.dumps(quote(key, safe="")),
        lambda key: json.dumps(b64encode(key.encode()).decode()),
        lambda key: json.dumps("x" * 250 + key),
    ],
    ids=["as it is", "slashes escaped", "all escaped", "in an address", "base64", "cut off"],
)
@pytest.mark.parametrize("status", [401, 200])
def test_no_piece_of_a_key_that_a_server_repeats_is_told(write: Callable[[str], str], status: int) -> None:
    key = "sk-live/000/001/002/" + "/".join(f"{number:03}" for number in range(3, 40))
    peer = errors.Peer("vllm", "m", "http://127.0.0.1:1/v1", 1, secrets=(key,))
    body = f'{{"error": {{"message": {write(key)}, "code": "bad_key"}}}}'
    if status == 401:
        told = str(errors.from_status(peer, 401, {}, body))
    else:
        told = str(errors.from_malformed(peer, "it is no answer", body, "application/json"))

    pieces = [
        form[begin : begin + 12] for form in (key, b64encode(key.encode()).decode()) for begin in range(len(form) - 12)
    ]
    assert [piece for piece in pieces if piece in told or piece in told.replace("\\/", "/")] == []
