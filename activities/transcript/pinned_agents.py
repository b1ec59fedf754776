"""Pinned agents by digest: loaded once a process, whatever the agent files say by then."""

from collections import OrderedDict

from mandate.activities.transcript.blobs import Blobs
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.base import Digest

KEPT = 256


class PinnedAgents:
    """The agents of running runs, from the blob store."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._loaded: OrderedDict[Digest, PinnedAgent] = OrderedDict()

    async def get(self, digest: Digest) -> PinnedAgent:
        """Load the agent of a digest; raise `BlobMissing`, `BlobCorrupted` or `StoreUnavailable`."""
        agent = self._loaded.get(digest)
        if agent is None:
            agent = PinnedAgent.model_validate_json(await self._blobs.get(digest))
            self._loaded[digest] = agent
            if len(self._loaded) > KEPT:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(digest)
        return agent
