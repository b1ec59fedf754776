"""The board of a tree of runs, as people read it."""

from dataclasses import dataclass

from temporalio.client import Client

from mandate.activities.board import Boards
from mandate.workers.client.trees import find_root
from mandate.workers.run_store import stored
from mandate.workflows.contracts.board import Board


@dataclass(frozen=True, slots=True)
class BoardFound:
    """A board, and the run at the root of its tree."""

    workflow_id: str
    run_id: str
    """First of its chain."""
    board: Board

    def to_json(self) -> dict[str, object]:
        entries = {name: entry.model_dump(mode="json") for name, entry in self.board.entries.items()}
        return {"root": self.workflow_id, "run_id": self.run_id, "board": entries}


async def read_board(client: Client, store: str, workflow_id: str, run_id: str | None = None) -> BoardFound:
    """Return the board of the tree that a run belongs to, from the store at `store`.

    Raises:
        Unknown: there is no such run.
        StoreUnusable, BlobCorrupted, StoreUnavailable: see there.
    """
    root, first = await find_root(client, workflow_id, run_id)
    async with stored(store, None) as blobs:
        return BoardFound(root, first, await Boards(blobs).read(root, first, client.namespace))
