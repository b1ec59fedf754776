"""What an MCP result looks like to a model: text, or one line for what is no text."""

import json

from mcp_types import (
    AudioContent,
    CallToolResult,
    ContentBlock,
    EmbeddedResource,
    ImageContent,
    ResourceLink,
    TextContent,
    TextResourceContents,
)


def result_text(answer: CallToolResult) -> str:
    """Structured content as JSON, else the text parts; the rest as one line each that says what it is.

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
    """Bytes that a base64 text stands for."""
    return len(base64.rstrip("=")) * 3 // 4
