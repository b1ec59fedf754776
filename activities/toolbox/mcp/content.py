"""Parts of a tool's result: those of the protocol's shape as they are, all others as text that says what they are."""

import json
import re

import pydantic_core
from mcp_types import ContentBlock, TextContent
from pydantic import JsonValue, TypeAdapter, ValidationError

from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.rules import quantities
from mandate.workflows.rules.plain_text import shorten

STANDS_IN = "mandate/stands-in"
"""Key in the `_meta` of a text that stands for a part which is none."""
_UNREADABLE = "nothing"
_PART: TypeAdapter[ContentBlock] = TypeAdapter(ContentBlock)
_ENCODED = re.compile(r"[A-Za-z0-9+/_\-\r\n]{4}[A-Za-z0-9+/_\-\r\n]*={0,2}\s*")
_DATA_ADDRESS = re.compile(r"data:([\w.+\-/]*)[^,]{0,200};base64,(.*)", re.DOTALL)
_LONG_ENCODED = 4096
"""Characters from which a text of letters, digits and no space is taken for base64 wherever it stands."""
_MEDIA_KEYS = ("mimeType", "mime_type", "mediaType", "media_type", "contentType", "content_type")
_DATA_KEYS = ("data", "blob", "base64", "bytes", "content", "body")


def read_parts(content: JsonValue) -> list[ContentBlock]:
    """Return the parts of a result; of a text or one part in place of a list, that one."""
    match content:
        case None:
            return []
        case list():
            return [_read_part(part) for part in content]
        case _:
            return [_read_part(content)]


def is_unreadable(part: ContentBlock) -> bool:
    """Return whether a text stands for a part that names no kind and has no text."""
    return isinstance(part, TextContent) and (part.meta or {}).get(STANDS_IN) == _UNREADABLE


def strip_encoded(value: JsonValue) -> JsonValue:
    """Return `value` with one line in place of each picture, sound or file that is in it as base64."""
    match value:
        case list():
            return [strip_encoded(item) for item in value]
        case dict():
            return _strip_object(value)
        case str():
            return _strip_text(value)
        case _:
            return value


def strip_text(text: str) -> str:
    """Return a text without the base64 in it, if it is that alone, or long JSON that holds some."""
    if len(text) < _LONG_ENCODED:
        return text
    if not text.lstrip().startswith(("{", "[")):
        return _strip_text(text)
    try:
        value: JsonValue = pydantic_core.from_json(text)
    except ValueError:
        return text
    stripped = strip_encoded(value)
    return text if stripped == value else json.dumps(stripped, ensure_ascii=False)


def count_bytes(base64: str) -> int:
    """Return the number of bytes that a base64 text stands for."""
    return len(base64.rstrip("=\r\n ")) * 3 // 4


def describe_media(kind: str, media: str | None, base64: str) -> str:
    return f"[{kind} {media or 'unknown type'}, {quantities.count_bytes(count_bytes(base64))}]"


def _read_part(part: JsonValue) -> ContentBlock:
    if isinstance(part, str):
        return TextContent(text=part)
    try:
        return _PART.validate_python(part, by_name=False)
    except ValidationError:
        text, is_read = _describe(part)
        return TextContent(text=text, _meta={STANDS_IN: "part" if is_read else _UNREADABLE})


def _describe(part: JsonValue) -> tuple[str, bool]:
    """Return the text of a part that is not of the protocol's shape, or what it is, and whether it can be read."""
    if not isinstance(part, dict):
        return json.dumps(strip_encoded(part), ensure_ascii=False), True
    inner = part.get("resource")
    source = inner if isinstance(inner, dict) else part
    text = source.get("text")
    if isinstance(text, str):
        return text, True
    if text is not None:
        return json.dumps(strip_encoded(text), ensure_ascii=False), True
    named = part.get("type")
    known: JsonObject = {key: value for key, value in part.items() if key not in ("_meta", "annotations")}
    shown = shorten(json.dumps(strip_encoded(known), ensure_ascii=False), 1000)
    if not isinstance(named, str):
        return f"[content without a type: {shown}]", False
    return f"[content of the type {shorten(named, 50)!r}, which is not known or not whole: {shown}]", True


def _strip_object(value: JsonObject) -> JsonValue:
    media = next((found for key in _MEDIA_KEYS if isinstance(found := value.get(key), str)), None)
    kind = value.get("type")
    if kind in ("image", "audio") and isinstance(data := value.get("data"), str):
        return describe_media(str(kind), media, data)
    if isinstance(blob := value.get("blob"), str) and (media is not None or "uri" in value):
        return describe_media(f"resource {value.get('uri', '')}".strip() + ",", media, blob)
    is_binary = media is not None and not media.startswith("text/")
    return {
        key: f"[base64, {quantities.count_bytes(count_bytes(item))}]"
        if is_binary and key in _DATA_KEYS and isinstance(item, str) and len(item) > 64 and _ENCODED.fullmatch(item)
        else strip_encoded(item)
        for key, item in value.items()
    }


def _strip_text(text: str) -> str:
    if found := _DATA_ADDRESS.fullmatch(text):
        return f"[data {found[1] or 'unknown type'}, {quantities.count_bytes(count_bytes(found[2]))}]"
    is_encoded = (
        len(text) >= _LONG_ENCODED
        and _ENCODED.fullmatch(text) is not None
        # Not a sequence of genes, nor a number in hexadecimal digits.
        and all(re.search(kind, text) for kind in ("[g-z]", "[A-Z]", "[0-9]"))
    )
    return f"[base64, {quantities.count_bytes(count_bytes(text))}]" if is_encoded else text
