"""Streamed answers over real HTTP: the same completions and the same faults as without a stream."""

import asyncio
import json
from dataclasses import replace
from decimal import Decimal

import pytest
from temporalio.exceptions import ApplicationError

from mandate.activities.failures import BILLED_FAULTS
from mandate.activities.providers.base import Completion, Prompt
from mandate.activities.transcript.conversation import Conversation
from mandate.workflows.contracts.base import JsonObject
from tests.support.fake_provider.behaviours import (
    CHAT,
    MESSAGES,
    NAMED,
    RESPONSES,
    Answer,
    Body,
    Broken,
    Call,
    Problem,
)
from tests.support.fake_provider.server import FakeProvider
from tests.support.prompts import ADAPTERS, KEY, QUESTION, Adapter, prompt, results

ALL = (RESPONSES, CHAT, MESSAGES)
ANSWERS = sorted(name for name, behaviour in NAMED.items() if isinstance(behaviour, Answer))
ANSWERS = [name for name in ANSWERS if name not in ("slow", "window")]
FAULTS = sorted(name for name, behaviour in NAMED.items() if isinstance(behaviour, Problem | Body))
FIELDS = {RESPONSES: {"stream"}, CHAT: {"stream", "stream_options"}, MESSAGES: {"stream"}}


@pytest.fixture(params=ALL)
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def adapter(adapters: dict[str, Adapter], protocol: str, fake: FakeProvider) -> Adapter:
    return adapters[protocol]


async def stream(adapter: Adapter, asked: Prompt) -> tuple[Completion, list[str]]:
    pieces: list[str] = []
    return await adapter.complete(replace(asked, on_text=pieces.append)), pieces


async def failure(adapter: Adapter, asked: Prompt) -> tuple[ApplicationError, list[str]]:
    pieces: list[str] = []
    with pytest.raises(ApplicationError) as caught:
        await adapter.complete(replace(asked, on_text=pieces.append))
    return caught.value, pieces


def comparable(completion: Completion) -> tuple[Completion, object]:
    native = completion.message.native
    message = completion.message.model_copy(update={"native": None})
    return replace(completion, message=message), json.loads(f"[{native}]") if native else None


@pytest.mark.parametrize(
    ("protocol", "name"),
    [
        (protocol, name)
        for protocol in ALL
        for name in ANSWERS
        # Arguments that are cut have no form without a stream there.
        if (protocol, name) != (MESSAGES, "truncated-calls")
    ],
)
async def test_answer_is_the_same_in_a_stream(
    adapters: dict[str, Adapter], fake: FakeProvider, protocol: str, name: str
) -> None:
    adapter = adapters[protocol]
    plain = await adapter.complete(prompt(model=f"fake-{name}"))
    fake.answered = 0  # its ids are numbers of answers
    streamed, pieces = await stream(adapter, prompt(model=f"fake-{name}"))

    assert comparable(streamed) == comparable(plain)
    assert "".join(pieces) == plain.message.text
    assert len(pieces) == (0 if not plain.message.text else 1 if name == "plain" else 3)


async def test_request_asks_for_a_stream_only_where_somebody_reads_along(
    adapter: Adapter, fake: FakeProvider, protocol: str
) -> None:
    await adapter.complete(prompt(model="fake-text"))
    await stream(adapter, prompt(model="fake-text"))

    plain, streamed = fake.requests
    added = {name: value for name, value in streamed.json.items() if name not in plain.json}
    options = {"stream_options": {"include_usage": True}} if protocol == CHAT else {}
    assert plain.body == adapter.request(prompt(model="fake-text"))
    assert added == {"stream": True, **options}
    assert streamed.body.endswith(plain.body[1:])
    differing = {name for name, value in plain.headers.items() if streamed.headers.get(name) != value}
    assert (plain.headers["accept"], differing) == ("application/json", {"accept", "content-length"})


async def test_streamed_answer_goes_round(adapter: Adapter, fake: FakeProvider) -> None:
    """The vendor takes back what was folded."""
    call = Call("note", '{"text": "\u00fc \U0001f600"}')
    fake.will(Answer(text="Let me \U0001f600 see.", calls=(call, call), unknown_item=False), Answer(text="Done."))

    first, pieces = await stream(adapter, prompt())
    conversation = Conversation((QUESTION, first.message, results(first.message)))
    last, _ = await stream(adapter, prompt(conversation))

    assert "".join(pieces) == first.message.text == "Let me \U0001f600 see."
    assert first.message.native
    assert last.message.text == "Done."


@pytest.mark.parametrize("name", FAULTS)
async def test_fault_is_the_same_in_a_stream(adapter: Adapter, name: str) -> None:
    asked = prompt(model=f"fake-{name}")
    with pytest.raises(ApplicationError) as plain:
        await adapter.complete(asked)

    streamed, pieces = await failure(adapter, asked)

    assert (streamed.message, streamed.details, pieces) == (plain.value.message, plain.value.details, [])
    assert (streamed.type, streamed.non_retryable) == (plain.value.type, plain.value.non_retryable)
    assert streamed.next_retry_delay == plain.value.next_retry_delay


