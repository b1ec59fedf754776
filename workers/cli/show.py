"""`mandate show`: read a run, its conversation included, or a request to people."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from mandate.activities.stores.base import StoreUnavailable
from mandate.activities.transcript.blobs import BlobCorrupted
from mandate.workers.cli import unserved
from mandate.workers.cli.connection import Connection, connected, elsewhere, note_start
from mandate.workers.cli.errors import CliError
from mandate.workers.cli.inbox import entry
from mandate.workers.cli.options import Invocation, verb
from mandate.workers.cli.output import Output, print_table
from mandate.workers.cli.plans import text as plan_text
from mandate.workers.cli.plans.text import StepNarrator
from mandate.workers.cli.requests import decisions
from mandate.workers.cli.requests import names as request_names
from mandate.workers.cli.requests import text as request_text
from mandate.workers.cli.run import watch
from mandate.workers.cli.runs import page_file as run_file
from mandate.workers.cli.runs import text as run_text
from mandate.workers.cli.runs import timeline_bars, token_bars
from mandate.workers.cli.runs import tree as run_tree
from mandate.workers.client import trees
from mandate.workers.client.answers import Unknown
from mandate.workers.client.decisions import why_not_open
from mandate.workers.client.trees import Place
from mandate.workers.history.models import ModelTable
from mandate.workers.history.picture import read_picture
from mandate.workers.history.record import (
    Conversation,
    Json,
    NoSuchRun,
    Record,
    conversation,
    exists,
    read_arguments,
    read_record,
)
from mandate.workers.history.timeline_reader import TimelineReader
from mandate.workers.history.tree import read_tree
from mandate.workers.run_store import StoreUnusable
from mandate.workflows.contracts.base import Digest, canonical_json
from mandate.workflows.contracts.request import OpenRequests, Request
from mandate.workflows.rules import wording

VALUE_CHARACTERS = 100
"""Of a value of the board, unless `--full` is given."""


@verb
async def show(
    call: Invocation,
    run: Annotated[
        str,
        typer.Argument(
            help="Workflow id of a run; or a request, as `<workflow id>:<request>` or a number of the last inbox.",
            metavar="RUN|REQUEST",
        ),
    ],
    *,
    run_id: Annotated[str | None, typer.Option(help="One Temporal run of it; the newest if left out.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Long texts and results whole.")] = False,
    tokens: Annotated[
        bool, typer.Option("--tokens", help="What the tokens of each step's request were for, a bar a step.")
    ] = False,
    tree: Annotated[
        bool, typer.Option("--tree", help="All runs of the tree that the run belongs to: what each does or did.")
    ] = False,
    board: Annotated[
        bool, typer.Option("--board", help="The values that the runs of its tree share: the board.")
    ] = False,
    timeline: Annotated[
        bool, typer.Option("--timeline", help="What the run did when, all its parts on one time line, a bar each.")
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            help="Write the run as one page that needs nothing else: time line, conversation, requests, cost; "
            "`-` is stdout.",
            metavar="FILE",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Let --html replace a file that exists.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on watching, as `run` does.")] = False,
) -> int:
    """Show what a run was asked, said and did, and what it cost; it may be going on or have ended in any way.

    With `-o json` one object: workflow_id, run_id, parent and root (`null` for a run that no other has started), status
    (running, waiting, paused, or how it ended), reason, output, agent, version, step, head, usage, budget (limits,
    and for each what is spent, assumed, held and left), effects, uncertain, children (workflow_id, agent, status,
    reason and cost_usd of the last ones), people (what they were asked and said: step, line), models (answers,
    tokens and cost of each), messages, pending: calls of the last turn whose results the model was not told yet,
    and workflow_task: attempt, cause, message and event_id of one that fails again and again, else null; retrying:
    what is tried again and why, else null. The first message of a model has why it was asked, and so has each after
    it became another one.

    With `--tokens` and `-o json` one object: workflow_id, run_id, and tokens, one object a step: step, tokens,
    reported, cut, parts: instructions, pinned, summary, messages, results.

    With `--tree` and `-o json` one object, the root: workflow_id, run_id, workflow_type, agent, version, status, doing,
    reason (why it ended so, or does not answer), silent, cost_usd (with that of those below it that have reported),
    requests (how many are open), waits_for, and children: such objects.

    With `--board` and `-o json` one object: root, run_id, and board, an object a value by its name: value, version,
    by (workflow id of the run that wrote it), and tainted.

    With `--timeline` and `-o json` one object: workflow_id, run_id, status, begun_at, ended_at (`null` while it goes
    on), missing (why its beginning is not there, else `null`), unreadable (events that could not be read), parts
    (run_id, begun_at, ended_at), people (at, step, line, counts), and bars, one object for each thing that took time:
    kind (model, tool, check, probe, child, person, pause, idle, retry, own), label, name, step, plan_step, part,
    begun_at, taken_at (a worker began its last attempt), ended_at, state, attempts, local, reason, request,
    waits_for, input_tokens, output_tokens, cost_usd.

    Of a request it shows all that a person must know to decide on it, and the commands that do.
    """
    if tree and (follow or tokens or full):
        raise CliError("--tree goes without --follow, --tokens and --full")
    if board and (follow or tokens or tree):
        raise CliError("--board goes without --follow, --tokens and --tree")
    if (timeline or html is not None) and (follow or tokens or tree or board):
        raise CliError("--timeline and --html go without --follow, --tokens, --tree and --board")
    _check_page(call, html, overwrite=overwrite)
    async with connected(call, of_runs=True) as connection:
        note_start(call, connection)
        if tree:
            return await _show_tree(call, connection, run, run_id)
        if board:
            return await _show_board(call, connection, run, run_id, full=full)
        if timeline or html is not None:
            return await _show_timeline(
                call, connection, run, run_id, html, is_drawn=timeline, overwrite=overwrite, full=full
            )
        if not follow and not tokens and run_id is None and await _is_request(call, connection, run):
            return await _show_request(call, connection, run)
        if tokens:
            return await _show_tokens(call, connection, run, run_id)
        if follow:
            return await _follow(call, connection, run, run_id)
        await _show(call, connection, run, run_id, full=full)
    return 0


def _check_page(call: Invocation, html: Path | None, *, overwrite: bool) -> None:
    """Refuse a page that cannot be written, before anything is read for it."""
    if html is None:
        if overwrite:
            raise CliError("--overwrite goes with --html")
        return
    if str(html) == run_file.STDOUT and call.out.as_json:
        raise CliError("--html - writes the page to stdout, where -o json writes; name a file for one of them")
    run_file.check_target(html, overwrite=overwrite)


async def _is_request(call: Invocation, connection: Connection, name: str) -> bool:
    """Return whether `name` is a request's; the workflow id of a run may look like one."""
    if request_names.parsed(name) is None and not request_names.is_number(name):
        return False
    if await exists(connection.client, name):
        call.out.note(f"{name!r} is the workflow id of a run")
        return False
    return True


