"""Fleet: the workers of one task queue, and the files that each of them serves.

A run gets its agent from whichever worker begins it. So workers with different files for one agent must know of each
other, which they do by the store that they share.
"""

import asyncio
import itertools
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog
from pydantic import AwareDatetime, ValidationError
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import DescribeTaskQueueRequest
from temporalio.client import Client
from temporalio.service import RPCError

from mandate.activities.stores.base import Announcement, Announcements, BlobStore, StoreUnavailable
from mandate.workers.catalog.catalog import Catalog, Loaded
from mandate.workflows.contracts.base import Digest, Record, digest_of

log = structlog.stdlib.get_logger(__name__)

REFRESH_SECONDS = 5.0
"""Between two words of a worker."""

SILENT_AFTER = timedelta(seconds=16)
"""Silence after which a worker counts as gone: three words did not come."""

LOOK_SECONDS = 0.5
"""Between two looks at a worker that may have died a moment ago."""

LEAVE_SECONDS = 2.0

POLLED_WITHIN = timedelta(seconds=75)
"""Time since its last poll for which a worker counts as there: a poll waits for a minute."""

STRANGERS_EVERY = 12
"""Words of a worker between two looks at who polls its queue."""

Pollers = Callable[[], Awaitable[frozenset[str]]]


class ServedAgent(Record):
    """An agent as a worker serves it."""

    agent: str
    digest: Digest
    path: str | None = None
    """Its agent file; `None` for an agent that was made in code, as for the next two."""
    files: Digest | None = None
    """Of the contents of its agent file and shared policies."""
    changed_at: AwareDatetime | None = None
    """Time when the last of these files was changed."""

    @property
    def version(self) -> str:
        return self.digest[:12]

    def is_older_than(self, other: "ServedAgent") -> bool:
        """Tell whether its files are others and were changed earlier.

        Where only tools differ, as when an MCP server tells of another one, no file is older.
        """
        if self.changed_at is None or other.changed_at is None or self.files == other.files:
            return False
        return self.changed_at < other.changed_at


class WorkerWord(Record):
    """Word of a worker: its name and what it serves."""

    identity: str
    build: str = ""
    """Worker deployment and build id, whose runs no other build gets; empty for a worker without them."""
    group: str = ""
    """Workers that take each other's place; empty for one that stands alone."""
    release: str = ""
    """Version of Mandate; empty for a worker that does not tell."""
    agents: tuple[ServedAgent, ...]


@dataclass(frozen=True, slots=True)
class Peer:
    """Another worker of the queue that is there."""

    worker: str
    word: WorkerWord
    since: datetime
    seen_at: datetime

    def serves_newer(self, own: Sequence[ServedAgent]) -> bool:
        return any(mine.is_older_than(theirs) for mine, theirs in _pairs(own, self.word.agents))


@dataclass(frozen=True, slots=True)
class OtherVersion:
    """A version of an agent that other workers serve and this one does not."""

    own: ServedAgent
    other: ServedAgent
    workers: tuple[str, ...]
    """Identities."""
    since: datetime
    """Time from which on the first of them serves it."""

    @property
    def is_newer(self) -> bool:
        return self.own.is_older_than(self.other)

    @property
    def is_older(self) -> bool:
        return self.other.is_older_than(self.own)

    def sentence(self, queue: str) -> str:
        """Describe it in one sentence."""
        files = ", of newer files," if self.is_newer else ", of older files," if self.is_older else ""
        return (
            f"agent {self.own.agent!r}: {_serve(self.workers, queue)} version {self.other.version}{files} since "
            f"{_moment(self.since)}, this worker version {self.own.version}; a run gets one or the other"
        )

    def to_json(self) -> dict[str, object]:
        """Return it as programs read it."""
        changed_at = self.other.changed_at
        return {
            "agent": self.own.agent,
            "version": self.other.version,
            "digest": self.other.digest,
            "workers": list(self.workers),
            "since": self.since.isoformat(),
            "changed_at": changed_at.isoformat() if changed_at is not None else None,
            "newer": self.is_newer,
        }


class OlderFiles(ValueError):
    """The error of a worker with files that are older than those of others; one sentence says what to do."""


