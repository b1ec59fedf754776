"""Answers for all adapters: parts, finish, usage, calls with ids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mandate.activities.providers import errors, prices, tool_schemas
from mandate.activities.providers.base import Completion, Prompt
from mandate.activities.providers.rawjson import Raw
from mandate.activities.providers.requests import make_name
from mandate.activities.providers.tool_schemas import OfferedTool
from mandate.workflows.contracts.model import Finish, Usage
from mandate.workflows.contracts.transcript import (
    AssistantMessage,
    CallPart,
    Message,
    OpaquePart,
    Protocol,
    RefusalPart,
    TextPart,
)
from mandate.workflows.rules.plain_text import shorten

Part = TextPart | CallPart | RefusalPart | OpaquePart
Ended = Literal["complete", "truncated", "refused", "paused"]

STOP_REASONS: Mapping[str, Ended | Literal["broken", "window"]] = {
    **dict.fromkeys(("stop", "tool_calls", "tool_call", "function_call", "eos", "eos_token"), "complete"),
    **dict.fromkeys(("end_turn", "tool_use", "stop_sequence"), "complete"),
    **dict.fromkeys(("length", "max_tokens", "max_output_tokens", "model_length"), "truncated"),
    **dict.fromkeys(("content_filter", "refusal", "safety", "sensitive"), "refused"),
    **dict.fromkeys(("abort", "error", "insufficient_system_resource", "network_error"), "broken"),
    "pause_turn": "paused",
    "model_context_window_exceeded": "window",
}
"""Reasons for the end of an answer: those of the vendors, and of servers that follow their protocols."""

THOUGHTS = ("reasoning", "thinking", "redacted_thinking")
"""Parts that are no part of what a model says."""
_SHOWN_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class Answer:
    """A provider's answer, read but not judged."""

    parts: Sequence[Part]
    native: Sequence[str] | None
    """The provider's items as JSON texts; `None` when they must not go back as they are."""
    ended: Ended
    why: str = ""
    """The provider's words on a refusal, or where an answer was cut."""
    model: str = ""
    """As the provider names it."""


def make_text(value: str) -> TextPart:
    return TextPart(kind="text", text=value)


def make_refusal(value: str) -> RefusalPart:
    return RefusalPart(kind="refusal", text=value)


def make_opaque(kind: str) -> OpaquePart:
    return OpaquePart(kind="opaque", type=kind or "unknown")


def call(call_id: str, tool: str, arguments: str) -> CallPart:
    return CallPart(kind="call", call_id=call_id, tool=tool, arguments=arguments)


def read_arguments(arguments: Raw) -> str:
    """Return the arguments of a call as JSON text, whether they came as such a text or as JSON.

    What is no object, and what is no text, is left to be refused with a sentence: it never counts as no arguments.
    """
    text = arguments.value if isinstance(arguments.value, str) else arguments.text
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def read_content(content: Raw) -> list[Part]:
    """Return the parts of what a model says, given as a text, as one part, or as a list of either."""
    if content.value is None:
        return []
    parts = content.items if isinstance(content.value, list) else (content,)
    return [read_part(part) for part in parts]


def read_part(part: Raw) -> Part:
    """Return one part of what a model says; one of a kind that is not known is opaque."""
    if isinstance(part.value, str):
        return make_text(part.string)
    if not isinstance(part.value, dict):
        return make_opaque(part.kind)
    kind = part.get("type").string
    if kind == "refusal":
        return read_refusal(part.get("refusal"))
    if kind in ("text", "output_text", "") and isinstance(part.get("text").value, str):
        return make_text(part.get("text").string)
    return make_opaque(kind)


def read_ending(reason: Raw, peer: errors.Peer) -> Ended:
    """Return how an answer ended, by the reason that its server gives.

    Raises:
        ApplicationError: it was broken off, or nobody knows whether it is whole, since the reason is not known.
    """
    match STOP_REASONS.get(reason.string.lower()):
        case "broken":
            raise peer.failure("server", f"broke the answer off ({reason.string})", status=200)
        case "window":
            raise peer.failure("context_length", "stopped: the conversation fills the model's window", status=200)
        case None:
            shown = shorten(read_arguments(reason), _SHOWN_CHARACTERS)
            what = f"ended its answer for a reason that is not known here: {shown!r}; it is not taken"
            raise peer.failure("malformed", what, status=200, retryable=False)
        case ended:
            return ended


def read_refusal(refusal: Raw) -> RefusalPart:
    """Return a refusal; the JSON of one that is no text."""
    return make_refusal(refusal.string or shorten(read_arguments(refusal), _SHOWN_CHARACTERS))


