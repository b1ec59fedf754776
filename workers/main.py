"""`mandate`, also installed as `temporal-agent` so that `temporal agent` is the same program."""

import contextlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

import typer
from mandate.workers.cli import control, decide, inbox, init, keys, run, server, show, validate, worker
from mandate.workers.cli.errors import INTERRUPTED, CliError, SilentExit
from mandate.workers.cli.options import OutputFormat, RootOptions
from mandate.workers.cli.output import Color
from mandate.workers.settings import is_debugging

TEMPORAL = "Temporal's own"

app = typer.Typer(
    name="mandate",
    help="Run AI agents as durable Temporal workflows that act within a mandate.",
    add_completion=False,
    pretty_exceptions_enable=False,
    # Boxes and panels cost 150 ms, so they are for people only.
    rich_markup_mode="rich" if sys.stdout.isatty() else None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"mandate {version('mandate-agents')}")
        raise typer.Exit


def _option(*names: str, help: str, hidden: bool = False) -> typer.models.OptionInfo:  # noqa: A002 - typer's word
    option: typer.models.OptionInfo = typer.Option(*names, help=help, hidden=hidden, rich_help_panel=TEMPORAL)
    return option


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    output: Annotated[OutputFormat, typer.Option("--output", "-o", help="`json` for programs.")] = "text",
    color: Annotated[Color, typer.Option(help="When to use colours.")] = "auto",
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    profile: Annotated[str | None, _option("--profile", help="Profile of Temporal's config file.")] = None,
    config_file: Annotated[str | None, _option("--config-file", help="Temporal's config file.")] = None,
    disable_config_file: Annotated[bool, _option("--disable-config-file", help="Read no config file.")] = False,
    disable_config_env: Annotated[bool, _option("--disable-config-env", help="Read no TEMPORAL_* variables.")] = False,
    log_level: Annotated[str | None, _option("--log-level", help="debug, info, warn, error or never.")] = None,
    log_format: Annotated[str | None, _option("--log-format", help="text or json.")] = None,
    command_timeout: Annotated[str | None, _option("--command-timeout", help="For example 30s.")] = None,
    client_connect_timeout: Annotated[str | None, _option("--client-connect-timeout", help="For example 5s.")] = None,
    time_format: Annotated[
        Literal["relative", "iso", "raw"], _option("--time-format", help="How times are shown.", hidden=True)
    ] = "relative",
    env: Annotated[str, _option("--env", help="Not supported; use --profile.", hidden=True)] = "default",
    _env_file: Annotated[str | None, _option("--env-file", help="Not used.", hidden=True)] = None,
    _no_json_shorthand_payloads: Annotated[
        bool, _option("--no-json-shorthand-payloads", help="Not used.", hidden=True)
    ] = False,
) -> None:
    if env != "default":
        raise CliError(f"--env {env!r}: environments are not read; make it a profile of Temporal's config file")
    ctx.obj = RootOptions(
        output=output,
        profile=profile,
        config_file=config_file,
        disable_config_file=disable_config_file,
        disable_config_env=disable_config_env,
        log_level=log_level,
        log_format=log_format,
        color=color,
        time_format=time_format,
        command_timeout=command_timeout,
        connect_timeout=client_connect_timeout,
        program=_program(),
    )
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


for _name, _command in (
    ("init", init.init),
    ("run", run.run),
    ("show", show.show),
    ("inbox", inbox.inbox),
    ("approve", decide.approve),
    ("reject", decide.reject),
    ("decide", decide.decide),
    ("answer", decide.answer),
    ("steer", control.steer),
    ("pause", control.pause),
    ("resume", control.resume),
    ("stop", control.stop),
    ("worker", worker.worker),
    ("server", server.server),
    ("validate", validate.validate),
    ("keys", keys.keys),
):
    app.command(_name)(_command)

if importlib.util.find_spec("mandate.workers.demo.command") is not None:
    app.command("demo")(importlib.import_module("mandate.workers.demo.command").demo)


def main(arguments: Sequence[str] | None = None) -> None:
    """The program: ends the process with an exit code, never with a traceback unless `MANDATE_DEBUG` is set."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    code = _run(words)
    with contextlib.suppress(BrokenPipeError, ValueError):
        sys.stdout.flush()
        sys.exit(code)
    # Nobody reads any more; without this the interpreter would complain at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _run(words: list[str]) -> int:
    try:
        return _invoke(words)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return INTERRUPTED
    except SilentExit as silent:
        return silent.code
    except Exception as error:
        if is_debugging():
            raise
        from mandate.workers.cli import failures

        return failures.report(error, as_json=wants_json(words))


def _invoke(words: list[str]) -> int:
    from typer.main import get_command

    try:
        code = get_command(app).main(words, prog_name=_program(), standalone_mode=False)
    except typer.Abort:
        return INTERRUPTED
    return code if isinstance(code, int) else 0


def wants_json(words: Sequence[str]) -> bool:
    """Whether the command line asks for JSON, even one that cannot be parsed."""
    return any(
        word in {"-ojson", "--output=json", "-o=json"} or (word in {"-o", "--output"} and after == "json")
        for word, after in pairwise([*words, ""])
    )


def _program() -> str:
    return "temporal agent" if Path(sys.argv[0]).name == "temporal-agent" else "mandate"


if __name__ == "__main__":
    main()
