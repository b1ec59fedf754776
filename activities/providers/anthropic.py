"""Anthropic's Messages protocol."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Literal

import anthropic
import httpx2

from mandate.activities.providers import errors, responses
from mandate.activities.providers.base import Completion, Prompt
from mandate.activities.providers.rawjson import Raw
from mandate.activities.providers.requests import (
    DIRECT,
    LIMITS,
    TIMEOUT,
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
    make_timeout,
)
from mandate.activities.providers.response_limits import limit
from mandate.workflows.contracts.base import JsonObject, canonical_json
from mandate.workflows.contracts.model import Usage
from mandate.workflows.contracts.tool import ToolDefinition
from mandate.workflows.contracts.transcript import AssistantMessage, CallPart, Protocol

PROTOCOL: Protocol = "anthropic.messages"


class AnthropicMessages:
    """`anthropic:` models, with the version and authentication that the SDK sends.

    The prompt cache is marked once, at the top level of the request: the service moves the mark to the last block
    of each request by itself, so that the messages stay the same bytes from turn to turn.
    Shown against servers that follow the protocol, never against the live service. Not tried at all: Bedrock,
    Vertex, thinking settings.
    """

    def __init__(self, *, api_key: str, base_url: str | None = None) -> None:
        self._secret = api_key
        self._client = anthropic.AsyncAnthropic(
            api_key=api_key,
            base_url=base_url,
            max_retries=0,
            timeout=TIMEOUT,
            open_telemetry=False,
            http_client=limit(anthropic.DefaultAsyncHttpxClient(limits=LIMITS, timeout=TIMEOUT, mounts=DIRECT)),
        )
        self._agents = AgentPart(_agent_part)

    async def complete(self, prompt: Prompt) -> Completion:
        peer = errors.Peer("anthropic", prompt.model, str(self._client.base_url), prompt.attempt, secret=self._secret)
        return _completion(prompt, await self._post(prompt, peer), peer)

    def request(self, prompt: Prompt) -> bytes:
        """Return the request's bytes. The conversation comes last: a request begins like the one before it."""
        messages = DIALECT.write_conversation(prompt, _messages)
        return b'{"model":%b,"max_tokens":%d,%b,"messages":[%b]}' % (
            dump(prompt.model).encode(),
            prompt.max_output_tokens,
            self._agents.of(prompt),
            b",".join(messages),
        )

    async def close(self) -> None:
        await self._client.close()

    async def _post(self, prompt: Prompt, peer: errors.Peer) -> Raw:
        seconds = prompt.timeout.total_seconds()
        try:
            async with asyncio.timeout(seconds):
                response = await self._client.post(
                    "/v1/messages",
                    cast_to=httpx2.Response,
                    content=self.request(prompt),
                    options={"timeout": make_timeout(prompt.timeout)},
                )
        except anthropic.APIStatusError as error:
            raise errors.from_status(peer, error.status_code, error.response.headers, error.response.text) from None
        except (TimeoutError, anthropic.APITimeoutError) as error:
            raise errors.from_timeout(peer, seconds, error) from None
        except (anthropic.AnthropicError, httpx2.RequestError) as error:
            raise errors.from_connection(peer, error) from None
        return await errors.read_document(peer, response)


def _messages(exchange: Exchange) -> Iterator[bytes]:
    if exchange.said:
        yield b'{"role":"assistant","content":[%b]}' % b",".join(answer.items for answer in exchange.said)
    if blocks := (*exchange.results, *exchange.texts):
        yield b'{"role":"user","content":[%b]}' % b",".join(blocks)


def _agent_part(prompt: Prompt) -> bytes:
    settings: JsonObject = {"cache_control": {"type": "ephemeral"}}
    if prompt.instructions.strip():
        settings["system"] = prompt.instructions
    part = canonical_json(settings)[1:-1]
    return part + b',"tools":' + dump_tools(map(_tool, prompt.tools)) if prompt.tools else part


