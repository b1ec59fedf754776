"""`mandate run`: start a run and watch it."""

import asyncio
import json
import shlex
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer
from pydantic import ValidationError
from temporalio.client import WorkflowHandle
from temporalio.service import RPCError

from mandate.activities.text_files import UnreadableText, decode_text
from mandate.workers.cli import identity, own_worker, tokens
from mandate.workers.cli.connection import Connection, connected, note_start
from mandate.workers.cli.errors import CliError
from mandate.workers.cli.limits import LIMITS, read_limits
from mandate.workers.cli.options import Invocation, verb
from mandate.workers.cli.runs import text as run_text
from mandate.workers.cli.runs.watch import follow
from mandate.workers.client.client import AgentClient
from mandate.workers.client.earlier_run import UsedId
from mandate.workers.client.start_requests import new_workflow_id
from mandate.workflows.contracts.origin import ContinuesRequest
from mandate.workflows.contracts.run import RunResult
from mandate.workflows.contracts.start import start_claims
from mandate.workflows.rules import input_size, validation

MOST_READ = 8 * input_size.INPUT_BYTES
"""Most that is read of a file or of stdin: JSON that is laid out for people is several times longer than as it is sent.
"""


@verb
async def run(
    call: Invocation,
    agent: Annotated[str, typer.Argument(help="Name of an agent file of the workers.", metavar="AGENT")],
    text: Annotated[
        str | None, typer.Argument(help="What it is asked; `-` reads it from stdin.", metavar="TEXT")
    ] = None,
    *,
    input_file: Annotated[Path | None, typer.Option(help="What it is asked: a text, or an object in `.json`.")] = None,
    input_json: Annotated[str | None, typer.Option("--input", help="What it is asked, as a JSON object.")] = None,
    workflow_id: Annotated[
        str | None,
        typer.Option("--id", help="Workflow id; made up if left out. One that a run had before is refused."),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Start another run under the --id of one that ended.")] = False,
    requester: Annotated[
        str | None,
        typer.Option(
            help="Who asks, and so decides on nothing that it asks people; MANDATE_REQUESTER, MANDATE_USER, git's "
            "user.email or user@host if left out."
        ),
    ] = None,
    token_command: Annotated[
        str | None,
        typer.Option(
            help="Prints a signed token, where the agent's decisions are signed; is told MANDATE_AGENT, "
            "MANDATE_WORKFLOW_ID, MANDATE_BY, MANDATE_INPUT_DIGEST, MANDATE_LABELS_DIGEST, MANDATE_MODEL and "
            "MANDATE_CONTINUES."
        ),
    ] = None,
    label: Annotated[list[str] | None, typer.Option(help="`key=value`, for finding it; can be repeated.")] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="The same as `--budget steps=...`; the lower limit counts.")
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            help="A limit of this run, as `cost_usd=0.50`; where the agent file's is lower, that one counts. "
            f"LIMIT is one of {LIMITS}. Can be repeated.",
            metavar="LIMIT=VALUE",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Ask this model in place of the agent's route; one that the agent file allows.")
    ] = None,
    continues: Annotated[
        str | None,
        typer.Option(
            help="Begin with the conversation of another run, after its last step or the one named; that run is left "
            "as it is, and what it did later is not done again.",
            metavar="RUN[@STEP]",
        ),
    ] = None,
    tainted: Annotated[
        bool, typer.Option("--tainted", help="The input comes from strangers: rules see `run.tainted` from the start.")
    ] = False,
    task_queue: Annotated[str | None, typer.Option("--task-queue", "-t", help="Of the workers.")] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Only start it.")] = False,
) -> int:
    """Start a run of an agent and follow it; Ctrl-C leaves it running.

    In a project (a folder with mandate.yaml) with the local server, where no worker polls, it has one of its own for
    as long as it follows the run.

    Exit code 0: it completed. 1: it ended otherwise. 2: it was asked for wrongly.
    """
    demand_id(workflow_id, again=again)
    asked, origin = read_input(text, input_file, input_json), _read_origin(continues)
    labels, limits = dict(map(read_label, label or ())), read_limits("--budget", budget or ())
    if steps is not None and "steps" in limits:
        raise CliError("--steps and --budget steps=... are the same limit; give one of them")
    async with connected(call) as connection:
        note_start(call, connection, goes_on=detach)
        queue = task_queue or connection.settings.task_queue
        named = requester if requester is not None else connection.settings.requester
        who = identity.person(connection.settings, named, option="--requester")
        start = {
            "agent": agent,
            "asked": asked,
            "workflow_id": workflow_id or new_workflow_id(agent),
            "requester": who.name,
            "labels": labels,
            "model": model,
            "continues": origin,
        }
        token = await _token(token_command, connection.settings.environment, **start) if token_command else None
        client = AgentClient(connection.client, queue)
        start["continues"] = origin.model_dump(exclude_none=True) if origin is not None else None
        async with AsyncExitStack() as stack:
            if not detach:
                await stack.enter_async_context(own_worker.serving(call, connection, queue))
            started: dict[str, Any] = {
                **start,
                "steps": steps,
                "budget": limits,
                "token": token,
                "tainted": tainted,
                "again": again,
            }
            handle = await _start(client, call, connection, **started)
            call.out.note(f"{handle.id} on task queue {queue}, requester {who}")
            if detach:
                note_detached(call, connection, handle, is_limited=steps is not None or bool(limits))
                return 0
            return await watch(call, connection, handle.id, handle.first_execution_run_id)


