"""What every blob store does; `activities.blobs.Blobs` adds addresses, the payload codec and a cache."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from workflows.contracts.base import Digest


class StoreUnavailable(Exception):
    """The store did not answer: the same call may succeed later."""


class BlobStore(Protocol):
    """Immutable bytes by address; safe for concurrent use by many tasks and processes."""

    async def identity(self) -> str:
        """A random name that the store was given when it was created; a run remembers it."""
        ...

    async def put(self, blobs: Mapping[Digest, bytes]) -> None:
        """Store all of `blobs` or none, durably; those already there are left as they are.

        Raises:
            StoreUnavailable: nothing can be said of what was stored; storing again is safe.
        """
        ...

    async def get(self, digests: Sequence[Digest]) -> dict[Digest, bytes]:
        """The blobs that exist; missing ones are absent. One round trip per thousand addresses.

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

    async def close(self) -> None: ...
