"""Judgements of a worker's health."""

import asyncio
import json
from typing import Any

import pytest
from starlette.requests import Request

from mandate.workers import health
from mandate.workers.client.pollers import Poller
from mandate.workers.health import POLL_SECONDS, Health, PollCheck, Service
from mandate.workers.http_server import parse_listen_address

NOBODY: Any = None
OWN = "7@host"


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        (":8080", "0.0.0.0", 8080),
        ("127.0.0.1:0", "127.0.0.1", 0),
        ("localhost:65535", "localhost", 65535),
        ("[::1]:8080", "::1", 8080),
    ],
)
def test_addresses_to_listen_at(text: str, host: str, port: int) -> None:
    assert parse_listen_address(text) == (host, port)


@pytest.mark.parametrize("text", ["8080", "", ":", ":65536", ":http", "a b:1", "::1:8080", "http://a:1", ":80 80"])
def test_other_texts_are_no_addresses(text: str) -> None:
    with pytest.raises(ValueError, match="is not an address to listen at; allowed are ':8080'"):
        parse_listen_address(text)


def test_a_worker_polls_while_its_polls_begin_anew() -> None:
    """Times of polls are the server's, time that goes by is ours: clocks that differ do no harm."""
    check = PollCheck(NOBODY, "agents", OWN)
    first, second = (Poller(OWN, 5),), (Poller(OWN, 3), Poller(OWN, 6))

    assert check.judge(first, 1000.0) is None
    assert check.judge(first, 1000.0 + POLL_SECONDS) is None
    assert check.judge(second, 1001.0 + POLL_SECONDS) is None
    assert check.judge(second, 1002.0 + 2 * POLL_SECONDS) == "7@host began its last poll 151 s ago or before"


def test_polls_of_others_do_not_count() -> None:
    check = PollCheck(NOBODY, "agents", OWN)

    assert check.judge((Poller("8@host", 5),), 0.0) == "Temporal has no poll of 7@host on task queue 'agents'"


async def ask(told: Health) -> tuple[int, dict[str, Any]]:
    answer = await told.tell_ready(Request({"type": "http"}))
    return answer.status_code, json.loads(bytes(answer.body))


async def test_ready_only_between_start_and_drain() -> None:
    told = Health()

    async def fine() -> None:
        return None

    before = await ask(told)
    told.serve(Service("agents", {"shop": "abc"}, {"store": fine}))
    serving = await ask(told)
    told.drain()
    after = await ask(told)

    assert before == (503, {"status": "starting"})
    assert serving == (
        200,
        {"status": "ready", "checks": {"store": "ok"}, "task_queue": "agents", "agents": {"shop": "abc"}},
    )
    assert after == (503, {"status": "draining"})


async def test_a_check_that_fails_or_hangs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "CHECK_SECONDS", 0.01)
    asked = 0

    async def broken() -> str:
        nonlocal asked
        asked += 1
        return "the store is away"

    async def hanging() -> None:
        await asyncio.sleep(60)

    told = Health()
    told.serve(Service("agents", {}, {"store": broken, "polls": hanging}))

    code, body = await ask(told)
    again = await asyncio.gather(*(ask(told) for _ in range(20)))

    assert (code, body["status"]) == (503, "not ready")
    assert body["checks"] == {"store": "the store is away", "polls": "no answer within 0.01 s"}
    assert (again, asked) == ([(code, body)] * 20, 1)
