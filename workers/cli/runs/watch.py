"""Lines of a run while it goes on: one a step, from Temporal's history, which needs no worker."""

import asyncio
import shlex
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import assert_never

from rich.status import Status
from rich.text import Text
from temporalio.service import RPCError

from mandate.workers.cli.connection import Connection
from mandate.workers.cli.output import Output
from mandate.workers.cli.plans.live import LiveSteps
from mandate.workers.cli.requests import text as request_text
from mandate.workers.cli.runs import live_text
from mandate.workers.cli.unserved import find_waiting
from mandate.workers.client.diagnosis import RETRY_CHARACTERS, diagnose_described, find_retry
from mandate.workers.client.streams import StreamEvent
from mandate.workers.history.events import (
    Call,
    CallProbed,
    CallReturned,
    CallStarted,
    Happening,
    MessageReceived,
    ModelAnswered,
    ModelAsked,
    RequestOpened,
    ResultChecked,
    RunEnded,
)
from mandate.workers.history.run_history import RunHistory
from mandate.workers.history.stream import unfolding
from mandate.workflows.contracts.plan import StepResult
from mandate.workflows.contracts.request import Request
from mandate.workflows.rules import routing, wording

QUIET_SECONDS = 2.0
"""After so long without news it is looked up why."""
LOOK_SECONDS = 5.0
PREVIEW_CHARACTERS = 80
"""So much of what a model says beside its calls is in the history."""
LINE_CHARACTERS = 160
TAIL_CHARACTERS = 100
"""Of the text that comes, on the line of the spinner."""
SPINNER_CHARACTERS = 100
"""Of a failure beside the spinner."""
HINT_SECONDS = 0.7
"""After so long without news people are told how to answer what is open: what is told of the past is answered."""
HINTS = 5
"""Of so many requests at once it is said how each is answered."""

_STYLES = {"done": "green", "failed": "red", "refused": "yellow", "misfit": "yellow", "unknown": "bold red"}


@dataclass(frozen=True, slots=True)
class Followed:
    """A run that was followed to its end."""

    ended: RunEnded
    version: str | None = None
    """Of its agent or plan."""
    steps: Sequence[StepResult] = ()
    """Of a plan whose steps could be read."""


async def follow(
    connection: Connection, out: Output, workflow_id: str, run_id: str | None, *, program: str = "mandate"
) -> Followed:
    """Follow the run to its end, continued runs included; return how it ended.

    Say on `out` what happens, nothing with `-o json`.

    Raises:
        RPCError: there is no such run, or Temporal does not answer any more.
    """
    watcher = _Watcher(connection, out, workflow_id, program)
    async with AsyncExitStack() as stack:
        if out.live:
            await stack.enter_async_context(live_text.reading_along(connection, workflow_id, watcher.read))
        await stack.enter_async_context(watcher.looking())
        await stack.enter_async_context(watcher.steps)
        async for history, happened in unfolding(connection.client, workflow_id, run_id):
            if not out.as_json:
                await watcher.steps.hear(history)
            watcher.hear(history, happened)
    known = watcher.history
    ended = known.ended if known is not None else None
    pin = known.pin if known is not None else None
    return Followed(
        ended or RunEnded("failed", "its history has no end"),
        pin.version if pin is not None else None,
        watcher.steps.list_results(),
    )


