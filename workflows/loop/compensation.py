"""Compensation of a stopped run, the last call first, by calls that are judged like any other."""

from mandate.workflows import steps
from mandate.workflows.contracts.compensation import Compensable, CompensationRequest
from mandate.workflows.contracts.failures import Outcome
from mandate.workflows.contracts.model import ModelReply
from mandate.workflows.contracts.state import RecoveryState
from mandate.workflows.contracts.tool import ToolResult
from mandate.workflows.loop.control import Control
from mandate.workflows.loop.run import Run
from mandate.workflows.loop.tool_calls import JudgedCall
from mandate.workflows.outcomes import Attempted
from mandate.workflows.rules import quantities, wording

RESULT_CHARACTERS = 2000
"""Longest result of a remote activity, which is in no store, that its compensation can use."""

NOTHING = "nothing is taken back while it is unknown what was done"

LEFT_SHOWN = 4
KEPT = 50
"""Calls that a run can take back: the last of them."""


def keep(run: Run, placed: JudgedCall, attempted: Attempted) -> None:
    """Remember a call that was done, if its tool has a compensation."""
    its = run.state
    if attempted.outcome is not Outcome.DONE or not attempted.key or placed.call.undoes is not None:
        return
    if placed.tool.name not in its.agent.compensable:
        return
    result = attempted.answer.model_copy(update={"preview": "", "note": None})
    if len(result.text or "") > RESULT_CHARACTERS:
        result = ToolResult(text="its result is too long to be kept", stands_in=True)
    done = Compensable(
        key=attempted.key,
        tool=placed.tool.name,
        line=placed.line,
        head=its.head,
        index=placed.index,
        edited=placed.edit.call.blob if placed.edit is not None else None,
        result=result,
    )
    run.state.compensable = (*its.compensable, done)[-KEPT:]
    run.state.compensable_count = its.compensable_count + 1


class Compensation:
    """The last turn of a stopped run."""

    def __init__(self, run: Run, control: Control) -> None:
        self._run = run
        self._control = control

    @property
    def is_wanted(self) -> bool:
        """True if there is something to take back; false while it is unknown what was done."""
        its = self._run.state
        return bool(its.compensable) and its.control.undo is None and not its.uncertain and not its.unclear

    async def begin(self) -> ModelReply:
        """Begin the turn that takes it back; the open one ends without what it has not done."""
        its = self._run.state
        self._control.begin_compensation()
        self._run.release_open_calls()
        self._run.state.recovery = RecoveryState()
        self._run.set_doing("taking back what was done")
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
        """The part that was taken back, and the rest with its reason, in words; empty when there was nothing."""
        its, left = self._run.state, list[str]()
        if its.control.undo == "kept":
            return "what it did is kept"
        if its.control.undo is None:
            return NOTHING if its.compensable else ""
        lines = {done.key: done.line for done in its.compensable}
        undoing = [(call, answer) for call, answer in zip(its.calls, its.answers, strict=True) if call.undoes]
        for call, answer in undoing:
            if answer is None or answer.error or answer.unfit:
                why = "not made" if answer is None else answer.note or answer.text or "it failed"
                left.append(f"{lines.get(call.undoes or '', call.tool)} ({wording.shorten(why, 80)})")
        calls, were = (
            quantities.count_noun(its.compensable_count, "call"),
            "was" if its.compensable_count == 1 else "were",
        )
        said = f"{len(undoing) - len(left)} of {calls} that can be taken back {were}"
        more = f"; and {len(left) - LEFT_SHOWN} more" if len(left) > LEFT_SHOWN else ""
        return f"{said}; not: {'; '.join(left[:LEFT_SHOWN])}{more}" if left else said
