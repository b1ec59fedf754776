"""The keys of an installation, from its store: they mark what its workers tell each other to do."""

import asyncio
import hmac
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime

import structlog

from mandate.activities.stores.base import BlobStore, Keys, StoreUnavailable
from mandate.workflows.contracts.marks import MarkKind
from mandate.workflows.rules.marks import compute_mark, read_key_number

log = structlog.stdlib.get_logger(__name__)

REFRESH_SECONDS = 60.0
"""Between looks at the store; a new key is used from two minutes after it was made, so all workers know it by then."""


OUTDATED_SECONDS = 100.0


class KeysOutdated(Exception):
    """The keys are too old to say anything of a mark."""


class Keyring:
    """The keys as they were when the store was last looked at; safe for use by many threads."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._keys = Keys()
        self._refreshed = asyncio.Lock()
        self._read_at = 0.0

    async def refresh(self) -> None:
        """Read the keys; the first worker of a store makes the first one.

        Raises:
            StoreUnavailable: see there; the keys stay as they were.
        """
        async with self._refreshed:
            self._keys = await self._store.keys()
            self._read_at = time.monotonic()

    async def keep_fresh(self) -> None:
        """Read the keys again every minute, until cancelled."""
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            try:
                await self.refresh()
            except StoreUnavailable as error:
                log.warning("keys_not_read", reason=str(error))

    def sign(self, kind: MarkKind, place: Sequence[str], content: bytes) -> bytes:
        """Return the mark of `content` at `place`, by the newest key that is in use."""
        now = datetime.now(UTC)
        keys = self._keys.keys
        used = (key for key in keys if key.used_from <= now and (key.retired_at is None or now < key.retired_at))
        newest = max(used, key=lambda key: key.number, default=keys[0])
        return compute_mark(newest.number, newest.secret, kind, place, content)

    def is_genuine(
        self, kind: MarkKind, place: Sequence[str], content: bytes, mark: bytes | None, at: datetime
    ) -> bool:
        """Return whether a worker of this installation made `content` for this use and place.

        The answer is the same whenever it is asked, since replays of a run ask again: all keys are kept, and what ends
        depends on when the content came (`at`, the server's time). Without a mark it can only be of a worker from
        before there were any: taken if it came before `Keys.unmarked_until`.

        Raises:
            KeysOutdated: it may be of a key that was made since the store was last read.
        """
        if mark is None:
            return self._keys.unmarked_until is not None and at < self._keys.unmarked_until
        known = next((key for key in self._keys.keys if key.number == read_key_number(mark)), None)
        if known is None:
            if time.monotonic() - self._read_at > OUTDATED_SECONDS:
                raise KeysOutdated("the keys of the store could not be read lately")
            return False
        if known.retired_at is not None and at >= known.retired_at:
            return False
        return hmac.compare_digest(compute_mark(known.number, known.secret, kind, place, content), mark)

    async def is_genuine_now(
        self, kind: MarkKind, place: Sequence[str], content: bytes, mark: bytes | None, at: datetime
    ) -> bool:
        """Check as `is_genuine`; look at the store again for a key that is not known."""
        if mark is not None and all(key.number != read_key_number(mark) for key in self._keys.keys):
            with suppress(StoreUnavailable):
                await self.refresh()
        return self.is_genuine(kind, place, content, mark, at)
