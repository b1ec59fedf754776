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
from pydantic import JsonValue

from mandate.activities.toolbox.mcp import content
from mandate.activities.toolbox.schema import find_misfit, is_checkable
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.rules import quantities
from mandate.workflows.rules.plain_text import shorten

MAX_CONTENT = 2000
"""Parts of one result."""
EMPTY = "(the tool returned nothing)"
_EMPTY_VALUES: tuple[JsonValue, ...] = (None, "", [], {})
_SPELLINGS = {"structured_content": "structuredContent", "is_error": "isError", "toolResult": "structuredContent"}
"""Names of fields as some servers write them, and in the first version of the protocol."""
_FIELDS = ("content", "structuredContent", "isError", "_meta", "resultType", *_SPELLINGS)


class ResultUnusable(Exception):
    """The server answered with a result that cannot be read: the call was done."""


class InputRequired(Exception):
    """The server asks its client for more before it goes on: `result` says what."""

    def __init__(self, result: JsonObject) -> None:
        super().__init__("input")
        self.result = result


def read_result(answer: CallToolResult | InputRequiredResult) -> CallToolResult:
    """Return the server's result inside the text that `message_filter` makes of it.

    Raises:
        ResultUnusable: it is no object, has nothing that can be read or too many parts, or does not say whether it is
            an error.
        InputRequired: it is no result.
    """
    if isinstance(answer, InputRequiredResult):
        raise InputRequired(answer.model_dump(mode="json", by_alias=True, exclude_none=True))
    part = answer.content[0] if len(answer.content) == 1 else None
    try:
        message = pydantic_core.from_json(part.text) if isinstance(part, TextContent) else None
    except ValueError:
        message = None
    if not isinstance(message, dict) or "result" not in message:
        # Over HTTP an answer may come where it is not known for one; then the SDK has read it.
        return answer
    return _read(message["result"])


def _read(result: JsonValue) -> CallToolResult:
    """Return a result as one of the protocol's, as far as it can be read."""
    if not isinstance(result, dict):
        raise ResultUnusable(f"it is no object but {_show(result)}")
    if result.get("resultType") == "input_required":
        raise InputRequired(result)
    fields = _rename(result)
    listed, is_error = fields.get("content"), fields.get("isError")
    if isinstance(listed, list) and len(listed) > MAX_CONTENT:
        raise ResultUnusable(f"it has more than {MAX_CONTENT:,} parts")
    if listed is not None and not isinstance(listed, list | str | dict):
        raise ResultUnusable(f"its content is no list but {_show(listed)}")
    if is_error is not None and not isinstance(is_error, bool):
        raise ResultUnusable("its 'isError' is neither true nor false")
    parts = content.read_parts(listed)
    if parts and all(map(content.is_unreadable, parts)) and "structuredContent" not in fields:
        raise ResultUnusable(f"nothing in its content is of the protocol's shape: {_show(listed)}")
    others: JsonObject = {key: value for key, value in fields.items() if key not in _FIELDS}
    if "structuredContent" not in fields and (parts or not others):
        return CallToolResult(content=parts, is_error=is_error is True)
    structured = fields.get("structuredContent", others)
    return CallToolResult(content=parts, structured_content=structured, is_error=is_error is True)


def _show(value: JsonValue) -> str:
    return shorten(json.dumps(content.strip_encoded(value), ensure_ascii=False), 1000)


def _rename(result: JsonObject) -> JsonObject:
    others = {new: result[old] for old, new in _SPELLINGS.items() if old in result}
    return {**others, **result}


def find_schema_fault(answer: CallToolResult, schema: JsonObject | None) -> str | None:
    """Return why a result does not fit the tool's own output schema; `None` also when that cannot be found out."""
    if schema is None or answer.is_error:
        return None
    if answer.structured_content is None and answer.content:
        # Text in place of what the schema describes, as many servers have it, is read as text.
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

    Servers repeat structured content as text, so with it text parts are left out, but for errors, whose text is told;
    never holds base64.
    """
    parts = answer.content
    structured: JsonValue = None if _repeats_content(answer) else answer.structured_content
    if structured in _EMPTY_VALUES and parts:
        structured = None
    if structured is None:
        return "\n".join(_line(part) for part in parts)
    lines = [json.dumps(content.strip_encoded(structured), ensure_ascii=False)]
    if answer.is_error:
        texts = [_line(part) for part in parts if _is_plain_text(part)]
        lines += [text for text in texts if text and not _is_same(text, structured)]
    lines += [_line(part) for part in parts if not _is_plain_text(part)]
    return "\n".join(lines)


def _repeats_content(answer: CallToolResult) -> bool:
    """Return whether structured content is nothing but the parts once more, pictures included."""
    structured = answer.structured_content
    if not isinstance(structured, dict) or structured.keys() != {"content"} or not answer.content:
        return False
    repeated = structured["content"]
    return isinstance(repeated, list) and content.read_parts(repeated) == answer.content


def _is_plain_text(part: ContentBlock) -> bool:
    return isinstance(part, TextContent) and content.STANDS_IN not in (part.meta or {})


def _is_same(text: str, structured: JsonValue) -> bool:
    try:
        return bool(pydantic_core.from_json(text) == structured)
    except ValueError:
        return False


def _line(part: ContentBlock) -> str:
    match part:
        case TextContent(text=text):
            return content.strip_text(text)
        case ImageContent(mime_type=mime, data=data) | AudioContent(mime_type=mime, data=data):
            return content.describe_media(part.type, mime, data)
        case ResourceLink():
            size = f", {quantities.count_bytes(part.size)}" if part.size is not None else ""
            return f"[resource {part.uri}, {part.mime_type or 'unknown type'}{size}]"
        case EmbeddedResource(resource=TextResourceContents(text=text)):
            return content.strip_text(text)
        case EmbeddedResource(resource=resource):
            return content.describe_media(
                f"resource {resource.uri},", resource.mime_type, getattr(resource, "blob", "")
            )
