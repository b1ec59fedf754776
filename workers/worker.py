"""A worker: stores, tools, providers and the workflow, composed for one task queue."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from temporalio.client import Client
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.worker import Interceptor, Worker, WorkerDeploymentConfig

from mandate.activities import private_files
from mandate.activities.agent import AgentActivities, OfferedAgent
from mandate.activities.children import AskedCalls, ChildActivities
from mandate.activities.compensation import CompensationActivities
from mandate.activities.context import tokenizer
from mandate.activities.files import FileError
from mandate.activities.guard import Guard
from mandate.activities.keyring import Keyring
from mandate.activities.model import ModelActivities
from mandate.activities.origin import Origins
from mandate.activities.own_files import OwnToolbox, collect_named
from mandate.activities.period_budgets import PeriodBudgets
from mandate.activities.plan import PlanActivities
from mandate.activities.providers.breaker import Breakers
from mandate.activities.result_cache import ResultCache
from mandate.activities.session import SessionActivities
from mandate.activities.stores.address import open_store
from mandate.activities.stores.base import BlobStore
from mandate.activities.tool import ToolActivities
from mandate.activities.toolbox.base import Toolbox
from mandate.activities.toolbox.http.toolbox import HttpToolbox
from mandate.activities.toolbox.mcp.lazy_toolbox import LazyMcpToolbox
from mandate.activities.toolbox.python import PythonToolbox
from mandate.activities.transcript.blobs import Blobs
from mandate.activities.transcript.log import TranscriptLog
from mandate.activities.transcript.pinned_agents import PinnedAgents
from mandate.activities.verification import VerificationActivities
from mandate.workers import providers, search_attributes
from mandate.workers.catalog import budgets, channels, earlier_agents, readiness
from mandate.workers.catalog import people as catalog_people
from mandate.workers.catalog.catalog import Catalog, Loaded
from mandate.workers.catalog.children import Linked
from mandate.workers.catalog.endpoints import read_endpoints
from mandate.workers.catalog.tools import AnnouncedWaits, McpDefinitions
from mandate.workers.fleet import Fleet, list_pollers, list_served
from mandate.workers.identities import Identities
from mandate.workers.marks import MarkInterceptor
from mandate.workers.sandbox import WorkflowThreads, workflow_runner
from mandate.workers.secrets import Secrets
from mandate.workers.settings import Settings, find_plans
from mandate.workers.telemetry.logs import LogContext
from mandate.workers.telemetry.settings import TelemetrySettings
from mandate.workflows.agent import AgentWorkflow
from mandate.workflows.contracts.plan import PlanSpec
from mandate.workflows.plan import PlanWorkflow
from mandate.workflows.rules import local_activities

if TYPE_CHECKING:
    from mandate.workers.telemetry.service import Telemetry

STICKY = timedelta(milliseconds=500)
"""Time that a workflow task waits for the worker that has the run in memory: the price of a killed worker."""

GRACE = timedelta(seconds=30)
"""Time for which a stopping worker lets activities finish."""

HEARTBEATS_APART = timedelta(milliseconds=500)
"""Shortest time between two heartbeats that are sent: four fit into the shortest timeout."""

ACTIVITY_SLOTS = 100

PROCESSORS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 2

WORKFLOW_TASKS = max(2, min(PROCESSORS, 4))
"""Workflow tasks at once, replays among them: one a processor, and the two that the SDK wants. All share one
interpreter, so that more of them only take longer each, and more are lost with a worker that is killed."""

TASK_SECONDS = 25
"""Seconds that one part of a workflow task may take before the SDK gives it up: of its own it takes two
seconds for a deadlock, so that a heavy task on a slow worker was begun anew for ever."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """Differences of one worker process from another with the same settings."""

    identity: str | None = None
    """Shown in Temporal for everything it does; process and host if left out."""
    max_cached_workflows: int = 1000
    """About 150 KB each; 0 replays a run from the start for each of its tasks."""
    sandboxed: bool = True
    deployment: str | None = None
    """Worker deployment that this worker is a version of; with `build_id`, runs stay on the version they began on."""
    build_id: str | None = None
    group: str = ""
    """Workers of one group take each other's place when files change, and do not refuse or tell of each other."""
    grace: timedelta = GRACE
    allow_older: bool = False
    """Serve also files that are older than those of other workers of the queue."""


class AgentWorker(Worker):
    """A worker that can say what it serves."""

    catalog: Catalog
    fleet: Fleet
    store: BlobStore
    identity: str


