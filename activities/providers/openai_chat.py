"""The Chat Completions protocol: vLLM and most other servers of one's own."""

from collections.abc import Iterator
from itertools import groupby
from typing import Literal

from mandate.activities.providers import errors, responses
from mandate.activities.providers.base import Completion, Prompt
from mandate.activities.providers.openai_client import OpenAiClient
from mandate.activities.providers.rawjson import Raw
from mandate.activities.providers.requests import (
    AgentPart,
    Dialect,
    EncodedAnswer,
    Exchange,
    dump,
    dump_tools,
    is_object,
    make_arguments,
    make_id,
    make_name,
    make_schema,
)
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.model import Usage
from mandate.workflows.contracts.tool import ToolDefinition
from mandate.workflows.contracts.transcript import AssistantMessage, CallPart, Protocol, RefusalPart, TextPart

PROTOCOL: Protocol = "openai.chat"

MaxTokensField = Literal["max_completion_tokens", "max_tokens"]

_PARAGRAPH = rb"\n\n"


class OpenAiChat:
    """`vllm:` models, and any server that speaks Chat Completions under `base_url` (which ends in `/v1`).

    Shown against servers that follow the protocol, never against a live vLLM or OpenAI. vLLM calls tools only when
    it was started with `--enable-auto-tool-choice` and a parser.
    """

    def __init__(
        self,
        *,
        api_key: str,
        base_url: str,
        provider: str = "vllm",
        max_tokens_field: MaxTokensField = "max_completion_tokens",
    ) -> None:
        """Take the connection; where no key is wanted, `api_key` is empty; old servers want the field `max_tokens`."""
        self._provider = provider
        self._max_tokens_field = max_tokens_field.encode()
        self._client = OpenAiClient("/chat/completions", provider=provider, api_key=api_key, base_url=base_url)
        self._systems = AgentPart(_system)
        self._tools = AgentPart(_tools)

    async def complete(self, prompt: Prompt) -> Completion:
        body, peer = await self._client.post(prompt, self.request(prompt))
        return self._completion(prompt, body, peer)

    def request(self, prompt: Prompt) -> bytes:
        """Return the request's bytes. The conversation comes last: a request begins like the one before it."""
        messages = DIALECT.write_conversation(prompt, _messages)
        if system := self._systems.of(prompt):
            messages.insert(0, system)
        return b'{"model":%b,"%b":%d,%b"messages":[%b]}' % (
            dump(prompt.model).encode(),
            self._max_tokens_field,
            prompt.max_output_tokens,
            self._tools.of(prompt),
            b",".join(messages),
        )

    async def close(self) -> None:
        await self._client.close()

    def _completion(self, prompt: Prompt, body: Raw, peer: errors.Peer) -> Completion:
        choices = body.get("choices").items
        if not choices and body.get("error").value:
            raise errors.from_error_object(peer, body.get("error"))
        if not choices or not isinstance(choices[0].get("message").value, dict):
            raise errors.from_malformed(peer, "it has no message", body.text, "JSON")
        message = choices[0].get("message")
        parts = _parts(message)
        ended = _read_finish(choices[0].get("finish_reason").string, peer)
        answer = responses.Answer(
            parts=parts,
            native=[_native(message)] if _is_native(message, parts) else None,
            ended=ended,
            why="its content filter withheld the answer" if ended == "refused" else "",
        )
        return responses.make_completion(prompt, PROTOCOL, answer, self._usage(prompt, body))

    def _usage(self, prompt: Prompt, body: Raw) -> Usage:
        usage = body.get("usage")
        return responses.compute_usage(
            self._provider,
            prompt.model,
            body,
            input_tokens=usage.get("prompt_tokens").count,
            cached=usage.get("prompt_tokens_details").get("cached_tokens").count,
            written=usage.get("prompt_tokens_details").get("cache_write_tokens").count,
            output=usage.get("completion_tokens").count,
            reasoning=usage.get("completion_tokens_details").get("reasoning_tokens").count,
        )


def _system(prompt: Prompt) -> bytes:
    return dump({"role": "system", "content": prompt.instructions}).encode() if prompt.instructions.strip() else b""


