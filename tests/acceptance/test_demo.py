"""`mandate demo` as somebody sees it who has just cloned the project."""

import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mandate.workers.client.client import AgentClient, connect
from mandate.workers.dev_server.server import share_dev_server
from mandate.workflows.steps import EFFECT_HEARTBEAT
from tests.support.demo import facts_of, npx, server_is_gone
from tests.support.processes import PROJECT, Process, Processes, processes

SECONDS = 45.0
"""A demo without pauses, from the command to its exit: 7 s on two idle cores; the rest is for busy ones."""

START_SECONDS = 20.0
"""For the worker that is started after the kill to be there, on a busy machine."""


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
        "The server ends with ",
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
