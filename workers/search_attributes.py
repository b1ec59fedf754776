"""The search attributes that runs use: looked at, and created where that is allowed."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.common import SearchAttributeIndexedValueType
from temporalio.service import RPCError, RPCStatusCode

from mandate.workflows.loop.visibility import SEARCH_ATTRIBUTES
from mandate.workflows.rules import quantities

_TYPES = {
    SearchAttributeIndexedValueType.KEYWORD: (IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD, "Keyword"),
    SearchAttributeIndexedValueType.KEYWORD_LIST: (IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD_LIST, "KeywordList"),
    SearchAttributeIndexedValueType.DOUBLE: (IndexedValueType.INDEXED_VALUE_TYPE_DOUBLE, "Double"),
}

USABLE = timedelta(seconds=90)
"""Time that the server may take until queries know of attributes that were just created."""

_VALUES = {"Double": "0"}
"""What an attribute is compared with to see whether queries know of it; `'x'` of the other types."""

_NOT_YET = (RPCStatusCode.INVALID_ARGUMENT, RPCStatusCode.NOT_FOUND)
"""What queries are answered by a server that does not know an attribute, or the namespace, yet."""


class WrongSearchAttribute(Exception):
    """The namespace has one of our search attributes with another type."""


class UnusableSearchAttributes(Exception):
    """The server does not take queries by attributes that it says it has."""


@dataclass(frozen=True, slots=True)
class SearchAttribute:
    """One search attribute of ours, as a namespace has it."""

    name: str
    type: str
    """Temporal's word, as its CLI takes it: `Keyword`, `KeywordList` or `Double`."""
    found: str | None
    """The type that the namespace has under this name; `None` if it has none."""

    @property
    def is_missing(self) -> bool:
        return self.found is None

    @property
    def is_wrong(self) -> bool:
        return self.found is not None and self.found != self.type

    @property
    def fault(self) -> str:
        """The sentence for one with a wrong type."""
        return f"search attribute {self.name!r} exists, but is not a {self.type}; remove or rename it"

    @property
    def create_command(self) -> str:
        """The command of Temporal's CLI that creates it."""
        return f"temporal operator search-attribute create --name {self.name} --type {self.type}"


async def read(client: Client) -> tuple[SearchAttribute, ...]:
    """Return all of ours, as the namespace of `client` has them.

    Raises:
        RPCError: this client may not look, or the server does not answer.
    """
    existing = await _existing(client)
    words = {key.name: _TYPES[key.indexed_value_type][1] for key in SEARCH_ATTRIBUTES}
    return tuple(SearchAttribute(name, word, _word(existing.get(name))) for name, word in words.items())


async def ensure(client: Client) -> tuple[str, ...]:
    """Return the names of ours that runs may set; missing ones are created if this client may.

    Says once, with the command to run, which could not be created.

    Raises:
        WrongSearchAttribute: one exists with another type; nobody could set it.
    """
    from structlog.stdlib import get_logger  # noqa: PLC0415 - a library only for workers, which have a log

    log = get_logger(__name__)
    try:
        found = await read(client)
    except RPCError as error:
        log.warning("search_attributes_unknown", reason=error.message, effect="runs set none")
        return ()
    demand_types(found)
    missing = [one.name for one in found if one.is_missing]
    refused = [] if not missing or await _created(client, missing) else await _refused(client, missing)
    if refused:
        commands = [one.create_command for one in found if one.name in refused]
        log.warning("search_attributes_missing", names=refused, create_with=commands)
    return tuple(one.name for one in found if one.name not in refused)


def demand_types(found: Sequence[SearchAttribute]) -> None:
    """Raise `WrongSearchAttribute` for the first one that has another type."""
    if (wrong := next((one for one in found if one.is_wrong), None)) is not None:
        raise WrongSearchAttribute(wrong.fault)


async def create(client: Client, names: Sequence[str]) -> None:
    """Create these, all or none.

    Raises:
        RPCError: the server refuses it.
    """
    kinds = {key.name: _TYPES[key.indexed_value_type][0] for key in SEARCH_ATTRIBUTES if key.name in names}
    await _add(client, kinds)


async def wait_until_usable(client: Client, limit: timedelta = USABLE) -> None:
    """Return once the server takes a query by each of ours: it learns of new ones seconds later.

    Raises:
        UnusableSearchAttributes: it did not within `limit`.
        RPCError: it refuses queries, whatever they ask for.
    """
    query = " AND ".join(
        f"{key.name} = {_VALUES.get(_TYPES[key.indexed_value_type][1], repr('x'))}" for key in SEARCH_ATTRIBUTES
    )
    last = ""
    try:
        async with asyncio.timeout(limit.total_seconds()):
            while True:
                try:
                    await client.count_workflows(query)
                    return
                except RPCError as error:
                    if error.status not in _NOT_YET:
                        raise
                    last = error.message
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise UnusableSearchAttributes(
            f"the search attributes exist, but queries by them fail after {quantities.write_seconds(limit)}: {last}"
        ) from None


def _word(kind: int | None) -> str | None:
    """Return the type as Temporal's CLI writes it."""
    if kind is None:
        return None
    name = IndexedValueType.Name(kind).removeprefix("INDEXED_VALUE_TYPE_")  # type: ignore[arg-type] # any number
    return "".join(part.capitalize() for part in name.split("_"))


async def has_status(client: Client) -> bool:
    """Return whether runs can be found by their status."""
    try:
        return "AgentStatus" in await _existing(client)
    except RPCError:
        return False


async def _existing(client: Client) -> dict[str, int]:
    request = ListSearchAttributesRequest(namespace=client.namespace)
    return dict((await client.operator_service.list_search_attributes(request)).custom_attributes)


async def _add(client: Client, kinds: "Mapping[str, IndexedValueType.ValueType]") -> None:
    request = AddSearchAttributesRequest(namespace=client.namespace, search_attributes=kinds)
    await client.operator_service.add_search_attributes(request)


async def _created(client: Client, names: Sequence[str]) -> bool:
    try:
        await create(client, names)
    except RPCError:
        return set(names) <= (await _existing(client)).keys()
    return True


async def _refused(client: Client, names: Sequence[str]) -> list[str]:
    """Create attributes one by one, and return those refused; all at once, the first refusal stops the rest."""
    return [name for name in names if not await _created(client, [name])]
