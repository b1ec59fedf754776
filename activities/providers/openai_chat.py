"""The Chat Completions protocol: vLLM and most other servers of one's own."""

from collections.abc import Iterator, Mapping, Sequence

from mandate.activities.providers import errors, params, responses
from mandate.activities.providers.base import Completion, Prompt
from mandate.activities.providers.openai_chat_stream import fold_chat
from mandate.activities.providers.openai_client import OpenAiClient
from mandate.activities.providers.rawjson import Raw
from mandate.activities.providers.requests import (
    GO_ON,
    AgentPart,
    Dialect,
    EncodedAnswer,
    Exchange,
    dump,
    dump_tools,
    is_object,
    make_arguments,
    make_name,
    make_short_id,
    offer_tools,
)
from mandate.activities.providers.service import Service
from mandate.activities.providers.streams import STREAM, Streams, make_listener
from mandate.activities.providers.tool_schemas import OfferedTool
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.endpoints import MaxTokensField
from mandate.workflows.contracts.model import Usage
from mandate.workflows.contracts.transcript import AssistantMessage, CallPart, Protocol, RefusalPart, TextPart

PROTOCOL: Protocol = "openai.chat"
USAGE = b'"stream_options":{"include_usage":true},'
"""Asks for the usage of a streamed answer, which is left out otherwise."""

_PARAGRAPH = rb"\n\n"
_NOTED = b'{"role":"assistant","content":"Noted."}'


class OpenAiChat:
    """`vllm:` models, and any server that speaks Chat Completions under `base_url` (which ends in `/v1`).

    Shown against servers that follow the protocol, never against a live vLLM or OpenAI. vLLM calls tools only when
    it was started with `--enable-auto-tool-choice` and a parser.
    """

    def __init__(
        self,
        *,
        api_key: str = "",
        base_url: str = "",
        service: Service | None = None,
        max_tokens_field: MaxTokensField = "max_completion_tokens",
    ) -> None:
        """Take the server of `vllm:` models, or another `service`; old servers want the field `max_tokens`."""
        service = service or Service("vllm", base_url, api_key)
        self._service = service
        self._max_tokens_field = max_tokens_field.encode()
        self._client = OpenAiClient("/chat/completions", service)
        self._systems = AgentPart(_system)
        self._offered = AgentPart(lambda prompt: offer_tools(service.provider, PROTOCOL, prompt))
        self._tools = AgentPart(lambda prompt: _tools(self._offered.of(prompt)))
        self._streams = Streams(fold_chat, STREAM + USAGE, STREAM)

    async def complete(self, prompt: Prompt) -> Completion:
        listener = make_listener(prompt)
        body, peer = await self._client.post(prompt, self.request(prompt), self._streams, listener)
        completion = self.read_answer(prompt, body, peer)
        return completion if listener is None else listener.finish(completion)

    def request(self, prompt: Prompt) -> bytes:
        """Return the request's bytes. The conversation comes last: a request begins like the one before it."""
        messages = DIALECT.write_conversation(prompt, _messages)
        if system := self._systems.of(prompt):
            messages.insert(0, system)
        return b'{"model":%b,"%b":%d,%b%b%b"messages":[%b]}' % (
            dump(prompt.model).encode(),
            self._max_tokens_field,
            prompt.max_output_tokens,
            b'"tool_choice":"none",' if prompt.is_last and self._offered.of(prompt) else b"",
            params.encode(prompt, PROTOCOL, {}),
            self._tools.of(prompt),
            b",".join(messages),
        )

    def read_answer(self, prompt: Prompt, body: Raw, peer: errors.Peer) -> Completion:
        """Return what `body` says; raise as `complete`."""
        choices = body.get("choices").items
        if not choices and body.get("error").value:
            raise errors.from_error_object(peer, body.get("error"))
        if not choices or not isinstance(choices[0].get("message").value, dict):
            raise errors.from_malformed(peer, "it has no message", body.text, "JSON")
        message, reason = choices[0].get("message"), choices[0].get("finish_reason")
        # Many servers leave the reason out.
        ended = responses.read_ending(reason, peer) if reason.value not in (None, "") else "complete"
        answer = responses.Answer(
            parts=_parts(message),
            native=DIALECT.keep_native([_clean(message)]),
            ended=ended,
            why="its content filter withheld the answer" if ended == "refused" else "",
            model=body.get("model").string,
        )
        return responses.make_completion(prompt, PROTOCOL, answer, self._usage(prompt, body), self._offered.of(prompt))

    async def close(self) -> None:
        await self._client.close()

    def _usage(self, prompt: Prompt, body: Raw) -> Usage:
        counts = responses.TokenCounts(body.get("usage"))
        return responses.compute_usage(
            self._service.prices_as,
            prompt,
            body,
            counts,
            input_tokens=counts.read("prompt_tokens"),
            cached=counts.read_detail("prompt_tokens_details", "cached_tokens"),
            written=counts.read_detail("prompt_tokens_details", "cache_write_tokens"),
            output=counts.read("completion_tokens"),
            reasoning=counts.read_detail("completion_tokens_details", "reasoning_tokens"),
        )


def _system(prompt: Prompt) -> bytes:
    return dump({"role": "system", "content": prompt.instructions}).encode() if prompt.instructions.strip() else b""


