"""Acceptance of what MCP servers say of their tools: names, descriptions and schemas stand in the prompt.

They are a stranger's words and may be others at each start of a worker. An agent file holds the digest of those that
somebody has looked at; the words themselves are kept in `accepted/<digest>.json` beside it, so that a difference can be
shown. A digest that is not accepted taints each run from its beginning; another one than was accepted is refused.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from mandate.activities import private_files
from mandate.activities.documents import parse_document
from mandate.activities.text_files import decode_text, detect_encoding
from mandate.workflows.contracts.base import Digest, JsonObject, canonical_json, digest_of
from mandate.workflows.contracts.tool import ToolDefinition
from mandate.workflows.contracts.tool_entry import McpTools, ToolEntry
from mandate.workflows.rules.plain_text import make_plain_lines, shorten

FOLDER = "accepted"
"""Beside the agent files."""

SHOWN = 10
"""Tools that a difference names, of each kind."""

PART_CHARACTERS = 160
"""Of a description, what is shown around the first place that differs."""


@dataclass(frozen=True, slots=True)
class Words:
    """All that the tools which an agent takes from one server put into its prompt."""

    tools: JsonObject
    """By the name that the model calls a tool by."""

    @classmethod
    def of(cls, definitions: Sequence[ToolDefinition]) -> "Words":
        return cls({made.tool.name: _words(made) for made in definitions})

    @property
    def content(self) -> bytes:
        """The words as they are kept: equal ones have equal bytes, in whatever order a server tells them."""
        return canonical_json(self.tools)

    @property
    def digest(self) -> Digest:
        return digest_of(self.content)


@dataclass(frozen=True, slots=True)
class Offer:
    """The tools of one server as it describes them now, and where an agent file names the server."""

    path: Path
    index: int
    """Position in `tools`."""
    server: str
    before: Digest | None
    words: Words


def is_strange(entry: ToolEntry) -> bool:
    """Return whether the tools of `entry` bring words into the prompt that nobody has answered for."""
    return isinstance(entry, McpTools) and entry.accepted is None and entry.untrusted is not False


def fault(entry: McpTools, definitions: Sequence[ToolDefinition], file: str) -> str | None:
    """Return why the tools of a server are not those that were accepted, in one sentence; `None` if they are."""
    words = Words.of(definitions)
    if entry.accepted is None or words.digest == entry.accepted:
        return None
    known = load(Path(file).parent, entry.accepted)
    told = "; ".join(differences(known, words)) if known is not None else f"what it says: {', '.join(summary(words))}"
    return (
        f"MCP server {entry.mcp.name!r} says something else of its tools than was accepted: {told}. "
        f"If that is right: `mandate validate --accept {file}` (digest {words.digest})"
    )


def differences(before: Words, now: Words) -> Iterator[str]:
    """Yield which tools came, went and changed, and how; as people may see it."""
    groups = (
        ("new", [name for name in now.tools if name not in before.tools], now),
        ("gone", [name for name in before.tools if name not in now.tools], before),
    )
    for what, names, words in groups:
        for name in names[:SHOWN]:
            yield f"{what}: {_line(name, words.tools[name])}"
        if len(names) > SHOWN:
            yield f"and {len(names) - SHOWN} more that are {what}"
    changed = [name for name in now.tools if name in before.tools and before.tools[name] != now.tools[name]]
    for name in changed[:SHOWN]:
        yield f"changed: {shorten(name, 64)}, {', '.join(_changes(before.tools[name], now.tools[name]))}"
    if len(changed) > SHOWN:
        yield f"and {len(changed) - SHOWN} more that are changed"


def summary(words: Words) -> list[str]:
    """Return each tool in one line, as people may see it."""
    return [_line(name, told) for name, told in words.tools.items()]


def whole(before: Words | None, now: Words) -> Iterator[str]:
    """Yield the words that `before` did not have, line by line and uncut: what somebody accepts they must see."""
    for name, told in now.tools.items():
        if isinstance(told, dict) and (before is None or before.tools.get(name) != told):
            yield f"{make_plain_lines(name)}:"
            yield from (f"  {line}" for line in make_plain_lines(str(told.get("description", ""))).split("\n"))
            yield f"  arguments: {_told(told.get('input_schema'))}"


def load(folder: Path, digest: Digest) -> Words | None:
    """Load the words that were accepted, if they are kept and whole."""
    try:
        content = (folder / FOLDER / f"{digest}.json").read_bytes()
        tools = json.loads(content)
    except (OSError, ValueError):
        return None
    return Words(tools) if digest_of(content) == digest and isinstance(tools, dict) else None


def accept(offer: Offer) -> None:
    """Keep the words, and write their digest into the agent file; comments and everything else in it stay.

    Raises:
        ValueError: the file is in a form that cannot be edited, and is left as it is; says what to write.
        OSError: a file cannot be written.
    """
    raw = offer.path.read_bytes()
    text, (mark, encoding) = decode_text(raw), detect_encoding(raw)
    made = with_digest(text, offer.index, offer.words.digest)
    wanted, found = parse_document("", text).value, parse_document("", made).value
    _expected(wanted, offer)
    if wanted != found:
        raise ValueError(
            f"{offer.path}: tools[{offer.index}] cannot be edited in place; "
            f"write `accepted: {offer.words.digest}` there yourself"
        )
    folder = offer.path.parent / FOLDER
    private_files.make_folder(folder)
    private_files.write_own(folder / f"{offer.words.digest}.json", offer.words.content.decode())
    private_files.replace(offer.path, mark + made.encode(encoding))


def with_digest(text: str, index: int, digest: Digest) -> str:
    """Return the text of an agent file with `accepted: <digest>` in `tools[index]`, changed in place where possible."""
    try:
        entry = _entry(YAML(typ="safe", pure=True).compose(text), index)
    except YAMLError:
        return text
    if entry is None:
        return text
    for key, value in entry.value:
        if key.value == "accepted":
            quote = value.style if value.style in {"'", '"'} else ""
            return f"{text[: value.start_mark.index]}{quote}{digest}{quote}{text[value.end_mark.index :]}"
    quote = '"' if entry.value[0][0].style == '"' else ""
    line = f"{quote}accepted{quote}: {quote}{digest}{quote}"
    start = entry.start_mark.index
    if entry.flow_style:
        return f"{text[: start + 1]}{line}, {text[start + 1 :]}"
    newline = "\r\n" if "\r\n" in text else "\n"
    for key, value in entry.value:
        if key.value == "mcp" and getattr(value, "flow_style", False):
            # Below the server; a comment on its line stays there.
            end = text.find("\n", value.end_mark.index)
            end = len(text) if end < 0 else end - (text[end - 1] == "\r")
            return f"{text[:end]}{newline}{' ' * key.start_mark.column}{line}{text[end:]}"
    return f"{text[:start]}{line}{newline}{' ' * entry.start_mark.column}{text[start:]}"


def _entry(root: Node | None, index: int) -> MappingNode | None:
    for key, value in root.value if isinstance(root, MappingNode) else ():
        if key.value == "tools" and isinstance(value, SequenceNode) and index < len(value.value):
            entry = value.value[index]
            return entry if isinstance(entry, MappingNode) and entry.value else None
    return None


def _expected(document: JsonValue, offer: Offer) -> None:
    """Put the digest where it belongs, in plain values."""
    tools = document.get("tools") if isinstance(document, dict) else None
    entry = tools[offer.index] if isinstance(tools, list) else None
    if isinstance(entry, dict):
        entry["accepted"] = offer.words.digest


def _words(made: ToolDefinition) -> JsonObject:
    binding = made.binding
    assert binding.kind == "mcp"
    return {
        "tool": binding.tool,
        "description": made.description,
        "input_schema": made.input_schema,
        "claims": list(binding.claims),
    }


def _line(name: str, told: JsonValue) -> str:
    description = str(told.get("description", "")) if isinstance(told, dict) else ""
    return f"{shorten(name, 64)} ({shorten(description, PART_CHARACTERS) or 'without a description'})"


def _changes(before: JsonValue, now: JsonValue) -> Iterator[str]:
    """Yield what differs between two tools of one name."""
    if not isinstance(before, dict) or not isinstance(now, dict):
        return
    names = {"tool": "its own name", "description": "description", "input_schema": "schema", "claims": "claims"}
    for key, what in names.items():
        if before.get(key) == now.get(key):
            continue
        one, other = (_told(each.get(key)) for each in (before, now))
        yield f"{what} {' → '.join(_around(one, other))}"


def _told(value: JsonValue) -> str:
    return make_plain_lines(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True))


def _around(one: str, other: str) -> tuple[str, str]:
    """Return both texts from a little before the place where they begin to differ."""
    length = min(len(one), len(other))
    same = next((place for place in range(length) if one[place] != other[place]), length)
    start = max(0, same - 20)
    dots = "…" if start else ""
    return repr(dots + shorten(one[start:], PART_CHARACTERS)), repr(dots + shorten(other[start:], PART_CHARACTERS))
