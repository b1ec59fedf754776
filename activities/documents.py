"""YAML files as plain values that remember where each part stands; read as YAML 1.2, core schema."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from mandate.activities.text_files import UnreadableText, read_text
from mandate.workflows.contracts.faults import Place, key_path
from mandate.workflows.rules import surrogates

MAX_NODES = 100_000
"""Values in one file, those that aliases repeat counted each time."""

_LINE_BREAK = re.compile(r"\r\n?|\n")
_MOST_TABS = 100
"""Each costs another reading."""
_TAB = "a tab stands where YAML takes spaces only"

_TAGS = tuple(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq"))
_IMPLICIT = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:merge", "tag:yaml.org,2002:value")
_INTEGER = re.compile(r"[-+]?[0-9]+")
_BASED_INTEGER = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_WORDS: Mapping[str, JsonValue] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong in a file that a person wrote."""

    file: str
    line: int
    """From 1; 0 for a fault of the whole file."""
    column: int
    """From 1."""
    key: str
    """Which value, for example `tools[2].effect`; empty for the whole file."""
    value: str
    """What is there, shortened; empty where it may not be shown."""
    message: str
    """What is wrong and what is allowed."""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{where}: {self.key}: {self.message}" if self.key else f"{where}: {self.message}"


def in_order(faults: "list[Fault] | tuple[Fault, ...]") -> tuple[Fault, ...]:
    """Return each fault once, by file, line and column."""
    return tuple(sorted(dict.fromkeys(faults), key=lambda fault: (fault.file, fault.line, fault.column, fault.key)))


@dataclass(frozen=True, slots=True)
class Document:
    """Content of one file, with the place of each part."""

    file: str
    value: JsonValue
    faults: tuple[Fault, ...]
    """Of the YAML itself; `value` is then what could be read."""
    _marks: Mapping[Place, tuple[int, int]]

    def mark(self, place: Place) -> tuple[int, int]:
        """Return line and column of `place`, or of the nearest thing around it that exists; 0 if nothing is known."""
        while place and place not in self._marks:
            place = place[:-1]
        return self._marks.get(place, (1, 1) if self._marks else (0, 0))

    def fault(self, place: Place, message: str, value: str = "") -> Fault:
        line, column = self.mark(place)
        return Fault(self.file, line, column, key_path(place), value, message)


def read_document(path: Path) -> Document:
    """Read the one document in a YAML file; faults are collected, never raised."""
    try:
        return parse_document(str(path), read_text(path))
    except UnreadableText as error:
        return _broken(Fault(str(path), error.line, error.column, "", "", error.problem))
    except OSError as error:
        return _broken(Fault(str(path), 0, 0, "", "", f"cannot be read: {error.strerror}"))


def parse_document(file: str, text: str) -> Document:
    """Read the one YAML document in `text`; faults are collected, never raised."""
    try:
        root = _compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        says = (
            _TAB
            if mark is not None and _is_tab(text, mark.index)
            else ", ".join(part for part in (error.context, error.problem) if part)
        )
        return _broken(Fault(file, line, column, "", "", f"is not valid YAML: {says}"))
    except ReaderError as error:
        lines = _LINE_BREAK.split(text[: error.position])
        line, column = len(lines), len(lines[-1]) + 1
        return _broken(Fault(file, line, column, "", "", f"is not valid YAML: U+{error.character:04X} is not allowed"))
    except (RecursionError, ValueError, YAMLError):
        return _broken(Fault(file, 0, 0, "", "", "is not valid YAML: nested too deep or badly tagged"))
    if root is None:
        return _broken(Fault(file, 0, 0, "", "", "is empty"))
    reader = _Reader(file)
    try:
        value = reader.read(root, (), ())
    except RecursionError:
        return _broken(Fault(file, 0, 0, "", "", "is nested too deep"))
    except _TooLarge:
        return _broken(Fault(file, 0, 0, "", "", f"holds more than {MAX_NODES} values, aliases repeated"))
    return Document(file, value, tuple(reader.faults), reader.marks)