@asynccontextmanager
async def open_worker(
    client: Client,
    settings: Settings,
    options: WorkerOptions | None = None,
    *,
    on_progress: Callable[[str], None] | None = None,
) -> AsyncIterator[AgentWorker]:
    """Open a worker that is not running yet, with all that it needs; `await worker.run()` to serve.

    `on_progress` is told in one line what takes long.

    Raises:
        FileError: agent files or scripts that cannot be used, with all their faults.
        MissingKey, WrongSearchAttribute, StoreUnavailable: see there.
        OlderFiles: another worker of the queue serves newer files of an agent.
        ValueError: the store's address or an allowed host is none.
    """
    options = options or WorkerOptions()
    if settings.folder.is_dir():
        private_files.claim_folder(settings.folder)
    await asyncio.to_thread(tokenizer.load)
    async with AsyncExitStack() as stack:
        resolve = Secrets(settings.environment, settings.secrets)
        mcp = LazyMcpToolbox(resolve)
        toolboxes: dict[str, Toolbox] = {
            "python": PythonToolbox(ACTIVITY_SLOTS),
            "mcp": mcp,
            "http": HttpToolbox(resolve, allowed_hosts=settings.http_hosts),
        }
        for toolbox in toolboxes.values():
            stack.push_async_callback(toolbox.close)
        telemetry = _open_telemetry(client, settings)
        catalog = await _checked_catalog(settings, resolve, AnnouncedWaits(mcp, on_progress) if on_progress else mcp)
        opened = open_store(settings.store)
        if telemetry is not None and telemetry.metrics is not None:
            from mandate.workers.telemetry.timed_store import time_store  # noqa: PLC0415 - only with metrics

            opened = time_store(opened, telemetry.metrics)
        blobs = Blobs(opened)
        stack.push_async_callback(blobs.close)
        store = await blobs.identity()
        keyring = Keyring(blobs.store)
        await keyring.refresh()
        guard = Guard(keyring, store)
        identity = options.identity or f"{os.getpid()}@{socket.gethostname()}"
        fleet = Fleet(
            blobs.store,
            namespace=client.namespace,
            queue=settings.task_queue,
            identity=identity,
            build=f"{options.deployment}/{options.build_id}" if options.deployment is not None else "",
            group=options.group,
            release=version("mandate-agents"),
            pollers=partial(list_pollers, client, settings.task_queue),
            served=list_served(catalog),
        )
        stack.push_async_callback(fleet.leave)
        await fleet.join(allow_older=options.allow_older or settings.allow_older, on_progress=on_progress)
        performed, breakers = await _open_activities(
            stack,
            client,
            settings,
            catalog,
            blobs=blobs,
            keyring=keyring,
            toolboxes=toolboxes,
            cache=ResultCache(blobs, keyring, resolve),
        )
        for keep_fresh in (keyring.keep_fresh, fleet.keep_fresh):
            stack.callback(asyncio.create_task(keep_fresh()).cancel)
        marks = MarkInterceptor(keyring, store)
        interceptors: list[Interceptor] = [LogContext(), marks]
        if telemetry is not None:
            interceptors += telemetry.open(blobs.store, identity)
            telemetry.run(
                stack,
                store=blobs.store,
                agents={name: (loaded.digest[:12], _list_effects(loaded)) for name, loaded in catalog.agents.items()},
                workflows=[AgentWorkflow, PlanWorkflow],
                runner=workflow_runner(sandboxed=False),
                marks=marks,
                breakers=breakers.states,
                budgets=budgets.open_budgets(settings).read,
                has_status=await search_attributes.has_status(client),
            )
        threads = WorkflowThreads(2 * WORKFLOW_TASKS)
        stack.callback(threads.shutdown, wait=False)
        worker = AgentWorker(
            client,
            task_queue=settings.task_queue,
            workflows=[AgentWorkflow, PlanWorkflow],
            activities=[guard.protect(perform) for perform in performed],
            workflow_runner=workflow_runner(sandboxed=options.sandboxed),
            interceptors=interceptors,
            identity=identity,
            max_cached_workflows=options.max_cached_workflows,
            max_concurrent_workflow_tasks=WORKFLOW_TASKS,
            workflow_task_executor=threads,
            max_concurrent_activities=ACTIVITY_SLOTS,
            sticky_queue_schedule_to_start_timeout=STICKY,
            max_heartbeat_throttle_interval=HEARTBEATS_APART,
            graceful_shutdown_timeout=options.grace,
            deployment_config=_deployment(options),
        )
        worker.catalog, worker.fleet, worker.store, worker.identity = catalog, fleet, blobs.store, identity
        tasks = worker._workflow_worker
        assert tasks is not None
        # No setting of the SDK says so without its debug mode.
        tasks._deadlock_timeout_seconds = TASK_SECONDS
        yield worker


