"""Breakages in a run and how they were found out: lost replies that were looked up, answers that were checked."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from mandate.workers.cli.watch import events
from mandate.workers.history.events import Call, Happening
from mandate.workers.history.run_history import RunHistory
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.verification import CheckRequest, CheckResult, Finding, Probed, ProbeRequest
from pydantic import BaseModel
from temporalio.api.common.v1 import Payload
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client
from temporalio.converter import DataConverter

PROBE, CHECK = "probe_call", "verify_result"

BROKEN = {"MANDATE_DEMO_LOST_REPLIES": "issue_refund,send_customer_note"}
"""Environment of the worker of `--break`: the shop does what it is asked for, and the line breaks before it says so."""

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Looked:
    """A call whose outcome nobody knew was looked up."""

    call: Call
    probe: str
    """The tool that was asked."""
    outcome: Outcome
    reason: str


@dataclass(frozen=True, slots=True)
class Checked:
    """A result or the final answer was checked."""

    step: int
    check: str
    finding: Finding
    reason: str
    call: Call | None
    """`None` for the final answer."""


Mended = Looked | Checked


@dataclass(slots=True)
class Mending:
    """Reads checks and probes from the events of one Temporal run, in order."""

    converter: DataConverter
    _open: dict[int, ProbeRequest | CheckRequest] = field(default_factory=dict)

    async def add(self, event: HistoryEvent, chronicle: RunHistory) -> list[Mended]:
        """Take in the next event of a run of which `chronicle` is known, that event included."""
        match event.WhichOneof("attributes"):
            case "activity_task_scheduled_event_attributes":
                begun = event.activity_task_scheduled_event_attributes
                if begun.activity_type.name == PROBE:
                    self._open[event.event_id] = await self._decoded(begun.input.payloads, ProbeRequest)
                elif begun.activity_type.name == CHECK:
                    self._open[event.event_id] = await self._decoded(begun.input.payloads, CheckRequest)
            case "activity_task_completed_event_attributes":
                ended = event.activity_task_completed_event_attributes
                match self._open.pop(ended.scheduled_event_id, None):
                    case ProbeRequest() as request:
                        return [_looked(request, await self._decoded(ended.result.payloads, Probed), chronicle)]
                    case CheckRequest() as request:
                        return [_checked(request, await self._decoded(ended.result.payloads, CheckResult), chronicle)]
        return []

    async def _decoded(self, payloads: Sequence[Payload], kind: type[M]) -> M:
        (value,) = await self.converter.decode(payloads, [kind])
        assert isinstance(value, kind)
        return value


def _looked(request: ProbeRequest, probed: Probed, chronicle: RunHistory) -> Looked:
    call = chronicle.calls[request.index]
    probe = chronicle.pin.probes.get(call.request.tool) if chronicle.pin is not None else None
    return Looked(call, probe.tool if probe is not None else PROBE, probed.outcome, probed.reason)


def _checked(request: CheckRequest, found: CheckResult, chronicle: RunHistory) -> Checked:
    call = chronicle.calls[request.index] if request.index is not None else None
    return Checked(request.step, request.check, found.finding, found.reason, call)


async def unfolding(
    client: Client, workflow_id: str, run_id: str | None
) -> AsyncIterator[tuple[RunHistory, Sequence[Happening | Mended]]]:
    """Yield the history after each event, and what happened with it; to the end, continued runs included.

    Raises:
        RPCError: there is no such run, or Temporal does not answer any more.
    """
    following = run_id
    while True:
        chronicle, mending = RunHistory(client.data_converter), Mending(client.data_converter)
        async for event in events(client, workflow_id, following, wait=True):
            happened = await chronicle.add(event)
            yield chronicle, [*happened, *await mending.add(event, chronicle)]
        if chronicle.ended is None or chronicle.ended.continued_as is None:
            return
        following = chronicle.ended.continued_as
