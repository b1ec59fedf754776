"""Arguments that a person puts in place of the model's: whole again, checked against the tool's schema, stored."""

import json
import sys
from collections.abc import Iterator

from pydantic import JsonValue

from activities import arguments
from activities.transcript import TranscriptLog
from workflows.contracts.base import Digest, JsonObject, canonical_json
from workflows.contracts.request import EditedCall, Request
from workflows.contracts.tool import REMOTE_LIMIT_BYTES, ToolDefinition
from workflows.rules.wording import HIDDEN

_REFERENCE = {"digest", "size", "preview"}


class EditRefused(Exception):
    """New arguments that cannot be used; the message is for the person."""


async def edited_call(
    transcript: TranscriptLog, request: Request, definition: ToolDefinition, value: JsonValue, by: str
) -> EditedCall | None:
    """The call of `request` with `value` as its whole arguments; `None` when they are what it has already.

    What people are not shown is given back as it was shown and stays as it is: `***` for a sensitive argument, a
    reference for a long text.

    Raises:
        EditRefused: no arguments for this tool.
        BlobMissing, BlobCorrupted, StoreUnavailable: see there.
    """
    current = await _current(transcript, request, definition)
    try:
        whole = arguments.read(definition, json.dumps(restored(value, current, definition)))
    except ValueError as error:
        raise EditRefused(str(error)) from None
    except RecursionError:
        raise EditRefused("the arguments are nested too deep") from None
    view = arguments.seen(definition, whole)
    # `100` and `100.0` are one number to people, who were shown the form that the schema declares.
    if canonical_json(view) == canonical_json(arguments.seen(definition, current)):
        return None
    view = view if definition.tool.remote is not None else arguments.shown(view)
    size = len(canonical_json(view))
    if size > REMOTE_LIMIT_BYTES:
        raise EditRefused(f"the arguments have {size} bytes; the limit is {REMOTE_LIMIT_BYTES}")
    (blob,) = await transcript.blobs.put(canonical_json(whole))
    digest = arguments.call_digest(definition.tool.name, whole)
    return EditedCall(by=by, arguments=view, digest=digest, blob=blob)


async def _current(transcript: TranscriptLog, request: Request, definition: ToolDefinition) -> JsonObject:
    """The whole arguments that would run if the request were approved as it is."""
    if request.edited is not None:
        stored: JsonObject = json.loads(await transcript.blobs.get(request.edited.blob))
        return stored
    said = (await transcript.load(request.head)).conversation.last_assistant()
    if said is None or request.index >= len(said.calls):
        raise EditRefused(f"the conversation has no call {request.index} to change")
    try:
        return arguments.read(definition, said.calls[request.index].arguments)
    except ValueError as error:
        raise EditRefused(str(error)) from None


def restored(value: JsonValue, current: JsonObject, definition: ToolDefinition) -> JsonValue:
    """`value` with what people were not shown put back in from `current`."""
    if not isinstance(value, dict):
        return value
    # What the workflow was shown depends on the other calls of its turn: every reference that there can be is known.
    view = arguments.seen(definition, current)
    hidden = dict(_hidden(arguments.shown(view, 0), current))
    hidden.update(_hidden(arguments.shown(view, sys.maxsize), current))
    whole = {name: _filled(item, hidden) for name, item in value.items()}
    for name in definition.tool.sensitive:
        if whole.get(name) == HIDDEN:
            if name not in current:
                raise EditRefused(f"{name}: {HIDDEN!r} stands for a value that the call does not have")
            whole[name] = current[name]
    return whole


def _hidden(shown: JsonValue, whole: JsonValue) -> Iterator[tuple[Digest, JsonValue]]:
    """Each reference in `shown`, by its digest, with what stands in its place in `whole`."""
    match shown, whole:
        case {"digest": str(digest), "size": int(), "preview": str()}, _ if shown != whole:
            yield digest, whole
        case dict(), dict():
            for name, item in shown.items():
                yield from _hidden(item, whole[name])
        case list(), list():
            for item, behind in zip(shown, whole, strict=True):
                yield from _hidden(item, behind)


def _filled(value: JsonValue, hidden: dict[Digest, JsonValue]) -> JsonValue:
    """`value` with each reference that is one of `hidden` replaced by what it stands for."""
    match value:
        case dict() if value.keys() == _REFERENCE and value["digest"] in hidden:
            return hidden[str(value["digest"])]
        case dict():
            return {name: _filled(item, hidden) for name, item in value.items()}
        case list():
            return [_filled(item, hidden) for item in value]
        case _:
            return value
