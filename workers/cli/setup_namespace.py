"""`mandate setup-namespace`: a namespace of a Temporal server with what runs need in it."""

from datetime import timedelta
from typing import Annotated

import typer
from temporalio.service import RPCError, RPCStatusCode

from mandate.workers import namespaces
from mandate.workers.cli.connection import Connection, connected
from mandate.workers.cli.errors import DONE, CliError, sentence
from mandate.workers.cli.options import Invocation, verb
from mandate.workers.namespaces import Prepared
from mandate.workers.search_attributes import UnusableSearchAttributes, WrongSearchAttribute
from mandate.workflows.contracts.base import parse_duration
from mandate.workflows.rules.decisions import format_duration

MADE, THERE = "made", "there"

NOT_ALLOWED = (RPCStatusCode.PERMISSION_DENIED, RPCStatusCode.UNAUTHENTICATED, RPCStatusCode.UNIMPLEMENTED)


@verb
async def setup_namespace(
    call: Invocation,
    *,
    retention: Annotated[
        str | None,
        typer.Option(
            help="How long a new namespace keeps closed runs; 30d if left out. One that is there keeps its own.",
            metavar="DURATION",
        ),
    ] = None,
) -> int:
    """Make a namespace and the search attributes of runs on a Temporal server, where they are missing.

    It can be called again at any time: what is there is left as it is. It ends when the server takes queries by the
    search attributes, so workers and commands can follow at once.

    Exit code 0: all is there. 2: it is not, and why.
    """
    kept = _read_retention(retention) if retention is not None else namespaces.RETENTION
    async with connected(call, in_namespace=False) as connection:
        try:
            prepared = await namespaces.prepare(connection.client, kept)
        except (WrongSearchAttribute, UnusableSearchAttributes) as error:
            raise CliError(str(error)) from None
        except RPCError as error:
            raise CliError(_explain(error, connection)) from None
        _print(call, connection, prepared)
        if retention is not None and prepared.namespace.retention != kept:
            command = f"temporal operator namespace update -n {prepared.namespace.name} --retention {retention}"
            call.out.note(f"--retention {retention} changes nothing, since the namespace was there; `{command}` does")
    return DONE


def _read_retention(written: str) -> timedelta:
    try:
        length = parse_duration(written)
    except ValueError as error:
        raise CliError(f"--retention {written!r}: {error}") from None
    if not isinstance(length, timedelta) or length < namespaces.SHORTEST:
        raise CliError(f"--retention {written!r}: must be an hour or longer, for example 30d")
    return length


def _explain(error: RPCError, connection: Connection) -> str:
    """Return the sentence for what the server refuses."""
    name = connection.client.namespace
    if error.status in NOT_ALLOWED:
        why = " ".join(error.message.split())
        return (
            f"this client may not set up namespace {name!r} at {connection.address} ({why}); "
            "ask for the rights of an administrator, or have one make the namespace and the search attributes"
        )
    return f"namespace {name!r} at {connection.address}: {sentence(error)}"


def _print(call: Invocation, connection: Connection, prepared: Prepared) -> None:
    kept = format_duration(prepared.namespace.retention)
    state = MADE if prepared.was_made else THERE
    if call.out.as_json:
        call.out.json(
            {
                "address": connection.address,
                "namespace": {"name": prepared.namespace.name, "state": state, "retention": kept},
                "search_attributes": [
                    {"name": one.name, "type": one.type, "state": MADE if one.is_missing else THERE}
                    for one in prepared.attributes
                ],
            }
        )
        return
    call.out.print(
        f"namespace {prepared.namespace.name} at {connection.address}: {state}, keeps closed runs for {kept}"
    )
    width = max(len(one.name) for one in prepared.attributes)
    for one in prepared.attributes:
        call.out.print(f"  {one.name:<{width}}  {one.type:<11}  {MADE if one.is_missing else THERE}")
