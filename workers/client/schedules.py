"""Temporal schedules that start runs of agents and plans; each firing has a workflow id of its own."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionExecutionStartWorkflow,
    ScheduleActionResult,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleCalendarSpec,
    ScheduleDescription,
    ScheduleHandle,
    ScheduleIntervalSpec,
    ScheduleListDescription,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleRange,
    ScheduleSpec,
    ScheduleState,
)
from temporalio.service import RPCError, RPCStatusCode

from mandate.workers.client.start_requests import name_plan, summarize
from mandate.workflows.contracts.budget_file import find_time_zone
from mandate.workflows.contracts.plan import PlanRequest
from mandate.workflows.contracts.run import AGENT_WORKFLOW, PLAN_WORKFLOW, TASK_TIMEOUT, StartRequest
from mandate.workflows.rules import quantities
from mandate.workflows.rules.decisions import format_duration

Overlap = Literal["skip", "buffer-one", "buffer-all", "cancel-other", "allow-all"]
"""Temporal's policies but `terminate-other`: a run that is terminated takes nothing back and answers nobody."""

CATCH_UP = timedelta(hours=1)
"""Time after which a firing that no server was there for is left out."""

STARTED_SECONDS = 5.0
"""Time for which a run that was triggered is waited for."""

MOST_SHOWN = 5
"""Firings that a schedule tells of, the last and the next ones."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_OVERLAPS: Mapping[Overlap, ScheduleOverlapPolicy] = {
    "skip": ScheduleOverlapPolicy.SKIP,
    "buffer-one": ScheduleOverlapPolicy.BUFFER_ONE,
    "buffer-all": ScheduleOverlapPolicy.BUFFER_ALL,
    "cancel-other": ScheduleOverlapPolicy.CANCEL_OTHER,
    "allow-all": ScheduleOverlapPolicy.ALLOW_ALL,
}
_KINDS = {AGENT_WORKFLOW: "agent", PLAN_WORKFLOW: "plan"}
_REFUSED = "Invalid schedule spec: "
"""Beginning of the server's sentence about times that it cannot read."""


class ScheduleError(Exception):
    """A schedule that is not there, is not ours or cannot be made; the text is one sentence."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Times at which a schedule fires."""

    cron: tuple[str, ...] = ()
    every: tuple[timedelta, ...] = ()
    at: tuple[datetime, ...] = ()
    """Single times, aware; each fires once."""
    time_zone: str | None = None
    """Of `cron`; UTC if left out."""
    jitter: timedelta | None = None
    """Each firing is put off by a time of up to this, chosen by the server."""

    def __str__(self) -> str:
        """Return the times as one line."""
        zone = f" {self.time_zone or 'UTC'}" if self.cron else ""
        crons = ", ".join(f"cron {one}" for one in self.cron)
        parts = [*([f"{crons}{zone}"] if crons else []), *(f"every {format_duration(one)}" for one in self.every)]
        parts += [f"once at {one:%Y-%m-%d %H:%M:%S} UTC" for one in self._list_utc()]
        late = f", up to {format_duration(self.jitter)} later" if self.jitter is not None else ""
        return f"{', '.join(parts)}{late}"

    def _list_utc(self) -> list[datetime]:
        return sorted(one.astimezone(UTC) for one in self.at)

    def _list_calendars(self) -> list[ScheduleCalendarSpec]:
        """Return the single times in the zone of the cron lines: the server reads both in the same one."""
        zone = find_time_zone(self.time_zone) if self.cron and self.time_zone is not None else UTC
        return [_to_calendar(one.astimezone(zone)) for one in self._list_utc()]

    def to_spec(self) -> ScheduleSpec:
        """Return the times as Temporal takes them."""
        return ScheduleSpec(
            calendars=self._list_calendars(),
            cron_expressions=list(self.cron),
            intervals=[ScheduleIntervalSpec(every=one) for one in self.every],
            time_zone_name=self.time_zone if self.cron else None,
            jitter=self.jitter,
        )


def _to_calendar(moment: datetime) -> ScheduleCalendarSpec:
    def only(value: int) -> list[ScheduleRange]:
        return [ScheduleRange(value)]

    return ScheduleCalendarSpec(
        second=only(moment.second),
        minute=only(moment.minute),
        hour=only(moment.hour),
        day_of_month=only(moment.day),
        month=only(moment.month),
        year=only(moment.year),
    )


@dataclass(frozen=True, slots=True)
class Firing:
    """One run that a schedule has started."""

    at: datetime
    workflow_id: str
    run_id: str


