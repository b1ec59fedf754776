"""OpenAI's Responses protocol."""

from collections.abc import Iterator, Sequence
from itertools import chain

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
    make_arguments,
    make_id,
    make_name,
    make_schema,
)
from mandate.workflows.contracts.base import JsonObject, canonical_json, digest_of
from mandate.workflows.contracts.model import Usage
from mandate.workflows.contracts.tool import ToolDefinition
from mandate.workflows.contracts.transcript import AssistantMessage, CallPart, Protocol

PROTOCOL: Protocol = "openai.responses"
REASONING = "reasoning"


class OpenAiResponses:
    """`openai:` models. Nothing is stored at OpenAI; reasoning travels encrypted with the conversation.

    Shown against servers that follow the protocol, never against the live service. Not tried at all: Azure's
    variant, background mode, models that want `reasoning` settings.
    """

    def __init__(self, *, api_key: str, base_url: str | None = None) -> None:
        self._client = OpenAiClient("/responses", provider="openai", api_key=api_key, base_url=base_url)
        self._agents = AgentPart(_agent_part)

    async def complete(self, prompt: Prompt) -> Completion:
        body, peer = await self._client.post(prompt, self.request(prompt))
        return _completion(prompt, body, peer)

    def request(self, prompt: Prompt) -> bytes:
        """Return the request's bytes. The conversation comes last: a request begins like the one before it."""
        items = DIALECT.write_conversation(prompt, _items)
        first = items[0] if items else b""
        return b'{"model":%b,"max_output_tokens":%d,"prompt_cache_key":"%b",%b,"input":[%b]}' % (
            dump(prompt.model).encode(),
            prompt.max_output_tokens,
            # One key a conversation: the service sends requests with one key and beginning to one machine, up to a
            # rate that one agent's runs together would exceed.
            digest_of(prompt.agent.encode() + first).encode(),
            self._agents.of(prompt),
            b",".join(items),
        )

    async def close(self) -> None:
        await self._client.close()


def _items(exchange: Exchange) -> Iterator[bytes]:
    return chain((answer.items for answer in exchange.said), exchange.results, exchange.texts)


def _agent_part(prompt: Prompt) -> bytes:
    settings: JsonObject = {"store": False, "include": ["reasoning.encrypted_content"]}
    if prompt.instructions.strip():
        settings["instructions"] = prompt.instructions
    part = canonical_json(settings)[1:-1]
    return part + b',"tools":' + dump_tools(map(_tool, prompt.tools)) if prompt.tools else part


def _tool(definition: ToolDefinition) -> JsonObject:
    return {
        "type": "function",
        "name": definition.tool.name,
        "description": definition.description,
        "parameters": make_schema(definition),
        "strict": False,
    }


def _result(call_id: str, text: str, error: bool) -> bytes:  # noqa: FBT001 - the form of `Dialect.result`
    output = f"ERROR: {text}" if error else text
    return dump({"type": "function_call_output", "call_id": call_id, "output": output}).encode()


def _text(text: str) -> bytes:
    return dump({"role": "user", "content": [{"type": "input_text", "text": text}]}).encode()


def _rebuild(message: AssistantMessage) -> EncodedAnswer:
    items: list[str] = []
    for part in message.parts:
        match part.kind:
            case "text" | "refusal":
                if part.text.strip():
                    items.append(dump({"role": "assistant", "content": part.text}))
            case "call":
                items.append(_call(part))
            case "opaque":
                pass
    return EncodedAnswer(",".join(items).encode(), tuple(make_id(call.call_id) for call in message.calls))


def _call(part: CallPart) -> str:
    return dump(
        {
            "type": "function_call",
            "call_id": make_id(part.call_id),
            "name": make_name(part.tool),
            "arguments": make_arguments(part.arguments),
        }
    )


DIALECT = Dialect(PROTOCOL, _result, _text, _rebuild)


def _completion(prompt: Prompt, body: Raw, peer: errors.Peer) -> Completion:
    status = body.get("status").string
    if status == "failed" or (body.get("error").value and status != "incomplete"):
        raise errors.from_error_object(peer, body.get("error"))
    if status not in ("", "completed", "incomplete") or not isinstance(body.get("output").value, list):
        raise errors.from_malformed(peer, f"status {status!r} with no finished output", body.text, "JSON")
    items = body.get("output").items
    reason = body.get("incomplete_details").get("reason").string
    filtered = status == "incomplete" and reason == "content_filter"
    answer = responses.Answer(
        parts=[part for item in items for part in _parts(item)],
        native=_native(items),
        ended="refused" if filtered else "truncated" if status == "incomplete" else "complete",
        why="its content filter withheld the answer" if filtered else "",
    )
    return responses.make_completion(prompt, PROTOCOL, answer, _usage(prompt, body))


def _parts(item: Raw) -> list[responses.Part]:
    match item.get("type").string:
        case "message":
            return [_content(content) for content in item.get("content").items]
        case "function_call":
            arguments = item.get("arguments").string
            return [responses.call(item.get("call_id").string, item.get("name").string, arguments)]
        case kind:
            return [responses.make_opaque(kind)]


def _content(content: Raw) -> responses.Part:
    match content.get("type").string:
        case "output_text":
            return responses.make_text(content.get("text").string)
        case "refusal":
            return responses.make_refusal(content.get("refusal").string)
        case kind:
            return responses.make_opaque(kind)


def _native(items: Sequence[Raw]) -> list[str] | None:
    """Return the items to send back, or `None` when the service would not take them.

    It takes reasoning only encrypted, since nothing is stored there, and only before the item that it led to.
    """
    kept = list(items)
    while kept and kept[-1].get("type").string == REASONING:
        kept.pop()
    bare = any(item.get("type").string == REASONING and not item.get("encrypted_content").string for item in kept)
    if bare or not all(item.is_strict for item in kept):
        return None
    return [item.text for item in kept]


def _usage(prompt: Prompt, body: Raw) -> Usage:
    usage = body.get("usage")
    return responses.compute_usage(
        "openai",
        prompt.model,
        body,
        input_tokens=usage.get("input_tokens").count,
        cached=usage.get("input_tokens_details").get("cached_tokens").count,
        written=usage.get("input_tokens_details").get("cache_write_tokens").count,
        output=usage.get("output_tokens").count,
        reasoning=usage.get("output_tokens_details").get("reasoning_tokens").count,
    )
