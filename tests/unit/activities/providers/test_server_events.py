"""Server-sent events in bytes that are cut anywhere."""

import itertools
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mandate.activities.providers.response_limits import MAX_PARTS
from mandate.activities.providers.server_events import Event, EventDecoder, are_events, find_beginning


def decode(*chunks: bytes) -> list[Event]:
    decoder = EventDecoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)]


@pytest.mark.parametrize(
    ("content", "events"),
    [
        (b"data: a\n\n", [Event(b"", b"a")]),
        (b"data:a\n\n", [Event(b"", b"a")]),
        (b"data:  a \n\n", [Event(b"", b" a ")]),  # one space is the field's
        (b"event: x\ndata: a\n\n", [Event(b"x", b"a")]),
        (b"data: a\ndata: b\ndata:\n\n", [Event(b"", b"a\nb\n")]),
        (b": a comment\n\ndata: a\n\n: another\n\n", [Event(b"", b"a")]),
        (b": a comment\ndata: a\nid: 7\nretry: 5\nother\n\n", [Event(b"", b"a")]),
        (b"event: ping\n\ndata: a\n\n", [Event(b"", b"a")]),  # a name alone is no event
        (b"\n\n\n\ndata: a\n\n\n\ndata: b\n\n", [Event(b"", b"a"), Event(b"", b"b")]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [Event(b"", b"a"), Event(b"", b"b")]),
        (b"event: x\r\ndata: a\r\ndata: b\r\n\r\n", [Event(b"x", b"a\nb")]),
        (b"data: a\r\rdata: b\r\r", [Event(b"", b"a"), Event(b"", b"b")]),
        (b"\xef\xbb\xbfdata: a\n\n", [Event(b"", b"a")]),
        (b"data: a\n\ndata: b\n", [Event(b"", b"a")]),  # it may be cut
        (b"data\n\ndata:\n\n", []),
    ],
)
def test_events_however_they_are_cut(content: bytes, events: list[Event]) -> None:
    whole = decode(content)
    byte_by_byte = decode(*(content[index : index + 1] for index in range(len(content))))

    assert whole == byte_by_byte == events


@given(
    st.lists(st.tuples(st.sampled_from([b"", b"x.y"]), st.binary(min_size=1).filter(lambda data: b"\r" not in data))),
    st.sampled_from([b"\n", b"\r\n", b"\r"]),
    st.lists(st.integers(0, 400)),
)
def test_any_events_are_read_as_they_were_written(
    events: list[tuple[bytes, bytes]], end: bytes, cuts: list[int]
) -> None:
    content = b""
    for name, data in events:
        content += b"event: " + name + end if name else b""
        content += b"".join(b"data: " + line + end for line in data.split(b"\n")) + end
    places = sorted({0, *(cut for cut in cuts if cut < len(content)), len(content)})

    read = decode(*(content[begin:stop] for begin, stop in itertools.pairwise(places)))

    assert read == [Event(name, data) for name, data in events]


def test_last_event_may_lack_its_end() -> None:
    decoder = EventDecoder()

    whole = decoder.feed(b"data: a\n\ndata: [DONE]\n")

    assert (whole, decoder.size, decoder.close()) == ([Event(b"", b"a")], 13, Event(b"", b"[DONE]"))


@pytest.mark.parametrize("data", [b"[1]", b"null", b"{", b"x", b"{} {}", b"[" * 100_000])
def test_what_is_no_object_is_said(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Event(b"", data).read()


def test_event_of_too_many_parts_is_not_parsed() -> None:
    with pytest.raises(ValueError, match=f"more than {MAX_PARTS:,} objects and lists"):
        Event(b"", b'{"a":[' + b"{}," * MAX_PARTS + b"{}]}").read()


@pytest.mark.parametrize(
    ("beginning", "media", "expected"),
    [
        (b"data: {", "text/event-stream", True),
        (b"", "text/event-stream", True),
        (b"\n\n: hello", "Text/Event-Stream", True),
        (b'{"id":', "text/event-stream", False),
        (b" <html", "text/event-stream", False),
        (b"data: {", "text/plain", True),
        (b"event: x", "", True),
        (b"\xef\xbb\xbfdata: ", "application/json", True),
        (b'{"data: ', "application/json", False),
        (b"<html>", "text/html", False),
        (b"", "application/json", False),
    ],
)
def test_events_are_told_from_anything_else(beginning: bytes, media: str, expected: bool) -> None:
    assert are_events(beginning, media) is expected


async def test_beginning_is_read_as_far_as_it_tells() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for chunk in (b"\n", b"da", b"", b"ta: 1", b"2"):
            yield chunk

    rest = chunks()

    assert await find_beginning(rest) == b"\ndata: 1"
    assert [chunk async for chunk in rest] == [b"2"]
