"""How long an event loop stands still."""

import asyncio
import time
from typing import Self

PAUSE = 0.01


class Standstill:
    """The longest time in which a loop did nothing of what else is due, while the block goes on.

    A busy machine may stop the whole process; what the process itself did in that time is `processor_seconds`.
    """

    seconds = 0.0
    processor_seconds = 0.0

    async def __aenter__(self) -> Self:
        self._begin()
        self._ticking = asyncio.create_task(self._tick())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._end()
        self._ticking.cancel()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(PAUSE)
            self._end()
            self._begin()

    def _begin(self) -> None:
        self._begun, self._worked = time.monotonic(), time.process_time()

    def _end(self) -> None:
        self.seconds = max(self.seconds, time.monotonic() - self._begun - PAUSE)
        self.processor_seconds = max(self.processor_seconds, time.process_time() - self._worked)