def demand_id(workflow_id: str | None, *, again: bool = False) -> None:
    """Refuse an id that is none, and --again without one."""
    if again and workflow_id is None:
        raise CliError("--again goes with --id, and starts another run under that id")
    if workflow_id is not None and not workflow_id.strip():
        raise CliError(f"--id {workflow_id!r}: is empty; leave it out, and an id is made up")


async def watch(call: Invocation, connection: Connection, workflow_id: str, run_id: str | None) -> int:
    """Follow a run to its end and tell how it ended; the exit code."""
    try:
        followed = await follow(connection, call.out, workflow_id, run_id, program=call.program)
    except (asyncio.CancelledError, RPCError):
        call.out.note(f"\nleft running; come back with `{_come_back(call, connection, workflow_id)}`")
        raise
    ended = followed.ended
    code = run_text.exit_code(ended)
    if ended.result is not None and call.out.as_json:
        ids = {"workflow_id": workflow_id, "run_id": run_id, "version": followed.version}
        call.out.json({**ids, **ended.result.model_dump(mode="json")})
    elif ended.bad_input:
        call.out.note(f"the workers refused the run {workflow_id}; it has done nothing")
        raise CliError(ended.reason or "the run was asked for wrongly", code)
    elif call.out.as_json:
        raise CliError(f"run {workflow_id!r} {ended.status}{f': {ended.reason}' if ended.reason else ''}", code)
    else:
        run_text.print_result(call.out, connection, workflow_id, ended, followed.steps, program=call.program)
    return code


def read_input(text: str | None, input_file: Path | None, input_json: str | None) -> str | dict[str, Any]:
    """Read the agent's task from the one place that was given.

    Raises:
        CliError: none or several were given, or it is empty, too large or no JSON object.
    """
    if sum(value is not None for value in (text, input_file, input_json)) != 1:
        raise CliError("give what the agent is asked once: as TEXT, with --input-file, or with --input")
    if input_json is not None:
        return _fitting(_object(input_json, "--input"), "--input")
    if input_file is not None:
        place = f"--input-file {str(input_file)!r}"
        try:
            with input_file.open("rb") as file:
                found = _bounded(file, place)
        except OSError as error:
            raise CliError(f"{place} cannot be read: {error.strerror}") from None
        if input_file.suffix == ".json":
            return _fitting(_object(found, str(input_file)), place)
    else:
        place = "what the agent is asked"
        found = _bounded(sys.stdin.buffer, "what is asked, from the standard input,") if text == "-" else text or ""
    if not found.strip():
        raise CliError("what the agent is asked is empty; give it a text or an object")
    return _fitting(found, place)


def _bounded(stream: BinaryIO, place: str) -> str:
    """Read a text, and no more of one without an end than would be refused anyway."""
    content = stream.read(MOST_READ + 1)
    if len(content) > MOST_READ:
        raise CliError(f"{place} {input_size.describe_excess(f'more than {MOST_READ:,}')}")
    try:
        return decode_text(content)
    except UnreadableText as error:
        raise CliError(f"{place} cannot be read: {error}") from None


def _fitting(asked: str | dict[str, Any], place: str) -> str | dict[str, Any]:
    try:
        excess = input_size.find_excess(asked)
    except ValueError:
        # What JSON has no form for is told by the field that it stands in.
        return asked
    if excess is not None:
        raise CliError(f"{place} {excess}")
    return asked


