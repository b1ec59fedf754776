"""Inbox of people: runs that wait, and their requests."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from mandate.workers.client import answers, trees
from mandate.workers.client.rounds import Round, Silent
from mandate.workers.client.trees import Place
from mandate.workflows.contracts.request import OpenRequests, Request

RUNNING = 'WorkflowType IN ("AgentWorkflow", "PlanWorkflow") AND ExecutionStatus="Running"'
WAITING = f'{RUNNING} AND AgentStatus IN ("waiting", "paused")'
"""Paused runs may have open requests too, and take decisions."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A run that may want something from people."""

    workflow_id: str
    task_queue: str
    place: Place


@dataclass(frozen=True, slots=True)
class Inbox:
    """Open requests over all runs."""

    runs: tuple[OpenRequests, ...]
    """Those that want something."""
    silent: tuple[Silent, ...]
    """Those that did not answer, first those that people must mend."""
    scanned: bool
    """True if all running runs were asked, because the namespace lacks the search attributes."""
    places: Mapping[str, Place] = field(default_factory=dict)
    """Places of runs in their trees, by workflow id."""


async def open_runs(
    client: Client,
    *,
    group: str | None = None,
    agent: str | None = None,
    root: str | None = None,
    scan: bool = False,
) -> tuple[list[Waiting], bool]:
    """Return the runs that wait for people, and whether these are all running ones for want of search attributes.

    Args:
        client: of the namespace.
        group: only runs that wait for this group or user.
        agent: only runs of this agent.
        root: only this run and those below it, of which it is the root.
        scan: give all running ones, also where the search attributes exist: runs that began before they did have none.

    Raises:
        ValueError: a name holds a quote or a backslash.
    """
    tree = [] if root is None else [trees.write_query(root)]
    names = [("AgentWaitingFor", group), ("AgentName", agent)]
    query = " AND ".join([WAITING, *tree, *(f"{key}={_quoted(key, name)}" for key, name in names if name is not None)])
    if not scan:
        try:
            return await _listed(client, query), False
        except RPCError as error:
            # The namespace does not have our search attributes.
            if error.status is not RPCStatusCode.INVALID_ARGUMENT:
                raise
    return await _listed(client, " AND ".join([RUNNING, *tree])), not scan


async def _listed(client: Client, query: str) -> list[Waiting]:
    listed = client.list_workflows(query, page_size=1000)
    # One id twice is a run that continued as new while the list was read.
    return list(
        {
            found.id: Waiting(found.id, found.task_queue, trees.read_place(found.raw_info)) async for found in listed
        }.values()
    )


def _quoted(key: str, name: str) -> str:
    if not name or any(character in name for character in "\"'\\`"):
        raise ValueError(f"{name!r} is no name that {key} can hold: quotes and backslashes are not allowed")
    return f'"{name}"'


async def read_inbox(
    client: Client,
    *,
    group: str | None = None,
    agent: str | None = None,
    root: str | None = None,
    scan: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Inbox:
    """Return all open requests; take the arguments of `open_runs`; tell `on_progress` how many of how many are asked.

    Runs that do not answer are named in the inbox; they keep nobody waiting for long: see `Round`.
    """
    waiting, scanned = await open_runs(client, group=group, agent=agent, root=root, scan=scan)
    round_ = Round(client, lambda workflow_id: answers.open_requests(client, workflow_id))

    async def ask(run: Waiting) -> None:
        await round_.ask(run.workflow_id, run.task_queue)
        if on_progress is not None:
            on_progress(round_.asked, len(waiting))

    await asyncio.gather(*map(ask, waiting))
    runs = (_fitting(run, group) for run in round_.told if agent is None or run.agent == agent)
    return Inbox(
        runs=tuple(run for run in runs if run.requests and run.status != "done"),
        silent=tuple(sorted(round_.silent, key=lambda one: (not one.is_failing, one.workflow_id))),
        scanned=scanned,
        places={run.workflow_id: run.place for run in waiting},
    )


def _fitting(run: OpenRequests, group: str | None) -> OpenRequests:
    if group is None:
        return run
    return run.model_copy(update={"requests": waiting_for(run.requests, group)})


def waiting_for(requests: Sequence[Request], name: str) -> tuple[Request, ...]:
    """Return those of `requests` that a decision of this group or user would bring further."""
    return tuple(request for request in requests if name in request.waits_for)
