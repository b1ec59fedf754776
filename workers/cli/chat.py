"""`mandate chat`: a session with an agent at the terminal, or from a pipe."""

import asyncio
import contextlib
import secrets
import shlex
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.status import Status
from rich.text import Text
from temporalio.service import RPCError, RPCStatusCode

from mandate.activities import private_files
from mandate.workers.cli import identity, own_worker, prompts
from mandate.workers.cli.connection import Connection, connected, note_start
from mandate.workers.cli.errors import DONE, ENDED_OTHERWISE, CliError
from mandate.workers.cli.options import Invocation, verb
from mandate.workers.cli.requests import text as request_text
from mandate.workers.cli.run import demand_id
from mandate.workers.cli.runs import live_text
from mandate.workers.cli.runs.watch import call_line
from mandate.workers.cli.unserved import note_unserved
from mandate.workers.client import answers, sessions
from mandate.workers.client.answers import NotAnswering, Unknown
from mandate.workers.client.client import AgentClient
from mandate.workers.client.earlier_run import find_earlier_run
from mandate.workers.client.start_requests import new_workflow_id
from mandate.workers.client.streams import StreamEvent
from mandate.workers.client.updates import MessageError, WronglyAsked
from mandate.workers.history.events import CallReturned, Happening, MessageReceived, ModelAnswered, RequestOpened
from mandate.workers.history.run_history import RunHistory
from mandate.workers.history.stream import unfolding
from mandate.workflows.contracts.base import parse_duration
from mandate.workflows.contracts.request import Decision, Request
from mandate.workflows.contracts.session import Reply
from mandate.workflows.rules import wording

HISTORY = "chat.history"
"""File of what was typed, in the folder of the local installation."""

LINE_CHARACTERS = 160

SEEN_SECONDS = 1.0
"""Longest wait for the steps of an answer, so that they stand before it."""

LATER = "later"
"""Typed in place of a choice: somebody else is to make it."""


