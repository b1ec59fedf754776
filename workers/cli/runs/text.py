"""A run in words, for reading on a terminal."""

import json
import shlex
from collections.abc import Sequence
from decimal import Decimal

from pydantic import JsonValue
from rich.text import Text

from mandate.workers.cli.connection import Connection
from mandate.workers.cli.errors import DONE, ENDED_OTHERWISE, REFUSED
from mandate.workers.cli.output import Output, print_table
from mandate.workers.cli.plans import text as plan_text
from mandate.workers.client.trees import Place
from mandate.workers.history.events import RunEnded
from mandate.workers.history.models import ModelTable, ModelTotals
from mandate.workers.history.record import Json, Record, Said
from mandate.workflows.contracts.budget import BudgetUse
from mandate.workflows.contracts.plan import PlanResult, StepResult
from mandate.workflows.contracts.run import EffectEntry, EffectLog, RunResult, RunStatus
from mandate.workflows.contracts.tool import CacheHit
from mandate.workflows.rules import budget_use, decisions, quantities, wording
from mandate.workflows.rules.period_budgets import format_usd

_NOTHING = ("0", "0s", "$0.00")
"""Cells of columns that are left out."""

LINES = 6
CHARACTERS = 600
"""Characters that are shown of a text unless all of it is wanted."""


def print_heading(out: Output, record: Record, url: str | None) -> None:
    """Print the run and its status."""
    its = record.history
    version = f" version {its.pin.version}" if its.pin is not None else ""
    out.print(Text.assemble((record.workflow_id, "bold"), "  ", _status(record.status)))
    kind = "plan" if its.is_plan else "agent"
    out.print(Text(f"{kind} {its.agent or 'unknown'}{version}, step {its.step}, run {record.run_id}", style="dim"))
    if url is not None:
        out.print(Text(url, style="dim"))
    if record.place.parent is not None:
        out.print(f"child of {describe_place(record.place)}")
        if its.head is None:
            out.print(f"its conversation has not begun; what it is asked is a call of {record.place.parent}")
    if its.ended is not None and its.ended.reason:
        out.print(its.ended.reason)
    if record.diagnosis is not None:
        out.print(Text(record.diagnosis.sentence, style="bold red"))
    elif record.retrying is not None:
        out.print(Text(record.retrying, style="yellow"))


def describe_place(place: Place) -> str:
    """Describe the runs above one as `boss-1/c1 (root boss-1)`; empty for a run that is no child."""
    if place.parent is None:
        return ""
    return place.parent if place.parent == place.root else f"{place.parent} (root {place.root})"


def print_message(out: Output, message: Said, *, why: str | None, full: bool) -> None:
    """Print one message with its parts, and why its model was asked; an answer without calls is never cut."""
    full = full or (message.role == "assistant" and all(part["kind"] != "call" for part in message.parts))
    answers = [part for part in message.parts if part["kind"] == "result"]
    if message.role == "assistant":
        told = f": {why}" if why else ""
        title = Text.assemble((f"step {message.step}", "bold"), (f"  {message.model}{told}", "dim"))
    else:
        title = Text("results" if answers else "asked", style="bold")
    out.print("")
    out.print(title)
    for part in message.parts:
        line = _part(part, full=full)
        if line is not None:
            out.print(_indented(line))


def print_ending(out: Output, record: Record, pending: Sequence[Json], *, full: bool) -> None:
    """Print what is open, what was changed, what it cost."""
    its = record.history
    if pending:
        out.print("")
        out.print(Text("not told to the model" + " yet" * (its.ended is None), style="bold"))
    for call in pending:
        result = call.get("result")
        text = f" {shown(str(result['text']), full=full)}" if isinstance(result, dict) else ""
        out.print(_indented(Text.assemble(str(call["line"]), (f"  {call['state']}", "yellow"), text)))
    if record.children:
        _print_children(out, record)
    if its.parked.requests:
        out.print("")
        out.print(Text("waits for people", style="bold"))
    for request in its.parked.requests.values():
        who, until = ", ".join(request.waits_for), decisions.format_time(request.expires_at)
        name = f"{record.workflow_id}:{request.id}"
        out.print(_indented(Text.assemble((name, "yellow"), f"  {request.title} ({who}, until {until})")))
    if record.people:
        out.print("")
        out.print(Text("asked of people, and said by them", style="bold"))
    for told in record.people:
        step = "earlier " if told.step is None else f"step {told.step:<3}"
        out.print(_indented(Text.assemble((f"{step} ", "dim"), told.line)))
    out.print("")
    if (supplied := _supplied(record)) is not None:
        out.print(Text("answer", style="bold"))
        out.print(_indented(Text(shown(supplied, full=True))))
    if its.effects.count:
        hidden = sum(entry.count for entry in its.effects.last) < its.effects.count
        before = f", the last {len(its.effects.last)}" if hidden else ""
        out.print(Text(f"changed the world {quantities.count_times(its.effects.count)}{before}", style="bold"))
        print_table(out, _effects(its.effects.last), indent=2)
    if uncertain := its.list_uncertain():
        out.print(Text("unknown whether it happened", style="bold red"))
        print_table(out, _effects(uncertain), indent=2)
    out.print(Text.assemble(("used", "bold"), f"  {wording.describe_usage(its.sum_usage())}"))
    if record.budget is not None:
        print_budget(out, record.budget, is_going_on=its.ended is None)