def _object(written: str, place: str) -> dict[str, Any]:
    try:
        value = json.loads(written)
    except ValueError as error:
        raise CliError(f"{place} is not JSON: {error}; it must be an object, for example '{{\"order\": 81}}'") from None
    if not isinstance(value, dict) or not value:
        raise CliError(f"{place} must be a JSON object that is not empty, not {written.strip()[:60]!r}")
    return value


def _read_origin(written: str | None) -> ContinuesRequest | None:
    """Return the run to go on from; the step stands behind the last `@`."""
    if written is None:
        return None
    run, separator, step = written.rpartition("@")
    if not separator:
        run, step = written, ""
    is_step = step.isascii() and step.isdigit()
    if not run or (separator and not is_step and step == ""):
        raise CliError(f"--continues {written!r}: is not RUN or RUN@STEP, for example 'refunds-1a2b3c4d@3'")
    try:
        return ContinuesRequest(run=run, step=int(step)) if is_step else ContinuesRequest(run=written)
    except ValidationError as error:
        raise CliError(f"--continues {written!r}: {validation.sentences(error, ContinuesRequest)}") from None


def read_label(written: str) -> tuple[str, str]:
    """Return the key and the value of a label; raise `CliError` for what is none."""
    name, separator, value = written.partition("=")
    if not separator or not name or not value:
        raise CliError(f"--label {written!r} is not key=value")
    return name, value


async def _token(command: str, environment: Mapping[str, str], **start: Any) -> str:
    try:
        claims = start_claims(start.pop("agent"), start.pop("asked"), **start)
    except ValueError as error:
        raise CliError(f"start request: input: {error}") from None
    told = {
        "MANDATE_AGENT": claims.agent,
        "MANDATE_WORKFLOW_ID": claims.workflow_id,
        "MANDATE_BY": claims.sub,
        "MANDATE_INPUT_DIGEST": claims.input_digest,
        "MANDATE_LABELS_DIGEST": claims.labels_digest or "",
        "MANDATE_MODEL": claims.model or "",
        "MANDATE_CONTINUES": claims.continues or "",
    }
    return await tokens.token(command, told, environment, undone="nothing was started")


async def _start(
    client: Any, call: Invocation, connection: Connection, *, asked: str | dict[str, Any], **request: Any
) -> WorkflowHandle[Any, RunResult]:
    agent = request.pop("agent")
    try:
        handle: WorkflowHandle[Any, RunResult] = await client.start(agent, asked, **request)
    except ValueError as error:
        raise CliError(f"start request: {error}") from None
    except UsedId as error:
        raise refuse_used(call, connection, error) from None
    return handle


def refuse_used(call: Invocation, connection: Connection, error: UsedId) -> CliError:
    """Return the refusal of an id: the run that has it, how to read or follow that one, and how to start another."""
    taken, run = error.workflow_id, error.run
    read = f"{call.program} show {shlex.quote(taken)}{connection.options}"
    if run is None:
        return CliError(f"the id {taken!r} is used already; read its run with `{read}`")
    details = {"run": run.to_json()}
    if run.is_open:
        follow = _come_back(call, connection, taken)
        return CliError(f"the id {taken!r} is used: its run {run.sentence}; follow it with `{follow}`", details=details)
    return CliError(
        f"the id {taken!r} is used: its run {run.sentence}; read it with `{read}`, or start another one under this id "
        "with --again",
        details=details,
    )


def note_detached(
    call: Invocation, connection: Connection, handle: WorkflowHandle[Any, Any], *, is_limited: bool
) -> None:
    """Tell the id of a run that was only started, and how to follow it."""
    if is_limited:
        show = f"{call.program} show {shlex.quote(handle.id)}{connection.options}"
        call.out.note(f"where the agent file has a lower limit, that one counts; see the limits with `{show}`")
    if call.out.as_json:
        url = connection.run_url(handle.id)
        call.out.json({"workflow_id": handle.id, "run_id": handle.first_execution_run_id, "ui_url": url})
        return
    call.out.print(handle.id)
    call.out.note(f"follow it with `{_come_back(call, connection, handle.id)}`")


def _come_back(call: Invocation, connection: Connection, workflow_id: str) -> str:
    return f"{call.program} show {shlex.quote(workflow_id)} --follow{connection.options}"
