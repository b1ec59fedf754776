"""Text in files that people write, whatever saved it."""

from pathlib import Path

import pytest

from mandate.activities.text_files import UnreadableText, decode_text, detect_encoding, read_text


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
def test_every_encoding_with_a_mark_is_read(encoding: str, tmp_path: Path) -> None:
    mark = "" if encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32") else "\ufeff"
    file = tmp_path / "a.yaml"
    file.write_bytes(f"{mark}name: Jürgen \U0001f600\r\n".encode(encoding))

    assert read_text(file) == "name: Jürgen \U0001f600\r\n"


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b"\xff\xfe", b"\xff\xfe\x00\x00"])
def test_a_mark_alone_is_an_empty_text(content: bytes) -> None:
    assert decode_text(content) == ""
    assert detect_encoding(content)[0] == content


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"caf\xe9", "line 1, column 4: is not UTF-8 text: byte 0xe9 cannot be read; save the file as UTF-8"),
        (b"\xe9", "line 1, column 1: is not UTF-8 text: byte 0xe9 cannot be read; save the file as UTF-8"),
        (
            "ü\nüü".encode() + b"\xff",
            "line 2, column 3: is not UTF-8 text: byte 0xff cannot be read; save the file as UTF-8",
        ),
        (b"a\xed\xa0\xbd", "line 1, column 2: is not UTF-8 text: byte 0xed cannot be read; save the file as UTF-8"),
        (
            b"\xff\xfea\x00\n\x00\x3d\xd8b\x00",
            "line 2, column 1: is not UTF-16 text: byte 0x3d cannot be read; save the file as UTF-8",
        ),
    ],
)
def test_bytes_that_are_no_text_are_told_with_their_place(content: bytes, says: str) -> None:
    with pytest.raises(UnreadableText) as unreadable:
        decode_text(content)

    assert str(unreadable.value) == says
