"""Calls that cuts left out of a conversation: how often each was made, and where its result is.

They are kept in parts of falling size, the way a log-structured store does: a cut writes what it left out, and joins
parts of about one size, so that there are few of them and each entry is written a few times only.
"""

from collections import OrderedDict
from collections.abc import Sequence

from mandate.activities.transcript.blobs import Blobs
from mandate.workflows.contracts.base import Digest
from mandate.workflows.contracts.transcript import EarlierCalls, EarlierPart, StoredResult

PARTS_KEPT = 64


class EarlierCallsReader:
    """Reader and writer of the parts; the last ones used stay loaded."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._loaded: OrderedDict[Digest, EarlierCalls] = OrderedDict()

    async def add(self, parts: Sequence[EarlierPart], calls: EarlierCalls) -> tuple[EarlierPart, ...]:
        """Return `parts` and `calls`, stored. Raise as `Blobs.put` and `Blobs.get_many`."""
        if not calls.effects and not calls.results:
            return tuple(parts)
        kept, entries = list(parts), len(calls.effects) + len(calls.results)
        while kept and kept[-1].entries < 2 * entries:
            calls = _join(await self._load(kept.pop().digest), calls)
            entries = len(calls.effects) + len(calls.results)
        (digest,) = await self._blobs.put(calls.model_dump_json(exclude_defaults=True).encode())
        return (*kept, EarlierPart(digest=digest, entries=entries))

    async def list_effects(self, parts: Sequence[EarlierPart]) -> dict[Digest, int]:
        """Return the number of calls that change the world, by their digest. Raise as `Blobs.get`."""
        found: dict[Digest, int] = {}
        for part in parts:
            for digest, number in (await self._load(part.digest)).effects.items():
                found[digest] = found.get(digest, 0) + number
        return found

    async def find_result(self, parts: Sequence[EarlierPart], name: str) -> StoredResult | None:
        """Return the result that the model knows by `name`. Raise as `Blobs.get`."""
        for part in reversed(parts):
            if (result := (await self._load(part.digest)).results.get(name)) is not None:
                return result
        return None

    async def _load(self, digest: Digest) -> EarlierCalls:
        calls = self._loaded.get(digest)
        if calls is None:
            calls = self._loaded[digest] = EarlierCalls.model_validate_json(await self._blobs.get(digest))
            if len(self._loaded) > PARTS_KEPT:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(digest)
        return calls


def _join(older: EarlierCalls, newer: EarlierCalls) -> EarlierCalls:
    effects = dict(older.effects)
    for digest, number in newer.effects.items():
        effects[digest] = effects.get(digest, 0) + number
    return EarlierCalls(effects=effects, results=older.results | newer.results)
