"""Text in files that people write: what editors and programs of any system save, read in one way."""

import codecs
from pathlib import Path

Encoding = tuple[bytes, str]
"""A byte order mark, and the name of the encoding that it stands for."""

_MARKS: tuple[Encoding, ...] = (
    # Longer ones first: the mark of UTF-32 begins with that of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


class UnreadableText(ValueError):
    """Bytes that are no text."""

    def __init__(self, line: int, column: int, problem: str) -> None:
        super().__init__(f"line {line}, column {column}: {problem}")
        self.line = line
        """From 1."""
        self.column = column
        """From 1, in characters."""
        self.problem = problem


def read_text(path: Path) -> str:
    """Return the text of a file.

    Raises:
        OSError: it cannot be read.
        UnreadableText: see `decode_text`.
    """
    return decode_text(path.read_bytes())


def decode_text(content: bytes) -> str:
    """Return the text of UTF-8, or of UTF-16 and UTF-32 with a byte order mark; the mark is no part of it.

    Raises:
        UnreadableText: it is neither; names the place and the byte.
    """
    mark, encoding = detect_encoding(content)
    text = content[len(mark) :]
    try:
        return text.decode(encoding)
    except UnicodeDecodeError as error:
        before = text[: error.start].decode(encoding)
        line = before.count("\n") + 1
        column = len(before) - before.rfind("\n")
        kind = encoding.removesuffix("-le").removesuffix("-be").upper()
        problem = f"is not {kind} text: byte 0x{text[error.start]:02x} cannot be read; save the file as UTF-8"
        raise UnreadableText(line, column, problem) from None


def detect_encoding(content: bytes) -> Encoding:
    """Return the byte order mark that `content` begins with, which may be none, and its encoding."""
    return next((known for known in _MARKS if content.startswith(known[0])), (b"", "utf-8"))
