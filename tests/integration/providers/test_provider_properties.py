"""Any conversation makes a request that its vendor takes, whoever said what in it."""

import copy
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from temporalio.exceptions import ApplicationError

from mandate.activities.providers.errors import Peer
from mandate.activities.providers.rawjson import Raw
from mandate.activities.transcript.conversation import Conversation
from mandate.workflows.contracts.transcript import AssistantMessage, Message, ResultPart, TextPart, UserMessage
from tests.support.fake_provider import rules
from tests.support.fake_provider.behaviours import CHAT, MESSAGES, RESPONSES
from tests.support.prompts import ADAPTERS, QUESTION, prompt, told

ADAPTER = {protocol: make("http://127.0.0.1:1") for protocol, make in ADAPTERS.items()}
OTHER = {protocol: make("http://127.0.0.1:1") for protocol, make in ADAPTERS.items()}
"""Of another worker."""
PEER = Peer("x", "m", "http://127.0.0.1:1", 1, secrets=())
VERSION = {"anthropic-version": "2026-10-21"}

texts = st.sampled_from(["", " ", "Hm.", 'Ünï\n"quoted" \\ \u2028', "x" * 50])
arguments = st.sampled_from(["{}", "", '{"city": "Rö', "[1]", '{"n": NaN}', '{"n": 1e999}', '{"a":1,"a":2}', "null"])
tools = st.sampled_from(["note", "get_weather", "no.such:tool", "", "x" * 80])


@st.composite
def conversations(draw: st.DrawFn) -> Sequence[Message]:
    """Answers of all protocols and models with rebuilt parts, calls with and without results, in any order."""
    messages: list[Message] = [QUESTION]
    ids: list[str] = []
    for _ in range(draw(st.integers(0, 8))):
        if draw(st.booleans()):
            parts: list[object] = []
            for _ in range(draw(st.integers(0, 3))):
                kind = draw(st.sampled_from(["text", "refusal", "call", "opaque"]))
                if kind == "call":
                    call_id = draw(st.sampled_from(["call_{}", "functions.x:{}", "{}" + "y" * 60])).format(len(ids))
                    ids.append(call_id)
                    part = {"call_id": call_id, "tool": draw(tools), "arguments": draw(arguments)}
                else:
                    part = {"type": "thinking"} if kind == "opaque" else {"text": draw(texts)}
                parts.append({"kind": kind, **part})
            protocol = draw(st.sampled_from([RESPONSES, CHAT, MESSAGES]))
            answer = {"role": "assistant", "protocol": protocol, "model": "fake", "parts": parts}
            messages.append(AssistantMessage.model_validate(answer))
        else:
            answered = draw(st.lists(st.sampled_from(ids or ["lost"]), max_size=3))
            results = [
                ResultPart(kind="result", call_id=each, tool="note", text=draw(texts), error=draw(st.booleans()))
                for each in answered
            ]
            said = [TextPart(kind="text", text=draw(texts)) for _ in range(draw(st.integers(0, 2)))]
            messages.append(UserMessage(role="user", parts=tuple(draw(st.permutations([*results, *said])))))
    return (*messages, told("And now?"))


words = st.sampled_from(["", " ", "Hm.", "So. \n", "Osl\u00f3 \U0001f600", "half \ud83d", "\x00", "x" * 200])
"""Of models, people and tools."""
odd = st.sampled_from(
    [None, "", 5, 1.5, True, ["x"], {"a": 1}, [], {}, "x", "half \ud83d", -1, 1e300, [None], [[1]]]
).map(copy.deepcopy)
whole = st.sampled_from([{}, {"text": "a"}, {"text": "half \ud83d"}, {"deep": [{"a": [1, 2.5, None]}]}])
ids = st.sampled_from(["call_1", "call_1", "functions.x:0", "", None, 7, "y" * 60])
names = st.sampled_from(["note", "note", "get_weather", "no.such:tool", "", None, "x" * 80])


@st.composite
def answers(draw: st.DrawFn, protocol: str) -> dict[str, Any]:
    """Bodies of answers as vendors give them, with all that has been seen in them."""
    blocks = draw(st.lists(st.sampled_from(["text", "thought", "unsigned", "call", "unknown", "bare"]), max_size=4))
    texts, calls = [draw(words) for _ in blocks], []
    said: list[Any] = []
    for kind, text in zip(blocks, texts, strict=True):
        if kind == "call":
            written = draw(st.one_of(whole, whole.map(json.dumps), odd, st.just('{"text": "Ro')))
            calls.append((draw(ids), draw(names), written))
        said.append(_block(protocol, kind, text, calls))
    said = [block for block in said if block is not None]
    usage = draw(st.one_of(odd, st.fixed_dictionaries({"input_tokens": odd, "prompt_tokens": odd})))
    return _body(protocol, said, calls, draw(st.sampled_from(["whole", "whole", "cut"])), usage)


def _block(protocol: str, kind: str, text: str, calls: list[tuple[Any, Any, Any]]) -> Any:
    if kind == "bare":
        return text
    if kind == "unknown":
        return {"type": "brand_new", "text": text}
    if protocol == MESSAGES:
        return {
            "text": {"type": "text", "text": text},
            "thought": {"type": "thinking", "thinking": text, "signature": "c2ln"},
            "unsigned": {"type": "thinking", "thinking": text},
            "call": {
                "type": "tool_use",
                **dict(zip(("id", "name", "input"), calls[-1] if calls else (), strict=False)),
            },
        }[kind]
    if protocol == CHAT:
        return None if kind == "call" else {"type": "text" if kind == "text" else "thinking", "text": text}
    call = dict(zip(("call_id", "name", "arguments"), calls[-1] if calls else (), strict=False))
    return {
        "text": {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]},
        "thought": {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "E"},
        "unsigned": {"type": "reasoning", "id": "r", "summary": []},
        "call": {"type": "function_call", **call},
    }[kind]


