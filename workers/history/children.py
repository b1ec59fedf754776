"""Children of a run as its history tells of them: those that it has started, and what they reported."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue, ValidationError
from temporalio.api.common.v1 import Payload
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client
from temporalio.converter import DataConverter

from mandate.workers.client.earlier_run import find_earlier_run
from mandate.workers.client.rounds import AT_A_TIME
from mandate.workflows.contracts.children import (
    CHILD_DONE,
    ChildReport,
    ChildRequest,
    FindReport,
    OpenChild,
    ReportFound,
)
from mandate.workflows.contracts.marks import Marked, read_as
from mandate.workflows.contracts.model import Usage
from mandate.workflows.contracts.state import RunState
from mandate.workflows.rules.children import build_unknown

FIND_REPORT = "find_report"

UNTOLD = "it has ended, and nobody could tell what it did"

ENDED_KEPT = 20
"""Children that have reported, the last ones."""

OPEN_SHOWN = 20
"""Children that have not reported whose status is looked up, the first ones."""


@dataclass(slots=True)
class Child:
    """One child, as far as its parent knows of it."""

    workflow_id: str
    number: int
    """Which of its parent's children it is."""
    agent: str
    index: int
    """Position of its call in the turn."""
    is_started: bool = False
    """It is known that it runs for this call: a workflow of its id may have been there before."""
    result: ChildReport | None = None
    """Its report; `None` for one that is open."""

    @property
    def key(self) -> str:
        """Key under which the parent's ledger holds its share."""
        return f"child {self.number}"


@dataclass(frozen=True, slots=True)
class ChildBegun:
    """A call for which a child is being started."""

    child: Child
    request: ChildRequest


@dataclass(frozen=True, slots=True)
class ChildReported:
    """A child that has ended, and its result or what takes the place of one."""

    child: Child
    result: ChildReport


@dataclass(frozen=True, slots=True)
class ChildStatus:
    """Status of a child: as it reported, or as Temporal tells of one that has not."""

    workflow_id: str
    agent: str
    status: str
    reason: str | None = None
    usage: Usage | None = None
    """`None` for one that goes on, or left no result."""

    def to_json(self) -> dict[str, JsonValue]:
        """Return one entry of `-o json`; `cost_usd` is `null` where it is not known."""
        known = self.usage if self.usage is not None and not self.usage.unpriced_calls else None
        return {
            "workflow_id": self.workflow_id,
            "agent": self.agent,
            "status": self.status,
            "reason": self.reason,
            "cost_usd": f"{known.cost_usd:f}" if known is not None else None,
        }


