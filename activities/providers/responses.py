"""Answers for all adapters: finish, usage, calls with ids."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from mandate.activities.providers import prices
from mandate.activities.providers.base import Completion, Prompt
from mandate.activities.providers.rawjson import Raw
from mandate.activities.providers.requests import make_name
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


@dataclass(frozen=True, slots=True)
class Answer:
    """A provider's answer, read but not judged."""

    parts: Sequence[Part]
    native: Sequence[str] | None
    """The provider's items as JSON texts; `None` when they must not go back as they are."""
    ended: Literal["complete", "truncated", "refused", "paused"]
    why: str = ""
    """The provider's words on a refusal."""


def make_text(value: str) -> TextPart:
    return TextPart(kind="text", text=value)


def make_refusal(value: str) -> RefusalPart:
    return RefusalPart(kind="refusal", text=value)


def make_opaque(kind: str) -> OpaquePart:
    return OpaquePart(kind="opaque", type=kind or "unknown")


def call(call_id: str, tool: str, arguments: str) -> CallPart:
    return CallPart(kind="call", call_id=call_id, tool=tool, arguments=arguments)


def make_completion(prompt: Prompt, protocol: Protocol, answer: Answer, usage: Usage) -> Completion:
    """Return the answer with its finish: a refused one makes no calls, and every call has an id of its own."""
    parts, native = _assign_ids(prompt, answer)
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
    return Completion(message=message, finish=finish, usage=usage, problem=problem)


def compute_usage(
    provider: str, model: str, body: Raw, *, input_tokens: int, cached: int, written: int, output: int, reasoning: int
) -> Usage:
    """Return the tokens of one call and their cost; `input_tokens` includes the cached ones."""
    usage = Usage(
        model_calls=1,
        input_tokens=input_tokens,
        cached_input_tokens=cached,
        cache_write_tokens=written,
        output_tokens=output,
        reasoning_tokens=reasoning,
    )
    cost = prices.compute_price(provider, model, usage, body)
    return usage.model_copy(update={"unpriced_calls": 1} if cost is None else {"cost_usd": cost})


def _finish(prompt: Prompt, answer: Answer, parts: Sequence[Part]) -> tuple[Finish, str | None]:
    refused = next((part.text for part in parts if isinstance(part, RefusalPart)), "")
    called = any(isinstance(part, CallPart) for part in parts)
    if answer.ended == "refused" or (refused and not called):
        why = shorten(answer.why or refused)
        return Finish.REFUSED, f"the model refused{f': {why}' if why else ' without a reason'}"
    if answer.ended == "truncated":
        return Finish.TRUNCATED, f"the answer was cut at the output limit of {prompt.max_output_tokens} tokens"
    if answer.ended == "paused":
        return Finish.PAUSED, None
    if not called and not any(isinstance(part, TextPart) and part.text.strip() for part in parts):
        return Finish.EMPTY, "the answer was empty"
    return Finish.COMPLETE, None


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
            if not part.call_id or part.call_id in seen:
                unique = f"{part.call_id or 'call'}-{len(prompt.conversation)}-{index}"
                part, native = part.model_copy(update={"call_id": unique}), None  # noqa: PLW2901 - the call under its own id
            seen.add(part.call_id)
            native = native if make_name(part.tool) == part.tool else None
        parts.append(part)
    return parts, native


def _call_ids(message: Message, _: AssistantMessage | None) -> tuple[str, ...]:
    return tuple(part.call_id for part in message.calls) if isinstance(message, AssistantMessage) else ()
