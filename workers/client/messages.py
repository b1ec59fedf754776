"""Messages of people to runs: decisions and words, each answered by its run."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from temporalio.client import Client
from temporalio.service import RPCError

from mandate.workers.client.in_flight import PER_RUN, Pauses
from mandate.workers.client.updates import (
    Message,
    MessageError,
    NoAnswer,
    NoRun,
    Patience,
    Refused,
    RunIsOver,
    T,
    TryAgain,
    send,
)
from mandate.workflows.contracts.request import (
    DECISIONS_CHARACTERS,
    EVERY,
    MOST_DECISIONS,
    Decision,
    Decisions,
    Halt,
    Receipt,
    Receipts,
    Steering,
    Stop,
    Told,
)
from mandate.workflows.rules import input_size, validation

__all__ = [
    "NAME",
    "PATIENCE_SECONDS",
    "DecisionResult",
    "MessageError",
    "NoAnswer",
    "NoRun",
    "Refused",
    "RunIsOver",
    "decide",
    "decide_many",
    "pause",
    "read_words",
    "resume",
    "steer",
    "stop",
]  # fmt: skip

NAME = "a name of 1 to 200 characters that can all be seen, without spaces around it"
"""Name of one of the people, in words."""

PATIENCE_SECONDS = 60.0
"""Time for which one message is sent again and waited for."""

IN_ALL = 32
"""Messages in flight to all runs."""

W = TypeVar("W", bound=BaseModel)


def read_words(model: type[W], **given: object) -> W:
    """Return what a person says to a run.

    Raises:
        ValueError: it does not fit; one sentence names the field and what is allowed.
    """
    try:
        return model.model_validate(given)
    except ValidationError as error:
        said = validation.sentences(error, model, unshown=("text",), forms={"by": NAME})
    raise ValueError(said)


@dataclass(frozen=True, slots=True)
class DecisionResult:
    """Result of one decision of many."""

    workflow_id: str
    decision: Decision
    receipt: Receipt | None = None
    """`None` when it did not count."""
    error: str | None = None
    """The reason why it did not count, in one sentence."""


async def decide(
    client: Client, workflow_id: str, decision: Decision, *, patience_seconds: float = PATIENCE_SECONDS
) -> Receipt:
    """Answer a request of a run; the run is asked by its workflow id, so that it may continue as new meanwhile.

    Raises:
        MessageError: it does not count: `Refused`, `NoRun` or `NoAnswer`.
    """
    if (excess := _find_excess(decision)) is not None:
        raise Refused(excess)
    return await _told(client, workflow_id, Message("decide", decision, Receipt), Patience(patience_seconds))


async def decide_many(
    client: Client,
    decisions: Sequence[tuple[str, Decision]],
    *,
    on_outcome: Callable[[DecisionResult], None] | None = None,
    patience_seconds: float = PATIENCE_SECONDS,
) -> list[DecisionResult]:
    """Send decisions by workflow id, up to `MOST_DECISIONS` of one run in one message; return outcomes in order.

    `on_outcome` is told of each as it comes. One that does not count does not keep the others back. For each answer of
    any run the others are waited for `patience_seconds` more: whoever serves one may be busy with them.
    """
    sending = _Many(client, Patience(patience_seconds), on_outcome)
    entries = [_Entry(workflow_id, decision) for workflow_id, decision in decisions]
    fitting = [entry for entry in entries if not sending.refuse_large(entry)]
    await asyncio.gather(*(sending.send(together) for together in _messages(fitting)))
    return [entry.outcome for entry in entries if entry.outcome is not None]


def _find_excess(decision: Decision) -> str | None:
    excess = input_size.find_value_excess(decision.value)
    return f"value: {excess}" if excess is not None else None


async def steer(client: Client, workflow_id: str, steering: Steering) -> Told:
    """Tell the model something at its next step, as this person's words. Raises as `decide`."""
    return await _told(client, workflow_id, Message("steer", steering, Told))


async def pause(client: Client, workflow_id: str, halt: Halt) -> Told:
    """Let a run begin nothing new until it is resumed. Raises as `decide`."""
    return await _told(client, workflow_id, Message("pause", halt, Told))


async def resume(client: Client, workflow_id: str, halt: Halt) -> Told:
    """Let a paused run go on. Raises as `decide`."""
    return await _told(client, workflow_id, Message("resume", halt, Told))


