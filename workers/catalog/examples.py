"""Calls that a person wrote down, judged as a run would judge them: examples of policy files, and single calls."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from pydantic import Field, JsonValue

from mandate.activities.documents import Fault
from mandate.activities.toolbox.arguments import find_misfit
from mandate.activities.toolbox.arguments import shorten_texts as shown_arguments
from mandate.activities.toolbox.schema_types import convert_numbers
from mandate.workers.catalog.policies import PolicyFile
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.base import JsonObject, Spec
from mandate.workflows.contracts.policy import (
    Example,
    ExampleCall,
    ExampleRun,
    Reading,
    Rule,
    RunFacts,
    ToolTotals,
    Verdict,
)
from mandate.workflows.contracts.tool import Tool, ToolDefinition
from mandate.workflows.rules import policy

_NAMED = re.compile(r"\brun\s*\.\s*(?:calls|totals)\s*\.\s*([A-Za-z_]\w*)(?:\s*\.\s*([A-Za-z_]\w*))?", re.ASCII)


class CallFile(Spec):
    """A call to be judged: the argument of `mandate validate --call`."""

    agent: str | None = Field(default=None, description="Name of the agent; may be left out where there is only one.")
    call: ExampleCall = Field(description="The call.")
    run: ExampleRun = Field(default=ExampleRun(), description="What the run has done before.")


@dataclass(frozen=True, slots=True)
class Judged:
    """A call and what becomes of it."""

    tool: Tool
    verdict: Verdict
    readings: tuple[Reading, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """One example as it was run."""

    file: PolicyFile
    index: int
    example: Example
    verdict: Verdict | None
    """`None` when the call cannot be made at all."""
    fault: Fault | None
    """The difference from what is written."""


def judge(
    rules: Sequence[Rule], call: ExampleCall, run: ExampleRun, *, agent: PinnedAgent | None = None, version: str = ""
) -> Judged:
    """Return the verdict on one call, by `rules`.

    Args:
        rules: All that count.
        call: What it does not say of its tool is as `agent` has it, else as tools are that say nothing.
        run: The facts of the run.
        agent: Whose tools there are.
        version: What the rules see of the agent's version.

    Raises:
        ValueError: the agent has no such tool, the arguments do not fit it, or the run sums up what the agent has not;
            one sentence.
    """
    known = {made.tool.name: made.tool for made in agent.tools} if agent is not None else {}
    if agent is None:
        known = {tool.name: tool for tool in _tools_named(rules, call, run)}
    definition = agent.definition(call.tool) if agent is not None else None
    if agent is not None and definition is None:
        raise ValueError(f"agent {agent.name!r} has no tool {call.tool!r}; it has {', '.join(sorted(known))}")
    if agent is not None:
        _check_sums(run, agent.name, known)
    arguments = call.args if definition is None else _fitting(definition, call.args)
    tool = _tool(known[call.tool], call)
    facts = _facts(run, agent.name if agent is not None else "", version)
    tools = tuple(known.values())
    return Judged(
        tool,
        policy.judge(rules, tool, arguments, facts, tools=tools),
        policy.read(rules, tool, arguments, facts, tools=tools),
    )


def _check_sums(run: ExampleRun, agent: str, tools: Mapping[str, Tool]) -> None:
    """Raise `ValueError` when calls are counted or sums given of what the agent's runs have none of."""
    for key, names in (("calls", run.calls), ("totals", run.totals)):
        if unknown := [name for name in names if name not in tools]:
            raise ValueError(
                f"run.{key}: agent {agent!r} has no tool {unknown[0]!r}; it has {', '.join(sorted(tools))}"
            )
    for name, sums in run.totals.items():
        numeric = tools[name].numeric
        if unknown := [argument for argument in sums if argument not in numeric]:
            has = f"it has {', '.join(numeric)}" if numeric else "it has none"
            raise ValueError(f"run.totals.{name}: the tool has no number {unknown[0]!r}; {has}")


def run_examples(file: PolicyFile, agents: Mapping[str, PinnedAgent], *, complete: bool) -> list[Result]:
    """Judge the examples of a policy file as a run would judge them.

    An example that names an agent is judged by all rules of that agent and with its tools; any other by the rules of
    the file alone, since whatever rules an agent adds can only make it stricter, or allow what no rule here is about.

    Args:
        file: The policy.
        agents: Those that name it.
        complete: Whether `agents` are all that there are: an example about another is wrong then, and left out else.
    """
    results = []
    for index, example in enumerate(file.spec.examples):
        if example.agent is None:
            results.append(_run(file, index, example, None))
        elif example.agent in agents:
            results.append(_run(file, index, example, agents[example.agent]))
        elif complete:
            names = ", ".join(sorted(agents)) or "none"
            message = f"{example.agent!r} is no agent that names this policy; there are {names}"
            fault = file.document.fault(("examples", index, "agent"), message, repr(example.agent))
            results.append(Result(file, index, example, None, fault))
    return results


