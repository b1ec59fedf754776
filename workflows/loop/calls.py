"""One call: made, looked up when its outcome is unknown, checked."""

from dataclasses import dataclass

from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.run import EffectEntry
from mandate.workflows.contracts.tool import ToolResult
from mandate.workflows.loop import compensation
from mandate.workflows.loop.control import Control
from mandate.workflows.loop.escalation import Escalations
from mandate.workflows.loop.open_calls import OpenCalls
from mandate.workflows.loop.reconciliation import Reconciliation
from mandate.workflows.loop.run import Run
from mandate.workflows.loop.tool_calls import JudgedCall, ToolCalls
from mandate.workflows.loop.verification import Verification


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """Outcome of a call, its checks included."""

    outcome: Outcome
    answer: ToolResult
    failed: str | None = None
    """Check that failed and why, for a call that was made."""
    is_passing: bool = False
    """It was not done for a reason that may be gone another time."""


class Calls:
    """Calls of one run and how they are made."""

    def __init__(self, run: Run, control: Control, escalations: Escalations, calls: OpenCalls) -> None:
        self._run = run
        self._tool_calls = ToolCalls(run)
        self._reconciliation = Reconciliation(run, control, escalations, self._tool_calls)
        self._verification = Verification(run, control, escalations, calls)

    @property
    def is_busy(self) -> bool:
        """True if a call that changes the world is in flight."""
        return self._tool_calls.is_busy

    @property
    def lost(self) -> tuple[EffectEntry, ...]:
        """Calls that were sent out and whose end is not known."""
        return self._tool_calls.lost

    async def make(self, placed: JudgedCall) -> CallOutcome | None:
        """Make one call; return `None` when the run has to halt before its outcome is known."""
        if placed.index in self._run.state.unclear:
            attempted = await self._reconciliation.clear_up(placed)
        else:
            attempted = await self._tool_calls.first(placed)
            if attempted.outcome is Outcome.UNKNOWN and self._tool_calls.is_cleared_up(placed.tool):
                attempted = await self._reconciliation.clear_up(placed)
        if attempted is None:
            return None
        compensation.kept(self._run, placed, attempted)
        failed = None
        if attempted.outcome is Outcome.DONE and not attempted.answer.error:
            failed = await self._verification.verify_after(placed, attempted)
        return CallOutcome(attempted.outcome, attempted.answer, failed, attempted.is_passing)

    async def failed_final_check(self) -> str | None:
        """Return the check that the final answer does not pass and why; `None` when it passes all."""
        return await self._verification.verify_final()
