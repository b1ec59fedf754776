"""Rules of runs that go on from others: what those have done is not done again."""

from mandate.workflows.contracts.origin import EarlierCall, Origin
from mandate.workflows.contracts.tool import ToolResult


def answer_earlier(origin: Origin, call: EarlierCall) -> ToolResult:
    """Return the answer to a call that the origin has made, or may have."""
    where = f"the run {origin.run} made this call at its step {call.step}"
    if call.outcome == "unknown":
        text = f"not made: {where}, and it is not known whether it was done; ask a person to look"
        return ToolResult(text=text, error=True)
    said = f"; it answered: {call.text}" if call.text else ""
    return ToolResult(text=f"not made again: {where}, and it is done{said}")
