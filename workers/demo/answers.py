"""Requests of a demo's runs: told to people, and answered from this terminal or, with `--yes`, by the demo itself."""

import asyncio
import dataclasses
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from mandate.workers.cli import prompts, shell_commands
from mandate.workers.cli.connection import Connection
from mandate.workers.cli.errors import ENDED_OTHERWISE, CliError
from mandate.workers.cli.paragraphs import Lines
from mandate.workers.cli.prompts import Answer
from mandate.workers.cli.requests import text as request_text
from mandate.workers.client import messages
from mandate.workers.examples.shop_books import Evidence, read_books
from mandate.workers.history.events import Happening, MessageReceived, RequestOpened
from mandate.workers.history.run_history import RunHistory
from mandate.workflows.contracts.request import Decision, Request
from mandate.workflows.rules import decisions
from mandate.workflows.rules.commands import YOUR_NAME

YES_COMMENT = "mandate demo --yes: no person has looked at it"
YES_LOOKED = "mandate demo --yes: by what the shop's books say"
YES_ANSWER = "Nobody is here to answer. Do what the rules say, and leave what they do not say."


def unattended(request: Request, evidence: Evidence | None) -> Answer:
    """Return the answer of `--yes`; of what happened, the truth, and where it is not known, no guess."""
    if request.kind == "outcome" and evidence is not None:
        happened = Answer("happened", evidence.returned, YES_LOOKED)
        return happened if evidence.is_done else Answer("not_happened", comment=YES_LOOKED)
    if request.kind == "question" and not request.options:
        return Answer("answer", YES_ANSWER, YES_COMMENT)
    return Answer(request.choices[0 if request.kind == "approval" else -1], comment=YES_COMMENT)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of the run with this workflow id, and the place of that run in its tree; empty where it is alone."""

    run: str
    request: Request
    place: str = ""


@dataclass(slots=True)
class Requests:
    """The requests of a demo's runs; `person` is who answers at this terminal, or whom `--yes` stands for."""

    connection: Connection
    lines: Lines
    program: str
    person: str
    shop: Path
    is_unattended: bool
    asked: list[Asked] = field(default_factory=list)
    _unanswered: asyncio.Queue[tuple[Asked, Answer]] = field(default_factory=asyncio.Queue)
    _open: dict[str, tuple[Asked, ...]] = field(default_factory=dict)
    """By run."""
    _work: str | None = None
    _shown: str | None = None
    _waiting: prompts.Waiting = field(default_factory=prompts.Waiting)

    def hear(self, happening: Happening, history: RunHistory, run: str, place: str = "") -> None:
        """Say what is asked, how to answer, and what was answered."""
        match happening:
            case RequestOpened(_, request, "asked"):
                asked = Asked(run, request, place)
                self.asked.append(asked)
                is_lost = request.kind == "outcome"
                evidence = read_books(self.shop).evidence(request.tool, request.arguments) if is_lost else None
                self._ask(asked, evidence)
                self._unanswered.put_nowait((asked, unattended(request, evidence)))
            case MessageReceived(_, line, counts):
                self.lines.paragraph(f"{place}: {line}" if place else line, "green" if counts else "red")
        self._open[run] = tuple(Asked(run, request, place) for request in history.parked.requests.values())
        self._show()

    def show_work(self, text: str | None) -> None:
        """Show what goes on while no answer is waited for; `None` when nothing does."""
        self._work = text
        self._show()

    def close(self) -> None:
        """Show nothing any more."""
        self._open.clear()
        self.show_work(None)

    def _show(self) -> None:
        """Show whose answers are waited for, or else what goes on."""
        waits = [asked.request for several in self._open.values() for asked in several]
        names = ", ".join(dict.fromkeys(name for request in waits for name in request.waits_for))
        hint = f"; type your answer ({prompts.short_keys(waits[0])})" if waits and self._has_keyboard else ""
        text = f"waiting for {names}{hint}" if waits else self._work
        if text != self._shown:
            self._waiting.show(self.lines.out.screen, text)
            if hint and self.lines.out.screen is None:
                self.lines.paragraph(f"waiting for {names}{hint}", "dim")
        self._shown = text

    async def answer(self) -> None:
        """Answer with `--yes`, or as the person here types it; raise `CliError` where `--yes` does not count."""
        while self.is_unattended:
            asked, answer = await self._unanswered.get()
            if refusal := await self._decide(asked, answer):
                raise CliError(f"--yes could not answer {asked.request.id}: {refusal}", ENDED_OTHERWISE)
        if not self._has_keyboard:
            return
        async for line in prompts.read_lines():
            first = next((asked for several in self._open.values() for asked in several), None)
            if first is not None and line:
                typed = prompts.typed(first.request, line)
                refusal = (
                    await self._decide(first, typed) if typed else f"{line!r} is not {prompts.keys(first.request)}"
                )
                if refusal:
                    self.lines.paragraph(refusal, "red")

    async def _decide(self, asked: Asked, answer: Answer) -> str | None:
        """Send the answer; return why it does not count."""
        request, fields = asked.request, dataclasses.asdict(answer)
        decision = Decision(request=request.id, digest=request.digest, by=self.person, **fields)
        try:
            await messages.decide(self.connection.client, asked.run, decision)
        except messages.MessageError as error:
            return str(error)
        return None

    @property
    def _has_keyboard(self) -> bool:
        out = self.lines.out
        return out.has_terminal and not out.as_json and not self.is_unattended and prompts.is_attended()

    def _ask(self, asked: Asked, evidence: Evidence | None) -> None:
        """Tell what a person should know, and the commands that answer; of a run below others only our own."""
        request = asked.request
        rows = {
            "asked": request.question or request.title,
            "by": asked.place,
            "why": request.reason,
            "of": f"{request_text.waits_for(request)}; in this demo that is you, {self.person}",
            "until": f"{decisions.format_time(request.expires_at)}; then {decisions.describe_expiry(request)}",
            "look": evidence.says if evidence is not None else "",
        }
        for name, value in rows.items():
            if value:
                self.lines.paragraph(f"{name:<8}{value}", "bold yellow" if name == "asked" else "yellow", hang=8)
        tell, (ours, temporal) = self.lines.paragraph, self._commands(asked)
        if self.is_unattended:
            tell("Answered by this command itself, since it was called with --yes. A person would type:")
            self.lines.command(ours[unattended(request, evidence).choice])
            return
        here = f"here with {prompts.keys(request)} and Enter, or " if self._has_keyboard else ""
        tell(f"The run waits until somebody answers, {here}from another terminal in this folder:")
        for command in ours.values():
            self.lines.command(command)
        if asked.place:
            return
        choose = "" if request.kind == "approval" else "choose "
        tell(f"Or with Temporal's own CLI, for example to {choose}{request.choices[0]}:")
        self.lines.command(temporal)
        if (url := self.connection.run_url(asked.run)) is not None:
            tell("Or in the Web UI, by More Actions, Send an Update, with the data that tab User Metadata shows:")
            self.lines.print(f"  {url}")

    def _commands(self, asked: Asked) -> tuple[dict[str, str], str]:
        """Return our commands by choice, and Temporal's for the first; they work in any shell in this folder."""
        connection = self.connection
        ways = request_text.ways(connection.anywhere(), asked.run, asked.request, program=self.program)
        ours = {way.choice: f"{way.mandate} --by {shlex.quote(self.person)}" for way in ways}
        temporal = ways[0].temporal.replace("temporal", shell_commands.temporal(connection.temporal_binary), 1)
        is_word = re.fullmatch(r"[\w.@+:/-]+", self.person)
        return ours, temporal.replace(YOUR_NAME, self.person) if is_word else temporal
