"""Arguments that a condition reads, by its text: for those that the workflow has no value of."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mandate.workflows.rules.names import is_sensitive

ARGS = "args"

_TOKEN = re.compile(
    r"""
    (?P<skip> \s+ | //[^\n]* )
    | (?P<text> [rRbB]{0,2} (?: \"\"\".*?\"\"\" | '''.*?''' | "(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*' ) )
    | (?P<name> [A-Za-z_]\w* | `[^`\n]*` )
    | (?P<sign> . )
    """,
    re.VERBOSE | re.DOTALL,
)
_OF_OTHERS = frozenset(("agent", "key", "result", "run", "tool"))
"""Variables in which nothing of the call's arguments is."""


@dataclass(frozen=True, slots=True)
class Read:
    """One place where a condition reads something sensitive."""

    offset: int
    """From 0, in characters."""
    name: str | None
    """The argument, as it is written; `None` for `args` as a whole, in which it is too."""


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    offset: int


def sensitive_reads(text: str, sensitive: Sequence[str]) -> tuple[Read, ...]:
    """Return where the expression `text` reads one of the `sensitive` arguments, also to ask whether it is there.

    Whatever takes `args` without naming what it wants counts as reading all of them: a comparison, a loop, a name that
    is computed. So does a part of that name of anything that may come from them.
    """
    if not sensitive:
        return ()
    tokens = [
        _Token(str(found.lastgroup), found[0], found.start())
        for found in _TOKEN.finditer(text)
        if found.lastgroup != "skip"
    ]
    return tuple(
        read
        for index, token in enumerate(tokens)
        if token.kind == "name" and not _is_selected(tokens, index)
        for read in _reads(tokens, index, sensitive)
    )


def _is_selected(tokens: Sequence[_Token], index: int) -> bool:
    """Tell whether a name is a part of something: it stands behind a dot, which stands behind a value."""
    if index < 2 or tokens[index - 1].text != ".":
        return False
    before = tokens[index - 2]
    return before.kind in {"name", "text"} or before.text in {")", "]", "}"}


def _reads(tokens: Sequence[_Token], index: int, sensitive: Sequence[str]) -> Iterator[Read]:
    root = tokens[index]
    if root.text in _OF_OTHERS:
        return
    parts = list(_parts(tokens, index + 1))
    if root.text == ARGS and (not parts or parts[0][0] is None):
        yield Read(root.offset, None)
    for name, offset in parts:
        if name is not None and is_sensitive(name, sensitive):
            yield Read(offset, name)


def _parts(tokens: Sequence[_Token], start: int) -> Iterator[tuple[str | None, int]]:
    """Find the names that follow a value, each with its offset; `None` for one that is computed."""
    position = start
    while position < len(tokens):
        token, behind = tokens[position], tokens[position + 1 : position + 3]
        if token.text == "." and behind and behind[0].text == "?":
            position += 1
            behind = tokens[position + 1 : position + 3]
        if token.text == "." and behind and behind[0].kind == "name":
            if len(behind) > 1 and behind[1].text == "(":
                yield None, behind[0].offset
                return
            yield behind[0].text.strip("`"), behind[0].offset
            position += 2
        elif token.text == "[":
            end = _closing(tokens, position)
            inside = [one for one in tokens[position + 1 : end] if one.text != "?"]
            yield _constant(inside), token.offset
            position = end + 1
        else:
            return


def _closing(tokens: Sequence[_Token], position: int) -> int:
    depth = 0
    for index in range(position, len(tokens)):
        depth += (tokens[index].text == "[") - (tokens[index].text == "]")
        if depth == 0:
            return index
    return len(tokens)


def _constant(inside: Sequence[_Token]) -> str | None:
    """Return the name that is written in brackets; one with escapes counts as computed."""
    if len(inside) != 1 or inside[0].kind != "text" or "\\" in inside[0].text:
        return None
    text = inside[0].text.lstrip("rRbB")
    quote = text[:3] if text[:3] in {'"""', "'''"} else text[:1]
    return text[len(quote) : -len(quote)]
