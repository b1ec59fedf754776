"""`mandate schedule`: runs of agents and plans at times, by schedules of Temporal."""

import shlex
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from mandate.workers.cli import identity
from mandate.workers.cli.connection import Connection, connected, note_start
from mandate.workers.cli.errors import DONE, ENDED_OTHERWISE, CliError
from mandate.workers.cli.limits import LIMITS, read_limits
from mandate.workers.cli.options import Invocation, verb
from mandate.workers.cli.output import print_table
from mandate.workers.cli.plan import read_plan, read_plan_input
from mandate.workers.cli.run import read_input, read_label
from mandate.workers.client import schedules
from mandate.workers.client.schedules import Overlap, ScheduleError, ScheduleView, Timing
from mandate.workers.client.start_requests import read_plan_start, read_start
from mandate.workflows.contracts.base import parse_duration
from mandate.workflows.contracts.budget_file import find_time_zone
from mandate.workflows.contracts.plan import PlanRequest
from mandate.workflows.contracts.run import StartRequest
from mandate.workflows.rules.decisions import format_time

OVERLAPS = ", ".join(get_args(Overlap))

LAST_YEAR = 2100
"""The first that the server does not fire in; it says so of times after it."""

_HEAD = ("schedule", "starts", "when", "next", "last run")

schedule = typer.Typer(
    help="Start runs of agents and plans at times, by schedules of Temporal.",
    add_completion=False,
    no_args_is_help=True,
)

Id = Annotated[str, typer.Argument(help="Id of the schedule.", metavar="SCHEDULE")]
Note = Annotated[str | None, typer.Option(help="A line for people, with the schedule.")]
OverlapOption = Annotated[
    str | None,
    typer.Option(
        help=f"What becomes of a firing while the run of an earlier one goes on: {OVERLAPS}.", metavar="POLICY"
    ),
]


