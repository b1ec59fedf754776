"""A run as it happens, told from its history: what the model says, each call, and what came of it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from temporalio.api.common.v1 import Payloads
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowHandle

from activities.transcript import TranscriptLog
from workflows.contracts.model import ModelReply, ModelRequest
from workflows.contracts.tool import CallRequest, ToolRequest, ToolResult
from workflows.rules import wording

T = TypeVar("T")

RESULT_CHARACTERS = 400


@dataclass(slots=True)
class Call:
    """One call of the model."""

    call: str
    """Name and arguments in one line."""
    tool: str
    result: str = ""
    error: bool = False
    made: bool = True
    """Not made when it was refused or did not fit the tool's schema."""
    attempts: int = 1
    worker: str = ""
    """Who made the last attempt."""
    begun: datetime | None = None
    """When its last attempt began."""
    done: datetime | None = None


@dataclass(slots=True)
class Step:
    """One answer of the model and its calls."""

    number: int
    says: str
    calls: list[Call] = field(default_factory=list)
    """In the order in which they were answered."""


@dataclass(slots=True)
class _Open:
    """An activity that is under way."""

    kind: str
    summary: str
    index: int = 0
    started: HistoryEvent | None = None


class Story:
    """Follows one run and calls back for each step and each answered call."""

    def __init__(
        self,
        client: Client,
        handle: WorkflowHandle[Any, Any],
        transcript: TranscriptLog,
        *,
        on_step: Callable[[Step], None],
        on_call: Callable[[Call], None],
    ) -> None:
        self.steps: list[Step] = []
        self._handle = handle
        self._convert = client.data_converter
        self._transcript = transcript
        self._on_step = on_step
        self._on_call = on_call
        self._open: dict[int, _Open] = {}
        self._asked: tuple[CallRequest, ...] = ()
        self._answered: set[int] = set()

    async def follow(self) -> None:
        """Returns when the run is over."""
        tellers: dict[str, Callable[[HistoryEvent], Awaitable[None]]] = {
            "activity_task_scheduled_event_attributes": self._scheduled,
            "activity_task_started_event_attributes": self._started,
            "activity_task_completed_event_attributes": self._completed,
            "activity_task_failed_event_attributes": self._failed,
            "activity_task_timed_out_event_attributes": self._timed_out,
        }
        async for event in self._handle.fetch_history_events(wait_new_event=True):
            tell = tellers.get(event.WhichOneof("attributes") or "")
            if tell is not None:
                await tell(event)

    async def _scheduled(self, event: HistoryEvent) -> None:
        scheduled = event.activity_task_scheduled_event_attributes
        kind = scheduled.activity_type.name
        summary = self._convert.payload_converter.from_payload(event.user_metadata.summary, str)
        begun = _Open(kind, summary)
        if kind == "call_model":
            self._not_made(await self._decode(scheduled.input, ModelRequest))
        elif kind == "run_tool":
            begun.index = (await self._decode(scheduled.input, ToolRequest)).index
        self._open[event.event_id] = begun

    async def _started(self, event: HistoryEvent) -> None:
        self._open[event.activity_task_started_event_attributes.scheduled_event_id].started = event

    async def _completed(self, event: HistoryEvent) -> None:
        completed = event.activity_task_completed_event_attributes
        ended = self._open.pop(completed.scheduled_event_id)
        if ended.kind == "call_model":
            await self._said(await self._decode(completed.result, ModelReply))
        elif ended.kind == "run_tool":
            answer = await self._decode(completed.result, ToolResult)
            text = answer.text
            if answer.digest is not None:
                text = (await self._transcript.blobs.get(answer.digest)).decode(errors="replace")
            self._answer(ended, event, text or "", error=answer.error)

    async def _failed(self, event: HistoryEvent) -> None:
        failed = event.activity_task_failed_event_attributes
        self._lost(failed.scheduled_event_id, event, failed.failure.message)

    async def _timed_out(self, event: HistoryEvent) -> None:
        timed_out = event.activity_task_timed_out_event_attributes
        self._lost(timed_out.scheduled_event_id, event, timed_out.failure.message)

    def _lost(self, scheduled: int, event: HistoryEvent, message: str) -> None:
        ended = self._open.pop(scheduled)
        if ended.kind == "run_tool":
            self._answer(ended, event, message, error=True)

    async def _said(self, reply: ModelReply) -> None:
        if not reply.calls:
            return
        said = (await self._transcript.load(reply.head)).conversation.last_assistant()
        step = Step(len(self.steps) + 1, said.text.strip() if said is not None else reply.text)
        self._asked, self._answered = reply.calls, set()
        self.steps.append(step)
        self._on_step(step)

    def _answer(self, ended: _Open, event: HistoryEvent, text: str, *, error: bool) -> None:
        self._answered.add(ended.index)
        call = Call(
            call=ended.summary,
            tool=self._asked[ended.index].tool,
            result=wording.shorten(text, RESULT_CHARACTERS),
            error=error,
            done=event.event_time.ToDatetime(UTC),
        )
        if ended.started is not None:
            started = ended.started.activity_task_started_event_attributes
            call.attempts, call.worker = started.attempt, started.identity
            call.begun = ended.started.event_time.ToDatetime(UTC)
        self._tell(call)

    def _not_made(self, request: ModelRequest) -> None:
        """The calls of the last turn that no activity was made for: refused, or unfit."""
        for index, (call, result) in enumerate(zip(self._asked, request.results, strict=False)):
            if index not in self._answered:
                line = wording.call(call.tool, call.arguments)
                self._tell(Call(call=line, tool=call.tool, result=result.text or "", error=True, made=False))
        self._asked = ()

    def _tell(self, call: Call) -> None:
        self.steps[-1].calls.append(call)
        self._on_call(call)

    async def _decode(self, payloads: Payloads, kind: type[T]) -> T:
        (value,) = await self._convert.decode(payloads.payloads, [kind])
        decoded: T = value
        return decoded
