"""Rules of going back inside a run: where to, how often, and what the model is told of the branch that it leaves."""

from pydantic import JsonValue

from mandate.workflows.contracts.base import JsonObject
from mandate.workflows.contracts.state import RunState
from mandate.workflows.contracts.tool import GO_BACK, Tool, ToolResult
from mandate.workflows.rules import quantities, wording

BRANCHES_KEPT = 50

GONE_BACK = ToolResult(text="gone back")
"""Answer to the call of the tool, which the model is not told: it goes on from before it made the call."""

BECAUSE_CHARACTERS = 500
EFFECTS_TOLD = 20


def is_going_back(tool: Tool) -> bool:
    """Tell whether `tool` is the built-in one with which a model goes back."""
    return tool.source == "builtin" and tool.name == GO_BACK


def can_go_back(state: RunState) -> bool:
    """Tell whether the agent may go back at all."""
    return any(is_going_back(tool) for tool in state.agent.tools)


def find_fault(state: RunState, to: object) -> str | None:
    """Return why the run cannot go back to a step, in one sentence."""
    last = state.step - 1
    if last < 1:
        return "there is no step to go back to yet"
    if isinstance(to, bool) or not isinstance(to, int) or not 1 <= to <= last:
        return f"to: {to!r}: must be a step from 1 to {last}; this is step {state.step}"
    if any(first <= to <= newest for first, newest in state.left_behind):
        return f"to: {to}: that step was left behind when the run went back"
    return None


def find_limit(state: RunState) -> str | None:
    """Return why the model may not go back once more."""
    limit = state.agent.attempts
    if state.ways_back >= limit:
        return f"you have gone back {quantities.count_times(limit)}, which is as often as you may; go on from here"
    return None


def read_value(value: JsonValue) -> int | None:
    """Return the step in a person's value: a number, or an object with the key `to`; `None` where there is none."""
    to = value.get("to") if isinstance(value, dict) else value
    if isinstance(to, str) and to.isascii() and to.isdigit():
        return int(to)
    return to if isinstance(to, int) and not isinstance(to, bool) else None


def write_note(state: RunState, to: int, because: str) -> str:
    """Return what the model is told of the branch that it leaves: what was done in it stays done."""
    left = f"What came after it, up to step {state.step}, is left out; your next answer is step {state.step + 1}."
    lines = [f"You went back to step {to}: {wording.shorten(because, BECAUSE_CHARACTERS)}", left]
    done = [entry for entry in state.effects.last if entry.step > to]
    if done:
        lines.append("What was done there stays done, and is not to be done again:")
        lines += [f"- step {entry.step}: {entry.call}" for entry in done[-EFFECTS_TOLD:]]
        if len(done) > EFFECTS_TOLD:
            lines.append(f"- and {len(done) - EFFECTS_TOLD} more")
    else:
        lines.append("Nothing was changed there.")
    lines += [f"- not known whether it was done: {entry.call}" for entry in state.uncertain]
    return "\n".join(lines)


def read_arguments(arguments: JsonObject) -> tuple[object, str]:
    """Return where a call of the tool goes back to, and why."""
    return arguments.get("to"), str(arguments.get("because") or "it did not say why")
