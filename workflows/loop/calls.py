"""One call: made, looked up when its outcome is unknown, checked."""

from dataclasses import dataclass

from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.run import EffectEntry
from mandate.workflows.contracts.tool import ToolResult
from mandate.workflows.loop import compensation
from mandate.workflows.loop.control import Control
from mandate.workflows.loop.escalation import Rescuer
from mandate.workflows.loop.open_calls import OpenCalls
from mandate.workflows.loop.reconciliation import Doubts
from mandate.workflows.loop.run import Current
from mandate.workflows.loop.tool_calls import Attempts, Placed
from mandate.workflows.loop.verification import Checks


@dataclass(frozen=True, slots=True)
class Made:
    """What became of a call, its checks included."""

    outcome: Outcome
    answer: ToolResult
    failed: str | None = None
    """Which check failed and why, for a call that was made."""
    is_passing: bool = False
    """It was not done for a reason that may be gone another time."""


class Calls:
    """Makes the calls of one run."""

    def __init__(self, current: Current, control: Control, rescuer: Rescuer, calls: OpenCalls) -> None:
        self._current = current
        self._attempts = Attempts(current)
        self._doubts = Doubts(current, control, rescuer, self._attempts)
        self._checks = Checks(current, control, rescuer, calls)

    @property
    def is_busy(self) -> bool:
        """Whether a call that changes the world is in flight."""
        return self._attempts.is_busy

    @property
    def lost(self) -> tuple[EffectEntry, ...]:
        """Calls that were sent out and whose end is not known."""
        return self._attempts.lost

    async def make(self, placed: Placed) -> Made | None:
        """`None` when the run has to halt before it is known what became of the call."""
        if placed.index in self._current.now.unclear:
            attempted = await self._doubts.cleared_up(placed)
        else:
            attempted = await self._attempts.first(placed)
            if attempted.outcome is Outcome.UNKNOWN and self._attempts.is_cleared_up(placed.tool):
                attempted = await self._doubts.cleared_up(placed)
        if attempted is None:
            return None
        compensation.kept(self._current, placed, attempted)
        failed = None
        if attempted.outcome is Outcome.DONE and not attempted.answer.error:
            failed = await self._checks.failed_after(placed, attempted)
        return Made(attempted.outcome, attempted.answer, failed, attempted.is_passing)

    async def failed_final_check(self) -> str | None:
        """Which check the final answer does not pass and why; `None` when it passes all."""
        return await self._checks.failed_final()
