"""Streamed answers are those of the same document without a stream, however their bytes are cut."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from temporalio.exceptions import ApplicationError

from mandate.activities.providers import response_limits
from mandate.activities.providers.anthropic_stream import fold_messages
from mandate.activities.providers.base import Completion
from mandate.activities.providers.errors import Peer
from mandate.activities.providers.openai_chat_stream import fold_chat
from mandate.activities.providers.openai_responses_stream import fold_responses
from mandate.activities.providers.rawjson import Raw
from mandate.activities.providers.response_limits import EVENTS, MAX_BYTES, AnswerTooLarge, Room
from mandate.activities.providers.streams import STREAM, Fold, Listener, StreamEnded, Streams
from mandate.workflows.contracts.model import Finish
from mandate.workflows.contracts.transcript import AssistantMessage
from tests.support.examples import examples
from tests.support.fake_provider.behaviours import CHAT, MESSAGES, RESPONSES, Answer, Call, Problem, Stop
from tests.support.fake_provider.bodies import render, render_events
from tests.support.fake_provider.streams import write_error, write_event, write_events
from tests.support.prompts import ADAPTERS, prompt

ALL = (RESPONSES, CHAT, MESSAGES)
ADAPTER = {protocol: make("http://127.0.0.1:1") for protocol, make in ADAPTERS.items()}
FOLDS: dict[str, Fold] = {RESPONSES: fold_responses, CHAT: fold_chat, MESSAGES: fold_messages}
PEER = Peer("x", "m", "http://127.0.0.1:1", 1, secrets=("sk-secret-0123",))
ONE = Answer(text="Hm. So.", calls=(Call("note", '{"text": "a"}', id="c1"),))


class Body(httpx2.AsyncByteStream):
    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk


class Sender:
    """Answers with these, in this order, and keeps what it was sent."""

    def __init__(self, *answers: httpx2.Response) -> None:
        self._answers = list(answers)
        self.sent: list[tuple[bytes, bool]] = []

    async def __call__(self, body: bytes, *, is_streamed: bool) -> httpx2.Response:
        self.sent.append((body, is_streamed))
        answer = self._answers.pop(0)
        if not is_streamed or not answer.is_success:
            await answer.aread()
        return answer


def reply(*chunks: bytes, status: int = 200, media: str = EVENTS) -> httpx2.Response:
    return httpx2.Response(status, headers={"content-type": media}, stream=Body(chunks))


async def stream(protocol: str, chunks: Sequence[bytes], media: str = EVENTS) -> tuple[Completion, list[str]]:
    pieces: list[str] = []
    listener = Listener(pieces.append)
    raw = await Streams(FOLDS[protocol], STREAM).ask(PEER, b"{}", Sender(reply(*chunks, media=media)), listener)
    return listener.finish(ADAPTER[protocol].read_answer(prompt(), raw, PEER)), pieces


async def failure(protocol: str, *chunks: bytes, media: str = EVENTS) -> ApplicationError:
    with pytest.raises(ApplicationError) as caught:
        await stream(protocol, chunks, media)
    return caught.value


def read(protocol: str, body: bytes | str) -> Completion:
    text = body if isinstance(body, str) else response_limits.decode(body)
    return ADAPTER[protocol].read_answer(prompt(), Raw.read(text), PEER)


def comparable(completion: Completion) -> tuple[Completion, object]:
    """The completion, and its native items as values: how they are written is the server's choice."""
    native = completion.message.native
    message = completion.message.model_copy(update={"native": None})
    return replace(completion, message=message), json.loads(f"[{native}]") if native else None


