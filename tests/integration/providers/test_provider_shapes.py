"""Answers of shapes that servers have been seen to give: what can be read is read, the rest is said in a sentence."""

import codecs
import gzip
import json
from collections.abc import Mapping
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from mandate.activities.providers.base import Completion
from mandate.activities.toolbox import arguments
from mandate.activities.transcript.conversation import Conversation
from mandate.workflows.contracts.model import Finish
from mandate.workflows.contracts.tool import ToolDefinition
from mandate.workflows.contracts.transcript import CallPart, OpaquePart, TextPart
from tests.support.fake_provider.behaviours import CHAT, MESSAGES, RESPONSES, Answer, Body, Call
from tests.support.fake_provider.bodies import render
from tests.support.fake_provider.server import FakeProvider
from tests.support.prompts import QUESTION, Adapter, prompt, results, told, tool

ALL = (RESPONSES, CHAT, MESSAGES)
NOTE = tool("note", {"type": "object", "properties": {"text": {"type": "string"}}, "additionalProperties": False})
BARE = tool("note", {"type": "object", "properties": {}, "additionalProperties": False})
MISSING = object()


def answer(protocol: str, **fields: Any) -> dict[str, Any]:
    """The body of an answer with one call of `note` and a text, and what `fields` say put into it."""
    body: dict[str, Any] = json.loads(
        render(protocol, "fake", 1, Answer(text="Hm.", calls=(Call("note", "{}", id="c1"),), reasoning=False))
    )
    return body | fields


def call_of(protocol: str, body: dict[str, Any]) -> dict[str, Any]:
    if protocol == CHAT:
        found: dict[str, Any] = body["choices"][0]["message"]["tool_calls"][0]
        return found
    blocks: list[dict[str, Any]] = body["output" if protocol == RESPONSES else "content"]
    return next(block for block in blocks if block["type"] in ("function_call", "tool_use"))


def with_arguments(protocol: str, value: object) -> dict[str, Any]:
    body = answer(protocol)
    call = call_of(protocol, body)
    place, key = (call["function"], "arguments") if protocol == CHAT else (call, "arguments")
    key = "input" if protocol == MESSAGES else key
    place[key] = value
    if value is MISSING:
        del place[key]
    return body


def with_text(protocol: str, content: object) -> dict[str, Any]:
    """An answer of nothing but `content`, in the place where the text is."""
    body: dict[str, Any] = json.loads(render(protocol, "fake", 1, Answer(text="Hm.", reasoning=False)))
    if protocol == RESPONSES:
        body["output"][0]["content"] = content
    elif protocol == CHAT:
        body["choices"][0]["message"]["content"] = content
    else:
        body["content"] = content
    return body


async def read(adapter: Adapter, fake: FakeProvider, body: Mapping[str, Any] | bytes) -> Completion:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    fake.will(Body(content, content_type="application/json"))
    return await adapter.complete(prompt())


async def fault(adapter: Adapter, fake: FakeProvider, body: Mapping[str, Any] | bytes) -> ApplicationError:
    with pytest.raises(ApplicationError) as caught:
        await read(adapter, fake, body)
    return caught.value


def refusal(definition: ToolDefinition, text: str) -> str:
    """Why a call with these arguments reaches no tool; empty when it does."""
    if arguments.is_unwritten(definition, text):
        return "unwritten"
    try:
        arguments.read(definition, text)
    except ValueError as error:
        return str(error)
    return ""


NO_OBJECT = "the arguments must be a JSON object, not "


@pytest.mark.parametrize("protocol", ALL)
@pytest.mark.parametrize(
    ("value", "text", "why"),
    [
        ({"text": "a"}, '{"text": "a"}', ""),
        ('{"text": "a"}', '{"text": "a"}', ""),
        (["x"], '["x"]', NO_OBJECT + "a list"),
        (5, "5", NO_OBJECT + "a number"),
        (1.5, "1.5", NO_OBJECT + "a number"),
        (True, "true", NO_OBJECT + "a boolean"),
        (False, "false", NO_OBJECT + "a boolean"),
        (0, "0", NO_OBJECT + "a number"),
        ([], "[]", NO_OBJECT + "a list"),
        (None, "null", NO_OBJECT + "null"),
        (MISSING, "null", NO_OBJECT + "null"),
        ("", "", "unwritten"),
        (" ", " ", "unwritten"),
        ('"{}"', '"{}"', NO_OBJECT + "a text"),
        ("x", "x", "the arguments are not valid JSON: Expecting value at line 1 column 1"),
    ],
)
async def test_arguments_that_are_no_object_call_nothing(
    adapters: dict[str, Adapter], fake: FakeProvider, protocol: str, value: object, text: str, why: str
) -> None:
    completion = await read(adapters[protocol], fake, with_arguments(protocol, value))

    [call] = completion.message.calls
    assert (call.tool, call.arguments, completion.finish) == ("note", text, Finish.COMPLETE)
    assert refusal(NOTE, call.arguments) == why


