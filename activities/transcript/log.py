"""The transcript: conversations as content-addressed chains of segments in a blob store."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar
from weakref import WeakValueDictionary

from pydantic import ValidationError

from mandate.activities.transcript import sensitive_arguments
from mandate.activities.transcript.blobs import BlobCorrupted, Blobs
from mandate.activities.transcript.conversation import Conversation
from mandate.activities.transcript.earlier_calls import EarlierCallsReader
from mandate.workflows.contracts.base import Digest, Record, digest_of
from mandate.workflows.contracts.transcript import Block, Cut, Measured, Message, Segment, UserMessage

R = TypeVar("R", bound=Record)

FAN = 16
"""Segments a block, and blocks a block of the level above."""
SEGMENTS_PER_READ = 4096
SEGMENTS_PER_TURN = 128
"""Segments that are parsed at a stretch before other tasks of the event loop have their turn."""
HEADS_KEPT = 8
"""Heads of one conversation that stay loaded: the newest, and those that a retry may still ask for."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A loaded conversation."""

    head: Digest
    segment: Segment
    """The head's; its messages are the very objects at the end of `conversation`, but where it is a cut."""
    conversation: Conversation
    """As requests have it: from the newest cut on."""
    size_bytes: int
    """Encoded bytes of the segments that it is made of."""
    count: int
    """Messages of the whole chain."""
    cut: Cut | None = None
    """The newest."""
    measured: Measured | None = None
    """Of the newest answer since the cut."""

    @property
    def last_measured(self) -> Measured | None:
        """Of the newest answer, also before the cut."""
        return self.measured or (self.cut.measured if self.cut is not None else None)


