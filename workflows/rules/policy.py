"""Policy: the only way to a verdict on a call."""

import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Literal, NamedTuple

from pydantic import JsonValue

from mandate.workflows.contracts.policy import Match, Reading, Rule, RunFacts, Verdict
from mandate.workflows.contracts.tool import Tool
from mandate.workflows.rules import wording
from mandate.workflows.rules.cel import evaluation

REASON_CHARACTERS = 600

_SAYS = {"allow": "allows", "ask": "asks people about", "deny": "denies"}


class _Read(NamedTuple):
    """A rule as it was read."""

    rule: Rule
    matched: bool
    unfit: str | None = None
    """The key of `match` that does not fit the tool."""
    fault: str | None = None
    """The reason why its condition could not be evaluated."""


def judge(
    rules: Sequence[Rule],
    tool: Tool,
    arguments: Mapping[str, JsonValue],
    run: RunFacts,
    *,
    tools: Sequence[Tool] = (),
) -> Verdict:
    """Judge one call: read all matching rules and take the strictest: deny before ask before allow.

    A call that no rule matches runs only if the tool reads; anything else is asked for. A rule whose condition
    cannot be evaluated matches if it asks or denies, and does not if it allows.

    `arguments` are as the workflow sees them, long texts as references; `run` is without this call; `tools` are all
    of the agent's, so that conditions find calls and totals of each from the beginning.
    """
    readings = _read_rules(rules, tool, arguments, run, tools)
    for kind in ("deny", "ask", "allow"):
        deciding = [read for read in readings if read.matched and read.rule.verdict == kind]
        if deciding:
            return _build_verdict(kind, deciding, tool)
    return _judge_unmatched(readings, tool)


def read(
    rules: Sequence[Rule],
    tool: Tool,
    arguments: Mapping[str, JsonValue],
    run: RunFacts,
    *,
    tools: Sequence[Tool] = (),
) -> tuple[Reading, ...]:
    """Read every rule for this call, in order, as `judge` does, and return why it did or did not match."""
    return tuple(
        Reading(rule=read.rule.id, verdict=read.rule.verdict, matched=read.matched, why=_explain_reading(read))
        for read in _read_rules(rules, tool, arguments, run, tools)
    )


def matches(match: Match, tool: Tool) -> bool:
    """Return whether every key of `match` fits `tool`."""
    return _find_unfit_key(match, tool) is None


def fits_any(patterns: Iterable[str], name: str) -> bool:
    """Return whether `name` is one of `patterns`, in which `*` stands for any text."""
    for pattern in patterns:  # noqa: SIM110 - a generator for each rule costs as much as all the rest of matching
        if pattern == name or _fits(pattern, name):
            return True
    return False


@lru_cache(maxsize=8192)
def _fits(pattern: str, name: str) -> bool:
    parts = pattern.split("*")
    return len(parts) > 1 and re.fullmatch(".*".join(map(re.escape, parts)), name, re.DOTALL) is not None


def _find_unfit_key(match: Match, tool: Tool) -> str | None:
    """Return the first key of `match` that does not fit `tool`."""
    if match.tools is not None and not fits_any(match.tools, tool.known_as):
        return "tools"
    if match.effects is not None and tool.effect not in match.effects:
        return "effects"
    if match.tags is not None and set(match.tags).isdisjoint(tool.tags):
        return "tags"
    if match.sources is not None and tool.source not in match.sources:
        return "sources"
    return None


def _read_rules(
    rules: Sequence[Rule], tool: Tool, arguments: Mapping[str, JsonValue], run: RunFacts, tools: Sequence[Tool]
) -> list[_Read]:
    facts: evaluation.Facts | None = None
    readings = []
    for rule in rules:
        unfit = _find_unfit_key(rule.match, tool)
        if unfit is not None or rule.when is None:
            readings.append(_Read(rule, unfit is None, unfit))
            continue
        facts = facts or evaluation.Facts(collect_variables(tool, arguments, run, tools))
        outcome = facts.evaluate(rule.when)
        if type(outcome) is evaluation.Unevaluable:
            readings.append(_Read(rule, rule.verdict != "allow", None, outcome.reason))
        else:
            readings.append(_Read(rule, outcome is True))
    return readings


