"""OpenAI's Responses protocol."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

from mandate.activities.providers import errors, params, responses
from mandate.activities.providers.base import Completion, Prompt
from mandate.activities.providers.openai_client import OpenAiClient
from mandate.activities.providers.openai_responses_stream import fold_responses
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
    offer_tools,
)
from mandate.activities.providers.service import Service
from mandate.activities.providers.streams import STREAM, Streams, make_listener
from mandate.activities.providers.tool_schemas import OfferedTool
from mandate.workflows.contracts.base import JsonObject, digest_of
from mandate.workflows.contracts.model import Usage
from mandate.workflows.contracts.transcript import AssistantMessage, CallPart, Protocol
from mandate.workflows.rules.plain_text import shorten

PROTOCOL: Protocol = "openai.responses"
REASONING, MESSAGE, CALL = "reasoning", "message", "function_call"


class OpenAiResponses:
    """`openai:` models. Nothing is stored at OpenAI; reasoning travels encrypted with the conversation.

    Shown against servers that follow the protocol, never against the live service. Not tried at all: Azure's
    variant, background mode, models that want `reasoning` settings.
    """

    def __init__(self, *, api_key: str = "", base_url: str | None = None, service: Service | None = None) -> None:
        """Take OpenAI's own service, or another one of the protocol."""
        service = service or Service("openai", base_url, api_key, prices_as="openai")
        self._service = service
        self._client = OpenAiClient("/responses", service)
        self._offered = AgentPart(lambda prompt: offer_tools(service.provider, PROTOCOL, prompt))
        self._agents = AgentPart(lambda prompt: _agent_part(prompt, self._offered.of(prompt)))
        self._streams = Streams(fold_responses, STREAM)

    async def complete(self, prompt: Prompt) -> Completion:
        listener = make_listener(prompt)
        body, peer = await self._client.post(prompt, self.request(prompt), self._streams, listener)
        completion = self.read_answer(prompt, body, peer)
        return completion if listener is None else listener.finish(completion)

    def request(self, prompt: Prompt) -> bytes:
        """Return the request's bytes. The conversation comes last: a request begins like the one before it."""
        items = DIALECT.write_conversation(prompt, _items)
        first = items[0] if items else b""
        return b'{"model":%b,"max_output_tokens":%d,%b"prompt_cache_key":"%b",%b%b,"input":[%b]}' % (
            dump(prompt.model).encode(),
            prompt.max_output_tokens,
            b'"tool_choice":"none",' if prompt.is_last and self._offered.of(prompt) else b"",
            # One key a conversation: the service sends requests with one key and beginning to one machine, up to a
            # rate that one agent's runs together would exceed.
            digest_of(prompt.agent.encode() + first).encode(),
            params.encode(prompt, PROTOCOL, {}),
            self._agents.of(prompt),
            b",".join(items),
        )

    def read_answer(self, prompt: Prompt, body: Raw, peer: errors.Peer) -> Completion:
        """Return what `body` says; raise as `complete`."""
        given = body.get("status")
        status = "" if given.value is None else responses.read_arguments(given)
        if status == "failed" or (body.get("error").value and status != "incomplete"):
            raise errors.from_error_object(peer, body.get("error"))
        if status not in ("", "completed", "incomplete") or not isinstance(body.get("output").value, list):
            raise errors.from_malformed(peer, f"status {status!r} with no finished output", body.text, "JSON")
        items = body.get("output").items
        ended, why = _read_ending(status, body.get("incomplete_details").get("reason").string, items)
        answer = responses.Answer(
            parts=[part for item in items for part in _parts(item)],
            native=DIALECT.keep_native(items),
            ended=ended,
            why=why,
            model=body.get("model").string,
        )
        usage = _usage(self._service.prices_as, prompt, body)
        return responses.make_completion(prompt, PROTOCOL, answer, usage, self._offered.of(prompt))

    async def close(self) -> None:
        await self._client.close()