@pytest.mark.parametrize("protocol", ALL)
@pytest.mark.parametrize("value", [["x"], 5, True, None, MISSING, "", "x", '{"text": "Ro', {"text": "a"}])
async def test_call_with_odd_arguments_goes_back_in_a_form_that_is_taken(
    adapters: dict[str, Adapter], fake: FakeProvider, protocol: str, value: object
) -> None:
    said = (await read(adapters[protocol], fake, with_arguments(protocol, value))).message
    fake.will(Answer(text="All done."))

    conversation = Conversation((QUESTION, said, results(said, "not called")))
    assert (await adapters[protocol].complete(prompt(conversation))).message.text == "All done."

    sent = call_sent(protocol, fake.requests[-1].json)
    assert isinstance(json.loads(sent) if isinstance(sent, str) else sent, dict)


def call_sent(protocol: str, body: dict[str, Any]) -> object:
    """The arguments of the one call in a request."""
    if protocol == RESPONSES:
        return next(item for item in body["input"] if item.get("type") == "function_call")["arguments"]
    message = next(message for message in body["messages"] if message["role"] == "assistant")
    if protocol == CHAT:
        return message["tool_calls"][0]["function"]["arguments"]
    return next(block for block in message["content"] if block["type"] == "tool_use")["input"]


@pytest.mark.parametrize("text", ["", " ", "null", "{}"])
def test_tool_that_takes_no_arguments_is_called_with_none(text: str) -> None:
    assert refusal(BARE, text) == ""
    assert arguments.read(BARE, text) == {}


@pytest.mark.parametrize("protocol", ALL)
@pytest.mark.parametrize("status", ["completed", "incomplete"])
async def test_cut_call_is_told_as_text_in_later_requests(
    adapters: dict[str, Adapter], fake: FakeProvider, protocol: str, status: str
) -> None:
    body = with_arguments(protocol, '{"text": "Ro')
    if status == "incomplete":
        stop = {RESPONSES: ("status", "incomplete"), MESSAGES: ("stop_reason", "max_tokens")}.get(protocol)
        body.update([stop] if stop else [])
        if protocol == CHAT:
            body["choices"][0]["finish_reason"] = "length"
    completion = await read(adapters[protocol], fake, body)
    said = completion.message
    fake.will(Answer(text="All done."))

    await adapters[protocol].complete(prompt(Conversation((QUESTION, said, results(said)))))

    assert completion.finish is (Finish.COMPLETE if status == "completed" else Finish.TRUNCATED)
    sent = call_sent(protocol, fake.requests[-1].json)
    assert (json.loads(sent) if isinstance(sent, str) else sent) == {"INVALID_JSON": '{"text": "Ro'}


async def test_call_that_its_item_says_is_cut_is_not_made(adapters: dict[str, Adapter], fake: FakeProvider) -> None:
    body = with_arguments(RESPONSES, "{}")
    call_of(RESPONSES, body)["status"] = "incomplete"

    completion = await read(adapters[RESPONSES], fake, body)

    assert (completion.finish, completion.problem) == (
        Finish.TRUNCATED,
        "the answer was cut in the middle of a call",
    )


def part(kind: str, **more: object) -> dict[str, object]:
    return {"type": kind, **more}


UNREAD = "the answer has neither a text nor a call, only what is not known here: "


