"""Other arguments for a call: set one by one, read from a file, or written in an editor."""

import contextlib
import io
import json
import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import JsonValue
from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import LiteralScalarString

from mandate.activities import private_files
from mandate.activities.documents import parse_document
from mandate.activities.text_files import read_text
from mandate.workers.cli.errors import CliError
from mandate.workflows.contracts.base import JsonObject, canonical_json
from mandate.workflows.contracts.tool import LeafReference
from mandate.workflows.rules import wording
from mandate.workflows.rules.plain_text import make_plain_lines
from mandate.workflows.rules.redaction import HIDDEN

EDITOR = "vi"
"""Editor where neither `VISUAL` nor `EDITOR` is set."""

_BEGUN = re.compile(r"\s*(?:\{|\[\s*(?:[]\[{\"\d-]|true|false|null))")

_INDEX = re.compile(r"0|[1-9][0-9]*")


def parsed(written: str, option: str) -> JsonValue:
    """Return what was written after `option` as JSON where it is some, else as the text that it is.

    Raises:
        CliError: it begins as an object or a list does, and is none: a text of half an object is hardly meant.
    """
    try:
        value: JsonValue = json.loads(written)
        canonical_json(value)
    except (ValueError, RecursionError) as error:
        if (begun := _BEGUN.match(written)) is None:
            return written
        kind = "an object" if "{" in begun[0] else "a list"
        quoted = "as JSON, in double quotes"
        raise CliError(f"{option} begins as {kind} and is no JSON: {error}; a text is written {quoted}") from None
    return value


def with_settings(arguments: JsonObject, settings: Sequence[str]) -> JsonObject:
    """Return `arguments` with each `path=value` of `settings`; a path is names and positions joined with dots.

    Raises:
        CliError: one is not of this form, or leads through something that is neither object nor list.
    """
    changed: JsonObject = json.loads(json.dumps(arguments))
    for setting in settings:
        path, equals, written = setting.partition("=")
        if not equals or not path:
            raise CliError(f"--set {setting!r} is not name=value, for example --set amount=80")
        # An argument may have dots in its name.
        keys = [path] if path in changed else path.split(".")
        _put(changed, keys, parsed(written, f"--set {path}"), setting)
    if canonical_json(changed) == canonical_json(arguments):
        raise CliError(f"--set {', '.join(settings)} changes nothing; leave it out to approve the call as it is")
    return changed


def _put(holder: JsonValue, keys: Sequence[str], value: JsonValue, setting: str) -> None:
    key, *rest = keys
    if isinstance(holder, dict):
        if rest:
            _put(holder.setdefault(key, {}), rest, value, setting)
        else:
            holder[key] = value
    elif isinstance(holder, list):
        if not _INDEX.fullmatch(key) or int(key) >= len(holder):
            raise CliError(f"--set {setting!r}: {key!r} is no position of a list of {len(holder)}, counted from 0")
        if rest:
            _put(holder[int(key)], rest, value, setting)
        else:
            holder[int(key)] = value
    else:
        raise CliError(f"--set {setting!r}: {key!r} is sought in {json.dumps(holder)[:40]}, which has no parts")


