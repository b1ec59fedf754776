"""Any conversation makes a request that its vendor takes, whoever said what in it."""

import json
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mandate.activities.transcript.conversation import Conversation
from mandate.workflows.contracts.transcript import AssistantMessage, Message, ResultPart, TextPart, UserMessage
from tests.support.fake_provider import rules
from tests.support.fake_provider.behaviours import CHAT, MESSAGES, RESPONSES
from tests.support.prompts import ADAPTERS, QUESTION, prompt, told

ADAPTER = {protocol: make("http://127.0.0.1:1") for protocol, make in ADAPTERS.items()}
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
