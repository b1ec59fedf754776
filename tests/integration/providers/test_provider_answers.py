"""What the adapters read from an answer: parts, native items, finish, usage and cost."""

import json
from decimal import Decimal

import pytest

from mandate.activities.providers.base import Completion
from mandate.activities.providers.openai_chat import OpenAiChat
from mandate.activities.providers.service import Service
from mandate.activities.transcript.conversation import Conversation
from mandate.workflows.contracts.model import Finish
from mandate.workflows.contracts.transcript import CallPart, OpaquePart, RefusalPart, TextPart
from tests.support.fake_provider.behaviours import CHAT, MESSAGES, RESPONSES, Answer, Body, Call
from tests.support.fake_provider.server import FakeProvider
from tests.support.prompts import KEY, QUESTION, Adapter, prompt, results

ALL = (RESPONSES, CHAT, MESSAGES)
SHORT = "the answer was cut at the output limit of 4096 tokens"


async def read(adapter: Adapter, fake: FakeProvider, body: str) -> Completion:
    fake.will(Body(body.encode(), content_type="application/json"))
    return await adapter.complete(prompt())


@pytest.mark.parametrize("protocol", ALL)
async def test_parts_and_native_items(adapters: dict[str, Adapter], fake: FakeProvider, protocol: str) -> None:
    fake.will(Answer(text="Hm.", calls=(Call("note", '{"b": 1, "a": 2}', id="c1"),)))

    message = (await adapters[protocol].complete(prompt(model="asked"))).message

    thinking = "thinking" if protocol == MESSAGES else "reasoning"
    assert message.parts == (
        OpaquePart(kind="opaque", type=thinking),
        TextPart(kind="text", text="Hm."),
        CallPart(kind="call", call_id="c1", tool="note", arguments='{"b": 1, "a": 2}'),
    )
    assert (message.protocol, message.model) == (protocol, "asked")
    native = json.loads(f"[{message.native}]")
    if protocol == CHAT:
        call = {"id": "c1", "type": "function", "function": {"name": "note", "arguments": '{"b": 1, "a": 2}'}}
        assert native == [
            {"role": "assistant", "content": "Hm.", "tool_calls": [call], "reasoning_content": "let me think"}
        ]
    else:
        kinds = {
            RESPONSES: ["reasoning", "message", "function_call"],
            MESSAGES: ["thinking", "text", "tool_use"],
        }[protocol]
        assert [item["type"] for item in native] == kinds


REFUSED = "the model refused: I cannot help with that."
FILTERED = "the model refused: its content filter withheld the answer"


@pytest.mark.parametrize(
    ("protocol", "behaviour", "finish", "problem"),
    [
        *((protocol, "text", Finish.COMPLETE, None) for protocol in ALL),
        *((protocol, "empty", Finish.EMPTY, "the answer was empty") for protocol in ALL),
        *((protocol, "truncated", Finish.TRUNCATED, SHORT) for protocol in ALL),
        *((protocol, "refuse", Finish.REFUSED, REFUSED) for protocol in ALL),
        *((protocol, "unknown-item", Finish.COMPLETE, None) for protocol in ALL),
        (RESPONSES, "filtered", Finish.REFUSED, FILTERED),
        (CHAT, "filtered", Finish.REFUSED, FILTERED),
        (MESSAGES, "filtered", Finish.REFUSED, "the model refused: cyber"),
        (MESSAGES, "pause", Finish.PAUSED, None),
        (RESPONSES, "truncated-calls", Finish.TRUNCATED, SHORT),
        (CHAT, "truncated-calls", Finish.TRUNCATED, SHORT),
    ],
)
async def test_finish(
    adapters: dict[str, Adapter], protocol: str, behaviour: str, finish: Finish, problem: str | None
) -> None:
    completion = await adapters[protocol].complete(prompt(model=f"fake-{behaviour}"))

    assert (completion.finish, completion.problem) == (finish, problem)


