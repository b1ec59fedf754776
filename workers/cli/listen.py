"""`mandate listen`: take in events of other systems until told to stop."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from mandate.workers.cli.errors import CliError
from mandate.workers.cli.options import Invocation, seconds, serving_verb

DEFAULT_PORT = 8787
DEFAULT_GROUP = "mandate"
DEAD_LETTERS = "dead-letters"
SESSION_TIMEOUT = timedelta(seconds=10)

HTTP = "HTTP"
KAFKA = "Kafka"


@serving_verb
async def listen(
    call: Invocation,
    *,
    triggers: Annotated[
        Path | None, typer.Option(help="File of triggers; MANDATE_TRIGGERS or deploy/triggers.yaml if left out.")
    ] = None,
    task_queue: Annotated[str | None, typer.Option("--task-queue", "-t", help="Of the workers.")] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help=f"Port of HTTP, {DEFAULT_PORT} if left out, 0 for a free one. With --topic it listens for HTTP only "
            "if this is given.",
            rich_help_panel=HTTP,
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address of HTTP.", rich_help_panel=HTTP)] = "127.0.0.1",
    topic: Annotated[
        list[str] | None, typer.Option(help="Kafka topic with events; can be repeated.", rich_help_panel=KAFKA)
    ] = None,
    kafka: Annotated[
        str | None,
        typer.Option(
            help="Servers of Kafka; MANDATE_KAFKA_SERVERS if left out.", metavar="HOST:PORT,...", rich_help_panel=KAFKA
        ),
    ] = None,
    group: Annotated[
        str, typer.Option(help="Consumer group, whose members share the partitions.", rich_help_panel=KAFKA)
    ] = DEFAULT_GROUP,
    dead_letter_topic: Annotated[
        str | None,
        typer.Option(
            help=f"Topic for what nothing can be done with; `<first topic>.{DEAD_LETTERS}` if left out.",
            rich_help_panel=KAFKA,
        ),
    ] = None,
    session_timeout: Annotated[
        str | None,
        typer.Option(
            help="Time after which the partitions of a listener that died go to others; 10s if left out.",
            metavar="DURATION",
            rich_help_panel=KAFKA,
        ),
    ] = None,
) -> int:
    """Take in CloudEvents that start runs and plans and speak to sessions, until SIGTERM or Ctrl-C.

    The file of triggers says what an event starts. Its source and id are the workflow id, so one that comes again
    starts nothing more. Over HTTP events are posted to /events with the shared secret MANDATE_EVENT_SECRET, or signed
    with MANDATE_EVENT_SIGNING_KEY; what nothing can be done with is kept in the folder MANDATE_DEAD_LETTERS. Of Kafka
    topics offsets are committed when Temporal has the events; dead letters go to a topic.
    """
    # Here: the web server, the Kafka client and the library of CEL take long to import, and other verbs do without.
    from mandate.workers.cli.listener import HttpOptions, Listening, serve_events  # noqa: PLC0415 - only for this verb

    topics = tuple(topic or ())
    if not topics:
        _refuse_without_topic(kafka=kafka, dead_letter_topic=dead_letter_topic, session_timeout=session_timeout)
    length = seconds("--session-timeout", session_timeout)
    if dead_letter_topic in topics:
        raise CliError(f"--dead-letter-topic {dead_letter_topic!r} is read too: dead letters would come again for ever")
    return await serve_events(
        call,
        Listening(
            triggers=triggers,
            task_queue=task_queue,
            http=HttpOptions(host, DEFAULT_PORT if port is None else port) if port is not None or not topics else None,
            topics=topics,
            servers=kafka,
            group=group,
            dead_letter_topic=dead_letter_topic or (f"{topics[0]}.{DEAD_LETTERS}" if topics else ""),
            session_timeout=timedelta(seconds=length) if length is not None else SESSION_TIMEOUT,
        ),
    )


def _refuse_without_topic(**given: str | None) -> None:
    for name, value in given.items():
        if value is not None:
            raise CliError(f"--{name.replace('_', '-')} goes with --topic, which names what is read")
