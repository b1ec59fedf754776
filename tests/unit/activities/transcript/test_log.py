import asyncio
import itertools
import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mandate.activities.stores.sqlite import SqliteStore
from mandate.activities.transcript.blobs import BlobCorrupted, BlobMissing, Blobs
from mandate.activities.transcript.log import Chain, TranscriptLog
from mandate.workflows.contracts.base import digest_of
from mandate.workflows.contracts.transcript import (
    AssistantMessage,
    Block,
    CallPart,
    Message,
    OpaquePart,
    RefusalPart,
    ResultPart,
    Segment,
    TextPart,
    UserMessage,
)
from tests.support.examples import examples
from tests.support.memory_store import MemoryStore

AGENT = "a" * 43
EDGES = (0, 1, 14, 15, 16, 17, 31, 32, 33, 255, 256, 257, 272)


def told(text: str) -> UserMessage:
    return UserMessage(role="user", parts=(TextPart(kind="text", text=text),))


async def grown(log: TranscriptLog, chain: Chain, count: int) -> list[Chain]:
    """`chain` and `count` chains that each add a segment to the one before."""
    chains = [chain]
    for number in range(count):
        chains.append(await log.append(chains[-1], AGENT, (told(f"message {chain.segment.position + number + 1}"),)))
    return chains


async def chains_of(store: MemoryStore, last_position: int) -> list[Chain]:
    log = TranscriptLog(Blobs(store))
    return await grown(log, await log.start(AGENT, told("message 0")), last_position)


def cold(store: MemoryStore) -> TranscriptLog:
    store.gets.clear()
    return TranscriptLog(Blobs(store))


texts = st.text(max_size=20)
users = st.lists(
    st.builds(TextPart, kind=st.just("text"), text=texts)
    | st.builds(
        ResultPart,
        kind=st.just("result"),
        call_id=texts,
        tool=texts,
        text=texts,
        error=st.booleans(),
        digest=st.none() | st.binary(max_size=3).map(digest_of),
        size=st.none() | st.integers(0, 2**53),
    ),
    max_size=3,
).map(lambda parts: UserMessage(role="user", parts=tuple(parts)))
assistants = st.builds(
    AssistantMessage,
    role=st.just("assistant"),
    parts=st.lists(
        st.builds(TextPart, kind=st.just("text"), text=texts)
        | st.builds(CallPart, kind=st.just("call"), call_id=texts, tool=texts, arguments=texts)
        | st.builds(RefusalPart, kind=st.just("refusal"), text=texts)
        | st.builds(OpaquePart, kind=st.just("opaque"), type=texts),
        max_size=3,
    ).map(tuple),
    protocol=st.sampled_from(["openai.responses", "openai.chat", "anthropic.messages", "scripted"]),
    model=texts,
    native=st.none() | texts,
)
turns = st.lists(users | assistants, max_size=3)


@pytest.fixture(scope="module")
async def trunk() -> tuple[MemoryStore, list[Chain]]:
    store = MemoryStore()
    return store, await chains_of(store, EDGES[-1])


@examples(30)
@given(edge=st.sampled_from(EDGES), branches=st.lists(st.lists(turns, min_size=1, max_size=3), min_size=1, max_size=3))
async def test_cold_conversation_equals_the_warm_one_on_every_branch(
    trunk: tuple[MemoryStore, list[Chain]], edge: int, branches: list[list[list[Message]]]
) -> None:
    store, chains = trunk
    warm = cold(store)
    for branch in branches:
        chain = await warm.load(chains[edge].head)
        for turn in branch:
            chain = await warm.append(chain, AGENT, turn)

        loaded = await cold(store).load(chain.head)
        before = [told(f"message {number}") for number in range(edge + 1)]
        assert list(loaded.conversation) == list(chain.conversation) == [*before, *itertools.chain(*branch)]
        assert (loaded.head, loaded.segment, loaded.size_bytes) == (chain.head, chain.segment, chain.size_bytes)


