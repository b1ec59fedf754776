"""CloudEvents as values: both modes come to the same event, and what is none is told in one sentence."""

import base64
import json
from typing import Any

import pytest
from cloudevents.core.bindings import http
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent as SdkEvent

from mandate.workers.events.cloud_event import (
    MOST_BYTES,
    STRUCTURED,
    CloudEvent,
    NotAnEvent,
    read_event,
    unquote_header,
)

ATTRIBUTES = {"id": "7", "source": "/orders", "type": "com.example.returned", "specversion": "1.0"}


def structured(**members: Any) -> CloudEvent:
    return read_event(STRUCTURED, {}, json.dumps({**ATTRIBUTES, **members}).encode())


def test_both_modes_come_to_the_same_event() -> None:
    whole = structured(datacontenttype="application/json", partition=3, urgent=True, data={"order": 81})

    parts = read_event("application/json", {**ATTRIBUTES, "partition": "3", "urgent": "true"}, b'{"order": 81}')

    assert whole.to_json() == parts.to_json()
    assert whole.key == parts.key


@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_events_of_the_cloudevents_sdk_are_read(mode: str) -> None:
    event = SdkEvent({**ATTRIBUTES, "subject": "Ünï %41", "datacontenttype": "application/json"}, {"order": 81})
    write = http.to_binary if mode == "binary" else http.to_structured
    message = write(event, JSONFormat())
    headers = {name.lower(): value for name, value in message.headers.items()}
    told = {name[3:]: unquote_header(value) for name, value in headers.items() if name.startswith("ce-")}

    found = read_event(headers["content-type"], told, message.body)

    assert found.attributes["subject"] == "Ünï %41"
    assert (found.id, found.source, found.data) == ("7", "/orders", {"order": 81})


def test_data_is_what_its_content_type_says() -> None:
    content = base64.b64encode(b"\x00\xff").decode()

    assert read_event("text/plain; charset=utf-8", ATTRIBUTES, "grün".encode()).data == "grün"
    assert read_event("image/png", ATTRIBUTES, b"\x00\xff").to_json()["data_base64"] == content
    assert structured(datacontenttype="image/png", data_base64=content).to_json()["data_base64"] == content
    encoded = base64.b64encode(b'{"order": 81}').decode()
    assert structured(datacontenttype="application/json", data_base64=encoded).data == {"order": 81}
    assert "data" not in structured().to_json()
    assert "data" in structured(data=None).to_json()


def test_the_workflow_id_is_of_source_and_id_alone() -> None:
    first, again = structured(data=1), structured(data=2, time="2026-11-30T10:00:00Z")
    others = [structured(id="8"), structured(source="/orders/7", id="x"), structured(source="/orders7")]

    assert first.workflow_id == again.workflow_id
    assert len({event.workflow_id for event in (first, *others)}) == 4
    assert first.workflow_id == f"event-7-{first.key}"


def test_source_and_id_are_not_run_together() -> None:
    assert structured(source="/a", id="b/c").key != structured(source="/a/b", id="c").key


@pytest.mark.parametrize("name", ["x" * 2000, "../../etc:r1 \u202e", "ü", "-", "a b\u2028c"])
def test_any_id_makes_a_short_and_plain_workflow_id(name: str) -> None:
    found = structured(id=name).workflow_id

    assert len(found) <= 79
    assert all(character.isascii() and (character.isalnum() or character == "-") for character in found)


@pytest.mark.parametrize(
    ("content_type", "attributes", "body", "sentence"),
    [
        (
            STRUCTURED,
            {},
            b"{",
            "the event is not JSON that can be read: EOF while parsing an object at line 1 column 1",
        ),
        (STRUCTURED, {}, b"[]", "the event is not a JSON object"),
        (STRUCTURED, {}, b"{}", "the event has no 'id' and no 'source' and no 'type' and no 'specversion'"),
        (STRUCTURED, {}, b'{"id": NaN}', None),
        (STRUCTURED, {}, b"[" * 5000, None),
        (STRUCTURED, {}, b'{"id": {"a": 1}}', "the attribute 'id' is not a text, a whole number or a boolean"),
        ("application/cloudevents-batch+json", {}, b"[]", "a batch is not taken; send each event by itself"),
        (
            "application/cloudevents+avro",
            {},
            b"",
            (
                "the format 'application/cloudevents+avro' is not known here; send 'application/cloudevents+json', or "
                "attributes as headers"
            ),
        ),
        (
            "application/json",
            {},
            b"{}",
            "it is no CloudEvent: neither its content type is 'application/cloudevents+json', nor has it attributes",
        ),
        ("", {**ATTRIBUTES, "specversion": "0.3"}, b"", "the event is of another version of CloudEvents than '1.0'"),
        ("", {**ATTRIBUTES, "Upper": "x"}, b"", "the attribute 'Upper' is not named by lower-case letters and digits"),
        ("", {**ATTRIBUTES, "data": "x"}, b"", "the attribute 'data' is not named by lower-case letters and digits"),
        ("", {**ATTRIBUTES, "id": "a\nb"}, b"", "the attribute 'id' has characters that no attribute may have"),
        ("", {**ATTRIBUTES, "id": "x" * 2049}, b"", "the attribute 'id' has more than 2048 characters"),
        ("text/plain", ATTRIBUTES, b"\xff", "the data is 'text/plain', but not UTF-8"),
        ("", ATTRIBUTES, b" " * (MOST_BYTES + 1), "the event has 262,145 bytes; at most 262,144 are taken"),
    ],
)
def test_what_is_no_event_is_told(
    content_type: str, attributes: dict[str, str], body: bytes, sentence: str | None
) -> None:
    with pytest.raises(NotAnEvent) as refused:
        read_event(content_type, attributes, body)

    assert sentence in {None, str(refused.value)}
    assert "\n" not in str(refused.value)


def test_data_in_two_forms_is_refused() -> None:
    with pytest.raises(NotAnEvent, match="it has one of them at most"):
        structured(data=1, data_base64="")
    with pytest.raises(NotAnEvent, match="'data_base64' is not base64"):
        structured(data_base64="?")