def collect_variables(
    tool: Tool, arguments: Mapping[str, JsonValue], run: RunFacts, tools: Sequence[Tool]
) -> dict[str, object]:
    """Return the variables of conditions about a call; each tool has its calls and totals from the beginning."""
    facts = {
        "name": tool.known_as,
        "effect": str(tool.effect),
        "source": tool.source,
        "tags": tool.tags,
        "risk": float(tool.risk),
        "untrusted": tool.untrusted,
    }
    return {"tool": facts, "args": arguments, **collect_run_variables(run, (*tools, tool))}


UNLIMITED = Decimal(10) ** 12
"""Dollars that conditions of older runs see as left where money is not limited."""


def collect_run_variables(run: RunFacts, tools: Sequence[Tool]) -> dict[str, object]:
    """Return the variables of conditions about no call: `agent` and `run`."""
    calls = {known.known_as: 0 for known in tools}
    sums = {known.known_as: dict.fromkeys(known.numeric, 0.0) for known in tools}
    for name, total in run.totals.items():
        calls[name] = total.calls
        sums[name] = sums.get(name, {}) | {argument: float(value) for argument, value in total.sums.items()}
    return {
        "agent": {"name": run.agent, "version": run.version},
        "run": {
            "id": run.id,
            "requester": run.requester or "",
            "speaker": run.speaker or run.requester or "",
            "labels": run.labels,
            "depth": run.depth,
            "step": run.step,
            "cost_usd": run.cost_usd,
            **({} if run.budget_left_usd is None else {"budget_left_usd": run.budget_left_usd}),
            "tokens": run.tokens,
            "period_cost_usd": run.period_cost_usd,
            "now": run.now,
            "tainted": run.tainted,
            "calls": calls,
            "totals": sums,
        },
    }


def _build_verdict(kind: Literal["allow", "ask", "deny"], deciding: Sequence[_Read], tool: Tool) -> Verdict:
    first, *others = deciding if kind == "ask" else deciding[:1]
    reason = f"rule {first.rule.id!r} {_SAYS[kind]} {tool.known_as!r}{_explain_rule(first)}"
    for other in others:
        reason += f"; so does rule {other.rule.id!r}{_explain_rule(other)}"
    return Verdict(
        kind=kind,
        rule=first.rule.id,
        reason=wording.shorten(reason, REASON_CHARACTERS),
        asking=tuple(read.rule.id for read in deciding) if kind == "ask" else (),
    )


def _explain_rule(read: _Read) -> str:
    """Return why the rule is there, and why its condition could not be evaluated."""
    why = f": {read.rule.because.strip().rstrip('.')}" if read.rule.because else ""
    return f"{why} (its condition could not be evaluated: {read.fault})" if read.fault else why


def _judge_unmatched(readings: Sequence[_Read], tool: Tool) -> Verdict:
    named = any(read.unfit is None for read in readings)
    reason = f"no rule {'matches this call of' if named else 'names'} {tool.known_as!r}, which "
    reason += "changes the world" if tool.effect.changes_world else "only reads"
    for read in readings:
        if read.fault:
            reason += f"; the condition of rule {read.rule.id!r} could not be evaluated: {read.fault}"
    kind: Literal["ask", "allow"] = "ask" if tool.effect.changes_world else "allow"
    return Verdict(kind=kind, reason=wording.shorten(reason, REASON_CHARACTERS))


def _explain_reading(read: _Read) -> str:
    if read.unfit is not None:
        return f"its {read.unfit!r} do not fit the tool"
    if read.fault:
        counts = "does not allow" if read.rule.verdict == "allow" else "matches"
        return f"its condition could not be evaluated, so it {counts}: {read.fault}"
    if read.rule.when is None:
        return "it has no condition, and the tool fits"
    return f"its condition is {'true' if read.matched else 'false'}"
