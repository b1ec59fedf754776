"""Who asks a run does not see that it cannot answer at this moment."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from temporalio.client import WorkflowHandle, WorkflowQueryFailedError
from temporalio.service import RPCError, RPCStatusCode

from mandate.workers.client import queries
from mandate.workflows.contracts.failures import AHEAD


@dataclass
class Handle:
    """Answers with each of `answers` in turn, and with the last one over and over."""

    answers: Sequence[object]
    asked: list[str] = field(default_factory=list)

    async def query(self, query: str, **_options: object) -> object:
        self.asked.append(query)
        answer = self.answers[min(len(self.asked), len(self.answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return answer


def ahead() -> WorkflowQueryFailedError:
    return WorkflowQueryFailedError(AHEAD)


def no_poller() -> RPCError:
    return RPCError("no poller has seen the queue", RPCStatusCode.FAILED_PRECONDITION, b"")


async def ask(handle: Handle, seconds: float = 5.0) -> str:
    return await queries.ask(cast("WorkflowHandle[Any, Any]", handle), "progress", str, timeout_seconds=seconds)


async def test_a_run_that_is_ahead_of_its_history_is_asked_again() -> None:
    handle = Handle([ahead(), ahead(), "paid"])

    assert await ask(handle) == "paid"
    assert handle.asked == ["progress"] * 3


async def test_a_queue_whose_workers_were_forgotten_is_asked_again() -> None:
    handle = Handle([no_poller(), ahead(), no_poller(), "paid"])

    assert await ask(handle) == "paid"


async def test_a_run_that_stays_ahead_is_not_asked_for_ever() -> None:
    handle = Handle([ahead()])

    with pytest.raises(WorkflowQueryFailedError, match="ask again"):
        await ask(handle, 0.5)

    assert 4 <= len(handle.asked) <= 6


async def test_a_queue_without_workers_is_not_asked_for_ever() -> None:
    handle = Handle([no_poller()])

    with pytest.raises(RPCError):
        await ask(handle)

    assert len(handle.asked) == 1 + len(queries.FORGOTTEN_PAUSES)


@pytest.mark.parametrize(
    "error", [WorkflowQueryFailedError("the run has not begun"), RPCError("gone", RPCStatusCode.NOT_FOUND, b"")]
)
async def test_another_failure_is_told_at_once(error: Exception) -> None:
    handle = Handle([error])

    with pytest.raises(type(error)):
        await ask(handle)

    assert len(handle.asked) == 1
