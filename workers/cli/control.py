"""`mandate steer`, `pause`, `resume`, `stop`: what people say to runs as a whole."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated

import typer
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from mandate.workers.cli import identity
from mandate.workers.cli.connection import Connection, connected, note_start
from mandate.workers.cli.errors import DONE, ENDED_OTHERWISE, CliError
from mandate.workers.cli.options import Invocation, verb
from mandate.workers.cli.prompts import confirm
from mandate.workers.cli.unserved import note_unserved
from mandate.workers.client import messages
from mandate.workers.client.inbox import RUNNING
from mandate.workers.client.messages import IN_ALL, MessageError, NoRun
from mandate.workflows.contracts.request import Halt, Steering, Stop, Told
from mandate.workflows.rules import quantities, wording

Send = Callable[[Client, str], Awaitable[Told]]

SHOWN = 10
"""Runs of a query that are named before it is asked whether to go on."""

Runs = Annotated[list[str] | None, typer.Argument(help="Workflow ids.", metavar="RUN...")]
Query = Annotated[
    str | None,
    typer.Option(help="All running runs that fit this visibility query, for example 'AgentName=\"refunds\"'."),
]
By = Annotated[str | None, typer.Option(help="Who says it; MANDATE_USER, git's user.email or user@host if left out.")]
Reason = Annotated[str, typer.Option(help="Why, for the record.")]
Tree = Annotated[bool, typer.Option("--tree", help="With all runs below each.")]
Yes = Annotated[
    bool, typer.Option("--yes", "-y", help="Do not ask before several runs, or those of --query, are told.")
]


@verb
async def steer(
    call: Invocation,
    runs: Runs = None,
    text: Annotated[str, typer.Argument(help="What the model is told at its next step.", metavar="TEXT")] = "",
    *,
    query: Query = None,
    by: By = None,
    yes: Yes = False,
) -> int:
    """Tell agents something, as your words. Exit code 0: all were told. 1: some refuse. 2: bad usage."""
    if not text.strip():
        raise CliError("what the agent is told is empty; give it a text after the run")
    if not runs and query is None:
        raise CliError(f"name the run, then what the agent is told: `{call.program} steer RUN TEXT`")
    return await _tell(call, runs, "steer", text=text, query=query, by=by, yes=yes)


@verb
async def pause(
    call: Invocation,
    runs: Runs = None,
    *,
    tree: Tree = False,
    reason: Reason = "",
    query: Query = None,
    by: By = None,
    yes: Yes = False,
) -> int:
    """Let runs finish the call in hand and begin nothing new; paused runs take decisions. Exit codes as of `steer`.

    The children of a paused run work on, unless `--tree` pauses them too.
    """
    return await _tell(call, runs, "pause", reason=reason, query=query, by=by, yes=yes, tree=tree or None)


@verb
async def resume(
    call: Invocation,
    runs: Runs = None,
    *,
    tree: Tree = False,
    reason: Reason = "",
    query: Query = None,
    by: By = None,
    yes: Yes = False,
) -> int:
    """Let paused runs go on. Exit codes as of `steer`.

    Children that were paused with a run go on with it; `--tree` resumes those too that were paused by themselves.
    """
    return await _tell(call, runs, "resume", reason=reason, query=query, by=by, yes=yes, tree=tree or None)


@verb
async def stop(
    call: Invocation,
    runs: Runs = None,
    *,
    reason: Reason = "",
    keep: Annotated[bool, typer.Option("--keep", help="Take nothing back: what was done stays.")] = False,
    query: Query = None,
    by: By = None,
    yes: Yes = False,
) -> int:
    """Let runs finish the call in hand, take back what has a compensation, and end as `stopped`.

    All runs below them are stopped too, before them. A second stop ends the taking back. Exit codes as of `steer`.
    """
    return await _tell(call, runs, "stop", query=query, by=by, yes=yes, reason=reason, keep=keep or None)


async def _tell(
    call: Invocation,
    runs: list[str] | None,
    what: str,
    *,
    query: str | None,
    by: str | None,
    yes: bool,
    **said: str | bool | None,
) -> int:
    if bool(runs) == (query is not None):
        raise CliError("name the runs by their workflow ids, or give a --query; one of the two")
    async with connected(call, of_runs=True) as connection:
        note_start(call, connection)
        person = identity.person(connection.settings, by)
        told = {name: value for name, value in said.items() if value is not None}
        message = _message(what, {"by": person.name, **told})
        identity.announce(call.out, person)
        ids = list(dict.fromkeys(runs or ())) if query is None else await _found(connection, query)
        if query is not None or len(ids) > 1:
            await _confirm(call, what, ids, yes=yes)
        return await _sent(call, connection, person.name, ids, _sender(what, message), goes_on=what == "steer")


def _message(what: str, given: Mapping[str, object]) -> Steering | Halt | Stop:
    models: dict[str, type[Steering | Halt | Stop]] = {"steer": Steering, "stop": Stop}
    try:
        return messages.read_words(models.get(what, Halt), **given)
    except ValueError as error:
        raise CliError(f"{error}; nothing was sent") from None


def _sender(what: str, message: Steering | Halt | Stop) -> Send:
    send = {"steer": messages.steer, "pause": messages.pause, "resume": messages.resume, "stop": messages.stop}[what]
    return lambda client, workflow_id: send(client, workflow_id, message)  # type: ignore[operator] # of one kind each


async def _found(connection: Connection, query: str) -> list[str]:
    try:
        listed = connection.client.list_workflows(f"{RUNNING} AND ({query})", page_size=1000)
        return list(dict.fromkeys([found.id async for found in listed]))
    except RPCError as error:
        if error.status is not RPCStatusCode.INVALID_ARGUMENT:
            raise
        raise CliError(f"--query {query!r}: {' '.join(error.message.split())}") from None


async def _confirm(call: Invocation, what: str, ids: Sequence[str], *, yes: bool) -> None:
    if not ids:
        raise CliError("no running run fits the query", ENDED_OTHERWISE)
    count = quantities.count_noun(len(ids), "run")
    named = ", ".join(ids[:SHOWN]) + (f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else "")
    await confirm(call.out, f"{what} {count}", [f"{what} {count}: {named}"], yes=yes)


async def _sent(
    call: Invocation, connection: Connection, by: str, ids: Sequence[str], send: Send, *, goes_on: bool
) -> int:
    """Send to all runs; `goes_on` is whether it is meant to make a run go on, so that one that is over needs a word."""
    slots = asyncio.Semaphore(IN_ALL)

    async def one(workflow_id: str) -> dict[str, str]:
        async with slots:
            try:
                async with note_unserved(call, connection, workflow_id):
                    told = await send(connection.client, workflow_id)
            except NoRun as error:
                is_late = goes_on and isinstance(error, messages.RunIsOver)
                refused = f"{error}; {wording.GO_ON}" if is_late else str(error)
                if len(ids) == 1:
                    raise CliError(refused) from None
            except MessageError as error:
                refused = str(error)
            except RPCError as error:
                refused = f"Temporal refused: {' '.join(error.message.split())}"
            else:
                call.out.print(f"{workflow_id}  {told.message}")
                return {"workflow_id": workflow_id, "status": told.status, "message": told.message}
        call.out.refusal(f"{workflow_id}: {refused}")
        return {"workflow_id": workflow_id, "refused": refused}

    told = await asyncio.gather(*map(one, ids))
    if call.out.as_json:
        call.out.json({"by": by, "runs": told})
    return ENDED_OTHERWISE if any("refused" in one for one in told) else DONE