@dataclass(frozen=True, slots=True)
class ScheduleView:
    """A schedule as people and programs read it."""

    id: str
    kind: str
    """`agent` or `plan`."""
    name: str | None
    """Of the agent or plan; `None` for a schedule that another program made."""
    when: str | None
    """Times in words; `None` as above."""
    paused: bool
    note: str
    upcoming: tuple[datetime, ...]
    recent: tuple[Firing, ...]
    """The newest last."""
    overlap: str | None = None
    """`None` in a list, where the server does not tell it."""
    running: tuple[str, ...] = ()
    """Workflow ids."""

    def to_json(self) -> dict[str, object]:
        """Return the schedule as programs read it."""
        return {
            "id": self.id,
            "starts": {"kind": self.kind, "name": self.name},
            "when": self.when,
            "paused": self.paused,
            "note": self.note,
            "overlap": self.overlap,
            "next": [moment.isoformat() for moment in self.upcoming],
            "recent": [
                {"at": one.at.isoformat(), "workflow_id": one.workflow_id, "run_id": one.run_id} for one in self.recent
            ],
            "running": list(self.running),
        }


async def create_schedule(
    client: Client,
    schedule_id: str,
    request: StartRequest | PlanRequest,
    timing: Timing,
    *,
    task_queue: str,
    overlap: Overlap = "skip",
    catch_up: timedelta = CATCH_UP,
    paused: bool = False,
    note: str = "",
) -> ScheduleView:
    """Make a schedule that starts runs by one request.

    Args:
        client: a connected client.
        schedule_id: the id; each run has the workflow id `<id>-<time of the firing>`.
        request: what each firing starts.
        timing: when it fires.
        task_queue: of the workers.
        overlap: what becomes of a firing while the run of an earlier one goes on.
        catch_up: how late a firing may be made that no server was there for.
        paused: make it without letting it fire.
        note: a line for people.

    Raises:
        ScheduleError: the id is none or is used, or the server does not take the times.
    """
    if not _ID.fullmatch(schedule_id):
        raise ScheduleError(
            f"the id {schedule_id!r} is not 1 to 100 letters, digits, '.', '_' and '-' that begin with one of the first"
        )
    is_agent = isinstance(request, StartRequest)
    kind = AGENT_WORKFLOW if is_agent else PLAN_WORKFLOW
    action = ScheduleActionStartWorkflow(
        kind,
        request.model_dump(mode="json", exclude_defaults=True),
        id=schedule_id,
        task_queue=task_queue,
        task_timeout=TASK_TIMEOUT,
        static_summary=summarize(request),
    )
    schedule = Schedule(
        action=action,
        spec=timing.to_spec(),
        policy=SchedulePolicy(overlap=_OVERLAPS[overlap], catchup_window=catch_up),
        state=ScheduleState(paused=paused, note=note or None),
    )
    name = request.agent if isinstance(request, StartRequest) else name_plan(request)
    try:
        await client.create_schedule(schedule_id, schedule, memo={"starts": name, "when": str(timing)})
    except ScheduleAlreadyRunningError:
        raise ScheduleError(
            f"there is a schedule {schedule_id!r} already; delete it first, or take another id"
        ) from None
    except RPCError as error:
        if error.status is not RPCStatusCode.INVALID_ARGUMENT:
            raise
        raise ScheduleError(_explain_refusal(timing, error.message.removeprefix(_REFUSED))) from None
    return await read_schedule(client, schedule_id)


def _explain_refusal(timing: Timing, said: str) -> str:
    """Return why the server does not take the times; of a cron line with too few or too many fields, which one."""
    for line in timing.cron:
        fields = [word for word in line.partition("#")[0].split() if not word.startswith(("CRON_TZ=", "TZ="))]
        if not line.startswith("@") and not 5 <= len(fields) <= 7:
            return (
                f"the cron line {line!r} has {quantities.count_noun(len(fields), 'field')}; it has minute, hour, day, "
                "month and weekday, as '0 7 * * MON-FRI', or is '@daily', '@hourly' and the like"
            )
    return f"{timing}: {said}"


async def list_schedules(client: Client) -> list[ScheduleView]:
    """Return all schedules of the namespace that start agents and plans, by id."""
    found = [await _view_entry(entry) async for entry in await client.list_schedules() if _find_kind(entry) is not None]
    return sorted(found, key=lambda view: view.id)


async def read_schedule(client: Client, schedule_id: str) -> ScheduleView:
    """Return one schedule with its policy and what it has started; raise as `trigger`."""
    return await _view(await _describe(client, schedule_id))


async def pause(client: Client, schedule_id: str, note: str) -> ScheduleView:
    """Let a schedule start nothing more by itself; raise as `trigger`."""
    async with _owned(client, schedule_id) as handle:
        await handle.pause(note=note)
    return await read_schedule(client, schedule_id)


async def resume(client: Client, schedule_id: str, note: str) -> ScheduleView:
    """Let a paused schedule go on; what it left out meanwhile is not made up for. Raise as `trigger`."""
    async with _owned(client, schedule_id) as handle:
        await handle.unpause(note=note)
    return await read_schedule(client, schedule_id)


async def delete(client: Client, schedule_id: str) -> None:
    """Delete a schedule; runs that it has started go on. Raise as `trigger`."""
    async with _owned(client, schedule_id) as handle:
        await handle.delete()


