"""The search attributes that runs use, created where that is allowed."""

from collections.abc import Mapping
from dataclasses import dataclass

import structlog
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.common import SearchAttributeIndexedValueType
from temporalio.service import RPCError

from mandate.workflows.loop.visibility import SEARCH_ATTRIBUTES

log = structlog.stdlib.get_logger(__name__)

_TYPES = {
    SearchAttributeIndexedValueType.KEYWORD: (IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD, "Keyword"),
    SearchAttributeIndexedValueType.KEYWORD_LIST: (IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD_LIST, "KeywordList"),
    SearchAttributeIndexedValueType.DOUBLE: (IndexedValueType.INDEXED_VALUE_TYPE_DOUBLE, "Double"),
}


@dataclass(frozen=True, slots=True)
class Inspection:
    """Search attributes that are not as runs need them, by name, with the types that they should have."""

    missing: Mapping[str, str]
    wrong: Mapping[str, str]


class WrongSearchAttribute(Exception):
    """The namespace has one of our search attributes with another type."""


async def inspect(client: Client) -> Inspection:
    """Compare the search attributes of the namespace with those of runs.

    Raises:
        RPCError: this client may not list them.
    """
    existing = await _existing(client)
    wanted = {key.name: _TYPES[key.indexed_value_type] for key in SEARCH_ATTRIBUTES}
    return Inspection(
        missing={name: word for name, (_, word) in wanted.items() if name not in existing},
        wrong={name: word for name, (kind, word) in wanted.items() if name in existing and existing[name] != kind},
    )


async def ensure(client: Client) -> tuple[str, ...]:
    """Return the names of ours that runs may set; missing ones are created if this client may.

    Says once, with the command to run, which could not be created.

    Raises:
        WrongSearchAttribute: one exists with another type; nobody could set it.
    """
    wanted = {key.name: _TYPES[key.indexed_value_type] for key in SEARCH_ATTRIBUTES}
    try:
        state = await inspect(client)
    except RPCError as error:
        log.warning("search_attributes_unknown", reason=error.message, effect="runs set none")
        return ()
    for name, word in state.wrong.items():
        raise WrongSearchAttribute(f"search attribute {name!r} exists, but is not a {word}; remove or rename it")
    kinds = {name: kind for name, (kind, _) in wanted.items() if name in state.missing}
    refused = [] if not kinds or await _created(client, kinds) else await _refused(client, kinds)
    if refused:
        commands = [f"temporal operator search-attribute create --name {n} --type {wanted[n][1]}" for n in refused]
        log.warning("search_attributes_missing", names=refused, create_with=commands)
    return tuple(name for name in wanted if name not in refused)


async def has_status(client: Client) -> bool:
    """Return whether runs can be found by their status."""
    try:
        return "AgentStatus" in await _existing(client)
    except RPCError:
        return False


async def _existing(client: Client) -> dict[str, int]:
    request = ListSearchAttributesRequest(namespace=client.namespace)
    return dict((await client.operator_service.list_search_attributes(request)).custom_attributes)


async def _created(client: Client, kinds: "Mapping[str, IndexedValueType.ValueType]") -> bool:
    request = AddSearchAttributesRequest(namespace=client.namespace, search_attributes=kinds)
    try:
        await client.operator_service.add_search_attributes(request)
    except RPCError:
        return kinds.keys() <= (await _existing(client)).keys()
    return True


async def _refused(client: Client, kinds: "Mapping[str, IndexedValueType.ValueType]") -> list[str]:
    """Create attributes one by one, and return those refused; all at once, the first refusal stops the rest."""
    return [name for name, kind in kinds.items() if not await _created(client, {name: kind})]
