"""`mandate inbox`: all that runs want from people."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, get_args

import typer

from mandate.workers.cli import identity
from mandate.workers.cli.connection import ELSEWHERE, Connection, connected, elsewhere, note_start
from mandate.workers.cli.errors import CliError
from mandate.workers.cli.options import Invocation, verb
from mandate.workers.cli.output import Output, print_table
from mandate.workers.cli.requests import names as request_names
from mandate.workers.cli.requests.text import remaining, waits_for
from mandate.workers.client.answers import Unknown
from mandate.workers.client.inbox import Inbox, read_inbox
from mandate.workers.client.trees import Place, find_place
from mandate.workflows.contracts.request import OpenRequests, Request, RequestKind
from mandate.workflows.rules import decisions, quantities, wording

SILENT_SHOWN = 5

PATH_CHARACTERS = 40
"""Of the workflow id of a child in the table."""

KINDS: tuple[RequestKind, ...] = get_args(RequestKind)


@dataclass(frozen=True, slots=True)
class Row:
    """One open request and its run."""

    run: OpenRequests
    request: Request
    place: Place

    @property
    def name(self) -> str:
        return f"{self.run.workflow_id}:{self.request.id}"

    @property
    def shown(self) -> str:
        """The name, of a run deep in a tree without the middle of its path; its number names it in commands."""
        if self.place.parent is None:
            return self.name
        return f"{shorten_path(self.run.workflow_id, PATH_CHARACTERS)}:{self.request.id}"


@verb
async def inbox(
    call: Invocation,
    *,
    mine: Annotated[bool, typer.Option("--mine", help="Only those that you may decide on.")] = False,
    group: Annotated[str | None, typer.Option(help="Only those that wait for this group or user.")] = None,
    kind: Annotated[str | None, typer.Option(help=f"Only of this kind: {', '.join(KINDS)}.")] = None,
    agent: Annotated[str | None, typer.Option(help="Only of this agent.")] = None,
    root: Annotated[
        str | None, typer.Option(help="Only of the tree of runs that this run belongs to.", metavar="RUN")
    ] = None,
    by: Annotated[str | None, typer.Option(help="Who you are, for --mine; MANDATE_USER or git's if left out.")] = None,
    scan: Annotated[
        bool, typer.Option("--scan", help="Ask all running runs, not only those that are listed as waiting.")
    ] = False,
) -> int:
    """List all open requests over all runs, those that expire first at the top.

    The number of a request stands for its name in the commands that follow. With `-o json` one object: requests, each
    with number, name, workflow_id, root and parent (`null` for a run that no other has started), agent, version,
    requester, waits_for and expires_at beside all that the run says of it; silent: runs that did not answer, first
    those whose workflow task fails, each with workflow_id, reason, and workflow_task (attempt, cause, message,
    event_id) where that fails again and again; scanned.
    """
    _check_kind(kind)
    async with connected(call, of_runs=True) as connection:
        note_start(call, connection)
        known = await _find_root(connection, root) if root is not None else None
        found = await _asked(call, connection, group=group, agent=agent, root=known, scan=scan)
        rows = [row for row in rows_of(found) if kind is None or row.request.kind == kind]
        if mine:
            rows = _of(rows, call, connection, by, group)
        await _keep(connection, rows)
        if call.out.as_json:
            call.out.json(_as_json(rows, found))
        else:
            _print(call, connection, rows, found)
    return 0


def _check_kind(kind: str | None) -> None:
    if kind is not None and kind not in KINDS:
        raise CliError(f"--kind {kind!r} is not one of {', '.join(KINDS)}")


async def _find_root(connection: Connection, name: str) -> str:
    """Return the root of the tree that a run belongs to."""
    try:
        return (await find_place(connection.client, name)).root or name
    except Unknown:
        where = f"namespace {connection.client.namespace!r} at {connection.address}{elsewhere(connection)}"
        raise CliError(f"--root {name!r}: there is no such run in {where}") from None


async def _asked(
    call: Invocation, connection: Connection, *, group: str | None, agent: str | None, root: str | None, scan: bool
) -> Inbox:
    with call.out.counting("looking for runs that wait", "asked {} of {} runs") as on_progress:
        try:
            return await read_inbox(
                connection.client, group=group, agent=agent, root=root, scan=scan, on_progress=on_progress
            )
        except ValueError as error:
            raise CliError(str(error)) from None


def shorten_path(workflow_id: str, limit: int) -> str:
    """Return the id of a child in at most about `limit` characters: its root, and its last parts, whole."""
    if len(workflow_id) <= limit:
        return workflow_id
    root, *parts = workflow_id.split("/")
    left = list(parts)
    while len(left) > 1 and len("/".join((root, "…", *left))) > limit:
        left = left[1:]
    return "/".join((root, "…", *left)) if left != parts else workflow_id


def rows_of(found: Inbox) -> list[Row]:
    """Return the rows, those that expire first at the top; of the same moment, the one asked first."""
    places = found.places
    rows = [Row(run, request, places[run.workflow_id]) for run in found.runs for request in run.requests]
    return sorted(
        rows, key=lambda row: (row.request.expires_at, row.run.workflow_id, int(row.request.id.removeprefix("r")))
    )


def _of(rows: Sequence[Row], call: Invocation, connection: Connection, by: str | None, group: str | None) -> list[Row]:
    """Return those that the person who calls may decide on, as the file of people here says."""
    person = identity.person(connection.settings, by)
    identity.announce(call.out, person)
    from mandate.workers.cli.requests.entitled import read_entitled  # noqa: PLC0415 - only --mine reads the people

    entitled, note = read_entitled(connection.settings, person.name, groups=(group,) if group else ())
    if note is not None:
        call.out.note(note)
    return [row for row in rows if entitled.may_decide(row.run, row.request)]


async def _keep(connection: Connection, rows: Sequence[Row]) -> None:
    numbered = request_names.Numbered(
        await request_names.server_of(connection),
        f"namespace {connection.client.namespace!r} at {connection.address}",
        datetime.now(UTC),
        tuple((row.run.workflow_id, row.request.id, row.request.digest) for row in rows),
    )
    try:
        request_names.save(connection.settings.folder, numbered)
    except OSError as error:
        raise CliError(
            f"the numbers of this inbox cannot be kept in {str(connection.settings.folder)!r}: {error.strerror}; "
            "MANDATE_FOLDER names another folder"
        ) from None


def _as_json(rows: Sequence[Row], found: Inbox) -> dict[str, object]:
    return {
        "requests": [
            {"number": number, **entry(row.run, row.request, row.place)} for number, row in enumerate(rows, 1)
        ],
        "silent": [
            {
                "workflow_id": one.workflow_id,
                "reason": one.reason,
                "workflow_task": one.diagnosis.to_json() if one.diagnosis is not None else None,
            }
            for one in found.silent
        ],
        "scanned": found.scanned,
    }


def entry(run: OpenRequests, request: Request, place: Place) -> dict[str, object]:
    """Return one request as programs read it."""
    return {
        "name": f"{run.workflow_id}:{request.id}",
        "workflow_id": run.workflow_id,
        "root": place.root,
        "parent": place.parent,
        "agent": run.agent,
        "version": run.version,
        "requester": run.requester,
        "waits_for": list(request.waits_for),
        "expires_at": request.expires_at.isoformat(),
        **request.model_dump(mode="json"),
    }


def _print(call: Invocation, connection: Connection, rows: Sequence[Row], found: Inbox) -> None:
    out, now = call.out, datetime.now(UTC)
    if rows:
        _print_table(out, rows, now)
        out.note(f"\n{_how(rows, call.program)}")
    else:
        out.print("nothing is open" if not found.silent else "nothing is known to be open")
    if connection.started_in is not None and not rows:
        out.note(ELSEWHERE)
    elif found.scanned:
        out.note("all running runs were asked: the namespace has no search attributes that tell which of them wait")
    if found.silent:
        count = len(found.silent)
        out.note(f"{quantities.count_noun(count, 'run')} did not answer, and may wait too:")
        for one in found.silent[:SILENT_SHOWN]:
            out.note(f"  {one.workflow_id}: {one.reason}{connection.advise_worker(call.program, one.unserved)}")
        if count > SILENT_SHOWN:
            out.note(f"  and {count - SILENT_SHOWN} more")


def _how(rows: Sequence[Row], program: str) -> str:
    """Describe how each kind of request is answered, by the number of the first one."""
    ways: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        match row.request.kind:
            case "approval":
                ways.setdefault("approve", f"`{program} approve {number}` or `reject {number}`")
            case "question":
                ways.setdefault("answer", f'`{program} answer {number} "..."`')
            case _:
                ways.setdefault("decide", f"`{program} decide {number} --choice CHOICE`")
    return f"all of one, and its choices: `{program} show 1`; answer with {', '.join(ways.values())}"


def _print_table(out: Output, rows: Sequence[Row], now: datetime) -> None:
    head = ("", "age", "expires", "request", "agent", "waits for", "asked")
    table = [
        (
            str(number),
            decisions.round_duration(now - row.request.requested_at),
            remaining(row.request, now),
            row.shown,
            row.run.agent,
            wording.shorten(waits_for(row.request), 40),
            wording.shorten(row.request.title, 160),
        )
        for number, row in enumerate(rows, 1)
    ]
    print_table(out, table, head, numbered=True)