@schedule.command("create")
@verb
async def create(
    call: Invocation,
    schedule_id: Annotated[
        str,
        typer.Argument(
            help="Id of the schedule; each run has the workflow id `<id>-<time of its firing>`.", metavar="SCHEDULE"
        ),
    ],
    text: Annotated[str | None, typer.Argument(help="What is asked; `-` reads it from stdin.", metavar="TEXT")] = None,
    *,
    agent: Annotated[str | None, typer.Option(help="Name of the agent whose runs it starts.")] = None,
    plan: Annotated[
        str | None,
        typer.Option(help="In place of --agent: name of a plan of the workers, or a plan file.", metavar="NAME|FILE"),
    ] = None,
    cron: Annotated[
        list[str] | None,
        typer.Option(help="A cron line, as '0 7 * * MON-FRI' or '@daily'; can be repeated.", metavar="CRON"),
    ] = None,
    every: Annotated[
        list[str] | None, typer.Option(help="An interval, as 6h or 30m; can be repeated.", metavar="DURATION")
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(help="One time, as 2026-12-24T18:00; it fires then and no more. Can be repeated.", metavar="TIME"),
    ] = None,
    time_zone: Annotated[
        str | None, typer.Option(help="Of --cron and --at, as Europe/Berlin; UTC if left out.", metavar="ZONE")
    ] = None,
    jitter: Annotated[
        str | None, typer.Option(help="Put each firing off by a random time of up to this.", metavar="DURATION")
    ] = None,
    overlap: OverlapOption = None,
    catch_up: Annotated[
        str | None,
        typer.Option(
            help="How late a firing may be made that no server was there for; 1h if left out.", metavar="DURATION"
        ),
    ] = None,
    paused: Annotated[bool, typer.Option("--paused", help="Make it without letting it fire by itself.")] = False,
    note: Note = None,
    input_file: Annotated[Path | None, typer.Option(help="What is asked: a text, or an object in `.json`.")] = None,
    input_json: Annotated[str | None, typer.Option("--input", help="What is asked, as JSON.")] = None,
    requester: Annotated[str | None, typer.Option(help="Who asks, as of `mandate run`.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="`key=value`, for finding runs; can be repeated.")] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(
            help=f"A limit of each run, as `cost_usd=0.50`. LIMIT is one of {LIMITS}. Can be repeated.",
            metavar="LIMIT=VALUE",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Ask this model in place of the agent's route; one that the agent file allows.")
    ] = None,
    tainted: Annotated[
        bool, typer.Option("--tainted", help="The input comes from strangers: rules see `run.tainted` from the start.")
    ] = False,
    task_queue: Annotated[str | None, typer.Option("--task-queue", "-t", help="Of the workers.")] = None,
) -> int:
    """Make a schedule that starts runs of an agent or a plan, all with the same input.

    Whether the workers have the agent or the plan is seen when it first fires: `mandate schedule trigger` lets it fire
    at once, and `mandate show` tells how that run goes. Agents whose starts must be signed cannot be scheduled, since a
    token is for one run. A schedule whose times are over stays until it is deleted.

    Exit code 0: it is made. 2: it was asked for wrongly.
    """
    timing = _read_timing(cron or [], every or [], at or [], time_zone, jitter)
    policy = _read_overlap(overlap) or "skip"
    late = _read_duration("--catch-up", catch_up) if catch_up is not None else schedules.CATCH_UP
    given: dict[str, Any] = {
        "labels": dict(map(read_label, label or ())),
        "budget": read_limits("--budget", budget or ()) or None,
        "tainted": tainted,
    }
    request: StartRequest | PlanRequest
    if (agent is None) == (plan is None):
        raise CliError("give what it starts once: --agent or --plan")
    if plan is not None and model is not None:
        raise CliError("--model goes with --agent; the agents of a plan have their own")
    if agent is not None:
        given |= {"agent": agent, "input": read_input(text, input_file, input_json), "model": model}
    else:
        assert plan is not None
        given |= {"plan": read_plan(plan), "input": read_plan_input(text, input_file, input_json)}
    async with connected(call) as connection:
        _note_start(call, connection)
        queue = task_queue or connection.settings.task_queue
        named = requester if requester is not None else connection.settings.requester
        who = identity.person(connection.settings, named, option="--requester")
        try:
            given |= {"requester": who.name}
            request = read_start(given) if agent is not None else read_plan_start(given)
        except ValueError as error:
            raise CliError(f"start request: {error}") from None
        try:
            made = await schedules.create_schedule(
                connection.client,
                schedule_id,
                request,
                timing,
                task_queue=queue,
                overlap=policy,
                catch_up=late,
                paused=paused,
                note=note or "",
            )
        except ScheduleError as error:
            raise CliError(str(error)) from None
        call.out.note(f"{schedule_id} on task queue {queue}, requester {who}")
        if not made.upcoming and not paused:
            call.out.note("warning: it never fires by itself: no such time will come")
        _print(call, made)
    return DONE


@schedule.command("list")
@verb
async def list_(call: Invocation) -> int:
    """List all schedules that start agents and plans."""
    async with connected(call, of_runs=True) as connection:
        found = await schedules.list_schedules(connection.client)
    if call.out.as_json:
        call.out.json({"schedules": [view.to_json() for view in found]})
    elif found:
        print_table(call.out, [_to_cells(view) for view in found], _HEAD)
    else:
        call.out.print("there are no schedules")
    return DONE


@schedule.command("show")
@verb
async def show(call: Invocation, schedule_id: Id) -> int:
    """Show one schedule: when it fires next, and the last runs that it has started.

    With `-o json` one object: id, starts, when, paused, note, overlap, next, recent and running.
    """
    async with connected(call, of_runs=True) as connection:
        _print(call, await _asked(schedules.read_schedule(connection.client, schedule_id)))
    return DONE


@schedule.command("pause")
@verb
async def pause(call: Invocation, schedule_id: Id, *, note: Note = None) -> int:
    """Let a schedule start nothing more by itself; runs that go on are left alone."""
    async with connected(call, of_runs=True) as connection:
        said = note or f"paused by {identity.person(connection.settings, None).name}"
        _print(call, await _asked(schedules.pause(connection.client, schedule_id, said)))
    return DONE


@schedule.command("resume")
@verb
async def resume(call: Invocation, schedule_id: Id, *, note: Note = None) -> int:
    """Let a paused schedule fire again; what it left out meanwhile is not made up for."""
    async with connected(call, of_runs=True) as connection:
        said = note or f"resumed by {identity.person(connection.settings, None).name}"
        _print(call, await _asked(schedules.resume(connection.client, schedule_id, said)))
    return DONE


@schedule.command("trigger")
@verb
async def trigger(call: Invocation, schedule_id: Id, *, overlap: OverlapOption = None) -> int:
    """Let a schedule fire now, also a paused one, and tell the run.

    Exit code 0: a run was started. 1: none was, since an earlier one goes on. 2: there is no such schedule.
    """
    policy = _read_overlap(overlap)
    async with connected(call, of_runs=True) as connection:
        fired = await _asked(schedules.trigger(connection.client, schedule_id, policy))
        if call.out.as_json:
            ids = {"workflow_id": fired.workflow_id, "run_id": fired.run_id} if fired is not None else None
            call.out.json({"schedule": schedule_id, "run": ids})
        elif fired is not None:
            call.out.print(fired.workflow_id)
            follow = f"{call.program} show {shlex.quote(fired.workflow_id)} --follow{connection.options}"
            call.out.note(f"follow it with `{follow}`")
        else:
            call.out.note("no run was started yet: one of an earlier firing goes on; see --overlap")
    return DONE if fired is not None else ENDED_OTHERWISE


@schedule.command("delete")
@verb
async def delete(call: Invocation, schedule_id: Id) -> int:
    """Delete a schedule; runs that it has started go on."""
    async with connected(call, of_runs=True) as connection:
        await _asked(schedules.delete(connection.client, schedule_id))
    if call.out.as_json:
        call.out.json({"schedule": schedule_id, "deleted": True})
    else:
        call.out.print(f"deleted {schedule_id}")
    return DONE


async def _asked(answer: Any) -> Any:
    try:
        return await answer
    except ScheduleError as error:
        raise CliError(str(error)) from None


def _note_start(call: Invocation, connection: Connection) -> None:
    note_start(call, connection)
    if connection.started_in is not None:
        call.out.note("a schedule fires only while the server runs: `mandate server` or `mandate worker` keep it up")


def _read_timing(cron: list[str], every: list[str], at: list[str], time_zone: str | None, jitter: str | None) -> Timing:
    if not cron and not every and not at:
        raise CliError("give when it fires: --cron '0 7 * * *', --every 6h, --at 2026-12-24T18:00, or several of them")
    zone: tzinfo = UTC
    if time_zone is not None:
        if not cron and not at:
            raise CliError("--time-zone goes with --cron and --at; intervals are the same everywhere")
        try:
            zone = find_time_zone(time_zone)
        except (KeyError, ValueError, OSError):
            raise CliError(f"--time-zone {time_zone!r} is not known here; for example Europe/Berlin or UTC") from None
    return Timing(
        cron=tuple(cron),
        every=tuple(_read_duration("--every", one) for one in every),
        at=tuple(_read_time(one, zone) for one in at),
        time_zone=time_zone,
        jitter=_read_duration("--jitter", jitter) if jitter is not None else None,
    )


def _read_time(written: str, zone: tzinfo) -> datetime:
    """Return one time to come; where it does not say its zone, that of `zone`."""
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        raise CliError(
            f"--at {written!r} is no date and time, for example 2026-12-24T18:00 or 2026-12-24T18:00+01:00"
        ) from None
    if len(written) <= len("2026-12-24"):
        raise CliError(f"--at {written!r} has no time of the day, for example {written}T18:00")
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)
    if aware <= datetime.now(UTC):
        raise CliError(f"--at {written!r} is over: {_write_time(aware.astimezone(UTC))}; give a time to come")
    if aware.year >= LAST_YEAR:
        raise CliError(f"--at {written!r} is too late: the server fires until the end of {LAST_YEAR - 1}")
    return aware


