"""Agents in words and JSON for `mandate validate`: their tools, and the outcomes of calls of each."""

from collections.abc import Sequence
from itertools import groupby, zip_longest
from operator import attrgetter
from pathlib import Path

from rich.text import Text

from mandate.activities.toolbox.closed_schemas import find_open_places
from mandate.workers.catalog.catalog import Catalog, Loaded
from mandate.workers.catalog.policy_summary import Outcome, outcomes, runs_unasked
from mandate.workers.catalog.provider_tools import FindProtocol, list_rewritings
from mandate.workers.cli.output import Output, print_table
from mandate.workers.cli.validation.costs import costs_json, describe_costs
from mandate.workflows.contracts.agent import PinnedAgent
from mandate.workflows.contracts.policy import Approvers
from mandate.workflows.contracts.tool import ToolDefinition
from mandate.workflows.contracts.verification import CheckSpec
from mandate.workflows.rules.decisions import format_duration


def print_catalog(out: Output, catalog: Catalog, *, has_people: bool) -> None:
    """Print warnings, then each agent as a table of its tools; `has_people` is whether there is a file of people."""
    for warning in catalog.warnings:
        out.print(Text(f"warning: {warning}", style="yellow"))
    for loaded in catalog.agents.values():
        pinned = loaded.pinned
        out.print(Text.assemble((pinned.name, "bold"), f" version {loaded.digest[:12]}  {loaded.path or ''}"))
        for title, line in zip_longest(("models",), describe_route(pinned), fillvalue=""):
            out.print(f"  {title:<9} {line}")
        for line in describe_costs(pinned):
            out.print(f"  {line}")
        out.print(f"  requester {_requester(loaded, has_people=has_people)}")
        if loaded.policies:
            out.print(f"  policies  {', '.join(loaded.policies)}")
        more = (*(("probe",) if pinned.probes else ()), *(("taken back by",) if pinned.compensations else ()))
        rows = [_row(loaded, definition) for definition in pinned.tools]
        print_table(out, rows, ("tool", "effect", "from", *more, "when called"), indent=2)
        if pinned.checks:
            print_table(out, [_checked(check) for check in pinned.checks], ("after", "is checked"), indent=2)
        for line in (*_strange(loaded), *_openings(loaded)):
            out.print(Text(f"  {line}", style="yellow"))
        for rewriting in list_rewritings(pinned, catalog.endpoints.find_protocol):
            told = f"{rewriting.tool} is sent to {_listed(rewriting.providers)} in another form"
            out.print(Text(f"  {told}: {'; '.join(rewriting.changes)}", style="dim"))


def describe_route(pinned: PinnedAgent) -> list[str]:
    """Return the models of an agent in the order in which they are asked: a line, or one for each that says more."""
    items = [list(pins) for _, pins in groupby(pinned.route, key=attrgetter("group"))]
    if all(len(pins) == 1 and pins[0].when is None for pins in items):
        return [", ".join(pinned.models)]
    lines = []
    for pins in items:
        names = [pin.model if pin.when is None else f"{pin.model} when {pin.when}" for pin in pins]
        lines.append(names[0] if len(names) == 1 else f"{', '.join(names)}: {_PREFERENCES[pinned.prefer]}")
    return lines


_PREFERENCES = {
    "order": "equal, in this order",
    "cost": "equal, the cheapest first",
    "latency": "equal, the fastest first",
}


def describe_control(control: Approvers | None, people: Path | None) -> str:
    """Return who may control runs, in one line; `people` is the file of people."""
    if control is not None:
        names = ", ".join([*(f"group {group}" for group in control.groups), *control.users])
        return f"control     {names} may steer, pause, resume and stop runs: says {people}"
    where = f"{people} has no `control`" if people is not None else "there is no file of people (MANDATE_PEOPLE)"
    return f"control     anyone may steer, pause, resume and stop runs: {where}"