@pytest.mark.parametrize("protocol", ALL)
@pytest.mark.parametrize(
    ("content", "text", "problem"),
    [
        ([part("text", text="It is 21C.")], "It is 21C.", None),
        ([part("output_text", text="It is"), part("output_text", text=" 21C.")], "It is 21C.", None),
        (
            [part("thinking", thinking=[part("text", text="hm")]), part("text", text="It is 21C.")],
            "It is 21C.",
            None,
        ),
        ("It is 21C.", "It is 21C.", None),
        (["It is 21C."], "It is 21C.", None),
        (part("text", text="It is 21C."), "It is 21C.", None),
        ([{"text": "It is 21C."}], "It is 21C.", None),
        ([part("image_url", url="x"), part("text", text="It is 21C.")], "It is 21C.", None),
        ([part("image_url", url="x"), part("image_url", url="y")], "", UNREAD + "'image_url'"),
        ([part("text", text=None)], "", UNREAD + "'text'"),
        ([part("text", text={"value": "x"}), 7], "", UNREAD + "'text', 'number'"),
        ([part("thinking", thinking="hm")], "", "the answer was empty"),
        ([], "", "the answer was empty"),
        ("", "", "the answer was empty"),
    ],
)
async def test_content_of_another_shape(
    adapters: dict[str, Adapter],
    fake: FakeProvider,
    protocol: str,
    content: object,
    text: str,
    problem: str | None,
) -> None:
    completion = await read(adapters[protocol], fake, with_text(protocol, content))

    assert (completion.message.text, completion.problem) == (text, problem)
    assert completion.finish is (Finish.COMPLETE if text else Finish.EMPTY)
    fake.will(Answer(text="All done."))
    await adapters[protocol].complete(prompt(Conversation((QUESTION, completion.message))))


@pytest.mark.parametrize(
    ("protocol", "content", "said"),
    [
        (CHAT, None, "the answer was empty"),
        (CHAT, 7, UNREAD + "'number'"),
        (RESPONSES, None, "the answer was empty"),
        (RESPONSES, True, UNREAD + "'boolean'"),
    ],
)
async def test_content_without_a_text(
    adapters: dict[str, Adapter], fake: FakeProvider, protocol: str, content: object, said: str
) -> None:
    completion = await read(adapters[protocol], fake, with_text(protocol, content))

    assert (completion.finish, completion.problem) == (Finish.EMPTY, said)


@pytest.mark.parametrize("content", [None, 7, True])
async def test_content_that_no_messages_answer_has(
    adapters: dict[str, Adapter], fake: FakeProvider, content: object
) -> None:
    assert "it has no content" in (await fault(adapters[MESSAGES], fake, with_text(MESSAGES, content))).message


async def test_message_item_without_a_type_is_a_message(adapters: dict[str, Adapter], fake: FakeProvider) -> None:
    body = answer(RESPONSES, output=[{"role": "assistant", "content": "It is 21C."}])

    message = (await read(adapters[RESPONSES], fake, body)).message

    assert (message.parts, message.native) == ((TextPart(kind="text", text="It is 21C."),), None)


@pytest.mark.parametrize("calls", [{"id": "c1", "function": {"name": "note", "arguments": "{}"}}, None])
async def test_one_call_in_place_of_a_list(
    adapters: dict[str, Adapter], fake: FakeProvider, calls: dict[str, Any] | None
) -> None:
    body = answer(CHAT)
    body["choices"][0]["message"]["tool_calls"] = calls
    body["choices"][0]["message"]["function_call"] = {"name": "note", "arguments": "{}"} if calls is None else None

    message = (await read(adapters[CHAT], fake, body)).message

    [call] = message.calls
    assert (call.tool, call.arguments, call.call_id) == ("note", "{}", "c1" if calls else "call-1-1")


@pytest.mark.parametrize("calls", ["note()", 5, [None], [7], [{"id": "c1"}], [{"id": "c1", "function": {}}]])
async def test_calls_that_cannot_be_read_are_calls_of_no_tool(
    adapters: dict[str, Adapter], fake: FakeProvider, calls: object
) -> None:
    body = answer(CHAT)
    body["choices"][0]["message"]["tool_calls"] = calls

    message = (await read(adapters[CHAT], fake, body)).message

    assert [call.tool for call in message.calls] == [""]
    fake.will(Answer(text="All done."))
    conversation = Conversation((QUESTION, message, results(message, "the call names no tool")))
    assert (await adapters[CHAT].complete(prompt(conversation))).message.text == "All done."