def _read_duration(option: str, written: str) -> timedelta:
    try:
        length = parse_duration(written)
    except ValueError as error:
        raise CliError(f"{option} {written!r}: {error}") from None
    if not isinstance(length, timedelta) or length < timedelta(seconds=1):
        raise CliError(f"{option} {written!r}: must be a second or longer, for example 6h or 30m")
    return length


def _read_overlap(written: str | None) -> Overlap | None:
    found: Overlap | None = next((word for word in get_args(Overlap) if word == written), None)
    if written is not None and found is None:
        raise CliError(f"--overlap {written!r} is not one of {OVERLAPS}")
    return found


def _print(call: Invocation, view: ScheduleView) -> None:
    if call.out.as_json:
        call.out.json(view.to_json())
        return
    state = "paused" if view.paused else "fires"
    lines = [
        ("Schedule", f"{view.id} ({state}{f': {view.note}' if view.note else ''})"),
        ("Starts", _name(view)),
        ("When", view.when or "as another program has said"),
        ("Overlap", view.overlap or "as another program has said"),
        ("Next", ", ".join(map(_write_time, view.upcoming)) or "never"),
        *((("Running", ", ".join(view.running)),) if view.running else ()),
        *(("Run", f"{one.workflow_id} at {_write_time(one.at)}") for one in reversed(view.recent)),
    ]
    for name, value in lines:
        call.out.print(f"{name:<10}{value}")


def _write_time(at: datetime) -> str:
    """Return a time to the minute, or to the second where it has some."""
    return f"{at:%Y-%m-%d %H:%M:%S} UTC" if at.second else format_time(at)


def _name(view: ScheduleView) -> str:
    return f"{view.kind} {view.name}" if view.name is not None else view.kind


def _to_cells(view: ScheduleView) -> tuple[str, ...]:
    upcoming = "paused" if view.paused else next(map(_write_time, view.upcoming), "never")
    last = view.recent[-1].workflow_id if view.recent else "none yet"
    return (view.id, _name(view), view.when or "", upcoming, last)