words = st.sampled_from(
    ["", " ", "Hm.", "So. \n", "Osl\u00f3 \U0001f600\U0001f480", "half \ud83d", "\udc80", "x" * 200]
)
texts = st.one_of(words, st.lists(words, max_size=4).map("".join), st.text(max_size=30))
arguments = st.one_of(
    st.sampled_from(["{}", '{"n": NaN}', '{"n": 1e999}', '{"a": 1, "a": 2}', "[1]", '{"city": "R\u00f6 \U0001f480"}']),
    texts.map(lambda text: json.dumps({"text": text})),
)
cut_arguments = st.sampled_from(["", '{"city": "R\u00f6', "null", "x"])
names = st.sampled_from(["note", "get_weather", "no.such:tool"])
tokens = st.one_of(st.none(), st.tuples(st.integers(10, 900), st.integers(0, 10), st.integers(0, 900)))
stops: st.SearchStrategy[Stop] = st.sampled_from(["complete", "complete", "truncated", "filtered", "refused", "paused"])


@st.composite
def answers(draw: st.DrawFn, protocol: str) -> Answer:
    # Messages carries arguments as JSON, so that cut ones have no form without a stream.
    written = arguments if protocol == MESSAGES else st.one_of(arguments, cut_arguments)
    calls = st.builds(Call, names, written, st.sampled_from([None, "call_1", "functions.x:0"]))
    return Answer(
        text=draw(texts),
        calls=tuple(draw(st.lists(calls, max_size=3))),
        reasoning=draw(st.booleans()),
        stop=draw(stops),
        usage=draw(st.booleans()),
        unknown_item=draw(st.booleans()),
        tokens=draw(tokens),
        pieces=draw(st.sampled_from([1, 2, 3, 7, 50])),
    )


def cut(content: bytes, places: Iterable[int]) -> list[bytes]:
    ends = sorted({0, *(place for place in places if place < len(content)), len(content)})
    return [content[begin:end] for begin, end in itertools.pairwise(ends)]


@pytest.mark.parametrize("protocol", ALL)
@given(data=st.data())
@examples(60, suppress_health_check=[HealthCheck.too_slow])
async def test_any_answer_is_the_same_in_a_stream(protocol: str, data: st.DataObject) -> None:
    answer = data.draw(answers(protocol))
    content = b"".join(render_events(protocol, "fake", 1, answer, tells_usage=True))
    content = content.replace(b"\n", data.draw(st.sampled_from([b"\n", b"\r\n", b"\r"])))
    places = data.draw(st.one_of(st.just(range(len(content))), st.lists(st.integers(0, len(content)), max_size=20)))

    streamed, pieces = await stream(protocol, cut(content, places))

    assert comparable(streamed) == comparable(read(protocol, render(protocol, "fake", 1, answer)))
    assert "".join(pieces) == streamed.message.text
    assert all(pieces)
    "".join(pieces).encode()


odd = st.sampled_from([None, "", 5, 1.5, True, ["x"], {"a": 1}, [], {}, "half \ud83d", -1, 1e300, [None], [{}], [[1]]])


@pytest.mark.parametrize("protocol", ALL)
@given(data=st.data())
@examples(80, suppress_health_check=[HealthCheck.too_slow])
async def test_whatever_a_server_streams_is_an_answer_or_a_failure(protocol: str, data: st.DataObject) -> None:
    events = render_events(protocol, "fake", 1, data.draw(answers(protocol)), tells_usage=True)
    for _ in range(data.draw(st.integers(1, 4))):
        index = data.draw(st.integers(0, len(events) - 1))
        match data.draw(st.sampled_from(["change", "change", "change", "drop", "repeat", "last", "nameless"])):
            case "change" if b"[DONE]" not in events[index]:
                events[index] = _change(data, events[index])
            case "drop" if len(events) > 1:
                del events[index]
            case "repeat":
                events.insert(index, events[index])
            case "last":
                events.append(events.pop(index))
            case "nameless":
                events = [event[event.index(b"data: ") :] for event in events]

    try:
        message = (await stream(protocol, events))[0].message
    except StreamEnded:
        return
    except ApplicationError as error:
        failure = error
    else:
        assert AssistantMessage.model_validate_json(message.model_dump_json()) == message
        return
    assert failure.message.startswith("'x:m' ")


def _change(data: st.DataObject, event: bytes) -> bytes:
    name, _, written = event.decode().partition("data: ")
    body: Any = json.loads(written)
    place: Any = body
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not place[key] or not isinstance(place[key], dict | list) or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(odd)
    return f"{name}data: {json.dumps(body)}\n\n".encode()


