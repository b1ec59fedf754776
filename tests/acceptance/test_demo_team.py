"""`mandate demo --team`: a manager, and agents below it that work side by side."""

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import termios
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from mandate.workers.client.client import AgentClient, connect
from mandate.workers.demo.team.setup import SOURCE
from mandate.workers.dev_server.server import share_dev_server
from tests.support.demo import command_of, facts_of, server_is_gone, typed
from tests.support.processes import MANDATE, PROJECT, Process, Processes, children, lives, processes

SECONDS = 60.0
"""From the command to its exit: 12 s on two idle cores."""


@dataclass(frozen=True)
class Shown:
    """Two demos of one state folder, one after the other."""

    told: Process
    told_seconds: float
    facts: dict[str, Any]
    state: Path


@pytest.fixture(scope="module")
async def shown(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shown]:
    folder = tmp_path_factory.mktemp("team")
    with processes(folder / "processes", MANDATE_FOLDER=str(folder / "state")) as started:
        began = time.monotonic()
        told = started.mandate("demo", "--team", "--yes")
        assert await told.ended() == 0, told.stderr()
        seconds = time.monotonic() - began
        facts = await facts_of(started.mandate("demo", "--team", "--fast", "--yes", "-o", "json"))
        yield Shown(told, seconds, facts, folder / "state")


def run_of(facts: dict[str, Any], place: str) -> dict[str, Any]:
    """The facts of one run of the tree, by its place below the root."""
    workflow_id = f"{facts['workflow_id']}/{place}" if place else facts["workflow_id"]
    found: dict[str, Any] = next(run for run in facts["runs"] if run["workflow_id"] == workflow_id)
    return found


async def test_team_is_told_from_the_first_call_to_what_it_cost(shown: Shown) -> None:
    lines = [line.rstrip() for line in shown.told.stdout().splitlines()]

    order = [
        "  watch   http://127.0.0.1:",
        "manager      begins with $1.00 for the whole tree",
        "Three matters, three agents. None of them needs another, so they begin together.",
        "     asked   issue_refund order=1042 amount_cents=10690 reason=Kettle arrived damaged?",
        "     by      manager / c1 refunds",
        "     of      finance; in this demo that is you, ",
        "     Answered by this command itself, since it was called with --yes.",
        " approve manager-",
        "     manager / c1 refunds: r1 is approved: ",
        ": the limit of 6s since the start is used up",
        "plan: 3 steps in 2 levels",
        "c4 run_plan  begins a plan with $0.30",
        "The manager's answer",
        "  - Done: order 1042 is refunded, 106.90 EUR",
        "  - Refused: a voucher over 5 EUR for order 1037.",
        "  - Failed: the supplier did not answer in six seconds.",
        "  record    c1 refunds: issue_refund order=1042",
        "  record    the manager's result names them by run and digest: 1 effect of c1 (",
        "  approved  manager / c1 refunds: issue_refund order=1042",
        "  refused   c2 care: issue_voucher order=1037 amount_cents=500",
        "  failed    c3 supplier: exhausted, the limit of 6s since the start is used up",
        "  database  refund 1: 106.90 EUR of order 1042 to PayPal; the record has the same idempotency key",
        "  database  no voucher",
        "  manager         at most $1.00   spent $",
        "    c3 supplier   at most $0.10   spent $",
        "  c1, c2, c3 side by side ",
        "The tree: 1",
        "The server ends with this command. To bring it and its runs back:",
        "Look at the tree, and at one run of it:",
        " --tree",
        "The same in a folder of your own, to read and to change:",
        " run manager ",
    ]
    # What is told of siblings comes in any order, so each is only looked for after what it must follow.
    places = [next((index for index, line in enumerate(lines) if words in line), -1) for words in order]
    assert -1 not in places, dict(zip(order, places, strict=True))
    assert places == sorted(places)
    assert "✗ refused: rule 'manager--no-vouchers' denies 'issue_voucher'" in shown.told.stdout()
    assert shown.told.stderr() == ""
    print(f"all over after {shown.told_seconds:.1f} s")
    assert shown.told_seconds < SECONDS


async def test_agents_work_side_by_side_and_a_failure_costs_the_others_nothing(shown: Shown) -> None:
    facts = shown.facts
    runs = [run_of(facts, place) for place in ("c1", "c2", "c3")]

    assert facts["status"] == "completed"
    assert [(run["agent"], run["status"]) for run in runs] == [
        ("refunds", "completed"),
        ("care", "completed"),
        ("supplier", "exhausted"),
    ]
    begun = max(datetime.fromisoformat(run["began_at"]) for run in runs)
    ended = min(datetime.fromisoformat(run["ended_at"]) for run in runs)
    assert begun < ended
    assert runs[2]["reason"] == "the limit of 6s since the start is used up"
    assert [run["answer"] for run in runs[:2]] == [
        "Refunded 106.90 EUR of order 1042 to PayPal.",
        "I wrote to Noor Haddad. A voucher over 5 EUR was refused.",
    ]