async def _show_request(call: Invocation, connection: Connection, name: str) -> int:
    (target,) = await request_names.targets(connection, [name], program=call.program)
    (found,) = await decisions.look_up(call, connection, [target])
    request = next((one for one in found.run.requests if one.id == target.request), None)
    place = await trees.find_place(connection.client, target.workflow_id)
    if request is None:
        raise CliError(f"{target.shown}: {why_not_open(found.run, target.request)}")
    if found.error is not None:
        call.out.note(f"{target.shown}: it has changed since the inbox")
    known = await read_arguments(connection.settings.store, found.run.store, request)
    if call.out.as_json:
        call.out.json(_as_json(connection, found.run, request, place, known.values, program=call.program))
        return 0
    above = await _describe_above(connection, place)
    request_text.print_request(call.out, found.run, request, known.values, datetime.now(UTC), above=above)
    if known.missing is not None:
        call.out.note(f"\nlong texts are shown by their beginning: {known.missing}")
    _print_commands(call, connection, found.run, request)
    return 0


async def _describe_above(connection: Connection, place: Place) -> str | None:
    """Describe the runs above one, with the agent of the root."""
    if place.parent is None or place.root is None:
        return None
    agent = await trees.find_agent(connection.client, place.root)
    of_agent = f", agent {agent}" if agent is not None else ""
    if place.parent == place.root:
        return f"{place.root}{of_agent}, the root of the tree"
    return f"{place.parent}; root {place.root}{of_agent}"


