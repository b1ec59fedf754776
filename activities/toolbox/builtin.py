"""Tools that every agent has; they work on the run's own conversation."""

from datetime import timedelta

from mandate.activities.failures import ToolError
from mandate.activities.toolbox.base import ToolText
from mandate.activities.transcript import results
from mandate.activities.transcript.blobs import Blobs
from mandate.activities.transcript.conversation import Conversation
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.tool import BuiltinBinding, Effect, Tool, ToolDefinition
from mandate.workflows.contracts.transcript import AssistantMessage, Message, ResultPart, UserMessage

CHUNK_BYTES = 32 * 1024

READ_RESULT = ToolDefinition(
    tool=Tool(name=results.READ_RESULT, source="builtin", effect=Effect.READ, timeout=timedelta(seconds=30)),
    description="Read on in a tool result of this conversation that was too long to be shown whole.",
    input_schema={
        "type": "object",
        "properties": {
            "result": {"type": "string", "description": "The name given where the result was cut off."},
            "start": {"type": "integer", "minimum": 0, "description": "The first byte wanted."},
        },
        "required": ["result", "start"],
        "additionalProperties": False,
    },
    binding=BuiltinBinding(kind="builtin"),
    result_limit_bytes=CHUNK_BYTES + 1024,
)

ASK_PERSON = ToolDefinition(
    tool=Tool(name="ask_person", source="builtin", effect=Effect.READ),
    description="Ask a person what only a person can know or decide, and wait for the answer, which may take hours. "
    "Use it when you cannot go on without it, not for permission: calls that need permission ask for it themselves.",
    input_schema={
        "type": "object",
        "properties": {
            "question": {
                "type": "string",
                "minLength": 1,
                "maxLength": 4000,
                "description": "The question, with all that is needed to answer it.",
            },
            "options": {
                "type": "array",
                "items": {"type": "string", "minLength": 1, "maxLength": 200},
                "maxItems": 10,
                "description": "Answers to choose from, where there are such.",
            },
        },
        "required": ["question"],
        "additionalProperties": False,
    },
    binding=BuiltinBinding(kind="builtin"),
)
"""Answered by the workflow itself, from a request to people."""

DEFINITIONS = (READ_RESULT, ASK_PERSON)


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