@pytest.mark.parametrize("protocol", ALL)
async def test_every_beginning_of_a_stream_is_no_answer(protocol: str) -> None:
    """Chat's answer is whole once it has the reason for its end; `[DONE]` and usage may be left out."""
    events = render_events(protocol, "fake", 1, ONE, tells_usage=True)
    content = b"".join(events)
    end = content.index(b'"finish_reason": "tool_calls"') if protocol == CHAT else len(content) - len(events[-1])

    for place in range(0, end, 5):
        with pytest.raises(StreamEnded):
            await stream(protocol, [content[:place]])


async def test_chat_may_end_without_its_mark() -> None:
    *events, _ = render_events(CHAT, "fake", 1, ONE, tells_usage=False)

    completion, _ = await stream(CHAT, events)

    assert (completion.message.text, completion.finish) == ("Hm. So.", Finish.COMPLETE)
    assert completion.usage.unpriced_calls == 1


@pytest.mark.parametrize("protocol", ALL)
async def test_what_follows_the_last_event_is_not_missed(protocol: str) -> None:
    events = render_events(protocol, "fake", 1, ONE, tells_usage=True)

    completion, _ = await stream(protocol, [*events, b"data: [DONE]\n\n", b"what"])

    assert completion.message.text == "Hm. So."


@pytest.mark.parametrize("protocol", ALL)
async def test_server_that_does_not_hang_up_is_not_waited_for(protocol: str) -> None:
    class Lingering(Body):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for chunk in super().__aiter__():
                yield chunk
            await asyncio.sleep(30)

    events = render_events(protocol, "fake", 1, ONE, tells_usage=True)
    response = httpx2.Response(200, headers={"content-type": EVENTS}, stream=Lingering(events))

    async with asyncio.timeout(10):
        raw = await Streams(FOLDS[protocol], STREAM).ask(PEER, b"{}", Sender(response), Listener(print))

    assert ADAPTER[protocol].read_answer(prompt(), raw, PEER).message.text == "Hm. So."
    assert response.is_closed


@pytest.mark.parametrize("protocol", [RESPONSES, MESSAGES])
async def test_names_of_events_may_be_left_out(protocol: str) -> None:
    events = render_events(protocol, "fake", 1, ONE, tells_usage=True)

    completion, pieces = await stream(protocol, [event[event.index(b"data: ") :] for event in events])

    assert completion == (await stream(protocol, events))[0]
    assert pieces == ["Hm.", " So", "."]


async def test_items_that_the_last_response_leaves_out_are_those_that_came() -> None:
    events = render_events(RESPONSES, "fake", 1, ONE, tells_usage=True)
    last = json.loads(events[-1].partition(b"data: ")[2])
    last["response"]["output"] = []

    completion, _ = await stream(RESPONSES, [*events[:-1], write_event(last, last["type"])])

    assert completion == read(RESPONSES, render(RESPONSES, "fake", 1, ONE))


async def test_what_a_filter_withholds_is_not_put_back() -> None:
    events = render_events(RESPONSES, "fake", 1, replace(ONE, stop="filtered"), tells_usage=True)
    last = json.loads(events[-1].partition(b"data: ")[2])
    last["response"]["output"] = []

    completion, pieces = await stream(RESPONSES, [*events[:-1], write_event(last, last["type"])])

    assert (completion.finish, completion.message.parts) == (Finish.REFUSED, ())
    assert pieces == ["Hm.", " So", "."]


def chunk(**delta: object) -> bytes:
    return write_event({"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})


END = write_event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})


def call(arguments: str, index: int | None = 0, call_id: str | None = None, name: str | None = None) -> dict[str, Any]:
    return {"index": index, "id": call_id, "function": {"name": name, "arguments": arguments}}


