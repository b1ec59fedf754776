"""Files that people name on the command line, whatever saved them."""

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import JsonValue

from mandate.workers.cli.errors import CliError
from mandate.workers.cli.requests import edit
from mandate.workers.cli.run import read_input
from mandate.workers.cli.validation.call import judge_call

SMILE = "\U0001f600"
LATIN = "is not UTF-8 text: byte 0xe9 cannot be read; save the file as UTF-8"


def read_arguments(path: Path) -> JsonValue:
    return edit.from_file(path)


def read_asked(path: Path) -> JsonValue:
    return read_input(None, path, None)


def read_call(path: Path) -> JsonValue:
    judge_call(path, [])
    return None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("read", [read_arguments, read_asked])
def test_file_is_read_in_every_encoding(read: Callable[[Path], JsonValue], encoding: str, tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(json.dumps({"note": f"ü {SMILE}"}).replace("{", "{\r\n\t").encode(encoding))

    assert read(file) == {"note": f"ü {SMILE}"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_what_is_asked_comes_over_the_standard_input_in_every_encoding(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"Refund {SMILE}".encode(encoding))))

    assert read_input("-", None, None) == f"Refund {SMILE}"


def test_standard_input_that_is_no_text_is_told_with_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"Refund\ncaf\xe9")))

    with pytest.raises(CliError) as refused:
        read_input("-", None, None)
    assert str(refused.value) == f"what is asked, from the standard input, cannot be read: line 2, column 4: {LATIN}"


@pytest.mark.parametrize(
    ("read", "name", "content", "says"),
    [
        (read_asked, "a.txt", b"a\ncaf\xe9", f"--input-file '{{}}' cannot be read: line 2, column 4: {LATIN}"),
        (read_arguments, "a.yaml", b"a: caf\xe9", f"--from '{{}}': line 1, column 7: {LATIN}"),
        (
            read_arguments,
            "a.yaml",
            b'a: "\\ud83d"',
            "--from '{}': line 1, column 4: a: holds half of a surrogate pair ('\\ud83d'), which is no text",
        ),
        (read_call, "a.yaml", b"tool: caf\xe9", f"{{}}:1:10: {LATIN}"),
        (read_call, "a.json", b'{"tool":\n "caf\xe9"}', f"{{}}:2:6: {LATIN}"),
        (read_call, "a.json", b'{"tool":\n x}', "{}:2:2: is not JSON: Expecting value"),
        (read_call, "a.json", b'{"tool": "\\ud83d"}', "{}: holds half of a surrogate pair, which is no text"),
        (read_call, "a.json", b"[" * 100_000, "{}: is nested too deep"),
        (read_call, "a.json", b"[" * 900 + b"]" * 900, "{}: is nested too deep"),
    ],
)
def test_what_is_no_text_is_told_with_its_place(
    read: Callable[[Path], JsonValue], name: str, content: bytes, says: str, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.write_bytes(content)

    with pytest.raises(CliError) as refused:
        read(file)
    assert str(refused.value) == says.replace("{}", str(file))