def make_completion(
    prompt: Prompt, protocol: Protocol, answer: Answer, usage: Usage, offered: Mapping[str, OfferedTool]
) -> Completion:
    """Return the answer with its finish: a refused one makes no calls, and every call has an id of its own.

    Arguments have the names that the tool has, also where the vendor was `offered` others.
    """
    parts, native = _assign_ids(prompt, answer)
    parts = [_restore_names(prompt, part, offered) if isinstance(part, CallPart) else part for part in parts]
    if answer.ended == "refused":
        parts, native = [part for part in parts if not isinstance(part, CallPart)], None
    finish, problem = _finish(prompt, answer, parts)
    message = AssistantMessage(
        role="assistant",
        parts=tuple(parts),
        protocol=protocol,
        model=prompt.model,
        native=",".join(native) if native else None,
    )
    return Completion(
        message=message,
        finish=finish,
        usage=usage,
        problem=problem,
        answered_by=shorten(answer.model, _SHOWN_CHARACTERS),
    )


@dataclass(slots=True)
class TokenCounts:
    """Reader of the `usage` of an answer."""

    usage: Raw
    is_whole: bool = field(default=True, init=False)
    """No count that was read is missing or of another shape."""

    def read(self, name: str) -> int:
        """Return a count that every answer has."""
        return self._read(self.usage.get(name))

    def read_detail(self, *names: str) -> int:
        """Return a count that may be left out."""
        found = self.usage
        for name in names:
            found = found.get(name)
        return 0 if found.value is None else self._read(found)

    def _read(self, found: Raw) -> int:
        count = found.find_count()
        self.is_whole &= count is not None
        return count or 0


def compute_usage(
    prices_as: str | None,
    prompt: Prompt,
    body: Raw,
    counts: TokenCounts,
    *,
    input_tokens: int,
    cached: int,
    written: int,
    output: int,
    reasoning: int,
) -> Usage:
    """Return the tokens of one call, as read by `counts`, and their cost; `input_tokens` includes the cached ones.

    `prices_as` is the provider whose list prices hold; without one the cost is unknown.
    Where a count could not be read, the price is unknown: a sum over the others would be too low.
    """
    usage = Usage(
        model_calls=1,
        input_tokens=input_tokens,
        cached_input_tokens=cached,
        cache_write_tokens=written,
        output_tokens=output,
        reasoning_tokens=reasoning,
    )
    cost = None
    if counts.is_whole:
        cost = prices.compute_price(prices_as, prompt.model, usage, body, price=prompt.price, counts=counts.usage)
    return usage.model_copy(update={"unpriced_calls": 1} if cost is None else {"cost_usd": cost})


def _restore_names(prompt: Prompt, call: CallPart, offered: Mapping[str, OfferedTool]) -> CallPart:
    tool = offered.get(call.tool)
    if tool is None or not tool.names:
        return call
    definition = next(definition for definition in prompt.tools if definition.tool.name == call.tool)
    return call.model_copy(update={"arguments": tool_schemas.restore_names(definition, tool, call.arguments)})


def _finish(prompt: Prompt, answer: Answer, parts: Sequence[Part]) -> tuple[Finish, str | None]:
    refused = next((part.text for part in parts if isinstance(part, RefusalPart)), "")
    called = any(isinstance(part, CallPart) for part in parts)
    if answer.ended == "refused" or (refused and not called):
        why = shorten(answer.why or refused)
        return Finish.REFUSED, f"the model refused{f': {why}' if why else ' without a reason'}"
    if answer.ended == "truncated":
        why = answer.why or f"at the output limit of {prompt.max_output_tokens} tokens"
        return Finish.TRUNCATED, f"the answer was cut {why}"
    if answer.ended == "paused":
        return Finish.PAUSED, None
    if not called and not any(isinstance(part, TextPart) and part.text.strip() for part in parts):
        unread = [part.type for part in parts if isinstance(part, OpaquePart) and part.type not in THOUGHTS]
        return Finish.EMPTY, _explain_unread(unread) if unread else "the answer was empty"
    return Finish.COMPLETE, None


def _explain_unread(kinds: Sequence[str]) -> str:
    listed = shorten(", ".join(map(repr, dict.fromkeys(kinds))), _SHOWN_CHARACTERS)
    return f"the answer has neither a text nor a call, only what is not known here: {listed}"


def _assign_ids(prompt: Prompt, answer: Answer) -> tuple[list[Part], Sequence[str] | None]:
    """Give an id that the conversation has not seen to each call whose id is missing or repeated, as of some servers.

    An answer so changed, or with a tool name that no protocol accepts, does not go back as it was.
    """
    if not any(isinstance(part, CallPart) for part in answer.parts):
        return list(answer.parts), answer.native
    seen = {call_id for ids in prompt.conversation.map_messages("call ids", _call_ids) for call_id in ids}
    parts: list[Part] = []
    native = answer.native
    for index, part in enumerate(answer.parts):
        if isinstance(part, CallPart):
            unique = part.call_id
            while not unique or unique in seen:
                unique = f"{unique or 'call'}-{len(prompt.conversation)}-{index}"
            if unique != part.call_id:
                part, native = part.model_copy(update={"call_id": unique}), None  # noqa: PLW2901 - the call under its own id
            seen.add(part.call_id)
            native = native if make_name(part.tool) == part.tool else None
        parts.append(part)
    return parts, native


def _call_ids(message: Message, _: AssistantMessage | None) -> tuple[str, ...]:
    return tuple(part.call_id for part in message.calls) if isinstance(message, AssistantMessage) else ()
