"""The search attributes that runs use, created where that is allowed."""

import structlog
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.common import SearchAttributeIndexedValueType
from temporalio.service import RPCError

from workflows.display import SEARCH_ATTRIBUTES

log = structlog.stdlib.get_logger(__name__)

_TYPES = {
    SearchAttributeIndexedValueType.KEYWORD: (IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD, "Keyword"),
    SearchAttributeIndexedValueType.KEYWORD_LIST: (IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD_LIST, "KeywordList"),
    SearchAttributeIndexedValueType.DOUBLE: (IndexedValueType.INDEXED_VALUE_TYPE_DOUBLE, "Double"),
}


class WrongSearchAttribute(Exception):
    """The namespace has one of our search attributes with another type."""


async def ensure(client: Client) -> tuple[str, ...]:
    """Names of ours that runs may set; missing ones are created if this client may.

    Says once, with the command to run, which could not be created.

    Raises:
        WrongSearchAttribute: one exists with another type; nobody could set it.
    """
    wanted = {key.name: _TYPES[key.indexed_value_type] for key in SEARCH_ATTRIBUTES}
    try:
        existing = await _existing(client)
    except RPCError as error:
        log.warning("search_attributes_unknown", reason=error.message, effect="runs set none")
        return ()
    for name, (kind, word) in wanted.items():
        if name in existing and existing[name] != kind:
            raise WrongSearchAttribute(f"search attribute {name!r} exists, but is not a {word}; remove or rename it")
    missing = [name for name in wanted if name not in existing]
    refused = [name for name in missing if not await _created(client, name, wanted[name][0])]
    if refused:
        commands = [f"temporal operator search-attribute create --name {n} --type {wanted[n][1]}" for n in refused]
        log.warning("search_attributes_missing", names=refused, create_with=commands)
    return tuple(name for name in wanted if name not in refused)


async def _existing(client: Client) -> dict[str, int]:
    request = ListSearchAttributesRequest(namespace=client.namespace)
    return dict((await client.operator_service.list_search_attributes(request)).custom_attributes)


async def _created(client: Client, name: str, kind: "IndexedValueType.ValueType") -> bool:
    request = AddSearchAttributesRequest(namespace=client.namespace, search_attributes={name: kind})
    try:
        await client.operator_service.add_search_attributes(request)
    except RPCError:
        return name in await _existing(client)
    return True