def _tool(definition: ToolDefinition) -> JsonObject:
    return {
        "name": definition.tool.name,
        "description": definition.description,
        "input_schema": make_schema(definition),
    }


def _result(call_id: str, text: str, error: bool) -> bytes:  # noqa: FBT001 - the form of `Dialect.result`
    block: dict[str, object] = {"type": "tool_result", "tool_use_id": call_id, "content": text}
    return dump(block | {"is_error": True} if error else block).encode()


def _text(text: str) -> bytes:
    return dump({"type": "text", "text": text}).encode()


def _rebuild(message: AssistantMessage) -> EncodedAnswer:
    blocks: list[bytes] = []
    for part in message.parts:
        match part.kind:
            case "text" | "refusal":
                if part.text.strip():
                    blocks.append(_text(part.text))
            case "call":
                blocks.append(_call(part))
            case "opaque":
                pass
    return EncodedAnswer(b",".join(blocks), tuple(make_id(call.call_id) for call in message.calls))


def _call(part: CallPart) -> bytes:
    # The model's own text of the arguments goes in as it is.
    head = dump({"type": "tool_use", "id": make_id(part.call_id), "name": make_name(part.tool)})
    return f'{head[:-1]},"input":{make_arguments(part.arguments)}}}'.encode()


DIALECT = Dialect(PROTOCOL, _result, _text, _rebuild)


def _completion(prompt: Prompt, body: Raw, peer: errors.Peer) -> Completion:
    if body.get("type").string == "error":
        raise errors.from_error_object(peer, body.get("error"))
    if not isinstance(body.get("content").value, list):
        raise errors.from_malformed(peer, "it has no content", body.text, "JSON")
    blocks = body.get("content").items
    details = body.get("stop_details")
    answer = responses.Answer(
        parts=[_part(block) for block in blocks],
        native=_native(blocks),
        ended=_read_finish(body, peer),
        why=details.get("explanation").string or details.get("category").string,
    )
    return responses.make_completion(prompt, PROTOCOL, answer, _usage(prompt, body))


def _read_finish(body: Raw, peer: errors.Peer) -> Literal["complete", "truncated", "refused", "paused"]:
    match body.get("stop_reason").string:
        case "max_tokens":
            return "truncated"
        case "refusal":
            return "refused"
        case "pause_turn":
            return "paused"
        case "model_context_window_exceeded":
            raise peer.failure("context_length", "stopped: the conversation fills the model's window", status=200)
        case "":
            raise errors.from_malformed(peer, "it has no stop reason", body.text, "JSON")
        case _:
            return "complete"


def _part(block: Raw) -> responses.Part:
    match block.get("type").string:
        case "text":
            return responses.make_text(block.get("text").string)
        case "tool_use":
            written = block.get("input").text
            return responses.call(block.get("id").string, block.get("name").string, written)
        case kind:
            return responses.make_opaque(kind)


def _native(blocks: Sequence[Raw]) -> list[str] | None:
    """Return the blocks to send back, or `None`; the service refuses text blocks without text, also its own."""
    kept = [block for block in blocks if block.get("type").string != "text" or block.get("text").string.strip()]
    uses = [block.get("input").value for block in kept if block.get("type").string == "tool_use"]
    sound = all(isinstance(written, dict) for written in uses) and all(block.is_strict for block in kept)
    return [block.text for block in kept] if sound else None


def _usage(prompt: Prompt, body: Raw) -> Usage:
    usage = body.get("usage")
    cached = usage.get("cache_read_input_tokens").count
    written = usage.get("cache_creation_input_tokens").count
    return responses.compute_usage(
        "anthropic",
        prompt.model,
        body,
        input_tokens=usage.get("input_tokens").count + cached + written,
        cached=cached,
        written=written,
        output=usage.get("output_tokens").count,
        reasoning=usage.get("output_tokens_details").get("thinking_tokens").count,
    )