@pytest.mark.parametrize("protocol", [RESPONSES, CHAT])
async def test_cut_call_is_kept_as_it_is(adapters: dict[str, Adapter], protocol: str) -> None:
    message = (await adapters[protocol].complete(prompt(model="fake-truncated-calls"))).message

    assert [call.arguments for call in message.calls] == ['{"city":"Ro']


async def test_refused_answer_makes_no_calls(adapters: dict[str, Adapter], fake: FakeProvider) -> None:
    fake.will(Answer(calls=(Call("note"),), stop="filtered"))

    completion = await adapters[CHAT].complete(prompt())

    assert completion.finish is Finish.REFUSED
    assert completion.message.calls == ()
    assert completion.message.native is None


async def test_refusal_is_a_part(adapters: dict[str, Adapter]) -> None:
    message = (await adapters[RESPONSES].complete(prompt(model="fake-refuse"))).message

    assert RefusalPart(kind="refusal", text="I cannot help with that.") in message.parts
    assert message.text == ""


@pytest.mark.parametrize("arguments", ['{"n": 1e999}', '{"a": 1, "a": 2}', '{"n": 12345678901234567890123}', "[1]"])
@pytest.mark.parametrize("protocol", ALL)
async def test_odd_arguments_pass_through_as_written(
    adapters: dict[str, Adapter], fake: FakeProvider, protocol: str, arguments: str
) -> None:
    fake.will(Answer(calls=(Call("note", arguments),)))

    first = await adapters[protocol].complete(prompt(model="fake-odd"))
    conversation = Conversation((QUESTION, first.message, results(first.message)))
    again = await adapters[protocol].complete(prompt(conversation, model="fake-odd"))

    assert [call.arguments for call in first.message.calls] == [arguments]
    assert again.message.text == "All done."


@pytest.mark.parametrize("protocol", ALL)
@pytest.mark.parametrize("arguments", ['{"n": NaN}', '{"n": -Infinity}', '{"n": ' + "9" * 5000 + "}"])
async def test_numbers_that_json_lacks_do_not_break_the_next_request(
    adapters: dict[str, Adapter], fake: FakeProvider, protocol: str, arguments: str
) -> None:
    fake.will(Answer(calls=(Call("note", arguments),)), Answer(text="All done."))

    first = await adapters[protocol].complete(prompt())
    conversation = Conversation((QUESTION, first.message, results(first.message)))

    assert [call.arguments for call in first.message.calls] == [arguments]
    if "9999" not in arguments:  # our fake's own JSON reader refuses that one
        assert (await adapters[protocol].complete(prompt(conversation))).message.text == "All done."


async def test_call_id_that_a_server_repeats_is_told_apart(adapters: dict[str, Adapter], fake: FakeProvider) -> None:
    again = Answer(calls=(Call("note", id="call_0"), Call("note", id="call_0"), Call("note", id="")))
    fake.will(again, again, Answer(text="All done."))
    conversation = Conversation((QUESTION,))

    for _ in range(2):
        answer = (await adapters[CHAT].complete(prompt(conversation))).message
        conversation = conversation.extend(answer, results(answer))

    ids = [call.call_id for index in (1, 3) for call in conversation[index].calls]  # type: ignore[union-attr]
    assert ids == ["call_0", "call_0-1-2", "call-1-3", "call_0-3-1", "call_0-3-2", "call-3-3"]
    await adapters[CHAT].complete(prompt(conversation))
    fake.will(Answer(text="All done."))
    await adapters[MESSAGES].complete(prompt(conversation))


async def test_reasoning_that_is_not_encrypted_is_not_sent_back(
    adapters: dict[str, Adapter], fake: FakeProvider
) -> None:
    output = (
        '[{"type":"reasoning","id":"rs_1","summary":[]},'
        '{"type":"function_call","id":"fc_1","call_id":"c","name":"note","arguments":"{}"}]'
    )

    completion = await read(adapters[RESPONSES], fake, f'{{"status":"completed","output":{output}}}')

    assert completion.message.native is None
    assert len(completion.message.calls) == 1