def _compose(text: str) -> Node | None:
    """Return the node of the one document in `text`; tabs that only part a key from its value count as spaces."""
    for _ in range(_MOST_TABS):
        try:
            return _compose_as_it_is(text)
        except MarkedYAMLError as error:
            mark = error.problem_mark
            if mark is None or not _is_tab(text, mark.index) or not _begin_of_line(text, mark.index).strip():
                raise
            text = f"{text[: mark.index]} {text[mark.index + 1 :]}"
    return _compose_as_it_is(text)


def _compose_as_it_is(text: str) -> Node | None:
    root: Node | None = YAML(typ="safe", pure=True).compose(text)
    return root


def _is_tab(text: str, index: int) -> bool:
    return text[index : index + 1] == "\t"


def _begin_of_line(text: str, index: int) -> str:
    return _LINE_BREAK.split(text[:index])[-1]


def _broken(fault: Fault) -> Document:
    return Document(fault.file, None, (fault,), {})


class _TooLarge(Exception):
    """More values than a file may hold."""


class _Reader:
    """Builds plain values out of the nodes of one document."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.faults: list[Fault] = []
        self.marks: dict[Place, tuple[int, int]] = {}
        self._count = 0

    def read(self, node: Node, place: Place, around: tuple[Node, ...]) -> JsonValue:
        """Read one node; `around` are the nodes that `node` is in: an alias to one of them has no end."""
        self.marks.setdefault(place, _mark(node))
        self._count += 1
        if self._count > MAX_NODES:
            raise _TooLarge
        if node in around:
            self._fault(node, place, "an alias contains itself")
            return None
        if isinstance(node, ScalarNode):
            return self._scalar(node, place)
        if isinstance(node, SequenceNode):
            return [self.read(item, (*place, index), (*around, node)) for index, item in enumerate(node.value)]
        assert isinstance(node, MappingNode)
        return self._mapping(node, place, (*around, node))

    def _mapping(self, node: MappingNode, place: Place, around: tuple[Node, ...]) -> JsonValue:
        found: dict[str, JsonValue] = {}
        for key_node, item in node.value:
            key = self.read(key_node, (*place, "?"), around) if isinstance(key_node, ScalarNode) else None
            self.marks.pop((*place, "?"), None)
            if not isinstance(key, str):
                shown = f"the key {key_node.value}" if isinstance(key_node, ScalarNode) else "a key"
                self._fault(key_node, place, f"{shown} is not a text; put it in quotes")
                continue
            inner = (*place, key)
            if key in found:
                first = self.marks[inner][0]
                line = _mark(key_node)[0]
                self._fault(key_node, inner, f"the key {key!r} is given twice, in lines {first} and {line}")
                continue
            self.marks[inner] = _mark(key_node)
            found[key] = self.read(item, inner, around)
        return found

    def _scalar(self, node: ScalarNode, place: Place) -> JsonValue:
        tag, text = str(node.tag), self._text(node, place)
        if tag not in _TAGS and not (tag in _IMPLICIT and not node.style):
            self._fault(node, place, f"the tag {tag.replace('tag:yaml.org,2002:', '!!')} is not supported; remove it")
            return text
        if node.style or tag == "tag:yaml.org,2002:str":
            return text
        if _NOT_FINITE.fullmatch(text):
            self._fault(node, place, f"{text} is not a number that JSON has")
            return text
        return _plain(text)

    def _text(self, node: ScalarNode, place: Place) -> str:
        """Read the text of a scalar; JSON writers escape a character beyond U+FFFF as two halves."""
        text = surrogates.join_pairs(str(node.value))
        if surrogates.is_encodable(text):
            return text
        half = next(character for character in text if not surrogates.is_encodable(character))
        self._fault(node, place, f"holds half of a surrogate pair ('\\u{ord(half):04x}'), which is no text")
        return surrogates.repair_text(text)

    def _fault(self, node: Node, place: Place, message: str) -> None:
        line, column = _mark(node)
        self.faults.append(Fault(self.file, line, column, key_path(place), "", message))


def _plain(text: str) -> JsonValue:
    """Read a scalar without quotes: the core schema of YAML 1.2 and nothing more, so `on` and `12:30` are texts."""
    if text in _WORDS:
        return _WORDS[text]
    if _BASED_INTEGER.fullmatch(text):
        return int(text, 0)
    if _INTEGER.fullmatch(text):
        return int(text) if len(text) <= 300 else text
    if _FLOAT.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    return text


def _mark(node: Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1
