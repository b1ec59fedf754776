"""Content-addressed bytes over a store: addresses, payload codec, integrity, a process-local cache."""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from mandate.activities.stores.base import BlobStore
from mandate.activities.stores.streams import StreamPiece
from mandate.workflows.contracts.base import Digest, digest_of

BLOBS_PER_TURN = 256
"""Blobs that are checked at a stretch before other tasks of the event loop have their turn."""


class BlobMissing(Exception):
    """A blob that something refers to is not in the store."""

    def __init__(self, digest: Digest, store: str) -> None:
        super().__init__(f"blob {digest} is not in store {store}")
        self.digest = digest


class BlobCorrupted(Exception):
    """A blob's bytes are not those that its address was made from, or not what a reference to it promises."""

    def __init__(self, digest: Digest, store: str, problem: str | None = None) -> None:
        problem = problem or "was changed, or written with another payload codec: its bytes do not match its address"
        super().__init__(f"blob {digest} in store {store} {problem}")
        self.digest = digest


class BlobCodec(Protocol):
    """Coding of what is stored, as a Temporal payload codec does it; see `PayloadBlobCodec`."""

    async def encode(self, contents: Sequence[bytes]) -> Sequence[bytes]:
        """Return what is stored for each of `contents`, in the same order."""
        ...

    async def decode(self, stored: Sequence[bytes]) -> Sequence[bytes]:
        """Return the contents again; raise anything for bytes that it did not write."""
        ...


