"""Requests of the demo's run: told to people, and answered from this terminal or, with `--yes`, by the demo itself."""

import asyncio
import dataclasses
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mandate.workers.cli import keyboard, request_text
from mandate.workers.cli.connection import Connection
from mandate.workers.cli.errors import ENDED_OTHERWISE, CliError
from mandate.workers.client import messages
from mandate.workers.demo import commands
from mandate.workers.demo.books import Evidence, read_books
from mandate.workers.demo.narration import Lines
from mandate.workers.demo.report import Facts
from mandate.workers.history.events import Happening, MessageReceived, RequestOpened
from mandate.workers.history.run_history import RunHistory
from mandate.workflows.contracts.request import REJECT, Decision, Request, RequestKind
from mandate.workflows.rules import decisions
from mandate.workflows.rules.commands import YOUR_NAME
from rich.status import Status
from rich.text import Text

YES_COMMENT = "mandate demo --yes: no person has looked at it"
YES_LOOKED = "mandate demo --yes: by what the shop's books say"
YES_ANSWER = "Nobody is here to answer. Do what the rules say, and leave what they do not say."

_KEYS: Mapping[RequestKind, Mapping[str, str]] = {
    "approval": {"y": "approve", "yes": "approve", "n": REJECT, "no": REJECT},
    "outcome": {"y": "happened", "yes": "happened", "n": "not_happened", "no": "not_happened"},
}
_PROMPTS = {"question": "any text", "approval": "y or n", "outcome": "y (it happened), n (it did not) or stop"}
_WITH_VALUE = ("answer", "supply")
"""Choices that need more than to be made."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A choice, and what goes with it."""

    choice: str
    value: str | None = None
    comment: str = ""


def keys(request: Request) -> str:
    """Return what can be typed here: `y or n`."""
    choices = (choice for choice in request.choices if choice not in _WITH_VALUE)
    return _PROMPTS.get(request.kind) or " or ".join(choices)


def typed(request: Request, line: str) -> Answer | None:
    """Return the answer that a typed line means; `None` when it is none of `keys`."""
    if request.kind == "question":
        return Answer("answer", line)
    choice = _KEYS.get(request.kind, {}).get(line.lower(), line.lower())
    return Answer(choice) if choice in request.choices and choice not in _WITH_VALUE else None


def unattended(request: Request, evidence: Evidence | None) -> Answer:
    """Return the answer of `--yes`; of what happened, the truth, and where it is not known, no guess."""
    match request.kind:
        case "question":
            return Answer(request.choices[0], YES_ANSWER, YES_COMMENT)
        case "approval":
            return Answer(request.choices[0], comment=YES_COMMENT)
        case "outcome" if evidence is not None:
            happened = Answer("happened", evidence.returned, YES_LOOKED)
            return happened if evidence.is_done else Answer("not_happened", comment=YES_LOOKED)
    return Answer(request.choices[-1], comment=YES_COMMENT)


