"""`mandate stats`: numbers over many runs."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.text import Text

from mandate.workers.cli.connection import connected, note_start
from mandate.workers.cli.errors import CliError
from mandate.workers.cli.options import Invocation, verb
from mandate.workers.cli.output import Output, print_table
from mandate.workers.history.stats import (
    RUNS,
    AgentStats,
    CallStats,
    Spread,
    Stats,
    WaitStats,
    measure,
    rank_calls,
    read_stats,
)
from mandate.workers.history.timeline import format_moment, write_length
from mandate.workflows.contracts.base import parse_duration
from mandate.workflows.rules import quantities, wording
from mandate.workflows.rules.period_budgets import format_usd

ROWS = 20
"""Of each table."""

UNREAD_SHOWN = 5

NAME_CHARACTERS = 40


@verb
async def stats(
    call: Invocation,
    *,
    agent: Annotated[str | None, typer.Option(help="Only runs of this agent or plan.")] = None,
    since: Annotated[
        str | None,
        typer.Option(
            help="Only runs that began since then: `24h` or `7d` ago, or a time such as `2026-11-30`, in UTC."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(help="Runs that are read at most, the newest.", min=1)] = RUNS,
) -> int:
    """Count runs: how they ended, what they cost, how long they took, what failed, and how long people were waited for.

    It reads the history of each run. Cost and tokens of a run are its own: those of its children are with their
    agents, so that sums hold. p50 and p95 are durations that occurred: the least that half of the runs, or 95 of 100,
    did not exceed. Of up to 19 runs p95 is the longest.

    With `-o json` one object: since, found (runs that the server counts), listed (runs that were looked at), counted,
    outcomes, model_calls, input_tokens, output_tokens, cost_usd, unpriced_calls, duration (count, p50, p95, longest,
    in seconds, of runs that have ended), agents (the same of each), tools and checks (name, calls, states,
    more_attempts), requests by kind and people by group or user (name, requests, expired, open, waited), and unread
    (workflow_id, run_id, reason, counted: it is in the numbers as far as it could be read).
    """
    moment = parse_since(since, datetime.now(UTC)) if since is not None else None
    async with connected(call, of_runs=True) as connection:
        note_start(call, connection)
        with call.out.counting("looking for runs", "read {} of {} runs") as on_progress:
            try:
                found = await read_stats(
                    connection.client, agent=agent, since=moment, limit=limit, on_progress=on_progress
                )
            except ValueError as error:
                raise CliError(f"--agent: {error}") from None
        if call.out.as_json:
            call.out.json(found.to_json())
        else:
            _print(call.out, found, limit)
    return 0


def parse_since(text: str, now: datetime) -> datetime:
    """Return the moment that `--since` names: so long ago, or a date or time, in UTC where it names no zone."""
    try:
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    except ValueError:
        try:
            length = parse_duration(text)
        except ValueError:
            length = None
        if not isinstance(length, timedelta):
            raise CliError(
                f"--since {text!r} is neither a duration such as 24h or 7d nor a time such as 2026-11-30T09:00"
            ) from None
        moment = now - length
    if moment > now:
        raise CliError(f"--since {text!r} is in the future; it is {format_moment(now)} now")
    return moment


def _print(out: Output, stats: Stats, limit: int) -> None:
    since = f" since {format_moment(stats.since)}" if stats.since is not None else ""
    if stats.counted:
        outcomes = ", ".join(f"{count:,} {status}" for status, count in stats.outcomes.most_common())
        out.print(Text.assemble((f"{quantities.count_noun(stats.counted, 'run')}{since}", "bold"), f": {outcomes}"))
        out.print(f"used {wording.describe_usage(stats.usage)}", f"took {_describe(measure(stats.lengths))}")
        _print_agents(out, stats.agents.values())
        _print_calls(out, "tools", rank_calls(stats.tools))
        _print_calls(out, "checks", rank_calls(stats.checks))
        _print_waits(out, "requests to people", stats.kinds.values())
        _print_waits(out, "waited for", stats.people.values())
    else:
        out.print(f"no runs{since}")
    if stats.found is not None and stats.found > stats.listed:
        out.note(f"\nthese are the newest {limit:,} of {stats.found:,} runs; --limit reads more")
    if stats.is_filtered:
        out.note("the namespace has no search attribute for agents: the runs of this one were picked out of all")
    _print_unread(out, stats)


def _describe(spread: Spread) -> str:
    if spread.p50 is None or spread.p95 is None or spread.longest is None:
        return "nothing to measure: none has ended"
    told = f"p50 {write_length(spread.p50)}, p95 {write_length(spread.p95)}, at most {write_length(spread.longest)}"
    return f"{told}, of {spread.count:,} that have ended"


def _cells(spread: Spread) -> tuple[str, str, str]:
    lengths = (spread.p50, spread.p95, spread.longest)
    p50, p95, longest = ("" if one is None else write_length(one) for one in lengths)
    return p50, p95, longest


def _print_agents(out: Output, agents: Iterable[AgentStats]) -> None:
    ranked = sorted(agents, key=lambda one: (-one.usage.cost_usd, -one.runs, one.agent))
    rows = [
        (
            wording.shorten(one.agent, NAME_CHARACTERS),
            f"{one.runs:,}",
            f"{one.outcomes['completed']:,}",
            _describe_cost(one),
            f"{one.usage.input_tokens:,}",
            f"{one.usage.output_tokens:,}",
            *_cells(measure(one.lengths)),
        )
        for one in ranked
    ]
    _print_rows(
        out, "agents", rows, ("agent", "runs", "completed", "cost", "tokens in", "out", "p50", "p95", "longest")
    )


def _describe_cost(one: AgentStats) -> str:
    cost = format_usd(one.usage.cost_usd)
    return f"{cost} and {quantities.count_noun(one.usage.unpriced_calls, 'call')}" if one.usage.unpriced_calls else cost


def _print_calls(out: Output, title: str, calls: Iterable[CallStats]) -> None:
    rows = [
        (
            wording.shorten(one.name, NAME_CHARACTERS),
            f"{one.calls:,}",
            ", ".join(f"{count:,} {state}" for state, count in one.states.most_common() if state != "done"),
            f"{one.more_attempts:,}" if one.more_attempts else "",
        )
        for one in calls
    ]
    _print_rows(out, title, rows, ("name", "calls", "not done", "more attempts"))


def _print_waits(out: Output, title: str, waits: Iterable[WaitStats]) -> None:
    rows = [
        (
            wording.shorten(one.name, NAME_CHARACTERS),
            f"{one.requests:,}",
            f"{one.expired:,}" if one.expired else "",
            f"{one.open:,}" if one.open else "",
            *_cells(measure(one.lengths)),
        )
        for one in sorted(waits, key=lambda one: (-one.requests, one.name))
    ]
    _print_rows(out, title, rows, ("name", "requests", "expired", "open", "p50", "p95", "longest"))


def _print_rows(out: Output, title: str, rows: Sequence[Sequence[str]], head: Sequence[str]) -> None:
    if not rows:
        return
    out.print("", Text(title, style="bold"))
    print_table(out, rows[:ROWS], head, indent=2)
    if len(rows) > ROWS:
        out.print(Text(f"  and {len(rows) - ROWS} more, see -o json", style="dim"))


def _print_unread(out: Output, stats: Stats) -> None:
    for is_counted, told in ((False, "could not be read"), (True, "could be read only in part")):
        unread = [one for one in stats.unread if one.is_counted is is_counted]
        if unread:
            out.note(f"\n{quantities.count_noun(len(unread), 'run')} {told}:")
        for one in unread[:UNREAD_SHOWN]:
            out.note(f"  {one.workflow_id}: {one.reason}")
        if len(unread) > UNREAD_SHOWN:
            out.note(f"  and {len(unread) - UNREAD_SHOWN} more, see -o json")
