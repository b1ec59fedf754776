"""`mandate show`: read a run, its conversation included."""

from typing import TYPE_CHECKING, Annotated

import typer

from workers.cli.options import Invocation, verb

if TYPE_CHECKING:
    from workers.cli.connection import Connection
    from workers.cli.record import Json


@verb
async def show(
    call: Invocation,
    run: Annotated[str, typer.Argument(help="Workflow id of the run.", metavar="RUN")],
    *,
    run_id: Annotated[str | None, typer.Option(help="One Temporal run of it; the newest if left out.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Long texts and results whole.")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on watching, as `run` does.")] = False,
) -> int:
    """Show what a run was asked, said and did, and what it cost; it may be going on or have ended in any way.

    With `-o json` one object: workflow_id, run_id, status, reason, agent, version, step, head, usage, effects,
    uncertain, messages, and pending: calls of the last turn whose results the model was not told yet.
    """
    from workers.cli.connection import connected, note_start

    async with connected(call) as connection:
        note_start(call, connection)
        if follow:
            return await _follow(call, connection, run, run_id)
        await _show(call, connection, run, run_id, full=full)
    return 0


async def _follow(call: Invocation, connection: "Connection", run: str, run_id: str | None) -> int:
    from workers.cli.record import read_record
    from workers.cli.run import watch

    record = await read_record(connection, run, run_id)
    return await watch(call, connection, run, record.run_id)


async def _show(call: Invocation, connection: "Connection", run: str, run_id: str | None, *, full: bool) -> None:
    from workers.cli import reading
    from workers.cli.record import conversation, read_record

    record = await read_record(connection, run, run_id)
    out, head = call.out, record.chronicle.head
    reading.print_heading(out, record, connection.run_url(run, record.run_id))
    messages: list[Json] = []
    pending: list[Json] = []
    if head is not None:
        async with conversation(connection.settings.store, record) as stored:
            async for message in stored.messages(head, full=full or out.as_json):
                if out.as_json:
                    messages.append(message.to_json())
                else:
                    reading.print_message(out, message, full=full)
            pending = await stored.pending(record)
    if out.as_json:
        out.json({**record.to_json(), "messages": messages, "pending": pending})
    else:
        reading.print_ending(out, record, pending, full=full)