@pytest.mark.parametrize(
    ("deltas", "expected"),
    [
        ([call("", 0, "a", "note"), call("{", 0), call("}", 0)], [("a", "note", "{}")]),
        # Id and name are repeated.
        ([call("{", 0, "a", "note"), call("}", 0, "a", "note")], [("a", "note", "{}")]),
        ([call("{", 0, "a", "note"), call("}", 0, "", "")], [("a", "note", "{}")]),
        # Calls in turns.
        (
            [call("{", 0, "a", "note"), call("[", 1, "b", "x"), call("}", 0), call("]", 1)],
            [("a", "note", "{}"), ("b", "x", "[]")],
        ),
        # One index for all, and none.
        ([call("{}", 0, "a", "note"), call("[]", 0, "b", "x")], [("a", "note", "{}"), ("b", "x", "[]")]),
        ([call("{}", None, "a", "note"), call("[]", None, "b", "x")], [("a", "note", "{}"), ("b", "x", "[]")]),
        ([call("{", None, "a", "note"), call("}", None)], [("a", "note", "{}")]),
        # A name in pieces.
        ([call("", 0, "a", "get_"), call("{}", 0, None, "weather")], [("a", "get_weather", "{}")]),
        ([call("", 0, "a", "note")], [("a", "note", "")]),
    ],
)
async def test_calls_of_chat_are_told_apart(deltas: list[dict[str, Any]], expected: list[tuple[str, str, str]]) -> None:
    completion, pieces = await stream(CHAT, [*(chunk(tool_calls=[delta]) for delta in deltas), END])

    calls = [(each.call_id, each.tool, each.arguments) for each in completion.message.calls]
    assert (calls, pieces) == (expected, [])


async def test_parts_of_mistral_are_joined() -> None:
    thinking = [{"type": "thinking", "thinking": [{"type": "text", "text": text}]} for text in ("a", "b")]
    deltas = [*([part] for part in thinking), [{"type": "text", "text": "So"}], " it is."]

    completion, pieces = await stream(CHAT, [*(chunk(content=content) for content in deltas), END])

    content = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"type": "text", "text": "So it is."},
    ]
    body = {"model": "m", "choices": [{"message": {"content": content}, "finish_reason": "stop"}]}
    assert completion == read(CHAT, json.dumps(body))
    assert pieces == ["So", " it is."]


async def test_members_that_chat_adds_are_joined() -> None:
    details = [
        {"type": "reasoning.text", "text": "I ", "format": "v1", "index": 0},
        {"type": "reasoning.text", "text": "think", "format": "v1", "index": 0},
        {"type": "reasoning.text", "signature": "SIG", "format": "v1", "index": 0},
    ]

    completion, _ = await stream(
        CHAT, [*(chunk(reasoning_details=[each], reasoning="x") for each in details), chunk(content="So."), END]
    )

    whole = {"type": "reasoning.text", "text": "I think", "format": "v1", "index": 0, "signature": "SIG"}
    assert json.loads(completion.message.native or "") == {
        "role": "assistant",
        "content": "So.",
        "reasoning_details": [whole],
        "reasoning": "xxx",
    }


async def test_cut_call_of_messages_is_kept_as_it_is() -> None:
    document: dict[str, Any] = {
        "content": [{"type": "tool_use", "id": "t", "name": "note", "input": "cut"}],
        "stop_reason": "max_tokens",
    }

    events = write_events(MESSAGES, document, inputs={"cut": '{"city": "Ro'})
    completion, _ = await stream(MESSAGES, events)

    assert [call.arguments for call in completion.message.calls] == ['{"city": "Ro']
    assert (completion.finish, completion.message.native) == (Finish.TRUNCATED, None)


async def test_citations_of_messages_are_kept() -> None:
    events = render_events(MESSAGES, "fake", 1, Answer(text="So.", reasoning=False), tells_usage=True)
    cited = {"type": "citations_delta", "citation": {"type": "page", "cited_text": "x"}}
    delta = write_event({"type": "content_block_delta", "index": 0, "delta": cited})
    place = next(index for index, event in enumerate(events) if b"content_block_stop" in event)

    completion, _ = await stream(MESSAGES, [*events[:place], delta, delta, *events[place:]])

    block = {"type": "text", "text": "So.", "citations": [cited["citation"]] * 2}
    assert json.loads(completion.message.native or "") == block


