"""The built-in tool `read_result`: a long result of the run's own conversation, read on."""

from mandate.activities.tool_error import ToolError
from mandate.activities.toolbox.base import ToolText
from mandate.activities.toolbox.builtin import CHUNK_BYTES
from mandate.activities.transcript import results
from mandate.activities.transcript.log import Chain, TranscriptLog
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.transcript import AssistantMessage, Message, ResultPart, StoredResult, UserMessage
from mandate.workflows.rules import quantities


async def read_result(transcript: TranscriptLog, chain: Chain, arguments: JsonObject) -> ToolText:
    """Return the next part of a result that this conversation has or had, and of no other blob.

    Raises:
        ToolError: no result of this conversation has that name; a store failure.
    """
    name, start = str(arguments["result"]), int(str(arguments["start"]))
    by_message = chain.conversation.map_messages("results", list_stored)
    known = {reference: result for found in by_message for reference, result in found.items()}
    result = known.get(name)
    if result is None and chain.cut is not None:
        result = await transcript.earlier_calls.find_result(chain.cut.earlier, name)
    if result is None:
        names = ", ".join(list(known)[-5:]) or "none"
        raise ToolError(Outcome.NOT_DONE, f"no stored result is called {name!r}; the latest are: {names}")
    content = await results.load_content(transcript.blobs, result)
    if start >= len(content):
        raise ToolError(
            Outcome.NOT_DONE, f"start={start} is past the end: the result has {quantities.count_bytes(len(content))}"
        )
    return ToolText(results.cut_excerpt(content, start, CHUNK_BYTES, result.digest))


def list_stored(message: Message, _: AssistantMessage | None = None) -> dict[str, StoredResult]:
    """Return the stored results in `message`, by the names that the model knows them by."""
    if not isinstance(message, UserMessage):
        return {}
    return {
        part.digest[: results.REFERENCE_CHARACTERS]: StoredResult(digest=part.digest, size=part.size or 0)
        for part in message.parts
        if isinstance(part, ResultPart) and part.digest is not None
    }
