"""Chains that are cut: what is loaded, what is found again, and what it costs."""

import pytest

from mandate.activities.transcript.blobs import BlobCorrupted, Blobs
from mandate.activities.transcript.earlier_calls import EarlierCallsReader
from mandate.activities.transcript.log import Chain, TranscriptLog
from mandate.workflows.contracts.base import digest_of
from mandate.workflows.contracts.transcript import (
    Cut,
    EarlierCalls,
    EarlierPart,
    Measured,
    Segment,
    StoredResult,
    TextPart,
    UserMessage,
)
from tests.support.memory_store import MemoryStore

AGENT = "a" * 43


def told(text: str) -> UserMessage:
    return UserMessage(role="user", parts=(TextPart(kind="text", text=text),))


def texts(chain: Chain) -> list[str]:
    return [part.text for message in chain.conversation for part in message.parts if isinstance(part, TextPart)]


async def grow(log: TranscriptLog, chain: Chain, count: int) -> Chain:
    for _ in range(count):
        chain = await log.append(chain, AGENT, (told(f"message {chain.count}"),))
    return chain


async def cut(log: TranscriptLog, chain: Chain, *kept: str) -> Chain:
    number = 1 if chain.cut is None else chain.cut.number + 1
    made = Cut(messages=(told("goal"), *map(told, kept)), number=number, count=chain.count + 1, kept_from=0)
    return await log.append(chain, AGENT, (told(f"message {chain.count}"),), cut=made)


@pytest.mark.parametrize("before", [1, 15, 16, 17, 40, 300])
@pytest.mark.parametrize("after", [0, 1, 15, 16, 17, 33])
async def test_a_cold_worker_has_the_same_conversation_and_reads_from_the_cut_on(before: int, after: int) -> None:
    store = MemoryStore()
    warm = TranscriptLog(Blobs(store))
    chain = await grow(warm, await warm.start(AGENT, told("goal")), before)
    chain = await cut(warm, chain, "note", "kept")
    chain = await grow(warm, chain, after)
    store.gets.clear()

    cold = await TranscriptLog(Blobs(store)).load(chain.head)

    assert texts(cold) == texts(chain) == ["goal", "note", "kept", *(f"message {before + 2 + n}" for n in range(after))]
    assert (cold.count, cold.cut, cold.size_bytes) == (chain.count, chain.cut, chain.size_bytes)
    # Besides the segments themselves, the blocks that name them.
    assert sum(map(len, store.gets)) <= after + 1 + 6


async def test_the_newest_of_many_cuts_counts() -> None:
    store = MemoryStore()
    log = TranscriptLog(Blobs(store))
    chain = await log.start(AGENT, told("goal"))
    for number in range(5):
        chain = await grow(log, await cut(log, chain, f"kept {number}"), 20)

    cold = await TranscriptLog(Blobs(store)).load(chain.head)

    assert cold.cut is not None
    assert (cold.cut.number, texts(cold)[:2], len(texts(cold))) == (5, ["goal", "kept 4"], 22)


async def test_all_messages_are_still_there() -> None:
    log = TranscriptLog(Blobs(MemoryStore()))
    chain = await grow(log, await cut(log, await grow(log, await log.start(AGENT, told("goal")), 20), "kept"), 5)

    whole = await log.load_whole(chain.head)

    assert [message.parts[0].text for message in whole] == ["goal", *(f"message {n}" for n in range(1, 27))]  # type: ignore[union-attr] # texts
    assert chain.count == len(whole)


async def test_reading_back_begins_at_a_position() -> None:
    log = TranscriptLog(Blobs(MemoryStore()))
    chain = await grow(log, await log.start(AGENT, told("goal")), 40)

    read = await log.read_back(chain.head, 23)

    assert [segment.position for _, segment in read] == list(range(23, 41))
    assert read[-1][0] == chain.head
    with pytest.raises(ValueError, match="segment 41 is not one of 41"):
        await log.read_back(chain.head, 41)


async def test_a_size_that_an_answer_reports_is_found_until_the_next_cut() -> None:
    store = MemoryStore()
    log = TranscriptLog(Blobs(store))
    measured = Measured(model="openai:m", input_tokens=90, output_tokens=9, messages=1)
    chain = await log.append(await log.start(AGENT, told("goal")), AGENT, (told("a"),), measured=measured)
    longer = await grow(log, chain, 3)

    cold = TranscriptLog(Blobs(store))

    assert (await cold.load(longer.head)).measured == longer.measured == measured
    assert (await cut(log, longer, "kept")).measured is None
    assert longer.last_measured == measured


async def test_a_segment_that_names_a_cut_which_is_none_is_broken() -> None:
    store = MemoryStore()
    log = TranscriptLog(Blobs(store))
    chain = await grow(log, await log.start(AGENT, told("goal")), 3)
    forged = Segment.model_validate(chain.segment.model_dump() | {"cut_at": 1})
    (head,) = await Blobs(store).put(forged.model_dump_json(exclude_defaults=True).encode())

    with pytest.raises(BlobCorrupted, match="names segment 1 as a cut, which it is not"):
        await TranscriptLog(Blobs(store)).load(head)


def stored(name: str) -> StoredResult:
    return StoredResult(digest=digest_of(name.encode()), size=len(name))


async def test_earlier_calls_are_counted_and_results_found_in_few_parts() -> None:
    store = MemoryStore()
    earlier = EarlierCallsReader(Blobs(store))
    parts: tuple[EarlierPart, ...] = ()
    for number in range(300):
        calls = EarlierCalls(
            effects={digest_of(b"same"): 1, digest_of(str(number).encode()): 2},
            results={f"r{number}": stored(f"{number}")},
        )
        parts = await earlier.add(parts, calls)

    cold = EarlierCallsReader(Blobs(store))

    assert len(parts) <= 9
    effects = await cold.list_effects(parts)
    assert (effects[digest_of(b"same")], effects[digest_of(b"7")], len(effects)) == (300, 2, 301)
    assert await cold.find_result(parts, "r3") == stored("3")
    assert await cold.find_result(parts, "r300") is None


async def test_nothing_left_out_adds_no_part() -> None:
    assert await EarlierCallsReader(Blobs(MemoryStore())).add((), EarlierCalls()) == ()