def _as_json(
    connection: Connection, run: OpenRequests, request: Request, place: Place, arguments: Json, *, program: str
) -> dict[str, object]:
    return {
        **entry(run, request, place),
        "arguments": arguments,
        "status": run.status,
        "refused": [one.model_dump(mode="json") for one in run.refused if one.request == request.id],
        "commands": [
            {"choice": way.choice, "mandate": way.mandate, "temporal": way.temporal}
            for way in request_text.ways(connection, run.workflow_id, request, program=program)
        ],
    }


def _print_commands(call: Invocation, connection: Connection, run: OpenRequests, request: Request) -> None:
    ways = request_text.ways(connection, run.workflow_id, request, program=call.program)
    call.out.print("", Text("to answer", style="bold"))
    call.out.print(*(f"  {way.mandate}" for way in ways))
    if request.kind == "approval":
        name = ways[0].mandate
        call.out.print(f"  {name} --edit", f"  {name} --set NAME=VALUE")
    call.out.print("", Text("or with Temporal's CLI", style="bold"))
    call.out.print(*(f"  {way.temporal}" for way in ways))


async def _show_timeline(
    call: Invocation,
    connection: Connection,
    name: str,
    run_id: str | None,
    html: Path | None,
    *,
    is_drawn: bool,
    overwrite: bool,
    full: bool,
) -> int:
    """Draw the time line of a run, or of the run that a request is of; write the page of it."""
    if run_id is None and await _is_request(call, connection, name):
        (target,) = await request_names.targets(connection, [name], program=call.program)
        name = target.workflow_id
    reader = TimelineReader()
    record, timeline = await _read_record(connection, name, run_id, reader), reader.timeline
    picture = await read_picture(
        connection.settings.store, record, timeline, datetime.now(UTC), has_messages=html is not None, full=full
    )
    if html is not None:
        run_file.write_page(call, picture, html, overwrite=overwrite, full=full)
    if call.out.as_json:
        call.out.json(picture.to_json())
    elif is_drawn and str(html) != run_file.STDOUT:
        run_text.print_heading(call.out, record, connection.run_url(name, record.run_id))
        timeline_bars.print_timeline(call.out, timeline, picture.read_at, full=full)
        if picture.store_missing is not None and record.history.is_plan:
            call.out.note(f"the steps of the plan are not named: {picture.store_missing}")
    return 0


async def _read_record(
    connection: Connection, run: str, run_id: str | None, reader: TimelineReader | None = None
) -> Record:
    try:
        return await read_record(connection.client, run, run_id, reader=reader)
    except NoSuchRun as error:
        raise CliError(f"{error} in {_place_of(connection)}") from None


async def _follow(call: Invocation, connection: Connection, run: str, run_id: str | None) -> int:
    record = await _read_record(connection, run, run_id)
    return await watch(call, connection, run, record.run_id)


async def _show_tree(call: Invocation, connection: Connection, name: str, run_id: str | None) -> int:
    """Show the tree of a run, or of the run that a request is of."""
    if run_id is None and await _is_request(call, connection, name):
        (target,) = await request_names.targets(connection, [name], program=call.program)
        name = target.workflow_id
    with call.out.counting("reading the tree of runs", "read {} of {} runs") as on_progress:
        try:
            root = await read_tree(connection.client, name, run_id, on_progress=on_progress)
        except Unknown:
            which = f"run {name!r}" + (f" with run id {run_id!r}" if run_id else "")
            raise CliError(f"there is no {which} in {_place_of(connection)}") from None
        except ValueError as error:
            raise CliError(str(error)) from None
    if call.out.as_json:
        call.out.json(root.to_json())
    else:
        run_tree.print_tree(call, connection, root, name)
    return 0


