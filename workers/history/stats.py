"""Numbers over many runs: outcomes, cost, durations, failures, and how long people were waited for."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from pydantic import JsonValue
from temporalio.client import Client, WorkflowExecution
from temporalio.service import RPCError, RPCStatusCode

from mandate.workers.client import trees
from mandate.workers.history.parts import read_whole
from mandate.workers.history.record import find_status
from mandate.workers.history.run_history import RunHistory
from mandate.workers.history.timeline import Bar, Timeline
from mandate.workflows.contracts.model import Usage
from mandate.workflows.rules import plain_text

AT_A_TIME = 8
"""Histories that are read at once."""

RUNS = 1000
"""Runs that are read unless told otherwise, the newest."""

_RUNS = 'WorkflowType IN ("AgentWorkflow", "PlanWorkflow") AND ExecutionStatus != "ContinuedAsNew"'

UNKNOWN_AGENT = "(unknown)"


@dataclass(frozen=True, slots=True)
class Spread:
    """Distribution of lengths; each percentile is a length that occurred: the least that so many did not exceed."""

    count: int = 0
    p50: timedelta | None = None
    p95: timedelta | None = None
    longest: timedelta | None = None

    def to_json(self) -> dict[str, JsonValue]:
        """Return it in seconds; `null` where nothing was measured."""
        lengths = {"p50": self.p50, "p95": self.p95, "longest": self.longest}
        seconds = {name: None if one is None else round(one.total_seconds(), 3) for name, one in lengths.items()}
        return {"count": self.count, **seconds}


def measure(lengths: Iterable[timedelta]) -> Spread:
    """Return the distribution of lengths."""
    ordered = sorted(lengths)
    if not ordered:
        return Spread()
    return Spread(len(ordered), find_percentile(ordered, 50), find_percentile(ordered, 95), ordered[-1])


def find_percentile(ordered: Sequence[timedelta], percent: int) -> timedelta:
    """Return the least of `ordered` that at least `percent` of them do not exceed: the nearest rank."""
    # In whole numbers, which round nothing.
    rank = -(-percent * len(ordered) // 100)
    return ordered[max(rank, 1) - 1]


@dataclass(slots=True)
class AgentStats:
    """Runs of one agent or plan."""

    agent: str
    runs: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    usage: Usage = field(default_factory=Usage)
    """Of the runs themselves: what children took is with their agents."""
    lengths: list[timedelta] = field(default_factory=list)
    """From start to end, of runs that have ended."""

    def to_json(self) -> dict[str, JsonValue]:
        """Return one entry of `-o json`."""
        return {
            "agent": self.agent,
            "runs": self.runs,
            "outcomes": dict(self.outcomes.most_common()),
            "model_calls": self.usage.model_calls,
            "input_tokens": self.usage.input_tokens,
            "output_tokens": self.usage.output_tokens,
            "cost_usd": f"{self.usage.cost_usd:f}",
            "unpriced_calls": self.usage.unpriced_calls,
            "duration": measure(self.lengths).to_json(),
        }


@dataclass(slots=True)
class CallStats:
    """Calls of one tool, or runs of one check."""

    name: str
    calls: int = 0
    states: Counter[str] = field(default_factory=Counter)
    more_attempts: int = 0
    """Attempts after the first."""

    def to_json(self) -> dict[str, JsonValue]:
        """Return one entry of `-o json`."""
        return {
            "name": self.name,
            "calls": self.calls,
            "states": dict(self.states.most_common()),
            "more_attempts": self.more_attempts,
        }


@dataclass(slots=True)
class WaitStats:
    """Requests of one kind, or to one group or user."""

    name: str
    requests: int = 0
    expired: int = 0
    open: int = 0
    lengths: list[timedelta] = field(default_factory=list)
    """Of those that are over."""

    def to_json(self) -> dict[str, JsonValue]:
        """Return one entry of `-o json`."""
        counts: dict[str, JsonValue] = {"requests": self.requests, "expired": self.expired, "open": self.open}
        return {"name": self.name, **counts, "waited": measure(self.lengths).to_json()}


@dataclass(frozen=True, slots=True)
class Unread:
    """A run that could not be read, or not wholly."""

    workflow_id: str
    run_id: str
    reason: str
    is_counted: bool = False
    """It is in the numbers, as far as it could be read."""

    def to_json(self) -> dict[str, JsonValue]:
        """Return one entry of `-o json`."""
        named = {"workflow_id": self.workflow_id, "run_id": self.run_id}
        return {**named, "reason": self.reason, "counted": self.is_counted}


@dataclass(slots=True)
class Stats:
    """Numbers over runs."""

    since: datetime | None = None
    found: int | None = None
    """Runs that the server lists; `None` where it does not count."""
    listed: int = 0
    """Runs that were looked at."""
    is_filtered: bool = False
    """The runs of the agent were picked out here, since the namespace has no search attribute for it."""
    outcomes: Counter[str] = field(default_factory=Counter)
    lengths: list[timedelta] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    agents: dict[str, AgentStats] = field(default_factory=dict)
    tools: dict[str, CallStats] = field(default_factory=dict)
    checks: dict[str, CallStats] = field(default_factory=dict)
    kinds: dict[str, WaitStats] = field(default_factory=dict)
    """Requests by their kind."""
    people: dict[str, WaitStats] = field(default_factory=dict)
    """Requests by the groups and users that they waited for last."""
    unread: list[Unread] = field(default_factory=list)

    @property
    def counted(self) -> int:
        """Runs that are in the numbers."""
        return self.outcomes.total()

    def add(self, timeline: Timeline, history: RunHistory, status: str) -> None:
        """Count one run."""
        agent = history.agent or (history.pin.name if history.pin is not None else UNKNOWN_AGENT)
        its = self.agents.setdefault(agent, AgentStats(agent))
        usage = measure_own_usage(timeline, history)
        its.runs += 1
        its.outcomes[status] += 1
        self.outcomes[status] += 1
        its.usage, self.usage = its.usage + usage, self.usage + usage
        if timeline.begun_at is not None and timeline.ended_at is not None and timeline.missing is None:
            length = timeline.ended_at - timeline.begun_at
            its.lengths.append(length)
            self.lengths.append(length)
        for bar in timeline.bars:
            if bar.kind == "tool" and bar.state not in {"repeated", "asked"}:
                _count_call(self.tools, bar)
            elif bar.kind == "check" and bar.state != "repeated":
                _count_call(self.checks, bar)
            elif bar.kind == "person":
                self._count_wait(bar)

    def _count_wait(self, bar: Bar) -> None:
        rows = [self.kinds.setdefault(bar.request, WaitStats(bar.request))]
        rows += [self.people.setdefault(name, WaitStats(name)) for name in bar.waits_for]
        for row in rows:
            row.requests += 1
            row.expired += bar.state == "expired"
            if bar.ended_at is None:
                row.open += 1
            else:
                row.lengths.append(bar.ended_at - bar.begun_at)

    def to_json(self) -> dict[str, JsonValue]:
        """Return the result of `mandate stats -o json`."""
        by_cost = sorted(self.agents.values(), key=lambda one: (-one.usage.cost_usd, -one.runs, one.agent))
        return {
            "since": self.since.isoformat() if self.since is not None else None,
            "found": self.found,
            "listed": self.listed,
            "counted": self.counted,
            "outcomes": dict(self.outcomes.most_common()),
            "model_calls": self.usage.model_calls,
            "input_tokens": self.usage.input_tokens,
            "output_tokens": self.usage.output_tokens,
            "cost_usd": f"{self.usage.cost_usd:f}",
            "unpriced_calls": self.usage.unpriced_calls,
            "duration": measure(self.lengths).to_json(),
            "agents": [one.to_json() for one in by_cost],
            "tools": [one.to_json() for one in rank_calls(self.tools)],
            "checks": [one.to_json() for one in rank_calls(self.checks)],
            "requests": [one.to_json() for one in self.kinds.values()],
            "people": [one.to_json() for one in self.people.values()],
            "unread": [one.to_json() for one in self.unread],
        }


def measure_own_usage(timeline: Timeline, history: RunHistory) -> Usage:
    """Return what a run took itself, over all its parts: neither its children nor its session's earlier run."""
    whole = history.sum_usage()
    others = timeline.usage_below + timeline.usage_earlier
    own = {name: getattr(whole, name) - getattr(others, name) for name in Usage.model_fields}
    return Usage(**{name: max(value, type(value)(0)) for name, value in own.items()})


