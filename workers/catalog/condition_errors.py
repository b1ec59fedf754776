"""Errors of CEL in a condition, in the words of its author: the names that exist, and what to write."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import takewhile

from mandate.workers.catalog.condition_kinds import Struct, field_of
from mandate.workers.catalog.condition_types import THIS_TOOL

VARIABLES = ("agent", "args", "run", "tool")

_FUNCTIONS = (
    *("all", "bool", "bytes", "contains", "double", "duration", "dyn", "endsWith", "exists", "exists_one", "filter"),
    *("has", "int", "map", "matches", "size", "startsWith", "string", "timestamp", "type", "uint"),
)
_OF_TIMES = (
    *("getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getFullYear", "getHours", "getMilliseconds"),
    *("getMinutes", "getMonth", "getSeconds"),
)
_FAULT = re.compile(r"ERROR: <input>:(\d+):(\d+): ([^\n]*)")
_UNDEFINED = re.compile(r"undefined field '(.*)' not found in struct '(.*)'")
_OVERLOAD = re.compile(r"found no matching overload for '(.*)' applied to '\((.*)\)'")
_UNDECLARED = re.compile(r"undeclared reference to '(.*)' \(in container '.*'\)")
_SELECT = re.compile(r"expression of type '(.*)' cannot be the operand of a select operation")
_UNEXPECTED = re.compile(r"(?:mismatched|extraneous) input '(.*)' expecting .*", re.DOTALL)
_TOKEN = re.compile(r"token recognition error at: '(.*)'")
_IN_BRACKETS = "did you mean ["
"""The rest of a name that must stand in brackets was read as something else."""

_CONSTANT = r"-?\d+(?:\.\d+)?(?![\w.])"
_WORDS = {
    "double": "a decimal number",
    "int": "a whole number",
    "uint": "a whole number",
    "string": "a text",
    "bool": "a boolean",
    "bytes": "bytes",
    "dyn": "any value",
    "null_type": "null",
    "null": "null",
    "google.protobuf.Timestamp": "a time",
    "timestamp": "a time",
    "google.protobuf.Duration": "a duration",
    "duration": "a duration",
}
_SAME = {"and": "&&", "or": "||", "not": "!"}


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a condition."""

    line: int
    """From 1, within the condition."""
    column: int
    """From 1, in characters."""
    message: str

    def place(self, when: str) -> str:
        """Return the place as `column 6`; with the line where there are several."""
        return f"line {self.line}, column {self.column}" if "\n" in when.strip("\n") else f"column {self.column}"


def problems(
    when: str, says: str, structs: Mapping[str, Struct], variables: Sequence[str] = VARIABLES
) -> tuple[Problem, ...]:
    """Return the faults that the library names in `says`, without those that only follow from others."""
    found: list[Problem] = []
    for line, column, text in _FAULT.findall(says):
        if "'*error*'" in text:
            continue
        at = _Place(when, int(line), int(column), variables)
        if "Syntax error: " in text:
            return (*found, at.problem(_syntax(text.partition("Syntax error: ")[2], at)))
        found.append(_problem(text, at, structs))
        if _IN_BRACKETS in found[-1].message:
            break
    return tuple(dict.fromkeys(found)) or (Problem(1, 1, f"is not valid CEL: {says.splitlines()[0]}"),)


def wrong_result(kind: str) -> Problem:
    """Return the fault of a condition that comes to something else than true or false."""
    return Problem(1, 1, f"comes to {words(kind.lower())}; a condition is true or false")


def words(kind: str) -> str:
    """Return a type of CEL in words."""
    if kind.startswith("wrapper("):
        return f"{words(kind[8:-1])} or null"
    if kind.startswith(("list", "map")):
        return "a list" if kind.startswith("list") else "an object"
    return _WORDS.get(kind, "an object")


@dataclass(frozen=True, slots=True)
class _Place:
    when: str
    line: int
    column: int
    variables: Sequence[str]
    """Names that the condition sees."""

    @property
    def before(self) -> str:
        return self._line[: self.column - 1]

    @property
    def after(self) -> str:
        return self._line[self.column - 1 :]

    @property
    def _line(self) -> str:
        lines = self.when.split("\n")
        return lines[self.line - 1] if self.line <= len(lines) else ""

    def problem(self, message: str, skip: int = 0) -> Problem:
        return Problem(self.line, self.column + skip, message)


def _problem(text: str, at: _Place, structs: Mapping[str, Struct]) -> Problem:
    if match := _UNDEFINED.fullmatch(text):
        return _unknown_name(match[1], structs.get(match[2]), at)
    if match := _OVERLOAD.fullmatch(text):
        return at.problem(_overload(match[1], _split(match[2]), at))
    if match := _UNDECLARED.fullmatch(text):
        return _undeclared(match[1], at)
    if match := _SELECT.fullmatch(text):
        return at.problem(f"{words(match[1])} has no parts that can be named")
    return at.problem(text)


