"""Agents that files described earlier are remembered by the folder whose files they were."""

import json
import stat
from pathlib import Path

from mandate.activities.transcript.blobs import Blobs
from mandate.activities.transcript.pinned_agents import PinnedAgents
from mandate.workers.catalog.earlier_agents import FILE, KEPT, recall
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.budget import Budget
from tests.support.memory_store import MemoryStore


def agent(name: str) -> PinnedAgent:
    return PinnedAgent(
        name=name, instructions="x", models=("scripted:x",), tools=(), policy=(), attempts=3, budget=Budget(),
        output_schema=None, max_output_tokens=100,
    )  # fmt: skip


async def test_files_of_before_are_known_to_the_next_worker_of_the_folder(tmp_path: Path) -> None:
    blobs = Blobs(MemoryStore())
    agents = PinnedAgents(blobs)
    digests = await blobs.put(*(agent(name).model_dump_json().encode() for name in ("one", "two")))
    here, there = tmp_path / "agents", tmp_path / "others"

    assert await recall(tmp_path, here, digests[:1], agents) == []
    assert await recall(tmp_path, here, digests[1:], agents) == [agent("one")]
    assert await recall(tmp_path, here, digests[1:], agents) == [agent("one")]
    assert await recall(tmp_path, here, digests, agents) == []
    assert await recall(tmp_path, there, [], agents) == []
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600


async def test_what_the_store_does_not_have_is_left_out(tmp_path: Path) -> None:
    agents = PinnedAgents(Blobs(MemoryStore()))
    await recall(tmp_path, tmp_path, ["n" * 43], agents)

    assert await recall(tmp_path, tmp_path, [], agents) == []


async def test_newest_are_kept(tmp_path: Path) -> None:
    agents = PinnedAgents(Blobs(MemoryStore()))
    for number in range(3):
        await recall(tmp_path, tmp_path, [f"{number}{n:03}".rjust(43, "d") for n in range(KEPT // 2)], agents)

    (kept,) = json.loads((tmp_path / FILE).read_text()).values()
    assert len(kept) == KEPT
    assert kept[-1] == f"2{KEPT // 2 - 1:03}".rjust(43, "d")


async def test_file_that_cannot_be_read_is_begun_anew(tmp_path: Path) -> None:
    blobs = Blobs(MemoryStore())
    agents = PinnedAgents(blobs)
    (digest,) = await blobs.put(agent("one").model_dump_json().encode())
    for content in ("{", "[]", '{"x": 1}', '{"x": [1]}', "[" * 100_000, f'{{"{tmp_path}": ["\\ud800"]}}'):
        (tmp_path / FILE).write_text(content)

        assert await recall(tmp_path, tmp_path, [digest], agents) == []
        assert json.loads((tmp_path / FILE).read_text())[str(tmp_path.absolute())] == [digest]
