"""Answers in events, as each vendor streams them: the same document, in pieces."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tests.support.fake_provider.behaviours import CHAT, MESSAGES, RESPONSES, Problem

Json = dict[str, Any]

PIECES = 3
"""Pieces of a text, where it is as long."""

_LATE = ("output_tokens", "output_tokens_details", "iterations")
"""Counts of Messages that are known at the end."""


def split_text(text: str, pieces: int = PIECES) -> list[str]:
    """Return `text` in so many pieces of about one length, none of them empty; a piece may end in half a character."""
    units = text.encode("utf-16-le", "surrogatepass")
    size = max(-(-len(units) // 2 // pieces), 1) * 2
    parts = (units[begin : begin + size] for begin in range(0, len(units), size))
    return [part.decode("utf-16-le", "surrogatepass") for part in parts]


def write_event(data: Json | str, name: str = "") -> bytes:
    written = data if isinstance(data, str) else json.dumps(data)
    return f"{f'event: {name}' + chr(10) if name else ''}data: {written}\n\n".encode()


def write_events(
    protocol: str, document: Json, *, pieces: int = PIECES, tells_usage: bool = True, inputs: Mapping[str, str] = {}
) -> list[bytes]:
    """Return the events of an answer that is `document` without a stream.

    Args:
        protocol: Vendor's.
        document: Answer; it is left as it is.
        pieces: Of each text and of the arguments of each call.
        tells_usage: Chat Completions: the request has asked for it.
        inputs: Messages: texts of arguments, by what stands for them in the document.
    """
    document = json.loads(json.dumps(document))
    if protocol == RESPONSES:
        return [write_event(event, event["type"]) for event in _number(_responses(document, pieces))]
    if protocol == CHAT:
        return [*map(write_event, _chat(document, pieces, tells_usage=tells_usage)), write_event("[DONE]")]
    return [write_event(event, event["type"]) for event in _messages(document, pieces, inputs)]


def write_error(protocol: str, problem: Problem) -> bytes:
    """Return the event of an error in the middle of an answer."""
    if protocol == MESSAGES:
        error = {"type": problem.code, "message": problem.message}
        return write_event({"type": "error", "error": error, "request_id": "req_1"}, "error")
    if protocol == CHAT:
        return write_event({"error": {"message": problem.message, "type": problem.code, "code": None}})
    return write_event(
        {"type": "error", "code": problem.code, "message": problem.message, "param": None, "sequence_number": 9},
        "error",
    )


def _number(events: Iterator[Json]) -> Iterator[Json]:
    for number, event in enumerate(events):
        yield event | {"sequence_number": number}


def _responses(document: Json, pieces: int) -> Iterator[Json]:
    begun = document | {"status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for index, item in enumerate(document["output"]):
        place = {"output_index": index, "item_id": item.get("id", "")}
        empty = {"content": []} if item["type"] == "message" else {}
        empty |= {"arguments": ""} if item["type"] == "function_call" else {}
        yield {"type": "response.output_item.added", "output_index": index, "item": item | empty}
        for number, part in enumerate(item.get("content") or ()):
            yield from _content_part(place | {"content_index": number}, part, pieces)
        if item["type"] == "function_call":
            for piece in split_text(item["arguments"], pieces):
                yield {"type": "response.function_call_arguments.delta", **place, "delta": piece}
            yield {"type": "response.function_call_arguments.done", **place, "arguments": item["arguments"]}
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    yield {"type": f"response.{document['status']}", "response": document}


def _content_part(place: Json, part: Json, pieces: int) -> Iterator[Json]:
    key = "refusal" if part["type"] == "refusal" else "text"
    yield {"type": "response.content_part.added", **place, "part": part | {key: ""}}
    kind = "response.refusal" if key == "refusal" else "response.output_text"
    if key in part:
        for piece in split_text(part[key], pieces):
            yield {"type": f"{kind}.delta", **place, "delta": piece, "obfuscation": "x" * 8}
        yield {"type": f"{kind}.done", **place, key: part[key]}
    yield {"type": "response.content_part.done", **place, "part": part}


def _chat(document: Json, pieces: int, *, tells_usage: bool) -> Iterator[Json]:
    usage = document.pop("usage", None)
    [choice] = document.pop("choices")
    message = choice["message"]
    chunk = document | {"object": "chat.completion.chunk", "created": 1, "system_fingerprint": "fp_1"}
    told = {"usage": None} if tells_usage else {}

    def deltas() -> Iterator[Json]:
        yield {"role": "assistant", "content": "", "refusal": None}
        for name in ("reasoning_content", "reasoning", "content", "refusal"):
            if isinstance(text := message.get(name), str):
                yield from ({name: piece} for piece in split_text(text, pieces))
        for index, call in enumerate(message.get("tool_calls") or ()):
            function = call["function"]
            begun = {**call, "function": {**function, "arguments": ""}}
            yield {"tool_calls": [{"index": index, **begun}]}
            for piece in split_text(function["arguments"], pieces):
                yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}

    for delta in deltas():
        yield chunk | {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}]} | told
    last = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": choice.get("finish_reason")}
    yield chunk | {"choices": [last]} | told
    if tells_usage and usage is not None:
        yield chunk | {"choices": [], "usage": usage}


def _messages(document: Json, pieces: int, inputs: Mapping[str, str]) -> Iterator[Json]:
    usage = document.pop("usage", None)
    content = document.pop("content")
    end = {name: document.pop(name, None) for name in ("stop_reason", "stop_details")}
    begun = {**document, "content": [], "stop_reason": None, "stop_sequence": None}
    counts = {name: count for name, count in usage.items() if name not in _LATE} if isinstance(usage, dict) else {}
    start = {"usage": counts | {"output_tokens": 1}} if isinstance(usage, dict) else {}
    yield {"type": "message_start", "message": begun | start}
    yield {"type": "ping"}
    for index, block in enumerate(content):
        yield from _content_block(index, block, pieces, inputs)
    final = {"usage": {name: usage[name] for name in _LATE if name in usage}} if isinstance(usage, dict) else {}
    yield {"type": "message_delta", "delta": {**end, "stop_sequence": None}, **final}
    yield {"type": "message_stop"}


def _content_block(index: int, block: Json, pieces: int, inputs: Mapping[str, str]) -> Iterator[Json]:
    empty: Json = {}
    deltas: list[Json] = []
    match block["type"]:
        case "text":
            empty = {"text": ""}
            deltas = [{"type": "text_delta", "text": piece} for piece in split_text(block["text"], pieces)]
        case "thinking":
            empty = {"thinking": ""} | ({"signature": ""} if "signature" in block else {})
            thoughts = split_text(block["thinking"], pieces)
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in thoughts]
            if "signature" in block:
                deltas.append({"type": "signature_delta", "signature": block["signature"]})
        case "tool_use":
            empty = {"input": {}}
            written = block["input"]
            written = inputs.get(written, written) if isinstance(written, str) else json.dumps(written)
            parts = ["", *split_text(written, pieces)]
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in parts]
    yield {"type": "content_block_start", "index": index, "content_block": block | empty}
    for delta in deltas:
        yield {"type": "content_block_delta", "index": index, "delta": delta}
    yield {"type": "content_block_stop", "index": index}