def _body(protocol: str, said: list[Any], calls: list[tuple[Any, Any, Any]], end: str, usage: object) -> dict[str, Any]:
    if protocol == RESPONSES:
        return {"status": "completed" if end == "whole" else "incomplete", "output": said, "usage": usage}
    if protocol == MESSAGES:
        stop = "end_turn" if end == "whole" else "max_tokens"
        return {"type": "message", "content": said, "stop_reason": stop, "usage": usage}
    texts = [block.get("text") for block in said if isinstance(block, dict) and block["type"] == "text"]
    message = {
        "content": texts[0] if len(said) == len(texts) == 1 else said,
        "tool_calls": [
            {"id": call_id, "function": {"name": name, "arguments": written}} for call_id, name, written in calls
        ],
    }
    stop = "stop" if end == "whole" else "length"
    return {"choices": [{"message": message, "finish_reason": stop}], "usage": usage}


def read(protocol: str, body: object, conversation: Conversation, model: str = "fake") -> AssistantMessage:
    raw = Raw.read(json.dumps(body))
    return ADAPTER[protocol].read_answer(prompt(conversation, model=model), raw, PEER).message


@st.composite
def runs(draw: st.DrawFn) -> Sequence[Conversation]:
    """Conversations before each model call, as the runtime holds them: each call has its result, people may speak."""
    conversation = Conversation((told(draw(words.filter(str.strip))),))
    states = [conversation]
    for _ in range(draw(st.integers(1, 5))):
        protocol, model = draw(st.sampled_from([RESPONSES, CHAT, MESSAGES])), draw(st.sampled_from(["one", "two"]))
        answer = read(protocol, draw(answers(protocol)), conversation, model)
        results = [
            ResultPart(kind="result", call_id=each.call_id, tool=each.tool, text=draw(words), error=draw(st.booleans()))
            for each in answer.calls
        ]
        said = [TextPart(kind="text", text=draw(words)) for _ in range(draw(st.integers(0, 2)))]
        conversation = conversation.extend(answer, *([UserMessage(role="user", parts=(*results, *said))]))
        states.append(conversation)
    return states


@pytest.mark.parametrize("protocol", [RESPONSES, CHAT, MESSAGES])
@given(states=runs(), model=st.sampled_from(["one", "two"]))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_run_is_sent_as_its_vendor_takes_it(protocol: str, states: Sequence[Conversation], model: str) -> None:
    """Each request is taken, is the same bytes from a worker that knows nothing, and begins like the one before it."""
    before = b""
    for conversation in states:
        body = ADAPTER[protocol].request(prompt(conversation, model=model))

        rules.check(protocol, json.loads(body), VERSION)
        cold = Conversation(tuple(conversation))
        assert OTHER[protocol].request(prompt(cold, model=model)) == body
        assert body.startswith(before)
        before = _stable(protocol, body)


def _stable(protocol: str, body: bytes) -> bytes:
    """What of a request begins the next one: all before the last answer, after which more may be said."""
    text, key = body.decode(), "input" if protocol == RESPONSES else "messages"
    messages = Raw.read(text).get(key)
    roles = [message.get("role").string for message in messages.items]
    over = len(roles)
    if protocol != RESPONSES:
        over = next((index for index in reversed(range(over)) if roles[index] == "assistant"), 0)
    kept = ",".join(message.text for message in messages.items[:over])
    return (text[: text.index(messages.text) + 1] + kept).encode()


@pytest.mark.parametrize("protocol", [RESPONSES, CHAT, MESSAGES])
@given(data=st.data())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_a_server_answers_is_an_answer_or_a_failure(protocol: str, data: st.DataObject) -> None:
    body: Any = json.loads(json.dumps(data.draw(answers(protocol))))
    for _ in range(data.draw(st.integers(0, 3))):
        place, key = _draw_place(data, body)
        place[key] = data.draw(odd)

    try:
        message = read(protocol, body, Conversation((QUESTION,)))
    except ApplicationError as error:
        failure = error
    else:
        assert AssistantMessage.model_validate_json(message.model_dump_json()) == message
        return
    assert failure.type in {"ModelRejected", "ModelUnavailable", "ContextTooLong"}
    assert failure.message.startswith("'x:m' ")


def _draw_place(data: st.DataObject, body: Any) -> tuple[Any, Any]:
    """A place in `body`, at any depth."""
    while True:
        key = data.draw(st.sampled_from(sorted(body) if isinstance(body, dict) else range(len(body))))
        inner = body[key]
        if not inner or not isinstance(inner, dict | list) or data.draw(st.booleans()):
            return body, key
        body = inner


@pytest.mark.parametrize("protocol", [RESPONSES, CHAT, MESSAGES])
@given(messages=conversations())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_conversation_is_sent_straight(protocol: str, messages: Sequence[Message]) -> None:
    body = ADAPTER[protocol].request(prompt(messages))

    rules.check(protocol, json.loads(body), VERSION)


@pytest.mark.parametrize("protocol", [RESPONSES, CHAT, MESSAGES])
@given(messages=conversations(), split=st.integers(1, 8))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_grown_conversation_makes_the_bytes_of_a_whole_one(
    protocol: str, messages: Sequence[Message], split: int
) -> None:
    grown = Conversation(messages[:split])
    ADAPTER[protocol].request(prompt(grown))
    for message in messages[split:]:
        grown = grown.extend(message)
        ADAPTER[protocol].request(prompt(grown))

    assert ADAPTER[protocol].request(prompt(grown)) == ADAPTER[protocol].request(prompt(messages))
