"""Anthropic's Messages protocol."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from functools import partial, reduce
from operator import add

import anthropic
import httpx2
from anthropic._types import RequestOptions

from mandate.activities.providers import errors, params, responses
from mandate.activities.providers.anthropic_stream import fold_messages
from mandate.activities.providers.base import Completion, Prompt
from mandate.activities.providers.rawjson import Raw
from mandate.activities.providers.requests import (
    DIRECT,
    GO_ON,
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
    make_timeout,
    offer_tools,
)
from mandate.activities.providers.response_limits import ACCEPT_EVENTS, limit
from mandate.activities.providers.service import Headers, Service, list_foreign
from mandate.activities.providers.streams import STREAM, Listener, Streams, make_listener
from mandate.activities.providers.tool_schemas import OfferedTool
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.model import Usage
from mandate.workflows.contracts.transcript import AssistantMessage, CallPart, OpaquePart, Protocol

PROTOCOL: Protocol = "anthropic.messages"
SERVER_CALL = "server_tool_use"
LEAST_THINKING, ANSWER_TOKENS = 1024, 256
"""The vendor's least `budget_tokens`, and what is left for the answer where thinking is shortened."""
_CACHED: JsonObject = {"cache_control": {"type": "ephemeral"}}


class AnthropicMessages:
    """`anthropic:` models, with the version and authentication that the SDK sends.

    The prompt cache is marked once, at the top level of the request: the service moves the mark to the last block
    of each request by itself, so that the messages stay the same bytes from turn to turn.
    Shown against servers that follow the protocol, never against the live service. Not tried at all: Bedrock,
    Vertex, thinking settings.
    """

    def __init__(self, *, api_key: str = "", base_url: str | None = None, service: Service | None = None) -> None:
        """Take Anthropic's own service, or another one of the protocol."""
        service = service or Service("anthropic", base_url, api_key, prices_as="anthropic")
        self._service = service
        self._client = anthropic.AsyncAnthropic(
            api_key=service.api_key,
            base_url=service.base_url,
            default_query=service.query,
            max_retries=0,
            timeout=TIMEOUT,
            open_telemetry=False,
            http_client=limit(anthropic.DefaultAsyncHttpxClient(limits=LIMITS, timeout=TIMEOUT, mounts=DIRECT)),
        )
        self._offered = AgentPart(lambda prompt: offer_tools(service.provider, PROTOCOL, prompt))
        self._agents = AgentPart(lambda prompt: _agent_part(prompt, self._offered.of(prompt)))
        self._streams = Streams(fold_messages, STREAM)

    async def complete(self, prompt: Prompt) -> Completion:
        headers = self._service.make_headers(prompt)
        secrets = (self._service.api_key,) if headers is None else headers.secrets
        base_url = str(self._client.base_url)
        peer = errors.Peer(self._service.provider, prompt.model, base_url, prompt.attempt, secrets=secrets)
        listener = make_listener(prompt)
        completion = self.read_answer(prompt, await self._post(prompt, peer, headers, listener), peer)
        return completion if listener is None else listener.finish(completion)

    def request(self, prompt: Prompt) -> bytes:
        """Return the request's bytes. The conversation comes last: a request begins like the one before it."""
        messages = DIALECT.write_conversation(prompt, _messages)
        return b'{"model":%b,"max_tokens":%d,%b%b%b"messages":[%b]}' % (
            dump(prompt.model).encode(),
            prompt.max_output_tokens,
            b'"tool_choice":{"type":"none"},' if prompt.is_last and self._offered.of(prompt) else b"",
            params.encode(_fit_thinking(prompt), PROTOCOL, _CACHED),
            self._agents.of(prompt),
            b",".join(messages),
        )

    def read_answer(self, prompt: Prompt, body: Raw, peer: errors.Peer) -> Completion:
        """Return what `body` says; raise as `complete`."""
        if body.get("type").string == "error":
            raise errors.from_error_object(peer, body.get("error"))
        content = body.get("content")
        if not isinstance(content.value, list | str | dict):
            raise errors.from_malformed(peer, "it has no content", body.text, "JSON")
        if body.get("stop_reason").value in (None, ""):
            raise errors.from_malformed(peer, "it has no stop reason", body.text, "JSON")
        blocks = content.items if isinstance(content.value, list) else (content,)
        ended = responses.read_ending(body.get("stop_reason"), peer)
        details = body.get("stop_details")
        refusal = details.get("explanation").string or details.get("category").string
        answer = responses.Answer(
            parts=[_part(block) for block in blocks],
            native=DIALECT.keep_native(blocks),
            ended=ended,
            why=refusal if ended == "refused" else "",
            model=body.get("model").string,
        )
        usage = _usage(self._service.prices_as, prompt, body)
        return responses.make_completion(prompt, PROTOCOL, answer, usage, self._offered.of(prompt))

    async def close(self) -> None:
        await self._client.close()

    async def _post(self, prompt: Prompt, peer: errors.Peer, headers: Headers | None, listener: Listener | None) -> Raw:
        body, send = self.request(prompt), partial(self._send, prompt, headers)
        seconds = prompt.timeout.total_seconds()
        try:
            async with asyncio.timeout(seconds):
                if listener is not None:
                    return await self._streams.ask(peer, body, send, listener)
                response = await send(body, is_streamed=False)
        except (TimeoutError, anthropic.APITimeoutError, httpx2.TimeoutException) as error:
            raise errors.from_timeout(peer, seconds, error) from None
        except (anthropic.AnthropicError, httpx2.RequestError) as error:
            raise errors.from_connection(peer, error) from None
        if not response.is_success:
            raise errors.from_response(peer, response)
        return await errors.read_document(peer, response)

    async def _send(
        self, prompt: Prompt, headers: Headers | None, body: bytes, *, is_streamed: bool
    ) -> httpx2.Response:
        try:
            response = await self._client.post(
                "/v1/messages",
                cast_to=httpx2.Response,
                content=body,
                options=self._options(prompt, headers, is_streamed=is_streamed),
                stream=is_streamed,
                stream_cls=anthropic.AsyncStream[object],
            )
        except anthropic.APIStatusError as error:
            return error.response
        assert isinstance(response, httpx2.Response)
        return response

    def _options(self, prompt: Prompt, headers: Headers | None, *, is_streamed: bool) -> RequestOptions:
        timeout = make_timeout(prompt.timeout)
        accept = {"Accept": ACCEPT_EVENTS} if is_streamed else {}
        if headers is None:
            return {"timeout": timeout, "headers": accept}
        foreign = dict.fromkeys(list_foreign(self._client.default_headers), anthropic.Omit())
        # Where an answer sends to, nobody has said that keys may go.
        return {"timeout": timeout, "headers": {**foreign, **accept, **headers.values}, "follow_redirects": False}