async def _open_activities(
    stack: AsyncExitStack,
    client: Client,
    settings: Settings,
    catalog: Catalog,
    *,
    blobs: Blobs,
    keyring: Keyring,
    toolboxes: Mapping[str, Toolbox],
    cache: ResultCache,
) -> tuple[tuple[Callable[[Any], Awaitable[BaseModel]], ...], Breakers]:
    """Return what a worker performs, without the guard that belongs before each, and its breakers.

    `stack` closes it.
    """
    transcript, agents = TranscriptLog(blobs), PinnedAgents(blobs)
    loaded = catalog.agents.values()
    earlier = await earlier_agents.recall(settings.folder, settings.agents, [one.digest for one in loaded], agents)
    own = collect_named([*earlier, *catalog.family.agents])
    limits = PeriodBudgets(blobs.store, budgets.open_budgets(settings).read)
    makers = providers.makers(settings, own, catalog.endpoints.by_name)
    models = ModelActivities(makers, agents, transcript, limits)
    stack.push_async_callback(models.close)
    await models.open(sorted(catalog.providers()))
    offered = {name: _offer(loaded) for name, loaded in catalog.agents.items()}
    identities = Identities.of(settings)
    requesters = identities.requesters(blobs)
    notifying = channels.notification_activities(settings)
    stack.push_async_callback(notifying.close)
    slow = (local_activities.NOTICES,) if notifying.waits_for_others else ()
    opening = AgentActivities(
        offered,
        transcript,
        requesters,
        await search_attributes.ensure(client),
        slow=slow,
        budgets=limits,
        origins=Origins(transcript, agents),
        agents=agents,
        plans=_Plans(catalog, settings),
    )
    own_tools = {kind: OwnToolbox(toolbox, own) for kind, toolbox in toolboxes.items()}
    tools = ToolActivities(toolboxes, agents, transcript, own, identities.signatures, cache=cache)
    checks = VerificationActivities(own_tools, agents, transcript, models.provider, own, budgets=limits)
    people = identities.people_activities(agents, transcript)
    undoing = CompensationActivities(agents, transcript)
    sessions = SessionActivities(blobs)
    performed = (
        opening.pin_agent,
        PlanActivities(agents, transcript).advance_plan,
        ChildActivities(keyring, AskedCalls(transcript, agents)).find_report,
        models.call_model,
        tools.run_tool,
        checks.verify_result,
        checks.probe_call,
        people.check_decision,
        people.check_decisions,
        people.check_control,
        undoing.plan_compensation,
        sessions.keep_session,
        notifying.notify_people,
    )
    return performed, models.breakers


def _list_effects(agent: Loaded) -> tuple[str, ...]:
    tools = (definition.tool for definition in agent.pinned.tools)
    return tuple(tool.known_as for tool in tools if tool.effect.changes_world)


def _open_telemetry(client: Client, settings: Settings) -> "Telemetry | None":
    """Return the telemetry that the environment asks for; nothing of it is imported where it asks for none."""
    wanted = TelemetrySettings.from_environment(settings.environment)
    if not wanted.is_on:
        return None
    from mandate.workers.telemetry.service import Telemetry  # noqa: PLC0415 - only where it is wanted

    return Telemetry(wanted, client, settings.task_queue)


class _Plans:
    """Plans that runs can be started with."""

    def __init__(self, catalog: Catalog, settings: Settings) -> None:
        self._catalog = catalog
        self._settings = settings
        self._offered = {name: _offer(loaded) for name, loaded in catalog.plans.items()}

    def names(self) -> list[str]:
        return sorted(self._offered)

    def find(self, name: str) -> OfferedAgent | None:
        return self._offered.get(name)

    async def make(self, plan: PlanSpec) -> OfferedAgent:
        made = await self._catalog.make_plan(plan)
        people = await asyncio.to_thread(catalog_people.read_people, self._settings)
        if faults := [f"{fault.key}: {fault.message}" for fault in catalog_people.find_unknown(made, people)]:
            raise ValueError("; ".join(faults))
        return _offer(made)


def _offer(agent: Loaded | Linked) -> OfferedAgent:
    return OfferedAgent(agent.digest, agent.content, agent.pinned, agent.below)


async def _checked_catalog(settings: Settings, resolve: Secrets, mcp: McpDefinitions) -> Catalog:
    """Return the agents, each with all that it needs, and with warnings of calls that will be refused."""
    catalog = await Catalog.load(
        settings.agents,
        mcp,
        secrets=resolve,
        policies=settings.policies,
        project=settings.project,
        endpoints=read_endpoints(settings),
        plans=find_plans(settings),
    )
    faults = (*readiness.script_faults(catalog, settings), *catalog_people.faults_for(catalog.members, settings))
    if faults := (*faults, *budgets.faults_for(settings)):
        raise FileError(faults)
    if lacking := readiness.missing_keys(catalog, settings):
        raise providers.MissingKey("; ".join(map(str, lacking)))
    more = (*catalog_people.warnings_for(catalog.members, settings), *await readiness.closed_hosts(catalog, settings))
    return replace(catalog, warnings=(*catalog.warnings, *more))


def _deployment(options: WorkerOptions) -> WorkerDeploymentConfig | None:
    if options.deployment is None or options.build_id is None:
        return None
    return WorkerDeploymentConfig(
        version=WorkerDeploymentVersion(deployment_name=options.deployment, build_id=options.build_id),
        use_worker_versioning=True,
        default_versioning_behavior=VersioningBehavior.PINNED,
    )
