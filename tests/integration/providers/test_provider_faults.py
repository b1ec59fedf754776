"""What each adapter makes of a provider's failures, over real HTTP."""

import asyncio
from datetime import timedelta

import pytest
from temporalio.exceptions import ApplicationError

from mandate.activities.failures import BILLED_FAULTS
from mandate.activities.providers.anthropic import AnthropicMessages
from mandate.activities.providers.openai_chat import OpenAiChat
from mandate.workflows.contracts.failures import FailureType
from tests.support.fake_provider.behaviours import CHAT, MESSAGES, RESPONSES, Answer, Body, Problem
from tests.support.fake_provider.server import FakeProvider
from tests.support.prompts import ADAPTERS, KEY, Adapter, prompt

ALL = (RESPONSES, CHAT, MESSAGES)


@pytest.fixture(params=ALL)
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def adapter(adapters: dict[str, Adapter], protocol: str, fake: FakeProvider) -> Adapter:
    return adapters[protocol]


async def failure(adapter: Adapter, model: str, *, attempt: int = 1, timeout: float = 5.0) -> ApplicationError:
    with pytest.raises(ApplicationError) as caught:
        await adapter.complete(prompt(model=model, attempt=attempt, timeout=timeout))
    return caught.value


REJECTED, UNAVAILABLE, TOO_LONG = (
    FailureType.MODEL_REJECTED,
    FailureType.MODEL_UNAVAILABLE,
    FailureType.CONTEXT_TOO_LONG,
)


@pytest.mark.parametrize(
    ("behaviour", "fault", "status", "kind", "retryable", "delay"),
    [
        ("rate-limit", "rate_limit", 429, UNAVAILABLE, True, 7.0),
        ("rate-limit-ms", "rate_limit", 429, UNAVAILABLE, True, 1.5),  # milliseconds win over seconds
        ("rate-limit-long", "rate_limit", 429, UNAVAILABLE, False, None),  # an hour: the route goes on
        ("rate-limit-bare", "rate_limit", 429, UNAVAILABLE, True, 4.0),  # third attempt: 1, 2, 4
        ("rate-limit-far", "rate_limit", 429, UNAVAILABLE, True, 4.0),  # a year that no calendar has
        ("rate-limit-odd", "rate_limit", 429, UNAVAILABLE, True, 4.0),
        ("rate-limit-negative", "rate_limit", 429, UNAVAILABLE, True, 4.0),
        ("quota", "quota", 429, REJECTED, False, None),
        ("broke", "quota", 402, REJECTED, False, None),
        ("error", "server", 500, UNAVAILABLE, True, 4.0),
        ("overloaded", "overloaded", 529, UNAVAILABLE, True, 4.0),
        ("unavailable", "server", 503, UNAVAILABLE, True, 4.0),  # HTML
        ("timeout", "server", 408, UNAVAILABLE, True, 4.0),
        ("conflict", "server", 409, UNAVAILABLE, True, 4.0),
        ("final-error", "server", 500, UNAVAILABLE, False, None),  # x-should-retry: false
        ("soft-error", "server", 400, UNAVAILABLE, True, 4.0),  # x-should-retry: true
        ("bad-request", "bad_request", 400, REJECTED, False, None),
        ("context", "context_length", 400, TOO_LONG, False, None),
        ("too-large", "context_length", 413, TOO_LONG, False, None),
        ("azure-filter", "content_filter", 400, REJECTED, False, None),
        ("unauthorized", "configuration", 401, REJECTED, False, None),
        ("missing", "configuration", 404, REJECTED, False, None),
        ("html", "malformed", 200, UNAVAILABLE, True, 4.0),
        ("half-json", "malformed", 200, UNAVAILABLE, True, 4.0),
        ("list", "malformed", 200, UNAVAILABLE, True, 4.0),
        ("drop", "connection", None, UNAVAILABLE, True, 4.0),
        ("cut", "connection", None, UNAVAILABLE, True, 4.0),
    ],
)
async def test_failure_of_a_provider(
    adapter: Adapter, behaviour: str, fault: str, status: int | None, kind: str, retryable: bool, delay: float | None
) -> None:
    error = await failure(adapter, f"fake-{behaviour}", attempt=3)

    billed = {"may_be_billed": True} if fault in BILLED_FAULTS else {}
    assert error.details == ({"fault": fault, "status": status, **billed},)
    assert (error.type, not error.non_retryable) == (kind, retryable)
    assert error.next_retry_delay == (None if delay is None else timedelta(seconds=delay))


async def test_retry_after_may_be_a_date(adapter: Adapter) -> None:
    error = await failure(adapter, "fake-rate-limit-date")

    assert error.next_retry_delay is not None
    assert timedelta(seconds=30) < error.next_retry_delay <= timedelta(seconds=60)


async def test_sdk_does_not_retry_by_itself(adapter: Adapter, fake: FakeProvider) -> None:
    await failure(adapter, "fake-error")

    assert len(fake.requests) == 1


async def test_slow_answer_ends_at_the_deadline(adapter: Adapter, fake: FakeProvider) -> None:
    error = await failure(adapter, "fake-slow", timeout=0.2)

    assert error.details == ({"fault": "timeout", "status": None, "may_be_billed": True},)
    assert error.message.endswith("gave no whole answer within 0.2 s")


