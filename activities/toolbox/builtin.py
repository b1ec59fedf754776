"""Definitions of the tools that every agent has."""

from datetime import timedelta

from mandate.workflows.contracts import tool
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.tool import BuiltinBinding, Effect, Tool, ToolDefinition

CHUNK_BYTES = 32 * 1024

READ_RESULT = ToolDefinition(
    tool=Tool(name=tool.READ_RESULT, source="builtin", effect=Effect.READ, timeout=timedelta(seconds=30)),
    description="Read a tool result of this conversation that is left out, or that was too long to be shown whole.",
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

KEEP_IN_MIND = ToolDefinition(
    tool=Tool(name=tool.KEEP_IN_MIND, source="builtin", effect=Effect.READ),
    description="Keep one fact in mind that you will need much later, for example a number, a rule or a decision. "
    "Older messages of a long conversation are left out at some time; the last 20 facts kept so are not.",
    input_schema={
        "type": "object",
        "properties": {
            "text": {"type": "string", "minLength": 1, "maxLength": 500, "description": "The fact, in one sentence."}
        },
        "required": ["text"],
        "additionalProperties": False,
    },
    binding=BuiltinBinding(kind="builtin"),
)
"""Answered by the workflow itself, which keeps the fact in its state."""

GO_BACK = ToolDefinition(
    tool=Tool(name=tool.GO_BACK, source="builtin", effect=Effect.READ),
    description="Go back to an earlier step of this conversation, and try another way from there. Your answers are its "
    "steps, counted from 1. What came after that step is forgotten, but for a note on what was done in it: calls that "
    "changed something stay done. Use it when a way has turned out to be wrong.",
    input_schema={
        "type": "object",
        "properties": {
            "to": {
                "type": "integer",
                "minimum": 1,
                "description": "The step whose results are the last you will know.",
            },
            "because": {
                "type": "string",
                "minLength": 1,
                "maxLength": 500,
                "description": "What was wrong with this way, for the one who goes on: you.",
            },
        },
        "required": ["to", "because"],
        "additionalProperties": False,
    },
    binding=BuiltinBinding(kind="builtin"),
)
"""For agents with `backtrack`; answered by the workflow itself."""

_KEY: JsonObject = {"type": "string", "pattern": "^[a-zA-Z][a-zA-Z0-9_-]{0,63}$", "description": "Name of the value."}

READ_BOARD = ToolDefinition(
    tool=Tool(name=tool.READ_BOARD, source="builtin", effect=Effect.READ, timeout=timedelta(seconds=30)),
    description="Read the board: values that you share with the agents above, beside and below you.",
    input_schema={
        "type": "object",
        "properties": {"key": {**_KEY, "description": "One value; left out: all of them."}},
        "additionalProperties": False,
    },
    binding=BuiltinBinding(kind="builtin"),
)

WRITE_BOARD = ToolDefinition(
    tool=Tool(name=tool.WRITE_BOARD, source="builtin", effect=Effect.READ, timeout=timedelta(seconds=30)),
    description="Write one value of the board, of at most 4 KB, unless somebody has written it since you read it: then "
    "nothing is written, and you are told the value as it is now. Decide anew from that.",
    input_schema={
        "type": "object",
        "properties": {
            "key": _KEY,
            "value": {"description": "The new value, any JSON."},
            "expected_version": {
                "type": "integer",
                "minimum": 0,
                "description": "The version that you have read; 0 if there was none.",
            },
        },
        "required": ["key", "value", "expected_version"],
        "additionalProperties": False,
    },
    binding=BuiltinBinding(kind="builtin"),
)
"""It changes nothing outside the runs of the tree, so that rules have it as a read."""

DEFINITIONS = (READ_RESULT, ASK_PERSON, KEEP_IN_MIND)
