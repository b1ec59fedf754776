"""A blob store in a dict, which remembers what it was asked for."""

from collections.abc import Mapping, Sequence


class MemoryStore:
    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.puts: list[tuple[str, ...]] = []
        self.gets: list[tuple[str, ...]] = []
        self.claims: list[str] = []

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

    async def close(self) -> None: ...
