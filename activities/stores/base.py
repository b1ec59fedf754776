"""Contract of blob stores; `transcript.blobs.Blobs` adds addresses, the payload codec and a cache."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from mandate.activities.stores.budgets import Balance, Line, Reserved
from mandate.activities.stores.streams import StreamPiece
from mandate.workflows.contracts.base import Digest
from mandate.workflows.contracts.budget import Amount


class StoreUnavailable(Exception):
    """The store did not answer: the same call may succeed later."""


KEY_BYTES = 32

FIRST_HOUR = timedelta(hours=1)
"""Time for which entries without a mark are taken in an installation older than marks: its old workers end by then."""

USED_AFTER = timedelta(minutes=2)
"""From the making of a further key to its use, and from a key's end to its effect: by then all workers know of it."""


@dataclass(frozen=True, slots=True)
class Key:
    """A secret of the installation."""

    number: int
    """1 for the first; a mark names it."""
    secret: bytes
    made_at: datetime
    used_from: datetime
    """Workers mark with the newest key whose time has come."""
    retired_at: datetime | None = None
    """From when on its marks count no more; those of before count for ever, since replays look at them again."""

    def __repr__(self) -> str:
        return f"Key({self.number})"


@dataclass(frozen=True, slots=True)
class Keys:
    """All keys that an installation ever had, the oldest first."""

    keys: tuple[Key, ...] = ()
    unmarked_until: datetime | None = None
    """Until when what has no mark is taken; `None` where no worker ever worked without marks."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """Word of one worker about what it serves."""

    worker: str
    """Unique for each process."""
    content: str
    since: datetime
    """Time of its first word, by the store's clock."""
    seen_at: datetime
    """Time of its last word."""


@dataclass(frozen=True, slots=True)
class Announcements:
    """The words of all workers of one task queue, those included that are gone without a word."""

    now: datetime
    """Time of the look, by the store's clock."""
    workers: tuple[Announcement, ...] = ()


FORGOTTEN_AFTER = timedelta(days=1)
"""Silence after which a worker's word is deleted."""


@dataclass(frozen=True, slots=True)
class KeptResult:
    """Result of a call of a read tool, which answers equal calls for a while."""

    tool: str
    agent: str
    """The agent whose run made the call."""
    digest: Digest
    """Address of its text, which is a blob however short it is."""
    size: int
    """UTF-8 bytes of the text."""
    run: str
    """Workflow id of the run that made the call."""
    run_id: str
    """Temporal's own id of it."""
    step: int
    age: timedelta = timedelta(0)
    """Since it was kept, by the store's clock."""


@dataclass(frozen=True, slots=True)
class CacheUse:
    """The kept results of one tool that have not expired."""

    tool: str
    entries: int
    size: int
    """UTF-8 bytes of all of them."""
    oldest: datetime
    hits: int
    """Calls that they have answered."""


EXPIRED_AT_ONCE = 100
"""Expired results that are removed each time that one is kept."""


