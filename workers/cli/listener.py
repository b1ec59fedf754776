"""The process of `mandate listen`: HTTP and Kafka, and one intake for both."""

import asyncio
import socket
import ssl
from collections.abc import Coroutine
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

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
from mandate.workers.events.kafka import KafkaAccess, KafkaListener, KafkaUnusable, Subscription
from mandate.workers.events.signatures import Senders
from mandate.workers.events.trigger_file import read_triggers
from mandate.workers.events.triggers import TriggerFile
from mandate.workers.http_server import HttpServer, bind
from mandate.workers.secrets import Secrets
from mandate.workers.settings import Settings

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")

_PASSWORD = "MANDATE_KAFKA_PASSWORD"  # noqa: S105 - the name of a variable


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """Address of HTTP."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Listening:
    """Options of `mandate listen`."""

    triggers: Path | None
    task_queue: str | None
    http: HttpOptions | None
    """`None` where only Kafka is listened to."""
    topics: tuple[str, ...]
    servers: str | None
    group: str
    dead_letter_topic: str
    session_timeout: timedelta


@dataclass(frozen=True, slots=True)
class _Http:
    """Socket, senders and dead letters of HTTP, opened before anything is connected to."""

    socket: socket.socket
    senders: Senders
    letters: DeadLetterFolder

    @property
    def url(self) -> str:
        host, port = self.socket.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}{http.PATH}"


async def serve_events(call: Invocation, options: Listening) -> int:
    """Take events in until the process is told to stop; what is under way is finished first.

    Raises:
        CliError: there is no file of triggers, no secret, no place to listen or no Kafka.
        FileError: all faults of the file of triggers.
    """
    settings = Settings.from_environment()
    settings = replace(
        settings,
        triggers=options.triggers or settings.triggers,
        task_queue=options.task_queue or settings.task_queue,
        kafka=replace(settings.kafka, servers=options.servers or settings.kafka.servers),
    )
    file = _demand_triggers(settings)
    access = _open_access(settings) if options.topics else None
    with ExitStack() as stack:
        web = _open_http(settings, options.http) if options.http is not None else None
        if web is not None:
            stack.enter_context(web.socket)
        configure_logs(call.root)
        async with connected(call, settings, has_log=True) as connection:
            intake = Intake(AgentClient(connection.client, settings.task_queue), file.triggers)
            _introduce(call, connection, options, settings, file, web)
            await _run(intake, options, web, access)
    return DONE


async def _run(intake: Intake, options: Listening, web: _Http | None, access: KafkaAccess | None) -> None:
    log = structlog.stdlib.get_logger("mandate.workers.cli.listener")
    with stop_signals(lambda: log.info("listener_stopping", hint="a second signal ends it at once")) as stopped:
        faces: list[Coroutine[Any, Any, None]] = []
        if web is not None:
            faces.append(_serve_http(http.EventApp(intake, web.senders, web.letters), web.socket, stopped))
        if access is not None:
            subscription = Subscription(
                options.topics, options.group, options.dead_letter_topic, options.session_timeout
            )
            faces.append(KafkaListener(access, subscription, intake).run(stopped))
        running = [asyncio.create_task(face) for face in faces]
        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        # One that has ended by itself has failed, and the other does not go on alone.
        stopped.set()
        ended = await asyncio.gather(*running, return_exceptions=True)
    for error in ended:
        if isinstance(error, KafkaUnusable):
            raise CliError(str(error)) from None
        if error is not None:
            raise error
    log.info("listener_stopped")


async def _serve_http(app: http.EventApp, listener: socket.socket, stopped: asyncio.Event) -> None:
    server = HttpServer(app.to_asgi())
    serving, waiting = asyncio.create_task(server.run_on(listener)), asyncio.create_task(stopped.wait())
    await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    server.should_exit = True
    await serving


def _demand_triggers(settings: Settings) -> TriggerFile:
    found = read_triggers(settings)
    if found is None:
        raise CliError(
            f"there are no triggers: write {settings.default_triggers}, or name another file with --triggers or "
            "MANDATE_TRIGGERS; `mandate validate --schema triggers` prints what it holds"
        )
    return found


def _open_http(settings: Settings, options: HttpOptions) -> _Http:
    senders = Senders(Secrets(settings.environment, settings.secrets))
    if (fault := senders.find_faults()) is not None:
        raise CliError(fault)
    folder = _find_folder(settings)
    try:
        letters = DeadLetterFolder(folder)
    except OSError as error:
        raise CliError(f"the folder of dead letters {str(folder)!r} cannot be used: {error.strerror}") from None
    try:
        return _Http(bind(options.host, options.port), senders, letters)
    except OSError as error:
        raise CliError(f"cannot listen at {options.host}:{options.port}: {error.strerror or error}") from None


def _find_folder(settings: Settings) -> Path:
    return settings.dead_letters or settings.folder / "dead-letters"


def _open_access(settings: Settings) -> KafkaAccess:
    found = settings.kafka
    if found.servers is None:
        raise CliError("--topic needs the servers of Kafka: name them with --kafka or MANDATE_KAFKA_SERVERS")
    if found.mechanism not in MECHANISMS:
        raise CliError(f"MANDATE_KAFKA_MECHANISM {found.mechanism!r} is not one of {', '.join(MECHANISMS)}")
    if (found.certificate is None) != (found.key is None):
        raise CliError("MANDATE_KAFKA_CERTIFICATE and MANDATE_KAFKA_KEY belong together: set both or neither")
    tls = None
    if found.tls or found.ca is not None or found.certificate is not None:
        try:
            tls = ssl.create_default_context(cafile=found.ca)
            if found.certificate is not None:
                tls.load_cert_chain(found.certificate, found.key)
        except OSError as error:
            raise CliError(f"the certificates for Kafka cannot be used: {error.strerror or error}") from None
    try:
        password = (
            Secrets(settings.environment, settings.secrets)(f"${{secret:{_PASSWORD}}}")
            if found.user is not None
            else None
        )
    except LookupError as error:
        raise CliError(f"MANDATE_KAFKA_USER needs a password: {error}") from None
    return KafkaAccess(found.servers, tls, found.user, password, found.mechanism)


def _introduce(
    call: Invocation,
    connection: Connection,
    options: Listening,
    settings: Settings,
    file: TriggerFile,
    web: _Http | None,
) -> None:
    """Print one block that says what is taken in, and where."""
    names = [trigger.id for trigger in file.triggers]
    if call.out.as_json:
        told: dict[str, object] = {
            "triggers": names,
            "url": web.url if web is not None else None,
            "dead_letters": str(web.letters.folder) if web is not None else None,
            "topics": list(options.topics),
            "dead_letter_topic": options.dead_letter_topic or None,
            "task_queue": settings.task_queue,
            "address": connection.address,
            "namespace": connection.client.namespace,
        }
        call.out.json(told)
        return
    lines = [("Triggers", ", ".join(names))]
    if web is not None:
        lines += [("Events", f"POST {web.url}"), ("Dead letters", str(web.letters.folder))]
    if options.topics:
        lines += [
            ("Topics", f"{', '.join(options.topics)} of {settings.kafka.servers}, group {options.group}"),
            ("Dead letters", f"topic {options.dead_letter_topic}"),
        ]
    lines += [
        ("Task queue", settings.task_queue),
        ("Temporal", f"{connection.address}, namespace {connection.client.namespace}"),
    ]
    for name, value in lines:
        call.out.print(f"{name:<14}{value}")
