"""Requests of the demo's run: told to people, and answered from this terminal or, with `--yes`, by the demo itself."""

import asyncio
import dataclasses
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

from mandate.workers.cli import prompts, request_text, shell_commands
from mandate.workers.cli.connection import Connection
from mandate.workers.cli.errors import ENDED_OTHERWISE, CliError
from mandate.workers.cli.paragraphs import Lines
from mandate.workers.cli.prompts import Answer
from mandate.workers.client import messages
from mandate.workers.demo.report import Facts
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


@dataclass(slots=True)
class Requests:
    """The requests of one run; `person` is who answers at this terminal, or whom `--yes` stands for."""

    connection: Connection
    lines: Lines
    facts: Facts
    program: str
    person: str
    shop: Path
    _unanswered: asyncio.Queue[tuple[Request, Answer]] = field(default_factory=asyncio.Queue)
    _open: tuple[Request, ...] = ()
    _waiting: prompts.Waiting = field(default_factory=prompts.Waiting)

    def hear(self, happening: Happening, history: RunHistory) -> None:
        """Say what is asked, how to answer, and what was answered."""
        match happening:
            case RequestOpened(_, request, "asked"):
                self.facts.requests.append(request)
                is_asked = request.kind == "outcome"
                evidence = read_books(self.shop).evidence(request.tool, request.arguments) if is_asked else None
                self._ask(request, evidence)
                self._unanswered.put_nowait((request, unattended(request, evidence)))
            case MessageReceived(_, line, counts):
                self.lines.paragraph(line, "green" if counts else "red")
        self.wait_for(*history.parked.requests.values())

    def wait_for(self, *requests: Request) -> None:
        """Show that answers to `requests` are waited for; without any, that nothing is."""
        if requests != self._open:
            names = ", ".join(dict.fromkeys(name for request in requests for name in request.waits_for))
            hint = f"; type your answer ({prompts.short_keys(requests[0])})" if requests and self._has_keyboard else ""
            self._waiting.show(self.lines.out.screen, f"waiting for {names}{hint}" if requests else None)
            if hint and self.lines.out.screen is None:
                self.lines.paragraph(f"waiting for {names}{hint}", "dim")
        self._open = requests

    async def answer(self) -> None:
        """Answer with `--yes`, or as the person here types it; raise `CliError` where `--yes` does not count."""
        while self.facts.is_unattended:
            request, answer = await self._unanswered.get()
            if refusal := await self._decide(request, answer):
                raise CliError(f"--yes could not answer {request.id}: {refusal}", ENDED_OTHERWISE)
        if not self._has_keyboard:
            return
        async for line in prompts.read_lines():
            if self._open and line:
                request = self._open[0]
                typed = prompts.typed(request, line)
                refusal = await self._decide(request, typed) if typed else f"{line!r} is not {prompts.keys(request)}"
                if refusal:
                    self.lines.paragraph(refusal, "red")

    async def _decide(self, request: Request, answer: Answer) -> str | None:
        """Send the answer; return why it does not count."""
        fields = dataclasses.asdict(answer)
        decision = Decision(request=request.id, digest=request.digest, by=self.person, **fields)
        try:
            await messages.decide(self.connection.client, self.facts.workflow_id, decision)
        except messages.MessageError as error:
            return str(error)
        return None

    @property
    def _has_keyboard(self) -> bool:
        out = self.lines.out
        return out.has_terminal and not out.as_json and not self.facts.is_unattended and prompts.is_attended()

    def _ask(self, request: Request, evidence: Evidence | None) -> None:
        """Tell what a person should know, and the commands that answer."""
        rows = {
            "asked": request.question or request.title,
            "why": request.reason,
            "of": f"{request_text.waits_for(request)}; in this demo that is you, {self.person}",
            "until": f"{decisions.format_time(request.expires_at)}; then {decisions.describe_expiry(request)}",
            "look": evidence.says if evidence is not None else "",
        }
        for name, value in rows.items():
            if value:
                self.lines.paragraph(f"{name:<8}{value}", "bold yellow" if name == "asked" else "yellow", hang=8)
        tell, (ours, temporal) = self.lines.paragraph, self._commands(request)
        if self.facts.is_unattended:
            tell("Answered by this command itself, since it was called with --yes. A person would type:")
            self.lines.command(ours[unattended(request, evidence).choice])
            return
        here = f"here with {prompts.keys(request)} and Enter, or " if self._has_keyboard else ""
        tell(f"The run waits until somebody answers, {here}from another terminal in this folder:")
        for command in ours.values():
            self.lines.command(command)
        choose = "" if request.kind == "approval" else "choose "
        tell(f"Or with Temporal's own CLI, for example to {choose}{request.choices[0]}:")
        self.lines.command(temporal)
        if (url := self.connection.run_url(self.facts.workflow_id)) is not None:
            tell("Or in the Web UI, by More Actions, Send an Update, with the data that tab User Metadata shows:")
            self.lines.print(f"  {url}")

    def _commands(self, request: Request) -> tuple[dict[str, str], str]:
        """Return our commands by choice, and Temporal's for the first; they work in any shell in this folder."""
        connection = self.connection
        ways = request_text.ways(connection.anywhere(), self.facts.workflow_id, request, program=self.program)
        ours = {way.choice: f"{way.mandate} --by {shlex.quote(self.person)}" for way in ways}
        temporal = ways[0].temporal.replace("temporal", shell_commands.temporal(connection.temporal_binary), 1)
        is_word = re.fullmatch(r"[\w.@+:/-]+", self.person)
        return ours, temporal.replace(YOUR_NAME, self.person) if is_word else temporal