async def test_reasoning_without_an_answer_is_not_sent_back(adapters: dict[str, Adapter], fake: FakeProvider) -> None:
    output = '[{"type":"reasoning","id":"rs_1","summary":[],"encrypted_content":"E"}]'
    reason = '{"reason":"max_output_tokens"}'

    completion = await read(
        adapters[RESPONSES], fake, f'{{"status":"incomplete","incomplete_details":{reason},"output":{output}}}'
    )

    assert completion.message.native is None
    assert completion.finish is Finish.TRUNCATED


async def test_empty_text_blocks_are_not_sent_back(adapters: dict[str, Adapter], fake: FakeProvider) -> None:
    content = '[{"type":"text","text":""},{"type":"tool_use","id":"t1","name":"note","input":{}}]'

    completion = await read(adapters[MESSAGES], fake, f'{{"content":{content},"stop_reason":"tool_use"}}')

    assert completion.message.native == '{"type":"tool_use","id":"t1","name":"note","input":{}}'


async def test_arguments_given_as_an_object(adapters: dict[str, Adapter], fake: FakeProvider) -> None:
    """Some servers do so; others would refuse it in the next request."""
    calls = '[{"id":"c","function":{"name":"note","arguments":{"a":1}}}]'

    completion = await read(adapters[CHAT], fake, f'{{"choices":[{{"message":{{"tool_calls":{calls}}}}}]}}')

    assert completion.message.calls[0].arguments == '{"a":1}'
    assert completion.message.native is None


async def test_lone_surrogates_are_replaced(adapters: dict[str, Adapter], fake: FakeProvider) -> None:
    completion = await read(adapters[CHAT], fake, '{"choices":[{"message":{"content":"a\\ud800b"}}]}')

    assert completion.message.text == "a?b"


USAGE = {RESPONSES: (100, 64, 10, 20, 12), CHAT: (100, 64, 0, 20, 12), MESSAGES: (100, 64, 10, 20, 12)}


@pytest.mark.parametrize("protocol", ALL)
async def test_usage(adapters: dict[str, Adapter], fake: FakeProvider, protocol: str) -> None:
    fake.will(Answer(text="Done."))

    usage = (await adapters[protocol].complete(prompt(model="no-price"))).usage

    assert (
        usage.input_tokens,
        usage.cached_input_tokens,
        usage.cache_write_tokens,
        usage.output_tokens,
        usage.reasoning_tokens,
    ) == USAGE[protocol]
    assert (usage.model_calls, usage.unpriced_calls, usage.cost_usd) == (1, 1, Decimal(0))


@pytest.mark.parametrize("protocol", ALL)
async def test_missing_usage_is_an_unknown_price(adapters: dict[str, Adapter], protocol: str) -> None:
    usage = (await adapters[protocol].complete(prompt(model="fake-no-usage"))).usage

    assert (usage.input_tokens, usage.output_tokens, usage.unpriced_calls) == (0, 0, 1)


@pytest.mark.parametrize(
    ("protocol", "model", "cost"),
    [
        # (26 * 5 + 64 * 0.5 + 10 * 5 + 20 * 30) / 1e6: this model has no price for cache writes
        (RESPONSES, "gpt-5.5", "0.000812"),
        # (26 * 2 + 64 * 0.1 + 4 * 2.5 + 6 * 4 + 20 * 10) / 1e6: six of the written tokens are kept for an hour
        (MESSAGES, "claude-sonnet-5-5", "0.0002924"),
    ],
)
async def test_cost(adapters: dict[str, Adapter], fake: FakeProvider, protocol: str, model: str, cost: str) -> None:
    fake.will(Answer(text="Done."))

    usage = (await adapters[protocol].complete(prompt(model=model))).usage

    assert (usage.cost_usd, usage.unpriced_calls) == (Decimal(cost), 0)


async def test_known_provider_behind_chat_has_its_prices(fake: FakeProvider) -> None:
    fake.will(Answer(text="Done."))
    adapter = OpenAiChat(service=Service("openai", f"{fake.url}/v1", KEY, prices_as="openai"))

    usage = (await adapter.complete(prompt(model="gpt-5.5"))).usage

    # The prices of gpt-5.5 as above, without a price for cache writes.
    assert usage.cost_usd == Decimal("0.000812")
