"""Lines of the team's runs while they go on: each with the place of its run in the tree."""

import asyncio
import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError
from rich.text import Text

from mandate.activities.transcript import results
from mandate.activities.transcript.log import TranscriptLog
from mandate.workers.cli.connection import Connection
from mandate.workers.cli.paragraphs import Lines
from mandate.workers.cli.plans.live import LiveSteps
from mandate.workers.demo.answers import Requests
from mandate.workers.demo.team.report import TeamRun
from mandate.workers.history.children import Child
from mandate.workers.history.events import (
    Call,
    CallReturned,
    CallStarted,
    Happening,
    MessageReceived,
    ModelAnswered,
    RequestOpened,
    RunEnded,
)
from mandate.workers.history.run_history import RunHistory
from mandate.workers.history.stream import unfolding
from mandate.workers.run_store import stored
from mandate.workflows.contracts.tool import RUN_PLAN
from mandate.workflows.rules import wording
from mandate.workflows.rules.period_budgets import format_usd
from mandate.workflows.rules.plans import diagram, written

_COLUMNS = 13
"""Of the name of a run at the beginning of its lines."""
_STYLES = ("bold", "cyan", "magenta", "blue")
TASK_CHARACTERS = 160


@dataclass(slots=True)
class TeamNarration:
    """Tells all runs of one tree, and keeps what there is to tell of them, oldest first."""

    connection: Connection
    lines: Lines
    requests: Requests
    runs: list[TeamRun] = field(default_factory=list)
    _speaker: TeamRun | None = None
    """Whose line was printed last."""
    _told: str = ""
    """The call in that line, if it is one."""

    def introduce(self, rows: Mapping[str, str], asked: str) -> None:
        """Say who takes part, where one can watch, and what the manager is asked."""
        self.lines.print("A small coffee shop has a busy morning: three agents work, a manager leads them.\n")
        for name, value in rows.items():
            self.lines.paragraph(f"{name:<8}{value}", indent=2, hang=8)
        self.lines.print("")
        self.lines.paragraph(f"Asked: {asked}", indent=2)
        self.lines.print("")

    def list_runs(self) -> list[TeamRun]:
        """Return all runs, each before those below it, and in the order in which the one above called them."""
        return sorted(self.runs, key=lambda run: [int(number) for number in re.findall(r"\d+", run.place)])

    async def tell(self, run: TeamRun, run_id: str | None) -> None:
        """Tell a run to its end, and those below it as they begin."""
        self.runs.append(run)
        client, known, below = self.connection.client, set[str](), list[asyncio.Task[None]]()
        steps = LiveSteps(
            self.connection,
            lambda line: self._say(run, wording.shorten(line.plain, self._width)),
            lambda line: self._say(run, line),
        )
        try:
            async with steps:
                async for history, happened in unfolding(client, run.workflow_id, run_id):
                    run.history, run.began_at = history, run.began_at or history.at
                    self._note_share(run, history)
                    if not self.lines.out.as_json:
                        await steps.hear(history)
                    for happening in happened:
                        await self._hear(run, happening, history)
                        self._hear_people(run, happening, history)
                    for child in list(history.children.open.values()):
                        if child.is_started and child.workflow_id not in known:
                            known.add(child.workflow_id)
                            below.append(asyncio.create_task(self.tell(self._make(child, history), None)))
                    self._show_work()
            await asyncio.gather(*below)
        finally:
            for task in below:
                task.cancel()

    def _hear_people(self, run: TeamRun, happening: Happening, history: RunHistory) -> None:
        if isinstance(happening, RequestOpened | MessageReceived):
            self._speaker = None
        self.requests.hear(happening, history, run.workflow_id, self._describe_place(run))

    def _describe_place(self, run: TeamRun) -> str:
        """Return the names of a run and of those above it: `manager / c4 run_plan / c4/c1 care`."""
        return " / ".join(one.name for one in self.runs if f"{run.workflow_id}/".startswith(f"{one.workflow_id}/"))

    def _make(self, child: Child, history: RunHistory) -> TeamRun:
        root, call = self.runs[0].workflow_id, history.calls[child.index]
        place = child.workflow_id.removeprefix(f"{root}/")
        arguments = call.request.arguments
        task = arguments.get("task") if isinstance(arguments, dict) else None
        return TeamRun(child.workflow_id, child.agent, place, task if isinstance(task, str) else "")

    def _note_share(self, run: TeamRun, history: RunHistory) -> None:
        """Say what a run may spend, once it is known."""
        limits = history.budget.limits
        if run.share_usd is not None or limits is None or limits.cost_usd is None:
            return
        run.share_usd = limits.cost_usd
        money = f"with {format_usd(run.share_usd)}"
        whole = " for the whole tree" if not run.place else ""
        kind = "a plan" if history.is_plan else ""
        begins = " ".join(filter(None, ("begins", kind, f"{money}{whole}")))
        self._say(run, f"{begins}{f': {wording.shorten(run.task, TASK_CHARACTERS)}' if run.task else ''}", "dim")

    async def _hear(self, run: TeamRun, happening: Happening, history: RunHistory) -> None:
        match happening:
            case ModelAnswered(final=True, text=text):
                run.answer = text
            case ModelAnswered(_, text, note):
                if note is None:
                    self._say(run, await self._read_words(history, text))
                else:
                    self._say(run, _describe_silence(note, history), "dim")
            case CallStarted(_, call) if not history.is_plan:
                self._tell_call(run, call, history)
            case CallReturned(_, call) if call.result is not None and not history.is_plan:
                await self._tell_result(run, call, history)
            case RunEnded(continued_as=None):
                self._end(run, happening, history)
            case _:
                pass

    async def _read_words(self, history: RunHistory, beginning: str) -> str:
        """Return the whole of what a model says beside its calls."""
        if not beginning or history.head is None:
            return beginning
        async with stored(self.connection.settings.store, None) as blobs:
            answer = (await TranscriptLog(blobs).load(history.head)).conversation.last_assistant()
        return answer.text.strip() if answer is not None else beginning

    def _tell_call(self, run: TeamRun, call: Call, history: RunHistory) -> None:
        """Tell a call that begins, and draw a plan; another agent tells by itself that it begins."""
        if call.request.tool == RUN_PLAN:
            with contextlib.suppress(ValidationError):
                drawn = diagram.draw(written.read_plan(call.request.arguments), self._width)
                self._say(run, "\n".join(line for line in drawn.splitlines() if line), "dim")
        elif not _is_below(call, history):
            self._say(run, wording.shorten(call.line, self._width))
            self._told = call.line

    async def _tell_result(self, run: TeamRun, call: Call, history: RunHistory) -> None:
        """Tell what became of a call; a run below tells by itself how it ended."""
        assert call.result is not None
        if call.is_made and _is_below(call, history):
            return
        if not call.is_made:
            run.unmade.append(call)
            self._say(run, wording.shorten(call.line, self._width))
            self._told = call.line
        text = call.result.text or ""
        if call.result.digest is not None:
            async with stored(self.connection.settings.store, None) as blobs:
                text = (await results.load_content(blobs, call.result)).decode(errors="replace")
        is_next = self._speaker is run and self._told == call.line
        head = f"{'✗' if call.result.error else '→'} {'' if is_next else f'{call.request.tool}: '}"
        if call.result.error:
            self._say(run, f"{head}{text}", "yellow")
        else:
            self._say(run, f"{head}{wording.shorten(text, self._width - len(head))}", "dim")

    def _end(self, run: TeamRun, ended: RunEnded, history: RunHistory) -> None:
        run.status, run.reason, run.result, run.ended_at = ended.status, ended.reason, ended.result, history.at
        if not run.place:
            return
        cost = f" ({wording.describe_cost(ended.result.usage)})" if ended.result is not None else ""
        is_well = ended.status == "completed"
        told = run.answer if is_well else ended.reason or ""
        self._say(run, f"{ended.status}{cost}{f': {told}' if told else ''}", "green" if is_well else "red")

    @property
    def _width(self) -> int:
        return self.lines.columns - _COLUMNS

    def _say(self, run: TeamRun, text: str, style: str = "") -> None:
        """Print a text of a run, its name before it; not once more while no other run has said anything."""
        name_style = _STYLES[self.runs.index(run) % len(_STYLES)]
        for line in [line for part in text.splitlines() for line in self.lines.wrap(part, self._width)]:
            name = "" if run is self._speaker else run.name
            self._speaker, self._told = run, ""
            self.lines.out.print(Text.assemble((f"{name:<{_COLUMNS}}", name_style), (line, style)))

    def _show_work(self) -> None:
        """Show which runs are at work, while nobody is waited for."""
        names = [run.name for run in self.runs if run.status == "running" and run.place]
        self.requests.show_work(
            f"at work: {', '.join(names) or 'manager'}" if self.runs[0].status == "running" else None
        )


def _is_below(call: Call, history: RunHistory) -> bool:
    """Return whether a call starts a run of another agent, or of a plan."""
    tool = history.pin.tool(call.request.tool) if history.pin is not None else None
    return tool is not None and tool.child is not None


def _describe_silence(note: str, history: RunHistory) -> str:
    """Say why a model did not answer; a script that does not know how to go on leaves it to the next model."""
    models = history.pin.models if history.pin is not None else ()
    is_script = len(models) > 1 and models[0].startswith("scripted:")
    return "the script has no answer to this: the next model of the route goes on" if is_script else note
