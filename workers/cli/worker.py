"""`mandate worker`: serve agent files until told to stop."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import structlog
import typer

from mandate.activities.files import FileError
from mandate.activities.stores.base import StoreUnavailable
from mandate.workers.catalog.agents import agent_paths, scan_agents
from mandate.workers.catalog.catalog import Loaded
from mandate.workers.catalog.endpoints import try_endpoints
from mandate.workers.cli.connection import Connection, connected
from mandate.workers.cli.errors import ENDED_OTHERWISE, UNAVAILABLE, CliError, Unreachable
from mandate.workers.cli.options import Invocation, serving_verb
from mandate.workers.cli.root_options import RootOptions
from mandate.workers.cli.signals import leave, stop_signals
from mandate.workers.fleet import describe_strangers
from mandate.workers.interpreter import tune_collection
from mandate.workers.settings import Settings
from mandate.workers.telemetry.logs import configure_logging
from mandate.workers.telemetry.settings import TelemetryError, TelemetrySettings
from mandate.workers.worker import GRACE, AgentWorker, WorkerOptions, open_worker
from mandate.workflows.contracts.base import parse_duration

if TYPE_CHECKING:
    from mandate.workers.health import Health, Service

WATCHED_GRACE = timedelta(minutes=10)
"""Time for which a worker lets calls finish whose place another one has taken: nobody waits for its end."""

LONGEST_DRAIN = timedelta(days=1)

LETTING_GO = timedelta(seconds=10)
"""Time that calls have to end once they are cancelled."""


@serving_verb
async def worker(
    call: Invocation,
    *,
    agents: Annotated[Path | None, typer.Option(help="Folder of agent files, or one file.")] = None,
    task_queue: Annotated[str | None, typer.Option("--task-queue", "-t", help="Where it polls.")] = None,
    identity: Annotated[str | None, typer.Option(help="Its name in Temporal.")] = None,
    max_cached_workflows: Annotated[int, typer.Option(min=0, help="Runs kept in memory, 150 KB each.")] = 1000,
    deployment: Annotated[str | None, typer.Option(help="Worker deployment; needs --build-id.")] = None,
    build_id: Annotated[str | None, typer.Option(help="Version of the deployment; runs stay on theirs.")] = None,
    allow_older: Annotated[
        bool,
        typer.Option(
            "--allow-older",
            help="Serve files that are older than those of another worker of the queue; MANDATE_ALLOW_OLDER=1.",
        ),
    ] = False,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="For development: read agents, plans, policies and tools anew when they change."),
    ] = False,
    health: Annotated[
        str | None,
        typer.Option(
            help="Answer health checks at this address, as :8080: /live and /ready; MANDATE_HEALTH.",
            metavar="[HOST]:PORT",
        ),
    ] = None,
    drain: Annotated[
        str | None,
        typer.Option(help="Time for calls to finish when it is told to stop, 30s; MANDATE_DRAIN.", metavar="DURATION"),
    ] = None,
    sign: Annotated[Path | None, typer.Option(help="File to make once it serves.", hidden=True)] = None,
) -> int:
    """Serve agents until SIGTERM or Ctrl-C; a second one does not wait for what is going on.

    Exit codes: 0 it was stopped, 1 it failed or calls did not let go, 2 bad usage or files, 75 Temporal or the store
    does not answer, 130 it was ended at once.

    With --watch, changed files have a worker of their own, which takes the place of the one before once it serves. If
    they have faults, these are told, and the one before goes on. Runs keep the files that they began with.
    """
    if (deployment is None) != (build_id is None):
        raise CliError("--deployment and --build-id belong together: give both or neither")
    settings = Settings.from_environment()
    settings = replace(settings, agents=agents or settings.agents, task_queue=task_queue or settings.task_queue)
    grace = _parse_drain(drain, settings)
    place = _parse_health(health, settings)
    if watch:
        if health is not None:
            raise CliError("--health and --watch do not go together: each change of a file has a worker of its own")
        from mandate.workers.cli import worker_watch  # noqa: PLC0415 - only for development

        return await worker_watch.watch(call, settings)
    _demand_secrets(settings)
    _demand_agents(settings)
    configure_logs(call.root)
    options = WorkerOptions(
        identity=identity,
        # The SDK keeps either none or at least two.
        max_cached_workflows=max(max_cached_workflows, 2) if max_cached_workflows else 0,
        deployment=deployment,
        build_id=build_id,
        allow_older=allow_older,
        # Of one folder are the workers of one --watch.
        group=sign.parent.name if sign is not None else "",
        grace=WATCHED_GRACE if sign is not None else grace,
    )
    if sign is not None:
        # Two workers of one --watch are there for a moment, and one port.
        environment = {name: value for name, value in settings.environment.items() if name != "MANDATE_METRICS"}
        settings = replace(settings, environment=environment)
    wanted = _find_telemetry(settings)
    try:
        async with (
            _tell_health(place if sign is None else None) as told,
            connected(call, settings, identity=identity, has_log=True, metrics=wanted.metrics) as connection,
        ):
            await _serve(call, connection, options, sign, told)
    except (Unreachable, StoreUnavailable) as error:
        raise CliError(str(error), UNAVAILABLE) from error
    return 0


def _find_telemetry(settings: Settings) -> TelemetrySettings:
    try:
        return TelemetrySettings.from_environment(settings.environment)
    except TelemetryError as error:
        raise CliError(str(error)) from None


def _parse_drain(option: str | None, settings: Settings) -> timedelta:
    text, name = (option, "--drain") if option is not None else (settings.drain, "MANDATE_DRAIN")
    if text is None:
        return GRACE
    try:
        parsed = timedelta(0) if text == "0" else parse_duration(text)
    except ValueError as error:
        raise CliError(f"{name} {text!r}: {error}") from None
    if not isinstance(parsed, timedelta) or parsed > LONGEST_DRAIN:
        raise CliError(f"{name} {text!r}: it is a duration of at most 1d, for example '30s' or '5m'")
    return parsed


def _parse_health(option: str | None, settings: Settings) -> tuple[str, int] | None:
    text, name = (option, "--health") if option is not None else (settings.health, "MANDATE_HEALTH")
    if text is None:
        return None
    # Here: a web server takes long to import.
    from mandate.workers.http_server import parse_listen_address  # noqa: PLC0415 - only with --health

    try:
        return parse_listen_address(text)
    except ValueError as error:
        raise CliError(f"{name} {error}") from None


@asynccontextmanager
async def _tell_health(place: tuple[str, int] | None) -> "AsyncIterator[Health | None]":
    if place is None:
        yield None
        return
    from mandate.workers.health import tell_health  # noqa: PLC0415 - only with --health
    from mandate.workers.http_server import bind  # noqa: PLC0415 - only with --health

    host, port = place
    try:
        listener = bind(host, port)
    except OSError as error:
        raise CliError(f"cannot tell its health at {host}:{port}: {error.strerror or error}") from None
    with listener:
        async with tell_health(listener) as health:
            yield health


def _demand_secrets(settings: Settings) -> None:
    """Refuse a folder of secrets that is not there: without the store of its file, a worker would begin another one."""
    if settings.secrets is not None and not settings.secrets.is_dir():
        raise CliError(
            f"MANDATE_SECRETS: {str(settings.secrets)!r} is no folder that is there; mount it, or leave it out"
        )


def _demand_agents(settings: Settings) -> None:
    """Refuse a place that has nothing to serve, and files with faults, before a server is looked for or started."""
    source = settings.agents
    if not source.exists():
        raise CliError(
            f"there are no agents: {str(source)!r} does not exist; write an agent file (*.yaml) in that folder, or "
            "name another folder or file with --agents or MANDATE_AGENTS"
        )
    if source.is_dir() and not agent_paths(source):
        raise CliError(
            f"the folder {str(source)!r} has no agent files (*.yaml); write one, or name another folder or file "
            "with --agents or MANDATE_AGENTS"
        )
    endpoints, faults = try_endpoints(settings)
    if found := (*faults, *scan_agents(source, endpoints.find_unknown).faults):
        raise FileError(found)


def configure_logs(root: RootOptions) -> None:
    """Set up the log of this process as the root options say."""
    levels = {"debug": "DEBUG", "info": "INFO", "warn": "WARNING", "error": "ERROR", "never": "CRITICAL"}
    level = levels.get((root.log_level or "info").lower())
    if level is None:
        raise CliError(f"--log-level {root.log_level!r} is not one of {', '.join(levels)}")
    if root.log_format not in {None, "text", "json", "pretty"}:
        raise CliError(f"--log-format {root.log_format!r} is not one of text, json")
    configure_logging(level=level, as_json=None if root.log_format is None else root.log_format == "json")


async def _serve(
    call: Invocation, connection: Connection, options: WorkerOptions, sign: Path | None, health: "Health | None"
) -> None:
    log = structlog.stdlib.get_logger("mandate.workers.cli.worker")
    try:
        opening = open_worker(connection.client, connection.settings, options, on_progress=call.out.note)
        async with opening as serving:
            with stop_signals(lambda: log.info("worker_stopping", hint="a second signal ends it at once")) as stopped:
                running = asyncio.create_task(serving.run())
                waiting = asyncio.create_task(stopped.wait())
                # First: files may change as soon as it says that it serves.
                _give_sign(sign)
                if health is not None:
                    health.serve(_describe_service(connection, serving))
                _introduce(call, connection, serving)
                tune_collection()
                await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                if health is not None:
                    health.drain()
                if not running.done():
                    await _drain(serving, running, options)
                try:
                    await running
                except RuntimeError as error:
                    # Of the SDK, when polling ends for good.
                    raise CliError(f"the worker failed: {error}", ENDED_OTHERWISE) from error
    except ValueError as error:
        raise CliError(str(error)) from error
    log.info("worker_stopped")


async def _drain(serving: AgentWorker, running: "asyncio.Task[None]", options: WorkerOptions) -> None:
    """Let calls finish, cancel those that do not, and end the process if one does not let go even then."""
    ending = asyncio.create_task(serving.shutdown())
    limit = options.grace + LETTING_GO
    await asyncio.wait({ending, running}, timeout=limit.total_seconds(), return_when=asyncio.ALL_COMPLETED)
    if not ending.done() or not running.done():
        log = structlog.stdlib.get_logger("mandate.workers.cli.worker")
        log.error("worker_cut_off", seconds=limit.total_seconds(), hint="calls in hand are lost attempts")
        leave(ENDED_OTHERWISE)
    await ending


def _describe_service(connection: Connection, serving: AgentWorker) -> "Service":
    from mandate.workers.health import PollCheck, Service, check_store  # noqa: PLC0415 - only with --health

    queue = serving.task_queue
    polls = PollCheck(connection.client, queue, serving.identity)
    agents = {name: one.digest for name, one in serving.catalog.agents.items()}
    return Service(queue, agents, {"polls": polls, "store": check_store(serving.store)})


def _give_sign(sign: Path | None) -> None:
    if sign is not None:
        sign.touch()


def _introduce(call: Invocation, connection: Connection, serving: AgentWorker) -> None:
    """Print one block that says what is served, and where."""
    loaded, plans = serving.catalog.agents, serving.catalog.plans
    others, strangers = serving.fleet.others, serving.fleet.strangers
    told = [other.sentence(serving.task_queue) for other in others]
    if strangers:
        told.append(describe_strangers(strangers, serving.task_queue))
    for warning in (*serving.catalog.warnings, *told):
        call.out.note(f"warning: {warning}")
    if call.out.as_json:
        its: dict[str, object] = {"agents": list(map(_to_json, loaded.values()))}
        its |= {"plans": list(map(_to_json, plans.values()))}
        its |= {"task_queue": serving.task_queue, "address": connection.address}
        its |= {"others": [other.to_json() for other in others], "unknown_workers": list(strangers)}
        call.out.json({**its, "namespace": connection.client.namespace, "ui_url": connection.ui_url})
        return
    kind = " (embedded)" if connection.server is not None else ""
    lines = [
        ("Agents", _list_versions(loaded)),
        *([("Plans", _list_versions(plans))] if plans else []),
        ("Task queue", serving.task_queue),
        ("Temporal", f"{connection.address}{kind}, namespace {connection.client.namespace}"),
    ]
    if connection.ui_url is not None:
        lines.append(("Web UI", connection.ui_url))
    if loaded:
        lines.append(("Start a run", f'{call.program} run {next(iter(loaded))} "..."{connection.options}'))
    for name, value in lines:
        call.out.print(f"{name:<12} {value}")


def _to_json(one: Loaded) -> dict[str, str]:
    return {"name": one.pinned.name, "version": one.digest[:12]}


def _list_versions(loaded: Mapping[str, Loaded]) -> str:
    return ", ".join(f"{name} version {one.digest[:12]}" for name, one in loaded.items()) or "none"
