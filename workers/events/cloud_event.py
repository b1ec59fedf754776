"""CloudEvents 1.0 as values: read from HTTP and Kafka, in structured and binary mode."""

import base64
import binascii
import hashlib
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import unquote

from pydantic import JsonValue
from pydantic_core import from_json

from mandate.workflows.contracts.base import JsonObject, canonical_json, check_storable

MOST_BYTES = 256 * 1024
"""Of one event as it is sent."""

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch"

REQUIRED = ("id", "source", "type", "specversion")

_FAMILY = "application/cloudevents"
_VERSION = "1.0"
_ATTRIBUTE_CHARACTERS = 2048
_MOST_ATTRIBUTES = 64
_NAME = re.compile(r"[a-z0-9]{1,64}")
_UNSAFE = re.compile(r"[^A-Za-z0-9]+")
_READABLE = 40
"""Characters of an event's id that its name begins with."""
_DIGITS = 32
"""Of the digest in its name: 128 bits."""


class NotAnEvent(Exception):
    """Something that is no CloudEvent; the text is one sentence."""


@dataclass(frozen=True)
class CloudEvent:
    """One event: its attributes as texts, and its data as JSON."""

    attributes: Mapping[str, str]
    data: JsonValue
    has_data: bool = True
    is_bytes: bool = False
    """True if `data` is neither JSON nor text, but base64 of bytes."""

    @property
    def id(self) -> str:
        return self.attributes["id"]

    @property
    def source(self) -> str:
        return self.attributes["source"]

    @cached_property
    def key(self) -> str:
        """The same for each delivery of the event, and for no other: by `source` and `id`, as CloudEvents says."""
        return hashlib.sha256(canonical_json([self.source, self.id])).hexdigest()[:_DIGITS]

    @property
    def workflow_id(self) -> str:
        """The workflow id of the run that it starts: letters, digits and `-`, up to 79 characters."""
        readable = _UNSAFE.sub("-", self.id).strip("-")[:_READABLE].strip("-")
        return "-".join(part for part in ("event", readable, self.key) if part)

    def to_json(self) -> JsonObject:
        """Return the event as expressions and people read it: as in structured mode, with texts for attributes."""
        data: JsonObject = {("data_base64" if self.is_bytes else "data"): self.data} if self.has_data else {}
        return {**self.attributes, **data}


def read_event(content_type: str, attributes: Mapping[str, str], body: bytes) -> CloudEvent:
    """Read an event as a transport has it.

    Args:
        content_type: of `body`.
        attributes: those that came beside it, by their names in CloudEvents; empty in structured mode.
        body: the whole event, or its data.

    Raises:
        NotAnEvent: it is none, it is a batch, or it is too large.
    """
    if len(body) > MOST_BYTES:
        raise NotAnEvent(f"the event has {len(body):,} bytes; at most {MOST_BYTES:,} are taken")
    kind = _bare(content_type)
    if kind.startswith(BATCH):
        raise NotAnEvent("a batch is not taken; send each event by itself")
    if kind == STRUCTURED:
        return _read_structured(body)
    if kind.startswith(_FAMILY):
        raise NotAnEvent(f"the format {kind!r} is not known here; send {STRUCTURED!r}, or attributes as headers")
    if not attributes:
        raise NotAnEvent(f"it is no CloudEvent: neither its content type is {STRUCTURED!r}, nor has it attributes")
    told = {**attributes, **({"datacontenttype": content_type} if content_type else {})}
    return _with_bytes(_check_attributes(told), body)


def unquote_header(value: str) -> str:
    """Return the value of an attribute as it was before it was written as a header.

    Raises:
        NotAnEvent: the bytes that it stands for are no text.
    """
    try:
        return unquote(value, errors="strict")
    except UnicodeDecodeError:
        raise NotAnEvent("the value of an attribute is not UTF-8") from None


def _read_structured(body: bytes) -> CloudEvent:
    value = _parse(body, "the event")
    if not isinstance(value, dict):
        raise NotAnEvent("the event is not a JSON object")
    told = {name: _to_text(name, one) for name, one in value.items() if name not in {"data", "data_base64"}}
    attributes = _check_attributes({name: text for name, text in told.items() if text is not None})
    if "data" in value and "data_base64" in value:
        raise NotAnEvent("the event has 'data' and 'data_base64'; it has one of them at most")
    if "data_base64" in value:
        return _with_bytes(attributes, _decode(value["data_base64"]))
    return CloudEvent(attributes, value.get("data"), has_data="data" in value)


def _to_text(name: str, value: JsonValue) -> str | None:
    """Return an attribute as binary mode has it, so that both modes are one event."""
    match value:
        case None | str():
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case _:
            raise NotAnEvent(f"the attribute {_shown(name)} is not a text, a whole number or a boolean")


def _check_attributes(attributes: Mapping[str, str]) -> Mapping[str, str]:
    if len(attributes) > _MOST_ATTRIBUTES:
        raise NotAnEvent(f"the event has {len(attributes)} attributes; at most {_MOST_ATTRIBUTES} are taken")
    for name, text in attributes.items():
        if not _NAME.fullmatch(name) or name == "data":
            raise NotAnEvent(f"the attribute {_shown(name)} is not named by lower-case letters and digits")
        if len(text) > _ATTRIBUTE_CHARACTERS:
            raise NotAnEvent(f"the attribute {name!r} has more than {_ATTRIBUTE_CHARACTERS} characters")
        if any(unicodedata.category(character) in {"Cc", "Cs"} for character in text):
            raise NotAnEvent(f"the attribute {name!r} has characters that no attribute may have")
    missing = [name for name in REQUIRED if not attributes.get(name)]
    if missing:
        raise NotAnEvent(f"the event has no {' and no '.join(map(repr, missing))}")
    if attributes["specversion"] != _VERSION:
        raise NotAnEvent(f"the event is of another version of CloudEvents than {_VERSION!r}")
    return dict(attributes)


def _with_bytes(attributes: Mapping[str, str], body: bytes) -> CloudEvent:
    """Return an event whose data is read as its content type says: JSON where it says nothing."""
    if not body:
        return CloudEvent(attributes, None, has_data=False)
    kind = _bare(attributes.get("datacontenttype", "application/json"))
    if kind.endswith(("/json", "+json")):
        return CloudEvent(attributes, _parse(body, "the data"))
    if kind.startswith("text/"):
        try:
            return CloudEvent(attributes, body.decode())
        except UnicodeDecodeError:
            raise NotAnEvent(f"the data is {kind!r}, but not UTF-8") from None
    return CloudEvent(attributes, base64.b64encode(body).decode(), is_bytes=True)


def _parse(body: bytes, what: str) -> JsonValue:
    try:
        # It bounds how deep values are nested, and refuses half of a surrogate pair.
        value: JsonValue = from_json(body, allow_inf_nan=False)
        check_storable(value)
    except ValueError as error:
        raise NotAnEvent(f"{what} is not JSON that can be read: {str(error).splitlines()[0]}") from None
    return value


def _decode(value: JsonValue) -> bytes:
    try:
        if isinstance(value, str):
            return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise NotAnEvent("'data_base64' is not base64")


def _bare(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _shown(name: str) -> str:
    return repr(name[:40])
