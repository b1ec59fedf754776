"""Errors of the CEL library as problems of a condition: its own sentence, and the names that there are instead."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mandate.workers.catalog.condition_types import THIS_TOOL, Struct, field_of
from mandate.workflows.contracts.faults import did_you_mean

VARIABLES = ("agent", "args", "run", "tool")

_FUNCTIONS = (
    *("all", "bool", "bytes", "contains", "double", "duration", "dyn", "endsWith", "exists", "exists_one", "filter"),
    *("has", "int", "map", "matches", "size", "startsWith", "string", "timestamp", "type", "uint"),
)
_ERROR = re.compile(r"ERROR: <input>:(\d+):(\d+): ([^\n]*)")
_UNDEFINED = re.compile(r"undefined field '(.*)' not found in struct '(.*)'")
_UNDECLARED = re.compile(r"undeclared reference to '(.*)' \(in container '.*'\)")
_FUNCTION = re.compile(r"'[_@]*(.+?)_*' applied")
_OUR_TYPES = re.compile(r"seen\d+\.\w+")
_QUOTED = re.compile(r"[\"'`]([^\"'`\n]+)[\"'`]")

_OPERATORS = "; CEL writes '==' for equality, '&&' for and, '||' for or, '!' for not"
_NUMBERS = "; write a whole number as 100.0, or double(...) around it"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a condition."""

    line: int
    """From 1, within the condition."""
    column: int
    """From 1, in characters."""
    message: str

    def place(self, when: str) -> str:
        """Write `column 6`; with the line where there are several."""
        return f"line {self.line}, column {self.column}" if "\n" in when.strip("\n") else f"column {self.column}"


def problems(
    when: str, says: str, structs: Mapping[str, Struct], variables: Sequence[str] = VARIABLES
) -> tuple[Problem, ...]:
    """Return the errors that the library names in `says`, those left out that only follow from others."""
    found: list[Problem] = []
    for line, column, text in _ERROR.findall(says):
        if "'*error*'" in text:
            continue
        found.append(Problem(int(line), int(column), _sentence(text, when, structs, variables)))
        if text.startswith("Syntax error"):
            break
    return tuple(dict.fromkeys(found)) or (Problem(1, 1, f"is not valid CEL: {says.splitlines()[0]}"),)


def wrong_result(kind: str) -> Problem:
    """Make the problem of a condition that comes to something else than true or false."""
    return Problem(1, 1, f"has the type {_OUR_TYPES.sub('object', kind)}; a condition is true or false")


def _sentence(text: str, when: str, structs: Mapping[str, Struct], variables: Sequence[str]) -> str:
    if (match := _UNDEFINED.fullmatch(text)) and (struct := structs.get(match[2])) is not None:
        names = sorted(struct.names.values())
        name = _written(match[1], when)
        has = ", ".join(map(_accessed, names)) or "nothing"
        return f"{struct.where} has no {name!r}{did_you_mean(name, names)} it has {has}"
    if match := _UNDECLARED.fullmatch(text):
        name = match[1].partition(".")[0]
        if re.search(rf"\b{re.escape(name)}\s*\(", when):
            return f"there is no function {name!r}{did_you_mean(name, _FUNCTIONS)}".removesuffix(";")
        here = "a condition" if variables is VARIABLES else "it"
        return f"there is no {name!r}{did_you_mean(name, variables)} {here} sees {', '.join(variables) or 'nothing'}"
    if text.startswith("Syntax error"):
        said = text.partition(" expecting ")[0]
        return said.replace("'<EOF>'", "end of text") if "<EOF>" in said else f"{said}{_OPERATORS}"
    plain = _FUNCTION.sub(r"'\1' applied", _OUR_TYPES.sub("object", text))
    is_mixed = "overload" in plain and "double" in plain and re.search(r"\bint\b", plain) is not None
    return f"{plain}{_NUMBERS}" if is_mixed else plain


def _written(field: str, when: str) -> str:
    """Return the name for which `field` stands in the library's error, as its author wrote it."""
    if field == THIS_TOOL:
        return "tool.name"
    return next((name for name in _QUOTED.findall(when) if field_of(name) == field), field)


def _accessed(name: str) -> str:
    return name if field_of(name) == name else f'["{name}"]'
