"""Tokens of a request, exactly: what the fake provider reports, and what it refuses.

The tokenizer is OpenAI's `o200k_base` for all protocols: those of other vendors are not public. What a vendor adds
around messages is a fixed number here.
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from tests.support.fake_provider.behaviours import CHAT, MESSAGES, RESPONSES, Answer, Problem

AROUND = 4
"""Tokens around each message, call and result."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Tokens of one exchange."""

    input_tokens: int
    cached_tokens: int
    output_tokens: int


@cache
def tokenizer() -> Callable[[str], int]:
    """The function that counts the tokens of a text."""
    with warnings.catch_warnings():
        # It reads its own data in a way that the standard library is to lose.
        warnings.simplefilter("ignore", DeprecationWarning)
        from bpe_openai import get_encoding  # noqa: PLC0415 - a third of a second

        encoding = get_encoding("o200k_base")
    return lambda text: len(encoding.encode(text, disallowed_special=()))


@lru_cache(maxsize=4096)
def count_text(text: str) -> int:
    return tokenizer()(text)


def count_request(protocol: str, document: dict[str, Any]) -> int:
    """The input tokens of a request."""
    return sum(AROUND + sum(map(count_text, texts)) for texts in _entries(protocol, document))


def count_answer(answer: Answer) -> int:
    """The output tokens of an answer, which are its input tokens from then on."""
    calls = sum(AROUND + count_text(call.name) + count_text(call.arguments) for call in answer.calls)
    return calls + (AROUND + count_text(answer.text) if answer.text else 0)


def refuse(protocol: str, tokens: int, window: int) -> Problem:
    """The vendor's own refusal of a request that is too long."""
    if protocol == MESSAGES:
        return Problem(400, "invalid_request_error", f"prompt is too long: {tokens} tokens > {window} maximum")
    if protocol == RESPONSES:
        message = "Your input exceeds the context window of this model. Please adjust your input and try again."
        return Problem(400, "context_length_exceeded", message)
    message = (
        f"This model's maximum context length is {window} tokens. However, your messages resulted in {tokens} tokens. "
        "Please reduce the length of the messages."
    )
    return Problem(400, "context_length_exceeded", message)


def _entries(protocol: str, document: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for tool in document.get("tools", ()):
        inner = tool.get("function", tool)
        schema = inner.get("parameters") or inner.get("input_schema")
        yield (inner["name"], inner.get("description", ""), _dump(schema))
    system = document.get("instructions") or document.get("system")
    if system:
        yield (system,)
    for message in document["input" if protocol == RESPONSES else "messages"]:
        yield from _ITEMS[protocol](message)


def _dump(value: object) -> str:
    return value if isinstance(value, str) else str(value)


def _response_item(item: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    match item.get("type", "message"):
        case "message":
            content = item["content"]
            yield from [(content,)] if isinstance(content, str) else [(part.get("text", ""),) for part in content]
        case "function_call":
            yield (item["name"], item["arguments"])
        case "function_call_output":
            yield (item["output"],)


def _chat_message(message: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    if message.get("content"):
        yield (message["content"],)
    for call in message.get("tool_calls") or ():
        yield (call["function"]["name"], call["function"]["arguments"])


def _anthropic_message(message: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    content = message["content"]
    for block in [{"type": "text", "text": content}] if isinstance(content, str) else content:
        match block["type"]:
            case "text":
                yield (block["text"],)
            case "tool_use":
                yield (block["name"], _dump(block["input"]))
            case "tool_result":
                yield (_dump(block["content"]),)


_ITEMS = {RESPONSES: _response_item, CHAT: _chat_message, MESSAGES: _anthropic_message}
