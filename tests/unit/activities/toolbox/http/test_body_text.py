"""Bodies of HTTP answers: what can be read is read, and the rest is said to be what it is."""

import gzip
import zlib

import httpx2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mandate.activities.toolbox.http.body_text import BrokenPacking, UnknownPacking, read_text, unpack

JSON = "application/json"
LATIN = "Jürgen".encode("latin-1")
UTF_8 = "Jürgen".encode()


def pack(content: bytes) -> bytes:
    # Without the time, which would be another in each test process.
    return gzip.compress(content, mtime=0)


def raw_deflate(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(content) + packer.flush()


@pytest.mark.parametrize(
    ("content", "media", "charset", "text"),
    [
        (b'\xef\xbb\xbf{"a": 1}', JSON, "utf-8", '{"a": 1}'),
        ('\ufeff{"a": "ü"}'.encode("utf-16-le"), JSON, None, '{"a": "ü"}'),
        ('\ufeff{"a": "ü"}'.encode("utf-16-be"), "text/plain", "utf-8", '{"a": "ü"}'),
        ('{"a": "ü"}'.encode("utf-16-le"), JSON, None, '{"a": "ü"}'),
        ('{"a": "ü"}'.encode("utf-32-be"), JSON, "utf-8", '{"a": "ü"}'),
        (UTF_8, JSON, "iso-8859-1", "Jürgen"),
        (LATIN, JSON, "iso-8859-1", "Jürgen"),
        (LATIN, JSON, None, "J\ufffdrgen"),
        (LATIN, JSON, "utf-8", "J\ufffdrgen"),
        (UTF_8, "text/plain", "iso-8859-1", "Jürgen"),
        (UTF_8, "text/plain", "us-ascii", "Jürgen"),
        (UTF_8, "text/plain", "windows-1252", "Jürgen"),
        (LATIN, "text/html", "ISO-8859-1", "Jürgen"),
        ("Привет".encode("koi8-r"), "text/plain", "koi8-r", "Привет"),
        ("日本".encode("shift_jis"), "text/plain", "shift_jis", "日本"),
        ("日本".encode(), "text/plain", "shift_jis-x", "日本"),
        (UTF_8, "text/plain", "hex", "Jürgen"),
        (UTF_8, "text/plain", "punycode", "Jürgen"),
        (b"\\ud83d", "text/plain", "unicode_escape", "\\ud83d"),
        (UTF_8, "text/plain", "\x00", "Jürgen"),
        (b"a\xed\xa0\xbdb", JSON, None, "a\ufffd\ufffd\ufffdb"),
        (b'{"a": NaN}', JSON, None, '{"a": NaN}'),
        (b"a\x00b", "text/plain", None, "a\x00b"),
        (b'{"a": 1}', "application/octet-stream", None, '{"a": 1}'),
        (b'{"a": 1}', "", None, '{"a": 1}'),
        (b'{"a": 1}', "application/vnd.api+json", None, '{"a": 1}'),
        (b"select 1", "application/sql", None, "select 1"),
        (b"<svg/>", "image/svg+xml", None, "<svg/>"),
        (b"", JSON, None, ""),
        (b"", "image/png", None, ""),
        (b"\x89PNG\r\n\x1a\n\x00", "image/png", None, "[image/png, 9 bytes]"),
        (b"text", "image/png", None, "[image/png, 4 bytes]"),
        (b"PK\x03\x04", "application/zip", None, "[application/zip, 4 bytes]"),
        (b"\xff\xd8\x00", "text/plain", None, "[text/plain, 3 bytes]"),
        (b"\xff\xd8", "", None, "[unknown type, 2 bytes]"),
    ],
)
def test_body_is_text_where_it_can_be_read(content: bytes, media: str, charset: str | None, text: str) -> None:
    assert read_text(content, media, charset) == text


@given(st.binary(), st.text(), st.none() | st.text())
@example(b"x", "text/plain; charset*=utf-8''%ff", None)
def test_every_body_is_text_that_can_be_encoded(content: bytes, media: str, charset: str | None) -> None:
    response = httpx2.Response(200, headers=[(b"Content-Type", media.encode())])

    for encoding in (charset, response.charset_encoding):
        text = read_text(content, response.headers["content-type"], encoding)
        assert text.encode() or not content or not text


@pytest.mark.parametrize(
    ("content", "encodings", "unpacked"),
    [
        (b"plain", [], b"plain"),
        (b"plain", ["identity", ""], b"plain"),
        (pack(b"packed"), ["gzip"], b"packed"),
        (pack(b"packed"), [" X-GZIP "], b"packed"),
        (pack(b"one ") + pack(b"two"), ["gzip"], b"one two"),
        (pack(b"packed") + b"more", ["gzip"], b"packed"),
        (zlib.compress(b"packed"), ["deflate"], b"packed"),
        (raw_deflate(b"packed " * 9), ["deflate"], b"packed " * 9),
        (pack(zlib.compress(b"twice")), ["deflate", "gzip"], b"twice"),
        (b'{"not": "packed"}', ["gzip"], b'{"not": "packed"}'),
        (b'{"not": "packed"}', ["deflate"], b'{"not": "packed"}'),
        (b"", ["gzip"], b""),
        (pack(b"x" * 10_000_000), ["gzip"], b"x" * 101),
    ],
)
def test_packed_body_is_unpacked_up_to_the_limit(content: bytes, encodings: list[str], unpacked: bytes) -> None:
    assert unpack(content, encodings, 100) == unpacked


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("lost", [1, 4, 10])
def test_cut_packing_is_told_with_what_could_be_read(encoding: str, lost: int) -> None:
    content = bytes(range(256))
    packed = pack(content) if encoding == "gzip" else zlib.compress(content)

    with pytest.raises(BrokenPacking) as broken:
        unpack(packed[:-lost], [encoding], 1000)
    assert content.startswith(broken.value.beginning)


def test_damaged_packing_is_told() -> None:
    packed = bytearray(pack(bytes(range(256)) * 9))
    packed[40] ^= 0xFF

    with pytest.raises(BrokenPacking):
        unpack(bytes(packed), ["gzip"], 10_000)


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "aws-chunked"])
def test_packing_that_is_not_known_is_told(encoding: str) -> None:
    with pytest.raises(UnknownPacking, match=encoding):
        unpack(b"\x1b\x03", [encoding], 100)