def rank_calls(calls: dict[str, CallStats]) -> list[CallStats]:
    """Return those with the most that went wrong first."""
    return sorted(calls.values(), key=lambda one: (one.states["done"] - one.calls, -one.calls, one.name))


def _count_call(calls: dict[str, CallStats], bar: Bar) -> None:
    its = calls.setdefault(bar.name, CallStats(bar.name))
    its.calls += 1
    its.states[bar.state] += 1
    its.more_attempts += bar.attempts - 1


async def read_stats(
    client: Client,
    *,
    agent: str | None = None,
    since: datetime | None = None,
    limit: int = RUNS,
    on_progress: Callable[[int, int], None] | None = None,
) -> Stats:
    """Return the numbers over the newest runs, a few of which are read at once.

    Args:
        client: of the namespace.
        agent: only runs of this agent or plan.
        since: only runs that began then or later.
        limit: runs that are looked at, at most.
        on_progress: told how many of how many are read.

    Raises:
        ValueError: `agent` holds a quote or a backslash.
    """
    stats = Stats(since)
    runs = await _list_runs(client, stats, agent, limit)
    slots = asyncio.Semaphore(AT_A_TIME)
    read = 0

    async def count(run: WorkflowExecution) -> None:
        nonlocal read
        async with slots:
            await _count_run(client, stats, run, agent)
        read += 1
        if on_progress is not None:
            on_progress(read, len(runs))

    await asyncio.gather(*map(count, runs))
    stats.unread.sort(key=lambda one: (one.is_counted, one.workflow_id, one.run_id))
    return stats


