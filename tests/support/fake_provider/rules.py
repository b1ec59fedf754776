"""What the vendors refuse with 400 (and other fakes accept), as far as a conversation with tools can break it.

The words are the vendors' own where reports of refused requests quote them. The rules know nothing of Mandate's own.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jsonschema_rs

from tests.support.fake_provider.behaviours import CHAT, MESSAGES, RESPONSES

Json = dict[str, Any]

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ANTHROPIC_KEY = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_OPENAI_ROOT = ("oneOf", "anyOf", "allOf", "enum", "const", "not")
_ANTHROPIC_ROOT = ("oneOf", "allOf", "anyOf")
_MOST_TOOLS = 128
_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_VALUES = ("enum", "const", "default", "examples")
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
    _no_half_pairs(body)
    _demand(isinstance(body.get("model"), str) and body["model"], "model: field required")
    for name in body:
        _demand(name not in _SAMPLING, f"{name}: unsupported parameter")
        _demand(name in _KNOWN[protocol], f"Unknown parameter: '{name}'")
    _demand(isinstance(body.get("stream", False), bool), "stream: Input should be a valid boolean")
    _demand(
        "stream_options" not in body or body.get("stream"),
        "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
    )
    {RESPONSES: _responses, CHAT: _chat, MESSAGES: _messages}[protocol](body)
    if protocol == MESSAGES:
        _demand("anthropic-version" in headers, "anthropic-version: header is required")


def _demand(condition: object, complaint: str) -> None:
    if not condition:
        raise Refused(complaint)


def _no_half_pairs(body: Json) -> None:
    try:
        json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise Refused(f"The request body is not valid JSON: no low surrogate in string: char {error.start}") from None


def _most_tools(tools: Sequence[Json]) -> None:
    """OpenAI's; a server of one's own takes more."""
    _demand(
        len(tools) <= _MOST_TOOLS,
        f"Invalid 'tools': array too long. Expected an array with maximum length {_MOST_TOOLS}, "
        f"but got an array with length {len(tools)} instead.",
    )


def _openai_tools(tools: Sequence[Json], where: str) -> None:
    """`tools` are flat, as the Responses protocol has them."""
    for index, tool in enumerate(tools):
        name, place = tool["name"], f"tools[{index}]{where}"
        _demand(
            isinstance(name, str) and _NAME.fullmatch(name),
            f"Invalid '{place}.name': string does not match pattern. "
            "Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'.",
        )
        _demand(isinstance(tool.get("description", ""), str), f"Invalid type for '{place}.description'")
        _openai_schema(tool.get("parameters"), name)
    _distinct([tool["name"] for tool in tools])


def _distinct(names: Sequence[str]) -> None:
    _demand(len(set(names)) == len(names), "tools: Tool names must be unique.")


def _openai_schema(schema: object, name: str) -> None:
    refused = f"Invalid schema for function '{name}': "
    kind = schema.get("type") if isinstance(schema, dict) else None
    _demand(kind == "object", f"{refused}schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{kind}\"'.")
    assert isinstance(schema, dict)
    _demand(
        not any(key in schema for key in _OPENAI_ROOT),
        f"{refused}schema must have type 'object' and not have 'oneOf'/'anyOf'/'allOf'/'enum'/'const'/'not' "
        "at the top level.",
    )
    _demand("properties" in schema, f"{refused}In context=(), object schema missing properties.")
    _demand("$schema" not in schema, f"{refused}$schema is not permitted")
    _draft_2020(schema, refused)
    for place, node in _nodes(schema, ()):
        kinds = node.get("type")
        is_list = kinds == "array" or (isinstance(kinds, list) and "array" in kinds)
        _demand(not is_list or "items" in node, f"{refused}In context={place}, array schema missing items.")
        for pattern in (node.get("pattern"), *node.get("patternProperties", ())):
            _demand(pattern is None or _is_regex(pattern), f"{refused}In context={place}, '{pattern}' is not a 'regex'")


def _is_regex(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


def _draft_2020(schema: Json, refused: str) -> None:
    try:
        jsonschema_rs.meta.validate(schema)
    except jsonschema_rs.ValidationError as error:
        raise Refused(
            f"{refused}JSON schema is invalid. It must match JSON Schema draft 2020-12 ({error.message})"
        ) from None


def _nodes(schema: object, place: tuple[str, ...], *, named: bool = False) -> Iterator[tuple[tuple[str, ...], Json]]:
    """Each schema in `schema`; `named` says that its keys are names of the author's choice."""
    if isinstance(schema, list):
        for index, item in enumerate(schema):
            yield from _nodes(item, (*place, str(index)))
    if not isinstance(schema, dict):
        return
    if not named:
        yield place, schema
    for key, item in schema.items():
        if named or key not in _VALUES:
            yield from _nodes(item, (*place, key), named=not named and key in _NAMED)


