"""Many decisions at once: how they go together, how few are in flight, how long a run is waited for."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable

import pytest
from pydantic import BaseModel
from temporalio.exceptions import ApplicationError

from mandate.workers.client import messages
from mandate.workflows.contracts.failures import FailureType
from mandate.workflows.contracts.request import (
    DECISIONS_CHARACTERS,
    Answer,
    Decision,
    Halt,
    Receipt,
    Receipts,
    Steering,
    Stop,
    Told,
)
from mandate.workflows.rules import validation
from tests.support.update_service import Sent, UpdateService, aborted, client_of, too_many

Wait = Callable[[Sent], Awaitable[None]]


def decisions(count: int, run: str = "busy", **more: str) -> list[tuple[str, Decision]]:
    names = [f"r{number}" for number in range(1, count + 1)]
    return [(run, Decision(request=name, digest="d" * 43, choice="approve", by="ann", **more)) for name in names]


def approved(sent: Sent) -> BaseModel:
    if sent.verb != "decide":
        return Told(status="waiting", message="told")
    receipts = [Receipt(request=one, status="approved", message=f"{one} is approved") for one in sent.requests]
    if "decisions" not in sent.payload:
        return receipts[0]
    return Receipts(receipts=tuple(Answer(receipt=receipt) for receipt in receipts))


def approving(wait: Wait | None = None) -> UpdateService:
    async def answer(sent: Sent) -> BaseModel:
        if wait is not None:
            await wait(sent)
        return approved(sent)

    return UpdateService(answer)


def wait(seconds: float) -> Wait:
    async def wait(_: Sent) -> None:
        await asyncio.sleep(seconds)

    return wait


async def test_decisions_on_one_run_go_together_in_their_order() -> None:
    service = approving()
    given = [*decisions(120), *decisions(3, "other"), *decisions(1, "third")]
    told: list[messages.DecisionResult] = []

    outcomes = await messages.decide_many(client_of(service), given, on_outcome=told.append)

    by_run = {run: [len(sent.requests) for sent in service.log.sent if sent.workflow_id == run] for run, _ in given}
    assert by_run == {"busy": [50, 50, 20], "other": [3], "third": [1]}
    assert [(outcome.workflow_id, outcome.decision) for outcome in outcomes] == given
    assert [outcome.receipt.request for outcome in outcomes if outcome.receipt] == [one.request for _, one in given]
    assert len(told) == len(given)


async def test_the_one_that_rejects_everything_goes_by_itself() -> None:
    service = approving()
    every = ("busy", Decision(request="*", choice="reject", by="ann"))

    await messages.decide_many(client_of(service), [*decisions(2), every, *decisions(3)])

    assert sorted(sent.requests for sent in service.log.sent) == [["*"], ["r1", "r2"], ["r1", "r2", "r3"]]


async def test_a_message_holds_no_more_than_a_run_reads() -> None:
    service = approving()
    long = [(run, one.model_copy(update={"value": "x" * 60_000})) for run, one in decisions(20)]

    await messages.decide_many(client_of(service), long)

    assert [len(sent.requests) for sent in service.log.sent] == [8, 8, 4]
    for sent in service.log.sent:
        assert validation.weight(sent.payload["decisions"], DECISIONS_CHARACTERS) <= DECISIONS_CHARACTERS


async def test_fifty_with_the_longest_token_and_comment_go_together() -> None:
    service = approving()

    await messages.decide_many(client_of(service), decisions(50, token="t" * 8192, comment="c" * 2000))

    assert [len(sent.requests) for sent in service.log.sent] == [50]


async def test_a_client_has_two_messages_in_flight_to_a_run_whatever_calls_for_them() -> None:
    service = approving(wait(0.02))
    client = client_of(service)
    calls = [messages.decide_many(client, [*decisions(200), *decisions(60, "other")]) for _ in range(3)]
    words = [messages.steer(client, "busy", Steering(text="x", by="ann")) for _ in range(5)]
    singles = [messages.decide(client, *one) for one in decisions(5)]

    await asyncio.gather(*calls, *words, *singles)

    assert service.log.most_in_flight == {"busy": 2, "other": 2}
    assert len(service.log.sent) == 3 * (4 + 2) + 5 + 5


async def test_a_busy_run_takes_no_places_that_others_could_have() -> None:
    service = approving(wait(0.02))

    await messages.decide_many(client_of(service), [*decisions(3000), *decisions(3, "other")])

    assert [sent.workflow_id for sent in service.log.sent].index("other") <= 2


async def test_a_stop_goes_before_decisions_that_wait_for_their_turn() -> None:
    service = approving(wait(0.05))
    client = client_of(service)
    deciding = asyncio.create_task(messages.decide_many(client, decisions(400)))
    await asyncio.sleep(0.02)

    await messages.stop(client, "busy", Stop(by="ann"))
    await messages.pause(client, "busy", Halt(by="ann"))
    sent = [one.verb for one in service.log.sent]
    await deciding

    assert sent.index("stop") <= 3
    assert sent.index("pause") <= 6


@pytest.mark.parametrize("error", [too_many, aborted])
async def test_after_the_server_had_too_many_one_is_sent_at_a_time_and_later(error: Callable[[], Exception]) -> None:
    refusals_left, at_once, sent_at = 6, list[int](), list[float]()

    async def crowded(sent: Sent) -> BaseModel:
        nonlocal refusals_left
        sent_at.append(time.monotonic())
        await asyncio.sleep(0.01)
        if refusals_left:
            refusals_left -= 1
            raise error()
        at_once.append(service.log.in_flight["busy"])
        return approved(sent)

    service = UpdateService(crowded)
    outcomes = await messages.decide_many(client_of(service), decisions(400))

    assert [outcome.error for outcome in outcomes if outcome.error] == []
    # Two at first, then one by one, each after a longer wait.
    waits = [after - before for before, after in itertools.pairwise(sent_at[1:7])]
    assert waits[0] >= 0.025
    assert waits[-1] > 2 * waits[0]
    assert at_once[0] == 1
    assert max(at_once) <= 2


async def test_each_decision_of_many_is_answered_by_itself() -> None:
    async def answer(_: Sent) -> BaseModel:
        approved = Receipt(request="r1", status="approved", message="r1 is approved")
        return Receipts(receipts=(Answer(receipt=approved), Answer(refusal="digest: it is not that of request r2")))

    outcomes = await messages.decide_many(client_of(UpdateService(answer)), decisions(2))

    assert [outcome.error for outcome in outcomes] == [None, "digest: it is not that of request r2"]
    assert [outcome.receipt is None for outcome in outcomes] == [False, True]


async def test_those_that_a_run_cannot_take_in_now_go_again_without_the_others() -> None:
    async def answer(sent: Sent) -> BaseModel:
        if len(service.log.sent) == 1:
            receipts = list(approved(sent).receipts)  # type: ignore[attr-defined]
            receipts[1:4] = [Answer(refusal="send it again in a moment", again=True)] * 3
            return Receipts(receipts=tuple(receipts))
        return approved(sent)

    service = UpdateService(answer)
    outcomes = await messages.decide_many(client_of(service), decisions(6))

    assert [sent.requests for sent in service.log.sent] == [[f"r{n}" for n in range(1, 7)], ["r2", "r3", "r4"]]
    assert len({sent.update_id for sent in service.log.sent}) == 2
    assert [outcome.receipt is not None for outcome in outcomes] == [True] * 6


async def test_a_worker_that_knows_no_such_message_gets_each_by_itself() -> None:
    async def old(sent: Sent) -> BaseModel:
        await asyncio.sleep(0.01)
        if "decisions" in sent.payload:
            raise ApplicationError("decisions: is not a known key", type=FailureType.DECISION_REFUSED)
        return approved(sent)

    service = UpdateService(old)
    outcomes = await messages.decide_many(client_of(service), decisions(5))

    assert [outcome.error for outcome in outcomes] == [None] * 5
    assert [len(sent.requests) for sent in service.log.sent] == [5, 1, 1, 1, 1, 1]
    assert service.log.most_in_flight == {"busy": 2}


async def test_a_run_is_waited_for_while_any_other_is_answered() -> None:
    """The same worker may serve both, and be slow."""

    async def slowly(sent: Sent) -> None:
        await asyncio.sleep(1.2 if sent.workflow_id == "slow" else 0.1)

    given = [*decisions(1, "slow"), *decisions(1000)]
    outcomes = await messages.decide_many(client_of(approving(slowly)), given, patience_seconds=0.5)

    assert [outcome.error for outcome in outcomes if outcome.error] == []


async def test_a_run_that_answers_nothing_is_waited_for_once() -> None:
    async def answer(sent: Sent) -> None:
        await asyncio.sleep(60.0 if sent.workflow_id == "dead" else 0.01)

    service = approving(answer)
    begun = time.monotonic()

    given = [*decisions(300, "dead"), *decisions(3)]
    outcomes = await messages.decide_many(client_of(service), given, patience_seconds=0.3)

    assert time.monotonic() - begun < 10
    assert [outcome.receipt is not None for outcome in outcomes] == [False] * 300 + [True] * 3
    waited = "no worker has answered for run 'dead' within 0.3 s; the message may still be taken in when one does, and "
    assert {outcome.error for outcome in outcomes[:100]} == {f"{waited}sending it again is safe"}
    unsent = "no worker answers for run 'dead'; the message was not sent"
    assert {outcome.error for outcome in outcomes[100:300]} == {unsent}
    assert len(service.log.sent) == 2 + 1