@pytest.mark.parametrize("edge", EDGES)
async def test_spine_reaches_every_predecessor(trunk: tuple[MemoryStore, list[Chain]], edge: int) -> None:
    store, chains = trunk

    async def opened(level: int, digest: str) -> list[str]:
        if level == 0:
            return [digest]
        block = Block.model_validate_json(store.held[digest])
        assert (block.level, len(block.children)) == (level, 16)
        return [address for child in block.children for address in await opened(level - 1, child)]

    spine = chains[edge].segment.spine
    reached = [
        address
        for level in reversed(range(len(spine)))
        for child in spine[level]
        for address in await opened(level, child)
    ]

    assert reached == [chain.head for chain in chains[:edge]]
    assert [len(level) for level in spine] == [edge // 16**level % 16 for level in range(len(spine))]


async def test_block_that_fills_is_stored_in_the_same_put(trunk: tuple[MemoryStore, list[Chain]]) -> None:
    store, chains = trunk
    blocks_with = {
        position: len(put) - 1 for position, put in zip(range(EDGES[-1] + 1), store.puts, strict=False) if len(put) > 1
    }

    expected = dict.fromkeys(range(16, EDGES[-1] + 1, 16), 1) | {256: 2}
    assert blocks_with == expected
    assert [put[0] for put in store.puts[: len(chains)]] == [chain.head for chain in chains]


async def test_ten_thousand_segments_are_read_in_eight_round_trips() -> None:
    store = MemoryStore()
    head = (await chains_of(store, 9_999))[-1].head

    chain = await cold(store).load(head)

    assert len(chain.conversation) == 10_000
    assert chain.conversation[-1] == told("message 9999")
    assert len(store.gets) <= 8


@pytest.mark.parametrize(("known", "head"), [(39, 40), (3, 5), (30, 40), (15, 17), (16, 47), (250, 260)])
async def test_only_segments_after_a_loaded_ancestor_are_read(
    trunk: tuple[MemoryStore, list[Chain]], known: int, head: int
) -> None:
    store, chains = trunk
    log = cold(store)
    await log.load(chains[known].head)
    store.gets.clear()

    chain = await log.load(chains[head].head)

    segments = {chain.head for chain in chains}
    read = [digest for get in store.gets for digest in get if digest in segments]
    assert sorted(read) == sorted(chain.head for chain in chains[known + 1 : head + 1])
    assert list(chain.conversation) == list(chains[head].conversation)
    assert len(store.gets) <= 4


@pytest.mark.parametrize("edge", EDGES[1:])
async def test_step_of_another_worker_costs_one_read(trunk: tuple[MemoryStore, list[Chain]], edge: int) -> None:
    store, chains = trunk
    log = cold(store)
    await log.load(chains[edge - 1].head)
    store.gets.clear()

    await log.load(chains[edge].head)
    await log.load(chains[edge].head)
    await log.load(chains[edge - 1].head)

    assert store.gets == [(chains[edge].head,)]


async def test_loads_of_one_head_at_once_read_it_once(trunk: tuple[MemoryStore, list[Chain]]) -> None:
    store, chains = trunk
    log = cold(store)

    loaded = await asyncio.gather(*(log.load(chains[20].head) for _ in range(5)))

    assert all(chain is loaded[0] for chain in loaded)
    assert len({digest for get in store.gets for digest in get}) == sum(len(get) for get in store.gets)


async def test_branches_are_independent() -> None:
    log = TranscriptLog(Blobs(MemoryStore()))
    start = await log.start(AGENT, told("hello"))

    left = await log.append(start, AGENT, (told("left"),))
    right = await log.append(start, AGENT, (told("right"),))
    left = await log.append(left, AGENT, (told("left again"),))

    assert list(start.conversation) == [told("hello")]
    assert list(left.conversation) == [told("hello"), told("left"), told("left again")]
    assert list(right.conversation) == [told("hello"), told("right")]


async def test_same_append_again_has_the_same_address_in_every_process() -> None:
    store = MemoryStore()
    first = (await chains_of(store, 20))[-1]
    second = (await chains_of(MemoryStore(), 20))[-1]
    log = cold(store)

    retried = await log.append(await log.load(first.segment.previous or ""), AGENT, first.segment.messages)

    assert first.head == second.head == retried.head == digest_of(store.held[first.head])


async def test_extra_blobs_are_stored_in_the_same_write() -> None:
    store = MemoryStore()
    log = TranscriptLog(Blobs(store))

    start = await log.start(AGENT, told("hello"), b"agent", b"tools")
    step = await log.append(start, AGENT, (told("step"),), b"answer")

    assert store.puts == [(start.head, digest_of(b"agent"), digest_of(b"tools")), (step.head, digest_of(b"answer"))]


async def test_messages_are_held_once(trunk: tuple[MemoryStore, list[Chain]]) -> None:
    store, chains = trunk

    chain = await cold(store).load(chains[5].head)

    assert chain.segment.messages[0] is chain.conversation[-1]


async def test_defaults_take_no_space() -> None:
    store = MemoryStore()

    chain = await TranscriptLog(Blobs(store)).start(AGENT, told("hello"))

    assert json.loads(store.held[chain.head]) == {
        "previous": None,
        "position": 0,
        "agent": AGENT,
        "messages": [{"role": "user", "parts": [{"kind": "text", "text": "hello"}]}],
    }


async def test_segments_come_oldest_first_with_their_addresses(trunk: tuple[MemoryStore, list[Chain]]) -> None:
    store, chains = trunk

    listed = [entry async for entry in cold(store).segments(chains[40].head)]

    assert listed == [(chain.head, chain.segment) for chain in chains[:41]]
    assert [entry async for entry in cold(store).segments(chains[0].head)] == listed[:1]


async def test_missing_segment_is_named() -> None:
    store = MemoryStore()
    chains = await chains_of(store, 20)
    del store.held[chains[3].head]

    with pytest.raises(BlobMissing, match=f"^blob {chains[3].head} is not in store memory-1$"):
        await cold(store).load(chains[20].head)
    with pytest.raises(BlobMissing, match=f"^blob {chains[3].head} is not in store memory-1$"):
        await cold(store).load(chains[3].head)


async def test_flipped_bit_in_the_file_is_named(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "store.db")
    log = TranscriptLog(Blobs(store))
    chains = await grown(log, await log.start(AGENT, told("Pay 100.00")), 3)
    file = sqlite3.connect(store.path)
    with file:
        changed = file.execute(
            "UPDATE blobs SET content = CAST(replace(content, '100.00', '900.00') AS BLOB) WHERE digest = ?",
            (chains[0].head,),
        )
    file.close()

    assert changed.rowcount == 1
    with pytest.raises(BlobCorrupted, match=f"blob {chains[0].head} .* was changed.* do not match its address"):
        await TranscriptLog(Blobs(store)).load(chains[3].head)
    await store.close()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"not JSON", "Invalid JSON: expected ident at line 1 column 2"),
        (b"{}", "previous: Field required"),
        (
            b'{"previous":null,"position":"secret","agent":"x","messages":[]}',
            "position: Input should be a valid integer",
        ),
        (
            b'{"previous":null,"position":0,"agent":"' + b"a" * 43 + b'","messages":[{"role":"judge","parts":[]}]}',
            "messages.0: Input tag 'judge' found using 'role' does not match any of the expected tags",
        ),
    ],
)
async def test_blob_that_is_no_segment_is_named(content: bytes, problem: str) -> None:
    blobs = Blobs(MemoryStore())
    (digest,) = await blobs.put(content)

    with pytest.raises(BlobCorrupted) as raised:
        await TranscriptLog(blobs).load(digest)

    expected = f"blob {digest} in store memory-1 cannot be read as a transcript segment: {problem}"
    assert str(raised.value).startswith(expected)
    assert "secret" not in str(raised.value)
    assert raised.value.digest == digest