def _tools(prompt: Prompt) -> bytes:
    return b'"tools":%b,' % dump_tools(map(_tool, prompt.tools)) if prompt.tools else b""


def _tool(definition: ToolDefinition) -> JsonObject:
    return {
        "type": "function",
        "function": {
            "name": definition.tool.name,
            "description": definition.description,
            "parameters": make_schema(definition),
            "strict": False,
        },
    }


def _messages(exchange: Exchange) -> Iterator[bytes]:
    """Yield the messages of one exchange; texts in a row are one message: chat templates want roles to alternate."""
    for is_text, answers_in_a_row in groupby(exchange.said, lambda answer: bool(answer.text)):
        if is_text:
            text = _PARAGRAPH.join(answer.text for answer in answers_in_a_row)
            yield b'{"role":"assistant","content":"%b"}' % text
        else:
            yield from (answer.items for answer in answers_in_a_row)
    yield from exchange.results
    if exchange.texts:
        yield b'{"role":"user","content":"%b"}' % _PARAGRAPH.join(exchange.texts)


def _result(call_id: str, text: str, error: bool) -> bytes:  # noqa: FBT001 - the form of `Dialect.result`
    content = f"ERROR: {text}" if error else text
    return dump({"role": "tool", "tool_call_id": call_id, "content": content}).encode()


def _unquote(text: str) -> bytes:
    return dump(text)[1:-1].encode()


def _rebuild(message: AssistantMessage) -> EncodedAnswer:
    text = "".join(part.text for part in message.parts if isinstance(part, TextPart | RefusalPart))
    if not message.calls:
        content = _unquote(text) if text.strip() else b""
        return EncodedAnswer(items=content, text=content)
    calls = [_call(part) for part in message.calls]
    rebuilt = dump({"role": "assistant", "content": text or None, "tool_calls": calls})
    return EncodedAnswer(rebuilt.encode(), tuple(make_id(call.call_id) for call in message.calls))


def _call(part: CallPart) -> dict[str, object]:
    function = {"name": make_name(part.tool), "arguments": make_arguments(part.arguments)}
    return {"id": make_id(part.call_id), "type": "function", "function": function}


DIALECT = Dialect(PROTOCOL, _result, _unquote, _rebuild)


def _read_finish(reason: str, peer: errors.Peer) -> Literal["complete", "truncated", "refused"]:
    match reason:
        case "length":
            return "truncated"
        case "content_filter":
            return "refused"
        case "abort" | "error" | "insufficient_system_resource":
            raise peer.failure("server", f"broke the answer off ({reason})", status=200)
        case _:
            return "complete"


def _parts(message: Raw) -> list[responses.Part]:
    parts: list[responses.Part] = []
    if message.get("reasoning_content").string or message.get("reasoning").string:
        parts.append(responses.make_opaque("reasoning"))
    if message.get("content").string:
        parts.append(responses.make_text(message.get("content").string))
    if message.get("refusal").string:
        parts.append(responses.make_refusal(message.get("refusal").string))
    for call in message.get("tool_calls").items:
        function = call.get("function")
        arguments = function.get("arguments")
        text = arguments.text if isinstance(arguments.value, dict) else arguments.string
        parts.append(responses.call(call.get("id").string, function.get("name").string, text))
    return parts


def _is_native(message: Raw, parts: list[responses.Part]) -> bool:
    """Return whether the message may go back as it came: servers read arguments again, and fail if they cannot."""
    if not (message.get("content").string.strip() or message.get("tool_calls").items):
        return False
    as_strings = all(
        isinstance(call.get("function").get("arguments").value, str) for call in message.get("tool_calls").items
    )
    readable = all(is_object(part.arguments) for part in parts if isinstance(part, CallPart))
    return message.is_strict and as_strings and readable


def _native(message: Raw) -> str:
    """Return the message without empty members, which some servers send and others refuse."""
    kept = {"role": '"assistant"', "content": "null"} | {
        name: member.text
        for name, member in message.members.items()
        if member.value is not None and member.value not in ([], {}) and not (name == "refusal" and not member.value)
    }
    return "{" + ",".join(f"{dump(name)}:{text}" for name, text in kept.items()) + "}"