def _items(exchange: Exchange) -> Iterator[bytes]:
    return chain((answer.items for answer in exchange.said), exchange.results, exchange.texts)


def _agent_part(prompt: Prompt, offered: Mapping[str, OfferedTool]) -> bytes:
    settings: JsonObject = {"store": False, "include": ["reasoning.encrypted_content"]}
    if prompt.instructions.strip():
        settings["instructions"] = prompt.instructions
    part = dump(settings, sort_keys=True)[1:-1].encode()
    return part + b',"tools":' + dump_tools(map(_tool, offered, offered.values())) if offered else part


def _tool(name: str, tool: OfferedTool) -> JsonObject:
    return {
        "type": "function",
        "name": name,
        "description": tool.description,
        "parameters": tool.schema,
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


def _read_ending(status: str, reason: str, items: Sequence[Raw]) -> tuple[responses.Ended, str]:
    """Return how the answer ended, and the provider's reason where the ending does not say it."""
    if status == "incomplete" and reason == "content_filter":
        return "refused", "its content filter withheld the answer"
    if status == "incomplete":
        return "truncated", "" if reason in ("max_output_tokens", "") else f"by the provider: {shorten(reason, 80)}"
    if any(item.get("type").string == CALL and item.get("status").string not in ("", "completed") for item in items):
        return "truncated", "in the middle of a call"
    return "complete", ""


def _parts(item: Raw) -> list[responses.Part]:
    match item.get("type").string:
        case "message":
            return responses.read_content(item.get("content"))
        case "function_call":
            arguments = responses.read_arguments(item.get("arguments"))
            return [responses.call(item.get("call_id").string, item.get("name").string, arguments)]
        case "custom_tool_call":
            written = responses.read_arguments(item.get("input"))
            return [responses.call(item.get("call_id").string, item.get("name").string, written)]
        case "" if item.get("role").string == "assistant":
            return responses.read_content(item.get("content"))
        case _:
            return [responses.read_part(item)]


def _native(items: Sequence[Raw]) -> list[Raw] | None:
    """Return the items to send back, or `None` when a server of this protocol would not take them.

    OpenAI takes reasoning only encrypted, since nothing is stored there, and only before the item that it led to.
    vLLM reads the arguments of earlier calls again, and refuses all later requests if it cannot.
    """
    if not all(map(_is_sendable, items)):
        return None
    kept: list[Raw] = []
    for item in reversed(items):
        kind = item.get("type").string
        is_led_to = kind != REASONING or bool(kept)
        if is_led_to and not (kind == MESSAGE and not item.get("content").items):
            kept.insert(0, item)
    bare = any(item.get("type").string == REASONING and not item.get("encrypted_content").string for item in kept)
    return None if bare else kept


def _is_sendable(item: Raw) -> bool:
    match item.get("type").string:
        case "":
            return False
        case "function_call":
            arguments = item.get("arguments")
            return isinstance(arguments.value, str) and is_object(arguments.value)
        case "custom_tool_call":
            # No tool of ours is one, so that none of ours has its answer.
            return False
        case "message":
            content = item.get("content")
            return isinstance(content.value, list) and all(isinstance(part.value, dict) for part in content.items)
        case _:
            return True


DIALECT = Dialect(PROTOCOL, _result, _text, _rebuild, _native)


def _usage(prices_as: str | None, prompt: Prompt, body: Raw) -> Usage:
    counts = responses.TokenCounts(body.get("usage"))
    return responses.compute_usage(
        prices_as,
        prompt,
        body,
        counts,
        input_tokens=counts.read("input_tokens"),
        cached=counts.read_detail("input_tokens_details", "cached_tokens"),
        written=counts.read_detail("input_tokens_details", "cache_write_tokens"),
        output=counts.read("output_tokens"),
        reasoning=counts.read_detail("output_tokens_details", "reasoning_tokens"),
    )