@pytest.mark.parametrize("protocol", ALL)
@pytest.mark.parametrize(("key", "value"), [("name", None), ("name", 7), ("id", None), ("id", 7), ("id", "")])
async def test_call_without_id_or_name(
    adapters: dict[str, Adapter], fake: FakeProvider, protocol: str, key: str, value: object
) -> None:
    body = answer(protocol)
    call = call_of(protocol, body)
    place = call["function"] if protocol == CHAT and key == "name" else call
    place["call_id" if protocol == RESPONSES and key == "id" else key] = value

    message = (await read(adapters[protocol], fake, body)).message

    [call_read] = message.calls
    assert (call_read.tool, call_read.call_id) == (("", "c1") if key == "name" else ("note", "call-1-1"))
    assert message.native is None
    fake.will(Answer(text="All done."))
    conversation = Conversation((QUESTION, message, results(message)))
    assert (await adapters[protocol].complete(prompt(conversation))).message.text == "All done."


STOP = {CHAT: "finish_reason", MESSAGES: "stop_reason"}


@pytest.mark.parametrize("protocol", [CHAT, MESSAGES])
@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        *((reason, Finish.COMPLETE) for reason in ("stop", "STOP", "end_turn", "eos", "tool_use", "tool_calls")),
        *((reason, Finish.TRUNCATED) for reason in ("length", "max_tokens", "MAX_TOKENS", "model_length")),
        *((reason, Finish.REFUSED) for reason in ("content_filter", "SAFETY", "refusal")),
    ],
)
async def test_known_reasons_of_an_end(
    adapters: dict[str, Adapter], fake: FakeProvider, protocol: str, reason: str, finish: Finish
) -> None:
    body = with_text(protocol, "Hm.")
    (body["choices"][0] if protocol == CHAT else body)[STOP[protocol]] = reason

    assert (await read(adapters[protocol], fake, body)).finish is finish


@pytest.mark.parametrize("protocol", [CHAT, MESSAGES])
@pytest.mark.parametrize(("reason", "shown"), [("brand_new", "'brand_new'"), (7, "'7'"), ({"type": "x"}, "'{\"type")])
async def test_end_for_an_unknown_reason_is_not_taken(
    adapters: dict[str, Adapter], fake: FakeProvider, protocol: str, reason: object, shown: str
) -> None:
    body = answer(protocol)
    (body["choices"][0] if protocol == CHAT else body)[STOP[protocol]] = reason

    error = await fault(adapters[protocol], fake, body)

    assert f"ended its answer for a reason that is not known here: {shown}" in error.message
    assert (error.details[0]["fault"], error.non_retryable) == ("malformed", True)


async def test_responses_cut_for_an_unknown_reason_say_it(adapters: dict[str, Adapter], fake: FakeProvider) -> None:
    body = answer(RESPONSES, status="incomplete", incomplete_details={"reason": "steered"})

    completion = await read(adapters[RESPONSES], fake, body)

    assert (completion.finish, completion.problem) == (
        Finish.TRUNCATED,
        "the answer was cut by the provider: steered",
    )


@pytest.mark.parametrize("refused", [{"reason": "unsafe"}, ["unsafe"], True])
async def test_refusal_that_is_no_text(adapters: dict[str, Adapter], fake: FakeProvider, refused: object) -> None:
    body = with_text(CHAT, None)
    body["choices"][0]["message"]["refusal"] = refused

    completion = await read(adapters[CHAT], fake, body)

    assert (completion.finish, completion.problem) == (Finish.REFUSED, f"the model refused: {json.dumps(refused)}")


COUNTS = {RESPONSES: "input_tokens", CHAT: "prompt_tokens", MESSAGES: "input_tokens"}
PRICED = {RESPONSES: "gpt-5.5", CHAT: "llama", MESSAGES: "claude-sonnet-5-5"}


@pytest.mark.parametrize("protocol", ALL)
@pytest.mark.parametrize(("count", "tokens"), [(100, 100), (100.0, 100), ("100", 100), (0, 0)])
async def test_counts_that_can_be_read(
    adapters: dict[str, Adapter], fake: FakeProvider, protocol: str, count: object, tokens: int
) -> None:
    body = answer(protocol)
    body["usage"][COUNTS[protocol]] = count
    fake.will(Body(json.dumps(body).encode(), content_type="application/json"))

    usage = (await adapters[protocol].complete(prompt(model=PRICED[protocol]))).usage

    # Anthropic counts the cached tokens, 64 and 10, apart.
    assert usage.input_tokens == tokens + (74 if protocol == MESSAGES else 0)
    assert usage.output_tokens == 20