def from_file(path: Path) -> JsonObject:
    """Read whole arguments from a YAML or JSON file.

    Raises:
        CliError: it cannot be read, or holds no object.
    """
    try:
        return read_yaml(read_text(path))
    except OSError as error:
        raise CliError(f"--from {str(path)!r} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise CliError(f"--from {str(path)!r}: {error}") from None


def edited(arguments: JsonObject, comments: Sequence[str], environment: Mapping[str, str]) -> tuple[JsonObject, Path]:
    """Return `arguments` as a person changes them in their editor, and the file of it, which is left there.

    Raises:
        CliError: the editor fails, or the file has not changed, is empty, or holds no object; it names the file where
            there is something in it to lose.
    """
    text = "".join(f"# {line}\n" for line in comments) + as_yaml(arguments)
    descriptor, name = tempfile.mkstemp(prefix="mandate-", suffix=".yaml")
    path = Path(name)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    _open_editor(path, environment)
    try:
        found = read_text(path)
    except (OSError, ValueError) as error:
        raise CliError(f"what the editor left in {name} cannot be read: {error}; nothing was sent") from None
    if found == text or not _without_comments(found):
        path.unlink()
        why = "nothing was changed" if found == text else "all was deleted"
        raise CliError(f"{why}, so nothing was sent; without --edit the call is approved as it is")
    try:
        value = read_yaml(found)
    except ValueError as error:
        raise CliError(f"{error}; nothing was sent, and your text is kept: go on with --from {name}") from None
    if canonical_json(value) == canonical_json(arguments):
        path.unlink()
        raise CliError("no argument was changed, so nothing was sent; without --edit the call is approved as it is")
    return value, path


def _open_editor(path: Path, environment: Mapping[str, str]) -> None:
    command = environment.get("VISUAL") or environment.get("EDITOR") or EDITOR
    try:
        # The terminal is the editor's: its word counts, not ours.
        # What it writes beside the file, or in its place, holds the arguments too.
        code = subprocess.run([*shlex.split(command), str(path)], check=False, umask=0o077).returncode  # noqa: S603 - as told
    except (OSError, ValueError) as error:
        path.unlink()
        why = getattr(error, "strerror", None) or error
        raise CliError(f"the editor {command!r} cannot be started: {why}; set VISUAL or EDITOR, or use --set") from None
    private_files.tighten(path)
    if code != 0:
        raise CliError(f"the editor {command!r} ended with exit code {code}; nothing was sent; your text is in {path}")


def _without_comments(text: str) -> str:
    return "".join(line for line in text.splitlines() if not line.lstrip().startswith("#")).strip()


def referenced(value: JsonValue, whole: JsonValue, shown: JsonValue) -> JsonValue:
    """Return `value` with the texts that are left as in `whole` in their form of `shown`.

    Long texts are shown as references, which the run puts the whole texts in place of: so they need not be sent.
    """
    if value == whole and type(value) is type(whole):
        return shown
    if (
        isinstance(value, dict)
        and isinstance(whole, dict)
        and isinstance(shown, dict)
        and not LeafReference.is_one(shown)
    ):
        return {
            name: referenced(item, whole[name], shown[name]) if name in whole and name in shown else item
            for name, item in value.items()
        }
    if isinstance(value, list) and isinstance(whole, list) and isinstance(shown, list) and len(value) == len(whole):
        return [referenced(*three) for three in zip(value, whole, shown, strict=True)]
    return value


def changes(before: JsonValue, after: JsonValue, path: str = "") -> Iterator[str]:
    """Describe the changes as `amount: 120 → 80`, a line for each part that differs."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in dict.fromkeys((*before, *after)):
            place = f"{path}.{name}" if path else name
            if name not in after:
                yield f"{place}: {_short(before[name])} is left out"
            elif name not in before:
                yield f"{place}: {_short(after[name])} is new"
            else:
                yield from changes(before[name], after[name], place)
    elif json.dumps(before, sort_keys=True) != json.dumps(after, sort_keys=True):
        if before == HIDDEN:
            yield f"{path}: {HIDDEN} → another value"
        else:
            yield f"{path}: {_short(before)} → {_short(after)}"


def _short(value: JsonValue) -> str:
    return wording.shorten(json.dumps(value, ensure_ascii=False), 60)


def as_yaml(value: JsonValue) -> str:
    """Return `value` as YAML for people: keys in their order, long texts as blocks; read back it is the same."""
    yaml = YAML(typ="rt", pure=True)
    yaml.width = 4096
    yaml.allow_unicode = True
    yaml.default_flow_style = False
    stream = io.StringIO()
    yaml.dump(_with_blocks(value), stream)
    # A bare value is followed by the end of its document.
    text = stream.getvalue().removesuffix("...\n")
    with contextlib.suppress(ValueError):
        if canonical_json(_read(text)) == canonical_json(value) and make_plain_lines(text) == text:
            return text
    # All in quotes, and as escapes the characters that YAML changes or refuses, or that cannot be seen.
    quoted = json.dumps(value, ensure_ascii=False, indent=2)
    return "".join(map(_escaped, quoted)) + "\n"


def _escaped(character: str) -> str:
    if character == "\n" or (character.isprintable() and make_plain_lines(character) == character):
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _with_blocks(value: JsonValue) -> Any:
    match value:
        case dict():
            return {name: _with_blocks(item) for name, item in value.items()}
        case list():
            return [_with_blocks(item) for item in value]
        case str() if "\n" in value and _fits_a_block(value):
            return LiteralScalarString(value)
        case _:
            return value


def _fits_a_block(text: str) -> bool:
    """Return whether a block scalar gives `text` back exactly."""
    lines = text.split("\n")
    plain = all(character.isprintable() or character == "\n" for character in text)
    return plain and not lines[0].startswith(" ") and all(line == line.rstrip() for line in lines)


def read_yaml(text: str) -> JsonObject:
    """Read the object in `text`, YAML or JSON.

    Raises:
        ValueError: it holds none, or something that JSON has no form for; one sentence with the line.
    """
    value = _read(text)
    if not isinstance(value, dict):
        raise ValueError("the arguments must be an object: name: value, one a line")
    return value


def _read(text: str) -> JsonValue:
    document = parse_document("", text)
    for fault in document.faults:
        where = f"line {fault.line}, column {fault.column}: " if fault.line else ""
        raise ValueError(f"{where}{f'{fault.key}: ' if fault.key else ''}{fault.message}")
    return document.value
