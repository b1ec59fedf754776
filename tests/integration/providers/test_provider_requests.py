"""What the adapters send: the vendors' rules kept, equal bytes in every process, each message encoded once."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import pytest
from pydantic import JsonValue, TypeAdapter
from temporalio.exceptions import ApplicationError

from mandate.activities.providers.openai_chat import OpenAiChat
from mandate.activities.transcript.conversation import Conversation
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.tool import ToolDefinition
from mandate.workflows.contracts.transcript import AssistantMessage, Message, ResultPart, TextPart, UserMessage
from tests.support.fake_provider.behaviours import CHAT, MESSAGES, RESPONSES, Answer, Body, Call
from tests.support.fake_provider.server import FakeProvider
from tests.support.prompts import ADAPTERS, KEY, QUESTION, TOOLS, Adapter, prompt, results, told, tool

ALL = (RESPONSES, CHAT, MESSAGES)
PARALLEL = Answer(
    text="Let me see.", calls=(Call("get_weather", '{"city": "Rome"}'), Call("get_weather", '{"city":"Osló"}'))
)


async def turns(adapter: Adapter, conversation: Conversation, count: int, *, model: str = "fake") -> Conversation:
    """`conversation` after `count` more turns, the calls of each answered."""
    for number in range(count):
        answer = (await adapter.complete(prompt(conversation, model=model))).message
        note = f"Note {number}." if number % 2 else ""
        conversation = conversation.extend(answer, results(answer, note=note) if answer.calls else told("Go on."))
    return conversation


def cold(conversation: Conversation) -> Conversation:
    """The same messages as another process reads them."""
    adapter = TypeAdapter(list[Message])
    messages = [conversation[index] for index in range(len(conversation))]
    return Conversation(adapter.validate_json(adapter.dump_json(messages)))


def items(protocol: str, body: bytes) -> list[dict[str, Any]]:
    found = json.loads(body)["input" if protocol == RESPONSES else "messages"]
    assert isinstance(found, list)
    return found


def said(protocol: str, model: str, *parts: object, native: str | None = None) -> AssistantMessage:
    return AssistantMessage.model_validate(
        {"role": "assistant", "protocol": protocol, "model": model, "native": native, "parts": parts}
    )


def call(call_id: str, name: str = "get_weather", arguments: str = '{"city":"Rome"}') -> dict[str, str]:
    return {"kind": "call", "call_id": call_id, "tool": name, "arguments": arguments}


@pytest.mark.parametrize("protocol", ALL)
async def test_parallel_tools_go_round(adapters: dict[str, Adapter], fake: FakeProvider, protocol: str) -> None:
    fake.will(PARALLEL, Answer(text="21C in both."))
    first = await adapters[protocol].complete(prompt())

    conversation = Conversation((QUESTION, first.message, results(first.message)))
    last = await adapters[protocol].complete(prompt(conversation))

    assert [part.arguments for part in first.message.calls] == ['{"city": "Rome"}', '{"city":"Osló"}']
    assert last.message.text == "21C in both."
    sent = items(protocol, fake.requests[-1].body)
    if protocol == MESSAGES:
        assert [block["type"] for block in sent[2]["content"]] == ["tool_result", "tool_result"]
        assert [block.get("is_error") for block in sent[2]["content"]] == [None, True]
    else:
        outputs = [item.get("output", item.get("content")) for item in sent[-2:]]
        assert outputs == ["21C", "ERROR: 21C"]


@pytest.mark.parametrize("protocol", ALL)
async def test_the_last_request_offers_the_same_tools_and_forbids_their_calls(
    adapters: dict[str, Adapter], fake: FakeProvider, protocol: str
) -> None:
    for asked in (prompt(), replace(prompt(), is_last=True), replace(prompt(tools=()), is_last=True)):
        fake.will(Answer(text="Done."))
        await adapters[protocol].complete(asked)

    ordinary, last, without = (json.loads(request.body) for request in fake.requests[-3:])
    assert last["tools"] == ordinary["tools"]
    assert last["tool_choice"] == ({"type": "none"} if protocol == MESSAGES else "none")
    assert "tool_choice" not in ordinary
    assert "tool_choice" not in without


@pytest.mark.parametrize(("before", "after"), list(product(ALL, ALL)))
async def test_conversation_goes_on_with_another_protocol(
    adapters: dict[str, Adapter], fake: FakeProvider, before: str, after: str
) -> None:
    fake.will(
        PARALLEL,
        Answer(calls=(Call("note", "{}", id="functions.note:0"),)),  # an id that Anthropic refuses
        Answer(calls=(Call("note", "{}", id="call-" + "0123456789" * 5),)),  # 55 characters
        *[PARALLEL] * 3,
    )
    if before == MESSAGES:  # which never makes such ids
        fake.reset()
    conversation = await turns(adapters[before], Conversation((QUESTION,)), 4, model="first")

    conversation = await turns(adapters[after], conversation, 2, model="second")

    back = await adapters[before].complete(prompt(conversation, model="first"))
    assert back.message.text or back.message.calls
    assert len(fake.requests) == 7


@pytest.mark.parametrize("protocol", ALL)
async def test_native_items_go_back_only_to_the_model_that_made_them(
    adapters: dict[str, Adapter], fake: FakeProvider, protocol: str
) -> None:
    fake.will(PARALLEL)
    conversation = await turns(adapters[protocol], Conversation((QUESTION,)), 1, model="one")
    native = conversation[1]
    assert isinstance(native, AssistantMessage)
    assert native.native

    same = adapters[protocol].request(prompt(conversation, model="one")).decode()
    other = adapters[protocol].request(prompt(conversation, model="two")).decode()

    mark = {RESPONSES: "encrypted_content", CHAT: "reasoning_content", MESSAGES: "signature"}[protocol]
    assert native.native in same
    assert mark in same.partition('"tools"')[2]
    assert mark not in other.partition('"tools"')[2]
    assert "Let me see." in other


@pytest.mark.parametrize("protocol", ALL)
async def test_request_begins_with_the_bytes_of_the_one_before(
    adapters: dict[str, Adapter], fake: FakeProvider, protocol: str
) -> None:
    fake.will(*[PARALLEL] * 6)
    await turns(adapters[protocol], Conversation((QUESTION,)), 6)

    bodies = [request.body for request in fake.requests]

    assert len(bodies) == 6
    for earlier, later in pairwise(bodies):
        assert later.startswith(earlier.removesuffix(b"]}"))


@pytest.mark.parametrize("protocol", ALL)
async def test_cold_conversation_makes_the_same_bytes(
    adapters: dict[str, Adapter], fake: FakeProvider, protocol: str
) -> None:
    fake.will(*[PARALLEL] * 4)
    warm = await turns(adapters[protocol], Conversation((QUESTION,)), 4)

    again = ADAPTERS[protocol]("http://127.0.0.1:1").request(prompt(cold(warm)))

    assert again == adapters[protocol].request(prompt(warm))


@pytest.mark.parametrize("protocol", ALL)
async def test_posted_bytes_are_the_request(adapters: dict[str, Adapter], fake: FakeProvider, protocol: str) -> None:
    await adapters[protocol].complete(prompt())

    request = fake.requests[0]
    assert request.body == adapters[protocol].request(prompt())
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["content-type"] == "application/json"
    assert protocol != MESSAGES or request.headers["anthropic-version"] == "2026-10-21"


@pytest.mark.parametrize("protocol", ALL)
async def test_many_calls_at_once(adapters: dict[str, Adapter], protocol: str) -> None:
    asked = [prompt((told(f"Question {number}"),), model="fake-text") for number in range(40)]

    answers = await asyncio.gather(*(adapters[protocol].complete(each) for each in asked))

    assert [answer.message.text for answer in answers] == ["All done."] * 40


def test_settings_of_a_responses_request(adapters: dict[str, Adapter]) -> None:
    body = json.loads(adapters[RESPONSES].request(prompt(tools=TOOLS[:1])))

    assert len(body.pop("prompt_cache_key")) == 43
    assert body == {
        "model": "fake",
        "max_output_tokens": 4096,
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "instructions": "You answer with the weather. Ünïcode",
        "tools": [
            {
                "type": "function",
                "name": "get_weather",
                "description": "What get_weather does",
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
                "strict": False,
            }
        ],
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "What is the weather?"}]}],
    }


def test_settings_of_a_chat_request(adapters: dict[str, Adapter]) -> None:
    body = json.loads(adapters[CHAT].request(prompt(tools=TOOLS[1:])))

    assert body == {
        "model": "fake",
        "max_completion_tokens": 4096,
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "note",
                    "description": "What note does",
                    "parameters": {"type": "object", "properties": {}},
                    "strict": False,
                },
            }
        ],
        "messages": [
            {"role": "system", "content": "You answer with the weather. Ünïcode"},
            {"role": "user", "content": "What is the weather?"},
        ],
    }


def test_settings_of_a_messages_request(adapters: dict[str, Adapter]) -> None:
    body = json.loads(adapters[MESSAGES].request(prompt(tools=TOOLS[1:])))

    assert body == {
        "model": "fake",
        "max_tokens": 4096,
        "cache_control": {"type": "ephemeral"},
        "system": "You answer with the weather. Ünïcode",
        "tools": [
            {
                "name": "note",
                "description": "What note does",
                "input_schema": {"type": "object", "properties": {}},
            }
        ],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "What is the weather?"}]}],
    }


@pytest.mark.parametrize("protocol", ALL)
async def test_agent_without_tools_and_instructions(
    adapters: dict[str, Adapter], fake: FakeProvider, protocol: str
) -> None:
    completion = await adapters[protocol].complete(prompt(tools=(), instructions=" "))

    assert completion.message.text == "All done."
    assert not {"tools", "instructions", "system"} & set(fake.requests[0].json)


def test_schema_keys_are_sorted_whatever_order_they_came_in(adapters: dict[str, Adapter]) -> None:
    one = tool("a", {"type": "object", "properties": {"x": {"type": "string", "title": "X"}}})
    other = tool("a", {"properties": {"x": {"title": "X", "type": "string"}}, "type": "object"})

    bodies = [ADAPTERS[CHAT]("http://127.0.0.1:1").request(prompt(tools=(each,))) for each in (one, other)]

    assert bodies[0] == bodies[1]


THOUGHT = '{"type":"thinking","thinking":"Hm.","signature":"c2ln"}'
CUT_CALL = json.dumps({"type": "function_call", "call_id": "a", "name": "note", "arguments": '{"city": "Ro'})

SKEWED: dict[str, Sequence[Message]] = {
    "two texts in a row": (QUESTION, told("In Rome.")),
    "a blank beginning": (told(" "), said(CHAT, "x", {"kind": "text", "text": "Well?"}), told("Rome.")),
    "nothing but blanks": (told(""), said(CHAT, "x", {"kind": "text", "text": "\n"}), told("")),
    "nothing after an answer": (QUESTION, said(CHAT, "x", {"kind": "text", "text": "In Rome? "})),
    "half of a surrogate pair": (
        told("Osl\ud83d"),
        said(CHAT, "x", {"kind": "text", "text": "\udc80"}, call("a", arguments='{"city":"\\ud83d"}')),
        UserMessage(role="user", parts=(ResultPart(kind="result", call_id="a", tool="t", text="21\udfff"),)),
    ),
    "stored thinking that nothing follows": (
        QUESTION,
        said(MESSAGES, "fake-text", {"kind": "opaque", "type": "thinking"}, native=THOUGHT),
        told("Well?"),
    ),
    "stored call that was cut": (
        QUESTION,
        said(RESPONSES, "fake-text", call("a", arguments='{"city": "Ro'), native=CUT_CALL),
        told("Again."),
    ),
    "stored items that cannot be read": (
        QUESTION,
        said(MESSAGES, "fake-text", {"kind": "text", "text": "Rome."}, native='{"type": "te'),
        told("Again."),
    ),
    "empty texts": (QUESTION, told(""), said(CHAT, "x", {"kind": "text", "text": " "}), told("\n"), told("Well?")),
    "an answer with nothing in it": (QUESTION, said(MESSAGES, "x"), told("Well?")),
    "a refusal": (QUESTION, said(MESSAGES, "x", {"kind": "refusal", "text": "No."}), told("Well?")),
    "reasoning alone": (QUESTION, said(RESPONSES, "x", {"kind": "opaque", "type": "reasoning"}), told("Well?")),
    "answers in a row": (
        QUESTION,
        said(MESSAGES, "x", {"kind": "text", "text": "Searching"}),
        said(MESSAGES, "x", {"kind": "text", "text": "Found."}, call("a")),
        UserMessage(role="user", parts=(ResultPart(kind="result", call_id="a", tool="get_weather", text="21C"),)),
    ),
    "a call without a result": (QUESTION, said(CHAT, "x", call("a"), call("b")), told("You were cut off.")),
    "a call and no message after it": (QUESTION, said(CHAT, "x", call("a"))),
    "a result without a call": (
        QUESTION,
        UserMessage(role="user", parts=(ResultPart(kind="result", call_id="z", tool="t", text="lost"),)),
    ),
    "nothing but a lost result between two answers": (
        QUESTION,
        said(CHAT, "x", {"kind": "text", "text": "One."}),
        UserMessage(role="user", parts=(ResultPart(kind="result", call_id="z", tool="t", text="lost"),)),
        said(CHAT, "x", {"kind": "text", "text": "Two."}),
        told("Three?"),
    ),
    "text before the result": (
        QUESTION,
        said(CHAT, "x", call("a")),
        UserMessage(
            role="user",
            parts=(
                TextPart(kind="text", text="And now?"),
                ResultPart(kind="result", call_id="a", tool="get_weather", text="21C"),
            ),
        ),
    ),
    "results in two messages": (
        QUESTION,
        said(CHAT, "x", call("a"), call("b")),
        UserMessage(role="user", parts=(ResultPart(kind="result", call_id="b", tool="get_weather", text="3C"),)),
        told("Wait."),
        UserMessage(role="user", parts=(ResultPart(kind="result", call_id="a", tool="get_weather", text="21C"),)),
    ),
    "an empty result": (
        QUESTION,
        said(CHAT, "x", call("a")),
        UserMessage(role="user", parts=(ResultPart(kind="result", call_id="a", tool="get_weather", text=""),)),
    ),
    "a tool that nobody has": (QUESTION, said(CHAT, "x", call("a", "web.search: 1")), told("There is no such tool.")),
    "arguments that are no JSON": (QUESTION, said(CHAT, "x", call("a", arguments='{"city": "Ro')), told("Again.")),
    "arguments that are no object": (QUESTION, said(CHAT, "x", call("a", arguments="[NaN]")), told("Again.")),
    "arguments with NaN": (QUESTION, said(CHAT, "x", call("a", arguments='{"n": NaN}')), told("Again.")),
    "no arguments": (QUESTION, said(CHAT, "x", call("a", arguments="")), told("Again.")),
}


@pytest.mark.parametrize("protocol", ALL)
@pytest.mark.parametrize("skewed", SKEWED)
async def test_skewed_conversation_is_sent_straight(
    adapters: dict[str, Adapter], fake: FakeProvider, protocol: str, skewed: str
) -> None:
    completion = await adapters[protocol].complete(prompt(SKEWED[skewed], model="fake-text"))

    assert completion.message.text == "All done."


@pytest.mark.parametrize("protocol", ALL)
def test_lost_result_is_said_to_be_lost(adapters: dict[str, Adapter], protocol: str) -> None:
    body = adapters[protocol].request(prompt(SKEWED["a call without a result"]))

    assert body.count(b"(no result: this call was not made)") == 2


@pytest.mark.parametrize("protocol", ALL)
def test_invalid_arguments_go_back_as_text_in_an_object(adapters: dict[str, Adapter], protocol: str) -> None:
    body = adapters[protocol].request(prompt(SKEWED["arguments that are no JSON"])).decode()

    assert "INVALID_JSON" in body
    assert "Ro" in body


async def test_paused_answer_is_sent_again_as_it_was(adapters: dict[str, Adapter], fake: FakeProvider) -> None:
    paused = await adapters[MESSAGES].complete(prompt(model="fake-pause"))
    conversation = Conversation((QUESTION, paused.message))
    fake.will(Answer(text="Found."))

    found = await adapters[MESSAGES].complete(prompt(conversation, model="fake-pause"))
    conversation = conversation.extend(found.message, told("Thanks."))
    fake.will(Answer(text="Bye."))
    await adapters[MESSAGES].complete(prompt(conversation, model="fake-pause"))

    sent = items(MESSAGES, fake.requests[-1].body)
    assert [message["role"] for message in sent] == ["user", "assistant", "user"]
    kinds = [block["type"] for block in sent[1]["content"]]
    assert kinds == ["thinking", "text", "server_tool_use", "thinking", "text"]


async def test_phase_of_an_answer_is_kept(adapters: dict[str, Adapter], fake: FakeProvider) -> None:
    fake.will(PARALLEL)
    conversation = await turns(adapters[RESPONSES], Conversation((QUESTION,)), 1)

    body = adapters[RESPONSES].request(prompt(conversation))

    assert b'"phase": "commentary"' in body


def test_cache_key_is_the_conversations_own(adapters: dict[str, Adapter]) -> None:
    def key(*messages: Message, instructions: str = "x") -> str:
        body = adapters[RESPONSES].request(prompt(messages, instructions=instructions))
        return str(json.loads(body)["prompt_cache_key"])

    assert key(QUESTION) == key(QUESTION, said(CHAT, "x", {"kind": "text", "text": "Hm."}), told("More"))
    assert key(QUESTION) != key(told("Another"))
    assert key(QUESTION) != key(QUESTION, instructions="y")


def test_old_servers_get_the_field_that_they_know() -> None:
    adapter = OpenAiChat(api_key="", base_url="http://127.0.0.1:1/v1", max_tokens_field="max_tokens")

    assert json.loads(adapter.request(prompt()))["max_tokens"] == 4096


THINKING = {"type": "thinking", "thinking": "Let me see", "signature": "c2ln"}
UNSIGNED = {"type": "thinking", "thinking": "Let me"}
REDACTED = {"type": "redacted_thinking", "data": "x"}
SO = {"type": "text", "text": "So"}


@pytest.mark.parametrize(
    ("content", "reason", "sent"),
    [
        ([THINKING], "max_tokens", None),
        ([THINKING], "end_turn", None),
        ([THINKING, {"type": "text", "text": " "}], "end_turn", None),
        ([REDACTED], "max_tokens", None),
        ([SO, {**THINKING, "signature": ""}], "max_tokens", ["text"]),
        ([THINKING, SO, THINKING, REDACTED], "max_tokens", ["thinking", "text"]),
        ([UNSIGNED, SO], "end_turn", ["text"]),
        ([THINKING, REDACTED, SO], "end_turn", ["thinking", "redacted_thinking", "text"]),
    ],
)
async def test_thinking_goes_back_only_signed_and_before_what_it_led_to(
    adapters: dict[str, Adapter], fake: FakeProvider, content: list[object], reason: str, sent: list[str] | None
) -> None:
    body = {"type": "message", "role": "assistant", "content": content, "stop_reason": reason}
    fake.will(Body(json.dumps(body).encode(), content_type="application/json"), Answer(text="All done."))
    thought = (await adapters[MESSAGES].complete(prompt())).message

    await adapters[MESSAGES].complete(prompt((QUESTION, thought, told("Go on."))))

    answers = [message for message in fake.requests[-1].json["messages"] if message["role"] == "assistant"]
    assert [[block["type"] for block in message["content"]] for message in answers] == ([sent] if sent else [])


def test_answers_in_a_row_are_one_message_of_a_chat(adapters: dict[str, Adapter]) -> None:
    native = '{"role":"assistant","content":"One.","reasoning_content":"hm"}'
    asked = {"id": "c-1", "type": "function", "function": {"name": "note", "arguments": "{}"}}
    called = json.dumps({"role": "assistant", "content": None, "tool_calls": [asked]})
    messages = (
        QUESTION,
        said(CHAT, "fake", {"kind": "text", "text": "One."}, native=native),
        said(MESSAGES, "x", {"kind": "text", "text": "Two."}),
        said(CHAT, "fake", call("c-1", "note", "{}"), native=called),
        UserMessage(role="user", parts=(ResultPart(kind="result", call_id="c-1", tool="note", text="ok"),)),
    )

    sent = items(CHAT, adapters[CHAT].request(prompt(messages)))

    assert sent[2:] == [
        {"role": "assistant", "content": "One.\n\nTwo.", "tool_calls": [asked]},
        {"role": "tool", "tool_call_id": "c-1", "content": "ok"},
    ]


def test_word_of_the_model_stands_between_results_and_a_text_of_a_chat(adapters: dict[str, Adapter]) -> None:
    """Templates of Mistral's models refuse a text right after results."""
    asked = said(CHAT, "x", call("call00001"))

    sent = items(CHAT, adapters[CHAT].request(prompt((QUESTION, asked, results(asked, note="Be brief.")))))

    assert sent[3:] == [
        {"role": "tool", "tool_call_id": "call00001", "content": "21C"},
        {"role": "assistant", "content": "Noted."},
        {"role": "user", "content": "Be brief."},
    ]


