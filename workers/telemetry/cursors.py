"""Cursors of what was exported of each run, in the store that all workers share.

A run's cursor says up to which event its facts were exported. Before a worker exports some, it claims the cursor; after
that, it writes how far it came. Entries are few bytes, and are changed by compare-and-set.
"""

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from mandate.activities.stores.base import BlobStore

CLAIM = timedelta(seconds=20)
"""Time after which a claim counts no more: its worker was killed while it exported."""


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """A request that people have not answered."""

    agent: str
    kind: str
    asked_at: float
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Cursor of one run, or of a duty that one worker has for all."""

    number: int = 0
    """Changes with each write."""
    event: int = -1
    """Length of the history when the last exported fact happened."""
    keys: tuple[str, ...] = ()
    """Keys of the facts that were exported of that event."""
    open: dict[str, OpenRequest] = field(default_factory=dict)
    is_over: bool = False
    """All was exported, the end of the run too."""
    claimed_by: str = ""
    claimed_until: float = 0.0
    mark: str = ""
    """Place of a duty, in words of its own."""

    def is_free(self, worker: str) -> bool:
        return self.claimed_by in {"", worker} or self.claimed_until <= _now()

    def to_bytes(self) -> bytes:
        content = {
            "event": self.event,
            "keys": self.keys,
            "open": {name: [one.agent, one.kind, one.asked_at] for name, one in self.open.items()},
            "over": self.is_over,
            "by": self.claimed_by,
            "until": self.claimed_until,
            "mark": self.mark,
            "number": self.number,
        }
        return json.dumps({name: value for name, value in content.items() if value}).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> "Cursor":
        held = json.loads(content)
        return cls(
            number=held.get("number", 0),
            event=held.get("event", 0),
            keys=tuple(held.get("keys", ())),
            open={name: OpenRequest(*one) for name, one in held.get("open", {}).items()},
            is_over=held.get("over", False),
            claimed_by=held.get("by", ""),
            claimed_until=held.get("until", 0.0),
            mark=held.get("mark", ""),
        )


class Cursors:
    """Entries of runs in one store, as one worker sees and changes them."""

    def __init__(self, store: BlobStore, worker: str) -> None:
        self._store = store
        self._worker = worker

    async def read(self, name: str) -> Cursor:
        """Return a cursor; an empty one where there is none.

        Raises:
            StoreUnavailable: the store did not answer.
        """
        content = await self._store.session(_key(name))
        return Cursor.from_bytes(content) if content is not None else Cursor()

    async def claim(self, name: str, known: Cursor | None = None) -> Cursor | None:
        """Claim a cursor, and return it as it then is; `None` while another worker has it."""
        cursor = known if known is not None else await self.read(name)
        if not cursor.is_free(self._worker):
            return None
        until = _now() + CLAIM.total_seconds()
        return await self._write(name, replace(cursor, claimed_by=self._worker, claimed_until=until))

    async def release(self, name: str, cursor: Cursor) -> Cursor | None:
        """Write a cursor that this worker has claimed, and let it go; `None` if another one has taken it meanwhile."""
        return await self._write(name, replace(cursor, claimed_by="", claimed_until=0.0))

    async def _write(self, name: str, cursor: Cursor) -> Cursor | None:
        written = replace(cursor, number=cursor.number + 1)
        is_ours = await self._store.swap_session(_key(name), written.number, written.to_bytes())
        return written if is_ours else None


def _key(name: str) -> str:
    return f"telemetry/{name}"


def _now() -> float:
    return datetime.now(UTC).timestamp()
