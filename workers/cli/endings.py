"""End of a run: the exit code, and the lines for people."""

import json
import shlex

from rich.text import Text

from mandate.workers.cli.connection import Connection
from mandate.workers.cli.errors import DONE, ENDED_OTHERWISE, REFUSED
from mandate.workers.cli.output import Output
from mandate.workers.history.events import RunEnded
from mandate.workflows.contracts.run import RunResult, RunStatus
from mandate.workflows.rules import wording


def exit_code(ended: RunEnded) -> int:
    """Return 0 for a completed run, 2 for one that was asked for wrongly, 1 for all others."""
    if ended.status == RunStatus.COMPLETED:
        return DONE
    return REFUSED if ended.bad_input else ENDED_OTHERWISE


def tell(out: Output, connection: Connection, workflow_id: str, ended: RunEnded, *, program: str) -> None:
    """Print the answer, what was done, what it cost, and where to look."""
    style = "bold green" if ended.status == RunStatus.COMPLETED else "bold yellow"
    out.print("")
    out.print(Text.assemble((ended.status, style), f": {ended.reason}" if ended.reason else ""))
    if ended.result is not None:
        _result(out, ended.result)
    out.print("")
    if (url := connection.run_url(workflow_id)) is not None:
        out.print(Text.assemble(("Look at it  ", "dim"), url))
    for label, command in commands(connection, workflow_id, program=program):
        out.print(Text.assemble((f"{label:<12}", "dim"), command))


def commands(connection: Connection, workflow_id: str, *, program: str) -> list[tuple[str, str]]:
    """Return the commands that show more of a run."""
    name = shlex.quote(workflow_id)
    return [
        ("Read it", f"{program} show {name}{connection.options}"),
        ("In Temporal", f"temporal workflow describe -w {name}{connection.temporal_options}"),
    ]


def _result(out: Output, result: RunResult) -> None:
    if result.output is not None:
        answer = result.output if isinstance(result.output, str) else json.dumps(result.output, indent=2)
        out.print("", answer.strip())
        if result.output_digest is not None:
            out.print(Text("the beginning only; `show` has all of it", style="dim"))
    out.print("")
    if result.effects.count:
        hidden = result.effects.count - len(result.effects.last)
        before = f" (the last {len(result.effects.last)})" if hidden else ""
        out.print(Text(f"Changed the world {result.effects.count} times{before}:", style="bold"))
        for entry in result.effects.last:
            out.print(f"  {entry.call}")
    for entry in result.uncertain:
        out.print(Text(f"Unknown whether it happened: {entry.call}", style="bold red"))
    out.print(Text.assemble(("Used        ", "dim"), wording.describe_usage(result.usage)))
