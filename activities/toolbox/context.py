"""Context of a Python tool's call, and the error by which a tool says that nothing was done."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field


class NotDone(Exception):
    """The error by which a tool says definitely: the call was not carried out and changed nothing.

    Any other exception leaves open what happened. The message is told to the model. `retry_after` are seconds after
    which another attempt is worth it; without it there is none.
    """

    def __init__(self, reason: str, *, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after


def _no_heartbeat(*_details: object) -> None:
    """Do nothing: outside Temporal nobody listens."""


@dataclass(frozen=True, slots=True)
class ToolContext:
    """The call that a tool is serving: give the tool a parameter of this type, it is no argument for the model."""

    workflow_id: str
    run_id: str
    step: int
    idempotency_key: str
    """Names one intended action: equal in every attempt of it, different for two intended identical calls."""
    attempt: int
    """1 for the first."""
    _send_heartbeat: Callable[..., None] = field(default=_no_heartbeat, repr=False, compare=False)
    _cancellation: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)
    _task: "asyncio.Task[object] | None" = field(default=None, repr=False, compare=False)

    @classmethod
    def for_tests(
        cls,
        *,
        workflow_id: str = "workflow",
        run_id: str = "run",
        step: int = 1,
        idempotency_key: str = "key",
        attempt: int = 1,
        cancelled: bool = False,
        on_heartbeat: Callable[..., None] = _no_heartbeat,
    ) -> "ToolContext":
        """Return a context to call a tool directly in a unit test; it needs neither Temporal nor an event loop."""
        context = cls(workflow_id, run_id, step, idempotency_key, attempt, on_heartbeat)
        if cancelled:
            context._cancellation.set()
        return context

    def heartbeat(self, *details: object) -> None:
        """Tell Temporal that the call is alive, from a coroutine or a thread; `details` are shown to operators."""
        self._send_heartbeat(*details)

    @property
    def cancelled(self) -> bool:
        """True once the call's run is cancelled or its time is up: the tool's result is no longer read."""
        return self._cancellation.is_set() or (self._task is not None and self._task.cancelling() > 0)

    def wait(self, seconds: float) -> bool:
        """Block a sync tool's thread until it is cancelled, at most `seconds`; whether it was."""
        return self._cancellation.wait(seconds)

    def raise_if_cancelled(self) -> None:
        """Leave a sync tool that was cancelled.

        Raises:
            asyncio.CancelledError: what cancels an async tool; `except Exception` does not catch it.
        """
        if self.cancelled:
            raise asyncio.CancelledError
