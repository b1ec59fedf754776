"""The built-in tool `read_result`: a long result of the run's own conversation, read on."""

from mandate.activities.tool_error import ToolError
from mandate.activities.toolbox.base import ToolText
from mandate.activities.toolbox.builtin import CHUNK_BYTES
from mandate.activities.transcript import results
from mandate.activities.transcript.blobs import Blobs
from mandate.activities.transcript.conversation import Conversation
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.transcript import AssistantMessage, Message, ResultPart, UserMessage


async def read_result(blobs: Blobs, conversation: Conversation, arguments: JsonObject) -> ToolText:
    """Return the next part of a result that this conversation was shown the beginning of, and of no other blob.

    Raises:
        ToolError: no result of this conversation has that name; a store failure.
    """
    name, start = str(arguments["result"]), int(str(arguments["start"]))
    by_message = conversation.map_messages("results", _list_stored)
    known = {part.digest: part for parts in by_message for part in parts if part.digest is not None}
    digest = next((digest for digest in known if digest[: results.REFERENCE_CHARACTERS] == name), None)
    if digest is None:
        names = ", ".join(digest[: results.REFERENCE_CHARACTERS] for digest in list(known)[-5:]) or "none"
        raise ToolError(Outcome.NOT_DONE, f"no stored result is called {name!r}; the latest are: {names}")
    content = await results.load_content(blobs, known[digest])
    if start >= len(content):
        raise ToolError(Outcome.NOT_DONE, f"start={start} is past the end: the result has {len(content)} bytes")
    return ToolText(results.cut_excerpt(content, start, CHUNK_BYTES, digest))


def _list_stored(message: Message, _: AssistantMessage | None) -> tuple[ResultPart, ...]:
    if not isinstance(message, UserMessage):
        return ()
    return tuple(part for part in message.parts if isinstance(part, ResultPart) and part.digest is not None)