def _fit_thinking(prompt: Prompt) -> Prompt:
    """Return the prompt with thinking that leaves room for an answer: a budget may have shortened that.

    `budget_tokens` must be less than `max_tokens`, and 1,024 at least; without room for so many, nothing is thought.
    """
    thinking = prompt.params.get("thinking")
    wanted = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
    most = prompt.max_output_tokens - ANSWER_TOKENS
    if not isinstance(thinking, dict) or not isinstance(wanted, int) or wanted <= most:
        return prompt
    fitting: JsonObject = {**thinking, "budget_tokens": most} if most >= LEAST_THINKING else {"type": "disabled"}
    return replace(prompt, params={**prompt.params, "thinking": fitting})


def _messages(exchange: Exchange) -> Iterator[bytes]:
    blocks = (*exchange.results, *exchange.texts)
    if exchange.said:
        yield b'{"role":"assistant","content":[%b]}' % _join(exchange.said)
        blocks = blocks if blocks or _is_paused(exchange.said[-1]) else (_text(GO_ON),)
    if blocks:
        yield b'{"role":"user","content":[%b]}' % b",".join(blocks)


def _join(answers: Sequence[EncodedAnswer]) -> bytes:
    """Return the blocks of answers in a row, of which thinking may be no part if it does not come first."""
    joined = b",".join(answer.items for answer in answers)
    if len(answers) == 1:
        return joined
    kept = _drop_late_thinking(Raw.read(f"[{joined.decode()}]").items)
    return ",".join(block.text for block in kept).encode()


