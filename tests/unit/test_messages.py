"""Messages to runs that end or continue as new while they are sent."""

from typing import Any

import pytest
from temporalio.service import RPCError, RPCStatusCode

from workers import messages
from workflows.contracts.request import Decision, Receipt

ABORTED = RPCError("workflow update was aborted by closing workflow", RPCStatusCode.NOT_FOUND, b"")
OVER = RPCError("workflow execution already completed", RPCStatusCode.NOT_FOUND, b"")
APPROVED = Receipt(request="r1", status="approved", message="r1 is approved")
DECISION = Decision(request="r1", digest="d" * 43, choice="approve", by="ann@example.com")


class Runs:
    """A client, and a handle of any run, that gives these answers to updates."""

    def __init__(self, *answers: Receipt | RPCError) -> None:
        self.answers = list(answers)
        self.ids: list[str] = []

    def get_workflow_handle(self, workflow_id: str) -> "Runs":
        return self

    async def execute_update(self, verb: str, payload: Decision, **options: Any) -> Receipt:
        self.ids.append(options["id"])
        answer = self.answers.pop(0)
        if isinstance(answer, RPCError):
            raise answer
        return answer


async def test_message_to_a_run_that_continues_as_new_is_sent_again_under_its_id() -> None:
    runs: Any = Runs(ABORTED, APPROVED)

    assert await messages.decide(runs, "shop-7f3a", DECISION) == APPROVED
    assert len(set(runs.ids)) == 1


async def test_message_to_a_run_that_ends_meanwhile_is_told_that_it_is_over() -> None:
    runs: Any = Runs(ABORTED, OVER)

    with pytest.raises(messages.NoRun, match=r"^run 'shop-7f3a' is over$"):
        await messages.decide(runs, "shop-7f3a", DECISION)