@dataclass(slots=True)
class ChildHistory:
    """The children of a run after the events so far."""

    converter: DataConverter
    open: dict[int, Child] = field(default_factory=dict)
    """Those that have not reported, by the position of their call."""
    ended: list[Child] = field(default_factory=list)
    """Those that have reported since the run last continued as new, the last `ENDED_KEPT`."""
    made: int = 0
    _begun: dict[int, Child] = field(default_factory=dict)
    """By the events that start them."""
    _looks: dict[int, FindReport] = field(default_factory=dict)
    """Look-ups under way, by the events that schedule them."""

    def carry_over(self, state: RunState) -> list[ChildReported]:
        """Go on as the run did when it continued as new; return what it has been told and not taken in yet."""
        self.made = state.children_made
        for index, one in state.children.items():
            self.open[index] = _read_open(state, index, one)
        reports = [(self.open[index], one.report) for index, one in state.children.items()]
        return [self._report(child, report) for child, report in reports if report is not None]

    def close_turn(self) -> list[Child]:
        """Return those that were not started after all: the model has been answered without a report of theirs."""
        left = list(self.open.values())
        self.open.clear()
        return left

    async def add(self, event: HistoryEvent) -> ChildBegun | ChildReported | None:
        """Take in the next event; return what it tells of a child."""
        match event.WhichOneof("attributes"):
            case "start_child_workflow_execution_initiated_event_attributes":
                return await self._initiated(event)
            case "child_workflow_execution_started_event_attributes":
                started = event.child_workflow_execution_started_event_attributes
                if (child := self._begun.get(started.initiated_event_id)) is not None:
                    child.is_started = True
            case "child_workflow_execution_completed_event_attributes":
                completed = event.child_workflow_execution_completed_event_attributes
                return await self._heard(completed.workflow_execution.workflow_id, completed.result.payloads)
            case "workflow_execution_signaled_event_attributes":
                signal = event.workflow_execution_signaled_event_attributes
                # The server tells who sent it.
                child_id = signal.external_workflow_execution.workflow_id
                if signal.signal_name == CHILD_DONE and len(signal.input.payloads) > 1:
                    return await self._heard(child_id, signal.input.payloads[1:])
            case "activity_task_scheduled_event_attributes":
                scheduled = event.activity_task_scheduled_event_attributes
                if scheduled.activity_type.name == FIND_REPORT:
                    (self._looks[event.event_id],) = await self.converter.decode(scheduled.input.payloads, [FindReport])
            case "activity_task_completed_event_attributes":
                completed_task = event.activity_task_completed_event_attributes
                look = self._looks.pop(completed_task.scheduled_event_id, None)
                return await self._found(look, completed_task.result.payloads) if look is not None else None
            case "activity_task_failed_event_attributes":
                return self._not_found(event.activity_task_failed_event_attributes.scheduled_event_id)
            case "activity_task_timed_out_event_attributes":
                return self._not_found(event.activity_task_timed_out_event_attributes.scheduled_event_id)
        return None

    async def _initiated(self, event: HistoryEvent) -> ChildBegun | None:
        attributes = event.start_child_workflow_execution_initiated_event_attributes
        try:
            (given,) = await self.converter.decode(attributes.input.payloads)
            request = read_as(ChildRequest, given)
        except (ValidationError, ValueError, RuntimeError):
            return None
        if (child := self.open.get(request.index)) is not None:
            # The id before this one is another run's.
            child.workflow_id = attributes.workflow_id
            self._begun[event.event_id] = child
            return None
        self.made += 1
        child = Child(attributes.workflow_id, self.made, request.name, request.index)
        self.open[request.index] = self._begun[event.event_id] = child
        return ChildBegun(child, request)

    async def _heard(self, child_id: str, payloads: Sequence[Payload]) -> ChildReported | None:
        """Take a report in that came by itself; the run looks one up that does not have its mark."""
        child = self._find(child_id)
        if child is None or len(payloads) != 1:
            return None
        try:
            (given,) = await self.converter.decode(payloads)
            return self._report(child, read_as(ChildReport, given)) if isinstance(given, Marked) else None
        except (ValidationError, ValueError, RuntimeError):
            return None

    async def _found(self, look: FindReport, payloads: Sequence[Payload]) -> ChildReported | None:
        child = self.open.get(look.index)
        if child is None or child.workflow_id != look.child:
            return None
        (found,) = await self.converter.decode(payloads, [ReportFound])
        if found.status in {"running", "ended"}:
            child.is_started = True
        if not child.is_started or found.status == "running":
            return None
        return self._report(child, found.result or build_unknown(child.workflow_id, UNTOLD))

    def _not_found(self, scheduled: int) -> ChildReported | None:
        """Take in that a child could not be looked up: one that has ended is settled without a report."""
        look = self._looks.pop(scheduled, None)
        child = self.open.get(look.index) if look is not None else None
        if look is None or child is None or not child.is_started or not look.is_ending:
            return None
        return self._report(child, build_unknown(child.workflow_id, UNTOLD))

    def _find(self, child_id: str) -> Child | None:
        return next((child for child in self.open.values() if child.workflow_id == child_id), None)

    def _report(self, child: Child, result: ChildReport) -> ChildReported:
        child.result = result
        del self.open[child.index]
        self.ended = [*self.ended, child][-ENDED_KEPT:]
        return ChildReported(child, result)


async def read_children(client: Client, history: ChildHistory) -> tuple[ChildStatus, ...]:
    """Return the last children that have reported and the first that have not, which are looked up a few at once."""
    slots = asyncio.Semaphore(AT_A_TIME)

    async def look(child: Child) -> ChildStatus:
        if (its := child.result) is not None:
            return ChildStatus(child.workflow_id, child.agent, str(its.status), its.reason, its.usage)
        async with slots:
            found = await find_earlier_run(client, child.workflow_id)
        if found is None:
            return ChildStatus(child.workflow_id, child.agent, "gone", "Temporal does not tell of it")
        usage = found.result.usage if found.result is not None else None
        return ChildStatus(child.workflow_id, child.agent, found.status, found.reason, usage)

    shown = [*history.ended, *list(history.open.values())[:OPEN_SHOWN]]
    return tuple(await asyncio.gather(*map(look, sorted(shown, key=lambda child: child.number))))


def _read_open(state: RunState, index: int, one: OpenChild) -> Child:
    tool = state.agent.tool(state.calls[index].tool)
    agent = tool.child.agent if tool is not None and tool.child is not None else state.calls[index].tool
    return Child(one.id, one.number, agent, index, is_started=True)
