"""Check of the workers of a task queue: who polls, and of which versions."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from temporalio.api.enums.v1 import TaskQueueType, WorkerVersioningMode
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.service import RPCError

from mandate.workers.client.pollers import Poller
from mandate.workers.doctor.findings import Finding, join
from mandate.workers.fleet import POLLED_WITHIN, Peer, describe_strangers

CHECK = "workers"

ONE_STORE = "give all workers one MANDATE_STORE; a worker that was stopped in the last minute is counted too"

MARGIN = timedelta(seconds=15)
"""For clocks that differ."""


@dataclass(frozen=True, slots=True)
class Polling:
    """A worker that polls, and its worker version; empty for one without."""

    identity: str
    deployment: str = ""
    build: str = ""

    @property
    def version(self) -> str:
        return f"{self.deployment}.{self.build}" if self.deployment else ""


@dataclass(frozen=True, slots=True)
class QueueState:
    """Workers that poll a task queue, and the worker version that new runs go to; empty for workers without one."""

    polling: tuple[Polling, ...]
    current: str = ""


async def describe_queue(client: Client, queue: str, ahead: timedelta | None) -> QueueState:
    """Ask who polls; `ahead` is how much the server's clock is ahead of this machine's.

    Raises:
        RPCError: the server does not tell.
    """
    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=queue),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
    )
    described = await client.workflow_service.describe_task_queue(request)
    since = datetime.now(UTC) + (ahead or timedelta(0)) - POLLED_WITHIN - MARGIN
    polling = []
    for one in described.pollers:
        if one.last_access_time.ToDatetime(UTC) < since or Poller(one.identity, 0).is_gone:
            continue
        options = one.deployment_options
        if options.worker_versioning_mode == WorkerVersioningMode.WORKER_VERSIONING_MODE_VERSIONED:
            polling.append(Polling(one.identity, options.deployment_name, options.build_id))
        else:
            polling.append(Polling(one.identity))
    current = described.versioning_info.current_deployment_version
    return QueueState(
        tuple(polling), f"{current.deployment_name}.{current.build_id}" if current.deployment_name else ""
    )


async def check_queue(
    client: Client, queue: str, ahead: timedelta | None, peers: Sequence[Peer] | None, program: str
) -> Finding:
    """Check who polls the queue; `peers` are the workers that told the store what they serve, if it could be read."""
    try:
        state = await describe_queue(client, queue, ahead)
    except RPCError as error:
        reason = " ".join(error.message.split())[:200]
        return Finding(CHECK, "warn", f"Temporal does not tell who polls task queue {queue!r}: {reason}")
    return judge_queue(state, queue, peers, program)


def judge_queue(state: QueueState, queue: str, peers: Sequence[Peer] | None, program: str) -> Finding:
    """Judge what was found of a task queue."""
    if not state.polling:
        return Finding(CHECK, "warn", f"nobody polls task queue {queue!r}", f"start a worker: {program} worker")
    count = len(state.polling)
    names = ", ".join(sorted(_describe(one) for one in state.polling)[:5]) + (" ..." if count > 5 else "")
    poll = "1 worker polls" if count == 1 else f"{count} workers poll"
    found = [Finding(CHECK, "ok", f"{poll} task queue {queue!r}: {names}"), *_judge_versions(state)]
    if peers is not None:
        found += _judge_words(state, queue, peers)
    return join(CHECK, found)


def _describe(one: Polling) -> str:
    return f"{one.identity} (version {one.version})" if one.version else one.identity


def _judge_versions(state: QueueState) -> list[Finding]:
    """Judge worker versions: who polls for nothing, and whose new runs nobody takes."""
    versions = {one.version: one for one in state.polling}
    set_current = "temporal worker deployment set-current-version --deployment-name {} --build-id {}"
    if state.current and state.current not in versions:
        why = f"new runs go to worker version {state.current}, of which no worker polls"
        return [Finding(CHECK, "fail", why, "start workers of it, or make another version the current one")]
    if not state.current and "" not in versions:
        one = next(iter(versions.values()))
        advice = f"make one the current one: {set_current.format(one.deployment, one.build)}"
        return [
            Finding(CHECK, "fail", "all workers have a version, and none is the current one: no run begins", advice)
        ]
    return []


def _judge_words(state: QueueState, queue: str, peers: Sequence[Peer]) -> list[Finding]:
    """Judge what the workers say of themselves in the store."""
    found = []
    polling = {one.identity for one in state.polling}
    words = [peer.word for peer in peers if peer.word.identity in polling]
    if strangers := sorted(polling - {word.identity for word in words}):
        found.append(Finding(CHECK, "warn", describe_strangers(strangers, queue), ONE_STORE))
    releases = sorted({word.release for word in words if word.release})
    if len(releases) > 1:
        why = f"they are of Mandate {' and '.join(releases)}"
        found.append(Finding(CHECK, "warn", why, "end the roll-out: all workers of a queue need one version"))
    for build in sorted({word.build for word in words}):
        served: dict[str, set[str]] = {}
        for word in words:
            for agent in word.agents if word.build == build else ():
                served.setdefault(agent.agent, set()).add(agent.digest[:12])
        for name, digests in served.items():
            if len(digests) > 1:
                why = f"agent {name!r} is served in {len(digests)} versions: {', '.join(sorted(digests))}"
                found.append(Finding(CHECK, "warn", why, "give all workers the same agent files, and restart them"))
    return found
