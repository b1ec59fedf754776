import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.converter import PayloadCodec

from mandate.activities.stores.sqlite import SqliteStore
from mandate.activities.transcript.blobs import BlobCorrupted, BlobMissing, Blobs
from mandate.activities.transcript.payload_blob_codec import PayloadBlobCodec
from mandate.workflows.contracts.base import digest_of
from tests.support.memory_store import MemoryStore

PLAIN = b"Refund order 81 of ann@example.com, please. " * 20


class Scrambling(PayloadCodec):
    """Compresses, then inverts every byte: unreadable, without a library for it."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [
            Payload(metadata={"encoding": b"binary/scrambled"}, data=inverted(zlib.compress(p.SerializeToString())))
            for p in payloads
        ]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        if any(payload.metadata.get("encoding") != b"binary/scrambled" for payload in payloads):
            raise RuntimeError("not written by this codec")
        return [Payload.FromString(zlib.decompress(inverted(payload.data))) for payload in payloads]


def inverted(content: bytes) -> bytes:
    return bytes(byte ^ 0xFF for byte in content)


async def test_addresses_come_back_in_the_order_given() -> None:
    blobs = Blobs(MemoryStore())

    addresses = await blobs.put(b"one", b"two", b"one")

    assert addresses == (digest_of(b"one"), digest_of(b"two"), digest_of(b"one"))
    assert await blobs.get_many(addresses) == [b"one", b"two", b"one"]


async def test_what_was_written_or_read_is_not_read_again() -> None:
    store = MemoryStore()
    (one,) = await Blobs(store).put(b"one")
    blobs = Blobs(store)
    (two,) = await blobs.put(b"two")

    await blobs.get_many((one, two, one))
    await blobs.get_many((two, one))

    assert store.gets == [(one,)]


async def test_cache_forgets_what_was_used_least_recently() -> None:
    store = MemoryStore()
    blobs = Blobs(store, cache_bytes=40)
    first, second, third, fourth = await blobs.put(*(bytes([number]) * 10 for number in range(4)))

    await blobs.get(first)
    await blobs.put(b"9" * 10)
    await blobs.get_many((first, third, fourth))
    assert store.gets == []

    await blobs.get(second)
    assert store.gets == [(second,)]


async def test_blob_too_large_for_the_cache_is_read_each_time() -> None:
    store = MemoryStore()
    blobs = Blobs(store, cache_bytes=40)
    (digest,) = await blobs.put(b"x" * 11)

    assert await blobs.get(digest) == await blobs.get(digest)
    assert store.gets == [(digest,), (digest,)]


async def test_missing_blob_is_named() -> None:
    missing = digest_of(b"never written")

    with pytest.raises(BlobMissing) as raised:
        await Blobs(MemoryStore()).get(missing)

    assert str(raised.value) == f"blob {missing} is not in store memory-1"
    assert raised.value.digest == missing


async def test_changed_blob_is_named() -> None:
    store = MemoryStore()
    (digest,) = await Blobs(store).put(b"100.00")
    store.held[digest] = b"900.00"

    with pytest.raises(BlobCorrupted) as raised:
        await Blobs(store).get(digest)

    assert raised.value.digest == digest
    assert str(raised.value) == (
        f"blob {digest} in store memory-1 was changed, or written with another payload codec:"
        " its bytes do not match its address"
    )


async def test_codec_round_trips_and_hides_the_text(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    addresses = await Blobs(store, PayloadBlobCodec(Scrambling())).put(PLAIN, b"")

    assert await Blobs(store, PayloadBlobCodec(Scrambling())).get_many(addresses) == [PLAIN, b""]
    assert addresses == (digest_of(PLAIN), digest_of(b""))
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert addresses[0].encode() in stored
    assert b"Refund order" not in stored
    await store.close()


async def test_codec_names_the_one_blob_that_it_cannot_read() -> None:
    store = MemoryStore()
    blobs = [str(number).encode() for number in range(5)]
    addresses = await Blobs(store, PayloadBlobCodec(Scrambling())).put(*blobs)
    store.held[addresses[3]] = b"\xff garbage"

    with pytest.raises(BlobCorrupted, match=f"blob {addresses[3]} "):
        await Blobs(store, PayloadBlobCodec(Scrambling())).get_many(addresses)


async def test_blobs_of_another_codec_are_not_taken_for_plain_ones() -> None:
    store = MemoryStore()
    (scrambled,) = await Blobs(store, PayloadBlobCodec(Scrambling())).put(PLAIN)
    (plain,) = await Blobs(store).put(b"plain")

    with pytest.raises(BlobCorrupted, match="another payload codec"):
        await Blobs(store).get(scrambled)
    with pytest.raises(BlobCorrupted, match="another payload codec"):
        await Blobs(store, PayloadBlobCodec(Scrambling())).get(plain)


async def test_what_is_kept_first_under_a_key_stays() -> None:
    store = MemoryStore()
    one, other = Blobs(store), Blobs(store)

    assert await one.find_first("cut 1") is None
    assert await one.keep_first("cut 1", b"first") == b"first"
    assert await other.keep_first("cut 1", b"second") == b"first"
    assert await other.find_first("cut 1") == b"first"
    assert await other.find_first("cut 2") is None
