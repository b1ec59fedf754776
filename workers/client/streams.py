"""Texts of models as they come, read along with a run: from the store of the workers, not from Temporal."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Literal

from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError

from mandate.activities.stores.base import name_run
from mandate.activities.stores.streams import StreamPiece
from mandate.activities.transcript.blobs import Blobs
from mandate.workflows.contracts.base import JsonObject

POLL_SECONDS = 0.1

FOLLOWED_FOR = timedelta(seconds=15)
"""Time for which workers write after a reader was last heard of."""

RENEW_SECONDS = 5.0
"""A reader is heard of so often, and looks if the run goes on."""


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """A piece of an answer, or its begin or end."""

    offset: int
    """Larger for later events of a run: reading goes on after it."""
    kind: Literal["begin", "text", "restart", "end"]
    """`restart` begins an answer anew: what was told of its step counts for nothing."""
    run_id: str
    step: int
    attempt: int
    text: str = ""

    def to_json(self) -> JsonObject:
        return {name: value for name, value in asdict(self).items() if name != "text" or self.kind == "text"}


class StreamReader:
    """Reader of one run, which workers write for from now on."""

    def __init__(self, client: Client, blobs: Blobs, workflow_id: str, after: int = 0) -> None:
        """Take where to go on: the offset of the last event that was read, 0 for all that is kept."""
        self._client = client
        self._blobs = blobs
        self._workflow_id = workflow_id
        self._run = name_run(client.namespace, workflow_id)
        self._after = after
        self._begun: tuple[str, int] | None = None

    async def open(self) -> None:
        """Let workers know that somebody reads along: answers that begin half a second later are written.

        Raises:
            StoreUnavailable: the store cannot be reached from here.
        """
        await self._blobs.store.follow_stream(self._run, FOLLOWED_FOR)

    async def events(self) -> AsyncIterator[StreamEvent]:
        """Yield events until the run has ended, each once; raise as `open`."""
        loop = asyncio.get_running_loop()
        renew_at, is_over = loop.time(), False
        while True:
            if loop.time() >= renew_at:
                await self.open()
                # What was written before the end is still read.
                is_over = await self._is_over()
                renew_at = loop.time() + RENEW_SECONDS
            pieces = await self._blobs.read_stream(self._run, self._after)
            for piece in pieces:
                self._after = piece.offset
                yield self._read(piece)
            if is_over and not pieces:
                return
            if not pieces:
                await asyncio.sleep(POLL_SECONDS)

    def _read(self, piece: StreamPiece) -> StreamEvent:
        kind: Literal["begin", "text", "restart", "end"] = piece.kind
        answer = (piece.run_id, piece.step)
        if piece.kind == "begin":
            kind = "restart" if self._begun == answer else "begin"
            self._begun = answer
        text = piece.content.decode(errors="replace")
        return StreamEvent(piece.offset, kind, piece.run_id, piece.step, piece.attempt, text)

    async def _is_over(self) -> bool:
        try:
            described = await self._client.get_workflow_handle(self._workflow_id).describe()
        except RPCError:
            # Not begun yet, or nobody answers: whoever reads decides how long.
            return False
        return described.status is not WorkflowExecutionStatus.RUNNING
