"""What a stopped run has done is taken back, the last call first, by calls that are judged like any other."""

from workflows import steps
from workflows.attempts import Placed
from workflows.contracts.compensation import Compensable, CompensationRequest
from workflows.contracts.failures import Outcome
from workflows.contracts.model import ModelReply
from workflows.contracts.tool import ToolResult
from workflows.control import Control
from workflows.current import Current
from workflows.steps import Attempted

KEPT = 50
"""Calls that a run can take back: the last of them."""


def kept(current: Current, placed: Placed, attempted: Attempted) -> None:
    """Remember a call that was done, if its tool has a compensation."""
    its = current.now
    if attempted.outcome is not Outcome.DONE or not attempted.key or placed.call.undoes is not None:
        return
    if placed.tool.name not in its.agent.compensable:
        return
    done = Compensable(
        key=attempted.key,
        tool=placed.tool.name,
        line=placed.line,
        head=its.head,
        index=placed.index,
        edited=placed.edit.call.blob if placed.edit is not None else None,
        result=attempted.answer.model_copy(update={"preview": "", "note": None}),
    )
    current.update(compensable=(*its.compensable, done)[-KEPT:])


class Undoing:
    """The last turn of a stopped run."""

    def __init__(self, current: Current, control: Control) -> None:
        self._current = current
        self._control = control

    @property
    def is_wanted(self) -> bool:
        """Whether there is something to take back; nothing while it is unknown what was done."""
        its = self._current.now
        return bool(its.compensable) and its.control.undo is None and not its.uncertain and not its.unclear

    async def begin(self) -> ModelReply:
        """The turn that takes it back; the open one ends without what it has not done."""
        its = self._current.now
        self._control.begin_undoing()
        self._current.show("taking back what was done")
        unmade = ToolResult(text="not made: the run is being stopped", error=True)
        answers = (answer or unmade for answer in its.answers)
        return await steps.plan_compensation(
            CompensationRequest(
                agent=its.agent.digest,
                head=its.head,
                results=tuple(answer.model_copy(update={"preview": ""}) for answer in answers),
                calls=tuple(reversed(its.compensable)),
                step=its.step + 1,
            )
        )

    @property
    def outcome(self) -> str:
        """How much was taken back, in words."""
        its = self._current.now
        undone = {entry.undoes for entry in its.effects.last if entry.undoes is not None}
        count = sum(done.key in undone for done in its.compensable)
        return f"{count} of {len(its.compensable)} calls that can be taken back were"