def _tools(offered: Mapping[str, OfferedTool]) -> bytes:
    return b'"tools":%b,' % dump_tools(map(_tool, offered, offered.values())) if offered else b""


def _tool(name: str, tool: OfferedTool) -> JsonObject:
    return {
        "type": "function",
        "function": {"name": name, "description": tool.description, "parameters": tool.schema, "strict": False},
    }


def _messages(exchange: Exchange) -> Iterator[bytes]:
    """Yield the messages of one exchange, in roles that alternate, as chat templates want them.

    Answers in a row are one message. Mistral's templates want a word of the model between results and a text.
    """
    if exchange.said:
        yield exchange.said[0].items if len(exchange.said) == 1 else _join(exchange.said)
    yield from exchange.results
    texts = exchange.texts
    if exchange.said and not (exchange.results or texts):
        texts = [_unquote(GO_ON)]
    if exchange.results and texts:
        yield _NOTED
    if texts:
        yield b'{"role":"user","content":"%b"}' % _PARAGRAPH.join(texts)


def _result(call_id: str, text: str, error: bool) -> bytes:  # noqa: FBT001 - the form of `Dialect.result`
    content = f"ERROR: {text}" if error else text
    return dump({"role": "tool", "tool_call_id": call_id, "content": content}).encode()


def _unquote(text: str) -> bytes:
    return dump(text)[1:-1].encode()


def _rebuild(message: AssistantMessage) -> EncodedAnswer:
    text, ids = _read_text(message), tuple(make_short_id(call.call_id) for call in message.calls)
    return EncodedAnswer(_write(text, message.calls, ids) if text.strip() or ids else b"", ids, message)


def _join(answers: Sequence[EncodedAnswer]) -> bytes:
    messages = [answer.message for answer in answers if answer.message is not None]
    texts = [text for text in map(_read_text, messages) if text.strip()]
    calls = [call for message in messages for call in message.calls]
    return _write("\n\n".join(texts), calls, [call_id for answer in answers for call_id in answer.calls])


def _read_text(message: AssistantMessage) -> str:
    return "".join(part.text for part in message.parts if isinstance(part, TextPart | RefusalPart))


def _write(text: str, calls: Sequence[CallPart], ids: Sequence[str]) -> bytes:
    message: dict[str, object] = {"role": "assistant", "content": text or None}
    if calls:
        message["tool_calls"] = [_call(*call) for call in zip(calls, ids, strict=True)]
    return dump(message).encode()


def _call(part: CallPart, call_id: str) -> dict[str, object]:
    function = {"name": make_name(part.tool), "arguments": make_arguments(part.arguments)}
    return {"id": call_id, "type": "function", "function": function}


def _parts(message: Raw) -> list[responses.Part]:
    parts: list[responses.Part] = []
    if message.get("reasoning_content").string or message.get("reasoning").string:
        parts.append(responses.make_opaque("reasoning"))
    content = message.get("content")
    if content.value != "":
        parts.extend(responses.read_content(content))
    if message.get("refusal").value:
        parts.append(responses.read_refusal(message.get("refusal")))
    return [*parts, *map(_read_call, _list_calls(message))]


def _list_calls(message: Raw) -> Sequence[Raw]:
    """Return the calls of a message, also one call in place of a list, or the one that old servers give."""
    calls, old = message.get("tool_calls"), message.get("function_call")
    if calls.value:
        return calls.items if isinstance(calls.value, list) else (calls,)
    return (old,) if old.value else ()


def _read_call(call: Raw) -> CallPart:
    """Return one call; what names no tool is refused with a sentence, and so is what has no arguments."""
    function = next((call.get(key) for key in ("function", "custom") if isinstance(call.get(key).value, dict)), call)
    arguments = function.get("input" if function is call.get("custom") else "arguments")
    return responses.call(call.get("id").string, function.get("name").string, responses.read_arguments(arguments))


def _native(messages: Sequence[Raw]) -> Sequence[Raw] | None:
    """Return the message if it may go back as it came: servers read arguments again, and fail if they cannot."""
    return messages if all(map(_is_sendable, messages)) else None


def _is_sendable(message: Raw) -> bool:
    content, calls = message.get("content"), message.get("tool_calls")
    if not isinstance(content.value, str | None) or not isinstance(calls.value, list | None):
        return False
    if calls.items:
        return all(map(_is_sendable_call, calls.items))
    return bool(content.string.strip())


def _is_sendable_call(call: Raw) -> bool:
    arguments = call.get("function").get("arguments")
    return isinstance(arguments.value, str) and is_object(arguments.value)


def _clean(message: Raw) -> Raw:
    """Return the message without empty members, which some servers send and others refuse."""
    kept = {"role": '"assistant"', "content": "null"} | {
        name: member.text
        for name, member in message.members.items()
        if name != "role"
        and member.value is not None
        and member.value not in ([], {})
        and not (name == "refusal" and not member.value)
    }
    return Raw.read("{" + ",".join(f"{dump(name)}:{text}" for name, text in kept.items()) + "}")


DIALECT = Dialect(PROTOCOL, _result, _unquote, _rebuild, _native, make_short_id)
