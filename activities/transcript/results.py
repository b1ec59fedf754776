"""Results of calls: stored where they were made, shown to the model up to a limit, read on from there."""

from collections.abc import Sequence

from mandate.activities.transcript import sensitive_arguments
from mandate.activities.transcript.blobs import Blobs
from mandate.activities.transcript.conversation import Conversation
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.base import Digest
from mandate.workflows.contracts.tool import INLINE_BYTES, READ_RESULT, ToolDefinition, ToolResult
from mandate.workflows.contracts.transcript import AssistantMessage, CallPart, ResultPart, StoredResult
from mandate.workflows.rules import quantities, surrogates

PREVIEW_CHARACTERS = 60
REFERENCE_CHARACTERS = 10
"""Length of the part of a digest that names a result to the model: within one conversation that is unique."""


async def store(blobs: Blobs, text: str, *, error: bool = False, salt: bytes | None = None) -> ToolResult:
    """Return `text` as it travels through Temporal: inline when short, else by reference.

    With a `salt` it may repeat something sensitive: always by reference, and nothing of it is told. What is stored
    behind the text makes its address one that cannot be guessed at.
    """
    text = surrogates.repair_text(text)
    content = text.encode()
    if salt is not None:
        (digest,) = await blobs.put(content + sensitive_arguments.compute_digest(salt, content).encode())
        return ToolResult(digest=digest, size=len(content), error=error)
    if len(content) <= INLINE_BYTES:
        return ToolResult(text=content.decode(), error=error)
    (digest,) = await blobs.put(content)
    return refer_to(content, digest).model_copy(update={"error": error})


def refer_to(content: bytes, digest: Digest) -> ToolResult:
    """Return a result whose text is stored under `digest` as it travels: inline when short."""
    if len(content) <= INLINE_BYTES:
        return ToolResult(text=content.decode())
    return ToolResult(digest=digest, size=len(content), preview=content.decode()[:PREVIEW_CHARACTERS])


async def load_content(blobs: Blobs, result: ToolResult | ResultPart | StoredResult) -> bytes:
    """Return the whole text of a result that is stored.

    Raises:
        BlobMissing, BlobCorrupted, StoreUnavailable: see there.
    """
    assert result.digest is not None
    return (await blobs.get(result.digest))[: result.size]


async def build_parts(
    blobs: Blobs, agent: PinnedAgent, conversation: Conversation, results: Sequence[ToolResult]
) -> list[ResultPart]:
    """Return the parts that answer the calls of the last turn, as the model sees them."""
    last = conversation[-1] if len(conversation) else None
    # A run that goes on from another one begins with the answers to that one's last calls.
    calls = last.calls if isinstance(last, AssistantMessage) else ()
    return [
        await tell(blobs, call, result, agent.definition(call.tool))
        for call, result in zip(calls, results, strict=True)
    ]


async def tell(blobs: Blobs, call: CallPart, result: ToolResult, definition: ToolDefinition | None) -> ResultPart:
    """Return the result of `call` as the model sees it."""
    note = f"[{result.note}]\n" if result.note else ""
    if result.digest is None:
        text = f"{note}{result.text or ''}"
        return ResultPart(
            kind="result",
            call_id=call.call_id,
            tool=call.tool,
            text=text,
            error=result.error,
            cached=result.cached,
        )
    limit = definition.result_limit_bytes if definition is not None else INLINE_BYTES
    text = cut_excerpt(await load_content(blobs, result), 0, limit, result.digest)
    return ResultPart(
        kind="result",
        call_id=call.call_id,
        tool=call.tool,
        text=f"{note}{text}",
        error=result.error,
        digest=result.digest,
        size=result.size,
        cached=result.cached,
    )


def cut_excerpt(content: bytes, start: int, limit: int, digest: str) -> str:
    """Return the UTF-8 bytes `start` to `start + limit` as text, and how to read on when that is not all."""
    if start == 0 and len(content) <= limit:
        return content.decode()
    end = _boundary(content, start + limit)
    text = content[_boundary(content, start) : end].decode()
    if end >= len(content):
        return text
    reference = digest[:REFERENCE_CHARACTERS]
    size = quantities.count_bytes(len(content))
    return f'{text}\n[{end} of {size} shown; go on with {READ_RESULT}(result="{reference}", start={end})]'


def _boundary(content: bytes, position: int) -> int:
    """Return the nearest start of a character at or before `position`."""
    position = min(position, len(content))
    while 0 < position < len(content) and content[position] & 0xC0 == 0x80:
        position -= 1
    return position
