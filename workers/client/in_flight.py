"""The places that a client has for messages to one run, and the waits between its attempts.

A server takes ten updates of one run at a time, whoever sends them, and does more than refuse an eleventh: it throws
away what it holds of the run, the other updates and the work of the task in a worker's hand included. So a client has
two in flight, one after it was told that there were too many, and waits longer each time.
"""

import asyncio
import random
import time
from collections import deque
from weakref import WeakKeyDictionary

from temporalio.client import Client

PER_RUN = 2
"""Messages of one client in flight to one run, so that five clients stay below what a server takes."""

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 4.0


class Pauses:
    """Waits that grow, and are not the same for all who wait."""

    def __init__(self) -> None:
        self._seconds = FIRST_PAUSE_SECONDS

    def next_seconds(self) -> float:
        pause = self._seconds * random.uniform(0.5, 1.5)  # noqa: S311 - nothing is secret here
        self._seconds = min(self._seconds * 2, LONGEST_PAUSE_SECONDS)
        return pause

    async def wait(self) -> None:
        await asyncio.sleep(self.next_seconds())


class Window:
    """The places of one client for messages to one run: fewer, and later, once the server has had too many."""

    def __init__(self) -> None:
        self._size, self._taken = float(PER_RUN), 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._pauses, self._rests_until, self._cut_at = Pauses(), 0.0, 0.0

    @property
    def places(self) -> int:
        return max(1, int(self._size))

    @property
    def is_idle(self) -> bool:
        """True if nothing is lost with it."""
        return not self._taken and not self._waiting and self._size == PER_RUN

    async def enter(self, *, is_urgent: bool = False) -> float:
        """Enter with a place and return the time, for `leave`."""
        while self._taken >= self.places:
            turn = asyncio.get_running_loop().create_future()
            if is_urgent:
                self._waiting.appendleft(turn)
            else:
                self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                self._give_up(turn)
                raise
        self._taken += 1
        try:
            # It may grow meanwhile: what is under way may be refused, too.
            while (rest := self._rests_until - time.monotonic()) > 0:  # noqa: ASYNC110 - nothing but time ends it
                await asyncio.sleep(rest)
        except asyncio.CancelledError:
            self.leave(None)
            raise
        return time.monotonic()

    def leave(self, entered: float | None, *, is_crowded: bool = False, is_answered: bool = False) -> None:
        """Give the place back, with what became of what was sent."""
        self._taken -= 1
        if is_crowded and entered is not None and entered >= self._cut_at:
            # Those that were sent together are refused together, which is once.
            self._cut_at = time.monotonic()
            self._size = max(1.0, self._size / 2)
            self._rests_until = self._cut_at + self._pauses.next_seconds()
        elif is_answered:
            self._size = min(float(PER_RUN), self._size + 0.25)
            self._pauses = Pauses()
        self._wake()

    def _wake(self) -> None:
        for turn in tuple(self._waiting)[: max(0, self.places - self._taken)]:
            self._waiting.remove(turn)
            if not turn.done():
                turn.set_result(None)

    def _give_up(self, turn: "asyncio.Future[None]") -> None:
        if turn in self._waiting:
            self._waiting.remove(turn)
        else:
            # It was its turn just now.
            self._wake()


_WINDOWS: WeakKeyDictionary[Client, dict[str, Window]] = WeakKeyDictionary()


def window_of(client: Client, workflow_id: str) -> Window:
    """Return the window that all messages of `client` to a run share."""
    windows = _WINDOWS.setdefault(client, {})
    for known in [name for name, window in windows.items() if window.is_idle and name != workflow_id]:
        del windows[known]
    return windows.setdefault(workflow_id, Window())
