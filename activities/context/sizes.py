"""Tokens of messages, and of what an agent sends with each request."""

import json
from collections import OrderedDict
from contextlib import suppress
from dataclasses import replace

from mandate.activities.context.estimate import Tokens, measure_text
from mandate.activities.transcript.conversation import Conversation
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.base import Digest
from mandate.workflows.contracts.transcript import (
    AssistantMessage,
    CallPart,
    Message,
    OpaquePart,
    RefusalPart,
    ResultPart,
    TextPart,
)

AGENTS_KEPT = 64

PINNED = "Always keep in mind:"


def write_instructions(agent: PinnedAgent) -> str:
    """Return the system text of every request: the agent's instructions, and the texts that it pins."""
    if not agent.context.pin:
        return agent.instructions
    return "\n".join((agent.instructions.rstrip(), "", PINNED, *(f"- {text}" for text in agent.context.pin)))


class AgentSizes:
    """Tokens of instructions and tools, counted once an agent."""

    def __init__(self) -> None:
        self._sizes: OrderedDict[Digest, Tokens] = OrderedDict()

    def measure(self, digest: Digest, agent: PinnedAgent) -> Tokens:
        size = self._sizes.get(digest)
        if size is None:
            size = self._sizes[digest] = measure_agent(agent)
            if len(self._sizes) > AGENTS_KEPT:
                self._sizes.popitem(last=False)
        return size


def measure_agent(agent: PinnedAgent) -> Tokens:
    """Return the tokens of instructions and tools."""
    total = measure_text(write_instructions(agent))
    for tool in agent.tools:
        schema = json.dumps(tool.input_schema, ensure_ascii=False)
        total = total + measure_text(f"{tool.tool.name} {tool.description} {schema}")
    # The request itself is a part too.
    return Tokens(fixed=total.text, parts=total.parts + 1, extra_bytes=total.extra_bytes)


def measure_message(message: Message) -> Tokens:
    """Return the tokens of one message."""
    total, is_opaque = Tokens(), False
    for part in message.parts:
        match part:
            case TextPart() | RefusalPart() | ResultPart():
                total = total + measure_text(part.text)
            case CallPart():
                total = total + measure_text(f"{part.tool} {_write_arguments(message, part)}")
            case OpaquePart():
                is_opaque = True
    if isinstance(message, AssistantMessage) and message.native is not None and is_opaque:
        native = measure_text(message.native)
        return replace(total, native=max(native.text - total.text, 0))
    return total


def _write_arguments(message: Message, part: CallPart) -> str:
    """Return the arguments of a call as the next request has them: Anthropic's has their values, not their text."""
    if isinstance(message, AssistantMessage) and message.protocol == "anthropic.messages":
        with suppress(ValueError, RecursionError):
            return json.dumps(json.loads(part.arguments), ensure_ascii=False)
    return part.arguments


def measure_first(conversation: Conversation, length: int) -> Tokens:
    """Return the tokens of the first `length` messages; each message is counted once."""
    return conversation.add_up("tokens", measure_message, Tokens.__add__, length) or Tokens()