class BlobStore(Protocol):
    """Immutable bytes by address; safe for concurrent use by many tasks and processes."""

    async def identity(self) -> str:
        """Return the random name that the store was given when it was created; a run remembers it."""
        ...

    async def put(self, blobs: Mapping[Digest, bytes]) -> None:
        """Store all of `blobs` or none, durably; those already there are left as they are.

        Raises:
            StoreUnavailable: nothing can be said of what was stored; storing again is safe.
        """
        ...

    async def get(self, digests: Sequence[Digest]) -> dict[Digest, bytes]:
        """Return the blobs that exist; missing ones are absent. Make one round trip per thousand addresses.

        Raises:
            StoreUnavailable: the store did not answer.
        """
        ...

    async def claim(self, key: str) -> bool:
        """Enter `key` into the ledger for ever; whether this caller did so, and not an earlier one.

        Of callers in any number of processes exactly one is told so, and only when the entry survives a power loss.

        Raises:
            StoreUnavailable: nobody may act on `key`: it may be entered or not.
        """
        ...

    async def keys(self) -> Keys:
        """Return the installation's keys; the first call of all makes the first key.

        Raises:
            StoreUnavailable: the store did not answer.
        """
        ...

    async def add_key(self) -> Key:
        """Make one more key, which is used from `USED_AFTER` on.

        Raises:
            StoreUnavailable: the store did not answer.
        """
        ...

    async def retire_key(self, number: int) -> bool:
        """Let marks of a key count no more from `USED_AFTER` on. Tell whether it did and another one is in use.

        Raises:
            StoreUnavailable: the store did not answer.
        """
        ...

    async def announce(self, queue: str, worker: str, content: str) -> None:
        """Keep what a worker of a task queue says of itself, in place of what it said before.

        Raises:
            StoreUnavailable: the store did not answer.
        """
        ...

    async def announcements(self, queue: str) -> Announcements:
        """Return what workers of a task queue say of themselves. Raise as `announce`."""
        ...

    async def reserve(self, reservation: str, lines: Sequence[Line], amount: Amount) -> Reserved:
        """Hold `amount` on all lines, of distinct accounts, or on none; durably, and whoever else reserves meanwhile.

        A reservation of the same name that was made before is granted again and changes nothing, also once it is
        settled: a call that may be billed once more needs one of its own.

        Raises:
            StoreUnavailable: it may be held or not; reserving again under the same name is safe.
        """
        ...

    async def settle(self, reservation: str, actual: Amount | None = None) -> tuple[Balance, ...]:
        """Count `actual` in place of what a reservation holds, and return its accounts as they then stand.

        Left out, all that is held counts as spent, as assumed. Only the first time counts: nothing is changed or
        returned for a reservation that is settled, or that there is none of.

        Raises:
            StoreUnavailable: it may be settled or not; settling again is safe.
        """
        ...

    async def assume_all(self, name: str) -> None:
        """Settle what is still held under `name`, and under all names that begin with it and `:`, as assumed.

        Raises:
            StoreUnavailable: a part of it may be settled; settling again is safe.
        """
        ...

    async def list_balances(self, first: str, last: str) -> tuple[Balance, ...]:
        """Return all accounts of the periods from `first` to `last`, compared as texts, by budget, scope and period.

        What is held for longer than `HELD_AT_MOST` counts as spent and assumed here.

        Raises:
            StoreUnavailable: the store did not answer.
        """
        ...

    async def keep(self, key: str, result: KeptResult, lifetime: timedelta) -> None:
        """Keep a result for `lifetime` by the store's clock, in place of an earlier one; remove some that expired.

        Raises:
            StoreUnavailable: it may be kept or not.
        """
        ...

    async def cached(self, key: str) -> KeptResult | None:
        """Return the result that is kept under `key` and has not expired, and count that it was asked for.

        Raises:
            StoreUnavailable: the store did not answer.
        """
        ...

    async def cache_use(self, tool: str | None = None, agent: str | None = None) -> tuple[CacheUse, ...]:
        """Return what is kept, by tool; of one tool or of the runs of one agent only, if named. Raise as `cached`."""
        ...

    async def clear_cache(self, tool: str | None = None, agent: str | None = None) -> int:
        """Remove what `cache_use` tells of; return the number of results that had not expired. Raise as `cached`."""
        ...

    async def keep_session(self, key: str, number: int, content: bytes) -> None:
        """Keep the state of a session, in place of one with the same or a lower number.

        Raises:
            StoreUnavailable: it may be kept or not; keeping again is safe.
        """
        ...

    async def swap_session(self, key: str, number: int, content: bytes) -> bool:
        """Keep content under a key if what is kept there has the number before, or is nothing; return if it was.

        Raises:
            StoreUnavailable: it may be kept or not.
        """
        ...

    async def session(self, key: str) -> bytes | None:
        """Return the state of a session as it was kept last, if there is one.

        Raises:
            StoreUnavailable: the store did not answer.
        """
        ...

    async def append_stream(self, run: str, pieces: Sequence[StreamPiece]) -> None:
        """Append pieces of texts of one run to its log, and remove what is too old.

        Raises:
            StoreUnavailable: they may be there or not.
        """
        ...

    async def read_stream(self, run: str, after: int) -> tuple[StreamPiece, ...]:
        """Return pieces of a run after an offset, the oldest first, at most `READ_AT_ONCE`.

        Raises:
            StoreUnavailable: the store did not answer.
        """
        ...

    async def follow_stream(self, run: str, lifetime: timedelta) -> None:
        """Note that somebody reads along with a run for `lifetime`, so that its texts are written. Raise as above."""
        ...

    async def list_followed(self) -> frozenset[str]:
        """Return the runs with which somebody reads along now. Raise as above."""
        ...

    async def close(self) -> None: ...


def name_run(namespace: str, workflow_id: str) -> str:
    """Return the name of a run in the store, whose namespaces may be several."""
    return f"{namespace}/{workflow_id}"