@verb
async def chat(
    call: Invocation,
    agent: Annotated[
        str | None, typer.Argument(help="Name of an agent file of the workers; with --id, that of the session.")
    ] = None,
    *,
    workflow_id: Annotated[
        str | None, typer.Option("--id", help="Workflow id of the session; one that there was goes on.")
    ] = None,
    requester: Annotated[
        str | None,
        typer.Option(
            help="Who speaks, and so decides on nothing that it asks people; MANDATE_REQUESTER, MANDATE_USER, git's "
            "user.email or user@host if left out."
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(help="Who answers requests in place; MANDATE_USER, git's user.email or user@host if left out."),
    ] = None,
    idle: Annotated[
        str | None, typer.Option(help="How long it waits for another message before its run ends; 30m if left out.")
    ] = None,
    task_queue: Annotated[str | None, typer.Option("--task-queue", "-t", help="Of the workers.")] = None,
) -> int:
    """Talk with an agent; each line is a message. Ctrl-C or Ctrl-D leaves the session, which can be come back to.

    What the run asks people is shown, and can be answered in place. From a pipe each line is a message too, and the
    answers are on stdout; with -o json, each as one JSON object.

    Exit code 0: all was answered. 1: an answer is not complete. 2: it was asked for wrongly.
    """
    if agent is None and workflow_id is None:
        raise CliError("name the agent to talk with, or the session with --id")
    demand_id(workflow_id)
    waits = _read_idle(idle)
    async with connected(call) as connection:
        note_start(call, connection)
        queue = task_queue or connection.settings.task_queue
        named = requester if requester is not None else connection.settings.requester
        who = identity.person(connection.settings, named, option="--requester")
        name = agent or await _find_agent(connection, workflow_id or "")
        if workflow_id is not None:
            try:
                await sessions.check(connection.client, workflow_id, name)
            except MessageError as error:
                raise CliError(str(error)) from None
        session = _Session(
            call=call,
            connection=connection,
            client=AgentClient(connection.client, queue),
            workflow_id=workflow_id or new_workflow_id(name),
            agent=name,
            speaker=who.name,
            decider=identity.person(connection.settings, by, option="--by").name,
            idle=waits,
            queue=queue,
            is_new=workflow_id is None,
        )
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(own_worker.serving(call, connection, queue))
            if session.is_attended and not call.out.as_json:
                await stack.enter_async_context(live_text.reading_along(connection, session.workflow_id, session.read))
            call.out.note(f"session {session.workflow_id} with {name}, as {who}; Ctrl-D leaves it")
            return await session.talk()


def _read_idle(written: str | None) -> timedelta | None:
    if written is None:
        return None
    try:
        length = parse_duration(written)
    except ValueError as error:
        raise CliError(f"--idle {written!r}: {error}") from None
    assert isinstance(length, timedelta)
    if length <= timedelta(0):
        raise CliError(f"--idle {written!r}: must be longer than 0s")
    return length


async def _find_agent(connection: Connection, workflow_id: str) -> str:
    """Return the agent of a session that there was.

    Raises:
        CliError: the server knows no run of this id, or not whose it is.
    """
    found = await find_earlier_run(connection.client, workflow_id)
    if found is None:
        raise CliError(
            f"there is no session {workflow_id!r}; name the agent to begin it: `mandate chat AGENT --id ...`"
        )
    async for history, _ in unfolding(connection.client, workflow_id, found.run_id):
        if history.agent is not None:
            return history.agent
    raise CliError(f"the run {workflow_id!r} does not tell its agent; name it: `mandate chat AGENT --id ...`")


@dataclass(slots=True)
class _Session:
    """A session as one person sees it."""

    call: Invocation
    connection: Connection
    client: AgentClient
    workflow_id: str
    agent: str
    speaker: str
    decider: str
    idle: timedelta | None
    queue: str
    is_new: bool
    """Its first message starts it."""
    is_attended: bool = field(default_factory=prompts.is_attended)
    _began: datetime = field(default_factory=lambda: datetime.now(UTC))
    _seen_step: int = 0
    _follower: asyncio.Task[None] | None = None
    _text: str = ""
    """What was printed of the answer that comes."""
    _is_read_along: bool = False
    """Texts are printed as they come, and so not once more."""
    _status: Status | None = None
    _is_complete: bool = True
    _has_spoken: bool = False

    async def talk(self) -> int:
        """Send each line that is typed, until there is none; return the exit code."""
        try:
            async for line in self._read():
                if line.strip():
                    await self._answer(line.strip())
                    self._has_spoken = True
        finally:
            if self._follower is not None:
                self._follower.cancel()
        if not self._has_spoken and self.is_new:
            self.call.out.note("left; nothing was said, and no session began")
            return DONE
        come_back = f"{self.call.program} chat --id {shlex.quote(self.workflow_id)}{self.connection.options}"
        self.call.out.note(f"left; come back with `{come_back}`")
        return DONE if self._is_complete else ENDED_OTHERWISE

    async def _read(self) -> AsyncIterator[str]:
        """Yield what the person says; at a terminal with a line editor that knows what was typed before."""
        if not self.is_attended:
            while line := await asyncio.to_thread(sys.stdin.readline):
                yield line
            return
        # Half a tenth of a second, and of use at a terminal only.
        from prompt_toolkit import PromptSession  # noqa: PLC0415
        from prompt_toolkit.history import FileHistory  # noqa: PLC0415

        path = self.connection.settings.folder / HISTORY
        private_files.make_folder(path.parent)
        with contextlib.suppress(OSError):
            private_files.make_file(path)
        prompt: PromptSession[str] = PromptSession(history=FileHistory(str(path)))
        while True:
            try:
                yield await prompt.prompt_async("> ")
            except (EOFError, KeyboardInterrupt):
                return

    async def _answer(self, text: str) -> None:
        """Send one message and print its reply, with what happens on the way."""
        message_id = secrets.token_hex(12)
        reply = await self._say(text, message_id, waits=self.is_attended)
        while reply.status == "waiting":
            is_later = not await self._decide(reply)
            reply = await self._say(text, message_id, waits=not is_later)
        self._is_complete = self._is_complete and reply.status == "completed"
        await self._see(reply.step)
        if self.call.out.as_json:
            self.call.out.json({"workflow_id": self.workflow_id, **reply.model_dump(mode="json")})
            return
        # What came already is not printed twice.
        is_printed = bool(reply.text) and self._text.strip() == (reply.text or "").strip()
        self._text = ""
        self.call.out.print(*_describe(reply, is_printed=is_printed))

    async def _say(self, text: str, message_id: str, *, waits: bool) -> Reply:
        queue = self.queue
        async with note_unserved(self.call, self.connection, self.workflow_id, queue):
            return await self._wait_for_reply(text, message_id, waits=waits)

    async def _wait_for_reply(self, text: str, message_id: str, *, waits: bool) -> Reply:
        with self._turning(f"{self.agent} works"):
            sending = asyncio.create_task(
                self.client.say(
                    self.workflow_id,
                    self.agent,
                    text,
                    by=self.speaker,
                    message_id=message_id,
                    until="people" if waits else "answer",
                    idle=self.idle,
                )
            )
            try:
                while not sending.done():
                    if self._follower is None or self._follower.done():
                        self._follower = asyncio.create_task(self._follow())
                    await asyncio.wait((sending,), timeout=0.3)
                return sending.result()
            except ValueError as error:
                raise CliError(f"chat: {error}") from None
            except WronglyAsked as error:
                raise CliError(str(error)) from None
            except MessageError as error:
                raise CliError(str(error), ENDED_OTHERWISE) from None
            finally:
                sending.cancel()

    def read(self, event: StreamEvent) -> None:
        """Print the text of an answer as it comes; one that begins anew is told so."""
        console = self.call.out.result
        self._is_read_along = True
        if event.kind != "text":
            if self._text:
                console.print()
                if event.kind == "restart":
                    console.print("(begins again)", style="dim", markup=False, highlight=False)
            self._text = "" if event.kind != "end" else self._text
            return
        if self._status is not None:
            self._status.stop()
            self._status = None
        self._text += event.text
        console.print(event.text, end="", markup=False, highlight=False)

    async def _follow(self) -> None:
        """Print the steps of the run that goes on, those from before left out."""
        try:
            async for history, happened in unfolding(self.connection.client, self.workflow_id, None):
                self._seen_step = history.step
                if history.at is not None and history.at >= self._began:
                    self._tell(history, happened)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise

    def _tell(self, history: RunHistory, happened: Sequence[Happening]) -> None:
        for happening in happened:
            match happening:
                case CallReturned(_, done):
                    self._note(call_line(done))
                case ModelAnswered(_, text, _, final=False) if text.strip() and not self._is_read_along:
                    self._note(Text(wording.shorten(text, LINE_CHARACTERS), style="dim"))
                case ModelAnswered(_, _, str(note)):
                    self._note(Text(wording.shorten(note, LINE_CHARACTERS), style="yellow"))
                case RequestOpened(_, request):
                    self._note(Text(happening.line, style="bold yellow"))
                    if not self.is_attended:
                        self._note(Text(self._how(request)))
                case MessageReceived(_, line) if not line.startswith(f"{self.speaker} says: "):
                    self._note(Text(wording.shorten(line, LINE_CHARACTERS), style="dim"))
        if self._status is not None and history.doing:
            self._status.update(Text(history.doing, style="dim"))

    def _how(self, request: Request) -> str:
        """Say how a request is answered where nobody can type here."""
        ways = request_text.ways(self.connection, self.workflow_id, request, program=self.call.program)
        return f"answer {request.id} with `{'` or `'.join(way.mandate for way in ways)}`"

    def _note(self, line: Text) -> None:
        """Print one line of what happens; not on stdout, where the answers are."""
        if self.is_attended and not self.call.out.as_json:
            self.call.out.print(Text.assemble("  ", line))
        else:
            self.call.out.note(f"  {line.plain}")

    async def _see(self, step: int) -> None:
        """Wait a moment until the steps before an answer are told."""
        ends_at = time.monotonic() + SEEN_SECONDS
        while self._seen_step < step and time.monotonic() < ends_at:  # noqa: ASYNC110 - a moment only
            await asyncio.sleep(0.02)

    async def _decide(self, reply: Reply) -> bool:
        """Show what the run asks people and let this person answer; return false when they leave it to others."""
        try:
            run = await answers.open_requests(self.connection.client, self.workflow_id)
        except (Unknown, NotAnswering) as error:
            raise CliError(str(error), ENDED_OTHERWISE) from None
        if not run.requests:
            return True
        request = run.requests[0]
        self.call.out.print(
            Text(request_text.headline(self.workflow_id, request), style="bold yellow"),
            Text(f"  why: {request.reason}"),
            *(Text(f"  {line}", style="dim") for line in request_text.written(request.arguments).split("\n")),
            Text(f"  waits for {', '.join(reply.waiting_for)}", style="dim"),
        )
        answer = await self._choose(request)
        if answer is None:
            return False
        decision = Decision(
            request=request.id,
            digest=request.digest,
            choice=answer.choice,
            by=self.decider,
            value=answer.value,
            comment=answer.comment,
        )
        try:
            # What became of it is told as it happens.
            await self.client.decide(self.workflow_id, decision)
        except MessageError as error:
            self.call.out.refusal(str(error))
        return True

    async def _choose(self, request: Request) -> prompts.Answer | None:
        from prompt_toolkit import PromptSession  # noqa: PLC0415

        prompt: PromptSession[str] = PromptSession()
        while True:
            try:
                line = (await prompt.prompt_async(f"{prompts.keys(request)}, or {LATER}: ")).strip()
            except (EOFError, KeyboardInterrupt):
                return None
            if line == LATER:
                return None
            if line and (answer := prompts.typed(request, line)) is not None:
                return answer
            self.call.out.note(f"type {prompts.keys(request)}, or {LATER}")

    @contextlib.contextmanager
    def _turning(self, text: str) -> Iterator[None]:
        screen = self.call.out.screen if self.is_attended else None
        if screen is not None:
            self._status = screen.status(Text(text, style="dim"))
            self._status.start()
        try:
            yield
        finally:
            if self._status is not None:
                self._status.stop()
                self._status = None


def _describe(reply: Reply, *, is_printed: bool) -> list[Text | str]:
    """Return a reply for people, without its text if that was printed."""
    output = reply.text or (request_text.written(reply.output) if reply.output is not None else "")
    lines: list[Text | str] = [output] if output and not is_printed else []
    if reply.status != "completed" or reply.reason:
        lines.append(Text(f"({reply.status}{f': {reply.reason}' if reply.reason else ''})", style="yellow"))
    return lines if lines or is_printed else [Text("(no answer)", style="yellow")]
