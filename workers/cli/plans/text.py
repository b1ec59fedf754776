"""The steps of a plan in words: lines as they begin and end, and the table of how each went."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal

from pydantic import JsonValue
from rich.text import Text

from mandate.workers.cli.output import Output, print_table
from mandate.workers.history.step_events import AttemptFailed, ItemEnded, StepBegun, StepEnded, StepEvent
from mandate.workflows.contracts.plan import PlanStep, StepResult
from mandate.workflows.rules import quantities, wording
from mandate.workflows.rules.period_budgets import format_usd

MOST_LINES = 20
"""Events that are told one a line where they come together; of more, those of a kind share a line."""
SINGLE_ITEMS = 10
"""Items of a `for_each` that are told one by one; of more, every tenth part of them is."""
FAILURES_TOLD = 5
"""Items of a step whose failures are told one by one."""
NAMES_TOLD = 3
REASON_CHARACTERS = 160
OUTPUT_CHARACTERS = 100
TABLE_ROWS = 30
"""Steps that are listed at the end of a run; of more, those that failed."""
CELL_CHARACTERS = 60
NAME_CHARACTERS = 24
GIVEN_CHARACTERS = 600
LINES_SHOWN = 100
"""Lines of a run that are shown unless all are wanted."""

STYLES = {
    "completed": "green",
    "failed": "red",
    "skipped": "yellow",
    "running": "bold blue",
    "stopped": "yellow",
    "waiting": "dim",
}


@dataclass(slots=True)
class StepNarrator:
    """Tells what becomes of the steps of a plan, in few lines where much happens at once."""

    _tenths: dict[str, int] = field(default_factory=dict)
    """Tenths of their items that were told of steps with many."""
    _failures: Counter[tuple[str, bool]] = field(default_factory=Counter)
    """Failures of items, by step, those that are final apart from others."""
    _width: int = 0

    def describe(self, events: Sequence[StepEvent]) -> list[Text]:
        """Return the lines of what has happened together."""
        over = {event.step.id for event in events if isinstance(event, StepEnded)}
        told = [event for event in self._pick_items(events) if not (_is_count(event) and event.step.id in over)]
        if len(told) <= MOST_LINES:
            return [self._describe(event) for event in told]
        return list(self._describe_together(told))

    def _pick_items(self, events: Iterable[StepEvent]) -> Iterator[StepEvent]:
        """Leave out most items of a step that has many."""
        for event in events:
            match event:
                case ItemEnded(step, items=items, reason=reason) if items > SINGLE_ITEMS:
                    tenth = 10 * event.ended // items
                    if reason is not None and self._count_failure(event):
                        yield event
                    if tenth > self._tenths.get(step.id, 0):
                        self._tenths[step.id] = tenth
                        yield replace(event, reason=None)
                case AttemptFailed(index=int()) if not self._count_failure(event):
                    continue
                case _:
                    yield event

    def _count_failure(self, event: ItemEnded | AttemptFailed) -> bool:
        """Count a failure of an item; return whether it is told by itself."""
        kind = (event.step.id, isinstance(event, ItemEnded))
        self._failures[kind] += 1
        return self._failures[kind] <= FAILURES_TOLD

    def _describe_together(self, events: Sequence[StepEvent]) -> Iterator[Text]:
        """Describe many events: a line for those of a kind, and what failed by itself, as far as there is room."""
        ends = [event for event in events if isinstance(event, StepEnded)]
        for status in ("completed", "skipped", "stopped"):
            group = [event for event in ends if event.status == status]
            if len(group) > NAMES_TOLD:
                yield _join_ends(group, status)
            else:
                yield from map(self._describe, group)
        # Of what has ended by now its beginning is no news, nor how far it had come.
        gone = {event.step.id for event in ends}
        counts = {event.step.id: event for event in events if _is_count(event) and event.step.id not in gone}
        yield from map(self._describe, counts.values())
        failures: list[StepEvent] = [event for event in ends if event.status == "failed"]
        failures += [event for event in events if isinstance(event, ItemEnded) and event.reason is not None]
        failures += [event for event in events if isinstance(event, AttemptFailed)]
        yield from map(self._describe, failures[:MOST_LINES])
        if left := failures[MOST_LINES:]:
            yield Text(f"and {quantities.count_noun(len(left), 'more failure')}", style="dim")
        begun = [event for event in events if isinstance(event, StepBegun) and event.step.id not in gone]
        if len(begun) <= NAMES_TOLD:
            yield from map(self._describe, begun)
        else:
            yield Text(f"{quantities.count_noun(len(begun), 'step')} begin: {_list_names(begun)}", style="dim")

    def align(self, steps: Sequence[PlanStep]) -> None:
        """Leave room for the names of all steps of a plan, so that what becomes of them stands below each other."""
        names = [len(step.id) + len("[10]") * (step.for_each is not None) for step in steps]
        self._width = min(max(names, default=0), NAME_CHARACTERS)

    def _name(self, step: PlanStep, index: int | None = None) -> tuple[str, str]:
        name = f"{step.id}{f'[{index}]' if index is not None else ''}"
        return f"{name:<{self._width}}  ", "cyan"

    def _describe(self, event: StepEvent) -> Text:
        match event:
            case StepBegun(step, items):
                many = f"{quantities.count_noun(items, 'item')}, " if items is not None else ""
                return Text.assemble(self._name(step), (f"begins: {many}{_describe_target(step)}", "dim"))
            case AttemptFailed(step, index, attempt, reason):
                told = f"attempt {attempt} of {step.attempts} failed: {_shorten(reason)}"
                return Text.assemble(self._name(step, index), ("is tried again, ", "yellow"), told)
            case ItemEnded():
                return self._describe_item(event)
            case StepEnded():
                return _describe_end(self._name(event.step), event)

    def _describe_item(self, item: ItemEnded) -> Text:
        if _is_count(item):
            failed = f", {item.failed:,} failed" if item.failed else ""
            cost = f", {format_usd(item.cost_usd)}" if item.cost_usd else ""
            return Text.assemble(
                self._name(item.step), (f"{item.ended:,} of {item.items:,} items ended{failed}{cost}", "dim")
            )
        name = self._name(item.step, item.index)
        if item.reason is not None:
            return Text.assemble(name, ("failed: ", "red"), _shorten(item.reason))
        return Text.assemble(name, ("completed", "green"), *_write_output(item.output))


def _is_count(event: StepEvent) -> bool:
    return isinstance(event, ItemEnded) and event.items > SINGLE_ITEMS and event.reason is None


def _describe_end(name: tuple[str, str], end: StepEnded) -> Text:
    facts = [
        f"{end.completed:,} of {quantities.count_noun(end.items, 'item')}" if end.items is not None else "",
        f"{end.failed:,} failed" if end.failed and end.items is not None else "",
        quantities.count_noun(end.attempts, "attempt") if end.attempts > max(end.items or 0, 1) else "",
        format_usd(end.cost_usd) if end.cost_usd else "",
    ]
    told = ", ".join(filter(None, facts))
    head = Text.assemble(name, (end.status, STYLES[end.status]), (f" ({told})" if told else "", "dim"))
    if end.reason is not None:
        return Text.assemble(head, f": {_shorten(end.reason)}")
    return Text.assemble(head, *_write_output(end.output))


def _join_ends(ends: Sequence[StepEnded], status: str) -> Text:
    cost = sum((end.cost_usd for end in ends), Decimal(0))
    told = f"{f', {format_usd(cost)}' if cost else ''}"
    reason = f"; {ends[0].step.id}: {_shorten(ends[0].reason)}" if ends[0].reason is not None else ""
    counted = quantities.count_noun(len(ends), "step")
    return Text.assemble(f"{counted} ", (status, STYLES[status]), f": {_list_names(ends)}{told}{reason}")


def _list_names(events: Sequence[StepBegun | StepEnded]) -> str:
    names = [event.step.id for event in events]
    more = f" and {len(names) - NAMES_TOLD:,} more" if len(names) > NAMES_TOLD else ""
    return f"{', '.join(names[:NAMES_TOLD])}{more}"


def _describe_target(step: PlanStep) -> str:
    kind = "agent" if step.agent is not None else "tool" if step.tool is not None else "plan"
    return f"{kind} {step.target}"


def _write_output(output: str) -> list[str | tuple[str, str]]:
    text = " ".join(output.split())
    return [(" → ", "dim"), wording.shorten(text, OUTPUT_CHARACTERS)] if text else []


def _shorten(reason: str) -> str:
    return wording.shorten(" ".join(reason.split()), REASON_CHARACTERS)


def print_given(out: Output, given: JsonValue, *, full: bool) -> None:
    """Print what a plan was asked."""
    if given is not None:
        text = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
        out.print("", Text("asked", style="bold"), f"  {text if full else wording.shorten(text, GIVEN_CHARACTERS)}")


def print_lines(out: Output, lines: Sequence[Text], *, full: bool) -> None:
    """Print what became of the steps of a plan, oldest first; of very much its beginning and its end."""
    out.print("", Text("steps", style="bold"))
    kept = LINES_SHOWN // 2
    if full or len(lines) <= LINES_SHOWN:
        shown = list(lines)
    else:
        left = Text(f"[… {len(lines) - LINES_SHOWN:,} more lines, see --full]", style="dim")
        shown = [*lines[:kept], left, *lines[-kept:]]
    for line in shown:
        out.print(Text("  ") + line)


def print_steps(out: Output, steps: Sequence[StepResult], *, note: str = "") -> None:
    """Print how each step went at the end of a run; of many, how many there are of each status, and what failed."""
    counts = Counter[str](step.status for step in steps)
    summary = ", ".join(f"{counts[status]:,} {status}" for status in STYLES if counts[status])
    out.print(Text.assemble(("Steps       ", "dim"), summary, note))
    listed = list(_pick_rows(steps)) if len(steps) > TABLE_ROWS else steps
    columns = zip(*_list_rows(listed), strict=True)
    filled = [column for column in columns if any(str(cell) for cell in column)]
    print_table(out, list(zip(*filled, strict=True)), indent=2)
    left = len(steps) - counts["completed"] - len(listed)
    if left > 0:
        out.print(Text(f"  and {left:,} more that did not end well", style="dim"))


def _pick_rows(steps: Iterable[StepResult]) -> Iterator[StepResult]:
    """Yield those that failed, as far as there is room, and the first of those that did not end well otherwise."""
    seen = Counter[str]()
    for step in steps:
        seen[step.status] += 1
        room = TABLE_ROWS if step.status == "failed" else NAMES_TOLD
        if step.status != "completed" and seen[step.status] <= room:
            yield step


def _list_rows(steps: Iterable[StepResult]) -> list[tuple[str | Text, ...]]:
    """Return a row for each step: its name, status, items, attempts, cost, and why it ended so."""
    return [
        (
            Text(step.id, style="cyan"),
            Text(step.status, STYLES[step.status]),
            f"{step.completed}/{step.items}" if step.items is not None else "",
            quantities.count_noun(step.attempts, "attempt") if step.attempts > max(step.items or 0, 1) else "",
            format_usd(Decimal(step.cost_usd)) if Decimal(step.cost_usd) else "",
            Text(wording.shorten(step.reason or "", CELL_CHARACTERS)),
        )
        for step in steps
    ]
