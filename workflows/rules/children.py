"""Children of a run: the share of its budget that one gets, and what its result is to the parent."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import timedelta
from decimal import ROUND_DOWN, Decimal
from types import MappingProxyType
from typing import Any

from mandate.workflows.contracts.base import Digest, canonical_json
from mandate.workflows.contracts.budget import Amount, Budget, BudgetRequest, Ledger, Limit
from mandate.workflows.contracts.children import MOST_CHILDREN, MOST_DEPTH, ChildReport
from mandate.workflows.contracts.model import Usage
from mandate.workflows.contracts.plan import PlanResult
from mandate.workflows.contracts.policy import ToolTotals
from mandate.workflows.contracts.run import EffectEntry, EffectLog, RunResult, RunStatus
from mandate.workflows.contracts.tool import ChildAgent, ToolResult
from mandate.workflows.rules import budget as rules_budget
from mandate.workflows.rules import quantities, wording

LENT: tuple[Limit, ...] = ("model_calls", "tokens", "cost_usd", "tool_calls")
"""Limits of which a child takes from those of the run that starts it."""

MOST_RESETS = 20
"""Resets of a run after which it can start no other child in the place of one."""

UNCERTAIN_KEPT = 200
"""Calls with an unknown outcome that a run keeps of all below it."""

UNKNOWN_BELOW = "of some of it the outcome is unknown"

UNCERTAIN_TOLD = 10
"""Calls with an unknown outcome that the parent's model is told of."""

REASON_CHARACTERS = 400

STEPS_TOLD = 20
"""Steps of a plan that did not end well, of which the run above is told."""

STEP_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Share:
    """Part of a run's budget that a child gets."""

    limits: BudgetRequest
    amount: Amount
    """Held by the parent until the child has reported."""


def find_limit(limits: Budget, *, depth: int, made: int) -> str | None:
    """Return why a run may start no child, in one sentence; `depth` is its own, `made` its children so far."""
    deepest = MOST_DEPTH - depth if limits.depth is None else min(limits.depth, MOST_DEPTH - depth)
    if deepest <= 0:
        return "not started: agents may work at no level below this one (limit 'depth')"
    most = MOST_CHILDREN if limits.children is None else limits.children
    if made >= most:
        return f"not started: the limit of {most:,} {'child' if most == 1 else 'children'} is used up"
    return None


def find_share(
    ledger: Ledger, limits: Budget, child: ChildAgent, kept: Amount, *, time_left: timedelta | None
) -> Share | str:
    """Return a child's share, or why it gets none, in one sentence: nothing is lent of what is `kept` back.

    What the run limits and the child does not is limited to all that is left.
    """
    left, wanted = rules_budget.find_left(ledger, limits), dict[str, Any]()
    for name in LENT:
        asked, rest, needed = getattr(child.share, name), getattr(left, name), getattr(kept, name)
        if asked is None and rest is not None:
            asked = _find_rest(name, rest - needed)
        wanted[name] = asked
    amount = Amount(**{name: value for name, value in wanted.items() if value is not None})
    if rules_budget.share(ledger, limits, amount, kept) is None:
        return _describe_shortage(left, amount, kept)
    times = [time for time in (child.share.wall_time, time_left) if time is not None]
    deepest = None if limits.depth is None else limits.depth - 1
    depths = [depth for depth in (child.share.depth, deepest) if depth is not None]
    asked_for = child.share.model_copy(
        update={**wanted, "wall_time": min(times, default=None), "depth": min(depths, default=None)}
    )
    return Share(asked_for, amount)


def lower_budget(own: Budget, asked: BudgetRequest, timeout: timedelta | None) -> Budget:
    """Return the limits of an agent as a child: its `own`, lowered by what is `asked` of one run."""
    return rules_budget.lower(own, asked if timeout is None else asked.model_copy(update={"wall_time": timeout}))


def find_terms(limits: Budget) -> BudgetRequest:
    """Return what the run above has to know of a child's limits."""
    names = (*LENT, "wall_time", "depth")
    return BudgetRequest(**{name: value for name in names if (value := getattr(limits, name)) is not None})


def list_lent(limits: Budget) -> tuple[Limit, ...]:
    """Return the limits of a run of which its children hold a part."""
    return tuple(name for name in LENT if getattr(limits, name) is not None)


def find_lowered(limits: BudgetRequest, share: BudgetRequest) -> BudgetRequest | None:
    """Return those of a child's limits that its agent does not have by itself; `None` where there are none."""
    changed = {
        name: value
        for name in BudgetRequest.model_fields
        if (value := getattr(limits, name)) is not None and value != getattr(share, name)
    }
    return BudgetRequest.model_construct(**changed) if changed else None


def _find_rest(name: str, rest: Any) -> Any:
    """Return all that can be lent; the least that is of use where that is nothing."""
    if name == "tool_calls":
        # A child may do without.
        return max(rest, 0)
    return max(rest.quantize(_LEAST_USD, ROUND_DOWN), _LEAST_USD) if name == "cost_usd" else max(rest, 1)


_LEAST_USD = Decimal("0.000000001")
_WORDS = {"model_calls": "model call", "tokens": "token", "tool_calls": "tool call"}


def _describe_shortage(left: rules_budget.Left, amount: Amount, kept: Amount) -> str:
    """Say which part of the budget a child lacks."""
    for name in LENT:
        rest, asked, needed = getattr(left, name), getattr(amount, name), getattr(kept, name)
        if rest is not None and asked + needed > rest:
            back = f", and keeps {_write(name, needed)} back for its last answer" if needed else ""
            return f"not started: a child takes {_write(name, asked)}, the run has {_write(name, rest)} left{back}"
    raise AssertionError(amount)