@pytest.mark.parametrize("name", ["drop", "cut", "half-event", "early-end"])
async def test_stream_without_its_last_event_is_a_dropped_connection(adapter: Adapter, name: str) -> None:
    with pytest.raises(ApplicationError) as plain:
        await adapter.complete(prompt(model="fake-cut"))

    streamed, pieces = await failure(adapter, prompt(model=f"fake-{name}"))

    assert streamed.details == plain.value.details == ({"fault": "connection", "status": None, "may_be_billed": True},)
    assert (streamed.type, streamed.non_retryable) == (plain.value.type, False)
    assert "gave no whole answer at 'http://127.0.0.1:" in streamed.message
    assert pieces == ([] if name == "drop" else ["The answe", "r goes on"])


async def test_gap_that_is_too_long_is_a_timeout(adapter: Adapter) -> None:
    error, pieces = await failure(adapter, prompt(model="fake-stall", timeout=0.3))

    assert error.details == ({"fault": "timeout", "status": None, "may_be_billed": True},)
    assert error.message.endswith("gave no whole answer within 0.3 s")
    assert pieces == ["The answe", "r goes on"]


async def test_error_in_the_middle_is_that_of_its_type(adapter: Adapter) -> None:
    error, pieces = await failure(adapter, prompt(model="fake-late-overload"))

    assert error.details == ({"fault": "overloaded", "status": 200, "may_be_billed": True},)
    assert error.message.endswith("failed (overloaded_error): Overloaded")
    assert not error.non_retryable
    assert "overloaded" not in BILLED_FAULTS
    assert pieces == ["The answe", "r goes on"]


async def test_key_that_a_server_repeats_in_a_stream_is_not_shown(adapter: Adapter, fake: FakeProvider) -> None:
    told = Problem(0, "odd", f"Bad key {KEY}.")
    fake.will(
        Broken("error", problem=told),
        Body(f"data: {KEY}\n\n".encode(), content_type="text/event-stream"),
        Body(f"<p>{KEY}</p>".encode(), content_type="text/event-stream"),
    )

    for _ in range(3):
        error, _ = await failure(adapter, prompt())

        assert KEY[:8] not in f"{error} {error.details}"
        assert "[key]" in error.message


@pytest.mark.parametrize("unknown", [(), ("stream_options",), ("stream",), ("stream_options", "stream")])
async def test_refused_fields_are_left_out_and_remembered(
    fake: FakeProvider, protocol: str, unknown: tuple[str, ...]
) -> None:
    fake.unknown = unknown
    adapter = ADAPTERS[protocol](fake.url)

    answers = [await stream(adapter, prompt(model="fake-text")) for _ in range(2)]
    await adapter.close()

    kept = FIELDS[protocol] - {*unknown, *(("stream_options",) if "stream" in unknown else ())}
    refused = len(FIELDS[protocol] & set(unknown))
    sent = [request.json.keys() & FIELDS[protocol] for request in fake.requests]
    assert sent[refused:] == [kept, kept]
    assert len(sent) == refused + 2
    for completion, pieces in answers:
        assert completion.message.text == "".join(pieces) == "All done."
        assert (len(pieces) == 1) is ("stream" not in kept)
        is_untold = protocol == CHAT and kept == {"stream"}
        assert completion.usage.input_tokens == (0 if is_untold else 100)


async def test_cancellation_drops_a_stream_at_once(adapter: Adapter, fake: FakeProvider) -> None:
    begun = asyncio.Event()
    asked = replace(prompt(model="fake-stall", timeout=60), on_text=lambda _: begun.set())
    call = asyncio.create_task(adapter.complete(asked))
    await asyncio.wait_for(begun.wait(), 10)

    call.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(call, 10)
    assert (await stream(adapter, prompt(model="fake-text")))[0].message.text == "All done."


@pytest.mark.parametrize(("protocol", "model"), [(RESPONSES, "gpt-5.5"), (MESSAGES, "claude-sonnet-5-5")])
async def test_streamed_answer_costs_the_same(
    adapters: dict[str, Adapter], fake: FakeProvider, protocol: str, model: str
) -> None:
    fake.will(Answer(text="Done."), Answer(text="Done."))

    plain = await adapters[protocol].complete(prompt(model=model))
    streamed, _ = await stream(adapters[protocol], prompt(model=model))

    assert streamed.usage == plain.usage
    assert streamed.usage.cost_usd > Decimal(0)


async def test_cached_tokens_are_told_in_a_stream(adapter: Adapter, fake: FakeProvider) -> None:
    fake.will(Answer(text="Done.", tokens=(100, 90, 5)))

    usage = (await stream(adapter, prompt()))[0].usage

    assert (usage.input_tokens, usage.cached_input_tokens, usage.output_tokens) == (100, 90, 5)


@pytest.mark.parametrize("name", ["stream", "stream_options", "Stream"])
async def test_agent_files_may_not_ask_for_streams(adapter: Adapter, fake: FakeProvider, name: str) -> None:
    params: JsonObject = {name: True}

    error, _ = await failure(adapter, prompt(params=params))

    assert f"{name} is not an agent file's to set: the runtime reads whole answers" in error.message
    assert fake.requests == []
