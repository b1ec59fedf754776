"""Results of MCP tools, and what they look like to a model: text, or one line for what is no text."""

import json

import pydantic_core
from mcp_types import (
    AudioContent,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    InputRequiredResult,
    ResourceLink,
    TextContent,
    TextResourceContents,
)
from pydantic import ValidationError

from mandate.activities.toolbox.mcp.tool_list import describe_protocol_fault
from mandate.activities.toolbox.schema import find_misfit, is_checkable
from mandate.workflows.contracts.base import JsonObject

MAX_CONTENT = 2000
"""Parts of one result."""


class ResultUnusable(Exception):
    """The server answered with a result that cannot be read: the call was done."""


class InputRequired(Exception):
    """The server asks its client for more, which nobody here can give."""


def read_result(answer: CallToolResult | InputRequiredResult) -> CallToolResult:
    """Return the server's result inside the text that `message_filter` makes of it.

    Raises:
        ResultUnusable: it is not of the protocol's shape, or has too many parts.
        InputRequired: it is no result.
    """
    if isinstance(answer, InputRequiredResult):
        raise InputRequired
    part = answer.content[0] if len(answer.content) == 1 else None
    try:
        message = pydantic_core.from_json(part.text) if isinstance(part, TextContent) else None
    except ValueError:
        message = None
    if not isinstance(message, dict) or "result" not in message:
        # Over HTTP an answer may come where it is not known for one; then the SDK has read it.
        return answer
    return _read(message["result"])


def _read(result: object) -> CallToolResult:
    if not isinstance(result, dict):
        raise ResultUnusable("it is no object")
    if result.get("resultType") == "input_required":
        raise InputRequired
    content = result.get("content", [])
    if isinstance(content, list) and len(content) > MAX_CONTENT:
        raise ResultUnusable(f"it has more than {MAX_CONTENT:,} parts")
    try:
        return CallToolResult.model_validate(result, by_name=False)
    except ValidationError as error:
        raise ResultUnusable(describe_protocol_fault(error)) from None


def find_schema_fault(answer: CallToolResult, schema: JsonObject | None) -> str | None:
    """Return why a result does not fit the tool's own output schema; `None` also when that cannot be found out."""
    if schema is None or answer.is_error:
        return None
    if answer.structured_content is None and "structured_content" not in answer.model_fields_set:
        return "the tool has an output schema but did not return structured content"
    try:
        if not is_checkable(schema, answer.structured_content):
            return None
    except ValueError:
        return None
    fault = find_misfit(schema, answer.structured_content)
    return None if fault is None else f"it does not fit the tool's own schema: {fault}"


def format_result(answer: CallToolResult) -> str:
    """Return structured content as JSON, else the text parts; the rest as one line each that says what it is.

    Servers repeat structured content as text, so with it text parts are left out; never holds base64.
    """
    structured = answer.structured_content is not None
    lines = [json.dumps(answer.structured_content, ensure_ascii=False)] if structured else []
    lines += [_line(part) for part in answer.content if not (structured and isinstance(part, TextContent))]
    return "\n".join(lines)


def _line(part: ContentBlock) -> str:
    match part:
        case TextContent(text=text):
            return text
        case ImageContent(mime_type=mime, data=data) | AudioContent(mime_type=mime, data=data):
            return f"[{part.type} {mime}, {_size(data)} bytes]"
        case ResourceLink():
            size = f", {part.size} bytes" if part.size is not None else ""
            return f"[resource {part.uri}, {part.mime_type or 'unknown type'}{size}]"
        case EmbeddedResource(resource=TextResourceContents(text=text)):
            return text
        case EmbeddedResource(resource=resource):
            blob = getattr(resource, "blob", "")
            return f"[resource {resource.uri}, {resource.mime_type or 'unknown type'}, {_size(blob)} bytes]"


def _size(base64: str) -> int:
    """Return the number of bytes that a base64 text stands for."""
    return len(base64.rstrip("=")) * 3 // 4