def _print_children(out: Output, record: Record) -> None:
    """Print the last children that have reported and those that have not, each with its status and cost."""
    made, shown = record.history.children.made, len(record.children)
    out.print("", Text(f"children, {shown} of {made}" if shown < made else "children", style="bold"))
    rows = [
        (
            child.workflow_id.removeprefix(f"{record.workflow_id}/"),
            child.agent,
            Text.assemble(_status(child.status)),
            wording.describe_cost(child.usage) if child.usage is not None else "",
            wording.shorten(child.reason or "", 200),
        )
        for child in record.children
    ]
    print_table(out, rows, indent=2)


def print_budget(out: Output, use: BudgetUse, *, is_going_on: bool) -> None:
    """Print each limit of a run with what is spent, held and left; without the columns in which nothing stands."""
    rows = [budget_use.HEAD, *budget_use.list_rows(use)]
    columns = [column for column in zip(*rows, strict=True) if any(cell not in _NOTHING for cell in column[1:])]
    out.print("", Text("limits", style="bold"))
    head, *others = zip(*columns, strict=True)
    print_table(out, others, head, indent=2)
    if use.used_up and is_going_on:
        out.print(Text(f"  {use.used_up}: the model gives its last answer", style="yellow"))
    if use.period_cost_usd is not None:
        spent = format_usd(Decimal(use.period_cost_usd))
        out.print(f"  beyond the run: {spent} spent and held in the budget that is used up most")


def print_models(out: Output, models: ModelTable) -> None:
    """Print what each model of a run answered and took; a cost that is not known of all answers is told as such."""
    rows = [
        (model, str(its.answers), f"{its.input_tokens:,}", f"{its.output_tokens:,}", _describe_cost(its))
        for model, its in models
    ]
    if rows:
        out.print("", Text("models", style="bold"))
        print_table(out, rows, ("model", "answers", "tokens in", "out", "cost"), indent=2)


def _describe_cost(its: ModelTotals) -> str:
    if its.priced == its.answers:
        return format_usd(its.cost_usd)
    return f"{format_usd(its.cost_usd)} of {quantities.count_noun(its.priced, 'answer')}" if its.priced else "unknown"


def _supplied(record: Record) -> str | None:
    """Return a person's answer, which the conversation does not have."""
    ended = record.history.ended
    if ended is None or record.output is None or not (ended.reason or "").startswith(wording.SUPPLIED):
        return None
    return record.output if isinstance(record.output, str) else json.dumps(record.output, ensure_ascii=False)


def _effects(entries: Sequence[EffectEntry]) -> list[tuple[str | Text, ...]]:
    """Return one row a call, with its attempts and what is to be said of its outcome."""
    rows: list[tuple[str | Text, ...]] = []
    calls = {entry.key: entry.call for entry in entries}
    undone = {entry.undoes for entry in entries}
    for entry in entries:
        attempts = "" if entry.attempts == 1 else quantities.count_noun(entry.attempts, "attempt")
        said = [_tell_run(entry), entry.reason or "", "taken back" if entry.key in undone else ""]
        if entry.undoes is not None:
            said.append(f"takes back {calls.get(entry.undoes, 'an earlier call')}")
        told = Text("; ".join(filter(None, said)), style="yellow")
        rows.append((f"step {entry.step}", entry.call, attempts, told))
    return rows


def _tell_run(entry: EffectEntry) -> str:
    """Say which child made a call, or how many effects of one it stands for; nothing of a run's own call."""
    if entry.run is None:
        return ""
    return f"{quantities.count_noun(entry.count, 'effect')} of {entry.run}" if entry.digest else f"by {entry.run}"


def shown(text: str, *, full: bool) -> str:
    """Return `text`, or its beginning and how much is left out."""
    text = text.rstrip()
    if full:
        return text
    lines = text.splitlines()
    short = "\n".join(lines[:LINES])[:CHARACTERS]
    left = len(text) - len(short)
    return f"{short} [… {left} more characters, see --full]" if left > 0 else text


def _indented(text: Text) -> Text:
    """Indent the first line by two spaces, the others by four."""
    first, *others = text.split("\n", allow_blank=True)
    return Text("\n").join([Text("  ") + first, *(Text("    ") + line for line in others)])


