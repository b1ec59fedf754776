"""Requests of the demo's run: printed, waited for with a spinner, and answered from here if that is wished."""

import asyncio
import contextlib
import dataclasses
import os
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mandate.workers.cli import request_text
from mandate.workers.cli.connection import Connection
from mandate.workers.cli.errors import ENDED_OTHERWISE, CliError
from mandate.workers.cli.output import Output
from mandate.workers.client import inbox, messages
from mandate.workers.demo import answers, commands
from mandate.workers.demo.answers import Answer
from mandate.workers.demo.books import Evidence, read_books
from mandate.workers.demo.narration import Voice
from mandate.workers.history.events import Happening, MessageReceived, RequestOpened
from mandate.workers.history.run_history import RunHistory
from mandate.workflows.contracts.request import Closed, Decision, Request
from mandate.workflows.rules import commands as rules_commands
from mandate.workflows.rules import decisions
from rich.status import Status
from rich.text import Text


@dataclass(frozen=True, slots=True)
class Settled:
    """One request, and what became of it."""

    request: Request
    closed: Closed | None
    """`None` when nobody could be asked how it ended."""
    unattended: bool
    """It was answered by `--yes`."""


class Desk:
    """Desk where the requests of one run are answered; `by` is the person at this terminal.

    Args:
        connection: to the server of the run.
        out: of the command.
        voice: tells the story, of which the requests are a part.
        workflow_id: of the run.
        program: how one calls us in this shell.
        by: under whose name is answered from here.
        answers_itself: answer everything at once, as that person, without anybody looking.
        shop: whose books say what happened.
    """

    def __init__(
        self,
        connection: Connection,
        out: Output,
        voice: Voice,
        *,
        workflow_id: str,
        program: str,
        by: str,
        answers_itself: bool,
        shop: Path,
    ) -> None:
        self.requests: list[Request] = []
        """All that were made, in that order."""
        self._connection = connection
        self._out = out
        self._voice = voice
        self._workflow_id = workflow_id
        self._program = program
        self._by = by
        self._answers_itself = answers_itself
        self._shop = shop
        self._keyboard = not answers_itself and _is_attended(out)
        self._made: asyncio.Queue[Request] = asyncio.Queue()
        self._open: tuple[Request, ...] = ()
        self._status: Status | None = None

    def hear(self, happening: Happening, chronicle: RunHistory) -> None:
        """Say what is asked, and how to answer, and what was answered."""
        match happening:
            case RequestOpened(_, request, "asked"):
                self.requests.append(request)
                self._voice.ask(self._asked(request))
                self._made.put_nowait(request)
            case MessageReceived(_, line, counts):
                self._voice.answer(line, counts=counts)
        self._open = tuple(chronicle.parked.requests.values())
        self._spin()

    async def attend(self) -> None:
        """Answer from here, as far as that is wished.

        Raises:
            CliError: an answer that should be given without a person does not count.
        """
        if self._answers_itself:
            while True:
                request = await self._made.get()
                decision = self._decision(request, answers.unattended(request, self._evidence(request)))
                try:
                    await messages.decide(self._connection.client, self._workflow_id, decision)
                except messages.MessageError as error:
                    raise CliError(f"--yes could not answer {request.id}: {error}", ENDED_OTHERWISE) from None
        elif self._keyboard:
            with _typed() as lines:
                while True:
                    await self._hear_person((await lines.get()).strip())

    def close(self) -> None:
        """Close the desk: nothing is waited for any more."""
        self._open = ()
        self._spin()

    async def settled(self) -> tuple[Settled, ...]:
        """Return the outcomes of the requests, while a worker can still be asked."""
        if not self.requests:
            return ()
        closed: dict[str, Closed] = {}
        with contextlib.suppress(inbox.NotAnswering, inbox.Unknown):
            told = await inbox.open_requests(self._connection.client, self._workflow_id)
            closed = {one.id: one for one in told.closed}
        return tuple(Settled(request, closed.get(request.id), self._answers_itself) for request in self.requests)

    async def _hear_person(self, said: str) -> None:
        """Wait for one line that is typed here: the answer to the oldest open request."""
        if not self._open or not said:
            return
        request = self._open[0]
        answer = answers.typed(request, said)
        if answer is None:
            self._voice.answer(f"{said!r} is not {answers.keys(request)}", counts=False)
            return
        try:
            await messages.decide(self._connection.client, self._workflow_id, self._decision(request, answer))
        except messages.MessageError as error:
            self._voice.answer(str(error), counts=False)

    def _decision(self, request: Request, answer: Answer) -> Decision:
        return Decision(request=request.id, digest=request.digest, by=self._by, **dataclasses.asdict(answer))

    def _evidence(self, request: Request) -> Evidence | None:
        """Return the finding in the shop's books of a person who is asked whether a call has happened."""
        if request.kind != "outcome":
            return None
        return read_books(self._shop).evidence(request.tool, request.arguments)

    def _asked(self, request: Request) -> list[tuple[str, str]]:
        """Return the facts for a person, by headings; those without one, as commands, have lines of their own."""
        rows = [
            ("asked", request.question or request.title),
            ("why", request.reason),
            ("of", f"{request_text.waits_for(request)}; in this demo that is you, {self._by}"),
            ("until", f"{decisions.format_time(request.expires_at)}; then {decisions.describe_expiry(request)}"),
        ]
        evidence = self._evidence(request)
        if evidence is not None:
            rows.append(("look", evidence.says))
        ways = self._ways(request)
        if self._answers_itself:
            chosen = answers.unattended(request, evidence).choice
            first = "Answered by this command itself, since it was called with --yes. A person would type:"
            return [*rows, ("", first), *(("", self._broken(way.mandate)) for way in ways if way.choice == chosen)]
        here = f"here with {answers.keys(request)} and Enter, or " if self._keyboard else ""
        rows.append(("", f"The run waits until somebody answers, {here}from another terminal in this folder:"))
        rows += [("", self._broken(way.mandate)) for way in ways]
        choose = ways[0].choice if request.kind == "approval" else f"choose {ways[0].choice}"
        rows.append(("", f"Or with Temporal's own CLI, for example to {choose}:"))
        rows.append(("", self._broken(ways[0].temporal)))
        if (url := self._connection.run_url(self._workflow_id)) is not None:
            rows += [("", "Or in the Web UI, by More Actions, Send an Update; tab User Metadata:"), ("", f"  {url}")]
        return rows

    def _ways(self, request: Request) -> list[rules_commands.Way]:
        """Return the commands that work as they stand, in any shell that is in this folder."""
        connection = self._connection
        options = connection.temporal_options
        if "--address" not in options:
            options = f" --address {shlex.quote(connection.address)}{options}"
        elsewhere = dataclasses.replace(connection, options=options, temporal_options=options)
        binary = commands.temporal(connection.server.binary if connection.server is not None else None)
        return [
            dataclasses.replace(
                way,
                mandate=f"{way.mandate} --by {shlex.quote(self._by)}",
                temporal=self._signed(way.temporal.replace("temporal", binary, 1)),
            )
            for way in request_text.ways(elsewhere, self._workflow_id, request, program=self._program)
        ]

    def _signed(self, command: str) -> str:
        """Return `command` with the person's name where it goes, unless that needs more than to be put there."""
        return (
            command.replace(rules_commands.YOUR_NAME, self._by) if re.fullmatch(r"[\w.@+:/-]+", self._by) else command
        )

    def _broken(self, command: str) -> str:
        return commands.broken(command, self._voice.columns)

    def _spin(self) -> None:
        if self._open and self._status is None and (screen := self._out.screen) is not None:
            names = dict.fromkeys(name for request in self._open for name in request.waits_for)
            keys = "; type your answer" if self._keyboard else ""
            self._status = screen.status(Text(f"waiting for {', '.join(names)}{keys}", style="dim"))
            self._status.start()
        elif not self._open and self._status is not None:
            self._status.stop()
            self._status = None


def _is_attended(out: Output) -> bool:
    """Return whether a person can type here; a process in the background would be stopped for reading."""
    if out.as_json or not out.live or not sys.stdin.isatty():
        return False
    with contextlib.suppress(OSError):
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    return False


@contextlib.contextmanager
def _typed() -> Iterator[asyncio.Queue[str]]:
    """Yield the lines that are typed from here on."""
    lines: asyncio.Queue[str] = asyncio.Queue()
    loop, stdin = asyncio.get_running_loop(), sys.stdin.fileno()

    def read() -> None:
        said = b""
        with contextlib.suppress(OSError):
            said = os.read(stdin, 4096)
        if not said:
            loop.remove_reader(stdin)
        for line in said.decode(errors="replace").splitlines():
            lines.put_nowait(line)

    loop.add_reader(stdin, read)
    try:
        yield lines
    finally:
        loop.remove_reader(stdin)
