"""The fake provider refuses what the vendors refuse, and runs benchmarks without state."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from mandate.activities.transcript.conversation import Conversation
from tests.support.fake_provider.behaviours import CHAT, MESSAGES, NAMED, RESPONSES, Answer, Behaviour
from tests.support.fake_provider.requests import Request
from tests.support.fake_provider.server import PATHS, FakeProvider
from tests.support.prompts import ADAPTERS, QUESTION, prompt, results, tool

HEADERS = {"authorization": "Bearer k", "anthropic-version": "2026-10-21", "content-type": "application/json"}
USER = {"role": "user", "content": "Hi"}
BLOCKS = {"role": "user", "content": [{"type": "text", "text": "Hi"}]}
INPUT = {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}


@pytest.fixture(scope="module")
async def server() -> AsyncIterator[FakeProvider]:
    async with FakeProvider() as fake:
        yield fake


async def post(url: str, protocol: str, body: dict[str, Any]) -> httpx2.Response:
    path = next(path for path, spoken in PATHS.items() if spoken == protocol)
    async with httpx2.AsyncClient(trust_env=False) as client:
        return await client.post(url + path, headers=HEADERS, content=json.dumps(body))


def _function_call(call_id: str, name: str = "t", arguments: str = "{}") -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments}


def _chat_call(call_id: str, arguments: str = "{}", name: str = "t") -> dict[str, Any]:
    call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def _use(call_id: str, name: str = "t") -> dict[str, Any]:
    return {"role": "assistant", "content": [{"type": "tool_use", "id": call_id, "name": name, "input": {}}]}


def _used(call_id: str, *more: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": [*more, {"type": "tool_result", "tool_use_id": call_id, "content": "x"}]}


def _block(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _output(call_id: str) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": "x"}


ROOT = {"anyOf": [{"required": ["a"]}]}
LIST = {"properties": {"a": {"type": "array"}}}
PATTERN = {"properties": {"a": {"pattern": r"^\p{L}+$"}}}
RESULT = {"role": "tool", "tool_call_id": "a", "content": "x"}
TUPLE = {"properties": {"a": {"items": [{}]}}}
ASKED = {"max_tokens": 9, "messages": [BLOCKS]}
UNSIGNED = {"type": "thinking", "thinking": "x"}
SIGNED = {**UNSIGNED, "signature": "c2ln"}


def _said(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


def _tools(protocol: str, *schemas: dict[str, Any]) -> list[dict[str, Any]]:
    whole: list[dict[str, Any]] = [{"type": "object", "properties": {}, **schema} for schema in schemas]
    if protocol == MESSAGES:
        return [{"name": f"t{index}", "input_schema": schema} for index, schema in enumerate(whole)]
    flat = [{"name": f"t{index}", "parameters": schema, "strict": False} for index, schema in enumerate(whole)]
    if protocol == RESPONSES:
        return [{"type": "function", **tool} for tool in flat]
    return [{"type": "function", "function": tool} for tool in flat]


@pytest.mark.parametrize(
    ("protocol", "body", "complaint"),
    [
        (RESPONSES, {"input": [INPUT, _function_call("a")]}, "No tool output found for function call a"),
        (RESPONSES, {"input": [INPUT, _output("a")]}, "No tool call"),
        (RESPONSES, {"input": [INPUT, _function_call("a" * 65)]}, "call_id: 1 to 64"),
        (RESPONSES, {"input": [INPUT, _function_call("a", "no.dots")]}, "name: does not match"),
        (RESPONSES, {"input": [INPUT], "temperature": 1}, "temperature: unsupported"),
        (RESPONSES, {"input": [INPUT], "frobnicate": 1}, "Unknown parameter: 'frobnicate'"),
        (RESPONSES, {"input": [INPUT], "tools": [{"type": "function", "name": "t", "parameters": {}}]}, "strict"),
        (RESPONSES, {"input": [{"type": "reasoning", "id": "rs_1"}, INPUT], "store": False}, "'rs_1' not found"),
        (RESPONSES, {"input": [{"type": "reasoning", "id": "r", "encrypted_content": "E"}]}, "required following item"),
        (CHAT, {"messages": [USER, _chat_call("a")]}, "no result for ['a']"),
        (CHAT, {"messages": [USER, {"role": "tool", "tool_call_id": "a", "content": "x"}]}, "must follow"),
        (CHAT, {"messages": [USER, _chat_call("a", '{"x')]}, "arguments"),
        (CHAT, {"messages": [USER, _chat_call("a", name="no.dots")]}, "does not match"),
        (CHAT, {"messages": [USER, USER]}, "roles must alternate"),
        (CHAT, {"messages": [USER, {"role": "assistant", "content": "x", "tool_calls": []}]}, "too short"),
        (RESPONSES, {"input": [INPUT, _function_call("a", arguments="["), _output("a")]}, "Expecting value"),
        (RESPONSES, {"input": [INPUT, _function_call("a", arguments="5"), _output("a")]}, "from a mapping"),
        (RESPONSES, {"input": [INPUT], "instructions": "\ud83d"}, "no low surrogate in string"),
        (RESPONSES, {"input": [INPUT], "tools": _tools(RESPONSES, ROOT)}, "at the top level"),
        (RESPONSES, {"input": [INPUT], "tools": _tools(RESPONSES, *[{}] * 129)}, "maximum length 128, but got an"),
        (CHAT, {"messages": [USER], "tools": _tools(CHAT, ROOT)}, "at the top level"),
        (CHAT, {"messages": [USER], "tools": _tools(CHAT, {"enum": [{}]})}, "at the top level"),
        (CHAT, {"messages": [USER], "tools": _tools(CHAT, LIST)}, "In context=('properties', 'a'), array schema mis"),
        (CHAT, {"messages": [USER], "tools": _tools(CHAT, PATTERN)}, "is not a 'regex'"),
        (CHAT, {"messages": [USER, {"role": "assistant", "content": "x"}]}, "Expected last role User or Tool"),
        (CHAT, {"messages": [USER, *[{"role": "assistant", "content": "x"}] * 2, USER]}, "roles must alternate"),
        (MESSAGES, {**ASKED, "tools": _tools(MESSAGES, ROOT)}, "does not support oneOf, allOf, or anyOf at the top"),
        (MESSAGES, {**ASKED, "tools": _tools(MESSAGES, {"properties": {"$top": {}}})}, "Property keys should match"),
        (MESSAGES, {**ASKED, "tools": _tools(MESSAGES, TUPLE)}, "must match JSON Schema draft 2020-12"),
        (MESSAGES, {"max_tokens": 9, "messages": [BLOCKS, _said(SIGNED), BLOCKS]}, "cannot be `thinking`"),
        (MESSAGES, {"max_tokens": 9, "messages": [BLOCKS, _said(UNSIGNED, _block("x")), BLOCKS]}, "signature: Field"),
        (MESSAGES, {"max_tokens": 9, "messages": [BLOCKS, _said(_block("x "))]}, "trailing whitespace"),
        (MESSAGES, {"max_tokens": 9, "messages": [BLOCKS, _said(_block("x"), SIGNED, _block("x"))]}, "first block"),
        (CHAT, {"messages": [USER, _chat_call("a"), RESULT, USER]}, "Unexpected role 'user' after role 'tool'"),
        (MESSAGES, {"messages": [BLOCKS]}, "max_tokens: Field required"),
        (MESSAGES, {"max_tokens": 9, "messages": [BLOCKS], "top_p": 1}, "top_p: unsupported"),
        (MESSAGES, {"max_tokens": 9, "messages": [BLOCKS, BLOCKS]}, "roles must alternate"),
        (MESSAGES, {"max_tokens": 9, "messages": [_use("a")]}, "user first"),
        (MESSAGES, {"max_tokens": 9, "messages": [BLOCKS, _use("a"), BLOCKS]}, "need tool_result blocks"),
        (MESSAGES, {"max_tokens": 9, "messages": [_used("a")]}, "need tool_result blocks"),
        (MESSAGES, {"max_tokens": 9, "messages": [BLOCKS, _use("a"), _used("a", _block("Hi"))]}, "come first"),
        (MESSAGES, {"max_tokens": 9, "messages": [BLOCKS, _use("a:0")]}, "does not match"),
        (MESSAGES, {"max_tokens": 9, "messages": [BLOCKS, _use("a"), _used("a"), _use("a"), _used("a")]}, "unique"),
        (MESSAGES, {"max_tokens": 9, "messages": [{"role": "user", "content": [_block(" ")]}]}, "non-white"),
        (MESSAGES, {"max_tokens": 9, "messages": [BLOCKS, {"role": "assistant", "content": [_block("x")]}]}, "prefill"),
    ],
)  # fmt: skip
async def test_request_that_the_vendor_refuses(
    server: FakeProvider, protocol: str, body: dict[str, Any], complaint: str
) -> None:
    response = await post(server.url, protocol, {"model": "fake-text", **body})

    assert response.status_code == 400
    assert complaint in response.json()["error"]["message"]


async def test_request_without_a_key_is_refused(server: FakeProvider) -> None:
    async with httpx2.AsyncClient(trust_env=False) as client:
        response = await client.post(f"{server.url}/v1/responses", content=b"{}")

    assert response.status_code == 401


@pytest.mark.parametrize("protocol", [RESPONSES, CHAT, MESSAGES])
async def test_benchmark_run_is_read_off_the_models_name(server: FakeProvider, protocol: str) -> None:
    adapter = ADAPTERS[protocol](server.url)
    model = "bench.steps=5.args=64.tool=note.key=body"
    conversation = Conversation((QUESTION,))
    server.reset()
    sizes = []

    for _ in range(5):
        asked = prompt(conversation, model=model, tools=(tool("note"),))
        answer = (await adapter.complete(asked)).message
        assert (await adapter.complete(asked)).message == answer  # repeated after a crash
        sizes.append([len(call.arguments) for call in answer.calls])
        assert list(json.loads(answer.calls[0].arguments)) == ["body"]
        conversation = conversation.extend(answer, results(answer, "x" * 2000))
    last = (await adapter.complete(prompt(conversation, model=model, tools=(tool("note"),)))).message

    assert sizes == [[64]] * 5
    assert (last.text, last.calls) == ("All done.", ())
    assert (server.answered, server.requests) == (11, [])


async def test_scripted_behaviour_comes_before_the_name(server: FakeProvider) -> None:
    server.reset()
    server.will(Answer(text="First."))
    adapter = ADAPTERS[CHAT](server.url)

    texts = [(await adapter.complete(prompt(model="fake-text"))).message.text for _ in range(2)]

    assert texts == ["First.", "All done."]


async def test_script_answers_what_nothing_else_decides_and_what_follows_comes_after_the_answer() -> None:
    told = asyncio.Event()

    async def answer(request: Request) -> Behaviour:
        return Answer(text=request.json["messages"][-1]["content"][::-1], then=told.set)

    async with FakeProvider(script=answer) as fake:
        fake.will(NAMED["error"])
        asked = [{"role": "user", "content": "abc"}]
        answers = [await post(fake.url, CHAT, {"model": name, "messages": asked}) for name in ("m", "fake-text", "m")]
        await asyncio.wait_for(told.wait(), 10)

    assert [each.status_code for each in answers] == [500, 200, 200]
    texts = [each.json()["choices"][0]["message"]["content"] for each in answers[1:]]
    assert texts == ["All done.", "cba"]


async def test_runs_as_a_process() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.fake_provider", stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        url = (await asyncio.wait_for(process.stdout.readline(), 30)).decode().strip()

        response = await post(url, CHAT, {"model": "fake-text", "messages": [USER]})

        assert response.json()["choices"][0]["message"]["content"] == "All done."
    finally:
        process.terminate()
        await process.wait()