async def test_usage_of_all_passes_comes_at_the_end() -> None:
    document = json.loads(render(MESSAGES, "fake", 1, Answer(text="So.")))
    passes = [{"type": "message", "input_tokens": 5, "output_tokens": 6}] * 2
    document["usage"]["iterations"] = passes

    completion, _ = await stream(MESSAGES, write_events(MESSAGES, document))

    assert completion == replace(read(MESSAGES, json.dumps(document)), message=completion.message)
    assert (completion.usage.input_tokens, completion.usage.output_tokens) == (10, 12)


async def test_count_of_the_beginning_of_a_message_is_none_of_all_of_it() -> None:
    events = render_events(MESSAGES, "fake", 1, Answer(text="So."), tells_usage=True)
    last = json.loads(events[-2].partition(b"data: ")[2])
    del last["usage"]

    completion, _ = await stream(MESSAGES, [*events[:-2], write_event(last, last["type"]), events[-1]])

    assert (completion.usage.output_tokens, completion.usage.unpriced_calls) == (0, 1)


@pytest.mark.parametrize("protocol", ALL)
@pytest.mark.parametrize(
    ("code", "fault", "retryable"),
    [
        ("overloaded_error", "overloaded", True),
        ("rate_limit_error", "rate_limit", True),
        ("rate_limit_exceeded", "rate_limit", True),
        ("server_error", "server", True),
        ("api_error", "server", True),
        ("brand_new", "server", True),
        ("invalid_request_error", "bad_request", False),
        ("authentication_error", "configuration", False),
        ("not_found_error", "configuration", False),
        ("billing_error", "quota", False),
        ("insufficient_quota", "quota", False),
        ("invalid_prompt", "content_filter", False),
        ("context_length_exceeded", "context_length", False),
        ("image_too_small", "bad_request", False),
    ],
)
async def test_error_in_a_stream_is_that_of_its_type(protocol: str, code: str, fault: str, retryable: bool) -> None:
    events = render_events(protocol, "fake", 1, ONE, tells_usage=True)
    error = write_error(protocol, Problem(0, code, "Why sk-secret-0123"))

    first = await failure(protocol, error)
    late = await failure(protocol, *events[:-3], error)

    for each in (first, late):
        assert each.message == f"'x:m' failed ({code}): Why [key]"
        assert (each.details[0]["fault"], each.details[0]["status"]) == (fault, 200)
        assert each.non_retryable is not retryable
    assert ("may_be_billed" in first.details[0], late.details[0].get("may_be_billed")) == (False, True)


@pytest.mark.parametrize(
    ("error", "fault", "status", "delay"),
    [
        ({"code": 429, "message": "Slow down.", "retry_after": 7}, "rate_limit", 429, 7),
        ({"code": 502, "message": "Provider disconnected"}, "server", 502, 1),
        ({"code": "429", "message": "x", "details": [{"retryDelay": "36s"}]}, "rate_limit", 429, 36),
        ("Something broke.", "server", 200, 1),
    ],
)
async def test_error_of_a_stream_with_its_status_and_wait(error: object, fault: str, status: int, delay: int) -> None:
    caught = await failure(CHAT, write_event({"error": error, "choices": []}))

    assert (caught.details[0]["fault"], caught.details[0]["status"]) == (fault, status)
    assert caught.next_retry_delay is not None
    assert caught.next_retry_delay.total_seconds() == delay


async def test_failed_response_is_as_without_a_stream() -> None:
    response = {"status": "failed", "error": {"code": "rate_limit_exceeded", "message": "Slow down."}, "output": []}

    caught = await failure(RESPONSES, write_event({"type": "response.failed", "response": response}))
    with pytest.raises(ApplicationError) as plain:
        read(RESPONSES, json.dumps(response))

    assert (caught.message, caught.details) == (plain.value.message, plain.value.details)
    assert caught.details[0] == {"fault": "rate_limit", "status": 200}


