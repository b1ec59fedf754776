"""The process of `mandate listen`: faces of the outside world, and one intake for all of them."""

import asyncio
import socket
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from mandate.workers.cli.connection import Connection, connected
from mandate.workers.cli.errors import DONE, CliError
from mandate.workers.cli.options import Invocation
from mandate.workers.cli.signals import stop_signals
from mandate.workers.cli.worker import configure_logs
from mandate.workers.client.client import AgentClient
from mandate.workers.events import http
from mandate.workers.events.dead_letters import DeadLetterFolder
from mandate.workers.events.intake import Intake
from mandate.workers.events.signatures import Senders
from mandate.workers.events.trigger_file import read_triggers
from mandate.workers.events.triggers import TriggerFile
from mandate.workers.secrets import Secrets
from mandate.workers.settings import Settings


@dataclass(frozen=True, slots=True)
class Listening:
    """Options of `mandate listen`."""

    triggers: Path | None
    host: str
    port: int
    task_queue: str | None


async def serve_events(call: Invocation, options: Listening) -> int:
    """Take events in until the process is told to stop; what is under way is finished first.

    Raises:
        CliError: there is no file of triggers, no secret, or no place to listen.
        FileError: all faults of the file of triggers.
    """
    settings = Settings.from_environment()
    settings = replace(
        settings,
        triggers=options.triggers or settings.triggers,
        task_queue=options.task_queue or settings.task_queue,
    )
    file = _demand_triggers(settings)
    senders = Senders(Secrets(settings.environment, settings.secrets))
    if (fault := senders.find_faults()) is not None:
        raise CliError(fault)
    letters = _open_letters(settings)
    configure_logs(call.root)
    try:
        listener = http.bind(options.host, options.port)
    except OSError as error:
        raise CliError(f"cannot listen at {options.host}:{options.port}: {error.strerror or error}") from None
    with listener:
        async with connected(call, settings, has_log=True) as connection:
            intake = Intake(AgentClient(connection.client, settings.task_queue), file.triggers)
            server = http.EventServer(http.EventApp(intake, senders, letters))
            host, port = listener.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            _introduce(call, connection, settings, file, f"http://{shown}:{port}{http.PATH}")
            await _run(server, listener)
    return DONE


async def _run(server: http.EventServer, listener: socket.socket) -> None:
    log = structlog.stdlib.get_logger("mandate.workers.cli.listener")
    with stop_signals(lambda: log.info("listener_stopping", hint="a second signal ends it at once")) as stopped:
        serving = asyncio.create_task(server.run_on(listener))
        waiting = asyncio.create_task(stopped.wait())
        await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        server.should_exit = True
        await serving
    log.info("listener_stopped")


def _demand_triggers(settings: Settings) -> TriggerFile:
    found = read_triggers(settings)
    if found is None:
        raise CliError(
            f"there are no triggers: write {settings.default_triggers}, or name another file with --triggers or "
            "MANDATE_TRIGGERS; `mandate validate --schema triggers` prints what it holds"
        )
    return found


def _open_letters(settings: Settings) -> DeadLetterFolder:
    folder = settings.dead_letters or settings.folder / "dead-letters"
    try:
        return DeadLetterFolder(folder)
    except OSError as error:
        raise CliError(f"the folder of dead letters {str(folder)!r} cannot be used: {error.strerror}") from None


def _introduce(call: Invocation, connection: Connection, settings: Settings, file: TriggerFile, url: str) -> None:
    """Print one block that says what is taken in, and where."""
    names = [trigger.id for trigger in file.triggers]
    letters = settings.dead_letters or settings.folder / "dead-letters"
    if call.out.as_json:
        call.out.json(
            {
                "triggers": names,
                "url": url,
                "dead_letters": str(letters),
                "task_queue": settings.task_queue,
                "address": connection.address,
                "namespace": connection.client.namespace,
            }
        )
        return
    for name, value in (
        ("Triggers", ", ".join(names)),
        ("Events", f"POST {url}"),
        ("Dead letters", str(letters)),
        ("Task queue", settings.task_queue),
        ("Temporal", f"{connection.address}, namespace {connection.client.namespace}"),
    ):
        call.out.print(f"{name:<14}{value}")
