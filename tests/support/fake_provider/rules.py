"""What the vendors refuse with 400 (and other fakes accept), as far as a conversation with tools can break it."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from tests.support.fake_provider.behaviours import CHAT, MESSAGES, RESPONSES

Json = dict[str, Any]

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ANTHROPIC_ID = re.compile(r"[A-Za-z0-9_-]+")
_SAMPLING = ("temperature", "top_p", "top_k")
_COMMON = {"model", "tools", "tool_choice", "stream", "metadata", "service_tier"}
_KNOWN = {
    RESPONSES: _COMMON
    | {"input", "instructions", "max_output_tokens", "store", "include", "prompt_cache_key", "text", "reasoning"}
    | {"parallel_tool_calls", "truncation"},
    CHAT: _COMMON
    | {"messages", "max_completion_tokens", "max_tokens", "n", "stop", "user", "response_format", "stream_options"}
    | {"parallel_tool_calls", "reasoning_effort", "prompt_cache_key"},
    MESSAGES: _COMMON
    | {"messages", "system", "max_tokens", "cache_control", "thinking", "output_config", "stop_sequences"},
}


class Refused(Exception):
    """A request that the vendor would answer with 400."""


def check(protocol: str, body: Json, headers: Mapping[str, str]) -> None:
    """Raises `Refused` with the vendor's complaint."""
    _demand(isinstance(body.get("model"), str) and body["model"], "model: field required")
    for name in body:
        _demand(name not in _SAMPLING, f"{name}: unsupported parameter")
        _demand(name in _KNOWN[protocol], f"Unknown parameter: '{name}'")
    {RESPONSES: _responses, CHAT: _chat, MESSAGES: _messages}[protocol](body)
    if protocol == MESSAGES:
        _demand("anthropic-version" in headers, "anthropic-version: header is required")


def _demand(condition: object, complaint: str) -> None:
    if not condition:
        raise Refused(complaint)


def _schema(schema: object, where: str) -> None:
    _demand(isinstance(schema, dict) and schema.get("type") == "object", f"{where}: must be of type object")
    assert isinstance(schema, dict)
    _demand("properties" in schema, f"{where}: object schema missing properties")
    _demand("$schema" not in schema, f"{where}: $schema is not permitted")


def _responses(body: Json) -> None:
    for index, tool in enumerate(body.get("tools", ())):
        _demand(tool.get("type") == "function" and "function" not in tool, f"tools[{index}]: wrong shape")
        _demand(_NAME.fullmatch(tool["name"]), f"tools[{index}].name: does not match")
        _demand(isinstance(tool.get("strict"), bool), f"tools[{index}].strict: required")
        _schema(tool.get("parameters"), f"tools[{index}].parameters")
    items = body.get("input")
    _demand(isinstance(items, list) and items, "input: required")
    assert isinstance(items, list)
    stored = body.get("store", True)
    calls: dict[str, bool] = {}
    for index, item in enumerate(items):
        kind = item.get("type", "message")
        where = f"input[{index}]"
        if kind == "reasoning":
            _demand(stored or item.get("encrypted_content"), f"Item '{item.get('id')}' not found")
            following = items[index + 1].get("type", "message") if index + 1 < len(items) else None
            _demand(
                following not in (None, "function_call_output") and items[index + 1].get("role") != "user",
                f"Item '{item.get('id')}' of type 'reasoning' was provided without its required following item",
            )
        elif kind == "function_call":
            _demand(0 < len(item["call_id"]) <= 64, f"{where}.call_id: 1 to 64 characters")
            _demand(_NAME.fullmatch(item["name"]), f"{where}.name: does not match")
            _demand(isinstance(item["arguments"], str), f"{where}.arguments: must be a string")
            calls[item["call_id"]] = False
        elif kind == "function_call_output":
            _demand(calls.get(item["call_id"]) is False, f"No tool call found for call_id {item['call_id']}")
            calls[item["call_id"]] = True
        elif kind == "message":
            _demand(item.get("role") in ("user", "assistant"), f"{where}.role: invalid")
            if item["role"] == "user":
                _demand(all(calls.values()), f"No tool output found for function call {_open(calls)}")
                _demand(all(part["type"] == "input_text" for part in item["content"]), f"{where}: wrong content")
    _demand(all(calls.values()), f"No tool output found for function call {_open(calls)}")


def _open(calls: Mapping[str, bool]) -> str:
    return ", ".join(call for call, answered in calls.items() if not answered)


