"""`mandate chat` from a pipe, and at a terminal."""

import asyncio
import json
import os
import pty
import re
from collections.abc import AsyncIterator

import pytest

from tests.support.place import BIN, Place, new_place

AGENT = """
name: till
instructions: Do it.
models: ["scripted:till.script.yaml"]
requester: anyone
"""

SCRIPT = """
conversations:
  - match: "*ask*"
    turns:
      - say: "I have to ask."
        call: [{ask_person: {question: Which?}}]
      - say: It is so.
  - match: "*"
    otherwise: {say: Hello there.}
"""


@pytest.fixture(scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    files = {"agents/till.yaml": AGENT, "agents/till.script.yaml": SCRIPT}
    async with new_place(tmp_path_factory.mktemp("chat"), files) as found, found.serving("till"):
        yield found


async def test_each_line_of_a_pipe_is_a_message_and_answers_are_on_stdout(place: Place) -> None:
    done = await place.run("chat", "till", "--id", "piped", "--requester", "eve", stdin="Hi.\n\nAnd now?\n")
    again = await place.run("-o", "json", "chat", "--id", "piped", "--requester", "bob", stdin="Once more.\n")

    assert (done.code, done.out) == (0, "Hello there.\nHello there.\n")
    assert "session piped with till, as eve" in done.err
    assert done.err.splitlines()[-1] == "left; come back with `mandate chat --id piped`"
    reply = json.loads(again.out)
    assert (again.code, reply["workflow_id"], reply["status"]) == (0, "piped", "completed")
    assert (reply["text"], reply["step"]) == ("Hello there.", 3)


async def test_request_is_told_with_the_command_that_answers_it(place: Place) -> None:
    chat = await place.start("chat", "till", "--id", "asks", "--requester", "eve")
    assert chat.stdin is not None
    assert chat.stderr is not None
    chat.stdin.write(b"Please ask.\n")
    told = list[str]()
    async with asyncio.timeout(60):
        while not any("answer r1 with `mandate decide asks:r1 --choice answer" in line for line in told):
            told.append((await chat.stderr.readline()).decode())
            assert told[-1], told
    answered = await place.run("answer", "asks:r1", "This one.", "--by", "ann")
    out, _ = await chat.communicate(b"")

    assert answered.code == 0
    assert (chat.returncode, out.decode()) == (0, "It is so.\n")
    assert any("asks anyone: Which?" in line for line in told)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["till", "--id", ""], "--id '': is empty; leave it out, and an id is made up"),
        ([], "name the agent to talk with, or the session with --id"),
        (["--id", "nobody"], "there is no session 'nobody'; name the agent to begin it: `mandate chat AGENT --id ...`"),
        (["nobody"], "agent: 'nobody' is not an agent of these workers; they have: till"),
        (["till", "--idle", "5"], "--idle '5': a duration is a number and a unit, for example '30s', '5m', '1h30m' or"),
        (["till", "--idle", "0s"], "--idle '0s': must be longer than 0s"),
    ],
)
async def test_what_cannot_be_talked_with_is_refused(place: Place, words: list[str], says: str) -> None:
    done = await place.run("chat", *words, stdin="Hi.\n")

    assert done.code == 2
    assert done.out == ""
    assert done.err.splitlines()[-1].startswith(f"error: {says}")


async def test_at_a_terminal_requests_are_answered_in_place(place: Place) -> None:
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        str(BIN / "mandate"),
        *("chat", "till", "--id", "typed", "--requester", "eve", "--by", "ann"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**place.env, "TERM": "xterm", "COLUMNS": "200"},
        cwd=place.folder,
        start_new_session=True,
        preexec_fn=lambda: _take_terminal(theirs),
    )
    os.close(theirs)
    screen = _Screen(ours)
    try:
        await screen.shows("leaves it")
        await screen.types("Please ask.", "any text, or later")
        await screen.types("This one.", "It is so.")
        leaving = asyncio.create_task(screen.leave())
        await screen.shows("left; come back with")
        leaving.cancel()
        async with asyncio.timeout(30):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
        os.close(ours)
    assert (place.folder / "state" / "chat.history").stat().st_mode & 0o077 == 0


def _take_terminal(theirs: int) -> None:
    import fcntl  # noqa: PLC0415 - in the child
    import termios  # noqa: PLC0415

    fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)


class _Screen:
    """What a terminal shows; it answers where its cursor is, which line editors ask."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self._text = ""

    def write(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    async def leave(self) -> None:
        """Press Ctrl-D, again and again: one that comes before the line editor reads is lost."""
        while True:
            self.write("\x04")
            await asyncio.sleep(1)

    async def types(self, line: str, until: str) -> None:
        self._text = ""
        self.write(f"{line}\r")
        await self.shows(until)

    async def shows(self, text: str) -> None:
        async with asyncio.timeout(60):
            while text not in self._text:
                read = await asyncio.to_thread(os.read, self._terminal, 65536)
                if b"\x1b[6n" in read:
                    self.write("\x1b[1;1R")
                self._text += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", read.decode(errors="replace"))


async def test_a_session_in_which_nothing_was_said_never_began(place: Place) -> None:
    done = await place.run("chat", "till", stdin="\n")

    assert (done.code, done.out) == (0, "")
    assert done.err.splitlines()[-1] == "left; nothing was said, and no session began"
