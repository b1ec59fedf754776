"""Sensitive arguments on their way through Temporal: references that only this run's workers can make.

A plain digest of a card's number is the number to whoever tries them all. Each run has a salt of its own, random, which
is in its conversation and so in the store; what depends on a sensitive value and reaches Temporal is keyed with it. It
is the same in every worker and after each continue-as-new. Runs without a salt began before there was one.
"""

import hmac
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping, Sequence

from pydantic import JsonValue

from mandate.activities.transcript.conversation import Conversation
from mandate.workflows.contracts.base import Digest, JsonObject, canonical_json
from mandate.workflows.contracts.tool import LeafReference, ToolDefinition
from mandate.workflows.contracts.transcript import UserMessage
from mandate.workflows.rules.names import fold_loosely, is_sensitive
from mandate.workflows.rules.redaction import HIDDEN, is_hidden


def make_salt(tools: Sequence[ToolDefinition]) -> str | None:
    """Return a salt for a run with these tools; `None` when none of them has sensitive arguments."""
    return secrets.token_urlsafe(32) if any(definition.tool.sensitive for definition in tools) else None


def find_salt(conversation: Conversation) -> bytes | None:
    """Return the salt of the run whose conversation it is."""
    first = conversation[0] if len(conversation) else None
    return first.salt.encode() if isinstance(first, UserMessage) and first.salt is not None else None


def compute_digest(salt: bytes, content: bytes) -> Digest:
    """Return a digest that is equal for equal contents of one run; without the salt it tells nothing of them."""
    return urlsafe_b64encode(hmac.digest(salt, content, "sha256")).rstrip(b"=").decode()


def hide(
    arguments: JsonObject, sensitive: Sequence[str], salt: bytes | None, *, seen: JsonObject | None = None
) -> JsonObject:
    """Return `arguments` with a reference for each sensitive one, at every depth and in every spelling.

    References are made from what conditions see: `seen`, where `arguments` are in another form.
    """
    if salt is None or not sensitive:
        return arguments
    hidden = _hide(arguments, arguments if seen is None else seen, sensitive, salt)
    assert isinstance(hidden, dict)
    return hidden


def _hide(value: JsonValue, seen: JsonValue, sensitive: Sequence[str], salt: bytes) -> JsonValue:
    match value, seen:
        case dict(), dict():
            return {
                name: _reference(name, seen[name], salt)
                if is_sensitive(name, sensitive)
                else _hide(item, seen[name], sensitive, salt)
                for name, item in value.items()
            }
        case list(), list():
            return [_hide(*pair, sensitive, salt) for pair in zip(value, seen, strict=True)]
        case _:
            return value


def _reference(name: str, value: JsonValue, salt: bytes) -> JsonObject:
    digest = compute_digest(salt, canonical_json([fold_loosely(name), value]))
    return LeafReference(digest=digest, size=0, preview="").model_dump(mode="json")


def match_references(shown: JsonValue, whole: JsonValue) -> Iterator[tuple[Digest, JsonValue]]:
    """Yield the value in `whole` for each reference in `shown`, by its digest."""
    match shown, whole:
        case {"digest": str(digest), "size": int(), "preview": str()}, _ if shown != whole:
            yield digest, whole
        case dict(), dict():
            for name, item in shown.items():
                yield from match_references(item, whole[name])
        case list(), list():
            for item, own in zip(shown, whole, strict=True):
                yield from match_references(item, own)


def resolve_references(arguments: JsonObject, sensitive: Sequence[str], salt: bytes | None) -> dict[Digest, JsonValue]:
    """Return what the references to sensitive arguments of a call stand for; `arguments` are as conditions see them."""
    return dict(match_references(hide(arguments, sensitive, salt), arguments))


def fill_references(value: JsonValue, known: Mapping[Digest, JsonValue]) -> JsonValue:
    """Return `value` with each reference that is `known` replaced by its value."""
    match value:
        case dict() if LeafReference.is_one(value) and value["digest"] in known:
            return known[str(value["digest"])]
        case dict():
            return {name: fill_references(item, known) for name, item in value.items()}
        case list():
            return [fill_references(item, known) for item in value]
        case _:
            return value


def unmask(value: JsonValue, whole: JsonValue, sensitive: Sequence[str]) -> JsonValue:
    """Return `value` with the value at its place in `whole` for each sensitive argument that is `***`.

    Raises:
        LookupError: there is nothing at its place; the message names the argument.
    """
    match value:
        case dict():
            own = whole if isinstance(whole, dict) else {}
            return {
                name: _at(own, name)
                if item == HIDDEN and is_sensitive(name, sensitive)
                else unmask(item, own.get(name), sensitive)
                for name, item in value.items()
            }
        case list():
            items = whole if isinstance(whole, list) and len(whole) == len(value) else [None] * len(value)
            return [unmask(item, own, sensitive) for item, own in zip(value, items, strict=True)]
        case _:
            return value


def _at(whole: JsonObject, name: str) -> JsonValue:
    if name not in whole:
        raise LookupError(f"{name}: {HIDDEN!r} stands for a value that the call does not have")
    return whole[name]


def has_hidden(value: JsonValue) -> bool:
    """Return whether a sensitive argument is known by reference only somewhere in `value`."""
    if isinstance(value, dict):
        return is_hidden(value) or any(map(has_hidden, value.values()))
    return isinstance(value, list) and any(map(has_hidden, value))