def _chat(body: Json) -> None:
    for index, tool in enumerate(body.get("tools", ())):
        function = tool["function"]
        _demand(_NAME.fullmatch(function["name"]), f"tools[{index}].function.name: does not match")
        _schema(function.get("parameters"), f"tools[{index}].function.parameters")
    messages = body.get("messages")
    _demand(isinstance(messages, list) and messages, "messages: required")
    assert isinstance(messages, list)
    expected: list[str] = []
    before = "system"
    for index, message in enumerate(messages):
        role, where = message.get("role"), f"messages[{index}]"
        _demand(role in ("system", "user", "assistant", "tool"), f"{where}.role: invalid")
        _demand(role != "system" or index == 0, f"{where}: the system message must be the first")
        if role == "tool":
            _demand(message["tool_call_id"] in expected, f"{where}: 'tool' must follow its 'tool_calls'")
            expected.remove(message["tool_call_id"])
        else:
            _demand(not expected, f"{where}: no result for {expected}")
            _demand(role != "user" or before != "user", f"{where}: roles must alternate user/assistant")
        _demand(role != "user" or message.get("content"), f"{where}.content: empty")
        if role == "assistant":
            expected = _chat_calls(message, where)
        before = role
    _demand(not expected, f"no result for {expected}")


def _chat_calls(message: Json, where: str) -> list[str]:
    calls = message.get("tool_calls")
    _demand(calls is None or calls, f"{where}.tool_calls: [] is too short")
    _demand(message.get("content") or calls, f"{where}: content or tool_calls is required")
    for call in calls or ():
        _demand(0 < len(call["id"]) <= 64, f"{where}: call id of 1 to 64 characters")
        _demand(_NAME.fullmatch(call["function"]["name"]), f"{where}: function name does not match")
        try:
            _demand(isinstance(json.loads(call["function"]["arguments"]), dict), f"{where}: arguments are no object")
        except ValueError as error:
            raise Refused(f"{where}: arguments: {error}") from None
    return [call["id"] for call in calls or ()]


def _messages(body: Json) -> None:
    _demand(isinstance(body.get("max_tokens"), int) and body["max_tokens"] > 0, "max_tokens: Field required")
    _demand(body.get("system", "x"), "system: text content blocks must be non-empty")
    for index, tool in enumerate(body.get("tools", ())):
        _demand(re.fullmatch(r"[A-Za-z0-9_-]{1,128}", tool["name"]), f"tools.{index}.name: does not match")
        _schema(tool.get("input_schema"), f"tools.{index}.input_schema")
    messages = body.get("messages")
    _demand(isinstance(messages, list) and messages, "messages: at least one message is required")
    assert isinstance(messages, list)
    expected: list[str] = []
    seen: set[str] = set()
    for index, message in enumerate(messages):
        where = f"messages.{index}"
        _demand(message.get("role") == ("user", "assistant")[index % 2], f"{where}: roles must alternate, user first")
        blocks = message.get("content")
        _demand(isinstance(blocks, list) and blocks, f"{where}: content must be non-empty")
        assert isinstance(blocks, list)
        _texts(blocks, where)
        if message["role"] == "user":
            _results(blocks, expected, where)
        else:
            expected = [block["id"] for block in blocks if block["type"] == "tool_use"]
            _uses(blocks, seen, where)
    last = messages[-1]
    paused = any(block["type"] == "server_tool_use" for block in last["content"])
    _demand(last["role"] == "user" or paused, "This model does not support assistant message prefill")


def _texts(blocks: Iterable[Json], where: str) -> None:
    for block in blocks:
        _demand(block["type"] != "text" or block["text"].strip(), f"{where}: text must contain non-whitespace text")


def _results(blocks: list[Json], expected: list[str], where: str) -> None:
    kinds = [block["type"] for block in blocks]
    _demand(kinds == sorted(kinds, key="text".__eq__), f"{where}: tool_result blocks must come first")
    found = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
    _demand(sorted(found) == sorted(expected), f"{where}: tool_use ids {expected} need tool_result blocks, got {found}")


def _uses(blocks: Iterable[Json], seen: set[str], where: str) -> None:
    for block in blocks:
        if block["type"] != "tool_use":
            continue
        _demand(_ANTHROPIC_ID.fullmatch(block["id"]), f"{where}: id {block['id']!r} does not match")
        _demand(block["id"] not in seen, f"{where}: tool_use ids must be unique")
        _demand(re.fullmatch(r"[A-Za-z0-9_-]{1,128}", block["name"]), f"{where}: name does not match")
        _demand(isinstance(block["input"], dict), f"{where}: input must be an object")
        seen.add(block["id"])