def _part(part: Json, *, full: bool) -> Text | None:
    match part["kind"]:
        case "text":
            return Text(shown(str(part["text"]), full=full)) if str(part["text"]).strip() else None
        case "call":
            return Text.assemble(
                ("→ ", "dim"), (str(part["tool"]), "cyan"), " ", _written(part["arguments"], full=full)
            )
        case "result":
            text = str(part["text"])
            hit = CacheHit.model_validate(part["cached"]) if part.get("cached") is not None else None
            kept = f"({wording.describe_hit(hit)}) " if hit is not None else ""
            mark = ("✗ ", "red") if part["error"] else ("← ", "dim")
            return Text.assemble(mark, (str(part["tool"]), "cyan"), " ", (kept, "dim"), shown(text, full=full))
        case "refusal":
            return Text.assemble(("refuses: ", "yellow"), shown(str(part["text"]), full=full))
        case _:
            return Text(f"[{part['type']}]", style="dim")


def _written(arguments: JsonValue, *, full: bool) -> str:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return shown(text, full=full)


def _status(status: str) -> tuple[str, str]:
    styles = {"completed": "bold green", "running": "bold blue"}
    return status, styles.get(status, "bold yellow")


def exit_code(ended: RunEnded) -> int:
    """Return 0 for a completed run, 2 for one that was asked for wrongly, 1 for all others."""
    if ended.status == RunStatus.COMPLETED:
        return DONE
    return REFUSED if ended.bad_input else ENDED_OTHERWISE


def print_result(
    out: Output,
    connection: Connection,
    workflow_id: str,
    ended: RunEnded,
    steps: Sequence[StepResult] = (),
    *,
    program: str,
) -> None:
    """Print the answer, what was done, how the steps of a plan went, what it cost, and where to look."""
    is_plan = isinstance(ended.result, PlanResult) or bool(steps)
    style = "bold green" if ended.status == RunStatus.COMPLETED else "bold yellow"
    out.print("")
    out.print(Text.assemble((ended.status, style), f": {ended.reason}" if ended.reason else ""))
    if ended.result is not None:
        _print_answer(out, ended.result, steps)
    elif steps:
        out.print("")
        plan_text.print_steps(out, steps)
    out.print("")
    if (url := connection.run_url(workflow_id)) is not None:
        out.print(Text.assemble(("Look at it  ", "dim"), url))
    for label, command in list_commands(connection, workflow_id, program=program, is_plan=is_plan):
        out.print(Text.assemble((f"{label:<12}", "dim"), command))


def list_commands(
    connection: Connection, workflow_id: str, *, program: str, is_plan: bool = False
) -> list[tuple[str, str]]:
    """Return the commands that show more of a run."""
    name = shlex.quote(workflow_id)
    return [
        *([("All steps", f"{program} plan show {name}{connection.options}")] if is_plan else []),
        ("Read it", f"{program} show {name}{connection.options}"),
        ("In Temporal", f"temporal workflow describe -w {name}{connection.temporal_options}"),
    ]


def _print_answer(out: Output, result: RunResult, steps: Sequence[StepResult]) -> None:
    if result.output is not None:
        answer = result.output if isinstance(result.output, str) else json.dumps(result.output, indent=2)
        out.print("", answer.strip())
        if result.output_digest is not None:
            out.print(Text("the beginning only; `show` has all of it", style="dim"))
    elif result.output_digest is not None:
        out.print(Text("`show` has its answer", style="dim"))
    out.print("")
    if steps:
        plan_text.print_steps(out, steps)
    elif isinstance(result, PlanResult):
        plan_text.print_steps(out, result.steps, note=", of those that the result has room for")
    if result.effects.count:
        _print_changes(out, result.effects)
    for entry in result.uncertain:
        by = f" ({_tell_run(entry)})" if entry.run is not None else ""
        out.print(Text(f"Unknown whether it happened: {entry.call}{by}", style="bold red"))
    out.print(Text.assemble(("Used        ", "dim"), wording.describe_usage(result.usage)))


def _print_changes(out: Output, effects: EffectLog) -> None:
    """Print how often a run has changed the world, and the last calls that did; a child's result lists none."""
    times, count = quantities.count_times(effects.count), len(effects.last)
    if not effects.last:
        out.print(Text(f"Changed the world {times}; `show` lists the calls", style="bold"))
        return
    before = f" (the last {count})" if sum(entry.count for entry in effects.last) < effects.count else ""
    out.print(Text(f"Changed the world {times}{before}:", style="bold"))
    for entry in effects.last:
        out.print(f"  {entry.call}{f' ({_tell_run(entry)})' if entry.run is not None else ''}")
