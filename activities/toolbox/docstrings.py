"""Docstrings of tools in the four styles that people write: Google, NumPy, Sphinx (reStructuredText) and Epytext.

What cannot be read as a section stays in the description: the model is told it all the same.
"""

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

_Kind = Literal["arguments", "left out", "text"]

_ARGUMENTS = re.compile(
    r"(?:(?:keyword|named|optional|other|positional|required)[ -]+)?"
    r"(?:arg|args|argument|arguments|param|params|parameter|parameters|keywords|kwargs|kwparams)",
    re.IGNORECASE,
)
_LEFT_OUT = re.compile(
    r"returns?|yields?|receives|raises?|excep(?:t|tions?)|warns|examples?|see also|references|todo", re.IGNORECASE
)
"""Sections for programmers."""
_ARGUMENT_FIELDS = frozenset(
    ("param", "parameter", "arg", "argument", "key", "keyword", "kwarg", "kwparam", "keyword_param")
)
_LEFT_OUT_FIELDS = frozenset(
    (
        "type", "kwtype", "return", "returns", "rtype", "yield", "yields", "ytype", "raise", "raises", "except",
        "exception", "throws", "meta",
    )
)  # fmt: skip

_FIELD = re.compile(r"(?::|@)(\w+)((?:\s+[^:@]+)?):(?:\s+(.*)|)$")
"""`:param int order: text` and `@param order: text`, not a role such as :class:`Order`."""
_TITLE = re.compile(r"([A-Za-z][\w /-]{0,40}):\s*")
_UNDERLINE = re.compile(r"(?:-{3,}|={3,})\s*")
_NAMES = r"\*{0,2}\w+(?:\s*[,/]\s*\*{0,2}\w+)*"
_GOOGLE_ITEM = re.compile(rf"`{{0,2}}({_NAMES})`{{0,2}}\s*(?:\((?:[^()]|\([^()]*\))*\))?\s*:(?:\s+(.*)|)$")
_NUMPY_ITEM = re.compile(rf"`{{0,2}}({_NAMES})`{{0,2}}\s*(?::.*)?$")
_WORD = re.compile(r"\w+")
_ROLE = re.compile(r":[A-Za-z][\w:+-]*:(?=`)")
_EMPTY_LINES = re.compile(r"\n{3,}")


@dataclass(slots=True)
class Docstring:
    """Descriptions that a docstring gives."""

    description: str = ""
    """Everything but the sections of arguments, results, errors and examples."""
    arguments: dict[str, str] = field(default_factory=dict)
    """Description by argument."""


def read_docstring(text: str) -> Docstring:
    """Read a docstring; styles may be mixed, and of two descriptions of one argument the first counts."""
    lines = inspect.cleandoc(text).split("\n")
    read, kept, at = Docstring(), list[str](), 0
    while at < len(lines):
        kind, end, described = _read_part(lines, at)
        for name, words in described:
            if words and name not in read.arguments:
                read.arguments[name] = words
        if kind == "text":
            kept += lines[at:end]
        at = end
    read.description = _clean(kept)
    return read


def _read_part(lines: list[str], at: int) -> tuple[_Kind, int, list[tuple[str, str]]]:
    """Return what begins in line `at`, where it ends, and the arguments that it describes."""
    line = lines[at]
    if found := _FIELD.match(line):
        name, end = found[1].lower(), _end_of_field(lines, at)
        if name in _ARGUMENT_FIELDS:
            words = _clean([found[3] or "", inspect.cleandoc("\n" + "\n".join(lines[at + 1 : end]))])
            # Before the name there may be a type: `:param int order:`.
            names = [_WORD.findall(part)[-1:] for part in found[2].split(",")]
            return "arguments", end, [(name, words) for each in names for name in each]
        return ("left out" if name in _LEFT_OUT_FIELDS else "text"), end, []
    following = lines[at + 1] if at + 1 < len(lines) else ""
    if line.strip() and _UNDERLINE.fullmatch(following):
        end = _end_of_numpy_section(lines, at + 2)
        return _sort(line.strip(), end, lines[at + 2 : end], _NUMPY_ITEM)
    if (title := _TITLE.fullmatch(line)) and (end := _end_of_indented(lines, at + 1)) > at + 1:
        return _sort(title[1], end, inspect.cleandoc("\n" + "\n".join(lines[at + 1 : end])).split("\n"), _GOOGLE_ITEM)
    return "text", at + 1, []


def _sort(title: str, end: int, body: list[str], item: re.Pattern[str]) -> tuple[_Kind, int, list[tuple[str, str]]]:
    """Return a section by its title."""
    if _ARGUMENTS.fullmatch(title):
        return "arguments", end, list(_read_items(body, item))
    return ("left out" if _LEFT_OUT.fullmatch(title) else "text"), end, []


def _read_items(body: list[str], item: re.Pattern[str]) -> Iterator[tuple[str, str]]:
    """Yield each name with its description; an item begins where nothing is indented, and goes on over other lines."""
    names, words = "", list[str]()
    for line in [*body, None]:
        found = item.match(line) if line else None
        if line is not None and found is None:
            words.append(line)
            continue
        first, *rest = words or [""]
        yield from ((name, _clean([first, inspect.cleandoc("\n" + "\n".join(rest))])) for name in _WORD.findall(names))
        if found is not None:
            names, words = found[1], [(found[2] or "") if item is _GOOGLE_ITEM else ""]


def _end_of_field(lines: list[str], at: int) -> int:
    """Return where a field ends: before the next one, or where nothing is indented after an empty line."""
    for end in range(at + 1, len(lines)):
        if (
            lines[end].strip()
            and not lines[end][0].isspace()
            and (_FIELD.match(lines[end]) or not lines[end - 1].strip())
        ):
            return end
    return len(lines)


def _end_of_indented(lines: list[str], at: int) -> int:
    """Return where the indented lines from `at` on end; `at` itself where there are none."""
    end = at
    for position in range(at, len(lines)):
        if lines[position].strip():
            if not lines[position][0].isspace():
                break
            end = position + 1
    return end


def _end_of_numpy_section(lines: list[str], at: int) -> int:
    for end in range(at, len(lines) - 1):
        if lines[end].strip() and _UNDERLINE.fullmatch(lines[end + 1]):
            return end
    return len(lines)


def _clean(lines: list[str]) -> str:
    """Return lines as one text, without roles of Sphinx and superfluous empty lines."""
    return _EMPTY_LINES.sub("\n\n", _ROLE.sub("", "\n".join(lines))).strip()