def _anthropic_tools(tools: Sequence[Json]) -> None:
    for index, tool in enumerate(tools):
        where, schema = f"tools.{index}.custom", tool.get("input_schema")
        _demand(
            isinstance(tool["name"], str) and re.fullmatch(r"[A-Za-z0-9_-]{1,128}", tool["name"]),
            f"{where}.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'",
        )
        _demand(isinstance(schema, dict) and "type" in schema, f"{where}.input_schema.type: Field required")
        assert isinstance(schema, dict)
        _demand(schema["type"] == "object", f"{where}.input_schema.type: Input should be 'object'")
        _demand(
            not any(key in schema for key in _ANTHROPIC_ROOT),
            f"{where}.input_schema: input_schema does not support oneOf, allOf, or anyOf at the top level",
        )
        for _, node in _nodes(schema, ()):
            _demand(
                all(map(_ANTHROPIC_KEY.fullmatch, node.get("properties", {}))),
                f"{where}.input_schema.properties: Property keys should match pattern '^[a-zA-Z0-9_.-]{{1,64}}$'",
            )
        _draft_2020(schema, f"{where}.input_schema: ")
    _distinct([tool["name"] for tool in tools])


def _responses(body: Json) -> None:
    for index, tool in enumerate(body.get("tools", ())):
        _demand(tool.get("type") == "function" and "function" not in tool, f"tools[{index}]: wrong shape")
        _demand(isinstance(tool.get("strict"), bool), f"tools[{index}].strict: required")
    _most_tools(body.get("tools", ()))
    _openai_tools(body.get("tools", ()), "")
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
            _arguments(item["arguments"], where)
            calls[item["call_id"]] = False
        elif kind == "function_call_output":
            _demand(calls.get(item["call_id"]) is False, f"No tool call found for call_id {item['call_id']}")
            calls[item["call_id"]] = True
        elif kind == "message":
            _demand(item.get("role") in ("user", "assistant"), f"{where}.role: invalid")
            _demand(item.get("content"), f"Invalid '{where}.content': empty")
            if item["role"] == "user":
                _demand(all(calls.values()), f"No tool output found for function call {_open(calls)}")
                _demand(all(part["type"] == "input_text" for part in item["content"]), f"{where}: wrong content")
    _demand(all(calls.values()), f"No tool output found for function call {_open(calls)}")


def _open(calls: Mapping[str, bool]) -> str:
    return ", ".join(call for call, answered in calls.items() if not answered)


def _chat(body: Json) -> None:
    _openai_tools([tool["function"] for tool in body.get("tools", ())], ".function")
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
            _demand(role != "user" or before != "tool", "Unexpected role 'user' after role 'tool'")
            alternates = role not in ("user", "assistant") or before != role
            _demand(alternates, "Conversation roles must alternate user/assistant/user/assistant/...")
        _demand(role != "user" or message.get("content"), f"{where}.content: empty")
        if role == "assistant":
            expected = _chat_calls(message, where)
        before = role
    _demand(not expected, f"no result for {expected}")
    _demand(before in ("user", "tool"), f"Expected last role User or Tool for serving but got {before}")


def _arguments(text: str, where: str) -> None:
    """vLLM's: it reads the arguments of earlier calls again, in both of OpenAI's protocols."""
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False).encode()
    except ValueError as error:
        raise Refused(f"{where}: arguments: {error}") from None
    _demand(isinstance(value, dict), f"{where}: arguments: Can only get item pairs from a mapping.")


def _chat_calls(message: Json, where: str) -> list[str]:
    calls = message.get("tool_calls")
    _demand(calls is None or calls, f"{where}.tool_calls: [] is too short")
    _demand(message.get("content") or calls, f"{where}: content or tool_calls is required")
    for call in calls or ():
        _demand(0 < len(call["id"]) <= 64, f"{where}: call id of 1 to 64 characters")
        _demand(_NAME.fullmatch(call["function"]["name"]), f"{where}: function name does not match")
        _arguments(call["function"]["arguments"], where)
    return [call["id"] for call in calls or ()]


def _messages(body: Json) -> None:
    _demand(isinstance(body.get("max_tokens"), int) and body["max_tokens"] > 0, "max_tokens: Field required")
    _demand(body.get("system", "x"), "system: text content blocks must be non-empty")
    _anthropic_tools(body.get("tools", ()))
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
            _thinking(blocks, where)
    last = messages[-1]
    paused = any(block["type"] == "server_tool_use" for block in last["content"])
    if last["role"] == "assistant":
        text = last["content"][-1].get("text", "")
        _demand(text == text.rstrip(), "messages: final assistant content cannot end with trailing whitespace")
        _demand(
            paused,
            "This model does not support assistant message prefill. The conversation must end with a user message.",
        )


def _texts(blocks: Iterable[Json], where: str) -> None:
    for block in blocks:
        _demand(
            block["type"] != "text" or block["text"].strip(),
            f"{where}: text content blocks must contain non-whitespace text",
        )


def _thinking(blocks: Sequence[Json], where: str) -> None:
    last = blocks[-1]["type"]
    _demand(
        last not in ("thinking", "redacted_thinking"),
        f"{where}: The final block in an assistant message cannot be `{last}`.",
    )
    thoughts = [block["type"] in ("thinking", "redacted_thinking") for block in blocks]
    _demand(
        thoughts[0] or not any(thoughts),
        f"{where}.content.0: If an assistant message contains any thinking blocks, the first block must be "
        f"`thinking` or `redacted_thinking`. Found `{blocks[0]['type']}`.",
    )
    for index, block in enumerate(blocks):
        if block["type"] == "thinking":
            _demand("signature" in block, f"{where}.content.{index}.thinking.signature: Field required")
            _demand(block["signature"], f"{where}.content.{index}: Invalid `signature` in `thinking` block")


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
