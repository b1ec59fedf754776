"""Requests of all adapters: pairing, ids, cached parts, timeouts and connections.

A request is joined from JSON that is already encoded and posted as it is. Whatever changes from turn to turn comes
last, so that a request begins with the bytes of the one before it and the providers' prompt caches hit.
"""

import hashlib
import json
import re
import string
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from typing import Generic, NamedTuple, TypeVar

import httpx2

from mandate.activities.failures import make_model_failure
from mandate.activities.providers import vendor_rules
from mandate.activities.providers.base import Prompt
from mandate.activities.providers.rawjson import Raw
from mandate.activities.providers.schema_root import UntellableSchema
from mandate.activities.providers.tool_schemas import OfferedTool, offer
from mandate.activities.providers.vendor_rules import RULES
from mandate.workflows.contracts.base import Digest, JsonObject
from mandate.workflows.contracts.transcript import AssistantMessage, Message, Protocol, ResultPart, TextPart

T = TypeVar("T")

LIMITS = httpx2.Limits(max_connections=200, max_keepalive_connections=50, keepalive_expiry=30)
TIMEOUT = httpx2.Timeout(connect=10, read=600, write=60, pool=60)

DIRECT: dict[str, None] = dict.fromkeys(("all://localhost", "all://127.0.0.1", "all://[::1]"))
"""Transport mounts that keep a server on this machine out of `HTTP_PROXY`."""

_ALPHABET = string.ascii_letters + string.digits
_SHORT_ID = re.compile(r"[a-zA-Z0-9]{9}")

NO_RESULT = "(no result: this call was not made)"
EMPTY_RESULT = "(empty)"
EMPTY_INPUT = "(empty)"
"""In place of a first message without text: every conversation begins with a person's words."""
GO_ON = "Go on."
"""After an answer that nothing follows: models that take no beginning of their answer want the last word to be ours."""
INVALID_ARGUMENTS = "INVALID_JSON"
"""The one argument of a call whose arguments were no JSON object, where the protocol has room for objects only."""


def make_timeout(timeout: timedelta) -> httpx2.Timeout:
    """Return the timeouts: a gap between bytes may last the whole call, since a model that thinks sends nothing."""
    seconds = timeout.total_seconds()
    return httpx2.Timeout(connect=TIMEOUT.connect, read=seconds, write=TIMEOUT.write, pool=TIMEOUT.pool)


def make_id(call_id: str) -> str:
    """Return `call_id` in the form that all protocols accept: up to 40 of `[a-zA-Z0-9_-]`."""
    return _plain(call_id, 40)


