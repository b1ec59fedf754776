"""Names of requests on the command line: `<workflow id>:<request id>`, or a number of the last inbox."""

import json
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.service import RPCError

from mandate.activities import private_files
from mandate.workers.cli.connection import Connection
from mandate.workers.cli.errors import CliError
from mandate.workers.client.decisions import Target
from mandate.workflows.rules import quantities

FILE = "inbox.json"

_NAME = re.compile(r"(?P<workflow>.+):(?P<request>r[1-9][0-9]{0,8})", re.DOTALL)
_NUMBER = re.compile(r"[1-9][0-9]{0,6}")


@dataclass(frozen=True, slots=True)
class Numbered:
    """The numbers of one inbox."""

    server: str
    """Namespace and server of the inbox."""
    address: str
    """The same for people."""
    at: datetime
    requests: tuple[tuple[str, str, str], ...]
    """Workflow id, request id and digest; the first has number 1."""


def parsed(name: str) -> Target | None:
    """Parse `wf:r3` as a request; return `None` for anything else."""
    match = _NAME.fullmatch(name)
    return Target(match["workflow"], match["request"]) if match is not None else None


def is_number(name: str) -> bool:
    return _NUMBER.fullmatch(name) is not None


async def targets(connection: Connection, names: Sequence[str], *, program: str) -> list[Target]:
    """Return the requests that `names` stand for, each once.

    Raises:
        CliError: a name is neither of the two forms, or a number is not of this server's last inbox.
    """
    numbered, server = None, ""
    if any(map(is_number, names)):
        numbered, server = load(connection.settings.folder), await server_of(connection)
    found: dict[str, Target] = {}
    for name in names:
        target = parsed(name)
        if target is None and is_number(name):
            target = resolve(int(name), numbered, server=server, folder=connection.settings.folder, program=program)
        if target is None:
            raise CliError(
                f"{name!r} names no request; give <workflow id>:<request>, for example 'refund-81:r1', "
                f"or a number of `{program} inbox`"
            )
        found.setdefault(target.name, target)
    return list(found.values())


def resolve(number: int, numbered: Numbered | None, *, server: str, folder: Path, program: str) -> Target:
    """Return the request that a number stands for.

    Raises:
        CliError: there is no inbox yet, it is of another server, or it is shorter.
    """
    again = f"run `{program} inbox` and take the number from there"
    if numbered is None:
        raise CliError(f"{number} is a number of the last inbox, and there is none in {str(folder)!r}; {again}")
    when = f"{numbered.at:%Y-%m-%d %H:%M} UTC"
    if numbered.server != server:
        raise CliError(f"{number} is a number of the inbox of {when}, which was of {numbered.address}; {again}")
    if number > len(numbered.requests):
        held = quantities.count_noun(len(numbered.requests), "request") if numbered.requests else "no requests"
        raise CliError(f"{number} is not in the inbox of {when}, which has {held}; {again}")
    workflow_id, request, digest = numbered.requests[number - 1]
    return Target(workflow_id, request, digest, number)


def save(folder: Path, numbered: Numbered) -> None:
    """Keep the numbers for the commands that follow; the file is replaced whole."""
    told = {
        "server": numbered.server,
        "address": numbered.address,
        "at": numbered.at.isoformat(),
        "requests": [list(request) for request in numbered.requests],
    }
    private_files.claim_folder(folder)
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=f".{FILE}.")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(told, file)
    Path(name).replace(folder / FILE)


def load(folder: Path) -> Numbered | None:
    """Return the numbers of the last inbox; `None` when there is none that can be read."""
    try:
        told = json.loads((folder / FILE).read_text(encoding="utf-8"))
        requests = tuple((str(workflow), str(request), str(digest)) for workflow, request, digest in told["requests"])
        at = datetime.fromisoformat(told["at"]).astimezone(UTC)
        return Numbered(str(told["server"]), str(told["address"]), at, requests)
    except (OSError, ValueError, KeyError, TypeError):
        return None


async def server_of(connection: Connection) -> str:
    """Return what tells this namespace from all others, also from those of an earlier server at its address."""
    client = connection.client
    try:
        request = DescribeNamespaceRequest(namespace=client.namespace)
        found = await client.workflow_service.describe_namespace(request)
    except RPCError:
        # Not everybody may describe a namespace.
        return f"{connection.address} {client.namespace}"
    return f"{found.namespace_info.id} {client.namespace}"
