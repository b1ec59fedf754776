"""`--kill`: the worker dies at the worst moment, and another one goes on."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mandate.workers.demo.books import read_books
from mandate.workers.history.events import Call
from mandate.workers.worker_process import WorkerProcess

TOOL = "issue_refund"
SLOW_BANK = {"MANDATE_DEMO_BANK_SECONDS": "15"}
"""Environment of the worker that is going to die: it pays, and then waits for the bank to confirm."""

POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Killing:
    """A worker that was killed after it had paid and before it could say so."""

    killed_pid: int
    at: datetime
    new_pid: int
    refunds_then: int
    """Rows in the shop's table of refunds at that moment."""

    def wait_seconds(self, call: Call) -> float | None:
        """From the kill until the call was taken up again."""
        return (call.begun_at - self.at).total_seconds() if call.begun_at is not None else None


class Crew:
    """The worker of the demo, or the one that came after it."""

    def __init__(self, start: Callable[[dict[str, str]], WorkerProcess], *, doomed: bool) -> None:
        self._start = start
        self.worker = start(SLOW_BANK if doomed else {})

    async def ended(self) -> int:
        """Waits for a worker that ends by itself; its exit code."""
        while True:
            worker = self.worker
            code = await worker.ended()
            if worker is self.worker:
                return code

    async def kill_when_paid(self, shop: Path) -> Killing:
        """Kill the worker as soon as the shop's books have a refund, and start another."""
        while not (paid := len(read_books(shop).refunds)):  # noqa: ASYNC110 another process writes the books
            await asyncio.sleep(POLL_SECONDS)
        doomed = self.worker
        at = datetime.now(UTC)
        doomed.process.kill()
        self.worker = self._start({})
        doomed.process.wait()
        return Killing(doomed.pid, at, self.worker.pid, paid)