async def trigger(client: Client, schedule_id: str, overlap: Overlap | None = None) -> Firing | None:
    """Let a schedule fire now, and return the run; `None` when it starts none, as its overlap policy says.

    Raises:
        ScheduleError: there is no such schedule, or it starts something that is no agent and no plan.
    """
    found = await _describe(client, schedule_id)
    before = _newest(found)
    if before is not None:
        # The workflow id has the second of the firing, and a second run under it is none.
        left = (before.at.replace(microsecond=0) + timedelta(seconds=1) - datetime.now(UTC)).total_seconds()
        await asyncio.sleep(min(max(left, 0.0), 1.0))
    handle = client.get_schedule_handle(schedule_id)
    await handle.trigger(overlap=_OVERLAPS[overlap] if overlap is not None else None)
    try:
        return await asyncio.wait_for(_find_newer(client, schedule_id, found), STARTED_SECONDS)
    except TimeoutError:
        return None


async def _find_newer(client: Client, schedule_id: str, earlier: ScheduleDescription) -> Firing | None:
    """Wait for a firing after what was described; return `None` once the server has skipped one more."""
    before = _newest(earlier)
    while True:
        found = await _describe(client, schedule_id)
        newest = _newest(found)
        if newest is not None and newest != before:
            return newest
        if found.info.num_actions_skipped_overlap > earlier.info.num_actions_skipped_overlap:
            return None
        await asyncio.sleep(0.1)


@asynccontextmanager
async def _owned(client: Client, schedule_id: str) -> AsyncIterator[ScheduleHandle]:
    """Give the handle of a schedule that starts agents or plans; raise as `trigger`."""
    await _describe(client, schedule_id)
    try:
        yield client.get_schedule_handle(schedule_id)
    except RPCError as error:
        raise _explain(error, schedule_id) from None


async def _describe(client: Client, schedule_id: str) -> ScheduleDescription:
    try:
        found = await client.get_schedule_handle(schedule_id).describe()
    except RPCError as error:
        raise _explain(error, schedule_id) from None
    action = found.schedule.action
    if not isinstance(action, ScheduleActionStartWorkflow) or action.workflow not in _KINDS:
        what = action.workflow if isinstance(action, ScheduleActionStartWorkflow) else "something else"
        raise ScheduleError(f"the schedule {schedule_id!r} starts {what}, which is no agent and no plan")
    return found


def _explain(error: RPCError, schedule_id: str) -> Exception:
    if error.status is RPCStatusCode.NOT_FOUND:
        return ScheduleError(f"there is no schedule {schedule_id!r}")
    return error


async def _view(found: ScheduleDescription) -> ScheduleView:
    action, memo = found.schedule.action, await found.memo()
    assert isinstance(action, ScheduleActionStartWorkflow)
    return ScheduleView(
        id=found.id,
        kind=_KINDS[action.workflow],
        name=_text(memo, "starts"),
        when=_text(memo, "when"),
        paused=found.schedule.state.paused,
        note=found.schedule.state.note or "",
        upcoming=tuple(found.info.next_action_times[:MOST_SHOWN]),
        recent=_firings(found.info.recent_actions),
        overlap=next((word for word, policy in _OVERLAPS.items() if policy == found.schedule.policy.overlap), None),
        running=tuple(
            running.workflow_id
            for running in found.info.running_actions
            if isinstance(running, ScheduleActionExecutionStartWorkflow)
        ),
    )


async def _view_entry(entry: ScheduleListDescription) -> ScheduleView:
    memo, kind = await entry.memo(), _find_kind(entry)
    assert entry.schedule is not None
    assert kind is not None
    return ScheduleView(
        id=entry.id,
        kind=kind,
        name=_text(memo, "starts"),
        when=_text(memo, "when"),
        paused=entry.schedule.state.paused,
        note=entry.schedule.state.note or "",
        upcoming=tuple(entry.info.next_action_times[:MOST_SHOWN]) if entry.info is not None else (),
        recent=_firings(entry.info.recent_actions) if entry.info is not None else (),
    )


def _find_kind(entry: ScheduleListDescription) -> str | None:
    return _KINDS.get(getattr(entry.schedule.action, "workflow", "")) if entry.schedule is not None else None


def _text(memo: Mapping[str, object], key: str) -> str | None:
    value = memo.get(key)
    return value if isinstance(value, str) else None


def _newest(found: ScheduleDescription) -> Firing | None:
    return next(reversed(_firings(found.info.recent_actions)), None)


def _firings(results: Sequence[ScheduleActionResult]) -> tuple[Firing, ...]:
    return tuple(
        Firing(result.started_at, result.action.workflow_id, result.action.first_execution_run_id)
        for result in results[-MOST_SHOWN:]
        if isinstance(result.action, ScheduleActionExecutionStartWorkflow)
    )