async def stop(client: Client, workflow_id: str, stop: Stop) -> Told:
    """Let a run finish the call in hand, take back what it may, and end as `stopped`. Raises as `decide`."""
    return await _told(client, workflow_id, Message("stop", stop, Told))


async def _told(client: Client, workflow_id: str, message: Message[T], patience: Patience | None = None) -> T:
    """Send one message, again to a run that could not take it in just then, and return the answer."""
    patience, pauses = patience or Patience(PATIENCE_SECONDS), Pauses()
    while True:
        try:
            return await send(client, workflow_id, message, patience)
        except TryAgain:
            if patience.left_seconds <= 0:
                raise
        await pauses.wait()


@dataclass(slots=True)
class _Entry:
    """One decision of many."""

    workflow_id: str
    decision: Decision
    outcome: DecisionResult | None = None


def _messages(entries: Sequence[_Entry]) -> Iterator[list[_Entry]]:
    """Group decisions that go in one message: of one run, in their order, and as many as one may hold."""
    runs: dict[str, list[_Entry]] = {}
    for entry in entries:
        runs.setdefault(entry.workflow_id, []).append(entry)
    for of_run in runs.values():
        together: list[_Entry] = []
        characters = 0
        for entry in of_run:
            its = validation.weight(_json(entry.decision), DECISIONS_CHARACTERS)
            is_alone = entry.decision.request == EVERY
            if together and (
                is_alone or len(together) == MOST_DECISIONS or characters + its > DECISIONS_CHARACTERS - SPARE
            ):
                yield together
                together, characters = [], 0
            together.append(entry)
            characters += its
            if is_alone:
                yield together
                together, characters = [], 0
        if together:
            yield together


SPARE = 1024
"""Of the characters of a message, what its list weighs."""


def _json(decision: Decision) -> dict[str, object]:
    return decision.model_dump(mode="json", exclude_defaults=True)


class _Many:
    """Messages of one call."""

    def __init__(self, client: Client, patience: Patience, on_outcome: Callable[[DecisionResult], None] | None) -> None:
        self._client = client
        self._patience = patience
        self._on_outcome = on_outcome
        self._everywhere = asyncio.Semaphore(IN_ALL)
        self._runs: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(PER_RUN))

    def refuse_large(self, entry: _Entry) -> bool:
        """End a decision that no message could carry, and tell whether that was so."""
        excess = _find_excess(entry.decision)
        if excess is not None:
            self._end(entry, None, excess)
        return excess is not None

    async def send(self, together: Sequence[_Entry]) -> None:
        # Those of a busy run queue up before they take a place of all.
        async with self._runs[together[0].workflow_id], self._everywhere:
            await self._send(together)

    async def _send(self, together: Sequence[_Entry]) -> None:
        pauses = Pauses()
        while len(together) > 1:
            try:
                receipts = await self._receipts(together)
            except Refused:
                # A worker that knows no such message, as it refuses none else: each by itself.
                break
            except (MessageError, RPCError) as error:
                for entry in together:
                    self._fail(entry, error)
                return
            left = []
            for entry, answer in zip(together, receipts.receipts, strict=True):
                if answer.again and self._patience.left_seconds > 0:
                    left.append(entry)
                else:
                    self._end(entry, answer.receipt, answer.refusal)
            together = left
            if together:
                await pauses.wait()
        await asyncio.gather(*map(self._send_one, together))

    async def _receipts(self, together: Sequence[_Entry]) -> Receipts:
        many = Decisions.model_validate({"decisions": [_json(entry.decision) for entry in together]})
        return await _told(self._client, together[0].workflow_id, Message("decide", many, Receipts), self._patience)

    async def _send_one(self, entry: _Entry) -> None:
        message = Message("decide", entry.decision, Receipt)
        try:
            self._end(entry, await _told(self._client, entry.workflow_id, message, self._patience), None)
        except (MessageError, RPCError) as error:
            self._fail(entry, error)

    def _fail(self, entry: _Entry, error: MessageError | RPCError) -> None:
        said = f"Temporal refused: {' '.join(error.message.split())}" if isinstance(error, RPCError) else str(error)
        self._end(entry, None, said)

    def _end(self, entry: _Entry, receipt: Receipt | None, error: str | None) -> None:
        entry.outcome = DecisionResult(entry.workflow_id, entry.decision, receipt, error)
        if self._on_outcome is not None:
            self._on_outcome(entry.outcome)
