"""`mandate listen`: take in events of other systems until told to stop."""

from pathlib import Path
from typing import Annotated

import typer

from mandate.workers.cli.options import Invocation, serving_verb


@serving_verb
async def listen(
    call: Invocation,
    *,
    triggers: Annotated[
        Path | None, typer.Option(help="File of triggers; MANDATE_TRIGGERS or deploy/triggers.yaml if left out.")
    ] = None,
    host: Annotated[str, typer.Option(help="Where it listens for HTTP.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of HTTP; 0 takes a free one.")] = 8787,
    task_queue: Annotated[str | None, typer.Option("--task-queue", "-t", help="Of the workers.")] = None,
) -> int:
    """Take in CloudEvents that start runs and plans and speak to sessions, until SIGTERM or Ctrl-C.

    The file of triggers says what an event starts. Its source and id are the workflow id, so one that comes again
    starts nothing more. Over HTTP events are posted to /events with the shared secret MANDATE_EVENT_SECRET, or signed
    with MANDATE_EVENT_SIGNING_KEY. What nothing can be done with is kept in the folder MANDATE_DEAD_LETTERS.
    """
    # Here: the web server and the library of CEL take long to import, and other verbs do without them.
    from mandate.workers.cli.listener import Listening, serve_events  # noqa: PLC0415 - only for this verb

    return await serve_events(call, Listening(triggers=triggers, host=host, port=port, task_queue=task_queue))