@pytest.mark.parametrize("protocol", ALL)
@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"data: {\n\n", "Expecting property name"),
        (b"data: [1]\n\n", "it has an event that is no JSON object"),
        (b"data: " + b'{"a":' * 100_000 + b"\n\n", "it is nested too deeply"),
        (b'data: {"error": sk-secret-0123}\n\n', "Expecting value"),
    ],
)
async def test_what_is_no_event_of_the_protocol_is_malformed(protocol: str, content: bytes, why: str) -> None:
    caught = await failure(protocol, content)

    assert caught.details == ({"fault": "malformed", "status": 200, "may_be_billed": True},)
    assert caught.message.startswith(f"'x:m' answered 200 with text/event-stream, not an answer: {why}")
    assert "secret" not in caught.message


async def test_nested_deltas_do_not_end_the_worker() -> None:
    deep: dict[str, object] = {}
    for _ in range(700):
        deep = {"a": deep}

    caught = await failure(CHAT, chunk(extra=deep), *([chunk(extra=deep)] * 2), END)

    assert caught.details[0]["fault"] == "malformed"


@pytest.mark.parametrize("protocol", ALL)
@pytest.mark.parametrize("media", ["application/json", EVENTS, "text/plain", ""])
async def test_document_in_place_of_a_stream_is_told_at_once(protocol: str, media: str) -> None:
    document = render(protocol, "fake", 1, ONE)

    completion, pieces = await stream(protocol, cut(document, range(len(document))), media)

    assert (completion, pieces) == (read(protocol, document), ["Hm. So."])


@pytest.mark.parametrize("protocol", ALL)
@pytest.mark.parametrize("media", ["text/html", EVENTS])
async def test_page_in_place_of_a_stream_is_malformed(protocol: str, media: str) -> None:
    caught = await failure(protocol, b"<html>", b"sk-secret-0123</html>", media=media)

    assert caught.details == ({"fault": "malformed", "status": 200, "may_be_billed": True},)
    assert caught.message == (
        f"'x:m' answered 200 with {media}, not an answer: Expecting value: line 1 column 1 (char 0); "
        "'<html>[key]</html>'"
    )


FULL, PLAIN = b'"stream":true,"stream_options":{},', b""
NO_OPTIONS = b'{"error":{"message":"Unknown parameter: \'stream_options\'."}}'
NO_STREAM = b'{"error":{"message":"This model does not support streaming."}}'
BODY = b'{"model":"m"}'


def refusal(content: bytes, status: int = 400) -> httpx2.Response:
    return reply(content, status=status, media="application/json")


def asked(sender: Sender) -> list[bytes]:
    return [body.removeprefix(b"{").removesuffix(BODY[1:]) for body, _ in sender.sent]


@pytest.mark.parametrize(
    ("refusals", "forms"),
    [
        ([], [FULL]),
        ([NO_OPTIONS], [FULL, STREAM]),
        ([NO_STREAM], [FULL, PLAIN]),
        ([NO_OPTIONS, NO_STREAM], [FULL, STREAM, PLAIN]),
        ([b"'stream_options' is only allowed with 'stream'", NO_STREAM], [FULL, STREAM, PLAIN]),
    ],
)
async def test_fields_that_a_server_refuses_are_left_out_from_then_on(
    refusals: list[bytes], forms: list[bytes]
) -> None:
    streams = Streams(fold_chat, FULL, STREAM)
    events, document = render_events(CHAT, "m", 1, ONE, tells_usage=False), render(CHAT, "m", 1, ONE)
    answers = [reply(document, media="application/json") if forms[-1] == PLAIN else reply(*events) for _ in range(2)]
    sender = Sender(*map(refusal, refusals), *answers)

    for _ in range(2):
        await streams.ask(PEER, BODY, sender, Listener(print))
    other = Sender(reply(*events))
    await streams.ask(replace(PEER, model="other"), BODY, other, Listener(print))

    assert asked(sender) == [*forms, forms[-1]]
    assert sender.sent[-1] == (b"{" + forms[-1] + BODY[1:], forms[-1] != PLAIN)
    assert asked(other) == [FULL]