@pytest.mark.parametrize("protocol", [CHAT, MESSAGES])
def test_answer_that_nothing_follows_is_told_to_go_on(adapters: dict[str, Adapter], protocol: str) -> None:
    sent = items(protocol, adapters[protocol].request(prompt(SKEWED["nothing after an answer"])))

    content = [{"type": "text", "text": "Go on."}] if protocol == MESSAGES else "Go on."
    assert sent[-1] == {"role": "user", "content": content}


ROOT_KEYS = ("anyOf", "oneOf", "allOf", "enum", "const", "not", "$ref")


@pytest.mark.parametrize("protocol", ALL)
@pytest.mark.parametrize("key", ROOT_KEYS)
async def test_no_vendor_is_sent_what_it_refuses_at_the_top_of_a_schema(
    fake: FakeProvider, protocol: str, key: str
) -> None:
    either: JsonObject = {"required": ["text"]}
    values: dict[str, JsonValue] = {"enum": [{"text": "a"}], "const": {"text": "a"}, "not": either, "$ref": "#/$defs/a"}
    schema: JsonObject = {
        "type": "object",
        "properties": {"text": {"type": "string"}, "url": {"type": "string"}},
        "$defs": {"a": {"type": "object"}},
        key: values.get(key, [either, {"required": ["url"]}]),
    }
    adapter = ADAPTERS[protocol](fake.url)

    completion = await adapter.complete(prompt(tools=(tool("attach", schema),), model="fake-text"))

    await adapter.close()
    assert completion.message.text == "All done."
    sent = fake.requests[-1].json["tools"][0]
    sent = sent.get("function", sent)
    shown = sent.get("parameters") or sent["input_schema"]
    assert not {*ROOT_KEYS} & {*shown}
    assert shown["properties"] == {"text": {"type": "string"}, "url": {"type": "string"}}