class Blobs:
    """Bytes by the sha256 of their plain form; what is stored has passed the payload codec."""

    def __init__(self, store: BlobStore, codec: BlobCodec | None = None, cache_bytes: int = 64 << 20) -> None:
        self.store = store
        self._codec = codec
        self._cache = _BytesCache(cache_bytes)
        self._identity: str | None = None

    async def identity(self) -> str:
        """Return the id of the store behind it."""
        if self._identity is None:
            self._identity = await self.store.identity()
        return self._identity

    async def claim(self, key: str) -> bool:
        """Enter a call's key into the store's ledger; see `BlobStore.claim`."""
        return await self.store.claim(key)

    async def put(self, *contents: bytes) -> tuple[Digest, ...]:
        """Store each of `contents` in one write; their addresses in the same order."""
        plain = {digest_of(content): content for content in contents}
        encoded = (
            plain
            if self._codec is None
            else dict(zip(plain, await self._codec.encode(list(plain.values())), strict=True))
        )
        await self.store.put(encoded)
        for digest, content in plain.items():
            self._cache.add(digest, content)
        return tuple(digest_of(content) for content in contents) if len(contents) != len(plain) else tuple(plain)

    async def get(self, digest: Digest) -> bytes:
        """Return the bytes under one address.

        Raises:
            BlobMissing, BlobCorrupted: see there.
            StoreUnavailable: the store did not answer.
        """
        return (await self.get_many((digest,)))[0]

    async def get_many(self, digests: Sequence[Digest]) -> list[bytes]:
        """Return the bytes under each address, in the same order; raise as `get`."""
        contents = {digest: content for digest in digests if (content := self._cache.get(digest)) is not None}
        wanted = [digest for digest in dict.fromkeys(digests) if digest not in contents]
        if wanted:
            stored = await self.store.get(wanted)
            for digest in wanted:
                if digest not in stored:
                    raise BlobMissing(digest, await self.identity())
            plain = await self._decode([stored[digest] for digest in wanted])
            for number, (digest, content) in enumerate(zip(wanted, plain, strict=True), 1):
                if number % BLOBS_PER_TURN == 0:
                    await asyncio.sleep(0)
                if content is None or digest_of(content) != digest:
                    raise BlobCorrupted(digest, await self.identity())
                self._cache.add(digest, content)
                contents[digest] = content
        return [contents[digest] for digest in digests]

    async def keep_first(self, key: str, content: bytes) -> bytes:
        """Keep `content` under a key unless something is kept there, and return what is. Raise as `get`.

        What two attempts would write in different words is so written once.
        """
        address = digest_of(f"kept first: {key}".encode())
        await self.store.put({address: (content if self._codec is None else (await self._codec.encode([content]))[0])})
        kept = await self.find_first(key)
        if kept is None:
            raise BlobMissing(address, await self.identity())
        return kept

    async def find_first(self, key: str) -> bytes | None:
        """Return what is kept under a key, if anything is. Raise as `get`."""
        address = digest_of(f"kept first: {key}".encode())
        stored = (await self.store.get((address,))).get(address)
        if stored is None:
            return None
        (content,) = await self._decode([stored])
        if content is None:
            raise BlobCorrupted(address, await self.identity())
        return content

    async def keep_session(self, key: str, number: int, content: bytes) -> None:
        """Keep the state of a session; see `BlobStore.keep_session`."""
        stored = content if self._codec is None else (await self._codec.encode([content]))[0]
        await self.store.keep_session(key, number, stored)

    async def swap_session(self, key: str, number: int, content: bytes) -> bool:
        """Keep content in place of that with the number before; see `BlobStore.swap_session`."""
        stored = content if self._codec is None else (await self._codec.encode([content]))[0]
        return await self.store.swap_session(key, number, stored)

    async def find_session(self, key: str) -> bytes | None:
        """Return the state of a session as it was kept last, if there is one.

        Raises:
            BlobCorrupted: it was written with another payload codec.
            StoreUnavailable: the store did not answer.
        """
        stored = await self.store.session(key)
        if stored is None:
            return None
        (content,) = await self._decode([stored])
        if content is None:
            raise BlobCorrupted(digest_of(f"session: {key}".encode()), await self.identity())
        return content

    async def append_stream(self, run: str, pieces: Sequence[StreamPiece]) -> None:
        """Append pieces of texts to a run's log; see `BlobStore.append_stream`."""
        if self._codec is not None:
            contents = await self._codec.encode([piece.content for piece in pieces])
            pieces = [replace(piece, content=content) for piece, content in zip(pieces, contents, strict=True)]
        await self.store.append_stream(run, pieces)

    async def read_stream(self, run: str, after: int) -> tuple[StreamPiece, ...]:
        """Return pieces of a run after an offset, as they were appended; one that cannot be read is left out."""
        pieces = await self.store.read_stream(run, after)
        contents = await self._decode([piece.content for piece in pieces])
        return tuple(
            replace(piece, content=content)
            for piece, content in zip(pieces, contents, strict=True)
            if content is not None
        )

    async def close(self) -> None:
        await self.store.close()

    async def _decode(self, stored: list[bytes]) -> Sequence[bytes | None]:
        """Return the plain bytes, or `None` where the codec cannot read what is stored."""
        if self._codec is None:
            return stored
        try:
            return await self._codec.decode(stored)
        except Exception:  # noqa: BLE001 - a codec may raise anything for bytes that it did not write
            return [await self._decode_one(self._codec, blob) for blob in stored]

    async def _decode_one(self, codec: BlobCodec, stored: bytes) -> bytes | None:
        try:
            return (await codec.decode([stored]))[0]
        except Exception:  # noqa: BLE001 - as above; this one is the blob that cannot be read
            return None


class _BytesCache:
    """Least recently used values up to a total size."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._size = 0
        self._entries: OrderedDict[Digest, bytes] = OrderedDict()

    def get(self, digest: Digest) -> bytes | None:
        content = self._entries.get(digest)
        if content is not None:
            self._entries.move_to_end(digest)
        return content

    def add(self, digest: Digest, content: bytes) -> None:
        if digest in self._entries or len(content) > self._limit // 4:
            return
        self._entries[digest] = content
        self._size += len(content)
        while self._size > self._limit:
            _, dropped = self._entries.popitem(last=False)
            self._size -= len(dropped)