@dataclass(slots=True)
class Requests:
    """The requests of one run; `person` is who answers at this terminal, or whom `--yes` stands for."""

    connection: Connection
    lines: Lines
    facts: Facts
    workflow_id: str
    program: str
    person: str
    shop: Path
    _unanswered: asyncio.Queue[Request] = field(default_factory=asyncio.Queue)
    _open: tuple[Request, ...] = ()
    _status: Status | None = None

    def hear(self, happening: Happening, history: RunHistory) -> None:
        """Say what is asked, how to answer, and what was answered."""
        match happening:
            case RequestOpened(_, request, "asked"):
                self.facts.requests.append(request)
                self._ask(request)
                self._unanswered.put_nowait(request)
            case MessageReceived(_, line, counts):
                self.lines.paragraph(line, "green" if counts else "red")
        self.wait_for(*history.parked.requests.values())

    def wait_for(self, *requests: Request) -> None:
        """Show that answers to `requests` are waited for; without any, that nothing is."""
        self._open = requests
        if requests and self._status is None and (screen := self.lines.out.screen) is not None:
            names = ", ".join(dict.fromkeys(name for request in requests for name in request.waits_for))
            hint = "; type your answer" if self._has_keyboard else ""
            self._status = screen.status(Text(f"waiting for {names}{hint}", style="dim"))
            self._status.start()
        elif not requests and self._status is not None:
            self._status.stop()
            self._status = None

    async def answer(self) -> None:
        """Answer with `--yes`, or as the person here types it.

        Raises:
            CliError: an answer of `--yes` does not count.
        """
        while self.facts.is_unattended:
            request = await self._unanswered.get()
            if refusal := await self._decide(request, unattended(request, self._evidence(request))):
                raise CliError(f"--yes could not answer {request.id}: {refusal}", ENDED_OTHERWISE)
        if not self._has_keyboard:
            return
        async for line in keyboard.read_lines():
            if self._open and line:
                request = self._open[0]
                answer = typed(request, line)
                refusal = await self._decide(request, answer) if answer else f"{line!r} is not {keys(request)}"
                if refusal:
                    self.lines.paragraph(refusal, "red")

    async def _decide(self, request: Request, answer: Answer) -> str | None:
        """Send the answer; return why it does not count."""
        fields = dataclasses.asdict(answer)
        decision = Decision(request=request.id, digest=request.digest, by=self.person, **fields)
        try:
            await messages.decide(self.connection.client, self.workflow_id, decision)
        except messages.MessageError as error:
            return str(error)
        return None

    @property
    def _has_keyboard(self) -> bool:
        out = self.lines.out
        return out.live and not out.as_json and not self.facts.is_unattended and keyboard.is_attended()

    def _evidence(self, request: Request) -> Evidence | None:
        """Return what the shop's books tell a person who is asked whether a call has happened."""
        is_asked = request.kind == "outcome"
        return read_books(self.shop).evidence(request.tool, request.arguments) if is_asked else None

    def _ask(self, request: Request) -> None:
        """Tell what a person should know, and the commands that answer."""
        evidence = self._evidence(request)
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
        ours, temporal = self._commands(request)
        if self.facts.is_unattended:
            said = "Answered by this command itself, since it was called with --yes. A person would type:"
            self.lines.paragraph(said)
            self.lines.command(ours[unattended(request, evidence).choice])
            return
        here = f"here with {keys(request)} and Enter, or " if self._has_keyboard else ""
        self.lines.paragraph(f"The run waits until somebody answers, {here}from another terminal in this folder:")
        for command in ours.values():
            self.lines.command(command)
        choose = "" if request.kind == "approval" else "choose "
        self.lines.paragraph(f"Or with Temporal's own CLI, for example to {choose}{request.choices[0]}:")
        self.lines.command(temporal)
        if (url := self.connection.run_url(self.workflow_id)) is not None:
            self.lines.paragraph("Or in the Web UI, by More Actions, Send an Update; tab User Metadata:")
            self.lines.print(f"  {url}")

    def _commands(self, request: Request) -> tuple[dict[str, str], str]:
        """Return our commands by choice, and Temporal's for the first; they work in any shell in this folder."""
        connection = self.connection
        options = connection.temporal_options
        if "--address" not in options:
            options = f" --address {shlex.quote(connection.address)}{options}"
        elsewhere = dataclasses.replace(connection, options=options, temporal_options=options)
        ways = request_text.ways(elsewhere, self.workflow_id, request, program=self.program)
        ours = {way.choice: f"{way.mandate} --by {shlex.quote(self.person)}" for way in ways}
        binary = connection.server.binary if connection.server is not None else None
        temporal = ways[0].temporal.replace("temporal", commands.temporal(binary), 1)
        is_word = re.fullmatch(r"[\w.@+:/-]+", self.person)
        return ours, temporal.replace(YOUR_NAME, self.person) if is_word else temporal