async def test_rule_of_the_manager_refuses_below_it_what_the_agent_itself_may_do(shown: Shown) -> None:
    care = run_of(shown.facts, "c2")

    (refused,) = care["refused"]
    assert refused["call"] == "issue_voucher order=1037 amount_cents=500"
    assert refused["reason"].startswith("refused: rule 'manager--no-vouchers' denies 'issue_voucher'")
    assert shown.facts["shop"]["vouchers"] == 0


async def test_request_names_the_run_that_makes_it_and_its_place(shown: Shown) -> None:
    (request,) = shown.facts["requests"]

    assert request["request"] == f"{shown.facts['workflow_id']}/c1:r1"
    assert request["place"] == "manager / c1 refunds"
    assert request["waits_for"] == ["finance"]
    assert (request["outcome"], request["unattended"]) == ("approved", True)


async def test_money_of_the_tree_is_that_of_its_runs(shown: Shown) -> None:
    facts = shown.facts
    shares = {run["workflow_id"].removeprefix(facts["workflow_id"]): run["share_usd"] for run in facts["runs"]}

    assert shares == {"": "1.00", "/c1": "0.20", "/c2": "0.15", "/c3": "0.10", "/c4": "0.30", "/c4/c1": "0.10"}
    assert facts["runs"][0]["cost_usd"] == facts["usage"]["cost_usd"]
    below = [float(run["cost_usd"]) for run in facts["runs"] if run["parent"] == facts["workflow_id"]]
    # The manager's own three calls: 2,400 tokens in and 220 out each, at $1.25 and $10 a million.
    assert sum(below) + 3 * (0.003 + 0.0022) == pytest.approx(float(facts["usage"]["cost_usd"]))


async def test_effects_below_are_in_the_result_by_reference(shown: Shown) -> None:
    facts, root = shown.facts, shown.facts["workflow_id"]

    references = {entry["run"]: entry["count"] for entry in facts["effects"]["last"]}
    assert references == {f"{root}/c1": 1, f"{root}/c2": 1, f"{root}/c4": 2}
    assert all(entry["digest"] for entry in facts["effects"]["last"])
    (refund,) = facts["shop"]["refunds"]
    assert [entry["key"] for entry in run_of(facts, "c1")["effects"]] == [refund["key"]]
    assert facts["shop"]["restocked"] == {"FIL-02": {"before": 14, "after": 16}}
    assert [email["order"] for email in facts["shop"]["outbox"]] == [1037, 1042]


async def test_server_started_again_shows_the_tree(shown: Shown) -> None:
    assert await server_is_gone(shown.state)

    with await share_dev_server(shown.state, on_progress=lambda line: None, ui=False) as server:
        client = AgentClient(await connect(address=server.address))
        result = await client.handle(f"{shown.facts['workflow_id']}/c1").result()

    assert result.status == "completed"


async def test_refund_of_a_child_is_approved_at_the_terminal_and_every_line_fits(tmp_path: Path) -> None:
    columns = 80
    told = {"MANDATE_FOLDER": str(tmp_path / "state"), "TERM": "xterm"}
    pid, terminal = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        os.chdir(PROJECT)
        os.execve(MANDATE[0], [*MANDATE, "demo", "--team", "--fast"], {**os.environ, **told})

    said = await asyncio.to_thread(_all_of, terminal, b"with y or n and Enter", b"y\n")

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said))
    # Paths are not broken.
    paths = (str(tmp_path), str(Path.home()), str(SOURCE))
    assert [line for line in lines if "waiting for finance; type your answer (y/n)" in line]
    assert [line for line in lines if "at work: " in line]
    assert [line for line in lines if len(line) > columns and not any(path in line for path in paths)] == []
    assert "finance@coffee.example approved it" in said
    assert "Two of the three matters are settled." in said


def _all_of(terminal: int, cue: bytes, answer: bytes) -> str:
    """What is written to a terminal until nobody has it open any more; at `cue`, `answer` is typed."""
    said, is_typed = b"", False
    with contextlib.suppress(OSError):
        while part := os.read(terminal, 65536):
            said += part
            if cue in said and not is_typed:
                is_typed = True
                os.write(terminal, answer)
    return said.decode()


