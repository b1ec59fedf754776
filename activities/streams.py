"""Texts of models as they come, written for whoever reads along with a run.

Nothing of it goes through Temporal, and nobody pays for it who is not read: a reader says so in the store, and workers
look there twice a second while they ask models.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from temporalio import activity

from mandate.activities.stores.base import StoreUnavailable, name_run
from mandate.activities.stores.streams import StreamKind, StreamPiece
from mandate.activities.transcript.blobs import Blobs
from mandate.activities.transcript.log import TranscriptLog

LOOK_SECONDS = 0.5
"""Time for which it is known who reads along."""

FLUSH_SECONDS = 0.1
"""Text that comes within this is one piece."""

LONGEST_PIECE = 16 * 1024
"""Characters of one piece."""


class Streams:
    """The logs of all runs of a worker."""

    def __init__(self, transcript: TranscriptLog) -> None:
        self._transcript = transcript
        self._followed = frozenset[str]()
        self._looked_at = float("-inf")

    @asynccontextmanager
    async def open(self, step: int) -> AsyncIterator["StreamWriter | None"]:
        """Give a writer for one answer where somebody reads along with the run; what cannot be written is left out."""
        info = activity.info()
        run = name_run(info.namespace, info.workflow_id or "")
        if not await self._is_followed(run):
            yield None
            return
        writer = StreamWriter(self._transcript.blobs, run, info.workflow_run_id or "", step, info.attempt)
        writing = asyncio.create_task(writer.write())
        try:
            yield writer
        finally:
            writer.end()
            with suppress(StoreUnavailable):
                await writing

    async def _is_followed(self, run: str) -> bool:
        if time.monotonic() - self._looked_at > LOOK_SECONDS:
            # Before the look: those who ask meanwhile need not look too.
            self._looked_at = time.monotonic()
            with suppress(StoreUnavailable):
                self._followed = await self._transcript.blobs.store.list_followed()
        return run in self._followed


class StreamWriter:
    """Writer of one answer of one attempt."""

    def __init__(self, blobs: Blobs, run: str, run_id: str, step: int, attempt: int) -> None:
        self._blobs = blobs
        self._run = run
        self._place = (run_id, step, attempt)
        self._texts: list[str] = []
        self._is_ended = False
        self._news = asyncio.Event()
        self.has_text = False

    def tell(self, text: str) -> None:
        """Take the next piece of the text."""
        if text:
            self.has_text = True
            self._texts.append(text)
            self._news.set()

    def end(self) -> None:
        """Note that nothing more comes of this attempt."""
        self._is_ended = True
        self._news.set()

    async def write(self) -> None:
        """Write what comes until the end; nothing of an answer without text, as one that only calls tools.

        Raises:
            StoreUnavailable: the rest is not written.
        """
        is_begun = False
        while True:
            await self._news.wait()
            if not self._is_ended:
                await asyncio.sleep(FLUSH_SECONDS)
            self._news.clear()
            text, is_ended = "".join(self._texts), self._is_ended
            self._texts.clear()
            if text and not is_begun:
                is_begun = True
                await self._append("begin")
            for start in range(0, len(text), LONGEST_PIECE):
                await self._append("text", text[start : start + LONGEST_PIECE])
            if is_ended and not self._texts:
                if is_begun:
                    await self._append("end")
                return

    async def _append(self, kind: StreamKind, text: str = "") -> None:
        run_id, step, attempt = self._place
        piece = StreamPiece(run_id, step, attempt, kind, text.encode(errors="replace"))
        await self._blobs.append_stream(self._run, (piece,))