def _row(loaded: Loaded, definition: ToolDefinition) -> tuple[str | Text, ...]:
    pinned, outcomes = loaded.pinned, _outcomes(loaded, definition)
    words = Text("\n".join(map(str, outcomes)), style="" if outcomes[0].kind == "allow" else "yellow")
    probe = (_probe(loaded, definition),) if pinned.probes else ()
    undone = pinned.compensations.get(definition.tool.name)
    by = ((undone.tool if undone is not None else ""),) if pinned.compensations else ()
    cache = "" if definition.cache is None else f", kept for {format_duration(definition.cache)}"
    return (definition.tool.name, f"{definition.tool.effect}{cache}", _origin(definition), *probe, *by, words)


def _requester(loaded: Loaded, *, has_people: bool) -> str:
    """Return who may ask for a run of it."""
    pinned = loaded.pinned
    if not pinned.needs_requester(has_people=has_people):
        why = "says the agent file" if pinned.requester else "there is no file of people (MANDATE_PEOPLE)"
        return f"anyone, who may then approve what they asked for: {why}"
    who = "required, somebody in the file of people" if has_people else "required, any name: there is no file of people"
    if _is_usual(loaded, has_people=has_people):
        return "somebody in the file of people, else what a run asks can only be rejected"
    return f"{who}, with a signed token" if pinned.needs_signed_start else who


def _is_usual(loaded: Loaded, *, has_people: bool) -> bool:
    """Return whether the start goes on without a known requester, and nothing is approved."""
    return has_people and loaded.pinned.requester is None and not loaded.pinned.needs_signed_start


def _requester_json(loaded: Loaded, *, has_people: bool) -> str:
    if not loaded.pinned.needs_requester(has_people=has_people):
        return "anyone"
    return "known" if _is_usual(loaded, has_people=has_people) else "required"


def agent_json(loaded: Loaded, find_protocol: FindProtocol, *, has_people: bool) -> dict[str, object]:
    """Return one agent, for `-o json`."""
    tools: list[dict[str, object]] = []
    for definition in loaded.pinned.tools:
        tool, outcomes = definition.tool, _outcomes(loaded, definition)
        tools.append(
            {
                "name": tool.name,
                "effect": str(tool.effect),
                "cache_seconds": None if definition.cache is None else definition.cache.total_seconds(),
                "source": tool.source,
                "claims": list(_claims(definition)),
                "risk": tool.risk,
                "tags": list(tool.tags),
                "untrusted": tool.untrusted,
                "undeclared": list(_undeclared(definition)),
                "allowed": outcomes[0].kind == "allow",
                "rule": outcomes[0].rule,
                "outcomes": [_outcome_json(outcome) for outcome in outcomes],
                "checks": [check.name for check in loaded.pinned.checks if check.after == tool.name],
                "probe": _probe_json(loaded, definition),
                "compensate": _compensation_json(loaded, definition),
            }
        )
    return {
        "name": loaded.pinned.name,
        "version": loaded.digest[:12],
        "path": str(loaded.path) if loaded.path is not None else None,
        "models": list(loaded.pinned.models),
        "route": [{"model": pin.model, "group": pin.group, "when": pin.when} for pin in loaded.pinned.route],
        "prefer": loaded.pinned.prefer,
        "cost": costs_json(loaded.pinned),
        "requester": _requester_json(loaded, has_people=has_people),
        "signed_start": loaded.pinned.needs_signed_start,
        "policies": list(loaded.policies),
        "tools": tools,
        "checks": [_check_json(check) for check in loaded.pinned.checks],
        "tainted": loaded.pinned.tainted,
        "unaccepted": list(loaded.strange),
        "rewritten": [
            {"tool": made.tool, "providers": list(made.providers), "changes": list(made.changes)}
            for made in list_rewritings(loaded.pinned, find_protocol)
        ],
        "open": _unnamed(loaded),
        "unasked": _unasked(loaded),
    }


def _outcome_json(outcome: Outcome) -> dict[str, object]:
    return {
        "verdict": outcome.kind,
        "rule": outcome.rule,
        "when": outcome.when,
        "asks": list(outcome.who),
        "quorum": outcome.quorum if outcome.kind == "ask" else None,
    }