def _unknown_name(field: str, struct: Struct | None, at: _Place) -> Problem:
    if struct is None:
        return at.problem(f"there is no {field!r}")
    found = re.search(rf"[.\[(`\"'\s]({re.escape(field)})(?!\w)", at.after)
    skip = found.start(1) if found else 0
    name = "tool.name" if field == THIS_TOOL else field
    names = sorted(struct.names.values())
    written = at.after[skip:]
    # `run.calls.my-tool` reads as `run.calls.my - tool`.
    cut = [known for known in names if field_of(known) != known and written.startswith(known)]
    if not found and (quoted := re.search(r"[\[`][\"']?([^\"'`\]]*)", at.after)):
        skip, name = quoted.start(1), quoted[1]
    return at.problem(f"{struct.where} has no {name!r}{_suggestion(name, names, cut)}", skip)


def _suggestion(name: str, names: Sequence[str], likely: Sequence[str]) -> str:
    close = likely or get_close_matches(name, names, n=1)
    has = f"it has {', '.join(map(_shown, names))}" if names else "it has nothing"
    return f"; did you mean {_shown(close[0])}? {has}" if close else f"; {has}"


def _shown(name: str) -> str:
    return name if field_of(name) == name else f'["{name}"]'


def _undeclared(name: str, at: _Place) -> Problem:
    if at.before.endswith(name) and at.after.startswith("("):
        return at.problem(_unknown_function(name), -len(name))
    first = name.partition(".")[0]
    # For what is selected from, the library points behind the name, and for `has` before it.
    found = re.search(rf"\b{re.escape(first)}\b", at.after)
    skip = found.start() if found else -len(first) * at.before.endswith(first)
    if first in at.variables:
        return at.problem(f"{first!r} cannot be used in this way", skip)
    close = get_close_matches(first, at.variables, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    here = "a condition" if at.variables is VARIABLES else "it"
    return at.problem(f"there is no {first!r}; {hint}{here} sees {', '.join(at.variables) or 'nothing'}", skip)


def _unknown_function(name: str) -> str:
    if name in (*_FUNCTIONS, *_OF_TIMES):
        return f"{name}() takes other arguments"
    close = get_close_matches(name, (*_FUNCTIONS, *_OF_TIMES), n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"there is no function {name!r}; {hint}there are {', '.join(_FUNCTIONS)}, and those of times"


def _overload(function: str, kinds: Sequence[str], at: _Place) -> str:
    operator = function.replace("@", "").strip("_")
    given = " and ".join(map(words, kinds))
    if function == "_[_]":
        return f"[ ] cannot be applied to {given}; names of an object are written as they are, for example args.amount"
    if function == "_?_:_":
        return f"both sides of ':' must be of one kind, not {' and '.join(map(words, kinds[1:]))}"
    if function in {"!_", "-_"}:
        return f"{operator!r} cannot be applied to {given}"
    if not function.startswith(("_", "@")):
        return f"{function}() cannot be applied to {given}"
    return f"{operator!r} cannot be applied to {given}{_number_hint(operator, kinds, at)}"


def _number_hint(operator: str, kinds: Sequence[str], at: _Place) -> str:
    """Return the hint for a whole number that meets another number."""
    plain = [kind.removeprefix("wrapper(").removesuffix(")") for kind in kinds]
    flat = "".join(plain)
    if "int" not in flat or "double" not in flat:
        return ""
    behind = re.match(rf"\s*({_CONSTANT})", at.after[len(operator) :])
    ahead = re.search(rf"(?<![\w.])({_CONSTANT})\s*$", at.before)
    for found, kind in ((behind, plain[-1]), (ahead, plain[0])):
        if found and kind == "int":
            return f"; write {found[1]}.0"
    for found, kind in ((behind, plain[-1]), (ahead, plain[0])):
        if found and kind == "double" and found[1].endswith(".0"):
            return f"; write {found[1][:-2]}"
    if plain[-1].startswith("list"):
        return f"; write the numbers of the list as {'1.0' if 'int' in plain[-1] else '1'}"
    return "; write double(...) around the whole number"


def _split(kinds: str) -> list[str]:
    """Split `list(a, b), int` at the commas that are in no brackets."""
    found, depth = [""], 0
    for character in kinds:
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            found.append("")
        else:
            found[-1] += character
    return [kind.strip() for kind in found]


def _syntax(text: str, at: _Place) -> str:
    previous = "".join(takewhile(str.isalpha, reversed(at.before.rstrip())))[::-1]
    if match := _TOKEN.match(text):
        if match[1].startswith("="):
            return "'=' is not an operator; equality is written '=='"
        return (
            f"{match[1]!r} cannot be read; is a quote missing?"
            if match[1][:1] in "\"'"
            else (f"{match[1]!r} cannot be read")
        )
    if match := _UNEXPECTED.match(text):
        if match[1] == "<EOF>":
            return "ends where something is missing"
        word = match[1] if match[1] in _SAME else previous
        hint = f"; {word!r} is written {_SAME[word]!r}" if word in _SAME else ""
        return f"{match[1]!r} is not expected here{hint}"
    return text
