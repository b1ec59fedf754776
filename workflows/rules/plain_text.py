"""Strangers' text for people's eyes: without what steers a terminal, hides, or reorders what is read.

Whatever a model, a tool, a server or a caller wrote goes through here before a person sees it: titles, details,
summaries, errors, questions, notices, logs, and what commands print. What tools and models get is never changed.
"""

import re
from collections.abc import Callable

from pydantic import JsonValue

REPLACEMENT = "\ufffd"

REASON_CHARACTERS = 300
"""Longest reason that a run keeps of a failure."""

# Unicode 16: control (Cc), format (Cf), surrogates (Cs), line and paragraph separators (Zl, Zp), all that is to be
# ignored where it cannot be shown (Default_Ignorable_Code_Point), noncharacters, and two signs that are blank (U+2800,
# U+1D159). Written down, so that the answer is the same with each version of Python.
_UNSEEN = (
    "\x00-\x1f\x7f-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f\u2800\u3164\ud800-\udfff\ufdd0-\ufdef\ufe00-\ufe0f\ufeff\uffa0"
    "\ufff0-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d159\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff"
) + "".join(f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(17))

_PICTURES = (
    "\xa9\xae\u203c\u2049\u2122\u2139\u2190-\u21ff\u2300-\u23ff\u2460-\u24ff\u25a0-\u27bf\u2900-\u297f\u2b00-\u2bff"
    "\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
)
_STYLES = "\ufe0e\ufe0f"

# Left out and not replaced, since nothing is hidden by it: what makes one emoji of several ("woman, laptop"),
# or says that a sign is to be shown in colour. The parts stay, so the text stays readable.
_JOINT = re.compile(
    f"(?<=[{_PICTURES}])[{_STYLES}]|(?<=[0-9#*])[{_STYLES}](?=\u20e3)"
    f"|(?:(?<=[{_PICTURES}])|(?<=[{_PICTURES}][{_STYLES}]))\u200d(?=[{_PICTURES}])"
)
_FOUND = re.compile(f"[{_UNSEEN}]")
_FOUND_IN_LINES = re.compile(f"(?!\n)[{_UNSEEN}]")
_FOUND_IN_ASCII = re.compile("[\\x00-\\x09\\x0b-\\x1f\\x7f]")
_FOUND_IN_JSON = re.compile(f"(?![\t\n\r])[{_UNSEEN}]")


def make_plain(text: str) -> str:
    """Return `text` as one line that a person may be shown; characters that must not be there become U+FFFD."""
    # Almost all texts: nothing of ASCII that can be printed is replaced.
    if text.isascii() and text.isprintable():
        return text
    return _FOUND.sub(_replace, text)


def make_plain_lines(text: str) -> str:
    """Return `text` as `make_plain` does, with its line breaks."""
    if text.isascii() and _FOUND_IN_ASCII.search(text) is None:
        return text
    return _FOUND_IN_LINES.sub(_replace, text)


def make_plain_json(value: JsonValue) -> JsonValue:
    """Return `value` with its texts and keys as `make_plain_lines` has them; keys that would be equal are numbered."""
    return convert_texts(value, make_plain_lines)


def convert_texts(value: JsonValue, convert: Callable[[str], str]) -> JsonValue:
    """Return `value` with its texts and keys converted.

    Keys that become equal are kept apart, by a number in brackets: no value is lost.
    """
    match value:
        case str():
            return convert(value)
        case list():
            return [convert_texts(item, convert) for item in value]
        case dict():
            members: dict[str, JsonValue] = {}
            for key, item in value.items():
                converted = name = convert(key)
                number = 1
                while name in members:
                    number += 1
                    name = f"{converted} ({number})"
                members[name] = convert_texts(item, convert)
            return members
        case _:
            return value


def shorten(text: str, limit: int = REASON_CHARACTERS) -> str:
    """Return `text` on one line as `make_plain` has it, at most `limit` characters."""
    return cut(make_plain(" ".join(text.split())), limit)


def cut(text: str, limit: int) -> str:
    """Return at most `limit` characters of `text` as it is, the last of them `…` where more are left out."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def escape_json(document: str) -> str:
    """Escape in a JSON document what `make_plain` would replace: the same values, and nothing hides in it."""
    if document.isascii() and "\x7f" not in document:
        return document
    return _FOUND_IN_JSON.sub(_escape, document)


def _replace(match: re.Match[str]) -> str:
    """Return what is seen in place of one character."""
    match match[0]:
        case "\n":
            return " "
        case "\t":
            return "    "
        case "\r" if match.string.startswith("\n", match.end()):
            return ""
        case "\u200d" | "\ufe0e" | "\ufe0f" if _JOINT.match(match.string, match.start()):
            return ""
        case _:
            return REPLACEMENT


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x10000:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