@pytest.mark.parametrize(
    ("content", "status"),
    [(b"Unknown parameter: 'tools'", 400), (b"upstream", 400), (NO_STREAM, 500), (NO_STREAM, 401)],
)
async def test_other_refusals_are_final(content: bytes, status: int) -> None:
    sender = Sender(refusal(content, status))

    with pytest.raises(ApplicationError) as caught:
        await Streams(fold_chat, FULL, STREAM).ask(PEER, BODY, sender, Listener(print))

    assert caught.value.details[0]["status"] == status
    assert len(sender.sent) == 1


async def test_what_is_refused_without_the_fields_too_is_not_remembered() -> None:
    streams = Streams(fold_messages, STREAM)
    sender = Sender(
        refusal(NO_STREAM), refusal(b"no such model"), reply(*render_events(MESSAGES, "m", 1, ONE, tells_usage=True))
    )

    with pytest.raises(ApplicationError, match="no such model"):
        await streams.ask(PEER, BODY, sender, Listener(print))
    await streams.ask(PEER, BODY, sender, Listener(print))

    assert asked(sender) == [STREAM, PLAIN, STREAM]


@pytest.mark.parametrize("protocol", ALL)
async def test_listener_that_fails_breaks_no_call(protocol: str) -> None:
    heard: list[str] = []

    def fail(piece: str) -> None:
        heard.append(piece)
        raise RuntimeError("no room")

    listener = Listener(fail)
    events = render_events(protocol, "fake", 1, ONE, tells_usage=True)
    raw = await Streams(FOLDS[protocol], STREAM).ask(PEER, b"{}", Sender(reply(*events)), listener)
    completion = listener.finish(ADAPTER[protocol].read_answer(prompt(), raw, PEER))

    assert (completion.message.text, heard) == ("Hm. So.", ["Hm."])


def test_listener_is_told_whole_characters() -> None:
    pieces: list[str] = []
    listener = Listener(pieces.append)

    for piece in ("a\ud83d", "\udc80", "\ud83d", "b", "\udc80", "c"):
        listener.tell(piece)

    assert pieces == ["a", "\U0001f480", "?b", "\ufffd", "c"]


async def test_what_is_kept_of_a_stream_has_the_limit_of_a_document() -> None:
    small = chunk(content="x" * 100_000)

    with pytest.raises(AnswerTooLarge):
        await stream(CHAT, [small] * 84)
    with pytest.raises(AnswerTooLarge):
        await stream(CHAT, [chunk(tool_calls=[call("x" * 100_000)])] * 84)
    with pytest.raises(AnswerTooLarge):
        await stream(RESPONSES, [b"data: " + b"x" * 1_000_000] * 9)
    with pytest.raises(AnswerTooLarge):
        await stream(MESSAGES, [b" " * 1_000_000] * 9, "application/json")
    with pytest.raises(AnswerTooLarge):
        await stream(MESSAGES, [b"{", *[b" " * 1_000_000] * 9], "application/json")


@pytest.mark.parametrize(
    "delta",
    [
        lambda number: {"tool_calls": [{"index": number}]},
        lambda number: {"extra": [{"index": number}]},
        lambda number: {"tool_calls": [{"index": 0, "function": {"name": f"n{number % 2}"}}]},
        lambda number: {"content": [{"type": "thinking", "thinking": [number]}]},
        lambda number: {"content": "x" if number else [{"type": "other"}]},
    ],
)
async def test_time_for_a_stream_grows_with_its_length_only(delta: Callable[[int], dict[str, object]]) -> None:
    events = [chunk(**delta(number)) for number in range(15_000)]
    begun = time.process_time()

    await stream(CHAT, [*events, END])

    assert time.process_time() - begun < 3


def test_room_is_for_one_answer() -> None:
    room = Room()

    room.fill(MAX_BYTES - 16)

    with pytest.raises(AnswerTooLarge):
        room.fill(0)
