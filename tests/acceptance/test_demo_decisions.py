"""The refund of `mandate demo`, decided in the ways that it tells."""

import asyncio
import contextlib
import fcntl
import os
import pty
import re
import struct
import termios
from pathlib import Path

from tests.support.demo import command_of, facts_of, npx, typed
from tests.support.processes import MANDATE, PROJECT, Processes


async def test_lines_fit_the_terminal_in_which_the_refund_is_approved(tmp_path: Path) -> None:
    columns = 80
    told = {"MANDATE_FOLDER": str(tmp_path / "state"), "TERM": "xterm", **npx(tmp_path, "exit 1")}
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        os.chdir(PROJECT)
        os.execve(MANDATE[0], [*MANDATE, "demo", "--fast"], {**os.environ, **told})

    said = await asyncio.to_thread(_all_of, terminal, b"with y or n and Enter", b"y\n")

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said))
    paths = (str(tmp_path), str(Path.home()))
    # A decision in JSON is one word of a shell.
    whole = (*paths, "--input '{")
    assert [line for line in lines if "waiting for finance" in line]
    assert "A small coffee shop has a complaint, and an agent settles it." in lines
    assert [line for line in lines if len(line) > columns and not any(words in line for words in whole)] == []
    assert [line for line in lines if re.fullmatch(r"\d+\.\s*", line)] == []


async def test_demo_without_colours_is_answered_by_its_own_people(tmp_path: Path) -> None:
    git = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "user.email", "GIT_CONFIG_VALUE_0": "me@home.example"}
    told = {"MANDATE_FOLDER": str(tmp_path / "state"), "TERM": "xterm", **npx(tmp_path, "exit 1"), **git}
    environment = {name: value for name, value in os.environ.items() if name != "MANDATE_USER"} | told
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(PROJECT)
        os.execve(MANDATE[0], [*MANDATE, "demo", "--fast", "--color", "never"], environment)

    said = await asyncio.to_thread(_all_of, terminal, b"waiting for finance; type your answer (y/n)", b"y\n")

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert "finance@coffee.example approved it" in said
    assert "me@home.example" not in said
    assert "\x1b" not in said


def _all_of(terminal: int, cue: bytes, answer: bytes) -> str:
    """What is written to a terminal until nobody has it open any more; at `cue`, `answer` is typed."""
    said, typed = b"", False
    with contextlib.suppress(OSError):
        while part := os.read(terminal, 65536):
            said += part
            if cue in said and not typed:
                typed = True
                os.write(terminal, answer)
    return said.decode()


async def test_refund_waits_for_the_command_that_is_printed(started: Processes, tmp_path: Path) -> None:
    demo = started.mandate("demo", "--fast", MANDATE_USER="ann@example.com")
    await demo.said("Or in the Web UI")
    await asyncio.sleep(1)
    assert "record    " not in demo.stdout()

    approved = await typed(command_of(demo.stdout(), " approve ") + " --comment 'Well deserved.'", tmp_path)

    assert approved.returncode == 0, approved.stderr
    assert "r1 is approved: ann@example.com approved it" in approved.stdout
    assert await demo.ended() == 0, demo.stderr()
    assert "r1 is approved: ann@example.com approved it (Well deserved.)" in demo.stdout()
    assert "Order 1042 is settled." in demo.stdout()
    assert "ann@example.com approved it\n" in demo.stdout()
    assert "unattended" not in demo.stdout()


async def test_refund_is_approved_with_temporals_own_command(started: Processes, tmp_path: Path) -> None:
    """With `-o json` what is asked is told on stderr."""
    demo = started.mandate("demo", "--fast", "-o", "json", MANDATE_USER="ann@example.com")
    while "Or in the Web UI" not in demo.stderr():
        assert demo.process.poll() is None, demo.stderr()
        await asyncio.sleep(0.05)

    approved = await typed(command_of(demo.stderr(), "workflow update execute"), tmp_path)

    assert approved.returncode == 0, approved.stderr
    (request,) = (await facts_of(demo))["requests"]
    assert request["request"].endswith(":r1")
    assert request["waits_for"] == ["finance"]
    assert request["arguments"] == {"order": 1042, "amount_cents": 10690, "reason": "Kettle arrived damaged"}
    assert (request["outcome"], request["decision"]) == ("approved", "ann@example.com approved it")
    assert (request["by"], request["unattended"]) == (["ann@example.com"], False)


async def test_rejected_refund_ends_the_story_as_it_is(started: Processes, tmp_path: Path) -> None:
    demo = started.mandate("demo", "--fast", MANDATE_USER="ann@example.com")
    await demo.said("Or in the Web UI")

    rejected = await typed(command_of(demo.stdout(), " reject ") + " --comment 'Ask her for a photo.'", tmp_path)

    assert rejected.returncode == 0, rejected.stderr
    assert await demo.ended() == 0, demo.stderr()
    lines = [line.strip() for line in demo.stdout().splitlines()]
    answer = lines[lines.index("The agent's answer") :]
    assert answer[1].startswith("I leave order 1042 as it is now.")
    assert "refused: ann@example.com rejected it (Ask her for a photo.)" in answer
    assert "rejected  issue_refund order=1042 amount_cents=10690 reason=Kettle arrived damaged;" in answer
    assert {"database  no refund", "database  no voucher"} <= set(answer)
    assert not [line for line in answer if line.startswith("record ")]