async def _show_board(call: Invocation, connection: Connection, name: str, run_id: str | None, *, full: bool) -> int:
    # Here: what reads the board of a run takes long to import.
    from mandate.workers.history.board import read_board  # noqa: PLC0415 - only with --board

    try:
        found = await read_board(connection.client, connection.settings.store, name, run_id)
    except Unknown:
        which = f"run {name!r}" + (f" with run id {run_id!r}" if run_id else "")
        raise CliError(f"there is no {which} in {_place_of(connection)}") from None
    except (StoreUnusable, BlobCorrupted, StoreUnavailable) as error:
        raise CliError(str(error)) from None
    if call.out.as_json:
        call.out.json(found.to_json())
        return 0
    if not found.board.entries:
        call.out.note(f"the board of {found.workflow_id} is empty")
        return 0
    rows = []
    for key, one in found.board.entries.items():
        text = one.value if isinstance(one.value, str) else canonical_json(one.value).decode()
        by = f"{one.by}, tainted" if one.tainted else one.by
        rows.append((key, str(one.version), by, text if full else wording.shorten(text, VALUE_CHARACTERS)))
    print_table(call.out, rows, ("KEY", "VERSION", "BY", "VALUE"))
    return 0


def _place_of(connection: Connection) -> str:
    return f"namespace {connection.client.namespace!r} at {connection.address}{elsewhere(connection)}"


async def _show_tokens(call: Invocation, connection: Connection, run: str, run_id: str | None) -> int:
    record = await _read_record(connection, run, run_id)
    steps = []
    if record.history.head is not None:
        async with conversation(connection.settings.store, record) as stored:
            steps = [step async for step in stored.token_use(record.history.head)]
    if call.out.as_json:
        shown = [step.to_json() for step in steps]
        call.out.json({"workflow_id": record.workflow_id, "run_id": record.run_id, "tokens": shown})
    else:
        token_bars.print_bars(call.out, steps)
    return 0


async def _show(call: Invocation, connection: Connection, run: str, run_id: str | None, *, full: bool) -> None:
    record = await _read_record(connection, run, run_id)
    out, head = call.out, record.history.head
    run_text.print_heading(out, record, connection.run_url(run, record.run_id))
    messages: list[Json] = []
    pending: list[Json] = []
    models = ModelTable(record.history.usages, record.history.beside, record.history.usage_below)
    if head is not None:
        async with conversation(connection.settings.store, record) as stored:
            if record.history.is_plan and not out.as_json:
                await _print_plan(out, stored, record, head, full=full)
            else:
                messages = await _print_messages(out, stored, record, head, models, full=full)
            pending = await stored.pending(record)
            record = await stored.fill_output(record)
    if out.as_json:
        by_model = [totals.to_json(model) for model, totals in models]
        out.json({**record.to_json(), "models": by_model, "messages": messages, "pending": pending})
    else:
        run_text.print_ending(out, record, pending, full=full)
        run_text.print_models(out, models)
        if record.history.ended is None:
            await unserved.note_unserved_run(call, connection, run)


async def _print_messages(
    out: Output, stored: Conversation, record: Record, head: Digest, models: ModelTable, *, full: bool
) -> list[Json]:
    """Print the conversation up to `head`; with `-o json` return it."""
    messages: list[Json] = []
    async for message in stored.messages(head, full=full or out.as_json):
        if message.measured is not None:
            models.add(message.step, message.measured)
        why = record.history.why.get(message.step) if message.role == "assistant" else None
        if out.as_json:
            messages.append({**message.to_json(), **({"why": why} if why else {})})
        else:
            run_text.print_message(out, message, why=why, full=full)
    return messages


async def _print_plan(out: Output, stored: Conversation, record: Record, head: Digest, *, full: bool) -> None:
    """Print what the plan was asked, and its steps as they began and ended, up to `head`."""
    reader, narrator, lines = stored.read_plan(), StepNarrator(), list[Text]()
    async for events in reader.read(head):
        narrator.align(reader.plan.steps if reader.plan is not None else ())
        lines += narrator.describe(events)
    if (ended := record.history.ended) is not None and ended.continued_as is None:
        lines += narrator.describe(reader.close())
    plan_text.print_given(out, reader.given, full=full)
    plan_text.print_lines(out, lines, full=full)
    if ended is None and record.history.doing:
        out.print(Text(f"  {record.history.doing}", style="bold"))
