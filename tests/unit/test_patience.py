"""How long a client waits for a run that many messages are sent to."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, cast

import pytest
from temporalio.client import Client

from workers import messages
from workflows.contracts.request import Decision, Receipt

CLIENT = cast(Client, None)


def decisions(count: int, run: str = "busy") -> list[tuple[str, Decision]]:
    names = [f"r{number}" for number in range(1, count + 1)]
    return [(run, Decision(request=name, digest="d" * 43, choice="approve", by="ann")) for name in names]


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str, str], float]], list[str]]:
    """Lets a run answer each request after so many seconds; the requests in the order in which they were sent."""

    def set_up(seconds: Callable[[str, str], float]) -> list[str]:
        sent: list[str] = []

        async def answer(_client: Client, run: str, message: Any) -> Receipt:
            sent.append(message.payload.request)
            await asyncio.sleep(seconds(run, message.payload.request))
            return Receipt(request=message.payload.request, status="approved", message="approved")

        monkeypatch.setattr(messages, "_until_answered", answer)
        return sent

    return set_up


async def test_a_run_that_answers_others_is_waited_for(answered: Any) -> None:
    """The server takes ten messages at a time: one that is turned away again and again gets its turn in the end."""
    answered(lambda _run, request: 0.8 if request == "r1" else 0.1)

    outcomes = await messages.decide_many(CLIENT, decisions(70), patience_seconds=0.5)

    assert [outcome.error for outcome in outcomes] == [None] * 70


async def test_a_run_that_answers_nothing_is_waited_for_once(answered: Any) -> None:
    sent = answered(lambda run, _request: 60.0 if run == "dead" else 0.01)
    begun = time.monotonic()

    outcomes = await messages.decide_many(CLIENT, [*decisions(30, "dead"), *decisions(3)], patience_seconds=0.3)

    assert time.monotonic() - begun < 10
    assert [outcome.receipt is not None for outcome in outcomes] == [False] * 30 + [True] * 3
    waited = "no worker has answered for run 'dead' within 0.3 s; the message may still be taken in when one does, and "
    assert [outcome.error for outcome in outcomes[:8]] == [f"{waited}sending it again is safe"] * 8
    assert {outcome.error for outcome in outcomes[8:30]} == {
        "no worker answers for run 'dead'; the message was not sent"
    }
    assert len(sent) == 8 + 3
