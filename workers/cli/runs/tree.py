"""A tree of runs, drawn."""

import shlex
from collections import Counter

from rich.text import Text
from rich.tree import Tree

from mandate.workers.cli.connection import Connection
from mandate.workers.cli.options import Invocation
from mandate.workers.history.tree import TreeRun
from mandate.workflows.contracts.run import AGENT_WORKFLOW, PLAN_WORKFLOW
from mandate.workflows.rules import quantities, wording

WORDS_CHARACTERS = 200
NAMES_CHARACTERS = 80

_STYLES = {"completed": "bold green", "running": "bold blue"}


def print_tree(call: Invocation, connection: Connection, root: TreeRun, asked: str) -> None:
    """Draw all runs below `root`, with a mark at the one that was asked for, and say what is open."""
    runs = list(root.walk())
    call.out.draw(draw_tree(root, asked))
    for queue in dict.fromkeys(run.unserved for run in runs if run.unserved is not None):
        call.out.note(f"no worker answers on task queue {queue!r}{connection.advise_worker(call.program, queue)}")
    if len(runs) == 1:
        return
    counts = Counter(run.status for run in runs)
    called = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    call.out.note(f"\n{quantities.count_noun(len(runs), 'run')}: {called}")
    if count := sum(run.requests for run in runs):
        where = f"{call.program} inbox --root {shlex.quote(root.workflow_id)}{connection.options}"
        call.out.note(f"{quantities.count_noun(count, 'request')} to people: `{where}`")


def draw_tree(root: TreeRun, asked: str) -> Tree:
    """Return the drawing, with a mark at the run that was asked for if there are others."""
    drawn = Tree(_label(root, "", asked if root.children else None))
    _grow(drawn, root, asked)
    return drawn


def _grow(drawn: Tree, run: TreeRun, asked: str) -> None:
    for child in run.children:
        _grow(drawn.add(_label(child, f"{run.workflow_id}/", asked)), child, asked)


def _label(run: TreeRun, above: str, asked: str | None) -> Text:
    """Return a run in one or two lines, by the part of its id that is its own."""
    parts = [
        (run.workflow_id.removeprefix(above), "bold"),
        # A plan that an agent wrote has that agent's name.
        ("plan" if run.kind == PLAN_WORKFLOW else "", "dim"),
        (run.agent or _describe_kind(run), "" if run.agent else "dim"),
        (run.status, _STYLES.get(run.status, "bold yellow")),
        (wording.describe_cost(run.usage) if run.usage is not None else "", ""),
        (_describe_requests(run), "yellow"),
        ("← this run" if run.workflow_id == asked else "", "bold cyan"),
    ]
    line = Text("  ").join(Text(wording.shorten(text, WORDS_CHARACTERS), style) for text, style in parts if text)
    words = _describe(run)
    return Text("\n  ").join([line, Text(words, "yellow" if run.is_silent else "dim")]) if words else line


def _describe_kind(run: TreeRun) -> str:
    """Describe a workflow that is no run of an agent; empty for one that may be."""
    return f"({run.kind})" if run.kind not in {None, AGENT_WORKFLOW, PLAN_WORKFLOW} else ""


def _describe_requests(run: TreeRun) -> str:
    if not run.requests:
        return ""
    names = wording.shorten(", ".join(run.waits_for), NAMES_CHARACTERS)
    return f"{quantities.count_noun(run.requests, 'request')} to {names}"


def _describe(run: TreeRun) -> str:
    """Describe what a run does, how it ended or why it does not answer."""
    if run.is_silent:
        return wording.shorten(f"does not answer: {run.reason}", WORDS_CHARACTERS)
    if run.requests and (run.doing or "").startswith("waiting for"):
        return ""
    return wording.shorten(run.reason or run.doing or "", WORDS_CHARACTERS)
