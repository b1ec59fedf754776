"""How each protocol says what the fake provider was told to do."""

import json
from typing import Any

from tests.support.fake_provider import streams
from tests.support.fake_provider.behaviours import CHAT, MESSAGES, RESPONSES, Answer, Call, Problem


def error_body(protocol: str, problem: Problem) -> bytes:
    if protocol == MESSAGES:
        kind = {429: "rate_limit_error", 529: "overloaded_error", 500: "api_error"}.get(
            problem.status, "invalid_request_error"
        )
        error = {"type": kind, "message": problem.message, "details": {"error_code": problem.code}}
        return json.dumps({"type": "error", "error": error, "request_id": "req_1"}).encode()
    return json.dumps(
        {"error": {"message": problem.message, "type": "invalid_request_error", "param": None, "code": problem.code}}
    ).encode()


def render(protocol: str, model: str, number: int, answer: Answer) -> bytes:
    """The body of `answer` number `number` of this server."""
    text = json.dumps(_document(protocol, model, number, answer))
    for name, arguments in _inputs(answer).items():
        text = text.replace(f'"{name}"', arguments)
    return text.encode()


def render_events(protocol: str, model: str, number: int, answer: Answer, *, tells_usage: bool) -> list[bytes]:
    """The events of `answer` number `number` of this server."""
    document = _document(protocol, model, number, answer)
    return streams.write_events(
        protocol, document, pieces=answer.pieces, tells_usage=tells_usage, inputs=_inputs(answer)
    )


def _document(protocol: str, model: str, number: int, answer: Answer) -> dict[str, Any]:
    return {RESPONSES: _responses, CHAT: _chat, MESSAGES: _messages}[protocol](model, number, answer)


def _inputs(answer: Answer) -> dict[str, str]:
    """Arguments that are JSON as they are, by what stands for them."""
    return {f"<input {index}>": call.arguments for index, call in enumerate(answer.calls)}


def _id(call: Call, prefix: str, number: int, index: int) -> str:
    return call.id if call.id is not None else f"{prefix}_{number}{'abcdefghij'[index]}"


def _responses(model: str, number: int, answer: Answer) -> dict[str, Any]:
    output: list[dict[str, Any]] = []
    if answer.reasoning:
        output.append({"type": "reasoning", "id": f"rs_{number}", "summary": [], "encrypted_content": f"ENC{number}=="})
    if answer.unknown_item:
        output.append({"type": "brand_new_item", "id": "bn_1", "x": 1e300})
    if answer.stop == "refused":
        refusal = [{"type": "refusal", "refusal": answer.text}]
        output.append({"type": "message", "id": f"msg_{number}", "role": "assistant", "content": refusal})
    elif answer.text:
        content = [{"type": "output_text", "text": answer.text, "annotations": []}]
        phase = "commentary" if answer.calls else "final_answer"
        output.append(
            {
                "type": "message",
                "id": f"msg_{number}",
                "role": "assistant",
                "status": "completed",
                "phase": phase,
                "content": content,
            }
        )
    for index, call in enumerate(answer.calls):
        call_id = _id(call, "call", number, index)
        output.append(
            {
                "type": "function_call",
                "id": f"fc_{number}_{index}",
                "call_id": call_id,
                "name": call.name,
                "arguments": call.arguments,
                "status": "completed",
            }
        )
    reason = {"truncated": "max_output_tokens", "filtered": "content_filter"}.get(answer.stop)
    usage: dict[str, Any] = {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 64, "cache_write_tokens": 10},
        "output_tokens": 20,
        "output_tokens_details": {"reasoning_tokens": 12},
        "total_tokens": 120,
    }
    if answer.tokens is not None:
        told, cached, said = answer.tokens
        usage = {
            "input_tokens": told,
            "input_tokens_details": {"cached_tokens": cached},
            "output_tokens": said,
            "total_tokens": told + said,
        }
    return {
        "id": f"resp_{number}",
        "object": "response",
        "model": f"{model}-2026-10-01",
        "status": "incomplete" if reason else "completed",
        "incomplete_details": {"reason": reason} if reason else None,
        "error": None,
        "output": output,
        "usage": usage if answer.usage else None,
    }


def _chat(model: str, number: int, answer: Answer) -> dict[str, Any]:
    refused = answer.stop == "refused"
    message: dict[str, Any] = {
        "role": "assistant",
        "content": (answer.text or None) if not refused else None,
        "refusal": answer.text if refused else None,
        "annotations": [],
        "tool_calls": [
            {
                "id": _id(call, "chatcmpl-tool", number, index),
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for index, call in enumerate(answer.calls)
        ],
    }
    if answer.reasoning:
        message["reasoning_content"] = "let me think"
    finish = {"truncated": "length", "filtered": "content_filter"}.get(
        answer.stop, "tool_calls" if answer.calls else "stop"
    )
    usage: dict[str, Any] = {
        "prompt_tokens": 100,
        "prompt_tokens_details": {"cached_tokens": 64},
        "completion_tokens": 20,
        "completion_tokens_details": {"reasoning_tokens": 12},
        "total_tokens": 120,
    }
    if answer.tokens is not None:
        told, cached, said = answer.tokens
        usage = {
            "prompt_tokens": told,
            "prompt_tokens_details": {"cached_tokens": cached},
            "completion_tokens": said,
            "total_tokens": told + said,
        }
    document = {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
    }
    return document | ({"usage": usage} if answer.usage else {})


def _messages(model: str, number: int, answer: Answer) -> dict[str, Any]:
    content: list[dict[str, Any]] = []
    if answer.reasoning and answer.stop != "refused":
        content.append({"type": "thinking", "thinking": "let me see", "signature": f"SIG{number}=="})
    if answer.unknown_item:
        content.append({"type": "brand_new_block", "x": 1})
    if answer.text and answer.stop != "refused":
        content.append({"type": "text", "text": answer.text, "citations": None})
    if answer.stop == "paused":
        content.append({"type": "server_tool_use", "id": f"srvtoolu_{number}", "name": "web_search", "input": {}})
    content.extend(
        {"type": "tool_use", "id": _id(call, "toolu", number, index), "name": call.name, "input": f"<input {index}>"}
        for index, call in enumerate(answer.calls)
    )
    stop = {
        "truncated": "max_tokens",
        "refused": "refusal",
        "filtered": "refusal",
        "paused": "pause_turn",
        "window": "model_context_window_exceeded",
    }.get(answer.stop, "tool_use" if answer.calls else "end_turn")
    details = {"type": "refusal", "category": "cyber", "explanation": answer.text or None}
    usage: dict[str, Any] = {
        "input_tokens": 26,
        "cache_read_input_tokens": 64,
        "cache_creation_input_tokens": 10,
        "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 6},
        "output_tokens": 20,
        "output_tokens_details": {"thinking_tokens": 12},
        "service_tier": "standard",
    }
    if answer.tokens is not None:
        told, cached, said = answer.tokens
        usage = {"input_tokens": told - cached, "cache_read_input_tokens": cached, "output_tokens": said}
    document = {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": stop,
        "stop_details": details if stop == "refusal" else None,
    }
    return document | ({"usage": usage} if answer.usage else {})
