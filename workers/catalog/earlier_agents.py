"""Agents that a worker's files described earlier: running runs keep them when files change."""

import asyncio
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import structlog

from mandate.activities import private_files
from mandate.activities.transcript.blobs import BlobCorrupted, BlobMissing
from mandate.activities.transcript.pinned_agents import PinnedAgents
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.base import DIGEST_PATTERN, Digest

log = structlog.stdlib.get_logger(__name__)

FILE = "agents.json"
KEPT = 200
"""Agents that are remembered for one folder of agent files, the newest of them."""


async def recall(folder: Path, source: Path, now: Sequence[Digest], agents: PinnedAgents) -> list[PinnedAgent]:
    """Return the agents that the files at `source` described when workers of `folder` began earlier.

    Only digests are kept, in `folder`, which is this machine's own; what they stand for comes from the store, where
    nobody can change it. `now` are the agents of today, which are remembered beside them.

    Raises:
        StoreUnavailable: see there.
    """
    path, key = folder / FILE, os.path.abspath(source)  # noqa: PTH100, ASYNC240 - nothing is looked up
    known = _read(path)
    earlier = [digest for digest in known.get(key, []) if digest not in now]
    kept = [*earlier, *now][-KEPT:]
    if kept != known.get(key):
        _write(path, {**known, key: kept})
    found = await asyncio.gather(*(_find(agents, digest) for digest in earlier))
    return [agent for agent in found if agent is not None]


async def _find(agents: PinnedAgents, digest: Digest) -> PinnedAgent | None:
    try:
        return await agents.get(digest)
    except (BlobMissing, BlobCorrupted, ValueError):
        # It was never pinned by a run, is of another store, or is no agent at all.
        return None


def _read(path: Path) -> dict[str, list[Digest]]:
    try:
        read = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        log.warning("earlier_agents_not_read", path=str(path), reason=str(error))
        return {}
    if not isinstance(read, dict):
        return {}
    listed = {key: value for key, value in read.items() if isinstance(value, list)}
    return {key: [one for one in value if _is_digest(one)] for key, value in listed.items()}


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(DIGEST_PATTERN, value) is not None


def _write(path: Path, known: dict[str, list[Digest]]) -> None:
    try:
        private_files.make_folder(path.parent)
        # Another worker of the folder may begin at the same time.
        private_files.replace(path, json.dumps(known, indent=1).encode())
    except OSError as error:
        log.warning("agents_not_remembered", path=str(path), reason=str(error))
