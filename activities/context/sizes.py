"""Tokens of messages, and of what an agent sends with each request."""

import json
from collections import OrderedDict

from mandate.activities.context.estimate import Tokens, count
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

PART_TOKENS = 10
"""Tokens around a text, a call or a result: roles, ids, names of fields."""
TOOL_TOKENS = 12
REQUEST_TOKENS = 12
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
    total = count(write_instructions(agent)) + Tokens(marks=REQUEST_TOKENS)
    for tool in agent.tools:
        schema = json.dumps(tool.input_schema, ensure_ascii=False)
        total = total + count(f"{tool.tool.name} {tool.description} {schema}") + Tokens(marks=TOOL_TOKENS)
    return total


def measure_message(message: Message, _: AssistantMessage | None = None) -> Tokens:
    """Return the tokens of one message; reasoning counts as its provider wrote it."""
    total = Tokens()
    for part in message.parts:
        match part:
            case TextPart() | RefusalPart():
                total = total + count(part.text)
            case ResultPart():
                total = total + count(part.text)
            case CallPart():
                total = total + count(f"{part.tool} {part.arguments}")
            case OpaquePart():
                pass
        total = total + Tokens(marks=PART_TOKENS)
    if isinstance(message, AssistantMessage) and any(isinstance(part, OpaquePart) for part in message.parts):
        native = count(message.native or "")
        return native if native.total > total.total else total
    return total


def measure_all(conversation: Conversation) -> list[Tokens]:
    """Return the tokens of each message, counted once a message."""
    return conversation.map_messages("tokens", measure_message)


def add_up(sizes: list[Tokens]) -> Tokens:
    """Return the sum of `sizes`."""
    return Tokens(
        sum(size.words for size in sizes),
        sum(size.marks for size in sizes),
        sum(size.dense for size in sizes),
        sum(size.scripts for size in sizes),
    )
