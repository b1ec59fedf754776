"""`mandate`, also installed as `temporal-agent` so that `temporal agent` is the same program."""

import contextlib
import gc
import importlib
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import typer
from typer._click import Command, Context  # no public names
from typer.core import TyperGroup
from typer.main import get_command

from mandate.workers.cli.errors import INTERRUPTED, CliError, SilentExit, report
from mandate.workers.cli.root_options import Color, OutputFormat, RootOptions
from mandate.workers.settings import is_debugging

TEMPORAL = "Temporal's own"

# Boxes and panels cost 150 ms, so they are for people only.
MARKUP: Literal["rich"] | None = "rich" if sys.stdout.isatty() else None


class Verb(NamedTuple):
    """A command that is imported when it was typed."""

    place: str
    """`module:function` under `mandate.workers`; a group of verbs is a `Typer` in place of a function."""
    help: str
    """The first paragraph of the function's docstring or of the group's help, for the list of all verbs."""


VERBS: Mapping[str, Verb] = {
    "init": Verb(
        "cli.init:init",
        "Make a project in FOLDER, the working folder if left out: an agent that runs at once, without a key.",
    ),
    "run": Verb("cli.run:run", "Start a run of an agent and follow it; Ctrl-C leaves it running."),
    "chat": Verb(
        "cli.chat:chat",
        "Talk with an agent; each line is a message. Ctrl-C or Ctrl-D leaves the session, which can be come back to.",
    ),
    "show": Verb(
        "cli.show:show",
        "Show what a run was asked, said and did, and what it cost; it may be going on or have ended in any way.",
    ),
    "inbox": Verb("cli.inbox:inbox", "List all open requests over all runs, those that expire first at the top."),
    "approve": Verb("cli.decide:approve", "Let calls run, as they are or with other arguments."),
    "reject": Verb("cli.decide:reject", "Refuse what is asked; the model is told why. Exit codes as of `approve`."),
    "decide": Verb("cli.decide:decide", "Make any choice that a request has. Exit codes as of `approve`."),
    "answer": Verb("cli.decide:answer", "Answer a question of an agent. Exit codes as of `approve`."),
    "steer": Verb(
        "cli.control:steer",
        "Tell agents something, as your words. Exit code 0: all were told. 1: some refuse. 2: bad usage.",
    ),
    "pause": Verb(
        "cli.control:pause",
        "Let runs finish the call in hand and begin nothing new; paused runs take decisions. Exit codes as of `steer`.",
    ),
    "resume": Verb("cli.control:resume", "Let paused runs go on. Exit codes as of `steer`."),
    "stop": Verb(
        "cli.control:stop",
        "Let runs finish the call in hand, take back what has a compensation, and end as `stopped`.",
    ),
    "plan": Verb("cli.plan:plan", "Check, draw and run plans: steps of agents, tools and other plans."),
    "schedule": Verb("cli.schedule:schedule", "Start runs of agents and plans at times, by schedules of Temporal."),
    "listen": Verb(
        "cli.listen:listen",
        "Take in CloudEvents that start runs and plans and speak to sessions, until SIGTERM or Ctrl-C.",
    ),
    "worker": Verb(
        "cli.worker:worker", "Serve agents until SIGTERM or Ctrl-C; a second one does not wait for what is going on."
    ),
    "server": Verb("cli.server:server", "Run a Temporal server with its Web UI for development, until Ctrl-C."),
    "validate": Verb(
        "cli.validate:validate",
        "Check agent files and plans with all their tools, and say what agents may do; run the examples of policies.",
    ),
    "setup-namespace": Verb(
        "cli.setup_namespace:setup_namespace",
        "Make a namespace and the search attributes of runs on a Temporal server, where they are missing.",
    ),
    "doctor": Verb(
        "cli.doctor:doctor",
        "Check server, store, files, keys, clocks and workers, and say what to do; nothing is changed.",
    ),
    "keys": Verb("cli.keys:keys", "List the keys of the store's installation, make another one, or take one away."),
    "budget": Verb(
        "cli.budget:budget",
        "Show what budgets beyond one run have spent, hold and have left in this day or month, or in earlier ones.",
    ),
    "stats": Verb(
        "cli.stats:stats",
        "Count runs: how they ended, what they cost, how long they took, what failed, and how long people were waited "
        "for.",
    ),
    "cache": Verb("cli.cache:cache", "List the results of read tools that are kept for equal calls, or remove them."),
    "demo": Verb(
        "demo.command:demo",
        "Watch an agent settle a complaint in a small shop; server, worker and shop are made for it.",
    ),
}


class VerbGroup(TyperGroup):
    """All verbs by their help, and the whole of the one that was typed."""

    def resolve_command(self, ctx: Context, args: list[str]) -> tuple[str | None, Command | None, list[str]]:
        """Find the verb and import it."""
        name, listed, rest = super().resolve_command(ctx, args)
        return (name, listed, rest) if name is None else (name, load_verb(name), rest)


app = typer.Typer(
    name="mandate",
    cls=VerbGroup,
    help="Run AI agents as durable Temporal workflows that act within a mandate.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=MARKUP,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
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


for _name, _verb in VERBS.items():
    app.command(_name, help=_verb.help)(lambda: None)


def load_verb(name: str) -> Command:
    """Import the module of a verb, and return the command with its options."""
    module, _, function = VERBS[name].place.partition(":")
    # Imports make no garbage, and looking for it is an eighth of their time.
    gc.disable()
    imported = importlib.import_module(f"mandate.workers.{module}")
    # What they made stays to the end.
    gc.freeze()
    gc.enable()
    found = getattr(imported, function)
    if isinstance(found, typer.Typer):
        found.rich_markup_mode = MARKUP
        return get_command(found)
    alone = typer.Typer(add_completion=False, rich_markup_mode=MARKUP)
    alone.command(name)(found)
    return get_command(alone)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program: end the process with an exit code, never with a traceback unless `MANDATE_DEBUG` is set."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    code = _run(words)
    # All ends here: the interpreter's last look for garbage would take a fifth of a short command's time.
    gc.freeze()
    with contextlib.suppress(BrokenPipeError, ValueError):
        sys.stdout.flush()
        sys.exit(code)
    # Nobody reads any more; without this the interpreter would complain at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _run(words: list[str]) -> int:
    if not sys.warnoptions and not is_debugging():
        # They are for authors of code; a worker has them in its log.
        warnings.simplefilter("ignore")
    try:
        _check_words(words)
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
        return report(error, as_json=wants_json(words))


def _check_words(words: Sequence[str]) -> None:
    """Refuse bytes that are no text, but in the names of files that exist."""
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError:
            if not Path(word).exists():
                raise CliError(f"{word!a} on the command line holds bytes that are no UTF-8 text") from None


def _invoke(words: list[str]) -> int:
    try:
        code = get_command(app).main(words, prog_name=_program(), standalone_mode=False)
    except typer.Abort:
        return INTERRUPTED
    return code if isinstance(code, int) else 0


def wants_json(words: Sequence[str]) -> bool:
    """Tell whether the command line asks for JSON, even one that cannot be parsed."""
    return any(
        word in {"-ojson", "--output=json", "-o=json"} or (word in {"-o", "--output"} and after == "json")
        for word, after in pairwise([*words, ""])
    )


def _program() -> str:
    return "temporal agent" if Path(sys.argv[0]).name == "temporal-agent" else "mandate"


if __name__ == "__main__":
    main()
