"""Arguments that a person puts in place of the model's: whole again, checked against the tool's schema, stored."""

import json
import sys

from pydantic import JsonValue

from mandate.activities.toolbox import arguments, written_plans
from mandate.activities.transcript import sensitive_arguments
from mandate.activities.transcript.blobs import Blobs
from mandate.activities.transcript.conversation import Conversation
from mandate.activities.transcript.log import TranscriptLog
from mandate.workflows.contracts.base import JsonObject, canonical_json
from mandate.workflows.contracts.request import EditedCall, Request
from mandate.workflows.contracts.tool import REMOTE_LIMIT_BYTES, ToolDefinition
from mandate.workflows.rules import redaction


class EditRefused(Exception):
    """New arguments that cannot be used; the message is for the person."""


async def edit_call(
    transcript: TranscriptLog, request: Request, definition: ToolDefinition, value: JsonValue, by: str
) -> EditedCall | None:
    """Return the call of `request` with `value` as its whole arguments; `None` when they are those that it has.

    What people are not shown is given back as it was shown and stays as it is: `***` for a sensitive argument, a
    reference for a long text.

    Raises:
        EditRefused: no arguments for this tool.
        BlobMissing, BlobCorrupted, StoreUnavailable: see there.
    """
    conversation = (await transcript.load(request.head)).conversation
    current = await _find_current(transcript.blobs, conversation, request, definition)
    salt = arguments.find_salt(definition, conversation)
    if salt is not None and (name := redaction.find_in_clear(value, definition.tool.sensitive)) is not None:
        raise EditRefused(redaction.explain_in_clear(name))
    try:
        whole = arguments.read(definition, json.dumps(restore_hidden(value, current, definition, salt)))
    except ValueError as error:
        raise EditRefused(str(error)) from None
    except RecursionError:
        raise EditRefused("the arguments are nested too deep") from None
    # `100` and `100.0` are one number to people, who were shown the form that the schema declares.
    if canonical_json(arguments.convert(definition, whole)) == canonical_json(arguments.convert(definition, current)):
        return None
    view = arguments.hide_sensitive(definition, whole, salt)
    is_whole = definition.tool.remote is not None or written_plans.find_terms(definition) is not None
    view = view if is_whole else arguments.shorten_texts(view)
    size = len(canonical_json(view))
    if size > REMOTE_LIMIT_BYTES:
        raise EditRefused(f"the arguments have {size} bytes; the limit is {REMOTE_LIMIT_BYTES}")
    (blob,) = await transcript.blobs.put(canonical_json(arguments.make_storable(definition, whole, salt)))
    digest = arguments.call_digest(definition.tool.name, whole, salt)
    return EditedCall(by=by, arguments=view, digest=digest, blob=blob)


async def _find_current(
    blobs: Blobs, conversation: Conversation, request: Request, definition: ToolDefinition
) -> JsonObject:
    """Return the whole arguments that would run if the request were approved as it is."""
    part = conversation.find_call(request.index)
    if part is None:
        raise EditRefused(f"the conversation has no call {request.index} to change")
    edited = request.edited.blob if request.edited is not None else None
    try:
        return await arguments.load_call(blobs, conversation, definition, part, edited)
    except ValueError as error:
        raise EditRefused(str(error)) from None


def restore_hidden(value: JsonValue, current: JsonObject, definition: ToolDefinition, salt: bytes | None) -> JsonValue:
    """Return `value` with the values that people were not shown put back in from `current`."""
    if not isinstance(value, dict):
        return value
    # What the workflow was shown depends on the other calls of its turn: every reference that there can be is known.
    view = written_plans.drop_facts(definition, arguments.hide_sensitive(definition, current, salt))
    known = dict(sensitive_arguments.match_references(arguments.shorten_texts(view, 0), current))
    known.update(sensitive_arguments.match_references(arguments.shorten_texts(view, sys.maxsize), current))
    try:
        return sensitive_arguments.unmask(
            sensitive_arguments.fill_references(value, known), current, definition.tool.sensitive
        )
    except LookupError as error:
        raise EditRefused(str(error.args[0])) from None