async def test_cancellation_drops_the_request_at_once(adapter: Adapter, fake: FakeProvider) -> None:
    call = asyncio.create_task(adapter.complete(prompt(model="fake-slow", timeout=60)))
    while not fake.requests:
        await asyncio.sleep(0.01)

    call.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(call, 10)
    async with asyncio.timeout(10):
        while not fake.dropped:
            await asyncio.sleep(0.01)
    assert (await adapter.complete(prompt(model="fake-text"))).message.text == "All done."


async def test_nobody_listens(protocol: str) -> None:
    adapter = ADAPTERS[protocol]("http://127.0.0.1:1")

    error = await failure(adapter, "fake")

    assert error.details == ({"fault": "connection", "status": None},)
    assert "'http://127.0.0.1:1" in error.message


async def test_wrong_base_url_is_named(fake: FakeProvider) -> None:
    host = fake.url.removeprefix("http://")
    for adapter, place in (
        (OpenAiChat(api_key=KEY, base_url=f"http://ann:pass@{host}"), fake.url),
        (AnthropicMessages(api_key=KEY, base_url=f"http://ann:pass@{host}/v1"), f"{fake.url}/v1"),
    ):
        error = await failure(adapter, "fake")

        assert error.details[0]["fault"] == "configuration"
        assert f"check the model's name and the base URL '{place}'" in error.message
        assert "OpenAI's ends in /v1, Anthropic's does not" in error.message
        assert "pass" not in error.message


async def test_key_that_a_server_repeats_is_not_shown(adapter: Adapter, fake: FakeProvider) -> None:
    fake.will(
        Problem(401, "invalid_api_key", f"Bad key {KEY}."),
        Body(f"<p>{KEY}</p>".encode()),
        Problem(400, "odd", "x" * 185 + KEY),
    )

    for _ in range(3):
        error = await failure(adapter, "fake")

        assert KEY[:8] not in f"{error} {error.details}"
        assert len(error.message) <= 300


async def test_provider_explains_itself_in_the_message(adapter: Adapter, protocol: str) -> None:
    error = await failure(adapter, "fake-quota")

    name = {RESPONSES: "openai", CHAT: "vllm", MESSAGES: "anthropic"}[protocol]
    assert error.message == f"'{name}:fake-quota' answered 429 (insufficient_quota): You exceeded your current quota."


@pytest.mark.parametrize(
    ("body", "fault", "retryable"),
    [
        (b'{"status":"failed","error":{"code":"server_error","message":"x"},"output":[]}', "server", True),
        (b'{"status":"failed","error":{"code":"rate_limit_exceeded","message":"x"}}', "rate_limit", True),
        (b'{"status":"failed","error":{"code":"invalid_prompt","message":"x"}}', "content_filter", False),
        (b'{"status":"failed","error":{"code":"image_too_small","message":"x"}}', "bad_request", False),
        (b'{"status":"failed","error":{"code":"context_length_exceeded","message":"x"}}', "context_length", False),
        (b'{"status":"failed","error":null}', "server", True),
        (b'{"status":"in_progress","output":[]}', "malformed", True),
        (b"{}", "malformed", True),
        (b'{"a":' + b"[" * 100_000, "malformed", True),
    ],
)
async def test_failed_response_with_status_200(
    adapters: dict[str, Adapter], fake: FakeProvider, body: bytes, fault: str, retryable: bool
) -> None:
    fake.will(Body(body, content_type="application/json"))

    error = await failure(adapters[RESPONSES], "fake")

    assert (error.details[0]["fault"], not error.non_retryable) == (fault, retryable)


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b'{"error":{"code":429,"message":"slow down"}}', "rate_limit"),
        (b'{"error":{"code":400,"message":"maximum context length is 10"}}', "context_length"),
        (b'{"error":"overloaded"}', "server"),
        (b'{"choices":[]}', "malformed"),
        (b'{"choices":[{"message":{"content":"x"},"finish_reason":"abort"}]}', "server"),
    ],
)
async def test_failed_chat_with_status_200(
    adapters: dict[str, Adapter], fake: FakeProvider, body: bytes, fault: str
) -> None:
    fake.will(Body(body, content_type="application/json"))

    error = await failure(adapters[CHAT], "fake")

    assert error.details[0]["fault"] == fault


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b'{"type":"error","error":{"type":"overloaded_error","message":"x"}}', "overloaded"),
        (b'{"content":[{"type":"text","text":"cut"}]}', "malformed"),  # no stop reason
        (b'{"stop_reason":"end_turn"}', "malformed"),
    ],
)
async def test_failed_message_with_status_200(
    adapters: dict[str, Adapter], fake: FakeProvider, body: bytes, fault: str
) -> None:
    fake.will(Body(body, content_type="application/json"))

    error = await failure(adapters[MESSAGES], "fake")

    assert error.details[0]["fault"] == fault


async def test_full_context_window_is_told_from_a_long_answer(adapters: dict[str, Adapter], fake: FakeProvider) -> None:
    fake.will(Answer(text="part", stop="window"))

    error = await failure(adapters[MESSAGES], "fake")

    assert error.type == FailureType.CONTEXT_TOO_LONG


async def test_proxy_settings_do_not_catch_this_machine(
    fake: FakeProvider, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)

    completion = await ADAPTERS[protocol](fake.url).complete(prompt(model="fake-text"))

    assert completion.message.text == "All done."