async def _list_runs(client: Client, stats: Stats, agent: str | None, limit: int) -> list[WorkflowExecution]:
    query = _RUNS
    if stats.since is not None:
        # A part begins no earlier than its run: this leaves out none that counts.
        query += f' AND StartTime >= "{stats.since.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"'
    if agent is not None:
        if not agent or any(character in agent for character in "\"'\\`"):
            raise ValueError(f"{agent!r} is no name of an agent: quotes and backslashes are not allowed")
        try:
            return await _list(client, stats, f'{query} AND AgentName="{agent}"', limit)
        except RPCError as error:
            # The namespace does not have our search attributes.
            if error.status is not RPCStatusCode.INVALID_ARGUMENT:
                raise
            stats.is_filtered = True
    return await _list(client, stats, query, limit)


async def _list(client: Client, stats: Stats, query: str, limit: int) -> list[WorkflowExecution]:
    runs = [run async for run in client.list_workflows(query, limit=limit, page_size=min(limit, 1000))]
    stats.listed = len(runs)
    try:
        stats.found = (await client.count_workflows(query)).count
    except RPCError:
        stats.found = None
    return runs


async def _count_run(client: Client, stats: Stats, run: WorkflowExecution, agent: str | None) -> None:
    try:
        timeline, history = await read_whole(client, run)
    except RPCError as error:
        gone = error.status is RPCStatusCode.NOT_FOUND
        reason = "Temporal does not keep it any more" if gone else plain_text.shorten(error.message)
        stats.unread.append(Unread(run.id, run.run_id, reason))
        return
    began_before = stats.since is not None and timeline.begun_at is not None and timeline.begun_at < stats.since
    if began_before or (agent is not None and _find_agent(run, history) not in {agent, None}):
        return
    if (gaps := _describe_gaps(timeline)) is not None:
        stats.unread.append(Unread(run.id, run.run_id, gaps, is_counted=True))
    history.agent = history.agent or trees.read_attribute(run, "AgentName")
    stats.add(timeline, history, find_status(history, run.status))


def _find_agent(run: WorkflowExecution, history: RunHistory) -> str | None:
    return history.agent or trees.read_attribute(run, "AgentName")


def _describe_gaps(timeline: Timeline) -> str | None:
    """Describe what of a run could not be read; `None` when all could."""
    events = f"{timeline.unreadable} of its events cannot be read" if timeline.unreadable else None
    return "; ".join(filter(None, (timeline.missing, events))) or None