class Fleet:
    """This worker among those of its queue."""

    def __init__(
        self,
        store: BlobStore,
        *,
        namespace: str,
        queue: str,
        identity: str,
        served: Sequence[ServedAgent],
        pollers: Pollers,
        build: str = "",
        group: str = "",
        release: str = "",
    ) -> None:
        """Take the store, this worker's place and name, what it serves, and who polls the queue."""
        self.queue = queue
        self.others: tuple[OtherVersion, ...] = ()
        """As they were at the last look."""
        self.strangers: tuple[str, ...] = ()
        """Identities of workers that poll the queue and have said nothing in the store."""
        self._pollers = pollers
        self._store = store
        self._place = find_place(namespace, queue)
        # Another one for each process: who has the identity of one that was killed must not speak for it.
        self._worker = f"{identity}/{secrets.token_hex(4)}"
        self._word = WorkerWord(identity=identity, build=build, group=group, release=release, agents=tuple(served))

    async def join(self, *, allow_older: bool, on_progress: Callable[[str], None] | None = None) -> None:
        """Announce this worker, and see what the others serve.

        A worker with newer files that died a moment ago is waited for: only one that gives a sign of life counts.

        Raises:
            OlderFiles: the files of an agent are older than those of a worker that lives, and that is not allowed.
            StoreUnavailable: the store did not answer.
        """
        # Before the look: of two that start at the same time, one at least sees the other.
        await self._announce()
        peers = await self._look()
        self.strangers = await self._find_strangers()
        known = {peer.worker: peer.seen_at for peer in peers}
        while not allow_older and (newer := [peer for peer in peers if peer.serves_newer(self._word.agents)]):
            if any(known.get(peer.worker) != peer.seen_at for peer in newer):
                raise OlderFiles(_refusal([other for other in self.others if other.is_newer], self.queue))
            if on_progress is not None:
                on_progress(f"worker {newer[0].word.identity} serves newer files; looking whether it is still there")
                on_progress = None
            await asyncio.sleep(LOOK_SECONDS)
            peers = await self._look()

    async def keep_fresh(self) -> None:
        """Announce this worker again and again, and log what else is served, until cancelled."""
        told = {(other.own.agent, other.other.digest) for other in self.others}
        for number in itertools.count(1):
            await asyncio.sleep(REFRESH_SECONDS)
            try:
                await self._announce()
                await self._look()
                if number % STRANGERS_EVERY == 0:
                    await self._tell_strangers()
            except StoreUnavailable as error:
                log.warning("workers_not_compared", reason=str(error))
                continue
            now = {(other.own.agent, other.other.digest): other for other in self.others}
            for key in [key for key in now if key not in told]:
                log.warning("other_version_served", hint=now[key].sentence(self.queue))
            told = set(now)

    async def leave(self) -> None:
        """Announce that this worker serves nothing any more; one that cannot is forgotten after a while."""
        self._word = self._word.model_copy(update={"agents": ()})
        with suppress(StoreUnavailable, TimeoutError):
            async with asyncio.timeout(LEAVE_SECONDS):
                await self._announce()

    async def _announce(self) -> None:
        await self._store.announce(self._place, self._worker, self._word.model_dump_json())

    async def _tell_strangers(self) -> None:
        before, self.strangers = self.strangers, await self._find_strangers()
        if new := [name for name in self.strangers if name not in before]:
            log.warning("unknown_worker", hint=describe_strangers(new, self.queue))

    async def _find_strangers(self) -> tuple[str, ...]:
        """Return who polls the queue and never said anything here: the store of such a worker is another one."""
        said = await self._store.announcements(self._place)
        known = {peer.word.identity for one in said.workers if (peer := _read(one)) is not None}
        return tuple(sorted(await self._pollers() - known - {self._word.identity}))

    async def _look(self) -> list[Peer]:
        said = await self._store.announcements(self._place)
        peers = [
            peer
            for peer in list_peers(said)
            if peer.worker != self._worker
            and peer.word.build == self._word.build
            and not (peer.word.group and peer.word.group == self._word.group)
        ]
        self.others = find_others(self._word.agents, peers)
        return peers


def list_peers(said: Announcements) -> list[Peer]:
    """Return the workers that gave a sign of life lately."""
    return [
        peer
        for announcement in said.workers
        if said.now - announcement.seen_at <= SILENT_AFTER and (peer := _read(announcement)) is not None
    ]


def find_place(namespace: str, queue: str) -> str:
    """Return the name under which the workers of a queue announce themselves in the store."""
    return f"{namespace}/{queue}"


def _read(said: Announcement) -> Peer | None:
    try:
        return Peer(said.worker, WorkerWord.model_validate_json(said.content), said.since, said.seen_at)
    except ValidationError:
        # Of a version of ours that says it in another way.
        return None