def _checked(check: CheckSpec) -> tuple[str, Text]:
    when = f", when {' '.join(check.when.split())}" if check.when is not None else ""
    unable = "; passes if that cannot be found out" if check.unable == "pass" else ""
    return check.after, Text.assemble((f"{check.name}: ", "dim"), f"{_by(check)}{when}{unable}")


def _by(check: CheckSpec) -> str:
    """Describe a probe as `by find_refund: result.status == 'settled'`."""
    expect = " ".join((check.expect or "").split())
    match check.kind:
        case "python":
            return f"by {check.python}"
        case "tool":
            return f"by {check.tool}: {expect}"
        case "expect":
            return expect
        case "model":
            return f"by {', else '.join(check.route)}"
        case "schema":
            return "by a schema"


def _probe(loaded: Loaded, definition: ToolDefinition) -> str:
    probe = loaded.pinned.probes.get(definition.tool.name)
    if probe is not None:
        return probe.tool
    return "people" if definition.tool.effect.changes_world else ""


def _compensation_json(loaded: Loaded, definition: ToolDefinition) -> dict[str, object] | None:
    spec = loaded.pinned.compensations.get(definition.tool.name)
    return None if spec is None else spec.model_dump(mode="json", by_alias=True)


def _probe_json(loaded: Loaded, definition: ToolDefinition) -> dict[str, object] | None:
    probe = loaded.pinned.probes.get(definition.tool.name)
    return None if probe is None else probe.model_dump(mode="json", by_alias=True)


def _check_json(check: CheckSpec) -> dict[str, object]:
    written = check.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {"name": check.name, "after": check.after, "by": check.kind, **written}


def _openings(loaded: Loaded) -> list[str]:
    """Return what the policy leaves open, a line each."""
    lines = [
        f"rule {rule} lets {_listed(tools)} change the world without a person and without a condition"
        for rule, tools in _unasked(loaded).items()
    ]
    for definition in loaded.pinned.tools:
        if places := _undeclared(definition):
            name, where = definition.tool.name, _listed(places)
            lines.append(f"{name} takes what its schema does not declare, which no rule can name: in {where}")
    if unnamed := _unnamed(loaded):
        lines.append(f"no rule allows {_listed(unnamed)}: each call waits for a person; allow it in `policy`")
    return lines


def _undeclared(definition: ToolDefinition) -> tuple[str, ...]:
    """Return where a tool takes arguments that its schema does not declare."""
    return find_open_places(definition.input_schema)


def _strange(loaded: Loaded) -> list[str]:
    """Return the servers whose words nobody has accepted, in one line."""
    if not loaded.strange:
        return []
    which = "; ".join(loaded.strange)
    told = f"what MCP servers say of their tools taints each run from its beginning ({which})"
    return [f"{told}; look at it and accept it: mandate validate --accept {loaded.path or 'FILE'}"]


def _unnamed(loaded: Loaded) -> list[str]:
    """Return tools that change the world and that nothing but people can allow, since no rule is about them."""
    return [
        definition.tool.name
        for definition in loaded.pinned.tools
        if len(outcomes := _outcomes(loaded, definition)) == 1
        and outcomes[0].kind == "ask"
        and outcomes[0].rule is None
    ]


def _unasked(loaded: Loaded) -> dict[str, list[str]]:
    pinned = loaded.pinned
    return runs_unasked(pinned.policy, pinned.people, [definition.tool for definition in pinned.tools])


def _outcomes(loaded: Loaded, definition: ToolDefinition) -> Sequence[Outcome]:
    return outcomes(loaded.pinned.policy, loaded.pinned.people, definition.tool)


def _claims(definition: ToolDefinition) -> tuple[str, ...]:
    """Return the claims of a foreign server on the tool's effect."""
    return definition.binding.claims if definition.binding.kind == "mcp" else ()


def _origin(definition: ToolDefinition) -> str:
    claims = _claims(definition)
    return f"{definition.tool.source}, says: {', '.join(claims)}" if claims else definition.tool.source


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)
