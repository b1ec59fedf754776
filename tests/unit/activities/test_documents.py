"""Odd characters in YAML files: read where they can be, else told with their place."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mandate.activities.documents import parse_document, read_document

SMILE = "\U0001f600"


@pytest.mark.parametrize(
    "text",
    [
        r'{"say": "Hello \ud83d\ude00"}',
        r'say: "Hello \ud83d\ude00"',
        r'say: "Hello \U0001F600"',
        f"say: Hello {SMILE}",
        f"\ufeffsay: Hello {SMILE}\r\n",
        f"{{\r\n\t\"say\":\t'Hello {SMILE}'\r\n}}",
    ],
)
def test_emoji_is_one_character_however_it_is_written(text: str) -> None:
    document = parse_document("a.yaml", text)

    assert (document.value, document.faults) == ({"say": f"Hello {SMILE}"}, ())


def test_emoji_in_a_key_is_one_character() -> None:
    document = parse_document("a.yaml", r'{"\ud83d\ude00": 1}')

    assert (document.value, document.faults) == ({SMILE: 1}, ())


@given(st.recursive(st.text(st.characters(codec="utf-8")), lambda inner: st.dictionaries(st.text(max_size=3), inner)))
def test_json_is_read_as_json_readers_do(value: object) -> None:
    """JSON writers escape what is not ASCII, characters beyond U+FFFF as pairs."""
    document = parse_document("a.json", json.dumps(value))

    assert (document.value, document.faults) == (value, ())


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b'a: 1\nb: "x \\ud83d"', "2:4: b: holds half of a surrogate pair ('\\ud83d'), which is no text"),
        (b'a: ["\\udE00 \\ud83d"]', "1:5: a[0]: holds half of a surrogate pair ('\\ude00'), which is no text"),
        (b"a: 1\nb: caf\xe9", "2:7: is not UTF-8 text: byte 0xe9 cannot be read; save the file as UTF-8"),
        (b"a: 1\r\nb: x\x00", "2:5: is not valid YAML: U+0000 is not allowed"),
        (b"a: 1\rb: x\x1b", "2:5: is not valid YAML: U+001B is not allowed"),
        (b"a:\n\tb: 1", "2:1: is not valid YAML: a tab stands where YAML takes spaces only"),
        (b"- a:\r\n\tb: 1", "2:1: is not valid YAML: a tab stands where YAML takes spaces only"),
    ],
)
def test_what_is_no_text_is_told_with_its_place(content: bytes, fault: str, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(content)

    assert list(map(str, read_document(file).faults)) == [f"{file}:{fault}"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a:\tb", {"a": "b"}),
        ("a: \t b\t# c\nd:\t\t1\n", {"a": "b", "d": 1}),
        ("a:\t{b:\t1,\tc:\t[2,\t3]}", {"a": {"b": 1, "c": [2, 3]}}),
        ("-\ta\n-\tb: 1\n", ["a", {"b": 1}]),
        ('a: "x:\ty"\nb: |\n  c:\td\n', {"a": "x:\ty", "b": "c:\td\n"}),
        ('{\n\t"a":\t1\n}', {"a": 1}),
    ],
)
def test_tab_that_parts_a_key_from_its_value_is_a_space(text: str, value: object) -> None:
    document = parse_document("a.yaml", text)

    assert (document.value, document.faults) == (value, ())


def test_no_number_of_tabs_keeps_the_reader_busy() -> None:
    (fault,) = parse_document("a.yaml", "".join(f"a{number}:\t1\n" for number in range(200))).faults

    assert str(fault) == "a.yaml:101:6: is not valid YAML: a tab stands where YAML takes spaces only"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_file_of_any_system_is_read(encoding: str, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(f"a: Jürgen\r\nb:\r\n  - {SMILE}\r\n".encode(encoding))

    assert read_document(file).value == {"a": "Jürgen", "b": [SMILE]}