def _drop_late_thinking(blocks: Sequence[Raw]) -> Sequence[Raw]:
    if blocks and blocks[0].get("type").string in responses.THOUGHTS:
        return blocks
    return [block for block in blocks if block.get("type").string not in responses.THOUGHTS]


def _is_paused(answer: EncodedAnswer) -> bool:
    """Return whether the service goes on with an answer by itself: it is in the middle of a tool of its own."""
    return answer.message is not None and any(
        isinstance(part, OpaquePart) and part.type == SERVER_CALL for part in answer.message.parts
    )


def _agent_part(prompt: Prompt, offered: Mapping[str, OfferedTool]) -> bytes:
    system = b'"system":%b,' % dump(prompt.instructions).encode() if prompt.instructions.strip() else b""
    tools = dump_tools(
        {"name": name, "description": tool.description, "input_schema": tool.schema} for name, tool in offered.items()
    )
    return system + b'"tools":%b,' % tools if offered else system


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


def _part(block: Raw) -> responses.Part:
    if block.get("type").string != "tool_use":
        return responses.read_part(block)
    arguments = responses.read_arguments(block.get("input"))
    return responses.call(block.get("id").string, block.get("name").string, arguments)


def _native(blocks: Sequence[Raw]) -> Sequence[Raw] | None:
    """Return the blocks to send back, or `None` when the service would not take them.

    It refuses text without text and thinking without a signature, which is thinking that was cut, also its own; a
    message that ends with thinking; and one with thinking that begins with something else.
    """
    if not all(map(_is_sendable, blocks)):
        return None
    kept = [block for block in blocks if _is_whole(block)]
    while kept and kept[-1].get("type").string in responses.THOUGHTS:
        kept.pop()
    return _drop_late_thinking(kept)


def _is_sendable(block: Raw) -> bool:
    match block.get("type").string:
        case "":
            return False
        case "tool_use":
            return isinstance(block.get("input").value, dict)
        case "text":
            return isinstance(block.get("text").value, str)
        case _:
            return True


def _is_whole(block: Raw) -> bool:
    match block.get("type").string:
        case "text":
            return bool(block.get("text").string.strip())
        case "thinking":
            return bool(block.get("signature").string)
        case _:
            return True


DIALECT = Dialect(PROTOCOL, _result, _text, _rebuild, _native)


def _usage(prices_as: str | None, prompt: Prompt, body: Raw) -> Usage:
    """Return the usage of all passes of one call.

    Where the service did several, as in a compaction or a tool of its own, the top level counts only the last.
    """
    whole = _usage_of(prices_as, prompt, body, body.get("usage"))
    passes = body.get("usage").get("iterations")
    if not passes.value:
        return whole
    # What is no list of passes cannot be read, so that the price is unknown.
    total = reduce(add, [_usage_of(prices_as, prompt, body, counts) for counts in passes.items or (passes,)])
    cost = {"unpriced_calls": 1, "cost_usd": Decimal(0)} if total.unpriced_calls else {}
    return total.model_copy(update={"model_calls": 1, "reasoning_tokens": whole.reasoning_tokens, **cost})


def _usage_of(prices_as: str | None, prompt: Prompt, body: Raw, reported: Raw) -> Usage:
    counts = responses.TokenCounts(reported)
    cached = counts.read_detail("cache_read_input_tokens")
    written = counts.read_detail("cache_creation_input_tokens")
    return responses.compute_usage(
        prices_as,
        prompt,
        body,
        counts,
        input_tokens=counts.read("input_tokens") + cached + written,
        cached=cached,
        written=written,
        output=counts.read("output_tokens"),
        reasoning=counts.read_detail("output_tokens_details", "thinking_tokens"),
    )
