"""Bodies of HTTP answers as text: unpacked, in the encoding that they are in, or a line that says what they are."""

import codecs
import json
import re
import zlib
from collections.abc import Iterator, Sequence

from mandate.activities.text_files import detect_encoding
from mandate.workflows.rules import quantities

_TEXT_TYPES = ("json", "xml", "javascript", "yaml", "x-www-form-urlencoded", "csv")
_BINARY_FAMILIES = ("image/", "audio/", "video/", "font/")
_GUESSED_CHARSETS = frozenset(("iso8859-1", "iso8859-15", "cp1252", "ascii"))
"""Charsets that servers name without knowing: text of them is hardly ever UTF-8 by chance."""
_NO_CHARSETS = frozenset(
    (
        "idna",
        "punycode",
        "raw-unicode-escape",
        "raw_unicode_escape",
        "undefined",
        "unicode-escape",
        "unicode_escape",
        "utf-7",
    )
)
"""Codecs of Python that are no charsets of texts, or make of bytes what no other program does."""
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


class UnknownPacking(Exception):
    """A body in a packing that cannot be read."""


class BrokenPacking(Exception):
    """A packed body that is cut or damaged."""

    def __init__(self, beginning: bytes) -> None:
        super().__init__()
        self.beginning = beginning
        """What could be unpacked."""


def unpack(content: bytes, encodings: Sequence[str], limit: int) -> bytes:
    """Return a body unpacked, `limit` bytes and one more at most; one that is not packed after all as it is.

    Raises:
        UnknownPacking: names the packing.
        BrokenPacking: it ends too early, or is damaged.
    """
    for encoding in reversed([each for each in (name.strip().lower() for name in encodings) if each]):
        match encoding:
            case "identity":
                pass
            case "gzip" | "x-gzip":
                content = _inflate(content, 16 + zlib.MAX_WBITS, limit)
            case "deflate" if _begins(content, zlib.MAX_WBITS):
                content = _inflate(content, zlib.MAX_WBITS, limit)
            case "deflate" if _decode(content, "utf-8") is None:
                # Many servers send it without the header of zlib.
                content = _inflate(content, -zlib.MAX_WBITS, limit)
            case "deflate":
                pass
            case _:
                raise UnknownPacking(encoding)
    return content


def _begins(content: bytes, bits: int) -> bool:
    try:
        zlib.decompressobj(bits).decompress(content, 1)
    except zlib.error:
        return False
    return True


def _inflate(content: bytes, bits: int, limit: int) -> bytes:
    if not content or not _begins(content, bits):
        # A proxy has unpacked it, or the server never packed it.
        return content
    made, rest = b"", content
    while rest and len(made) <= limit and (not made or _begins(rest, bits)):
        unpacker = zlib.decompressobj(bits)
        try:
            made += unpacker.decompress(rest, limit + 1 - len(made))
        except zlib.error:
            raise BrokenPacking(made) from None
        if not unpacker.eof and len(made) <= limit:
            raise BrokenPacking(made)
        rest = unpacker.unused_data
    return made


def read_text(content: bytes, content_type: str, charset: str | None) -> str:
    """Return the text of a body; what is no text as one line that says what it is; empty for an empty body."""
    media = content_type.partition(";")[0].strip().lower()
    is_text = not media or media.startswith("text/") or any(word in media for word in _TEXT_TYPES)
    if not content:
        return ""
    if is_text or not media.startswith(_BINARY_FAMILIES):
        for encoding in _list_encodings(content, media, charset):
            mark = detect_encoding(content)[0]
            text = _decode(content[len(mark) :], encoding)
            if text is not None and (is_text or not _CONTROL.search(text)):
                return text
    if media and is_text and b"\0" not in content:
        return content.removeprefix(codecs.BOM_UTF8).decode("utf-8", "replace")
    return f"[{media or 'unknown type'}, {quantities.count_bytes(len(content))}]"


def _list_encodings(content: bytes, media: str, charset: str | None) -> Iterator[str]:
    """Yield the encodings that a body may be in, the surest first."""
    mark, marked = detect_encoding(content)
    if mark:
        yield marked
        return
    declared = _find_codec(charset)
    if "json" in media:
        # JSON is UTF-8 whatever the header says; older programs write UTF-16, which its zeros show.
        yield "utf-8" if b"\0" not in content[:4] else json.detect_encoding(content)
    if declared is None or declared in _GUESSED_CHARSETS:
        yield "utf-8"
    if declared is not None:
        yield declared
        yield "utf-8"


def _find_codec(charset: str | None) -> str | None:
    try:
        name = codecs.lookup(charset).name if charset else None
    except (LookupError, ValueError):
        return None
    return None if name in _NO_CHARSETS else name


def _decode(content: bytes, encoding: str) -> str | None:
    try:
        return content.decode(encoding)
    except (LookupError, ValueError):
        return None
