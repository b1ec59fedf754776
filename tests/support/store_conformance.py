"""What every blob store must do: a test class for each store inherits this one and says where its stores are."""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from mandate.activities.stores.address import open_store
from mandate.activities.stores.base import (
    FIRST_HOUR,
    KEY_BYTES,
    USED_AFTER,
    BlobStore,
    KeptResult,
    StoreUnavailable,
)
from mandate.activities.stores.streams import StreamPiece
from mandate.activities.transcript.blobs import BlobCorrupted, Blobs
from mandate.workflows.contracts.base import digest_of
from tests.support.store_writer import finished, key, numbered, start_writer


def kept(tool: str = "lookup", agent: str = "refunds", size: int = 20) -> KeptResult:
    """A result of one call."""
    return KeptResult(tool, agent, digest_of(tool.encode()), size, "refunds-1", "0199", 3)


class StoreConformance:
    """Inherited with fixtures `url` and `other_url`: addresses of two stores that nobody has used."""

    @pytest.fixture
    async def store(self, url: str) -> AsyncIterator[BlobStore]:
        store = open_store(url)
        yield store
        await store.close()

    async def corrupt(self, url: str, digest: str) -> None:
        """Flip a bit of the stored blob behind the store's back."""
        raise NotImplementedError

    async def outdate(self, url: str) -> None:
        """Make the store, which nobody has open, one of the version before claims and keys."""
        raise NotImplementedError

    async def forbid_writing(self, url: str) -> None:
        """Make the store, which nobody has open, one that can only be read."""
        raise NotImplementedError

    async def break_claims(self, url: str) -> None:
        """Let every claim fail behind the store's back."""
        raise NotImplementedError

    async def test_what_was_put_is_got(self, store: BlobStore) -> None:
        blobs = dict(numbered(3))

        await store.put(blobs)

        assert await store.get(list(blobs)) == blobs

    async def test_missing_blobs_are_absent(self, store: BlobStore) -> None:
        (here, content), (missing, _) = numbered(2)
        await store.put({here: content})

        assert await store.get([missing, here]) == {here: content}
        assert await store.get([missing]) == {}
        assert await store.get([]) == {}

    async def test_put_again_leaves_what_is_there(self, store: BlobStore) -> None:
        blobs = dict(numbered(2))
        await store.put(dict(numbered(1)))

        await store.put(blobs)
        await store.put(blobs)
        await store.put(dict.fromkeys(blobs, b"other"))
        await store.put({})

        assert await store.get(list(blobs)) == blobs

    async def test_all_of_a_put_is_stored_or_none(self, store: BlobStore) -> None:
        blobs = dict(numbered(600))
        first = next(iter(blobs))

        with pytest.raises(Exception, match=r".+"):
            await store.put({**blobs, "m" * 43: object()})  # type: ignore[dict-item]

        assert await store.get(list(blobs)) == {}
        await store.put({first: blobs[first]})
        assert await store.get([first]) == {first: blobs[first]}

    async def test_thousands_of_addresses_at_once(self, store: BlobStore) -> None:
        blobs = {digest_of(content): content for content in (str(number).encode() for number in range(2500))}

        await store.put(blobs)

        assert await store.get([*blobs, *blobs]) == blobs

    @pytest.mark.parametrize("content", [b"", b"\0", os.urandom(5 << 20)], ids=["empty", "zero byte", "5 MiB"])
    async def test_any_content_comes_back(self, store: BlobStore, content: bytes) -> None:
        await store.put({digest_of(content): content})

        assert await store.get([digest_of(content)]) == {digest_of(content): content}

    async def test_tasks_may_write_the_same_and_different_blobs_at_once(self, store: BlobStore) -> None:
        blobs = list(numbered(40))
        shared, own = dict(blobs[:20]), blobs[20:]

        await asyncio.gather(
            *(store.put({**dict(reversed(shared.items())), digest: content}) for digest, content in own),
            *(store.put({**shared, digest: content}) for digest, content in own),
        )

        assert await store.get([digest for digest, _ in blobs]) == dict(blobs)

    async def test_processes_may_create_the_store_and_write_at_once(self, store: BlobStore, url: str) -> None:
        creators = [await start_writer(url, "identity") for _ in range(2)]
        writers = [await start_writer(url, "put", count) for count in (50, 60)]

        identities = {await finished(creator) for creator in creators}
        for writer in writers:
            await finished(writer)

        blobs = dict(numbered(60))
        assert await store.get(list(blobs)) == blobs
        assert identities == {await store.identity()}

    async def test_what_a_killed_process_stored_is_there(self, store: BlobStore, url: str) -> None:
        writer = await start_writer(url, "stream", 100_000)
        assert writer.stdout is not None
        for _ in range(30):
            stored = int(await writer.stdout.readline())
        writer.kill()
        stored = max([stored, *(int(line) for line in (await writer.stdout.read()).splitlines(keepends=True)[:-1])])
        await writer.wait()

        blobs = dict(numbered(stored + 1))
        assert await store.get(list(blobs)) == blobs

        retried = dict(numbered(stored + 20))
        await store.put(retried)
        assert await store.get(list(retried)) == retried

    async def test_identity_stays_and_is_its_own(self, store: BlobStore, url: str, other_url: str) -> None:
        identity = await store.identity()
        await store.close()
        again, other = open_store(url), open_store(other_url)

        assert await again.identity() == identity
        assert await other.identity() != identity
        assert len(identity) >= 16
        await again.close()
        await other.close()

    async def test_first_calls_at_once_agree_on_the_identity(self, url: str) -> None:
        stores = [open_store(url) for _ in range(8)]

        identities = await asyncio.gather(*(store.identity() for store in stores))

        assert len(set(identities)) == 1
        for store in stores:
            await store.close()

    async def test_closing_twice_does_no_harm_and_ends_it(self, store: BlobStore) -> None:
        await store.identity()

        await store.close()
        await store.close()

        with pytest.raises(StoreUnavailable, match="is closed"):
            await store.get(["x" * 43])

    async def test_flipped_bit_is_found_and_named(self, store: BlobStore, url: str) -> None:
        writer = Blobs(store)
        (digest,) = await writer.put(b"Refund order 81")
        await self.corrupt(url, digest)

        with pytest.raises(BlobCorrupted, match=f"blob {digest} in store {await store.identity()} was changed"):
            await Blobs(store).get(digest)

    async def test_key_is_claimed_once_and_for_ever(self, store: BlobStore, url: str) -> None:
        claimed = [await store.claim(key(0)) for _ in range(3)]
        await store.close()
        again = open_store(url)

        assert claimed == [True, False, False]
        assert await again.claim(key(0)) is False
        assert await again.claim(key(1)) is True
        await again.close()

    async def test_exactly_one_of_many_claimers_gets_a_key(self, store: BlobStore, url: str) -> None:
        stores = [store, *(open_store(url) for _ in range(4))]

        claims = await asyncio.gather(*(one.claim(key(number)) for number in range(20) for one in stores * 2))

        assert [sum(claims[start : start + 10]) for start in range(0, 200, 10)] == [1] * 20
        for one in stores[1:]:
            await one.close()

    async def test_exactly_one_of_many_processes_gets_a_key(self, url: str) -> None:
        claimers = [await start_writer(url, "claim", 40) for _ in range(4)]

        got = [(await finished(claimer)).split() for claimer in claimers]

        assert sorted(int(number) for numbers in got for number in numbers) == list(range(40))

    async def test_what_a_killed_process_claimed_stays_claimed(self, store: BlobStore, url: str) -> None:
        claimer = await start_writer(url, "hold", 100_000)
        assert claimer.stdout is not None
        for _ in range(30):
            claimed = int(await claimer.stdout.readline())
        claimer.kill()
        told = (await claimer.stdout.read()).splitlines(keepends=True)
        claimed = max([claimed, *(int(number) for number in told if number.endswith(b"\n"))])
        await claimer.wait()

        assert [number for number in range(claimed + 1) if await store.claim(key(number))] == []
        # The claim that the process may have died in is there or not; nothing after it is.
        assert await store.claim(key(claimed + 2))

    async def test_claims_and_blobs_are_apart(self, store: BlobStore) -> None:
        ((digest, content),) = numbered(1)

        assert await store.claim(digest)
        assert await store.get([digest]) == {}
        await store.put({digest: content})
        assert await store.claim(digest) is False

    async def test_store_of_an_older_version_is_brought_up_to_date(self, store: BlobStore, url: str) -> None:
        blobs, identity = dict(numbered(3)), await store.identity()
        await store.put(blobs)
        await store.close()
        await self.outdate(url)
        newer = open_store(url)

        assert await newer.claim(key(0))
        assert (await newer.identity(), await newer.get(list(blobs))) == (identity, blobs)
        await newer.close()

    async def test_processes_may_bring_a_store_up_to_date_at_once(self, store: BlobStore, url: str) -> None:
        identity = await store.identity()
        await store.close()
        await self.outdate(url)

        openers = [await start_writer(url, "claim", 5) for _ in range(3)]
        openers += [await start_writer(url, "identity") for _ in range(2)]
        said = [(await finished(opener)).split() for opener in openers]

        assert sorted(int(number) for numbers in said[:3] for number in numbers) == list(range(5))
        assert said[3:] == [[identity]] * 2

    async def test_claim_in_a_store_that_can_only_be_read_is_refused(self, store: BlobStore, url: str) -> None:
        ((digest, content),) = numbered(1)
        await store.put({digest: content})
        await store.close()
        await self.forbid_writing(url)
        reading = open_store(url)

        with pytest.raises(StoreUnavailable):
            await reading.claim(key(0))
        assert await reading.get([digest]) == {digest: content}
        await reading.close()

    async def test_claim_that_fails_is_no_claim(self, store: BlobStore, url: str) -> None:
        await store.identity()
        await self.break_claims(url)

        with pytest.raises(StoreUnavailable):
            await store.claim(key(0))

    async def test_first_callers_of_keys_make_one_between_them(self, store: BlobStore, url: str) -> None:
        stores = [store, *(open_store(url) for _ in range(4))]

        read = await asyncio.gather(*(one.keys() for one in stores))

        assert len({keys.keys[0].secret for keys in read}) == 1
        assert [[key.number for key in keys.keys] for keys in read] == [[1]] * 5
        assert len(read[0].keys[0].secret) == KEY_BYTES
        assert read[0].unmarked_until is None
        for one in stores[1:]:
            await one.close()

    async def test_further_key_is_used_later_and_an_old_one_ends_once_it_is(
        self, store: BlobStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = (await store.keys()).keys[0]

        second = await store.add_key()
        too_early = await store.retire_key(first.number)
        for module in ("sqlite", "postgres"):
            monkeypatch.setattr(f"mandate.activities.stores.{module}.USED_AFTER", timedelta(0))
        third = await store.add_key()

        assert (await store.keys()).keys == (first, second, third)
        assert second.used_from - second.made_at == USED_AFTER
        assert not too_early
        assert not await store.retire_key(third.number)
        assert await store.retire_key(first.number)
        assert not await store.retire_key(first.number)
        kept = (await store.keys()).keys
        assert kept[1:] == (second, third)
        assert kept[0].secret == first.secret
        assert kept[0].retired_at is not None

    async def test_store_older_than_keys_takes_what_is_unmarked_for_an_hour(self, store: BlobStore, url: str) -> None:
        await store.identity()
        await store.close()
        await self.outdate(url)
        newer = open_store(url)

        keys = await newer.keys()

        assert keys.unmarked_until is not None
        until = keys.unmarked_until - keys.keys[0].made_at
        assert abs(until - FIRST_HOUR) < timedelta(minutes=5)
        await newer.close()
        again = open_store(url)
        assert await again.keys() == keys
        await again.close()

    async def test_worker_says_of_itself_what_others_read(self, store: BlobStore, url: str) -> None:
        other = open_store(url)

        await store.announce("agents", "one", "first")
        begun = await other.announcements("agents")
        await other.announce("agents", "two", "other")
        await other.announce("elsewhere", "one", "not asked for")
        await store.announce("agents", "one", "second")
        later = await store.announcements("agents")

        assert [(said.worker, said.content) for said in begun.workers] == [("one", "first")]
        assert begun.workers[0].since == begun.workers[0].seen_at
        assert begun.workers[0].seen_at <= begun.now <= later.now
        assert [(said.worker, said.content) for said in later.workers] == [("one", "second"), ("two", "other")]
        assert later.workers[0].since == begun.workers[0].since
        assert begun.workers[0].seen_at < later.workers[0].seen_at <= later.now
        await other.close()

    async def test_word_of_a_worker_that_was_silent_for_long_is_forgotten(
        self, store: BlobStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await store.announce("agents", "gone", "first")
        for module in ("sqlite", "postgres"):
            monkeypatch.setattr(f"mandate.activities.stores.{module}.FORGOTTEN_AFTER", timedelta(0))
        await asyncio.sleep(0.01)

        await store.announce("agents", "here", "other")

        assert [said.worker for said in (await store.announcements("agents")).workers] == ["here"]

    async def test_store_older_than_workers_keeps_their_words(self, store: BlobStore, url: str) -> None:
        await store.identity()
        await store.close()
        await self.outdate(url)
        newer = open_store(url)

        await newer.announce("agents", "one", "first")

        assert [said.worker for said in (await newer.announcements("agents")).workers] == ["one"]
        await newer.close()

    async def test_kept_result_is_found_under_its_key_until_it_expires(self, store: BlobStore, url: str) -> None:
        await store.keep(key(0), kept(), timedelta(minutes=10))
        await store.keep(key(1), kept(), timedelta(milliseconds=1))
        await asyncio.sleep(0.05)
        await store.close()
        again = open_store(url)

        found = await again.cached(key(0))

        assert found is not None
        assert replace(found, age=timedelta(0)) == kept()
        assert timedelta(milliseconds=50) <= found.age < timedelta(minutes=1)
        assert await again.cached(key(1)) is None
        assert await again.cached(key(2)) is None
        await again.close()

    async def test_later_result_takes_the_place_of_an_earlier_one(self, store: BlobStore) -> None:
        await store.keep(key(0), kept(size=20), timedelta(minutes=10))
        await store.cached(key(0))
        await asyncio.sleep(0.05)

        await store.keep(key(0), kept(size=30), timedelta(minutes=10))

        (use,) = await store.cache_use()
        assert (use.entries, use.size, use.hits) == (1, 30, 0)
        found = await store.cached(key(0))
        assert found is not None
        assert found.age < timedelta(milliseconds=50)

    async def test_use_of_the_cache_is_told_by_tool(self, store: BlobStore) -> None:
        before = datetime.now(UTC)
        await store.keep(key(0), kept("search", size=5), timedelta(minutes=10))
        await store.keep(key(1), kept("lookup", size=20), timedelta(minutes=10))
        await store.keep(key(2), kept("lookup", "orders", size=30), timedelta(minutes=10))
        await store.keep(key(3), kept("lookup", size=40), timedelta(milliseconds=1))
        await asyncio.gather(*(store.cached(key(1)) for _ in range(3)))
        await store.cached(key(2))
        await asyncio.sleep(0.01)

        whole = await store.cache_use()

        assert [(use.tool, use.entries, use.size, use.hits) for use in whole] == [
            ("lookup", 2, 50, 4),
            ("search", 1, 5, 0),
        ]
        assert whole[1].oldest <= whole[0].oldest
        assert abs(whole[0].oldest - before) < timedelta(seconds=30)
        assert [use.tool for use in await store.cache_use(tool="search")] == ["search"]
        assert [(use.tool, use.size) for use in await store.cache_use(agent="orders")] == [("lookup", 30)]
        assert await store.cache_use(tool="search", agent="orders") == ()

    @pytest.mark.parametrize(
        ("chosen", "count", "left"),
        [
            ({}, 3, []),
            ({"tool": "lookup"}, 2, [("search", 1)]),
            ({"agent": "refunds"}, 2, [("lookup", 1)]),
            ({"tool": "lookup", "agent": "orders"}, 1, [("lookup", 1), ("search", 1)]),
            ({"tool": "look"}, 0, [("lookup", 2), ("search", 1)]),
        ],
    )
    async def test_cleared_results_are_gone_and_counted_but_for_expired_ones(
        self, store: BlobStore, chosen: dict[str, str], count: int, left: list[tuple[str, int]]
    ) -> None:
        await store.keep(key(3), kept(), timedelta(milliseconds=1))
        await asyncio.sleep(0.01)
        await store.keep(key(0), kept("search"), timedelta(minutes=10))
        await store.keep(key(1), kept(), timedelta(minutes=10))
        await store.keep(key(2), kept(agent="orders"), timedelta(minutes=10))

        assert await store.clear_cache(**chosen) == count
        assert [(use.tool, use.entries) for use in await store.cache_use()] == left

    async def test_expired_results_are_removed_in_small_steps(
        self, store: BlobStore, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for module in ("sqlite_results", "postgres_results"):
            monkeypatch.setattr(f"mandate.activities.stores.{module}.EXPIRED_AT_ONCE", 2)
        for number in range(5):
            await store.keep(key(number), kept(), timedelta(milliseconds=1 if number else 50))
        await asyncio.sleep(0.1)

        left = []
        for number in range(5, 9):
            await store.keep(key(number), kept(), timedelta(minutes=10))
            left.append(await self.count_kept(url))

        # Each step removes two of those that had expired by then and adds one.
        assert left[-1] == 4
        assert all(before - after <= 1 for before, after in pairwise(left))

    async def count_kept(self, url: str) -> int:
        """Count the kept results behind the store's back, the expired ones too."""
        raise NotImplementedError

    async def test_many_keep_and_find_at_once(self, store: BlobStore, url: str) -> None:
        stores = [store, *(open_store(url) for _ in range(3))]
        await store.keep(key(0), kept(), timedelta(minutes=10))

        found = await asyncio.gather(
            *(one.cached(key(0)) for one in stores * 10),
            *(one.keep(key(number), kept(), timedelta(milliseconds=1)) for number in range(1, 20) for one in stores),
        )

        assert all(result is not None for result in found[:40])
        (use,) = await store.cache_use()
        assert use.hits == 40
        for one in stores[1:]:
            await one.close()

    async def test_store_older_than_kept_results_keeps_them(self, store: BlobStore, url: str) -> None:
        await store.identity()
        await store.close()
        await self.outdate(url)
        newer = open_store(url)

        assert await newer.cache_use() == ()
        await newer.keep(key(0), kept(), timedelta(minutes=10))
        assert await newer.cached(key(0)) is not None
        await newer.close()

    async def test_kept_session_is_found_and_an_older_state_changes_nothing(self, store: BlobStore) -> None:
        assert await store.session("default/a") is None
        await store.keep_session("default/a", 1, b"one")
        await store.keep_session("default/a", 2, b"two")
        await store.keep_session("default/a", 1, b"one, late")
        await store.keep_session("default/b", 0, b"\x00other")

        assert await store.session("default/a") == b"two"
        await store.keep_session("default/a", 2, b"two again")
        assert (await store.session("default/a"), await store.session("default/b")) == (b"two again", b"\x00other")

    async def test_newest_of_many_states_stays_whoever_comes_last(self, store: BlobStore, url: str) -> None:
        stores = [store, *(open_store(url) for _ in range(3))]
        numbers = [number for number in range(1, 41) for _ in range(2)]
        random.Random(1).shuffle(numbers)

        await asyncio.gather(
            *(stores[place % 4].keep_session("a", number, str(number).encode()) for place, number in enumerate(numbers))
        )

        assert await store.session("a") == b"40"
        for one in stores[1:]:
            await one.close()

    async def test_content_is_swapped_for_that_with_the_number_before_only(self, store: BlobStore) -> None:
        assert await store.swap_session("a", 1, b"one")
        assert not await store.swap_session("a", 1, b"again")
        assert not await store.swap_session("a", 3, b"three")
        assert await store.swap_session("a", 2, b"two")
        assert (await store.session("a"), await store.session("b")) == (b"two", None)

    async def test_of_many_swaps_at_once_one_is_made(self, store: BlobStore, url: str) -> None:
        stores = [store, *(open_store(url) for _ in range(3))]
        for number in range(1, 11):
            done = await asyncio.gather(
                *(stores[place % 4].swap_session("a", number, bytes([place])) for place in range(8))
            )
            assert sum(done) == 1
            assert await store.session("a") == bytes([done.index(True)])
        for one in stores[1:]:
            await one.close()

    async def test_store_older_than_sessions_keeps_them(self, store: BlobStore, url: str) -> None:
        await store.identity()
        await store.close()
        await self.outdate(url)
        newer = open_store(url)

        assert await newer.session("a") is None
        await newer.keep_session("a", 1, b"one")
        assert await newer.session("a") == b"one"
        await newer.close()

    async def test_log_of_a_run_is_read_from_a_place_on_and_keeps_few_steps(self, store: BlobStore) -> None:
        pieces = [
            StreamPiece("r1", step, 1, kind, f"{step}".encode() if kind == "text" else b"")
            for step in range(1, 6)
            for kind in ("begin", "text", "end")
        ]
        for piece in pieces:
            await store.append_stream("default/a", (piece,))
        await store.append_stream("default/b", pieces[:2])
        found = await store.read_stream("default/a", 0)

        assert [replace(piece, offset=0) for piece in found] == pieces[6:]
        assert await store.read_stream("default/a", found[3].offset) == found[4:]
        assert len(await store.read_stream("default/b", 0)) == 2

        await store.append_stream("default/a", (StreamPiece("r2", 1, 1, "begin"),))
        (only,) = await store.read_stream("default/a", 0)
        assert (only.run_id, only.offset > found[-1].offset) == ("r2", True)

    async def test_who_reads_along_is_known_for_a_while(self, store: BlobStore) -> None:
        assert await store.list_followed() == frozenset()
        await store.follow_stream("default/a", timedelta(seconds=60))
        await store.follow_stream("default/a", timedelta(seconds=1))
        await store.follow_stream("default/b", timedelta(milliseconds=1))
        await asyncio.sleep(0.05)

        assert await store.list_followed() == frozenset({"default/a"})