async def test_arguments_under_other_names_reach_the_tool_under_its_own(fake: FakeProvider) -> None:
    find = tool("find", {"type": "object", "properties": {"filter[id]": {"type": "string"}}})
    adapter = ADAPTERS[MESSAGES](fake.url)
    fake.will(Answer(calls=(Call("find", '{"filter_id": "7"}', id="t1"),), reasoning=False), Answer(text="All done."))
    called = (await adapter.complete(prompt(tools=(find,)))).message

    conversation = Conversation((QUESTION, called, results(called)))
    await adapter.complete(prompt(conversation, tools=(find,)))

    await adapter.close()
    assert [part.arguments for part in called.calls] == ['{"filter[id]":"7"}']
    [block] = items(MESSAGES, fake.requests[-1].body)[1]["content"]
    assert block["input"] == {"filter_id": "7"}


@pytest.mark.parametrize(
    ("tools", "why"),
    [
        (
            tuple(tool(f"t{number}", {"type": "object"}) for number in range(129)),
            "openai takes at most 128 tools, and this agent has 129, built-in ones included",
        ),
        ((tool("find", {"$ref": "#"}),), "tool 'find': '$ref' at the top of its schema leads nowhere: '#'"),
    ],
)
async def test_request_that_would_be_refused_is_not_made(
    fake: FakeProvider, tools: tuple[ToolDefinition, ...], why: str
) -> None:
    """Of an agent that was pinned before its file was checked for this."""
    adapter = ADAPTERS[RESPONSES](fake.url)

    with pytest.raises(ApplicationError) as caught:
        await adapter.complete(prompt(tools=tools))

    await adapter.close()
    assert caught.value.message == f"'openai:fake' was not asked: {why}"
    assert (caught.value.type, caught.value.non_retryable, fake.requests) == ("ModelRejected", True, [])


@pytest.mark.parametrize(
    ("most", "thinking"),
    [
        (8000, {"type": "enabled", "budget_tokens": 2000}),
        (2256, {"type": "enabled", "budget_tokens": 2000}),
        (2000, {"type": "enabled", "budget_tokens": 1744}),
        (1280, {"type": "enabled", "budget_tokens": 1024}),
        (1279, {"type": "disabled"}),
        (256, {"type": "disabled"}),
    ],
)
def test_thinking_leaves_room_for_an_answer_that_a_budget_shortens(
    adapters: dict[str, Adapter], most: int, thinking: JsonObject
) -> None:
    wanted: JsonObject = {"thinking": {"type": "enabled", "budget_tokens": 2000}}

    shortened = replace(prompt(params=wanted), max_output_tokens=most)
    body = json.loads(adapters[MESSAGES].request(shortened))

    assert (body["max_tokens"], body["thinking"]) == (most, thinking)
