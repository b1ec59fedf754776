"""A blob store in a dict, which remembers what it was asked for."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from mandate.activities.stores.base import KEY_BYTES, Announcement, Announcements, CacheUse, KeptResult, Key, Keys


class MemoryStore:
    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.puts: list[tuple[str, ...]] = []
        self.gets: list[tuple[str, ...]] = []
        self.claims: list[str] = []
        self.made_keys: list[Key] = []
        self.unmarked_until: datetime | None = None
        self.announced: dict[tuple[str, str], Announcement] = {}
        self.kept: dict[str, tuple[KeptResult, timedelta]] = {}
        """Kept results with their lifetimes; they never expire."""

    async def identity(self) -> str:
        return "memory-1"

    async def put(self, blobs: Mapping[str, bytes]) -> None:
        self.puts.append(tuple(blobs))
        for digest, content in blobs.items():
            self.held.setdefault(digest, content)

    async def get(self, digests: Sequence[str]) -> dict[str, bytes]:
        self.gets.append(tuple(digests))
        return {digest: self.held[digest] for digest in digests if digest in self.held}

    async def claim(self, key: str) -> bool:
        self.claims.append(key)
        return self.claims.count(key) == 1

    async def announce(self, queue: str, worker: str, content: str) -> None:
        now = datetime.now(UTC)
        before = self.announced.get((queue, worker))
        since = before.since if before is not None else now
        self.announced[queue, worker] = Announcement(worker, content, since, now)

    async def announcements(self, queue: str) -> Announcements:
        workers = tuple(said for (its, _), said in self.announced.items() if its == queue)
        return Announcements(datetime.now(UTC), workers)

    async def keep(self, key: str, result: KeptResult, lifetime: timedelta) -> None:
        self.kept[key] = result, lifetime

    async def cached(self, key: str) -> KeptResult | None:
        return self.kept[key][0] if key in self.kept else None

    async def cache_use(self, tool: str | None = None, agent: str | None = None) -> tuple[CacheUse, ...]:
        raise NotImplementedError

    async def clear_cache(self, tool: str | None = None, agent: str | None = None) -> int:
        raise NotImplementedError

    async def list_followed(self) -> frozenset[str]:
        return frozenset()

    async def close(self) -> None: ...

    async def keys(self) -> Keys:
        if not self.made_keys:
            await self.add_key()
        return Keys(tuple(self.made_keys), self.unmarked_until)

    async def add_key(self) -> Key:
        now = datetime.now(UTC)
        number = self.made_keys[-1].number + 1 if self.made_keys else 1
        self.made_keys.append(Key(number, secrets.token_bytes(KEY_BYTES), now, now))
        return self.made_keys[-1]

    async def retire_key(self, number: int) -> bool:
        now = datetime.now(UTC)
        before = self.made_keys
        self.made_keys = [replace(key, retired_at=now) if key.number == number else key for key in before]
        return before != self.made_keys
