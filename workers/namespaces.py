"""Namespaces of Temporal, with what runs need in them: looked at and made."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, RegisterNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from mandate.workers import search_attributes
from mandate.workers.search_attributes import SearchAttribute, UnusableSearchAttributes
from mandate.workflows.rules import quantities

RETENTION = timedelta(days=30)
"""Time for which a namespace of ours keeps closed runs, if nothing else is asked for."""

SHORTEST = timedelta(hours=1)
"""Shortest time that a server keeps closed runs for."""

KNOWN = timedelta(seconds=60)
"""Time that the server may take until all of it knows a new namespace."""


@dataclass(frozen=True, slots=True)
class Namespace:
    """A namespace as the server describes it."""

    name: str
    retention: timedelta
    """Time for which closed runs are kept."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A namespace that runs can be started in, and what was made for that."""

    namespace: Namespace
    was_made: bool
    attributes: tuple[SearchAttribute, ...]
    """As they were found: those that were missing were created."""


async def find(client: Client) -> Namespace | None:
    """Return the namespace of `client`, or `None` if the server has none of this name.

    Raises:
        RPCError: it may not look, or the server does not answer.
    """
    try:
        found = await client.workflow_service.describe_namespace(DescribeNamespaceRequest(namespace=client.namespace))
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return None
        raise
    return Namespace(found.namespace_info.name, found.config.workflow_execution_retention_ttl.ToTimedelta())


async def prepare(client: Client, retention: timedelta = RETENTION) -> Prepared:
    """Make the namespace of `client` and our search attributes where they are missing, and wait until both are usable.

    What is there is left as it is, `retention` too.

    Raises:
        WrongSearchAttribute: one of ours exists with another type; no attribute was created.
        UnusableSearchAttributes: not all of the server knows of what was made.
        RPCError: the server refuses it, or does not answer.
    """
    found = await find(client)
    was_made = found is None and await _make(client, retention)
    attributes = await _known(client)
    search_attributes.demand_types(attributes)
    missing = [one.name for one in attributes if one.is_missing]
    if missing:
        await _create(client, missing)
    await search_attributes.wait_until_usable(client)
    namespace = await find(client)
    return Prepared(namespace or Namespace(client.namespace, retention), was_made, attributes)


async def _make(client: Client, retention: timedelta) -> bool:
    """Make the namespace; return `False` if somebody else was first."""
    kept = Duration()
    kept.FromTimedelta(retention)
    request = RegisterNamespaceRequest(namespace=client.namespace, workflow_execution_retention_period=kept)
    try:
        await client.workflow_service.register_namespace(request)
    except RPCError as error:
        if error.status is not RPCStatusCode.ALREADY_EXISTS:
            raise
        return False
    return True


async def _known(client: Client) -> tuple[SearchAttribute, ...]:
    """Return our search attributes, once the whole server knows the namespace."""
    try:
        async with asyncio.timeout(KNOWN.total_seconds()):
            while True:
                try:
                    return await search_attributes.read(client)
                except RPCError as error:
                    if error.status is not RPCStatusCode.NOT_FOUND:
                        raise
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise UnusableSearchAttributes(
            f"namespace {client.namespace!r} was made, but the server does not find it after "
            f"{quantities.write_seconds(KNOWN)}"
        ) from None


async def _create(client: Client, missing: list[str]) -> None:
    try:
        await search_attributes.create(client, missing)
    except RPCError:
        # Somebody else may have created them meanwhile.
        if any(one.is_missing for one in await search_attributes.read(client)):
            raise