@dataclass(slots=True)
class _Watcher:
    connection: Connection
    out: Output
    workflow_id: str
    program: str
    history: RunHistory | None = None
    heard_at: float = field(default_factory=time.monotonic)
    warned: set[str] = field(default_factory=set)
    """Troubles that were told."""
    hinted: set[str] = field(default_factory=set)
    """Requests of which it was said how they are answered."""
    text: str = ""
    """What the model has said so far of the answer that it gives."""
    steps: LiveSteps = field(init=False)
    _status: Status | None = None
    _is_version_told: bool = False

    def __post_init__(self) -> None:
        self.steps = LiveSteps(self.connection, self.out.print, self.out.note)

    def hear(self, history: RunHistory, happened: Sequence[Happening]) -> None:
        self.history = history
        self._tell_version(history)
        for happening in happened:
            self._tell(happening)
        self.heard_at = time.monotonic()
        self._show(history.doing)

    def _tell_version(self, history: RunHistory) -> None:
        """Say once which version the run got: workers may serve several."""
        if history.pin is not None and not self._is_version_told:
            self._is_version_told = True
            if not self.out.as_json:
                self.out.note(
                    f"{'plan' if history.is_plan else 'agent'} {history.pin.name} version {history.pin.version}"
                )
                if limits := history.budget.describe_asked():
                    self.out.note(f"limited to {limits}")

    @asynccontextmanager
    async def looking(self) -> AsyncIterator[None]:
        """Wait with a spinner where somebody watches, and an eye on runs that do not go on."""
        if (screen := self.out.screen) is not None:
            self._status = screen.status(Text("starting"))
            self._status.start()
        lookers = [asyncio.create_task(self._look()), asyncio.create_task(self._hint())]
        try:
            yield
        finally:
            for looker in lookers:
                looker.cancel()
            if self._status is not None:
                self._status.stop()

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(max(QUIET_SECONDS - (time.monotonic() - self.heard_at), 0.1))
            if time.monotonic() - self.heard_at < QUIET_SECONDS:
                continue
            with suppress(RPCError):
                self._show(await self._trouble() or (self.history.doing if self.history else ""))
            await asyncio.sleep(LOOK_SECONDS)

    async def _trouble(self) -> str | None:
        """Return why the run does not go on; told once where a person must do something about it."""
        client = self.connection.client
        described = (await client.get_workflow_handle(self.workflow_id).describe()).raw_description
        if (diagnosis := await diagnose_described(client, described)) is not None:
            self._warn(diagnosis.cause, diagnosis.sentence)
            return diagnosis.sentence
        if (found := await find_waiting(client, described)) is not None:
            queue, waits = found
            self._warn("waits", f"{waits}{self.connection.advise_worker(self.program, queue)}")
            return waits
        if (attempt := described.pending_workflow_task.attempt) > 1:
            return f"its workflow task fails, attempt {attempt}; see the log of the worker"
        if (retry := find_retry(described)) is None:
            return None
        if retry.is_mended_by_people:
            reason = wording.shorten(retry.failure, RETRY_CHARACTERS)
            self._warn(retry.failure, f"{retry.activity} fails and is tried again: {reason}")
        return retry.describe(SPINNER_CHARACTERS)

    def _warn(self, kind: str, line: str) -> None:
        if kind not in self.warned:
            self.warned.add(kind)
            self.out.note(line)

    def read(self, event: StreamEvent) -> None:
        """Show the end of what the model says, where somebody watches."""
        self.text = self.text + event.text if event.kind == "text" else ""
        if self.text:
            self._show(f"… {' '.join(self.text[-TAIL_CHARACTERS:].split())}")

    def _show(self, doing: str) -> None:
        if self._status is not None:
            self._status.update(Text(doing or "working", style="dim"))

    def _tell(self, happening: Happening) -> None:
        match happening:
            case ModelAsked(step, _, model, why) if why and why != routing.FIRST:
                self._line(step, Text(wording.shorten(f"asks {model}: {why}", 2 * LINE_CHARACTERS), style="dim"))
            case ModelAsked() | CallStarted() | CallProbed() | ResultChecked() | RunEnded():
                return
            case ModelAnswered(step, text, note, final):
                is_told = self.history is not None and self.history.is_session
                whole = (
                    "answers"
                    if final and note is None and not is_told
                    else text + "…" * (len(text) == PREVIEW_CHARACTERS)
                )
                self._line(step, Text(wording.shorten(whole, LINE_CHARACTERS)) if whole.strip() else None)
                if note is not None:
                    self._line(step, Text(wording.shorten(note, LINE_CHARACTERS), style="yellow"))
            case CallReturned(_, call) if self._is_plan:
                self.steps.tell_call(call_line(call))
            case CallReturned(step, call):
                self._line(step, call_line(call))
            case RequestOpened(step):
                self._person(step, Text(happening.line, style="bold yellow"))
            case MessageReceived(step, line, counts):
                self._person(step, Text(wording.shorten(line, 2 * LINE_CHARACTERS), style="" if counts else "yellow"))
            case _:
                assert_never(happening)

    async def _hint(self) -> None:
        """Say how requests that stay open can be answered, each once."""
        while True:
            await asyncio.sleep(max(HINT_SECONDS - (time.monotonic() - self.heard_at), 0.1))
            if self.history is None or time.monotonic() - self.heard_at < HINT_SECONDS:
                continue
            fresh = [its for name, its in self.history.parked.requests.items() if name not in self.hinted]
            self.hinted.update(request.id for request in fresh)
            if len(fresh) > HINTS:
                self.out.note(f"{len(fresh)} requests wait; see `{self.program} inbox{self.connection.options}`")
                continue
            for request in fresh:
                self.out.note(self._how(request))

    def _how(self, request: Request) -> str:
        ways = request_text.ways(self.connection, self.workflow_id, request, program=self.program)
        name = shlex.quote(f"{self.workflow_id}:{request.id}")
        answers = "` or `".join(way.mandate for way in ways)
        return f"answer {request.id} with `{answers}`; all of it: `{self.program} show {name}{self.connection.options}`"

    @property
    def _is_plan(self) -> bool:
        return self.history is not None and self.history.is_plan

    def _person(self, step: int, line: Text) -> None:
        """Print questions to people and their words; with `-o json` on stderr, so that a stop is understood."""
        self.steps.flush()
        if self.out.as_json:
            self.out.note(line.plain)
        else:
            self._line(step, line)

    def _line(self, step: int, line: Text | None) -> None:
        if line is None:
            return
        # The steps of a plan have names.
        self.out.print(line if self._is_plan else Text.assemble((f"step {step:<3} ", "dim"), line))


def call_line(call: Call) -> Text:
    """Describe a call and its outcome, in one line."""
    style = _STYLES.get(call.state, "dim")
    if call.state in {"refused", "misfit"} and call.result is not None:
        return Text.assemble(call.line, (" → ", "dim"), (wording.shorten(call.result.text or "", 200), style))
    if call.result is not None and call.result.asking is not None:
        server = call.result.asking.server
        return Text.assemble(call.line, (" → ", "dim"), (f"MCP server {server!r} asks before it goes on", "yellow"))
    result = wording.describe_result(call.result) if call.result is not None else call.state
    return Text.assemble(call.line, (" → ", "dim"), (wording.shorten(result, LINE_CHARACTERS), style))
