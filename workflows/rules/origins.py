"""Rules of runs that go on from others: what those have done is not done again."""

from collections import Counter
from collections.abc import Sequence

from mandate.workflows.contracts.origin import EarlierCall, Origin
from mandate.workflows.contracts.tool import ToolResult

NOT_KNOWN = "and it is not known whether it was done; ask a person to look"


def answer_earlier(origin: Origin, call: EarlierCall) -> ToolResult:
    """Return the answer to a call that the origin has made, or may have."""
    where = f"the run {call.run or origin.run} made this call at its step {call.step}"
    if call.outcome == "unknown":
        return ToolResult(text=f"not made: {where}, {NOT_KNOWN}", error=True)
    said = f"; it answered: {call.text}" if call.text else ""
    return ToolResult(text=f"not made again: {where}, and it is done{said}")


def join_calls(earlier: Origin | None, calls: Sequence[EarlierCall]) -> tuple[EarlierCall, ...]:
    """Return the calls that a run has made and those that it has kept in mind of its own origin, each once."""
    known = Counter(call.digest for call in calls)
    kept = list[EarlierCall]()
    for call in earlier.calls if earlier is not None else ():
        if known[call.digest] > 0:
            known[call.digest] -= 1
        else:
            kept.append(call.model_copy(update={"run": call.run or earlier.run if earlier is not None else ""}))
    return (*kept, *calls)
