"""Options that many commands share, and the decorator that gives them to a verb."""

import asyncio
import functools
import inspect
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import typer

from mandate.workers.cli.errors import INTERRUPTED, CliError
from mandate.workers.cli.output import Output, plain_logs
from mandate.workers.cli.root_options import Color, OutputFormat, RootOptions
from mandate.workers.cli.signals import leave
from mandate.workers.interpreter import make_event_loop
from mandate.workflows.contracts.base import parse_duration

CONNECTION = "Connection"
OUTPUT = "Output"
THREADS_SECONDS = 5.0
"""For threads to end when the verb has ended."""


@dataclass(frozen=True, slots=True)
class ConnectionFlags:
    """Flags of the connection to Temporal, as given after the verb; `None` was not given."""

    address: str | None = None
    namespace: str | None = None
    api_key: str | None = field(default=None, repr=False)
    tls: bool | None = None
    tls_cert_path: str | None = None
    tls_key_path: str | None = None
    tls_ca_path: str | None = None
    tls_server_name: str | None = None


@dataclass(frozen=True, slots=True)
class Invocation:
    """One command as it was typed, its own options left out."""

    root: RootOptions
    flags: ConnectionFlags
    out: Output

    @property
    def program(self) -> str:
        """`mandate`, or `temporal agent`: for commands that are shown to be typed next."""
        return self.root.program


def seconds(option: str, value: str | None) -> float | None:
    """Parse a duration such as `10s` or `1m30s`; `None` and zero mean without a limit."""
    if value is None or value in {"0", "0s"}:
        return None
    try:
        parsed = parse_duration(value)
    except ValueError as error:
        raise CliError(f"{option} {value!r}: {error}") from None
    found: float = parsed.total_seconds()  # type: ignore[attr-defined]
    return found


def _connection_options(
    address: Annotated[str | None, typer.Option(help="Temporal's host and port.", rich_help_panel=CONNECTION)] = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="Temporal namespace.", rich_help_panel=CONNECTION)
    ] = None,
    api_key: Annotated[str | None, typer.Option(help="API key.", rich_help_panel=CONNECTION)] = None,
    tls: Annotated[bool | None, typer.Option("--tls/--no-tls", help="Use TLS.", rich_help_panel=CONNECTION)] = None,
    tls_cert_path: Annotated[str | None, typer.Option(help="Client certificate.", rich_help_panel=CONNECTION)] = None,
    tls_key_path: Annotated[str | None, typer.Option(help="Client key.", rich_help_panel=CONNECTION)] = None,
    tls_ca_path: Annotated[str | None, typer.Option(help="CA certificate.", rich_help_panel=CONNECTION)] = None,
    tls_server_name: Annotated[
        str | None, typer.Option(help="Name in the server's certificate.", rich_help_panel=CONNECTION)
    ] = None,
) -> ConnectionFlags:
    return ConnectionFlags(address, namespace, api_key, tls, tls_cert_path, tls_key_path, tls_ca_path, tls_server_name)


def _output_options(
    output: Annotated[
        OutputFormat | None, typer.Option("--output", "-o", help="`json` for programs.", rich_help_panel=OUTPUT)
    ] = None,
    log_level: Annotated[
        str | None, typer.Option(help="debug, info, warn, error or never.", rich_help_panel=OUTPUT)
    ] = None,
    log_format: Annotated[str | None, typer.Option(help="text or json.", rich_help_panel=OUTPUT)] = None,
    color: Annotated[Color | None, typer.Option(help="When to use colours.", rich_help_panel=OUTPUT)] = None,
) -> dict[str, str]:
    """Return the options that may stand on either side of the verb: those that were given after it."""
    given = {"output": output, "log_level": log_level, "log_format": log_format, "color": color}
    return {name: value for name, value in given.items() if value is not None}


MakeLoop = Callable[[], asyncio.AbstractEventLoop]

Verb = Callable[..., int | None] | Callable[..., Awaitable[int | None]]


def verb(function: Verb) -> Callable[..., int | None]:
    """Make `function(call, ...)` a command with the options for output and connection.

    The first parameter of `function` gets the `Invocation`; the others are its own arguments and options. It may be
    async, and may return the exit code.
    """
    return _command(function, inspect.signature(_connection_options).parameters)


def serving_verb(function: Verb) -> Callable[..., int | None]:
    """Make `function` a command as `verb` does, which runs on the event loop of workers."""
    return _command(function, inspect.signature(_connection_options).parameters, make_event_loop)


def offline_verb(function: Verb) -> Callable[..., int | None]:
    """Make `function` a command as `verb` does, without the options for connecting to Temporal."""
    return _command(function, {})


def _command(
    function: Verb, shared: Mapping[str, inspect.Parameter], make_loop: MakeLoop | None = None
) -> Callable[..., int | None]:
    first, *own = inspect.signature(function, eval_str=True).parameters.values()
    either = inspect.signature(_output_options).parameters
    extra = (*either.values(), *shared.values())

    @functools.wraps(function)
    def command(ctx: typer.Context, **values: Any) -> int | None:
        flags = _connection_options(**{name: values.pop(name) for name in shared})
        after = _output_options(**{name: values.pop(name) for name in either})
        root: RootOptions = replace(ctx.obj or RootOptions(), **after)
        limit = seconds("--command-timeout", root.command_timeout)
        answer = function(Invocation(root, flags, Output(as_json=root.output == "json", color=root.color)), **values)
        return _awaited(answer, root, limit, make_loop) if inspect.isawaitable(answer) else answer

    context = inspect.Parameter("ctx", first.kind, annotation=typer.Context)
    parameters = [context, *(parameter.replace(kind=first.KEYWORD_ONLY) for parameter in (*own, *extra))]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # what typer reads
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _awaited(
    answer: Awaitable[int | None], root: RootOptions, limit: float | None, make_loop: MakeLoop | None
) -> int | None:

    plain_logs()
    told = asyncio.Event()

    def end(task: asyncio.Task[Any] | None) -> None:
        if told.is_set() or task is None:
            leave(INTERRUPTED)
        told.set()
        task.cancel()

    async def bounded() -> int | None:
        # As Ctrl-C does: the verb is cancelled and closes what it has opened, child processes above all.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end, asyncio.current_task())
        try:
            async with asyncio.timeout(limit) as scope:
                return await answer
        except TimeoutError:
            if scope.expired():
                raise CliError(f"not done within --command-timeout {root.command_timeout}") from None
            raise

    with asyncio.Runner(loop_factory=make_loop) as runner:
        try:
            code = runner.run(bounded())
        except (KeyboardInterrupt, asyncio.CancelledError):
            # All is closed by now but threads, which may be building a server for minutes: nobody waits for them.
            sys.stdout.flush()
            sys.stderr.flush()
            leave(INTERRUPTED)
        # The same for one that looks up a name which no server answers for.
        watch = threading.Timer(THREADS_SECONDS, leave, (code or 0,))
        watch.daemon = True
        watch.start()
    watch.cancel()
    return code
