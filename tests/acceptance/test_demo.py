"""`mandate demo` as somebody sees it who has just cloned the project."""

import asyncio
import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mandate.workers.client.client import AgentClient, connect
from mandate.workers.dev_server import lease
from mandate.workers.dev_server.server import share_dev_server
from mandate.workflows.steps import EFFECT_HEARTBEAT
from tests.support.demo import command_of, facts_of, npx, typed
from tests.support.processes import MANDATE, PROJECT, Process, Processes, children, lives, processes

SECONDS = 45.0
"""A demo without pauses, from the command to its exit: 7 s on two idle cores; the rest is for busy ones."""

START_SECONDS = 20.0
"""For the worker that is started after the kill to be there, on a busy machine."""


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Processes]:
    """Processes with a state folder of their own; `npx` fails, so that nothing is downloaded."""
    with processes(tmp_path / "processes", MANDATE_FOLDER=str(tmp_path / "state"), **npx(tmp_path, "exit 1")) as made:
        yield made


async def server_is_gone(folder: Path, seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while lease.keeper_lives(folder) and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    return not lease.keeper_lives(folder)


@dataclass(frozen=True)
class Shown:
    """Three demos of one state folder: the first two at the same time, the third when they were over."""

    first: Process
    killed: dict[str, Any]
    second: dict[str, Any]
    second_seconds: float
    """From the command to its exit."""
    state: Path


@pytest.fixture(scope="module")
async def shown(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shown]:
    folder = tmp_path_factory.mktemp("demo")
    with processes(folder / "processes", MANDATE_FOLDER=str(folder / "state"), **npx(folder, "exit 1")) as started:
        first = started.mandate("demo", "--fast", "--yes")
        killed = await facts_of(started.mandate("demo", "--fast", "--yes", "--kill", "-o", "json"))
        assert await first.ended() == 0, first.stderr()
        began = time.monotonic()
        second = await facts_of(started.mandate("demo", "--fast", "--yes", "-o", "json"))
        yield Shown(first, killed, second, time.monotonic() - began, folder / "state")


async def test_demo_tells_what_the_agent_does_and_proves_it(shown: Shown) -> None:
    lines = [line.strip() for line in shown.first.stdout().splitlines()]

    order = [
        "watch   http://127.0.0.1:",
        "rules   read from an MCP server: the one that ships with the demo",
        "lookup_order order=1042",
        "read_text_file path=damaged-goods.md",
        "asked   issue_refund order=1042 amount_cents=10690 reason=Kettle arrived damaged?",
        "of      finance; in this demo that is you, ",
        "until   2",
        "Answered by this command itself, since it was called with --yes.",
        "r1 is approved: ",
        '→ {"refund":1,"order":1042,"amount_cents":10690,"method":"PayPal","amount":"106.90 EUR"}',
        "✗ refused: rule 'vouchers' denies 'issue_voucher'",
        "sent to ada.brandt@example.com",
        "✓ check refunds_are_told passed: the answer names what the books show as refunded",
        "Order 1042 is settled.",
        "approved  issue_refund order=1042 amount_cents=10690 reason=Kettle arrived damaged;",
        "unattended: --yes",
        "refund 1: 106.90 EUR of order 1042 to PayPal; the record has the same idempotency key",
        "FIL-02 on the shelf: 14 before, 16 now",
        "no voucher",
        "8 model calls",
        "The server ends with this command. To bring it and its runs back:",
        " server --port ",
        "Then, while it runs, from another terminal in this folder:",
        "Look at the run:",
        "workflow describe -w",
    ]
    places = [next((index for index, line in enumerate(lines) if words in line), -1) for words in order]
    assert -1 not in places, dict(zip(order, places, strict=True))
    assert places == sorted(places)
    url = lines[lines.index("Look at the run:") + 1]
    port = next(line.rpartition(" ")[2] for line in lines if " server --port " in line)
    assert url.startswith(f"http://127.0.0.1:{int(port) + 1000}/")
    assert shown.first.stderr() == ""


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


async def test_second_demo_starts_within_seconds_and_in_a_new_shop(shown: Shown) -> None:
    facts = shown.second

    print(
        f"second demo: run started after {facts['startup_seconds']:.1f} s, all over after {shown.second_seconds:.1f} s"
    )
    assert shown.second_seconds < SECONDS
    assert facts["status"] == "completed"
    assert [(refund["refund"], refund["amount_cents"]) for refund in facts["shop"]["refunds"]] == [(1, 10690)]
    assert facts["shop"]["refunds"][0]["key"] == facts["effects"]["last"][0]["key"]
    assert facts["shop"]["restocked"] == {"FIL-02": {"before": 14, "after": 16}}
    assert [email["recipient"] for email in facts["shop"]["outbox"]] == ["ada.brandt@example.com"]
    assert [call["call"] for step in facts["steps"] for call in step["calls"] if not call["made"]] == [
        "issue_voucher order=1042 amount_cents=1000"
    ]
    assert [(asked["outcome"], asked["unattended"]) for asked in facts["requests"]] == [("approved", True)]
    assert facts["kill"] is None
    assert facts["broken"] is None


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


async def test_killed_worker_pays_once(shown: Shown) -> None:
    """Beside another demo, with which it shares the server but not the shop."""
    facts = shown.killed

    kill = facts["kill"]
    print(f"taken up {kill['seconds_until_taken_up']:.2f} s after the kill")
    assert kill["in_flight"] == "issue_refund order=1042 amount_cents=10690 reason=Kettle arrived damaged"
    assert kill["refunds_at_kill"] == kill["refunds"] == 1
    assert kill["attempts"] == 2
    assert kill["killed_pid"] != kill["new_pid"]
    assert kill["seconds_until_taken_up"] <= EFFECT_HEARTBEAT.total_seconds() + START_SECONDS
    assert len(facts["shop"]["outbox"]) == 1
    assert facts["status"] == "completed"
    assert f"Temporal at {facts['address']}" in shown.first.stdout()


async def test_server_started_again_shows_the_runs_of_demos(shown: Shown) -> None:
    assert await server_is_gone(shown.state)

    with await share_dev_server(shown.state, on_progress=lambda line: None, ui=False) as server:
        client = AgentClient(await connect(address=server.address))
        result = await client.handle(shown.second["workflow_id"]).result()

    assert result.status == "completed"


async def test_server_stays_when_it_is_to_be_kept(started: Processes, tmp_path: Path) -> None:
    demo = started.mandate("demo", "--fast", "--yes", "--keep")
    await demo.said("Look at the run")
    async with asyncio.timeout(30):
        while "stay until Ctrl-C" not in demo.stderr():
            await asyncio.sleep(0.02)
    assert lease.keeper_lives(tmp_path / "state")

    demo.send(signal.SIGINT)

    assert await demo.ended() == 0
    assert await server_is_gone(tmp_path / "state")


async def test_filesystem_server_is_used_when_npx_has_it(started: Processes, tmp_path: Path) -> None:
    asked = """[ "$1" != --prefer-offline ] || { read -r _; echo '{"jsonrpc": "2.0", "id": 1, "result": {}}'; exit; }"""
    server = f'{asked}\ncd "{PROJECT}" && exec "{sys.executable}" -m mandate.workers.examples.shop_rules_server'

    facts = await facts_of(started.mandate("demo", "--fast", "--yes", "-o", "json", **npx(tmp_path, server)))

    assert facts["rules_server"] == "the filesystem server, through npx"
    assert facts["status"] == "completed"


async def test_slow_npx_does_not_hold_the_demo_up(started: Processes, tmp_path: Path) -> None:
    facts = await facts_of(started.mandate("demo", "--fast", "--yes", "-o", "json", **npx(tmp_path, "exec sleep 60")))

    assert facts["rules_server"] == "the one that ships with the demo"
    assert facts["startup_seconds"] < SECONDS


NO_KEY = (
    "models named 'openai:...' need the environment variable OPENAI_API_KEY; without --model a script plays the model"
)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("openai:gpt-6-sol", NO_KEY),
        ("gpt-6-sol", "must be 'scripted' or one of openai:MODEL, anthropic:MODEL, vllm:MODEL"),
    ],
)
async def test_model_that_cannot_be_used_is_refused_in_a_sentence(
    started: Processes, tmp_path: Path, model: str, said: str
) -> None:
    demo = started.mandate("demo", "--model", model)

    assert await demo.ended() == 2

    assert (demo.stdout(), demo.stderr()) == ("", f"error: --model {model!r}: {said}\n")
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("number", "cue"),
    [
        (signal.SIGINT, "1. I start with the order"),
        (signal.SIGTERM, "1. I start with the order"),
        (signal.SIGINT, "Or in the Web UI"),
    ],
)
async def test_interrupted_demo_leaves_nothing_behind(
    started: Processes, tmp_path: Path, number: signal.Signals, cue: str
) -> None:
    demo = started.mandate("demo", "--fast")
    await demo.said(cue)
    workers = children(demo.pid)

    demo.send(number)

    assert await demo.ended() == 130
    assert workers
    assert not any(lives(pid) for pid in workers)
    assert "was cancelled" in demo.stderr()
    assert "Traceback" not in demo.stderr()
    assert await server_is_gone(tmp_path / "state")


async def test_worker_and_server_end_with_a_killed_demo(started: Processes, tmp_path: Path) -> None:
    demo = started.mandate("demo")
    await demo.said("1. I start with the order")
    workers = children(demo.pid)

    demo.send(signal.SIGKILL)

    deadline = time.monotonic() + 30
    while any(lives(pid) for pid in workers) and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    assert workers
    assert not any(lives(pid) for pid in workers)
    assert await server_is_gone(tmp_path / "state")


async def test_no_short_command_aborts_at_exit(started: Processes, tmp_path: Path) -> None:
    """The SDK's threads may crash an interpreter that goes down: exit codes 134 and 139."""
    with await share_dev_server(tmp_path / "state", on_progress=lambda line: None, ui=False) as server:
        codes = []
        for _ in range(5):
            pair = [started.mandate("show", "nobody", TEMPORAL_ADDRESS=server.address) for _ in range(2)]
            codes += [await command.ended() for command in pair]

    assert set(codes) == {2}, started.started[-1].stderr()
