"""Messages to runs that end, continue as new, are crowded or slow while they are sent."""

import pytest
from pydantic import BaseModel
from temporalio.api.enums.v1 import WorkflowExecutionStatus
from temporalio.exceptions import ApplicationError
from temporalio.service import RPCError, RPCStatusCode

from mandate.workers.client import in_flight, messages
from mandate.workflows.contracts.failures import FailureType
from mandate.workflows.contracts.request import Decision, Receipt, Steering, Told
from tests.support.update_service import Sent, UpdateService, aborted, busy, client_of, too_many

CLOSING = RPCError("workflow update was aborted by closing workflow", RPCStatusCode.NOT_FOUND, b"")
OVER = RPCError("workflow execution already completed", RPCStatusCode.NOT_FOUND, b"")
LOST = RPCError("error reading a body from connection", RPCStatusCode.UNKNOWN, b"")
APPROVED = Receipt(request="r1", status="approved", message="r1 is approved")
DECISION = Decision(request="r1", digest="d" * 43, choice="approve", by="ann@example.com")
CROWDED = ApplicationError("send it again in a moment", type=FailureType.TRY_AGAIN, non_retryable=True)
REFUSED = ApplicationError("by: may not", type=FailureType.DECISION_REFUSED, non_retryable=True)


def answering(*answers: BaseModel | Exception) -> UpdateService:
    """A server that answers with each in turn, and with the last one over and over."""
    left = list(answers)

    async def answer(_: Sent) -> BaseModel:
        now = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(now, Exception):
            raise now
        return now

    return UpdateService(answer)


async def decide(service: UpdateService, *, patience_seconds: float = 10) -> Receipt:
    return await messages.decide(client_of(service), "shop-7f3a", DECISION, patience_seconds=patience_seconds)


@pytest.mark.parametrize("passing", [CLOSING, LOST, too_many(), aborted(), busy()], ids=lambda error: error.message)
async def test_what_passes_is_waited_for_and_sent_again_under_its_id(passing: RPCError) -> None:
    service = answering(passing, passing, APPROVED)

    assert await decide(service) == APPROVED
    assert len(service.log.sent) == 3
    assert len({sent.update_id for sent in service.log.sent}) == 1


async def test_message_to_a_run_that_ends_meanwhile_is_told_that_it_is_over() -> None:
    with pytest.raises(messages.NoRun, match=r"^run 'shop-7f3a' is over$"):
        await decide(answering(CLOSING, OVER))


async def test_message_to_a_run_that_has_ended_is_not_sent_for_ever() -> None:
    """The server says of such a one that it was aborted, however often it is sent."""
    service = answering(CLOSING)
    service.status = WorkflowExecutionStatus.WORKFLOW_EXECUTION_STATUS_COMPLETED

    with pytest.raises(messages.NoRun, match=r"^run 'shop-7f3a' is over$"):
        await decide(service)
    assert len(service.log.sent) == 1


async def test_message_that_a_run_cannot_take_in_now_goes_again_as_another_one() -> None:
    """Under the same id, the server would repeat the answer."""
    service = answering(CROWDED, CROWDED, APPROVED)

    assert await decide(service) == APPROVED
    assert len({sent.update_id for sent in service.log.sent}) == 3


async def test_refusal_is_told_at_once() -> None:
    service = answering(REFUSED)

    with pytest.raises(messages.Refused, match=r"^by: may not$"):
        await decide(service)
    assert len(service.log.sent) == 1


async def test_error_that_does_not_pass_is_told_at_once() -> None:
    service = answering(RPCError("not allowed", RPCStatusCode.PERMISSION_DENIED, b""))

    with pytest.raises(RPCError, match="not allowed"):
        await decide(service)
    assert len(service.log.sent) == 1


async def test_patience_that_ends_says_what_the_server_said_last() -> None:
    with pytest.raises(messages.NoAnswer) as refused:
        await decide(answering(busy()), patience_seconds=0.3)

    assert str(refused.value) == (
        "no worker has answered for run 'shop-7f3a' within 0.3 s (Temporal says: Unable to perform workflow execution "
        "update due to Workflow Task in failed state.); the message may still be taken in when one does, and sending "
        "it again is safe"
    )


async def test_words_are_waited_for_as_decisions_are() -> None:
    told = Told(status="waiting", message="the model is told at its next step")
    service = answering(busy(), too_many(), CROWDED, told)

    assert await messages.steer(client_of(service), "shop-7f3a", Steering(text="Be kind.", by="ann")) == told
    assert len(service.log.sent) == 4


async def test_the_sdk_sends_nothing_again_by_itself() -> None:
    service = answering(too_many(), APPROVED)

    await decide(service)

    assert service.log.retries == [False, False]


async def test_a_key_that_is_changed_later_is_that_of_the_messages() -> None:
    """Messages share the connection of the client; a second one would keep the key that it began with."""
    service = answering(APPROVED)
    client = client_of(service)
    await messages.decide(client, "shop-7f3a", DECISION)

    client.service_client.update_api_key("new")
    await messages.decide(client, "shop-7f3a", DECISION)

    assert (service.api_key, len(service.log.sent)) == ("new", 2)


def test_pauses_grow_and_are_not_the_same_for_all() -> None:
    many = [[pauses.next_seconds() for _ in range(12)] for pauses in (in_flight.Pauses() for _ in range(50))]

    for number, base in enumerate([0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 4, 4, 4, 4, 4]):
        ones = [pauses[number] for pauses in many]
        assert base * 0.5 <= min(ones) < base * 0.8
        assert base * 1.2 < max(ones) <= base * 1.5