def make_short_id(call_id: str) -> str:
    """Return `call_id` in the form of Mistral's servers, and of its models elsewhere: nine letters and digits.

    Other servers of Chat Completions take any text.
    """
    if _SHORT_ID.fullmatch(call_id):
        return call_id
    number = int.from_bytes(hashlib.sha256(call_id.encode()).digest())
    return "".join(_ALPHABET[number // len(_ALPHABET) ** place % len(_ALPHABET)] for place in range(9))


def make_name(tool: str) -> str:
    """Return a tool's name in the form that all protocols accept, also for a tool that the model made up."""
    return _plain(tool, 64)


def _plain(text: str, limit: int) -> str:
    plain = re.sub(r"[^a-zA-Z0-9_-]", "_", text)
    if plain == text and 0 < len(text) <= limit:
        return text
    return f"{plain[: limit - 11]}_{hashlib.sha256(text.encode()).hexdigest()[:10]}"


@dataclass(frozen=True, slots=True)
class EncodedInput:
    """A user message in a protocol's JSON."""

    results: tuple[tuple[str, bytes], ...]
    """Id of the call, as it was sent, and its result."""
    texts: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class EncodedAnswer:
    """An answer in a protocol's JSON."""

    items: bytes
    """Joined with commas; empty when nothing of it can be sent."""
    calls: tuple[str, ...] = ()
    """Ids as they are sent."""
    message: AssistantMessage | None = None
    """The answer that it was made of, for protocols that join answers in a row."""


Turn = EncodedInput | EncodedAnswer


class Exchange(NamedTuple):
    """Answers in a row, one result for each of their calls, and what the model was told then."""

    said: list[EncodedAnswer]
    results: list[bytes]
    texts: list[bytes]
    following: int | None
    """Number of the turn that begins the next exchange; `None` for the last, which may yet grow."""


def split_exchanges(
    turns: Sequence[Turn], begin: int, no_result: Callable[[str], bytes], empty: bytes
) -> Iterator[Exchange]:
    """Yield the conversation as all providers want it: roles alternate, each call has its result, results before text.

    It begins at turn `begin`. A call without a result gets `no_result` of its id; a result without a call is left out;
    a conversation that begins without a text begins with `empty`.
    """
    answers: list[EncodedAnswer] = []
    calls: list[str] = []
    results: dict[str, bytes] = {}
    texts: list[bytes] = []
    for number in range(begin, len(turns)):
        turn = turns[number]
        if isinstance(turn, EncodedInput):
            texts.extend(turn.texts)
            for call, result in turn.results:
                if call in calls:
                    results.setdefault(call, result)
        elif turn.items:
            texts = texts if texts or answers or begin else [empty]
            if texts or calls:
                yield Exchange(answers, _pair_results(calls, results, no_result), texts, number)
                answers, calls, results, texts = [], [], {}, []
            answers.append(turn)
            calls.extend(turn.calls)
    texts = texts if texts or answers or begin else [empty]
    yield Exchange(answers, _pair_results(calls, results, no_result), texts, None)


def _pair_results(calls: list[str], results: dict[str, bytes], no_result: Callable[[str], bytes]) -> list[bytes]:
    return [results[call] if call in results else no_result(call) for call in calls]


@dataclass(slots=True)
class _Written:
    """Exchanges of a conversation that are over, as they are sent."""

    turns: int = 0
    items: list[bytes] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Dialect:
    """Writer of messages in one protocol, for what people and the runtime say and for what other models said."""

    protocol: Protocol
    result: Callable[[str, str, bool], bytes]
    """From the call's id, the text (never empty) and whether it is an error."""
    text: Callable[[str], bytes]
    rebuilt: Callable[[AssistantMessage], EncodedAnswer]
    """An answer from its parts, with ids and names that every protocol accepts."""
    native: Callable[[Sequence[Raw]], Sequence[Raw] | None]
    """Those of a provider's own items that it takes back, in their order; `None` when they are not sent at all."""
    make_id: Callable[[str], str] = make_id
    """The id of a call of another model, as `rebuilt` writes it."""

    def keep_native(self, items: Sequence[Raw]) -> list[str] | None:
        """Return the provider's own items that go back to it; `None` when the answer is to be rebuilt."""
        kept = self.native(items) if all(item.is_strict for item in items) else None
        return [item.text for item in kept] if kept else None

    def write_conversation(self, prompt: Prompt, write: Callable[[Exchange], Iterable[bytes]]) -> list[bytes]:
        """Write the conversation in this protocol; encode a message once, and write it once its exchange is over."""
        model, key = prompt.model, f"{self.protocol}:{prompt.model}"
        turns = prompt.conversation.map_messages(key, lambda message, asked: self._turn(message, asked, model))
        over = prompt.conversation.cache(f"{key}:written", _Written)
        if over.turns > len(turns):
            # An earlier view of a conversation that has gone on.
            over = _Written()
        rest: list[bytes] = []
        for exchange in split_exchanges(turns, over.turns, self._no_result, self.text(EMPTY_INPUT)):
            if exchange.following is None:
                rest = list(write(exchange))
            else:
                over.items.extend(write(exchange))
                over.turns = exchange.following
        return over.items + rest

    def _no_result(self, call_id: str) -> bytes:
        return self.result(call_id, NO_RESULT, True)  # noqa: FBT003 - an error

    def _turn(self, message: Message, asked: AssistantMessage | None, model: str) -> Turn:
        if isinstance(message, AssistantMessage):
            if native := self._replay(message, model):
                return EncodedAnswer(native, tuple(call.call_id for call in message.calls), message)
            return self.rebuilt(message)
        own = asked is not None and bool(self._replay(asked, model))
        results = [part for part in message.parts if isinstance(part, ResultPart)]
        ids = [result.call_id if own else self.make_id(result.call_id) for result in results]
        return EncodedInput(
            results=tuple(
                (call_id, self.result(call_id, result.text if result.text.strip() else EMPTY_RESULT, result.error))
                for call_id, result in zip(ids, results, strict=True)
            ),
            texts=tuple(
                self.text(part.text) for part in message.parts if isinstance(part, TextPart) and part.text.strip()
            ),
        )

    def _replay(self, message: AssistantMessage, model: str) -> bytes | None:
        """Return the provider's own items, which go back only to the protocol and the model that made them."""
        if not message.native or message.protocol != self.protocol or message.model != model:
            return None
        return _look_through(self, message.native)


@lru_cache(maxsize=4)
def _look_through(dialect: Dialect, native: str) -> bytes | None:
    """Return what of stored items is sent, of which a rule may be younger; asked for an answer and for its results."""
    try:
        kept = dialect.keep_native(Raw.read(f"[{native}]").items)
    except ValueError:
        return None
    return ",".join(kept).encode() if kept else None


def make_arguments(text: str) -> str:
    """Return `text` when it is a JSON object, else an object that holds it: servers that read arguments accept both."""
    if is_object(text):
        return text
    return dump({INVALID_ARGUMENTS: text}) if text.strip() else "{}"


def is_object(text: str) -> bool:
    """Return whether `text` is a JSON object that every server can read."""
    try:
        raw = Raw.read(text)
    except ValueError:
        return False
    return isinstance(raw.value, dict) and raw.is_strict


def dump(value: object, *, sort_keys: bool = False) -> str:
    """Return `value` as JSON without spaces, keys in their order; `?` for half of a surrogate pair."""
    written = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=sort_keys)
    return written if written.isascii() else written.encode("utf-8", "replace").decode()


def offer_tools(provider: str, protocol: Protocol, prompt: Prompt) -> dict[str, OfferedTool]:
    """Return the tools of a prompt, by name, as the vendor takes them.

    Raises:
        ApplicationError: it takes no form of one, or not so many.
    """
    why = vendor_rules.find_count_fault(provider, protocol, len(prompt.tools))
    offered: dict[str, OfferedTool] = {}
    for definition in prompt.tools:
        try:
            offered[definition.tool.name] = offer(definition, RULES[protocol])
        except UntellableSchema as error:
            why = why or f"tool {definition.tool.name!r}: {error}"
    if why is not None:
        name = f"{provider}:{prompt.model}"
        raise make_model_failure("configuration", f"{name!r} was not asked: {why}", attempt=prompt.attempt)
    return offered


def dump_tools(tools: Iterable[JsonObject]) -> bytes:
    """Return the tools in their order, each with sorted keys: equal bytes in every process."""
    return b"[%b]" % b",".join(dump(tool, sort_keys=True).encode() for tool in tools)


class AgentPart(Generic[T]):
    """Part of a request that only depends on the agent, made once an agent."""

    def __init__(self, make: Callable[[Prompt], T], limit: int = 32) -> None:
        self._make = make
        self._limit = limit
        self._parts: OrderedDict[Digest, T] = OrderedDict()

    def of(self, prompt: Prompt) -> T:
        part = self._parts.get(prompt.agent)
        if part is None:
            part = self._parts[prompt.agent] = self._make(prompt)
            if len(self._parts) > self._limit:
                self._parts.popitem(last=False)
        else:
            self._parts.move_to_end(prompt.agent)
        return part
