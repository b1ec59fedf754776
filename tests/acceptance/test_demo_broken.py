"""`mandate demo --break`: lost replies, wrong answers, and books that are right all the same."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.demo import command_of, facts_of, npx, typed
from tests.support.processes import Process, processes

REFUND = "issue_refund order=1042 amount_cents=10690 reason=Kettle arrived damaged"
NOTE = "send_customer_note order=1042 text=Dear Ada Brandt, we are sorry that your…"


def books(folder: Path) -> tuple[list[tuple[object, ...]], list[tuple[object, ...]]]:
    """Refunds and emails in the shop of the demo whose folder this is."""
    with closing(sqlite3.connect(folder / "shop.db")) as database:
        refunds = database.execute("SELECT key, amount_cents FROM refunds").fetchall()
        return refunds, database.execute('SELECT "order", recipient FROM outbox').fetchall()


@dataclass(frozen=True)
class Broken:
    """Two demos at the same time, each with a state folder of its own."""

    told: Process
    told_shop: Path
    killed: dict[str, Any]
    killed_shop: Path


@pytest.fixture(scope="module")
async def broken(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Broken]:
    folder = tmp_path_factory.mktemp("broken")
    first, second = folder / "first", folder / "second"
    with processes(folder / "processes", **npx(folder, "exit 1")) as started:
        told = started.mandate("demo", "--break", "--yes", "--fast", MANDATE_FOLDER=str(first))
        words = ("demo", "--break", "--yes", "--fast", "--kill", "-o", "json")
        killed = await facts_of(started.mandate(*words, MANDATE_FOLDER=str(second)))
        assert await told.ended() == 0, told.stderr()
        yield Broken(told, first / "demo", killed, second / "demo")


async def test_it_tells_what_broke_and_what_became_of_it(broken: Broken) -> None:
    lines = [line.strip() for line in broken.told.stdout().splitlines()]

    order = [
        "broken  --break: the shop does what it is asked, but its replies to refunds and to the first email",
        f"{REFUND} (attempt 3)",
        "✗ ConnectionError: the line broke before the reply came",
        "No reply in 3 attempts: it may have happened, or not. It is not guessed.",
        "find_refund is asked, by the call's idempotency key: it was done, and is not made again.",
        '→ {"done":true,"refund":1,"order":1042,"amount_cents":10690,"method":"PayPal",',
        NOTE,
        "No reply in one attempt: it may have happened, or not. It is not guessed.",
        "asked   did this happen? send_customer_note order=1042",
        "look    the shop's outbox has the email to ada.brandt@example.com",
        "mandate decide shop-",
        "r2 is settled: ",
        "→ sent to ada.brandt@example.com",
        "7. Order 1042 is settled. The customer has her money back",
        "✗ check refunds_are_told failed: by the books 106.90 EUR of order 1042 were refunded",
        "Attempt 1 of 3 was not taken; the model is told why.",
        "8. Order 1042 is settled: 89.00 EUR went back",
        "Attempt 2 of 3 was not taken; the model is told why.",
        "9. I have said it from memory, twice. This time I read it in the books.",
        "✓ check refunds_are_told passed: the answer names what the books show as refunded",
        "The agent's answer",
        "database  refund 1: 106.90 EUR of order 1042 to PayPal; the record has the same idempotency key",
        "What broke, and what Mandate did",
        f"- No reply: {REFUND}; 3 attempts",
        f"- No reply: {NOTE};",
        "- Check refunds_are_told failed 2 times for the final answer:",
        "- The database has exactly one refund and exactly one email.",
    ]
    place = 0
    for words in order:
        found = next((index for index, line in enumerate(lines) if index >= place and words in line), None)
        assert found is not None, f"{words!r} does not come after line {place}: {lines[place:]}"
        place = found + 1
    assert lines.count(f"record    {REFUND}") == 1
    assert broken.told.stderr() == ""


async def test_the_books_have_one_refund_and_one_email(broken: Broken) -> None:
    refunds, emails = books(broken.told_shop)

    assert [amount for _, amount in refunds] == [10690]
    assert emails == [(1042, "ada.brandt@example.com")]


async def test_a_killed_worker_and_a_lost_reply_pay_once(broken: Broken) -> None:
    facts = broken.killed
    entry = facts["effects"]["last"][0]

    assert books(broken.killed_shop) == ([(entry["key"], 10690)], [(1042, "ada.brandt@example.com")])
    assert (entry["reason"], entry["attempts"]) == ("as find_refund shows", 4)
    assert (facts["status"], facts["uncertain"]) == ("completed", [])
    assert (facts["kill"]["refunds_at_kill"], facts["kill"]["refunds"], facts["kill"]["attempts"]) == (1, 1, 4)
    assert [(one["call"], one["probe"], one["known"]) for one in facts["broken"]["lost"]] == [
        (REFUND, "find_refund", True),
        (NOTE, None, True),
    ]
    assert [(one["check"], one["finding"]) for one in facts["broken"]["failed_checks"]] == [
        ("refunds_are_told", "fail"),
        ("refunds_are_told", "fail"),
    ]
    assert (facts["broken"]["refunds"], facts["broken"]["emails"]) == (1, 1)
    assert [(asked["tool"], asked["outcome"]) for asked in facts["requests"]] == [
        ("issue_refund", "approved"),
        ("send_customer_note", "settled"),
    ]


async def test_a_person_says_that_the_email_is_out(tmp_path: Path) -> None:
    told = {"MANDATE_FOLDER": str(tmp_path / "state"), "MANDATE_USER": "ann@example.com", **npx(tmp_path, "exit 1")}
    with processes(tmp_path / "processes", **told) as started:
        demo = started.mandate("demo", "--break", "--fast")
        await demo.said("Or in the Web UI")
        approved = await typed(command_of(demo.stdout(), " approve "), tmp_path)
        assert approved.returncode == 0, approved.stderr
        await demo.said("--choice happened")
        await asyncio.sleep(1)
        assert "The agent's answer" not in demo.stdout()

        decided = await typed(command_of(demo.stdout(), "--choice happened"), tmp_path)

        assert decided.returncode == 0, decided.stderr
        assert await demo.ended() == 0, demo.stderr()
    said = " ".join(demo.stdout().split())
    assert "a person was asked, since it has no probe. Known now: ann@example.com chose happened." in said
    assert "unattended" not in said
    assert len(books(tmp_path / "state" / "demo")[1]) == 1