async def test_rejected_refund_costs_the_others_nothing_either(started: Processes, tmp_path: Path) -> None:
    demo = started.mandate("demo", "--team", "--fast", MANDATE_USER="ann@example.com")
    await demo.said(" reject ")

    rejected = await typed(command_of(demo.stdout(), " reject ") + " --comment 'Ask for a photo.'", tmp_path)

    assert rejected.returncode == 0, rejected.stderr
    assert await demo.ended() == 0, demo.stderr()
    lines = [line.strip() for line in demo.stdout().splitlines()]
    report = "\n".join(lines[lines.index("The manager's answer") :])
    assert "One of the three matters is settled." in report
    assert "by the books 0 of 10690 cents are paid back." in " ".join(report.split())
    assert "rejected  manager / c1 refunds: issue_refund order=1042" in report
    assert "failed    c3 supplier: exhausted" in report
    assert "record    c2 care: send_customer_note order=1037" in report
    assert "database  no refund\ndatabase  no voucher" in report


async def test_answer_is_true_where_a_person_changes_the_refund(started: Processes, tmp_path: Path) -> None:
    demo = started.mandate("demo", "--team", "--fast", "-o", "json", MANDATE_USER="ann@example.com")
    while " approve " not in demo.stderr():
        assert demo.process.poll() is None, demo.stderr()
        await asyncio.sleep(0.05)

    changed = await typed(command_of(demo.stderr(), " approve ") + " --set amount_cents=5000", tmp_path)

    assert changed.returncode == 0, changed.stderr
    facts = await facts_of(demo)
    assert [refund["amount_cents"] for refund in facts["shop"]["refunds"]] == [5000]
    assert "by the books 5000 of 10690 cents are paid back." in " ".join(facts["output"].split())
    assert (facts["requests"][0]["by"], facts["requests"][0]["unattended"]) == (["ann@example.com"], False)


async def test_interrupted_team_leaves_nothing_behind(started: Processes, tmp_path: Path) -> None:
    demo = started.mandate("demo", "--team", "--fast")
    await demo.said("     by      manager / c1 refunds")
    workers = children(demo.pid)

    demo.send(signal.SIGINT)

    assert await demo.ended() == 130
    assert workers
    assert not any(lives(pid) for pid in workers)
    assert "was cancelled" in demo.stderr()
    assert "Traceback" not in demo.stderr()
    assert await server_is_gone(tmp_path / "state")
    with await share_dev_server(tmp_path / "state", on_progress=lambda line: None, ui=False) as server:
        client = await connect(address=server.address)
        left = [run.id async for run in client.list_workflows('ExecutionStatus = "Running"')]
    assert left == []


@pytest.mark.parametrize("option", [("--break",), ("--kill",), ("--model", "openai:gpt-6-sol")])
async def test_options_that_do_not_go_together_are_refused(
    started: Processes, tmp_path: Path, option: tuple[str, ...]
) -> None:
    demo = started.mandate("demo", "--team", *option)

    assert await demo.ended() == 2

    said = "--team goes without --model, --kill and --break: it has scripts and a failure of its own"
    assert (demo.stdout(), demo.stderr()) == ("", f"error: {said}\n")
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("options", [(), ("--team",)])
async def test_plans_and_policies_of_the_working_folder_are_not_read(
    started: Processes, tmp_path: Path, options: tuple[str, ...]
) -> None:
    started.cwd = tmp_path
    (tmp_path / "mandate.yaml").write_text("plans: plans\npolicies: policies\n")
    for folder, content in (("plans", "name: any\nsteps: [{id: a, agent: nobody}]"), ("policies", "no: policy")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "any.yaml").write_text(content)

    facts = await facts_of(started.mandate("demo", *options, "--fast", "--yes", "-o", "json"))

    assert facts["status"] == "completed"


async def test_copy_of_the_team_runs_in_a_folder_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "my-team"
    shutil.copytree(SOURCE, folder)
    with processes(tmp_path / "processes") as started:
        started.cwd = folder
        valid = started.mandate("validate", "-o", "json")
        assert await valid.ended() == 0, valid.stdout()
        assert await _in(folder, MANDATE[0], "-m", "mandate.workers.examples.shop_data") == 0
        run = started.mandate("run", "manager", "What is new?", "--id", "own", "-o", "json")
        while await started.mandate("inbox", "-o", "json").ended() != 0 or not _open(started):
            assert run.process.poll() is None, run.stderr()
            await asyncio.sleep(0.5)
        approved = started.mandate("approve", "1", "--by", "finance@coffee.example")
        assert await approved.ended() == 0, approved.stderr()
        assert await run.ended() == 0, run.stderr()

    assert json.loads(run.stdout())["output"].startswith("Two of the three matters are settled.")


def _open(started: Processes) -> list[Any]:
    """Requests of the inbox that was read last."""
    found: list[Any] = json.loads(started.started[-1].stdout())["requests"]
    return found


async def _in(folder: Path, *command: str) -> int:
    process = await asyncio.create_subprocess_exec(*command, cwd=folder)
    return await process.wait()
