"""Halves of surrogate pairs: JSON can hold them as escapes, and no encoding can carry them.

A text that holds one breaks whatever encodes it next: a blob, a request, a condition. Two halves that belong together
are one character, as JSON writes an emoji.
"""

from pydantic import JsonValue

from mandate.workflows.rules import plain_text


def repair_text(text: str) -> str:
    """Return `text` as UTF-8 can carry it: pairs are joined, and halves that are alone become U+FFFD."""
    if is_encodable(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def join_pairs(text: str) -> str:
    """Return `text` with its surrogate pairs joined; halves that are alone stay."""
    if is_encodable(text):
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def repair_json(value: JsonValue) -> JsonValue:
    """Return `value` with its texts and keys as `repair_text` has them; keys that become equal are numbered."""
    return plain_text.convert_texts(value, repair_text)


def is_encodable(text: str) -> bool:
    """Return whether UTF-8 can carry `text`: it holds no half of a surrogate pair."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
