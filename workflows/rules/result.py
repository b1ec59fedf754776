"""The result of a run: under 32 KiB, readable without Mandate."""

import contextlib
import json
from typing import Any

from mandate.workflows.contracts.model import OUTPUT_INLINE_BYTES, ModelReply, Usage
from mandate.workflows.contracts.plan import PlanEnd, PlanResult
from mandate.workflows.contracts.run import RunResult, RunStatus
from mandate.workflows.contracts.state import Resolution, RunState
from mandate.workflows.contracts.tool import ToolResult
from mandate.workflows.rules import wording

RESULT_BYTES = 31 * 1024
"""Most that a result takes; the list of the last effects is shortened for it."""


def build_result(
    state: RunState, status: RunStatus, reason: str | None, answer: ModelReply | Resolution | None
) -> RunResult:
    """Return the result of a run that ends in this state; `answer` is the model's, or a person's in its place."""
    reply = answer if isinstance(answer, ModelReply) else None
    output: Any = (reply.text or None) if reply is not None else None
    output_digest = reply.output_digest if reply is not None else None
    if isinstance(answer, Resolution) and answer.answer is not None:
        output, output_digest = _build_output(answer, answer.answer)
    if reply and state.agent.structured and status == RunStatus.COMPLETED and reply.output_digest is None:
        with contextlib.suppress(ValueError):
            output = json.loads(reply.text)
    result = RunResult(
        status=status,
        output=output,
        output_digest=output_digest,
        output_size=reply.output_size if reply is not None else _find_size(answer),
        reason=wording.shorten(reason, 500) if reason else None,
        usage=sum_usage(state),
        head=state.head,
        audit_head=None,
        effects=state.effects,
        uncertain=(*state.uncertain_below, *state.uncertain),
        tainted=state.tainted,
    )
    while _size(result) > RESULT_BYTES and result.effects.last:
        fewer = result.effects.last[len(result.effects.last) // 2 + 1 :]
        result = result.model_copy(update={"effects": result.effects.model_copy(update={"last": fewer})})
    while _size(result) > RESULT_BYTES and len(result.uncertain) > 1:
        # Their own records have all of them.
        result = result.model_copy(update={"uncertain": result.uncertain[: len(result.uncertain) * 3 // 4]})
    return result


def build_plan_result(result: RunResult, end: PlanEnd | None) -> PlanResult:
    """Return the result of a plan; `end` is missing where it was stopped or cannot go on."""
    output = end.output if end is not None else None
    told: dict[str, Any] = {}
    if output is not None:
        told = {"output": output.text if output.digest is None else output.preview}
        if output.digest is not None:
            told |= {"output_digest": output.digest, "output_size": output.size}
        elif output.text is not None:
            with contextlib.suppress(ValueError):
                told["output"] = json.loads(output.text)
    made = PlanResult(
        **{name: getattr(result, name) for name in RunResult.model_fields} | told,
        steps=end.steps if end is not None else (),
        steps_digest=end.steps_digest if end is not None else None,
    )
    while _size(made) > RESULT_BYTES and made.steps:
        made = made.model_copy(update={"steps": made.steps[: len(made.steps) // 2]})
    return made


def _size(result: RunResult) -> int:
    return len(result.model_dump_json().encode())


def _build_output(resolution: Resolution, stored: ToolResult) -> tuple[Any, str | None]:
    """Return a person's answer as the run's: whole, or its beginning and the address of all of it."""
    if stored.size is None or stored.size <= OUTPUT_INLINE_BYTES:
        return resolution.value, None
    return stored.preview, stored.digest


def _find_size(answer: ModelReply | Resolution | None) -> int | None:
    """Return the size of a person's answer that is known by its address."""
    if not isinstance(answer, Resolution) or answer.answer is None:
        return None
    size = answer.answer.size
    return size if size is not None and size > OUTPUT_INLINE_BYTES else None


def sum_usage(state: RunState) -> Usage:
    """Return what a run has used, the calls of its tools included, by its children too."""
    limit = (state.budget or state.agent.budget).tool_calls
    # Beyond the limit are those that were not made.
    own = state.ledger.tool_calls
    if limit is not None:
        own = min(own, max(limit - state.usage.tool_calls, 0))
    return state.usage.model_copy(update={"tool_calls": state.usage.tool_calls + own})
