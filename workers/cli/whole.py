"""Full arguments of a request: long texts that the run knows by reference only, from the store."""

import json
from dataclasses import dataclass

from mandate.activities.transcript.blobs import BlobCorrupted, Blobs
from mandate.activities.transcript.pinned_agents import PinnedAgents
from mandate.workers.cli import edit
from mandate.workers.cli.errors import CliError
from mandate.workers.cli.record import stored
from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.request import Request
from mandate.workflows.contracts.transcript import AssistantMessage, Segment
from mandate.workflows.rules import redaction, wording
from pydantic import ValidationError


@dataclass(frozen=True, slots=True)
class Arguments:
    """The arguments of the call that a request is about; sensitive ones are `***`."""

    values: JsonObject
    missing: str | None = None
    """The reason why long texts are shown by their beginning only; `None` when they are whole."""


async def arguments(store: str, identity: str | None, request: Request) -> Arguments:
    """Return all arguments in full, as far as the store at `store` can be read and has the id `identity`."""
    if not edit.has_references(request.arguments):
        return Arguments(request.arguments)
    try:
        async with stored(store, identity) as blobs:
            whole = await _whole(blobs, request)
    except (CliError, BlobCorrupted) as error:
        return Arguments(request.arguments, str(error))
    except (OSError, ValidationError, ValueError) as error:
        return Arguments(request.arguments, f"the store cannot be read: {wording.shorten(str(error), 200)}")
    return Arguments(whole)


async def _whole(blobs: Blobs, request: Request) -> JsonObject:
    segment = Segment.model_validate_json(await blobs.get(request.head))
    if request.edited is not None:
        found = json.loads(await blobs.get(request.edited.blob))
    else:
        answers = [message for message in segment.messages if isinstance(message, AssistantMessage)]
        if not answers or request.index >= len(answers[-1].calls):
            raise ValueError(f"segment {request.head} has no call {request.index}")
        found = json.loads(answers[-1].calls[request.index].arguments)
    if not isinstance(found, dict):
        raise ValueError("its arguments are no object")
    definition = (await PinnedAgents(blobs).get(segment.agent)).definition(request.tool or "")
    return redaction.mask(found, definition.tool.sensitive if definition is not None else ())
