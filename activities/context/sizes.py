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
    total = count(write_instructions(agent)) + Tokens(marks=REQUEST_TOKENS, exact=REQUEST_TOKENS)
    for tool in agent.tools:
        schema = json.dumps(tool.input_schema, ensure_ascii=False)
        total = (
            total
            + count(f"{tool.tool.name} {tool.description} {schema}")
            + Tokens(marks=TOOL_TOKENS, exact=TOOL_TOKENS)
        )
    return total


def measure_message(message: Message) -> Tokens:
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
        total = total + Tokens(marks=PART_TOKENS, exact=PART_TOKENS)
    if isinstance(message, AssistantMessage) and any(isinstance(part, OpaquePart) for part in message.parts):
        native = count(message.native or "")
        return native if native.total > total.total else total
    return total


def measure_first(conversation: Conversation, length: int) -> Tokens:
    """Return the tokens of the first `length` messages; each message is counted once."""
    return conversation.add_up("tokens", measure_message, Tokens.__add__, length) or Tokens()
