"""Subjects of checks and probes: a call of a conversation with its result, or a final answer."""

from dataclasses import dataclass

from mandate.activities.checks.findings import Unable
from mandate.activities.toolbox import arguments, schema
from mandate.activities.transcript import results
from mandate.activities.transcript.conversation import Conversation
from mandate.activities.transcript.log import Chain, TranscriptLog
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.base import Digest, JsonObject
from mandate.workflows.contracts.tool import ToolDefinition, ToolResult
from mandate.workflows.contracts.verification import CheckRequest


@dataclass(frozen=True, slots=True)
class Work:
    """One call with what it returned, or the final answer where there is no `definition`."""

    agent: PinnedAgent
    conversation: Conversation
    definition: ToolDefinition | None
    args: JsonObject
    """Of the call, whole, as conditions see them."""
    text: str
    """Result of the call, or the final answer without the code fence around it."""
    is_cut: bool = False
    """True if `conversation` begins with a cut."""

    @property
    def is_shown(self) -> bool:
        """True if the result of the call may be shown to people."""
        return shows_results(self.definition)


def shows_results(definition: ToolDefinition | None) -> bool:
    """Return whether a tool's results may be shown to people: not when it was given something sensitive."""
    return definition is None or not definition.tool.sensitive


async def load_work(transcript: TranscriptLog, agent: PinnedAgent, request: CheckRequest) -> Work:
    """Return the subject of a check.

    Raises:
        Unable: the conversation has no such call or answer.
        BlobMissing, BlobCorrupted, StoreUnavailable: see there.
    """
    chain = await transcript.load(request.head)
    definition, args = None, JsonObject()
    if request.index is not None:
        definition, args = await load_call(transcript, agent, chain, request.index, request.edited)
    if request.result is not None:
        text = await load_text(transcript, request.result)
    elif definition is None and (last := chain.conversation.last_assistant()) is not None:
        text = last.text
    else:
        raise Unable("there is no result that could be checked", lasting=True)
    shown = text if definition is not None else schema.remove_fence(text)
    return Work(agent, chain.conversation, definition, args, shown, is_cut=chain.cut is not None)


async def load_call(
    transcript: TranscriptLog, agent: PinnedAgent, chain: Chain, index: int, edited: Digest | None
) -> tuple[ToolDefinition, JsonObject]:
    """Return the tool and the arguments of one call of the last turn; raise as `load_work`."""
    part = chain.conversation.find_call(index)
    definition = agent.definition(part.tool) if part is not None else None
    if part is None or definition is None:
        raise Unable(f"the conversation at {chain.head} has no call {index}", lasting=True)
    try:
        whole = await arguments.load_call(transcript.blobs, chain.conversation, definition, part, edited)
        return definition, arguments.convert(definition, whole)
    except ValueError as error:
        raise Unable(str(error), lasting=True) from None


async def load_text(transcript: TranscriptLog, result: ToolResult) -> str:
    """Return the whole text that a call returned."""
    if result.digest is None:
        return result.text or ""
    return (await results.load_content(transcript.blobs, result)).decode(errors="replace")