async def forged(blobs: Blobs, previous: str | None, position: int, spine: Sequence[Sequence[str]]) -> str:
    segment = Segment.model_validate(
        {"previous": previous, "position": position, "agent": AGENT, "spine": spine, "messages": [told("forged")]}
    )
    (digest,) = await blobs.put(segment.model_dump_json().encode())
    return digest


async def test_chain_that_does_not_fit_together_is_named() -> None:
    store = MemoryStore()
    zero, one, two, *_ = (chain.head for chain in await chains_of(store, 20))
    blobs = Blobs(store)
    cases = [
        (await forged(blobs, None, 1, ()), "is segment 1 after None; the chain needs segment 0 after None"),
        (await forged(blobs, zero, 2, [[zero]]), f"is segment 2 after {zero}; the chain needs segment 1 after {zero}"),
        (
            await forged(blobs, two, 2, [[zero, one]]),
            f"is segment 2 after {two}; the chain needs segment 2 after {one}",
        ),
        (await forged(blobs, one, 2, [[one]]), None),
        (await forged(blobs, one, 16, [[], [one]]), None),
    ]

    for head, problem in cases:
        with pytest.raises(BlobCorrupted) as raised:
            await cold(store).load(head)
        named = head if problem else one
        assert str(raised.value).startswith(f"blob {named} in store memory-1 {problem or ''}")
        with pytest.raises(BlobCorrupted):
            [entry async for entry in cold(store).segments(head)]


async def test_block_of_the_wrong_level_is_named() -> None:
    store = MemoryStore()
    chains = await chains_of(store, 16)
    block = chains[16].segment.spine[1][0]
    head = await forged(Blobs(store), chains[15].head, 256, [[], [], [block]])

    with pytest.raises(BlobCorrupted, match=f"blob {block} .* is a block of level 1 where level 2 belongs"):
        await cold(store).load(head)


async def test_conversations_used_least_recently_are_forgotten_first() -> None:
    store = MemoryStore()
    log = TranscriptLog(Blobs(store, cache_bytes=0), cache_messages=25)
    first, second, third = [
        (await grown(log, await log.start(AGENT, told(f"start {number}")), 9))[-1].head for number in range(3)
    ]
    store.gets.clear()

    await log.load(second)
    await log.load(third)
    assert store.gets == []

    await log.load(first)
    await log.load(third)
    assert len(store.gets) == 2


async def test_size_bounds_what_stays_loaded_but_for_the_conversation_in_use() -> None:
    store = MemoryStore()
    log = TranscriptLog(Blobs(store, cache_bytes=0), cache_bytes=1_000)
    small = await log.start(AGENT, told("small"))
    large = await log.start(AGENT, told("x" * 2_000))
    store.gets.clear()

    await log.load(large.head)
    assert store.gets == []

    await log.load(small.head)
    assert store.gets == [(small.head,)]


async def test_older_heads_of_a_long_conversation_stay_for_retries() -> None:
    store = MemoryStore()
    log = TranscriptLog(Blobs(store, cache_bytes=0), cache_messages=500)
    chains = await grown(log, await log.start(AGENT, told("start")), 300)
    store.gets.clear()

    for chain in chains[-8:]:
        assert await log.load(chain.head) is chain

    assert store.gets == []
