"""`mandate approve`, `reject`, `decide`, `answer`: what people say to requests."""

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import JsonValue

from mandate.workers.cli.connection import connected, note_start
from mandate.workers.cli.errors import CliError
from mandate.workers.cli.limits import read_limits
from mandate.workers.cli.options import Invocation, verb
from mandate.workers.cli.requests import decisions
from mandate.workers.cli.requests import edit as cli_edit
from mandate.workers.cli.requests.decisions import DecisionOptions

RAISE = "raise"

Requests = Annotated[
    list[str] | None,
    typer.Argument(help="`<workflow id>:<request>`, or numbers of the last inbox.", metavar="REQUEST..."),
]
Comment = Annotated[str, typer.Option(help="Why, for the record and for the model.")]
By = Annotated[str | None, typer.Option(help="Who decides; MANDATE_USER, git's user.email or user@host if left out.")]
SeenDigest = Annotated[
    str | None, typer.Option("--digest", help="Of the request that you saw; refused if it has changed since.")
]
TokenCommand = Annotated[
    str | None,
    typer.Option(
        help="Prints a signed token; is told MANDATE_REQUEST, MANDATE_REQUEST_DIGEST, MANDATE_CHOICE, MANDATE_BY "
        "and MANDATE_VALUE_DIGEST."
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="`name=value`: approve with this argument instead; dotted names, JSON values."),
]
Edit = Annotated[bool, typer.Option("--edit", help="Change the arguments in $VISUAL or $EDITOR first.")]
From = Annotated[
    Path | None, typer.Option("--from", help="Whole arguments from a YAML or JSON file, `***` for what is hidden.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before several requests are decided on.")]


@verb
async def approve(
    call: Invocation,
    requests: Requests = None,
    *,
    comment: Comment = "",
    by: By = None,
    edit: Edit = False,
    settings: Settings = None,
    file: From = None,
    digest: SeenDigest = None,
    token_command: TokenCommand = None,
    yes: Yes = False,
) -> int:
    """Let calls run, as they are or with other arguments.

    What counts is told on stdout, what does not on stderr. Exit code 0: all count. 1: some do not. 2: bad usage, and
    nothing was sent.
    """
    return await _act(
        call,
        requests,
        choice="approve",
        comment=comment,
        by=by,
        edit=edit,
        settings=settings or (),
        file=file,
        digest=digest,
        token_command=token_command,
        yes=yes,
    )


@verb
async def reject(
    call: Invocation,
    requests: Requests = None,
    *,
    runs: Annotated[
        list[str] | None,
        typer.Option("--all", help="Reject all open requests of this run; can be repeated.", metavar="RUN"),
    ] = None,
    comment: Comment = "",
    by: By = None,
    digest: SeenDigest = None,
    token_command: TokenCommand = None,
    yes: Yes = False,
) -> int:
    """Refuse what is asked; the model is told why. Exit codes as of `approve`."""
    wish = {"choice": "reject", "comment": comment, "by": by, "digest": digest, "token_command": token_command}
    if not runs:
        return await _act(call, requests, **wish, yes=yes)
    if requests or digest or token_command:
        raise CliError("--all is about all requests of a run; it goes without REQUEST, --digest and --token-command")
    async with connected(call, of_runs=True) as connection:
        note_start(call, connection)
        return await decisions.reject_all(call, connection, runs, _wish(**wish, yes=yes))


@verb
async def decide(
    call: Invocation,
    requests: Requests = None,
    *,
    choice: Annotated[str | None, typer.Option(help="One of the request's choices.")] = None,
    limits: Annotated[
        list[str] | None,
        typer.Option(
            "--raise",
            help="`LIMIT=VALUE`: raise this limit of the run, as `cost_usd=5.00`; can be repeated.",
            metavar="LIMIT=VALUE",
        ),
    ] = None,
    value: Annotated[
        str | None, typer.Option(help="What goes with it: JSON, or a text; with `approve`, all the arguments.")
    ] = None,
    comment: Comment = "",
    by: By = None,
    edit: Edit = False,
    settings: Settings = None,
    file: From = None,
    digest: SeenDigest = None,
    token_command: TokenCommand = None,
    yes: Yes = False,
) -> int:
    """Make any choice that a request has. Exit codes as of `approve`.

    `--raise cost_usd=5.00` is short for `--choice raise --value '{"cost_usd": "5.00"}'`.
    """
    if limits and (choice not in {None, RAISE} or value is not None):
        raise CliError(f"--raise is the choice {RAISE!r} with its value; it goes without --choice and --value")
    if choice is None and not limits:
        raise CliError("--choice is missing; `show REQUEST` tells the choices of a request")
    given: JsonValue = cli_edit.parsed(value, "--value") if value is not None else None
    return await _act(
        call,
        requests,
        choice=choice or RAISE,
        value=read_limits("--raise", limits) if limits else given,
        comment=comment,
        by=by,
        edit=edit,
        settings=settings or (),
        file=file,
        digest=digest,
        token_command=token_command,
        yes=yes,
    )


@verb
async def answer(
    call: Invocation,
    request: Annotated[str, typer.Argument(help="`<workflow id>:<request>`, or a number.", metavar="REQUEST")],
    text: Annotated[str, typer.Argument(help="The answer, as the model is told it.", metavar="TEXT")],
    *,
    comment: Comment = "",
    by: By = None,
    digest: SeenDigest = None,
    token_command: TokenCommand = None,
) -> int:
    """Answer a question of an agent. Exit codes as of `approve`."""
    return await _act(
        call,
        [request],
        choice="answer",
        value=text,
        comment=comment,
        by=by,
        digest=digest,
        token_command=token_command,
    )


async def _act(call: Invocation, requests: list[str] | None, **wish: Any) -> int:
    async with connected(call, of_runs=True) as connection:
        note_start(call, connection)
        return await decisions.act(call, connection, requests or [], _wish(**wish))


def _wish(**wish: Any) -> DecisionOptions:
    return DecisionOptions(**wish)