@pytest.mark.parametrize("protocol", [RESPONSES, MESSAGES])
@pytest.mark.parametrize("count", [-1, 1.5, "many", "-1", [100], {"total": 100}, None, True, 10**12, 1e300])
async def test_count_that_cannot_be_read_leaves_the_price_unknown(
    adapters: dict[str, Adapter], fake: FakeProvider, protocol: str, count: object
) -> None:
    body = answer(protocol)
    body["usage"]["output_tokens"] = count
    fake.will(Body(json.dumps(body).encode(), content_type="application/json"))

    usage = (await adapters[protocol].complete(prompt(model=PRICED[protocol]))).usage

    assert (usage.output_tokens, usage.unpriced_calls, usage.cost_usd) == (0, 1, 0)


@pytest.mark.parametrize("protocol", ALL)
@pytest.mark.parametrize("usage", [None, [], [100, 20], "120", 120, {}, {"total_tokens": 120}])
async def test_usage_of_another_shape_leaves_the_price_unknown(
    adapters: dict[str, Adapter], fake: FakeProvider, protocol: str, usage: object
) -> None:
    fake.will(Body(json.dumps(answer(protocol, usage=usage)).encode(), content_type="application/json"))

    read_usage = (await adapters[protocol].complete(prompt(model=PRICED[protocol]))).usage

    assert (read_usage.input_tokens, read_usage.output_tokens, read_usage.unpriced_calls) == (0, 0, 1)


@pytest.mark.parametrize("protocol", ALL)
@pytest.mark.parametrize(
    "encode",
    [
        lambda text: codecs.BOM_UTF8 + text.encode(),
        lambda text: text.encode("utf-16"),
        lambda text: text.encode("utf-16-le"),
        lambda text: text.encode("utf-32"),
    ],
)
async def test_answer_in_another_encoding(
    adapters: dict[str, Adapter], fake: FakeProvider, protocol: str, encode: Any
) -> None:
    content = encode(json.dumps(with_text(protocol, "Osló 😀"), ensure_ascii=False))

    assert (await read(adapters[protocol], fake, content)).message.text == "Osló 😀"


@pytest.mark.parametrize("protocol", ALL)
async def test_byte_that_is_no_text_is_shown_as_such(
    adapters: dict[str, Adapter], fake: FakeProvider, protocol: str
) -> None:
    content = json.dumps(with_text(protocol, "OslX"), ensure_ascii=False).encode().replace(b"X", b"\xf3")

    completion = await read(adapters[protocol], fake, content)

    assert (completion.message.text, completion.message.native) == ("Osl\ufffd", None)


@pytest.mark.parametrize("protocol", ALL)
@pytest.mark.parametrize(
    ("written", "named"), [(b"\xf3", r"\udcf3"), (b"\\ud83d", r"\ud83d"), (b"\xed\xa0\xbd", r"\udced")]
)
async def test_arguments_with_what_is_no_text_call_nothing(
    adapters: dict[str, Adapter], fake: FakeProvider, protocol: str, written: bytes, named: str
) -> None:
    """Neither the byte nor a stand-in for it is what the model wrote."""
    value: object = {"text": "OslX"} if protocol == MESSAGES else '{"text": "OslX"}'
    content = json.dumps(with_arguments(protocol, value)).encode().replace(b"X", written)

    message = (await read(adapters[protocol], fake, content)).message

    [call] = message.calls
    assert refusal(NOTE, call.arguments) == f"text: the text holds {named}, half of a surrogate pair"
    fake.will(Answer(text="All done."))
    conversation = Conversation((QUESTION, message, results(message)))
    assert (await adapters[protocol].complete(prompt(conversation))).message.text == "All done."


@pytest.mark.parametrize("protocol", ALL)
async def test_half_a_surrogate_pair_in_what_is_said_is_not_sent(
    adapters: dict[str, Adapter], fake: FakeProvider, protocol: str
) -> None:
    call = CallPart(kind="call", call_id="c1", tool="note", arguments='{"text": "\\ud83d"}')
    said = (await read(adapters[protocol], fake, answer(protocol))).message.model_copy(
        update={"parts": (TextPart(kind="text", text="a\ud83d"), call), "native": None}
    )
    fake.will(Answer(text="All done."))
    conversation = Conversation((QUESTION, said, results(said, "21\udc80C", note="b\ud83d\x00")))

    completion = await adapters[protocol].complete(
        prompt(conversation, instructions="Be brief \ud83d", tools=(tool("note"), tool("x")))
    )

    assert completion.message.text == "All done."
    body = fake.requests[-1].body.decode()
    assert ("21?C" in body, "Be brief ?" in body, "b?\\u0000" in body) == (True, True, True)