class TranscriptLog:
    """Conversations by head; the last ones used stay loaded, up to `cache_messages` and `cache_bytes` in all."""

    def __init__(self, blobs: Blobs, cache_messages: int = 200_000, cache_bytes: int = 128 << 20) -> None:
        self.blobs = blobs
        self.earlier_calls = EarlierCallsReader(blobs)
        self._loaded = _LoadedChains(cache_messages, cache_bytes)
        self._loading: WeakValueDictionary[Digest, asyncio.Lock] = WeakValueDictionary()

    async def start(self, agent: Digest, message: UserMessage, *extra: bytes) -> Chain:
        """Start a conversation that begins with `message`; the blobs `extra` are stored in the same write.

        Raises:
            StoreUnavailable: the store did not answer; starting again is safe.
        """
        segment = Segment(previous=None, position=0, agent=agent, messages=(message,))
        return await self._write(segment, None, (), extra)

    async def append(
        self,
        chain: Chain,
        agent: Digest,
        messages: Sequence[Message],
        *extra: bytes,
        cut: Cut | None = None,
        measured: Measured | None = None,
    ) -> Chain:
        """Return `chain` and `messages` after it; `chain` itself stays as it is. Raise as `start`.

        With a `cut` the conversation goes on from what that holds, in place of all before and of `messages`.
        """
        spine, blocks = _build_spine(chain)
        segment = Segment(
            previous=chain.head,
            position=chain.segment.position + 1,
            agent=agent,
            spine=spine,
            messages=tuple(messages),
            cut=cut,
            cut_at=chain.segment.position if chain.segment.cut is not None else chain.segment.cut_at,
            measured=measured,
        )
        if (salt := sensitive_arguments.find_salt(chain.conversation)) is not None:
            segment = segment.model_copy(update={"seal": sensitive_arguments.compute_digest(salt, _encode(segment))})
        return await self._write(segment, chain, blocks, extra)

    async def load(self, head: Digest) -> Chain:
        """Load the conversation at `head`: only what is not loaded yet is read, in a handful of round trips.

        Raises:
            BlobMissing: a segment, named by its digest, is not in the store.
            BlobCorrupted: one was changed, is no segment, or does not follow the one before it.
            StoreUnavailable: the store did not answer.
        """
        async with self._loading.setdefault(head, asyncio.Lock()):
            if (chain := self._loaded.get(head)) is not None:
                return chain
            return await self._load(head)

    async def load_whole(self, head: Digest) -> Conversation:
        """Load all messages up to `head`, also those before cuts; it is not kept. Raise as `load`."""
        return Conversation([message async for _, read in self.segments(head) for message in read.messages])

    async def read_back(self, head: Digest, first: int) -> list[tuple[Digest, Segment]]:
        """Return the segments from position `first` up to `head` with their addresses, oldest first. Raise as `load`.

        Raises:
            ValueError: there is no such position.
        """
        segment, _ = await self._segment(head)
        if not 0 <= first <= segment.position:
            raise ValueError(f"segment {first} is not one of {segment.position + 1}")
        _, addresses = await self._find_loaded(segment, None, segment.position - first)
        return [(digest, read) async for digest, read, _ in self._read_chain((*addresses, head), None)]

    async def read_segments(self, digests: Sequence[Digest]) -> list[Segment]:
        """Return segments by their addresses, in the same order. Raise as `load`."""
        contents = await self.blobs.get_many(digests)
        return [await self._decode(Segment, *pair) for pair in zip(digests, contents, strict=True)]

    async def _load(self, head: Digest) -> Chain:
        segment, size = await self._segment(head)
        if segment.cut is not None:
            begun = _begin(head, segment, segment.cut, size)
            self._loaded.add(begun, None)
            return begun
        reach = segment.position - (segment.cut_at or 0)
        ancestor, addresses = await self._find_loaded(segment, self._loaded, reach)
        chain: Chain | None = ancestor
        link: tuple[Digest | None, int] | None = (None, -1) if segment.cut_at is None else None
        if ancestor is not None:
            link = (ancestor.head, ancestor.segment.position)
        messages: list[Message] = []
        measured: Measured | None = None
        async for digest, read, read_size in self._read_chain(addresses, link):
            link, size = (digest, read.position), size + read_size
            if read.cut is not None:
                chain = _begin(digest, read, read.cut, 0)
                continue
            messages.extend(read.messages)
            measured = read.measured or measured
        if segment.cut_at is not None and (chain is None or chain.cut is None):
            raise await self._broken(head, f"names segment {segment.cut_at} as a cut, which it is not")
        await self._check(head, segment, link or (None, -1))
        chain = _join(
            head, segment, chain, (*messages, *segment.messages), measured=segment.measured or measured, size_bytes=size
        )
        self._loaded.add(chain, ancestor)
        return chain

    async def segments(self, head: Digest) -> AsyncIterator[tuple[Digest, Segment]]:
        """Yield all segments up to `head` with their addresses, oldest first, each checked as by `load`, which see."""
        segment, _ = await self._segment(head)
        _, addresses = await self._find_loaded(segment, None, segment.position)
        async for digest, read, _ in self._read_chain((*addresses, head), (None, -1)):
            yield digest, read

    async def _write(
        self, segment: Segment, before: Chain | None, blocks: Sequence[bytes], extra: Sequence[bytes]
    ) -> Chain:
        content = _encode(segment)
        head = (await self.blobs.put(content, *blocks, *extra))[0]
        chain = self._loaded.get(head)
        if chain is None:
            if segment.cut is not None:
                chain = _begin(head, segment, segment.cut, len(content))
            else:
                chain = _join(
                    head, segment, before, segment.messages, measured=segment.measured, size_bytes=len(content)
                )
            self._loaded.add(chain, before)
        return chain

    async def _find_loaded(
        self, segment: Segment, loaded: "_LoadedChains | None", reach: int
    ) -> tuple[Chain | None, Sequence[Digest]]:
        """Return the nearest loaded ancestor, if any, and the addresses after it up to `segment`, oldest first.

        Only the last `reach` predecessors are looked at.
        """
        if loaded is not None and segment.previous is not None and (chain := loaded.get(segment.previous)) is not None:
            return chain, ()
        levels = reversed(tuple(enumerate(segment.spine)))
        known = [(level, digest) for level, digests in levels for digest in digests]
        while True:
            known = _keep_last(known, reach)
            for index in range(len(known) - 1, -1, -1):
                level, digest = known[index]
                if level > 0:
                    break
                if loaded is not None and (chain := loaded.get(digest)) is not None:
                    return chain, [digest for _, digest in known[index + 1 :]]
            if not known or known[0][0] == 0:
                return None, [digest for _, digest in known]
            known = await self._open_blocks(known)

    async def _open_blocks(self, known: Sequence[tuple[int, Digest]]) -> list[tuple[int, Digest]]:
        """Replace each block of `known` by its children."""
        blocks = [digest for level, digest in known if level > 0]
        contents = dict(zip(blocks, await self.blobs.get_many(blocks), strict=True))
        opened: list[tuple[int, Digest]] = []
        for level, digest in known:
            if level == 0:
                opened.append((level, digest))
                continue
            block = await self._decode(Block, digest, contents[digest])
            if block.level != level:
                raise await self._broken(digest, f"is a block of level {block.level} where level {level} belongs")
            opened.extend((level - 1, child) for child in block.children)
        return opened

    async def _read_chain(
        self, addresses: Sequence[Digest], link: tuple[Digest | None, int] | None
    ) -> AsyncIterator[tuple[Digest, Segment, int]]:
        """Read the segments at `addresses` with their sizes; the first must follow `link`: an address, a position.

        Without a `link` the first is where reading begins.
        """
        for start in range(0, len(addresses), SEGMENTS_PER_READ):
            part = addresses[start : start + SEGMENTS_PER_READ]
            for number, (digest, content) in enumerate(zip(part, await self.blobs.get_many(part), strict=True), 1):
                if number % SEGMENTS_PER_TURN == 0:
                    await asyncio.sleep(0)
                segment = await self._decode(Segment, digest, content)
                if link is not None:
                    await self._check(digest, segment, link)
                link = (digest, segment.position)
                yield digest, segment, len(content)

    async def _segment(self, digest: Digest) -> tuple[Segment, int]:
        content = await self.blobs.get(digest)
        return await self._decode(Segment, digest, content), len(content)

    async def _check(self, digest: Digest, segment: Segment, link: tuple[Digest | None, int]) -> None:
        previous, position = link
        if segment.previous != previous or segment.position != position + 1:
            found = f"is segment {segment.position} after {segment.previous}"
            raise await self._broken(digest, f"{found}; the chain needs segment {position + 1} after {previous}")

    async def _decode(self, kind: type[R], digest: Digest, content: bytes) -> R:
        try:
            return kind.model_validate_json(content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            where = ".".join(str(key) for key in first["loc"])
            noun = kind.__name__.lower()
            problem = f"cannot be read as a transcript {noun}: {f'{where}: ' if where else ''}{first['msg']}"
            raise await self._broken(digest, problem) from None

    async def _broken(self, digest: Digest, problem: str) -> BlobCorrupted:
        return BlobCorrupted(digest, await self.blobs.identity(), problem)


def _encode(record: Record) -> bytes:
    return record.model_dump_json(exclude_defaults=True).encode()


def _begin(head: Digest, segment: Segment, cut: Cut, size_bytes: int) -> Chain:
    """Return the chain whose conversation begins with a cut."""
    return Chain(head, segment, Conversation(cut.messages), size_bytes, cut.count, cut)


def _join(
    head: Digest,
    segment: Segment,
    before: Chain | None,
    messages: Sequence[Message],
    *,
    measured: Measured | None,
    size_bytes: int,
) -> Chain:
    if before is None:
        return Chain(head, segment, Conversation(messages), size_bytes, len(messages), measured=measured)
    return Chain(
        head,
        segment,
        before.conversation.extend(*messages),
        before.size_bytes + size_bytes,
        before.count + len(messages),
        before.cut,
        measured or before.measured,
    )


def _keep_last(known: Sequence[tuple[int, Digest]], reach: int) -> list[tuple[int, Digest]]:
    """Return the last of `known`, segments and blocks, that together reach so many segments back."""
    kept: list[tuple[int, Digest]] = []
    for level, digest in reversed(known):
        if reach <= 0:
            break
        kept.append((level, digest))
        reach -= FAN**level
    return kept[::-1]


def _build_spine(chain: Chain) -> tuple[tuple[tuple[Digest, ...], ...], Sequence[bytes]]:
    """Return the spine of the segment after `chain`, and the blocks that are full with it; see `Segment`."""
    levels = list(chain.segment.spine)
    blocks: list[bytes] = []
    carried, level = chain.head, 0
    while True:
        held = (*levels[level], carried) if level < len(levels) else (carried,)
        levels[level : level + 1] = [held if len(held) < FAN else ()]
        if len(held) < FAN:
            return tuple(levels), blocks
        level += 1
        blocks.append(_encode(Block(level=level, children=held)))
        carried = digest_of(blocks[-1])


@dataclass(slots=True, eq=False)
class _Family:
    """Chains that share one list of messages."""

    chains: OrderedDict[Digest, Chain] = field(default_factory=OrderedDict)
    messages: int = 0
    size_bytes: int = 0


class _LoadedChains:
    """The chains used last; those that share their messages come and go together and count once."""

    def __init__(self, messages: int, size_bytes: int) -> None:
        self._most_messages = messages
        self._most_bytes = size_bytes
        self._messages = 0
        self._size_bytes = 0
        self._families: OrderedDict[int, _Family] = OrderedDict()
        self._family_of: dict[Digest, _Family] = {}

    def get(self, head: Digest) -> Chain | None:
        family = self._family_of.get(head)
        if family is None:
            return None
        self._families.move_to_end(id(family))
        return family.chains[head]

    def add(self, chain: Chain, grown_from: Chain | None) -> None:
        """Keep `chain`; the conversation used last stays even if it is over the limits by itself."""
        if chain.head in self._family_of:
            return
        family = _Family()
        if grown_from is not None and grown_from.conversation.shares_with(chain.conversation):
            family = self._family_of.get(grown_from.head, family)
        self._families[id(family)] = family
        self._families.move_to_end(id(family))
        self._family_of[chain.head] = family
        family.chains[chain.head] = chain
        self._grow(family, len(chain.conversation), chain.size_bytes)
        if len(family.chains) > HEADS_KEPT:
            del self._family_of[family.chains.popitem(last=False)[0]]
        while len(self._families) > 1 and (self._messages > self._most_messages or self._size_bytes > self._most_bytes):
            self._drop_oldest()

    def _grow(self, family: _Family, messages: int, size_bytes: int) -> None:
        messages, size_bytes = max(messages, family.messages), max(size_bytes, family.size_bytes)
        self._messages += messages - family.messages
        self._size_bytes += size_bytes - family.size_bytes
        family.messages, family.size_bytes = messages, size_bytes

    def _drop_oldest(self) -> None:
        _, family = self._families.popitem(last=False)
        self._messages -= family.messages
        self._size_bytes -= family.size_bytes
        for head in family.chains:
            del self._family_of[head]