def _write(name: str, value: Any) -> str:
    return f"${max(value, Decimal(0)):f}" if name == "cost_usd" else quantities.count_noun(max(value, 0), _WORDS[name])


def build_report(
    result: RunResult, refused: Mapping[Digest, str], totals: Mapping[str, ToolTotals] = MappingProxyType({})
) -> RunResult:
    """Return a result as the parent gets it: what its own record has is not in the parent's history again.

    `refused` and `totals` are as of `ChildReport`.
    """
    changes: dict[str, object] = {"effects": result.effects.model_copy(update={"last": ()}), "head": None}
    if result.output_digest is not None:
        changes["output"] = None
    if not isinstance(result, PlanResult) and not refused:
        return result.model_copy(update=changes)
    steps = [step for step in getattr(result, "steps", ()) if step.status != "completed"][:STEPS_TOLD]
    short = [
        step.model_copy(update={"output": None, "reason": wording.shorten(step.reason or "", STEP_CHARACTERS) or None})
        for step in steps
    ]
    return ChildReport.model_validate({**dict(result), **changes, "steps": short, "refused": refused, "totals": totals})


def write_answer(id: str, result: ChildReport) -> ToolResult:  # noqa: A002 - a child's id
    """Return what the parent's model is told of a child that has ended: its output, status, cost, what is not known."""
    told = [f"{id.rpartition('/')[2]}: {result.status}, {wording.describe_cost(result.usage)}"]
    if result.reason and result.status is not RunStatus.COMPLETED:
        told.append(wording.shorten(result.reason, REASON_CHARACTERS))
    told += (f"step {step.id} {step.status}{f': {step.reason}' if step.reason else ''}" for step in result.steps)
    if result.uncertain:
        lines = "; ".join(f"{entry.call} ({entry.reason})" for entry in result.uncertain[:UNCERTAIN_TOLD])
        more = f"; and {len(result.uncertain) - UNCERTAIN_TOLD} more" if len(result.uncertain) > UNCERTAIN_TOLD else ""
        told.append(f"it is unknown whether this happened: {lines}{more}")
    note = "; ".join(told)
    if result.output is None and result.output_digest is None:
        cause = "people" if result.status is RunStatus.STOPPED else None
        return ToolResult(text=note, error=True, cause=cause)
    is_error = result.status not in {RunStatus.COMPLETED, RunStatus.EXHAUSTED}
    cause = "people" if is_error and result.status is RunStatus.STOPPED else None
    text = ""
    if result.output is not None:
        text = result.output if isinstance(result.output, str) else canonical_json(result.output).decode()
    if result.output_digest is None:
        return ToolResult(text=text, note=note, error=is_error, cause=cause)
    return ToolResult(
        digest=result.output_digest, size=result.output_size, preview=text[:60], note=note, error=is_error, cause=cause
    )


def stand_for(child: EffectEntry, result: RunResult) -> EffectEntry | None:
    """Return the entry that stands for all effects of a child; `None` where it had none."""
    if not result.effects.count and not result.uncertain:
        return None
    reason = UNKNOWN_BELOW if result.uncertain else None
    return child.model_copy(update={"reason": reason, "count": result.effects.count, "digest": result.effects.digest})


def name_uncertain(id: str, entries: tuple[EffectEntry, ...]) -> tuple[EffectEntry, ...]:  # noqa: A002
    """Return a child's calls with an unknown outcome as its parent keeps them."""
    return tuple(entry if entry.run is not None else entry.model_copy(update={"run": id}) for entry in entries)


def build_unknown(id: str, reason: str) -> ChildReport:  # noqa: A002
    """Return what takes the place of a child's result where nobody can tell what it did."""
    lost = EffectEntry(step=0, tool="", call=id, key=id, run=id, reason=reason)
    return ChildReport(
        status=RunStatus.DECLINED,
        output=None,
        output_digest=None,
        reason=reason,
        usage=Usage(),
        head=None,
        audit_head=None,
        effects=EffectLog(),
        uncertain=(lost,),
        tainted=True,
    )


def is_told(id: str, result: RunResult) -> bool:  # noqa: A002
    """Return whether a result tells what a child has used: `build_unknown` does not."""
    return not any(entry.key == id for entry in result.uncertain)


def name_child(workflow_id: str, number: int) -> str:
    """Return the workflow id that a run's child of this number usually has."""
    return f"{workflow_id}/c{number}"


def list_ids(workflow_id: str, run: str, number: int, *, is_taken: bool) -> tuple[str, ...]:
    """Return the workflow ids that a run's child may have, the usual one first unless that `is_taken`.

    Another run of the same workflow id, or this one before a reset, may have had a child of this number.
    """
    own = f"{workflow_id}/{run[:8]}/c{number}"
    usual = () if is_taken else (name_child(workflow_id, number),)
    return (*usual, own, *(f"{own}-{again}" for again in range(2, MOST_RESETS)))


def list_known(workflow_id: str, made: int, ids: Mapping[int, str], *, but: AbstractSet[int]) -> tuple[str, ...]:
    """Return the workflow ids of the first `made` children of a run, without those of the numbers `but`."""
    numbers = (number for number in range(1, made + 1) if number not in but)
    return tuple(ids.get(number, name_child(workflow_id, number)) for number in numbers)