@pytest.mark.parametrize("protocol", ALL)
async def test_nul_passes_through(adapters: dict[str, Adapter], fake: FakeProvider, protocol: str) -> None:
    message = (await read(adapters[protocol], fake, with_text(protocol, "a\x00b"))).message

    assert message.text == "a\x00b"


@pytest.mark.parametrize("protocol", ALL)
@pytest.mark.parametrize("character", ["\x00", "\n", "\t"])
async def test_control_character_as_it_is_costs_no_answer_and_calls_nothing(
    adapters: dict[str, Adapter], fake: FakeProvider, protocol: str, character: str
) -> None:
    said = json.dumps(with_text(protocol, "aXb")).replace("X", character).encode()
    value: object = {"text": "aXb"} if protocol == MESSAGES else '{"text": "aXb"}'
    called = json.dumps(with_arguments(protocol, value)).replace("X", character).encode()

    text, call = [(await read(adapters[protocol], fake, body)).message for body in (said, called)]

    assert (text.text, text.native) == (f"a{character}b", None)
    assert refusal(NOTE, call.calls[0].arguments).startswith("the arguments are not valid JSON: Invalid control char")
    fake.will(Answer(text="All done."))
    conversation = Conversation((QUESTION, text, told("Go on."), call, results(call)))
    assert (await adapters[protocol].complete(prompt(conversation))).message.text == "All done."


@pytest.mark.parametrize("protocol", ALL)
async def test_packed_answer_that_is_cut_is_asked_for_again(
    adapters: dict[str, Adapter], fake: FakeProvider, protocol: str
) -> None:
    packed = gzip.compress(json.dumps(with_text(protocol, "Hm. " * 500)).encode())[:-20]

    for content in (packed, b"not packed"):
        fake.will(Body(content, content_type="application/json", headers={"content-encoding": "gzip"}))
        with pytest.raises(ApplicationError) as caught:
            await adapters[protocol].complete(prompt())
        assert (caught.value.non_retryable, caught.value.type) == (False, "ModelUnavailable")


@pytest.mark.parametrize("protocol", ALL)
async def test_status_counts_where_the_text_of_an_error_cannot_be_read(
    adapters: dict[str, Adapter], fake: FakeProvider, protocol: str
) -> None:
    headers = {"content-encoding": "gzip", "retry-after": "7"}
    fake.will(Body(b"not packed", status=429, headers=headers))

    with pytest.raises(ApplicationError) as caught:
        await adapters[protocol].complete(prompt())

    delay = caught.value.next_retry_delay
    assert "answered 429: no text" in caught.value.message
    assert delay is not None
    assert delay.total_seconds() == 7


@pytest.mark.parametrize("protocol", ALL)
@pytest.mark.parametrize("charset", ["rot13", "hex", "idna", "no-such", "utf-16"])
async def test_charset_of_an_error_is_not_believed(
    adapters: dict[str, Adapter], fake: FakeProvider, protocol: str, charset: str
) -> None:
    headers = {"content-type": f"text/html; charset={charset}"}
    fake.will(Body(codecs.BOM_UTF8 + b'{"error": {"message": "Slow d\xf3wn"}}', status=503, headers=headers))

    with pytest.raises(ApplicationError) as caught:
        await adapters[protocol].complete(prompt())

    assert "answered 503: Slow d\ufffdwn" in caught.value.message


@pytest.mark.parametrize("error", ["Overloaded", ["Overloaded"], {"message": ["Overloaded"]}, 7])
async def test_error_of_another_shape_is_told(adapters: dict[str, Adapter], fake: FakeProvider, error: object) -> None:
    for protocol in (RESPONSES, CHAT):
        message = (await fault(adapters[protocol], fake, {"error": error, "status": "failed"})).message
        assert ("7" if error == 7 else "Overloaded") in message


async def test_thinking_alone_is_an_empty_answer(adapters: dict[str, Adapter], fake: FakeProvider) -> None:
    completion = await read(adapters[CHAT], fake, with_text(CHAT, [part("thinking", thinking="hm")]))

    assert completion.message.parts == (OpaquePart(kind="opaque", type="thinking"),)
