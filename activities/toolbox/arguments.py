"""Arguments of a model's call: strictly read, checked against the tool's schema, and shown to the workflow."""

import json
from collections.abc import Mapping

from pydantic import JsonValue

from mandate.activities.toolbox import schema, schema_types, written_plans
from mandate.activities.toolbox.argument_names import find_name_fault
from mandate.activities.toolbox.redaction import strike_sensitive
from mandate.activities.toolbox.schema_names import Names
from mandate.activities.transcript import sensitive_arguments
from mandate.activities.transcript.blobs import Blobs
from mandate.activities.transcript.conversation import Conversation
from mandate.workflows.contracts.base import Digest, JsonObject, canonical_json, digest_of
from mandate.workflows.contracts.tool import ARGUMENT_LEAF_BYTES, LeafReference, ToolDefinition
from mandate.workflows.contracts.transcript import CallPart

SHOWN_BYTES = 4 * 1024
"""Most that the arguments of one call take in the workflow's history."""

PREVIEW_CHARACTERS = 40


def read(definition: ToolDefinition, text: str) -> JsonObject:
    """Return the arguments that the model wrote.

    Raises:
        ValueError: they are no strict JSON object, or do not fit the tool; the text is for the model.
    """
    arguments = schema.parse_arguments("" if text.strip() == "null" and not _takes_any(definition) else text)
    arguments = written_plans.drop_facts(definition, arguments)
    fault = find_misfit(definition, arguments)
    if fault is not None:
        raise ValueError(fault)
    return arguments


def is_unwritten(definition: ToolDefinition, text: str) -> bool:
    """Return whether nothing is written where a tool takes arguments, so that its defaults are nobody's choice."""
    return not text.strip() and _takes_any(definition)


def _takes_any(definition: ToolDefinition) -> bool:
    names = Names(definition.input_schema)
    said = names.collect_names(names.parts((definition.input_schema,)))
    return bool(said.names or said.patterns or said.is_open)


def find_misfit(definition: ToolDefinition, arguments: JsonObject) -> str | None:
    """Return why `arguments` can reach neither rule nor tool, whoever gives them, or `None` when they can.

    What policy and tool could read differently does not fit: names that the schema does not declare and does not open
    either, and names that receivers may take for one another.
    """
    fault = find_name_fault(definition.input_schema, arguments)
    fault = fault or schema.find_misfit(definition.input_schema, arguments, sensitive=definition.tool.sensitive)
    fault = fault or written_plans.find_misfit(definition, arguments)
    return fault if fault is None else strike_sensitive(fault, definition.tool, arguments)


def read_loosely(text: str) -> JsonObject:
    """Return what can be read of arguments that may not fit, for striking them out of what is told."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


async def load_call(
    blobs: Blobs, conversation: Conversation, definition: ToolDefinition, part: CallPart, edited: Digest | None
) -> JsonObject:
    """Return the whole arguments of a call: the model's, or at `edited` those that a person put in their place.

    Raises:
        ValueError: as `read`.
        BlobMissing, BlobCorrupted, StoreUnavailable: see there.
    """
    if edited is None:
        return read(definition, part.arguments)
    written = (await blobs.get(edited)).decode()
    salt = find_salt(definition, conversation)
    if salt is None:
        return read(definition, written)
    own = read(definition, part.arguments)
    known = dict(sensitive_arguments.match_references(make_storable(definition, own, salt), own))
    return read(definition, json.dumps(sensitive_arguments.fill_references(json.loads(written), known)))


def make_storable(definition: ToolDefinition, whole: JsonObject, salt: bytes | None) -> JsonObject:
    """Return `whole` as it is stored outside its conversation, at an address that the workflow knows."""
    return sensitive_arguments.hide(whole, definition.tool.sensitive, salt, seen=convert(definition, whole))


def call_digest(tool: str, arguments: JsonObject, salt: bytes | None = None) -> str:
    """Return a digest of one intended call, whatever the order and spacing in which the model wrote it.

    With a `salt`, which calls with sensitive arguments have, it cannot be found out by trying.
    """
    content = canonical_json({"tool": tool, "arguments": arguments})
    return digest_of(content) if salt is None else sensitive_arguments.compute_digest(salt, content)


def convert(definition: ToolDefinition, arguments: JsonObject) -> JsonObject:
    """Return `arguments` as conditions see them: numbers as the tool's schema declares them, all texts whole."""
    return schema_types.convert_numbers(definition.input_schema, written_plans.add_facts(definition, arguments))


def hide_sensitive(definition: ToolDefinition, arguments: JsonObject, salt: bytes | None) -> JsonObject:
    """Return `arguments` as workflow and rules have them: as of `convert`, sensitive ones by reference."""
    return sensitive_arguments.hide(convert(definition, arguments), definition.tool.sensitive, salt)


def find_salt(definition: ToolDefinition, conversation: Conversation) -> bytes | None:
    """Return what the digests of calls of this tool are keyed with; `None` where nothing is sensitive."""
    return sensitive_arguments.find_salt(conversation) if definition.tool.sensitive else None


def shorten_texts(arguments: JsonObject, limit_bytes: int = SHOWN_BYTES) -> JsonObject:
    """Return `arguments` with long texts replaced by references, and more until they take `limit_bytes` of JSON.

    What is smaller than a reference stays, so many small ones may take more.
    """
    view = {name: _shorten(value) for name, value in arguments.items()}
    sizes = {name: len(canonical_json(value)) for name, value in view.items()}
    total = sum(sizes.values())
    for name in sorted(sizes, key=sizes.__getitem__, reverse=True):
        if total <= limit_bytes:
            break
        reference = _reference(canonical_json(arguments[name]).decode())
        saved = sizes[name] - len(canonical_json(reference))
        if saved > 0:
            view[name] = reference
            total -= saved
    return view


def _shorten(value: JsonValue) -> JsonValue:
    match value:
        case str() if len(value.encode()) > ARGUMENT_LEAF_BYTES:
            return _reference(value)
        case list():
            return [_shorten(item) for item in value]
        case Mapping():
            return {name: _shorten(item) for name, item in value.items()}
        case _:
            return value


def _reference(text: str) -> JsonObject:
    content = text.encode()
    reference = LeafReference(digest=digest_of(content), size=len(content), preview=text[:PREVIEW_CHARACTERS])
    return reference.model_dump(mode="json")