def call_schema() -> dict[str, JsonValue]:
    """Return the JSON Schema of files with one call, for editors."""
    schema = CallFile.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema | {"title": "Mandate call file"}


def _run(file: PolicyFile, index: int, example: Example, agent: PinnedAgent | None) -> Result:
    def fault(key: str, message: str) -> Fault:
        return file.document.fault(("examples", index, key), f"example {example.name!r}: {message}")

    try:
        got = judge(file.spec.rules if agent is None else agent.policy, example.call, example.run, agent=agent).verdict
    except ValueError as error:
        return Result(file, index, example, None, fault("call", str(error)))
    wanted = _difference(example, got)
    if wanted is None:
        return Result(file, index, example, got, None)
    said = f"{got.kind} by {f'rule {got.rule!r}' if got.rule is not None else 'no rule'}: {got.reason}"
    return Result(file, index, example, got, fault("verdict", f"wanted {wanted}, got {said}"))


def _difference(example: Example, got: Verdict) -> str | None:
    """Return the wanted verdict, if it is not the one that came."""
    if example.rule is not None and (got.kind != example.verdict or example.rule not in {got.rule, *got.asking}):
        return f"{example.verdict} by rule {example.rule!r}"
    # Written as `rule: null`.
    by_no_rule = "rule" in example.model_fields_set and example.rule is None
    if got.kind != example.verdict or (by_no_rule and got.rule is not None):
        return f"{example.verdict} by no rule" if by_no_rule else example.verdict
    return None


def _fitting(definition: ToolDefinition, arguments: JsonObject) -> JsonObject:
    """Return the arguments as a run would have them."""
    why = find_misfit(definition, arguments)
    if why is not None:
        raise ValueError(f"the arguments do not fit tool {definition.tool.name!r}, so no rule is read: {why}")
    declared = convert_numbers(definition.input_schema, arguments)
    # A remote activity's arguments are whole, since Temporal carries them.
    return declared if definition.tool.remote is not None else shown_arguments(declared)


def _tool(known: Tool, call: ExampleCall) -> Tool:
    """Return the agent's tool, or one that says nothing of itself, with what the call says of it."""
    its = {"effect": call.effect, "tags": call.tags, "source": call.source, "risk": call.risk}
    return known.model_copy(update={key: value for key, value in its.items() if value is not None})


def _tools_named(rules: Iterable[Rule], call: ExampleCall, run: ExampleRun) -> list[Tool]:
    """Return tools for a call of no agent: its own, and all that its run or a condition names, with totals of 0."""
    numeric: dict[str, set[str]] = {call.tool: {name for name, value in call.args.items() if _is_number(value)}}
    for name in run.calls:
        numeric.setdefault(name, set())
    for name, sums in run.totals.items():
        numeric.setdefault(name, set()).update(sums)
    for rule in rules:
        for name, argument in _NAMED.findall(rule.when or ""):
            numeric.setdefault(name, set()).update([argument] if argument else [])
    return [Tool(name=name, source="python", numeric=tuple(sorted(its))) for name, its in numeric.items()]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _facts(run: ExampleRun, agent: str, version: str) -> RunFacts:
    names = dict.fromkeys((*run.calls, *run.totals))
    return RunFacts(
        id="example",
        agent=agent,
        version=version,
        requester=run.requester,
        speaker=run.speaker,
        labels=run.labels,
        depth=run.depth,
        step=run.step,
        cost_usd=Decimal(repr(run.cost_usd)),
        budget_left_usd=None if run.budget_left_usd is None else Decimal(repr(run.budget_left_usd)),
        tokens=run.tokens,
        period_cost_usd=Decimal(repr(run.period_cost_usd)),
        now=run.now or datetime.now(UTC),
        tainted=run.tainted,
        totals={
            name: ToolTotals(
                calls=run.calls.get(name, 0),
                sums={argument: Decimal(repr(value)) for argument, value in run.totals.get(name, {}).items()},
            )
            for name in names
        },
    )