def describe_strangers(names: Sequence[str], queue: str) -> str:
    """Describe workers that poll the queue and have said nothing in the store, in one sentence."""
    count = len(names)
    who = f"worker {names[0]}" if count == 1 else f"{count} workers ({', '.join(names[:3])}{' ...' * (count > 3)})"
    poll, have, need = ("polls", "has", "its") if count == 1 else ("poll", "have", "their")
    return (
        f"{who} {poll} task queue {queue!r} too and {have} not told this worker's store what {need} files are: all "
        "workers of a queue need one store (MANDATE_STORE) and one version of Mandate, or a run may meet a worker that "
        "cannot go on with it"
    )


async def list_pollers(client: Client, queue: str) -> frozenset[str]:
    """Return the identities of the workers that poll a task queue; none where the server does not tell."""
    request = DescribeTaskQueueRequest(
        namespace=client.namespace,
        task_queue=TaskQueue(name=queue),
        task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_WORKFLOW,
    )
    try:
        described = await client.workflow_service.describe_task_queue(request)
    except RPCError as error:
        log.warning("pollers_not_listed", reason=error.message)
        return frozenset()
    since = datetime.now(UTC) - POLLED_WITHIN
    return frozenset(one.identity for one in described.pollers if one.last_access_time.ToDatetime(UTC) >= since)


def find_others(own: Sequence[ServedAgent], peers: Sequence[Peer]) -> tuple[OtherVersion, ...]:
    """Return each other version of the agents in `own` once, with all workers that serve it."""
    found: dict[tuple[str, str], OtherVersion] = {}
    for peer in sorted(peers, key=lambda peer: peer.since):
        for mine, theirs in _pairs(own, peer.word.agents):
            key = (mine.agent, theirs.digest)
            first = found.get(key)
            workers = (*(first.workers if first is not None else ()), peer.word.identity)
            since = first.since if first is not None else peer.since
            # Of the same files, those that were touched last count: that they are wanted was said once more.
            newest = max((theirs, *([first.other] if first is not None else [])), key=_age)
            found[key] = OtherVersion(mine, newest, workers, since)
    return tuple(found.values())


def _age(served: ServedAgent) -> float:
    return served.changed_at.timestamp() if served.changed_at is not None else 0.0


def _pairs(own: Sequence[ServedAgent], theirs: Sequence[ServedAgent]) -> list[tuple[ServedAgent, ServedAgent]]:
    named = {served.agent: served for served in own}
    return [
        (mine, served)
        for served in theirs
        if (mine := named.get(served.agent)) is not None and mine.digest != served.digest
    ]


def _refusal(newer: Sequence[OtherVersion], queue: str) -> str:
    first, *rest = newer
    own, other = first.own, first.other
    also = ", ".join(repr(one.own.agent) for one in rest)
    return (
        f"agent {own.agent!r}: {_serve(first.workers, queue)} version {other.version}, of files changed at "
        f"{_moment(other.changed_at)}, and those of this worker are older, {own.path} of {_moment(own.changed_at)}"
        f"{f' (so it is with {also})' if also else ''}; give this worker the newer files, or, to go back to these, "
        f"touch {own.path} or start it with --allow-older"
    )


def _serve(workers: Sequence[str], queue: str) -> str:
    count = len(workers)
    return (
        f"{count} other workers of task queue {queue!r} serve"
        if count != 1
        else (f"another worker of task queue {queue!r} serves")
    )


def _moment(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC" if at is not None else "an unknown time"


def list_served(catalog: Catalog) -> list[ServedAgent]:
    """Return the agents of a catalog with the age of their files."""
    policies = {name: file.path for name, file in catalog.policies.items()}
    return [_served(name, loaded, policies) for name, loaded in catalog.agents.items()]


def _served(name: str, loaded: Loaded, policies: Mapping[str, Path]) -> ServedAgent:
    if loaded.path is None:
        return ServedAgent(agent=name, digest=loaded.digest)
    files = [loaded.path, *(policies[policy] for policy in loaded.policies)]
    try:
        contents = b"".join(digest_of(file.read_bytes()).encode() for file in files)
        changed_at = max(file.stat().st_mtime for file in files)
    except OSError:
        # Gone since they were read.
        return ServedAgent(agent=name, digest=loaded.digest, path=str(loaded.path))
    # A time that is still to come says that a clock was wrong.
    at = min(datetime.fromtimestamp(changed_at, UTC), datetime.now(UTC))
    return ServedAgent(
        agent=name, digest=loaded.digest, path=str(loaded.path), files=digest_of(contents), changed_at=at
    )
